"""One question to an archive: the best images for a query image and a text, to look at, to keep, to put on a map."""

import base64
import hashlib
import html
import io
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from PIL import Image

from rscir_lib import plots
from rscir_lib.archive import Archive
from rscir_lib.archive.reading import DEFAULT_READING, read_image
from rscir_lib.features import Features
from rscir_lib.methods.base import Method, Scorer
from rscir_lib.methods.pairwise import TwoSimilarities
from rscir_lib.methods.registry import get_method
from rscir_lib.ranking import engine
from rscir_lib.similarity.moments import Database, Moments, float32_products
from rscir_lib.similarity.scales import best_first, check_lambda
from rscir_lib.storage.atomic import write_json, write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from rscir_lib.encoders import Encoder

Query = int | str | Path | Image.Image | None


def top_k(
    features: Database | np.ndarray,
    image: np.ndarray,
    text: np.ndarray,
    lam: float = 0.5,
    top: int = 20,
    method: str | Method = "weicom",
    scorer: Scorer | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Archive positions (top,) of the best images and their scores (top,), best first, ties by archive order.

    features: a `Database`, worth keeping between queries for its moments, or (N, d) float32; image, text: (d,) query
    features; lam in [0, 1]. scorer: the method fitted, which one that sees more than two similarities needs.

    The ranking is `evaluate`'s, that of float64. Where a method is pointwise, float32 similarities and the bound of
    their error first rule out what can't be among the best; only the rest is taken in float64.
    Raises ValueError for a lambda or a `top` out of range, and for scores that are not finite.
    """
    method, database = get_method(method), Database.of(features)
    if isinstance(top, bool) or not isinstance(top, Integral) or top < 1:
        raise ValueError(f"top {top!r}: ask for a whole number of images, at least 1")
    if method.has_lambda:
        check_lambda(lam)
    for query in (image, text):
        if np.shape(query) != (dim := database.feats.shape[1],):
            raise ValueError(
                f"a query feature has shape {np.shape(query)}, the archive's ({dim},): of another encoder?"
            )
    queries = np.stack([image, text]).astype(np.float32)
    if not np.isfinite(queries).all():
        raise ValueError("the query features are not finite; the encoder, or what it was given, is at fault")
    longest = database.longest  # which refuses an archive that is not finite
    if isinstance(method, TwoSimilarities):
        moments = [database.moments.of_similarities(query) for query in queries]
        # a spread that is hardly there is lost in the rounding of the moments
        if method.pointwise and min(std for _, std in moments) > 1e-6:
            lengths = longest * np.linalg.norm(queries.astype(np.float64), axis=1)
            return _of_candidates(database, queries, lam, top, method, moments, lengths)
        scorer = method.fit(database, None)
    if scorer is None:
        raise ValueError(f"method {method.name!r} sees more than two similarities: pass scorer, the method fitted")
    image, text = queries[:, None].astype(np.float64)
    scores = np.asarray(scorer(image, text, lam))[0]
    if not np.isfinite(scores).all():
        raise ValueError(f"method {method.name!r} gives scores that are not finite")
    best = best_first(scores, top)
    return best, scores[best]


@float32_products()
def _of_candidates(
    database: Database,
    queries: np.ndarray,
    lam: float,
    top: int,
    method: TwoSimilarities,
    moments: list[tuple[float, float]],
    lengths: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    prepare = method.prepare_at(lam)

    def score(similarities: torch.Tensor) -> np.ndarray:
        prepared = [prepare(s, of) for s, of in zip(similarities.double(), moments, strict=True)]
        return method.combine(*prepared, lam).numpy()

    # torch's products, here and in Moments: numpy's threads would fight with those of an encoder
    rough = (database.tensor @ torch.from_numpy(queries).T).T  # this way round several times as fast
    # no float32 sum of d products strays further from the true one, whatever its order (Higham, Accuracy and Stability
    # of Numerical Algorithms, 3.1)
    error = 1.01 * queries.shape[1] * 2.0**-24 * lengths[:, None]  # lengths: greatest of image times query
    highest = score(rough.double() + torch.from_numpy(error))

    def exact(positions: np.ndarray) -> np.ndarray:
        parts = [
            # summed row by row, so that equal features get equal scores
            [(database.feats[some].astype(np.float64) * query).sum(axis=1) for query in queries.astype(np.float64)]
            for some in np.split(positions, range(2**12, len(positions), 2**12))
        ]
        return score(torch.from_numpy(np.concatenate(parts, axis=1)))

    few = best_first(highest, 2 * top)
    least = np.sort(exact(few))[-min(top, len(few))]  # `top` images score as much: who can't is out
    candidates = np.flatnonzero(highest >= least - 1e-12 * abs(least))
    scores = exact(candidates)
    best = best_first(scores, top)
    return candidates[best], scores[best]


@dataclass(frozen=True)
class Hits:
    """The answers to one question, best first.

    table: a row a hit: rank, position, file, class, score, cosine_image and cosine_text (similarities to the query, in
        [-1, 1]), normal_image and normal_text (the same as shares of a normal distribution over the archive, in
        (0, 1)), footprint (a GeoJSON polygon in longitude and latitude, or None).
    image: the query picture, where there is one. question: image, text, method,
        lambda and archive, in words. read: archive position -> picture. unknown_words: of the text, to the encoder.
    """

    table: pd.DataFrame
    image: Image.Image | None
    question: dict[str, object]
    read: Callable[[int], Image.Image] | None = field(repr=False)
    unknown_words: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.table)

    @cached_property
    def name(self) -> str:
        """What to call files of these hits: the question in safe characters, with some that no other question has."""
        asked = f"{Path(str(self.question['image'])).stem} {self.question['text']}"
        words = re.sub(r"\W+", "-", asked).strip("-").lower()
        return f"hits_{words[:60]}_{hashlib.sha256(repr(self.question).encode()).hexdigest()[:6]}"

    @property
    def title(self) -> str:
        """The question in a line."""
        return ", ".join(f"{key} {value}" for key, value in self.question.items() if value not in ("", None))

    def gallery(self) -> "Figure":
        """The query on the left, the hits on the right."""
        label = {self._label: self.table["position"].tolist()}
        return plots.gallery(self._reader, self.image, self.question["text"], label, title=self.question["archive"])

    @property
    def _label(self) -> str:
        lam = self.question.get("lambda")
        return self.question["method"] + (f", lambda {lam:g}" if lam is not None else "")

    @property
    def _reader(self) -> Callable[[int], Image.Image]:
        if self.read is None:
            raise ValueError("the pictures lie in the archive: pass archive= to search")
        return self.read

    def to_csv(self, path: str | Path) -> Path:
        """The table as CSV, the question's parts as columns too."""
        table = self.table.assign(**{f"query_{key}": value for key, value in self.question.items()})
        return write_text(path, table.drop(columns="footprint").to_csv(index=False))

    def to_html(self, path: str | Path) -> Path:
        """One file that holds everything, pictures too: opens in any browser, without network."""
        return write_text(path, _page(self))

    def to_geojson(self, path: str | Path) -> Path:
        """The hits as polygons in longitude and latitude (RFC 7946). Raises ValueError where none has a place."""
        placed = self.table[self.table["footprint"].notna()]
        if placed.empty:
            raise ValueError(
                f"{self.question['archive']}: none of the hits has a place on the ground; GeoJSON takes an archive of "
                "georeferenced images or tiles (GeoTIFF)"
            )
        features = [
            {"type": "Feature", "geometry": row.pop("footprint"), "properties": row}
            for row in placed.astype(object).where(placed.notna(), None).to_dict("records")
        ]
        return write_json(path, {"type": "FeatureCollection", "features": features})


class Searcher:
    """Questions to one archive: what they share (moments, fitted methods, text features) is worked out once.

    features: of the archive; encoder: the one that made them, None where `features.provenance` names one that can be
    loaded; archive: where positions count, pictures and places lie; without one, the features' own order. Features
    that are `large`, in the archive's order, are scanned shard by shard for every question (`engine.top_k`), unless
    its method wants the archive as a whole.
    """

    def __init__(self, features: Features, encoder: "Encoder | None" = None, archive: Archive | None = None) -> None:
        self.features, self.archive = features, archive
        self._scanned = features.large and (archive is None or features.lie_as(archive))
        self._encoder = encoder
        self._text = lru_cache(1024)(lambda text: self.encode_texts([text])[0])
        self._fitted: dict[int, tuple[Method, Scorer]] = {}  # by identity: a method need not be hashable

    @cached_property
    def database(self) -> Database:
        """All features at once, in the order that positions count."""
        as_they_lie = self.archive is None or self._scanned
        return Database(self.features.feats if as_they_lie else self.features.aligned(self.archive))

    def __len__(self) -> int:
        return len(self.features if self.archive is None else self.archive)

    def _rows(self, positions: Sequence[int] | np.ndarray) -> np.ndarray:
        return self.features.rows(positions) if self._scanned else self.database.feats[positions]

    @property
    def _moments(self) -> Moments:
        return (self.features if self._scanned else self.database).moments

    @cached_property
    def encoder(self) -> "Encoder":
        """The encoder of the features. Raises ValueError where it has to be passed."""
        if self._encoder is not None:
            return self._encoder
        from rscir_lib.encoders import load_encoder  # numbers and stored images need none

        made = self.features.provenance
        if made.get("encoder") != "demo":
            raise ValueError(f"pass encoder=, the one that made these features ({made.get('encoder', 'unknown')})")
        encoder = load_encoder("demo")
        if encoder.provenance["weights_sha256"] != made.get("weights_sha256", encoder.provenance["weights_sha256"]):
            raise ValueError("these features were made by another demo encoder; pass it as encoder=, or extract again")
        return encoder

    def encode_texts(self, texts: list[str]) -> np.ndarray:
        """Features (n, d) of texts."""
        return self.encoder.encode_texts(texts)

    def __call__(
        self, image: Query, text: str | None, lam: float = 0.5, method: str | Method = "weicom", top: int = 20
    ) -> Hits:
        """See `search`."""
        method = get_method(method)
        alone = {"image": 0, "text": 1}.get(method.name, lam if method.has_lambda else None)  # lambda: which modality
        if image is None and alone != 1:
            raise ValueError("no query image: give a position, a path or a picture, or ask by the text alone (lam=1)")
        if text is not None and not isinstance(text, str):
            raise ValueError(f"text {text!r}: expected words, found {type(text).__name__}")
        text = " ".join((text or "").split())
        if not text and alone != 0:
            raise ValueError("no text: type some words, or ask by the image alone (lam=0)")
        picture, name, of_image = self._image(image)
        of_text = self._text(text) if text else np.zeros(self.features.dim, np.float32)
        positions, scores = self._best(of_image, of_text, text, lam, method, top)
        question = {"image": name, "text": text, "method": method.name, "lambda": lam if method.has_lambda else None}
        question["archive"] = self.archive.name if self.archive else self.features.provenance.get("archive", "")
        if isinstance(method, TwoSimilarities) and method.shown:
            scores = self._shown(method, positions, of_image, of_text, lam)
        table = self._table(positions, scores, of_image if name else None, of_text if text else None)
        return Hits(table, picture, question, self.archive.read if self.archive else None, self._unknown_words(text))

    def _best(
        self, image: np.ndarray, text: np.ndarray, words: str, lam: float, method: Method, top: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Positions and scores of the best."""
        if self._scanned and isinstance(method, TwoSimilarities) and method.pointwise:
            positions, scores = engine.top_k(self.features, image[None], text[None], lam, top, method)
            return positions[0], scores[0]
        scorer = None
        if not isinstance(method, TwoSimilarities):
            if id(method) not in self._fitted:
                self._fitted[id(method)] = method, method.fit(self.database, self.encode_texts)
            scorer = self._fitted[id(method)][1]
            if getattr(method, "reads_words", False):
                scorer = partial(scorer, words=[words])
        return top_k(self.database, image, text, lam, top, method, scorer)

    def _shown(
        self, method: TwoSimilarities, positions: np.ndarray, image: np.ndarray, text: np.ndarray, lam: float
    ) -> np.ndarray:
        """The scores on the scale that people read."""
        hits = self._rows(positions).astype(np.float64)
        scaled = [
            method.shown(torch.from_numpy(hits @ query.astype(np.float64)), self._moments.of_similarities(query))
            for query in (image, text)
        ]
        return method.combine(*scaled, lam).numpy()

    def _image(self, image: Query) -> tuple[Image.Image | None, str, np.ndarray]:
        """Picture, name and feature (d,) of a query image."""
        if image is None:
            return None, "", np.zeros(self.features.dim, np.float32)
        if isinstance(image, str | Path) and (position := self._position(str(image))) is not None:
            image = position
        if isinstance(image, Integral) and not isinstance(image, bool):
            if not 0 <= image < len(self):
                raise ValueError(f"position {image} is outside the archive: it has {len(self)} images, "
                                 f"0 to {len(self) - 1}")  # fmt: skip
            picture = self.archive.read(image) if self.archive else None
            name = self.archive.files[image] if self.archive else self.features.named([image])[0][0]
            return picture, name, self._rows([image])[0]
        if isinstance(image, str | Path):
            rule = self.archive.rule if self.archive else DEFAULT_READING
            picture, name = read_image(Path(image).expanduser(), rule), Path(image).name
        elif isinstance(image, Image.Image):
            picture, name = image.convert("RGB"), Path(getattr(image, "filename", "") or "a picture").name
        else:
            raise ValueError(f"query image {image!r}: expected a position, a path or a PIL image")
        feature = self.encoder.encode_images(self.encoder.preprocess(picture)[None])[0]
        if not np.isfinite(feature).all():
            raise ValueError(f"{name}: the encoder gives a feature that is not finite")
        return picture, name, feature

    def _position(self, file: str) -> int | None:
        if self.archive is None:
            return self.features.position(file)
        return self.archive.files.index(file) if file in self.archive.files else None

    def _named(self, positions: Sequence[int] | np.ndarray) -> list[tuple[str, str, dict | None]]:
        """File, class and footprint."""
        if self.archive is None:
            return self.features.named(positions)
        return [(self.archive.files[i], self.archive.classes[i], self.archive.footprint(i)) for i in positions]

    def _table(
        self, positions: np.ndarray, scores: np.ndarray, image: np.ndarray | None, text: np.ndarray | None
    ) -> pd.DataFrame:
        files, classes, places = zip(*self._named(positions), strict=True)
        table = pd.DataFrame({
            "rank": np.arange(1, len(positions) + 1),
            "position": positions,
            "file": files,
            "class": classes,
            "score": scores,
        })  # fmt: skip
        hits = self._rows(positions).astype(np.float64)
        cosines = {"image": image, "text": text}
        for name, query in cosines.items():
            table[f"cosine_{name}"] = np.nan if query is None else hits @ query.astype(np.float64)
        for name, query in cosines.items():
            table[f"normal_{name}"] = (
                np.nan if query is None else self._moments.normal_cdf(table[f"cosine_{name}"].to_numpy(), query)
            )
        return table.assign(footprint=pd.Series(places, dtype=object))

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
    lam: float = 0.5,
    method: str | Method = "weicom",
    top: int = 20,
    encoder: "Encoder | None" = None,
    archive: Archive | None = None,
) -> Hits:
    """The best `top` images of an archive for a query image and a text. For many questions, keep a `Searcher`.

    image: an archive position or file, the path of any other image, or a PIL image; None to ask by the text alone
    (lam=1 or method "text"). text: words; None or "" to ask by the image alone (lam=0 or method "image"). lam in
    [0, 1]: 0 is image alone, 1 text alone. method: a name in `composition.METHODS`, or an object. encoder, archive:
    see `Searcher`.

    Raises ValueError for a position outside the archive, a blank question, a lambda or `top` out of range; and what
    `read_image` and the encoder raise. Warns of words that the encoder has never seen, where it can tell.
    """
    return Searcher(features, encoder, archive)(image, text, lam, method, top)


_STYLE = """
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem }
ol { display: grid; grid-template-columns: repeat(auto-fill, minmax(11rem, 1fr)); gap: 1rem; padding: 0 }
li { list-style: none }
img { width: 100%; border-radius: 4px }
.query img { width: 14rem }
small { display: block; overflow-wrap: anywhere }
"""


def _page(hits: Hits) -> str:
    read = hits._reader

    def picture(image: Image.Image, alt: str) -> str:
        return f'<img src="{data_uri(image)}" alt="{html.escape(alt)}">'

    def item(row: dict) -> str:
        facts = [f"{row['rank']}. {row['class']}", f"score {row['score']:.4g}"]
        for name, modality in (("picture", "image"), ("words", "text")):
            if not np.isnan(row[f"cosine_{modality}"]):
                facts.append(f"{name} {row[f'cosine_{modality}']:.3f} ({row[f'normal_{modality}']:.1%})")
        lines = "".join(f"<small>{html.escape(fact)}</small>" for fact in (*facts, row["file"]))
        alt = f"hit {row['rank']}: {row['file']}"
        return f"<li>{picture(read(row['position']), alt)}{lines}</li>"

    query = picture(hits.image, f"query image: {hits.question['image']}") if hits.image else ""
    words = f"<h2>+ {html.escape(hits.question['text'])}</h2>" if hits.question["text"] else ""
    unknown = "".join(f"<p>The encoder has never seen {html.escape(repr(word))}.</p>" for word in hits.unknown_words)
    title = html.escape(hits.title)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>{_STYLE}</style></head>
<body><h1>{len(hits)} images found</h1>
<div class="query">{query}{words}<p>{title}</p>{unknown}</div>
<ol>{"".join(map(item, hits.table.to_dict("records")))}</ol>
<p>In brackets: the share of a normal distribution over the archive that lies below.</p>
</body></html>
"""


def data_uri(image: Image.Image, side: int = 256) -> str:
    """A picture as a JPEG of at most `side` pixels a side, to stand within a page."""
    image = image.convert("RGB")
    image.thumbnail((side, side))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
