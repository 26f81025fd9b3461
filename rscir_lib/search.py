"""One question to an archive: the best images for a query image and a text."""

import numpy as np
import torch
from scipy.special import ndtr

from rscir_lib.composition import Moments, mix


def search(
    feats: np.ndarray,
    image: np.ndarray,
    text: np.ndarray,
    lam: float,
    top: int = 20,
    moments: Moments | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """WeiCom for one query: archive positions (top,) of the best images and their scores (top,), best first.

    feats: (N, d) float32; image, text: (d,) query features; lam in [0, 1]; moments: those of `feats`, worth keeping
    between queries. Similarities are taken in float32 to find candidates, and again in float64 to rank those.
    """
    if not 0 <= lam <= 1:
        raise ValueError(f"lambda {lam} is outside [0, 1]")
    moments = moments or Moments.of(feats)
    mean, std = np.transpose([moments.of_similarities(query) for query in (image, text)])

    def score(similarities: np.ndarray) -> np.ndarray:
        return mix(*ndtr((similarities - mean) / np.where(std > 0, std, 1)).T, lam)

    queries = np.stack([image, text])
    # torch's products, here and in Moments: numpy's threads would fight with those of an encoder
    rough = score((torch.from_numpy(feats) @ torch.from_numpy(queries.astype(feats.dtype)).T).double().numpy())
    few = min(4 * top, len(feats))
    candidates = np.sort(np.argpartition(rough, -few)[-few:])
    exact = score(feats[candidates].astype(np.float64) @ queries.T.astype(np.float64))
    best = np.argsort(-exact, kind="stable")[:top]
    return candidates[best], exact[best]
