"""One question to an archive: the best images for a query image and a text."""

import warnings
from collections.abc import Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd
import torch
from PIL import Image

from rscir_lib import ranking
from rscir_lib.archive import Archive
from rscir_lib.archive.reading import DEFAULT_READING, read_image, rgb_of
from rscir_lib.features import Features
from rscir_lib.methods.base import Method, Questions, Scorer
from rscir_lib.methods.pairwise import TwoSimilarities
from rscir_lib.methods.registry import get_method
from rscir_lib.ranking import AUTO, AutoLambda, Job, read_lambda
from rscir_lib.search.hits import Hits
from rscir_lib.similarity.exact import similarities
from rscir_lib.similarity.gallery import Gallery, InMemory
from rscir_lib.similarity.lambda_auto import QUERIES
from rscir_lib.similarity.scales import normal_cdf

if TYPE_CHECKING:
    from rscir_lib.encoders import Encoder

Query = int | str | Path | Image.Image | None


class Searcher:
    """Questions to one archive: what they share (moments, fitted methods, text features) is worked out once.

    Args:
        features: of the archive; scanned shard by shard where they lie in its order.
        encoder: the one that made them; None where `features.provenance` names one that can be loaded.
        archive: where positions count, pictures and places lie; without one, the features' own order.
        template: what words are read in, such as "a satellite image of {}"; of several, with | between, the mean.
    """

    def __init__(
        self, features: Features, encoder: "Encoder | None" = None, archive: Archive | None = None, template: str = "{}"
    ) -> None:
        self.features, self.archive, self._template = features, archive, template
        self._encoder = encoder
        self._text = lru_cache(1024)(lambda text: self.encode_texts([text])[0])
        self._fitted: list[tuple[Method, Scorer]] = []

    @cached_property
    def gallery(self) -> Gallery:
        """The features in the order that positions count; those that lie in it already are left where they are."""
        if self.archive is None or self.features.lie_as(self.archive):
            return self.features
        return InMemory(self.features.aligned(self.archive))

    def __len__(self) -> int:
        return len(self.features if self.archive is None else self.archive)

    @cached_property
    def encoder(self) -> "Encoder":
        """The encoder of the features, with the template. Raises ValueError where it has to be passed."""
        from rscir_lib.encoders import load_encoder, prompted  # numbers and stored images need none

        if self._encoder is not None:
            return prompted(self._encoder, self._template)
        made = self.features.provenance
        if made.get("encoder") != "demo":
            raise ValueError(f"pass encoder=, the one that made these features ({made.get('encoder', 'unknown')})")
        encoder = load_encoder("demo")
        if encoder.provenance["weights_sha256"] != made.get("weights_sha256", encoder.provenance["weights_sha256"]):
            raise ValueError("these features were made by another demo encoder; pass it as encoder=, or extract again")
        return prompted(encoder, self._template)

    def encode_texts(self, texts: list[str]) -> np.ndarray:
        """Features (n, d) of texts."""
        return self.encoder.encode_texts(texts)

    def __call__(
        self, image: Query, text: str | None, lam: float | str = 0.5, method: str | Method = "weicom", top: int = 20
    ) -> Hits:
        """See `search`."""
        method = get_method(method)
        if isinstance(lam, str) and lam == AUTO:
            lam = self.auto_lambda(text).lam
        lam = cast(float, lam)  # anything else is refused by `top_k`
        alone = {"image": 0, "text": 1}.get(method.name, lam if method.has_lambda else None)  # lambda: which modality
        if image is None and alone != 1:
            raise ValueError("no query image: give a position, a path or a picture, or ask by the text alone (lam=1)")
        if text is not None and not isinstance(text, str):
            raise ValueError(f"text {text!r}: expected words, found {type(text).__name__}")
        text = " ".join((text or "").split())
        if not text and alone != 0:
            raise ValueError("no text: type some words, or ask by the image alone (lam=0)")
        picture, name, of_image, position = self._image(image)
        of_text = self._text(text) if text else np.zeros(self.features.dim, np.float32)
        question = _question(of_image, of_text, text, position)
        job = Job(method, lam, None if Job(method).by_row else self._scorer(method))
        (positions,), (scores,) = ranking.top_k(question, top, self.gallery, job)
        words = {
            "image": name, "text": text, "method": method.name, "lambda": lam if method.has_lambda else None,
            "archive": self.archive.name if self.archive else self.features.provenance.get("archive", ""),
        }  # fmt: skip
        table = self._table(positions, scores, np.stack([of_image, of_text]), method, lam)
        for modality, there in (("image", name), ("text", text)):
            if not there:
                table[[f"cosine_{modality}", f"normal_{modality}"]] = np.nan
        return Hits(table, picture, words, self.archive.read if self.archive else None, self._unknown_words(text))

    def _scorer(self, method: Method) -> Scorer:
        """The method fitted to the archive, when it is first asked for."""
        if not any(known is method for known, _ in self._fitted):
            self._fitted.append((method, method.fit(self.gallery, self.encode_texts)))
        return next(scorer for known, scorer in self._fitted if known is method)

    def auto_lambda(self, text: str | None) -> AutoLambda:
        """The lambda of a text beside images of the archive, read off their similarities (`ranking.read_lambda`)."""
        if not (isinstance(text, str) and text.strip()):
            raise ValueError("lambda 'auto' is read off images and a text: type some words, or ask with lambda 0")
        text = " ".join(text.split())
        images = self.gallery.rows(np.unique(np.linspace(0, len(self) - 1, min(QUERIES, len(self))).astype(int)))
        every = np.arange(len(images))
        return read_lambda(Questions(images, self._text(text)[None], (text,), every, 0 * every), self.gallery)

    def _image(self, image: Query) -> tuple[Image.Image | None, str, np.ndarray, int]:
        """Picture, name, feature (d,) and position of a query image, -1 for one from outside."""
        if image is None:
            return None, "", np.zeros(self.features.dim, np.float32), -1
        if isinstance(image, str | Path) and (position := self._position(str(image))) is not None:
            image = position
        if isinstance(image, int | np.integer) and not isinstance(image, bool):
            image = int(image)
            if not 0 <= image < len(self):
                raise ValueError(f"position {image} is outside the archive: it has {len(self)} images, "
                                 f"0 to {len(self) - 1}")  # fmt: skip
            picture = self.archive.read(image) if self.archive else None
            name = self.archive.files[image] if self.archive else self.features.named([image])[0][0]
            return picture, name, self.gallery.rows([image])[0], image
        if isinstance(image, str | Path):
            rule = self.archive.rule if self.archive else DEFAULT_READING
            picture, name = read_image(Path(image).expanduser(), rule), Path(image).name
        elif isinstance(image, Image.Image):
            picture, name = rgb_of(image), Path(getattr(image, "filename", "") or "a picture").name
        else:
            raise ValueError(f"query image {image!r}: expected a position, a path or a PIL image")
        feature = self.encoder.encode_images(self.encoder.preprocess(picture)[None])[0]
        if not np.isfinite(feature).all():
            raise ValueError(f"{name}: the encoder gives a feature that is not finite")
        return picture, name, feature, -1

    def _position(self, file: str) -> int | None:
        if self.archive is None:
            return self.features.position(file)
        return self.archive.files.index(file) if file in self.archive.files else None

    def _named(self, positions: Sequence[int] | np.ndarray) -> list[tuple[str, str, dict[str, Any] | None]]:
        """File, class and footprint."""
        if self.archive is None:
            return self.features.named(positions)
        return [(self.archive.files[i], self.archive.classes[i], self.archive.footprint(i)) for i in positions]

    def _table(
        self, positions: np.ndarray, scores: np.ndarray, sides: np.ndarray, method: Method, lam: float
    ) -> pd.DataFrame:
        files, classes, places = zip(*self._named(positions), strict=True)
        cosines = torch.from_numpy(similarities(self.gallery.rows(positions), sides))
        mean, std = (torch.from_numpy(moment)[:, None] for moment in self.gallery.moments.of_similarities(sides))
        normal = normal_cdf(cosines, (mean, std))
        if isinstance(method, TwoSimilarities) and method.shown:  # on the scale that people read
            shown = method.shown(cosines, (mean, std))
            scores = method.combine(shown[0], shown[1], lam).numpy()
        columns = {
            "rank": np.arange(1, len(positions) + 1), "position": positions, "file": files, "class": classes,
            "score": scores, "cosine_image": cosines[0], "cosine_text": cosines[1], "normal_image": normal[0],
            "normal_text": normal[1],
        }  # fmt: skip
        return pd.DataFrame(columns).assign(footprint=pd.Series(places, dtype=object))

    def _unknown_words(self, text: str) -> tuple[str, ...]:
        """Words that the encoder has never seen, where it can tell; with a warning."""
        if not text or not hasattr(self.encoder, "unknown_words"):
            return ()
        unknown = tuple(dict.fromkeys(self.encoder.unknown_words(text)))
        if unknown:
            words = ", ".join(map(repr, unknown))
            warnings.warn(f"encoder {self.encoder.name!r} has never seen {words}: expect noise", stacklevel=4)
        return unknown


