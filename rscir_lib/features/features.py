"""Image features: rows of unit length with the file and class of each, in memory or in a store on disk.

`store.py` holds the format of a store, `extraction.py` makes one with an encoder.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from tqdm.auto import tqdm

from rscir_lib.archive import Archive
from rscir_lib.features import store
from rscir_lib.features.pickles import read_pickle
from rscir_lib.features.store import GeoJson, Shard
from rscir_lib.similarity.gallery import MemoryShard
from rscir_lib.similarity.moments import Moments
from rscir_lib.storage.atomic import write_json
from rscir_lib.storage.bounds import read_arrays

if TYPE_CHECKING:  # reading features needs no encoder
    from rscir_lib.encoders import Encoder

# Bytes of float32 features that may be held at once: 1.4 million rows of 768. More rows are gone through shard by
# shard; a greater value is faster, until the memory of a small machine is full.
HELD_BYTES = 2**32
# All rows of a store agree in these, but a reader need not: texts of any precision are compared with them
ROWS_ONLY = frozenset({"precision", "dtype", "template"})


class Features:
    """Features of N images: a row of unit length each, its file and its class, and where all of it comes from.

    Attributes:
        provenance: What made the rows: encoder, weights, archive, reading rule.
        unreadable: Images that have no row, and why.
    """

    def __init__(
        self, shards: Iterable[Shard | MemoryShard], provenance: Mapping[str, str] | None = None,
        unreadable: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        """Features of shards that are checked already; `from_arrays` makes them of anything else."""
        self._shards = tuple(shards)
        self._first = np.cumsum([0, *(shard.rows for shard in self._shards)])  # position of each shard's first row
        self.provenance, self.unreadable = dict(provenance or {}), dict(unreadable or {})

    @classmethod
    def from_arrays(
        cls, feats: np.ndarray, files: Sequence[str], classes: Sequence[str],
        provenance: Mapping[str, str] | None = None, name: str | Path = "features",
    ) -> Self:  # fmt: skip
        """Features of rows in memory.

        Args:
            feats: (N, d) floats, finite, each row of length 1; N and d at least 1.
            files, classes: Of the N images, each file once.
            provenance: What made the rows.
            name: What error messages call them.

        Raises:
            ValueError: For anything else, naming row, file and value, so that no consumer has to look again.
        """
        if getattr(feats, "ndim", 0) != 2 or feats.size == 0 or feats.dtype.kind != "f":
            given = f"{feats.dtype} {feats.shape}" if isinstance(feats, np.ndarray) else type(feats).__name__
            raise ValueError(f"{name}: feats must be an (N, d) array of floats, N and d at least 1; found {given}")
        for column, count in (("files", len(files)), ("classes", len(classes))):
            if count != len(feats):
                raise ValueError(f"{name}: {len(feats)} rows of feats, but {count} {column}; each row needs one")
        _check_unique(files, name)
        store.check_rows(feats, files, name)
        if feats.dtype != np.float16:  # as in a store
            feats = np.ascontiguousarray(feats, np.float32)
        return cls([MemoryShard(feats, store.columns(files, classes))], provenance)

    def __len__(self) -> int:
        return int(self._first[-1])

    def __repr__(self) -> str:
        return f"Features({len(self)} x {self.dim}, {len(self._shards)} shards, {len(self.unreadable)} unreadable)"

    def shards(self) -> Iterator[Shard | MemoryShard]:
        """The rows in order, a part at a time: each part has feats, ids and moments.

        Each part is opened anew, so that the memory for what was read of it is free once the caller drops it.
        """
        return map(replace, self._shards)

    @property
    def dim(self) -> int:
        """d: numbers in a row."""
        return int(self._shards[0].feats.shape[1])

    @property
    def large(self) -> bool:
        """Whether the rows are too many to be held at once, so that they are gone through shard by shard."""
        return 4 * len(self) * self.dim > HELD_BYTES

    @cached_property
    def feats(self) -> np.ndarray:
        """All rows, (N, d) float32: mapped from the file where it is one of float32, else in memory."""
        if len(self._shards) == 1 and self._shards[0].feats.dtype != np.float16:
            return self._shards[0].feats
        return np.concatenate([shard.feats.astype(np.float32, copy=False) for shard in self._shards])

    def rows(self, positions: Sequence[int] | np.ndarray) -> np.ndarray:
        """The rows at these positions, (n, d) float32; nothing else is read. Raises IndexError for one outside."""
        rows = np.empty((len(positions), self.dim), np.float32)
        for shard, wanted, at in self._by_shard(positions):
            rows[wanted] = shard.feats[at]
        return rows

    def named(self, positions: Sequence[int] | np.ndarray) -> list[tuple[str, str, GeoJson | None]]:
        """File, class and footprint (GeoJSON in longitude and latitude, or None) of the rows at these positions.

        The names of other shards are not read; those of a large store are verified each time, a quarter of a second a
        shard. Raises IndexError for a position outside.
        """
        names: dict[int, tuple[str, str, GeoJson | None]] = {}
        for shard, wanted, at in self._by_shard(positions):
            # a large store keeps no names: ten million of them fill gigabytes
            ids = (replace(shard) if self.large else shard).ids
            footprints = ids.get("footprints") or [None] * shard.rows
            for i, row in zip(wanted, at, strict=True):
                names[i] = ids["files"][row], ids["classes"][row], footprints[row]
        return [names[i] for i in range(len(positions))]

    def _by_shard(
        self, positions: Sequence[int] | np.ndarray
    ) -> Iterator[tuple[Shard | MemoryShard, np.ndarray, np.ndarray]]:
        """The shards that hold these positions, each with the indices of those it holds, and their rows there."""
        positions = np.asarray(positions, np.int64)
        if len(outside := positions[(positions < 0) | (positions >= len(self))]):
            raise IndexError(f"position {outside[0]} is outside: there are {len(self)} rows")
        number = np.searchsorted(self._first, positions, side="right") - 1
        for k in np.unique(number):
            wanted = np.flatnonzero(number == k)
            yield self._shards[k], wanted, positions[wanted] - self._first[k]

    def position(self, file: str) -> int | None:
        """The row of an image by its file, None where there is none. Of a large store, all names may be read."""
        for first, shard in zip(self._first, self.shards() if self.large else self._shards, strict=False):
            files: list[str] = shard.ids["files"]
            if file in files:
                return int(first) + files.index(file)
        return None

    @cached_property
    def files(self) -> tuple[str, ...]:
        """The image of each row."""
        files = tuple(file for shard in self.shards() for file in shard.ids["files"])
        _check_unique(files, "features")
        return files

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The class of each row, as it was at extraction."""
        return tuple(cls for shard in self.shards() for cls in shard.ids["classes"])

    @cached_property
    def moments(self) -> Moments:
        """Mean and covariance of all rows in float64, merged from those of the shards."""
        return store.merged((shard.rows, shard.moments) for shard in self._shards)

    def readable(self, archive: Archive) -> Archive:
        """The archive less the images that couldn't be read when the features were made."""
        kept = [i for i, file in enumerate(archive.files) if file not in self.unreadable]
        return archive if len(kept) == len(archive) else archive.subset(kept)

    def lie_as(self, archive: Archive) -> bool:
        """Whether row i is image i of the archive, to the last one."""
        files, shards = archive.files, zip(self._first, self.shards(), strict=False)
        return len(files) == len(self) and all(
            tuple(shard.ids["files"]) == files[first : first + shard.rows] for first, shard in shards
        )

    def aligned(self, archive: Archive) -> np.ndarray:
        """The features in the archive's order, (len(archive), d) float32.

        Files match by the archive's relative paths, whatever folders lie above; if none does, by file name. Features
        of further images are left out, so that those of a whole archive serve a part of it.

        Raises:
            ValueError: Naming the first files that are missing, ambiguous or were unreadable.
        """
        if self.files == archive.files:
            return self.feats
        unread = [file for file in archive.files if file in self.unreadable]
        if unread:
            raise ValueError(
                f"{len(unread)} images of {archive.name} couldn't be read when the features were made, the first "
                f"{unread[0]} ({self.unreadable[unread[0]]}). Go on without them: features.readable(archive), and "
                "benchmark.without(features.unreadable); or replace the files and extract again"
            )
        own = [file.replace("\\", "/") for file in self.files]
        for depth in (min(file.count("/") for file in archive.files) + 1, 1):
            wanted, held = (["/".join(file.split("/")[-depth:]) for file in files] for files in (archive.files, own))
            row_of = {end: row for row, end in enumerate(held)}
            if not row_of.keys().isdisjoint(wanted):
                break
        times = [Counter(wanted), Counter(held)]
        twice = [end for ends in times for end, count in ends.items() if count > 1 and end in times[0]]
        problems = {"without features": [end for end in wanted if end not in row_of], "more than once": twice}
        if any(problems.values()):
            details = "; ".join(f"{len(e)} {problem} ({', '.join(e[:3])})" for problem, e in problems.items() if e)
            raise ValueError(f"the features don't fit {archive.name}: {details}. Extract them for this archive again")
        return self.rows([row_of[end] for end in wanted])


