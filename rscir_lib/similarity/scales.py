"""The scales that similarities are put on before two of them are mixed.

A scale works on rows: (..., N) similarities of N archive images to one query a row. It normalises along the last axis,
never across queries, and it never reverses an order. Where a row holds only a part of the archive, `moments` are the
mean and the std over the whole, (...,) or (..., 1) each.
"""

from collections.abc import Callable

import numpy as np
import torch
from scipy.special import ndtr

RowMoments = tuple[torch.Tensor, torch.Tensor]
Scale = Callable[..., torch.Tensor]  # (similarities, moments=None) -> the same shape; without moments: whole rows only

# cosines of float32 features spread more than this, or not at all: what is less is the rounding of float64
FLAT = 1e-12


def raw(s: torch.Tensor, moments: RowMoments | None = None) -> torch.Tensor:
    """Similarities as they are."""
    return s


def clamped(s: torch.Tensor) -> torch.Tensor:
    """Similarities, negative ones as 0: a product of two is then large only where both are."""
    return s.clamp(min=0)


def zscore(s: torch.Tensor, moments: RowMoments | None = None) -> torch.Tensor:
    """(s - mean) / std, unbiased std (protocol, Scores). Constant similarities become 0."""
    if moments:
        mean, std = moments
        z = (s - mean).div_(std.where(std > FLAT, 1.0))
        flat = std <= FLAT
        return z.masked_fill_(flat, 0.0) if flat.any() else z
    mean = s.mean(dim=-1, keepdim=True)
    variance = (s - mean).square_().sum(dim=-1, keepdim=True) / max(s.shape[-1] - 1, 1)
    return zscore(s, (mean, variance.sqrt()))


def phi(z: torch.Tensor) -> torch.Tensor:
    """Standard normal CDF, in place. Wants float64: in float32 it is 1 from z = 5.35 on, a tie at the top."""
    if z.device.type == "cpu":  # three times faster than torch's, and equal inputs give equal outputs: ties stay ties
        ndtr(z.numpy(), out=z.numpy())
        return z
    return torch.special.ndtr(z, out=z)


def normal_cdf(s: torch.Tensor, moments: RowMoments | None = None) -> torch.Tensor:
    """Phi of the z-score, in (0, 1): WeiCom's common scale for both modalities (protocol, Scores). To be looked at;
    to rank, it saturates (`upper_tail`)."""
    return phi(zscore(s, moments))


def upper_tail(s: torch.Tensor, moments: RowMoments | None = None) -> torch.Tensor:
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


def check_lambda(lam: object) -> None:
    """Raises ValueError unless it is a number in [0, 1]."""
    if isinstance(lam, bool) or not isinstance(lam, int | float | np.floating | np.integer) or not 0 <= lam <= 1:
        raise ValueError(f"lambda {lam!r} is outside [0, 1]; 0 is image alone, 1 text alone")
