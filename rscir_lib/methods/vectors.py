"""Methods that make one feature of the image and the text, and rank by the similarity to it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rscir_lib.methods.base import EncodeTexts, Questions, Scorer
from rscir_lib.methods.vocabulary import read_vocabulary
from rscir_lib.similarity.exact import similarities
from rscir_lib.similarity.gallery import Gallery


class Slerp:
    """q . x with q = [sin((1 - lambda) a) v + sin(lambda a) t] / sin(a), a the angle between image v and text t.

    Shoemake, SIGGRAPH 1985; for composed retrieval: Jang et al., Spherical linear interpolation and text-anchoring for
    zero-shot composed image retrieval, ECCV 2024, without its anchoring, which trains.
    """

    name, has_lambda = "slerp", True

    def fit(self, features: Gallery, encode_texts: EncodeTexts) -> Scorer:
        def score(questions: Questions, lam: float) -> np.ndarray:
            return similarities(features.feats, slerp(questions.query_images, questions.query_texts, lam))

        return score


def slerp(start: np.ndarray, end: np.ndarray, lam: float) -> np.ndarray:
    """Points (B, d) at the share `lam` of the arcs between unit vectors (B, d); on the chord where there is no one arc
    (equal or opposite ends)."""
    angle = np.arccos(np.clip((start * end).sum(axis=1, keepdims=True), -1, 1))
    sine = np.sin(angle)
    arc = sine > 1e-6
    safe = np.where(arc, sine, 1)
    first = np.where(arc, np.sin((1 - lam) * angle) / safe, 1 - lam)
    return first * start + np.where(arc, np.sin(lam * angle) / safe, lam) * end


class Direction:
    """q . x with q = v + step (t - o), where o is the text of `values` that is most similar to the image v: what it
    shows now, by the encoder's zero-shot guess.

    The analogy king - man + woman of Mikolov et al., Linguistic regularities, NAACL 2013; between CLIP's images and
    texts as in Couairon et al., Embedding arithmetic of multimodal queries for image retrieval, CVPR Workshops 2022,
    whose `step` is chosen; here it is 1, and `values` are ours (data/vocabulary).
    """

    name, has_lambda = "direction", False

    def __init__(self, values: str | Path | Sequence[str] = "subjects", step: float = 1.0) -> None:
        self.values, self.step = values, step

    def fit(self, features: Gallery, encode_texts: EncodeTexts) -> Scorer:
        values = np.asarray(encode_texts(list(read_vocabulary(self.values))), np.float64)

        def score(questions: Questions, lam: float) -> np.ndarray:
            shown = values[similarities(values, questions.images).argmax(axis=1)]
            moved = questions.query_images + self.step * (questions.query_texts - shown[questions.image_of])
            return similarities(features.feats, moved)

        return score


class Captioned:
    """mean over the image's captions c of enc(c + ", " + text), . x; enc(text) . x where it has none.

    Karthik et al., Vision-by-language for training-free compositional image retrieval (CIReVL), ICLR 2024, where a
    captioner writes the caption and a language model the new sentence; here people wrote `captions`, any number of each
    archive image, in its order, and the text is appended.
    """

    has_lambda = False

    def __init__(self, captions: Sequence[Sequence[str]], name: str = "cirevl") -> None:
        self.captions, self.name = captions, name

    def fit(self, features: Gallery, encode_texts: EncodeTexts) -> Scorer:
        if len(self.captions) != len(features):
            raise ValueError(f"captions of {len(self.captions)} images for an archive of {len(features)}")

        def score(questions: Questions, lam: float) -> np.ndarray:
            sentences = [
                [f"{caption}, {text}" for caption in (self.captions[own] if own >= 0 else ())] or [text]
                for own, text in zip(questions.positions[questions.image_of], questions.query_words, strict=True)
            ]
            every = list(dict.fromkeys(sentence for several in sentences for sentence in several))
            encoded = dict(zip(every, np.asarray(encode_texts(every), np.float64), strict=True))
            means = [np.mean([encoded[sentence] for sentence in several], axis=0) for several in sentences]
            return similarities(features.feats, np.stack(means))

        return score
