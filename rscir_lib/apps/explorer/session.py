"""What the explorer asks its kernel or server, and the answers; the browser mixes, ranks and draws.

A question is a small dictionary, an answer a dictionary and some binary buffers. Once a query, the answer holds the
float64 similarities of every image to the picture and to the words, so that moving lambda asks nothing.
"""

import hashlib
import logging
import tempfile
from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.stats import rankdata

from rscir_lib.apps.explorer.marks import add_mark, marks_table
from rscir_lib.apps.explorer.thumbnails import Thumbnails, jpeg
from rscir_lib.archive import Archive
from rscir_lib.archive.reading import read_image
from rscir_lib.benchmarks.base import Benchmark
from rscir_lib.benchmarks.synthcom import CLASS_WORDS, CLASSES, phrase
from rscir_lib.encoders import Encoder, unknown_words
from rscir_lib.evaluation.metrics import retrieval_metrics
from rscir_lib.methods.base import Questions
from rscir_lib.methods.pairwise import TwoSimilarities, mix
from rscir_lib.methods.registry import METHODS
from rscir_lib.runs import Run
from rscir_lib.similarity import InMemory, similarities
from rscir_lib.similarity.scales import check_lambda, clamped, minmax, raw, reciprocal_rank, upper_tail, zscore

logger = logging.getLogger(__name__)

# What the browser can do by itself: put a modality on a scale, mix the two by a rule. A method of the registry with
# another scale or rule is scored by the kernel, at every lambda that is asked for.
SCALES = {scale: scale.__name__ for scale in (raw, zscore, upper_tail, minmax, clamped, reciprocal_rank)}
RULES = {"average": "halfway", "sum": "add", "product": "multiply", "product-clamped": "multiply", "minimum": "minimum"}
ONE_SIDED = {"image", "text"}  # lambda 0 and 1 of the others
STEPS = np.linspace(0, 1, 21)  # where the slider stops
WHOLE = 200_000  # images whose similarities are all sent; of more, those that are among the first at one of STEPS
FIRST = 500  # at each of STEPS
PAGE = 24  # thumbnails when browsing
JUDGED = 2000  # queries among which the best and the worst are looked for
UPLOADS = 200  # pictures of one's own that are remembered

Answer = tuple[dict, list[bytes]]


