"""One question to an archive: the best images for a query image and a text."""

import numpy as np
import torch

from rscir_lib.composition import Moments, mix
from rscir_lib.similarities import raw, upper_tail


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
    of_image, of_text = (moments.of_similarities(query) for query in (image, text))
    prepare = raw if lam in (0, 1) else upper_tail

    def score(similarities: torch.Tensor) -> np.ndarray:
        to_image, to_text = similarities.double().T
        return mix(prepare(to_image, of_image), prepare(to_text, of_text), lam).numpy()

    queries = np.stack([image, text])
    # torch's products, here and in Moments: numpy's threads would fight with those of an encoder
    rough = score(torch.from_numpy(feats) @ torch.from_numpy(queries.astype(feats.dtype)).T)
    few = min(4 * top, len(feats))
    candidates = np.sort(np.argpartition(rough, -few)[-few:])
    exact = score(torch.from_numpy(feats[candidates].astype(np.float64) @ queries.T.astype(np.float64)))
    best = np.argsort(-exact, kind="stable")[:top]
    return candidates[best], exact[best]
