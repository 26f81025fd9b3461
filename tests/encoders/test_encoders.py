"""Encoders: checkpoints of the authors' two formats, made on the spot with random weights."""

import os
import pickle
import shutil
from typing import ClassVar

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
from torchvision.transforms.functional import pil_to_tensor

from rscir_lib.benchmarks.patterncom import read_patterncom
from rscir_lib.encoders import DEMO_FOLDER, ENCODERS, WEIGHTS, load_encoder, unknown_words
from rscir_lib.encoders.hub import PUBLISHED
from rscir_lib.evaluation import evaluate
from rscir_lib.features import extract_features, read_features
from rscir_lib.search import search

# RSCIR_ARCHITECTURES=ViT-L-14 tries the 1.7 GB model too
ARCHITECTURES = os.environ.get("RSCIR_ARCHITECTURES", "RN50 ViT-B-32").split()


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory):
    """A models root with random weights of every architecture tried, as .bin and wrapped as .pt."""
    root = tmp_path_factory.mktemp("models")
    for architecture in ARCHITECTURES:
        torch.manual_seed(0)
        state = open_clip.CLIP(**open_clip.get_model_config(architecture)).state_dict()
        torch.save(state, root / f"CLIP-{architecture}.bin")
        wrapped = {"state_dict": {f"module.{key}": value for key, value in state.items()}}
        torch.save(wrapped, root / f"RemoteCLIP-{architecture}.pt")
    return root


@pytest.fixture(scope="module")
def demo():
    return load_encoder("demo", device="cpu")


def pictures(encoder, n=4):
    rng = np.random.default_rng(1)
    images = [Image.fromarray(rng.integers(0, 256, (256, 256, 3), dtype=np.uint8)) for _ in range(n)]
    return torch.stack([encoder.preprocess(image) for image in images])


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_authors_formats(checkpoints, architecture):
    clip, remote = (load_encoder(name, architecture, "cpu", models_root=checkpoints) for name in ("clip", "remoteclip"))
    batch = pictures(clip)
    assert batch.shape == (4, 3, 224, 224)
    images, texts = clip.encode_images(batch), clip.encode_texts(["oval", "dense"])
    assert images.shape == (4, clip.dim)
    assert texts.shape == (2, clip.dim)
    assert images.dtype == texts.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(np.r_[images, texts], axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(remote.encode_images(batch), images, atol=1e-6)
    assert clip.provenance["activation"] == "GELU"
    assert clip.provenance["weights"] == f"CLIP-{architecture}.bin"
    assert all(isinstance(value, str) for value in clip.provenance.values())


@pytest.mark.slow
def test_activation_belongs_to_the_checkpoint(checkpoints):
    architecture = ARCHITECTURES[-1]
    state = torch.load(checkpoints / f"CLIP-{architecture}.bin", weights_only=True)
    save_file(state, checkpoints / f"OpenAI-{architecture}.safetensors")
    plain = load_encoder("clip", architecture, "cpu", models_root=checkpoints)
    quick = load_encoder("clip-openai", architecture, "cpu", models_root=checkpoints)
    assert quick.provenance["activation"] == "QuickGELU"
    assert np.abs(plain.encode_texts(["oval"]) - quick.encode_texts(["oval"])).max() > 1e-4


def test_normalisation_belongs_to_the_checkpoint():
    """As open_clip lists them."""
    for architecture, tag in {"ViT-L-14": "laion2b_s32b_b82k", "ViT-B-32": "laion2b_s34b_b79k"}.items():
        ours, theirs = PUBLISHED["clip-laion2b"][architecture], open_clip.get_pretrained_cfg(architecture, tag)
        assert (tuple(ours.mean), tuple(ours.std)) == (tuple(theirs["mean"]), tuple(theirs["std"]))


def test_wrong_architecture_is_named(tmp_path, monkeypatch):
    small = open_clip.get_model_config("ViT-B-32")
    for tower in ("vision_cfg", "text_cfg"):
        small[tower] |= {"layers": 1, "width": 64}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-B-32", small)
    torch.save(open_clip.create_model("ViT-B-32").state_dict(), tmp_path / "CLIP-RN50.bin")
    with pytest.raises(ValueError, match=r"does not fit RN50: positional_embedding .*architecture='ViT-B-32'"):
        load_encoder("clip", "RN50", models_root=tmp_path)


def test_missing_and_unexpected_keys_are_named(tmp_path):
    shutil.copytree(DEMO_FOLDER, tmp_path, dirs_exist_ok=True)
    state = load_file(tmp_path / WEIGHTS)
    save_file(state | {"extra": torch.zeros(1)}, tmp_path / WEIGHTS)
    with pytest.raises(ValueError, match="extra is not part of the model"):
        load_encoder(str(tmp_path))
    save_file(state | {"ln_final.bias": state["ln_final.bias"].long()}, tmp_path / WEIGHTS)
    with pytest.raises(ValueError, match=r"ln_final.bias holds whole numbers, the model wants floating point"):
        load_encoder(str(tmp_path))
    save_file({key: value for key, value in state.items() if key != "ln_final.bias"}, tmp_path / WEIGHTS)
    with pytest.raises(ValueError, match=r"ln_final.bias is missing from the file"):
        load_encoder(str(tmp_path))


class Evil:
    def __reduce__(self):
        return os.mkdir, ("owned",)


@pytest.mark.parametrize("dump", [torch.save, lambda thing, path: path.write_bytes(pickle.dumps(thing, 2))])
def test_pickled_code_is_refused(tmp_path, monkeypatch, dump):
    monkeypatch.chdir(tmp_path)
    dump({"weight": Evil()}, tmp_path / "CLIP-RN50.bin")
    with pytest.raises(ValueError, match=r"CLIP-RN50.bin is refused: it must hold tensors only"):
        load_encoder("clip", "RN50", models_root=tmp_path)
    assert not (tmp_path / "owned").exists()


@pytest.mark.slow
def test_few_bytes_do_not_fill_the_memory(tmp_path):
    with torch.device("meta"):
        shapes = open_clip.CLIP(**open_clip.get_model_config("RN50")).state_dict()
    state = {key: torch.zeros((), dtype=value.dtype).expand(value.shape) for key, value in shapes.items()}
    torch.save(state, tmp_path / "CLIP-RN50.bin")
    with pytest.raises(ValueError, match=r"RN50.bin does not fit RN50: it has \d+ bytes for a model of \d+ weights"):
        load_encoder("clip", "RN50", models_root=tmp_path)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"RemoteCLIP-ViT-L-14.pt is missing: run `rscir fetch --only remoteclip --arch"
    ):
        load_encoder("remoteclip", models_root=tmp_path)


