"""Similarities of queries to an archive, exact in float64, and the scales that they are put on.

A scale works on rows: (..., N) similarities of N archive images to one query a row. It normalises along the last axis,
never across queries, and it never reverses an order.
"""

from numbers import Real

import numpy as np
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
