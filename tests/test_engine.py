"""Search and evaluation shard by shard: the same as over everything at once, to the last tie."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rscir_lib import engine, evaluation, store
from rscir_lib.composition import METHODS, TwoSimilarities
from rscir_lib.features import read_features
from rscir_lib.similarities import best_first
from rscir_lib.store import Stamp

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


@settings(deadline=None, max_examples=40)
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
    assert positions.shape == scores.shape == (3, min(top, len(feats)))
    for q in range(3):
        expected, expected_scores = plainly(features, images[q], texts[q], name, lam, top)
        assert np.array_equal(scores[q], expected_scores)
        assert np.array_equal(positions[q], expected)


def test_compiled_ranks_are_the_plain_ones():
    """Ties, what was taken out (-inf), levels at either end, all equal."""
    counting = pytest.importorskip("rscir_lib.counting", reason="numba isn't installed (extra fast)")
    rng = np.random.default_rng(0)
    for trial in range(300):
        n = int(rng.integers(1, 400))
        scores = rng.normal(size=n) * 10.0 ** rng.integers(-12, 3) - rng.choice([0, 1, 1e6])
        if trial % 3 == 0:
            scores = np.round(scores, 1)
        relevant = np.sort(rng.choice(n, int(rng.integers(0, n + 1)), replace=False))
        levels = np.sort(scores[relevant])
        greater, equal = counting.count(scores, levels)
        assert np.array_equal(greater, (scores > levels[:, None]).sum(axis=1))
        assert np.array_equal(equal, (scores == levels[:, None]).sum(axis=1))
        scores[rng.choice(n, n // 5, replace=False)] = -np.inf
        relevant = relevant[np.isfinite(scores[relevant])]
        expected = evaluation._ranks_by_bins(scores, relevant)
        assert np.array_equal(evaluation._ranks_of_row(scores, relevant), expected)
