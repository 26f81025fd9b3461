"""CLIP and SigLIP in Hugging Face's own format, from a local folder (the optional extra `transformers`)."""

import string
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from rscir_lib.encoders.base import offline, one_of, versions
from rscir_lib.encoders.checkpoints import digest_of, misfit, read_config, read_tensors
from rscir_lib.encoders.towers import TOKENIZING, TwoTowers, try_out

CONFIG = "config.json"
NEEDED = (  # one of each
    ("model.safetensors", "model.safetensors.index.json"),
    ("preprocessor_config.json", "processor_config.json"),
    ("tokenizer.json", "spiece.model"),
)
KINDS = {"clip": "CLIPModel", "siglip": "SiglipModel"}  # model_type -> class; both give image and text features by name


@dataclass(kw_only=True, eq=False)
class TransformersEncoder(TwoTowers):
    """An encoder of transformers'."""

    clean: Callable[[str], str] = field(repr=False)  # a text as training gave it to the tokenizer

    def of_images(self, batch: torch.Tensor) -> torch.Tensor:
        return _features(self.model.get_image_features(pixel_values=batch))

    def of_texts(self, texts: list[str]) -> torch.Tensor:
        cleaned = [self.clean(text) for text in texts]
        with TOKENIZING:
            tokens = self.tokenizer(cleaned, padding="max_length", max_length=self.context, return_tensors="pt")
        # SigLIP was trained without a mask: padding is part of what it reads
        keys = ("input_ids",) if self.architecture == "siglip" else ("input_ids", "attention_mask")
        return _features(self.model.get_text_features(**{key: tokens[key].to(self.device) for key in keys}))

    def tokens(self, text: str) -> list[int]:
        with TOKENIZING:
            return self.tokenizer(self.clean(text), add_special_tokens=False, verbose=False).input_ids

    def unknown_words(self, text: str) -> list[str]:
        """The words of a text that the tokenizer can't spell."""
        unknown = self.tokenizer.unk_token_id
        return [word for word in text.split() if unknown is not None and unknown in self.tokens(word)]


def _features(output: Any) -> torch.Tensor:
    return getattr(output, "pooler_output", output)  # transformers 5 wraps them


def _pixels(processor: Callable[..., Any], image: Image.Image) -> torch.Tensor:
    return processor(image, return_tensors="pt")["pixel_values"][0]


def _canonical(text: str) -> str:
    """SigLIP's texts: small letters, no punctuation, single spaces."""
    return " ".join(text.lower().translate(str.maketrans("", "", string.punctuation)).split())


def load_folder(
    name: str, architecture: str | None, device: torch.device, precision: str, folder: Path
) -> TransformersEncoder:
    """A folder with config.json, model.safetensors, preprocessor_config.json and tokenizer.json.

    Raises ImportError where transformers is absent, FileNotFoundError for a missing file, ValueError for another kind
    of model, a config that `read_config` refuses, and weights that don't fit.
    """
    if find_spec("transformers") is None:
        raise ImportError(f'{folder} needs transformers: pip install -e ".[transformers]"')
    kind = one_of(KINDS, read_config(folder / CONFIG).get("model_type"), f"model_type in {folder / CONFIG}")
    one_of((kind,), architecture or kind, f"architecture of {name}")
    weights = _whole(folder)
    configs = {path.name: read_config(path) for path in folder.glob("*config.json")}
    try:
        with offline():
            model, processor, tokenizer = _read(folder, kind, weights, getattr(torch, precision))
    except Exception as error:  # transformers raises all kinds
        raise ValueError(f"{folder}: not a model that transformers can load ({error}); save it again") from error
    text, vision = model.config.text_config, model.config.vision_config
    pixels = configs.get("preprocessor_config.json") or configs["processor_config.json"]
    pixels = pixels.get("image_processor", pixels)  # transformers 5 writes all processors as one
    provenance = {
        "encoder": name,
        "architecture": kind,
        "activation": str(getattr(vision, "hidden_act", "not recorded")),
        "weights": weights.name,
        "weights_sha256": digest_of(weights),
        "image_size": str(pixels.get("crop_size") or pixels.get("size")),
        "mean": str(pixels.get("image_mean")),
        "std": str(pixels.get("image_std")),
        "interpolation": str(pixels.get("resample")),
        "precision": precision,
        **versions("torch", "torchvision", "transformers", "pillow", "numpy"),
    }
    # the tokenizers of SigLIP's folders don't do it themselves: SigLIP 2 was trained on small letters, with Gemma's
    by = str(configs.get("tokenizer_config.json", {}).get("tokenizer_class"))
    gemma = "Gemma" in by or "Siglip2" in by
    encoder = TransformersEncoder(
        name=name, architecture=kind, dim=model.config.projection_dim if kind == "clip" else text.projection_size,
        device=device, precision=precision, preprocess=partial(_pixels, processor), provenance=provenance,
        model=model.to(device).eval(), tokenizer=tokenizer, ends=tokenizer.num_special_tokens_to_add(),
        context=min(tokenizer.model_max_length, text.max_position_embeddings),
        clean=str if kind == "clip" else str.lower if gemma else _canonical,
    )  # fmt: skip
    try_out(encoder, folder / CONFIG)
    return encoder


def _whole(folder: Path) -> Path:
    """The weights of a folder that has all it needs."""
    for names in NEEDED:
        if not any((folder / name).is_file() for name in names):
            raise FileNotFoundError(f"{folder / names[0]} is missing: save the model with save_pretrained, or fetch it")
    if not (folder / "tokenizer.json").is_file() and find_spec("sentencepiece") is None:
        raise ImportError(f"{folder} has a tokenizer that sentencepiece reads: pip install sentencepiece")
    return next(folder / name for name in NEEDED[0] if (folder / name).is_file())


def _read(folder: Path, kind: str, weights: Path, dtype: torch.dtype) -> tuple[Any, Any, Any]:
    """Model, image processor and tokenizer. Raises ValueError for weights that aren't the model's."""
    import transformers

    local = {"local_files_only": True, "trust_remote_code": False}
    config, family = transformers.AutoConfig.from_pretrained(folder, **local), getattr(transformers, KINDS[kind])
    with torch.device("meta"):
        expected = family(config).state_dict()
    # positions were saved by older versions, and are no weights
    tensors = {key: tensor for key, tensor in read_tensors(weights).items() if not key.endswith(".position_ids")}
    if problem := misfit(weights, tensors, expected):
        raise ValueError(f"{weights} does not fit {folder / CONFIG}: {problem}")
    torch.backends.cudnn.allow_tf32 = False  # or a GPU rounds a convolution's float32 to 10 bits
    model = family.from_pretrained(None, config=config, state_dict=tensors, dtype=dtype)
    # as the file says: the class that SigLIP's folders name asks for sentencepiece even where it isn't needed
    fast = (folder / "tokenizer.json").is_file() and kind == "siglip"
    tokenizer = transformers.PreTrainedTokenizerFast if fast else transformers.AutoTokenizer
    kinds: tuple[Any, ...] = (transformers.AutoImageProcessor, tokenizer)
    return model, *(kind.from_pretrained(folder, **local) for kind in kinds)
