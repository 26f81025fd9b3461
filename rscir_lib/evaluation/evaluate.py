"""Benchmark x features x methods -> one row per composed query (protocol, Metrics)."""

import numbers
from collections.abc import Sequence

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from rscir_lib.benchmarks.base import Benchmark
from rscir_lib.evaluation.metrics import CUTOFFS, METRICS, metric_names, retrieval_metrics
from rscir_lib.features import Features
from rscir_lib.methods.base import EncodeTexts, Method
from rscir_lib.ranking import ImageSets, Job, Questions, make_jobs, rank_relevant, top_k, with_auto
from rscir_lib.ranking.kernels import Backend
from rscir_lib.similarity.gallery import Gallery, InMemory
from rscir_lib.storage.device import torch_device

BASELINES = ("text", "image", "average")
LISTS = 2**12  # queries whose best images are sought together: between them, a bar moves
COLUMNS = ["attribute", "image", "text", "method", "lambda", "n_relevant", *METRICS]


def evaluate(
    benchmark: Benchmark,
    features: Features,
    encode_texts: EncodeTexts,
    methods: Sequence[str | Method] = (*BASELINES, "weicom"),
    lambdas: Sequence[float | str] = (0.5,),
    device: str = "auto",
    progress: bool = True,
    cutoffs: Sequence[int] = CUTOFFS,
    query_features: Features | None = None,
    return_ranks: bool = False,
    scheduler: str | None = None,
    backend: Backend = "auto",
) -> pd.DataFrame:
    """Rank the whole archive for every composed query, by every method (protocol, Scores and Metrics).

    Args:
        benchmark: queries, and which images are relevant to each.
        features: of every image of the benchmark's archive, in any order.
        encode_texts: n texts -> (n, d) float32, L2-normalised.
        methods: names in `methods.METHODS`, or objects.
        lambdas: in [0, 1], for the methods that have one; "auto" is read off the similarities (`ranking.read_lambda`).
        device: "auto", "cpu", "cuda" or "cuda:<n>"; one without float64 ("mps") leaves the ranking to the CPU.
        progress, cutoffs: whether a bar shows how far it is; the k of P@k and R@k.
        query_features: of the images of `benchmark.query_archive`, where `features` have none of them.
        return_ranks: one more column, `ranks`, the ascending ranks of each query's relevant images.
        scheduler: "local" or an address, for Dask (`parallel.each`), whose workers rank shard by shard.
        backend: what counts (`ranking.kernels`); the result is the same.

    Returns:
        One row per composed query x method (x lambda), columns `COLUMNS`, metrics in [0, 1], indexed by the query's row
        in `benchmark.queries`. Ties go by archive order. Images that nobody judged take no rank (`n_unknown`).

    Raises:
        ValueError: for methods, lambdas, features, texts, queries or scores that do not fit, saying which.
    """
    cutoffs = _cutoffs(cutoffs)
    gallery = _gallery(benchmark, features, device, scheduler)
    questions = compose(benchmark, gallery, encode_texts, query_features or features)
    lambdas = with_auto(lambdas, questions, gallery, progress)
    if benchmark.galleries:
        options = methods, lambdas, device, False, cutoffs, query_features or features, return_ranks, None, backend
        numbers = tqdm(np.unique(benchmark.queries["gallery"]), unit=" galleries", disable=not progress)
        return pd.concat([evaluate(benchmark.in_gallery(i), features, encode_texts, *options) for i in numbers])
    jobs = make_jobs(methods, lambdas, gallery, encode_texts)
    relevant = ImageSets(benchmark.targets, benchmark.queries["target"].to_numpy())
    metrics = np.empty((len(jobs), len(questions), len(metric_names(cutoffs))))
    ranks = np.empty(metrics.shape[:2], object)
    left = np.full(len(questions), len(jobs))
    with tqdm(total=len(questions), desc="evaluate", unit=" queries", disable=not progress) as bar:
        for batch in rank_relevant(questions, relevant, left_out(benchmark), gallery, jobs, backend, scheduler):
            metrics[np.ix_(batch.jobs, batch.queries)] = retrieval_metrics(batch.ranks, cutoffs)
            for job, query in np.ndindex(batch.ranks.shape[:2]) if return_ranks else ():
                ranks[batch.jobs[job], batch.queries[query]] = batch.ranks[job, query]
            left[batch.queries] -= len(batch.jobs)
            bar.update(int((left[batch.queries] == 0).sum()))
    tables = [_rows(benchmark, job, of_job, cutoffs) for job, of_job in zip(jobs, metrics, strict=True)]
    if return_ranks:
        tables = [table.assign(ranks=of_job) for table, of_job in zip(tables, ranks, strict=True)]
    return pd.concat(tables).rename_axis("query")


def _rows(benchmark: Benchmark, job: Job, metrics: np.ndarray, cutoffs: Sequence[int]) -> pd.DataFrame:
    """What `evaluate` returns of one job, from its metrics (Q, 1 + 2 K)."""
    table = benchmark.queries[["attribute", "image", "text"]].assign(method=job.method.name, **{"lambda": job.lam})
    table["n_relevant"] = benchmark.n_relevant
    if "unknown" in benchmark.queries:
        table["n_unknown"] = benchmark.n_unknown
    return table.join(pd.DataFrame(metrics, columns=list(metric_names(cutoffs)), index=table.index))


