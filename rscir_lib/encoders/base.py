"""What an encoder is, and what all of them share: devices, the checks of texts, the norm of features."""

import platform
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

import huggingface_hub.constants
import numpy as np
import torch
from PIL import Image

PRECISIONS = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


class Encoder(Protocol):
    """An image and text encoder. Features are float32, L2-normalised in float32, shape (n, `dim`).

    Optional: `unknown_words(text) -> list[str]`, for an encoder that knows which words it has never met.
    """

    name: str
    architecture: str
    dim: int
    device: torch.device
    precision: str  # of the towers: a key of PRECISIONS
    preprocess: Callable[[Image.Image], torch.Tensor]  # RGB image -> float32 (3, H, W)
    provenance: dict[str, str]  # what the features depend on; holds `weights_sha256`

    def encode_images(self, batch: torch.Tensor) -> np.ndarray:
        """Features of preprocessed images (B, 3, H, W) -> (B, dim)."""

    def encode_texts(self, texts: list[str]) -> np.ndarray:
        """Features of texts -> (len(texts), dim). Raises ValueError for a text that it can't read whole."""


def unknown_words(encoder: Encoder, text: str) -> list[str]:
    """The words of a text that the encoder has never met, in order; [] where it can't tell."""
    return encoder.unknown_words(text) if hasattr(encoder, "unknown_words") else []


def one_of(allowed: Collection[str], value: object, name: str) -> str:
    """`value`, when it is one of `allowed`; else ValueError with all of them."""
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"unknown {name}: {value!r}; one of {', '.join(allowed)}")
    return value


@contextmanager
def offline() -> Iterator[None]:
    """Inside, the hub's client makes no request: what isn't on this machine is an error."""
    hub = huggingface_hub.constants
    before, hub.HF_HUB_OFFLINE = hub.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        hub.HF_HUB_OFFLINE = before


def check_texts(
    texts: Iterable[str], tokens: Callable[[str], list[int]], ends: int, limit: int, name: str
) -> list[str]:
    """The texts as a list, each with something to read and within the context.

    tokens: text -> its tokens without start and end, of which there are `ends`; limit: tokens in a context.
    Raises ValueError, naming the text, for none at all, no string, a blank one, or one that would be cut.
    """
    texts = [] if isinstance(texts, str) or not isinstance(texts, Iterable) else list(texts)
    if not texts:
        raise ValueError("encode_texts takes a list with at least one text, such as ['a red roof']")
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(f"texts[{row}] is {text!r}, not a string; leave it out or write it in words")
        if len(text) > 100 * limit:  # the tokenizers take the square of a long word's length
            raise ValueError(f"texts[{row}] has {len(text)} characters, {name!r} reads {limit} tokens; shorten it")
        if not text.isprintable() and text != text.encode(errors="replace").decode():  # half a character
            raise ValueError(f"texts[{row}] is {text!r}, which is no Unicode text; type it again")
        count = len(tokens(text)) + ends
        if count == ends:
            raise ValueError(f"texts[{row}] is blank for {name!r}: {text!r}; write a word")
        if count > limit:
            raise ValueError(f"texts[{row}] has {count} tokens, {name!r} reads {limit}; shorten {text!r}")
    return texts


def normalised(features: torch.Tensor) -> np.ndarray:
    """(n, d) of any float type -> rows of length 1, float32."""
    return torch.nn.functional.normalize(features.float(), dim=-1).cpu().numpy()


def try_out(encoder: Encoder, source: Path) -> None:
    """One grey image and one word through a model whose config nobody has tried before.

    Raises ValueError, naming `source`, where that gives anything but finite features (1, dim).
    """
    try:
        image = encoder.encode_images(encoder.preprocess(Image.new("RGB", (90, 80), "grey"))[None])
        text = encoder.encode_texts(["a"])
    except Exception as error:  # whatever a model raises that doesn't fit together
        raise ValueError(
            f"{source}: the model can't encode an image and a text in {encoder.precision} ({_line(error)}); correct it"
        ) from error
    for kind, features in (("an image", image), ("a text", text)):
        if features.shape != (1, encoder.dim) or not np.isfinite(features).all():
            raise ValueError(f"{source}: {kind} gives no {encoder.dim} finite numbers; correct it, or fetch it again")


def versions(*packages: str) -> dict[str, str]:
    """Of Python and the packages that features depend on."""
    return {"python": platform.python_version(), **{package: version(package) for package in packages}}


def _line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
