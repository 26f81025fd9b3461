"""The ranks of the relevant images: one more than the images ahead of each, a number that adds up over the blocks.

A method of scope "row" is scored from float64 products of whole blocks, which are rounded differently with every
blocking. So who scores within `tolerance` of a relevant image is compared with it once more, by `similarities`, whose
result depends on nothing but the two features; who scores further away stays on its side of it.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import cache, partial
from typing import NamedTuple

import numpy as np
import torch

from rscir_lib.methods.pairwise import Combine, TwoSimilarities, Weighted
from rscir_lib.ranking.blocks import OnDevice, Part, parts_of, spreads
from rscir_lib.ranking.kernels import Backend, Count, counter
from rscir_lib.ranking.questions import ImageSets, Job, Questions
from rscir_lib.similarity.exact import rounding, similarities
from rscir_lib.similarity.gallery import Gallery
from rscir_lib.similarity.order import number_ahead
from rscir_lib.similarity.scales import Scale, check_lambda, raw
from rscir_lib.storage.parallel import each, running

ROWS = {"cpu": 2**15, "cuda": 2**18}  # of a block: of more, tables and sums leave a processor's cache
# similarities of a block that are held at a time: a quarter of it takes 8 MiB a scale, and with fewer, products and
# conversions of rows take longer
SIMILARITIES = {"cpu": 2**22, "cuda": 2**27}
ROUND = 2**24  # similarities of relevant images that are held at a time, 16 bytes each
PRODUCT_ROWS = {"cpu": 2**10, "cuda": 2**16}  # that are turned into float64 at a time: what stays in a cache
EXCLUDED = -1e30  # a similarity below every other, and still finite when weighted by 0


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
        backend: what counts, of `kernels.BACKENDS`.
        scheduler: see `parallel.each`; for methods of scope "row" alone.
        workers: see `parallel.each`.

    Returns:
        The ranks, in no promised order; each pair of job and query comes once. What is held grows with a block of rows
        and with the relevant images of some thousand queries, not with the archive.

    Raises:
        ValueError: for parts that don't fit together, and for features or scores that are not finite.
    """
    if not jobs or not len(questions):
        raise ValueError(f"{len(jobs)} jobs for {len(questions)} queries: expected one at least of both")
    for job in jobs:
        if job.method.has_lambda:
            check_lambda(job.lam)
        if scheduler and not job.by_row:
            raise ValueError(f"method {job.method.name!r} wants the archive as a whole: no scheduler can share it out")
    questions.check_dim(features.dim)
    relevant.check("relevant", len(features), len(questions))
    excluded.check("excluded", len(features), len(questions))
    return _all_ranks(questions, relevant, excluded, features, jobs, backend, scheduler, workers)


def _all_ranks(
    questions: Questions, relevant: ImageSets, excluded: ImageSets, features: Gallery, jobs: Sequence[Job],
    backend: Backend, scheduler: str | None, workers: int | None,
) -> Iterator[Ranks]:  # fmt: skip
    by_row, whole = ([i for i, job in enumerate(jobs) if job.by_row == kind] for kind in (True, False))
    parts = parts_of(features)
    device = features.device if isinstance(features, OnDevice) else "cpu"
    count, most = counter(backend, device), SIMILARITIES[device] // min(len(features), ROWS[device])
    if by_row:
        terms, term_of = _terms([jobs[i] for i in by_row])
        batches = _batches(questions, relevant, excluded, most)
        if device != "cpu":
            workers = 1  # it works in parallel by itself
        with running(scheduler, workers) as address:
            for counted in _rounds(batches, features, parts, terms, count, address, workers):
                yield Ranks(np.array(by_row), counted.queries, counted.ranks[term_of])
    if whole:
        count = counter("numba" if backend == "triton" else backend, "cpu")
        for batch in _batches(questions, relevant, excluded, most):
            for i in whole:
                yield from _ranks_of_scores(batch, jobs[i], i, len(features), count)


# --- what a batch of queries asks


@dataclass(frozen=True)
class _Group:
    """B queries of a batch with the same text, relevant and excluded images: `rows` (B,) of the batch's queries."""

    rows: np.ndarray
    images: np.ndarray  # (B,) rows of the batch's images
    text: int
    relevant: np.ndarray
    excluded: np.ndarray


@dataclass(frozen=True)
class _Batch:
    """Queries whose similarities are held together; `numbers` say which they are of all."""

    numbers: np.ndarray
    questions: Questions
    groups: list[_Group]


