"""Image features: extract them with an encoder into a store on disk, read them back, verify them.

`rscir verify FOLDER` reads every byte of a store again. The format is in `store.py`.
"""

import errno
import hashlib
import json
import os
import socket
import time
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from rscir_lib.archive import Archive
from rscir_lib.features import store
from rscir_lib.features.pickles import read_pickle
from rscir_lib.features.store import RECORDED, Shard, Stamp
from rscir_lib.similarity.moments import Moments
from rscir_lib.storage.parallel import MOST_WORKERS, each

if TYPE_CHECKING:  # reading features needs no encoder
    from rscir_lib.encoders import Encoder

SENT = 512  # images in a task of a scheduler
SAVE_SECONDS = 5.0  # what a killed extraction loses at most, plus one batch
HELD_BYTES = 2**32  # of float32 features that are held at once: 1.4 million rows of 768
LOCK_SECONDS = 6.0  # the workers of a killed process need up to 5 to notice, and hold its lock until then
# One store holds rows of one precision; but an encoder of any precision may ask it its texts
ROWS_ONLY = {"precision", "dtype"}
# what a store of the first format consists of, finished and not
OLD = ("features.json", "features.npy", "features.partial.json", "features.partial.npy")
AGAIN = "Choose another folder, or extract again with overwrite=True"


@dataclass(frozen=True)
class _Rows:
    """Rows in memory, where a store has shards."""

    feats: np.ndarray
    files: tuple[str, ...]
    classes: tuple[str, ...]

    @property
    def rows(self) -> int:
        return len(self.feats)

    @property
    def footprints(self) -> list[None]:
        return [None] * self.rows

    @property
    def stamps(self) -> list[Stamp]:
        return [Stamp(0, 0, "")] * self.rows

    @cached_property
    def moments(self) -> Moments:
        return Moments.of(self.feats)


