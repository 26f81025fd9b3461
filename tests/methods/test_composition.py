"""The methods' laws, search, and what the CDF does to real CLIP similarities."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import oracle
from helpers import unit
from rscir_lib.evaluation.metrics import METRICS, chance_ap, r_precision, retrieval_metrics
from rscir_lib.methods.pairwise import TwoSimilarities
from rscir_lib.methods.registry import METHODS, get_method
from rscir_lib.search import top_k
from rscir_lib.similarity import InMemory, Moments, best_first, exact, similarities
from rscir_lib.similarity.scales import FLAT, check_lambda, minmax, normal_cdf, phi, upper_tail, zscore

seeds = st.integers(0, 2**32)
PAIRED = sorted(name for name, method in METHODS.items() if isinstance(method, TwoSimilarities))


def two_sides(seed, rows=3, n=40):
    rng = np.random.default_rng(seed)
    return [torch.from_numpy(rng.normal(mean, std, (rows, n))) for mean, std in [(0.66, 0.1), (0.2, 0.02)]]


@settings(deadline=None)
@given(seed=seeds, name=st.sampled_from(PAIRED), lam=st.floats(0, 1))
def test_rows_are_independent_and_order_is_kept(seed, name, lam):
    """Scores of a query don't depend on the batch; permuting the archive permutes the scores."""
    image, text = two_sides(seed)
    method = get_method(name)
    scores = method.score(image, text, lam)
    assert scores.shape == image.shape
    for row in range(len(image)):
        assert torch.allclose(method.score(image[row], text[row], lam), scores[row], rtol=0, atol=1e-12)
        assert oracle.scores(name, image[row].tolist(), text[row].tolist(), lam) == pytest.approx(
            scores[row].tolist(), abs=1e-12
        )
    order = np.random.default_rng(seed).permutation(image.shape[1])
    assert torch.allclose(method.score(image[:, order], text[:, order], lam), scores[:, order], rtol=0, atol=1e-12)


@settings(deadline=None)
@given(seed=seeds, scale=st.floats(0.01, 100), shift=st.floats(-10, 10))
def test_weicom_ignores_the_scale_of_similarities(seed, scale, shift):
    """The point of the CDF: whatever range a modality's similarities have, the mix is the same."""
    image, text = two_sides(seed)
    weicom = get_method("weicom")
    assert torch.allclose(
        weicom.score(image, scale * text + shift, 0.3), weicom.score(image, text, 0.3), rtol=0, atol=1e-6
    )


@settings(deadline=None)
@given(seed=seeds)
def test_cdf_is_in_0_1_and_monotone(seed):
    image, _ = two_sides(seed)
    cdf = normal_cdf(image)
    assert ((cdf > 0) & (cdf < 1)).all()
    assert torch.equal(cdf.argsort(), image.argsort())
    z = zscore(image)
    assert torch.allclose(z.mean(dim=1), torch.zeros(3, dtype=z.dtype), atol=1e-12)
    assert torch.allclose(z.std(dim=1, unbiased=True), torch.ones(3, dtype=z.dtype))


def test_constant_similarities_are_neutral():
    assert torch.equal(normal_cdf(torch.full((2, 5), 0.3, dtype=torch.float64)), torch.full((2, 5), 0.5).double())
    assert torch.equal(normal_cdf(torch.tensor([[0.3]])), torch.tensor([[0.5]]))


def test_zscore_and_minmax_by_hand():
    assert zscore(torch.tensor([0.0, 1.0]).double()).tolist() == pytest.approx([-(0.5**0.5), 0.5**0.5])
    assert minmax(torch.tensor([-2.0, 0.0, 2.0]).double()).tolist() == [0, 0.5, 1]
    s = torch.tensor([0, FLAT], dtype=torch.float64)  # as flat as rounding leaves a constant
    assert minmax(s).tolist() == zscore(s, (torch.tensor(0.0), torch.tensor(FLAT))).tolist() == [0, 0]


