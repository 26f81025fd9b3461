"""open_clip's models: CLIP, SigLIP, CoCa and custom text towers, from a checkpoint or a folder of one's own."""

import logging
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import timm
import torch
from open_clip.coca_model import MultimodalCfg
from open_clip.model import CLIPTextCfg, CLIPVisionCfg
from open_clip.tokenizer import HFTokenizer
from open_clip.transform import PreprocessCfg, image_transform_v2

from rscir_lib.encoders.base import PRECISIONS, offline, one_of, versions
from rscir_lib.encoders.checkpoints import CONFIG, digest_of, misfit, read_config, read_tensors
from rscir_lib.encoders.hub import NAMES, Published, weights_in
from rscir_lib.encoders.towers import TOKENIZING, TwoTowers, try_out

TOWERS = {"vision_cfg": CLIPVisionCfg, "text_cfg": CLIPTextCfg, "multimodal_cfg": MultimodalCfg}
MODEL = {"embed_dim", "quick_gelu", "custom_text", "init_logit_scale", "init_logit_bias", "nonscalar_logit_scale"}
PARTS = {  # what each part of a config may hold
    "": {"model_cfg", "preprocess_cfg"},
    "model_cfg": {*MODEL, *TOWERS},
    **{part: {entry.name for entry in fields(kind)} for part, kind in TOWERS.items()},
    "preprocess_cfg": {entry.name for entry in fields(PreprocessCfg)},
    "act_kwargs": {"approximate"},
    "norm_kwargs": {"eps"},
    "tokenizer_kwargs": {"clean", "strip_sep_token"},  # the rest reaches the hub's client
}


@dataclass(kw_only=True, eq=False)
class OpenClipEncoder(TwoTowers):
    """An encoder of open_clip's, and which tokens it has ever met."""

    # token -> whether training ever saw it, so that its embedding isn't zero; all True but for models trained here
    met: np.ndarray = field(repr=False)

    def of_images(self, batch: torch.Tensor) -> torch.Tensor:
        return self.model.encode_image(batch)

    def of_texts(self, texts: list[str]) -> torch.Tensor:
        with TOKENIZING:
            tokens = self.tokenizer(texts)
        return self.model.encode_text(tokens.to(self.device))

    def tokens(self, text: str) -> list[int]:
        with TOKENIZING:
            if isinstance(self.tokenizer, HFTokenizer):
                clean = self.tokenizer.clean_fn(text)
                return self.tokenizer.tokenizer(clean, add_special_tokens=False, verbose=False).input_ids
            return self.tokenizer.encode(text)

    def unknown_words(self, text: str) -> list[str]:
        """The words of a text with a token that training never saw: features tell nothing or too little of them."""
        if self.met.all() or isinstance(self.tokenizer, HFTokenizer):
            return []
        words = re.findall(r"\w+", self.tokenizer.clean_fn(text))
        return [word for word in words if not self.met[self.tokens(word)].all()]

    @property
    def word_size(self) -> int:
        """Numbers in a token embedding. AttributeError where the text tower has none, as Hugging Face's."""
        return _embedding(self.model).embedding_dim

    def encode_pseudo_words(self, texts: list[str], words: torch.Tensor) -> torch.Tensor:
        """Features (n, dim), of length 1, of n texts in which each `*` stands for the text's own token embedding, of
        `words` (n, `word_size`), by which they can be differentiated. Raises ValueError for a text without `*`."""
        texts = self.checked([text.replace("*", " * ") for text in texts])  # or "*," might be one token
        with TOKENIZING:
            tokens = self.tokenizer(texts).to(self.device)
        place = tokens == self.tokens("*")[0]
        if without := [text for text, there in zip(texts, place.any(dim=1).tolist(), strict=True) if not there]:
            raise ValueError(f"{without[0]!r}: write a *, the pseudo word")

        def replaced(module: torch.nn.Module, given: tuple[torch.Tensor], out: torch.Tensor) -> torch.Tensor:
            return torch.where(place[..., None], words.to(out)[:, None], out) if given[0] is tokens else out

        hook = _embedding(self.model).register_forward_hook(replaced)
        try:
            return torch.nn.functional.normalize(self.model.encode_text(tokens).float(), dim=-1)
        finally:
            hook.remove()