def test_demo_and_its_folder_are_one(demo):
    by_path = load_encoder(str(DEMO_FOLDER), device="cpu")
    assert by_path.name == DEMO_FOLDER.name
    np.testing.assert_array_equal(demo.encode_texts(["oval"]), by_path.encode_texts(["oval"]))
    assert by_path.provenance["weights_sha256"] == demo.provenance["weights_sha256"]


def test_a_folder_without_weights_says_so(tmp_path):
    (tmp_path / "open_clip_config.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match=WEIGHTS):
        load_encoder(str(tmp_path))


def test_features_do_not_depend_on_the_batch(demo):
    batch, texts = pictures(demo, 5), ["two", "a red airplane", "dense"]
    one_by_one = np.concatenate([demo.encode_images(image[None]) for image in batch])
    np.testing.assert_allclose(demo.encode_images(batch), one_by_one, atol=1e-5)
    alone = np.concatenate([demo.encode_texts([text]) for text in texts])
    np.testing.assert_allclose(demo.encode_texts(texts, batch_size=2), alone, atol=1e-5)


def test_float32_is_not_rounded_on_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    load_encoder("demo", device="cpu")
    assert not torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.slow
def test_low_precision_stays_close(demo, precision):
    low = load_encoder("demo", device="cpu", precision=precision)
    batch = pictures(demo)
    features = low.encode_images(batch)
    assert features.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=1e-6)
    assert ((features * demo.encode_images(batch)).sum(axis=1) > 0.98).all()
    assert low.provenance["precision"] == precision


def test_words_it_has_never_met(demo):
    assert unknown_words(demo, "a red airplane") == []
    assert unknown_words(demo, "a red zeppelin!") == ["zeppelin"]


def test_an_encoder_of_ones_own(tmp_path, monkeypatch):
    class Tint:  # the mean colour of an image; of a text, the colours that it names
        name = architecture = "tint"
        dim, device, precision = 3, torch.device("cpu"), "float32"
        provenance: ClassVar = {"encoder": "tint", "weights_sha256": "no weights"}

        def preprocess(self, image):
            return pil_to_tensor(image.resize((4, 4))).float()

        def encode_images(self, batch):
            return F.normalize(batch.mean((2, 3)), dim=1).numpy()

        def encode_texts(self, texts):
            return np.array([[colour in text for colour in ("red", "lime", "blue")] for text in texts], np.float32)

    monkeypatch.setitem(ENCODERS, "tint", lambda *_: Tint())

    labels = []
    for i, colour in enumerate(["red", "lime", "blue"] * 4):
        path = tmp_path / "images" / "roof" / f"roof{i:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 9), colour).save(path)
        labels.append(f"{path.name},color,{colour}\n")
    (tmp_path / "PatternCom").mkdir()
    (tmp_path / "PatternCom" / "color.csv").write_text("".join(labels))
    encoder = load_encoder("tint")
    benchmark = read_patterncom(tmp_path, ["color"])
    archive = benchmark.archive
    features = read_features(extract_features(archive, encoder, tmp_path / "store"), archive, encoder)
    rows = evaluate(benchmark, features, encoder.encode_texts, methods=["text"])
    assert len(rows) == 24
    assert (rows["AP"] == 1).all()
    hits = search(features, 0, "blue", lam=1, top=4, encoder=encoder, archive=archive)
    assert sorted(hits.table["position"]) == [2, 5, 8, 11]
