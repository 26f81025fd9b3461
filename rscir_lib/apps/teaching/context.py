"""What an exercise is worked out from: the run at hand, and the notebook's parameters."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd

from rscir_lib.benchmarks import Benchmark, read_benchmark
from rscir_lib.evaluation import evaluate
from rscir_lib.evaluation.metrics import CUTOFFS
from rscir_lib.methods.base import Method
from rscir_lib.runs import Run
from rscir_lib.search import Searcher


@dataclass(frozen=True)
class Truth:
    """The right answer to an exercise.

    Attributes:
        value: A text, a number, several numbers, or a Series of numbers by name.
        unit: A key of `checks.TOLERANCES`.
        mistakes: Typical wrong answers by what is said about them, beside those that `checks.mistakes` adds.
    """

    value: object
    unit: str
    mistakes: dict[str, object] = field(default_factory=dict)


class ExerciseContext:
    """A run as exercises see it. What takes time is computed when it is first asked for, and kept.

    Args:
        run: The run of `runs.open_run`.
        parameters: The notebook's parameters that its exercises depend on; `context["QUERY"]` is one.
    """

    def __init__(self, run: Run, **parameters: object) -> None:
        self.run, self.parameters = run, parameters
        self._rows: dict[tuple, pd.DataFrame] = {}

    def __getitem__(self, name: str) -> object:
        if name not in self.parameters:
            raise ValueError(f"this exercise needs {name}: Checks(run, {name}={name})")
        return self.parameters[name]

    @cached_property
    def x(self) -> np.ndarray:
        """The features (N, d) in float64, in archive order."""
        return self.run.features.aligned(self.run.archive_with_features).astype(np.float64)

    def texts(self, texts: list[str]) -> np.ndarray:
        """Features (n, d) of n texts, in float64."""
        return self.run.encoder.encode_texts(texts).astype(np.float64)

    def labelled(self, protocol: str = "") -> Benchmark:
        """The benchmark over all images, with features or without; `protocol` "" is the run's."""
        return read_benchmark(self.run.root, self.run.listing, protocol or self.run.config.PROTOCOL)

    @cached_property
    def by_hand(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Similarities (N,) to the image and to the text of the query in QUERY, and the relevant positions."""
        query = self.run.benchmark.queries.loc[self["QUERY"]]
        text = self.texts([query["text"]])[0]
        return self.x @ self.x[query["position"]], self.x @ text, self.run.benchmark.targets[query["target"]]

    @cached_property
    def search(self) -> Searcher:
        """Searches the archive."""
        return Searcher(self.run.features, self.run.encoder, self.run.archive_with_features)

    def rows(
        self, methods: Sequence[str | Method], lambdas: Sequence[float], cutoffs: Sequence[int] = CUTOFFS
    ) -> pd.DataFrame:
        """`evaluate` on the run, once for the same arguments."""
        key = (tuple(methods), tuple(lambdas), tuple(cutoffs))
        if key not in self._rows:
            given = self.run.benchmark, self.run.features, self.run.encoder.encode_texts
            self._rows[key] = evaluate(*given, methods, lambdas, self.run.config.DEVICE, False, cutoffs)
        return self._rows[key]


def average_precision(order: np.ndarray, relevant: np.ndarray) -> float:
    """Average precision, in [0, 1], of positions in the order of a ranking."""
    ranks = np.flatnonzero(np.isin(order, relevant)) + 1
    return float((np.arange(1, len(ranks) + 1) / ranks).mean()) if len(ranks) else 0.0