class Features:
    """Features of N images: a row of unit length each, its file and its class, and where all of it comes from.

    feats: (N, d) floats, finite, rows L2-normalised, N and d at least 1; files: N, each once; classes: N, as they were
    at extraction; provenance: what made the rows; unreadable: images that have no row, and why.
    Raises ValueError, naming row, file and value, for anything else: no consumer has to look again.
    """

    def __init__(
        self,
        feats: np.ndarray,
        files: Sequence[str],
        classes: Sequence[str],
        provenance: Mapping[str, str] | None = None,
        unreadable: Mapping[str, str] | None = None,
        where: object = "features",
    ) -> None:
        files, classes = tuple(files), tuple(classes)
        if getattr(feats, "ndim", 0) != 2 or feats.size == 0 or feats.dtype.kind != "f":
            found = f"{feats.dtype} {feats.shape}" if isinstance(feats, np.ndarray) else type(feats).__name__
            raise ValueError(f"{where}: feats must be an (N, d) array of floats, N and d at least 1; found {found}")
        for what, values in (("files", files), ("classes", classes)):
            if len(values) != len(feats):
                raise ValueError(f"{where}: {len(feats)} rows of feats, but {len(values)} {what}; each row needs one")
        _check_unique(files, where)
        store.check_rows(feats, files, where)
        if feats.dtype != np.float16:  # as in a store
            feats = np.ascontiguousarray(feats, np.float32)
        self._hold((_Rows(feats, files, classes),), provenance, unreadable)

    def _hold(self, shards: tuple, provenance: Mapping | None, unreadable: Mapping | None) -> None:
        self._shards = shards
        self.provenance, self.unreadable = dict(provenance or {}), dict(unreadable or {})

    @classmethod
    def _stored(cls, folder: Path) -> "Features":
        """Those of a store folder, paged in when used: they open as fast, however many they are."""
        manifest, shards = store.read_manifest(folder)
        self = cls.__new__(cls)
        self._hold(shards, manifest["provenance"], manifest["unreadable"])
        return self

    def __len__(self) -> int:
        return sum(shard.rows for shard in self._shards)

    def __repr__(self) -> str:
        return f"Features({len(self)} x {self.dim}, {len(self._shards)} shards, {len(self.unreadable)} unreadable)"

    def shards(self) -> Iterator[Shard]:
        """The rows in order, a part at a time, never all in memory: each part has feats, files, classes, moments."""
        yield from map(replace, self._shards)  # afresh: what one holds is let go with it

    @property
    def dim(self) -> int:
        """d: numbers in a row."""
        return self._shards[0].feats.shape[1]

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
        positions = np.asarray(positions, np.int64)
        if len(outside := positions[(positions < 0) | (positions >= len(self))]):
            raise IndexError(f"position {outside[0]} is outside: there are {len(self)} rows")
        found, first = np.empty((len(positions), self.dim), np.float32), 0
        for shard in self._shards:
            here = np.flatnonzero((positions >= first) & (positions < first + shard.rows))
            if here.size:
                found[here] = shard.feats[positions[here] - first]
            first += shard.rows
        return found

    def named(self, positions: Sequence[int] | np.ndarray) -> list[tuple[str, str, dict | None]]:
        """File, class and footprint of the rows at these positions; the names of other shards are not read.

        Those of a large store are read and verified each time, a quarter of a second a shard. A footprint is where the
        image lies, GeoJSON in longitude and latitude; None unless the features came with it.
        """
        found: list = [None] * len(positions)
        first = 0
        for shard in self._named_shards():
            here = [i for i, position in enumerate(positions) if first <= position < first + shard.rows]
            columns = (shard.files, shard.classes, shard.footprints) if here else ()
            for i in here:
                found[i] = tuple(column[positions[i] - first] for column in columns)
            first += shard.rows
        if None in found:
            raise IndexError(f"position {positions[found.index(None)]} is outside: there are {first} rows")
        return found

    def position(self, file: str) -> int | None:
        """The row of an image by its file, None where there is none. Of a large store, all names may be read."""
        first = 0
        for shard in self._named_shards():
            with suppress(ValueError):
                return first + shard.files.index(file)
            first += shard.rows
        return None

    def _named_shards(self) -> Iterator[Shard]:
        """The shards, to be asked for names: few keep theirs, those of ten million rows fill gigabytes."""
        return self.shards() if self.large else iter(self._shards)

    @cached_property
    def files(self) -> tuple[str, ...]:
        """The image of each row."""
        files = tuple(file for shard in self.shards() for file in shard.files)
        _check_unique(files, "features")
        return files

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The class of each row, as it was at extraction."""
        return tuple(cls for shard in self.shards() for cls in shard.classes)

    @cached_property
    def moments(self) -> Moments:
        """Mean and covariance of all rows in float64, merged from those of the shards."""
        return store.merged((shard.rows, shard.moments) for shard in self._shards)

    def readable(self, archive: Archive) -> Archive:
        """The archive less the images that couldn't be read when the features were made."""
        if self.unreadable.keys().isdisjoint(archive.files):
            return archive
        return archive.subset(i for i, file in enumerate(archive.files) if file not in self.unreadable)

    def lie_as(self, archive: Archive) -> bool:
        """Whether row i is image i of the archive, to the last one."""
        files, first = archive.files, 0
        if len(files) != len(self):
            return False
        for shard in self.shards():
            if shard.files != files[first : first + shard.rows]:
                return False
            first += shard.rows
        return True

    def aligned(self, archive: Archive) -> np.ndarray:
        """The features in the archive's order, (len(archive), d) float32.

        Files match by the archive's relative paths, whatever folders lie above; if none does, by file name. Features
        of further images are left out, so that those of a whole archive serve a part of it.
        Raises ValueError naming the first files that are missing, ambiguous or were unreadable.
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
        for depth in (min(file.count("/") for file in archive.files) + 1, 1):
            wanted, found = _tails(archive.files, depth), _tails(self.files, depth)
            rows = {tail: row for row, tail in enumerate(found)}
            if not rows.keys().isdisjoint(wanted):
                break
        asked = set(wanted)
        problems = {
            "without features": [tail for tail in wanted if tail not in rows],
            "more than once": [
                tail for tails in (wanted, found) for tail, n in Counter(tails).items() if n > 1 and tail in asked
            ],
        }
        if any(problems.values()):
            details = "; ".join(f"{len(t)} {what} ({', '.join(t[:3])})" for what, t in problems.items() if t)
            raise ValueError(f"the features don't fit {archive.name}: {details}. Extract them for this archive again")
        return self.rows([rows[tail] for tail in wanted])


def _tails(files: Iterable[str], depth: int) -> list[str]:
    return ["/".join(file.replace("\\", "/").split("/")[-depth:]) for file in files]


def _check_unique(files: Sequence[str], where: object) -> None:
    if len(set(files)) < len(files):
        file, times = Counter(files).most_common(1)[0]
        raise ValueError(f"{where}: {file} has {times} rows; each image has one. Extract the features again")


# --- extraction


class _Images(Dataset):
    """Preprocessed images at these positions of an archive, each with its stamp; an unreadable one is a reason."""

    def __init__(self, archive: Archive, preprocess: Callable, positions: Sequence[int]) -> None:
        self.archive, self.preprocess, self.positions = archive, preprocess, positions

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, item: int) -> tuple[Stamp | str, torch.Tensor | None]:
        position = int(self.positions[item])
        path = self.archive.path(position)
        try:
            stamp = Stamp.of(path)  # before its picture: a file that is replaced in between is noticed next time
            return stamp, self.preprocess(self.archive.read(position))
        except FileNotFoundError:
            return f"{path}: not on disk", None
        except (OSError, ValueError) as error:
            return str(error), None


def _stacked(read: list) -> tuple[list[Stamp | str], torch.Tensor | None]:
    """Stamps or reasons of a batch, and the pictures of those that have one."""
    pictures = [picture for _, picture in read if picture is not None]
    return [stamp for stamp, _ in read], torch.stack(pictures) if pictures else None


def extract_features(
    archive: Archive,
    encoder: "Encoder",
    folder: str | Path,
    batch_size: int | None = None,
    workers: int | None = None,
    overwrite: bool = False,
    dtype: str = "float32",
    strict: bool = False,
    scheduler: str | None = None,
) -> Path:
    """Encode every image of the archive into the feature store `folder`, and return the folder.

    Features belong to files: what the store holds of them stays as it is, and only images that are new, or whose
    content changed, are encoded; those that left the archive leave the store. An interrupted extraction goes on where
    it was. An image that can't be read is left out, reported and kept in `Features.unreadable`; `strict` stops at it.

    batch_size: images encoded at a time; None for 16 on a CPU, 128 elsewhere. On a GPU, a batch that its memory can't
    hold is halved. workers: processes, which decode images and, on a CPU, encode them too; None for one a core, 1 for
    none but this one. dtype: float32, or float16 for half the size and three digits. scheduler: "local" or an address,
    for Dask (`parallel.each`): its workers, which see the same files, encode `SENT` images at a time, each on the
    encoder's device, and this process writes the store.

    Raises ValueError for a store of another archive (none of its images is in this one unchanged) or encoder, showing
    both (`overwrite` starts afresh); OSError, saying what is kept, for a full or read-only disk, and BlockingIOError
    while another process extracts into the same folder.
    """
    folder = Path(folder).expanduser()
    if len(archive) == 0:
        raise ValueError(f"{archive.root}: the archive holds no images")
    if dtype not in store.DTYPES:
        raise ValueError(f"dtype {dtype!r}: one of {', '.join(store.DTYPES)}")
    for name, value in (("batch_size", batch_size), ("workers", workers)):
        if value is not None and value < (name == "batch_size"):
            raise ValueError(f"{name} {value}: a positive number, or None for the usual")
    named = {"archive": archive.name, "archive_fingerprint": archive.fingerprint, "dtype": dtype}
    made = encoder.provenance | archive.reading | named
    if not overwrite and _stands(folder, archive, made):
        return folder
    with _alone(folder):
        if overwrite:
            store.clean(folder)
            for name in OLD:
                (folder / name).unlink(missing_ok=True)
        _extract(archive, encoder, folder, made, batch_size, workers, strict, scheduler)
    return folder


def _stands(folder: Path, archive: Archive, made: dict[str, str]) -> bool:
    """Whether a complete store of just these images is there. Raises ValueError for another encoder's."""
    if not (folder / store.MANIFEST).exists():
        if (folder / OLD[0]).exists():
            _read_old(folder, archive, made, RECORDED)
            return True
        return False
    try:
        features = Features._stored(folder)
        held = features.files, features.classes
    except ValueError:
        return False  # what is whole of it is kept
    _check_same(features.provenance, made, folder)
    unfinished = store.leftovers(folder, {shard.name for shard in features.shards()})
    return held == (archive.files, archive.classes) and not unfinished and not _replaced(features, archive)


