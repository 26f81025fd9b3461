"""What the explorer asks its kernel or server, and the answers; the browser mixes, ranks and draws.

A question is a small dictionary, an answer a dictionary and some binary buffers. Once a query, the answer holds the
float64 similarities of every image to the picture and to the words, so that moving lambda asks nothing.
"""

import hashlib
import io
import logging
from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image, ImageOps
from scipy.special import ndtr
from scipy.stats import rankdata

from rscir_lib.archive import Archive
from rscir_lib.benchmark import Benchmark
from rscir_lib.composition import METHODS
from rscir_lib.encoders import Encoder
from rscir_lib.explorer.marks import add_mark, marks_table
from rscir_lib.explorer.thumbnails import Thumbnails, jpeg
from rscir_lib.metrics import retrieval_metrics
from rscir_lib.synthcom import CLASS_WORDS, CLASSES, phrase

logger = logging.getLogger(__name__)

# method -> what the browser does: a scale for each modality, and a rule that mixes the two.
# A method of the registry that is not here is scored by the kernel, at every lambda asked for.
RULES = {
    "weicom": ("cdf", "mix"),
    "linear": ("raw", "mix"),
    "zscore": ("z", "mix"),
    "minmax": ("minmax", "mix"),
    "average": ("raw", "mean"),
    "sum": ("raw", "sum"),
    "product": ("raw", "product"),
    "minimum": ("raw", "minimum"),
}
ONE_SIDED = {"image", "text"}  # lambda 0 and 1 of the others
STEPS = np.linspace(0, 1, 21)  # where the slider stops
WHOLE = 200_000  # images whose similarities are all sent; of more, those that are among the first at one of STEPS
FIRST = 500  # at each of STEPS
PAGE = 24  # thumbnails when browsing
JUDGED = 2000  # queries among which the best and the worst are looked for
UPLOADS = 200  # pictures of one's own that are remembered
PIXELS = 100_000_000  # of an uploaded picture, at most

Answer = tuple[dict, list[bytes]]


