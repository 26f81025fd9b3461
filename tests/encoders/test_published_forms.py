"""Checkpoints in every form that people publish, tiny: from the loopback hub, then loaded without network, and equal to
what the family's own library makes of them."""

import io
import json
import shutil
import zipfile
from dataclasses import replace

import numpy as np
import open_clip
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from test_encoder_families import (
    CLIP,
    SIGLIP,
    hugging_face_folder,
    no_network,  # noqa: F401
    open_clip_folder,
    picture,
)
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.processors import TemplateProcessing

from loopback.world import digest
from rscir_lib.encoders import CONFIG, WEIGHTS, hub, load_encoder

pytestmark = pytest.mark.slow  # real clients against a server on loopback
FAST = {"timeout": 2, "pause": 0.001}
TEXTS = ["a red roof", "A Red Roof.", "Blue  sea"]
NAMES = ["RN50", "ViT-B-32", "ViT-L-14", "ViT-L-14-336", "ViT-H-14"]
MODELS = {  # open_clip's models that the registry names: each in small, of one size of its own
    name: CLIP | {"quick_gelu": "quickgelu" in name, "embed_dim": 16 + 2 * row}
    for row, name in enumerate([*NAMES, *(f"{name}-quickgelu" for name in NAMES)])
}


@pytest.fixture
def world(started, monkeypatch, tmp_path):
    for key, value in (started.environment | {"RSCIR_HOME": str(tmp_path / "home")}).items():
        monkeypatch.setenv(key, value)
    for name, config in MODELS.items():
        monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, name, config)
    started.hub.clear()
    return started


def files_in(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def saved(state):
    data = io.BytesIO()
    torch.save(state, data)
    return data.getvalue()


def without_network(call):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("socket.socket.connect", lambda *arguments: pytest.fail("a request"))
        return call()


def equal(encoder, model, preprocess, tokenizer):
    with torch.inference_mode():
        image = preprocess(picture())[None]
        for ours, theirs in (
            (encoder.encode_images(encoder.preprocess(picture())[None]), model.encode_image(image)),
            (encoder.encode_texts(TEXTS), model.encode_text(tokenizer(TEXTS))),
        ):
            np.testing.assert_allclose(ours, torch.nn.functional.normalize(theirs, dim=-1).numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "architecture"),
    [(name, key) for name, each in hub.PUBLISHED.items() for key, one in each.items() if one.model and one.addresses()],
)
def test_every_name_is_fetched_and_loaded(world, tmp_path, monkeypatch, name, architecture):
    """From a cold start, and equal to open_clip's own reading of the same file with the same model."""
    published = hub.published_as(name, architecture)
    model_name = published.model
    torch.manual_seed(1)
    model = open_clip.create_model(model_name).eval()
    state = model.state_dict()
    if published.file:
        content = saved({"epoch": 32, "state_dict": {f"module.{key}": value for key, value in state.items()}})
        if published.web:
            packed = io.BytesIO()
            with zipfile.ZipFile(packed, "w") as archive:
                archive.writestr("SkyCLIP/epoch_20.pt", content)
            world.web[published.web] = packed.getvalue()
        elif published.drive and "/" not in published.repository:
            world.drive[published.drive] = (published.file, content)
        files = {published.file: content}
        if published.sha256:
            published = replace(published, size=len(content), sha256=digest(content))
            monkeypatch.setitem(hub.PUBLISHED, name, {architecture: published})
    else:
        folder = tmp_path / "made"
        folder.mkdir()
        save_file(state, folder / WEIGHTS)
        (folder / CONFIG).write_text(json.dumps({"model_cfg": MODELS[model_name]}))
        files = files_in(folder)
    world.hub[published.repository, "model"] = files
    world.hub["revisions", published.repository] = {published.revision: b""}
    with pytest.raises(FileNotFoundError, match=f"rscir fetch --only {name} --architecture {architecture}"):
        load_encoder(name, architecture, "cpu")
    hub.fetch(published, **FAST)
    encoder = without_network(lambda: load_encoder(name, architecture, "cpu"))
    preprocess = open_clip.image_transform(32, is_train=False, mean=published.mean, std=published.std)
    equal(encoder, model, preprocess, open_clip.SimpleTokenizer(context_length=8))
    assert encoder.provenance["activation"] == ("QuickGELU" if "quickgelu" in model_name else "GELU")
    weights = published.place if published.file else published.place / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    with pytest.raises(ValueError, match=r"has sha256 .* expected"):
        load_encoder(name, architecture, "cpu")


def shards(path, stem):
    """The one file as two with an index, as save_pretrained leaves a large model."""
    state = load_file(path)
    path.unlink()
    names = {key: f"{stem}-0000{1 + row % 2}-of-00002.safetensors" for row, key in enumerate(state)}
    for name in set(names.values()):
        save_file({key: state[key] for key in state if names[key] == name}, path.parent / name)
    index = {"metadata": {"total_size": 1}, "weight_map": names}
    (path.parent / f"{stem}.safetensors.index.json").write_text(json.dumps(index))


