"""Similarities of queries to an archive, exact in float64, and the scales that they are put on.

A scale works on rows: (..., N) similarities of N archive images to one query a row. It normalises along the last axis,
never across queries, and it never reverses an order.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from numbers import Real

import numpy as np
import pandas as pd
import torch
from scipy.special import ndtr

# cosines of float32 features spread more than this, or not at all: what is less is the rounding of float64
FLAT = 1e-12


def raw(s: torch.Tensor, moments: tuple[float, float] | None = None) -> torch.Tensor:
    """Similarities as they are."""
    return s


def clamped(s: torch.Tensor) -> torch.Tensor:
    """Similarities, negative ones as 0: a product of two is then large only where both are."""
    return s.clamp(min=0)


def zscore(s: torch.Tensor, moments: tuple[float, float] | None = None) -> torch.Tensor:
    """(s - mean) / std, unbiased std (protocol, Scores). Constant similarities become 0.

    moments: mean and std over the whole archive, where `s` holds a part of it; without, those of the row.
    """
    if moments:
        mean, std = moments
        return torch.zeros_like(s) if std <= FLAT else (s - mean) / std
    centred = s - s.mean(dim=-1, keepdim=True)
    std = (centred.square().sum(dim=-1, keepdim=True) / max(s.shape[-1] - 1, 1)).sqrt()
    flat = std <= FLAT
    if flat.any():
        centred.masked_fill_(flat, 0.0)
    return centred.div_(std.masked_fill(flat, 1.0))  # what is not a number stays so


def phi(z: torch.Tensor) -> torch.Tensor:
    """Standard normal CDF. Wants float64: in float32 it is exactly 1 from z = 5.35 on, a tie at the top of the list."""
    if z.device.type == "cpu":  # three times faster than torch's, and equal inputs give equal outputs: ties stay ties
        return torch.from_numpy(np.asarray(ndtr(z.numpy())))
    return torch.special.ndtr(z)


def normal_cdf(s: torch.Tensor, moments: tuple[float, float] | None = None) -> torch.Tensor:
    """Phi of the z-score, in (0, 1): WeiCom's common scale for both modalities (protocol, Scores). To be looked at;
    to rank, it saturates (`upper_tail`)."""
    return phi(zscore(s, moments))


def upper_tail(s: torch.Tensor, moments: tuple[float, float] | None = None) -> torch.Tensor:
    """Phi(z) - 1 = -Phi(-z), in (-1, 0): the normal CDF less a constant, so the same order, and exact at the top.

    Phi itself is exactly 1 from z = 8.3 on, where near-duplicates of a query lie.
    """
    return phi(zscore(s, moments).neg_()).neg_()


def minmax(s: torch.Tensor) -> torch.Tensor:
    """(s - min) / (max - min), in [0, 1]. Constant similarities become 0."""
    low, high = s.amin(dim=-1, keepdim=True), s.amax(dim=-1, keepdim=True)
    return torch.where(high - low <= FLAT, torch.zeros_like(s), (s - low) / (high - low))


def reciprocal_rank(s: torch.Tensor) -> torch.Tensor:
    """1 / (60 + rank), the highest having rank 1; equal similarities share the better rank."""
    ascending = s.sort().values
    not_higher = torch.searchsorted(ascending, s.contiguous(), right=True)
    return 1 / (61 + s.shape[-1] - not_higher).to(s.dtype)


def mix(image: torch.Tensor, text: torch.Tensor, lam: float) -> torch.Tensor:
    """(1 - lambda) image + lambda text: lambda 0 is image alone, 1 text alone."""
    if lam in (0, 1):
        return text if lam else image  # which is ranked once, whoever asks
    return (1 - lam) * image + lam * text


def halfway(image: torch.Tensor, text: torch.Tensor, lam: float = float("nan")) -> torch.Tensor:
    """(image + text) / 2, to the last bit: a half is no rounding."""
    return mix(image, text, 0.5)


def check_lambda(lam: float) -> None:
    """Raises ValueError unless it is a number in [0, 1]."""
    if isinstance(lam, bool) or not isinstance(lam, Real) or not 0 <= lam <= 1:
        raise ValueError(f"lambda {lam!r} is outside [0, 1]; 0 is image alone, 1 text alone")


def best_first(scores: np.ndarray, top: int) -> np.ndarray:
    """Positions (top,) of the highest of (N,) scores, best first, ties by position; all N where there are fewer."""
    top = min(top, len(scores))
    if top < len(scores):
        least = np.partition(scores, -top)[-top]
        few = np.flatnonzero(scores >= least)
    else:
        few = np.arange(len(scores))
    return few[np.argsort(-scores[few], kind="stable")[:top]]


@contextmanager
def float32_products() -> Iterator[None]:
    """Meanwhile products of float32 are what they say. TF32 or bfloat16, which a session may allow for its speed, would
    break the bounds of their error."""
    matmuls = torch.backends.cuda.matmul, torch.backends.mkldnn.matmul
    before = [matmul.fp32_precision for matmul in matmuls]
    try:
        for matmul in matmuls:
            matmul.fp32_precision = "ieee"
        with torch.autocast("cuda", enabled=False), torch.autocast("cpu", enabled=False):
            yield
    finally:
        for matmul, precision in zip(matmuls, before, strict=True):
            matmul.fp32_precision = precision


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
        return float(self.mean @ query), float(np.sqrt(max(query @ projected, 0.0)))

    def normal_cdf(self, similarities: np.ndarray, query: np.ndarray) -> np.ndarray:
        """Phi of some (n,) similarities to a query feature (d,), standardised over the whole archive."""
        return normal_cdf(torch.from_numpy(np.array(similarities, np.float64)), self.of_similarities(query)).numpy()


class Database:
    """An archive as a method sees it: `feats`, (N, d) float32 of unit length, and exact similarities to them."""

    def __init__(self, feats: np.ndarray, device: str = "cpu", moments: Moments | None = None) -> None:
        self.feats, self.device = np.ascontiguousarray(feats, np.float32), device
        if moments is not None:
            self.moments = moments

    @classmethod
    def of(cls, features: object) -> "Database":
        """A database of anything that has `feats`, or of an (N, d) array; one that is given is given back."""
        return features if isinstance(features, cls) else cls(getattr(features, "feats", features))

    def __len__(self) -> int:
        return len(self.feats)

    @cached_property
    def moments(self) -> Moments:
        """Of the whole archive; worked out when first asked for."""
        return Moments.of(self.feats)

    @cached_property
    def tensor(self) -> torch.Tensor:
        """The features on the device."""
        return torch.from_numpy(self.feats).to(self.device)

    @cached_property
    def longest(self) -> float:
        """The greatest length of a feature, 1 but for rounding. Raises ValueError for features that aren't finite."""
        chunks = (self.feats[i : i + 65_536] for i in range(0, len(self), 65_536))
        squares = np.concatenate([np.einsum("nd,nd->n", chunk, chunk, dtype=np.float64) for chunk in chunks])
        if (bad := np.flatnonzero(~np.isfinite(squares))).size:
            raise ValueError(f"the features of image {bad[0]} are not finite; extract them again")
        return float(np.sqrt(squares.max()))

    @cached_property
    def _same(self) -> np.ndarray | None:
        """For each row the first row equal to it; None when all differ."""
        same = np.arange(len(self))
        likely = np.flatnonzero(pd.DataFrame(self.feats[:, :4]).duplicated(keep=False))  # or they differ there already
        first: dict[bytes, int] = {}
        for i in likely.tolist():
            row = (self.feats[i] + np.float32(0)).tobytes()  # -0 is 0
            same[i] = first.setdefault(hashlib.blake2b(row, digest_size=16).digest(), i)
        return same if len(first) < len(likely) else None

    def product(self, queries: torch.Tensor) -> torch.Tensor:
        """Similarities (B, N) in float64, on the device, to query features (B, d) there.

        Equal features get equal similarities, however the product was blocked: ties stay ties.
        """
        queries = queries.double()
        s = queries.new_empty(len(queries), len(self))
        for part, out in zip(
            self.tensor.split(2**10), s.split(2**10, dim=1), strict=True
        ):  # not all in float64 at once
            torch.mm(queries, part.double().T, out=out)
        return s if self._same is None else s[:, self._same]

    def similarities(self, queries: np.ndarray) -> np.ndarray:
        """Similarities (B, N) in float64 to query features (B, d). For further methods: arrays in, arrays out."""
        return self.product(torch.from_numpy(np.ascontiguousarray(queries)).to(self.device)).cpu().numpy()
