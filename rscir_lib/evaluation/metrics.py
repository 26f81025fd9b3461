"""Retrieval metrics from the ranks of the relevant images (protocol, Metrics)."""

from collections.abc import Sequence

import numpy as np

CUTOFFS = (5, 10, 15, 20)


def metric_names(cutoffs: Sequence[int] = CUTOFFS) -> tuple[str, ...]:
    """The columns of `retrieval_metrics`: AP, P@k, R@k."""
    return ("AP", *(f"P@{k}" for k in cutoffs), *(f"R@{k}" for k in cutoffs))


METRICS = metric_names()


def retrieval_metrics(ranks: np.ndarray, cutoffs: Sequence[int] = CUTOFFS) -> np.ndarray:
    """AP, P@k and R@k of rankings.

    ranks: (..., R) integers >= 1, the ranks of the R relevant images of each ranking, ascending along the last axis.
    cutoffs: K numbers k >= 1.
    Returns (..., 1 + 2 K) in [0, 1], columns `metric_names`. AP is the finite sum over the relevant images of
    (relevant so far) / rank, divided by R. Without relevant images (R = 0) every metric is 0.
    """
    *rankings, relevant = ranks.shape
    if relevant == 0:
        return np.zeros((*rankings, 1 + 2 * len(cutoffs)))
    ap = (np.arange(1, relevant + 1) / ranks).mean(axis=-1, keepdims=True)
    # no two images share a rank, so those within the first k are among the first k
    hits = np.stack([(ranks[..., :k] <= k).sum(axis=-1) for k in cutoffs], axis=-1)
    return np.concatenate([ap, hits / np.array(cutoffs), hits / relevant], axis=-1)


def r_precision(ranks: np.ndarray) -> np.ndarray:
    """The share (...) of relevant images among the first R, from their ranks (..., R): a precision that 1 can reach
    however many are relevant. 0 where none is."""
    relevant = ranks.shape[-1]
    return (ranks <= relevant).sum(axis=-1) / max(relevant, 1)


def chance_ap(relevant: int, images: int) -> float:
    """Expected AP when `images` are ranked at random and `relevant` of them (>= 1) count.

    A relevant image at rank r has (relevant - 1) / (images - 1) of the r - 1 images before it relevant on average, so
    AP = mean over r of (1 + (r - 1) (relevant - 1) / (images - 1)) / r.
    """
    if relevant == 0:
        return 0.0
    slope = (relevant - 1) / max(images - 1, 1)
    return slope + (1 - slope) * float((1 / np.arange(1, images + 1)).sum()) / images
