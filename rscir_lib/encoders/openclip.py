"""open_clip's models: CLIP, SigLIP, CoCa and custom text towers, from a checkpoint or a folder of one's own."""

import copy
import logging
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import timm
import torch
from open_clip.coca_model import CoCa, MultimodalCfg
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.model import CLIPTextCfg, CLIPVisionCfg, CustomTextCLIP
from open_clip.tokenizer import HFTokenizer
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from torch.overrides import TorchFunctionMode

from rscir_lib.encoders.base import PRECISIONS, check_texts, normalised, offline, one_of, try_out, versions
from rscir_lib.encoders.checkpoints import check_size, digest_of, misfit, read_tensors
from rscir_lib.encoders.configs import check_number, read_config
from rscir_lib.encoders.hub import NAMES, weights_in

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
        return np.concatenate([self._compiled(part) for part in batch.split(self.batch_size)])

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


def load_checkpoint(
    name: str,
    architecture: str,
    device: torch.device,
    precision: str,
    models: dict[str, str],
    weights: Path,
    stats: tuple[tuple[float, ...], tuple[float, ...]] = (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD),
    expected_sha256: str | None = None,
) -> OpenClipEncoder:
    """One file of weights for a model that open_clip knows by name.

    Args:
        name: What the encoder is called.
        architecture: A key of `models`.
        device: Where it computes.
        precision: Of its towers.
        models: open_clip's model name of each architecture that the file could be of.
        weights: The file.
        stats: Mean and standard deviation that the pixels are normalised by.
        expected_sha256: Of the file, where it is known.

    Raises:
        ValueError: For a file that holds anything but tensors, fits another model, or has another sha256.
    """
    sha256, model_name = digest_of(weights, expected_sha256), models[architecture]
    config = open_clip.get_model_config(model_name)
    tensors = _fitting_tensors(weights, config, model_name, models)
    options = {"force_preprocess_cfg": dict(zip(("mean", "std"), stats, strict=True))}
    return _load(name, architecture, device, precision, model_name, config, (weights, sha256), tensors, options)


def load_folder(
    name: str, architecture: str | None, device: torch.device, precision: str, folder: Path
) -> OpenClipEncoder:
    """A folder in open_clip's own form: open_clip_config.json, open_clip_model.safetensors.

    A config that names a Hugging Face tokenizer needs its tokenizer.json in the folder too.
    """
    weights = weights_in(folder)
    if weights is None:
        raise FileNotFoundError(f"{folder} has no weights beside its {CONFIG}: put one of {', '.join(NAMES)} there")
    whole = read_openclip_config(folder / CONFIG)
    config = whole["model_cfg"]
    if "mean" not in whole.get("preprocess_cfg", {}):
        warnings.warn(
            f"{folder / CONFIG} has no preprocess_cfg with mean and std: pixels are normalised by OpenAI's; write "
            "those that the model was trained with",
            stacklevel=2,
        )
    known = (known for known in open_clip.list_models() if open_clip.get_model_config(known) == config)
    own = next(known, "custom")  # the hub's folders repeat open_clip's own configs
    architecture = one_of((own,), architecture or own, f"architecture of {name}")
    tensors, digested = _fitting_tensors(weights, config, CONFIG), (weights, digest_of(weights))
    encoder = _load(name, architecture, device, precision, f"local-dir:{folder}", config, digested, tensors, {})
    try_out(encoder, folder / CONFIG)
    return encoder


def _load(
    name: str,
    architecture: str,
    device: torch.device,
    precision: str,
    model_name: str,
    config: dict,
    weights: tuple[Path, str],
    tensors: dict[str, torch.Tensor],
    options: dict,
) -> OpenClipEncoder:
    torch.backends.cudnn.allow_tf32 = False  # or a GPU rounds a convolution's float32 to 10 bits
    options |= {"precision": PRECISIONS[precision], "device": device, "load_weights": False}
    with offline():
        logging.disable(logging.WARNING)  # it would say that no weights are loaded
        try:
            model = open_clip.create_model(model_name, **options).eval()
        finally:
            logging.disable(logging.NOTSET)
        model.load_state_dict(tensors)
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
    compiled = replace(encoder, model=model, provenance=provenance, batch_size=batch_size)
    image = encoder.preprocess(Image.new("RGB", (256, 256)))
    compiled.encode_images(image.expand(batch_size, -1, -1, -1))
    return compiled


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