def top_lists(
    benchmark: Benchmark,
    features: Features,
    encode_texts: EncodeTexts,
    method: str | Method = "weicom",
    lam: float | str = 0.5,
    k: int = 100,
    device: str = "auto",
    progress: bool = True,
    query_features: Features | None = None,
) -> np.ndarray:
    """Archive positions (queries, k) of each composed query's best images, best first, as `evaluate` ranks them.

    Where fewer than k images are ranked, -1 fills the row. Arguments as for `evaluate`.
    """
    (k,) = _cutoffs([k])
    gallery = _gallery(benchmark, features, device)
    questions = compose(benchmark, gallery, encode_texts, query_features or features)
    lambdas = with_auto([lam], questions, gallery)
    lists = np.full((len(questions), k), -1)
    for number in np.unique(benchmark.queries["gallery"]) if benchmark.galleries else ():
        options = method, lambdas[0], k, device, False, query_features or features
        positions = top_lists(benchmark.in_gallery(number), features, encode_texts, *options)
        images = np.append(benchmark.galleries[number], -1)  # the last for position -1, which stays
        lists[benchmark.queries["gallery"] == number] = images[positions]
    if benchmark.galleries:
        return lists
    (job,) = make_jobs([method], lambdas, gallery, encode_texts)
    excluded = left_out(benchmark)
    with tqdm(total=len(questions), desc="evaluate", unit=" queries", disable=not progress) as bar:
        for batch in np.array_split(np.arange(len(questions)), -(-len(questions) // LISTS)):
            without = ImageSets(excluded.sets, excluded.set_of[batch])
            positions, _ = top_k(questions.take(batch), k, gallery, job, without)
            lists[batch, : positions.shape[1]] = positions
            bar.update(len(batch))
    return lists


def _gallery(benchmark: Benchmark, features: Features, device: str, scheduler: str | None = None) -> Gallery:
    """The features in the order of the benchmark's archive, on the device. Those that are `large` are read shard by
    shard as they lie, unless a GPU is named, which would hold them all."""
    archive = benchmark.archive
    if benchmark.queries.empty:
        raise ValueError(f"{archive.root}: no composed query to evaluate; benchmark.warnings says why")
    where = torch_device(device, float64=True)
    if scheduler and device.startswith("cuda"):
        raise ValueError(f"device {device!r} with a scheduler, whose workers rank on processors: leave one of them out")
    as_they_lie = features.lie_as(archive)
    if scheduler and not as_they_lie:
        raise ValueError(
            f"the features are not those of {archive.name}, image by image, in its order, which ranking by shards "
            "needs: extract them for this archive, or leave scheduler out"
        )
    gallery = features if as_they_lie else InMemory(features.aligned(archive))
    on_gpu = where.type == "cuda" and not scheduler and (device != "auto" or not features.large)
    return InMemory.on(where, gallery) if on_gpu else gallery


def compose(benchmark: Benchmark, gallery: Gallery, encode_texts: EncodeTexts, query_features: Features) -> Questions:
    """The benchmark's queries, each distinct text encoded once."""
    words = tuple(dict.fromkeys(benchmark.queries["text"]))
    text_of = benchmark.queries["text"].map({text: i for i, text in enumerate(words)}).to_numpy(copy=True)
    images, image_of, positions = _query_images(benchmark, gallery, query_features)
    return Questions(images, encoded(encode_texts, list(words), gallery.dim), words, image_of, text_of, positions)


def left_out(benchmark: Benchmark) -> ImageSets:
    """The images that take no rank: those nobody judged, and the query's own where the benchmark says so."""
    queries = benchmark.queries
    unknown = queries["unknown"].to_numpy() if "unknown" in queries else np.full(len(queries), -1)
    unknowns = ImageSets(benchmark.unknowns, unknown)
    if not benchmark.exclude_self:
        return unknowns
    own = queries["position"].to_numpy()
    pairs, set_of = np.unique(np.stack([unknown, own], axis=1), axis=0, return_inverse=True)
    return ImageSets([np.union1d(unknowns[i], [p] if p >= 0 else []).astype(np.int64) for i, p in pairs], set_of)


def _cutoffs(cutoffs: Sequence[int]) -> tuple[int, ...]:
    if isinstance(cutoffs, str) or not np.iterable(cutoffs) or not len(cutoffs):
        raise ValueError(f"cutoffs: expected a list of whole numbers, such as [1, 5, 10], found {cutoffs!r}")
    for k in cutoffs:
        if isinstance(k, bool) or not isinstance(k, numbers.Integral) or k < 1:
            raise ValueError(f"cutoff {k!r} is no whole number of images of at least 1")
    return tuple(dict.fromkeys(map(int, cutoffs)))


def _query_images(
    benchmark: Benchmark, gallery: Gallery, query_features: Features
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features (I, d) of the distinct query images, which of them is each query's, and where they lie, -1 outside."""
    position = benchmark.queries["position"].to_numpy()
    key = np.where(position < 0, len(gallery) + benchmark.queries.get("query", -1), position)
    distinct, image_of = np.unique(key, return_inverse=True)
    inside = distinct < len(gallery)
    feats = gallery.rows(distinct[inside])
    if benchmark.query_archive and not inside.all():
        if (own := query_features.dim) != (dim := gallery.dim):
            raise ValueError(f"query_features have {own} dimensions, features {dim}: are they of the same encoder?")
        try:
            others = query_features.aligned(benchmark.query_archive)
        except ValueError as error:
            raise ValueError(
                f"{(position < 0).sum()} queries have an image outside the archive: pass query_features, those of "
                f"benchmark.query_archive ({len(benchmark.query_archive)} images; {error})"
            ) from None
        feats = np.concatenate([feats, others[distinct[~inside] - len(gallery)]])
    return feats, image_of, np.where(inside, distinct, -1)


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
