"""What a person marked right or wrong in the explorer: kept in a CSV file, read back as a benchmark, or as labels.

The file has a header and one line a mark: image,text,answer,verdict. `image` and `answer` are files of the archive,
`verdict` is "right", "wrong", or "" for a mark taken back; of several lines for one answer the last counts. A picture
that is not of the archive stands as "upload: " and its name.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from filelock import FileLock

from rscir_lib.apps.labelling.journal import HEADER as LABELS
from rscir_lib.apps.labelling.journal import read_rows, write_rows
from rscir_lib.archive import Archive
from rscir_lib.benchmarks.base import Benchmark, ValidationReport
from rscir_lib.benchmarks.image_names import ImageNames

HEADER = ["image", "text", "answer", "verdict"]
UPLOAD = "upload: "
VERDICTS = ("right", "wrong", "")


def add_mark(path: str | Path, image: str, text: str, answer: str, verdict: str) -> None:
    """Keep one mark. Raises ValueError for another verdict than right, wrong or "" (taken back)."""
    if verdict not in VERDICTS:
        raise ValueError(f"verdict {verdict!r} is none of right, wrong and blank")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        mark = pd.DataFrame([[image, text, answer, verdict]], columns=HEADER)
        earlier = marks_table(path) if path.exists() and path.stat().st_size else None
        write_rows(path, pd.concat([earlier, mark]))


def marks_table(path: str | Path) -> pd.DataFrame:
    """The marks that count, columns image, text, answer, verdict; empty where the file is not there yet.

    Raises ValueError naming file and line for another header or an unknown verdict.
    """
    last = {}
    for number, row in read_rows(path, HEADER, "marks"):
        if len(row) != len(HEADER) or row[3] not in VERDICTS:
            raise ValueError(f"{path}, line {number}: expected {','.join(HEADER)}, found {row}; mend or remove it")
        last[tuple(row[:3])] = row
    return pd.DataFrame([row for row in last.values() if row[3]], columns=HEADER)


def _marks_of(path: str | Path, archive: Archive) -> pd.DataFrame:
    """`marks_table`, refused where it names a file that the archive lacks."""
    table = marks_table(path)
    asked = table.loc[~table["image"].str.startswith(UPLOAD), "image"]
    if absent := sorted({*asked, *table["answer"]} - set(archive.files)):
        raise ValueError(f"{path} marks {len(absent)} images that {archive.name} lacks ({', '.join(absent[:3])})")
    return table


def read_marks(path: str | Path, archive: Archive) -> Benchmark:
    """The marks as a benchmark: a query for each image and text that has an answer marked right.

    Nobody looked at the other images: they are unknown, and are taken out of the ranking of that query. A picture
    alone, or words with others left out ("oval - cars"), is no question to compare methods on: the report names it.
    Raises ValueError naming files that the archive lacks, and where no answer is marked right.
    """
    table, report = _marks_of(path, archive), ValidationReport()
    row = {file: position for position, file in enumerate(archive.files)}
    queries, targets, unknowns = [], [], []
    for (image, text), marks in table.groupby(["image", "text"], sort=False):
        right = marks.loc[marks["verdict"] == "right", "answer"].map(row)
        if not text or " - " in f" {text}" or image.startswith(UPLOAD):
            why = "no words, words left out, or a picture that is not of the archive; not evaluated"
            report.add(Path(path).name, None, text, f"asked of {image}: {why}")
        elif len(right):
            own, nth = row[image], len(targets)
            queries.append(("marks", archive.classes[own], archive.names[own], "", text, own, nth, nth))
            targets.append(np.sort(right.to_numpy(dtype=int)))
            unknowns.append(np.setdiff1d(np.arange(len(archive)), marks["answer"].map(row)))
    if not queries:
        raise ValueError(f"{path}: no answer to a picture and words is marked right, so there is nothing to evaluate")
    columns = ["attribute", "group", "image", "value", "text", "position", "target", "unknown"]
    frame = pd.DataFrame(queries, columns=columns)
    labels = table.assign(attribute="marks", group="", value=table["verdict"], position=table["answer"].map(row))
    return Benchmark(archive, "marks", frame, tuple(targets), labels, report.table(), tuple(unknowns))


def marked_labels(path: str | Path, archive: Archive, values: list[str]) -> pd.DataFrame:
    """The marks as labels of one attribute, columns as in a journal (`labelling.read_journal`).

    An answer marked right for a text that is one of the `values` has that value; one marked right for two of them "",
    which is *can't tell*. Raises ValueError as `read_marks` does for files.
    """
    table, names = _marks_of(path, archive), ImageNames(archive)
    right = table[(table["verdict"] == "right") & table["text"].isin(values)].groupby("answer", sort=False)["text"]
    rows = [(names.name(file), texts.iloc[0] if texts.nunique() == 1 else "", "") for file, texts in right]
    return pd.DataFrame(rows, columns=LABELS, dtype=str)
