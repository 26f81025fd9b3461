"""What people say an image shows: a journal a person, their agreement, and PatternCom's attribute file out of it.

A journal is a CSV file with the header image,value,proposed and a line an image: the value a person gave it ("" where
they could not tell) and the one that was proposed ("" where none was).
"""

import csv
import io
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import pandas as pd

from rscir_lib.storage.atomic import write_text
from rscir_lib.storage.cells import as_cell, from_cell

HEADER = ["image", "value", "proposed"]


def read_rows(path: str | Path, header: list[str], kind: str, data: bytes = b"") -> Iterator[tuple[int, list[str]]]:
    """The lines below the header of a CSV file, or of `data` for it, each with its number; none without the file.

    Raises ValueError naming file and line for another header, a line that doesn't fit it, and what is not CSV.
    """
    if not (data or Path(path).exists()):
        return
    try:
        lines = list(csv.reader(io.StringIO((data or Path(path).read_bytes()).decode("utf-8-sig"), newline="")))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: not a CSV file in UTF-8 ({error}); restore it, or move it away") from None
    columns = ",".join(header)
    if lines[:1] != [header]:
        raise ValueError(f"{path}, line 1: expected the header {columns}; these are no {kind}")
    for number, row in enumerate(lines[1:], 2):
        if len(row) != len(header) or not row[0]:
            raise ValueError(f"{path}, line {number}: expected {columns}, found {','.join(row)!r}; mend or remove it")
        yield number, [from_cell(cell) for cell in row]


def write_rows(path: str | Path, table: pd.DataFrame) -> None:
    """Write a table whole, as `read_rows` reads it. Raises ValueError, and writes nothing, for what that couldn't."""
    text = table.map(as_cell).to_csv(index=False, lineterminator="\n")
    rows: list[list[str]] = []
    with suppress(ValueError):
        rows = [row for _, row in read_rows(path, [*map(str, table)], "rows", text.encode())]
    if rows != table.to_numpy().tolist():
        raise ValueError(f"{path} can't hold this: too long, half a character, a line break; write it in other words")
    write_text(path, text)


def read_journal(path: str | Path) -> pd.DataFrame:
    """A person's labels, columns image, value, proposed; empty where the file is not there yet.

    Raises ValueError naming file and line for another header, a row of another length, or an image named twice.
    """
    rows: dict[str, list[str]] = {}
    for number, row in read_rows(path, HEADER, "labels"):
        if row[0] in rows:
            raise ValueError(f"{path}, line {number}: {row[0]!r} is labelled twice; keep one of the lines")
        rows[row[0]] = row
    return pd.DataFrame(rows.values(), columns=HEADER, dtype=str)


def read_journals(folder: str | Path) -> dict[str, pd.DataFrame]:
    """The journals in a folder by the people's names, which are their files': `<person>.csv`."""
    return {path.stem: read_journal(path) for path in sorted(Path(folder).glob("*.csv"))}


def changed_share(labels: pd.DataFrame) -> float:
    """Share of the proposals that a person answered with another value; NaN where nothing was proposed."""
    answered = labels[(labels["proposed"] != "") & (labels["value"] != "")]
    return float((answered["value"] != answered["proposed"]).mean())


def cohens_kappa(a: Sequence[str], b: Sequence[str]) -> float:
    """Agreement of two people on the same images beyond chance (Cohen 1960): 1 is perfect, 0 what chance gives.

    NaN without images, and where both always say the same one value: chance alone would agree as well.
    """
    if len(a) != len(b):
        raise ValueError(f"{len(a)} labels against {len(b)}: both people must have labelled the same images")
    one, other = pd.Series(list(a), dtype=object), pd.Series(list(b), dtype=object)
    by_chance = (one.value_counts(normalize=True) * other.value_counts(normalize=True)).sum()  # of each value, both
    return float(((one == other).mean() - by_chance) / (1 - by_chance)) if len(a) and by_chance < 1 else float("nan")


def agreement(journals: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Each pair of people: how many images both labelled, the share they agree on (in [0, 1]), and Cohen's kappa."""
    rows = []
    for (one, a), (other, b) in itertools.combinations(journals.items(), 2):
        both = a[a["value"] != ""].merge(b[b["value"] != ""], on="image", suffixes=("_a", "_b"))
        agree = (both["value_a"] == both["value_b"]).mean()
        rows.append((one, other, len(both), agree, cohens_kappa(list(both["value_a"]), list(both["value_b"]))))
    return pd.DataFrame(rows, columns=["one", "other", "images", "agree", "kappa"])


def merge_journals(journals: Mapping[str, pd.DataFrame]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Labels that more than half of those who could tell gave, and the images left open.

    Returns (labels: image, value; open: image, values said, how often each). An image that nobody could tell is open.
    """
    answers = pd.concat([pd.DataFrame(columns=HEADER), *journals.values()])
    labels, left = [], []
    for image, values in answers.groupby("image", sort=False)["value"]:
        counts = values[values != ""].value_counts()
        if len(counts) and 2 * counts.iloc[0] > counts.sum():
            labels.append((image, counts.index[0]))
        else:
            each = ", ".join(f"{value} {count}" for value, count in counts.items())
            left.append((image, each or "nobody could tell"))
    return pd.DataFrame(labels, columns=["image", "value"]), pd.DataFrame(left, columns=["image", "said"])


def write_patterncom(labels: pd.DataFrame, attribute: str, folder: str | Path) -> Path:
    """Write `folder/<attribute>.csv` in PatternCom's format (protocol, Data) from columns image, value; return it.

    Raises ValueError for an attribute, image or value that the format can't hold, and without labels.
    """
    if labels.empty:
        raise ValueError(f"no label of {attribute!r} to write: label some images first")
    check_words([attribute], "attribute")
    check_words(labels["value"].unique(), "value")
    if (bad := labels.loc[labels["image"].str.contains("[,\n]"), "image"]).size:
        raise ValueError(f"{bad.iloc[0]!r}: PatternCom's format has no comma in a file name; rename the image")
    path = Path(folder) / f"{attribute}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_text(path, "".join(f"{row.image},{attribute},{row.value}\n" for row in labels.itertuples()))


def check_words(words: Iterable[str], name: str) -> None:
    """Raises ValueError for a word that can't stand in PatternCom's files (blank, with comma, slash or line break)."""
    for word in words:
        if not isinstance(word, str) or not word or word != word.strip() or set(word) & set(',/\\\n\r"'):
            raise ValueError(f"{name} {word!r}: give a word without comma, quote, slash, line break or outer blanks")
