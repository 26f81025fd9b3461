"""Search and ranking over the shards of a store: a function of one shard, and a merge. No store need fit in memory.

`parallel.each` runs the function on every core of this machine or on a Dask cluster. What a shard gives depends on
nothing but the shard, so it doesn't matter who works it out, how often, or in what order.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cache, partial
from itertools import islice, pairwise
from numbers import Integral
from types import ModuleType

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from rscir_lib.benchmarks.base import check_positions
from rscir_lib.methods.base import Method
from rscir_lib.methods.pairwise import TwoSimilarities
from rscir_lib.methods.registry import get_method
from rscir_lib.similarity.moments import float32_products
from rscir_lib.similarity.scales import FLAT, best_first, check_lambda, raw, zscore
from rscir_lib.storage.parallel import each, running

PIECE = 2**11  # rows turned into float32 at a time: what stays in a processor's cache
BLOCK = 2**16  # rows between two looks at the best so far
ON_A_GPU = 2**18  # the most of the former there: what keeps it busy
SIEVED_ON_A_GPU = 2**23  # similarities to images at a time
QUERIES = 256  # that share a scan
ROUND = 16 * QUERIES  # whose ranks are held at a time
RANKED = 2**14  # rows whose float64 scores are held at a time, for each question
GRID = 128  # steps of similarity on which a sieve rules images out
COMPILED_FROM = 2**29  # scores in all: to import and load compiled code takes a second, which fewer don't give back
COMPILED_SHARDS_FROM = 2**25  # the same for `ranks`, whose plain way takes longer
SPREAD = 1e-6  # a std below it is lost in the rounding of the moments


def _parts(features: object) -> list[tuple[int, object]]:
    """The shards with the position of their first row, free of what was read of them: to be sent, and to be dropped."""
    parts, first = [], 0
    for shard in features.shards():
        parts.append((first, shard.reopened()))
        first += shard.rows
    return parts


def resolve_device(device: str) -> str:
    """Where to rank: float64 is needed, so that a device without it ("mps") means the CPU. "auto" is CUDA where torch
    finds it, else the CPU. Raises ValueError for a device that is not there."""
    kind, _, number = str(device).partition(":")
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if kind == "cuda" and (number.isdigit() or device == kind):
        if int(number or 0) >= torch.cuda.device_count():
            raise ValueError(
                f"device {device!r}: torch finds {torch.cuda.device_count()} CUDA devices; choose auto or cpu"
            )
        return device
    if device not in ("cpu", "mps"):
        raise ValueError(f"device {device!r} is unknown: choose auto, cpu, cuda, cuda:<number> or mps")
    return "cpu"


# --- search


@dataclass(frozen=True)
class _Asked:
    """Questions that share a scan: features (Q, d) float32 of images and texts, and the (mean, std) of both."""

    images: np.ndarray
    texts: np.ndarray
    image_moments: list[tuple[float, float]]
    text_moments: list[tuple[float, float]]
    method: TwoSimilarities
    lam: float
    top: int

    def score(self, query: int, image: np.ndarray, text: np.ndarray) -> np.ndarray:
        """Scores, in float64, from similarities to a question's image and text."""
        prepare = self.method.prepare_at(self.lam)
        image = prepare(torch.from_numpy(image), self.image_moments[query])
        return self.method.combine(image, prepare(torch.from_numpy(text), self.text_moments[query]), self.lam).numpy()


