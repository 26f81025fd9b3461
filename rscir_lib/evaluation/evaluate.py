"""Benchmark x features x methods -> one row per composed query -> tables (protocol, Metrics)."""

import numbers
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from rscir_lib.benchmarks.base import ATTRIBUTES, Benchmark
from rscir_lib.evaluation.metrics import CUTOFFS, METRICS, chance_ap, metric_names, retrieval_metrics
from rscir_lib.features import Features
from rscir_lib.methods.base import EncodeTexts, Method
from rscir_lib.methods.pairwise import TwoSimilarities
from rscir_lib.methods.registry import get_method
from rscir_lib.ranking import engine
from rscir_lib.ranking.engine import compiled, resolve_device
from rscir_lib.similarity.moments import Database
from rscir_lib.similarity.scales import best_first, check_lambda, halfway, mix
from rscir_lib.storage.parallel import parallel_map
from rscir_lib.storage.project import DATA

BASELINES = ("text", "image", "average")
COLUMNS = ["attribute", "image", "text", "method", "lambda", "n_relevant", *METRICS]
PUBLISHED = DATA / "published" / "patterncom_map.csv"

# similarities of texts kept, of query images taken in one product, and scores ranked at a time: what memory allows,
# what a processor's cache holds, or what keeps a GPU busy
TEXT_SCORES_KEPT = 2**23
SCORES_AT_A_TIME = {"cpu": 2**21, "cuda": 2**25}
RANKED_AT_A_TIME = {"cpu": 2**18, "cuda": 2**25}
COMPARED_AT_A_TIME = 2**30  # on a GPU, a byte each

Job = tuple[Method, float]  # a method and its lambda, NaN where it has none


def evaluate(
    benchmark: Benchmark,
    features: Features,
    encode_texts: EncodeTexts,
    methods: Sequence[str | Method] = (*BASELINES, "weicom"),
    lambdas: Sequence[float] = (0.5,),
    device: str = "auto",
    progress: bool = True,
    cutoffs: Sequence[int] = CUTOFFS,
    query_features: Features | None = None,
    return_ranks: bool = False,
    scheduler: str | None = None,
) -> pd.DataFrame:
    """Rank the whole archive for every composed query, by every method (protocol, Scores and Metrics).

    features: of every image of the benchmark's archive, in any order. encode_texts: n texts -> (n, d) float32,
    L2-normalised; called once with the distinct texts, and by methods that ask for more. methods: names in
    `composition.METHODS`, or objects. lambdas: in [0, 1], for the methods that have one. device: "auto", "cpu", "cuda"
    or "cuda:<n>"; a device without float64 ("mps") leaves the ranking to the CPU. cutoffs: the k of P@k and R@k.
    query_features: of the images of `benchmark.query_archive`, where queries come from outside the archive.
    return_ranks: one more column, `ranks`, the ascending ranks of each query's relevant images.
    scheduler: "local" or an address, for Dask (`parallel.each`): the features are then read shard by shard, as are
    without one too those that are `large`, in the archive's order, if all methods are pointwise and no GPU is named,
    which would hold them all. Metrics are the same.

    Returns one row per composed query x method (x lambda) with the columns `COLUMNS`, metrics in [0, 1]; the index is
    the row of the query in `benchmark.queries`. Ranks are those of float64 similarities, ties by archive order. Images
    that nobody judged (`benchmark.unknowns`) are taken out of their query's ranking, `n_unknown` says how many; so is
    the query image itself where the benchmark says `exclude_self`.

    Raises ValueError for an unknown method, a lambda outside [0, 1], features or texts that do not fit, queries that
    contradict themselves, and for features or scores that are not finite.
    """
    jobs = _jobs(methods, lambdas)
    cutoffs = _cutoffs(cutoffs)
    queries = benchmark.queries
    names, device = list(metric_names(cutoffs)), resolve_device(device) if device != "auto" else device
    if scheduler and device.startswith("cuda"):
        raise ValueError(f"device {device!r} with a scheduler, whose workers rank on processors: leave one of them out")
    metrics = np.empty((len(jobs), len(queries), len(names)))
    ranks = np.empty((len(jobs), len(queries)), object)
    finish = (lambda found: found) if return_ranks else (lambda found: retrieval_metrics(found, cutoffs))
    if scheduler or (_streams(features, benchmark, jobs) and not device.startswith("cuda")):
        answers = _streamed(benchmark, features, encode_texts, jobs, finish, progress, query_features, scheduler)
    else:
        answers = _in_memory(benchmark, features, encode_texts, jobs, finish, device, progress, query_features)
    for of_jobs, of_queries, found in answers:
        at = np.ix_(of_jobs, of_queries)
        metrics[at] = retrieval_metrics(found, cutoffs) if return_ranks else found
        if return_ranks:
            for job, of_job in zip(of_jobs, found, strict=True):
                for query, of_query in zip(of_queries, of_job, strict=True):
                    ranks[job, query] = of_query

    counts = {"n_relevant": benchmark.n_relevant}
    if "unknown" in queries:
        counts["n_unknown"] = benchmark.n_unknown
    tables = [
        queries[["attribute", "image", "text"]]
        .assign(method=method.name, **{"lambda": lam}, **counts)
        .join(pd.DataFrame(of_job, columns=names, index=queries.index))
        .assign(**({"ranks": ranks_of_job} if return_ranks else {}))
        for of_job, ranks_of_job, (method, lam) in zip(metrics, ranks, jobs, strict=True)
    ]
    return pd.concat(tables).rename_axis("query")