def _embedding(model: Any) -> Any:
    """The token embedding of a model's text tower; None for a tower of Hugging Face's, which has another."""
    return getattr(getattr(model, "text", model), "token_embedding", None)


def load_folder(
    name: str, architecture: str | None, device: torch.device, precision: str, folder: Path
) -> OpenClipEncoder:
    """A folder in open_clip's own form: open_clip_config.json, open_clip_model.safetensors.

    A config that names a Hugging Face tokenizer needs its tokenizer.json in the folder too.
    """
    weights, source = weights_in(folder), folder / CONFIG
    if weights is None:
        raise FileNotFoundError(f"{folder} has no weights beside its {CONFIG}: put one of {', '.join(NAMES)} there")
    whole = read_openclip_config(source)
    config = whole["model_cfg"]
    if "mean" not in whole.get("preprocess_cfg", {}):
        warnings.warn(
            f"{source} has no preprocess_cfg with mean and std: pixels are normalised by OpenAI's; write those that "
            "the model was trained with",
            stacklevel=2,
        )
    known = (known for known in open_clip.list_models() if open_clip.get_model_config(known) == config)
    own = next(known, "custom")  # the hub's folders repeat open_clip's own configs
    one_of((own,), architecture or own, f"architecture of {name}")
    described = Published("", model=f"local-dir:{folder}")
    encoder = load_checkpoint(name, own, device, precision, weights, described, config=config)
    try_out(encoder, source)
    return encoder


def load_checkpoint(
    name: str,
    architecture: str,
    device: torch.device,
    precision: str,
    weights: Path,
    published: Published,
    family: Mapping[str, Published] | None = None,
    config: dict[str, Any] | None = None,
) -> OpenClipEncoder:
    """The encoder of a file of weights. Raises ValueError for one that holds anything but tensors, fits another model,
    or has another sha256.

    Args:
        name, architecture, device, precision, weights: Of the encoder.
        published: Its model (or "local-dir:" and a folder that has a config), its sha256 where known, mean and std.
        family: What else the file may be, by architecture, for the message.
        config: The folder's, which has mean and std too.
    """
    model_name, shown = published.model, CONFIG if config else published.model
    pixels = None if config else {"mean": published.mean, "std": published.std}
    config = config or open_clip.get_model_config(model_name)
    sha256, tensors = digest_of(weights, published.sha256), read_tensors(weights)
    if problem := misfit(weights, tensors, model_tensors(model_name)):
        models = {key: other.model for key, other in (family or {}).items()}
        fitting = next((key for key in models if not misfit(weights, tensors, model_tensors(models[key]))), None)
        advice = f"it looks like {fitting}: pass architecture={fitting!r}" if fitting else "it fits none that we know"
        raise ValueError(f"{weights} does not fit {shown}: {problem}; {advice}")
    torch.backends.cudnn.allow_tf32 = False  # or a GPU rounds a convolution's float32 to 10 bits
    model = _made(model_name, precision=PRECISIONS[precision], device=device, force_preprocess_cfg=pixels)
    model.load_state_dict(tensors)
    model.requires_grad_(False)  # gradients go through it, not into it
    tokenizer, ends = _tokenizer(config["text_cfg"], weights.parent)
    preprocess = PreprocessCfg(**model.visual.preprocess_cfg)
    embedding = _embedding(model)
    provenance = {
        "encoder": name,
        "architecture": architecture,
        "open_clip_model": shown,
        "activation": "QuickGELU" if config.get("quick_gelu") else "GELU",
        "weights": weights.name,
        "weights_sha256": sha256,
        "image_size": str(preprocess.size),
        "mean": str(tuple(preprocess.mean)),
        "std": str(tuple(preprocess.std)),
        "interpolation": preprocess.interpolation,
        "precision": precision,
        **versions("torch", "torchvision", "open_clip_torch", "pillow", "numpy"),
    }
    return OpenClipEncoder(
        name=name, architecture=architecture, dim=config["embed_dim"], device=device, precision=precision,
        preprocess=image_transform_v2(preprocess, is_train=False), provenance=provenance, model=model,
        tokenizer=tokenizer, context=tokenizer.context_length, ends=ends,
        met=np.ones(1, bool) if embedding is None else embedding.weight.any(dim=1).cpu().numpy(),
    )  # fmt: skip


