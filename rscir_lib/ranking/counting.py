"""How many scores lie above each of some levels, in one compiled pass: what ranks are made of.

Wants the extra `fast`. numba compiles in some seconds, once: it keeps the machine code beside this file. The tests hold
it together with the plain way, `evaluation._ranks_by_bins`, which needs nothing but numpy.
"""

import numba
import numpy as np

BINS = 2**12, 2**14  # fewest and most: their tables, 9 bytes a bin, stay in a processor's first caches
BLOCK = 1024  # scores whose bins are worked out together, several in one instruction


@numba.njit(inline="always")
def _bin(score: float, low: float, scale: float, last: float) -> int:
    """Of equal width; never reverses an order. Bin 0 lies below all levels, the last one above."""
    return np.int32(min(max((score - low) * scale + 1.0, 0.0), last))


@numba.njit(cache=True, nogil=True)
def _first(levels: np.ndarray, low: float, scale: float, last: float) -> np.ndarray:
    """(bins + 1,) number of the first level in each bin, and of all levels at the end."""
    first = np.zeros(int(last) + 2, np.int32)
    for level in levels:
        first[_bin(level, low, scale, last) + 1] += 1
    return first.cumsum().astype(np.int32)


@numba.njit(cache=True, nogil=True)
def _sorted_out(
    scores: np.ndarray, bins: np.ndarray, marked: np.ndarray, counts: np.ndarray, near: np.ndarray, found: int,
    low: float, scale: float, last: float,
) -> int:  # fmt: skip
    """Count scores by bin, and keep those whose bin holds a level, after the `found` that `near` has."""
    for i in range(len(scores)):
        bins[i] = _bin(scores[i], low, scale, last)
    for i in range(len(scores)):
        b = np.uint32(bins[i])  # unsigned: no look whether an index counts from the end
        counts[b] += 1
        if marked[b]:  # seldom, which a processor guesses
            near[found] = scores[i]
            found += 1
    return found


@numba.njit(cache=True, nogil=True)
def _compared(
    near: np.ndarray, levels: np.ndarray, first: np.ndarray, counts: np.ndarray, low: float, scale: float, last: float
) -> tuple[np.ndarray, np.ndarray]:
    """All scores of a bin without a level lie between the same two; only the others are compared."""
    greater, equal = np.zeros(len(levels), np.int64), np.zeros(len(levels), np.int64)
    for score in near:
        b = _bin(score, low, scale, last)
        for j in range(first[b], first[b + 1]):
            greater[j] += score > levels[j]
            equal[j] += score == levels[j]
    above = 0
    for b in range(len(counts) - 1, -1, -1):
        for j in range(first[b], first[b + 1]):
            greater[j] += above
        above += counts[b]
    return greater, equal


@numba.njit(cache=True, nogil=True)
def count(
    image: np.ndarray, text: np.ndarray, image_weight: float, text_weight: float, levels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """For each of some levels (R,), ascending and finite, how many of the scores (N,) are greater, and how many equal.

    A score is `image_weight` image + `text_weight` text, mixed on the way; or image alone, where text has no element.
    float64, no NaN.
    """
    n, r = len(image), len(levels)
    if r == 0:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    number = BINS[0]
    while number < min(16 * r, BINS[1]):
        number *= 2
    low, last = levels[0], number - 0.5
    scale = (number - 3) / max(levels[r - 1] - low, 1e-300)
    first = _first(levels, low, scale, last)
    marked = first[1:] > first[:-1]
    counts, near, found = np.zeros(number, np.int32), np.empty(n), 0
    bins, scores = np.empty(BLOCK, np.int32), np.empty(BLOCK)
    for start in range(0, n, BLOCK):
        some = image[start : start + BLOCK]
        if len(text):
            of_text = text[start : start + BLOCK]
            for i in range(len(some)):
                scores[i] = image_weight * some[i] + text_weight * of_text[i]
            some = scores[: len(some)]
        found = _sorted_out(some, bins, marked, counts, near, found, low, scale, last)
    return _compared(near[:found], levels, first, counts, low, scale, last)


@numba.njit(cache=True, nogil=True)
def count_mixes(
    images: np.ndarray, rows: np.ndarray, text: np.ndarray, lams: np.ndarray, relevant: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """`count` of the scores (1 - lambda) image + lambda text, for L lambdas and those B `rows` of the images (I, N),
    against those of the relevant positions (R,), ascending: (L, B, R) greater, and equal."""
    shape = (len(lams), len(rows), len(relevant))
    greater, equal = np.empty(shape, np.int64), np.empty(shape, np.int64)
    levels = np.empty(len(relevant))
    for b in range(len(rows)):
        image = images[rows[b]]
        for j in range(len(lams)):
            for r in range(len(relevant)):
                levels[r] = (1.0 - lams[j]) * image[relevant[r]] + lams[j] * text[relevant[r]]
            levels.sort()
            greater[j, b], equal[j, b] = count(image, text, 1.0 - lams[j], lams[j], levels)
    return greater, equal


NOTHING = np.zeros(0)


def count_scores(scores: np.ndarray, levels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As `count`, of scores (N,) that are mixed already."""
    return count(scores, NOTHING, 1.0, 0.0, levels)