def _check_unique(files: Sequence[str], name: str | Path) -> None:
    if len(set(files)) < len(files):
        file, times = Counter(files).most_common(1)[0]
        raise ValueError(f"{name}: {file} has {times} rows; each image has one. Extract the features again")


def read_features(path: str | Path, archive: Archive | None = None, encoder: "Encoder | None" = None) -> Features:
    """Features from a store folder, or from the authors' `.pkl` (protocol, Data), whose provenance isn't known.

    A small store is verified byte by byte at every opening; a larger one (`store.VERIFIED_BYTES`) by `rscir verify`.

    Args:
        path: The folder, or the pickle.
        archive: The images they should be of; the store may hold further ones.
        encoder: What should have made them, in any precision: rows are compared with texts of any other.

    Raises:
        FileNotFoundError: For an absent or unfinished store.
        ValueError: For another encoder or reading rule, showing both; for a store that lacks an image of the archive or
            holds one that was replaced since; for a damaged file, and a pickle of anything but arrays, lists, strings.
    """
    path = Path(path).expanduser()
    if path.suffix == ".pkl":
        provenance = {"encoder": "not recorded", "archive": "not recorded", "source": path.name}
        return Features.from_arrays(*read_pickle(path), provenance, name=path)
    if path.suffix == ".npz":
        feats, *names = read_arrays(path, "feats", "files", "classes")
        files, classes = (np.ravel(texts).astype(str).tolist() for texts in names)
        return Features.from_arrays(feats, files, classes, {"source": path.name}, name=path)
    if not (path / store.MANIFEST).exists():
        unfinished = path.is_dir() and any(path.glob("*.json"))
        reason = "the extraction is unfinished" if unfinished else "no features here"
        raise FileNotFoundError(f"{path}: {reason}; run extract_features (notebook 02)")
    features = open_store(path)
    if archive:
        held = {*features.files, *features.unreadable}
        missing = [file for file in archive.files if file not in held]
        for problem, wrong in (("have no features", missing), ("were replaced since", replaced(features, archive))):
            if wrong:
                raise ValueError(
                    f"{path}: {len(wrong)} of {len(archive)} images of {archive.name} {problem}, the first {wrong[0]}. "
                    "Run extract_features (notebook 02) on this archive: it encodes those alone"
                )
    expected = (encoder.provenance if encoder else {}) | (archive.reading if archive else {})
    store.check_provenance(features.provenance, expected, path, store.RECORDED | ROWS_ONLY)
    return features


