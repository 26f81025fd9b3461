"""Search and evaluation shard by shard: the same as over everything at once, to the last tie."""

import os
import subprocess
import sys
from pathlib import Path

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
from rscir_lib.methods.pairwise import TwoSimilarities, Weighted, mix
from rscir_lib.methods.registry import METHODS
from rscir_lib.ranking import ImageSets, Job, Questions, rank_relevant, top_k, topk
from rscir_lib.ranking.kernels import BACKENDS, Scores, counter
from rscir_lib.similarity import InMemory, best_first, similarities
from rscir_lib.similarity.exact import number_ahead
from rscir_lib.similarity.gallery import spreads
from rscir_lib.similarity.scales import minmax, raw, upper_tail, zscore
from rscir_lib.storage.parallel import each

BY_ROW = sorted(name for name in METHODS if Job(METHODS[name]).by_row)


def asked(images, texts):
    """Each image with the text of its number."""
    own = np.arange(len(images))
    return Questions(images, texts, ("",) * len(texts), own, own)


def unit(x):
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def stored(folder, feats, rows, dtype="float32"):
    """A store of (N, d) features in shards of so many rows."""
    folder.mkdir(exist_ok=True)
    files = [f"{i:06d}.png" for i in range(len(feats))]
    parts = [range(i, min(i + rows, len(feats))) for i in range(0, len(feats), rows)]
    shards = [
        store.write_shard(folder, feats[p].astype(dtype), store.columns([files[i] for i in p], ["c"] * len(p)), {})
        for p in parts
    ]
    store.write_manifest(folder, shards, {"archive": "random"}, {})
    return read_features(folder)


def plainly(features, image, text, name, lam, top):
    """Every row by itself; then sorted."""
    method, sides = METHODS[name], []
    feats = np.concatenate([shard.feats for shard in features.shards()])
    for query in (image, text):
        s = similarities(feats, query[None])[0]
        scale = method.scale_at(lam)
        mean, std = spreads(features, query[None], exactly=scale is not raw)
        assert [mean.item(), std.item()] == pytest.approx([s.mean(), s.std(ddof=1)], abs=1e-7)
        sides.append(scale(torch.from_numpy(s), (mean[0], std[0])))
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
    case=archives(), name=st.sampled_from(BY_ROW), lam=st.sampled_from([0, 0.3, 0.95, 1]), top=st.integers(1, 70),
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
            patch.setitem(topk.PIECE, "cpu", 8)
            patch.setitem(topk.SIMILARITIES, "cpu", 24)
        questions, job = asked(images, texts), Job(METHODS[name], lam)
        positions, scores = top_k(questions, top, features, job, workers=1)
        held = top_k(questions, top, InMemory.on("cpu", features), job)
        assert all(np.array_equal(a, b) for a, b in zip(held, (positions, scores), strict=True))
        if small:
            patch.setattr(topk, "QUERIES", 2)
            batched = top_k(questions, top, features, job, workers=1)
            assert all(np.array_equal(a, b) for a, b in zip(batched, (positions, scores), strict=True))
        # with the same mean, which is added up by pieces, too: where all are nearly equal, its last digit shows
        plain = [plainly(features, image, text, name, lam, top) for image, text in zip(images, texts, strict=True)]
    assert positions.shape == scores.shape == (3, min(top, len(feats)))
    for q, (expected, expected_scores) in enumerate(plain):
        assert np.array_equal(scores[q], expected_scores)
        assert np.array_equal(positions[q], expected)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"images": np.full((1, 4), np.nan, np.float32)}, r"images: the query features are not finite \(row 0\)"),
        ({"texts": np.ones((1, 5), np.float32)}, r"a query feature has shape \(5,\), the archive's \(4,\): of another"),
        ({"texts": np.ones(4, np.float32)}, r"texts: expected query features \(n, d\), found \(4,\)"),
        ({"jobs": []}, "0 jobs for 1 queries"),
        ({"jobs": [Job(METHODS["weicom"], 2.0)]}, "lambda 2.0 is outside"),
        ({"image_of": np.array([1])}, "image_of: expected integers from 0 to 0"),
        ({"words": ()}, "0 words, 1 texts: expected as many of both"),
        ({"relevant": []}, "0 relevant sets for 1 queries"),
        ({"relevant": [np.array([True, False])]}, r"relevant\[0\]: expected a one-dimensional array of integers"),
        ({"relevant": [np.array([2, 2])]}, r"relevant\[0\]: position 2 is out of order or there twice"),
        ({"excluded": [np.array([9])]}, r"excluded\[0\]: position 9 is outside the archive"),
        ({"workers": -1}, "workers -1: a positive number"),
        ({"backend": "triton"}, "triton doesn't count on cpu"),
    ],
)
def test_questions_that_do_not_fit_together(tmp_path, changed, message):
    features = stored(tmp_path, np.eye(4, dtype=np.float32), 2, "float32")

    def ranks(images, texts, words, image_of, relevant, excluded, jobs, **options):
        sets = [ImageSets(some, np.arange(len(some))) for some in (relevant, excluded)]
        return list(
            rank_relevant(Questions(images, texts, words, image_of, image_of * 0), *sets, features, jobs, **options)
        )

    rows, job = np.eye(4, dtype=np.float32), Job(METHODS["weicom"], 0.5)
    good = {"images": rows[:1], "texts": rows[1:2], "words": ("a",), "image_of": np.array([0]), "jobs": [job]}
    good |= {"relevant": [np.array([2])], "excluded": [np.array([3])], "workers": 1}
    assert [some.ranks.shape for some in ranks(**good)] == [(1, 1, 1)]
    with pytest.raises(ValueError, match=message):
        ranks(**good | changed)


