"""Search and evaluation shard by shard: the same as over everything at once, to the last tie."""

import importlib
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from helpers import examples
from rscir_lib.archive import read_archive
from rscir_lib.encoders import load_encoder
from rscir_lib.features import extract_features, read_features, store
from rscir_lib.features.store import Stamp
from rscir_lib.methods.pairwise import TwoSimilarities
from rscir_lib.methods.registry import METHODS
from rscir_lib.ranking import engine
from rscir_lib.similarity.moments import float32_products
from rscir_lib.similarity.scales import best_first, mix
from rscir_lib.storage.parallel import each

evaluation = importlib.import_module("rscir_lib.evaluation.evaluate")

POINTWISE = sorted(name for name, m in METHODS.items() if isinstance(m, TwoSimilarities) and m.pointwise)


def unit(x):
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def stored(folder, feats, rows, dtype="float32"):
    """A store of (N, d) features in shards of so many rows."""
    folder.mkdir(exist_ok=True)
    files = [f"{i:06d}.png" for i in range(len(feats))]
    parts = [range(i, min(i + rows, len(feats))) for i in range(0, len(feats), rows)]
    shards = [
        store.write_shard(
            folder, feats[p].astype(dtype), [files[i] for i in p], ["c"] * len(p), [Stamp(0, 0, "")] * len(p), {}
        )
        for p in parts
    ]
    store.write_manifest(folder, shards, {"archive": "random"}, {})
    return read_features(folder)


def plainly(features, image, text, name, lam, top):
    """Every row in float64, one after the other; then sorted."""
    method, sides = METHODS[name], []
    feats = np.concatenate([shard.feats for shard in features.shards()]).astype(np.float64)
    for query in (image, text):
        s = (feats * query.astype(np.float64)).sum(axis=1)
        prepare = method.prepare_at(lam)
        moments = engine._spread(features, query, prepare)
        assert moments == pytest.approx((s.mean(), s.std(ddof=1)), abs=1e-7)
        sides.append(prepare(torch.from_numpy(s), moments))
    scores = method.combine(*sides, lam).numpy()
    best = best_first(scores, top)
    return best, scores[best]


