"""Benchmark x features x methods -> one row per composed query -> tables (protocol, Metrics)."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from rscir_lib.benchmark import Benchmark
from rscir_lib.composition import get_method
from rscir_lib.features import Features
from rscir_lib.metrics import METRICS, chance_ap, retrieval_metrics
from rscir_lib.parallel import parallel_map
from rscir_lib.patterncom import ATTRIBUTES

BASELINES = ("text", "image", "average")
COLUMNS = ["attribute", "image", "text", "method", "lambda", "n_relevant", *METRICS]
PUBLISHED = Path(__file__).parents[1] / "data" / "published" / "patterncom_map.csv"

# similarities of query images taken in one product, and scores ranked at a time: what a processor's cache holds, or
# what keeps a GPU busy
SCORES_AT_A_TIME = {"cpu": 2**22, "cuda": 2**25}
RANKED_AT_A_TIME = {"cpu": 2**18, "cuda": 2**25}
COMPARED_AT_A_TIME = 2**30  # on a GPU, a byte each


def evaluate(
    benchmark: Benchmark,
    features: Features,
    encode_texts: Callable[[list[str]], np.ndarray],
    methods: Sequence[str] = (*BASELINES, "weicom"),
    lambdas: Sequence[float] = (0.5,),
    device: str = "auto",
    progress: bool = True,
) -> pd.DataFrame:
    """Rank the whole archive for every composed query, by every method (protocol, Scores and Metrics).

    features: of every image of the benchmark's archive, in any order. encode_texts: n texts -> (n, d) float32,
    L2-normalised; called once, with the distinct texts. methods: names in `composition.METHODS`. lambdas: in [0, 1],
    for the methods that have one. device: "auto", "cpu" or "cuda".

    Returns one row per composed query x method (x lambda) with the columns `COLUMNS`, metrics in [0, 1]; the index is
    the row of the query in `benchmark.queries`. Ranks are those of float64 similarities, ties by archive order.
    Raises ValueError for an unknown method, a lambda outside [0, 1], features or texts that do not fit, and for
    features or scores that are not finite.
    """
    jobs = _jobs(methods, lambdas)
    device = _resolve(device)
    queries, targets = benchmark.queries, benchmark.targets
    if queries.empty:
        raise ValueError(f"{benchmark.archive.root}: no composed query to evaluate; benchmark.warnings says why")
    feats = features.aligned(benchmark.archive)
    if (bad := np.flatnonzero(~np.isfinite(feats.sum(axis=1)))).size:
        raise ValueError(f"the features of {benchmark.archive.files[bad[0]]} are not finite; extract them again")
    same = _first_of_equals(feats)
    x = torch.from_numpy(feats).to(device)
    texts = list(dict.fromkeys(queries["text"]))
    t = torch.from_numpy(_encoded(encode_texts, texts, x.shape[1])).to(device)

    def prepared(query_feats: torch.Tensor) -> dict[Callable, torch.Tensor]:
        query_feats = query_feats.double()
        s = query_feats.new_empty(len(query_feats), len(x))
        for part, out in zip(x.split(2**10), s.split(2**10, dim=1), strict=True):  # all of it in float64 is too much
            torch.mm(query_feats, part.double().T, out=out)
        # equal features get equal scores, however the product was blocked: ties stay ties
        s = s if same is None else s[:, same]
        return {prepare: prepare(s) for prepare in {get_method(name).prepare for name, _ in jobs}}

    text_scores = prepared(t)
    images, image_of = np.unique(queries["position"], return_inverse=True)
    text_of = queries["text"].map({text: i for i, text in enumerate(texts)}).to_numpy()
    target_of = queries["target"].to_numpy()

    rows = max(16, SCORES_AT_A_TIME[device] // len(x))
    part = max(1, RANKED_AT_A_TIME[device] // len(x))

    def rank(start: int) -> tuple[np.ndarray, np.ndarray]:
        """The queries of the query images from `start` on, and their metrics (jobs, queries, metrics)."""
        image_scores = prepared(x[images[start : start + rows]])
        chunk = np.flatnonzero((image_of >= start) & (image_of < start + rows))
        metrics = np.empty((len(jobs), len(chunk), len(METRICS)))
        for (text, target), block in _groups(part, text_of[chunk], target_of[chunk]):
            relevant, of = targets[target], torch.from_numpy(image_of[chunk[block]] - start).to(device)
            image_rows = {prepare: scores[of] for prepare, scores in image_scores.items()}
            text_row = {prepare: scores[text : text + 1] for prepare, scores in text_scores.items()}
            ranks = np.empty((len(jobs), len(block), len(relevant)), np.int64)
            for ranks_of_job, (name, lam) in zip(ranks, jobs, strict=True):
                method = get_method(name)
                scores = method.combine(image_rows[method.prepare], text_row[method.prepare], lam)
                if not scores.sum().isfinite():
                    raise ValueError(f"method {name!r} gives scores that are not finite")
                ranks_of_job[:] = _ranks(scores, relevant)
            flat = ranks.reshape(len(jobs) * len(block), len(relevant))
            metrics[:, block] = retrieval_metrics(flat).reshape(len(jobs), len(block), len(METRICS))
        return chunk, metrics

    results = np.empty((len(jobs), len(queries), len(METRICS)))
    with tqdm(total=len(queries), desc="evaluate", unit=" queries", disable=not progress) as bar:
        for chunk, metrics in parallel_map(rank, range(0, len(images), rows), 1 if device == "cuda" else None):
            results[:, chunk] = metrics
            bar.update(len(chunk))

    n_relevant = np.array([len(target) for target in targets])[target_of]
    tables = [
        queries[["attribute", "image", "text"]]
        .assign(method=name, **{"lambda": lam, "n_relevant": n_relevant})
        .join(pd.DataFrame(result, columns=list(METRICS), index=queries.index))
        for result, (name, lam) in zip(results, jobs, strict=True)
    ]
    return pd.concat(tables)[COLUMNS].rename_axis("query")


def _jobs(methods: Sequence[str], lambdas: Sequence[float]) -> list[tuple[str, float]]:
    if isinstance(methods, str) or not len(methods):
        raise ValueError(f"methods: expected a list of method names, found {methods!r}")
    for lam in lambdas:
        if not 0 <= lam <= 1:
            raise ValueError(f"lambda {lam} is outside [0, 1]")
    jobs = []
    for name in dict.fromkeys(methods):
        with_lambda = get_method(name).has_lambda
        if with_lambda and not len(lambdas):
            raise ValueError(f"method {name!r} needs at least one lambda")
        jobs += [(name, float(lam)) for lam in dict.fromkeys(lambdas)] if with_lambda else [(name, float("nan"))]
    return jobs


def _resolve(device: str) -> str:
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device not in SCORES_AT_A_TIME:
        raise ValueError(f"device {device!r}: ranking needs float64, choose auto, cpu or cuda")
    return device


def _encoded(encode_texts: Callable[[list[str]], np.ndarray], texts: list[str], dim: int) -> np.ndarray:
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


def _first_of_equals(feats: np.ndarray) -> np.ndarray | None:
    """For each row the first row equal to it; None when all differ."""
    first: dict[bytes, int] = {}
    rows = (hashlib.blake2b((row + np.float32(0)).tobytes(), digest_size=16).digest() for row in feats)  # -0 is 0
    same = np.fromiter((first.setdefault(row, i) for i, row in enumerate(rows)), np.int64, len(feats))
    return same if len(first) < len(feats) else None


def _groups(size: int, *keys: np.ndarray) -> Iterator[tuple[tuple[int, ...], np.ndarray]]:
    """Splits positions into groups of at most `size` that agree in every key."""
    frame = pd.DataFrame(dict(enumerate(keys)))
    for key, group in frame.groupby(list(frame.columns)).indices.items():
        for start in range(0, len(group), size):
            yield key, group[start : start + size]


def _ranks(scores: torch.Tensor, relevant: np.ndarray) -> np.ndarray:
    """Ranks (B, R) >= 1, ascending, of the R relevant positions in B rankings (B, N) by descending float64 score, ties
    by archive order."""
    if scores.device.type == "cpu":
        return np.stack([_ranks_by_bins(row, relevant) for row in scores.numpy()])
    return _ranks_by_counting(scores, relevant)


def _ranks_by_counting(scores: torch.Tensor, relevant: np.ndarray) -> np.ndarray:
    """Every score is compared with every relevant one: more work than to sort, but such as a GPU does at once."""
    at, position = (torch.as_tensor(p, device=scores.device) for p in (relevant, np.arange(scores.shape[1])))
    ranks = []
    for rows in scores.split(max(1, COMPARED_AT_A_TIME // max(1, len(at) * len(position)))):
        score, of_relevant = rows[:, None, :], rows[:, at, None]
        before = (score > of_relevant).sum(dim=2)
        if ((score >= of_relevant).sum(dim=2) - before > 1).any():  # than itself: there are ties
            before += ((score == of_relevant) & (position < at[:, None])).sum(dim=2)
        ranks.append(before + 1)
    return torch.cat(ranks).sort(dim=1).values.cpu().numpy()


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
    expected = {n: chance_ap(n, len(benchmark.archive)) for n in {len(target) for target in benchmark.targets}}
    ap = benchmark.queries["target"].map(lambda target: 100 * expected[len(benchmark.targets[target])])
    by = ap.groupby(benchmark.queries["attribute"], sort=False).mean().rename(str.capitalize)
    return pd.concat([by, pd.Series({"Avg": by.mean()})]).rename("chance")


def bootstrap_difference(
    a: pd.DataFrame, b: pd.DataFrame, samples: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
    """Avg mAP of `a` minus that of `b`, in points, with the 95 % interval of a paired bootstrap over query images.

    a, b: rows of `evaluate` for one method (and lambda) each, over the same queries. Query images are resampled within
    each attribute, each with all its texts: queries that share an image are not independent.
    """
    if not a.index.equals(b.index):
        raise ValueError("a and b must hold the same queries in the same order, one method and lambda each")
    rng = np.random.default_rng(seed)
    per_image = (a["AP"] - b["AP"]).groupby([a["attribute"], a["image"]], sort=False).agg(["sum", "size"])
    means, resampled = [], []
    for _, images in per_image.groupby(level="attribute", sort=False):
        total, size = images["sum"].to_numpy(), images["size"].to_numpy()
        weights = rng.multinomial(len(images), np.full(len(images), 1 / len(images)), size=samples)
        means.append(total.sum() / size.sum())
        resampled.append(weights @ total / (weights @ size))
    low, high = np.percentile(np.mean(resampled, axis=0), [2.5, 97.5])
    return tuple(float(100 * value) for value in (np.mean(means), low, high))


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
    both = long.merge(ours, on=keys, how="inner")  # pandas matches NaN lambdas
    return both.assign(difference=both["ours"] - both["published"])


def nearest_version(comparison: pd.DataFrame) -> pd.Series:
    """Per attribute, and `overall` (all attributes, without Avg), the published version with the least mean distance.

    Versions that are equally near are all named.
    """
    distance = comparison.assign(distance=comparison["difference"].abs().round(6))
    by = distance.pivot_table(index="attribute", columns="version", values="distance", sort=False)
    by.loc["overall"] = by.drop(index="Avg").mean()
    return by.apply(lambda row: ", ".join(row.index[np.isclose(row, row.min())]), axis=1).rename("nearest")
