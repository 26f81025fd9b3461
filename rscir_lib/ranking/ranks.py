"""The ranks of the relevant images: one more than the images ahead of each, a number that adds up over the blocks.

A method of scope "row" is scored from float64 products of whole blocks, which every blocking rounds differently. So who
scores within a tolerance of a relevant image is compared with it once more, by `similarities`, which depend on nothing
but the two features; who scores further away stays on its side of it.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np
import torch

from rscir_lib.methods.base import Questions
from rscir_lib.methods.pairwise import TwoSimilarities
from rscir_lib.ranking.kernels import Backend, Count, Scores, counter
from rscir_lib.ranking.questions import ImageSets, Job, check_asked
from rscir_lib.similarity.exact import number_ahead, rounding, similarities
from rscir_lib.similarity.gallery import Gallery, Part, device_of, parts_of, spreads
from rscir_lib.similarity.scales import FLAT, RowMoments, Scale, raw
from rscir_lib.storage.parallel import each, running

ROWS = {"cpu": 2**15, "cuda": 2**18}  # of a block: of more, sums leave a processor's cache
# similarities of a block that are held at a time, 32 MiB on a processor; of fewer, products and conversions take longer
SIMILARITIES = {"cpu": 2**22, "cuda": 2**27}
PRODUCT_ROWS = {"cpu": 2**10, "cuda": 2**16}  # that are turned into float64 at a time: what stays in a cache
TOGETHER = 128  # batches whose exact similarities are held at a time: some 10,000 queries, some ten MB


class Ranks(NamedTuple):
    """Ranks (J, B, R) >= 1, ascending along the last axis, of the R images that are relevant to each of B queries, by J
    jobs; and the numbers of those jobs (J,) and queries (B,)."""

    jobs: np.ndarray
    queries: np.ndarray
    ranks: np.ndarray


def rank_relevant(
    questions: Questions,
    relevant: ImageSets,
    excluded: ImageSets,
    features: Gallery,
    jobs: Sequence[Job],
    backend: Backend = "auto",
    scheduler: str | None = None,
    workers: int | None = None,
) -> Iterator[Ranks]:
    """The ranks of all relevant images in the whole archive, by descending float64 score, ties by position.

    Args:
        questions: Q queries.
        relevant: the images of each query that are ranked.
        excluded: the images of each query that take no rank, none of them relevant.
        features: of the archive; read shard by shard, and ranked on the device where its rows lie.
        jobs: methods with their lambdas.
        backend: the counter, one of `kernels.BACKENDS`.
        scheduler, workers: see `parallel.each`; the first for methods of scope "row" alone.

    Returns:
        The ranks, in no promised order; each pair of job and query comes once. What is held grows with a block of rows
        and the relevant images of some thousand queries, not with the archive.

    Raises:
        ValueError: for parts that don't fit together, and for features or scores that are not finite.
    """
    check_asked(questions, features, jobs, {"relevant": relevant, "excluded": excluded}, scheduler)
    groups = partial(_groups, questions, relevant, excluded)
    by_row, whole = ([i for i, job in enumerate(jobs) if job.by_row == kind] for kind in (True, False))
    if by_row:
        terms, row_of = _terms([jobs[i] for i in by_row])
        count = counter(backend, device_of(features))
        workers = workers if device_of(features) == "cpu" else 1  # a GPU works in parallel by itself
        with running(scheduler, workers) as cluster:
            for batches in _prepared(questions, features, groups, any(term.scale is not raw for term in terms)):
                for group, ranks in _ranks_by_blocks(batches, parts_of(features), terms, count, cluster, workers):
                    yield Ranks(np.array(by_row), group.queries, ranks[row_of])
    count = counter("numba" if backend == "triton" else backend, "cpu")
    for numbers in _batches(questions, SIMILARITIES["cpu"] // len(features)) if whole else ():
        asked = questions.take(numbers)
        for i in whole:
            scores = torch.from_numpy(jobs[i].scores(asked, len(features)))
            for group in groups(numbers):
                yield Ranks(np.array([i]), group.queries, _ranks_of_scores(scores, group, count)[None])


def _batches(questions: Questions, most: int) -> list[np.ndarray]:
    """Numbers of the queries in the order of their images, in batches of at most `most` images and texts."""
    order = np.argsort(questions.image_of, kind="stable")
    starts, images, texts = [], set(), set()
    for i, number in enumerate(order.tolist()):
        images.add(questions.image_of[number])
        texts.add(questions.text_of[number])
        if len(images) + len(texts) > max(2, most):
            starts.append(i)
            images, texts = {questions.image_of[number]}, {questions.text_of[number]}
    return np.split(order, starts)


@dataclass(frozen=True)
class _Group:
    """B queries of a batch with the same text, relevant and excluded images."""

    queries: np.ndarray  # (B,) their numbers among all
    rows: np.ndarray  # (B,) among the batch's
    relevant: np.ndarray
    excluded: np.ndarray


def _groups(questions: Questions, relevant: ImageSets, excluded: ImageSets, numbers: np.ndarray) -> list[_Group]:
    keys = np.stack([questions.text_of, relevant.set_of, excluded.set_of], axis=1)[numbers]
    _, kinds = np.unique(keys, axis=0, return_inverse=True)
    order = np.argsort(kinds, kind="stable")
    return [
        _Group(numbers[rows], rows, relevant[keys[rows[0], 1]], excluded[keys[rows[0], 2]])
        for rows in np.split(order, np.flatnonzero(np.diff(kinds[order])) + 1)
    ]


@dataclass(frozen=True)
class _Batch:
    """Queries whose similarities are held together, and what is known of them before any block is read."""

    questions: Questions
    groups: list[_Group]
    levels: list[tuple[np.ndarray, np.ndarray]]  # by group, exact similarities of its relevant images, (B, R) and (R,)
    moments: list[RowMoments]  # (I, 1) and (T, 1), of the similarities of all images to the queries' images and texts
    tolerance: float


def _prepared(
    questions: Questions, features: Gallery, groups: Callable[[np.ndarray], list[_Group]], scaled: bool
) -> Iterator[list[_Batch]]:
    """The batches, at most `TOGETHER` in a list."""

    def prepare(numbers: np.ndarray) -> _Batch:
        asked, levels = questions.take(numbers), []
        for group in groups(numbers):
            pair = asked.images[asked.image_of[group.rows]], asked.texts[asked.text_of[group.rows[:1]]]
            exact = similarities(features.rows(group.relevant), np.concatenate(pair))
            levels.append((exact[:-1], exact[-1]))
        moments, sides, steepest = [], (asked.images, asked.texts), 1.0
        for side in sides:  # the steepest scale is the z-score
            ones = torch.ones(len(side), 1, dtype=torch.float64)
            moments.append(spreads(features, side) if scaled else (ones, ones))
            steepest = min(steepest, *moments[-1][1][moments[-1][1] > FLAT].tolist(), 1.0)
        longest = max(1.0, *(float(np.linalg.norm(side, axis=1).max()) for side in sides))
        # both scores that are compared may be rounded, and no score rises more than twice as fast as its similarities
        tolerance = 4 * rounding(features.dim) * longest / steepest
        return _Batch(asked, groups(numbers), levels, moments, tolerance)

    device = device_of(features)
    batches = _batches(questions, SIMILARITIES[device] // min(len(features), ROWS[device]))
    for start in range(0, len(batches), TOGETHER):
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            together = list(pool.map(prepare, batches[start : start + TOGETHER]))
        yield together


class _Term(NamedTuple):
    """What images are ranked by: a image + b text on a scale, or what another job says."""

    scale: Scale
    weights: tuple[float, float] | None
    method: TwoSimilarities | None = None
    lam: float = 0.0

    def score(self, image: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        if self.weights:
            return self.weights[0] * image + self.weights[1] * text
        assert self.method is not None
        scores = self.method.combine(image, text, self.lam)
        if not scores.sum().isfinite():
            raise ValueError(f"method {self.method.name!r} gives scores that are not finite")
        return scores


def _terms(jobs: Sequence[Job]) -> tuple[list[_Term], list[int]]:
    """Terms, each once however many jobs ask for it (a lambda of 0 asks for the image), and which each job asks for."""
    asked = []
    for method, lam in ((job.method, job.lam) for job in jobs):
        assert isinstance(method, TwoSimilarities)
        weights = method.weights_at(lam)
        asked.append(_Term(method.scale_at(lam), weights, *(() if weights else (method, lam))))
    terms = list(dict.fromkeys(asked))
    return terms, [terms.index(term) for term in asked]


def _ranks_by_blocks(
    batches: list[_Batch], parts: list[Part], terms: list[_Term], count: Count,
    scheduler: Any, workers: int | None,
) -> Iterator[tuple[_Group, np.ndarray]]:  # fmt: skip
    """Each group with the ranks (J, B, R) by all terms. Each part counts by itself, wherever; here counts add up."""
    items = [(batch, part) for part in range(len(parts)) for batch in range(len(batches))]
    ahead: list[list[np.ndarray]] = [[] for _ in batches]  # by batch and group, (J, B, R) in the parts before
    function = partial(_counted, batches, parts, terms, count)
    with closing(each(function, items, scheduler, workers)) as counts:
        for (batch, part), of_groups in zip(items, counts, strict=True):
            ahead[batch] = [a + b for a, b in zip(ahead[batch], of_groups, strict=True)] if part else of_groups
            if part == len(parts) - 1:
                for group, of_group in zip(batches[batch].groups, ahead[batch], strict=True):
                    yield group, np.sort(of_group + 1, axis=-1)
                ahead[batch] = []


def _counted(
    batches: list[_Batch], parts: list[Part], terms: list[_Term], count: Count, item: tuple[int, int]
) -> list[np.ndarray]:
    """For each group of a batch how many images of a part are ahead of its relevant ones, (J, B, R) by all terms."""
    batch, (first, shard) = batches[item[0]], parts[item[1]]
    rows, total = torch.as_tensor(shard.feats), [np.zeros(1, np.int32)] * len(batch.groups)
    for start in range(0, len(rows), ROWS[rows.device.type]):
        block = _Block(batch, first + start, rows[start : start + ROWS[rows.device.type]])
        of_block = [np.stack([block.ahead(i, term, count) for term in terms]) for i in range(len(total))]
        total = [a + b for a, b in zip(total, of_block, strict=True)]
    return total


def _exactly(
    batch: _Batch, number: int, scale: Scale, pair: Sequence[np.ndarray] = (), query: int | slice = slice(None)
) -> list[torch.Tensor]:
    """Exact similarities to image and text on a scale, (..., n) and (n,): of a group's relevant images, or a pair."""
    asked, group = batch.questions, batch.groups[number]
    whose = asked.image_of[group.rows][query], asked.text_of[group.rows[0]]
    return [
        scale(torch.from_numpy(s), (mean[i], std[i]))
        for s, i, (mean, std) in zip(pair or batch.levels[number], whose, batch.moments, strict=True)
    ]


