"""A composed query as one sentence: the image's caption, and the text after it."""

from collections.abc import Sequence

import numpy as np

from rscir_lib.methods.base import EncodeTexts, Questions, Scorer
from rscir_lib.similarity.exact import similarities
from rscir_lib.similarity.gallery import Gallery


class Captioned:
    """mean over the image's captions c of enc(c + ", " + text), . x; enc(text) . x where it has none.

    Args:
        captions: of each archive image, in its order, any number.

    Karthik et al., Vision-by-language for training-free compositional image retrieval (CIReVL), ICLR 2024, where a
    captioner writes the caption and a language model the new sentence; here people wrote it, and the text is appended.
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
