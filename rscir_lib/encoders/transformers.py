"""CLIP and SigLIP in Hugging Face's own format, from a local folder (the optional extra `transformers`)."""

import string
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from rscir_lib.encoders.base import check_texts, normalised, offline, one_of, try_out, versions
from rscir_lib.encoders.checkpoints import check_size, digest_of, misfit, read_tensors
from rscir_lib.encoders.configs import check_number, read_config

CONFIG = "config.json"
NEEDED = (  # one of each
    ("model.safetensors", "model.safetensors.index.json"),
    ("preprocessor_config.json", "processor_config.json"),
    ("tokenizer.json", "spiece.model"),
)
KINDS = ("clip", "siglip")  # model_type; both give image and text features by name


@dataclass(frozen=True)
class TransformersEncoder:
    """An `Encoder` of transformers': model, image processor and tokenizer."""

    name: str
    architecture: str
    dim: int
    device: torch.device
    precision: str
    provenance: dict[str, str]
    context: int  # tokens that the text tower reads
    model: torch.nn.Module = field(repr=False)
    processor: Callable = field(repr=False)
    tokenizer: Callable = field(repr=False)
    clean: Callable[[str], str] = field(default=str, repr=False)  # a text as training gave it to the tokenizer

    def preprocess(self, image: Image.Image) -> torch.Tensor:
        """RGB image -> float32 (3, H, W)."""
        return self.processor(image, return_tensors="pt")["pixel_values"][0]

    @torch.inference_mode()
    def encode_images(self, batch: torch.Tensor) -> np.ndarray:
        """Features of preprocessed images (B, 3, H, W) -> (B, dim)."""
        batch = batch.to(self.device, non_blocking=True).to(getattr(torch, self.precision))
        return _features(self.model.get_image_features(pixel_values=batch))

    @torch.inference_mode()
    def encode_texts(self, texts: list[str], batch_size: int = 256) -> np.ndarray:
        """Features of texts -> (len(texts), dim).

        Raises ValueError for no text, a blank text, or one longer than the context, which would be cut.
        """
        ends = self.tokenizer.num_special_tokens_to_add()
        texts = check_texts(texts, self._tokens, ends, self.context, self.name)
        features = []
        for start in range(0, len(texts), batch_size):
            batch = [self.clean(text) for text in texts[start : start + batch_size]]
            tokens = self.tokenizer(batch, padding="max_length", max_length=self.context, return_tensors="pt")
            # SigLIP was trained without a mask: padding is part of what it reads
            keys = ("input_ids",) if self.architecture == "siglip" else ("input_ids", "attention_mask")
            inputs = {key: tokens[key].to(self.device) for key in keys}
            features.append(_features(self.model.get_text_features(**inputs)))
        return np.concatenate(features)

    def unknown_words(self, text: str) -> list[str]:
        """The words of a text that the tokenizer can't spell."""
        unknown = self.tokenizer.unk_token_id
        return [word for word in text.split() if unknown is not None and unknown in self._tokens(word)]

    def _tokens(self, text: str) -> list[int]:
        return self.tokenizer(self.clean(text), add_special_tokens=False, verbose=False).input_ids


def _canonical(text: str) -> str:
    """SigLIP's texts: small letters, no punctuation, single spaces."""
    return " ".join(text.lower().translate(str.maketrans("", "", string.punctuation)).split())


def _features(output: object) -> np.ndarray:
    return normalised(getattr(output, "pooler_output", output))  # transformers 5 wraps them


