"""Existence queries from complete human multi-labels."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from rscir_lib.archive import Archive, read_archive, read_lines
from rscir_lib.benchmarks.base import Benchmark, ImageNames, Questions, Report, check_protocol, group_of

MIN_LABELLED = 2  # a multi-label makes queries in a class where it is present and absent at least this often
FILE = "multilabels.tsv"


@dataclass(frozen=True)
class MultiLabels:
    """present: (N, L) booleans, whether image i of an archive of N shows the thing words[j]."""

    words: tuple[str, ...]
    present: np.ndarray


def read_multilabels(root: str | Path, listing: str | Path | None = None, protocol: str = "multi-label") -> Benchmark:
    """Existence queries from complete human multi-labels: "this image, but with *cars*".

    Where a label of `root/multilabels.tsv` (see `read_table`) is present and absent at least `MIN_LABELLED` times in a
    class, each image of the class without it is paired with the label's name as text; relevant are the images of the
    class that have it, negative all others. This is not PatternCom: its existence labels name one value an image, these
    say of every label whether it is there.

    Raises what `read_table` does, and ValueError where no label varies within a class, or for another protocol.
    """
    check_protocol(protocol, "multi-label")
    archive, report = read_archive(root, listing), Report()
    questions = Questions(archive)
    for group, word, values in varying(archive, read_table(archive, listing, report)):
        questions.ask("existence", group, values, [word])
    if not questions:
        raise ValueError(
            f"{archive.root / FILE}: no label is there in {MIN_LABELLED} images of a class and missing in as many, so "
            "there is nothing to ask; label more images"
        )
    return questions.benchmark("multi-label", report)


def varying(archive: Archive, table: MultiLabels) -> Iterator[tuple[str, str, pd.Series]]:
    """For each class and label that is there and not there often enough: a group, the label, and the value of each
    image of the class, which is the label or "no" before it."""
    classes = np.array(archive.classes)
    for cls in dict.fromkeys(archive.classes):
        members = np.flatnonzero(classes == cls)
        for word, has in zip(table.words, table.present[members].T, strict=True):
            if min(has.sum(), (~has).sum()) >= MIN_LABELLED:
                yield f"{group_of(cls)}: {word}", word, pd.Series(np.where(has, word, f"no {word}"), index=members)


def read_table(archive: Archive, listing: str | Path | None, report: Report) -> MultiLabels:
    """The multi-labels of an archive, or of the part of it that `listing` gives.

    `multilabels.tsv` in its root: a header (anything, then a label a column), then a row an image (its name or path,
    with or without suffix, then 0 or 1 a label), separated by tabs. In a label, `-` and `_` stand for a space.

    Raises ValueError (file, line, value) for a malformed row or label, a label or an image named twice (rows that say
    the same are reported instead), an image that the archive does not hold, and one that has no row.
    """
    path = archive.root / FILE
    (line, header), *lines = read_lines(path)
    words = _words(f"{path}, line {line}", header)
    names = ImageNames(archive, listing, suffixless=True)
    rows: dict[str, tuple[int, list[str]]] = {}
    for number, text in lines:
        said, *values = (field.strip() for field in text.split("\t"))
        where = f"{path}, line {number}"
        if len(values) != len(words):
            raise ValueError(
                f"{where}: expected an image and {len(words)} values 0 or 1 between tabs, found {text!r}; "
                "correct the row as the header has it"
            )
        if wrong := [value for value in values if value not in ("0", "1")]:
            raise ValueError(f"{where}: value {wrong[0]!r} of {said!r}; expected 0 or 1 (it is complete: no blanks)")
        file = names.find(said, where)
        first, same = rows.setdefault(file, (number, values))
        if same != values:
            raise ValueError(f"{where}: {said!r} has other values than in line {first}; keep the row that is right")
        if first != number:
            report.add(path.name, number, said, f"listed again as in line {first}; counted once")
    missing = [file for file in archive.files if file not in rows]
    if missing:
        raise ValueError(
            f"{path}: no row for image {missing[0]!r} ({len(missing)} images of the archive have none); add "
            "them, or restrict the archive by a listing"
        )
    outside = sum(names.position(file) < 0 for file in rows)
    if outside:
        report.add(path.name, None, str(outside), "labelled images outside the listing are left out")
    return MultiLabels(tuple(words), np.array([rows[file][1] for file in archive.files]) == "1")


def _words(where: str, header: str) -> list[str]:
    if "\t" not in header:
        found = "commas" if "," in header else "no tab"
        raise ValueError(
            f"{where}: expected a header of labels between tabs, found {found}: {header[:60]!r}; save as TSV"
        )
    words = [word.replace("-", " ").replace("_", " ").strip() for word in header.split("\t")[1:]]
    for column, word in enumerate(words, 2):
        if not any(map(str.isalnum, word)):
            raise ValueError(f"{where}: the label of column {column} is {word!r}, no word to ask for; name it")
        if word in words[: column - 2]:
            raise ValueError(f"{where}: two columns of the name {word!r}; rename or remove one")
    return words
