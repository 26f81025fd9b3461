"""The best images of an archive: those of every block, merged."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from numbers import Integral

import numpy as np
import torch

from rscir_lib.methods.pairwise import TwoSimilarities
from rscir_lib.ranking.blocks import OnDevice, Part, parts_of, spreads
from rscir_lib.ranking.questions import ImageSets, Job, Questions
from rscir_lib.ranking.ranks import scores_of
from rscir_lib.similarity.exact import similarities
from rscir_lib.similarity.gallery import Gallery
from rscir_lib.similarity.order import best_first, ranking
from rscir_lib.similarity.scales import check_lambda, raw
from rscir_lib.storage.parallel import each

PIECE = 2**11  # rows turned into float32 at a time: what stays in a processor's cache
BLOCK = 2**16  # rows between two looks at the best so far
GPU_PIECE, GPU_SIMILARITIES = 2**18, 2**23  # rows, and similarities to images, that keep a GPU busy
QUERIES = 256  # that share a scan
SCORES = 2**22  # of the whole archive that are held at a time, 32 MiB
GRID = 128  # steps of similarity on which a sieve rules images out


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
        scheduler: see `parallel.each`; for a method of scope "row" alone.
        workers: see `parallel.each`.

    Returns:
        Positions (Q, k) and scores (Q, k) float64, best first, k at most N; -1 and -inf where fewer images are ranked.

    Raises:
        ValueError: for a lambda or a k out of range, and for features or scores that are not finite.
    """
    if isinstance(k, bool) or not isinstance(k, Integral) or k < 1:
        raise ValueError(f"top {k!r}: ask for a whole number of images, at least 1")
    if job.method.has_lambda:
        check_lambda(job.lam)
    if scheduler and not job.by_row:
        raise ValueError(f"method {job.method.name!r} wants the archive as a whole: no scheduler can share it out")
    questions.check_dim(features.dim)
    excluded = ImageSets.empty(len(questions)) if excluded is None else excluded
    excluded.check("excluded", len(features), len(questions))
    best = Best(len(questions), min(k, len(features)))
    if not job.by_row:
        for numbers in np.array_split(np.arange(len(questions)), -(-len(questions) * len(features) // SCORES)):
            scores = scores_of(job, questions.take(numbers), len(features))
            for number, of_query in zip(numbers, scores, strict=True):
                ranked = np.setdiff1d(np.arange(len(features)), excluded[excluded.set_of[number]], assume_unique=True)
                positions = ranked[best_first(of_query[ranked], best.k)]
                best.add(number, positions, of_query[positions])
        return best.positions, best.scores
    parts, starts = parts_of(features), range(0, len(questions), QUERIES)
    batches = [_Batch(questions, range(start, min(start + QUERIES, len(questions))), features, job, best.k, excluded)
               for start in starts]  # fmt: skip
    items = [(part, batch) for part in range(len(parts)) for batch in range(len(batches))]
    workers = 1 if isinstance(features, OnDevice) else workers
    scans = each(partial(_best_of_part, batches, parts), items, scheduler, workers)
    for (_, batch), (positions, scores) in zip(items, scans, strict=True):
        for query, number in enumerate(batches[batch].numbers):
            there = positions[query] >= 0
            best.add(number, positions[query][there], scores[query][there])
    return best.positions, best.scores


class Best:
    """The best so far of each query: positions and scores (Q, k), best first, -1 and -inf where there are none."""

    def __init__(self, queries: int, k: int) -> None:
        self.k, self.positions, self.scores = k, np.full((queries, k), -1), np.full((queries, k), -np.inf)

    def add(self, query: int, positions: np.ndarray, scores: np.ndarray) -> None:
        """Further images, none of them there yet."""
        known = self.positions[query] >= 0
        positions = np.concatenate([self.positions[query][known], positions])
        scores = np.concatenate([self.scores[query][known], scores])
        first = ranking(scores, positions)[: self.k]
        self.positions[query, : len(first)], self.scores[query, : len(first)] = positions[first], scores[first]

    @property
    def floor(self) -> np.ndarray:
        """(Q,) what an image must score to come in; a little less, for the rounding of a scale that never falls."""
        least = self.scores[:, -1]
        return np.where(np.isfinite(least), least - 1e-12 * np.abs(least), -np.inf)


class _Batch:
    """Queries that share a scan; features (Q, d) and (mean, std) (Q, 1) of the similarities to images and texts."""

    def __init__(
        self, questions: Questions, numbers: range, features: Gallery, job: Job, k: int, excluded: ImageSets
    ) -> None:
        assert isinstance(job.method, TwoSimilarities)
        asked = questions.take(np.array(numbers))
        self.numbers, self.method, self.lam, self.k = numbers, job.method, job.lam, k
        self.scale = job.method.scale_at(job.lam)
        self.excluded = [excluded[excluded.set_of[number]] for number in numbers]
        self.sides, self.moments = [], []
        for side, rows in ((asked.images, asked.image_of), (asked.texts, asked.text_of)):
            self.sides.append(side[rows])
            self.moments.append(tuple(m[rows] for m in spreads(features, side, self.scale is not raw)))

    def score(self, query: int, image: np.ndarray, text: np.ndarray) -> np.ndarray:
        """Scores, in float64, from similarities to a query's image and text."""
        image, text = (
            self.scale(torch.from_numpy(s), tuple(m[query] for m in moments))
            for s, moments in zip((image, text), self.moments, strict=True)
        )
        return self.method.combine(image, text, self.lam).numpy()


def _best_of_part(batches: list[_Batch], parts: list[Part], item: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Positions and scores (Q, k) of a batch's best among the rows of a part."""
    part, batch = parts[item[0]], batches[item[1]]
    best = _scan(batch, part.first, part.rows())
    return best.positions, best.scores


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


@float32_products()
def _scan(batch: _Batch, first: int, rows: torch.Tensor) -> Best:
    """The best of rows (n, d) whose first has the position `first`, on the device where they lie."""
    number, best = len(batch.numbers), Best(len(batch.numbers), batch.k)
    sides = np.concatenate(batch.sides)
    # no float32 sum of d products strays further from the true one, whatever its order (Higham, Accuracy and Stability
    # of Numerical Algorithms, 3.1); a query may be rounded to float32 before, and rows are of unit length to 1e-3
    error = 1.01 * (sides.shape[1] + 2) * 2.0**-24 * np.linalg.norm(sides.astype(np.float64), axis=1)
    queries = torch.from_numpy(sides.astype(np.float32)).to(rows.device)
    sieve = _Sieve(batch, error[:number], error[number:], rows.device)
    for start, stop, piece in _looks(len(rows), number, rows.device.type):
        kept = []
        for at in range(start, stop, piece):
            rough = queries @ rows[at : min(at + piece, stop)].float().T
            if not rough.sum().isfinite():
                raise ValueError("the features of a shard are not finite: run rscir verify")
            query, row = sieve.passes(rough[:number], rough[number:])
            kept.append((query, row + at, rough[query, row].double(), rough[number + query, row].double()))
        query, row, image, text = (torch.cat(column).cpu().numpy() for column in zip(*kept, strict=True))
        for q in np.unique(query):
            mine = np.flatnonzero(query == q)
            mine = mine[~np.isin(first + row[mine], batch.excluded[q])]
            highest = batch.score(q, image[mine] + error[q], text[mine] + error[number + q])
            if not np.isfinite(highest).all():
                raise ValueError(f"method {batch.method.name!r} gives scores that are not finite")
            likely = best_first(highest, 2 * batch.k)
            _rescore(batch, best, q, first, rows, row[mine[likely]])
            highest[likely] = -np.inf
            _rescore(batch, best, q, first, rows, row[mine[highest >= max(best.floor[q], np.finfo(float).min)]])
        sieve.raise_to(best.floor)
    return best


def _looks(size: int, queries: int, device: str) -> Iterator[tuple[int, int, int]]:
    """Where the rows between two looks at the best so far begin and end, and how many are taken at a time. The first
    looks come early: the more is known, the more is ruled out."""
    piece, block = PIECE, BLOCK
    if device != "cpu":
        piece = max(PIECE, min(GPU_SIMILARITIES // queries, GPU_PIECE))
        block = 4 * piece
    bounds, step = [0], PIECE
    while bounds[-1] < size:
        bounds.append(min(bounds[-1] + step, size))
        step = min(8 * step, block)
    return ((start, stop, piece) for start, stop in pairwise(bounds))


def _rescore(batch: _Batch, best: Best, query: int, first: int, rows: torch.Tensor, chosen: np.ndarray) -> None:
    """Add rows by their exact scores."""
    pair = np.stack([side[query] for side in batch.sides])
    for part in np.split(chosen, range(PIECE, len(chosen), PIECE)):
        feats = rows[torch.from_numpy(part).to(rows.device)].cpu().numpy()
        best.add(query, first + part, batch.score(query, *similarities(feats, pair)))


class _Sieve:
    """Which images can't be among the best, by two float32 similarities and one look-up each.

    For each query, a grid of similarities to image and text. No score falls where a similarity rises, so the score at a
    corner of the grid bounds those of all images below it: for each step of the one similarity, `need` is what the
    other must exceed for the score to reach a floor.
    """

    def __init__(self, batch: _Batch, image_error: np.ndarray, text_error: np.ndarray, device: torch.device) -> None:
        (image, lowest, step, reach), (self.text, *_) = (
            _grid(side, moments) for side, moments in zip(batch.sides, batch.moments, strict=True)
        )
        self.scores = np.stack([
            np.broadcast_to(batch.score(q, image[q][:, None], self.text[q][None]), (GRID, GRID))
            for q in range(len(image))
        ])  # fmt: skip
        self.error = text_error[:, None]
        # one step up, and what float32 may lose on the way
        margin = 1.01 + 8 * 2.0**-24 * (reach + np.abs(lowest)) / step
        self.scale, self.shift = (
            torch.from_numpy(values[:, None].astype(np.float32)).to(device)
            for values in (1 / step, margin - (lowest - image_error) / step)
        )
        self.need = torch.full((len(image), GRID), -torch.inf, device=device)

    def raise_to(self, floor: np.ndarray) -> None:
        """Rule out what scores less than `floor` (Q,)."""
        first = (self.scores < floor[:, None, None]).sum(axis=2)  # text step whose corner reaches it, if any
        need = np.take_along_axis(self.text, np.maximum(first - 1, 0), axis=1) - self.error
        need = np.where(first == 0, -np.inf, np.where(first == GRID, np.inf, need))
        need = np.nextafter(need.astype(np.float32), np.float32(-np.inf))
        self.need = torch.from_numpy(need).to(self.need.device)

    def passes(self, image: torch.Tensor, text: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Query and row of what isn't ruled out, from float32 similarities (Q, n)."""
        step = torch.addcmul(self.shift, image, self.scale).clamp_(0, GRID - 1).long()
        return (text >= self.need.gather(1, step)).nonzero(as_tuple=True)


def _grid(
    side: np.ndarray, moments: tuple[torch.Tensor, torch.Tensor]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(Q, GRID) similarities in ascending steps, from two stds below the mean to ten above, the last of them beyond
    any; with the lowest, the step and the greatest (Q,) each."""
    mean, std = (m.squeeze(1).numpy() for m in moments)
    lowest, step, reach = mean - 2 * std, 12 * np.maximum(std, 1e-9) / GRID, 1.01 * np.linalg.norm(side, axis=1)
    grid = np.minimum(lowest[:, None] + step[:, None] * np.arange(GRID), reach[:, None])
    grid[:, -1] = reach
    return grid, lowest, step, reach
