"""Benchmarks given query by query: an image, a text, and the one or several images that answer them."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from rscir_lib.archive import read_archive, read_lines
from rscir_lib.benchmarks.base import LABELS, QUERIES, Benchmark, ImageNames, Report, check_protocol, group_of

FILES = ("triplets.csv", "triplets.json", "xview2_cir.csv")
IMAGE = ("image", "reference", "candidate")  # what other data sets call the query image ...
TARGET = ("target", "targets", "target_hard")  # ... what answers it ...
TEXT = ("text", "caption", "captions")  # ... and the text; besides these every field query_<wording>


def read_triplets(
    root: str | Path,
    listing: str | Path | None = None,
    protocol: str = "triplets",
    file: str | Path | None = None,
    exclude_self: bool = True,
) -> Benchmark:
    """Composed queries as a file lists them, the first of `FILES` under the root, or `file`.

    A CSV has a header and a row a query, JSON a list of objects; their fields are `IMAGE`, `TARGET` and `TEXT` or
    `query_<wording>`. That reads
        xView2-CIR: `image,query_default,query_alt1,query_alt2,target` (billpsomas/rscir, xview2_cir.csv),
        CIRR: `reference`, `caption`, `target_hard`, and
        Fashion-IQ: `candidate`, `captions` (joined by "and"), `target`.
    Each wording is a query of its own, and an attribute in the tables ("default", "alt1", ...), so that the spread over
    wordings is seen. Several targets: a list in JSON, `;` between them in CSV. Nothing but the targets is relevant.

    Images are named by the end of their path, with or without suffix. A query image outside `listing` is asked from
    outside the archive (`query_archive`): xView2's images before the event, say, over an archive of those after it. A
    target outside it is left out; a query without any target left is reported and left out.
    exclude_self: whether a query image that is in the archive is taken out of its own ranking, as in CIRR.

    Raises FileNotFoundError without a file, ValueError (file, line or entry, value) for a missing field, a blank text,
    an unknown or ambiguous image, and a query that is its own answer while `exclude_self`.
    """
    check_protocol(protocol, "triplets")
    archive, report = read_archive(root, listing), Report()
    path = Path(file).expanduser() if file else next((p for f in FILES if (p := archive.root / f).exists()), None)
    if path is None or not path.is_file():
        raise FileNotFoundError(f"{path or archive.root}: no triplets here. Expected {' or '.join(FILES)} in the root")
    names = ImageNames(archive, listing, suffixless=True)
    place = {f: position for position, f in enumerate(names.whole.files)}
    queries, index, outside, dropped = [], {}, {}, 0
    read, asked = _rows if path.suffix == ".csv" else _entries, {}
    for where, number, image, texts, answers in read(path, report):
        query = names.find(image, where)
        found = sorted({names.position(names.find(answer, where)) for answer in answers} - {-1})
        if not found:
            dropped += len(texts)
            continue
        position = names.position(query)
        if exclude_self and position in found:
            raise ValueError(f"{where}: {image!r} is its own target; correct the row, or read with exclude_self=False")
        target = index.setdefault(tuple(found), len(index))
        elsewhere = outside.setdefault(query, len(outside)) if position < 0 else -1
        cls = names.whole.classes[place[query]] if query in place else archive.classes[position]
        for attribute, text in texts.items():
            if asked.setdefault((attribute, query, text), target) != target:
                problem = "asked again with other targets; each is a query, judged by its own"
                report.add(path.name, number, f"{names.name(query)} + {text}", problem)
            row = (attribute, group_of(cls), names.name(query), "", text, position, target, elsewhere)
            queries.append(row)
    if dropped:
        report.add(path.name, None, f"{dropped} queries", "left out: no target of theirs is in the listing")
    if not queries:
        raise ValueError(f"{path}: no query has a target in the archive; the listing and the file must belong together")
    return Benchmark(
        archive,
        "triplets",
        pd.DataFrame(queries, columns=[*QUERIES, "query"]),
        tuple(np.array(found) for found in index),
        pd.DataFrame(columns=LABELS).astype({"position": np.int64}),
        report.table(),
        query_archive=names.whole.subset(place[f] for f in outside) if outside else None,
        exclude_self=exclude_self,
    )


Query = tuple[str, int | None, str, dict[str, str], list[str]]  # where, line, image, attribute -> text, targets


def _rows(path: Path, report: Report) -> Iterator[Query]:
    (first, header), *lines = read_lines(path)
    fields = [field.strip() for field in next(csv.reader([header]))]
    if len(set(fields)) < len(fields):
        raise ValueError(f"{path}, line {first}: a column is named twice in {fields}; rename one")
    _report_unread(path, fields, report)
    for number, line in lines:
        values = [value.strip() for value in next(csv.reader([line]))]
        where = f"{path}, line {number}"
        if len(values) != len(fields):
            raise ValueError(f"{where}: expected {len(fields)} fields as the header has, found {len(values)}: {line!r}")
        row = dict(zip(fields, values, strict=True))
        targets = next((name for name in TARGET if name in row), None)
        yield _query(where, number, row | ({targets: row[targets].split(";")} if targets else {}))


def _entries(path: Path, report: Report) -> Iterator[Query]:
    try:
        entries = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: expected JSON in UTF-8, a list of queries ({error})") from None
    if not (isinstance(entries, list) and entries and all(isinstance(entry, dict) for entry in entries)):
        raise ValueError(f"{path}: expected JSON, a list of queries, each an object with image, text and target")
    _report_unread(path, list(dict.fromkeys(field for entry in entries for field in entry)), report)
    for number, entry in enumerate(entries, 1):
        yield _query(f"{path}, entry {number}", None, entry)


def _query(where: str, line: int | None, row: dict) -> Query:
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


def _field(where: str, row: dict, names: tuple[str, ...]) -> object:
    found = [name for name in names if name in row]
    if len(found) != 1:
        raise ValueError(
            f"{where}: expected one of the fields {', '.join(names)}; found {', '.join(found) or list(row)}"
        )
    return row[found[0]]


def _report_unread(path: Path, fields: list[str], report: Report) -> None:
    for field in fields:
        if field not in (*IMAGE, *TARGET, *TEXT) and not field.startswith("query_"):
            report.add(path.name, None, field, "a field that is not read")
