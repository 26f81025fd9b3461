"""The features that are searched, as methods and rankings see them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import Any, Protocol

import numpy as np
import torch

from rscir_lib.similarity.exact import similarities
from rscir_lib.similarity.moments import Moments
from rscir_lib.similarity.scales import RowMoments

SPREAD = 1e-6  # a std below it is lost in the rounding of the moments, and taken from the similarities themselves
EXACT_ROWS = 2**13  # of the archive that are read together for that


class Shard(Protocol):
    """Rows that lie together: `rows` of them, read when `feats` (rows, d) is asked for."""

    @property
    def rows(self) -> int: ...
    @property
    def feats(self) -> np.ndarray | torch.Tensor: ...


class Gallery(Protocol):
    """Features of N images in an order, `features.Features` or an array as `InMemory`: finite, rows of unit length.

    feats: all, (N, d) float32; rows: those at some positions; shards: all in order, a part at a time.
    """

    def __len__(self) -> int: ...
    @property
    def dim(self) -> int: ...
    @property
    def feats(self) -> np.ndarray: ...
    @property
    def moments(self) -> Moments: ...
    def rows(self, positions: Sequence[int] | np.ndarray) -> np.ndarray: ...
    def shards(self) -> Iterator[Shard]: ...


@dataclass(frozen=True)
class MemoryShard:
    """Rows in memory, an array or a tensor, with what a shard of a store has where they come from one."""

    feats: Any
    ids: dict[str, Any] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        return len(self.feats)

    @cached_property
    def moments(self) -> Moments:
        return Moments.of(self.feats)


class InMemory:
    """A gallery of an (N, d) array, or of a tensor (N, d) on any device, where it is then ranked.

    Raises:
        ValueError: for another shape, and for rows that are not finite.
    """

    def __init__(self, rows: np.ndarray | torch.Tensor, moments: Moments | None = None) -> None:
        if isinstance(rows, np.ndarray):
            rows = torch.from_numpy(np.ascontiguousarray(rows, np.float32))
        if rows.ndim != 2 or not rows.numel():
            raise ValueError(f"expected features (N, d), N and d at least 1, found {tuple(rows.shape)}")
        self.tensor, self.device = rows, rows.device.type
        for start in range(0, len(self), 2**16):
            finite = rows[start : start + 2**16].float().sum(dim=1).isfinite()
            if not finite.all():
                row = start + int((~finite).nonzero()[0])
                raise ValueError(f"the features of image {row} are not finite; extract them again")
        if moments is not None:
            self.moments = moments

    @classmethod
    def on(cls, device: str | torch.device, features: Gallery) -> "InMemory":
        """The rows of a gallery, as they are stored, held on a device: ten million of 768 float16 are 15.4 GB. Raises
        torch.OutOfMemoryError where a GPU can't hold them."""
        rows, first = torch.empty(0), 0
        for shard in features.shards():
            part = torch.as_tensor(shard.feats)
            if first == 0:
                rows = torch.empty(len(features), features.dim, dtype=part.dtype, device=device)
            rows[first : first + len(part)] = part
            first += len(part)
        return cls(rows, features.moments)

    def __len__(self) -> int:
        return len(self.tensor)

    @property
    def dim(self) -> int:
        return self.tensor.shape[1]

    @cached_property
    def feats(self) -> np.ndarray:
        return self.rows(slice(None))

    @cached_property
    def moments(self) -> Moments:
        return Moments.of(self.feats)

    def rows(self, positions: Sequence[int] | np.ndarray | slice) -> np.ndarray:
        return self.tensor[positions].float().cpu().numpy()

    def shards(self) -> Iterator[MemoryShard]:
        yield MemoryShard(self.tensor)


Part = tuple[int, Shard]  # the position of the first row, and the rows, unopened: so it can be sent to other processes


def parts_of(features: Gallery) -> list[Part]:
    """The shards of an archive, in order."""
    shards = list(features.shards())
    return list(zip(accumulate((shard.rows for shard in shards), initial=0), shards, strict=False))


def device_of(features: Gallery) -> str:
    """The kind of device on which the rows lie."""
    return features.device if isinstance(features, InMemory) else "cpu"


def spreads(features: Gallery, queries: np.ndarray, exactly: bool = True) -> RowMoments:
    """Mean and std, (B, 1) each, of the similarities of the whole archive to queries (B, d). `exactly`: computed again
    from all similarities, in one array whatever the shards, where rounding hides a std."""
    mean, std = features.moments.of_similarities(queries)
    for query in np.flatnonzero(std <= SPREAD) if exactly else ():
        blocks = (rows for shard in features.shards() for rows in torch.as_tensor(shard.feats).split(EXACT_ROWS))
        s = np.concatenate([similarities(rows.cpu().numpy(), queries[[query]])[0] for rows in blocks])
        mean[query], std[query] = s.mean(), s.std(ddof=1 if len(s) > 1 else 0)
    return torch.from_numpy(mean)[:, None], torch.from_numpy(std)[:, None]