@st.composite
def archives(draw):
    """Features in a cloud, a cone or a point, with duplicates and near-duplicates of one image in every shard."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n, d = draw(st.integers(2, 300)), draw(st.sampled_from([3, 8, 64]))
    feats = rng.normal(size=(n, d)) + draw(st.sampled_from([0.0, 3.0, 1e4])) * rng.normal(size=d)
    near = rng.choice(n, draw(st.integers(0, n)), replace=False)
    feats[near] = feats[0] + draw(st.sampled_from([0, 1e-7, 1e-3])) * rng.normal(size=(len(near), d))
    return unit(feats), unit(rng.normal(size=(3, d))), draw(st.integers(1, 5)), draw(st.sampled_from(store.DTYPES))


@examples(40)
@given(
    case=archives(), name=st.sampled_from(POINTWISE), lam=st.sampled_from([0, 0.3, 0.95, 1]), top=st.integers(1, 70),
    small=st.booleans(),
)  # fmt: skip
def test_search_over_shards_is_the_plain_scan(case, name, lam, top, small, tmp_path_factory):
    feats, texts, shards, dtype = case
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda handle: None)  # a hundred stores
        features = stored(tmp_path_factory.mktemp("store"), feats, -(-len(feats) // shards), dtype)
    images = np.concatenate([shard.feats for shard in features.shards()])[[0, -1, len(feats) // 2]].astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        if small:  # many looks at the best so far
            patch.setattr(engine, "PIECE", 8)
            patch.setattr(engine, "BLOCK", 24)
            patch.setattr(engine, "QUERIES", 2)
        positions, scores = engine.top_k(features, images, texts, lam, top, name, workers=1)
        held = engine.Resident(features, "cpu").top_k(images, texts, lam, top, name)
        assert all(np.array_equal(a, b) for a, b in zip(held, (positions, scores), strict=True))
        # with the same mean, which is added up by pieces, too: where all are nearly equal, its last digit shows
        plain = [plainly(features, image, text, name, lam, top) for image, text in zip(images, texts, strict=True)]
    assert positions.shape == scores.shape == (3, min(top, len(feats)))
    for q, (expected, expected_scores) in enumerate(plain):
        assert np.array_equal(scores[q], expected_scores)
        assert np.array_equal(positions[q], expected)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"images": np.full((1, 4), np.nan, np.float32)}, "images: row 0 is not finite; the encoder"),
        ({"texts": np.ones((1, 5), np.float32)}, r"texts: expected query features \(Q, 4\), found \(1, 5\)"),
        ({"jobs": []}, "0 jobs for 1 images, 1 texts, 1 targets"),
        ({"jobs": [("weicom", 2.0)]}, "lambda 2.0 is outside"),
        ({"image_of": np.array([1])}, "image_of: expected integers from 0 to 0"),
        ({"targets": []}, "0 targets"),
        ({"targets": [np.array([True, False])]}, r"targets\[0\]: expected a one-dimensional array of integers"),
        ({"targets": [np.array([2, 2])]}, r"targets\[0\]: position 2 is out of order or there twice"),
        ({"excluded": [np.array([9])]}, r"excluded\[0\]: position 9 is outside the archive"),
        ({"workers": -1}, "workers -1: a positive number"),
    ],
)
def test_questions_that_do_not_fit_together(tmp_path, changed, message):
    rows = np.eye(4, dtype=np.float32)
    asked = {"images": rows[:1], "texts": rows[1:2], "image_of": np.array([0]), "text_of": np.array([0])}
    asked |= {"targets": [np.array([2])], "jobs": [("weicom", 0.5)], "workers": 1}
    features = stored(tmp_path, rows, 2, "float32")
    assert [ranks.shape for _, ranks in engine.ranks(features, **asked)] == [(1, 1)]
    with pytest.raises(ValueError, match=message):
        list(engine.ranks(features, **asked | changed))


@pytest.mark.slow
def test_compiled_ranks_are_the_plain_ones():
    """Ties, what was taken out (-inf), levels at either end, all equal."""
    counting = pytest.importorskip("rscir_lib.ranking.counting", reason="numba isn't installed (extra fast)")
    rng = np.random.default_rng(0)
    for trial in range(300):
        n = int(rng.integers(1, 400))
        scores = rng.normal(size=n) * 10.0 ** rng.integers(-12, 3) - rng.choice([0, 1, 1e6])
        if trial % 3 == 0:
            scores = np.round(scores, 1)
        relevant = np.sort(rng.choice(n, int(rng.integers(0, n + 1)), replace=False))
        levels = np.sort(scores[relevant])
        greater, equal = counting.count_scores(scores, levels)
        assert np.array_equal(greater, (scores > levels[:, None]).sum(axis=1))
        assert np.array_equal(equal, (scores == levels[:, None]).sum(axis=1))
        scores[rng.choice(n, n // 5, replace=False)] = -np.inf
        relevant = relevant[np.isfinite(scores[relevant])]
        expected = evaluation._ranks_by_bins(scores, relevant)
        assert np.array_equal(evaluation._ranks_of_row(scores, relevant), expected)


@pytest.mark.slow
def test_compiled_ranks_of_a_mix_are_those_of_its_scores():
    """To the last bit of a sum, with ties and without."""
    pytest.importorskip("rscir_lib.ranking.counting", reason="numba isn't installed (extra fast)")
    rng = np.random.default_rng(0)
    for trial in range(100):
        n = int(rng.integers(2, 3000))
        sides = [torch.from_numpy(-rng.random((rows, n))) for rows in (3, 1)]
        if trial % 3 == 0:
            sides = [side.mul(20).round().div(20) for side in sides]
        lams, relevant = rng.random(trial % 4), np.sort(rng.choice(n, int(rng.integers(1, n)), replace=False))
        rows = torch.from_numpy(rng.integers(0, 3, trial % 5))
        found = evaluation._ranks_of_mixes(sides[0], rows, sides[1], lams, relevant)
        assert found.shape == (len(lams), len(rows), len(relevant))
        for lam, ranks in zip(lams, found, strict=True):
            scores = mix(sides[0][rows], sides[1], lam).numpy()
            expected = [evaluation._ranks_by_bins(row, relevant) for row in scores]
            assert np.array_equal(ranks, np.reshape(expected, ranks.shape))


def test_compiled_counts_of_a_block_are_the_plain_ones():
    pytest.importorskip("rscir_lib.ranking.counting", reason="numba isn't installed (extra fast)")
    rng = np.random.default_rng(0)
    for trial in range(200):
        scores, levels = rng.random(500), np.sort(rng.random(int(rng.integers(0, 9))))
        scores[: trial % 3] = -np.inf
        if trial % 4 == 0 and len(levels):
            scores[7] = levels[0] + 1e-13
        plain, fast = (engine.count_near(scores, levels, 1e-12, way) for way in (False, True))
        assert all(np.array_equal(a, b) for a, b in zip(plain, fast, strict=True))
        assert len(plain[1]) == (trial % 4 == 0 and len(levels) > 0)


def test_pointwise_scores_rise_no_faster_than_is_said():
    """By no more than twice as much as similarities or z-scores: what the engine's tolerance counts on."""
    rng = np.random.default_rng(0)
    low = rng.uniform(-1, 1, (2, 10_000))
    high = np.minimum(low + rng.uniform(0, 0.1, low.shape), 1)
    for std in (0.02, 0.5, 3.0):
        moments = [(0.1, std), (0.3, std)]
        for name in POINTWISE:
            for lam in (0.0, 0.3, 1.0):
                prepare = METHODS[name].prepare_at(lam)
                below, above = (
                    METHODS[name]
                    .combine(*(prepare(torch.from_numpy(s), of) for s, of in zip(side, moments, strict=True)), lam)
                    .numpy()
                    for side in (low.copy(), high.copy())
                )
                assert (above >= below).all()
                assert (above - below <= 2 * (high - low).max(axis=0) / min(std, 1) + 1e-12).all()


