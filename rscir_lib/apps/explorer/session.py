"""What the explorer asks its kernel or server, and the answers; the browser mixes, ranks and draws.

A question is a small dictionary, and so is its answer; arrays and pictures in it are bytes in base64. Once a query, the
answer holds the float64 similarities of every image to the picture and to the words: moving lambda asks nothing.
"""

import base64
import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import torch
from pydantic import Field, ValidationError, validate_call

from rscir_lib.apps.explorer.marks import UPLOAD, add_mark, marks_table
from rscir_lib.apps.explorer.thumbnails import Thumbnails, thumbnail
from rscir_lib.archive import Archive
from rscir_lib.archive.reading import jpeg, read_image
from rscir_lib.benchmarks.base import Benchmark
from rscir_lib.benchmarks.synthcom import CLASSES, phrase
from rscir_lib.encoders import Encoder, unknown_words
from rscir_lib.encoders.base import one_of
from rscir_lib.evaluation import evaluate
from rscir_lib.features import Features
from rscir_lib.methods import Questions, Scorer
from rscir_lib.methods.pairwise import TwoSimilarities, add, halfway, minimum, mix, multiply
from rscir_lib.methods.registry import METHODS
from rscir_lib.ranking.questions import Job
from rscir_lib.ranking.skyband import skyband
from rscir_lib.runs import Run
from rscir_lib.runs.plugins import place_of
from rscir_lib.similarity import InMemory, best_first, similarities
from rscir_lib.similarity.gallery import spreads
from rscir_lib.similarity.lambda_auto import auto_lambda, resampled
from rscir_lib.similarity.scales import Scale, check_lambda, clamped, minmax, raw, reciprocal_rank, upper_tail, zscore
from rscir_lib.storage.digests import sha256_of
from rscir_lib.storage.folders import left_out_in_words

logger = logging.getLogger(__name__)

# What the browser can do by itself, by the names in scoring.js: put a side on a scale, make one score of two. A method
# with another scale or rule is scored by the kernel, at every lambda that is asked for.
SCALES = {scale: scale.__name__ for scale in (raw, zscore, upper_tail, minmax, clamped, reciprocal_rank)}
RULES = {mix: "mix", halfway: "halfway", add: "add", multiply: "multiply", minimum: "minimum"}
ABOUT = {  # the methods, each in a line
    "average": "The mean of both similarities; which of them weighs more, their spread decides.",
    "weicom": "Both similarities as shares of a normal distribution over the archive, mixed by lambda.",
    "linear": "Both similarities as they are, mixed by lambda: WeiCom without its scale.",
    "zscore": "Both similarities in standard deviations from the archive's mean, mixed by lambda.",
    "minmax": "Both similarities from 0 for the least to 1 for the greatest of the archive, mixed by lambda.",
    "rrf": "The ranks by picture and by words, mixed by lambda; how far apart the images lie doesn't count.",
    "slerp": "One query on the arc between picture and words; lambda says how far along.",
    "direction": "The picture, moved as far as your words lie from the word that it is most similar to.",
    "freedom": "The picture becomes words that its neighbours share; each is put beside yours.",
    "basic": "Similarities cleaned of what is no subject, then multiplied; both must be high.",
    "freedom-dagger": "As freedom, without looking at the picture's neighbours.",
    "basic-dagger": "As basic, without adding the picture's neighbours to it.",
    "basic-released": "As basic, as its authors' code has it.",
    "sum": "The sum of both similarities; ranks as the average does.",
    "product": "Both similarities multiplied: both must be high.",
    "product-clamped": "Both similarities multiplied, negative ones counting as 0.",
    "minimum": "The lower of both similarities.",
    "minimum-authors": "First the image whose higher similarity is least, as in the authors' code.",
}
WHOLE = 200_000  # images whose similarities are all sent, 4 MB a query; of more, those that can be among the hits
HITS = 200  # the most that the page shows (MOST_HITS in state.js): with fewer here, the last of them could be wrong
LARGE = 1600  # pixels of a picture that is looked at alone: more than a window shows
KEPT = 2**26  # bytes of similarities to pictures that are remembered, and to words: people ask for the same ones again
JUDGED = 2000  # queries among which the best and the worst are looked for: a second or two, once
ASKED = ("hello", "images", "query", "scores", "auto", "upload", "rated", "mark", "picture")

