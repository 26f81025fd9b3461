"""A word of its own for each image: what stands in a sentence is that word, and it comes near the image."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from rscir_lib.apps.commands.training import LinCIR, phi, starred, train_lincir
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


@pytest.mark.slow
def test_a_pseudo_word_stands_where_its_star_does(encoder):
    """With the embeddings of known words, a sentence is the same as with the words themselves."""
    tokens = [encoder.tokens("red")[0], encoder.tokens("airplane")[0]]
    words = encoder.model.token_embedding.weight[tokens].float()
    found = encoder.encode_pseudo_words(["an aerial image of * roof", "*, white"], words)
    expected = encoder.encode_texts(["an aerial image of red roof", "airplane, white"])
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)
    assert np.array_equal(encoder.encode_texts(["red"]), load_encoder("demo", device="cpu").encode_texts(["red"]))
    twice = encoder.encode_pseudo_words(["* beside *", "a *, *"], words)
    np.testing.assert_allclose(twice, encoder.encode_texts(["red beside red", "a airplane, airplane"]), atol=1e-6)
    with pytest.raises(ValueError, match=r"'no word': write a \*, the pseudo word"):
        encoder.encode_pseudo_words(["* roof", "no word"], words)


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


CAPTIONS = [
    "an aerial image of a red roof",
    "two airplanes on grass",
    "a large pond, white sand",
    "of the",
    "a * b",
] * 2


@pytest.fixture(scope="module")
def trained(encoder, tmp_path_factory):
    path = tmp_path_factory.mktemp("lincir") / "lincir.safetensors"
    return path, train_lincir(encoder, CAPTIONS, path, steps=30)


def test_captions_give_their_keywords_to_a_star():
    assert [starred(text) for text in CAPTIONS[:4]] == ["an * of a *", "* on *", "a *", "of the"]


@pytest.mark.slow
def test_lincir_learns_from_captions_alone_and_gives_the_same_again(encoder, trained, tmp_path):
    path, losses = trained
    assert losses[-5:].mean() < 0.7 * losses[:5].mean()
    again = train_lincir(encoder, CAPTIONS, tmp_path / "again", steps=30)
    assert again.tolist() == losses.tolist()
    assert (tmp_path / "again").read_bytes() == path.read_bytes()
    assert train_lincir(encoder, CAPTIONS, tmp_path / "other", steps=3, seed=1).tolist() != losses[:3].tolist()
    with pytest.raises(ValueError, match="2 captions, none with a keyword: nothing to train on"):
        train_lincir(encoder, ["of the", "a *"], tmp_path / "none")


@pytest.mark.slow
def test_scores_of_lincir_are_those_of_its_network_step_by_step(encoder, feats, trained):
    path, _ = trained
    asked = Questions(feats[[1, 4]], encoder.encode_texts(["red", "two"]), ("red", "two"), np.array([1, 0, 1]),
                      np.array([0, 0, 1]))  # fmt: skip
    found = LinCIR(encoder, path).fit(InMemory(feats), encoder.encode_texts)(asked, np.nan)
    weights = {name: tensor.numpy().astype(float) for name, tensor in load_file(path).items()}
    layers = sorted({name.split(".")[0] for name in weights}, key=int)
    for row, (image, text) in enumerate([(4, "red"), (1, "red"), (4, "two")]):
        x = feats[image].astype(float)
        for layer in layers:
            x = weights[f"{layer}.weight"] @ x + weights[f"{layer}.bias"]
            if layer != layers[-1]:
                x = np.array([value * (1 + math.erf(value / math.sqrt(2))) / 2 for value in x])
        sentence = encoder.encode_pseudo_words([f"an aerial image of *, {text}"], torch.tensor(x)[None])[0].numpy()
        np.testing.assert_allclose(found[row], feats @ sentence, atol=1e-5)


def test_a_network_says_what_it_comes_from_and_refuses_another_encoder(encoder, trained, tmp_path):
    path, _ = trained
    with safe_open(path, "pt") as file:
        facts = json.loads(file.metadata()["provenance"])
    assert facts["weights_sha256"] == encoder.provenance["weights_sha256"]
    assert facts["captions"].startswith("3, sha256 ")  # distinct, with a keyword, without a star
    assert facts["steps"] == "30, seed 0"
    other = SimpleNamespace(**vars(encoder) | {"provenance": {"weights_sha256": "0"}}, word_size=encoder.word_size,
                            encode_pseudo_words=encoder.encode_pseudo_words)  # fmt: skip
    with pytest.raises(ValueError, match=r"was trained on an encoder of sha256 .*, not 0: train it again"):
        LinCIR(other, path)
    save_file({"a": torch.zeros(1)}, tmp_path / "strange.safetensors")
    with pytest.raises(ValueError, match=r"strange.safetensors .* was trained on an encoder of sha256 unknown"):
        LinCIR(encoder, tmp_path / "strange.safetensors")


def test_a_file_that_is_no_network_is_refused_in_one_sentence(encoder, tmp_path):
    path, ours = tmp_path / "bad.safetensors", encoder.provenance["weights_sha256"]
    good = phi(encoder.dim, encoder.word_size).state_dict()
    made = json.dumps({"weights_sha256": ours})
    for tensors, provenance, problem in (
        ({key: good[key] for key in good if key != "0.bias"}, made, "0.bias is missing from the file"),
        (good | {"more": torch.zeros(1)}, made, "more is not part of the model"),
        (good | {"0.bias": torch.zeros(3)}, made, r"0.bias has shape \(3,\)"),
        (good | {"0.bias": good["0.bias"].int()}, made, "0.bias holds whole numbers"),
        (good | {"0.bias": good["0.bias"] * torch.nan}, made, "NaN or infinity"),
        (good, "[]", "sha256 unknown"),
        (good, "{", "sha256 unknown"),
    ):
        save_file(tensors, path, {"provenance": provenance})
        with pytest.raises(ValueError, match=rf"bad.safetensors is of no use: .*{problem}.*: train it again"):
            LinCIR(encoder, path)
    torch.save(good, tmp_path / "bad.pt")
    with pytest.raises(ValueError, match=r"bad.pt is of no use: .*sha256 unknown.*: train it again"):
        LinCIR(encoder, tmp_path / "bad.pt")
    save_file(good, path, {"provenance": made})
    assert LinCIR(encoder, path).name == "lincir"


def test_an_encoder_without_gradients_is_refused_in_a_sentence(encoder):
    with pytest.raises(ValueError, match="inversion needs gradients through a text tower: 'clip' gives none"):
        Inversion(load_encoder(whucom.BUNDLES["clip"].parent))
    assert Inversion(prompted(encoder, "an aerial image of {}")).encoder.word_size == 48