def _batches(questions: Questions, relevant: ImageSets, excluded: ImageSets, most: int) -> list[_Batch]:
    """The queries in the order of their images, in batches of at most `most` images and texts."""
    order = np.argsort(questions.image_of, kind="stable")
    starts, sides = [0], set()
    for i, number in enumerate(order.tolist()):
        sides |= {("image", questions.image_of[number]), ("text", questions.text_of[number])}
        if len(sides) > max(2, most):
            starts.append(i)
            sides = {("image", questions.image_of[number]), ("text", questions.text_of[number])}
    batches = []
    for numbers in np.split(order, starts[1:]):
        asked = questions.take(numbers)
        keys = np.stack([asked.text_of, relevant.set_of[numbers], excluded.set_of[numbers]], axis=1)
        kinds, kind_of = np.unique(keys, axis=0, return_inverse=True)
        groups = [
            _Group(rows, asked.image_of[rows], text, relevant[i], excluded[j])
            for (text, i, j), rows in zip(
                kinds.tolist(), np.split(np.argsort(kind_of, kind="stable"), np.bincount(kind_of).cumsum()[:-1]),
                strict=True,
            )
        ]  # fmt: skip
        batches.append(_Batch(numbers, asked, groups))
    return batches


@dataclass(frozen=True)
class _Levels:
    """What is known of a batch before any block is read: exact similarities of the relevant images, by group (B, R) and
    (R,); mean and std of all similarities, (I, 1) and (T, 1); and the tolerance (Q,) of each query."""

    images: list[np.ndarray]
    texts: list[np.ndarray]
    image_moments: tuple[torch.Tensor, torch.Tensor]
    text_moments: tuple[torch.Tensor, torch.Tensor]
    tolerance: torch.Tensor


def _levels(features: Gallery, scaled: bool, batch: _Batch) -> _Levels:
    asked, images, texts = batch.questions, [], []
    for group in batch.groups:
        sides = np.concatenate([asked.images[group.images], asked.texts[[group.text]]])
        *of_images, of_text = similarities(features.rows(group.relevant), sides)
        images.append(np.array(of_images).reshape(len(group.rows), -1))
        texts.append(of_text)
    moments = [
        spreads(features, side) if scaled else (torch.zeros(len(side), 1), torch.ones(len(side), 1))
        for side in (asked.images, asked.texts)
    ]
    # both sums may be rounded; the steepest scale is the z-score, and no score rises more than twice as fast
    stds = [std.where(std > 0, 1.0).squeeze(1).numpy() for _, std in moments]
    lengths = [np.linalg.norm(side.astype(np.float64), axis=1) for side in (asked.images, asked.texts)]
    length = np.maximum(1.0, np.maximum(lengths[0][asked.image_of], lengths[1][asked.text_of]))
    steepest = np.minimum(1.0, np.minimum(stds[0][asked.image_of], stds[1][asked.text_of]))
    return _Levels(images, texts, *moments, torch.from_numpy(2 * 2 * rounding(features.dim) * length / steepest))


# --- scope "row": blocks of rows, one after the other


@dataclass(frozen=True)
class _Term:
    """What is ranked, once for all jobs that ask for it: a image + b text for each (a, b) of `weights`, on a scale; or
    of `function`, a combination of another kind and its lambda, the scores."""

    scale: Scale
    function: tuple[Combine, float] | None
    name: str
    weights: list[tuple[float, float]]


def _terms(jobs: Sequence[Job]) -> tuple[list[_Term], list[int]]:
    """The terms, and for each job the row of its ranks among those of all terms."""
    asked, together = [], {}
    for method, lam in ((job.method, job.lam) for job in jobs):
        assert isinstance(method, TwoSimilarities)
        scale, combine = method.scale_at(lam), method.combine
        mixed = isinstance(combine, Weighted)
        key = (scale, None, "") if mixed else (scale, (combine, lam), method.name)
        asked.append((*key, combine.weights(lam) if mixed else (1.0, 0.0)))
    for *key, weights in dict.fromkeys(asked):
        together.setdefault(tuple(key), []).append(weights)
    rows = [(*key, weights) for key, of_term in together.items() for weights in of_term]
    return [_Term(*key, weights) for key, weights in together.items()], [rows.index(key) for key in asked]


