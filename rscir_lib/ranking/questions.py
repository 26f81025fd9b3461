"""What a ranking is asked for: the queries, the methods that answer them, and sets of images."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from rscir_lib.benchmarks.base import check_positions
from rscir_lib.methods.base import EncodeTexts, Method, Questions, Scorer
from rscir_lib.methods.pairwise import TwoSimilarities
from rscir_lib.methods.registry import get_method
from rscir_lib.similarity.gallery import Gallery
from rscir_lib.similarity.scales import check_lambda


@dataclass(frozen=True)
class Job:
    """A method with its lambda, NaN where it has none; fitted to the archive, unless it is of scope "row"."""

    method: Method
    lam: float = float("nan")
    scorer: Scorer | None = None

    @property
    def by_row(self) -> bool:
        """Whether an image is scored by its own two similarities, whatever else the archive holds."""
        return isinstance(self.method, TwoSimilarities) and self.method.scope == "row"

    def scores(self, questions: Questions, size: int) -> np.ndarray:
        """Scores (Q, N) of a whole archive. Raises ValueError for another shape, and where one is not finite."""
        assert self.scorer is not None
        scores = np.asarray(self.scorer(questions, self.lam), np.float64)
        if scores.shape != (len(questions), size):
            raise ValueError(
                f"method {self.method.name!r} gave scores of shape {scores.shape} for {len(questions)} queries; "
                f"expected {(len(questions), size)}, one an archive image"
            )
        if not np.isfinite(scores).all():
            raise ValueError(f"method {self.method.name!r} gives scores that are not finite")
        return scores


def make_jobs(
    methods: Sequence[str | Method], lambdas: Sequence[float], features: Gallery, encode_texts: EncodeTexts
) -> list[Job]:
    """A job for each method and lambda; methods that see the whole archive are fitted to it. Raises ValueError for
    unknown methods, two of one name, and lambdas that are missing or outside [0, 1]."""
    if isinstance(methods, str) or not len(methods):
        raise ValueError(f"methods: expected a list of method names, found {methods!r}")
    if not isinstance(lambdas, Sequence | np.ndarray | pd.Series) or isinstance(lambdas, str):
        raise ValueError(f"lambdas: expected a list of numbers in [0, 1], found {lambdas!r}; for one, write [0.5]")
    for lam in lambdas:
        check_lambda(lam)
    by_name: dict[str, Method] = {}
    for method in map(get_method, methods):
        if by_name.setdefault(method.name, method) is not method:
            raise ValueError(f"two of the methods are named {method.name!r}: give each a name of its own")
        if method.has_lambda and not len(lambdas):
            raise ValueError(f"method {method.name!r} needs at least one lambda, such as lambdas=[0.5]")
    jobs = []
    for method in by_name.values():
        scorer = None if Job(method).by_row else method.fit(features, encode_texts)
        values = [float(lam) for lam in dict.fromkeys(lambdas)] if method.has_lambda else [float("nan")]
        jobs += [Job(method, lam, scorer) for lam in values]
    return jobs


@dataclass(frozen=True)
class ImageSets:
    """A set of archive positions for each of Q queries; many queries may share one.

    Args:
        sets: ascending positions (n,), each.
        set_of: (Q,) which of them a query has, -1 for none.
    """

    sets: Sequence[np.ndarray]
    set_of: np.ndarray

    @classmethod
    def empty(cls, queries: int) -> "ImageSets":
        """No image for any query."""
        return cls((), np.full(queries, -1))

    def __getitem__(self, number: int) -> np.ndarray:
        """The set with this number; -1 is empty."""
        return self.sets[number] if number >= 0 else np.empty(0, np.int64)


def check_asked(
    questions: Questions, features: Gallery, jobs: Sequence[Job], sets: dict[str, ImageSets], scheduler: str | None
) -> None:
    """Raises ValueError unless all of it fits together; `sets` are keyed by their role, such as "relevant"."""
    if not jobs or not len(questions):
        raise ValueError(f"{len(jobs)} jobs for {len(questions)} queries: expected one at least of both")
    for job in jobs:
        if job.method.has_lambda:
            check_lambda(job.lam)
        if scheduler and not job.by_row:
            raise ValueError(f"method {job.method.name!r} wants the archive as a whole: no scheduler can share it out")
    questions.check_dim(features.dim)
    for name, of_queries in sets.items():
        if len(of_queries.set_of) != len(questions):
            raise ValueError(f"{len(of_queries.set_of)} {name} sets for {len(questions)} queries: expected one each")
        for i, positions in enumerate(of_queries.sets):
            check_positions(f"{name}[{i}]", positions, len(features))
