"""FreeDom: an image named by words, which are put beside the text."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rscir_lib.methods.base import EncodeTexts, Questions, Scorer
from rscir_lib.methods.vocabulary import read_vocabulary
from rscir_lib.similarity.exact import similarities
from rscir_lib.similarity.gallery import Gallery
from rscir_lib.similarity.order import best_first


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
