"""Methods as published, against their rules written down here once more; and how they know the query."""

import numpy as np
import pandas as pd
import pytest
from agreement import agreement, some

from helpers import make_features, write_benchmark
from rscir_lib.benchmarks.patterncom import read_patterncom
from rscir_lib.evaluation import summarize
from rscir_lib.methods import METHODS, Basic, Captioned, Direction, Expanded, FreeDom, known_words
from rscir_lib.methods.base import Questions
from rscir_lib.similarity.exact import best_first
from rscir_lib.similarity.gallery import InMemory

SUBJECTS = ["ship", "tree", "road", "roof", "sand", "field"]
STYLES = ["dark", "bright", "a sketch"]


def unit(x):
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def encode(texts):
    """A text is its letters: texts that share letters are alike."""
    return unit(np.array([[text.count(c) + 0.1 for c in "abcdefghijklmnopqrstuvwxyz "] for text in texts]))


def questions_of(feats, positions, texts, known=True):
    every = np.arange(len(positions))
    where = np.array(positions if known else [-1] * len(positions))
    return Questions(feats[positions], encode(texts), tuple(texts), every, every, where)


@pytest.fixture
def feats():
    return unit(np.random.default_rng(1).normal(size=(40, 27)) + 0.3)


@pytest.mark.parametrize("name", ["authors", "freedom", "basic-released"])
@pytest.mark.slow
def test_scores_and_tables_agree_with_the_published_rules(feats, tmp_path, name):
    """On random features: every score to 1e-9, every cell of the table as the authors round it."""
    rng = np.random.default_rng(2)
    labelled = [(i, "color", value) for i, value in enumerate(rng.choice(["red", "old", "wide"], len(feats)))]
    write_benchmark(tmp_path, ["river"] * len(feats), labelled)
    benchmark = some(read_patterncom(tmp_path), 30)
    table = agreement(
        benchmark, make_features(benchmark.archive, feats), encode, {"subjects": SUBJECTS, "styles": STYLES}
    )
    mine = table.drop(index=[row for row in table.index if row.startswith(("freedom", "basic"))])
    table = mine if name == "authors" else table.filter(like=name, axis="index")
    assert len(table) >= {"authors": 9, "freedom": 2, "basic-released": 1}[name]
    assert table["greatest difference"].max() < 1e-9
    assert table["equal cells"].equals(table["cells"])


def test_means_of_the_authors_are_read_from_their_file(feats, tmp_path):
    np.save(tmp_path / "mean.npy", np.full(27, 0.1))
    questions = questions_of(feats, [3], ["red"])
    theirs, archive = (
        Basic(SUBJECTS, STYLES, mean=mean, project=False, expand=False, normalise=False, harris=False).fit(
            InMemory(feats), encode
        )(questions, np.nan)[0]
        for mean in (tmp_path / "mean.npy", None)
    )
    x, t = feats.astype(np.float64) - 0.1, encode(["red"])[0] - encode(SUBJECTS).astype(np.float64).mean(axis=0)
    np.testing.assert_allclose(theirs, (x @ x[3]).clip(0) * (x @ t).clip(0), atol=1e-6)
    assert not np.allclose(theirs, archive)


def test_basic_hangs_on_no_last_bit(feats):
    """Words that span few directions leave eigenvalues that are rounding; their sign is chance."""
    rng, scores = np.random.default_rng(0), []
    for _ in range(6):

        def shaken(texts):
            clean = encode(texts)
            return clean * (1 + rng.integers(-1, 2, size=clean.shape) * np.float32(2**-23))

        method = Basic(SUBJECTS, STYLES)
        scores.append(method.fit(InMemory(feats), shaken)(questions_of(feats, [3, 5], ["red", "old"]), np.nan))
    assert np.ptp(scores, axis=0).max() < 1e-4 * np.abs(scores).max()


def test_no_image_is_its_own_neighbour(feats):
    """Known by position: an archive in half precision holds no row that equals the query to the sixth digit."""
    halves, position = feats.astype(np.float16).astype(np.float32), 11
    exact, rounded = (
        Questions(rows[[position]], encode(["red"]), ("red",), np.zeros(1, int), np.zeros(1, int), np.array([position]))
        for rows in (feats, halves)
    )
    for method in (FreeDom(SUBJECTS, 5, 2, 3), Expanded(METHODS["weicom"], 5), Basic(SUBJECTS, STYLES, neighbours=5)):
        scorer = method.fit(InMemory(halves), encode)
        np.testing.assert_allclose(scorer(exact, 0.5), scorer(rounded, 0.5), atol=2e-3)