Answer = dict[str, Any]
ImageId = int | str  # archive position, or the key of an uploaded picture
Images = Annotated[list[ImageId], Field(max_length=1000)]  # five times what a page asks for at once
asked = validate_call(config={"strict": True})  # a method that answers a question; its arguments are of their types


class Explorer:
    """One archive, its features and its encoder, to be asked by any number of browsers.

    features: of every image of the archive. folder: of the run, for thumbnails/ and marks.csv. benchmark: adds its
    queries, frames and average precision.
    """

    def __init__(
        self, archive: Archive, features: Features, encoder: Encoder, folder: Path, benchmark: Benchmark | None = None
    ) -> None:
        self.archive, self.features, self.encoder, self.benchmark = archive, features, encoder, benchmark
        feats = features.aligned(archive)  # not mapped: a file cut short while it is served would end the process
        self.gallery = InMemory(feats.copy() if isinstance(feats.base, np.memmap) else feats)
        self.feats = self.gallery.feats
        self.scorers: dict[str, Scorer] = {}  # methods that the browser doesn't know, fitted when first asked for
        self.title, self.notice = f"{archive.name}, {encoder.name}", ""
        self.identity = sha256_of(archive.fingerprint, encoder.provenance["weights_sha256"], self.feats)
        self.thumbnails = Thumbnails(archive, folder / "thumbnails")
        self.marks = folder / "marks.csv"
        remembered = lru_cache(max(16, KEPT // (8 * len(archive))))
        self._of_images = remembered(lambda images: self._similarities(self._image(images)))
        self._of_words = remembered(lambda words, without: self._similarities(self._text(words, without)))
        self.class_names = sorted(set(archive.classes))
        self.class_index = np.searchsorted(self.class_names, archive.classes)

    @classmethod
    def of(cls, run: Run) -> "Explorer":
        """The explorer of a run (`open_run`): its archive, features and encoder, its benchmark where it has labels."""
        benchmark = run.benchmark if run.has_benchmark else None
        explorer = cls(run.archive_with_features, run.features, run.encoder, run.folder, benchmark)
        left = left_out_in_words(kind for kind in run.whole_archive.left_out if kind[2])
        explorer.title, unread = run.title, run.unread
        explorer.notice = " ".join(filter(None, [run.notice, unread and f"{unread}.", left and f"Left out: {left}."]))
        return explorer

    def answer(self, question: Mapping[str, Any]) -> Answer:
        """The answer to {"ask": one of ASKED, ...}; {"error": message} where the question can't be answered.

        `malformed` is in the answer to what no page asks; `archive` in a question is the `identity` of what the page
        shows, so that one left open over a restart never speaks of other images by its positions.
        """
        arguments = dict(question)
        ask, identity = arguments.pop("ask", None), arguments.pop("archive", self.identity)
        try:
            if ask not in ASKED:
                return {"error": f"unknown question {str(ask)[:50]!r}; one of {', '.join(ASKED)}", "malformed": True}
            if identity != self.identity and ask != "hello":
                raise ValueError("images, features or encoder are others than when this page was opened: reload it")
            return getattr(self, ask)(**arguments)
        except ValidationError as error:
            problem = error.errors()[0]
            where = ".".join(map(str, problem["loc"]))
            return {"error": f"the question is malformed: {where}: {problem['msg']}", "malformed": True}
        except UnicodeError:
            return {"error": "the question holds half a character: type it again", "malformed": True}
        except (ValueError, OSError) as error:
            return {"error": str(error)}
        except Exception as error:  # a browser that gets no answer would wait for ever
            logger.exception("this question can't be answered")
            return {"error": f"this question can't be answered ({type(error).__name__}: {error}) {place_of(error)}"}

    @asked
    def hello(self) -> Answer:
        """All that is the same for every query; `warning` is of marks that can't be read."""
        try:
            marks, warning = marks_table(self.marks).to_numpy().tolist(), ""
        except (ValueError, OSError) as error:
            marks, warning = [], f"{error}. Until then there are answers, but no marks"
        whole = len(self.archive) <= WHOLE
        # the whole words that a tokenizer knows, of an encoder that learned more than a few captions
        tokens = getattr(getattr(self.encoder, "tokenizer", None), "encoder", {}) if self.encoder.name != "demo" else {}
        known = sorted(t[:-4] for t in tokens if t.endswith("</w>") and t[:-4].isalpha() and len(t) > 6)
        methods = [
            {"name": name, "about": about(name), "scale": scale, "rule": rule, "hasLambda": METHODS[name].has_lambda}
            for name, (scale, rule) in zip(METHODS, map(browser_rule, METHODS), strict=True)
            if name not in ("image", "text")  # lambda 0 and 1 of the others
            and (whole or (rule and METHODS[name].scope == "row"))
        ]
        targets, unknowns = (self.benchmark.targets, self.benchmark.unknowns) if self.benchmark else ((), ())
        return {
            "title": self.title, "notice": self.notice, "files": self.archive.files, "classes": self.class_names,
            "classIndex": self.class_index.tolist(), "words": self.words + known, "methods": methods, "whole": whole,
            "queries": self.queries[["position", "text", "attribute", "target", "unknown"]].to_numpy().tolist(),
            "targets": [target.tolist() for target in targets], "unknowns": [unknown.tolist() for unknown in unknowns],
            "excludeSelf": getattr(self.benchmark, "exclude_self", False), **self._opening(),
            "marks": marks, "marksFile": str(self.marks), "warning": warning, "archive": self.identity,
            "hasKernel": True,
        }  # fmt: skip

    @cached_property
    def queries(self) -> pd.DataFrame:
        """The benchmark's queries whose image is of this archive; the index counts all rows of `benchmark.queries`."""
        if self.benchmark is None:
            return pd.DataFrame(columns=["position", "text", "attribute", "target", "unknown"])
        queries = self.benchmark.queries.reset_index(drop=True)
        return queries.assign(unknown=queries.get("unknown", -1))[queries["position"] >= 0]

    @cached_property
    def words(self) -> list[str]:
        """The benchmark's values, and what the bundled encoder learned; of another encoder, the class names."""
        words = list(self.queries["text"])
        if self.encoder.name != "demo":
            words += filter(None, self.class_names)
        else:
            for name, scene in CLASSES.items():
                words.append(scene.words)
                for attribute, values in scene.attributes.items():
                    words += [*values, *(phrase(name, {attribute: value}) for value in values)]
        return list(dict.fromkeys(words))

    def _opening(self) -> Answer:
        """The query to begin with: the first that is answered at least as well as half of them, and twice as well as by
        its picture or its words alone; and the median AP, in per cent."""
        if self.queries.empty or len(self.archive) > WHOLE:  # of more, the first hits would wait for this
            return {"opening": 0, "median": None}
        ap = self._judged(0.5)
        median, alone = ap["weicom"].median(), ap[["image", "text"]].max(axis=1)
        needs_both = ap.index[(ap["weicom"] >= median) & (ap["weicom"] > 2 * alone)]
        first = needs_both[0] if len(needs_both) else ap["weicom"].idxmax()
        return {"opening": self.queries.index.get_loc(first), "median": 100 * median}

    @asked
    def images(self, positions: Annotated[list[int], Field(max_length=1000)]) -> Answer:
        """A JPEG of each of these images, and where there is one its footprint; `warning` is of changed images."""
        jpegs = [base64_of(jpeg) for jpeg in self.thumbnails.of([*map(self._checked, positions)])]
        warning = next(filter(None, map(self.thumbnails.changed, positions)), "")
        return {"jpegs": jpegs, "footprints": [*map(self.footprint, positions)], "warning": warning}

    @asked
    def picture(self, position: int) -> Answer:
        """An image as a JPEG of at most `LARGE` pixels a side, and where its file lies."""
        image = self.archive.read(self._checked(position))
        image.thumbnail((LARGE, LARGE))
        return {"jpeg": base64_of(jpeg(image)), "path": str(self.archive.path(position))}

    @asked
    def upload(self, data: str, name: str) -> Answer:
        """Encode a picture that is not of the archive: its key among a query's images, its feature; and a JPEG."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "picture"
            path.write_bytes(base64.b64decode(data, validate=True))
            try:
                image = read_image(path, self.archive.rule)
            except ValueError as error:
                raise ValueError(str(error).replace(str(path), name)) from None
        (feature,) = self.encoder.encode_images(self.encoder.preprocess(image)[None])
        return {"key": base64_of(feature), "jpeg": base64_of(thumbnail(image))}

    # one query

    @asked
    def query(
        self, images: Images, words: str = "", without: str = "", method: str = "weicom", cls: str = ""
    ) -> Answer:
        """Similarities (N,) float64 to the picture and to the words, "" for an absent side, with their moments.

        images: positions and keys of uploads; of several, the average is searched. In an archive of more than `WHOLE`
        images, similarities of the candidates alone, for `method` and class `cls`, with their positions (int32) and
        percentiles (float64).
        """
        for image in images:
            if isinstance(image, int):
                self._unchanged(image)
        sides, moments = zip(self._of_images(tuple(images)), self._of_words(words, without), strict=True)
        scale = METHODS[one_of(METHODS, method, "method")].scale
        answer: Answer = {"moments": moments, "strange": self._unknown_words(f"{words} {without}")}
        if len(self.archive) > WHOLE:
            positions = self._candidates(sides, moments, scale, one_of(["", *self.class_names], cls, "class"))
            below = [100 * np.searchsorted(np.sort(s), s[positions]) / (len(s) - 1) if s.size else s for s in sides]
            sides = [s[positions] if s.size else s for s in sides]
            answer |= {"positions": base64_of(positions.astype(np.int32)), "percentiles": [*map(base64_of, below)]}
        return answer | {"similarities": [*map(base64_of, sides)]}

    @asked
    def scores(self, images: Images, lam: float, method: str, words: str = "", without: str = "") -> Answer:
        """Scores (N,) float64 by a method that the browser doesn't know."""
        image, text = self._image(images), self._text(words, without)
        if image is None or text is None:
            raise ValueError("scores are those of a picture and words: give both")
        check_lambda(lam)
        if one_of(METHODS, method, "method") not in self.scorers:
            self.scorers[method] = METHODS[method].fit(self.gallery, self.encoder.encode_texts)
        one, own = np.zeros(1, int), np.array([images[0] if len(images) == 1 and isinstance(images[0], int) else -1])
        question = Questions(image[None], text[None], (words,), one, one, own)
        (scores,) = Job(METHODS[method], lam, self.scorers[method]).scores(question, len(self.archive))
        return {"scores": base64_of(scores)}

    @asked
    def auto(self, images: Images, words: str = "", without: str = "") -> Answer:
        """The lambda that is read off this query's similarities, and its quartiles over resampled archives."""
        (image, _), (text, _) = map(self._similarities, (self._image(images), self._text(words, without)))
        if not image.size or not text.size:
            raise ValueError("lambda is read off a picture and words: give both")
        return dict(zip(("lambda", "low", "high"), auto_lambda(resampled(image, text)), strict=True))

    def _image(self, images: Sequence[ImageId]) -> np.ndarray | None:
        if len(images) < 2:
            return self._feature(images[0]) if images else None
        features = np.stack([self._feature(image) for image in images])
        return _unit(features.mean(axis=0, dtype=np.float64), "these pictures cancel each other out: take one away")

    def _feature(self, image: ImageId) -> np.ndarray:
        if not isinstance(image, str):
            return self.feats[self._unchanged(image)]
        feature = np.frombuffer(base64.b64decode(image, validate=True), np.float32)
        if feature.shape != self.feats[0].shape or not np.isfinite(feature).all():
            raise ValueError("the encoder of this archive gave a picture no such feature; upload it again")
        return feature

    def _text(self, words: str, without: str) -> np.ndarray | None:
        """Feature of the words; what to leave out is projected away (a - (a.b) b: Widdows, ACL 2003)."""
        wanted, out = (self.encoder.encode_texts([t])[0].astype(float) if t.strip() else None for t in (words, without))
        if wanted is None or out is None:
            return wanted if out is None else -out
        problem = f"{words.strip()!r} without {without.strip()!r} leaves nothing to search for: change one"
        return _unit(wanted - (wanted @ out) * out, problem)

    def _similarities(self, query: np.ndarray | None) -> tuple[np.ndarray, list[float]]:
        """Similarities (N,) of the archive to a query, and their moments: mean, std, least and greatest."""
        if query is None:
            return np.empty(0), []
        (s,) = similarities(self.feats, query[None])
        moments = [*(moment.item() for moment in spreads(self.gallery, query[None])), s.min(), s.max()]
        return s, moments

    def _unknown_words(self, text: str) -> list[str]:
        typed = dict.fromkeys(word.strip('.,;:!?"()') for word in text.split())
        return [word for word in typed if unknown_words(self.encoder, word)]  # it reads "it's" in parts

    def _candidates(
        self, sides: tuple[np.ndarray, ...], moments: tuple[list[float], ...], scale: Scale, cls: str
    ) -> np.ndarray:
        """Positions, ascending, of all images of a class that can be among the first `HITS` at some lambda."""
        allowed = np.flatnonzero(self.class_index == (self.class_names.index(cls) if cls else self.class_index))
        kept = [np.arange(0), *(best_first(s[allowed], HITS) for s in sides if s.size)]  # alone, at lambda 0 and 1
        if all(moments):
            spread = [tuple(torch.tensor(side[:2], dtype=torch.float64)) for side in moments]  # mean and std
            scaled = (scale(torch.from_numpy(s), its).numpy()[allowed] for s, its in zip(sides, spread, strict=True))
            kept.append(skyband(*scaled, HITS))
        return allowed[np.unique(np.concatenate(kept))]

    @asked
    def mark(self, image: str, text: str, answer: str, verdict: str) -> Answer:
        """Keep that a person called an answer right or wrong, or took that back (""); image and answer are files."""
        for file in (answer,) if image.startswith(UPLOAD) else (image, answer):
            if file not in self.archive.files:
                raise ValueError(f"{self.archive.name} has no image {file!r}: reload the page")
            self._unchanged(self.archive.files.index(file))
        add_mark(self.marks, image, text, answer, verdict)
        return {"saved": str(self.marks)}

    @asked
    def rated(self) -> Answer:
        """Of each query WeiCom's average precision at lambda 0.5, None where it was not drawn."""
        ap = pd.Series() if self.queries.empty else self.precisions()
        return {"ap": ap.reindex(self.queries.index).astype(object).replace(np.nan, None).tolist()}

    def precisions(self, lam: float = 0.5) -> pd.Series:
        """Average precision of WeiCom, in [0, 1], of `queries`, or of `JUDGED` drawn from them, by their index."""
        return self._judged(lam)["weicom"].rename("AP")

    @lru_cache(maxsize=4)  # noqa: B019 (an explorer lives as long as its process)
    def _judged(self, lam: float) -> pd.DataFrame:
        """As `precisions`, of picture and words alone, too: a column a method."""
        drawn = self.queries.sample(min(JUDGED, len(self.queries)), random_state=0).sort_index()
        asked = replace(self.benchmark, queries=drawn), self.features, self.encoder.encode_texts
        rows = evaluate(*asked, ["image", "text", "weicom"], [lam], "cpu", progress=False)
        return rows.set_index("method", append=True)["AP"].unstack()

    @cached_property
    def placed(self) -> bool:
        """Whether the archive's images have a place on the ground: three are looked at, for each look opens a file."""
        return any(map(self.archive.footprint, (0, len(self.archive) // 2, -1)))

    def footprint(self, position: int) -> list[list[float]] | None:
        """Corners [x, y] of an image on the ground, where the archive knows them."""
        shape = self.archive.footprint(position) if self.placed else None
        if shape is None:
            return None
        ring = shape["coordinates"][0] if shape["type"] == "Polygon" else shape["coordinates"][0][0]
        return [[x, y] for x, y, *_ in ring]

    def _unchanged(self, position: int) -> int:
        """The position of an image whose file is the one that its features are of."""
        if problem := self.thumbnails.changed(self._checked(position)):
            raise ValueError(problem)
        return position

    def _checked(self, position: int) -> int:
        if not 0 <= position < len(self.archive):
            raise ValueError(f"no image {position!r}; the archive has {len(self.archive)}")
        return position


def base64_of(data: bytes | np.ndarray) -> str:
    """Bytes, or the values of an array, as the browser reads them."""
    return base64.b64encode(np.ascontiguousarray(data).data if isinstance(data, np.ndarray) else data).decode()


def _unit(feature: np.ndarray, problem: str) -> np.ndarray:
    length = np.linalg.norm(feature)
    if length < 1e-6:  # the difference of two equal float32 features may be as long
        raise ValueError(problem)
    return feature / length


def about(name: str) -> str:
    """What a method does, in a line; of one from a file of a person's own, the first lines of its docstring."""
    return ABOUT.get(name) or " ".join(str(METHODS[name].__doc__).split("\n\n")[0].split())


def browser_rule(name: str) -> tuple[str | None, str | None]:
    """Scale and rule by which the browser computes a method; None, None where it can't."""
    method = METHODS[name]
    if not isinstance(method, TwoSimilarities) or method.scale not in SCALES or method.combine not in RULES:
        return None, None
    return SCALES[method.scale], RULES[method.combine]
