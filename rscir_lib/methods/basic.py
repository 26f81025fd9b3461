"""BASIC: both similarities cleaned by what is known of images and words, then multiplied."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from rscir_lib.methods.base import EncodeTexts, Questions, Scorer
from rscir_lib.methods.vocabulary import read_vocabulary
from rscir_lib.similarity.exact import best_first, similarities
from rscir_lib.similarity.gallery import Gallery

RANK = 1e-10  # of the greatest eigenvalue: smaller ones are the rounding of float32 words, not a direction
CONTEXTS = 100  # subjects that a text is put beside, by the released code
SAMPLE = 1_000  # archive images, evenly spaced, whose similarities give the least ones


@dataclass(frozen=True, eq=False, repr=False)
class Basic:
    """s_v s_t - 0.1 (s_v + s_t)^2 of cleaned similarities, negative ones taken as 0. Each step is a switch.

    Args:
        subjects: what images show; "subjects" for ours, a text file, or the words.
        styles: how they show it, likewise.
        centre: v and x less the archive's mean image, t and all words less the mean subject.
        project: v onto the `components` strongest eigenvectors, as far as their eigenvalues exceed `RANK`,
            of (1 - contrast) S+ - contrast S-; S+ and S- are the scatter matrices of subjects and of styles.
        expand: v becomes the mean of itself and its `neighbours` most similar other images, weighted by exp(s / 10),
            with s = 1 for v.
        normalise: each similarity to (s - least) / abs(least), the least over pairs of archive images, and of subjects
            and archive images.
        harris: the term with the square, which asks that both similarities be high; without it their product.
        released: as the released code has it where ours differs: 1e-5 on every entry of the scatter difference; the
            least similarities are those of unprojected images, and both are divided by the image's, which changes
            results most; t is the mean of the text before and behind each of the first `CONTEXTS` subjects
            ("contextualise").
        mean: a .npy file of a mean image (d,), instead of the archive's.

    Psomas et al., Instance-level composed image retrieval, NeurIPS 2025, and its released code. Simplified either way:
    unless they are given, words are ours and the mean image is the archive's, not that of a million web images; the
    least similarities are the archive's, not those of generated images.
    """

    has_lambda = False
    subjects: str | Path | Sequence[str] = "subjects"
    styles: str | Path | Sequence[str] = "styles"
    centre: bool = True
    project: bool = True
    expand: bool = True
    normalise: bool = True
    harris: bool = True
    released: bool = False
    mean: str | Path | None = None
    components: int = 250
    contrast: float = 0.2
    neighbours: int = 25
    name: str = "basic"

    def __post_init__(self) -> None:
        if not 0 <= self.contrast <= 1 or min(self.components, self.neighbours) < 1:
            sizes = f"contrast {self.contrast}, components {self.components}, neighbours {self.neighbours}"
            raise ValueError(f"{sizes}: wanted are a contrast in [0, 1] and numbers of at least 1")

    def fit(self, features: Gallery, encode_texts: EncodeTexts) -> Scorer:
        feats = features.feats
        words = [list(read_vocabulary(words)) for words in (self.subjects, self.styles)]
        subjects, styles = (np.asarray(encode_texts(some), np.float64) for some in words)
        mean_image, mean_word = np.zeros((2, subjects.shape[1]))
        if self.centre:
            mean_image = np.load(self.mean).ravel().astype(np.float64) if self.mean else features.moments.mean
            mean_word = subjects.mean(axis=0)
            subjects, styles = subjects - mean_word, styles - mean_word
        projection = self._projection(subjects, styles) if self.project else np.eye(subjects.shape[1])

        def to_centred(queries: np.ndarray) -> np.ndarray:
            """Similarities to the archive's centred images (B, N)."""
            return similarities(feats, queries) - (queries @ mean_image)[:, None]

        spread = np.unique(np.linspace(0, len(feats) - 1, SAMPLE).astype(int))
        sample = feats[spread].astype(np.float64) - mean_image
        least = [(queries @ sample.T).min() for queries in (sample if self.released else sample @ projection, subjects)]
        scales = [max(abs(low), 1e-12) for low in (least[:1] * 2 if self.released else least)]

        @lru_cache(maxsize=4096)
        def in_context(text: str) -> np.ndarray:
            phrases = [phrase for word in words[0][:CONTEXTS] for phrase in (f"{word} {text}", f"{text} {word}")]
            mean = np.asarray(encode_texts(phrases), np.float64).mean(axis=0)
            return mean / np.linalg.norm(mean)

        def score(questions: Questions, lam: float) -> np.ndarray:
            texts = np.stack(list(map(in_context, questions.words))) if self.released else questions.texts
            images, texts = questions.images - mean_image, texts - mean_word
            if self.expand:
                to_archive = to_centred(images @ projection)
                images = self._expanded(images, questions.positions, to_archive, feats, mean_image)
            both = [to_centred(images @ projection), to_centred(texts)]
            if self.normalise:
                both = [(s - low) / scale for s, low, scale in zip(both, least, scales, strict=True)]
            s_v, s_t = (s.clip(min=0) for s in both)
            s_v, s_t = s_v[questions.image_of], s_t[questions.text_of]
            return s_v * s_t - (0.1 * (s_v + s_t) ** 2 if self.harris else 0)

        return score

    def _projection(self, subjects: np.ndarray, styles: np.ndarray) -> np.ndarray:
        """The matrix (d, d) that projects onto the strongest eigenvectors of the contrastive scatter."""
        kept, left_out = (words.T @ words / (len(words) - 1) for words in (subjects, styles))
        difference = (1 - self.contrast) * kept - self.contrast * left_out + 1e-5 * self.released
        values, vectors = np.linalg.eigh(difference)
        strongest = np.argsort(-values)[: self.components]
        basis = vectors[:, strongest[values[strongest] > RANK * np.abs(values).max()]]
        return basis @ basis.T

    def _expanded(
        self, images: np.ndarray, own: np.ndarray, to_archive: np.ndarray, feats: np.ndarray, mean_image: np.ndarray
    ) -> np.ndarray:
        expanded = []
        for image, position, s in zip(images, own, to_archive, strict=True):
            near = best_first(s, self.neighbours, position)
            weights = np.exp(0.1 * np.append(s[near], 1))
            joined = np.vstack([feats[near] - mean_image, image])
            expanded.append(weights @ joined / weights.sum())
        return np.stack(expanded)