def search(
    features: Features,
    image: Query,
    text: str | None,
    lam: float | str = 0.5,
    method: str | Method = "weicom",
    top: int = 20,
    encoder: "Encoder | None" = None,
    archive: Archive | None = None,
    template: str = "{}",
) -> Hits:
    """The best images of an archive for a query image and a text. For many questions, keep a `Searcher`.

    Args:
        features: of the archive.
        image: an archive position or file, the path of any other image, or a PIL image; None to ask by the text alone
            (lam=1 or method "text").
        text: words; None or "" to ask by the image alone (lam=0 or method "image").
        lam: in [0, 1]: 0 is image alone, 1 text alone; "auto" reads it off the similarities of this text and of images
            of the archive (`ranking.read_lambda`).
        method: a name in `methods.METHODS`, or an object.
        top: how many images.
        encoder, archive, template: see `Searcher`.

    Raises:
        ValueError: for a position outside the archive, a blank question, a lambda or `top` out of range; `read_image`
            and the encoder raise their own. Words that the encoder has never seen are warned of, where it can tell.
    """
    return Searcher(features, encoder, archive, template)(image, text, lam, method, top)


def top_k(
    features: Gallery | np.ndarray,
    image: np.ndarray,
    text: np.ndarray,
    lam: float = 0.5,
    top: int = 20,
    method: str | Method = "weicom",
) -> tuple[np.ndarray, np.ndarray]:
    """Positions (top,) and scores (top,) of the best images for two features, best first, by a method that sees nothing
    but the similarities to them.

    Args:
        features: of the archive, or an array (N, d).
        image, text: the query's features, (d,) each.
        lam, top, method: as those of `search`.
    """
    method, gallery = get_method(method), InMemory(features) if isinstance(features, np.ndarray) else features
    if not isinstance(method, TwoSimilarities):
        raise ValueError(f"method {method.name!r} sees more than two similarities: ask `search`")
    scorer = None if Job(method).by_row else method.fit(gallery)
    positions, scores = ranking.top_k(_question(image, text), top, gallery, Job(method, lam, scorer))
    return positions[0], scores[0]


def _question(image: np.ndarray, text: np.ndarray, words: str = "", position: int = -1) -> Questions:
    """One query, of an image that lies at a position of the archive, -1 for one from outside."""
    only = np.zeros(1, np.int64)
    return Questions(image[None], text[None], (words,), only, only, np.array([position]))
