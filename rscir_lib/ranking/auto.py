"""Lambda for an archive and a kind of queries, from a sample of both, without a label."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from tqdm.auto import tqdm

from rscir_lib.methods.base import Questions
from rscir_lib.similarity.exact import similarities
from rscir_lib.similarity.gallery import Gallery
from rscir_lib.similarity.lambda_auto import QUERIES, ROWS, auto_lambda

AUTO = "auto"
BATCH = 32  # queries whose similarities are held together


@dataclass(frozen=True)
class AutoLambda:
    """A lambda, the quartiles of those of single queries, how many there were, and what it took."""

    lam: float
    low: float
    high: float
    queries: int
    seconds: float

    def __str__(self) -> str:
        spread = f"half of {self.queries} queries between {self.low:.2f} and {self.high:.2f}"
        return f"lambda {self.lam:g} read off the similarities, {spread}, {self.seconds:.1f} s"


def read_lambda(questions: Questions, gallery: Gallery, seed: int = 0) -> AutoLambda:
    """The lambda of these queries to this archive (`similarity.lambda_auto`), from at most `QUERIES` of them."""
    start = time.perf_counter()
    numbers = np.random.default_rng(seed).permutation(len(questions))[:QUERIES]
    rows = gallery.rows(np.unique(np.linspace(0, len(gallery) - 1, min(ROWS, len(gallery))).astype(int)))

    def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for first in range(0, len(numbers), BATCH):
            some = questions.take(numbers[first : first + BATCH])
            to_images, to_texts = (similarities(rows, side) for side in (some.images, some.texts))
            yield to_images[some.image_of], to_texts[some.text_of]

    return AutoLambda(*auto_lambda(batches()), len(numbers), time.perf_counter() - start)


def with_auto(
    lambdas: Sequence[float | str], questions: Questions, gallery: Gallery, progress: bool = False
) -> Sequence[float]:
    """Lambdas, "auto" among them replaced by a number; `progress` says which, and where it comes from."""
    if isinstance(lambdas, str) or not np.iterable(lambdas) or AUTO not in list(lambdas):
        return lambdas  # type: ignore[return-value]  # what is no number, `make_jobs` refuses
    read = read_lambda(questions, gallery)
    if progress:
        tqdm.write(str(read))
    return [read.lam if lam == AUTO else lam for lam in lambdas]  # type: ignore[misc]
