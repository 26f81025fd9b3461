"""Lambda read off the similarities themselves, without a label (notebooks/book/lambda.md derives it)."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch

from rscir_lib.similarity.scales import zscore

BEGIN = 0.97  # quantile above which the upper distribution begins: few images answer a query
STEPS = 40  # of expectation maximisation; the answer changes by less than its spread over queries from 20 on
NARROWEST = 0.05  # of a standard deviation, in z: equal similarities must not shrink a distribution to a point
QUERIES = 300  # a sample: from 200 on lambda stays within 0.08
ROWS = 2**16  # of the archive, evenly spaced: more images don't move what the bulk of them determines
RESAMPLES, DRAWN = 20, 2**14  # of the archive for one query, and images of each: a second at most


class Mixture(NamedTuple):
    """Two normal distributions, (B,) of each: means, standard deviations, and the upper one's share."""

    low_mean: np.ndarray
    low_std: np.ndarray
    high_mean: np.ndarray
    high_std: np.ndarray
    share: np.ndarray


def two_normals(z: np.ndarray, steps: int = STEPS) -> Mixture:
    """The mixture of two normal distributions that fits each row of z-scores (B, N), by expectation maximisation."""
    high = (z >= np.quantile(z, BEGIN, axis=1, keepdims=True)).astype(np.float64)  # share of each image in the upper
    for _ in range(steps):
        sides = []
        for part in (1 - high, high):
            size = np.maximum(part.sum(axis=1, keepdims=True), 1e-12)
            mean = (part * z).sum(axis=1, keepdims=True) / size
            std = np.sqrt((part * (z - mean) ** 2).sum(axis=1, keepdims=True) / size).clip(min=NARROWEST)
            sides.append((mean, std, np.log(size / z.shape[1] / std) - ((z - mean) / std) ** 2 / 2))
        high = 1 / (1 + np.exp((sides[0][2] - sides[1][2]).clip(-500, 500)))
    (low_mean, low_std, _), (high_mean, high_std, _) = sides
    return Mixture(low_mean[:, 0], low_std[:, 0], high_mean[:, 0], high_std[:, 0], high.mean(axis=1))


def fisher_lambda(image: np.ndarray, text: np.ndarray) -> np.ndarray:
    """Lambda of each query from z-scores (B, N) to its image and its text: the weights with which a sum separates the
    two distributions best, D / s^2 a side. 0.5 where neither side has an upper distribution."""
    weights = []
    for z in (image, text):
        fit = two_normals(z)
        weights.append(np.maximum(fit.high_mean - fit.low_mean, 0) / fit.high_std**2)
    total = weights[0] + weights[1]
    return np.divide(weights[1], total, out=np.full(len(total), 0.5), where=total > 0)


def resampled(image: np.ndarray, text: np.ndarray, seed: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The similarities (N,) of one query to as many images drawn anew, `RESAMPLES` times, each (1, N): the quartiles of
    `auto_lambda` then say how far the lambda of this query hangs on which images are there."""
    rng = np.random.default_rng(seed)
    for _ in range(RESAMPLES):
        drawn = rng.integers(len(image), size=min(len(image), DRAWN))
        yield image[None, drawn], text[None, drawn]


def auto_lambda(similarities: Iterable[tuple[np.ndarray, np.ndarray]]) -> tuple[float, float, float]:
    """Median, rounded to a hundredth as no more is known, and quartiles of the lambda of some queries.

    similarities: pairs of (B, N) to images and to texts, a batch of queries each.
    """
    lambdas = [fisher_lambda(*(zscore(torch.from_numpy(s)).numpy() for s in pair)) for pair in similarities]
    low, median, high = np.quantile(np.concatenate(lambdas), [0.25, 0.5, 0.75])
    return round(float(median), 2), float(low), float(high)
