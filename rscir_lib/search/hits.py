"""The answers to one question: to look at, to keep, to put on a map."""

import base64
import hashlib
import re
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from PIL import Image

from rscir_lib import plots
from rscir_lib.archive.reading import jpeg
from rscir_lib.storage.atomic import write_json, write_text
from rscir_lib.storage.cells import as_cell

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE = Path(__file__).with_name("page.html")
SIDE = 256  # pixels of a page's pictures: about 15 kB each


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
    question: dict[str, Any]
    read: Callable[[int], Image.Image] | None = field(repr=False)
    unknown_words: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.table)

    @cached_property
    def name(self) -> str:
        """What to call files of these hits: the question in safe characters, and six digits of its own."""
        asked = f"{Path(str(self.question['image'])).stem} {self.question['text']}"
        words = re.sub(r"\W+", "-", asked).strip("-").lower()
        return f"hits_{words[:60]}_{hashlib.sha256(repr(self.question).encode()).hexdigest()[:6]}"

    @property
    def title(self) -> str:
        """The question in a line."""
        return ", ".join(f"{key} {value}" for key, value in self.question.items() if value not in ("", None))

    def gallery(self) -> "Figure":
        """The query on the left, the hits on the right."""
        lam, archive = self.question.get("lambda"), self.question["archive"]
        label = str(self.question["method"]) + (f", lambda {lam:g}" if lam is not None else "")
        hits = {label: self.table["position"].tolist()}
        return plots.gallery(self._reader, self.image, self.question["text"], hits, title=archive)

    @property
    def _reader(self) -> Callable[[int], Image.Image]:
        if self.read is None:
            raise ValueError("the pictures lie in the archive: pass archive= to search")
        return self.read

    def to_csv(self, path: str | Path) -> Path:
        """The table as CSV, texts as `as_cell` has them, with the question's parts and the middle of a footprint."""
        lon, lat = np.array([_middle(place) for place in self.table["footprint"]]).reshape(-1, 2).T
        asked = {f"query_{key}": value for key, value in self.question.items()}
        table = self.table.assign(lon=lon, lat=lat, **asked)
        return write_text(path, table.drop(columns="footprint").map(as_cell).to_csv(index=False))

    def to_html(self, path: str | Path) -> Path:
        """One file that holds everything, pictures too: opens in any browser, without network."""
        query = [_picture(self.image, f"query image: {self.question['image']}")] if self.image else []
        query += [f"<h2>+ {escape(str(self.question['text']))}</h2>"] if self.question["text"] else []
        query += [f"<p>The encoder has never seen {escape(repr(word))}.</p>" for word in self.unknown_words]
        hits = [_item(row, self._reader(row["position"])) for row in self.table.to_dict("records")]
        parts = {"title": escape(self.title), "number": len(self), "query": "".join(query), "hits": "".join(hits)}
        return write_text(path, Template(PAGE.read_text(encoding="utf-8")).substitute(parts))

    def to_geojson(self, path: str | Path) -> Path:
        """The hits as polygons in longitude and latitude (RFC 7946). Raises ValueError where none has a place."""
        placed = self.table[self.table["footprint"].notna()]
        if placed.empty:
            takes = "GeoJSON takes an archive of georeferenced images or tiles (GeoTIFF)"
            raise ValueError(f"{self.question['archive']}: none of the hits has a place on the ground; {takes}")
        features = [
            {"type": "Feature", "geometry": row.pop("footprint"), "properties": row}
            for row in placed.astype(object).where(placed.notna(), None).to_dict("records")
        ]
        return write_json(path, {"type": "FeatureCollection", "features": features})


def _middle(place: dict[str, Any] | None) -> tuple[float, float]:
    """Longitude and latitude of the middle of a footprint, NaN without one."""
    if place is None:
        return np.nan, np.nan
    ring = place["coordinates"][0] if place["type"] == "Polygon" else place["coordinates"][0][0]
    corners = np.array([corner[:2] for corner in ring])
    return tuple((corners.min(axis=0) + corners.max(axis=0)) / 2)


def _item(row: dict[Hashable, Any], picture: Image.Image) -> str:
    """A hit with its picture, as an item of the page's list."""
    facts = [f"{row['rank']}. {row['class']}", f"score {row['score']:.4g}"]
    for name, modality in (("picture", "image"), ("words", "text")):
        if not np.isnan(row[f"cosine_{modality}"]):
            facts.append(f"{name} {row[f'cosine_{modality}']:.3f} ({row[f'normal_{modality}']:.1%})")
    lines = "".join(f"<small>{escape(fact)}</small>" for fact in (*facts, row["file"]))
    alt = f"hit {row['rank']}: {row['file']}"
    return f"<li>{_picture(picture, alt)}{lines}</li>"


def _picture(image: Image.Image, alt: str) -> str:
    """A picture as a JPEG that stands within the page."""
    image = image.convert("RGB")
    image.thumbnail((SIDE, SIDE))
    data = base64.b64encode(jpeg(image)).decode()
    return f'<img src="data:image/jpeg;base64,{data}" alt="{escape(alt)}">'
