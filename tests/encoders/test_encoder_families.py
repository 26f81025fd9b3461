"""Encoders beyond plain CLIP: open_clip's further families, and Hugging Face's own format, all tiny and made here."""

import json
import socket
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import open_clip
import pytest
import torch
from open_clip.coca_model import CoCa
from open_clip.model import CustomTextCLIP
from PIL import Image
from safetensors.torch import load_file, save_file

from encoder_folders import CONTEXT, WORDS, hugging_face_folder, word_tokenizer
from rscir_lib.encoders import CONFIG, WEIGHTS, load_encoder, unknown_words
from rscir_lib.encoders.checkpoints import LIMITS
from rscir_lib.encoders.hub import Published
from rscir_lib.encoders.openclip import model_tensors, read_openclip_config
from rscir_lib.encoders.towers import TwoTowers

transformers = pytest.importorskip("transformers", reason="the extra `transformers` is not installed")
tokenizers = pytest.importorskip("tokenizers", reason="the extra `transformers` is not installed")

TEXT = {"context_length": CONTEXT, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
VISION = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8}
SIGLIP = {  # as timm/ViT-B-16-SigLIP has it, in small
    "embed_dim": 64,
    "init_logit_bias": -10,
    "custom_text": True,
    "vision_cfg": {"image_size": 160, "timm_model_name": "test_vit", "timm_pool": "token", "timm_proj": "none"},
    "text_cfg": TEXT
    | {
        "vocab_size": len(WORDS) + 4,
        "hf_tokenizer_name": "timm/ViT-B-16-SigLIP",
        "tokenizer_kwargs": {"clean": "canonicalize"},
        "no_causal_mask": True,
        "proj_bias": True,
        "pool_type": "last",
        "norm_kwargs": {"eps": 1e-6},
    },
}
COCA = {
    "embed_dim": 32,
    "custom_text": True,
    "vision_cfg": VISION | {"attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True},
    "text_cfg": TEXT | {"embed_cls": True, "output_tokens": True},
    "multimodal_cfg": TEXT | {"attn_pooler_heads": 2},
}
CLIP = {"embed_dim": 32, "quick_gelu": True, "vision_cfg": VISION, "text_cfg": TEXT}


def test_mean_and_std_that_nobody_names_are_openais():
    assert Published("").mean == open_clip.constants.OPENAI_DATASET_MEAN
    assert Published("").std == open_clip.constants.OPENAI_DATASET_STD


@pytest.fixture
def no_network(monkeypatch):
    """Every way to a connection counts, and fails."""
    asked = []

    def refuse(*arguments, **options):
        asked.append(arguments)
        raise OSError("no network in this test")

    for owner, name in (
        (socket.socket, "connect"),
        (socket.socket, "connect_ex"),
        (socket, "create_connection"),
        (socket, "getaddrinfo"),
        (urllib.request, "urlopen"),
    ):
        monkeypatch.setattr(owner, name, refuse)
    yield asked
    assert asked == []


def open_clip_folder(folder, config, mean=(0.5, 0.5, 0.5)):
    """A folder as the hub hands it out, with random weights."""
    torch.manual_seed(0)
    parts = {key: value for key, value in config.items() if key != "custom_text"}
    kind = CoCa if "multimodal_cfg" in config else CustomTextCLIP if "custom_text" in config else open_clip.CLIP
    model = kind(**json.loads(json.dumps(parts))).eval()
    folder.mkdir(parents=True, exist_ok=True)
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, folder / WEIGHTS)
    preprocess = {"mean": list(mean), "std": [0.25, 0.25, 0.25], "interpolation": "bicubic", "resize_mode": "squash"}
    (folder / CONFIG).write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}))
    if config["text_cfg"].get("hf_tokenizer_name"):
        word_tokenizer().save_pretrained(folder)
    return model


def picture():
    return Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 44, 3), dtype=np.uint8))


