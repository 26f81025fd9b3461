"""Text direction: the image moves as the words do, from what it shows to what is asked for."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rscir_lib.methods.base import EncodeTexts, Questions, Scorer
from rscir_lib.methods.vocabulary import read_vocabulary
from rscir_lib.similarity.exact import similarities
from rscir_lib.similarity.gallery import Gallery


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
