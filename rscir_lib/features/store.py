"""A feature store on disk: shards of rows, and the manifest that declares them.

    manifest.json         provenance, the shards in order with rows and sha256, images that couldn't be read
    <name>.npy            a shard: (n, d) float32 or float16, rows of unit length
    <name>.json           its ids, column by column: file, class, and what the image file was (size, mtime_ns, sha256)
    <name>.moments.npy    (d + 1, d) float64: the mean of its rows, then their scatter matrix
    .looks.json           inode and time of change of the image files that were compared; made again where it is absent

A shard is the unit of work, of resumption and of transfer. Its name is a digest of what its rows stand for, so a shard
that stands is good and is never changed; the manifest is written last. Shards that no manifest names are the progress
of an extraction.

The shards are plain npy, because rows are scanned whole or picked one by one, and do not compress. 400,000 x 768
float16 on two cores: write 2.0 s, scan 1.1 s, 2,000 random rows 0.015 s (Zarr 5.1, 1.6 and 0.52 s; Lance 10.9, 7.4 and
0.04 s; Parquet 25.7, 7.4 and 17.6 s). numpy maps npy into memory, and R, Julia, C++ and Rust read it.
"""

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rscir_lib.similarity.moments import Moments
from rscir_lib.storage.atomic import UNFINISHED, read_json, write_json, write_npy
from rscir_lib.storage.bounds import of_file
from rscir_lib.storage.digests import sha256_of, sha256_of_file

MANIFEST = "manifest.json"
LOOKS = ".looks.json"
# Rows that differ in these go together: the archive may have moved or grown, or a package been updated
RECORDED = frozenset(
    "archive archive_fingerprint python torch torchvision open_clip_torch transformers pillow numpy".split()
)
STAMPS = ("sizes", "mtimes_ns", "contents")  # columns of the ids: what each image file was
DTYPES = ("float32", "float16")
# Bytes of a shard's rows: 87,381 of 768 float32. Smaller shards are more files; a larger one must fit into the memory
# of each worker that has one.
SHARD_BYTES = 2**28
# Bytes up to which a store is verified whenever it is opened, in a quarter of a second; more would make opening slow
VERIFIED_BYTES = 2**28
# Rows of a shard whose length is looked at when a large store is opened: each is a page read from disk
SAMPLED = 16
# How far a row's length may be from 1: float16 keeps three digits. A greater value lets similarities differ that much.
TOLERANCE = 1e-3
AFRESH = "run extract_features (notebook 02), or what else made it, again: it makes afresh what is damaged"
AGAIN = "Choose another folder, or extract again with overwrite=True (for rscir workbook: OVERWRITE=True)"

GeoJson = dict[str, Any]
Looks = dict[str, list[int]]  # of image files whose content was compared: inode and time of change
Ids = dict[str, Any]  # what each row is of, column by column: files, classes, STAMPS, and footprints where known


class Stamp(NamedTuple):
    """What an image file was when its features were made. Its sha256 decides; all else is compared to save reading."""

    size: int
    mtime_ns: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> "Stamp":
        """Of a file as it is now."""
        now = path.stat()
        return cls(now.st_size, now.st_mtime_ns, _content(path, now.st_ino, now.st_mtime_ns, now.st_ctime_ns))

    def fits(self, path: Path, looks: Looks, file: str) -> bool:
        """Whether the file is still the same; also for an absent one, since features may be kept without images.

        Its content is compared unless size and time are the stamp's, and inode and time of change those in `looks`:
        two files that changed places may have the same size and time. Where it is the same, `looks` has them then.
        """
        try:
            now = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return True
        look = [now.st_ino, now.st_ctime_ns]
        same = now.st_mtime_ns == self.mtime_ns and looks.get(file) == look
        fits = now.st_size == self.size and (same or Stamp.of(path).sha256 == self.sha256)
        if fits:
            looks[file] = look
        return fits


