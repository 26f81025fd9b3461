"""Laws that hold whatever the archive: properties, tried on many archives and, where they speak of all, every method.

That lambda 0 and 1 are the single modalities, that rows are independent, and that similarities may be scaled are laws
too; they stand in `test_composition.py` and `test_evaluation.py`, beside the oracle.
"""

import zlib
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from helpers import examples
from rscir_lib.archive import Archive, read_archive
from rscir_lib.benchmarks.base import Benchmark, ValidationReport
from rscir_lib.encoders import load_encoder
from rscir_lib.encoders.base import normalised
from rscir_lib.evaluation import evaluate
from rscir_lib.evaluation.metrics import METRICS, retrieval_metrics
from rscir_lib.features import Features, extract_features, read_features
from rscir_lib.methods.registry import METHODS
from rscir_lib.ranking import ranks
from rscir_lib.search import search

DIM = 8
# each image's score depends on that image alone
ALONE = ("image", "text", "average", "linear", "sum", "product", "minimum")
TEXTS = ("red", "two", "oval")
some = examples(6)
seeds, sizes, lambdas = st.integers(0, 2**32), st.integers(4, 24), st.sampled_from([0, 0.3, 0.5, 1])


def unit(x):
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def encode_texts(texts):
    """A direction for each text, whatever its words."""
    return unit(np.stack([np.random.default_rng(zlib.crc32(text.encode())).normal(size=DIM) for text in texts]))


ENCODER = SimpleNamespace(name="words", encode_texts=encode_texts, unknown_words=lambda text: [])


def features_of(feats, files=None):
    files = files or [f"{i}.jpg" for i in range(len(feats))]
    return Features.from_arrays(feats, files, [""] * len(feats), {"encoder": "words"})


def drawn(seed, size):
    """Features in a cloud or a cone, no two of them equal."""
    rng = np.random.default_rng(seed)
    return unit(rng.normal(size=(size, DIM)) + 2 * (seed % 2) * rng.normal(size=DIM))


def benchmark_of(features, seed):
    """Each image asked for each text; random images are relevant."""
    rng, size = np.random.default_rng(seed), len(features)
    asked = [(position, text) for position in range(size) for text in TEXTS]
    queries = pd.DataFrame(asked, columns=["position", "text"]).assign(attribute="a", group="g", value="x")
    queries["image"] = [features.files[i] for i in queries["position"]]
    queries["target"] = rng.integers(0, 3, len(queries))
    targets = tuple(np.sort(rng.choice(size, rng.integers(1, size), replace=False)) for _ in range(3))
    labels = pd.DataFrame(columns=["attribute", "image", "group", "value", "position"]).astype({"position": int})
    archive = Archive(".", features.files, features.classes)
    return Benchmark(archive, "made up", queries, targets, labels, ValidationReport().table())


def scored(features, method, lam, query):
    """Score of each file, by asking for all of them."""
    table = search(features, query, "red", lam, method, len(features), ENCODER).table
    assert (table["score"].diff().dropna() <= 0).all()
    return table.set_index("file")["score"]


@pytest.mark.parametrize("method", METHODS)
@some
@given(seed=seeds, size=sizes, lam=lambdas)
def test_a_permutation_of_the_archive_permutes_the_hits(method, seed, size, lam):
    feats = drawn(seed, size)
    order = np.random.default_rng(seed).permutation(size)
    one = features_of(feats)
    other = features_of(feats[order], [one.files[i] for i in order])
    first, second = scored(one, method, lam, one.files[0]), scored(other, method, lam, one.files[0])
    assert set(first.index) == set(second.index) == set(one.files)
    np.testing.assert_allclose(first[second.index], second, rtol=1e-6, atol=1e-9)  # sums in another order


@pytest.mark.parametrize("method", METHODS)
@some
@given(seed=seeds, size=sizes, lam=lambdas, powers=st.lists(st.integers(-20, 20), min_size=24, max_size=24))
def test_the_scale_of_features_changes_nothing_after_normalising(method, seed, size, lam, powers):
    """Rows scaled by powers of two, which float32 holds exactly: the same hits with the same scores, to the bit."""
    raw = torch.from_numpy(drawn(seed, size))
    scale = 2.0 ** torch.tensor(powers[:size])[:, None]
    hits = [scored(features_of(normalised(x)), method, lam, 0) for x in (raw, raw * scale)]
    pd.testing.assert_series_equal(*hits, check_exact=True)


