"""Benchmarks given query by query: an image, a text, and the one or several images that answer them."""

import csv
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd

from rscir_lib.archive import Archive, read_archive, read_lines
from rscir_lib.archive.archive import class_name
from rscir_lib.archive.reading import read_rule
from rscir_lib.benchmarks.base import QUERY_COLUMNS, Benchmark, ValidationReport, group_of
from rscir_lib.benchmarks.image_names import ImageNames
from rscir_lib.storage.atomic import read_json

FILES = ("triplets.csv", "triplets.json", "xview2_cir.csv")
# what data sets call the query image, what answers it, and the text; every field query_<wording> is a text too
IMAGE = ("image", "reference", "candidate")
TARGET = ("target", "targets", "target_hard")
TEXT = ("text", "caption", "captions")
SPLITS = ("test1", "val")  # of CIRR, the first whose answers are there: it keeps those of its test to itself
# where an entry stands, and its line; its image, its texts by wording, and the images that answer it
Triplet = tuple[str, int | None, str, dict[str, str], list[str]]


def read_triplets(root: str | Path, listing: str | Path | None = None, exclude_self: bool = True) -> Benchmark:
    """Composed queries as a file lists them (protocol, Triplets).

    A CSV has a header and one row per query, JSON a list of objects. Their fields are `IMAGE`, `TARGET` and `TEXT`.
    Images are named by the end of their path, with or without suffix, or with another where one file alone fits, which
    is reported. A query image outside `listing` asks from outside the archive (`query_archive`). A target outside the
    listing is left out; a query without any target left is reported and left out.

    Args:
        root, listing: As those of `read_benchmark`; the queries are in the first of `FILES` under the root.
        exclude_self: Whether a query image that is in the archive is taken out of its own ranking, as in CIRR.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: File, line or entry, and value of a missing field, a blank text, an unknown or ambiguous image, or
            a query that is its own answer while `exclude_self`.
    """
    archive = read_archive(root, listing)
    path = next((p for file in FILES if (p := archive.root / file).is_file()), None)
    if path is None:
        raise FileNotFoundError(f"{archive.root}: no triplets here. Expected {' or '.join(FILES)} in the root")
    return _benchmark(ImageNames(archive, listing, suffixless=True), "triplets", path, exclude_self)


def read_cirr(root: str | Path) -> Benchmark:
    """PatternCIR (Liang et al., IJCAI 2025, whose method is TisCIR), and CIRR (Liu et al., ICCV 2021).

    `cirr/captions/cap.rc2.<split>.json` has the queries, `cirr/image_splits/split.rc2.<split>.json` says where under
    the root each image of the split lies (protocol, Triplets); the split is the first of `SPLITS` with targets.

    Args:
        root: The folder with `cirr` and the images, or one with `captions`, `image_splits` and the images.

    Raises:
        FileNotFoundError: No split has both files.
        ValueError: No split has targets; file, entry and value of what can't be used.
    """
    root = Path(root).expanduser().resolve()
    folder = root / "cirr" if (root / "cirr" / "captions").is_dir() else root
    places = {s: (folder / f"captions/cap.rc2.{s}.json", folder / f"image_splits/split.rc2.{s}.json") for s in SPLITS}
    there = {split: paths for split, paths in places.items() if all(path.is_file() for path in paths)}
    if not there:
        raise FileNotFoundError(f"{folder}: no {' with '.join(p.name for p in places['test1'])}, nor those of val")
    for split in there:
        captions, images = there[split]
        if any(isinstance(one, dict) and "target_hard" in one for one in read_json(captions, list, "a list of pairs")):
            break
    else:
        asked = " and ".join(str(pairs) for pairs, _ in there.values())
        raise ValueError(f"{asked}: no pair has a target_hard: its answers aren't published")
    named = read_json(images, expected="names of images -> their paths below the root")
    if not named or not all(isinstance(file, str) for file in named.values()):
        raise ValueError(f"{images}: expected names of images -> their paths below {root}")
    files = tuple(dict.fromkeys(named.values()))
    classes = tuple(class_name(Path(file).parent.name) for file in files)
    try:
        archive = Archive(root, files, classes, read_rule(root), f"split {split}: {len(files)} images")
    except ValueError as error:
        raise ValueError(f"{images}: {error}") from error
    names = ImageNames(archive, suffixless=True)
    names.call(dict(zip(named, (archive.files[files.index(file)] for file in named.values()), strict=True)))
    return _benchmark(names, f"cirr-{split}", captions)