@lru_cache(maxsize=64)  # the tiles of a scene share a file
def _content(path: Path, inode: int, *times_ns: int) -> str:
    return sha256_of_file(path)


def read_looks(folder: Path) -> Looks:
    """The looks that are kept in a store; none where there are none, or damaged ones."""
    try:
        return dict(read_json(folder / LOOKS))
    except (OSError, ValueError):
        return {}


def columns(files: Sequence[str], classes: Sequence[str], stamps: Sequence[Stamp] | None = None) -> Ids:
    """The ids of rows; without stamps, of rows whose image files aren't known."""
    stamps = stamps or [Stamp(0, 0, "")] * len(files)
    known = zip(STAMPS, map(list, zip(*stamps, strict=True)), strict=True)
    return {"files": list(files), "classes": list(classes)} | dict(known)


@dataclass(frozen=True)
class Shard:
    """Rows of a store that lie together: `rows` of them, and the sha256 of each of the shard's files by its ending.

    What was read of it is kept with it: `dataclasses.replace(shard)` is the same shard with nothing read yet.
    """

    folder: Path
    name: str
    rows: int
    sha256: dict[str, str]

    def path(self, ending: str) -> Path:
        """One of the shard's files: ending "npy", "json" or "moments.npy"."""
        return self.folder / f"{self.name}.{ending}"

    @property
    def feats(self) -> np.ndarray:
        """(rows, d) float32 or float16, paged in when used; writing to it leaves the file as it is."""
        path = self.path("npy")
        if path.is_file() and path.stat().st_size < self._mapped.nbytes:  # to read beyond its end would end the process
            raise damaged(path, "cut short since it was opened")
        return self._mapped

    @cached_property
    def _mapped(self) -> np.ndarray:
        path = self.path("npy")
        try:
            feats = np.load(path, mmap_mode="c", allow_pickle=False)
        except Exception as error:  # a damaged header makes numpy raise nearly anything
            raise damaged(path, str(error)) from None
        if feats.ndim != 2 or len(feats) != self.rows or feats.dtype.name not in DTYPES:
            raise damaged(path, f"{feats.dtype} {feats.shape} instead of {self.rows} rows")
        return np.asarray(feats)

    @cached_property
    def ids(self) -> Ids:
        """The columns, the provenance and the seconds that the rows took; checked by their sha256."""
        return _read_ids(self._checked("json"))

    @property
    def stamps(self) -> list[Stamp]:
        """What the image file of each row was."""
        return list(map(Stamp, *(self.ids[column] for column in STAMPS)))

    @property
    def moments(self) -> Moments:
        """Of the shard's rows, float64."""
        both = np.load(self._checked("moments.npy"), allow_pickle=False)
        return Moments(both[0], both[1:] / max(self.rows - 1, 1))

    def _checked(self, ending: str) -> Path:
        path = self.path(ending)
        if not path.is_file() or sha256_of_file(path) != self.sha256[ending]:
            raise damaged(path, "changed, cut short or removed: its sha256 isn't the recorded one")
        return path

    def look(self) -> None:
        """Raise ValueError where the file of rows has another size, or one of `SAMPLED` rows another length than 1."""
        path = self.path("npy")
        rows = np.unique(np.linspace(0, self.rows - 1, SAMPLED).astype(int))
        lengths = np.linalg.norm(self.feats[rows].astype(np.float64), axis=1)
        wrong = rows[~(np.abs(lengths - 1) < TOLERANCE)]  # so that NaN is wrong too
        if wrong.size:
            raise damaged(path, f"row {wrong[0]} is not of length 1")
        header = path.stat().st_size - self.feats.nbytes
        if header % 64 or not 0 < header <= 256:  # numpy fills it up to 64 bytes, and its facts take some hundred
            raise damaged(path, f"{path.stat().st_size} bytes for rows of {self.feats.nbytes}")

    def verify(self) -> None:
        """Raise ValueError unless its files are, byte for byte, what was written, and its rows of unit length."""
        for ending in self.sha256:
            self._checked(ending)
        check_rows(self.feats, self.ids["files"], self.path("npy"))


