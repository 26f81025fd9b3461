"""A word of its own for each image: what stands in a sentence is that word, and it comes near the image."""

import numpy as np
import pytest
import torch

from rscir_lib.benchmarks import whucom
from rscir_lib.encoders import load_encoder, prompted
from rscir_lib.methods import Inversion
from rscir_lib.methods.base import Questions
from rscir_lib.methods.inversion import SENTENCE
from rscir_lib.similarity import InMemory


@pytest.fixture(scope="module")
def encoder():
    return load_encoder("demo", device="cpu")


@pytest.fixture(scope="module")
def feats(encoder):
    pixels = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return encoder.encode_images(torch.nn.functional.interpolate(pixels, size=64))


def test_a_pseudo_word_stands_where_its_star_does(encoder):
    """With the embeddings of known words, a sentence is the same as with the words themselves."""
    tokens = [encoder.tokens("red")[0], encoder.tokens("airplane")[0]]
    words = encoder.model.token_embedding.weight[tokens].float()
    found = encoder.encode_pseudo_words(["an aerial image of * roof", "*, white"], words)
    expected = encoder.encode_texts(["an aerial image of red roof", "airplane, white"])
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)
    assert np.array_equal(encoder.encode_texts(["red"]), load_encoder("demo", device="cpu").encode_texts(["red"]))
    for text in ("no word", "* and *"):
        with pytest.raises(ValueError, match=r"write one \*, the pseudo word"):
            encoder.encode_pseudo_words([text], words[:1])


def test_the_word_of_an_image_comes_near_it_and_hangs_on_no_other(encoder, feats):
    method = Inversion(encoder, steps=30)

    def similarity(words):
        features = encoder.encode_pseudo_words([SENTENCE] * len(feats), words).numpy()
        return (features * feats).sum(axis=1)

    words = method.invert(feats)
    assert (similarity(words) > similarity(torch.zeros_like(words)) + 0.1).all()
    np.testing.assert_allclose(method.invert(feats[2:3])[0], words[2], atol=1e-3)


def test_scores_are_those_of_the_sentence_with_the_word(encoder, feats):
    method = Inversion(encoder, steps=3)
    numbers = np.array([4, 1, 4])
    asked = Questions(feats[[1, 4]], encoder.encode_texts(["red", "two"]), ("red", "two"), np.array([1, 0, 1]),
                      np.array([0, 0, 1]))  # fmt: skip
    found = method.fit(InMemory(feats), encoder.encode_texts)(asked, np.nan)
    sentences = [f"an aerial image of *, {text}" for text in ("red", "red", "two")]
    queries = encoder.encode_pseudo_words(sentences, method.invert(feats[numbers])).numpy()
    np.testing.assert_allclose(found, queries @ feats.T, atol=1e-4)


def test_an_encoder_without_gradients_is_refused_in_a_sentence(encoder):
    with pytest.raises(ValueError, match="inversion needs gradients through a text tower: 'clip' gives none"):
        Inversion(load_encoder(whucom.BUNDLES["clip"].parent))
    assert Inversion(prompted(encoder, "an aerial image of {}")).encoder.word_size == 48
