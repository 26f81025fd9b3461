"""The benchmark: attribute labels become composed queries, each with its relevant images (protocol, PatternCom)."""

import csv
from pathlib import Path

import numpy as np
import pandas as pd

from rscir_lib.archive import class_of, read_archive, read_lines
from rscir_lib.benchmarks.base import LABELS, QUERIES, Benchmark, ImageNames, Report, group_of

ATTRIBUTES = ("color", "context", "density", "existence", "quantity", "shape")

# PatternNet's 38 classes; the merges below speak of these
CLASSES = frozenset(
    "airplane baseballfield basketballcourt beach bridge cemetery chaparral christmastreefarm closedroad "
    "coastalmansion crosswalk denseresidential ferryterminal footballfield forest freeway golfcourse harbor "
    "intersection mobilehomepark nursinghome oilgasfield oilwell overpass parkinglot parkingspace railway river "
    "runway runwaymarking shippingyard solarpanel sparseresidential storagetank swimmingpool tenniscourt "
    "transformerstation wastewatertreatmentplant".split()
)
# Two classes that ask the same question: one group of queries in that attribute ...
MERGES = {
    "density": {"denseresidential": "residential", "sparseresidential": "residential"},
    "shape": {"closedroad": "road", "intersection": "road"},
    "context": {"bridge": "roadpass", "overpass": "roadpass"},
    "existence": {
        "ferryterminal": "pier",
        "harbor": "pier",
        "parkingspace": "parking",
        "parkinglot": "parking",
    },
}
# ... and one class when relevance is judged, whatever the attribute
RELEVANCE_MERGE = {cls: group for merge in MERGES.values() for cls, group in merge.items()}
FIRST_RELEASE_MERGES = MERGES | {
    "density": MERGES["density"] | {"christmastreefarm": "treecover", "forest": "treecover"}
}
PROTOCOLS = ("released", "first-release")


def read_patterncom(
    root: str | Path,
    attributes: tuple[str, ...] | list[str] | None = None,
    protocol: str = "released",
    listing: str | Path | None = None,
) -> Benchmark:
    """PatternCom's composed queries over the archive under `root` (protocol, Composed queries and Relevance).

    attributes: which of the files `PatternCom/<attribute>.csv` to read, whatever their names; where None, all that are
    there, PatternCom's own six first. protocol: `released`, or `first-release` (value equality alone decides
    relevance). listing: a part of the archive, see `read_archive`; labels of images outside it are left out and
    counted in the report. An image is named by its file name, or by as much of its path as tells it from others; in an
    archive without classes all images are one group. No image is opened.

    Raises FileNotFoundError for a missing file, ValueError (file, line, value) for a row that can't be used as it
    stands: wrong column count, another attribute, an image that the archive does not hold, a header, not UTF-8.
    Listed as warnings instead: a row listed twice, alike or with another value (the last decides relevance), a group
    with a single value (no query comes of it), a class that is not PatternNet's, one that its file name contradicts,
    one of PatternCom's six files missing beside others of them, and what else lies in the folder.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol {protocol!r} is unknown; choose one of {', '.join(PROTOCOLS)}")
    report = Report()
    archive = read_archive(root, listing)
    folder = archive.root / "PatternCom"
    there = _attribute_files(folder, report)
    if attributes is None:
        if set(there) & set(ATTRIBUTES):
            for attribute in sorted(set(ATTRIBUTES) - set(there)):
                report.add(f"{attribute}.csv", None, attribute, "no such file; the attribute is left out")
    else:
        _check_attributes(attributes, there, folder)
    foreign = sorted(set(archive.classes) - CLASSES - {""})
    if foreign and CLASSES.isdisjoint(archive.classes):
        report.add("archive", None, f"{len(foreign)} classes", "none is PatternNet's; no merge applies to them")
    else:
        for cls in foreign:
            report.add("archive", None, cls, "not one of PatternNet's 38 classes; no merge applies to it")
    names = ImageNames(archive, listing)

    queries, targets, labels = [], [], []
    for attribute in there if attributes is None else attributes:
        path = folder / f"{attribute}.csv"
        rows = _read_labels(path, attribute, names, report)
        rows = rows.assign(attribute=attribute, cls=[archive.classes[i] for i in rows["position"]])
        merges = (FIRST_RELEASE_MERGES if protocol == "first-release" else MERGES).get(attribute, {})
        rows["group"] = rows["cls"].replace(merges).map(group_of)
        _check_rows(rows, path.name, report)
        judged = rows["cls"].replace(RELEVANCE_MERGE) if protocol == "released" else ""
        rows["judged"] = judged  # the class that a relevant image must share; none in the first release
        queries.append(_compose(rows, targets))
        labels.append(rows[LABELS])
    if not labels:
        raise FileNotFoundError(
            f"{folder}: no attribute file here; `make fetch` gets PatternCom, and lines of `image,attribute,value` in "
            "<attribute>.csv make one of your own"
        )
    return Benchmark(
        archive,
        protocol,
        pd.concat(queries, ignore_index=True),
        tuple(targets),
        pd.concat(labels, ignore_index=True),
        report.table(),
    )


def _attribute_files(folder: Path, report: Report) -> list[str]:
    """The attributes that have a file, PatternCom's six first; what is no attribute file is reported."""
    found = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.suffix == ".csv" and path.is_file() and not path.name.startswith("."):
            other = found.setdefault(path.stem.casefold(), path.stem)
            if other != path.stem:
                raise ValueError(f"{folder}: {other}.csv and {path.name} differ in case alone; rename one")
        else:
            report.add(path.name, None, path.name, "not read: an attribute file is called <attribute>.csv")
    return sorted(found.values(), key=lambda name: (name not in ATTRIBUTES, name))