@pytest.mark.long
def test_every_config_of_open_clip(no_network, capsys, monkeypatch):
    """Two layers of each, which are built as all are."""
    kinds = Counter()
    for name in open_clip.list_models():
        config = open_clip.get_model_config(name)
        for part in config.values():
            if isinstance(part, dict) and isinstance(part.get("layers"), int):
                part["layers"] = min(part["layers"], 2)
        monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, name, config)
        tower = config["text_cfg"].get("hf_model_name")
        if tower:
            with pytest.raises(ValueError, match=f"its text tower '{tower}' is on the hub, not on this machine; use "):
                model_tensors(name)
            kinds["text tower on the hub: refused"] += 1
            continue
        tensors = model_tensors(name)
        custom = "text.token_embedding.weight" in tensors
        assert custom or "token_embedding.weight" in tensors, name
        kinds["CoCa" if "multimodal_cfg" in config else "custom text tower" if custom else "CLIP"] += 1
    with capsys.disabled():
        print(f"\nopen_clip's {kinds.total()} configs:", dict(kinds))
    assert kinds.total() == len(open_clip.list_models()) >= 144
    assert kinds["text tower on the hub: refused"] <= 10


FAMILIES = {
    "demo": lambda folder: "demo",
    "clip": lambda folder: open_clip_folder(folder, CLIP),
    "coca": lambda folder: open_clip_folder(folder, COCA),
    "siglip": lambda folder: open_clip_folder(folder, SIGLIP),
    "transformers clip": lambda folder: hugging_face_folder(folder, "clip"),
    "transformers siglip": lambda folder: hugging_face_folder(folder, "siglip"),
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.slow
def test_threads_get_the_features_of_their_own_texts(family, tmp_path):
    """Four ask at once, as the explorer's visitors do; a tokenizer that is shared may keep the padding of another."""
    made = FAMILIES[family](tmp_path / "mine")
    encoder = load_encoder(made if made == "demo" else tmp_path / "mine", device="cpu")
    asked = [["red"], ["a red roof"], ["blue", "a green field"], ["a red roof blue sea"]]
    expected = [encoder.encode_texts(texts) for texts in asked]
    pixels = encoder.preprocess(picture())

    def ask(nth):
        for _ in range(40):
            np.testing.assert_allclose(encoder.encode_texts(asked[nth]), expected[nth], atol=1e-5)
            assert unknown_words(encoder, "red roof zebra") == unknown
        assert torch.equal(encoder.preprocess(picture()), pixels)
        return nth

    unknown = unknown_words(encoder, "red roof zebra")
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask, range(4))) == [0, 1, 2, 3]


@pytest.mark.slow
def test_every_family_is_asked_from_threads(tmp_path):
    kinds = set()
    for family, make in FAMILIES.items():
        made = make(tmp_path / family)
        kinds.add(type(load_encoder(made if made == "demo" else tmp_path / family, device="cpu")))
    assert kinds == set(TwoTowers.__subclasses__())


@pytest.mark.slow
def test_open_clips_own_configs_are_in_bounds(tmp_path):
    for name in open_clip.list_models():
        config = open_clip.get_model_config(name)
        if "hf_model_name" not in config["text_cfg"]:
            (tmp_path / CONFIG).write_text(json.dumps({"model_cfg": config}))
            assert read_openclip_config(tmp_path / CONFIG)["model_cfg"] == config


