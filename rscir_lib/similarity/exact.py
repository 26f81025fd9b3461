"""The two definitions that every ranking goes back to: the similarity of a query to an image, and the order of scores,
descending, equal ones by position in the archive."""

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


def ranking(scores: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """The order (n,) of images with these scores (n,) and positions (n,), best first."""
    return np.lexsort((positions, -scores))


def best_first(scores: np.ndarray, top: int, without: int = -1) -> np.ndarray:
    """Positions (top,) of the highest of (N,) scores, best first; all N where there are fewer.

    without: a position that doesn't count, such as the query's own; -1 for none.
    """
    candidates, wanted = np.arange(len(scores)), top + (without >= 0)  # one more, which may be the one left out
    if 0 < wanted < len(scores):
        candidates = np.flatnonzero(scores >= np.partition(scores, -wanted)[-wanted])
    candidates = candidates[candidates != without]
    return candidates[ranking(scores[candidates], candidates)[:top]]


def number_ahead(
    scores: np.ndarray, positions: np.ndarray, own_scores: np.ndarray, own_positions: np.ndarray
) -> np.ndarray:
    """How many images (n,) stand ahead of each of some images (R,) in the ranking; no image is ahead of itself."""
    both = np.concatenate([own_scores, scores])
    # an image in both sorts first among the R, and so isn't counted
    order = np.lexsort((np.arange(len(both)), np.concatenate([own_positions, positions]), -both))
    counted = order >= len(own_scores)
    ahead = np.empty(len(own_scores), np.int64)
    ahead[order[~counted]] = counted.cumsum()[~counted]
    return ahead
