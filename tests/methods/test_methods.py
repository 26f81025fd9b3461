"""Further methods, each against a slow and obvious form of itself."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import oracle
from helpers import examples
from rscir_lib.methods import Basic, Expanded, FreeDom, Slerp, read_vocabulary
from rscir_lib.methods.base import Questions
from rscir_lib.methods.pairwise import TwoSimilarities, mix
from rscir_lib.methods.registry import METHODS, get_method
from rscir_lib.similarity import InMemory, similarities

WORDS = ["ship", "tree", "road", "roof", "sand", "field", "crane", "pond"]


def unit(x):
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def encode(texts):
    """A text is its letters: the same text always the same feature, words that share letters alike."""
    counts = [[text.count(letter) + 0.1 for letter in "abcdefghijklmnopqrstuvwxyz "] for text in texts]
    return unit(np.array(counts, float))


@st.composite
def cases(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n = draw(st.integers(3, 30))
    feats = unit(rng.normal(size=(n, 27)) + draw(st.sampled_from([0.0, 1.0])))
    for copy, original in draw(st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), max_size=4)):
        feats[copy] = feats[original]
    texts = draw(st.lists(st.sampled_from(["red", "many boats", "an old quay"]), min_size=1, max_size=3))
    return feats, draw(st.lists(st.integers(0, n - 1), min_size=len(texts), max_size=len(texts))), texts


def asked(images, texts, positions=()):
    """Each image with the text of its number."""
    own = np.arange(len(images))
    return Questions(images, encode(texts), tuple(texts), own, own, np.array(positions, int))


def scores_of(method, feats, positions, texts, lam=float("nan")):
    return method.fit(InMemory(feats), encode)(asked(feats[positions], texts, np.array(positions)), lam)


fast = examples(40)


@fast
@given(case=cases(), lam=st.sampled_from([0.0, 0.3, 1.0]))
def test_slerp(case, lam):
    feats, positions, texts = case
    found = scores_of(Slerp(), feats, positions, texts, lam)
    for row, position, text in zip(found, positions, texts, strict=True):
        query = oracle.on_arc(feats[position].tolist(), encode([text])[0].tolist(), lam)
        assert row == pytest.approx([oracle.dot(x, query) for x in feats], abs=1e-6)


def test_slerp_between_equal_and_opposite_ends():
    feats = unit(np.random.default_rng(0).normal(size=(5, 4)))
    score, one = Slerp().fit(InMemory(feats), encode), np.zeros(1, int)
    assert score(Questions(feats, feats, ("",) * 5, one, one), 0.4)[0] == pytest.approx(feats @ feats[0], abs=1e-6)
    assert np.isfinite(score(Questions(feats, -feats, ("",) * 5, one, one), 0.5)).all()


@fast
@given(case=cases(), lam=st.sampled_from([0.3, 0.5]))
def test_reciprocal_rank_fusion(case, lam):
    feats, positions, texts = case
    found = scores_of(get_method("rrf"), feats, positions, texts, lam)
    s_image, s_text = similarities(feats, feats[positions]), similarities(feats, encode(texts))
    for row, image, text in zip(found, s_image, s_text, strict=True):
        assert row.tolist() == oracle.scores("rrf", image.tolist(), text.tolist(), lam)


@fast
@given(case=cases(), k=st.integers(1, 40), power=st.sampled_from([0.0, 3.0]))
def test_query_expansion_with_any_method(case, k, power):
    feats, positions, texts = case
    queries = [oracle.expanded(i, feats, k, power) for i in positions]
    for inner in (METHODS["weicom"], METHODS["image"], Slerp()):
        method = Expanded(inner, k, power)
        assert method.name == f"{inner.name}+qe"
        expected = inner.fit(InMemory(feats), encode)(asked(np.array(queries), texts), 0.3)
        assert scores_of(method, feats, positions, texts, 0.3) == pytest.approx(expected, abs=1e-6)


@fast
@given(case=cases(), neighbours=st.integers(1, 6), words=st.integers(1, 4), kept=st.integers(1, 5))
def test_freedom(case, neighbours, words, kept):
    feats, positions, texts = case
    method = FreeDom(WORDS, neighbours, words, kept)
    found = scores_of(method, feats, positions, texts)
    for row, position, text in zip(found, positions, texts, strict=True):
        expected = oracle.freedom(position, text, feats, encode, WORDS, neighbours, words, kept)
        assert row == pytest.approx(expected, abs=1e-6)


def test_freedom_names_the_first_of_words_that_are_one_to_the_encoder():
    """Their features differ in the last digits, by the batch and the threads that encoded them."""
    rng, named = np.random.default_rng(0), set()
    for _ in range(8):

        def encode_and_note(texts):
            named.update(text for text in texts if text.endswith(" red"))
            feats = encode(["sand" if text in ("pond", "field") else text for text in texts])
            return feats + rng.normal(scale=1e-8, size=feats.shape).astype(np.float32)

        score = FreeDom(["pond", "sand", "field"], neighbours=1, words=1, kept=1).fit(
            InMemory(encode(["sand"])), encode_and_note
        )
        score(asked(encode(["sand"]), ["red"]), np.nan)
    assert named == {"pond red"}


def test_freedom_puts_a_strange_image_before_its_neighbours():
    """An image that the archive doesn't hold names itself first."""
    feats = encode(["sand", "pond", "field"])
    encoded = []

    def encode_and_note(texts):
        encoded.extend(texts)
        return encode(texts)

    score = FreeDom(WORDS, neighbours=1, words=1, kept=1).fit(InMemory(feats), encode_and_note)
    score(asked(encode(["crane"]), ["red"]), np.nan)
    assert encoded[-1] == "crane red"


