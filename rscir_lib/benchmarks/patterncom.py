"""PatternCom: attribute labels become composed queries, each with its relevant images (protocol, PatternCom)."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from rscir_lib.archive import Archive, class_of, read_archive, read_lines
from rscir_lib.benchmarks.base import ATTRIBUTES, Benchmark, ValidationReport, benchmark_of_labels, group_of
from rscir_lib.benchmarks.image_names import ImageNames, plain_word

# PatternNet's 38 classes; the merges below speak of these
CLASSES = frozenset(
    "airplane baseballfield basketballcourt beach bridge cemetery chaparral christmastreefarm closedroad "
    "coastalmansion crosswalk denseresidential ferryterminal footballfield forest freeway golfcourse harbor "
    "intersection mobilehomepark nursinghome oilgasfield oilwell overpass parkinglot parkingspace railway river "
    "runway runwaymarking shippingyard solarpanel sparseresidential storagetank swimmingpool tenniscourt "
    "transformerstation wastewatertreatmentplant".split()
)
# Classes that form one group of queries in that attribute ...
MERGES = {
    "density": {"denseresidential": "residential", "sparseresidential": "residential"},
    "shape": {"closedroad": "road", "intersection": "road"},
    "context": {"bridge": "roadpass", "overpass": "roadpass"},
    "existence": {"ferryterminal": "pier", "harbor": "pier", "parkingspace": "parking", "parkinglot": "parking"},
}
# ... and count as one class when relevance is judged, whatever the attribute
RELEVANCE_MERGE = {cls: group for merge in MERGES.values() for cls, group in merge.items()}
FIRST_RELEASE_MERGES = MERGES | {
    "density": MERGES["density"] | {"christmastreefarm": "treecover", "forest": "treecover"}
}
PROTOCOLS = ("released", "first-release")


def read_patterncom(
    root: str | Path,
    attributes: Sequence[str] | None = None,
    protocol: str = "released",
    listing: str | Path | None = None,
) -> Benchmark:
    """PatternCom's composed queries over the archive under `root` (protocol, PatternCom). No image is opened.

    Tolerated, and listed in `Benchmark.warnings`: a row that is listed twice, alike or with another value (the last
    decides relevance); a group with a single value, which makes no query; a class that is not PatternNet's, or that its
    file name contradicts; one of PatternCom's six files missing beside others of them; what else lies in the folder.

    Args:
        root: The folder of images, with `PatternCom/<attribute>.csv`. In an archive without classes all images are one
            group.
        attributes: The files to read; None for all that are there, PatternCom's own six first.
        protocol: "released", or "first-release", in which the value alone decides relevance.
        listing: A part of the archive, see `read_archive`; labels of images outside it are counted and left out.

    Raises:
        FileNotFoundError: There is no attribute file, or not the one asked for.
        ValueError: File, line and value of a row that can't be used as it stands: wrong number of columns, another
            attribute, an image that the archive doesn't hold (`ImageNames`), a header, text that is not UTF-8.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol {protocol!r} is unknown; choose one of {', '.join(PROTOCOLS)}")
    report = ValidationReport()
    archive = read_archive(root, listing)
    folder = archive.root / "PatternCom"
    chosen = _choose_attributes(attributes, folder, report)
    _report_classes(archive, report)
    names = ImageNames(archive, listing)

    parts = []
    for attribute in chosen:
        path = folder / f"{attribute}.csv"
        rows = _read_labels(path, attribute, names, report)
        rows = rows.assign(attribute=attribute, cls=[archive.classes[i] for i in rows["position"]])
        merges = (FIRST_RELEASE_MERGES if protocol == "first-release" else MERGES).get(attribute, {})
        rows["group"] = rows["cls"].replace(merges).map(group_of)
        _check_rows(rows, path.name, report)
        # the class that a relevant image must share with the query; the first release had no such rule
        rows["shared"] = rows["cls"].replace(RELEVANCE_MERGE) if protocol == "released" else ""
        parts.append(rows)
    return benchmark_of_labels(archive, protocol, pd.concat(parts, ignore_index=True), report)