@some
@given(seed=seeds, size=sizes, lam=lambdas)
def test_a_duplicate_of_an_irrelevant_image_raises_no_ap(seed, size, lam):
    """Of methods that score each image by itself; those that look at the whole archive see another archive."""
    one = features_of(drawn(seed, size))
    benchmark = benchmark_of(one, seed)
    copied = next((i for i in range(size) if not any(i in t for t in benchmark.targets)), None)
    if copied is None:
        return
    two = features_of(np.vstack([one.feats, one.feats[copied : copied + 1]]), [*one.files, "copy.jpg"])
    wider = Archive(".", two.files, two.classes)
    parts = [benchmark.protocol, benchmark.queries, benchmark.targets, benchmark.labels, benchmark.warnings]
    options = {"methods": ALONE, "lambdas": [lam], "progress": False}
    before = evaluate(benchmark, one, encode_texts, **options)["AP"].to_numpy()
    after = evaluate(Benchmark(wider, *parts), two, encode_texts, **options)["AP"].to_numpy()
    assert (after <= before).all()


@given(ranks=st.sets(st.integers(1, 60), min_size=1).map(sorted), at=st.integers(1, 60))
def test_an_irrelevant_image_anywhere_in_a_ranking_raises_no_metric(ranks, at):
    ranks = np.array(ranks)
    assert (retrieval_metrics(ranks + (ranks >= at)) <= retrieval_metrics(ranks)).all()


@some
@given(seed=seeds, size=sizes, held=st.integers(20, 200), rows=st.integers(2, 30))
def test_block_sizes_change_no_metric(monkeypatch, seed, size, held, rows):
    features = features_of(drawn(seed, size))
    benchmark = benchmark_of(features, seed)
    options = {"methods": ["image", "weicom", "rrf", "slerp", "freedom"], "lambdas": [0.3], "progress": False}
    whole = evaluate(benchmark, features, encode_texts, **options)
    with monkeypatch.context() as patch:
        patch.setitem(ranks.SIMILARITIES, "cpu", held)
        patch.setitem(ranks.ROWS, "cpu", rows)
        pd.testing.assert_frame_equal(evaluate(benchmark, features, encode_texts, **options), whole, check_exact=True)


@pytest.mark.slow
def test_batch_and_worker_sizes_change_no_metric(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(24):
        path = tmp_path / "images" / f"{'ab'[i % 2]}{i:02}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(path)
    archive, encoder = read_archive(tmp_path), load_encoder("demo", device="cpu")
    rows = []
    for batch_size, workers in ((1, 1), (5, 2), (24, 1)):
        store = extract_features(archive, encoder, tmp_path / f"{batch_size} {workers}", batch_size, workers)
        features = read_features(store, archive)
        rows.append(evaluate(benchmark_of(features, 0), features, encoder.encode_texts, progress=False))
    for other in rows[1:]:
        pd.testing.assert_frame_equal(other, rows[0], check_exact=True)


@pytest.mark.parametrize("method", METHODS)
@some
@given(seed=seeds, size=sizes, lam=lambdas)
def test_search_has_the_order_of_evaluate(method, seed, size, lam):
    """The metrics of every query, counted on what `search` returns, are `evaluate`'s."""
    features = features_of(drawn(seed, size))
    benchmark = benchmark_of(features, seed)
    benchmark = Benchmark(benchmark.archive, "made up", benchmark.queries[:2], *_rest(benchmark))
    rows = evaluate(benchmark, features, encode_texts, [method], [lam], progress=False)
    for query, row in benchmark.queries.iterrows():
        table = search(features, row["position"], row["text"], lam, method, size, ENCODER).table
        relevant = {features.files[i] for i in benchmark.targets[row["target"]]}
        ranks = table.loc[table["file"].isin(relevant), "rank"].to_numpy()
        np.testing.assert_allclose(rows.loc[query, list(METRICS)].to_numpy(float), retrieval_metrics(ranks), atol=1e-12)


def _rest(benchmark):
    return benchmark.targets, benchmark.labels, benchmark.warnings
