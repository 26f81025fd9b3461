"""A feature store on disk: shards of rows, and the manifest that declares them.

    manifest.json         provenance, the shards in order with rows and sha256, images that couldn't be read
    <name>.npy            a shard: (n, d) float32 or float16, rows of unit length
    <name>.json           its ids, column by column: file, class, and what the image file was (size, mtime_ns, sha256)
    <name>.moments.npy    (d + 1, d) float64: the mean of its rows, then their scatter matrix

A shard is the unit of work, of resumption and of transfer. Its name is a digest of what its rows stand for, so a shard
that stands is good and is never changed; the manifest is written last. Shards that no manifest names are the progress
of an extraction.

The shards are plain npy, because rows are scanned whole or picked one by one, and do not compress. 400,000 x 768
float16 on two cores: write 2.0 s, scan 1.1 s, 2,000 random rows 0.015 s. Zarr v3 took 5.1, 1.6 and 0.52 s (with zstd
7.2, 3.2 and 2.2 s, for 8 % less on disk; sharded 6.7, 2.7 and 0.77 s), Lance 10.9, 7.4 and 0.04 s, Parquet 25.7, 7.4
and 17.6 s. numpy maps npy into memory, and R, Julia, C++ and Rust read it.
"""

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from rscir_lib.similarity.moments import Moments
from rscir_lib.storage.atomic import UNFINISHED, read_json, write_json, write_npy
from rscir_lib.storage.digests import sha256_of, sha256_of_file

MANIFEST = "manifest.json"
# Recorded, but no reason to refuse a row: the archive may have moved or grown, or a package been updated
RECORDED = {
    "archive",
    "archive_fingerprint",
    "python",
    "torch",
    "torchvision",
    "open_clip_torch",
    "transformers",
    "pillow",
    "numpy",
}
STAMPS = ("sizes", "mtimes_ns", "contents")  # columns of the ids: what each image file was
DTYPES = ("float32", "float16")
# Bytes of a shard's rows: 87,381 of 768 float32. Smaller shards are more files; a larger one must fit into the memory
# of each worker that has one.
SHARD_BYTES = 2**28
# Bytes up to which a store is verified whenever it is opened, in a quarter of a second; more would make opening slow
VERIFIED_BYTES = 2**28
# How far a row's length may be from 1: float16 keeps three digits. A greater value lets similarities differ that much.
TOLERANCE = 1e-3
MENDED = "run extract_features (notebook 02), or what else made it, again: it makes afresh what is damaged"
AGAIN = "Choose another folder, or extract again with overwrite=True"


GeoJson = dict[str, Any]


class Stamp(NamedTuple):
    """What an image file was when its features were made. sha256 decides; size and mtime_ns are the quick look."""

    size: int
    mtime_ns: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> "Stamp":
        """Of a file as it is now."""
        now = path.stat()
        return cls(now.st_size, now.st_mtime_ns, _content(path, now.st_size, now.st_mtime_ns))

    def fits(self, path: Path) -> bool:
        """Whether the file is still the same. An absent file contradicts nothing: the features outlive it."""
        try:
            now = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return True
        return now.st_size == self.size and (
            now.st_mtime_ns == self.mtime_ns or _content(path, now.st_size, now.st_mtime_ns) == self.sha256
        )


UNKNOWN = Stamp(0, 0, "")  # of a row whose image file isn't known


@lru_cache(maxsize=64)  # the tiles of a scene share a file
def _content(path: Path, size: int, mtime_ns: int) -> str:
    return sha256_of_file(path)


@dataclass(frozen=True)
class Shard:
    """Rows of a store that lie together: `rows` of them, and the sha256 of each of the shard's files by its ending."""

    folder: Path
    name: str
    rows: int
    sha256: dict[str, str]

    def reopened(self) -> Self:
        """The same shard with nothing read of it yet: what was read of this one is free when this one is dropped."""
        return replace(self)

    def path(self, ending: str) -> Path:
        """One of the shard's files: ending "npy", "json" or "moments.npy"."""
        return self.folder / f"{self.name}.{ending}"

    @cached_property
    def feats(self) -> np.ndarray:
        """(rows, d) float32 or float16, paged in when used; writing to it leaves the file as it is."""
        path = self.path("npy")
        try:
            feats = np.load(path, mmap_mode="c", allow_pickle=False)
        except Exception as error:  # a damaged header makes numpy raise nearly anything
            raise ValueError(f"{path} is missing or damaged ({error}); {MENDED}") from None
        if feats.ndim != 2 or len(feats) != self.rows or feats.dtype.name not in DTYPES:
            raise ValueError(f"{path}: expected {self.rows} rows, found {feats.dtype} {feats.shape}; {MENDED}")
        return np.asarray(feats)

    @cached_property
    def ids(self) -> dict[str, Any]:
        """The columns files, classes, sizes, mtimes_ns and contents, and the provenance; checked by its sha256."""
        self.verify("json")
        return _read_ids(self.path("json"))

    @property
    def files(self) -> tuple[str, ...]:
        """The image of each row."""
        return tuple(self.ids["files"])

    @property
    def classes(self) -> tuple[str, ...]:
        """The class of each row."""
        return tuple(self.ids["classes"])

    @property
    def footprints(self) -> list[GeoJson | None]:
        """Where the image of each row lies, GeoJSON in longitude and latitude, as far as the rows came with it."""
        return self.ids.get("footprints") or [None] * self.rows

    @cached_property
    def stamps(self) -> list[Stamp]:
        """What the image file of each row was."""
        return list(map(Stamp, *(self.ids[column] for column in STAMPS)))

    @property
    def moments(self) -> Moments:
        """Of the shard's rows, float64."""
        self.verify("moments.npy")
        both = np.load(self.path("moments.npy"), allow_pickle=False)
        return Moments(both[0], both[1:] / max(self.rows - 1, 1))

    def verify(self, *endings: str) -> None:
        """Raise ValueError unless the files (all of them without `endings`) are, byte for byte, what was written."""
        for ending in endings or self.sha256:
            path = self.path(ending)
            if not path.is_file() or sha256_of_file(path) != self.sha256[ending]:
                raise ValueError(
                    f"{path} was changed, cut short or removed (its sha256 isn't the recorded one); {MENDED}"
                )