def _extract(
    archive: Archive,
    encoder: "Encoder",
    folder: Path,
    made: dict[str, str],
    batch_size: int | None,
    workers: int | None,
    strict: bool,
    scheduler: str | None,
) -> None:
    """Encode what doesn't stand yet, piece by piece, then put all rows into the archive's order and declare them."""
    shards, source = _standing(folder, archive, made)
    images = _Images(archive, encoder.preprocess, np.flatnonzero(source[:, 0] < 0))
    unreadable: dict[str, str] = {}
    unsaved: list[tuple] = []  # positions, stamps, rows of each batch since `saved`
    saved = time.perf_counter()

    def save() -> None:
        nonlocal saved
        positions = [position for batch in unsaved for position in batch[0]]
        if positions:
            ids = [archive.files[i] for i in positions], [archive.classes[i] for i in positions]
            stamps, rows = [stamp for batch in unsaved for stamp in batch[1]], np.concatenate([b[2] for b in unsaved])
            seconds = time.perf_counter() - saved
            with _disk(folder, f"{(source[:, 0] >= 0).sum()} of {len(archive)} images are done and kept"):
                shards.append(store.write_shard(folder, rows, *ids, stamps, made, seconds, moments=False))
            source[positions] = [(len(shards) - 1, row) for row in range(len(positions))]
        unsaved.clear()
        saved = time.perf_counter()

    start = len(archive) - len(images)
    bar = tqdm(total=len(archive), initial=start, unit="image", desc=f"{archive.name}, {encoder.name}")
    try:
        with bar, closing(_encoded_batches(images, encoder, batch_size, workers, scheduler)) as batches:
            item = 0
            for found, feats in batches:
                batch = images.positions[item : item + len(found)].tolist()
                for position, stamp in zip(batch, found, strict=True):
                    if isinstance(stamp, str):
                        if strict:
                            raise ValueError(f"row {position} of {archive.name}: {stamp}")
                        unreadable[archive.files[position]] = stamp
                read = [(p, stamp) for p, stamp in zip(batch, found, strict=True) if isinstance(stamp, Stamp)]
                if read:
                    positions, stamps = zip(*read, strict=True)
                    _check_encoded(feats, positions, archive, encoder)
                    unsaved.append((positions, stamps, feats.astype(made["dtype"])))
                item += len(found)
                bar.update(len(found))
                if time.perf_counter() - saved > SAVE_SECONDS:
                    save()
    except BaseException:
        with suppress(OSError):
            save()
        raise
    save()
    _finish(archive, folder, made, shards, source, unreadable)