@pytest.mark.parametrize("config", [CLIP, COCA, SIGLIP], ids=["clip", "coca", "siglip"])
@pytest.mark.slow
def test_open_clips_families(config, tmp_path, no_network):
    model = open_clip_folder(tmp_path / "mine", config)
    encoder = load_encoder(tmp_path / "mine", device="cpu")
    batch, texts = encoder.preprocess(picture())[None], ["red roof", "a green field"]
    assert batch.shape[2:] == (config["vision_cfg"]["image_size"],) * 2
    images, words = encoder.encode_images(batch), encoder.encode_texts(texts)
    assert images.shape == (1, encoder.dim)
    assert words.shape == (2, encoder.dim)
    assert words.dtype == images.dtype == np.float32
    with torch.inference_mode():
        expected = (
            model.encode_image(batch, normalize=True),
            model.encode_text(encoder.tokenizer(texts), normalize=True),
        )
    np.testing.assert_allclose(images, expected[0], atol=1e-5)
    np.testing.assert_allclose(words, expected[1], atol=1e-5)
    assert encoder.provenance["mean"] == "(0.5, 0.5, 0.5)"
    assert encoder.provenance["activation"] == ("QuickGELU" if config is CLIP else "GELU")
    if config is COCA:  # its pooling stays in float32, and open_clip doesn't convert what it gets
        with pytest.raises(ValueError, match="can't encode an image and a text in bfloat16"):
            load_encoder(tmp_path / "mine", device="cpu", precision="bfloat16")
        return
    low = load_encoder(tmp_path / "mine", device="cpu", precision="bfloat16")
    assert (low.encode_images(batch) * images).sum() > 0.98


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_hugging_faces_format(kind, tmp_path, no_network):
    model = hugging_face_folder(tmp_path / "mine", kind)
    encoder = load_encoder(tmp_path / "mine", device="cpu")
    batch, texts = encoder.preprocess(picture())[None], ["red roof", "a green field"]
    inputs = word_tokenizer()(texts, padding="max_length", return_tensors="pt")
    if kind == "siglip":
        inputs.pop("attention_mask")
    inputs.pop("token_type_ids", None)
    with torch.inference_mode():
        expected = model(pixel_values=batch, **inputs)
    np.testing.assert_allclose(encoder.encode_images(batch), expected.image_embeds, atol=1e-6)
    np.testing.assert_allclose(encoder.encode_texts(texts), expected.text_embeds, atol=1e-6)
    assert (encoder.architecture, encoder.dim) == (kind, 16)
    assert encoder.provenance["weights_sha256"]
    assert encoder.provenance["activation"] == {"clip": "quick_gelu", "siglip": "gelu_pytorch_tanh"}[kind]
    assert unknown_words(encoder, "a red giraffe") == ["giraffe"]
    low = load_encoder(tmp_path / "mine", device="cpu", precision="bfloat16")
    assert (low.encode_images(batch) * encoder.encode_images(batch)).sum() > 0.98


@pytest.mark.parametrize("make", ["clip", "siglip", SIGLIP], ids=["clip", "siglip", "open_clip siglip"])
@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "at least one text"),
        ("red", "at least one text"),
        (None, "at least one text"),
        (["red", None], r"texts\[1\] is None, not a string"),
        (["red", "  "], r"texts\[1\] is blank"),
        (["red " * (CONTEXT - 1)], rf"texts\[0\] has {CONTEXT + 1} tokens, 'mine' reads {CONTEXT}"),
        (["x" * 10**6], r"texts\[0\] has 1000000 characters"),
    ],
)
@pytest.mark.slow
def test_texts_that_no_tokenizer_can_read(make, texts, message, tmp_path):
    (hugging_face_folder if isinstance(make, str) else open_clip_folder)(tmp_path / "mine", make)
    with pytest.raises(ValueError, match=message):
        load_encoder(tmp_path / "mine", device="cpu").encode_texts(texts)


def changed(path, **changes):
    """Rewrite a JSON file: dotted keys, dots as __."""
    config = json.loads(path.read_text())
    for key, value in changes.items():
        *parents, last = key.split("__")
        part = config
        for parent in parents:
            part = part[parent]
        part[last] = value
    path.write_text(json.dumps(config))


