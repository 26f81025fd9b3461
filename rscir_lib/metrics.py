"""Retrieval metrics from the ranks of the relevant images (protocol, Metrics)."""

import numpy as np

CUTOFFS = (5, 10, 15, 20)
METRICS = ("AP", *(f"P@{k}" for k in CUTOFFS), *(f"R@{k}" for k in CUTOFFS))


def retrieval_metrics(ranks: np.ndarray) -> np.ndarray:
    """AP, P@k and R@k of B rankings.

    ranks: (B, R) integers >= 1, the ranks of the R relevant images of each ranking, ascending along the last axis.
    Returns (B, 9) in [0, 1], columns `METRICS`. AP is the finite sum over the relevant images of
    (relevant so far) / rank, divided by R. Without relevant images (R = 0) every metric is 0.
    """
    rankings, relevant = ranks.shape
    if relevant == 0:
        return np.zeros((rankings, len(METRICS)))
    ap = (np.arange(1, relevant + 1) / ranks).mean(axis=1)
    hits = np.stack([(ranks <= k).sum(axis=1) for k in CUTOFFS], axis=1)
    return np.column_stack([ap, hits / np.array(CUTOFFS), hits / relevant])


def chance_ap(relevant: int, images: int) -> float:
    """Expected AP when `images` are ranked at random and `relevant` of them (>= 1) count.

    A relevant image at rank r has (relevant - 1) / (images - 1) of the r - 1 images before it relevant on average, so
    AP = mean over r of (1 + (r - 1) (relevant - 1) / (images - 1)) / r.
    """
    if relevant == 0:
        return 0.0
    if images == 1:
        return 1.0
    slope = (relevant - 1) / (images - 1)
    return slope + (1 - slope) * float((1 / np.arange(1, images + 1)).sum()) / images
