"""The order of a ranking: by descending score, equal scores by position in the archive. Settled here for everybody."""

import numpy as np


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