def _in_memory(
    benchmark: Benchmark,
    features: Features,
    encode_texts: EncodeTexts,
    jobs: list[Job],
    finish: Callable,
    device: str,
    progress: bool,
    query_features: Features | None,
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """The answers that are ranks, from all similarities at once."""
    device, rank = resolve_device(device), _ranks
    scores = len(jobs) * len(benchmark.queries) * len(benchmark.archive)
    if device == "cpu" and scores >= engine.COMPILED_FROM and compiled():
        rank = _ranks_compiled
    return _answers(benchmark, features, encode_texts, jobs, rank, finish, device, progress, query_features)


def _streams(features: Features, benchmark: Benchmark, jobs: list[Job]) -> bool:
    """Whether features are too many to be held, and can be ranked by parts."""
    pointwise = all(isinstance(method, TwoSimilarities) and method.pointwise for method, _ in jobs)
    return pointwise and features.large and features.lie_as(benchmark.archive)


def _streamed(
    benchmark: Benchmark,
    features: Features,
    encode_texts: EncodeTexts,
    jobs: list[Job],
    finish: Callable,
    progress: bool,
    query_features: Features | None,
    scheduler: str | None,
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """The answers that are ranks, shard by shard."""
    queries, archive = benchmark.queries, benchmark.archive
    if queries.empty:
        raise ValueError(f"{archive.root}: no composed query to evaluate; benchmark.warnings says why")
    if not features.lie_as(archive):
        raise ValueError(
            f"the features are not those of {archive.name}, image by image, in its order, which ranking by shards "
            "needs: extract them for this archive, or leave scheduler out"
        )
    texts = list(dict.fromkeys(queries["text"]))
    text_feats = encoded(encode_texts, texts, features.dim)
    image_feats, image_of = _query_images(benchmark, features.rows, len(features), features.dim, query_features)
    excluded = [benchmark.unknowns[i] if i >= 0 else np.empty(0, np.int64) for i in _unknown_of(queries)]
    if benchmark.exclude_self:
        own = queries["position"].to_numpy()
        excluded = [np.union1d(some, p) if p >= 0 else some for some, p in zip(excluded, own, strict=True)]
    found = engine.ranks(
        features,
        image_feats,
        text_feats,
        image_of,
        queries["text"].map({text: i for i, text in enumerate(texts)}).to_numpy(),
        [benchmark.targets[i] for i in queries["target"]],
        jobs,
        excluded,
        scheduler,
    )
    for query, ranks in tqdm(found, "evaluate", len(queries), unit=" queries", disable=not progress):
        yield np.arange(len(jobs)), np.array([query]), finish(ranks[:, None])


def _unknown_of(queries: pd.DataFrame) -> np.ndarray:
    return queries["unknown"].to_numpy() if "unknown" in queries else np.full(len(queries), -1)


def top_lists(
    benchmark: Benchmark,
    features: Features,
    encode_texts: EncodeTexts,
    method: str | Method = "weicom",
    lam: float = 0.5,
    k: int = 100,
    device: str = "auto",
    progress: bool = True,
    query_features: Features | None = None,
) -> np.ndarray:
    """Archive positions (queries, k) of each composed query's best images, best first, as `evaluate` ranks them.

    Where fewer than k images are ranked, -1 fills the row. Arguments as for `evaluate`.
    """
    (job,) = _jobs([method], [lam])
    (k,) = _cutoffs([k])
    found = np.empty((len(benchmark.queries), k), np.int64)

    def take(scores: torch.Tensor, relevant: np.ndarray) -> np.ndarray:
        rows = np.full((len(scores), k), -1)
        for row, score in zip(rows, scores.cpu().numpy(), strict=True):
            best = best_first(score, k)
            best = best[np.isfinite(score[best])]  # what was taken out
            row[: len(best)] = best
        return rows

    arguments = (benchmark, features, encode_texts, [job], take, lambda lists: lists, device, progress, query_features)
    for _, of_queries, lists in _answers(*arguments):
        found[of_queries] = lists[0]
    return found


def _answers(
    benchmark: Benchmark,
    features: Features,
    encode_texts: EncodeTexts,
    jobs: list[Job],
    take: Callable[[torch.Tensor, np.ndarray], np.ndarray],
    finish: Callable[[np.ndarray], np.ndarray],
    device: str,
    progress: bool,
    query_features: Features | None,
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """finish((J, B, M)) of J jobs and B queries at a time that share their relevant images: what `take` makes (B, M) of
    scores (B, N) and the relevant positions. With it the numbers of the jobs (J,) and of the queries (B,).

    Similarities to an image and to a text are taken and prepared once for all methods of two similarities; other
    methods score the same queries by themselves.
    """
    device = resolve_device(device)
    queries = benchmark.queries
    if queries.empty:
        raise ValueError(f"{benchmark.archive.root}: no composed query to evaluate; benchmark.warnings says why")
    database = Database(_finite(features, benchmark.archive), device)
    texts = list(dict.fromkeys(queries["text"]))
    text_feats = encoded(encode_texts, texts, database.feats.shape[1])
    size, dim = database.feats.shape
    image_feats, image_of = _query_images(benchmark, database.feats.__getitem__, size, dim, query_features)
    t, v = (torch.from_numpy(feats).to(device) for feats in (text_feats, image_feats))
    text_feats, image_feats = text_feats.astype(np.float64), image_feats.astype(np.float64)
    text_of = queries["text"].map({text: i for i, text in enumerate(texts)}).to_numpy()
    target_of = queries["target"].to_numpy()
    unknown_of = _unknown_of(queries)
    self_of = queries["position"].to_numpy() if benchmark.exclude_self else None

    paired = [i for i, (method, _) in enumerate(jobs) if isinstance(method, TwoSimilarities)]
    fitted = {method.name: method.fit(database, encode_texts) for i, (method, _) in enumerate(jobs) if i not in paired}
    prepares = {method.prepare_at(lam) for method, lam in map(jobs.__getitem__, paired)}

    def prepared(query_feats: torch.Tensor) -> dict[Callable, torch.Tensor]:
        s = database.product(query_feats)
        return {prepare: prepare(s) for prepare in prepares}

    def answer(scores: torch.Tensor, of: np.ndarray, method: Method) -> np.ndarray:
        """What `take` makes of the scores of the queries `of`, which share text, relevant and unknown images; one row
        of scores stands for all."""
        if not scores.sum().isfinite():
            raise ValueError(f"method {method.name!r} gives scores that are not finite")
        unknown = benchmark.unknowns[unknown_of[of[0]]] if unknown_of[of[0]] >= 0 else ()
        if len(unknown) or self_of is not None:
            scores = scores.expand(len(of) if self_of is not None else -1, -1).clone()
            scores[:, torch.as_tensor(unknown, dtype=torch.long, device=scores.device)] = -torch.inf
            if self_of is not None:
                inside = np.flatnonzero(self_of[of] >= 0)
                scores[inside, self_of[of[inside]]] = -torch.inf
        return take(scores, benchmark.targets[target_of[of[0]]])

    mixes = defaultdict(dict)  # by scale, the jobs whose ranks compiled code takes from the two similarities
    for i in paired if take is _ranks_compiled and self_of is None else ():
        method, lam = jobs[i]
        if method.combine is halfway or (method.combine is mix and 0 < lam < 1):
            mixes[method.prepare_at(lam)][i] = 0.5 if method.combine is halfway else lam

    def all_ranked(of: np.ndarray) -> bool:
        return unknown_of[of[0]] < 0 or not len(benchmark.unknowns[unknown_of[of[0]]])

    rows = max(16, SCORES_AT_A_TIME[torch.device(device).type] // len(database))
    part = max(1, RANKED_AT_A_TIME[torch.device(device).type] // len(database))

    def score(chunk: np.ndarray) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """The answers to some queries, whose texts lie in `text_scores`."""
        answers = []
        if paired:
            images, row_of = np.unique(image_of[chunk], return_inverse=True)
            image_scores = prepared(v[images])
            finite = {p for p in prepares if (image_scores[p].sum() + text_scores[p].sum()).isfinite()}
            for block in _groups(part, text_of[chunk], target_of[chunk], unknown_of[chunk]):
                of, text = torch.from_numpy(row_of[block]).to(device), text_of[chunk[block[0]]] - first_text
                relevant = benchmark.targets[target_of[chunk[block[0]]]]
                text_row = {prepare: scores[text : text + 1] for prepare, scores in text_scores.items()}
                found = {}
                for prepare in finite.intersection(mixes if all_ranked(chunk[block]) else ()):
                    lams = list(mixes[prepare].values())
                    ranks = _ranks_of_mixes(image_scores[prepare], of, text_row[prepare], lams, relevant)
                    found |= zip(mixes[prepare], ranks, strict=True)
                left = [i for i in paired if i not in found]
                image_rows = {p: image_scores[p][of] for p in {jobs[i][0].prepare_at(jobs[i][1]) for i in left}}
                alone, known = {id(rows) for rows in (*image_rows.values(), *text_row.values())}, {}
                for i in left:
                    method, lam = jobs[i]
                    prepare = method.prepare_at(lam)
                    scores = method.combine(image_rows[prepare], text_row[prepare], lam)
                    one = known.get(id(scores))
                    if one is None:
                        one = answer(scores, chunk[block], method)
                    if id(scores) in alone:  # an image or a text alone is asked for again
                        known[id(scores)] = one
                    found[i] = np.broadcast_to(one, (len(block), *one.shape[1:]))
                answers.append((np.array(paired), chunk[block], finish(np.stack([found[i] for i in paired]))))
        for job in [i for i in range(len(jobs)) if i not in paired]:
            method, lam = jobs[job]
            for start in range(0, len(chunk), rows):
                some = chunk[start : start + rows]
                asked = [
                    image_feats[image_of[some]].astype(np.float64),
                    text_feats[text_of[some]].astype(np.float64),
                    lam,
                ]
                if getattr(method, "reads_words", False):
                    asked.append([texts[text] for text in text_of[some]])
                scores = torch.as_tensor(np.asarray(fitted[method.name](*asked), np.float64))
                if scores.shape != (len(some), len(database)):
                    raise ValueError(
                        f"method {method.name!r} gave scores of shape {tuple(scores.shape)} for {len(some)} queries; "
                        f"expected {(len(some), len(database))}, one an archive image"
                    )
                for block in _groups(part, target_of[some], unknown_of[some]):
                    found = answer(scores[torch.from_numpy(block)].to(device), some[block], method)
                    answers.append((np.array([job]), some[block], finish(found[None])))
        return answers

    # an encoder may sit on a GPU, which a forked process can't use
    alone = device != "cpu" or any(getattr(method, "reads_words", False) for method, _ in jobs)
    kept = max(1, TEXT_SCORES_KEPT // (len(database) * max(len(prepares), 1)))
    with tqdm(total=len(queries), desc="evaluate", unit=" queries", disable=not progress) as bar:
        for first_text in range(0, len(texts), kept):
            text_scores = prepared(t[first_text : first_text + kept]) if paired else {}
            asked = np.flatnonzero((text_of >= first_text) & (text_of < first_text + kept))
            chunks = _by_image(asked, image_of, rows)
            for chunk, answers in zip(chunks, parallel_map(score, chunks, 1 if alone else None), strict=True):
                yield from answers
                bar.update(len(chunk))


def _jobs(methods: Sequence[str | Method], lambdas: Sequence[float]) -> list[Job]:
    if isinstance(methods, str) or not len(methods):
        raise ValueError(f"methods: expected a list of method names, found {methods!r}")
    if not isinstance(lambdas, Sequence | np.ndarray | pd.Series) or isinstance(lambdas, str):
        raise ValueError(f"lambdas: expected a list of numbers in [0, 1], found {lambdas!r}; for one, write [0.5]")
    for lam in lambdas:
        check_lambda(lam)
    jobs: list[Job] = []
    for method in {id(method): method for method in map(get_method, methods)}.values():
        if any(method.name == other.name for other, _ in jobs):
            raise ValueError(f"two of the methods are named {method.name!r}: give each a name of its own")
        if method.has_lambda and not len(lambdas):
            raise ValueError(f"method {method.name!r} needs at least one lambda, such as lambdas=[0.5]")
        jobs += [(method, float(lam)) for lam in dict.fromkeys(lambdas)] if method.has_lambda else [(method, np.nan)]
    return jobs


def _cutoffs(cutoffs: Sequence[int]) -> tuple[int, ...]:
    if isinstance(cutoffs, str) or not np.iterable(cutoffs) or not len(cutoffs):
        raise ValueError(f"cutoffs: expected a list of whole numbers, such as [1, 5, 10], found {cutoffs!r}")
    for k in cutoffs:
        if isinstance(k, bool) or not isinstance(k, numbers.Integral) or k < 1:
            raise ValueError(f"cutoff {k!r} is no whole number of images of at least 1")
    return tuple(dict.fromkeys(map(int, cutoffs)))


def _finite(features: Features, archive: object) -> np.ndarray:
    feats = features.aligned(archive)
    if (bad := np.flatnonzero(~np.isfinite(feats.sum(axis=1)))).size:
        raise ValueError(f"the features of {archive.files[bad[0]]} are not finite; extract them again")
    return feats


def _query_images(
    benchmark: Benchmark,
    rows: Callable[[np.ndarray], np.ndarray],
    size: int,
    dim: int,
    query_features: Features | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Features (I, d) of the distinct query images, and which of them is each query's. rows: positions in an archive
    of `size` images -> their features (n, dim)."""
    position = benchmark.queries["position"].to_numpy()
    key = position.copy()
    if (outside := position < 0).any():
        archive = benchmark.query_archive
        if query_features is None:
            raise ValueError(
                f"{outside.sum()} queries have an image outside the archive: pass query_features, those of "
                f"benchmark.query_archive ({len(archive)} images)"
            )
        more = _finite(query_features, archive)
        if more.shape[1] != dim:
            raise ValueError(
                f"query_features have {more.shape[1]} dimensions, features {dim}: are they of the same encoder?"
            )
        key[outside] = size + benchmark.queries["query"].to_numpy()[outside]
    distinct, image_of = np.unique(key, return_inverse=True)
    inside = distinct < size
    parts = [rows(distinct[inside])]
    if not inside.all():
        parts.append(more[distinct[~inside] - size])
    return np.concatenate(parts), image_of


def _by_image(asked: np.ndarray, image_of: np.ndarray, rows: int) -> list[np.ndarray]:
    """Queries in chunks of at most `rows` images, in the order of the images."""
    asked = asked[np.argsort(image_of[asked], kind="stable")]
    _, nth = np.unique(image_of[asked], return_inverse=True)
    return np.split(asked, np.searchsorted(nth, np.arange(rows, nth[-1] + 1, rows)))


def encoded(encode_texts: EncodeTexts, texts: list[str], dim: int) -> np.ndarray:
    """Features (n, dim) float32 of texts. Raises ValueError where they don't fit or aren't of unit length."""
    feats = np.asarray(encode_texts(texts), dtype=np.float32)
    if feats.shape != (len(texts), dim):
        raise ValueError(
            f"encode_texts gave shape {feats.shape} for {len(texts)} texts, the image features ask for "
            f"({len(texts)}, {dim}): are they of the same encoder?"
        )
    norms = np.linalg.norm(feats, axis=1)
    if not np.allclose(norms, 1, atol=1e-3):
        worst = int(np.argmax(np.abs(norms - 1)))
        raise ValueError(f"encode_texts must L2-normalise: the feature of {texts[worst]!r} has norm {norms[worst]:.4f}")
    return feats


def _groups(size: int, *keys: np.ndarray) -> Iterator[np.ndarray]:
    """Positions in groups of at most `size` that agree in every key."""
    frame = pd.DataFrame(dict(enumerate(keys)))
    for group in frame.groupby(list(frame.columns)).indices.values():
        for start in range(0, len(group), size):
            yield group[start : start + size]


def _ranks(scores: torch.Tensor, relevant: np.ndarray) -> np.ndarray:
    """Ranks (B, R) >= 1, ascending, of the R relevant positions in B rankings (B, N) by descending float64 score, ties
    by archive order."""
    if scores.device.type == "cpu":
        return np.stack([_ranks_by_bins(row, relevant) for row in scores.numpy()])
    return _ranks_by_counting(scores, relevant)


def _ranks_by_counting(scores: torch.Tensor, relevant: np.ndarray) -> np.ndarray:
    """Every score is compared with every relevant one: more work than to sort, but such as a GPU does at once."""
    at = torch.as_tensor(relevant, dtype=torch.long, device=scores.device)
    count = engine.compiled_for_gpu().count if scores.is_cuda and engine.compiled_for_gpu() else _count
    before, equal = count(scores, scores[:, at])
    position = torch.arange(scores.shape[1], device=scores.device)
    for row in (equal > 1).any(dim=1).nonzero().flatten().tolist():  # others than itself: ties go by archive order
        tied = (equal[row] > 1).nonzero().flatten()
        level, earlier = scores[row, at[tied], None], position < at[tied, None]
        before[row, tied] += ((scores[row] == level) & earlier).sum(dim=1, dtype=before.dtype)
    return (before + 1).long().sort(dim=1).values.cpu().numpy()


def _count(scores: torch.Tensor, levels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """As `counting_gpu.count`, by torch alone."""
    pairs = scores.shape[1] * max(1, levels.shape[1])
    parts = []
    for some, of in zip(*(side.split(max(1, COMPARED_AT_A_TIME // pairs)) for side in (scores, levels)), strict=True):
        parts.append([(of_each(some[:, None], of[..., None])).sum(dim=2) for of_each in (torch.gt, torch.eq)])
    return tuple(torch.cat(part) for part in zip(*parts, strict=True))


def _ranks_by_bins(scores: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    """Only the images near a relevant one are sorted, those in the same of many bins of equal width; those in higher
    bins are counted, and those below every relevant one left out. On a processor several times faster than to sort.

    Scores become bins by float arithmetic that never reverses an order, so that the ranks are exact.
    """
    if not len(relevant):
        return np.empty(0, np.int64)
    low, high = scores[relevant].min(), scores.max()
    is_relevant = np.zeros(len(scores), bool)
    is_relevant[relevant] = True
    kept = np.flatnonzero(scores >= low)
    scores, is_relevant = scores[kept], is_relevant[kept]
    bins = len(kept) // 2 + 1  # few images near each relevant one, and few bins to add up
    bin_of = ((scores - low) * (bins / max(high - low, 1e-9))).astype(np.intp)
    wanted = np.zeros(bins + 2, bool)
    wanted[bin_of[is_relevant]] = True
    near = np.flatnonzero(wanted[bin_of])
    near = near[np.argsort(-scores[near], kind="stable")]
    counts = np.bincount(bin_of, minlength=len(wanted))
    counts[wanted] = 0
    up_to = np.cumsum(counts)
    ranks = np.arange(1, len(near) + 1) + (up_to[-1] - up_to[bin_of[near]])
    return ranks[is_relevant[near]]


def _ranks_compiled(scores: torch.Tensor, relevant: np.ndarray) -> np.ndarray:
    """As `_ranks`, by compiled code on a processor."""
    return np.stack([_ranks_of_row(row, relevant) for row in scores.numpy()])


def _ranks_of_row(scores: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    levels = np.sort(scores[relevant])
    if len(levels) and np.isfinite(levels[0]):
        greater, equal = compiled().count_scores(scores, levels)
        if equal.sum() == len(levels):  # each equals itself alone
            return greater[::-1] + 1
    return _ranks_by_bins(scores, relevant)  # ties go by archive order


def _ranks_of_mixes(
    images: torch.Tensor, rows: torch.Tensor, text: torch.Tensor, lams: Sequence[float], relevant: np.ndarray
) -> np.ndarray:
    """`_ranks_compiled` of `mix(images[rows], text, lam)`, of (I, N), (B,) and (1, N), for L lambdas between 0 and 1:
    (L, B, R). The scores are never written down."""
    # a copy: for whatever else positions may be, it would be compiled once more
    of_relevant = np.array(relevant, np.int64)
    greater, equal = compiled().count_mixes(
        images.numpy(), rows.numpy(), text[0].numpy(), np.asarray(lams), of_relevant
    )
    ranks = greater[..., ::-1] + 1
    for job, row in np.argwhere(equal.sum(axis=-1) != len(relevant)):  # ties go by archive order
        ranks[job, row] = _ranks_by_bins(mix(images[rows[row]], text[0], lams[job]).numpy(), relevant)
    return ranks


def summarize(rows: pd.DataFrame, per: pd.Series | None = None, rounding: str | None = None) -> pd.DataFrame:
    """mAP in per cent: index (method, lambda), a column an attribute, and Avg, their unweighted mean.

    Without `per`, the mean over an attribute's composed queries: how the published numbers come about. With
    `per=benchmark.queries["value"]`, first over the queries of each attribute value of the query image, then over
    values: what the published text describes. rounding="authors" rounds each query's AP, each mean and Avg to two
    decimals, as the authors' evaluator does.
    """
    if rounding not in (None, "authors"):
        raise ValueError(f"rounding {rounding!r} is unknown; choose None or 'authors'")
    digits = (lambda x: x.round(2)) if rounding else (lambda x: x)
    keys = ["method", "lambda", "attribute"]
    frame = rows[keys].assign(AP=digits(100 * rows["AP"]))
    if per is not None:
        frame["per"] = per.reindex(rows.index).to_numpy()
        frame = frame.groupby([*keys, "per"], dropna=False, sort=False)["AP"].mean().reset_index()
    table = digits(frame.groupby(keys, dropna=False, sort=False)["AP"].mean()).unstack("attribute", sort=False)
    table = table[[a for a in ATTRIBUTES if a in table] + [a for a in table if a not in ATTRIBUTES]]
    table.columns = [attribute.capitalize() for attribute in table.columns]
    return table.assign(Avg=digits(table.mean(axis=1)))


def chance(benchmark: Benchmark) -> pd.Series:
    """mAP in per cent of a random ranking: expected, per attribute and Avg. What any method has to beat."""
    sizes = list(zip(benchmark.n_relevant.tolist(), benchmark.n_ranked.tolist(), strict=True))
    expected = {size: 100 * chance_ap(*size) for size in set(sizes)}
    ap = pd.Series([expected[size] for size in sizes], benchmark.queries.index)
    by = ap.groupby(benchmark.queries["attribute"], sort=False).mean().rename(str.capitalize)
    return pd.concat([by, pd.Series({"Avg": by.mean()})]).rename("chance")


def with_chance(table: pd.DataFrame, benchmark: Benchmark) -> pd.DataFrame:
    """A table of `summarize` or `analysis.summarize_chosen` with chance as its last row."""
    name = ("chance", np.nan) if table.index.nlevels > 1 else "chance"
    return pd.concat([table, chance(benchmark).to_frame(name).T.rename_axis(table.index.names)])


def published() -> pd.DataFrame:
    """The published mAP tables (per cent): version, date, encoder, method, lambda, then a column an attribute, Avg."""
    return pd.read_csv(PUBLISHED)


def compare_published(table: pd.DataFrame, encoder: str) -> pd.DataFrame:
    """A table of `summarize` beside every published version of the same encoder.

    Returns one row per version x method x lambda x column: ours, published and difference (ours - published), in
    points of mAP. Raises ValueError when nothing of that encoder was published.
    """
    theirs = published().query("encoder == @encoder").drop(columns=["encoder", "date"])
    if theirs.empty:
        raise ValueError(
            f"nothing is published for encoder {encoder!r}; only {', '.join(published()['encoder'].unique())}"
        )
    keys = ["method", "lambda", "attribute"]
    long = theirs.melt(["version", "method", "lambda"], var_name="attribute", value_name="published")
    ours = table.reset_index().melt(["method", "lambda"], var_name="attribute", value_name="ours")
    both = long.merge(ours, on=keys)  # pandas matches NaN lambdas
    return both.assign(difference=both["ours"] - both["published"])


def nearest_version(comparison: pd.DataFrame) -> pd.Series:
    """Per attribute, and `overall` (all attributes, without Avg), the published version with the least mean distance.

    Versions that are equally near are all named.
    """
    distance = comparison.assign(distance=comparison["difference"].abs().round(6))
    by = distance.pivot_table(index="attribute", columns="version", values="distance", sort=False)
    by.loc["overall"] = by.drop(index="Avg").mean()
    return by.apply(lambda row: ", ".join(row.index[np.isclose(row, row.min())]), axis=1).rename("nearest")
