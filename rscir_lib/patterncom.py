"""The benchmark: attribute labels become composed queries, each with its relevant images (PROTOCOL.md, PatternCom)."""

from pathlib import Path

import numpy as np
import pandas as pd

from rscir_lib.archive import class_of, read_archive, read_lines
from rscir_lib.benchmark import Benchmark, Report

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

    attributes: which to read, all six where None (a missing file is then a warning). protocol: `released`, or
    `first-release` (value equality alone decides relevance). listing: a part of the archive, see `read_archive`;
    labels of images outside it are left out and counted in the report. No image is opened.

    Raises FileNotFoundError for a missing file, ValueError (file, line, value) for a row that can't be used as it
    stands: wrong column count, another attribute, an image that the archive does not hold, a header, not UTF-8.
    Listed as warnings instead: a row listed twice, alike or with another value (the last decides relevance), a group
    with a single value (no query comes of it), a class that is not PatternNet's, one that its file name contradicts.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol {protocol!r} is unknown; choose one of {', '.join(PROTOCOLS)}")
    unknown = set(attributes or ()) - set(ATTRIBUTES)
    if unknown:
        raise ValueError(f"unknown attributes {sorted(unknown)}; choose from {', '.join(ATTRIBUTES)}")
    archive = read_archive(root, listing)
    report = Report()
    for cls in sorted(set(archive.classes) - CLASSES):
        report.add("archive", None, cls, "not one of PatternNet's 38 classes; no merge applies to it")
    positions = _positions(archive.names)
    whole = _positions(read_archive(root).names) if listing else positions

    queries, targets, labels = [], [], []
    for attribute in attributes or ATTRIBUTES:
        path = archive.root / "PatternCom" / f"{attribute}.csv"
        if not path.is_file():
            if attributes is None:
                report.add(path.name, None, attribute, "no such file; the attribute is left out")
                continue
            raise FileNotFoundError(f"{path}: no such file; `make fetch DATASET_ROOT=...` gets PatternCom")
        rows = _read_labels(path, attribute, positions, whole, report)
        rows = rows.assign(attribute=attribute, cls=[archive.classes[i] for i in rows["position"]])
        merges = (FIRST_RELEASE_MERGES if protocol == "first-release" else MERGES).get(attribute, {})
        rows["group"] = rows["cls"].replace(merges)
        _check_rows(rows, path.name, report)
        judged = rows["cls"].replace(RELEVANCE_MERGE) if protocol == "released" else ""
        rows["judged"] = judged  # the class that a relevant image must share; none in the first release
        queries.append(_compose(rows, targets))
        labels.append(rows[["attribute", "image", "group", "value", "position"]])
    if not labels:
        raise FileNotFoundError(f"{archive.root / 'PatternCom'}: no attribute file; `make fetch` gets PatternCom")
    return Benchmark(
        archive,
        protocol,
        pd.concat(queries, ignore_index=True),
        tuple(targets),
        pd.concat(labels, ignore_index=True),
        report.table(),
    )


def _positions(names: tuple[str, ...]) -> dict[str, int]:
    """File name -> archive position; -1 where two images share the name."""
    positions: dict[str, int] = {}
    for i, name in enumerate(names):
        positions[name] = -1 if name in positions else i
    return positions


def _read_labels(
    path: Path, attribute: str, positions: dict[str, int], whole: dict[str, int], report: Report
) -> pd.DataFrame:
    """The rows of one attribute file: line, image, value, position. `whole`: positions in the unrestricted archive."""
    rows, outside = [], 0
    for number, line in read_lines(path):
        fields = [field.strip() for field in line.split(",")]
        where = f"{path}, line {number}"
        if len(fields) != 3 or not all(fields):
            raise ValueError(f"{where}: expected `file name,attribute,value`, found {line!r}")
        image, named, value = fields
        if image not in whole:
            hint = " (a header? PatternCom has none: remove the line)" if number == 1 else ""
            raise ValueError(
                f"{where}: image {image!r} is not in the archive{hint}; the archive and PatternCom must belong together"
            )
        if named != attribute:
            raise ValueError(f"{where}: attribute {named!r} in the file of {attribute!r}; correct the row")
        if whole[image] < 0:
            raise ValueError(f"{where}: the archive holds several images named {image!r}; rename them")
        if image in positions:
            rows.append((number, image, value, positions[image]))
        else:
            outside += 1
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
    for row in rows[rows["cls"] != rows["image"].map(class_of)].drop_duplicates("cls").itertuples():
        report.add(
            file,
            row.line,
            row.image,
            f"named as {class_of(row.image)!r}, listed as {row.cls!r}; used as listed",
        )
    for group, values in rows.groupby("group")["value"]:
        if values.nunique() == 1:
            report.add(file, None, values.iloc[0], f"the only value of {group!r}: no query comes of it")


def _compose(rows: pd.DataFrame, targets: list[np.ndarray]) -> pd.DataFrame:
    """Each row with every other value of its group; appends the sets of relevant images to `targets`."""
    relevant = rows.drop_duplicates("image", keep="last").groupby(["judged", "value"])["position"]
    index = {key: len(targets) + i for i, (key, _) in enumerate(relevant)}
    targets.extend(np.sort(positions.to_numpy()) for _, positions in relevant)

    texts = rows[["group", "value"]].drop_duplicates().rename(columns={"value": "text"})
    queries = rows.reset_index(names="row").merge(texts, on="group", how="left").sort_values("row", kind="stable")
    queries = queries[queries["value"] != queries["text"]]
    # a value that only overwritten rows have is asked for, yet nothing is relevant to it
    if not set(zip(queries["judged"], queries["text"], strict=True)) <= index.keys():
        nothing = len(targets)
        targets.append(np.empty(0, dtype=np.int64))
    else:
        nothing = -1
    keys = zip(queries["judged"], queries["text"], strict=True)
    queries["target"] = np.fromiter((index.get(key, nothing) for key in keys), np.int64, len(queries))
    return queries[["attribute", "group", "image", "value", "text", "position", "target"]]
