"""Mean and covariance of an archive's features, and its exact similarities to queries."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import torch

from rscir_lib.similarity.scales import normal_cdf


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