def _made(name: str, **options: Any) -> Any:
    """A model of open_clip's without its weights; no request is made."""
    logging.disable(logging.WARNING)  # it would say that no weights are loaded
    try:
        with offline():
            return open_clip.create_model(name, load_weights=False, pretrained_text=False, **options).eval()
    finally:
        logging.disable(logging.NOTSET)


def model_tensors(model_name: str) -> dict[str, torch.Tensor]:
    """The tensors of a model of open_clip's by name, on the meta device: no memory, no network.

    Raises ValueError for a config that makes no model, and for a text tower whose own config lies on the hub.
    """
    try:
        with torch.device("meta"):
            return _made(model_name, device="meta").state_dict()
    except OSError as error:
        tower = open_clip.get_model_config(model_name)["text_cfg"]["hf_model_name"]
        raise ValueError(f"its text tower {tower!r} is on the hub, not on this machine; use another model") from error
    except Exception as error:  # whatever widths that don't fit together make torch, timm or open_clip raise
        problem = str(error) or type(error).__name__
        raise ValueError(f"{model_name}: the config makes no model ({problem}); correct it") from error


def _tokenizer(text: dict[str, Any], folder: Path) -> tuple[Any, int]:
    """open_clip's own, or the Hugging Face tokenizer whose files lie in the folder; tokens it puts around a text."""
    options = {"context_length": text.get("context_length", 77), **(text.get("tokenizer_kwargs") or {})}
    if not text.get("hf_tokenizer_name"):
        return open_clip.SimpleTokenizer(**options), 2
    if not (folder / "tokenizer.json").is_file():
        raise FileNotFoundError(
            f"{folder / 'tokenizer.json'} is missing: get the files of the tokenizer {text['hf_tokenizer_name']!r}"
        )
    options |= {"tokenizer_mode": text.get("tokenizer_mode"), "local_files_only": True, "trust_remote_code": False}
    try:
        with offline():
            made = HFTokenizer(str(folder), **options)
    except Exception as error:  # transformers raises all kinds
        raise ValueError(f"{folder}: no readable tokenizer ({error}); fetch its files again") from error
    return made, 3 if made.tokenizer_mode == "clips" else made.tokenizer.num_special_tokens_to_add()


def read_openclip_config(path: Path) -> dict[str, Any]:
    """`{"model_cfg": ..., "preprocess_cfg": ...}` of an open_clip_config.json, before any model is built from it.

    Raises ValueError, naming file, key and value, for what `read_config` refuses and for what isn't open_clip's.
    """
    config = read_config(path, PARTS)
    model, preprocess = config.get("model_cfg", {}), config.get("preprocess_cfg", {})
    for key in ("embed_dim", "vision_cfg", "text_cfg"):
        if key not in model:
            raise ValueError(f"{path} lacks model_cfg.{key}; write it as open_clip does")
    if (tower := model["vision_cfg"].get("timm_model_name")) not in (None, *timm.list_models()):
        raise ValueError(f"{path}: timm_model_name is {tower!r}, no model of timm's; see timm.list_models()")
    for key in ("mean", "std"):
        values = preprocess.get(key, [1, 1, 1])
        numbers = isinstance(values, list) and all(type(value) in (int, float) for value in values)
        if not numbers or len(values) != 3 or (key == "std" and min(values) <= 0):
            raise ValueError(f"{path}: preprocess_cfg.{key} is {values!r}; it is three numbers, std above 0")
    choices = {"interpolation": ("bicubic", "bilinear"), "resize_mode": ("shortest", "longest", "squash")}
    for key, allowed in choices.items():
        one_of(allowed, preprocess.get(key, allowed[0]), f"preprocess_cfg.{key} in {path}")
    return config
