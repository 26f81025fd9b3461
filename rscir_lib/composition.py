"""The methods: similarities to the query image and to the query text in, one score per image out.

A method works on rows: `image` and `text` are (..., N) similarities of N archive images to one query image and one
query text a row. Whatever it normalises, it normalises along the last axis, never across queries.
Adding a method is one function and one entry in `METHODS`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import ndtr

Prepare = Callable[[torch.Tensor], torch.Tensor]
Combine = Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor]


def raw(s: torch.Tensor) -> torch.Tensor:
    """Similarities as they are."""
    return s


def zscore(s: torch.Tensor) -> torch.Tensor:
    """(s - mean) / std over the archive, unbiased std (protocol, Scores). Constant similarities become 0."""
    centred = s - s.mean(dim=-1, keepdim=True)
    std = (centred.square().sum(dim=-1, keepdim=True) / max(s.shape[-1] - 1, 1)).sqrt()
    return centred / torch.where(std > 0, std, torch.ones_like(std))


def phi(z: torch.Tensor) -> torch.Tensor:
    """Standard normal CDF. Wants float64: in float32 it is exactly 1 from z = 5.35 on, a tie at the top of the list."""
    if z.device.type == "cpu":  # three times faster than torch's, and equal inputs give equal outputs: ties stay ties
        return torch.from_numpy(np.asarray(ndtr(z.numpy())))
    return torch.special.ndtr(z)


def normal_cdf(s: torch.Tensor) -> torch.Tensor:
    """Phi of the z-score, in (0, 1): WeiCom's common scale for both modalities (protocol, Scores)."""
    return phi(zscore(s))


def mix(image: torch.Tensor, text: torch.Tensor, lam: float) -> torch.Tensor:
    """(1 - lambda) image + lambda text: lambda 0 is image alone, 1 text alone."""
    if lam == 1:
        return text  # which may be one row for many images: it is ranked once
    return (1 - lam) * image + lam * text


@dataclass(frozen=True)
class Method:
    """score = combine(prepare(image), prepare(text), lambda): `prepare` runs once a modality, `combine` per lambda."""

    combine: Combine
    prepare: Prepare = raw
    has_lambda: bool = False

    def score(self, image: torch.Tensor, text: torch.Tensor, lam: float = float("nan")) -> torch.Tensor:
        """Scores (..., N), higher is better, from similarities (..., N); lam in [0, 1] where the method has one."""
        return self.combine(self.prepare(image), self.prepare(text), lam)


METHODS: dict[str, Method] = {
    "text": Method(lambda image, text, lam: text),
    "image": Method(lambda image, text, lam: image),
    "average": Method(lambda image, text, lam: (image + text) / 2),
    "weicom": Method(mix, normal_cdf, has_lambda=True),
    # the steps that WeiCom adds, one by one
    "linear": Method(mix, raw, has_lambda=True),
    "zscore": Method(mix, zscore, has_lambda=True),
    # in the authors' code, unpublished
    "sum": Method(lambda image, text, lam: image + text),
    "product": Method(lambda image, text, lam: image * text),
    "minimum": Method(lambda image, text, lam: torch.minimum(image, text)),
}


def get_method(name: str) -> Method:
    """The method of that name. Raises ValueError listing the names there are."""
    if name not in METHODS:
        raise ValueError(f"unknown method {name!r}; choose from {', '.join(METHODS)}")
    return METHODS[name]


@dataclass(frozen=True)
class Moments:
    """Mean (d,) and covariance (d, d) of an archive's features: all that WeiCom asks of the archive as a whole.

    mean(X v) = mean . v and var(X v) = v' covariance v hold exactly, so that the normal CDF of one image's similarity
    needs no pass over the archive (protocol, Traps).
    """

    mean: np.ndarray
    covariance: np.ndarray

    @classmethod
    def of(cls, feats: np.ndarray, chunk: int = 65_536) -> "Moments":
        """Moments in float64 of (N, d) features, which may be memory-mapped: two passes in chunks of rows."""
        starts = range(0, len(feats), chunk)
        mean = sum(feats[i : i + chunk].sum(axis=0, dtype=np.float64) for i in starts) / len(feats)
        scatter = np.zeros((feats.shape[1], feats.shape[1]))
        for i in starts:
            centred = feats[i : i + chunk] - mean
            scatter += centred.T @ centred
        return cls(mean, scatter / max(len(feats) - 1, 1))

    def of_similarities(self, query: np.ndarray) -> tuple[float, float]:
        """Mean and std, over the whole archive, of the similarities to a query feature (d,)."""
        query = query.astype(np.float64)
        projected = (torch.from_numpy(self.covariance) @ torch.from_numpy(query)).numpy()
        return self.mean @ query, np.sqrt(max(query @ projected, 0.0))

    def normal_cdf(self, similarities: np.ndarray, query: np.ndarray) -> np.ndarray:
        """Phi of some (n,) similarities to a query feature (d,), standardised over the whole archive."""
        mean, std = self.of_similarities(query)
        return ndtr((similarities - mean) / (std or 1.0))
