"""Methods that see nothing but the similarities of the archive to the image and to the text."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from rscir_lib.methods.base import EncodeTexts, Scorer
from rscir_lib.similarity.moments import Database
from rscir_lib.similarity.scales import mix, raw

Combine = Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor]


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
