"""open_clip's models: CLIP, SigLIP, CoCa and custom text towers, from a checkpoint or a folder of one's own."""

import copy
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import numpy as np
import open_clip
import timm
import torch
from open_clip.coca_model import CoCa, MultimodalCfg
from open_clip.constants import INCEPTION_MEAN, INCEPTION_STD, OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.model import CLIPTextCfg, CLIPVisionCfg, CustomTextCLIP
from open_clip.tokenizer import HFTokenizer
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from torch.overrides import TorchFunctionMode

from rscir_lib.encoders.base import PRECISIONS, check_texts, normalised, offline, one_of, try_out, versions
from rscir_lib.encoders.checkpoints import check_size, misfit, read_tensors, sha256_of
from rscir_lib.storage.project import DATA

DEMO_FOLDER = DATA / "demo_encoder"
WEIGHTS = "open_clip_model.safetensors"  # the names open_clip's "local-dir:" scheme looks for
CONFIG = "open_clip_config.json"


@dataclass(frozen=True)
class OpenClipEncoder:
    """An `Encoder` of open_clip's: model, tokenizer, and which tokens it has ever met."""

    name: str
    architecture: str
    dim: int
    device: torch.device
    precision: str
    preprocess: Callable
    provenance: dict[str, str]
    model: torch.nn.Module = field(repr=False)
    tokenizer: Callable = field(repr=False)
    met: np.ndarray = field(repr=False)  # token -> whether its row holds anything; all True but for our own training
    batch_size: int | None = None  # what the image tower is compiled for (`compile_tower`)

    def __getstate__(self) -> dict:
        if self.batch_size:  # torch would leave the compiled code behind, and say nothing
            raise TypeError("a compiled encoder can't be sent to another process: send the plain one")
        return self.__dict__

    @property
    def dtype(self) -> torch.dtype:
        """Of the towers' products; some small weights stay float32 whatever it is."""
        return getattr(torch, self.precision)

    @torch.inference_mode()
    def encode_images(self, batch: torch.Tensor) -> np.ndarray:
        """Features of preprocessed images (B, 3, H, W) -> (B, dim)."""
        batch = batch.to(self.device, non_blocking=True)  # so pinned memory is copied as it is
        batch = batch.to(self.dtype, memory_format=torch.channels_last)  # as convolutions take it
        if self.batch_size is None:
            return normalised(self.model.encode_image(batch))
        return np.concatenate([self._compiled(some) for some in batch.split(self.batch_size)])

    def _compiled(self, batch: torch.Tensor) -> np.ndarray:
        """A batch of another size would be compiled for anew: it is filled up."""
        filled = torch.nn.functional.pad(batch, (0, 0, 0, 0, 0, 0, 0, self.batch_size - len(batch)))
        return normalised(self.model.encode_image(filled)[: len(batch)])

    @torch.inference_mode()
    def encode_texts(self, texts: list[str], batch_size: int = 256) -> np.ndarray:
        """Features of texts -> (len(texts), dim).

        Raises ValueError for no text, a blank text, or one longer than the context, which would be cut.
        """
        texts = check_texts(texts, self._tokens, _ends(self.tokenizer), self.tokenizer.context_length, self.name)
        batches = [self.tokenizer(texts[i : i + batch_size]) for i in range(0, len(texts), batch_size)]
        return np.concatenate([normalised(self.model.encode_text(b.to(self.device))) for b in batches])

    def unknown_words(self, text: str) -> list[str]:
        """The words of a text with a token that training never met: they carry nothing, or only a part."""
        if self.met.all() or isinstance(self.tokenizer, HFTokenizer):
            return []
        words = re.findall(r"\w+", self.tokenizer.clean_fn(text))
        return [word for word in words if not self.met[self._tokens(word)].all()]

    def _tokens(self, text: str) -> list[int]:
        """Without start and end."""
        if isinstance(self.tokenizer, HFTokenizer):
            clean = self.tokenizer.clean_fn(text)
            return self.tokenizer.tokenizer(clean, add_special_tokens=False, verbose=False).input_ids
        return self.tokenizer.encode(text)


def _ends(tokenizer: Callable) -> int:
    """Tokens that stand around a text."""
    if not isinstance(tokenizer, HFTokenizer):
        return 2
    return 3 if tokenizer.tokenizer_mode == "clips" else tokenizer.tokenizer.num_special_tokens_to_add()


