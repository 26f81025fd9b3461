"""An archive in blocks: where its rows lie, and what all of them together say about a query."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from tqdm.auto import tqdm

from rscir_lib.similarity.exact import similarities
from rscir_lib.similarity.gallery import Gallery, Rows, Shard
from rscir_lib.similarity.moments import Moments

SPREAD = 1e-6  # a std below it is lost in the rounding of the moments, and taken from the similarities themselves
EXACT_ROWS = 2**13  # that are read at a time to do so


@dataclass(frozen=True)
class Part:
    """A shard and the position of its first row. It opens where it is used, and so can be sent to other processes."""

    first: int
    shard: Shard

    def rows(self) -> torch.Tensor:
        """(n, d), on the device where they lie; those of a stored shard are mapped from its file."""
        feats = self.shard.feats
        return feats if isinstance(feats, torch.Tensor) else torch.from_numpy(feats)


def parts_of(features: Gallery) -> list[Part]:
    """The shards of an archive, unopened."""
    parts, first = [], 0
    for shard in features.shards():
        parts.append(Part(first, shard))
        first += shard.rows
    return parts


class OnDevice:
    """An archive whose rows are held on a device ("cuda", "cpu") as they are stored, as long as this object lives.

    Ten million rows of 768 float16 are 15.4 GB. Rankings take place where the rows lie.

    Raises:
        torch.OutOfMemoryError: where a GPU can't hold them.
    """

    def __init__(self, features: Gallery, device: str | torch.device) -> None:
        self.features, self.device, self._held = features, torch.device(device).type, torch.empty(0)
        for part in tqdm(parts_of(features), f"to {device}", unit=" shards", disable=None, leave=False):
            rows = part.rows()
            if part.first == 0:
                self._held = torch.empty(len(features), features.dim, dtype=rows.dtype, device=device)
            self._held[part.first : part.first + len(rows)] = rows

    def __len__(self) -> int:
        return len(self.features)

    @property
    def dim(self) -> int:
        return self.features.dim

    @property
    def feats(self) -> np.ndarray:
        return self.features.feats

    @property
    def moments(self) -> Moments:
        return self.features.moments

    def rows(self, positions: Sequence[int] | np.ndarray) -> np.ndarray:
        return self.features.rows(positions)

    def shards(self) -> Iterator[Rows]:
        yield Rows(self._held)


def spreads(features: Gallery, queries: np.ndarray, needed: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and std, (B, 1) each, of the similarities of the whole archive to queries (B, d); where the std is lost in
    rounding, from the similarities themselves, if `needed`."""
    mean, std = features.moments.of_similarities(queries)
    for query in np.flatnonzero(std <= SPREAD) if needed else ():
        s = _all_similarities(features, queries[[query]])
        mean[query], std[query] = s.mean(), s.std(ddof=1 if len(s) > 1 else 0)
    return torch.from_numpy(mean)[:, None], torch.from_numpy(std)[:, None]


def _all_similarities(features: Gallery, query: np.ndarray) -> np.ndarray:
    """(N,) to one query (1, d), in one array: its sum is then the same however the archive lies in shards."""
    blocks = (rows for part in parts_of(features) for rows in part.rows().split(EXACT_ROWS))
    return np.concatenate([similarities(rows.cpu().numpy(), query)[0] for rows in blocks])
