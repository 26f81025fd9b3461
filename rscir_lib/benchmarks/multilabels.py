"""Existence queries from complete human multi-labels."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from rscir_lib.archive import Archive, read_archive, read_lines
from rscir_lib.benchmarks.base import Benchmark, ValidationReport, benchmark_of_labels, group_of, label_rows
from rscir_lib.benchmarks.image_names import ImageNames

# A label makes queries in a class where at least so many images have it and as many lack it. With one, a single image
# would answer all queries of its class; with more, small classes lose their queries.
MIN_LABELLED = 2
# ours, and that of Chaudhuri et al.'s download for UC Merced, unpacked or put beside the images
FILES = ("multilabels.tsv", "LandUse_Multilabeled.txt", "multilabels/LandUse_Multilabeled.txt")


def read_multilabels(root: str | Path, listing: str | Path | None = None) -> Benchmark:
    """Existence queries from complete human multi-labels: "this image, but with *cars*".

    Where a label of the first of `FILES` (see `read_table`) is present and absent at least `MIN_LABELLED` times in a
    class, each image of the class without it is paired with the label's name as text. Relevant are the images of the
    class that have it, negative are all others.

    Raises:
        ValueError: As `read_table`; or no label varies within a class.
    """
    archive, report = read_archive(root, listing), ValidationReport()
    names, rows, texts = ImageNames(archive), [], []
    for group, word, values in varying(archive, read_table(archive, listing, report)):
        rows.append(label_rows(names, "existence", group, values))
        texts.append(("existence", group, word))
    if not rows:
        nothing = f"no label is there in {MIN_LABELLED} images of a class and missing in as many"
        raise ValueError(f"{label_file(archive.root)}: {nothing}, so there is nothing to ask; label more images")
    return benchmark_of_labels(archive, "multi-label", pd.concat(rows, ignore_index=True), report, texts)


def label_file(root: Path) -> Path:
    """The first of `FILES` that is there; the first of all, where none is."""
    return next((root / file for file in FILES if (root / file).is_file()), root / FILES[0])


def varying(archive: Archive, table: pd.DataFrame) -> Iterator[tuple[str, str, pd.Series]]:
    """The labels that at least `MIN_LABELLED` images of a class have, and as many lack. Of each the name of the group,
    the label, and by archive position each image's value: the label, or "no" before it."""
    words, classes = [str(word) for word in table.columns], np.array(archive.classes)
    for cls in dict.fromkeys(archive.classes):
        members = np.flatnonzero(classes == cls)
        for word, has in zip(words, table.to_numpy()[members].T, strict=True):
            if min(has.sum(), (~has).sum()) >= MIN_LABELLED:
                yield f"{group_of(cls)}: {word}", word, pd.Series(np.where(has, word, f"no {word}"), index=members)


def read_table(archive: Archive, listing: str | Path | None, report: ValidationReport) -> pd.DataFrame:
    """The multi-labels of an archive, or of the part of it that `listing` gives.

    The first of `FILES` in its root is separated by tabs: a header of anything, then one label per column; below it one
    row per image, its name or path with or without suffix, then 0 or 1 for each label. In a label, `-` and `_` stand
    for a space.

    Returns:
        (N, L) booleans, a row per image of the archive, a column per label.

    Raises:
        ValueError: File, line and value of a malformed row or label, a label or an image named twice (rows that say
            the same are reported instead), an image that the archive doesn't hold, or one that has no row.
    """
    path = label_file(archive.root)
    (line, header), *lines = read_lines(path)
    words = _words(f"{path}, line {line}", header)
    names = ImageNames(archive, listing, suffixless=True)
    rows: dict[str, tuple[int, list[str]]] = {}
    for number, text in lines:
        name, *values = (field.strip() for field in text.split("\t"))
        where = f"{path}, line {number}"
        if len(values) != len(words):
            expected = f"expected an image and {len(words)} values 0 or 1 between tabs, found {text!r}"
            raise ValueError(f"{where}: {expected}; correct the row as the header has it")
        if wrong := [value for value in values if value not in ("0", "1")]:
            raise ValueError(f"{where}: value {wrong[0]!r} of {name!r}; expected 0 or 1 (it is complete: no blanks)")
        file = names.find(name, where)
        first, same = rows.setdefault(file, (number, values))
        if same != values:
            raise ValueError(f"{where}: {name!r} has other values than in line {first}; keep the row that is right")
        if first != number:
            report.add(path.name, number, name, f"listed again as in line {first}; counted once")
    missing = [file for file in archive.files if file not in rows]
    if missing:
        count = f"({len(missing)} images of the archive have none); add them, or restrict the archive by a listing"
        raise ValueError(f"{path}: no row for image {missing[0]!r} {count}")
    outside = sum(names.position(file) < 0 for file in rows)
    if outside:
        report.add(path.name, None, str(outside), "labelled images outside the listing are left out")
    return pd.DataFrame(np.array([rows[file][1] for file in archive.files]) == "1", columns=words)


def _words(where: str, header: str) -> list[str]:
    if "\t" not in header:
        given = f"{'commas' if ',' in header else 'no tab'}: {header[:60]!r}"
        raise ValueError(f"{where}: expected a header of labels between tabs, found {given}; save as TSV")
    words = [word.replace("-", " ").replace("_", " ").strip() for word in header.split("\t")[1:]]
    for column, word in enumerate(words, 2):
        if not any(map(str.isalnum, word)):
            raise ValueError(f"{where}: the label of column {column} is {word!r}, no word to ask for; name it")
        if word in words[: column - 2]:
            raise ValueError(f"{where}: two columns of the name {word!r}; rename or remove one")
    return words
