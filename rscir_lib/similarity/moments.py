"""Mean and covariance of an archive's features."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from rscir_lib.similarity.scales import normal_cdf


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

    @cached_property
    def _stacked(self) -> np.ndarray:
        return np.vstack([self.covariance, self.mean])

    def of_similarities(self, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean (B,) and std (B,), over the whole archive, of the similarities to query features (B, d). A query's are
        the same to the last bit whichever others are asked with it, as similarities are."""
        from rscir_lib.similarity.compiled import running_sums

        queries = np.ascontiguousarray(queries, np.float64)
        both = running_sums(self._stacked, queries)
        variance = (both[:, :-1] * queries).sum(axis=1)
        return both[:, -1], np.sqrt(np.maximum(variance, 0.0))

    def normal_cdf(self, similarities: np.ndarray, query: np.ndarray) -> np.ndarray:
        """Phi of similarities (n,) to a query feature (d,), standardised over the whole archive."""
        mean, std = map(torch.from_numpy, self.of_similarities(query[None]))
        return normal_cdf(torch.from_numpy(np.array(similarities, np.float64)), (mean, std)).numpy()
