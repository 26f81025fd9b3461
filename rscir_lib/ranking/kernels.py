"""How many images score above each of some levels: one function, in as many forms as there are machines for it.

All of them answer the same question for B queries that share a text, by J weightings of two similarities:

    count(image, rows, text, image_levels, text_levels, weights, tolerance) -> greater, near

Images score a image + b text, (a, b) being a row of `weights` (J, 2), from similarities to the queries' images, rows
(B,) of `image` (I, n), and to their text (n,). The levels are the scores of R relevant images, from similarities (B, R)
and (R,), in ascending order. `greater` and `near` (J, B, R) say how many of the n scores exceed a level by more than
the query's tolerance (B,), and how many lie within it, which for a tolerance of 0 are those that are equal. All are
float64 and finite, on the same device.
"""

import warnings
from collections.abc import Callable
from functools import cache
from typing import Literal

import numpy as np
import torch

from rscir_lib.similarity.compiled import compiled

Backend = Literal["auto", "numba", "torch", "triton"]
Count = Callable[..., tuple[torch.Tensor, torch.Tensor]]
BINS = 2**12, 2**14  # fewest and most: their tables, 17 bytes a bin, stay in a processor's first two caches
BLOCK = 1024  # scores that are mixed and sorted into bins together, several in one instruction
COMPARED = 2**30  # pairs of a score and a level that torch writes down at a time, a byte each


@compiled
def _bin(score: float, low: float, scale: float, last: float) -> int:
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
    image: np.ndarray, text: np.ndarray, a: float, b: float, levels: np.ndarray, tolerance: float,
    greater: np.ndarray, near: np.ndarray,
) -> None:  # fmt: skip
    """Only scores whose bin holds a level are compared with it; the others are counted by their bins."""
    bins = BINS[0]
    while bins < min(16 * len(levels), BINS[1]):
        bins *= 2
    least, most = levels - tolerance, levels + tolerance
    low, last = least[0], bins - 0.5
    scale = (bins - 3) / max(most[-1] - low, 1e-300)
    # levels begin[i] to end[i] reach into bin i
    begin, end, marked = np.zeros(bins + 1, np.int32), np.zeros(bins, np.int32), np.empty(bins, np.bool_)
    for j in range(len(levels)):
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
        at = _bin(score, low, scale, last)
        for j in range(begin[at], end[at]):
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
    image: np.ndarray, rows: np.ndarray, text: np.ndarray, image_levels: np.ndarray, text_levels: np.ndarray,
    weights: np.ndarray, tolerance: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    shape = (len(weights), len(rows), len(text_levels))
    greater, near = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    if len(text_levels):
        for q in range(len(rows)):
            for j in range(len(weights)):
                a, b = weights[j]
                levels = np.sort(a * image_levels[q] + b * text_levels)
                _count_scores(image[rows[q]], text, a, b, levels, tolerance[q], greater[j, q], near[j, q])
    return greater, near


def by_numba(*arguments: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """On a processor."""
    greater, near = _count_mixes(*(tensor.numpy() for tensor in arguments))
    return torch.from_numpy(greater), torch.from_numpy(near)


def _written_down(
    image: torch.Tensor, rows: torch.Tensor, text: torch.Tensor, image_levels: torch.Tensor,
    text_levels: torch.Tensor, weights: torch.Tensor, tolerance: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    """Scores (J, B, n), and the least and greatest that are near to a level, (J, B, R) each."""
    a, b = weights.T[:, :, None, None]
    levels = (a * image_levels + b * text_levels).sort().values
    margin = tolerance[:, None]
    return a * image[rows] + b * text, levels - margin, levels + margin


def by_torch(*arguments: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Anywhere: every score is compared with every level, and the comparisons written down."""
    scores, low, high = (part.flatten(0, 1) for part in _written_down(*arguments))
    most = max(1, COMPARED // (scores.shape[1] * max(1, low.shape[1])))
    greater, near = [], []
    for s, least, greatest in zip(scores.split(most), low.split(most), high.split(most), strict=True):
        s = s[:, None]
        greater.append((s > greatest[..., None]).sum(dim=2))
        near.append(((s >= least[..., None]) & (s <= greatest[..., None])).sum(dim=2))
    shape = (len(arguments[5]), len(arguments[1]), low.shape[1])
    return torch.cat(greater).reshape(shape), torch.cat(near).reshape(shape)


def by_triton(*arguments: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """On a GPU: every score is compared with every level, in registers."""
    from rscir_lib.ranking.triton_kernel import count

    scores, low, high = _written_down(*arguments)
    parts = count(scores.flatten(0, 1), low.flatten(0, 1), high.flatten(0, 1))
    return tuple(part.reshape(low.shape) for part in parts)


BACKENDS: dict[str, Count] = {"numba": by_numba, "torch": by_torch, "triton": by_triton}


@cache
def counter(backend: str, device: str) -> Count:
    """The function to count with, tried out: "auto" is numba on a processor, and Triton on a GPU if it works there.

    Raises:
        ValueError: for a backend that is unknown or doesn't work on the device.
    """
    if backend != "auto" and backend not in BACKENDS:
        raise ValueError(f"backend {backend!r} is unknown: choose auto, {', '.join(BACKENDS)}")
    order = [backend] if backend != "auto" else ["numba"] if device == "cpu" else ["triton", "torch"]
    one, row = torch.ones(1, 1, dtype=torch.float64, device=device), torch.zeros(1, dtype=torch.long, device=device)
    errors = []
    for name in order:
        try:  # also loads compiled code, before processes are forked that would each load it
            BACKENDS[name](one, row, one[0], one, one[0], one.expand(1, 2).contiguous(), one[0])
        except Exception as error:  # whatever Triton lacks: a C compiler, a place for its code, a newer card
            errors.append(f"{name} doesn't count on {device}: {type(error).__name__}: {error}")
            continue
        if errors:
            warnings.warn(f"{errors[0]}; {name} is slower", stacklevel=2)
        return BACKENDS[name]
    raise ValueError(errors[0])