@dataclass(frozen=True)
class Entry:
    """An encoder whose weights are one file under the models root.

    The activation (GELU or QuickGELU) and mean/std belong to the checkpoint, not to the architecture's name.
    """

    models: dict[str, str]  # architecture -> open_clip's model name
    file: str  # under the models root, {architecture} filled in
    source: str
    licence: str
    default: str = "ViT-L-14"
    stats: dict[str, tuple] = field(default_factory=dict)  # architecture -> (mean, std) where not OpenAI's
    sha256: dict[str, str] = field(default_factory=dict)  # architecture -> digest of the file, where known

    def __call__(
        self, name: str, architecture: str | None, device: torch.device, precision: str, models_root: Path
    ) -> OpenClipEncoder:
        """Load it; see `load_encoder`."""
        architecture = one_of(self.models, architecture or self.default, f"architecture of {name}")
        weights = models_root / self.file.format(architecture=architecture)
        if not weights.is_file():
            raise FileNotFoundError(f"{weights} is missing: run `make fetch`, or put it there by hand ({self.source})")
        sha256 = _checked_sha256(weights, self.sha256.get(architecture))
        model_name = self.models[architecture]
        config = open_clip.get_model_config(model_name)
        _check_weights(weights, config, model_name, list(self.models))
        mean, std = self.stats.get(architecture, (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD))
        options = {"pretrained": str(weights), "force_preprocess_cfg": {"mean": mean, "std": std}}
        return _load(name, architecture, device, precision, model_name, config, (weights, sha256), options)


_PLAIN = {name: name for name in ("RN50", "ViT-B-32", "ViT-L-14")}
_QUICK = {name: f"{name}-quickgelu" for name in _PLAIN}


def load_folder(
    name: str, architecture: str | None, device: torch.device, precision: str, folder: Path
) -> OpenClipEncoder:
    """A folder in open_clip's own form: open_clip_config.json, open_clip_model.safetensors.

    A config that names a Hugging Face tokenizer needs its tokenizer.json in the folder too.
    """
    weights = folder / WEIGHTS
    if not weights.is_file():
        raise FileNotFoundError(f"{weights} is missing: train it with `make demo-encoder` or `make adapt`, or fetch it")
    config = read_config(folder / CONFIG)
    known = (known for known in open_clip.list_models() if open_clip.get_model_config(known) == config["model_cfg"])
    own = next(known, "custom")  # the hub's folders repeat open_clip's own configs
    architecture = one_of((own,), architecture or own, f"architecture of {name}")
    sha256 = _checked_sha256(weights)
    _check_weights(weights, config["model_cfg"], CONFIG)
    encoder = _load(
        name, architecture, device, precision, f"local-dir:{folder}", config["model_cfg"], (weights, sha256), {}
    )
    try_out(encoder, folder / CONFIG)
    return encoder


def _demo(
    name: str, architecture: str | None, device: torch.device, precision: str, models_root: Path
) -> OpenClipEncoder:
    return load_folder(name, architecture, device, precision, DEMO_FOLDER)


ENTRIES = {
    "demo": _demo,  # bundled, synthetic scenes only
    # as WeiCom's authors loaded them: plain GELU, OpenAI's mean and std
    "clip": Entry(_PLAIN, "CLIP-{architecture}.bin", "the WeiCom authors' drive folder", "MIT"),
    "remoteclip": Entry(_PLAIN, "RemoteCLIP-{architecture}.pt", "hub: chendelong/RemoteCLIP", "Apache-2.0"),
    # OpenAI's weights with the activation they were trained with
    "clip-openai": Entry(
        _QUICK, "OpenAI-{architecture}.safetensors", "hub: timm/*_clip_224.openai, timm/resnet50_clip.openai", "MIT"
    ),
    "clip-laion2b": Entry(
        {name: name for name in ("ViT-B-32", "ViT-L-14")},
        "LAION2B-{architecture}.safetensors",
        "hub: laion/CLIP-ViT-L-14-laion2B-s32B-b82K, laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
        "MIT",
        stats={"ViT-L-14": (INCEPTION_MEAN, INCEPTION_STD)},  # the ViT-B-32 was trained with OpenAI's
    ),
    # started from OpenAI's weights, the ViT-H-14 from LAION's (their README; of the ViT-L-14 it says nothing)
    "georsclip": Entry(
        {"ViT-B-32": "ViT-B-32-quickgelu", "ViT-L-14": "ViT-L-14-quickgelu", "ViT-H-14": "ViT-H-14"},
        "ckpt/RS5M_{architecture}.pt",
        "hub: Zilun/GeoRSCLIP",
        "see the page of its source",
    ),
    # their cross_modal_retrieval.ipynb: the ViT-L-14 with QuickGELU, the ViT-B-32 (from LAION's) without
    "skyclip": Entry(
        {"ViT-B-32": "ViT-B-32", "ViT-L-14": "ViT-L-14-quickgelu"},
        "SkyCLIP-{architecture}.pt",
        "epoch_20.pt in SkyCLIP_ViT_L14_top30pct.zip or SkyCLIP_ViT_B32_top50pct.zip, "
        "https://github.com/wangzhecheng/SkyScript",
        "MIT (the repository's)",
    ),
}


