"""The sentences that words are put into before an encoder reads them."""

from typing import Any

import numpy as np
import torch

from rscir_lib.encoders.base import Encoder, normalised

BARE = "{}"  # the words alone


def sentences(template: str) -> list[str]:
    """The parts of a template such as "a satellite image of {}|an aerial photo of {}", each with {} for the words."""
    parts = [part.strip() for part in template.split("|")] if isinstance(template, str) else []
    if not parts or any(part.count(BARE) != 1 for part in parts):
        raise ValueError('a text with {} for the words, such as "a satellite image of {}"; | stands between several')
    return parts


class Prompted:
    """An encoder that reads words inside a sentence, or inside several, whose features it averages and normalises.

    All but its texts, and `template` in its provenance, is the encoder's own.
    """

    def __init__(self, encoder: Encoder, template: str) -> None:
        self.encoder, self.sentences = encoder, sentences(template)
        self.provenance = encoder.provenance | {"template": template}

    def __getattr__(self, name: str) -> Any:
        if name == "encoder":  # a copy that is being made, in another process, has none yet
            raise AttributeError(name)
        return getattr(self.encoder, name)

    def encode_texts(self, texts: list[str]) -> np.ndarray:
        """Features of texts -> (len(texts), dim) float32, L2-normalised. Raises what the encoder does."""
        texts = getattr(self.encoder, "checked", list)(texts)  # as they are: in a sentence no text is blank
        whole = [sentence.replace(BARE, text) for sentence in self.sentences for text in texts]
        features = self.encoder.encode_texts(whole).reshape(len(self.sentences), len(texts), -1)
        return normalised(torch.from_numpy(features.mean(axis=0, dtype=np.float64)))


def prompted(encoder: Encoder, template: str = BARE) -> Encoder:
    """The encoder, reading words inside the sentences of a template. Raises ValueError for a template without {}."""
    return encoder if template == BARE else Prompted(encoder, template)  # type: ignore[return-value]
