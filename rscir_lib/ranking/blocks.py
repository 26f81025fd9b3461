"""An archive in parts: where its rows lie, and what all of them together say about a query."""

from itertools import accumulate

import numpy as np
import torch

from rscir_lib.similarity.exact import similarities
from rscir_lib.similarity.gallery import Gallery, InMemory, Shard
from rscir_lib.similarity.scales import RowMoments

SPREAD = 1e-6  # a std below it is lost in the rounding of the moments, and taken from the similarities themselves
EXACT_ROWS = 2**13  # of the archive that are read together for that


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
