"""Methods that see nothing but the similarities of the archive to the image and to the text."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import torch

from rscir_lib.methods.base import EncodeTexts, Questions, Scorer
from rscir_lib.similarity.exact import similarities
from rscir_lib.similarity.gallery import Gallery
from rscir_lib.similarity.scales import Scale, raw

Combine = Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor]


@dataclass(frozen=True)
class Weighted:
    """a image + b text, where (a, b) = weights(lambda), both at least 0, their sum at most 2."""

    weights: Callable[[float], tuple[float, float]]

    def __call__(self, image: torch.Tensor, text: torch.Tensor, lam: float = float("nan")) -> torch.Tensor:
        a, b = self.weights(lam)
        return a * image + b * text


mix = Weighted(lambda lam: (1.0 - lam, float(lam)))  # lambda 0 is image alone, 1 text alone
halfway = Weighted(lambda lam: (0.5, 0.5))
add = Weighted(lambda lam: (1, 1))


def multiply(image: torch.Tensor, text: torch.Tensor, lam: float = float("nan")) -> torch.Tensor:
    return image * text


def minimum(image: torch.Tensor, text: torch.Tensor, lam: float = float("nan")) -> torch.Tensor:
    return torch.minimum(image, text)


@dataclass(frozen=True)
class TwoSimilarities:
    """score = combine(scale(image), scale(text), lambda) of similarities (..., N) to the image and to the text.

    Args:
        name: by which tables call it.
        combine: of two scaled similarities and lambda, elementwise.
        scale: of `rscir_lib.similarity.scales`, or one of your own.
        scope: "row" where an image's score depends on its own two similarities alone, given the moments that the scale
            then takes, is non-decreasing in both, and 2-Lipschitz in similarities and z-scores. Such a method is ranked
            block by block, and few rows need an exact score; "archive" needs no such promise.
        formula: formula and source, the object's docstring.
        shown: the scale of scores that people read, where it isn't `scale`.

    Raises:
        ValueError: for another scope, and for scope "row" where the promise doesn't hold, with a point where it fails.
    """

    name: str
    combine: Combine
    scale: Scale = raw
    has_lambda: bool = False
    scope: Literal["row", "archive"] = "archive"
    formula: str = ""
    shown: Scale | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "__doc__", self.formula)
        if self.scope not in ("row", "archive"):
            raise ValueError(f"method {self.name!r} is of scope {self.scope!r}; there are 'row' and 'archive'")
        if self.scope == "row":
            _check_steps(self)

    def weights_at(self, lam: float) -> tuple[float, float] | None:
        """The weights of a `Weighted` combination; None of any other, also of a subclass that combines otherwise."""
        return self.combine.weights(lam) if type(self.combine) is Weighted else None

    def scale_at(self, lam: float) -> Scale:
        """`scale`, or `raw` where only one modality counts: no scale changes its order, and the similarities themselves
        are exact where a scale saturates."""
        return raw if 0 in (self.weights_at(lam) or ()) else self.scale

    def score(self, image: torch.Tensor, text: torch.Tensor, lam: float = float("nan")) -> torch.Tensor:
        """Scores (..., N), higher is better, from similarities (..., N) of the whole archive."""
        scale = self.scale_at(lam)
        return self.combine(scale(image), scale(text), lam)

    def fit(self, features: Gallery, encode_texts: EncodeTexts | None = None) -> Scorer:
        @lru_cache(maxsize=2)  # the lambdas of a sweep share them, but for 0 and 1
        def scaled(questions: Questions, scale: Scale) -> list[torch.Tensor]:
            sides = (questions.images, questions.texts)
            return [scale(torch.from_numpy(similarities(features.feats, side))) for side in sides]

        def score(questions: Questions, lam: float) -> np.ndarray:
            image, text = scaled(questions, self.scale_at(lam))
            return self.combine(image[questions.image_of], text[questions.text_of], lam).numpy()

        return score


def _check_steps(method: TwoSimilarities) -> None:
    """From step to step of a grid, scores neither fall nor rise by more than twice the step of a similarity or z."""
    steps = torch.linspace(-1, 1, 21, dtype=torch.float64)
    for std in (0.02, 0.5, 3.0):
        moments = torch.tensor(0.1), torch.tensor(std)
        for lam in (0.0, 0.3, 1.0):
            try:
                side = method.scale_at(lam)(steps.clone(), moments)
            except TypeError:
                raise ValueError(
                    f"method {method.name!r} is of scope 'row', but its scale takes no moments: it needs all "
                    "similarities of the archive at once. Make it of scope 'archive'"
                ) from None
            scores = method.combine(side[:, None].expand(21, 21), side, lam)  # shapes that differ, as many queries give
            if scores.shape != (21, 21):
                raise ValueError(
                    f"method {method.name!r} makes scores {tuple(scores.shape)} of similarities (21, 21) to images and "
                    f"(21,) to a text (lambda {lam}); expected is (21, 21): let both take part, one perhaps times 0"
                )
            for modality, other in (("image", scores.T), ("text", scores)):  # (of the other modality, of this one)
                rise = other.diff(dim=1)
                most = 2 * 0.1 / min(std, 1.0)
                if (wrong := ~((rise >= -1e-12) & (rise <= most + 1e-12)).reshape(21, 20)).any():
                    at = wrong.nonzero()[0].tolist()
                    change = f"changes by {rise[at[0], at[1]]:.3g}; expected is 0 to {most:.3g}"
                    change = "is no number" if rise[at[0], at[1]].isnan() else change
                    raise ValueError(
                        f"method {method.name!r} is of scope 'row', but where the similarity to the {modality} rises "
                        f"from {steps[at[1]]:.1f} to {steps[at[1] + 1]:.1f}, the other being {steps[at[0]]:.1f} (std "
                        f"{std}, lambda {lam}), its score {change}. Make it of scope 'archive'"
                    )
