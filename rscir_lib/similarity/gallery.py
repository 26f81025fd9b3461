"""The features that are searched, as methods and rankings see them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import torch

from rscir_lib.similarity.moments import Moments


class Shard(Protocol):
    """Rows that lie together: `rows` of them, read when `feats` (rows, d) is asked for."""

    @property
    def rows(self) -> int: ...
    @property
    def feats(self) -> np.ndarray | torch.Tensor: ...


class Gallery(Protocol):
    """Features of N images: `features.Features`, or an array as `InMemory`. Rows are finite and of unit length."""

    def __len__(self) -> int: ...
    @property
    def dim(self) -> int: ...
    @property
    def feats(self) -> np.ndarray:
        """(N, d) float32."""

    @property
    def moments(self) -> Moments: ...
    def rows(self, positions: Sequence[int] | np.ndarray) -> np.ndarray:
        """(n, d) float32."""

    def shards(self) -> Iterator[Shard]:
        """The rows in order, a part at a time."""


@dataclass(frozen=True)
class Rows:
    """A shard that is there already."""

    feats: np.ndarray | torch.Tensor

    @property
    def rows(self) -> int:
        return len(self.feats)


class InMemory:
    """A gallery of an (N, d) array.

    Raises:
        ValueError: for another shape, and for rows that are not finite.
    """

    def __init__(self, feats: np.ndarray, moments: Moments | None = None) -> None:
        self.feats = np.ascontiguousarray(feats, np.float32)
        if self.feats.ndim != 2 or not self.feats.size:
            raise ValueError(f"expected features (N, d), N and d at least 1, found {self.feats.shape}")
        for start in range(0, len(self), 65_536):
            if (bad := np.flatnonzero(~np.isfinite(self.feats[start : start + 65_536].sum(axis=1)))).size:
                raise ValueError(f"the features of image {start + bad[0]} are not finite; extract them again")
        if moments is not None:
            self.moments = moments

    def __len__(self) -> int:
        return len(self.feats)

    @property
    def dim(self) -> int:
        return self.feats.shape[1]

    @cached_property
    def moments(self) -> Moments:
        """Of all rows; worked out when first asked for."""
        return Moments.of(self.feats)

    def rows(self, positions: Sequence[int] | np.ndarray) -> np.ndarray:
        return self.feats[positions]

    def shards(self) -> Iterator[Rows]:
        yield Rows(self.feats)