def damaged(path: Path, reason: str) -> ValueError:
    """The error for a file that isn't what was written."""
    return ValueError(f"{path} is damaged ({reason}); {AFRESH}")


def merged(parts: Iterable[tuple[int, Moments]]) -> Moments:
    """Moments of all rows from those of parts, (rows, moments) each, by Chan's update: no pass over the rows."""
    count, mean, scatter = 0, np.zeros(1), np.zeros((1, 1))
    for rows, moments in parts:
        step, total = moments.mean - mean, count + rows
        scatter = scatter + moments.covariance * (rows - 1) + np.outer(step, step) * (count * rows / total)
        mean, count = mean + step * (rows / total), total
    return Moments(mean, scatter / max(count - 1, 1))


def check_rows(
    feats: np.ndarray, files: Sequence[str], name: str | Path, advice: str = "divide each row by its length"
) -> None:
    """Raise ValueError, naming the first row and its file, unless all rows are finite and of unit length."""
    for start in range(0, len(feats), 65_536):
        rows = np.asarray(feats[start : start + 65_536], np.float32)
        lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows))
        wrong = np.flatnonzero(~(np.abs(lengths - 1) < TOLERANCE))  # so that NaN is wrong too
        if wrong.size:
            row = start + wrong[0]
            raise ValueError(
                f"{name}: {wrong.size} rows are not finite and L2-normalised, first row {row} ({files[row]}), "
                f"length {lengths[wrong[0]]:.6g}; {advice}, or extract the features again"
            )


def write_shard(
    folder: Path, feats: np.ndarray, ids: Ids, provenance: dict[str, str], seconds: float = 0.0,
    moments: bool | Moments = True,
) -> Shard:  # fmt: skip
    """Write rows (n, d) float32 or float16 and their ids; the shard stands, or nothing does.

    ids: `columns`, and perhaps footprints: of the images, GeoJSON in longitude and latitude or None, where the rows
    come without their images. provenance: what the rows were made with; equal ids and provenance give an equal name.
    seconds: spent on them. moments: written too, worked out unless they are given; progress has no need of them.
    Raises ValueError for rows that aren't finite and of unit length, OSError for a disk without room.
    """
    check_rows(feats, ids["files"], folder)
    name = shard_name(ids, provenance)
    sha256 = {"npy": sha256_of_file(write_npy(folder / f"{name}.npy", feats))}
    if moments:
        whole = Moments.of(feats) if moments is True else moments
        both = np.vstack([whole.mean, whole.covariance * max(len(feats) - 1, 1)])
        sha256["moments.npy"] = sha256_of_file(write_npy(folder / f"{name}.moments.npy", both))
    content = {"sha256": sha256, "seconds": round(seconds, 3), "provenance": provenance} | ids
    path = write_json(folder / f"{name}.json", content, indent=None)  # last: it declares the rows
    return Shard(folder, name, len(feats), sha256 | {"json": sha256_of_file(path)})


def shard_name(ids: Ids, provenance: Mapping[str, str]) -> str:
    """The name of the shard with these ids and provenance."""
    columns = {name: ids[name] for name in ("files", "classes", *STAMPS)}
    made = {key: value for key, value in provenance.items() if key not in RECORDED}
    return sha256_of(json.dumps([columns, made], sort_keys=True))[:16]


def _read_ids(path: Path) -> Ids:
    with of_file(path, AFRESH):
        ids: Ids = read_json(path)
        if path.stem != shard_name(ids, ids["provenance"]) or "npy" not in ids["sha256"]:
            raise ValueError("it isn't what its name is the digest of")
    return ids


