"""How many scores lie above each of some levels, in one compiled pass: what ranks are made of.

Wants the extra `fast`. numba compiles in two seconds, once: it keeps the machine code beside this file. The tests hold
it together with the plain way, `evaluation._ranks_by_bins`, which needs nothing but numpy.
"""

import numba
import numpy as np

BINS = 4096  # their two tables, of 16 kB each, stay in a processor's first caches


@numba.njit(inline="always")
def _bin(score: float, low: float, scale: float) -> int:
    """Of equal width; never reverses an order. Bin 0 lies below all levels, the last one above."""
    return np.int32(min(max((score - low) * scale + 1.0, 0.0), BINS - 0.5))


@numba.njit(cache=True, nogil=True)
def count(scores: np.ndarray, levels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each of some levels (R,), ascending and finite, how many of the scores (N,) are greater, and how many equal.

    float64, no NaN. All scores of a bin without a level lie between the same two; only the few others are compared.
    """
    n, r = len(scores), len(levels)
    greater, equal = np.zeros(r, np.int64), np.zeros(r, np.int64)
    if r == 0:
        return greater, equal
    low = levels[0]
    scale = (BINS - 3) / max(levels[r - 1] - low, 1e-300)
    first = np.zeros(BINS + 1, np.int32)  # number of the first level in a bin
    for level in levels:
        first[_bin(level, low, scale) + 1] += 1
    for b in range(BINS):
        first[b + 1] += first[b]
    counts = np.zeros(BINS, np.int32)
    near, found = np.empty(n + 1), 0
    for score in scores:
        b = _bin(score, low, scale)
        counts[b] += 1
        near[found] = score  # kept where its bin holds a level: no branch, which a processor would guess wrong
        found += first[b + 1] > first[b]
    for score in near[:found]:
        b = _bin(score, low, scale)
        for j in range(first[b], first[b + 1]):
            greater[j] += score > levels[j]
            equal[j] += score == levels[j]
    above = 0
    for b in range(BINS - 1, -1, -1):
        for j in range(first[b], first[b + 1]):
            greater[j] += above
        above += counts[b]
    return greater, equal
