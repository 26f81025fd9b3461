"""Existence queries from complete human multi-labels."""

from pathlib import Path

import numpy as np
import pandas as pd

from rscir_lib.archive import read_archive, read_lines
from rscir_lib.benchmark import Benchmark, Report

MIN_LABELLED = 2  # a multi-label makes queries in a class where it is present and absent at least this often


def read_multilabels(root: str | Path, listing: str | Path | None = None, protocol: str = "multi-label") -> Benchmark:
    """Existence queries from complete human multi-labels: "this image, but with *cars*".

    `root/multilabels.tsv` has a header (image, then one column a label) and a row of 0/1 per image, named without
    suffix. Where a label is present and absent at least `MIN_LABELLED` times in a class, each image of the class
    without it is paired with the label's name as text; relevant are the images of the class that have it. This is not
    PatternCom: its existence labels name one value an image, these say of every label whether it is there.

    Raises ValueError (file, line, value) for a malformed row or an image of the archive without labels.
    """
    archive = read_archive(root, listing)
    path = archive.root / "multilabels.tsv"
    (_, header), *lines = read_lines(path)
    words = [word.replace("-", " ") for word in header.split("\t")[1:]]
    flags: dict[str, np.ndarray] = {}
    for number, line in lines:
        stem, *values = line.split("\t")
        if len(values) != len(words) or not set(values) <= {"0", "1"}:
            raise ValueError(f"{path}, line {number}: expected an image and {len(words)} values 0 or 1, found {line!r}")
        flags[stem] = np.array(values) == "1"
    stems = [Path(name).stem for name in archive.names]
    missing = [stem for stem in stems if stem not in flags]
    if missing:
        raise ValueError(f"{path}: no row for image {missing[0]!r} ({len(missing)} images of the archive have none)")
    present = np.array([flags[stem] for stem in stems])

    classes = np.array(archive.classes)
    queries, targets, labels = [], [], []
    for cls in dict.fromkeys(archive.classes):
        members = np.flatnonzero(classes == cls)
        for word, has in zip(words, present[members].T, strict=True):
            if min(has.sum(), (~has).sum()) < MIN_LABELLED:
                continue
            labels += [("existence", archive.names[i], cls, word, i) for i in members[has]]
            queries += [
                ("existence", cls, archive.names[i], f"no {word}", word, i, len(targets)) for i in members[~has]
            ]
            targets.append(members[has])
    if not queries:
        raise ValueError(f"{path}: no label varies within a class of this archive, so there is nothing to ask")
    return Benchmark(
        archive,
        "multi-label",
        pd.DataFrame(queries, columns=["attribute", "group", "image", "value", "text", "position", "target"]),
        tuple(targets),
        pd.DataFrame(labels, columns=["attribute", "image", "group", "value", "position"]),
        Report().table(),
    )