def _benchmark(names: ImageNames, protocol: str, path: Path, exclude_self: bool = True) -> Benchmark:
    """The benchmark of a file's entries, whose images have these names."""
    report = ValidationReport()
    classes = {file: cls for a in (names.archive, names.whole) for file, cls in zip(a.files, a.classes, strict=True)}
    rows: list[tuple[Any, ...]] = []
    sets: dict[tuple[int, ...], int] = {}
    outside: dict[str, int] = {}
    target_of: dict[tuple[str, str, str], int] = {}
    dropped = 0
    other_suffix: dict[str, str] = {}

    def find(name: str, where: str) -> str:
        """xView2-CIR's list names .tif, while the usual download holds .png."""
        stem = str(PurePosixPath(name).with_suffix(""))
        if name not in names and stem in names:
            return other_suffix.setdefault(name, names.find(stem, where))
        return names.find(name, where)

    for where, line, asking, texts, targets in (_read_csv if path.suffix == ".csv" else _read_json)(path, report):
        image = find(asking, where)
        positions = sorted({names.position(find(target, where)) for target in targets} - {-1})
        if not positions:
            dropped += len(texts)
            continue
        position, name = names.position(image), names.name(image)
        if exclude_self and position in positions:
            own = f"{asking!r} is its own target"
            raise ValueError(f"{where}: {own}; correct the row, or read with exclude_self=False")
        target = sets.setdefault(tuple(positions), len(sets))
        query = outside.setdefault(image, len(outside)) if position < 0 else -1
        for wording, text in texts.items():
            if target_of.setdefault((wording, image, text), target) != target:
                problem = "asked again with other targets; each is a query, judged by its own"
                report.add(path.name, line, f"{name} + {text}", problem)
            rows.append((wording, group_of(classes[image]), name, "", text, position, target, query))
    if other_suffix:
        name, file = next(iter(other_suffix.items()))
        report.add(path.name, None, f"{len(other_suffix)} names", f"of another suffix than the file: {name} is {file}")
    if dropped:
        report.add(path.name, None, f"{dropped} queries", "left out: no target of theirs is in the listing")
    if not rows:
        raise ValueError(f"{path}: no query has a target in the archive; the listing and the file must belong together")
    return Benchmark(
        names.archive, protocol, pd.DataFrame(rows, columns=[*QUERY_COLUMNS, "query"]), tuple(map(np.array, sets)),
        warnings=report.table(), exclude_self=exclude_self,
        query_archive=names.whole.subset([names.whole.files.index(file) for file in outside]) if outside else None,
    )  # fmt: skip


def _read_csv(path: Path, report: ValidationReport) -> Iterator[Triplet]:
    (first, header), *lines = read_lines(path)
    fields = [field.strip() for field in next(csv.reader([header]))]
    if len(set(fields)) < len(fields):
        raise ValueError(f"{path}, line {first}: a column is named twice in {fields}; rename one")
    _report_unread(path, fields, report)
    for number, line in lines:
        values = [value.strip() for value in next(csv.reader([line]))]
        if len(values) != len(fields):
            problem = f"expected {len(fields)} fields as the header has, found {len(values)}: {line!r}"
            raise ValueError(f"{path}, line {number}: {problem}")
        row = {name: value.split(";") if name in TARGET else value for name, value in zip(fields, values, strict=True)}
        yield _triplet(f"{path}, line {number}", number, row)


def _read_json(path: Path, report: ValidationReport) -> Iterator[Triplet]:
    entries = read_json(path, list, "JSON, a list of queries")
    if not entries or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(f"{path}: expected JSON, a list of queries, each an object with image, text and target")
    _report_unread(path, list(dict.fromkeys(field for entry in entries for field in entry)), report)
    for number, entry in enumerate(entries, 1):
        yield _triplet(f"{path}, entry {number}", None, entry)


def _triplet(where: str, line: int | None, row: dict[str, Any]) -> Triplet:
    image, targets = (_field(where, row, names) for names in (IMAGE, TARGET))
    targets = targets if isinstance(targets, list) and targets else [targets]
    texts = {field.removeprefix("query_"): row[field] for field in row if field.startswith("query_")}
    if any(name in row for name in TEXT) or not texts:
        text = _field(where, row, TEXT)
        texts["text"] = " and ".join(map(str, text)) if isinstance(text, list) else text
    for field, value in [("image", image), *(("target", target) for target in targets), *texts.items()]:
        if not (isinstance(value, str) and value.strip()):
            raise ValueError(f"{where}: {field} is {value!r}; expected a word")
    return where, line, image.strip(), texts, [target.strip() for target in targets]


def _field(where: str, row: dict[str, Any], names: tuple[str, ...]) -> Any:
    there = [name for name in names if name in row]
    if len(there) != 1:
        raise ValueError(f"{where}: expected one of the fields {', '.join(names)}; found {', '.join(there or row)}")
    return row[there[0]]


def _report_unread(path: Path, fields: list[str], report: ValidationReport) -> None:
    for field in fields:
        if field not in (*IMAGE, *TARGET, *TEXT) and not field.startswith("query_"):
            report.add(path.name, None, field, "a field that is not read")