class Explorer:
    """One archive, its features and its encoder, to be asked by any number of browsers.

    feats: (N, d) float32 in the archive's order. folder: of the run, for thumbnails/ and marks.csv; None keeps neither
    marks nor thumbnails. benchmark: adds its queries, frames and average precision.
    """

    def __init__(
        self,
        archive: Archive,
        feats: np.ndarray,
        encoder: Encoder,
        folder: str | Path,
        benchmark: Benchmark | None = None,
        title: str = "",
    ) -> None:
        if len(feats) != len(archive):
            raise ValueError(f"{len(feats)} rows of features for {len(archive)} images of {archive.name}")
        self.archive, self.feats, self.encoder, self.benchmark = archive, feats, encoder, benchmark
        self.title = title or f"{archive.name}, {encoder.name} {encoder.architecture}"
        self.thumbnails = Thumbnails(archive, Path(folder) / "thumbnails")
        self.marks = Path(folder) / "marks.csv"
        self.uploads: OrderedDict[str, tuple[np.ndarray, bytes]] = OrderedDict()
        self.class_names = sorted(set(archive.classes))
        self.class_index = np.searchsorted(self.class_names, archive.classes)
        self.position = {file: position for position, file in enumerate(archive.files)}

    def answer(self, question: dict, buffers: Sequence[bytes] = ()) -> Answer:
        """The answer to {"ask": what, ...}; {"error": message} where the question can't be answered."""
        asks = {
            "hello": self.hello, "images": self.images, "browse": self.browse, "find": self.find, "query": self.query,
            "scores": self.scores, "upload": self.upload, "benchmark": self.pick, "mark": self.mark,
        }  # fmt: skip
        question = dict(question)
        try:
            ask = question.pop("ask", None)
            if ask not in asks:
                raise ValueError(f"unknown question {ask!r}")
            if ask == "upload":
                question["data"] = bytes(buffers[0]) if buffers else b""
            return asks[ask](**question)
        except (ValueError, KeyError, OSError) as error:
            return {"error": str(error)}, []
        except TypeError as error:
            logger.warning("question refused: %s", error)
            return {"error": "the question is malformed"}, []

    # what there is

    def hello(self) -> Answer:
        """All that is the same for every query; buffer: class of each image, (N,) uint16."""
        methods = [
            {"name": name, "scale": RULES[name][0] if name in RULES else None, "rule": RULES[name][1] if name in RULES else None}
            for name in METHODS
            if name not in ONE_SIDED and (name in RULES or len(self.archive) <= WHOLE)
        ]
        methods = [m | {"hasLambda": METHODS[m["name"]].has_lambda} for m in methods]
        facts = {
            "title": self.title, "n": len(self.archive), "classes": self.class_names, "words": self.known_words,
            "complete": self.encoder.name == "demo", "methods": methods, "whole": len(self.archive) <= WHOLE,
            "attributes": [] if self.benchmark is None else list(self.benchmark.queries["attribute"].unique()),
            "uploads": True, "marks": self.marks.name, "map": self._footprint(0) is not None,
        }  # fmt: skip
        return facts, [self.class_index.astype(np.uint16).tobytes()]

    @cached_property
    def known_words(self) -> list[str]:
        """Texts to suggest: the benchmark's values, what the bundled encoder learned, CLIP's whole words."""
        words = [] if self.benchmark is None else list(self.benchmark.queries["text"].unique())
        if self.encoder.name == "demo":
            values = {value: None for cls in CLASSES.values() for some in cls.attributes.values() for value in some}
            words += [*values, *CLASS_WORDS.values()]
            words += [
                phrase(name, {attribute: value})
                for name, cls in CLASSES.items()
                for attribute, some in cls.attributes.items()
                for value in some
            ]
        else:
            words += [name for name in self.class_names if name]
            tokens = getattr(self.encoder.tokenizer, "encoder", {})
            words += sorted(t[:-4] for t in tokens if t.endswith("</w>") and t[:-4].isalpha() and len(t) > 6)
        return list(dict.fromkeys(words))

    def images(self, positions: list[int]) -> Answer:
        """File, class, and where there is one the footprint of these images; a JPEG of each in the buffers."""
        positions = [self._checked(position) for position in positions[:500]]
        facts = [
            {"file": self.archive.files[i], "class": self.archive.classes[i], "footprint": self._footprint(i)}
            for i in positions
        ]
        return {"images": facts}, self.thumbnails.of(positions)

    def browse(self, cls: str = "", name: str = "", page: int = 0, seed: int | None = None) -> Answer:
        """Positions on a page of the archive: of one class, with `name` in the file name, or drawn at random."""
        found = np.arange(len(self.archive))
        if cls:
            found = np.flatnonzero(self.class_index == self.class_names.index(cls))
        if name:
            found = np.array([i for i in found if name.lower() in self.archive.files[i].lower()], dtype=int)
        if seed is not None:
            found = np.random.default_rng(seed).permutation(found)
        page = min(max(page, 0), max(len(found) - 1, 0) // PAGE)
        return {"total": len(found), "page": page, "positions": found[page * PAGE : (page + 1) * PAGE].tolist()}, []

    def find(self, files: list[str]) -> Answer:
        """Positions of files, by their name in the archive."""
        absent = [file for file in files if file not in self.position]
        if absent:
            raise ValueError(f"{self.archive.name} has no image {absent[0]!r}")
        return {"positions": [self.position[file] for file in files]}, []

    def upload(self, data: bytes, name: str = "") -> Answer:
        """Encode a picture that is not of the archive: its key among the query's images, and a JPEG of it."""
        try:
            with Image.open(io.BytesIO(data)) as image:
                if image.width * image.height > PIXELS:
                    raise ValueError(f"{image.width} x {image.height} pixels are too many")
                image = ImageOps.exif_transpose(image).convert("RGB")
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            reason = "no image format that we know" if isinstance(error, Image.UnidentifiedImageError) else error
            raise ValueError(f"{name or 'this file'} can't be read as a picture: {reason}") from None
        feature = self.encoder.encode_images(self.encoder.preprocess(image)[None])[0]
        key = f"own-{hashlib.sha256(data).hexdigest()[:16]}"
        self.uploads[key] = feature, jpeg(image)
        while len(self.uploads) > UPLOADS:
            self.uploads.popitem(last=False)
        return {"key": key, "name": name}, [self.uploads[key][1]]

    # one query

    def query(
        self,
        images: list[int | str],
        words: str = "",
        without: str = "",
        method: str = "weicom",
        cls: str = "",
    ) -> Answer:
        """Similarities (N,) float64 to the picture and to the words, in the buffers; of none, an empty buffer.

        images: positions and keys of uploads, of which the mean is taken. In an archive of more than `WHOLE` images,
        those of the candidates alone, for `method` and class `cls`, with their positions (int32) and percentiles
        (2 x float32) in two more buffers.
        """
        image, text = self._image(images), self._text(words, without)
        facts = {"image": image is not None, "text": text is not None} | self._judged(images, words, without)
        if len(self.archive) > WHOLE:
            more, buffers = self._candidates(image, text, method, cls)
            return facts | more, buffers
        similarities = [None if q is None else self._similarities(q, self.feats) for q in (image, text)]
        facts["moments"] = [_moments(s) for s in similarities]
        return facts, [b"" if s is None else s.tobytes() for s in similarities]

    def scores(
        self, images: list[int | str], lam: float, method: str, words: str = "", without: str = "", cls: str = ""
    ) -> Answer:
        """Scores (N,) float64 by a method that the browser doesn't know."""
        image, text = self._image(images), self._text(words, without)
        if image is None or text is None or method not in METHODS or not 0 <= lam <= 1:
            raise ValueError("a method needs a picture, words and a lambda in [0, 1]")
        pair = [torch.from_numpy(self._similarities(q, self.feats)) for q in (image, text)]
        return {}, [METHODS[method].score(*pair, lam).double().numpy().tobytes()]

    def _image(self, images: list[int | str]) -> np.ndarray | None:
        if not images:
            return None
        rows = []
        for image in images[:50]:
            if isinstance(image, str):
                if image not in self.uploads:
                    raise ValueError("this picture of your own is no longer here; upload it again")
                rows.append(self.uploads[image][0])
            else:
                rows.append(self.feats[self._checked(image)])
        return rows[0] if len(rows) == 1 else _unit(np.mean(rows, axis=0, dtype=np.float64))

    def _text(self, words: str, without: str) -> np.ndarray | None:
        """Feature of the words; what to leave out is projected away (a - (a.b) b: Widdows, ACL 2003)."""
        texts = [text for text in (words, without) if text.strip()]
        if not texts:
            return None
        found = self.encoder.encode_texts(texts).astype(np.float64)
        if not without.strip():
            return found[0]
        if not words.strip():
            return -found[0]
        return _unit(found[0] - (found[0] @ found[1]) * found[1])

    def _similarities(self, query: np.ndarray, feats: np.ndarray) -> np.ndarray:
        query = torch.from_numpy(query.astype(np.float64))
        out = torch.empty(len(feats), dtype=torch.float64)
        for start in range(0, len(feats), 4096):  # all of it in float64 is too much
            rows = torch.from_numpy(feats[start : start + 4096])
            torch.mv(rows.double(), query, out=out[start : start + 4096])
        return out.numpy()

    def _candidates(
        self, image: np.ndarray | None, text: np.ndarray | None, method: str, cls: str
    ) -> tuple[dict, list[bytes]]:
        """Found by float32 similarities, as `search` does; what is sent of them is float64."""
        allowed = np.arange(len(self.archive))
        if cls:
            allowed = np.flatnonzero(self.class_index == self.class_names.index(cls))
        x = torch.from_numpy(self.feats)
        rough = [None if q is None else (x @ torch.from_numpy(q.astype(np.float32))).double().numpy() for q in (image, text)]
        moments = [_moments(s) for s in rough]
        scale, rule = RULES[method]
        scaled = [_scaled(s[allowed], m, scale) for s, m in zip(rough, moments, strict=True) if s is not None]
        found, few = [np.arange(0)], min(FIRST, len(allowed))
        for lam in STEPS if rule == "mix" and len(scaled) == 2 else STEPS[:1]:
            score = _mixed(*scaled, rule, lam) if len(scaled) == 2 else sum(scaled)
            found.append(np.argpartition(score, -few)[-few:] if scaled else [])
        positions = allowed[np.unique(np.concatenate(found))]
        buffers = [b"" if q is None else self._similarities(q, self.feats[positions]).tobytes() for q in (image, text)]
        below = [
            np.zeros(len(positions)) if s is None else np.searchsorted(np.sort(s), s[positions]) / (len(s) - 1) * 100
            for s in rough
        ]
        buffers += [positions.astype(np.int32).tobytes(), np.concatenate(below).astype(np.float32).tobytes()]
        return {"moments": moments}, buffers

    # what people and benchmarks said

    def _judged(self, images: list[int | str], words: str, without: str) -> dict:
        """The benchmark's answer to exactly this query, and the marks that people made on it."""
        facts: dict = {"relevant": None, "unknown": [], "attribute": "", "marks": {}}
        if len(images) != 1 or isinstance(images[0], str):
            return facts
        text, position = _full(words, without), images[0]
        marks = self._marks.get((self.archive.files[position], text), {})
        facts["marks"] = {self.position[file]: verdict for file, verdict in marks.items() if file in self.position}
        rows = self._asked.get((position, text), [])
        if rows:
            query = self.benchmark.queries.iloc[rows[0]]
            facts |= {
                "relevant": self.benchmark.targets[query["target"]].tolist(),
                "attribute": query["attribute"],
                "unknown": self._left_out(query).tolist(),
            }
        return facts

    def _left_out(self, query: pd.Series) -> np.ndarray:
        """Images that take no rank for this query: those that nobody labelled, and the query image if it is excluded."""
        unknown = query.get("unknown", -1)
        out = np.arange(0) if unknown < 0 else self.benchmark.unknowns[unknown]
        return np.append(out, query["position"]) if getattr(self.benchmark, "exclude_self", False) else out

    @cached_property
    def _asked(self) -> dict[tuple[int, str], list[int]]:
        """Rows of the benchmark's queries by position and text."""
        if self.benchmark is None:
            return {}
        queries = self.benchmark.queries.reset_index(drop=True)
        return queries[queries["position"] >= 0].groupby(["position", "text"]).indices

    @cached_property
    def _marks(self) -> dict[tuple[str, str], dict[str, str]]:
        marks: dict = {}
        for image, text, answer, verdict in marks_table(self.marks).itertuples(index=False):
            marks.setdefault((image, text), {})[answer] = verdict
        return marks

    def mark(self, image: int, answer: int, verdict: str, words: str = "", without: str = "") -> Answer:
        """Keep that a person called an answer right or wrong, or took that back ("")."""
        names = [self.archive.files[self._checked(position)] for position in (image, answer)]
        text = _full(words, without)
        add_mark(self.marks, names[0], text, names[1], verdict)
        self._marks.setdefault((names[0], text), {})[names[1]] = verdict
        return {"saved": str(self.marks)}, []

    def pick(self, which: str = "random", attribute: str = "", nth: int = 0) -> Answer:
        """A query of the benchmark: the nth best or worst by WeiCom's average precision at lambda 0.5, or any."""
        if self.benchmark is None:
            raise ValueError("there is no benchmark here")
        queries = self.benchmark.queries.reset_index(drop=True)
        queries = queries[queries["position"] >= 0]
        if which == "random":
            queries = queries if not attribute else queries[queries["attribute"] == attribute]
            query = queries.sample(1).iloc[0]
        else:
            found = self.precisions if not attribute else self.precisions[queries["attribute"] == attribute]
            if found.empty:
                raise ValueError(f"no query of {attribute} was judged")
            row = found.sort_values(ascending=which == "worst", kind="stable").index[nth % len(found)]
            query = queries.loc[row]
        return {"image": int(query["position"]), "words": query["text"], "attribute": query["attribute"]}, []

    @cached_property
    def precisions(self) -> pd.Series:
        """Average precision of WeiCom at lambda 0.5, of the benchmark's queries or of a sample of `JUDGED`."""
        queries = self.benchmark.queries.reset_index(drop=True)
        queries = queries[queries["position"] >= 0]
        queries = queries.sample(min(JUDGED, len(queries)), random_state=0).sort_index()
        texts = list(queries["text"].unique())
        scaled = {}
        for text, feature in zip(texts, self.encoder.encode_texts(texts), strict=True):
            scaled[text] = _cdf(self._similarities(feature, self.feats))
        found = {}
        for position, some in queries.groupby("position"):
            image = _cdf(self._similarities(self.feats[position], self.feats))
            for row, query in some.iterrows():
                score = image / 2 + scaled[query["text"]] / 2
                score[self._left_out(query)] = -np.inf
                ranks = rankdata(-score, "ordinal")[self.benchmark.targets[query["target"]]]
                found[row] = retrieval_metrics(np.sort(ranks)[None])[0, 0]
        return pd.Series(found, dtype=float).sort_index()

    def _checked(self, position: int) -> int:
        if isinstance(position, bool) or not isinstance(position, int) or not 0 <= position < len(self.archive):
            raise ValueError(f"no image {position!r}; the archive has {len(self.archive)}")
        return position

    def _footprint(self, position: int) -> list[list[float]] | None:
        """Corners [x, y] of the image on the ground, where the archive knows them."""
        shape = getattr(self.archive, "footprint", lambda _: None)(position)
        return None if shape is None else [[float(x), float(y)] for x, y, *_ in shape.exterior.coords]


def _full(words: str, without: str) -> str:
    """The text of a query as marks and links hold it."""
    return " - ".join(part.strip() for part in (words, without) if part.strip() or part is words).strip()


def _unit(feature: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(feature)
    if length < 1e-6:
        raise ValueError("nothing is left of these words without the others")
    return feature / length


def _moments(s: np.ndarray | None) -> list[float]:
    """Mean, unbiased std, least and greatest of similarities."""
    return [] if s is None else [s.mean(), s.std(ddof=1), s.min(), s.max()]


def _scaled(s: np.ndarray, moments: list[float], scale: str) -> np.ndarray:
    mean, std, least, greatest = moments
    if scale == "raw":
        return s
    if scale == "minmax":
        return (s - least) / ((greatest - least) or 1)
    z = (s - mean) / (std or 1)
    return -ndtr(-z) if scale == "cdf" else z  # the upper tail: Phi - 1, without its ties at the top


def _mixed(image: np.ndarray, text: np.ndarray, rule: str, lam: float) -> np.ndarray:
    if rule == "mix":
        return (1 - lam) * image + lam * text
    return {"mean": (image + text) / 2, "sum": image + text, "product": image * text}.get(rule, np.minimum(image, text))


def _cdf(s: np.ndarray) -> np.ndarray:
    return _scaled(s, _moments(s), "cdf")
