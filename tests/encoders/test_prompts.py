"""Words in a sentence: the feature is that of the sentence, or the mean of several, and everything else stays."""

import pickle

import numpy as np
import pytest
from PIL import Image

from rscir_lib.apps.explorer.opening import open_explorer
from rscir_lib.encoders import load_encoder, prompted, unknown_words
from rscir_lib.features import Features, extract_features, read_features
from rscir_lib.runs import open_run, run_folder
from rscir_lib.search import search

ONE, TWO = "an aerial photo of {}", "an aerial photo of {}|many {}, {curly}"


@pytest.fixture(scope="module")
def bare():
    return load_encoder("demo", device="cpu")


def test_one_sentence_and_several(bare):
    words = ["a red roof", "Two Ovals."]
    np.testing.assert_allclose(
        prompted(bare, ONE).encode_texts(words),
        bare.encode_texts(["an aerial photo of a red roof", "an aerial photo of Two Ovals."]),
        atol=1e-6,
    )
    several = [bare.encode_texts([sentence.replace("{}", word) for word in words]) for sentence in TWO.split("|")]
    mean = np.mean(several, axis=0)
    expected = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    features = prompted(bare, TWO).encode_texts(words)
    np.testing.assert_allclose(features, expected, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=1e-6)
    assert features.dtype == np.float32
    assert prompted(bare) is bare


def test_all_else_is_the_encoders(bare):
    encoder = prompted(bare, TWO)
    image = bare.preprocess(Image.new("RGB", (60, 50), "green"))[None]
    np.testing.assert_array_equal(encoder.encode_images(image), bare.encode_images(image))
    assert (encoder.name, encoder.dim, encoder.device) == (bare.name, bare.dim, bare.device)
    assert encoder.provenance == bare.provenance | {"template": TWO}
    assert unknown_words(encoder, "a red giraffe") == unknown_words(bare, "a red giraffe") != []
    again = pickle.loads(pickle.dumps(encoder))
    np.testing.assert_array_equal(again.encode_texts(["red"]), encoder.encode_texts(["red"]))


@pytest.mark.parametrize("texts", [[], "red", None, ["red", None], ["red", "  "], ["x" * 10**6]])
def test_a_text_that_is_none_is_none_inside_a_sentence(bare, texts):
    with pytest.raises(ValueError, match="text") as without:
        bare.encode_texts(texts)
    with pytest.raises(ValueError, match="text") as within:
        prompted(bare, TWO).encode_texts(texts)
    assert str(within.value) == str(without.value)


def test_a_sentence_that_is_too_long_is_refused(bare):
    with pytest.raises(ValueError, match=r"has \d+ tokens, 'demo' reads"):
        prompted(bare, "very " * 100 + "{}").encode_texts(["red"])


@pytest.mark.parametrize("template", ["", "a photo", "{} and {}", "a {}|a photo", "a {}|", 3, None])
def test_templates_without_a_place_for_the_words(bare, template, tmp_path):
    with pytest.raises(ValueError, match=r"a text with \{} for the words"):
        prompted(bare, template)
    with pytest.raises(ValueError, match=r"TEMPLATE=.*: expected a text with \{} for the words"):
        open_run(TEMPLATE=template, OUTPUT_ROOT=str(tmp_path))


@pytest.mark.slow
def test_runs_of_another_template_have_their_own_results_and_one_store(tmp_path):
    given = {"OUTPUT_ROOT": str(tmp_path)}
    runs = [open_run(**given, TEMPLATE=template) for template in ("{}", ONE, TWO)]
    assert len({run.folder for run in runs}) == 3
    assert runs[1].folder.name.startswith("synthcom_demo_an-aerial-photo-of-")
    assert {run.store for run in runs} == {runs[0].folder / "features"}
    assert f'"template": "{ONE}"' in (runs[1].folder / "run.json").read_text()
    assert run_folder(str(tmp_path), TEMPLATE=ONE) == runs[1].folder
    assert run_folder(str(tmp_path)) == runs[0].folder
    note = runs[0].folder / "run.json"  # as earlier versions wrote it
    note.write_text(note.read_text().replace(',"template": "{}"', "").replace('"template": "{}",', ""))
    assert run_folder(str(tmp_path)) == runs[0].folder
    digit = run_folder(str(tmp_path), TEMPLATE="2 roofs, {}")  # looks like the second run of one name
    assert run_folder(str(tmp_path)) == runs[0].folder != digit


@pytest.fixture
def pictures(tmp_path):
    (tmp_path / "pictures").mkdir()
    for number in range(6):
        Image.new("RGB", (40, 40), (40 * number, 90, 200 - 30 * number)).save(tmp_path / "pictures" / f"{number}.png")
    return tmp_path / "pictures"


@pytest.mark.slow
def test_the_explorer_reads_words_in_the_sentence(pictures, tmp_path, bare):
    given = {"DATASET_ROOT": str(pictures), "OUTPUT_ROOT": str(tmp_path / "runs")}
    plain, other = open_explorer(given), open_explorer(given | {"TEMPLATE": TWO})
    assert repr(TWO) in other.title
    assert plain.answer({"ask": "query", "images": [0], "words": "red"}) != other.answer(
        {"ask": "query", "images": [0], "words": "red"}
    )
    expected = prompted(bare, TWO).encode_texts(["red"])[0]
    np.testing.assert_allclose(other._text("red", ""), expected, atol=1e-6)
    assert len(list((tmp_path / "runs").glob("*/features/manifest.json"))) == 1, "pictures are encoded once"


def test_search_takes_a_template_and_stores_know_none(pictures, tmp_path, bare):
    from rscir_lib.archive import read_archive

    archive, encoder = read_archive(pictures), prompted(bare, ONE)
    features = read_features(extract_features(archive, encoder, tmp_path / "store", workers=1), archive, encoder)
    assert isinstance(features, Features)
    assert "template" not in features.provenance
    read_features(tmp_path / "store", archive, bare)
    asked = features, 0, "red", 0.5, "weicom", 6
    within = search(*asked, encoder=bare, archive=archive, template=ONE).table["cosine_text"]
    np.testing.assert_allclose(within, search(*asked, encoder=encoder, archive=archive).table["cosine_text"], atol=1e-6)
    assert not np.allclose(within, search(*asked, encoder=bare, archive=archive).table["cosine_text"])