class Explorer:
    """One archive, its features and its encoder, to be asked by any number of browsers.

    feats: (N, d) float32 in the archive's order. folder: of the run, for thumbnails/ and marks.csv. benchmark: adds its
    queries, frames and average precision.
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
        self.archive, self.encoder, self.benchmark = archive, encoder, benchmark
        self.database = InMemory(feats)
        self.feats = self.database.feats
        # of a question the picture often stays, and the words change
        self._of_query = lru_cache(4)(lambda query: similarities(self.feats, np.array(query)[None])[0])
        self.scorers: dict = {}  # methods that the browser doesn't know, fitted when first asked for
        self.title = title or f"{archive.name}, {encoder.name} {encoder.architecture}"
        self.thumbnails = Thumbnails(archive, Path(folder) / "thumbnails")
        self.marks = Path(folder) / "marks.csv"
        self.uploads: OrderedDict[str, tuple[np.ndarray, bytes]] = OrderedDict()
        self.class_names = sorted(set(archive.classes))
        self.class_index = np.searchsorted(self.class_names, archive.classes)
        self.position = {file: position for position, file in enumerate(archive.files)}

    @classmethod
    def of(cls, run: Run) -> "Explorer":
        """The explorer of a run (`open_run`): its archive, features and encoder, its benchmark where it has labels."""
        benchmark = run.benchmark if run.has_benchmark else None
        feats = run.features.aligned(run.archive_with_features)
        return cls(run.archive_with_features, feats, run.encoder, run.folder, benchmark, run.title)

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
        whole = len(self.archive) <= WHOLE
        methods = [
            {"name": name, "scale": scale, "rule": rule, "hasLambda": METHODS[name].has_lambda}
            for name in METHODS
            for scale, rule in [browser_rule(name)]
            if name not in ONE_SIDED and (whole or (rule and METHODS[name].scope == "row"))
        ]
        facts = {
            "title": self.title, "n": len(self.archive), "classes": self.class_names, "words": self.suggestions,
            "methods": methods, "whole": whole,
            "attributes": [] if self.benchmark is None else list(self.benchmark.queries["attribute"].unique()),
            "uploads": True, "marks": self.marks.name, "map": self.placed,
        }  # fmt: skip
        return facts, [self.class_index.astype(np.uint16).tobytes()]

    @cached_property
    def words(self) -> list[str]:
        """The benchmark's values, and what the bundled encoder learned; of another encoder, the class names."""
        words = [] if self.benchmark is None else list(self.benchmark.queries["text"].unique())
        if self.encoder.name != "demo":
            return list(dict.fromkeys([*words, *filter(None, self.class_names)]))
        options = [
            (name, attribute, value)
            for name, scene in CLASSES.items()
            for attribute, values in scene.attributes.items()
            for value in values
        ]
        words += [value for *_, value in options] + list(CLASS_WORDS.values())
        return list(dict.fromkeys(words + [phrase(name, {attribute: value}) for name, attribute, value in options]))

    @property
    def suggestions(self) -> list[str]:
        """`words`, and the whole words that an encoder's tokenizer knows, where it learned more than its captions'."""
        tokens = getattr(getattr(self.encoder, "tokenizer", None), "encoder", {}) if self.encoder.name != "demo" else {}
        return self.words + sorted(t[:-4] for t in tokens if t.endswith("</w>") and t[:-4].isalpha() and len(t) > 6)

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
        name = name or "this file"
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "picture"
            path.write_bytes(data)
            try:
                image = read_image(path, self.archive.rule)
            except ValueError as error:
                raise ValueError(str(error).replace(str(path), name)) from None
        feature = self.encoder.encode_images(self.encoder.preprocess(image)[None])[0]
        if not np.isfinite(feature).all():
            raise ValueError(f"{name}: the encoder gives a feature that is not finite")
        key = f"own-{hashlib.sha256(data).hexdigest()[:16]}"
        self.uploads[key] = feature, jpeg(image)
        self.uploads.move_to_end(key)  # sent again, it is the newest
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
        strange = unknown_words(self.encoder, f"{words} {without}")
        facts = {"image": image is not None, "text": text is not None, "strange": list(dict.fromkeys(strange))}
        facts |= self._judged(images, words, without)
        if len(self.archive) > WHOLE:
            more, buffers = self._candidates(image, text, method, cls)
            return facts | more, buffers
        similarities = [None if q is None else self._similarities(q) for q in (image, text)]
        facts["moments"] = [_moments(s) for s in similarities]
        return facts, [b"" if s is None else s.tobytes() for s in similarities]

    def scores(
        self, images: list[int | str], lam: float, method: str, words: str = "", without: str = "", cls: str = ""
    ) -> Answer:
        """Scores (N,) float64 by a method that the browser doesn't know."""
        image, text = self._image(images), self._text(words, without)
        if image is None or text is None or method not in METHODS:
            raise ValueError("scores are those of a picture and words, by a method of the registry")
        check_lambda(lam)
        if method not in self.scorers:
            self.scorers[method] = METHODS[method].fit(self.database, self.encoder.encode_texts)
        one = np.zeros(1, int)
        scores = self.scorers[method](Questions(image[None], text[None], (words,), one, one), lam)
        return {}, [np.asarray(scores, np.float64)[0].tobytes()]

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

    def _similarities(self, query: np.ndarray) -> np.ndarray:
        return self._of_query(tuple(query.tolist()))

    def _candidates(
        self, image: np.ndarray | None, text: np.ndarray | None, method: str, cls: str
    ) -> tuple[dict, list[bytes]]:
        """Found by float32 similarities, as `search` does; what is sent of them is float64."""
        allowed = np.arange(len(self.archive))
        if cls:
            allowed = np.flatnonzero(self.class_index == self.class_names.index(cls))
        queries = [None if query is None else torch.from_numpy(query) for query in (image, text)]
        rough = [None if q is None else (torch.from_numpy(self.feats) @ q.float()).double() for q in queries]
        method, few = METHODS[method], min(FIRST, len(allowed))
        moments = [
            () if q is None else tuple(m.item() for m in self.database.moments.of_similarities(q.numpy()[None]))
            for q in queries
        ]
        scaled = [
            method.scale(s[allowed], tuple(map(torch.tensor, m))) for s, m in zip(rough, moments, strict=True) if m
        ]
        found = [np.arange(0)]
        for lam in STEPS if method.has_lambda and len(scaled) == 2 else STEPS[:1] if scaled else ():
            score = method.combine(*scaled, lam) if len(scaled) == 2 else scaled[0]
            found.append(np.argpartition(score.numpy(), -few)[-few:])
        positions = allowed[np.unique(np.concatenate(found))]
        rows = torch.from_numpy(self.feats[positions]).double()
        buffers = [b"" if q is None else (rows @ q.double()).numpy().tobytes() for q in queries]
        below = [
            torch.zeros(len(positions))
            if s is None
            else torch.searchsorted(s.sort().values, s[positions]) / len(s) * 100
            for s in rough
        ]
        buffers += [positions.astype(np.int32).tobytes(), torch.cat(below).float().numpy().tobytes()]
        ends = [() if s is None else (float(s.min()), float(s.max())) for s in rough]
        return {"moments": [[*m, *e] for m, e in zip(moments, ends, strict=True)]}, buffers

    # what people and benchmarks said

    def _judged(self, images: list[int | str], words: str, without: str) -> dict:
        """The benchmark's answer to exactly this query, and the marks that people made on it."""
        facts: dict = {"relevant": None, "unknown": [], "attribute": "", "marks": {}}
        if len(images) != 1 or isinstance(images[0], str):
            return facts
        text, position = _full(words, without), images[0]
        marks = self._marks.get((self.archive.files[position], text), {})
        facts["marks"] = {self.position[file]: verdict for file, verdict in marks.items() if file in self.position}
        row = self._asked.get((position, text))
        if row is not None:
            query = self.benchmark.queries.iloc[row]
            facts |= {
                "relevant": self.benchmark.targets[query["target"]].tolist(),
                "attribute": query["attribute"],
                "unknown": self._left_out(query).tolist(),
            }
        return facts

    def _left_out(self, query: pd.Series) -> np.ndarray:
        """Images that take no rank for this query: those nobody labelled, and its own image where that is excluded."""
        unknown = query.get("unknown", -1)
        out = np.arange(0) if unknown < 0 else self.benchmark.unknowns[unknown]
        return np.append(out, query["position"]) if getattr(self.benchmark, "exclude_self", False) else out

    @cached_property
    def _asked(self) -> dict[tuple[int, str], int]:
        """Row of the benchmark's query by position and text; the first, where two attributes ask the same."""
        if self.benchmark is None:
            return {}
        queries = self.benchmark.queries
        rows = zip(queries["position"], queries["text"], range(len(queries)), strict=True)
        return {(position, text): row for position, text, row in reversed(list(rows)) if position >= 0}

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
            found = self.precisions()
            found = found[queries["attribute"].reindex(found.index) == attribute] if attribute else found
            if found.empty:
                raise ValueError(f"no query of {attribute} was judged")
            row = found.sort_values(ascending=which == "worst", kind="stable").index[nth % len(found)]
            query = queries.loc[row]
        return {"image": int(query["position"]), "words": query["text"], "attribute": query["attribute"]}, []

    @lru_cache(maxsize=4)  # noqa: B019 (an explorer lives as long as its process)
    def precisions(self, lam: float = 0.5) -> pd.Series:
        """Average precision of WeiCom, in [0, 1], of the benchmark's queries, or of `JUDGED` drawn from them.

        Its index counts the rows of `benchmark.queries`.
        """
        queries = self.benchmark.queries.reset_index(drop=True)
        queries = queries[queries["position"] >= 0]
        queries = queries.sample(min(JUDGED, len(queries)), random_state=0).sort_index()
        texts = list(queries["text"].unique())
        to_texts = similarities(self.feats, self.encoder.encode_texts(texts))
        words = dict(zip(texts, upper_tail(torch.from_numpy(to_texts)), strict=True))
        found = {}
        for position, some in queries.groupby("position"):
            image = upper_tail(torch.from_numpy(self._similarities(self.feats[position])))
            for row, query in some.iterrows():
                score = mix(image, words[query["text"]], lam).numpy().copy()  # the next query has the same sides
                score[self._left_out(query)] = -np.inf
                ranks = rankdata(-score, "ordinal")[self.benchmark.targets[query["target"]]]
                found[row] = retrieval_metrics(np.sort(ranks)[None])[0, 0]
        return pd.Series(found, dtype=float).sort_index()

    @cached_property
    def placed(self) -> bool:
        """Whether the archive's images have a place on the ground: three are looked at, for each look opens a file."""
        n = len(self.archive)
        return any(self.archive.footprint(position) is not None for position in {0, n // 2, n - 1})

    def _checked(self, position: int) -> int:
        if isinstance(position, bool) or not isinstance(position, int) or not 0 <= position < len(self.archive):
            raise ValueError(f"no image {position!r}; the archive has {len(self.archive)}")
        return position

    def _footprint(self, position: int) -> list[list[float]] | None:
        """Corners [x, y] of the image on the ground, where the archive knows them."""
        shape = self.archive.footprint(position) if self.placed else None
        return None if shape is None else [[x, y] for x, y, *_ in shape["coordinates"][0]]


def _full(words: str, without: str) -> str:
    """The text of a query as marks and links hold it."""
    return f"{words.strip()} - {without.strip()}".strip() if without.strip() else words.strip()


def _unit(feature: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(feature)
    if length < 1e-6:
        raise ValueError("these pictures, or words, cancel each other out: nothing is left to search for")
    return feature / length


def _moments(s: np.ndarray | None) -> list[float]:
    """Mean, unbiased std, least and greatest of similarities."""
    return [] if s is None else [s.mean(), s.std(ddof=1), s.min(), s.max()]


def browser_rule(name: str) -> tuple[str | None, str | None]:
    """Scale and rule by which the browser computes a method; None, None where it can't."""
    method = METHODS[name]
    if not isinstance(method, TwoSimilarities) or method.scale not in SCALES:
        return None, None
    rule = "mix" if method.combine is mix else RULES.get(name)
    return (SCALES[method.scale], rule) if rule else (None, None)
