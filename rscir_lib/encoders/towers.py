"""Encoders of two torch towers, whichever library they are of: texts checked, batches, features of length 1."""

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image

from rscir_lib.encoders.base import normalised, reason

# Held while a tokenizer is at work. Hugging Face's keep the padding of a call as their state: of two threads at once,
# one would have its text padded as the other's is, and get the feature of something else.
TOKENIZING = threading.Lock()


@dataclass(kw_only=True, eq=False)
class TwoTowers:
    """An `Encoder` whose subclass computes features (of any length) and tokens by its library, in three methods."""

    of_images: ClassVar[Callable[..., torch.Tensor]]  # of a batch (B, 3, H, W)
    of_texts: ClassVar[Callable[..., torch.Tensor]]  # of a list of texts
    tokens: ClassVar[Callable[..., list[int]]]  # of a text, without start and end

    name: str
    architecture: str
    dim: int
    device: torch.device
    precision: str
    preprocess: Callable[[Image.Image], torch.Tensor]
    provenance: dict[str, str]
    model: Any = field(repr=False)
    tokenizer: Any = field(repr=False)
    context: int  # tokens that the text tower reads
    ends: int  # how many of them mark a text's start and end

    @torch.inference_mode()
    def encode_images(self, batch: torch.Tensor) -> np.ndarray:
        """Features of preprocessed images (B, 3, H, W) -> (B, dim)."""
        batch = batch.to(self.device, non_blocking=True)  # so pinned memory is copied as it is
        batch = batch.to(getattr(torch, self.precision), memory_format=torch.channels_last)  # as convolutions take it
        return normalised(self.of_images(batch))

    @torch.inference_mode()
    def encode_texts(self, texts: list[str], batch_size: int = 256) -> np.ndarray:
        """Features of texts -> (len(texts), dim).

        Raises ValueError, naming the text, for none at all, no string, a blank one, and one that would be cut.
        """
        texts = self.checked(texts)
        batches = [texts[start : start + batch_size] for start in range(0, len(texts), batch_size)]
        return np.concatenate([normalised(self.of_texts(batch)) for batch in batches])

    def checked(self, texts: Any) -> list[str]:
        """The texts, when this encoder reads each of them whole; ValueError as `encode_texts` raises it."""
        texts = [] if isinstance(texts, str) or not isinstance(texts, Iterable) else list(texts)
        if not texts:
            raise ValueError("encode_texts takes a list with at least one text, such as ['a red roof']")
        for row, text in enumerate(texts):
            reads = f"{self.name!r} reads {self.context}"
            if not isinstance(text, str):
                raise ValueError(f"texts[{row}] is {text!r}, not a string; leave it out or write it in words")
            if len(text) > 100 * self.context:  # the tokenizers take the square of a long word's length
                raise ValueError(f"texts[{row}] has {len(text)} characters, {reads} tokens; shorten it")
            if not text.isprintable() and text != text.encode(errors="replace").decode():  # half a character
                raise ValueError(f"texts[{row}] is {text!r}, which is no Unicode text; type it again")
            count = len(self.tokens(text))
            if not count:
                raise ValueError(f"texts[{row}] is blank for {self.name!r}: {text!r}; write a word")
            if count + self.ends > self.context:
                raise ValueError(f"texts[{row}] has {count + self.ends} tokens, {reads}; shorten {text!r}")
        return texts


def try_out(encoder: TwoTowers, source: Path) -> None:
    """Raise ValueError, naming `source`, unless one grey image and one word give finite features (1, dim)."""
    try:
        image = encoder.encode_images(encoder.preprocess(Image.new("RGB", (90, 80), "grey"))[None])
        text = encoder.encode_texts(["a"])
    except Exception as error:  # whatever a model raises that doesn't fit together
        raise ValueError(
            f"{source}: the model can't encode an image and a text in {encoder.precision} ({reason(error)}); correct it"
        ) from error
    for kind, features in (("an image", image), ("a text", text)):
        if features.shape != (1, encoder.dim) or not np.isfinite(features).all():
            raise ValueError(f"{source}: {kind} gives no {encoder.dim} finite numbers; correct it, or fetch it again")
