"""What a method is: fitted once to an archive, it scores every image of it for a query image and a query text."""

from collections.abc import Callable
from typing import Protocol

import numpy as np

from rscir_lib.similarity.moments import Database

EncodeTexts = Callable[[list[str]], np.ndarray]  # n texts -> (n, d) float32, L2-normalised


class Scorer(Protocol):
    """What a method knows of one archive."""

    def __call__(self, images: np.ndarray, texts: np.ndarray, lam: float) -> np.ndarray:
        """Scores (B, N) in float64, higher is better, of B queries: features (B, d) of their images and of their
        texts, L2-normalised. lam in [0, 1], NaN for a method without. Equal archive features get equal scores."""


class Method(Protocol):
    """A way to compose. Its docstring gives the formula and the source.

    A method that needs the words themselves says `reads_words = True`; its scorer takes a list of the B texts as well.
    """

    name: str
    has_lambda: bool

    def fit(self, features: Database, encode_texts: EncodeTexts) -> Scorer:
        """Once an archive: `features.feats` (N, d) in archive order, `features.similarities(queries)`,
        `features.moments`."""
