"""Query expansion: a query image is joined by its neighbours, then any method."""

from typing import TYPE_CHECKING

import numpy as np

from rscir_lib.similarity.moments import Database
from rscir_lib.similarity.scales import best_first

if TYPE_CHECKING:
    from rscir_lib.methods.base import EncodeTexts, Method, Scorer


class Expanded:
    """`method` with v replaced by the normalised mean of v and its `neighbours` most similar archive images x_i, the
    latter weighted by max(v . x_i, 0) ** power.

    Chum et al., Total recall, ICCV 2007 (power 0); Radenovic et al., Fine-tuning CNN image retrieval with no human
    annotation, TPAMI 2019 (alpha query expansion). Only the image is expanded, not the composed result.
    """

    def __init__(self, method: "Method", neighbours: int = 10, power: float = 3.0, name: str = "") -> None:
        if neighbours < 1:
            raise ValueError(f"neighbours {neighbours}: at least 1 is wanted")
        self.method, self.neighbours, self.power = method, neighbours, power
        self.name, self.has_lambda = name or f"{method.name}+qe", method.has_lambda
        self.reads_words = getattr(method, "reads_words", False)

    def fit(self, features: Database, encode_texts: "EncodeTexts") -> "Scorer":
        database = Database.of(features)
        scorer = self.method.fit(database, encode_texts)

        def score(images: np.ndarray, texts: np.ndarray, lam: float, *words: list[str]) -> np.ndarray:
            return scorer(self._expanded(database, images), texts, lam, *words)

        return score

    def _expanded(self, database: Database, images: np.ndarray) -> np.ndarray:
        expanded = images.astype(np.float64)
        for query, similarities in zip(expanded, database.similarities(images), strict=True):
            near = best_first(similarities, self.neighbours)
            weights = np.maximum(similarities[near], 0) ** self.power
            query += weights @ database.feats[near].astype(np.float64)
        return expanded / np.linalg.norm(expanded, axis=1, keepdims=True)