def merged(parts: Iterable[tuple[int, Moments]]) -> Moments:
    """Moments of all rows from those of parts, (rows, moments) each, by Chan's update: no pass over the rows."""
    count, mean, scatter = 0, np.zeros(1), np.zeros((1, 1))
    for rows, moments in parts:
        step, total = moments.mean - mean, count + rows
        scatter = scatter + moments.covariance * (rows - 1) + np.outer(step, step) * (count * rows / total)
        mean, count = mean + step * (rows / total), total
    return Moments(mean, scatter / max(count - 1, 1))


def check_rows(feats: np.ndarray, files: Sequence[str], name: str | Path) -> None:
    """Raise ValueError, naming the first row and its file, unless all rows are finite and of unit length."""
    for start in range(0, len(feats), 65_536):
        rows = np.asarray(feats[start : start + 65_536], np.float32)
        lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows))
        wrong = np.flatnonzero(~(np.abs(lengths - 1) < TOLERANCE))  # so that NaN is wrong too
        if wrong.size:
            row = start + wrong[0]
            raise ValueError(
                f"{name}: {wrong.size} rows are not finite and L2-normalised, first row {row} ({files[row]}), "
                f"length {lengths[wrong[0]]:.6g}; divide each row by its length, or extract the features again"
            )


def write_shard(
    folder: Path,
    feats: np.ndarray,
    files: Sequence[str],
    classes: Sequence[str],
    stamps: Sequence[Stamp],
    provenance: dict[str, str],
    seconds: float = 0.0,
    moments: bool | Moments = True,
    footprints: list[GeoJson | None] | None = None,
) -> Shard:
    """Write rows (n, d) float32 or float16 and their ids; the shard stands, or nothing does.

    provenance: what the rows were made with; equal ids and provenance give an equal name. seconds: spent on them.
    moments: written too, worked out unless they are given; progress has no need of them. footprints: of the images,
    GeoJSON in longitude and latitude, where the rows come without their images.
    Raises ValueError for rows that aren't finite and of unit length, OSError for a disk without room.
    """
    check_rows(feats, files, folder)
    ids = columns(files, classes, stamps)
    name = shard_name(ids, provenance)
    sha256 = {"npy": sha256_of_file(write_npy(folder / f"{name}.npy", feats))}
    if moments:
        whole = Moments.of(feats) if moments is True else moments
        both = np.vstack([whole.mean, whole.covariance * max(len(feats) - 1, 1)])
        sha256["moments.npy"] = sha256_of_file(write_npy(folder / f"{name}.moments.npy", both))
    path = folder / f"{name}.json"  # last: it declares the rows
    content = {"sha256": sha256, "seconds": round(seconds, 3), "provenance": provenance} | ids
    if footprints:
        content["footprints"] = footprints
    write_json(path, content, indent=None)
    return Shard(folder, name, len(feats), sha256 | {"json": sha256_of_file(path)})


def columns(files: Sequence[str], classes: Sequence[str], stamps: Sequence[Stamp]) -> dict[str, list[Any]]:
    """The ids of a shard's rows as they are written."""
    ids: dict[str, list[Any]] = {"files": list(files), "classes": list(classes)}
    return ids | {column: list(values) for column, values in zip(STAMPS, zip(*stamps, strict=True), strict=True)}


def shard_name(ids: Mapping[str, list[Any]], provenance: Mapping[str, str]) -> str:
    """The name of the shard with these ids and provenance."""
    made = {key: value for key, value in provenance.items() if key not in RECORDED}
    return sha256_of(json.dumps([ids, made], sort_keys=True))[:16]