class _Block:
    """Rows (n, d) whose similarities to a batch's images and texts are at hand, once on each scale."""

    def __init__(self, batch: _Batch, first: int, rows: torch.Tensor) -> None:
        self.batch, self.first, self.rows = batch, first, rows
        sides = batch.questions.images, batch.questions.texts
        similar = _products(rows, np.concatenate(sides)).split([len(side) for side in sides])
        moments = [(mean.to(rows.device), std.to(rows.device)) for mean, std in batch.moments]

        @cache
        def scaled(scale: Scale) -> list[torch.Tensor]:
            return [scale(s, m) for s, m in zip(similar, moments, strict=True)]

        self.scaled: Callable[[Scale], list[torch.Tensor]] = scaled
        self.levels = cache(partial(_exactly, batch))

    def ahead(self, number: int, term: _Term, count: Count) -> np.ndarray:
        """(B, R) how many of the rows are ahead of each relevant image of a group, by ascending score of these."""
        asked, group = self.batch.questions, self.batch.groups[number]
        images, text = asked.image_of[group.rows], int(asked.text_of[group.rows[0]])

        def again(query: int, rows: np.ndarray) -> np.ndarray:
            feats = self.rows[torch.from_numpy(rows).to(self.rows.device)].cpu().numpy()
            of_image, of_text = similarities(feats, np.stack([asked.images[images[query]], asked.texts[text]]))
            return term.score(*_exactly(self.batch, number, term.scale, (of_image, of_text), query)).numpy()

        of_images, of_texts = self.scaled(term.scale)
        of_text, at = of_texts[text], torch.from_numpy(images).to(of_images.device)
        if term.weights:
            scores = Scores(of_images, at, of_text, *term.weights)
        else:
            scores = Scores.whole(term.score(of_images[at], of_text))
        levels = term.score(*self.levels(number, term.scale)).numpy()
        return _ahead(scores, levels, self.batch.tolerance, self.first, group, again, count)