def _load(
    name: str,
    architecture: str,
    device: torch.device,
    precision: str,
    model_name: str,
    config: dict,
    weights: tuple[Path, str],
    options: dict,
) -> OpenClipEncoder:
    torch.backends.cudnn.allow_tf32 = False  # or a GPU rounds a convolution's float32 to 10 bits
    with offline():
        model = open_clip.create_model(model_name, precision=PRECISIONS[precision], device=device, **options).eval()
        tokenizer = _tokenizer(config["text_cfg"], weights[0].parent)
    preprocess = PreprocessCfg(**model.visual.preprocess_cfg)
    text = getattr(model, "text", model)
    embedding = getattr(text, "token_embedding", None)  # a tower of Hugging Face's has another
    path, sha256 = weights
    provenance = {
        "encoder": name,
        "architecture": architecture,
        "open_clip_model": CONFIG if model_name.startswith("local-dir:") else model_name,
        "activation": "QuickGELU" if config.get("quick_gelu") else "GELU",
        "weights": path.name,
        "weights_sha256": sha256,
        "image_size": str(preprocess.size),
        "mean": str(tuple(preprocess.mean)),
        "std": str(tuple(preprocess.std)),
        "interpolation": preprocess.interpolation,
        "precision": precision,
        **versions("torch", "torchvision", "open_clip_torch", "pillow", "numpy"),
    }
    return OpenClipEncoder(
        name=name,
        architecture=architecture,
        dim=config["embed_dim"],
        device=device,
        precision=precision,
        preprocess=image_transform_v2(preprocess, is_train=False),
        provenance=provenance,
        model=model,
        tokenizer=tokenizer,
        met=np.ones(1, bool) if embedding is None else embedding.weight.any(dim=1).cpu().numpy(),
    )


def compile_tower(encoder: OpenClipEncoder, batch_size: int = 128) -> OpenClipEncoder:
    """The encoder with an image tower that torch compiles, for many images on a GPU (`make bench` says what it gains).

    A transformer's blocks share their code, and so are compiled once. batch_size: that of `extract_features`; smaller
    batches are filled up to it. Features differ from the plain encoder's by the rounding of the precision, so that a
    store keeps them apart.
    Raises ValueError for another kind of encoder and, since nothing is gained there, for one that isn't on a GPU;
    torch.OutOfMemoryError for a batch that its memory can't hold.
    """
    if not isinstance(encoder, OpenClipEncoder):
        raise ValueError(f"{encoder.name}: only encoders of open_clip's are compiled; leave compile_tower out")
    if encoder.device.type != "cuda":
        raise ValueError(f"{encoder.name} is on {encoder.device}, where nothing is gained; leave compile_tower out")
    model = copy.deepcopy(encoder.model)
    for block in getattr(getattr(model.visual, "transformer", None), "resblocks", [model.visual]):
        block.compile(dynamic=False)
    provenance = encoder.provenance | {"precision": f"{encoder.precision}, compiled"}
    found = replace(encoder, model=model, provenance=provenance, batch_size=batch_size)
    image = encoder.preprocess(Image.new("RGB", (256, 256)))
    found.encode_images(image.expand(batch_size, -1, -1, -1))
    return found