def renamed(path, name):
    path.rename(path.with_name(name))


def wrapped(path, *prefixes):
    save_file({"".join(prefixes) + key: value for key, value in load_file(path).items()}, path)


def as_training_leaves_it(path):
    state = {"epoch": 3, "best": np.float64(0.3), "name": "ours", "state_dict": load_file(path)}
    path.with_name("open_clip_pytorch_model.bin").write_bytes(saved(state))
    path.unlink()


FORMS = {
    "LAION's name": lambda path: renamed(path, "open_clip_pytorch_model.safetensors"),
    "shards": lambda path: shards(path, "open_clip_model"),
    "module.": lambda path: wrapped(path, "module."),
    "_orig_mod.": lambda path: wrapped(path, "_orig_mod."),
    "both": lambda path: wrapped(path, "module.", "_orig_mod."),
    "both, the other way round": lambda path: wrapped(path, "_orig_mod.", "module."),
    "a training checkpoint with a NumPy scalar": as_training_leaves_it,
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("config", [CLIP, SIGLIP], ids=["CLIP", "SigLIP"])
def test_forms_of_open_clips_folders(world, tmp_path, form, config):
    folder = tmp_path / "made"
    model = open_clip_folder(folder, config)
    preprocess = open_clip.create_model_from_pretrained(f"local-dir:{folder}")[1]
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    FORMS[form](folder / WEIGHTS)
    world.hub["owner/name", "model"] = files_in(folder)
    hub.fetch(hub.published_as("hf-hub:owner/name"), **FAST)
    shutil.rmtree(folder)
    encoder = without_network(lambda: load_encoder("hf-hub:owner/name", device="cpu"))
    equal(encoder, model, preprocess, tokenizer)


def test_a_shard_that_is_missing_or_elsewhere(world, tmp_path):
    folder = tmp_path / "made"
    open_clip_folder(folder, CLIP)
    shards(folder / WEIGHTS, "open_clip_model")
    (part := folder / "open_clip_model-00002-of-00002.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=f"{part.name} is missing, one of 2 files of weights"):
        load_encoder(folder, device="cpu")
    index = folder / "open_clip_model.safetensors.index.json"
    index.write_text(index.read_text().replace(part.name, "../x.safetensors"))
    with pytest.raises(ValueError, match="not files beside it"):
        load_encoder(folder, device="cpu")


@pytest.mark.parametrize("kind", ["clip", "siglip"])
@pytest.mark.parametrize("form", ["as saved", "shards", "processor_config.json"])
def test_forms_of_transformers_folders(world, tmp_path, kind, form):
    folder = tmp_path / "made"
    model = hugging_face_folder(folder, kind)
    inputs = transformers.AutoImageProcessor.from_pretrained(folder)(picture(), return_tensors="pt")
    if form == "shards":
        shards(folder / "model.safetensors", "model")
    if form == "processor_config.json":
        processor = json.loads((folder / "preprocessor_config.json").read_text())
        (folder / "processor_config.json").write_text(json.dumps({"image_processor": processor}))
        (folder / "preprocessor_config.json").unlink()
    world.hub["owner/name", "model"] = files_in(folder)
    hub.fetch(hub.published_as("hf-hub:owner/name"), **FAST)
    encoder = without_network(lambda: load_encoder("hf-hub:owner/name", device="cpu"))
    with torch.inference_mode():
        features = model.get_image_features(**inputs)
    features = torch.nn.functional.normalize(getattr(features, "pooler_output", features), dim=-1)
    ours = encoder.encode_images(encoder.preprocess(picture())[None])
    np.testing.assert_allclose(ours, features.numpy(), atol=1e-5)


def test_siglip_2_reads_small_letters(tmp_path):
    """A Gemma tokenizer leaves capitals; the model was trained without."""
    hugging_face_folder(tmp_path, "siglip")
    (tmp_path / "tokenizer_config.json").unlink()
    names = {"<pad>": 0, "<eos>": 1, "<bos>": 2, "<unk>": 3}
    for char in "abR. \u2581":
        names.setdefault(char, len(names))
    made = Tokenizer(models.BPE(vocab=names, merges=[], unk_token="<unk>", fuse_unk=True))
    made.normalizer, made.decoder = normalizers.Replace(" ", "\u2581"), decoders.Fuse()
    made.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    made.post_processor = TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 1)])
    made.save(str(tmp_path / "tokenizer.json"))
    special = {"unk_token": "<unk>", "pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "GemmaTokenizer", **special}))
    encoder = load_encoder(tmp_path, device="cpu")
    small, capitals, stopped = encoder.encode_texts(["a b", "A B", "a b."])
    assert np.array_equal(small, capitals)
    assert not np.allclose(small, stopped), "only SigLIP 1 leaves punctuation out"


def test_a_tokenizer_that_needs_sentencepiece(tmp_path):
    hugging_face_folder(tmp_path, "siglip")
    (tmp_path / "tokenizer.json").rename(tmp_path / "spiece.model")
    with pytest.raises((ImportError, ValueError), match=r"pip install sentencepiece|not a model that transformers"):
        load_encoder(tmp_path, device="cpu")


def test_a_tokenizer_of_sentencepieces_own(tmp_path):
    """SigLIP's folders of 2024 have no tokenizer.json."""
    sentencepiece = pytest.importorskip("sentencepiece", reason="sentencepiece is not installed")
    hugging_face_folder(tmp_path, "siglip")
    (tmp_path / "tokenizer.json").unlink()
    ids = {"unk_id": 0, "pad_id": 1, "bos_id": 2, "eos_id": 3}
    learned, texts = io.BytesIO(), iter(["a red roof", "green field", "blue sea"] * 50)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=texts, model_writer=learned, vocab_size=11, model_type="char", **ids
    )
    (tmp_path / "spiece.model").write_bytes(learned.getvalue())
    config = {"tokenizer_class": "SiglipTokenizer", "model_max_length": 8}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    red, capitals, sea = load_encoder(tmp_path, device="cpu").encode_texts(["a red", "A Red.", "a sea"])
    np.testing.assert_array_equal(red, capitals)
    assert np.abs(red - sea).max() > 0.01