def open_store(folder: Path) -> Features:
    """The features of a store, paged in when used: it opens as fast, however many there are."""
    manifest, shards = store.read_manifest(folder)
    return Features(shards, manifest["provenance"], manifest["unreadable"])


def replaced(features: Features, archive: Archive, again: bool = False) -> list[str]:
    """Images whose file has another content than when a store's features were made; again: read them all."""
    position = {file: i for i, file in enumerate(archive.files)}
    shards = [shard for shard in features.shards() if isinstance(shard, Shard)]
    wrong, known = [], {} if again or not shards else store.read_looks(shards[0].folder)
    looks = dict(known)
    rows = ((file, stamp) for shard in shards for file, stamp in zip(shard.ids["files"], shard.stamps, strict=True))
    for file, stamp in tqdm(rows, "comparing images", len(features), delay=5, unit="image", leave=False):
        if file in position and not stamp.fits(archive.path(position[file]), looks, file):
            wrong.append(file)
    if looks != known:
        with suppress(OSError):  # a folder that nobody may write: they are compared again next time
            write_json(shards[0].folder / store.LOOKS, looks, indent=None)
    return wrong


def verify_features(folder: str | Path, archive: Archive | None = None) -> Features:
    """The features of a store, after every byte of it was read again, and with an archive every byte of its images.

    Raises:
        ValueError: Naming, a line each, the files that aren't what was written, the images that aren't what they were,
            or the first row that is wrong.
    """
    features, problems = read_features(folder), []
    for shard in tqdm([shard for shard in features.shards() if isinstance(shard, Shard)], "verifying", unit="shard"):
        try:
            shard.verify()
        except ValueError as error:
            problems.append(str(error))
    if archive:
        advice = "another picture than the features are of: extract again"
        problems += [f"{archive.root / file}: {advice}" for file in replaced(features, archive, again=True)]
    if problems:
        raise ValueError("\n".join(problems))
    _check_unique(features.files, folder)
    return features