def _tokenizer(text: dict, folder: Path) -> Callable:
    """open_clip's own, or the Hugging Face tokenizer whose files lie in the folder."""
    options = {"context_length": text.get("context_length", 77), **(text.get("tokenizer_kwargs") or {})}
    if not text.get("hf_tokenizer_name"):
        return open_clip.SimpleTokenizer(**options)
    if not (folder / "tokenizer.json").is_file():
        raise FileNotFoundError(
            f"{folder / 'tokenizer.json'} is missing: get the files of the tokenizer {text['hf_tokenizer_name']!r}"
        )
    mode = text.get("tokenizer_mode")
    try:
        return HFTokenizer(str(folder), tokenizer_mode=mode, local_files_only=True, trust_remote_code=False, **options)
    except Exception as error:  # transformers raises all kinds
        raise ValueError(f"{folder}: no readable tokenizer ({error}); fetch its files again") from error


# The largest numbers that a config may hold; open_clip's own stay below half of them
LIMITS = {
    "embed_dim": 8192,
    "layers": 128,
    "width": 8192,
    "heads": 128,
    "head_width": 1024,
    "mlp_ratio": 32,
    "patch_size": 256,
    "image_size": 2048,
    "size": 2048,
    "context_length": 4096,
    "vocab_size": 2_000_000,
    "n_queries": 4096,
    "dim_head": 1024,
    "attn_pooler_queries": 4096,
    "attn_pooler_heads": 128,
}
MOST_CONFIG = 2**20  # bytes
_TOWERS = {"vision_cfg": CLIPVisionCfg, "text_cfg": CLIPTextCfg, "multimodal_cfg": MultimodalCfg}
_MODEL = {"embed_dim", "quick_gelu", "custom_text", "init_logit_scale", "init_logit_bias", "nonscalar_logit_scale"}
KEYS = {
    "": {"model_cfg", "preprocess_cfg"},
    "model_cfg": {*_MODEL, *_TOWERS},
    "preprocess_cfg": {entry.name for entry in fields(PreprocessCfg)},
    **{f"model_cfg.{tower}": {entry.name for entry in fields(kind)} for tower, kind in _TOWERS.items()},
    "act_kwargs": {"approximate"},
    "norm_kwargs": {"eps"},
    "tokenizer_kwargs": {"clean", "strip_sep_token"},  # the rest reaches the hub's client
}
FROM_THE_HUB = {"timm_model_pretrained", "hf_model_name"}  # would fetch a tower; the weights file holds both


def read_config(path: Path) -> dict:
    """`{"model_cfg": ..., "preprocess_cfg": ...}` of an open_clip_config.json, before any model is built from it.

    Raises ValueError naming file, key and value for what isn't such a config: an unknown key, a value of another
    kind or above `LIMITS`, a tower that would come from a hub.
    """
    if path.stat().st_size > MOST_CONFIG:
        raise ValueError(f"{path} has {path.stat().st_size} bytes, no config has more than {MOST_CONFIG}")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON ({error}); write it again, as open_clip does") from None
    _check_part(path, "", config)
    for key in ("embed_dim", "vision_cfg", "text_cfg"):
        if key not in config.get("model_cfg", {}):
            raise ValueError(f"{path} lacks model_cfg.{key}; write it as open_clip does")
    preprocess = config.get("preprocess_cfg", {})
    for key in ("mean", "std"):
        values = preprocess.get(key, [1.0] * 3)
        numbers = isinstance(values, list) and all(type(value) in (int, float) for value in values)
        if not numbers or len(values) != 3 or (key == "std" and min(values) <= 0):
            raise ValueError(f"{path}: preprocess_cfg.{key} is {values!r}; it is three numbers, std above 0")
    known = {"interpolation": ("bicubic", "bilinear"), "resize_mode": ("shortest", "longest", "squash")}
    for key, choices in known.items():
        one_of(choices, preprocess.get(key, choices[0]), f"preprocess_cfg.{key} in {path}")
    return config


