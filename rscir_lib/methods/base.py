"""What a method is: fitted once to an archive, it scores every image of it for a query image and a query text."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np

from rscir_lib.similarity.gallery import Gallery

EncodeTexts = Callable[[list[str]], np.ndarray]  # n texts -> (n, d) float32, L2-normalised


@dataclass(frozen=True, eq=False)
class Questions:
    """Q composed queries of I distinct images and T distinct texts.

    Args:
        images, texts: (I, d) and (T, d) features of unit length, float32 or float64; zeros for what isn't asked for.
        words: T texts as they were typed.
        image_of, text_of: (Q,) the rows of `images` and of `texts` that each query has.
        positions: (I,) where each image lies in the archive, -1 for one from outside; all outside without.

    Raises:
        ValueError: for parts that don't fit together, and for features that are not finite.
    """

    images: np.ndarray
    texts: np.ndarray
    words: tuple[str, ...]
    image_of: np.ndarray
    text_of: np.ndarray
    positions: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))

    def __post_init__(self) -> None:
        for name, rows_of in (("images", "image_of"), ("texts", "text_of")):
            feats, rows = np.asarray(getattr(self, name)), getattr(self, rows_of)
            if feats.ndim != 2 or not len(feats):
                raise ValueError(f"{name}: expected query features (n, d), found {feats.shape}; of one, feature[None]")
            if (bad := np.flatnonzero(~np.isfinite(feats).all(axis=1))).size:
                raise ValueError(
                    f"{name}: the query features are not finite (row {bad[0]}); the encoder, or what it was given, is "
                    "at fault"
                )
            if not np.issubdtype(rows.dtype, np.integer) or ((rows < 0) | (rows >= len(feats))).any():
                raise ValueError(f"{rows_of}: expected integers from 0 to {len(feats) - 1}, found {rows}")
            dtype = np.float64 if feats.dtype == np.float64 else np.float32
            object.__setattr__(self, name, np.ascontiguousarray(feats, dtype))
        if not len(self.positions):
            object.__setattr__(self, "positions", np.full(len(self.images), -1))
        self.check_dim(self.images.shape[1])
        for one, other in (("words", "texts"), ("positions", "images"), ("image_of", "text_of")):
            if len(getattr(self, one)) != len(getattr(self, other)):
                sizes = f"{len(getattr(self, one))} {one}, {len(getattr(self, other))} {other}"
                raise ValueError(f"{sizes}: expected as many of both")

    def check_dim(self, dim: int) -> None:
        """Raises ValueError unless the features have `dim` coordinates, as those of the archive."""
        for side in (self.images, self.texts):
            if side.shape[1] != dim:
                raise ValueError(
                    f"a query feature has shape ({side.shape[1]},), the archive's ({dim},): of another encoder?"
                )

    def __len__(self) -> int:
        return len(self.image_of)

    @cached_property
    def query_images(self) -> np.ndarray:
        """(Q, d) float64, the image of each query."""
        return np.asarray(self.images[self.image_of], np.float64)

    @cached_property
    def query_texts(self) -> np.ndarray:
        """(Q, d) float64, the text of each query."""
        return np.asarray(self.texts[self.text_of], np.float64)

    @property
    def query_words(self) -> list[str]:
        """Q texts as they were typed."""
        return [self.words[text] for text in self.text_of]

    def take(self, numbers: np.ndarray) -> "Questions":
        """The queries with these numbers, with the images and texts that they need."""
        images, image_of = np.unique(self.image_of[numbers], return_inverse=True)
        texts, text_of = np.unique(self.text_of[numbers], return_inverse=True)
        words = tuple(self.words[text] for text in texts)
        return Questions(self.images[images], self.texts[texts], words, image_of, text_of, self.positions[images])


# What a method knows of one archive: scores (Q, N) in float64, higher is better, of Q queries for a lambda in [0, 1],
# NaN for a method without. Equal features in the archive get equal scores, as they do from `similarities`.
Scorer = Callable[[Questions, float], np.ndarray]


class Method(Protocol):
    """A way to compose. Its docstring gives the formula and the source."""

    @property
    def name(self) -> str: ...
    @property
    def has_lambda(self) -> bool: ...
    def fit(self, features: Gallery, encode_texts: EncodeTexts) -> Scorer:
        """Once an archive: `features.feats` (N, d) in archive order, `features.moments`."""