def load_folder(
    name: str, architecture: str | None, device: torch.device, precision: str, folder: Path
) -> TransformersEncoder:
    """A folder with config.json, model.safetensors, preprocessor_config.json and tokenizer.json.

    Raises:
        ImportError: Where transformers is absent.
        FileNotFoundError: For a missing file.
        ValueError: For another kind of model, a config with numbers above `configs.LIMITS` or code of its own, and
            weights that don't fit.
    """
    try:
        import transformers
    except ImportError as error:
        raise ImportError(f'{folder} needs transformers: pip install -e ".[transformers]"') from error
    kind = one_of(KINDS, _read(folder / CONFIG).get("model_type"), f"model_type in {folder / CONFIG}")
    architecture = one_of((kind,), architecture or kind, f"architecture of {name}")
    weights, processing, gemma = _files(folder)
    local = {"local_files_only": True, "trust_remote_code": False}
    try:
        with offline():
            config, tensors = _fitting(folder, weights, local)
            torch.backends.cudnn.allow_tf32 = False  # or a GPU rounds a convolution's float32 to 10 bits
            options = {"config": config, "state_dict": tensors, "dtype": getattr(torch, precision)}
            family = {"clip": transformers.CLIPModel, "siglip": transformers.SiglipModel}[kind]
            model = family.from_pretrained(None, **options).to(device).eval()
            processor = transformers.AutoImageProcessor.from_pretrained(folder, **local)
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **local)
    except Exception as error:  # transformers raises all kinds
        raise ValueError(f"{folder}: not a model that transformers can load ({error}); save it again") from error
    context = min(tokenizer.model_max_length, model.config.text_config.max_position_embeddings)
    provenance = {
        "encoder": name,
        "architecture": architecture,
        "activation": str(getattr(model.config.vision_config, "hidden_act", "not recorded")),
        "weights": weights.name,
        "weights_sha256": digest_of(weights),
        "image_size": str(processing.get("crop_size") or processing.get("size")),
        "mean": str(processing.get("image_mean")),
        "std": str(processing.get("image_std")),
        "interpolation": str(processing.get("resample")),
        "precision": precision,
        **versions("torch", "torchvision", "transformers", "pillow", "numpy"),
    }
    with torch.inference_mode():
        text = _features(model.get_text_features(input_ids=torch.zeros((1, context), dtype=torch.long, device=device)))
    # the tokenizers of SigLIP's folders don't do it themselves: SigLIP 2 was trained on small letters, with Gemma's
    clean = str if kind == "clip" else str.lower if gemma else _canonical
    parts = model, processor, tokenizer, clean
    encoder = TransformersEncoder(name, architecture, text.shape[1], device, precision, provenance, context, *parts)
    try_out(encoder, folder / CONFIG)
    return encoder


def _files(folder: Path) -> tuple[Path, dict[str, Any], bool]:
    """The file of weights, the config of the image processor, and whether the tokenizer is Gemma's."""
    files = [next((folder / name for name in names if (folder / name).is_file()), None) for names in NEEDED]
    for file, names in zip(files, NEEDED, strict=True):
        if file is None:
            raise FileNotFoundError(f"{folder / names[0]} is missing: save the model with save_pretrained, or fetch it")
    weights, processing, tokenizer = files
    if tokenizer.name == "spiece.model" and find_spec("sentencepiece") is None:
        raise ImportError(f"{folder} has a tokenizer that sentencepiece reads: pip install sentencepiece")
    processor, config = _read(processing), folder / "tokenizer_config.json"
    gemma = config.is_file() and "Gemma" in str(_read(config).get("tokenizer_class"))
    return weights, processor.get("image_processor", processor), gemma  # transformers 5 writes all processors as one


def _fitting(folder: Path, weights: Path, local: dict[str, bool]) -> tuple[Any, dict[str, torch.Tensor]]:
    """The config, and the weights, which are those of its model. Raises ValueError for others."""
    import transformers

    config = transformers.AutoConfig.from_pretrained(folder, **local)
    with torch.device("meta"):
        expected = transformers.AutoModel.from_config(config)
    # positions were saved by older versions, and are no weights
    tensors = {key: tensor for key, tensor in read_tensors(weights).items() if not key.endswith(".position_ids")}
    problem = misfit(tensors, expected.state_dict())
    if problem:
        raise ValueError(f"{weights} does not fit {folder / CONFIG}: {problem}")
    check_size(weights, tensors)
    return config, tensors


def _read(path: Path) -> dict[str, Any]:
    """A config whose numbers are in bounds and that names no code."""
    config = read_config(path)
    parts = [config]
    while parts:
        for key, value in parts.pop().items():
            if key in ("auto_map", "custom_code"):
                raise ValueError(
                    f"{path}: {key} ({str(value)[:50]}) names code of its own, which is never run; take it out"
                )
            check_number(key, value, f"{path}: {key}")
            if isinstance(value, dict):
                parts.append(value)
    return config