def some_scores(rng, trial):
    """Similarities to three images, of which some queries have one, and to a text; equal, nearly equal and far out
    ones; and the levels of some of the rows."""
    n = int(rng.integers(1, 3000 if trial % 5 == 0 else 300))
    sides = [rng.normal(size=(rows, n)) * 10.0 ** rng.integers(-12, 3) - rng.choice([0, 1, 1e6]) for rows in (3, 1)]
    image, (text,) = [np.round(side, 1) for side in sides] if trial % 3 == 0 else sides
    rows, (a, b) = rng.integers(0, 3, trial % 3), [(1.0, 0.0), (0.0, 1.0), (0.3, 0.7), (1.0, 1.0)][trial % 4]
    relevant, tolerance = rng.choice(n, int(rng.integers(0, n + 1)), replace=False), rng.choice([0, 1e-13, 1e-3, 10.0])
    levels = np.sort((a * image[rows] + b * text)[:, relevant], axis=1)
    image[:, ::7] = text[::7] = -1e30
    tensors = [torch.from_numpy(x) for x in (image, rows, text, levels - tolerance, levels + tolerance)]
    return Scores(*tensors[:3], a, b), *tensors[3:]


@pytest.mark.parametrize("backend", ["numba", "torch"])
@pytest.mark.slow
def test_counts_are_the_plain_ones(backend):
    """Ties, what was taken out, levels at either end, all equal, none."""
    rng = np.random.default_rng(0)
    for trial in range(200):
        scores, low, high = some_scores(rng, trial)
        greater, near = BACKENDS[backend](scores, low, high)
        assert greater.shape == near.shape == low.shape
        for query in range(len(low)):
            of_query = scores.of(query)[:, None]
            assert greater[query].tolist() == (of_query > high[query]).sum(dim=0).tolist()
            assert near[query].tolist() == ((of_query >= low[query]) & (of_query <= high[query])).sum(dim=0).tolist()