def _rounds(
    batches: list[_Batch], features: Gallery, parts: list[Part], terms: list[_Term], count: Count,
    scheduler: str | None, workers: int | None,
) -> Iterator[Ranks]:  # fmt: skip
    """Ranks of all terms. Each block counts by itself, wherever; here the counts are added up."""
    scaled = any(term.scale is not raw for term in terms)
    sizes = [sum(group.relevant.size * (len(group.rows) + 1) for group in batch.groups) for batch in batches]
    for chosen in np.split(np.arange(len(batches)), np.flatnonzero(np.diff(np.cumsum(sizes) // ROUND)) + 1):
        together = [batches[i] for i in chosen]
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            levels = list(pool.map(partial(_levels, features, scaled), together))
        items = [(batch, part) for part in range(len(parts)) for batch in range(len(together))]
        ahead: dict[int, list[np.ndarray]] = {}
        with closing(
            each(partial(_counted, together, levels, parts, terms, count), items, scheduler, workers)
        ) as counts:
            for (batch, part), of_groups in zip(items, counts, strict=True):
                so_far = ahead.pop(batch, [0] * len(of_groups))
                ahead[batch] = [a + b for a, b in zip(so_far, of_groups, strict=True)]
                if part == len(parts) - 1:
                    for group, of_group in zip(together[batch].groups, ahead.pop(batch), strict=True):
                        ranks = np.sort(of_group + 1, axis=-1)
                        yield Ranks(np.arange(len(ranks)), together[batch].numbers[group.rows], ranks)


def _counted(
    batches: list[_Batch], levels: list[_Levels], parts: list[Part], terms: list[_Term], count: Count,
    item: tuple[int, int],
) -> list[np.ndarray]:  # fmt: skip
    """For each group of a batch how many images of a part are ahead of its relevant ones, (J, B, R) by all terms."""
    (batch, known), part = (batches[item[0]], levels[item[0]]), parts[item[1]]
    rows, result = part.rows(), []
    for start in range(0, len(rows), ROWS[rows.device.type]):
        block = _Block(batch, known, part.first + start, rows[start : start + ROWS[rows.device.type]], count)
        counts = [np.concatenate([block.ahead(g, term) for term in terms]) for g in range(len(batch.groups))]
        result = [a + b for a, b in zip(result, counts, strict=True)] if result else counts
    return result


def products(rows: torch.Tensor, queries: np.ndarray) -> torch.Tensor:
    """Similarities (B, n) of rows (n, d) to queries (B, d), in float64, on the rows' device, but for their rounding.

    Raises ValueError for rows that are not finite."""
    sides = torch.from_numpy(queries.astype(np.float64)).to(rows.device)
    s, size = sides.new_empty(len(sides), len(rows)), PRODUCT_ROWS[rows.device.type]
    for some, out in zip(rows.split(size), s.split(size, dim=1), strict=True):
        torch.mm(sides, some.double().T, out=out)
    if not s.sum().isfinite():
        raise ValueError("the features of a shard are not finite: run rscir verify")
    return s


class _Block:
    """Rows (n, d) whose similarities to a batch's images and texts are at hand, once on each scale."""

    def __init__(self, batch: _Batch, levels: _Levels, first: int, rows: torch.Tensor, count: Count) -> None:
        self.batch, self.levels, self.first, self.rows, self.count = batch, levels, first, rows, count
        self.sides = [batch.questions.images, batch.questions.texts]
        similar = products(rows, np.concatenate(self.sides)).split([len(side) for side in self.sides])
        moments = [[m.to(rows.device) for m in of_side] for of_side in (levels.image_moments, levels.text_moments)]
        self.scaled = cache(lambda scale: [scale(s, m) for s, m in zip(similar, moments, strict=True)])

    def ahead(self, number: int, term: _Term) -> np.ndarray:
        """(J, B, R) how many of the rows are ahead of each relevant image of a group, by ascending score of these."""
        group, (images, texts) = self.batch.groups[number], self.scaled(term.scale)
        image_moments = [m[group.images] for m in self.levels.image_moments]
        text_moments = [m[group.text] for m in self.levels.text_moments]

        def parts(of_image: np.ndarray, of_text: np.ndarray, moments: list[torch.Tensor]) -> list[torch.Tensor]:
            """The two parts that are weighted to scores, from exact similarities to images and text."""
            image = term.scale(torch.from_numpy(of_image), moments)
            text = term.scale(torch.from_numpy(of_text), text_moments)
            return [image if term.function is None else term.function[0](image, text, term.function[1]), text]

        def exact(query: int, rows: np.ndarray) -> list[torch.Tensor]:
            pair = np.stack([self.sides[0][group.images[query]], self.sides[1][group.text]])
            feats = self.rows[torch.from_numpy(rows).to(self.rows.device)].cpu().numpy()
            return parts(*similarities(feats, pair), [m[query] for m in image_moments])

        rows, text = torch.from_numpy(group.images).to(images.device), texts[group.text]
        if term.function is not None:
            combine, lam = term.function
            images, rows = combine(images[rows], text, lam), torch.arange(len(rows), device=images.device)
            if not images.sum().isfinite():
                raise ValueError(f"method {term.name!r} gives scores that are not finite")
        levels = parts(self.levels.images[number], self.levels.texts[number], image_moments)
        weights, tolerance = torch.tensor(term.weights, dtype=torch.float64), self.levels.tolerance[group.rows]
        scored = _Scored(images, rows, text, *(t.to(images.device) for t in (*levels, weights, tolerance)))
        return _ahead(scored, self.first, group, exact, self.count)


class _Scored(NamedTuple):
    """What `kernels` count: the scores of n rows, and of R relevant images, for B queries by J weightings."""

    image: torch.Tensor
    rows: torch.Tensor
    text: torch.Tensor
    image_levels: torch.Tensor
    text_levels: torch.Tensor
    weights: torch.Tensor
    tolerance: torch.Tensor


Exact = Callable[[int, np.ndarray], Sequence[torch.Tensor]]  # query and rows -> the parts that their scores are made of


def _ahead(scored: _Scored, first: int, group: _Group, exact: Exact, count: Count) -> np.ndarray:
    """(J, B, R) how many of the rows are ahead of each relevant image, by ascending score of these."""
    size = len(scored.text)
    excluded, own = (
        positions[(positions >= first) & (positions < first + size)] - first
        for positions in (group.excluded, group.relevant)
    )
    if len(excluded):
        image, text = scored.image[scored.rows], scored.text.clone()
        image[:, excluded] = text[excluded] = EXCLUDED
        scored = scored._replace(image=image, rows=torch.arange(len(image), device=image.device), text=text)
    greater, near = (counts.cpu().numpy() for counts in count(*scored))
    # every relevant image is near itself, and mostly nobody else is
    for j, query in np.argwhere(near.sum(axis=-1) != len(own)):
        greater[j, query] = _looked_again(scored, first, group, exact, greater[j, query], j, query)
    return greater


def _looked_again(
    scored: _Scored, first: int, group: _Group, exact: Exact, greater: np.ndarray, j: int, query: int
) -> np.ndarray:
    """(R,) how many rows are ahead of each relevant image, those near to one compared by their exact scores."""
    a, b = scored.weights[j].tolist()
    scores = a * scored.image[scored.rows[query]] + b * scored.text
    levels = a * scored.image_levels[query] + b * scored.text_levels
    ascending = levels.argsort(stable=True)
    low, high = (levels[ascending] + sign * scored.tolerance[query] for sign in (-1, 1))
    rows = (torch.searchsorted(low, scores, right=True) > torch.searchsorted(high, scores)).nonzero().squeeze(1)
    counted = torch.searchsorted(scores[rows].sort().values, high, right=True)  # the others of `rows` are in `greater`
    image, text = exact(query, rows.cpu().numpy())
    relevant = group.relevant[ascending.cpu().numpy()]
    exactly = number_ahead(
        (a * image + b * text).numpy(), first + rows.cpu().numpy(), levels[ascending].cpu().numpy(), relevant
    )
    return greater - (len(rows) - counted.cpu().numpy()) + exactly


# --- scope "archive": all scores at once


def _ranks_of_scores(batch: _Batch, job: Job, number: int, size: int, count: Count) -> Iterator[Ranks]:
    """Ranks by a method that sees the whole archive; its scores are exact."""
    scores = torch.from_numpy(scores_of(job, batch.questions, size))
    no_text, weights = torch.zeros(size, dtype=torch.float64), torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    for group in batch.groups:
        rows, no_tolerance = torch.from_numpy(group.rows), torch.zeros(len(group.rows), dtype=torch.float64)
        levels = scores[rows][:, group.relevant]
        scored = _Scored(scores, rows, no_text, levels, no_text[: len(group.relevant)], weights, no_tolerance)

        def exact(query: int, images: np.ndarray, rows: torch.Tensor = rows) -> Sequence[torch.Tensor]:
            return scores[rows[query], images], no_text[images]

        ahead = _ahead(scored, 0, group, exact, count)
        yield Ranks(np.array([number]), batch.numbers[group.rows], np.sort(ahead + 1, axis=-1))


def scores_of(job: Job, questions: Questions, size: int) -> np.ndarray:
    """Scores (Q, N) of the whole archive. Raises ValueError for another shape, and where one is not finite."""
    assert job.scorer is not None
    scores = np.asarray(job.scorer(questions, job.lam), np.float64)
    if scores.shape != (len(questions), size):
        raise ValueError(
            f"method {job.method.name!r} gave scores of shape {scores.shape} for {len(questions)} queries; expected "
            f"{(len(questions), size)}, one an archive image"
        )
    if not np.isfinite(scores).all():
        raise ValueError(f"method {job.method.name!r} gives scores that are not finite")
    return scores
