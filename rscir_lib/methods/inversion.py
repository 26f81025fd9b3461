"""Textual inversion: each image gets a word of its own, which then stands beside the text."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from rscir_lib.methods.base import EncodeTexts, Questions, Scorer
from rscir_lib.similarity.exact import similarities
from rscir_lib.similarity.gallery import Gallery

SENTENCE = "an aerial image of *"
AT_ONCE = 32  # sentences: with gradients, each takes 90 MB in the text tower of a ViT-L-14


@dataclass(eq=False, repr=False)
class Inversion:
    """`enc("an aerial image of *, " + text) . x`, where `*` is a word that no vocabulary has: the token embedding for
    which `an aerial image of *` comes nearest to the query image, by `steps` of gradient descent (Adam) from zero.

    Baldrati et al., Zero-shot composed image retrieval with textual inversion (SEARLE), ICCV 2023, its inversion by
    optimisation (OTI); there from a random start, and kept near a language model's phrases by a loss that is missing
    here. The encoder stays as it is. ValueError for one whose text tower gives no gradients.
    """

    name, has_lambda = "inversion", False
    encoder: Any  # an `Encoder` with its optional parts
    steps: int = 50
    rate: float = 0.02

    def __post_init__(self) -> None:
        if not hasattr(self.encoder, "word_size"):
            raise ValueError(f"{self.name} needs gradients through a text tower: {self.encoder.name!r} gives none")
        try:
            self.encoder.encode_pseudo_words([SENTENCE], torch.zeros(1, self.encoder.word_size))
        except (ValueError, IndexError):
            raise ValueError(f"{self.name} needs a *: the tokenizer of {self.encoder.name!r} has none") from None

    @torch.inference_mode(False)
    @torch.enable_grad()
    def invert(self, images: np.ndarray) -> torch.Tensor:
        """The words (n, `word_size`) of images (n, d)."""
        wanted = torch.from_numpy(images).float().to(self.encoder.device)
        words = torch.zeros(len(images), self.encoder.word_size, device=wanted.device, requires_grad=True)
        optimizer = torch.optim.Adam([words], self.rate)
        for _ in range(self.steps):
            features = self.encoder.encode_pseudo_words([SENTENCE] * len(images), words)
            (words.grad,) = torch.autograd.grad(-(features * wanted).sum(), words)
            optimizer.step()
        return words.detach()

    def fit(self, features: Gallery, encode_texts: EncodeTexts) -> Scorer:
        known: dict[bytes, torch.Tensor] = {}  # an image's word

        def score(questions: Questions, lam: float) -> np.ndarray:
            if starred := [text for text in questions.words if "*" in text]:
                raise ValueError(f"{starred[0]!r}: {self.name} keeps * for a word of its own; leave it out")
            images, queries = [image.tobytes() for image in questions.images], []
            new = [row for row, image in enumerate(images) if image not in known]
            for rows in (new[start : start + AT_ONCE] for start in range(0, len(new), AT_ONCE)):
                known.update(zip([images[row] for row in rows], self.invert(questions.images[rows]), strict=True))
            sentences = [f"{SENTENCE}, {text}" for text in questions.query_words]
            for some in (slice(start, start + AT_ONCE) for start in range(0, len(sentences), AT_ONCE)):
                words = torch.stack([known[images[row]] for row in questions.image_of[some]])
                queries.append(self.encoder.encode_pseudo_words(sentences[some], words).cpu().numpy())
            return similarities(features.feats, np.concatenate(queries))

        return score