def test_equal_scores_stay_equal():
    assert len(phi(torch.full((1003,), -1.7, dtype=torch.float64)).unique()) == 1


@pytest.mark.parametrize("lam", [-0.01, 1.01, 2, float("nan"), True, "0.5", None])
def test_what_is_no_lambda(lam):
    with pytest.raises(ValueError, match="is outside"):
        check_lambda(lam)


def test_methods_that_score_an_image_by_its_own_similarities():
    """The others need every image of the archive, or fall where a similarity rises (a product of negative ones)."""
    by_row = {name for name in PAIRED if METHODS[name].scope == "row"}
    assert by_row == {"text", "image", "average", "weicom", "linear", "zscore", "sum", "minimum"}


@pytest.mark.parametrize("top", [0, 1, 2, 7, 50, 99, 100, 101])
def test_best_first_is_the_head_of_a_stable_sort(top):
    rng = np.random.default_rng(top)
    for scores in (rng.normal(size=100), rng.integers(0, 4, 100).astype(float), np.zeros(100)):
        assert best_first(scores, top).tolist() == sorted(range(100), key=lambda i: -scores[i])[:top]


def test_unknown_method():
    with pytest.raises(ValueError, match="unknown method 'Weicom'; choose from text, image"):
        get_method("Weicom")


@pytest.fixture(scope="module")
def archive():
    rng = np.random.default_rng(0)
    feats = rng.normal(size=(5000, 32)) + 2 * rng.normal(size=32)
    feats = (feats / np.linalg.norm(feats, axis=1, keepdims=True)).astype(np.float32)
    text = rng.normal(size=32).astype(np.float32)
    return feats, feats[7], text / np.linalg.norm(text)


def test_moments_are_those_of_the_similarities(archive):
    feats, image, text = archive
    moments = Moments.of(feats, chunk=300)
    for query in (image, text):
        s = feats.astype(np.float64) @ query
        expected = normal_cdf(torch.from_numpy(s)).numpy()
        assert moments.normal_cdf(s, query) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("images", [1, 2, 3, 50])
def test_moments_of_few_and_many_images(images):
    feats = np.random.default_rng(images).normal(size=(images, 3)).astype(np.float32)
    moments, exact = Moments.of(feats, chunk=2), feats.astype(np.float64)
    assert moments.mean == pytest.approx(exact.mean(axis=0), rel=1e-12)
    expected = np.cov(exact.T) if images > 1 else np.zeros((3, 3))
    assert moments.covariance == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_moments_of_many_queries_are_those_of_each():
    feats = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    moments = Moments.of(feats)
    together = np.stack(moments.of_similarities(feats))
    for i, query in enumerate(feats):
        assert together[:, i].tolist() == np.ravel(moments.of_similarities(query[None])).tolist()
        s = feats.astype(np.float64) @ query
        assert together[:, i] == pytest.approx([s.mean(), s.std(ddof=1)], abs=1e-12)