OPEN_CLIP_CONFIGS = [
    ({"model_cfg__vision_cfg__timm_model_pretrained": True}, "timm_model_pretrained is 'True', which would be fetched"),
    ({"model_cfg__text_cfg__hf_model_name": "roberta-base"}, "hf_model_name is 'roberta-base', which would be fetched"),
    ({"model_cfg__text_cfg__hf_tokenizer_name": "t5"}, r"tokenizer.json is missing: .* 't5'"),
    ({"model_cfg__text_cfg__tokenizer_kwargs": {"trust_remote_code": True}}, "unknown key 'trust_remote_code'"),
    ({"model_cfg__vision_cfg__timm_model_name": "hf-hub:a/b"}, "timm_model_name is 'hf-hub:a/b', no model of timm's"),
    ({"model_cfg__vision_cfg__layers": 10**7}, r"vision_cfg.layers is '10000000'; .* at most 128"),
    ({"model_cfg__vision_cfg__layers": [1, 1, 10**7, 1]}, r"vision_cfg.layers is '10000000'; .* at most 128"),
    ({"model_cfg__vision_cfg__layers": [1] * 99}, r"vision_cfg.layers is '\[1, 1, .* above 0"),
    ({"model_cfg__vision_cfg__width": 10**6}, "vision_cfg.width is '1000000'; .* at most 8192"),
    ({"model_cfg__vision_cfg__image_size": 10**5}, "vision_cfg.image_size is '100000'; .* at most 2048"),
    ({"model_cfg__vision_cfg__image_size": -32}, "vision_cfg.image_size is '-32'; it is a number above 0"),
    ({"model_cfg__vision_cfg__patch_size": 0}, "vision_cfg.patch_size is '0'; it is a number above 0"),
    ({"model_cfg__vision_cfg__width": "wide"}, "vision_cfg.width is 'wide'; it is a number above 0"),
    ({"model_cfg__vision_cfg__width": True}, "vision_cfg.width is 'True'; it is a number above 0"),
    ({"model_cfg__vision_cfg__width": float("nan")}, "vision_cfg.width is 'nan'; .* at most"),
    ({"model_cfg__vision_cfg__width": 40}, "does not fit open_clip_config.json|the config makes no model"),
    ({"model_cfg__vision_cfg__pool_type": "x" * 1000}, "the config makes no model"),
    ({"model_cfg__vision_cfg__download": "yes"}, "vision_cfg has the unknown key 'download'"),
    ({"model_cfg__vision_cfg": 3}, "vision_cfg holds '3', not keys and values"),
    ({"model_cfg__text_cfg__vocab_size": 10**9}, "text_cfg.vocab_size is '1000000000'; .* at most 2000000"),
    (
        {"model_cfg__text_cfg__vocab_size": 50000},
        "does not fit open_clip_config.json: token_embedding.weight has shape",
    ),
    ({"model_cfg__text_cfg__context_length": 10**6}, "text_cfg.context_length is '1000000'; .* at most 4096"),
    ({"model_cfg__text_cfg__heads": 3}, "the config makes no model"),
    ({"model_cfg__embed_dim": 10**6}, "embed_dim is '1000000'; .* at most 8192"),
    ({"model_cfg__embed_dim": None}, "the config makes no model"),
    ({"model_cfg": []}, r"model_cfg holds '\[\]', not keys and values"),
    ({"model_cfg": {"embed_dim": 3}}, "lacks model_cfg.vision_cfg"),
    ({"preprocess_cfg": "none"}, "preprocess_cfg holds 'none'"),
    ({"preprocess_cfg__mean": [0.5]}, r"preprocess_cfg.mean is \[0.5\]; it is three numbers"),
    ({"preprocess_cfg__mean": ["a", "b", "c"]}, r"preprocess_cfg.mean is .*; it is three numbers"),
    (
        {"preprocess_cfg__std": [0.5, 0.5, 0]},
        r"preprocess_cfg.std is \[0.5, 0.5, 0\]; it is three numbers, std above 0",
    ),
    ({"preprocess_cfg__interpolation": "random"}, "unknown preprocess_cfg.interpolation in .*: 'random'"),
    ({"hub": "a/b"}, "has the unknown key 'hub'"),
]