def top_k(
    features: object,
    images: np.ndarray,
    texts: np.ndarray,
    lam: float = 0.5,
    top: int = 20,
    method: str | Method = "weicom",
    scheduler: str | None = None,
    workers: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Positions (Q, top) and scores (Q, top) float64 of the best images for Q questions, best first, ties by position.

    features: a `Features`, read shard by shard; images, texts: (Q, d) query features; lam in [0, 1]. scheduler,
    workers: see `parallel.each`. Questions share a scan, 256 at a time; what is held does not grow with the archive.

    Exact: float32 products and the bound of their error rule out what can't be among the best, and only the rest is
    taken in float64, each row summed by itself, so that equal features score the same.
    Raises ValueError for a method that isn't pointwise (composition.py), and for questions out of range.
    """
    asked = _asked(features, images, texts, lam, top, method)
    best = [_Best(len(a.images), a.top) for a in asked]
    parts = _parts(features)
    for found in each(partial(_best_of, asked, parts), range(len(parts)), scheduler, workers):
        for so_far, (positions, scores) in zip(best, found, strict=True):
            for query in range(len(scores)):
                so_far.add(query, positions[query], scores[query])
    return np.concatenate([b.positions for b in best]), np.concatenate([b.scores for b in best])


class Resident:
    """An archive's rows, all held on a device ("cuda", "cpu") as they are stored, for as long as this object lives.

    Ten million rows of 768 float16 are 15.4 GB. Raises torch.OutOfMemoryError where a GPU can't hold them, RuntimeError
    where the memory of a processor can't; ValueError for a device that isn't there.
    """

    def __init__(self, features: object, device: str) -> None:
        self.features, device = features, resolve_device(device)
        shards = tqdm(_parts(features), f"to {device}", unit=" shards", disable=None)
        for first, rows in ((first, torch.from_numpy(shard.reopened().feats)) for first, shard in shards):
            if first == 0:
                self.rows = torch.empty(len(features), features.dim, dtype=rows.dtype, device=device)
            self.rows[first : first + len(rows)] = rows

    def top_k(
        self,
        images: np.ndarray,
        texts: np.ndarray,
        lam: float = 0.5,
        top: int = 20,
        method: str | Method = "weicom",
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `engine.top_k`, to the last bit."""
        best = [_scan(some, self.rows) for some in _asked(self.features, images, texts, lam, top, method)]
        return np.concatenate([b.positions for b in best]), np.concatenate([b.scores for b in best])


def _asked(
    features: object, images: np.ndarray, texts: np.ndarray, lam: float, top: int, method: str | Method
) -> list[_Asked]:
    """The questions, 256 at a time."""
    method = _pointwise(method)
    if isinstance(top, bool) or not isinstance(top, Integral) or top < 1:
        raise ValueError(f"top {top!r}: ask for a whole number of images, at least 1")
    if method.has_lambda:
        check_lambda(lam)
    sides = [_queries(name, side, features.dim) for name, side in (("images", images), ("texts", texts))]
    if len(sides[0]) != len(sides[1]):
        raise ValueError(f"{len(sides[0])} images and {len(sides[1])} texts: a question has one of each")
    asked = []
    for start in range(0, len(sides[0]), QUERIES):
        some = [side[start : start + QUERIES] for side in sides]
        moments = [[_spread(features, query, method.prepare_at(lam)) for query in side] for side in some]
        asked.append(_Asked(*some, *moments, method, lam, min(top, len(features))))
    return asked


def _queries(name: str, feats: np.ndarray, dim: int) -> np.ndarray:
    """Query features (Q, dim) float32, finite and at least one."""
    feats = np.ascontiguousarray(feats, np.float32)
    if feats.ndim != 2 or feats.shape[1] != dim or not len(feats):
        raise ValueError(f"{name}: expected query features (Q, {dim}), found {feats.shape}; of one, feature[None]")
    if (bad := np.flatnonzero(~np.isfinite(feats).all(axis=1))).size:
        raise ValueError(f"{name}: row {bad[0]} is not finite; the encoder, or what it was given, is at fault")
    return feats


def _pointwise(method: str | Method) -> TwoSimilarities:
    method = get_method(method)
    if not (isinstance(method, TwoSimilarities) and method.pointwise):
        raise ValueError(f"method {method.name!r} wants the archive as a whole: it can't be scanned part by part")
    return method


def _spread(features: object, query: np.ndarray, prepare: Callable) -> tuple[float, float]:
    """Mean and std of the similarities to a query, over all shards; from the moments, unless rounding hides them."""
    mean, std = features.moments.of_similarities(query)
    if std > SPREAD or prepare is raw:
        return mean, std
    mean = sum(s.sum() for s in _similarities(features, query)) / len(features)
    squares = sum(((s - mean) ** 2).sum() for s in _similarities(features, query))
    return float(mean), float(np.sqrt(squares / max(len(features) - 1, 1)))


def _similarities(features: object, query: np.ndarray) -> Iterator[np.ndarray]:
    for _, shard in _parts(features):
        feats = shard.feats
        for start in range(0, len(feats), PIECE):
            yield exact(feats[start : start + PIECE], query)


def exact(rows: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Similarities (n,) in float64 of rows (n, d) to a query (d,); summed row by row, so that equal rows get equal
    ones."""
    return (rows.astype(np.float64) * query.astype(np.float64)).sum(axis=1)


class _Best:
    """The best so far of each question: positions and scores (Q, top), best first, -1 and -inf where there are none."""

    def __init__(self, questions: int, top: int) -> None:
        self.positions, self.scores = np.full((questions, top), -1), np.full((questions, top), -np.inf)

    def add(self, query: int, positions: np.ndarray, scores: np.ndarray) -> None:
        """Further images, none of them there yet."""
        positions, scores = np.append(self.positions[query], positions), np.append(self.scores[query], scores)
        first = np.lexsort((np.where(positions < 0, np.iinfo(np.int64).max, positions), -scores))
        first = first[: self.scores.shape[1]]
        self.positions[query], self.scores[query] = positions[first], scores[first]

    @property
    def floor(self) -> np.ndarray:
        """(Q,) what an image must score to come in; a little less, for the rounding of a scale that never falls."""
        least = self.scores[:, -1]
        return np.where(np.isfinite(least), least - 1e-12 * np.abs(least), -np.inf)


def _best_of(asked: list[_Asked], parts: list[tuple[int, object]], part: int) -> list[tuple[np.ndarray, np.ndarray]]:
    first, shard = parts[part]
    rows = torch.from_numpy(shard.reopened().feats)  # mapped into memory for as long as this takes
    found = [_scan(some, rows) for some in asked]
    return [(np.where(best.positions < 0, -1, best.positions + first), best.scores) for best in found]


@float32_products()
def _scan(asked: _Asked, rows: torch.Tensor) -> _Best:
    """The best of some rows (n, d), on the device where they lie."""
    number = len(asked.images)
    best = _Best(number, asked.top)
    both = np.concatenate([asked.images, asked.texts])
    # no float32 sum of d products strays further from the true one, whatever its order (Higham, Accuracy and Stability
    # of Numerical Algorithms, 3.1); rows are of unit length to 1e-3
    error = 1.01 * both.shape[1] * 2.0**-24 * np.linalg.norm(both.astype(np.float64), axis=1)
    queries, sieve = torch.from_numpy(both).to(rows.device), _Sieve(asked, error[:number], error[number:], rows.device)
    piece, block = PIECE, BLOCK
    if rows.device.type != "cpu":
        piece = max(PIECE, min(SIEVED_ON_A_GPU // number, ON_A_GPU))
        block = 4 * piece
    bounds, step = [0], PIECE
    while bounds[-1] < len(rows):  # the first looks come early: the more is known, the more is ruled out
        bounds.append(min(bounds[-1] + step, len(rows)))
        step = min(8 * step, block)
    for start, stop in pairwise(bounds):
        kept = []
        for at in range(start, stop, piece):
            rough = queries @ rows[at : min(at + piece, stop)].float().T
            if not rough.sum().isfinite():
                raise ValueError("the features of a shard are not finite: run rscir verify")
            query, row = sieve.passes(rough[:number], rough[number:])
            kept.append((query, row + at, rough[query, row].double(), rough[number + query, row].double()))
        query, row, image, text = (torch.cat(column).cpu().numpy() for column in zip(*kept, strict=True))
        for q in np.unique(query):
            of = query == q
            highest = asked.score(q, image[of] + error[q], text[of] + error[number + q])
            if not np.isfinite(highest).all():
                raise ValueError(f"method {asked.method.name!r} gives scores that are not finite")
            some = row[of]
            likely = best_first(highest, 2 * asked.top)
            _rescore(asked, best, q, rows, some[likely])
            highest[likely] = -np.inf
            _rescore(asked, best, q, rows, some[highest >= max(best.floor[q], np.finfo(float).min)])
        sieve.raise_to(best.floor)
    return best


def _rescore(asked: _Asked, best: _Best, query: int, rows: torch.Tensor, positions: np.ndarray) -> None:
    for some in np.split(positions, range(PIECE, len(positions), PIECE)):
        feats = rows[torch.from_numpy(some).to(rows.device)].cpu().numpy()
        sides = [exact(feats, side[query]) for side in (asked.images, asked.texts)]
        best.add(query, some, asked.score(query, *sides))


class _Sieve:
    """Which images can't be among the best, by two float32 similarities and one look-up each.

    Per question, a grid of similarities to image and text. Since no score falls where a similarity rises, the score at
    a corner bounds those of all images below it: for each step of the one similarity, `need` is what the other must
    exceed for the score to reach a floor.
    """

    def __init__(self, asked: _Asked, image_error: np.ndarray, text_error: np.ndarray, device: torch.device) -> None:
        mean, std = np.array(asked.image_moments).T
        step = 12 * np.maximum(std, 1e-9) / GRID
        reach = 1.01 * np.linalg.norm(asked.images, axis=1)
        lowest = mean - 2 * std
        self.image = _grid(lowest, step, reach)
        mean, std = np.array(asked.text_moments).T
        self.text = _grid(mean - 2 * std, 12 * np.maximum(std, 1e-9) / GRID, 1.01 * np.linalg.norm(asked.texts, axis=1))
        shape = (GRID, GRID)
        self.scores = np.stack([
            np.broadcast_to(asked.score(q, image[:, None], text[None]), shape)
            for q, (image, text) in enumerate(zip(self.image, self.text, strict=True))
        ])  # fmt: skip
        self.error = text_error[:, None]
        # one step up, and what float32 may lose on the way
        margin = 1.01 + 8 * 2.0**-24 * (reach + np.abs(lowest)) / step
        self.scale, self.shift = (
            torch.from_numpy(values[:, None].astype(np.float32)).to(device)
            for values in (1 / step, margin - (lowest - image_error) / step)
        )
        self.need = torch.full((len(mean), GRID), -torch.inf, device=device)

    def raise_to(self, floor: np.ndarray) -> None:
        """Rule out what scores less than `floor` (Q,)."""
        first = (self.scores < floor[:, None, None]).sum(axis=2)  # text step whose corner reaches it, if any
        need = np.take_along_axis(self.text, np.maximum(first - 1, 0), axis=1) - self.error
        need = np.where(first == 0, -np.inf, np.where(first == GRID, np.inf, need))
        need = np.nextafter(need.astype(np.float32), np.float32(-np.inf))
        self.need = torch.from_numpy(need).to(self.need.device)

    def passes(self, image: torch.Tensor, text: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Question and row of what isn't ruled out, from float32 similarities (Q, n)."""
        step = torch.addcmul(self.shift, image, self.scale).clamp_(0, GRID - 1).long()
        return (text >= self.need.gather(1, step)).nonzero(as_tuple=True)


def _grid(lowest: np.ndarray, step: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """(Q, GRID) ascending similarities by steps, the last of them beyond any."""
    grid = np.minimum(lowest[:, None] + step[:, None] * np.arange(GRID), reach[:, None])
    grid[:, -1] = reach
    return grid


# --- evaluation


@cache
def compiled() -> ModuleType | None:
    """`counting`, ready to use, where numba is there and finds a place to keep its code."""
    try:
        from rscir_lib.ranking import counting
    except (ImportError, RuntimeError):
        return None
    counting.count_scores(np.zeros(1), np.zeros(1))  # before processes are forked: each would load it again
    one = np.zeros(1, np.int64)
    counting.count_mixes(np.zeros((1, 1)), one, np.zeros(1), np.zeros(1), one)
    return counting


@cache
def compiled_for_gpu() -> ModuleType | None:
    """`counting_gpu`, ready to use, where Triton is there, as it is with torch's CUDA builds, and works."""
    try:
        from rscir_lib.ranking import counting_gpu

        one = torch.zeros(1, 1, dtype=torch.float64, device="cuda")
        counting_gpu.count(one, one)
    except ImportError:
        return None
    except Exception as error:  # whatever it lacks: a C compiler, a place for its code, a newer card
        warnings.warn(f"Triton can't compile for this GPU, which ranks slowly without it: {error}", stacklevel=2)
        return None
    return counting_gpu


@dataclass(frozen=True)
class _Judged:
    """Questions that share a scan, and what is known of them: Q of them, of I images and T texts, by J jobs.

    levels: of each job and question, the scores (R,) of its relevant images, ascending; listed: (R,) their positions,
    in that order. excluded: of each question, positions that are not ranked. tolerance: (Q,) how far two roundings of
    one score may lie apart. fast: whether compiled code is worth its start.
    """

    images: np.ndarray
    texts: np.ndarray
    image_moments: list[tuple[float, float]]
    text_moments: list[tuple[float, float]]
    image_of: np.ndarray
    text_of: np.ndarray
    jobs: list[tuple[TwoSimilarities, float]]
    excluded: list[np.ndarray]
    levels: list[list[np.ndarray]]
    listed: list[list[np.ndarray]]
    tolerance: np.ndarray
    fast: bool

    def prepared(self, rows: np.ndarray) -> tuple[dict, dict]:
        """Of some rows (n, d), the similarities on each scale that a job asks for: to the images (I, n), to the texts
        (T, n), float64."""
        prepares = {method.prepare_at(lam) for method, lam in self.jobs}
        queries = torch.from_numpy(np.concatenate([self.images, self.texts])).double()
        s = queries.new_empty(len(queries), len(rows))
        for some, out in zip(torch.from_numpy(rows).split(1024), s.split(1024, dim=1), strict=True):  # while in cache
            torch.mm(queries, some.double().T, out=out)
        if not s.sum().isfinite():
            raise ValueError("the features of a shard are not finite: run rscir verify")
        sides = zip(s.split([len(self.images), len(self.texts)]), (self.image_moments, self.text_moments), strict=True)
        return tuple(
            {p: torch.stack([p(row, of) for row, of in zip(side, moments, strict=True)]) for p in prepares}
            for side, moments in sides
        )

    def scores(self, prepared: tuple[dict, dict], job: int, question: int) -> np.ndarray:
        """(n,) float64 of the rows that were prepared."""
        method, lam = self.jobs[job]
        image, text = (rows[method.prepare_at(lam)] for rows in prepared)
        return method.combine(image[self.image_of[question]], text[self.text_of[question]], lam).numpy()

    def scored(self, job: int, question: int, image: np.ndarray, text: np.ndarray) -> np.ndarray:
        """(n,) float64, from similarities (n,) to the question's image and text."""
        method, lam = self.jobs[job]
        prepare = method.prepare_at(lam)
        image = prepare(torch.from_numpy(image), self.image_moments[self.image_of[question]])
        text = prepare(torch.from_numpy(text), self.text_moments[self.text_of[question]])
        return method.combine(image, text, lam).numpy()

    def sides(self, question: int) -> tuple[np.ndarray, np.ndarray]:
        """The question's image and text, (d,) each."""
        return self.images[self.image_of[question]], self.texts[self.text_of[question]]


def ranks(
    features: object,
    images: np.ndarray,
    texts: np.ndarray,
    image_of: np.ndarray,
    text_of: np.ndarray,
    targets: Sequence[np.ndarray],
    jobs: Sequence[tuple[str | Method, float]],
    excluded: Sequence[np.ndarray] | None = None,
    scheduler: str | None = None,
    workers: int | None = None,
) -> Iterator[tuple[int, np.ndarray]]:
    """Each of Q questions, in the order of their images, with the ranks (J, R) >= 1 of its R relevant images by each
    of J jobs, ascending: by descending float64 score, ties by position.

    features: a `Features`, read shard by shard. images (I, d), texts (T, d) float32; image_of, text_of (Q,): which of
    them a question has. targets: of each question, the positions (R,) of the relevant images; excluded: those that are
    not ranked. jobs: pointwise methods, with a lambda each. scheduler, workers: see `parallel.each`.

    A rank is one more than the images that score higher, so it adds up over shards. Float64 products are rounded
    differently with every blocking; so who scores nearly as a relevant image is compared with it once more, each row
    summed by itself. What is held grows with the relevant images of some thousand questions, not with the archive.
    Raises ValueError for a method that isn't pointwise, for features that are not finite, and for questions that don't
    fit together.
    """
    jobs = [(_pointwise(method), lam) for method, lam in jobs]
    for method, lam in jobs:
        if method.has_lambda:
            check_lambda(lam)
    images, texts = _queries("images", images, features.dim), _queries("texts", texts, features.dim)
    image_of, text_of = np.asarray(image_of), np.asarray(text_of)
    excluded = [np.empty(0, np.int64)] * len(image_of) if excluded is None else excluded
    if not jobs or not len(image_of) == len(text_of) == len(targets) == len(excluded):
        raise ValueError(
            f"{len(jobs)} jobs for {len(image_of)} images, {len(text_of)} texts, {len(targets)} targets and "
            f"{len(excluded)} excluded: expected a job at least, and of the others one a question"
        )
    for name, of, side in (("image_of", image_of, images), ("text_of", text_of, texts)):
        if not np.issubdtype(of.dtype, np.integer) or of.min() < 0 or of.max() >= len(side):
            raise ValueError(f"{name}: expected integers from 0 to {len(side) - 1}, found {of}")
    seen: set[int] = set()  # many questions share their positions
    for name, sets in (("targets", targets), ("excluded", excluded)):
        for q, positions in enumerate(sets):
            if id(positions) not in seen:
                check_positions(f"{name}[{q}]", positions, len(features))
                seen.add(id(positions))

    def found_in_turn() -> Iterator[tuple[int, np.ndarray]]:
        order, parts = np.argsort(image_of, kind="stable"), _parts(features)
        fast = len(features) * len(order) * len(jobs) >= COMPILED_SHARDS_FROM and compiled() is not None
        with running(scheduler, workers) as address:
            for start in range(0, len(order), ROUND):
                some = order[start : start + ROUND]
                batches = np.split(some, range(QUERIES, len(some), QUERIES))
                judged = [
                    _judged(features, images, texts, image_of[b], text_of[b], [targets[q] for q in b], jobs,
                            [excluded[q] for q in b], fast)
                    for b in batches
                ]  # fmt: skip
                items = [(batch, part) for batch in range(len(batches)) for part in range(len(parts))]
                with closing(each(partial(_counted, judged, parts), items, address, workers)) as found:
                    for batch, of in zip(batches, judged, strict=True):
                        counted = islice(found, len(parts))
                        yield from zip(batch.tolist(), _merged_ranks(features, of, counted), strict=True)

    return found_in_turn()  # what was asked is checked at once


def _judged(
    features: object,
    images: np.ndarray,
    texts: np.ndarray,
    image_of: np.ndarray,
    text_of: np.ndarray,
    targets: list[np.ndarray],
    jobs: list[tuple[TwoSimilarities, float]],
    excluded: list[np.ndarray],
    fast: bool,
) -> _Judged:
    (images, image_of), (texts, text_of) = (
        (side[used], of)
        for side, (used, of) in (
            (images, np.unique(image_of, return_inverse=True)),
            (texts, np.unique(text_of, return_inverse=True)),
        )
    )
    scaled = any(method.prepare_at(lam) is not raw for method, lam in jobs)
    moments = [[_spread(features, query, zscore if scaled else raw) for query in side] for side in (images, texts)]
    # float64 sums of d products (see _scan), for both of two that are compared; the steepest scale is the z-score, and
    # no method adds more than two
    stds = [np.array([std if std > FLAT else 1.0 for _, std in side]) for side in moments]
    of_image, of_text = (np.linalg.norm(side.astype(np.float64), axis=1) for side in (images, texts))
    length = np.maximum(1.0, np.maximum(of_image[image_of], of_text[text_of]))
    rounding = 8 * images.shape[1] * 2.0**-53 * length
    tolerance = rounding / np.minimum(1.0, np.minimum(stds[0][image_of], stds[1][text_of]))
    levels, listed = [[[] for _ in jobs] for _ in range(2)]
    judged = _Judged(images, texts, *moments, image_of, text_of, jobs, excluded, levels, listed, tolerance, fast)
    shared = {id(target): target for target in targets}  # by many questions
    rows = {key: features.rows(target).astype(np.float64) for key, target in shared.items()}
    for q, target in enumerate(targets):
        similarities = [rows[id(target)] @ side.astype(np.float64) for side in judged.sides(q)]
        for job in range(len(jobs)):
            scores = judged.scored(job, q, *similarities)
            ascending = np.argsort(scores)
            levels[job].append(scores[ascending])
            listed[job].append(target[ascending])
    return judged


def _counted(judged: list[_Judged], parts: list[tuple[int, object]], item: tuple[int, int]) -> tuple[list, np.ndarray]:
    """Of one shard: how many of its rows surely score higher than each level, by job and question; and who lies too
    near to one to tell, (n, 4) int64: job, question, position, number of the level."""
    of, (first, shard) = judged[item[0]], parts[item[1]]
    feats = shard.reopened().feats
    greater = [[np.zeros(len(levels), np.int64) for levels in of_job] for of_job in of.levels]
    near = [np.empty((0, 4), np.int64)]
    for start in range(0, len(feats), RANKED):
        some = feats[start : start + RANKED]
        prepared, at = of.prepared(some), first + start
        for q, excluded in enumerate(of.excluded):
            out = excluded[(excluded >= at) & (excluded < at + len(some))] - at
            for job in range(len(of.jobs)):
                scores = of.scores(prepared, job, q)
                if not np.isfinite(scores.sum()):
                    raise ValueError(f"method {of.jobs[job][0].name!r} gives scores that are not finite")
                listed = of.listed[job][q]
                own = listed[(listed >= at) & (listed < at + len(some))] - at
                own = np.setdiff1d(own, out)  # each is near itself: compared apart
                others = scores.copy()
                others[out] = others[own] = -np.inf
                for counted, position in ((others, None), (scores[own], own)):
                    more, rows, levels = count_near(counted, of.levels[job][q], of.tolerance[q], of.fast)
                    greater[job][q] += more
                    rows = at + (rows if position is None else position[rows])
                    other = listed[levels] != rows  # than itself
                    if other.any():
                        rows, levels = rows[other], levels[other]
                        near.append(np.stack([np.full_like(rows, job), np.full_like(rows, q), rows, levels], axis=1))
    return greater, np.concatenate(near)


def count_near(
    scores: np.ndarray, levels: np.ndarray, tolerance: float, fast: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How many of the scores (n,) are greater than each level (R,), ascending, by more than the tolerance; and the
    pairs, number of a score and of a level, that are nearer to each other."""
    low, high = levels - tolerance, levels + tolerance
    if fast and compiled() and len(levels) and (high[:-1] < low[1:]).all():
        greater, equal = compiled().count_scores(scores, np.stack([low, high], axis=1).ravel())
        if np.array_equal(greater[::2] + equal[::2], greater[1::2]):  # nobody is near, as in most blocks
            return greater[1::2], np.empty(0, np.int64), np.empty(0, np.int64)
    below, reached = np.searchsorted(high, scores, "left"), np.searchsorted(low, scores, "right")
    greater = np.bincount(below, minlength=len(levels) + 1)[::-1].cumsum()[::-1][1:]
    near = np.flatnonzero(reached > below)
    times = (reached - below)[near]
    rows = np.repeat(near, times)
    return greater, rows, np.arange(len(rows)) - np.repeat(times.cumsum() - times - below[near], times)


def _merged_ranks(features: object, of: _Judged, counted: Iterator[tuple[list, np.ndarray]]) -> list[np.ndarray]:
    """Of each question, ranks (J, R), from what was counted in every shard."""
    greater = [[np.zeros(len(levels), np.int64) for levels in of_job] for of_job in of.levels]
    found = []
    for of_part, near in counted:
        found.append(near)
        for of_job, more in zip(greater, of_part, strict=True):
            for so_far, count in zip(of_job, more, strict=True):
                so_far += count
    near = pd.DataFrame(np.concatenate(found), columns=["job", "question", "position", "level"])
    for (job, q), pairs in near.groupby(["job", "question"]):
        positions, levels = pairs["position"].to_numpy(), pairs["level"].to_numpy()
        relevant = of.listed[job][q][levels]
        score, level = (
            of.scored(job, q, *(exact(features.rows(rows), side) for side in of.sides(q)))
            for rows in (positions, relevant)
        )
        before = (score > level) | ((score == level) & (positions < relevant))
        np.add.at(greater[job][q], levels[before], 1)
    return [np.sort(np.stack(of_question) + 1, axis=1) for of_question in zip(*greater, strict=True)]