def standing_shards(folder: Path) -> tuple[list[Shard], list[str]]:
    """All whole shards in a folder, declared or not, oldest first; and what is wrong with the others."""
    shards, problems = [], []
    for path in sorted(folder.glob("[0-9a-f]" * 16 + ".json"), key=lambda path: path.stat().st_mtime_ns):
        try:
            ids = _read_ids(path)
            shard = Shard(folder, path.stem, len(ids["files"]), ids["sha256"] | {"json": sha256_of_file(path)})
            replace(shard).verify()  # a copy: the ids of all shards may fill the memory
            shards.append(shard)
        except (OSError, ValueError) as error:
            problems.append(str(error))
    return shards, problems


def write_manifest(
    folder: Path, shards: Sequence[Shard], provenance: dict[str, str], unreadable: dict[str, str]
) -> None:
    """Declare the shards, in this order, to be the store; then remove whatever else an extraction left there."""
    # ids read and let go, one shard after the other: those of ten million rows fill two gigabytes
    rows, seconds = sum(s.rows for s in shards), sum(replace(s).ids["seconds"] for s in shards)
    numbers = {"rows": rows, "dim": shards[0].feats.shape[1], "dtype": shards[0].feats.dtype.name}
    times = {"seconds": round(seconds, 3), "images_per_second": round(rows / seconds, 1) if seconds else None}
    listed = [{"name": s.name, "rows": s.rows, "sha256": s.sha256} for s in shards]
    content = {"provenance": provenance} | numbers | times | {"unreadable": unreadable, "shards": listed}
    write_json(folder / MANIFEST, content)
    clean(folder, {shard.name for shard in shards})


def read_manifest(folder: Path) -> tuple[dict[str, Any], tuple[Shard, ...]]:
    """The manifest and its shards, opened. A store of up to VERIFIED_BYTES is verified; of a larger one, sizes and a
    sample of the rows are looked at.

    Raises ValueError naming the file for a damaged store.
    """
    with of_file(folder / MANIFEST, AFRESH):
        manifest: dict[str, Any] = read_json(folder / MANIFEST)
        shards = tuple(Shard(folder, str(s["name"]), s["rows"], dict(s["sha256"])) for s in manifest["shards"])
        named = all(
            re.fullmatch("[0-9a-f]{16}", s.name) and {*s.sha256} == {"npy", "json", "moments.npy"} for s in shards
        )
        facts = isinstance(manifest["provenance"], dict) and isinstance(manifest["unreadable"], dict)
        if not (named and facts and manifest["rows"] == sum(shard.rows for shard in shards) > 0):
            raise ValueError("its shards don't add up")
    large = sum(shard.feats.nbytes for shard in shards) > VERIFIED_BYTES
    for shard in shards:
        shard.look() if large else shard.verify()
    return manifest, shards


def clean(folder: Path, kept: Collection[str] = ()) -> None:
    """Remove what this module wrote, except the shards `kept`; with none kept, the manifest too."""
    if not kept:
        (folder / MANIFEST).unlink(missing_ok=True)
    # The ids go first: a kill in between leaves rows without ids, which nobody takes for a shard
    for path in sorted(leftovers(folder, kept), key=lambda path: path.suffix != ".json"):
        path.unlink(missing_ok=True)


def leftovers(folder: Path, kept: Collection[str]) -> list[Path]:
    """Files of shards other than those `kept`, and those that a kill left half written."""
    shard = re.compile(r"([0-9a-f]{16})\.(json|npy|moments\.npy)")
    others = [path for path in folder.iterdir() if (name := shard.fullmatch(path.name)) and name[1] not in kept]
    return others + list(folder.glob(f".*{UNFINISHED}"))


def check_provenance(
    stored: Mapping[str, str], expected: Mapping[str, str], folder: Path, ignored: Collection[str] = RECORDED
) -> None:
    """Raise ValueError, showing both, where rows were made by something else than is expected."""
    different = {key: value for key, value in expected.items() if key not in ignored and stored.get(key) != value}
    if different:
        lines = [f"  {key}: stored {stored.get(key)}, asked for {value}" for key, value in different.items()]
        raise ValueError("\n".join([f"{folder} holds the features of another archive or encoder:", *lines, AGAIN]))
