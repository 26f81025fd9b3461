"""What the explorer asks its kernel or server, and the answers; the browser mixes, ranks and draws.

A question is a small dictionary, an answer a dictionary and some binary buffers. Once a query, the answer holds the
float64 similarities of every image to the picture and to the words, so that moving lambda asks nothing.
"""

import hashlib
import logging
import tempfile
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from rscir_lib.apps.explorer.marks import add_mark, marks_table
from rscir_lib.apps.explorer.thumbnails import Thumbnails, thumbnail
from rscir_lib.archive import Archive
from rscir_lib.archive.reading import read_image
from rscir_lib.benchmarks.base import Benchmark
from rscir_lib.benchmarks.synthcom import CLASS_WORDS, CLASSES, phrase
from rscir_lib.encoders import Encoder, unknown_words
from rscir_lib.evaluation import evaluate
from rscir_lib.features import Features
from rscir_lib.methods import Questions
from rscir_lib.methods.pairwise import TwoSimilarities, add, halfway, minimum, mix, multiply
from rscir_lib.methods.registry import METHODS
from rscir_lib.ranking.blocks import spreads
from rscir_lib.ranking.skyband import skyband
from rscir_lib.runs import Run
from rscir_lib.similarity import InMemory, best_first, similarities
from rscir_lib.similarity.scales import Scale, check_lambda, clamped, minmax, raw, reciprocal_rank, upper_tail, zscore

logger = logging.getLogger(__name__)

# What the browser can do by itself, by the names in scoring.js: put a side on a scale, make one score of two. A method
# with another scale or rule is scored by the kernel, at every lambda that is asked for.
SCALES = {scale: scale.__name__ for scale in (raw, zscore, upper_tail, minmax, clamped, reciprocal_rank)}
RULES = {mix: "mix", halfway: "halfway", add: "add", multiply: "multiply", minimum: "minimum"}
ONE_SIDED = {"image", "text"}  # lambda 0 and 1 of the others
WHOLE = 200_000  # images whose similarities are all sent, 3 MB a query; of more, those that can be among the hits
HITS = 200  # the most that the page shows (MOST_HITS in state.js): with fewer here, the last of them could be wrong
PAGE = 24  # thumbnails when browsing, four rows of six
JUDGED = 2000  # queries among which the best and the worst are looked for: a second or two, once
UPLOADS = 200  # pictures of one's own that are remembered, a few kB each; an older one is asked for again

Answer = tuple[dict, list[bytes]]


