"""Query expansion: a query image is joined by its neighbours, then any method."""

from dataclasses import replace
from functools import lru_cache

import numpy as np

from rscir_lib.methods.base import EncodeTexts, Method, Questions, Scorer
from rscir_lib.similarity.exact import similarities
from rscir_lib.similarity.gallery import Gallery
from rscir_lib.similarity.order import best_first


class Expanded:
    """`method` with v replaced by the normalised mean of v and its `neighbours` most similar archive images x_i, itself
    not among them, the latter weighted by max(v . x_i, 0) ** power.

    Chum et al., Total recall, ICCV 2007 (power 0); Radenovic et al., Fine-tuning CNN image retrieval with no human
    annotation, TPAMI 2019 (alpha query expansion). Only the image is expanded, not the composed result.
    """

    def __init__(self, method: Method, neighbours: int = 10, power: float = 3.0, name: str = "") -> None:
        if neighbours < 1:
            raise ValueError(f"neighbours {neighbours}: at least 1 is wanted")
        self.method, self.neighbours, self.power = method, neighbours, power
        self.name, self.has_lambda = name or f"{method.name}+qe", method.has_lambda

    def fit(self, features: Gallery, encode_texts: EncodeTexts) -> Scorer:
        scorer = self.method.fit(features, encode_texts)

        @lru_cache(maxsize=1)  # the lambdas of a sweep share them
        def expanded(questions: Questions) -> Questions:
            return replace(questions, images=self._expanded(features.feats, questions))

        return lambda questions, lam: scorer(expanded(questions), lam)

    def _expanded(self, feats: np.ndarray, questions: Questions) -> np.ndarray:
        expanded, own = questions.images.astype(np.float64), questions.positions
        for query, position, to_archive in zip(expanded, own, similarities(feats, questions.images), strict=True):
            near = best_first(to_archive, self.neighbours, position)
            weights = np.maximum(to_archive[near], 0) ** self.power
            query += weights @ feats[near].astype(np.float64)
        return expanded / np.linalg.norm(expanded, axis=1, keepdims=True)
