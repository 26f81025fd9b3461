"""CLIP and SigLIP in Hugging Face's own format, from a local folder (the optional extra `transformers`)."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from rscir_lib.encoders.base import check_texts, normalised, offline, one_of, try_out, versions
from rscir_lib.encoders.checkpoints import check_size, misfit, read_tensors
from rscir_lib.encoders.configs import check_number, read_config
from rscir_lib.storage.digests import sha256_of_file

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
FILES = (WEIGHTS, "preprocessor_config.json", "tokenizer.json")
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
            batch = texts[start : start + batch_size]
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
        return self.tokenizer(text, add_special_tokens=False, verbose=False).input_ids


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
    for file in FILES:
        if not (folder / file).is_file():
            raise FileNotFoundError(
                f"{folder / file} is missing: save the model with save_pretrained, in one safetensors file"
            )
    processing = _read(folder / "preprocessor_config.json")
    if (folder / "tokenizer_config.json").is_file():
        _read(folder / "tokenizer_config.json")
    local = {"local_files_only": True, "trust_remote_code": False}
    try:
        with offline():
            _check_weights(folder, local)
            torch.backends.cudnn.allow_tf32 = False  # or a GPU rounds a convolution's float32 to 10 bits
            options = local | {"use_safetensors": True, "dtype": getattr(torch, precision)}
            model = transformers.AutoModel.from_pretrained(folder, **options).to(device).eval()
            processor = transformers.AutoImageProcessor.from_pretrained(folder, **local)
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **local)
    except Exception as error:  # transformers raises all kinds
        raise ValueError(f"{folder}: not a model that transformers can load ({error}); save it again") from error
    context = min(tokenizer.model_max_length, model.config.text_config.max_position_embeddings)
    provenance = {
        "encoder": name,
        "architecture": architecture,
        "activation": str(getattr(model.config.vision_config, "hidden_act", "not recorded")),
        "weights": WEIGHTS,
        "weights_sha256": sha256_of_file(folder / WEIGHTS),
        "image_size": str(processing.get("crop_size") or processing.get("size")),
        "mean": str(processing.get("image_mean")),
        "std": str(processing.get("image_std")),
        "interpolation": str(processing.get("resample")),
        "precision": precision,
        **versions("torch", "torchvision", "transformers", "pillow", "numpy"),
    }
    with torch.inference_mode():
        text = _features(model.get_text_features(input_ids=torch.zeros((1, context), dtype=torch.long, device=device)))
    parts = model, processor, tokenizer
    encoder = TransformersEncoder(name, architecture, text.shape[1], device, precision, provenance, context, *parts)
    try_out(encoder, folder / CONFIG)
    return encoder


def _check_weights(folder: Path, local: dict[str, bool]) -> None:
    """Raise ValueError unless the weights are those of the config's model, which is built without values."""
    import transformers

    with torch.device("meta"):
        expected = transformers.AutoModel.from_config(transformers.AutoConfig.from_pretrained(folder, **local))
    # positions were saved by older versions, and are no weights
    tensors = {k: tensor for k, tensor in read_tensors(folder / WEIGHTS).items() if not k.endswith(".position_ids")}
    problem = misfit(tensors, expected.state_dict())
    if problem:
        raise ValueError(f"{folder / WEIGHTS} does not fit {folder / CONFIG}: {problem}")
    check_size(folder / WEIGHTS, tensors)


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