class Explorer:
    """One archive, its features and its encoder, to be asked by any number of browsers.

    features: of every image of the archive. folder: of the run, for thumbnails/ and marks.csv. benchmark: adds its
    queries, frames and average precision.
    """

    def __init__(
        self,
        archive: Archive,
        features: Features,
        encoder: Encoder,
        folder: str | Path,
        benchmark: Benchmark | None = None,
        title: str = "",
    ) -> None:
        self.archive, self.features, self.encoder, self.benchmark = archive, features, encoder, benchmark
        self.gallery = InMemory(features.aligned(archive))
        self.feats = self.gallery.feats
        self._of_query = lru_cache(4)(self._asked_first)  # the picture often stays, and the words change
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
        return cls(run.archive_with_features, run.features, run.encoder, run.folder, benchmark, run.title)

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
        wanted = self._of_class(cls)
        if name:
            wanted = np.array([i for i in wanted if name.lower() in self.archive.files[i].lower()], dtype=int)
        if seed is not None:
            wanted = np.random.default_rng(seed).permutation(wanted)
        page = min(max(page, 0), max(len(wanted) - 1, 0) // PAGE)
        return {"total": len(wanted), "page": page, "positions": wanted[page * PAGE : (page + 1) * PAGE].tolist()}, []

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
        self.uploads[key] = feature, thumbnail(image)
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
        """Similarities (N,) float64 to the picture and to the words, in the buffers; an empty buffer for an absent one.

        images: positions and keys of uploads; of several, the average is searched. In an archive of more than `WHOLE`
        images, similarities of the candidates alone, for `method` and class `cls`, with their positions (int32) and
        percentiles (2 x float32) in two more buffers.
        """
        queries = self._image(images), self._text(words, without)
        facts = self._judged(images, words, without) | {"strange": self._strange(words, without)}
        sides, facts["moments"] = zip(*map(self._similarities, queries), strict=True)
        if len(self.archive) <= WHOLE:
            return facts, [s.tobytes() for s in sides]
        positions = self._candidates(sides, facts["moments"], METHODS[method].scale, cls)
        below = np.zeros((2, len(positions)), np.float32)
        for side, s in enumerate(sides):
            if s.size:
                below[side] = 100 * np.searchsorted(np.sort(s), s[positions]) / (s.size - 1)
        sent = [s[positions] if s.size else s for s in sides]
        return facts, [part.tobytes() for part in (*sent, positions.astype(np.int32), below)]

    def _strange(self, words: str, without: str) -> list[str]:
        """The typed words that the encoder never met while it was trained; it reads some in parts ("it's")."""
        typed = dict.fromkeys(word.strip('.,;:!?"()') for word in f"{words} {without}".split())
        return [word for word in typed if unknown_words(self.encoder, word)]

    def scores(
        self, images: list[int | str], lam: float, method: str, words: str = "", without: str = "", cls: str = ""
    ) -> Answer:
        """Scores (N,) float64 by a method that the browser doesn't know."""
        image, text = self._image(images), self._text(words, without)
        if image is None or text is None or method not in METHODS:
            raise ValueError("scores are those of a picture and words, by a method of the registry")
        check_lambda(lam)
        if method not in self.scorers:
            self.scorers[method] = METHODS[method].fit(self.gallery, self.encoder.encode_texts)
        one, own = np.zeros(1, int), np.array([images[0] if len(images) == 1 and isinstance(images[0], int) else -1])
        scores = self.scorers[method](Questions(image[None], text[None], (words,), one, one, own), lam)
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
        if len(rows) == 1:
            return rows[0]
        return _unit(np.mean(rows, axis=0, dtype=np.float64), "these pictures cancel each other out: take one away")

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
        left = found[0] - (found[0] @ found[1]) * found[1]
        return _unit(left, f"{words.strip()!r} without {without.strip()!r} leaves nothing to search for: change one")

    def _similarities(self, query: np.ndarray | None) -> tuple[np.ndarray, list[float]]:
        """Similarities (N,) of the archive to a query, and their moments: mean, std, least and greatest."""
        return (np.empty(0), []) if query is None else self._of_query(tuple(query.tolist()))

    def _asked_first(self, query: tuple[float, ...]) -> tuple[np.ndarray, list[float]]:
        one = np.array(query)[None]
        (s,) = similarities(self.feats, one)
        return s, [*(moment.item() for moment in spreads(self.gallery, one)), s.min(), s.max()]

    def _candidates(self, sides: tuple, moments: tuple, scale: Scale, cls: str) -> np.ndarray:
        """Positions, ascending, of all images of a class that can be among the first `HITS` at some lambda."""
        allowed = self._of_class(cls)
        there = [
            (s[allowed], torch.tensor(of, dtype=torch.float64)) for s, of in zip(sides, moments, strict=True) if of
        ]
        kept = [allowed[:0], *(allowed[best_first(s, HITS)] for s, _ in there)]  # alone, and at lambda 0 and 1
        if len(there) == 2:
            scaled = (scale(torch.from_numpy(s), tuple(of[:2])).numpy() for s, of in there)
            kept.append(allowed[skyband(*scaled, HITS)])
        return np.unique(np.concatenate(kept))

    def _of_class(self, cls: str) -> np.ndarray:
        """Positions of a class; of all images without one."""
        wanted = self.class_names.index(cls) if cls else self.class_index
        return np.flatnonzero(self.class_index == wanted)

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
        queries = self._queries
        if which == "random":
            queries = queries if not attribute else queries[queries["attribute"] == attribute]
            query = queries.sample(1).iloc[0]
        else:
            ap = self.precisions()
            ap = ap[queries["attribute"].reindex(ap.index) == attribute] if attribute else ap
            if ap.empty:
                raise ValueError(f"no query of {attribute} was judged")
            row = ap.sort_values(ascending=which == "worst", kind="stable").index[nth % len(ap)]
            query = queries.loc[row]
        return {"image": int(query["position"]), "words": query["text"], "attribute": query["attribute"]}, []

    @lru_cache(maxsize=4)  # noqa: B019 (an explorer lives as long as its process)
    def precisions(self, lam: float = 0.5) -> pd.Series:
        """Average precision of WeiCom, in [0, 1], of the benchmark's queries, or of `JUDGED` drawn from them.

        Its index counts the rows of `benchmark.queries`.
        """
        queries = self._queries
        some = replace(self.benchmark, queries=queries.sample(min(JUDGED, len(queries)), random_state=0).sort_index())
        rows = evaluate(some, self.features, self.encoder.encode_texts, ["weicom"], [lam], "cpu", progress=False)
        return rows["AP"].sort_index()

    @property
    def _queries(self) -> pd.DataFrame:
        """The benchmark's queries whose image is of this archive; the index counts all."""
        queries = self.benchmark.queries.reset_index(drop=True)
        return queries[queries["position"] >= 0]

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


def _unit(feature: np.ndarray, problem: str) -> np.ndarray:
    length = np.linalg.norm(feature)
    if length < 1e-6:  # what float32 features leave of nothing
        raise ValueError(problem)
    return feature / length


def browser_rule(name: str) -> tuple[str | None, str | None]:
    """Scale and rule by which the browser computes a method; None, None where it can't."""
    method = METHODS[name]
    if not isinstance(method, TwoSimilarities) or method.scale not in SCALES or method.combine not in RULES:
        return None, None
    return SCALES[method.scale], RULES[method.combine]