def _standing(folder: Path, archive: Archive, made: dict[str, str]) -> tuple[list[Shard], np.ndarray]:
    """The whole shards in the folder, and (N, 2) int64: shard and row of each image of the archive, -1 for none."""
    source = np.full((len(archive), 2), -1)
    position = {file: i for i, file in enumerate(archive.files)}
    shards = store.standing_shards(folder, lambda problem: warnings.warn(f"left out: {problem}", stacklevel=6))
    for k, shard in enumerate(shards):
        _check_same(shard.ids["provenance"], made, folder)
        for row, (file, stamp) in enumerate(zip(shard.files, shard.stamps, strict=True)):
            i = position.get(file)
            if i is not None and stamp.fits(archive.path(i)):
                source[i] = k, row
    if shards and (source < 0).all():
        raise ValueError(
            f"{folder} holds the features of another archive: none of its images, such as {shards[0].files[0]}, is in "
            f"{archive.root} unchanged. {AGAIN}"
        )
    return shards, source


def _finish(
    archive: Archive, folder: Path, made: dict[str, str], shards: list[Shard], source: np.ndarray, unreadable: dict
) -> None:
    """Put the rows into the archive's order, in shards of full size, declare those and report what is left out."""
    order = np.flatnonzero(source[:, 0] >= 0)
    if not order.size:
        raise ValueError(f"{archive.root}: no image can be read; the first: {next(iter(unreadable.values()))}")
    size = max(1, store.SHARD_BYTES // shards[0].feats[0].nbytes)
    with _disk(folder, f"all {len(order)} images are done and kept"):
        parts = [order[start : start + size] for start in range(0, len(order), size)]
        final = [_gathered(archive, folder, made, shards, part, source[part]) for part in parts]
        store.write_manifest(folder, final, made, unreadable)
        for name in OLD:
            (folder / name).unlink(missing_ok=True)
    if unreadable:
        first = "; ".join(list(unreadable.values())[:3]) + ("; ..." if len(unreadable) > 3 else "")
        warnings.warn(
            f"{len(unreadable)} of {len(archive)} images of {archive.name} can't be read and are left out "
            f"(Features.unreadable): {first}",
            stacklevel=4,
        )


def _gathered(
    archive: Archive, folder: Path, made: dict[str, str], shards: list[Shard], positions: np.ndarray, source: np.ndarray
) -> Shard:
    """One shard of the images at these positions, whose rows lie at `source`; it may stand already."""
    stamps = [shards[k].stamps[row] for k, row in source]
    ids = [archive.files[i] for i in positions], [archive.classes[i] for i in positions], stamps
    name = store.shard_name(store.columns(*ids), made)
    for shard in shards:
        if shard.name == name and "moments.npy" in shard.sha256:
            return shard
    feats = np.empty((len(positions), shards[0].feats.shape[1]), shards[0].feats.dtype)
    seconds = 0.0
    for k in np.unique(source[:, 0]):
        here = source[:, 0] == k
        feats[here] = shards[k].feats[source[here, 1]]
        seconds += float(shards[k].ids["seconds"] * here.sum() / shards[k].rows)
    return store.write_shard(folder, feats, *ids, made, seconds)


def _check_encoded(feats: np.ndarray, positions: Sequence[int], archive: Archive, encoder: "Encoder") -> None:
    lengths = np.linalg.norm(feats.astype(np.float64), axis=1)
    bad = np.flatnonzero(~(np.abs(lengths - 1) < store.TOLERANCE))
    if bad.size:
        what = f"features of length {lengths[bad[0]]:.6g}" if np.isfinite(lengths[bad[0]]) else "no finite features"
        raise ValueError(
            f"{encoder.name} ({encoder.precision}) gives {what} for {archive.path(positions[bad[0]])}; "
            "try precision float32"
        )


@contextmanager
def _disk(folder: Path, kept: str) -> Iterator[None]:
    """Errors of the disk, with what is kept and what to do."""
    try:
        yield
    except OSError as error:
        raise OSError(
            error.errno,
            f"{folder}: {error.strerror or error}; {kept}. Make room there, or make it writable, and call again: the "
            "extraction goes on from what is kept",
        ) from error


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """The folder, made if need be, for this process alone; the lock of a killed process is none."""
    note = folder / ".lock"
    with _disk(folder, "nothing was changed"):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(note)
        with suppress(Timeout):
            lock.acquire(timeout=LOCK_SECONDS)
    if not lock.is_locked:
        who = note.read_text(errors="replace") or "a process"
        raise BlockingIOError(
            errno.EAGAIN,
            f"{folder}: another extraction is at work here ({who}). Wait until it has ended and call again, or choose "
            "another folder",
        )
    try:
        with suppress(OSError):  # a full disk: the lock holds without its note
            note.write_text(
                f"process {os.getpid()} on {socket.gethostname()}, since {time.strftime('%d %B, %H:%M:%S')}"
            )
        yield
    finally:
        lock.release()


def _encoded_batches(
    images: _Images,
    encoder: "Encoder",
    batch_size: int | None,
    workers: int | None,
    scheduler: str | None = None,
) -> Iterator[tuple[list[Stamp | str], np.ndarray | None]]:
    """Stamps (or reasons) and features of the images in order, a batch at a time; None where no image was readable."""
    device = torch.device(encoder.device).type
    if device == "cpu" or scheduler:  # each process decodes and encodes: none waits for another
        size = batch_size or (16 if device == "cpu" else 128)
        sent = max(size, SENT // size * size) if scheduler else size
        items = range(len(images))
        pieces = [items[start : start + sent] for start in items[::sent]]
        for piece in each(partial(_encoded_items, images, encoder, size), pieces, scheduler, workers):
            yield from piece
        return
    if workers is None:  # to start them takes as long as some hundred images
        workers = min(MOST_WORKERS, os.cpu_count() or 1) if len(images) > 500 else 1
    loader = DataLoader(
        images,
        batch_size or 128,
        num_workers=workers if workers > 1 else 0,
        collate_fn=_stacked,
        pin_memory=device == "cuda",
    )
    # while one batch is computed, the next is on its way to the GPU and the last one back: it never waits
    with ThreadPoolExecutor(2 if device == "cuda" else 1) as pool:
        coming = deque()
        for found, batch in loader:
            coming.append((found, pool.submit(_encoded, encoder, batch)))
            if len(coming) > 2:
                found, rows = coming.popleft()
                yield found, rows.result()
        while coming:
            found, rows = coming.popleft()
            yield found, rows.result()


def _encoded_items(images: _Images, encoder: "Encoder", size: int, items: range) -> list[tuple]:
    """Some items, `size` at a time."""
    found = []
    for start in items[::size]:
        stamps, batch = _stacked([images[item] for item in items[start - items.start :][:size]])
        found.append((stamps, _encoded(encoder, batch)))
    return found


def _encoded(encoder: "Encoder", batch: torch.Tensor | None) -> np.ndarray | None:
    """Features of a batch, in halves where it doesn't fit into the GPU's memory."""
    if batch is None:
        return None
    try:
        return encoder.encode_images(batch)
    except torch.OutOfMemoryError:
        if len(batch) == 1:
            raise
    torch.cuda.empty_cache()
    return np.concatenate([_encoded(encoder, half) for half in batch.split(-(-len(batch) // 2))])


# --- reading


def read_features(path: str | Path, archive: Archive | None = None, encoder: "Encoder | None" = None) -> Features:
    """Features from a store folder, or from the authors' `.pkl` (protocol, Data), whose provenance isn't known.

    Given an encoder, a store that another one made is refused; the precision may differ, for rows of any precision may
    be asked texts of any other. Given an archive, a store is refused that lacks one of its images, holds one that was
    replaced since, or was made by another reading rule; further images may be in it. A small store is verified byte by
    byte at every opening, a larger one (`store.VERIFIED_BYTES`) by `rscir verify FOLDER`.

    Raises FileNotFoundError for an absent or unfinished store; ValueError for another archive or encoder, showing
    both, for a damaged file, and for a pickle of anything but arrays, lists and strings.
    """
    path = Path(path).expanduser()
    if path.suffix == ".pkl":
        provenance = {"encoder": "not recorded", "archive": "not recorded", "source": path.name}
        return Features(*read_pickle(path), provenance, where=path)
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as held:
            rows = [held[name] for name in ("feats", "files", "classes")]
        return Features(rows[0], rows[1].tolist(), rows[2].tolist(), {"source": path.name}, where=path)
    expected = dict(encoder.provenance) if encoder else {}
    if (path / store.MANIFEST).exists():
        features = Features._stored(path)
        if archive:
            expected |= archive.reading
            _check_archive(features, archive, path)
        _check_same(features.provenance, expected, path, RECORDED | ROWS_ONLY)
        return features
    if (path / OLD[0]).exists():
        return _read_old(path, archive, expected, RECORDED | ROWS_ONLY)
    unfinished = path.is_dir() and any(path.glob("*.json"))
    reason = "the extraction is unfinished" if unfinished else "no features here"
    raise FileNotFoundError(f"{path}: {reason}; run extract_features (notebook 02)")


def _check_archive(features: Features, archive: Archive, path: Path) -> None:
    """Raise ValueError unless each image of the archive has its row, or was unreadable, and is what it was."""
    held = {*features.files, *features.unreadable}
    missing = [file for file in archive.files if file not in held]
    problems = {"have no features": missing, "were replaced since": _replaced(features, archive)}
    for what, files in problems.items():
        if files:
            raise ValueError(
                f"{path}: {len(files)} of {len(archive)} images of {archive.name} {what}, the first {files[0]}. Run "
                "extract_features (notebook 02) on this archive: it encodes those alone"
            )


def _replaced(features: Features, archive: Archive) -> list[str]:
    """Images whose file has another content than at extraction."""
    position = {file: i for i, file in enumerate(archive.files)}
    rows = ((file, stamp) for shard in features.shards() for file, stamp in zip(shard.files, shard.stamps, strict=True))
    return [file for file, stamp in rows if file in position and not stamp.fits(archive.path(position[file]))]


def _check_same(stored: dict[str, str], expected: dict[str, str], folder: Path, ignored: set[str] = RECORDED) -> None:
    different = [
        f"  {key}: stored {stored.get(key)}, asked for {value}"
        for key, value in expected.items()
        if key not in ignored and stored.get(key) != value
    ]
    if different:
        raise ValueError(
            f"{folder} holds the features of another archive or encoder:\n" + "\n".join(different) + f"\n{AGAIN}"
        )


# --- stores of the first format: features.npy, and features.json with one digest of all names and sizes


def _read_old(folder: Path, archive: Archive | None, expected: dict[str, str], ignored: set[str]) -> Features:
    try:
        state = json.loads((folder / OLD[0]).read_bytes())
        with (folder / OLD[1]).open("rb") as file:
            whole = hashlib.file_digest(file, "sha256").hexdigest() == state["sha256"]
        provenance, files, classes = dict(state["provenance"]), tuple(state["files"]), tuple(state["classes"])
        names = Archive(folder, files, classes).fingerprint == provenance["archive_fingerprint"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{folder} is damaged ({error}); extract again with overwrite=True") from None
    if not names:
        raise ValueError(f"{folder / OLD[0]}: files or classes were changed; extract again with overwrite=True")
    if not whole:
        raise ValueError(f"{folder / OLD[1]} was changed or cut short; extract again with overwrite=True")
    # they were read by convert("RGB"), which is what the rule of today does to 8-bit images
    known = {"dtype": "float32", "fingerprint": provenance.get("archive_fingerprint")} | provenance
    if archive:
        expected = expected | {"fingerprint": archive.fingerprint}
        if archive.path(0).exists():
            sizes = (f"{file} {archive.path(i).stat().st_size}\n" for i, file in enumerate(archive.files))
            expected["archive_content"] = hashlib.sha256("".join(sizes).encode()).hexdigest()
    _check_same(known, expected, folder, ignored | {"reading"})
    feats = np.load(folder / OLD[1], mmap_mode="c", allow_pickle=False)
    return Features(np.asarray(feats), files, classes, provenance, where=folder)


# --- verification


def verify_features(folder: str | Path) -> Features:
    """The features of a store, after every byte of it was read again.

    Raises ValueError naming, a line each, the files that aren't what was written, or the first row that is wrong.
    """
    features, wrong = read_features(folder), []
    for shard in tqdm(list(features.shards()), "verifying", unit="shard"):
        if isinstance(shard, Shard):
            try:
                shard.verify()
                store.check_rows(shard.feats, shard.files, shard.path("npy"))
            except ValueError as error:
                wrong.append(str(error))
    if wrong:
        raise ValueError("\n".join(wrong))
    _check_unique(features.files, folder)
    return features
