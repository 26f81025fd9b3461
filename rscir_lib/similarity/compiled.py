"""Running sums, compiled by numba; imported where they are first used, since numba takes half a second to import."""

from collections.abc import Callable
from typing import TypeVar, cast

import numba
import numpy as np

SIDE_BY_SIDE = 64  # rows whose sums run next to each other, several in one vector instruction; any number is right


Function = TypeVar("Function", bound=Callable[..., object])


def compiled(function: Function) -> Function:
    """The function as machine code, kept on disk between processes where there is a place for it."""
    try:
        return cast(Function, numba.njit(cache=True, nogil=True)(function))
    except RuntimeError:  # neither the package's folder nor the user's can be written
        return cast(Function, numba.njit(nogil=True)(function))


@compiled
def running_sums(rows: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """(B, n) float64 of rows (n, d) and queries (B, d): products added from the first coordinate to the last."""
    (n, d), sums = rows.shape, np.zeros(SIDE_BY_SIDE)
    result, turned = np.empty((len(queries), n)), np.zeros((d, SIDE_BY_SIDE))
    for start in range(0, n, SIDE_BY_SIDE):
        size = min(SIDE_BY_SIDE, n - start)
        for i in range(size):
            for j in range(d):
                turned[j, i] = rows[start + i, j]
        for query in range(len(queries)):
            sums[:] = 0.0
            for j in range(d):
                coordinate = queries[query, j]
                for i in range(SIDE_BY_SIDE):  # beyond `size` lie rows of before: summed along, and left there
                    sums[i] += turned[j, i] * coordinate
            result[query, start : start + size] = sums[:size]
    return result