def _check_attributes(attributes: tuple[str, ...] | list[str], there: list[str], folder: Path) -> None:
    if isinstance(attributes, str) or not len(attributes):
        raise ValueError(f"attributes {attributes!r}: expected a list of names, such as {list(ATTRIBUTES[:2])}")
    twice = [attribute for attribute in attributes if list(attributes).count(attribute) > 1]
    if twice:
        raise ValueError(f"attributes {list(attributes)}: {twice[0]!r} is there twice; its queries would count double")
    unknown = [attribute for attribute in attributes if attribute not in (*ATTRIBUTES, *there)]
    if unknown:
        choice = dict.fromkeys((*ATTRIBUTES, *there))
        raise ValueError(f"unknown attributes {unknown}; choose from {', '.join(choice)}, or add the file to {folder}")
    for attribute in attributes:
        if attribute not in there:
            raise FileNotFoundError(
                f"{folder / attribute}.csv: no such file; `make fetch DATASET_ROOT=...` gets PatternCom"
            )


def _read_labels(path: Path, attribute: str, names: ImageNames, report: Report) -> pd.DataFrame:
    """The rows of one attribute file: line, image, value, position."""
    rows, outside = [], 0
    for number, line in read_lines(path):
        fields = [field.strip() for field in next(csv.reader([line]))]  # quotes hold a name with commas together
        where = f"{path}, line {number}"
        if len(fields) != 3 or not all(fields):
            raise ValueError(f"{where}: expected `file name,attribute,value`, found {line!r}")
        image, named, value = fields
        file = names.find(image, where, " (a header? PatternCom has none: remove the line)" if number == 1 else "")
        if named != attribute:
            raise ValueError(f"{where}: attribute {named!r} in the file of {attribute!r}; correct the row")
        if not any(map(str.isalnum, value)):
            raise ValueError(f"{where}: value {value!r} is no word to ask for; correct the row, or remove it")
        if names.position(file) < 0:
            outside += 1
        else:
            rows.append((number, names.name(file), value, names.position(file)))
    if outside:
        report.add(path.name, None, str(outside), "labelled images outside the listing are left out")
    return pd.DataFrame(rows, columns=["line", "image", "value", "position"])


def _check_rows(rows: pd.DataFrame, file: str, report: Report) -> None:
    for row in rows[rows["image"].duplicated()].itertuples():
        values = rows.loc[rows["image"] == row.image, "value"].unique()
        problem = (
            f"listed again with another value ({', '.join(values)}); each row is a query, the last decides relevance"
            if len(values) > 1
            else "listed again; each row is a query"
        )
        report.add(file, row.line, row.image, problem)
    named = rows["image"].map(lambda image: class_of(image.split("/")[-1]))
    contradicted = (rows["cls"] != named) & (rows["cls"].isin(CLASSES) | named.isin(CLASSES)) & (rows["cls"] != "")
    for row in rows.assign(named=named)[contradicted].drop_duplicates("cls").itertuples():
        report.add(file, row.line, row.image, f"named as {row.named!r}, listed as {row.cls!r}; used as listed")
    for group, values in rows.groupby("group")["value"]:
        if values.nunique() == 1:
            report.add(file, None, values.iloc[0], f"the only value of {group!r}: no query comes of it")


def _compose(rows: pd.DataFrame, targets: list[np.ndarray]) -> pd.DataFrame:
    """Each row with every other value of its group; appends the sets of relevant images to `targets`."""
    relevant = rows.drop_duplicates("image", keep="last").groupby(["judged", "value"])["position"]
    index = {key: len(targets) + i for i, (key, _) in enumerate(relevant)}
    targets.extend(np.sort(positions.to_numpy()) for _, positions in relevant)

    texts = rows[["group", "value"]].drop_duplicates().rename(columns={"value": "text"})
    queries = rows.merge(texts, on="group")  # which keeps the order of the rows
    queries = queries[queries["value"] != queries["text"]]
    # a value that only overwritten rows have is asked for, yet nothing is relevant to it
    nothing = len(targets)
    keys = zip(queries["judged"], queries["text"], strict=True)
    queries["target"] = np.fromiter((index.get(key, nothing) for key in keys), np.int64, len(queries))
    if (queries["target"] == nothing).any():
        targets.append(np.empty(0, dtype=np.int64))
    return queries[QUERIES]