def standing_shards(folder: Path) -> tuple[list[Shard], list[str]]:
    """All whole shards in a folder, declared or not, oldest first; and what is wrong with the others."""
    shards, problems = [], []
    paths = [path for path in folder.glob("*.json") if re.fullmatch("[0-9a-f]{16}", path.stem)]
    for path in sorted(paths, key=lambda path: path.stat().st_mtime_ns):
        try:
            ids = _read_ids(path)
            shard = Shard(folder, path.stem, len(ids["files"]), ids["sha256"] | {"json": sha256_of_file(path)})
            shard.verify()
            check_rows(shard.feats, shard.files, path)
        except (OSError, ValueError) as error:
            problems.append(str(error))
        else:
            shards.append(shard.reopened())  # the ids of all shards may fill the memory
    return shards, problems


def write_manifest(
    folder: Path, shards: Sequence[Shard], provenance: dict[str, str], unreadable: dict[str, str]
) -> None:
    """Declare the shards, in this order, to be the store; then remove whatever else an extraction left there."""
    # ids read and let go, one shard after the other: those of ten million rows fill two gigabytes
    rows, seconds = sum(s.rows for s in shards), sum(s.reopened().ids["seconds"] for s in shards)
    numbers = {"rows": rows, "dim": shards[0].feats.shape[1], "dtype": shards[0].feats.dtype.name}
    times = {"seconds": round(seconds, 3), "images_per_second": round(rows / seconds, 1) if seconds else None}
    listed = [{"name": s.name, "rows": s.rows, "sha256": s.sha256} for s in shards]
    content = {"provenance": provenance} | numbers | times | {"unreadable": unreadable, "shards": listed}
    write_json(folder / MANIFEST, content)
    clean(folder, {shard.name for shard in shards})


def read_manifest(folder: Path) -> tuple[dict[str, Any], tuple[Shard, ...]]:
    """The manifest and its shards, opened. A store of up to VERIFIED_BYTES is verified; of a larger one, sizes only.

    Raises ValueError naming the file for a damaged store.
    """
    path = folder / MANIFEST
    try:
        manifest: dict[str, Any] = read_json(path)
        shards = [Shard(folder, str(s["name"]), s["rows"], dict(s["sha256"])) for s in manifest["shards"]]
        whole = (
            manifest["rows"] == sum(shard.rows for shard in shards) > 0
            and all(isinstance(manifest[key], dict) for key in ("provenance", "unreadable"))
            and all(
                re.fullmatch("[0-9a-f]{16}", s.name) and {*s.sha256} == {"npy", "json", "moments.npy"} for s in shards
            )
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({type(error).__name__}: {error}); {MENDED}") from None
    if not whole:
        raise ValueError(f"{path} is damaged (its shards don't add up); {MENDED}")
    if sum(shard.feats.nbytes for shard in shards) <= VERIFIED_BYTES:
        for shard in shards:
            shard.verify()
            check_rows(shard.feats, shard.files, shard.path("npy"))
    return manifest, tuple(shards)


def clean(folder: Path, kept: Collection[str] = ()) -> None:
    """Remove what this module wrote, except the shards `kept`; with none kept, the manifest too."""
    if not kept:
        (folder / MANIFEST).unlink(missing_ok=True)
    # The ids go first: a kill in between leaves rows without ids, which nobody takes for a shard
    for path in sorted(leftovers(folder, kept), key=lambda path: path.suffix != ".json"):
        path.unlink(missing_ok=True)


def leftovers(folder: Path, kept: Collection[str]) -> list[Path]:
    """Files of shards other than those `kept`, and those that a kill left half written."""
    return [
        path
        for path in folder.iterdir()
        if ((shard := re.fullmatch(r"([0-9a-f]{16})\.(json|npy|moments\.npy)", path.name)) and shard[1] not in kept)
        or (path.name.startswith(".") and path.name.endswith(UNFINISHED))
    ]


def _read_ids(path: Path) -> dict[str, Any]:
    try:
        ids: dict[str, Any] = read_json(path)
        held = {key: ids[key] for key in ("files", "classes", *STAMPS)}
        whole = len({len(column) for column in held.values()}) == 1 and "npy" in ids["sha256"]
        whole = whole and path.stem == shard_name(held, ids["provenance"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({type(error).__name__}: {error}); {MENDED}") from None
    if not whole:
        raise ValueError(f"{path} is damaged (it isn't what its name is the digest of); {MENDED}")
    return ids


def check_provenance(
    stored: Mapping[str, str], expected: Mapping[str, str], folder: Path, ignored: Collection[str] = RECORDED
) -> None:
    """Raise ValueError, showing both, where rows were made by something else than is expected."""
    different = [
        f"  {key}: stored {stored.get(key)}, asked for {value}"
        for key, value in expected.items()
        if key not in ignored and stored.get(key) != value
    ]
    if different:
        raise ValueError(
            f"{folder} holds the features of another archive or encoder:\n" + "\n".join(different) + f"\n{AGAIN}"
        )
