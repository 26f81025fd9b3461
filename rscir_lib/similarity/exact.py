"""The similarity of a query to an image: its one definition, which every ranking goes back to."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

THREADED_FROM = 2**24  # products; fewer are done before threads have started


def similarities(rows: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Similarities of images to queries: a running sum in float64 of x_1 q_1, x_2 q_2, ... x_d q_d, in this order.

    The product of two float32 numbers is exact in float64, so nothing but the additions rounds, and their order is
    part of the definition. So a similarity is the same number whichever rows and queries are computed together, in
    however many threads, on whatever device; and equal rows have equal similarities.

    Args:
        rows: (n, d) float32 or float16 features of images.
        queries: (B, d) query features. Those of float64 precision have their products rounded, each by itself.

    Returns:
        (B, n) float64.
    """
    from rscir_lib.similarity.compiled import running_sums

    rows = np.ascontiguousarray(rows, np.float32)
    queries = np.ascontiguousarray(queries, np.float64)
    threads = torch.get_num_threads() if rows.size * len(queries) >= THREADED_FROM else 1
    if threads == 1:
        return running_sums(rows, queries)
    with ThreadPoolExecutor(threads) as pool:
        parts = pool.map(running_sums, np.array_split(rows, threads), [queries] * threads)
        return np.concatenate(list(parts), axis=1)


def rounding(dim: int) -> float:
    """How far two float64 sums of the products of unit vectors of `dim` coordinates may lie apart, whatever their
    order (Higham, Accuracy and Stability of Numerical Algorithms, 3.1)."""
    return 2 * 1.01 * (dim + 1) * 2.0**-53
