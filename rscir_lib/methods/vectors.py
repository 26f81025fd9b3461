"""Methods that make a feature of their own of a query: of image and text, or of the image and its neighbours."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from rscir_lib.methods.base import EncodeTexts, Method, Questions, Scorer
from rscir_lib.methods.vocabulary import read_vocabulary
from rscir_lib.similarity.exact import best_first, similarities
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


@dataclass(frozen=True, eq=False, repr=False)
class FreeDom:
    """sum_j w_j enc(word_j + " " + text) . x, over the `kept` most frequent words of the image's neighbours.

    The image and its most similar archive images, `neighbours` in all, each name their `words` most similar entries of
    the vocabulary; w_j is how often a word was named, over the most frequent one's count. Ties go to the word named
    first, by nearer neighbours. Efthymiadis et al., Composed image retrieval for training-free domain conversion,
    WACV 2025, and its released code, whose numbers 20, 7, 7 are; there with the class names of Open Images V7 and CLIP
    ViT-L/14. Here the vocabulary is ours (data/vocabulary).
    """

    has_lambda = False
    vocabulary: str | Path | Sequence[str] = "subjects"
    neighbours: int = 20
    words: int = 7
    kept: int = 7
    name: str = "freedom"

    def __post_init__(self) -> None:
        if min(sizes := (self.neighbours, self.words, self.kept)) < 1:
            raise ValueError("neighbours {}, words {}, kept {}: each must be at least 1".format(*sizes))

    def fit(self, features: Gallery, encode_texts: EncodeTexts) -> Scorer:
        feats, vocabulary = features.feats, read_vocabulary(self.vocabulary)
        of_vocabulary = np.asarray(encode_texts(list(vocabulary)), np.float64)
        # words that are one to the encoder, such as two that it never met, differ by rounding: they share a feature, so
        # that the first in the vocabulary is named
        unit = of_vocabulary / np.linalg.norm(of_vocabulary, axis=1, keepdims=True)
        first, word_of = np.unique((unit @ unit.T > 1 - 1e-10).argmax(axis=1), return_inverse=True)
        encoded: dict[str, np.ndarray] = {}  # of a word beside a text

        def named(image: np.ndarray, position: int, to_archive: np.ndarray) -> dict[str, float]:
            """Words for an image (d,), most frequent first, with their weights in (0, 1]."""
            near = np.vstack([image, feats[best_first(to_archive, self.neighbours - 1, position)]]).astype(np.float64)
            to_words = (near @ of_vocabulary[first].T)[:, word_of]
            named = Counter(vocabulary[i] for row in to_words for i in best_first(row, self.words))
            counts = named.most_common(self.kept)  # equal counts in the order of the first time
            return {word: count / counts[0][1] for word, count in counts}

        def score(questions: Questions, lam: float) -> np.ndarray:
            names = list(map(named, questions.images, questions.positions, similarities(feats, questions.images)))
            phrases = [
                {f"{word} {text}": weight for word, weight in names[image].items()}
                for image, text in zip(questions.image_of, questions.query_words, strict=True)
            ]
            if new := list(dict.fromkeys(phrase for each in phrases for phrase in each if phrase not in encoded)):
                encoded.update(zip(new, np.asarray(encode_texts(new), np.float64), strict=True))
            queries = [sum(weight * encoded[phrase] for phrase, weight in each.items()) for each in phrases]
            return similarities(feats, np.stack(queries))

        return score


class Expanded:
    """`method` with v replaced by the normalised mean of v and its `neighbours` most similar archive images x_i, itself
    not among them, the latter weighted by max(v . x_i, 0) ** power.

    Chum et al., Total recall, ICCV 2007 (power 0); Radenovic et al., Fine-tuning CNN image retrieval with no human
    annotation, TPAMI 2019 (alpha query expansion). Only the image is expanded, not the composed result.
    """

    def __init__(self, method: Method, neighbours: int = 10, power: float = 3.0, name: str = "") -> None:
        if neighbours < 1:
            raise ValueError(f"neighbours {neighbours}: at least 1 is wanted")
        self.method, self.neighbours, self.power = method, neighbours, power
        self.name, self.has_lambda = name or f"{method.name}+qe", method.has_lambda

    def fit(self, features: Gallery, encode_texts: EncodeTexts) -> Scorer:
        scorer = self.method.fit(features, encode_texts)

        @lru_cache(maxsize=1)  # the lambdas of a sweep share them
        def expanded(questions: Questions) -> Questions:
            return replace(questions, images=self._expanded(features.feats, questions))

        return lambda questions, lam: scorer(expanded(questions), lam)

    def _expanded(self, feats: np.ndarray, questions: Questions) -> np.ndarray:
        expanded, own = questions.images.astype(np.float64), questions.positions
        for query, position, to_archive in zip(expanded, own, similarities(feats, questions.images), strict=True):
            near = best_first(to_archive, self.neighbours, position)
            weights = np.maximum(to_archive[near], 0) ** self.power
            query += weights @ feats[near].astype(np.float64)
        return expanded / np.linalg.norm(expanded, axis=1, keepdims=True)