def test_expansion_takes_others(feats):
    position, x = 11, feats.astype(np.float64)
    method = Expanded(METHODS["image"], 3, power=0)
    found = method.fit(InMemory(feats), encode)(questions_of(feats, [position], ["red"]), np.nan)[0]
    s = x @ x[position]
    near = [i for i in np.argsort(-s, kind="stable") if i != position][:3]
    query = x[position] + x[near].sum(axis=0)
    np.testing.assert_allclose(found, x @ query / np.linalg.norm(query), atol=1e-6)
    strange = method.fit(InMemory(feats), encode)(questions_of(feats, [position], ["red"], known=False), np.nan)[0]
    assert not np.allclose(strange, found)


def test_best_first_without_one():
    scores = np.array([3.0, 5.0, 4.0, 5.0])
    assert best_first(scores, 2, 1).tolist() == [3, 2]
    assert best_first(scores, 9, 3).tolist() == [1, 2, 0]
    assert best_first(scores, 0, 3).tolist() == []
    assert best_first(scores, 2).tolist() == [1, 3]


def test_names_of_published_variants(feats):
    questions, gallery = questions_of(feats, [3], ["red"]), InMemory(feats)
    s = [feats.astype(np.float64) @ side[0].astype(np.float64) for side in (questions.images, questions.texts)]
    minimum, authors = (
        METHODS[name].fit(gallery, encode)(questions, np.nan)[0] for name in ("minimum", "minimum-authors")
    )
    np.testing.assert_allclose(minimum, np.minimum(*s), atol=1e-9)
    np.testing.assert_allclose(authors, -np.maximum(*s), atol=1e-9)
    assert (METHODS["freedom-dagger"].neighbours, METHODS["basic-dagger"].expand) == (1, False)
    assert METHODS["basic-released"].released


def test_means_are_rounded_as_the_authors_do():
    """Python's round(sum / n, 2) of 2.675 is 2.67, NumPy's 2.68."""
    rows = pd.DataFrame({"method": "image", "lambda": np.nan, "attribute": ["color"] * 2, "AP": [0.0267, 0.0268]})
    assert summarize(rows, rounding="authors")["Color"].item() == round((2.67 + 2.68) / 2, 2) == 2.67
    assert summarize(rows)["Color"].item() == pytest.approx(2.675)


def test_the_image_moves_as_the_words_do(feats):
    """From the word that it is most similar to, to the text."""
    words = ["ship", "tree", "road"]
    found = Direction(words, step=0.5).fit(InMemory(feats), encode)(questions_of(feats, [3, 9], ["red", "old"]), np.nan)
    x, o = feats.astype(np.float64), encode(words).astype(np.float64)
    for scores, position, text in zip(found, (3, 9), ("red", "old"), strict=True):
        shown = o[np.argmax(o @ x[position])]
        query = x[position] + 0.5 * (encode([text])[0] - shown)
        np.testing.assert_allclose(scores, x @ query, atol=1e-6)


def test_a_caption_and_the_text_are_one_sentence(feats):
    captions = [[] for _ in feats]
    captions[3] = ["a grey road", "cars on a road"]
    found = Captioned(captions).fit(InMemory(feats), encode)(questions_of(feats, [3, 4], ["snow", "sand"]), np.nan)
    x = feats.astype(np.float64)
    sentences = encode(["a grey road, snow", "cars on a road, snow"]).astype(np.float64)
    np.testing.assert_allclose(found[0], x @ sentences.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(found[1], x @ encode(["sand"])[0], atol=1e-6)  # it has no caption
    strange = questions_of(feats, [3], ["snow"], known=False)
    np.testing.assert_allclose(Captioned(captions).fit(InMemory(feats), encode)(strange, np.nan)[0],
                               x @ encode(["snow"])[0], atol=1e-6)  # fmt: skip
    with pytest.raises(ValueError, match="captions of 2 images for an archive of 40"):
        Captioned(captions[:2]).fit(InMemory(feats), encode)


def test_words_that_an_encoder_never_met_can_be_left_out():
    class Encoder:
        def unknown_words(self, text):
            return [word for word in text.split() if "x" in word]

    assert known_words(Encoder(), ["ship", "xebec", "a taxi way", "road"]) == ("ship", "road")
    assert known_words(object(), ["ship", "xebec"]) == ("ship", "xebec")