def _choose_attributes(attributes: Sequence[str] | None, folder: Path, report: ValidationReport) -> Sequence[str]:
    """The attributes to read, each of which has a file, PatternCom's six first; what is amiss is reported or raised."""
    there: list[str] = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.suffix != ".csv" or not path.is_file() or path.name.startswith("."):
            report.add(path.name, None, path.name, "not read: an attribute file is called <attribute>.csv")
        elif twins := [stem for stem in there if stem.casefold() == path.stem.casefold()]:
            raise ValueError(f"{folder}: {twins[0]}.csv and {path.name} differ in case alone; rename one")
        else:
            there.append(path.stem)
    there.sort(key=lambda name: (name not in ATTRIBUTES, name))
    if attributes is None and not there:
        raise FileNotFoundError(
            f"{folder}: no attribute file here; `make fetch` gets PatternCom, and lines of `image,attribute,value` in "
            "<attribute>.csv make one of your own"
        )
    if attributes is None:
        for attribute in ATTRIBUTES if set(there) & set(ATTRIBUTES) else ():
            if attribute not in there:
                report.add(f"{attribute}.csv", None, attribute, "no such file; the attribute is left out")
        return there
    if isinstance(attributes, str) or not len(attributes):
        raise ValueError(f"attributes {attributes!r}: expected a list of names, such as {list(ATTRIBUTES[:2])}")
    if twice := [attribute for attribute in attributes if list(attributes).count(attribute) > 1]:
        raise ValueError(f"attributes {list(attributes)}: {twice[0]!r} is there twice; its queries would count double")
    known = dict.fromkeys((*ATTRIBUTES, *there))
    if unknown := [attribute for attribute in attributes if attribute not in known]:
        raise ValueError(f"unknown attributes {unknown}; choose from {', '.join(known)}, or add the file to {folder}")
    if missing := [attribute for attribute in attributes if attribute not in there]:
        path = folder / f"{missing[0]}.csv"
        raise FileNotFoundError(f"{path}: no such file; `make fetch DATASET_ROOT=...` gets PatternCom")
    return attributes


def _report_classes(archive: Archive, report: ValidationReport) -> None:
    foreign = sorted(set(archive.classes) - CLASSES - {""})
    if foreign and CLASSES.isdisjoint(archive.classes):
        report.add("archive", None, f"{len(foreign)} classes", "none is PatternNet's; no merge applies to them")
    else:
        for cls in foreign:
            report.add("archive", None, cls, "not one of PatternNet's 38 classes; no merge applies to it")


def _read_labels(path: Path, attribute: str, names: ImageNames, report: ValidationReport) -> pd.DataFrame:
    """The rows of one attribute file, columns line, image, value, position."""
    rows, outside = [], 0
    spellings: dict[str, str] = {}
    for number, line in read_lines(path):
        fields = [plain_word(field) for field in next(csv.reader([line]))]  # quotes hold a name with commas together
        where = f"{path}, line {number}"
        if len(fields) != 3 or not all(fields):
            raise ValueError(f"{where}: expected `file name,attribute,value`, found {line!r}")
        image, named, value = fields
        file = names.find(image, where, " (a header? PatternCom has none: remove the line)" if number == 1 else "")
        if named != attribute:
            raise ValueError(f"{where}: attribute {named!r} in the file of {attribute!r}; correct the row")
        if not any(map(str.isalnum, value)):
            raise ValueError(f"{where}: value {value!r} is no word to ask for; correct the row, or remove it")
        if (first := spellings.setdefault(value.casefold(), value)) != value:
            report.add(path.name, number, value, f"differs from {first!r} in case alone, and counts as another value")
        if names.position(file) < 0:
            outside += 1
        else:
            rows.append((number, names.name(file), value, names.position(file)))
    if outside:
        report.add(path.name, None, str(outside), "labelled images outside the listing are left out")
    return pd.DataFrame(rows, columns=["line", "image", "value", "position"]).astype({"position": np.int64})


def _check_rows(rows: pd.DataFrame, file: str, report: ValidationReport) -> None:
    for row in rows[rows["image"].duplicated()].itertuples():
        values = rows.loc[rows["image"] == row.image, "value"].unique()
        problem = "listed again; each row is a query"
        if len(values) > 1:
            other = f"with another value ({', '.join(values)})"
            problem = f"listed again {other}; each row is a query, the last decides relevance"
        report.add(file, row.line, row.image, problem)
    named = rows["image"].map(lambda image: class_of(image.split("/")[-1]))
    contradicted = (rows["cls"] != named) & (rows["cls"].isin(CLASSES) | named.isin(CLASSES)) & (rows["cls"] != "")
    for row in rows.assign(named=named)[contradicted].drop_duplicates("cls").itertuples():
        report.add(file, row.line, row.image, f"named as {row.named!r}, listed as {row.cls!r}; used as listed")
    for group, values in rows.groupby("group")["value"]:
        if values.nunique() == 1:
            report.add(file, None, values.iloc[0], f"the only value of {group!r}: no query comes of it")
