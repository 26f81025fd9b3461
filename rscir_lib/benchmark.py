"""What is asked of an archive: composed queries, each with its relevant images, whatever format they came from."""

import pkgutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from rscir_lib.archive import Archive


@dataclass(frozen=True)
class Benchmark:
    """Composed queries over an archive.

    queries: one row per composed query, columns attribute, group, image (file name), value (the image's own), text
        (the value asked for), position (of the image in the archive), target (index into `targets`).
    targets: ascending archive positions of the relevant images, shared by the queries that have the same ones.
    labels: the labelled rows, columns attribute, image, group, value, position.
    warnings: the validation report, columns file, line, value, problem; what was tolerated, and how.
    """

    archive: Archive
    protocol: str
    queries: pd.DataFrame
    targets: tuple[np.ndarray, ...]
    labels: pd.DataFrame
    warnings: pd.DataFrame

    def composition(self) -> pd.DataFrame:
        """Per attribute and group: labelled rows, values, composed queries, positives a query (min, median, max)."""
        positives = np.array([len(target) for target in self.targets])[self.queries["target"]]
        queries = self.queries.assign(positives=positives).groupby(["attribute", "group"], sort=False)
        labels = self.labels.groupby(["attribute", "group"], sort=False)
        return pd.DataFrame(
            {
                "labelled": labels.size(),
                "values": labels["value"].unique().map(", ".join),
                "queries": queries.size(),
                "positives min": queries["positives"].min(),
                "median": queries["positives"].median(),
                "max": queries["positives"].max(),
            }
        ).reindex(labels.size().index)


class Report:
    """Collects what a reader tolerates."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, int | None, str, str]] = []

    def add(self, file: str, line: int | None, value: str, problem: str) -> None:
        self.rows.append((file, line, value, problem))

    def table(self) -> pd.DataFrame:
        return pd.DataFrame(self.rows, columns=["file", "line", "value", "problem"]).astype({"line": "Int64"})


# file or folder under a dataset root -> its reader, by name: a format imports what it needs, not the other way round
READERS = {
    "PatternCom": "rscir_lib.patterncom.read_patterncom",
    "multilabels.tsv": "rscir_lib.multilabels.read_multilabels",
}


def read_benchmark(root: str | Path, listing: str | Path | None = None, protocol: str = "released") -> Benchmark:
    """The benchmark that a dataset root holds: that of the first of `READERS` whose file or folder is there.

    A benchmark of another format is one more reader `(root, listing, protocol) -> Benchmark`, and one more line there.
    """
    for file, reader in READERS.items():
        if (Path(root).expanduser() / file).exists():
            return pkgutil.resolve_name(reader)(root, listing=listing, protocol=protocol)
    raise FileNotFoundError(
        f"{root}: no benchmark here. Expected PatternCom/<attribute>.csv or multilabels.tsv; "
        "`make fetch DATASET_ROOT=...` gets PatternCom"
    )
