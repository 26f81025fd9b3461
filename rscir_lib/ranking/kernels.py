"""How many images score above each of some levels: one function, in as many forms as there are machines for it.

    count(scores, low, high) -> greater, near

A level is the score of a relevant image, more or less: from `low` to `high`, (B, R) each, ascending along R. `greater`
and `near` (B, R) say how many of the n scores of a query exceed a level, and how many lie within it.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
import torch

from rscir_lib.similarity.compiled import compiled

BINS = 2**12, 2**14  # fewest and most: their tables, 17 bytes a bin, stay in a processor's first two caches
BLOCK = 1024  # scores that are mixed and sorted into bins together, several in one instruction
EXCLUDED = -1e30  # a similarity below every other, and still finite when weighted by 0

Backend = Literal["auto", "numba", "torch", "triton"]


@dataclass(frozen=True)
class Scores:
    """Scores of n images for B queries that share a text, not stored but as a image[rows] + b text, from similarities
    (I, n) to images, of which the queries have `rows` (B,), and (n,) to the text. float64, finite, on one device."""

    image: torch.Tensor
    rows: torch.Tensor
    text: torch.Tensor
    a: float
    b: float

    @classmethod
    def whole(cls, scores: torch.Tensor) -> "Scores":
        """Scores held as an array (B, n)."""
        return cls(scores, torch.arange(len(scores), device=scores.device), torch.zeros_like(scores[0]), 1.0, 0.0)

    def without(self, excluded: np.ndarray) -> "Scores":
        """With some images below all others."""
        image, text = self.image[self.rows], self.text.clone()
        image[:, excluded] = text[excluded] = EXCLUDED
        return Scores(image, torch.arange(len(image), device=image.device), text, self.a, self.b)

    def of(self, queries: int | slice = slice(None)) -> torch.Tensor:
        """Those of some queries, (..., n)."""
        return self.a * self.image[self.rows[queries]] + self.b * self.text


Counts = tuple[torch.Tensor, torch.Tensor]
Count = Callable[[Scores, torch.Tensor, torch.Tensor], Counts]


@compiled
def _bin(score: float, low: float, scale: float, last: float) -> np.int32:
    """Bins are of equal width, and never reverse an order; 0 lies below all levels, the last one above."""
    return np.int32(min(max((score - low) * scale + 1.0, 0.0), last))


@compiled
def _sorted_into_bins(
    scores: np.ndarray, low: float, scale: float, last: float, marked: np.ndarray, counts: np.ndarray,
    kept: np.ndarray, number: int,
) -> int:  # fmt: skip
    """Count scores by bin; those in a marked one are kept too, after the `number` that are."""
    bins = np.empty(len(scores), np.int32)
    for i in range(len(scores)):
        bins[i] = _bin(scores[i], low, scale, last)
    for i in range(len(scores)):
        at = np.uint32(bins[i])  # unsigned: no look whether an index counts from the end
        counts[at] += 1
        if marked[at]:  # seldom, which a processor guesses
            kept[number] = scores[i]
            number += 1
    return number


@compiled
def _count_scores(
    image: np.ndarray, text: np.ndarray, a: float, b: float, least: np.ndarray, most: np.ndarray,
    greater: np.ndarray, near: np.ndarray,
) -> None:  # fmt: skip
    """Only scores whose bin holds a level are compared with it; the others are counted by their bins."""
    bins = BINS[0]
    while bins < min(16 * len(least), BINS[1]):
        bins *= 2
    low, last = least[0], bins - 0.5
    scale = (bins - 3) / max(most[-1] - low, 1e-300)
    # levels begin[i] to end[i] reach into bin i
    begin, end, marked = np.zeros(bins + 1, np.int32), np.zeros(bins, np.int32), np.empty(bins, np.bool_)
    for j in range(len(least)):
        begin[_bin(most[j], low, scale, last) + 1] += 1
        end[_bin(least[j], low, scale, last)] += 1
    for i in range(bins):
        begin[i + 1] += begin[i]
        end[i] += end[i - 1] if i else 0
        marked[i] = end[i] > begin[i]
    scores, kept, number, counts = np.empty(BLOCK), np.empty(len(image)), 0, np.zeros(bins, np.int32)
    for start in range(0, len(image), BLOCK):
        size = min(BLOCK, len(image) - start)
        of_image, of_text = image[start : start + size], text[start : start + size]
        for i in range(size):
            scores[i] = a * of_image[i] + b * of_text[i]
        number = _sorted_into_bins(scores[:size], low, scale, last, marked, counts, kept, number)
    for score in kept[:number]:
        own = _bin(score, low, scale, last)
        for j in range(begin[own], end[own]):
            greater[j] += score > most[j]
            near[j] += score >= least[j]
    near -= greater
    above = 0
    for at in range(bins - 1, -1, -1):
        for j in range(begin[at], begin[at + 1]):  # levels whose last bin this is
            greater[j] += above
        above += counts[at]


@compiled
def _count_mixes(
    image: np.ndarray, rows: np.ndarray, text: np.ndarray, a: float, b: float, low: np.ndarray, high: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    greater, near = np.zeros(low.shape, np.int32), np.zeros(low.shape, np.int32)
    for query in range(len(rows) if low.shape[1] else 0):
        _count_scores(image[rows[query]], text, a, b, low[query], high[query], greater[query], near[query])
    return greater, near


def by_numba(scores: Scores, low: torch.Tensor, high: torch.Tensor) -> Counts:
    """On a processor."""
    sides = scores.image.numpy(), scores.rows.numpy(), scores.text.numpy()
    greater, near = _count_mixes(*sides, scores.a, scores.b, low.numpy(), high.numpy())
    return torch.from_numpy(greater), torch.from_numpy(near)


def by_torch(scores: Scores, low: torch.Tensor, high: torch.Tensor) -> Counts:
    """Anywhere: every score is compared with every level, and the comparisons written down, a query at a time."""
    greater, near = torch.zeros_like(low, dtype=torch.int64), torch.zeros_like(low, dtype=torch.int64)
    for query in range(len(low)):
        row, least, most = scores.of(query), low[query, :, None], high[query, :, None]
        greater[query] = (row > most).sum(dim=1)
        near[query] = ((row >= least) & (row <= most)).sum(dim=1)
    return greater, near


def by_triton(scores: Scores, low: torch.Tensor, high: torch.Tensor) -> Counts:
    """On a GPU: every score is compared with every level, in registers."""
    from rscir_lib.ranking.triton_kernel import count

    return count(scores.of(), low, high)


BACKENDS: dict[str, Count] = {"numba": by_numba, "torch": by_torch, "triton": by_triton}


@cache
def counter(backend: str, device: str) -> Count:
    """The function to count with, tried out: "auto" is numba on a processor, and on a GPU Triton, if it works there.
    Raises ValueError for a backend that is unknown or doesn't work on the device."""
    if backend not in ("auto", *BACKENDS):
        raise ValueError(f"backend {backend!r} is unknown: choose auto, {', '.join(BACKENDS)}")
    names = [backend] if backend != "auto" else ["numba"] if device == "cpu" else ["triton", "torch"]
    one = torch.ones(1, 1, dtype=torch.float64, device=device)
    for name in names:
        try:  # also loads compiled code, before processes are forked that would each load it
            BACKENDS[name](Scores.whole(one), one, one)
        except Exception as error:  # whatever Triton lacks: a C compiler, a place for its code, a newer card
            problem = f"{name} doesn't count on {device}: {type(error).__name__}: {error}"
            if name == names[-1]:
                raise ValueError(problem) from None
            warnings.warn(f"{problem}; {names[-1]} is slower", stacklevel=2)
        else:
            break
    return BACKENDS[name]