def _products(rows: torch.Tensor, queries: np.ndarray) -> torch.Tensor:
    """Similarities (B, n) float64 of rows (n, d) to queries (B, d), but for their rounding, on the rows' device."""
    sides = torch.from_numpy(queries.astype(np.float64)).to(rows.device)
    s, size = sides.new_empty(len(sides), len(rows)), PRODUCT_ROWS[rows.device.type]
    for part, out in zip(rows.split(size), s.split(size, dim=1), strict=True):
        torch.mm(sides, part.double().T, out=out)
    if not s.sum().isfinite():
        raise ValueError("the features of a shard are not finite: run rscir verify")
    return s


def _ranks_of_scores(scores: torch.Tensor, group: _Group, count: Count) -> np.ndarray:
    """Ranks (B, R) by the exact scores (Q, N) of a batch, of a method of scope "archive"."""
    mine = scores[torch.from_numpy(group.rows)]
    levels = mine[:, torch.from_numpy(group.relevant)].numpy()
    again = lambda query, rows: mine[query].numpy()[rows]  # noqa: E731
    return np.sort(_ahead(Scores.whole(mine), levels, 0.0, 0, group, again, count) + 1, axis=-1)


def _ahead(
    scores: Scores, levels: np.ndarray, tolerance: float, first: int, group: _Group,
    again: Callable[[int, np.ndarray], np.ndarray], count: Count,
) -> np.ndarray:  # fmt: skip
    """(B, R) how many of the rows, the first of which has the position `first`, are ahead of each relevant image, by
    ascending score of these; `levels` (B, R) are their exact scores, `again` gives those of a query and some rows."""
    excluded, own = (
        positions[slice(*np.searchsorted(positions, [first, first + len(scores.text)]))] - first
        for positions in (group.excluded, group.relevant)
    )
    if len(excluded):
        scores = scores.without(excluded)
    ascending = np.sort(levels, axis=1)
    low, high = (torch.from_numpy(ascending + step).to(scores.image.device) for step in (-tolerance, tolerance))
    greater, near = count(scores, low, high)
    ahead = greater.cpu().numpy().astype(np.int32)
    # every relevant image is near itself, and usually no other is
    for query in (near.sum(dim=1) != len(own)).nonzero().flatten().tolist():
        row, order = scores.of(query), np.argsort(levels[query], kind="stable")
        close = (torch.searchsorted(low[query], row, right=True) > torch.searchsorted(high[query], row)).nonzero()[:, 0]
        counted = len(close) - torch.searchsorted(row[close].sort().values, high[query], right=True).cpu().numpy()
        rows = close.cpu().numpy()
        exactly = number_ahead(again(query, rows), first + rows, ascending[query], group.relevant[order])
        ahead[query] += (exactly - counted).astype(np.int32)
    return ahead