@pytest.fixture(scope="module")
def cluster():
    """Two processes of Dask's on this machine."""
    distributed = pytest.importorskip("distributed", reason="Dask isn't installed (extra scale)")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, memory_limit=0) as cluster:
        yield cluster


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*leaked semaphore")
def test_a_killed_worker_changes_nothing(cluster, tmp_path):
    """It dies at its second item, is replaced, and all is done."""
    mark = tmp_path / "killed"

    def square(i):
        import os

        if i == 5 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), 9)
        return i * i

    assert list(each(square, range(12), cluster.scheduler_address)) == [i * i for i in range(12)]
    assert mark.exists()


@pytest.mark.slow
def test_a_cluster_finds_the_same(cluster, tmp_path):
    """Search and ranks to the last byte; features to what float32 sums in another number of threads may differ."""
    rng = np.random.default_rng(0)
    features = stored(tmp_path / "store", unit(rng.normal(size=(500, 16))), 120)
    images, texts = features.rows([0, 77, 499]), unit(rng.normal(size=(3, 16)))
    here = engine.top_k(features, images, texts, workers=1)
    there = engine.top_k(features, images, texts, scheduler=cluster.scheduler_address)
    assert [a.tobytes() for a in here] == [b.tobytes() for b in there]
    own, targets = np.arange(3), [np.array([3, 200]), np.array([], int), np.array([499])]
    asked = features, images, texts, own, own, targets, [("weicom", 0.3), ("sum", np.nan)]
    here = dict(engine.ranks(*asked, workers=1))
    there = dict(engine.ranks(*asked, scheduler=cluster.scheduler_address))
    assert {q: r.tolist() for q, r in here.items()} == {q: r.tolist() for q, r in there.items()}
    for i in range(7):
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(tmp_path / f"{i}.png")
    archive, encoder = read_archive(tmp_path), load_encoder("demo", device="cpu")
    here = read_features(extract_features(archive, encoder, tmp_path / "here", 4, workers=1))
    there = read_features(
        extract_features(archive, encoder, tmp_path / "there", 4, scheduler=cluster.scheduler_address)
    )
    assert there.files == here.files
    assert there.feats == pytest.approx(here.feats, abs=1e-5)


def test_without_dask_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ImportError, match=r"pip install 'rscir-workbook\[scale\]'"):
        list(each(abs, [1], "local"))


def test_float32_products_are_full_whatever_the_session_allows():
    matmuls = torch.backends.cuda.matmul, torch.backends.mkldnn.matmul
    torch.set_float32_matmul_precision("medium")
    try:
        before = [matmul.fp32_precision for matmul in matmuls]
        with torch.autocast("cpu"), float32_products():
            assert [matmul.fp32_precision for matmul in matmuls] == ["ieee", "ieee"]
            assert (torch.ones(1, 1) @ torch.ones(1, 1)).dtype == torch.float32
        assert [matmul.fp32_precision for matmul in matmuls] == before != ["ieee", "ieee"]
    finally:
        torch.set_float32_matmul_precision("highest")
