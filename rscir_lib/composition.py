"""The methods: a query image and a query text in, one score per archive image out.

A method is fitted once to an archive and then scores queries. The simplest kind, `TwoSimilarities`, sees nothing but
the similarities of the archive to the image and to the text; adding one is one entry of `METHODS`. Any other kind is a
class with `name`, `has_lambda` and `fit`; those of ours lie in `rscir_lib.methods`. A method need not be registered:
`evaluate` and `search` take the object as well as a name.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from rscir_lib.methods import Basic, FreeDom, Slerp
from rscir_lib.similarities import (
    Database,
    Moments,
    clamped,
    halfway,
    minmax,
    mix,
    normal_cdf,
    raw,
    reciprocal_rank,
    upper_tail,
    zscore,
)  # fmt: skip

__all__ = ["METHODS", "Database", "Method", "Moments", "TwoSimilarities", "get_method", "mix", "normal_cdf", "zscore"]

EncodeTexts = Callable[[list[str]], np.ndarray]  # n texts -> (n, d) float32, L2-normalised
Combine = Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor]


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


@dataclass(frozen=True)
class TwoSimilarities:
    """score = combine(prepare(image), prepare(text), lambda) of similarities (..., N) to the image and to the text.

    `prepare` runs once a modality, `combine` once a lambda; `evaluate` keeps what it can between queries. formula: its
    formula and source, the object's docstring.
    pointwise: the score of an image depends on its own two similarities alone, given the moments that `prepare` then
    takes; it never falls where one of them rises, nor rises more than twice as fast as similarities and z-scores. So a
    part of an archive can be scored without the rest, and most images need no exact score to be ruled out.
    """

    name: str
    combine: Combine
    prepare: Callable[..., torch.Tensor] = raw
    has_lambda: bool = False
    pointwise: bool = False
    formula: str = ""
    shown: Callable[..., torch.Tensor] | None = None  # the scale of scores that people read, where not `prepare`

    def __post_init__(self) -> None:
        object.__setattr__(self, "__doc__", self.formula)

    def prepare_at(self, lam: float) -> Callable[..., torch.Tensor]:
        """`prepare`, or nothing where one modality is mixed in alone: no scale changes its order, and the similarities
        themselves are exact where a scale saturates."""
        return raw if self.combine is mix and lam in (0, 1) else self.prepare

    def score(self, image: torch.Tensor, text: torch.Tensor, lam: float = float("nan")) -> torch.Tensor:
        """Scores (..., N), higher is better, from similarities (..., N); lam in [0, 1] where the method has one."""
        prepare = self.prepare_at(lam)
        return self.combine(prepare(image), prepare(text), lam)

    def fit(self, features: Database, encode_texts: EncodeTexts) -> Scorer:
        database = Database.of(features)

        def score(images: np.ndarray, texts: np.ndarray, lam: float = float("nan")) -> np.ndarray:
            image, text = (torch.from_numpy(database.similarities(queries)) for queries in (images, texts))
            return self.score(image, text, lam).numpy()

        return score


METHODS: dict[str, Method] = {
    method.name: method
    for method in [
        TwoSimilarities("text", lambda image, text, lam: text, pointwise=True, formula="s_t. Protocol, Scores."),
        TwoSimilarities("image", lambda image, text, lam: image, pointwise=True, formula="s_v. Protocol, Scores."),
        TwoSimilarities(
            "average", halfway, pointwise=True,
            formula='(s_v + s_t) / 2, "Text & Image". Protocol, Scores.',
        ),
        TwoSimilarities(
            "weicom", mix, upper_tail, has_lambda=True, pointwise=True,
            formula="(1 - lambda) Phi(z_v) + lambda Phi(z_t), less 1, z = (s - mean) / std. Psomas et al., Composed "
            "image retrieval for remote sensing, IGARSS 2024.", shown=normal_cdf,
        ),
        # the steps that WeiCom adds, one by one
        TwoSimilarities(
            "linear", mix, has_lambda=True, pointwise=True,
            formula="(1 - lambda) s_v + lambda s_t. WeiCom without its scale.",
        ),
        TwoSimilarities(
            "zscore", mix, zscore, has_lambda=True, pointwise=True,
            formula="(1 - lambda) z_v + lambda z_t, z = (s - mean) / std. In the authors' code, unpublished.",
        ),
        TwoSimilarities(
            "minmax", mix, minmax, has_lambda=True,
            formula="(1 - lambda) m_v + lambda m_t, m = (s - min) / (max - min). Fox and Shaw, TREC-2, 1994 (CombSUM).",
        ),
        TwoSimilarities(
            "rrf", mix, reciprocal_rank, has_lambda=True,
            formula="(1 - lambda) / (60 + rank_v) + lambda / (60 + rank_t), equal similarities sharing the better "
            "rank. Cormack et al., Reciprocal rank fusion, SIGIR 2009, where lambda is 1/2.",
        ),
        Slerp(),
        FreeDom(),
        Basic(),
        # in the authors' code, unpublished
        TwoSimilarities("sum", lambda image, text, lam: image + text, pointwise=True, formula="s_v + s_t."),
        TwoSimilarities("product", lambda image, text, lam: image * text, formula="s_v s_t."),
        TwoSimilarities(
            "product-clamped", lambda image, text, lam: image * text, clamped, formula="max(s_v, 0) max(s_t, 0)."
        ),
        TwoSimilarities("minimum", lambda image, text, lam: torch.minimum(image, text), pointwise=True,
                        formula="min(s_v, s_t)."),
    ]
}  # fmt: skip


def get_method(method: str | Method) -> Method:
    """The method of that name; an object that is one is given back.

    Raises ValueError listing the names there are, or for an object that lacks something or bears another's name.
    """
    if isinstance(method, str):
        if method not in METHODS:
            raise ValueError(f"unknown method {method!r}; choose from {', '.join(METHODS)}")
        return METHODS[method]
    if missing := [part for part in ("name", "has_lambda", "fit") if not hasattr(method, part)]:
        raise ValueError(f"{method!r} is no method: it lacks {', '.join(missing)}")
    if METHODS.get(method.name, method) is not method:
        raise ValueError(f"there is another method named {method.name!r}: give this one a name of its own")
    return method
