"""Candidates for every lambda, against a slow count of who comes before whom, and against the rankings themselves."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import ndtr

from helpers import examples
from rscir_lib.ranking import skyband as module
from rscir_lib.ranking.skyband import skyband
from rscir_lib.similarity import best_first

LAMBDAS = (1e-300, 2**-53, 0.05, 0.3, 0.5, 2 / 3, 0.95, 1 - 2**-53)
RULES = {
    **{f"mix at {lam}": (lambda a, b, lam=lam: (1 - lam) * a + lam * b) for lam in LAMBDAS},
    "sum": np.add,
    "mean": lambda a, b: 0.5 * a + 0.5 * b,
    "minimum": np.minimum,
}


def slow(image, text, k):
    """What the definition leaves in, pair by pair: one kind of reason after the other."""
    margins = [1e-12 * max(1, np.abs(side).max()) for side in (image, text)]

    def kept_by(before, candidates):
        return [i for i in candidates if sum(before(j, i) for j in candidates) < k]

    kept = kept_by(lambda j, i: image[j] > image[i] + margins[0] and text[j] > text[i] + margins[1], range(len(image)))
    for same, other in ((image, text), (text, image)):
        kept = kept_by(lambda j, i: j < i and same[j] == same[i] and other[j] >= other[i], kept)  # noqa: B023
    return kept


def assert_holds_the_best(image, text, k):
    kept = skyband(image, text, k)
    assert kept.tolist() == sorted(set(kept.tolist()))
    for name, rule in RULES.items():
        scores = rule(image, text)
        among = kept[best_first(scores[kept], k)]
        assert among.tolist() == best_first(scores, k).tolist(), name
    return kept


coarse = st.sampled_from([-1.0, -0.5, -1e-16, 0.0, 1e-16, 0.25, 0.25 + 2**-54, 0.5, 1.0])
fine = st.floats(-1, 1, width=64)


@examples(300)
@given(
    pairs=st.lists(st.one_of(st.tuples(coarse, coarse), st.tuples(fine, fine), st.tuples(coarse, fine)), min_size=1,
                   max_size=40),
    k=st.integers(1, 6), chunk=st.sampled_from([1, 3, 512]),
)  # fmt: skip
def test_the_best_are_among_the_candidates_at_any_lambda(pairs, k, chunk):
    image, text = np.array(pairs).T
    before = module.CHUNK
    module.CHUNK = chunk
    try:
        kept = assert_holds_the_best(image, text, k)
    finally:
        module.CHUNK = before
    needed = slow(image, text, k)
    assert set(needed) <= set(kept.tolist())
    assert chunk > 1 or kept.tolist() == needed  # looked at one by one, no more is kept than must be


SCALES = {
    "raw": lambda s: s,
    "zscore": lambda s: (s - s.mean()) / s.std(ddof=1) if s.std() > 1e-12 else np.zeros_like(s),
}
SCALES["upper_tail"] = lambda s: -ndtr(-SCALES["zscore"](s))


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("kind", ["random", "saturated", "flat", "copies", "opposed"])
def test_candidates_on_each_scale(scale, kind):
    """Also where Phi saturates: one image in a thousand lies forty standard deviations away."""
    rng, n, k = np.random.default_rng(3), 4_000, 20
    s = rng.normal(0, 0.02, (2, n))
    if kind == "saturated":
        s[:, rng.random(n) < 0.001] = rng.choice([-1, 1])
    elif kind == "flat":
        s[1] = 0.25
    elif kind == "copies":
        s = s[:, rng.integers(0, 12, n)]
    elif kind == "opposed":
        s[1] = -s[0]
    image, text = map(SCALES[scale], s)
    kept = assert_holds_the_best(image, text, k)
    assert kind == "opposed" or len(kept) < n / 3


@pytest.mark.slow
def test_there_are_few_candidates_at_any_size():
    """Independent sides, as of random features, and sides that agree or oppose, as of real ones."""
    for n in (30_400, 1_000_000):
        for agree in (0.0, 0.5, -0.5):
            z = np.random.default_rng(n).normal(size=(2, n))
            z[1] = agree * z[0] + np.sqrt(1 - agree**2) * z[1]
            start = time.perf_counter()
            kept = skyband(*z, 200)
            took = time.perf_counter() - start
            print(f"{n:9,} images, correlation {agree:4}: {len(kept):6,} candidates for 200 hits, {1e3 * took:.0f} ms")
            assert len(kept) < 12 * 200 * np.log(n / 200)