def _check_part(path: Path, place: str, part: object) -> None:
    """Every key of a part of a config is known, every value plain and in bounds."""
    allowed = KEYS.get(place) or KEYS.get(place.rpartition(".")[2])
    where = f"{path}: {place}" if place else str(path)
    if not isinstance(part, dict):
        raise ValueError(f"{where} holds {part!r}, not keys and values; write it as open_clip does")
    for key, value in part.items():
        inner = f"{place}.{key}".lstrip(".")
        if key not in allowed:
            raise ValueError(f"{where} has the unknown key {key!r} ({str(value)[:50]}); take it out")
        if key in FROM_THE_HUB and value:
            raise ValueError(
                f"{path}: {inner} is {value!r}, which would be fetched from a hub: nothing is. Take the key out, or "
                "use a model whose weights are in one file"
            )
        if key == "timm_model_name" and value not in timm.list_models():
            raise ValueError(f"{path}: {inner} is {value!r}, no model of timm's; see timm.list_models()")
        if inner in KEYS or (key in KEYS and value is not None):
            _check_part(path, inner, value)
            continue
        for single in value if isinstance(value, list) and len(value) <= 4 else [value]:
            _check_value(f"{path}: {inner}", key, single)


def _check_value(where: str, key: str, value: object) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    most = LIMITS.get(key, 10_000)
    if number and not (math.isfinite(value) and abs(value) <= most):
        raise ValueError(f"{where} is {value}; at most {most} is read")
    if key in LIMITS and value is not None and not (number and value > 0):
        raise ValueError(f"{where} is {str(value)[:50]!r}; it is a number above 0, at most {most}")
    if not number and not (value is None or isinstance(value, bool) or (isinstance(value, str) and len(value) <= 200)):
        raise ValueError(f"{where} is {str(value)[:50]!r}; it is a number, a short string, true, false or null")


def _checked_sha256(weights: Path, expected: str | None = None) -> str:
    sha256 = sha256_of(weights)
    if expected not in (None, sha256):
        raise ValueError(f"{weights} has sha256 {sha256}, expected {expected}: fetch it again")
    return sha256


def _check_weights(path: Path, config: dict, model_name: str, others: list[str] | None = None) -> None:
    """Refuse a file that holds code, or whose tensors differ from the model's in name, shape or kind."""
    found = read_tensors(path)
    try:
        problem = misfit(found, model_tensors(config))
    except ValueError as error:
        raise ValueError(f"{path.parent / model_name}: {error}") from error.__cause__
    if problem is None:
        check_size(path, found)
        return
    likely = [o for o in others or () if misfit(found, model_tensors(open_clip.get_model_config(o))) is None]
    advice = f"it looks like {likely[0]}: pass architecture={likely[0]!r}" if likely else "it fits none that we know"
    raise ValueError(f"{path} does not fit {model_name}: {problem}; {advice}")


class _NoValues(TorchFunctionMode):
    """Nothing is filled: tensors on the meta device hold no values, and to draw some took most of a model's making."""

    FILL = frozenset(("normal_", "uniform_", "erfinv_", "mul_", "add_", "clamp_", "fill_", "zero_", "copy_"))

    def __torch_function__(self, func: Callable, types: object, args: tuple = (), kwargs: dict | None = None) -> object:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in self.FILL or getattr(func, "__module__", "") == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def model_tensors(config: dict) -> dict[str, torch.Tensor]:
    """The tensors of the model of an open_clip config by name, on the meta device: no memory, no network.

    Raises ValueError for a config that makes no model, and for a text tower whose own config lies on the hub.
    """
    config = {key: dict(value) if isinstance(value, dict) else value for key, value in config.items()}
    custom = config.pop("custom_text", False) or config["text_cfg"].get("hf_model_name")
    kind = (CoCa if "multimodal_cfg" in config else CustomTextCLIP) if custom else open_clip.CLIP
    if "timm_model_name" in config["vision_cfg"]:
        config["vision_cfg"]["timm_model_pretrained"] = False
    if config["text_cfg"].get("hf_model_name"):
        config["text_cfg"]["hf_model_pretrained"] = False
    try:
        with torch.device("meta"), offline(), _NoValues():
            return kind(**config).state_dict()
    except OSError as error:
        tower = config["text_cfg"].get("hf_model_name")
        raise ValueError(f"its text tower {tower!r} is on the hub, not on this machine; use another model") from error
    except Exception as error:  # whatever widths that don't fit together make torch, timm or open_clip raise
        raise ValueError(f"the config makes no model ({str(error) or type(error).__name__}); correct it") from error