TOWERS = {"vision_cfg": CLIPVisionCfg, "text_cfg": CLIPTextCfg, "multimodal_cfg": MultimodalCfg}
MODEL = {"embed_dim", "quick_gelu", "custom_text", "init_logit_scale", "init_logit_bias", "nonscalar_logit_scale"}
KEYS = {  # what each part of a config may hold
    "": {"model_cfg", "preprocess_cfg"},
    "model_cfg": {*MODEL, *TOWERS},
    "preprocess_cfg": {entry.name for entry in fields(PreprocessCfg)},
    **{tower: {entry.name for entry in fields(kind)} for tower, kind in TOWERS.items()},
    "act_kwargs": {"approximate"},
    "norm_kwargs": {"eps"},
    "tokenizer_kwargs": {"clean", "strip_sep_token"},  # the rest reaches the hub's client
}
FROM_THE_HUB = {"timm_model_pretrained", "hf_model_name"}  # would fetch a tower; the weights file holds both
CHOICES = {"interpolation": ("bicubic", "bilinear"), "resize_mode": ("shortest", "longest", "squash")}


def read_openclip_config(path: Path) -> dict[str, Any]:
    """`{"model_cfg": ..., "preprocess_cfg": ...}` of an open_clip_config.json, before any model is built from it.

    Raises:
        ValueError: Naming file, key and value for what isn't such a config: an unknown key, a value of another kind
            or above `configs.LIMITS`, a tower that would come from a hub.
    """
    config = read_config(path)
    _check_part(path, "", "", config)
    for key in ("embed_dim", "vision_cfg", "text_cfg"):
        if key not in config.get("model_cfg", {}):
            raise ValueError(f"{path} lacks model_cfg.{key}; write it as open_clip does")
    preprocess = config.get("preprocess_cfg", {})
    for key in ("mean", "std"):
        values = preprocess.get(key, [1.0] * 3)
        numbers = isinstance(values, list) and all(type(value) in (int, float) for value in values)
        if not numbers or len(values) != 3 or (key == "std" and min(values) <= 0):
            raise ValueError(f"{path}: preprocess_cfg.{key} is {values!r}; it is three numbers, std above 0")
    for key, choices in CHOICES.items():
        one_of(choices, preprocess.get(key, choices[0]), f"preprocess_cfg.{key} in {path}")
    return config


def _check_part(path: Path, place: str, part_name: str, part: Any) -> None:
    """Every key of a part of a config is known, every value plain and in bounds."""
    if not isinstance(part, dict):
        raise ValueError(f"{path}: {place} holds {part!r}, not keys and values; write it as open_clip does")
    for key, value in part.items():
        inner = f"{place}.{key}".lstrip(".")
        if key not in KEYS[part_name]:
            raise ValueError(f"{path}: {place} has the unknown key {key!r} ({str(value)[:50]}); take it out")
        if key in FROM_THE_HUB and value:
            raise ValueError(
                f"{path}: {inner} is {value!r}, which would be fetched from a hub: nothing is. Take the key out, or "
                "use a model whose weights are in one file"
            )
        if key == "timm_model_name" and value not in timm.list_models():
            raise ValueError(f"{path}: {inner} is {value!r}, no model of timm's; see timm.list_models()")
        if key in KEYS and (value is not None or key.endswith("_cfg")):
            _check_part(path, inner, key, value)
            continue
        check_number(key, value, f"{path}: {inner}")
        for single in value if isinstance(value, list) and len(value) <= 4 else [value]:
            if not isinstance(single, int | float | str | None) or len(str(single)) > 200:
                kinds = "a number, a short string, true, false or null"
                raise ValueError(f"{path}: {inner} is {str(single)[:50]!r}; it is {kinds}")


def _fitting_tensors(
    path: Path, config: dict, model_name: str, others: dict[str, str] | None = None
) -> dict[str, torch.Tensor]:
    """The tensors of a file that fits. Refuses one that holds code, or others in name, shape or kind of number."""
    tensors = read_tensors(path)
    try:
        problem = misfit(tensors, model_tensors(config))
    except ValueError as error:
        raise ValueError(f"{path.parent / model_name}: {error}") from error.__cause__
    if problem is None:
        check_size(path, tensors)
        return tensors
    configs = {known: open_clip.get_model_config(model) for known, model in (others or {}).items()}
    likely = [known for known, other in configs.items() if misfit(tensors, model_tensors(other)) is None]
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