def test_a_folder_that_says_no_mean(tmp_path):
    open_clip_folder(tmp_path, CLIP)
    (tmp_path / CONFIG).write_text(json.dumps({"model_cfg": CLIP}))
    with pytest.warns(UserWarning, match="has no preprocess_cfg with mean and std: pixels are normalised by OpenAI's"):
        load_encoder(tmp_path, device="cpu")


def test_a_file(world, tmp_path):
    model = open_clip.create_model("ViT-B-32")
    (tmp_path / "mine.pt").write_bytes(saved(model.state_dict()))
    with pytest.raises(ValueError, match=r"unknown architecture of .*mine\.pt, the name of its model in open_clip"):
        load_encoder(tmp_path / "mine.pt", device="cpu")
    with pytest.raises(ValueError, match="does not fit ViT-L-14"):
        load_encoder(tmp_path / "mine.pt", "ViT-L-14", "cpu")
    with pytest.warns(UserWarning, match="normalised by OpenAI's mean and std"):
        encoder = load_encoder(tmp_path / "mine.pt", "ViT-B-32", "cpu")
    equal(
        encoder,
        model.eval(),
        open_clip.image_transform(32, is_train=False),
        open_clip.SimpleTokenizer(context_length=8),
    )


def test_open_clips_tag(world, tmp_path):
    folder = tmp_path / "made"
    folder.mkdir()
    model = open_clip.create_model("ViT-B-32").eval()
    save_file(model.state_dict(), folder / WEIGHTS)
    stats = {"mean": [0.5] * 3, "std": [0.5] * 3}
    (folder / CONFIG).write_text(json.dumps({"model_cfg": MODELS["ViT-B-32"], "preprocess_cfg": stats}))
    tag = "ViT-B-32/laion2b_s34b_b79k"
    with pytest.raises(FileNotFoundError, match=f"{tag} is missing: run `rscir fetch --only {tag}`"):
        load_encoder(tag, device="cpu")
    world.hub["laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "model"] = files_in(folder)
    hub.fetch(hub.published_as(tag), **FAST)
    encoder = without_network(lambda: load_encoder(tag, device="cpu"))
    preprocess = open_clip.image_transform(32, is_train=False, mean=(0.5,) * 3, std=(0.5,) * 3)
    equal(encoder, model, preprocess, open_clip.SimpleTokenizer(context_length=8))
    assert encoder.provenance["encoder"] == tag


def test_from_photographs_to_an_explorer_in_one_command(world, tmp_path, capsys):
    """The weights are said and fetched, once; the second start asks nobody."""
    from rscir_lib.apps.explorer.opening import open_explorer

    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(3):
        picture().save(pictures / f"{number}.png")
    made = tmp_path / "made"
    made.mkdir()
    model = open_clip.create_model("ViT-B-32-quickgelu")
    save_file(model.state_dict(), made / WEIGHTS)
    (made / CONFIG).write_text(json.dumps({"model_cfg": MODELS["ViT-B-32-quickgelu"]}))
    world.hub["timm/vit_base_patch32_clip_224.openai", "model"] = files_in(made)
    given = {"DATASET_ROOT": str(pictures), "ENCODER": "clip-openai", "OUTPUT_ROOT": str(tmp_path / "runs")}
    open_explorer(given)
    assert (
        "from https://huggingface.co/timm/vit_base_patch32_clip_224.openai (licence: mit) to" in capsys.readouterr().out
    )
    without_network(lambda: open_explorer(given))
    open_explorer(given | {"ENCODER": "demo"})
    assert "KNOWS DRAWN SCENES ALONE" in capsys.readouterr().out
    world.hub["owner/name", "model"] = files_in(made)
    with pytest.warns(UserWarning, match="has no preprocess_cfg"):
        open_explorer(given | {"ENCODER": "hf-hub:owner/name"})
