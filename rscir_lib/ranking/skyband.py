"""The images that can be among the best k at some lambda: few, whatever the size of the archive.

A k-skyband (Papadias et al., Progressive skyline computation, TODS 2005) keeps a point unless k others are at least as
high in both coordinates. Scores are rounded and ties go by archive order, so here an image is left out only if k others
come before it at every lambda *as computed*:

* others that are higher on both sides by more than rounding can take back; or
* others that come earlier in the archive, are equal on one side and at least as high on the other.

Both hold for any rule that falls nowhere and rises where both sides do: a mix at any lambda strictly between 0 and 1,
sum, mean, minimum. Lambda 0 and 1 rank one side as it is: the caller adds the best k of each.
"""

import numpy as np

ROUNDING = 1e-12  # of scores, relative to the greatest: a rule of three float64 operations errs by less than 1e-15
CHUNK = 512  # images between two looks at the k highest so far: more and a few too many are kept, fewer and it is slow


def skyband(image: np.ndarray, text: np.ndarray, k: int) -> np.ndarray:
    """Positions, ascending, of all images that can be among the best k.

    Args:
        image, text: similarities (N,) to the image and to the text on the method's scale, float64, finite.
        k: how many best images are asked for, at least 1.

    Returns:
        (M,) positions; M is near k (1 + ln(N / k)) where the two sides are independent of each other.
    """
    kept = np.flatnonzero(_not_beaten(image, text, k))
    for one, other in ((image, text), (text, image)):
        kept = kept[_early_or_high(one[kept], other[kept], k)]
    return kept


def _not_beaten(image: np.ndarray, text: np.ndarray, k: int) -> np.ndarray:
    """(N,) whether fewer than k others are surely higher on both sides: of those that are higher in the image, the k
    that are highest in the text tell."""
    margins = [ROUNDING * max(1.0, float(np.abs(side).max(initial=0))) for side in (image, text)]
    order = np.argsort(-image)
    falling, other = -image[order], text[order]
    kept = np.ones(len(image), bool)
    highest, taken = np.empty(0), 0
    for start in range(0, len(order), CHUNK):
        higher = int(np.searchsorted(falling, falling[start] - margins[0]))  # than every image of this chunk
        highest, taken = np.concatenate([highest, other[taken:higher]]), higher
        if len(highest) >= k:
            highest = np.partition(highest, len(highest) - k)[len(highest) - k :]
            kept[order[start : start + CHUNK]] = other[start : start + CHUNK] + margins[1] >= highest.min()
    return kept


def _early_or_high(same: np.ndarray, other: np.ndarray, k: int) -> np.ndarray:
    """(N,) whether, of the images with an equal `same`, fewer than k come earlier and are as high in `other`."""
    kept = np.ones(len(same), bool)
    order = np.argsort(same, kind="stable")  # within a group in archive order
    groups = np.split(order, np.flatnonzero(np.diff(same[order])) + 1)
    for group in groups:
        highest = np.empty(0)
        for start in range(0, len(group) if len(group) > k else 0, CHUNK):
            values = other[group[start : start + CHUNK]]
            if len(highest) >= k:
                kept[group[start : start + CHUNK]] = values > highest.min()
            highest = np.concatenate([highest, values])
            highest = np.partition(highest, max(len(highest) - k, 0))[max(len(highest) - k, 0) :]
    return kept