def slow_basic(method, feats, own, t):
    """BASIC, one image at a time."""
    x = [row.astype(float) for row in feats]
    v = x[own]
    subjects, styles = ([encode([word])[0].astype(float) for word in some] for some in (WORDS[:4], WORDS[4:]))
    if method.centre:
        mean_image, mean_word = sum(x) / len(x), sum(subjects) / len(subjects)
        x, v = [row - mean_image for row in x], v - mean_image
        subjects, styles = ([word - mean_word for word in some] for some in (subjects, styles))
        t = t - mean_word
    project = np.eye(len(v))
    if method.project:
        kept = sum(np.outer(word, word) for word in subjects) / (len(subjects) - 1)
        left_out = sum(np.outer(word, word) for word in styles) / (len(styles) - 1)
        values, vectors = np.linalg.eigh((1 - method.contrast) * kept - method.contrast * left_out)
        strongest = sorted(
            (i for i in range(len(values)) if values[i] > 1e-10 * max(abs(values))), key=lambda i: -values[i]
        )
        project = sum(np.outer(vectors[:, i], vectors[:, i]) for i in strongest[: method.components])
    least_image = min(oracle.dot(project @ a, b) for a in x for b in x)
    least_text = min(oracle.dot(word, a) for word in subjects for a in x)
    if method.expand:
        near = oracle.nearest(project @ v, x, method.neighbours, own)
        weights = [np.exp(0.1 * oracle.dot(project @ v, x[i])) for i in near] + [np.exp(0.1)]
        joined = [x[i] for i in near] + [v]
        v = sum(w * row for w, row in zip(weights, joined, strict=True)) / sum(weights)
    scores = []
    for row in x:
        s_v, s_t = oracle.dot(project @ v, row), oracle.dot(t, row)
        if method.normalise:
            s_v, s_t = (s_v - least_image) / abs(least_image), (s_t - least_text) / abs(least_text)
        s_v, s_t = max(s_v, 0), max(s_t, 0)
        scores.append(s_v * s_t - (0.1 * (s_v + s_t) ** 2 if method.harris else 0))
    return scores


STEPS = ("centre", "project", "expand", "normalise", "harris")


@pytest.mark.parametrize("off", [(), *[(step,) for step in STEPS], STEPS])
def test_basic_with_and_without_each_step(off):
    feats = unit(np.random.default_rng(5).normal(size=(25, 27)) + 0.5)
    method = Basic(WORDS[:4], WORDS[4:], components=2, neighbours=3, **{step: step not in off for step in STEPS})
    found = scores_of(method, feats, [3, 8], ["red", "many boats"])
    for row, position, text in zip(found, [3, 8], ["red", "many boats"], strict=True):
        expected = slow_basic(method, feats, position, encode([text])[0].astype(float))
        assert row == pytest.approx(expected, rel=1e-6, abs=1e-7)


def test_each_step_of_basic_changes_something():
    feats = unit(np.random.default_rng(5).normal(size=(25, 27)) + 0.5)
    whole = scores_of(Basic(WORDS[:4], WORDS[4:]), feats, [3], ["red"])
    for step in STEPS:
        assert not np.allclose(scores_of(Basic(WORDS[:4], WORDS[4:], **{step: False}), feats, [3], ["red"]), whole)


def test_every_method_names_formula_and_source():
    for name, method in METHODS.items():
        assert method.name == name
        assert method.__doc__
        assert method.__doc__ != TwoSimilarities.__doc__
    for name in ("weicom", "minmax", "rrf", "slerp", "freedom", "basic", "direction"):
        assert any(source in METHODS[name].__doc__ for source in (" 19", " 20")), f"{name}: no year of a source"


def test_what_is_no_method():
    with pytest.raises(ValueError, match="lacks name, has_lambda, fit"):
        get_method(3)
    with pytest.raises(ValueError, match="another method named 'weicom': give this one a name of its own"):
        get_method(TwoSimilarities("weicom", mix, has_lambda=True))


def test_our_vocabulary():
    subjects, styles = read_vocabulary("subjects"), read_vocabulary("styles")
    assert len(subjects) > 150
    assert len(styles) > 100
    assert not set(subjects) & set(styles)
    for words, message in [(["one"], "at least two"), (["a", "b", "a"], "'a' is listed twice")]:
        with pytest.raises(ValueError, match=message):
            read_vocabulary(words)
    with pytest.raises(FileNotFoundError, match="no such list of words"):
        read_vocabulary("nowhere.txt")