@pytest.mark.slow
def test_counts_of_a_gpus_kernel():
    """At sizes around those of its blocks; interpreted."""
    pytest.importorskip("triton", reason="Triton isn't installed (it comes with torch's CUDA builds)")
    code = """
import sys, numpy as np, torch
sys.path.insert(0, "tests/ranking")
from rscir_lib.ranking.triton_kernel import count
rng = np.random.default_rng(0)
for rows, images, levels in ((3, 1000, 37), (1, 1, 1), (2, 256, 16), (2, 257, 17), (1, 7, 0)):
    scores = torch.from_numpy(rng.integers(0, images, (rows, images)) / 7)
    scores[:, 1::5] = -torch.inf
    middle = scores[:, torch.from_numpy(np.arange(levels) * 5 % images)]
    for margin in (0, 0.2):
        greater, near = count(scores, middle - margin, middle + margin)
        s, m = scores[:, None], middle[..., None]
        assert greater.dtype == torch.int32 and torch.equal(greater.long(), (s > m + margin).sum(2))
        assert torch.equal(near.long(), ((s >= m - margin) & (s <= m + margin)).sum(2)), (rows, images, levels)
"""  # Triton looks at this when it is imported
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    subprocess.run([sys.executable, "-c", code], env=environment, cwd=Path(__file__).parents[2], check=True)


def test_a_backend_that_fails_on_a_gpu_is_replaced(monkeypatch):
    monkeypatch.setitem(BACKENDS, "triton", lambda *arguments: 1 / 0)
    monkeypatch.setattr(torch, "ones", lambda *shape, device, **options: torch.full(shape, 1.0, **options))
    monkeypatch.setattr(torch, "zeros", lambda *shape, device, **options: torch.full(shape, 0, **options))
    with pytest.warns(UserWarning, match="triton doesn't count on cuda: ZeroDivisionError: .*; torch is slower"):
        assert counter.__wrapped__("auto", "cuda") is BACKENDS["torch"]


@examples(100)
@given(
    st.lists(st.one_of(st.integers(-3, 3), st.floats(-1e6, 1e6), st.floats(0.5, 0.5 + 1e-12)), min_size=1, max_size=60),
    st.data(),
)
def test_the_order_is_by_score_then_position(scores, data):
    chosen = data.draw(st.lists(st.integers(0, len(scores) - 1), unique=True).map(sorted))
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    scores, all_of_them, chosen = np.array(scores, np.float64), np.arange(len(scores)), np.array(chosen, np.int64)
    assert best_first(scores, len(scores)).tolist() == order
    ahead = number_ahead(scores, all_of_them, scores[chosen], chosen)
    assert ahead.tolist() == [order.index(i) for i in chosen]


@pytest.mark.parametrize(
    ("combine", "scale", "message"),
    [
        (
            lambda image, text, lam: image - text,
            raw,
            "to the text rises from .* its score changes by -0.1; expected is 0",
        ),
        (lambda image, text, lam: image * text, raw, "to the image rises from .* its score changes by -0.1"),
        (lambda image, text, lam: 3 * image + text, raw, "to the image rises from -1.0 to -0.9.* changes by 0.3"),
        (lambda image, text, lam: image + text, lambda s, moments: 3 * zscore(s, moments), "std 0.02"),
        (lambda image, text, lam: image / 0, raw, "its score is no number"),
        (lambda image, text, lam: image + text, minmax, "its scale takes no moments: it needs all similarities"),
    ],
)
def test_a_method_of_scope_row_keeps_its_promise_or_is_refused(combine, scale, message):
    with pytest.raises(ValueError, match=f"method 'mine' is of scope 'row', but .*{message}"):
        TwoSimilarities("mine", combine, scale, scope="row")
    TwoSimilarities("mine", combine, scale)


def test_scores_of_one_side_alone_have_the_shape_of_both():
    """Else they pass wherever one query is asked, and end where several share a text."""
    with pytest.raises(ValueError, match=r"'mine' makes scores \(21,\) .* \(lambda 1.0\); expected is \(21, 21\)"):
        TwoSimilarities("mine", lambda image, text, lam: text if lam == 1 else image + text, scope="row")
    TwoSimilarities("mine", lambda image, text, lam: text + 0 * image, scope="row")