@settings(deadline=None, max_examples=30)
@given(seed=seeds, n=st.integers(1, 150), d=st.integers(1, 70), dtype=st.sampled_from([np.float32, np.float16]))
def test_a_similarity_is_a_running_sum_whatever_is_computed_with_it(seed, n, d, dtype):
    """To the last bit: by hand, in parts, in threads, of float64 queries too; and it is the product that it says."""
    rng = np.random.default_rng(seed)
    rows, queries = rng.normal(size=(n, d)).astype(dtype), rng.normal(size=(3, d))
    found = similarities(rows, queries)
    for query, of_query in zip(queries, found, strict=True):
        sums = np.zeros(n)
        for j in range(d):
            sums += rows[:, j].astype(float) * query[j]
        assert of_query.tobytes() == (sums + 0.0).tobytes()
    assert found == pytest.approx(queries @ rows.astype(float).T, abs=1e-9)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exact, "THREADED_FROM", 0)
        assert similarities(rows, queries).tobytes() == found.tobytes()
    assert similarities(rows[n // 2 :], queries[1:]).tobytes() == found[1:, n // 2 :].tobytes()


def test_the_bound_of_rounding_holds():
    rng = np.random.default_rng(0)
    for d in (3, 768):
        rows, queries = (unit(rng.normal(size=(200, d)) + 1) for _ in range(2))
        blocked = torch.mm(torch.from_numpy(queries).double(), torch.from_numpy(rows).double().T).numpy()
        assert np.abs(blocked - similarities(rows, queries)).max() < exact.rounding(d)


def test_equal_images_tie():
    rng = np.random.default_rng(0)
    feats = rng.normal(size=(2051, 67)).astype(np.float32)
    feats[7, 5] = 0
    feats[[1030, 2048, 2050]] = feats[7]
    feats[2050, 5] = -0.0
    s = similarities(feats, rng.normal(size=(5, 67)).astype(np.float32))
    for copy_of_7 in (1030, 2048, 2050):
        assert s[:, copy_of_7].tolist() == s[:, 7].tolist()


def test_images_that_hardly_differ_do_not_tie():
    s = similarities(np.array([[1, 1e-9], [1, 2e-9], [1, 1e-9]], np.float32), np.array([[0, 1]], np.float32))
    assert s[0, 0] == s[0, 2] < s[0, 1]


def test_an_image_that_is_not_finite_is_named_in_a_large_archive():
    feats = np.random.default_rng(0).normal(size=(70_001, 2)).astype(np.float32)
    InMemory(feats)
    for row in (0, 65_536, 70_000):
        bad = feats.copy()
        bad[row, 1] = np.nan
        with pytest.raises(ValueError, match=f"the features of image {row} are not finite"):
            InMemory(bad)
    with pytest.raises(ValueError, match=r"expected features \(N, d\), N and d at least 1, found \(3,\)"):
        InMemory(np.ones(3))


@pytest.mark.parametrize("lam", [0, 0.3, 1])
def test_search_finds_the_top_of_the_ranking(archive, lam):
    feats, image, text = archive
    exact = feats.astype(np.float64)
    s_image, s_text = (torch.from_numpy(exact @ query.astype(np.float64)) for query in (image, text))
    scores = get_method("weicom").score(s_image, s_text, lam).numpy()
    positions, found = top_k(feats, image, text, lam, top=20)
    assert list(positions) == list(np.argsort(-scores, kind="stable")[:20])
    assert found == pytest.approx(scores[positions], abs=1e-9)
    assert len(top_k(feats[:5], image, text, lam, top=20)[0]) == 5
    with pytest.raises(ValueError, match=r"lambda 1.2 is outside \[0, 1\]"):
        top_k(feats, image, text, 1.2)


@settings(deadline=None)
@given(n=st.integers(1, 60), data=st.data())
def test_metrics_agree_with_the_oracle(n, data):
    ranks = sorted(data.draw(st.sets(st.integers(1, n))))
    found = dict(zip(METRICS, retrieval_metrics(np.array([ranks], dtype=int))[0], strict=True))
    assert found == pytest.approx(oracle.metrics(range(1, n + 1), set(ranks)))


def test_ap_by_hand():
    assert retrieval_metrics(np.array([[1, 3]]))[0][0] == pytest.approx((1 + 2 / 3) / 2)


def test_many_rankings_at_once():
    """Rankings of any shape, as one by one."""
    ranks = np.sort(np.argsort(np.random.default_rng(0).random((2, 3, 9)), axis=-1)[..., :4] + 1, axis=-1)
    found, precisions = retrieval_metrics(ranks, (1, 3)), r_precision(ranks)
    assert (found.shape, precisions.shape) == ((2, 3, 5), (2, 3))
    for at in np.ndindex(2, 3):
        assert found[at].tolist() == retrieval_metrics(ranks[at], (1, 3)).tolist()
        assert precisions[at] == r_precision(ranks[at])
    assert (retrieval_metrics(np.empty((2, 3, 0), int), (1, 3)) == np.zeros((2, 3, 5))).all()


def test_the_columns():
    assert METRICS == ("AP", "P@5", "P@10", "P@15", "P@20", "R@5", "R@10", "R@15", "R@20")


@pytest.mark.parametrize(("ranks", "expected"), [([1, 3, 9], 2 / 3), ([1], 1), ([2], 0), ([1, 2], 1), ([], 0)])
def test_r_precision_by_hand(ranks, expected):
    assert r_precision(np.array(ranks, int)) == pytest.approx(expected)


@pytest.mark.parametrize(("relevant", "images"), [(1, 1), (1, 2), (1, 10), (3, 10), (10, 10), (0, 10)])
def test_chance_ap_is_the_mean_over_random_rankings(relevant, images):
    rng = np.random.default_rng(0)
    ranks = np.sort([rng.permutation(images)[:relevant] + 1 for _ in range(20_000)], axis=1)
    assert chance_ap(relevant, images) == pytest.approx(retrieval_metrics(ranks)[:, 0].mean(), abs=0.005)


@pytest.mark.parametrize(("model", "accuracy"), [("CLIP", 86.0), ("RemoteCLIP", 92.3)])
def test_real_features(whu_root, model, accuracy):
    """Zero-shot accuracy as published with the features; a modality gap that the CDF closes."""
    with np.load(whu_root / f"{model}_ViT-L-14.npz") as stored:
        images, classes = stored["image_features"].astype(np.float64), stored["class_index"]
        texts = stored["text_a_satellite_image_of_a"].astype(np.float64)
    s_text = images @ texts.T
    assert 100 * np.mean(s_text.argmax(axis=1) == classes) == pytest.approx(accuracy, abs=0.05)
    s_image = images @ images.T
    assert s_image.mean() - s_text.mean() > 0.3  # the two scales hardly overlap ...
    cdf_image, cdf_text = (normal_cdf(torch.from_numpy(s.copy())) for s in (s_image, s_text.T))
    assert abs(cdf_image.mean() - cdf_text.mean()) < 0.02  # ... until each is standardised over the archive


SATURATED = {
    "near-duplicates": np.r_[0.9 + 1e-9 * np.arange(50), np.random.default_rng(0).normal(0.1, 0.01, 30_000)],
    "far below": np.r_[-0.9 - 1e-9 * np.arange(50), np.random.default_rng(1).normal(0.1, 0.01, 30_000)],
    "one far out": np.r_[[0.9, 0.9 - 1e-15], np.full(30_000, 0.1) + 1e-6 * np.arange(30_000)],
    "duplicated": np.repeat([0.1, 0.5, 0.3], 7),
    "constant": np.full(9, 0.3),
    "constant but for rounding": np.full(9, 0.3) + 1e-16 * np.arange(9),
}


@pytest.mark.parametrize("kind", SATURATED)
@pytest.mark.parametrize("name", sorted(name for name in PAIRED if METHODS[name].has_lambda))
def test_lambda_0_and_1_rank_as_the_single_modalities(kind, name):
    """Exactly, ties and all, however far out the similarities lie."""
    one = torch.from_numpy(SATURATED[kind])
    other = torch.from_numpy(np.random.default_rng(2).permutation(SATURATED[kind]))
    for lam, (image, text) in ((0, (one, other)), (1, (other, one))):
        scores = METHODS[name].score(image, text, lam)
        assert scores.argsort(stable=True).equal(one.argsort(stable=True))
        assert len(scores.unique()) == len(one.unique())


def test_the_upper_tail_tells_near_duplicates_apart():
    """z of 17 and more, where the CDF is exactly 1."""
    image = torch.from_numpy(SATURATED["near-duplicates"])
    assert zscore(image)[:50].gt(17).all()
    assert upper_tail(image)[:50].diff().gt(0).all()
    assert normal_cdf(image)[:50].eq(1).all()
    assert torch.allclose(upper_tail(image), normal_cdf(image) - 1, rtol=0, atol=1e-15)
