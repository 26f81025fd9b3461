"""The recipe, a few steps of it; and the artefacts it leaves."""

import hashlib
import json
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from demo_encoder import Cones, demo
from filelock import FileLock
from PIL import Image

from rscir_lib.apps.commands import training
from rscir_lib.apps.commands.training import (
    LinCIR,
    Recipe,
    adapt,
    read_captions,
    split,
    train,
)
from rscir_lib.archive import read_archive
from rscir_lib.benchmarks.patterncom import read_patterncom
from rscir_lib.benchmarks.synthcom import HELD_OUT, draw_synthcom, training_scene
from rscir_lib.encoders import DEMO_FOLDER, WEIGHTS, load_encoder
from rscir_lib.evaluation.summary import PUBLISHED


@pytest.fixture
def colours(tmp_path):
    """Three classes that differ by colour alone, with captions for all images but one."""
    rng, captions = np.random.default_rng(0), {}
    for name, colour in {"redroof": (220, 30, 30), "greenfield": (30, 200, 30), "bluesea": (30, 30, 220)}.items():
        folder = tmp_path / "archive" / "images" / name
        folder.mkdir(parents=True)
        for i in range(10):
            pixels = np.clip(rng.normal(colour, 20, (40, 44, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{name}{i:03d}.jpg")
            captions[f"{name}{i:03d}"] = [f"a {name[:-4]} {name[-4:]}".replace("blu esea", "blue sea")]
    captions.popitem()
    path = tmp_path / "captions.json"
    path.write_text(json.dumps(captions))
    return tmp_path / "archive", path


@pytest.mark.slow
def test_demo_recipe_leaves_an_encoder(tmp_path):
    losses = demo(tmp_path / "out", 24, Recipe(3, second=Cones(steps=2)))
    assert len(losses) == 5
    assert np.isfinite(losses).all()
    encoder = load_encoder(tmp_path / "out", device="cpu")
    np.testing.assert_allclose(np.linalg.norm(encoder.encode_texts(["oval", "two"]), axis=1), 1, atol=1e-5)
    card = (tmp_path / "out" / "README.md").read_text()
    assert encoder.provenance["weights_sha256"] in card
    assert "synthetic" in card
    assert all(f"* {attribute}: {name}, {value}" in card for attribute, name, value in HELD_OUT)
    assert (tmp_path / "out" / "loss.png").stat().st_size > 0


@pytest.mark.slow
def test_same_seed_same_weights(tmp_path):
    for folder in ("a", "b"):
        demo(tmp_path / folder, 8, Recipe(1, second=Cones(steps=1)))
    digests = {hashlib.sha256((tmp_path / folder / WEIGHTS).read_bytes()).digest() for folder in ("a", "b")}
    assert len(digests) == 1


@pytest.mark.slow
def test_words_never_seen_carry_nothing(tmp_path):
    images = np.zeros((2, 80, 80, 3), np.uint8)
    train(images, [["red"], ["green"]], tmp_path, Recipe(1, batch_size=2))
    encoder = load_encoder(tmp_path, device="cpu")
    np.testing.assert_array_equal(encoder.encode_texts(["giraffe"]), encoder.encode_texts(["elephant"]))
    assert not np.array_equal(encoder.encode_texts(["red"]), encoder.encode_texts(["green"]))


class Killed(BaseException):
    pass


def digest(folder):
    return hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()


@pytest.fixture
def pairs(monkeypatch):
    """Twelve images with captions, and a model small enough to train some steps at once."""
    monkeypatch.setitem(training.MODEL, "text_cfg", training.MODEL["text_cfg"] | {"width": 8, "heads": 1, "layers": 1})
    images = np.random.default_rng(0).integers(0, 256, (12, 80, 80, 3), dtype=np.uint8)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # on a busy machine, threads of so short a step only wait for each other
    yield images, [["red roof", f"number {i}"] for i in range(12)]
    torch.set_num_threads(threads)


def killed_at(step, monkeypatch, *arguments):
    """Train, and stop as if killed in that step."""
    real, calls = training.augment, iter(range(step))

    def augment(pixels):
        if next(calls, None) is None:
            raise Killed
        return real(pixels)

    with monkeypatch.context() as patch:
        patch.setattr(training, "augment", augment)
        with pytest.raises(Killed):
            train(*arguments)


@pytest.mark.slow
def test_a_killed_training_goes_on_to_the_same_bits(pairs, tmp_path, monkeypatch):
    recipe = Recipe(12, batch_size=8, second=Cones(steps=6))
    whole = train(*pairs, tmp_path / "whole", recipe)
    for step in (1, 4, 5, 5):  # before the first checkpoint; then between some, the last in the second stage
        killed_at(step, monkeypatch, *pairs, tmp_path / "killed", recipe)
    assert (tmp_path / "killed" / training.CHECKPOINT).exists()
    pd.testing.assert_series_equal(train(*pairs, tmp_path / "killed", recipe), whole)
    assert digest(tmp_path / "killed") == digest(tmp_path / "whole")
    assert sorted(path.name for path in (tmp_path / "killed").glob("[!.]*")) == [
        "README.md",
        "loss.png",
        "open_clip_config.json",
        WEIGHTS,
    ]


@pytest.mark.slow
def test_a_checkpoint_of_something_else_is_named(pairs, tmp_path, monkeypatch):
    killed_at(3, monkeypatch, *pairs, tmp_path, Recipe(10, batch_size=8))
    with pytest.raises(ValueError, match=r"training.pt: can't go on from here .*other images, captions or settings"):
        train(*pairs, tmp_path, Recipe(11, batch_size=8))
    path = tmp_path / training.CHECKPOINT
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"training.pt: can't go on from here .*delete it"):
        train(*pairs, tmp_path, Recipe(10, batch_size=8))


def test_two_do_not_train_in_one_folder(pairs, tmp_path):
    with FileLock(tmp_path / ".lock"), pytest.raises(BlockingIOError, match="another command is at work here"):
        train(*pairs, tmp_path, Recipe(1))


def spreads(images, texts):
    """Mean, std and quantiles of the similarities of all pairs of different images, and of an image and a text."""
    pairs = {"image-image": (images @ images.T)[np.triu_indices(len(images), 1)], "image-text": images @ texts.T}
    quantiles = {"5%": 0.05, "50%": 0.5, "95%": 0.95}
    shapes = {
        kind: {"mean": s.mean(), "std": s.std(), **{name: np.quantile(s, q) for name, q in quantiles.items()}}
        for kind, s in pairs.items()
    }
    return pd.DataFrame(shapes).T


def gap_and_ratio(shapes):
    """How far the two means lie apart, and the std between images over the one between images and texts."""
    images, texts = shapes.loc["image-image"], shapes.loc["image-text"]
    return images["mean"] - texts["mean"], images["std"] / texts["std"]


@pytest.mark.slow
def test_second_stage_sets_the_modalities_apart(pairs, tmp_path):
    first = train(*pairs, tmp_path / "plain", Recipe(3))
    losses = train(*pairs, tmp_path / "apart", Recipe(3, second=Cones(steps=2)))
    assert len(losses) == 5
    np.testing.assert_array_equal(losses[:3], first)

    def shape(folder):
        encoder = load_encoder(folder, device="cpu")
        batch = torch.stack([encoder.preprocess(Image.fromarray(image)) for image in pairs[0]])
        return spreads(encoder.encode_images(batch), encoder.encode_texts([f"number {i}" for i in range(12)]))

    before, after = shape(tmp_path / "plain"), shape(tmp_path / "apart")
    assert gap_and_ratio(after)[0] >= 0.3
    assert after.loc["image-text", "std"] < before.loc["image-text", "std"]
    scale = load_encoder(tmp_path / "apart", device="cpu").model.logit_scale.exp().item()
    assert scale == pytest.approx(1 / Cones.temperature, rel=1e-2)


@pytest.mark.slow
def test_adapt_takes_names_with_spaces(colours, tmp_path):
    root, captions = colours
    (root / "images" / "redroof").rename(root / "images" / "red roof")
    for path in (root / "images" / "red roof").iterdir():
        path.rename(path.with_name(path.name.replace("redroof", "red roof ")))
    captions.write_text(captions.read_text().replace('"redroof', '"red roof '))
    accuracy = adapt(root, captions, tmp_path / "run", epochs=1)
    assert accuracy["chance"] == pytest.approx(1 / 3)
    listed = [read_archive(root, tmp_path / "run" / file).files for file in ("train.csv", "heldout.csv")]
    assert sorted(sum(listed, ())) == sorted(read_archive(root).files)


@pytest.mark.slow
def test_adapt_without_classes(colours, tmp_path):
    root, captions = colours
    flat = tmp_path / "flat"
    flat.mkdir()
    for i, path in enumerate(sorted(root.glob("images/*/*"))):
        path.rename(flat / f"{i:02}-{path.name}")
    captions.write_text(json.dumps({path.name: ["a roof"] for path in flat.iterdir()}))
    assert adapt(flat, captions, tmp_path / "run", epochs=1).empty
    assert load_encoder(tmp_path / "run", device="cpu").dim == 128


def test_images_and_captions_must_pair_up(tmp_path):
    with pytest.raises(ValueError, match="2 images for 1 caption lists"):
        train(np.zeros((2, 80, 80, 3), np.uint8), [["red"]], tmp_path, Recipe(1))
    with pytest.raises(ValueError, match="each image needs a caption"):
        train(np.zeros((2, 80, 80, 3), np.uint8), [["red"], []], tmp_path, Recipe(1))


@pytest.mark.slow
def test_adapt_learns_a_folder_of_images(colours, tmp_path, monkeypatch):
    """And with --lincir a word for each image, from the captions of those that it trains on."""
    root, captions = colours
    monkeypatch.setattr(training, "train_lincir", partial(training.train_lincir, steps=2))
    accuracy = adapt(str(root), str(captions), tmp_path / "run", epochs=40, lincir=True)
    assert LinCIR(load_encoder(tmp_path / "run", device="cpu"), tmp_path / "run" / training.LINCIR).name == "lincir"
    assert accuracy["class by its training captions"] == 1
    assert accuracy["chance"] == pytest.approx(1 / 3)
    archive = read_archive(root)
    train_files, held_out = (read_archive(root, tmp_path / "run" / f).files for f in ("train.csv", "heldout.csv"))
    assert sorted(train_files + held_out) == sorted(archive.files)
    assert len(held_out) == 6
    assert load_encoder(tmp_path / "run", device="cpu").encode_texts(["red roof"]).shape == (1, 128)


def test_captions_are_fit_for_lincir_before_anything_is_trained(colours, tmp_path, monkeypatch, capsys):
    """One longer than the encoder reads is left out, with a count; where none is left, nothing is trained."""
    root, captions = colours
    learned = []

    def stop(encoder, texts, path):
        learned.extend(texts)
        raise Killed

    monkeypatch.setattr(training, "train", lambda *arguments: None)
    monkeypatch.setattr(training, "load_encoder", lambda folder: None)
    monkeypatch.setattr(training, "train_lincir", stop)
    names = json.loads(captions.read_text())
    captions.write_text(json.dumps({name: ["a roof", "long " * 50] for name in names}))
    with pytest.raises(Killed):
        adapt(root, captions, tmp_path / "run", lincir=True)
    assert set(learned) == {"a roof"}
    assert f"LinCIR learns from {len(learned)} captions of {2 * len(learned)}" in capsys.readouterr().out
    captions.write_text(json.dumps({name: ["of the", "long " * 50, "a *"] for name in names}))
    with pytest.raises(ValueError, match=r"captions.json: add a caption with a keyword, no \*, at most 30 tokens"):
        adapt(root, captions, tmp_path / "other", lincir=True)


def test_split_is_by_class_and_by_seed(colours):
    archive = read_archive(colours[0])
    first, rest = split(archive)
    assert pd.Series(archive.classes).iloc[first].value_counts().eq(8).all()
    assert not set(first) & set(rest)
    np.testing.assert_array_equal(first, split(archive)[0])
    assert not np.array_equal(first, split(archive, seed=1)[0])


def test_captions_are_checked(colours, tmp_path):
    archive = read_archive(colours[0])
    assert sum(not group for group in read_captions(colours[1], archive)) == 1
    image = archive.names[0]
    for content, message in (
        ('["a"]', "expected JSON"),
        ("{", "expected JSON"),
        ("{}", "names no image"),
        (json.dumps({image: ["sea", " "]}), f"{image} needs a list of captions"),
        (json.dumps({image: "sea"}), "found 'sea'"),
        (json.dumps({image: [None]}), rf"bad.json: {image} needs a list of captions, .* found \[None\]"),
    ):
        (tmp_path / "bad.json").write_text(content)
        with pytest.raises(ValueError, match=message):
            read_captions(tmp_path / "bad.json", archive)


def test_bundled_demo_encoder_is_small_and_is_the_one_on_its_card():
    assert sum(file.stat().st_size for file in DEMO_FOLDER.iterdir()) <= 12e6
    digest = hashlib.sha256((DEMO_FOLDER / WEIGHTS).read_bytes()).hexdigest()
    assert digest in (DEMO_FOLDER / "README.md").read_text()


def has_clips_shape(images, texts):
    gap, ratio = gap_and_ratio(spreads(images, texts))
    return gap >= 0.3 and 2 <= ratio <= 4


@pytest.mark.slow
def test_demo_encoder_has_clips_shape_on_the_benchmark_and_on_training_scenes(tmp_path):
    encoder = load_encoder("demo", device="cpu")

    def encode(pictures):
        return encoder.encode_images(torch.stack([encoder.preprocess(picture) for picture in pictures]))

    benchmark = read_patterncom(draw_synthcom(tmp_path / "synthcom", images_per_class=6))
    archive, values = benchmark.archive, encoder.encode_texts(sorted(set(benchmark.labels["value"])))
    assert has_clips_shape(encode([archive.read(i) for i in range(len(archive))]), values)

    scenes = [training_scene(0, i, 128) for i in range(200)]
    features = encode([picture for picture, _ in scenes])
    assert has_clips_shape(features, values)
    assert has_clips_shape(features, encoder.encode_texts(sorted({text for _, texts in scenes for text in texts})))


def test_shape_of_similarities_by_hand():
    images, texts = np.array([[1.0, 0], [0, 1], [0.6, 0.8]]), np.array([[0.0, 1]])
    shapes = spreads(images, texts)
    np.testing.assert_allclose(shapes["mean"], [(0 + 0.6 + 0.8) / 3, (0 + 1 + 0.8) / 3])
    np.testing.assert_allclose(shapes["std"], [np.std([0, 0.6, 0.8]), np.std([0, 1, 0.8])])
    np.testing.assert_allclose(shapes["50%"], [0.6, 0.8])
    gap, ratio = gap_and_ratio(shapes)
    assert gap == pytest.approx(-0.4 / 3)
    assert ratio == pytest.approx(np.std([0, 0.6, 0.8]) / np.std([0, 1, 0.8]))


def test_shape_of_real_similarities_is_as_published(whu_root):
    stored = pd.read_csv(PUBLISHED.with_name("whurs19_similarities.csv"))
    for (encoder, architecture), rows in stored.groupby(["encoder", "architecture"]):
        model = {"clip": "CLIP", "remoteclip": "RemoteCLIP"}[encoder]
        with np.load(whu_root / f"{model}_{architecture}.npz", allow_pickle=False) as file:
            images, texts = file["image_features"].astype(np.float32), file["text_a_satellite_image_of_a"]
        images, texts = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (images, texts))
        assert has_clips_shape(images, texts)
        np.testing.assert_allclose(spreads(images, texts), rows.set_index("pairs").iloc[:, 2:], atol=6e-4)


@pytest.mark.long
def test_adapt_on_real_imagery(ucm_root, tmp_path):
    accuracy = adapt(str(ucm_root), str(ucm_root / "captions.json"), tmp_path / "run", epochs=8)
    assert len(read_archive(ucm_root, tmp_path / "run" / "heldout.csv")) == 420
    assert accuracy["class by its training captions"] > 2 * accuracy["chance"]