@pytest.mark.parametrize(
    ("changes", "message"), OPEN_CLIP_CONFIGS, ids=[message[:40] for _, message in OPEN_CLIP_CONFIGS]
)
@pytest.mark.slow
def test_open_clip_configs_are_bounded(changes, message, tmp_path, no_network):
    open_clip_folder(tmp_path / "mine", CLIP)
    changed(tmp_path / "mine" / CONFIG, **changes)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        load_encoder(tmp_path / "mine", device="cpu")
    assert str(tmp_path / "mine") in str(caught.value)


@pytest.mark.parametrize("content", ["", "{", "[1]", "3", "null", "[" * 10**5, " " * 2**21])
@pytest.mark.parametrize("file", [CONFIG, "config.json"])
def test_a_config_that_is_no_config(content, file, tmp_path, no_network):
    (hugging_face_folder if file == "config.json" else open_clip_folder)(
        tmp_path / "mine", "clip" if file == "config.json" else CLIP
    )
    (tmp_path / "mine" / file).write_text(content)
    with pytest.raises(ValueError, match=rf"{file}.*(is damaged|has 2097152 bytes)"):
        load_encoder(tmp_path / "mine", device="cpu")


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("config.json", {"model_type": "bert"}, "unknown model_type in .*config.json: 'bert'; one of clip, siglip"),
        ("config.json", {"auto_map": {"AutoModel": "evil.Evil"}}, "auto_map .* names code"),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["evil.Evil", None]}}, "auto_map .* names code"),
        ("preprocessor_config.json", {"auto_map": {"AutoImageProcessor": "evil.Evil"}}, "auto_map .* names code"),
        (
            "config.json",
            {"text_config__num_hidden_layers": 10**7},
            "_layers is '10000000'; .* at most 128",
        ),
        ("config.json", {"vision_config__hidden_size": 10**7}, "hidden_size is '10000000'; .* above 0, at most 8192"),
        ("config.json", {"text_config__vocab_size": -1}, "vocab_size is '-1'; .* above 0, at most"),
        ("config.json", {"vision_config__hidden_size": 32}, "does not fit"),
        (
            "preprocessor_config.json",
            {"size": {"shortest_edge": 10**6}},
            "shortest_edge is '1000000'; .* at most 2048",
        ),
    ],
)
def test_hugging_face_folders_are_bounded(file, changes, message, tmp_path, no_network):
    hugging_face_folder(tmp_path / "mine", "clip")
    changed(tmp_path / "mine" / file, **changes)
    with pytest.raises(ValueError, match=message) as caught:
        load_encoder(tmp_path / "mine", device="cpu")
    assert str(tmp_path / "mine") in str(caught.value)


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json", "preprocessor_config.json"])
def test_a_missing_file_of_a_hugging_face_folder(file, tmp_path):
    hugging_face_folder(tmp_path / "mine", "siglip")
    (tmp_path / "mine" / file).unlink()
    with pytest.raises(FileNotFoundError, match=f"{file} is missing"):
        load_encoder(tmp_path / "mine", device="cpu")


def test_missing_weights_are_not_made_up(tmp_path):
    hugging_face_folder(tmp_path / "mine", "clip")
    state = load_file(tmp_path / "mine" / "model.safetensors")
    save_file(dict(list(state.items())[1:]), tmp_path / "mine" / "model.safetensors")
    with pytest.raises(ValueError, match="is missing from the file"):
        load_encoder(tmp_path / "mine", device="cpu")


def test_weights_that_are_not_finite(tmp_path):
    open_clip_folder(tmp_path / "mine", CLIP)
    state = load_file(tmp_path / "mine" / WEIGHTS)
    state["visual.proj"][0, 0] = float("nan")
    save_file(state, tmp_path / "mine" / WEIGHTS)
    with pytest.raises(ValueError, match="an image gives no 32 finite numbers"):
        load_encoder(tmp_path / "mine", device="cpu")


def test_bounds_leave_room_for_open_clips_own():
    assert LIMITS["layers"] >= 2 * 56
    assert LIMITS["image_size"] >= 2 * 512
