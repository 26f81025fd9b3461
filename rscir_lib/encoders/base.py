"""What an encoder is, and the small things that all of them share."""

import platform
import re
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Protocol

import huggingface_hub.constants
import numpy as np
import torch
from PIL import Image

PRECISIONS = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


class Encoder(Protocol):
    """An image and text encoder. Features are float32, L2-normalised in float32, shape (n, `dim`).

    Optional: `unknown_words(text)`, the words never met; `word_size`, `encode_pseudo_words(texts, words)` (openclip).
    """

    name: str
    architecture: str
    dim: int
    device: torch.device
    precision: str  # of the towers: a key of PRECISIONS
    preprocess: Callable[[Image.Image], torch.Tensor]  # RGB image -> float32 (3, H, W)
    provenance: dict[str, str]  # what the features depend on; holds `encoder` (its name) and `weights_sha256`

    def encode_images(self, batch: torch.Tensor) -> np.ndarray:
        """Features of preprocessed images (B, 3, H, W) -> (B, dim)."""

    def encode_texts(self, texts: list[str]) -> np.ndarray:
        """Features of texts -> (len(texts), dim). Raises ValueError for a text that it can't read whole."""


def checked_encoder(encoder: Encoder) -> Encoder:
    """An encoder of a person's own, when it has what `Encoder` asks for. Raises ValueError naming what it lacks."""
    parts = (*Encoder.__annotations__, "encode_images", "encode_texts")
    if missing := [part for part in parts if not hasattr(encoder, part)]:
        raise ValueError(f"{encoder!r} is no encoder: it lacks {', '.join(missing)} (rscir_lib.encoders.Encoder)")
    if missing := [key for key in ("encoder", "weights_sha256") if not encoder.provenance.get(key)]:
        example = f'provenance = {{"encoder": {encoder.name!r}, "weights_sha256": ...}}'
        raise ValueError(f"encoder {encoder.name!r}: its provenance lacks {' and '.join(missing)}; give it {example}")
    return encoder


def unknown_words(encoder: Encoder, text: str) -> list[str]:
    """The words of a text that the encoder has never met, in order; [] where it can't tell."""
    return encoder.unknown_words(text) if hasattr(encoder, "unknown_words") else []


def normalised(features: torch.Tensor) -> np.ndarray:
    """(n, d) of any float type -> rows of length 1, float32."""
    return torch.nn.functional.normalize(features.float(), dim=-1).cpu().numpy()


def one_of(allowed: Collection[str], value: object, name: str) -> str:
    """`value`, when it is one of `allowed`; else ValueError with all of them."""
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"unknown {name}: {value!r}; one of {', '.join(allowed)}")
    return value


def reason(error: Exception) -> str:
    """The first line of what a library raised, without its colours."""
    return re.sub(r"\x1b\[[\d;]*m", "", str(error)).strip().partition("\n")[0] or type(error).__name__


def versions(*packages: str) -> dict[str, str]:
    """Of Python and the packages that features depend on."""
    return {"python": platform.python_version(), **{package: version(package) for package in packages}}


@contextmanager
def offline() -> Iterator[None]:
    """Inside, the hub's client makes no request: what isn't on this machine is an error."""
    hub = huggingface_hub.constants
    before, hub.HF_HUB_OFFLINE = hub.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        hub.HF_HUB_OFFLINE = before