def test_an_unknown_scope_is_refused():
    with pytest.raises(ValueError, match="method 'mine' is of scope 'rows'; there are 'row' and 'archive'"):
        TwoSimilarities("mine", mix, scope="rows")


def test_a_weighting_of_ones_own_is_ranked_as_it_combines():
    """A subclass keeps its weights, but may combine in another way: both reductions follow what it does."""

    class Least(Weighted):
        def __call__(self, image, text, lam=float("nan")):
            return torch.minimum(image, text)

    rng = np.random.default_rng(0)
    features = InMemory(unit(rng.normal(size=(40, 8))))
    one = np.zeros(1, int)
    asked = Questions(unit(rng.normal(size=(1, 8))), unit(rng.normal(size=(1, 8))), ("",), one, one)
    method = TwoSimilarities("mine", Least(lambda lam: (1 - lam, lam)), upper_tail, has_lambda=True, scope="row")
    job, relevant = Job(method, 0.4), ImageSets([np.array([3, 7, 20])], one)
    (ranks,) = rank_relevant(asked, relevant, ImageSets.empty(1), features, [job])
    positions, _ = top_k(asked, 40, features, job)
    assert ranks.ranks[0, 0].tolist() == (np.flatnonzero(np.isin(positions[0], [3, 7, 20])) + 1).tolist()


@pytest.mark.parametrize("scores", [1, 30, 1000])
def test_few_scores_are_held_of_a_method_that_sees_the_archive(monkeypatch, scores):
    rng = np.random.default_rng(0)
    gallery, sides = InMemory(unit(rng.standard_normal((20, 5)))), unit(rng.standard_normal((6, 5)))
    asked = Questions(sides[:3], sides[3:], ("a", "b", "c"), np.arange(3), np.arange(3), np.full(3, -1))
    job = Job(METHODS["minmax"], 0.4, METHODS["minmax"].fit(gallery))
    expected = top_k(asked, 4, gallery, job)
    monkeypatch.setattr(topk, "SCORES", scores)  # also fewer than the archive has images
    for one, other in zip(top_k(asked, 4, gallery, job), expected, strict=True):
        assert np.array_equal(one, other)


def test_an_archive_with_equal_images_only():
    """No spread, so that every image is near to every other: they rank by position."""
    features = InMemory(np.tile(unit(np.ones((1, 8))), (50, 1)))
    questions, some = asked(features.feats[:1], unit(np.arange(8.0)[None])), np.array([3, 20, 49])
    jobs = [Job(METHODS[name], 0.5) for name in BY_ROW]
    (found,) = rank_relevant(questions, ImageSets([some], np.zeros(1, int)), ImageSets.empty(1), features, jobs)
    assert (found.ranks == some + 1).all()


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
    questions, job = asked(images, texts), Job(METHODS["weicom"], 0.5)
    here = top_k(questions, 20, features, job, workers=1)
    there = top_k(questions, 20, features, job, scheduler=cluster.scheduler_address)
    assert [a.tobytes() for a in here] == [b.tobytes() for b in there]
    relevant = ImageSets([np.array([3, 200]), np.array([], int), np.array([499])], np.arange(3))
    what = questions, relevant, ImageSets.empty(3), features, [Job(METHODS["weicom"], 0.3), Job(METHODS["sum"])]
    here = {some.queries[0]: some.ranks.tolist() for some in rank_relevant(*what, workers=1)}
    there = {some.queries[0]: some.ranks.tolist() for some in rank_relevant(*what, scheduler=cluster.scheduler_address)}
    assert here == there
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
        with torch.autocast("cpu"), topk.float32_products():
            assert [matmul.fp32_precision for matmul in matmuls] == ["ieee", "ieee"]
            assert (torch.ones(1, 1) @ torch.ones(1, 1)).dtype == torch.float32
        assert [matmul.fp32_precision for matmul in matmuls] == before != ["ieee", "ieee"]
    finally:
        torch.set_float32_matmul_precision("highest")
