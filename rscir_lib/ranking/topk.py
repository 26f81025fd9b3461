"""The best images of an archive: those of every block, merged."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from numbers import Integral

import numpy as np
import torch

from rscir_lib.methods.base import Questions
from rscir_lib.methods.pairwise import TwoSimilarities
from rscir_lib.ranking.questions import ImageSets, Job, check_asked
from rscir_lib.similarity.exact import best_first, ranking, similarities
from rscir_lib.similarity.gallery import Gallery, Part, device_of, parts_of, spreads
from rscir_lib.similarity.scales import raw
from rscir_lib.storage.parallel import each

QUERIES = 256  # that share a scan
SCORES = 2**22  # of the whole archive that are held at a time, 32 MiB
PIECE = {"cpu": 2**11, "cuda": 2**18}  # rows that are turned into float32 at a time: what stays in a cache
SIMILARITIES = {"cpu": 2**23, "cuda": 2**27}  # float32, between two looks at the best so far: 32 MiB, 512 MiB
STEPS = 64  # of similarity, in looking for the least that is enough


def top_k(
    questions: Questions,
    k: int,
    features: Gallery,
    job: Job,
    excluded: ImageSets | None = None,
    scheduler: str | None = None,
    workers: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The best images for each query, by descending float64 score, ties by position.

    For a method of scope "row", float32 products and the bound of their error rule out what can't be among the best,
    and only the rest is scored by `similarities`: what is held grows with k, not with the archive.

    Args:
        questions: Q queries.
        k: how many images are wanted, at least 1.
        features: of the archive; read shard by shard, and searched on the device where its rows lie.
        job: a method and its lambda.
        excluded: images that are left out of each query's ranking.
        scheduler, workers: see `parallel.each`; the first for a method of scope "row" alone.

    Returns:
        Positions (Q, k) and scores (Q, k) float64, best first, k at most N; -1 and -inf where fewer images are ranked.

    Raises:
        ValueError: for a lambda or a k out of range, and for features or scores that are not finite.
    """
    if isinstance(k, bool) or not isinstance(k, Integral) or k < 1:
        raise ValueError(f"top {k!r}: ask for a whole number of images, at least 1")
    excluded = ImageSets.empty(len(questions)) if excluded is None else excluded
    check_asked(questions, features, [job], {"excluded": excluded}, scheduler)
    best = _Best(len(questions), min(int(k), len(features)))
    if job.by_row:
        starts = range(0, len(questions), QUERIES)
        batches = [_Batch(questions, features, job, best.k, excluded, start) for start in starts]
        parts, workers = parts_of(features), workers if device_of(features) == "cpu" else 1
        items = [(part, batch) for part in range(len(parts)) for batch in range(len(batches))]
        scans = each(partial(_best_of_part, batches, parts), items, scheduler, workers)
        for (_, batch), (positions, scores) in zip(items, scans, strict=True):
            for i, number in enumerate(batches[batch].numbers):
                best.add(number, positions[i], scores[i])
        return best.positions, best.scores
    size = max(1, SCORES // len(features))
    for numbers in (np.arange(len(questions))[start : start + size] for start in range(0, len(questions), size)):
        for number, scores in zip(numbers, job.scores(questions.take(numbers), len(features)), strict=True):
            ranked = np.setdiff1d(np.arange(len(features)), excluded[excluded.set_of[number]], assume_unique=True)
            positions = ranked[best_first(scores[ranked], best.k)]
            best.add(number, positions, scores[positions])
    return best.positions, best.scores


class _Best:
    """The best so far of each query: positions and scores (Q, k), best first, -1 and -inf where there are none."""

    def __init__(self, queries: int, k: int) -> None:
        self.k, self.positions, self.scores = k, np.full((queries, k), -1), np.full((queries, k), -np.inf)

    def add(self, query: int, positions: np.ndarray, scores: np.ndarray) -> None:
        """Further images, none of them there yet; -1 is none."""
        positions, scores = np.append(self.positions[query], positions), np.append(self.scores[query], scores)
        order = np.flatnonzero(positions >= 0)
        order = order[ranking(scores[order], positions[order])][: self.k]
        self.positions[query, : len(order)], self.scores[query, : len(order)] = positions[order], scores[order]

    @property
    def floor(self) -> np.ndarray:
        """(Q,) what an image must score to come in, slightly lowered, since scales round."""
        least = self.scores[:, -1]
        return np.where(np.isfinite(least), least - 1e-12 * np.abs(least), -np.inf)


class _Batch:
    """Q queries that share a scan: (Q, d) features of images and texts, and (Q, 1) moments of their similarities."""

    def __init__(
        self, questions: Questions, features: Gallery, job: Job, k: int, excluded: ImageSets, start: int
    ) -> None:
        assert isinstance(job.method, TwoSimilarities)
        self.numbers = np.arange(start, min(start + QUERIES, len(questions)))
        self.method, self.lam, self.k, self.scale = job.method, job.lam, k, job.method.scale_at(job.lam)
        self.excluded = [excluded[excluded.set_of[number]] for number in self.numbers]
        asked = questions.take(self.numbers)
        both = np.concatenate([asked.images, asked.texts])
        mean, std = spreads(features, both, exactly=self.scale is not raw)
        rows = asked.image_of, len(asked.images) + asked.text_of
        self.sides, self.moments = [both[i] for i in rows], [(mean[i], std[i]) for i in rows]

    def score(self, image: np.ndarray, text: np.ndarray, queries: int | slice = slice(None)) -> np.ndarray:
        """Scores, in float64, from similarities to some queries' images and texts."""
        sides = [
            self.scale(torch.from_numpy(s), (mean[queries], std[queries]))
            for s, (mean, std) in zip((image, text), self.moments, strict=True)
        ]
        scores = self.method.combine(sides[0], sides[1], self.lam).numpy()
        if not np.isfinite(scores).all():
            raise ValueError(f"method {self.method.name!r} gives scores that are not finite")
        return scores

    def least(self, highest: list[np.ndarray], lowest: list[np.ndarray], floor: np.ndarray) -> list[np.ndarray]:
        """What similarities to image and text (Q,) must exceed, so that the score reaches a floor (Q,) even where the
        other is the highest of a block. No score falls where a similarity rises, so whoever doesn't is ruled out."""
        needed = [np.full(len(floor), -np.inf)] * 2
        for side in (0, 1) if np.isfinite(floor).any() else ():
            grid = lowest[side][:, None] + (highest[side] - lowest[side])[:, None] * np.linspace(0, 1, STEPS)
            other = np.repeat(highest[1 - side][:, None], STEPS, axis=1)
            scores = self.score(grid, other) if side == 0 else self.score(other, grid)
            below = (scores < floor[:, None]).sum(axis=1)
            needed[side] = np.take_along_axis(np.insert(grid, 0, -np.inf, axis=1), below[:, None], axis=1)[:, 0]
        return needed


@contextmanager
def float32_products() -> Iterator[None]:
    """Meanwhile products of float32 are what they say. TF32 or bfloat16, which a session may allow for its speed, would
    break the bounds of their error."""
    matmuls = torch.backends.cuda.matmul, torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = [matmul.fp32_precision for matmul in matmuls]
    try:
        for matmul in matmuls:
            matmul.fp32_precision = "ieee"
        with torch.autocast("cuda", enabled=False), torch.autocast("cpu", enabled=False):
            yield
    finally:
        for matmul, precision in zip(matmuls, before, strict=True):
            matmul.fp32_precision = precision


@float32_products()
def _best_of_part(batches: list[_Batch], parts: list[Part], item: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Positions and scores (Q, k) of a batch's best among the rows of a part, found on the device where they lie."""
    (first, shard), batch = parts[item[0]], batches[item[1]]
    rows = torch.as_tensor(shard.feats)  # on the device where they lie, or mapped from their file
    best, on = _Best(len(batch.numbers), batch.k), rows.device
    # no float32 sum of d products strays further from the true one, whatever its order (Higham, Accuracy and Stability
    # of Numerical Algorithms, 3.1); a query may be rounded to float32 before, and rows are of unit length to 1e-3
    errors = [1.01 * (side.shape[1] + 2) * 2.0**-24 * np.linalg.norm(side, axis=1) for side in batch.sides]
    queries = torch.from_numpy(np.concatenate(batch.sides).astype(np.float32)).to(on)
    start, size = 0, 2 * PIECE["cpu"]
    while start < len(rows):  # the first looks come early: the more is known, the more is ruled out
        pieces = rows[start : start + size].split(size if rows.dtype == torch.float32 else PIECE[on.type])
        # this way round three times as fast for few queries
        sides = torch.cat([queries @ piece.float().T for piece in pieces], dim=1).split(len(best.scores))
        if not all(side.sum().isfinite() for side in sides):
            raise ValueError("the features of a shard are not finite: run rscir verify")
        ends = [torch.stack(side.aminmax(dim=1)).cpu().double().numpy() for side in sides]
        lowest, highest = ([end[i] + error for end, error in zip(ends, errors, strict=True)] for i in (0, 1))
        passed = torch.ones_like(sides[0], dtype=torch.bool)
        for side, need, error in zip(sides, batch.least(highest, lowest, best.floor), errors, strict=True):
            need = np.nextafter((need - error).astype(np.float32), np.float32(-np.inf))
            passed &= side > torch.from_numpy(need).to(on)[:, None]
        where = passed.nonzero(as_tuple=True)
        image, text = (side[where].double().cpu().numpy() for side in sides)
        query, row = (at.cpu().numpy() for at in where)
        for q in np.unique(query).tolist():
            mine = np.flatnonzero(query == q)
            mine = mine[~np.isin(first + start + row[mine], batch.excluded[q])]
            upper = batch.score(image[mine] + errors[0][q], text[mine] + errors[1][q], q)
            likely = best_first(upper, 2 * batch.k)
            _rescore(batch, best, q, first, rows, start + row[mine[likely]])
            upper[likely] = -np.inf
            _rescore(batch, best, q, first, rows, start + row[mine[upper >= max(best.floor[q], np.finfo(float).min)]])
        start, size = start + size, min(8 * size, max(PIECE["cpu"], SIMILARITIES[on.type] // len(queries)))
    return best.positions, best.scores


def _rescore(batch: _Batch, best: _Best, query: int, first: int, rows: torch.Tensor, chosen: np.ndarray) -> None:
    """Add rows by their exact scores."""
    pair = np.stack([side[query] for side in batch.sides])
    for part in np.split(chosen, range(PIECE["cpu"], len(chosen), PIECE["cpu"])) if len(chosen) else ():
        feats = rows[torch.from_numpy(part).to(rows.device)].cpu().numpy()
        image, text = similarities(feats, pair)
        best.add(query, first + part, batch.score(image, text, query))
