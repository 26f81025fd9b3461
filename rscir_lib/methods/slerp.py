"""Slerp: the query lies on the arc from the image to the text."""

import numpy as np

from rscir_lib.methods.base import EncodeTexts, Questions, Scorer
from rscir_lib.similarity.exact import similarities
from rscir_lib.similarity.gallery import Gallery


class Slerp:
    """q . x with q = [sin((1 - lambda) a) v + sin(lambda a) t] / sin(a), a the angle between image v and text t.

    Shoemake, SIGGRAPH 1985; for composed retrieval: Jang et al., Spherical linear interpolation and text-anchoring for
    zero-shot composed image retrieval, ECCV 2024, without its anchoring, which trains.
    """

    name, has_lambda = "slerp", True

    def fit(self, features: Gallery, encode_texts: EncodeTexts) -> Scorer:
        def score(questions: Questions, lam: float) -> np.ndarray:
            return similarities(features.feats, slerp(questions.query_images, questions.query_texts, lam))

        return score


def slerp(start: np.ndarray, end: np.ndarray, lam: float) -> np.ndarray:
    """Points (B, d) at the share `lam` of the arcs between unit vectors (B, d); on the chord where there is no one arc
    (equal or opposite ends)."""
    angle = np.arccos(np.clip((start * end).sum(axis=1, keepdims=True), -1, 1))
    sine = np.sin(angle)
    arc = sine > 1e-6
    safe = np.where(arc, sine, 1)
    first = np.where(arc, np.sin((1 - lam) * angle) / safe, 1 - lam)
    return first * start + np.where(arc, np.sin(lam * angle) / safe, lam) * end
