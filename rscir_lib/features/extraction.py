"""Encode an archive's images into a feature store, going on from whatever stands there already."""

import os
import time
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from rscir_lib.archive import Archive
from rscir_lib.features import store
from rscir_lib.features.features import open_store, replaced
from rscir_lib.features.store import Shard, Stamp
from rscir_lib.storage.locks import folder_lock
from rscir_lib.storage.parallel import MOST_WORKERS, each

if TYPE_CHECKING:
    from rscir_lib.encoders import Encoder

SENT = 512  # images in a task of a scheduler: fewer cost it more messages, more are lost with a worker that dies
SAVE_SECONDS = 5.0  # work that a killed extraction loses at most, plus one batch; less writes more small files
# Seconds to wait for another extraction: the workers of a killed process need up to 5 to notice, and hold its lock
LOCK_SECONDS = 6.0
WORKERS_FROM = 500  # images from which several processes read for a GPU: to start them takes as long as some hundred

Positions = Sequence[int] | np.ndarray
# Of each image what its file was, or why it can't be read; the features of those that were read, None if none was
Batch = tuple[list[Stamp | str], np.ndarray | None]


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
    it was. An image that can't be read is left out, reported and kept in `Features.unreadable`.

    Args:
        archive: The images.
        encoder: What makes the features.
        folder: Where they lie; made if need be.
        batch_size: Images encoded at a time; None for 16 on a CPU, 128 elsewhere. On a GPU, a batch that its memory
            can't hold is halved.
        workers: Processes, which decode images and, on a CPU, encode them too; None for one a core, 1 for this alone.
        overwrite: Start afresh, whatever lies in the folder.
        dtype: "float32", or "float16" for half the size and three digits.
        strict: Stop at an image that can't be read.
        scheduler: "local" or an address, for Dask (`parallel.each`): its workers, which see the same files, encode
            `SENT` images at a time, each on the encoder's device, and this process writes the store.

    Raises:
        ValueError: For a store of another encoder, or archive: none of its images is in this one unchanged.
        OSError: For a full or read-only disk, saying what is kept.
        BlockingIOError: While another process extracts into the same folder.
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
    provenance = encoder.provenance | archive.reading | named
    if not overwrite and _is_complete(folder, archive, provenance):
        return folder
    with ExitStack() as held:
        with _explained(folder, "nothing was changed"):
            held.enter_context(folder_lock(folder, LOCK_SECONDS))
        if overwrite:
            store.clean(folder)
        work = _Extraction(archive, folder, provenance)
        for problem in work.problems:
            warnings.warn(f"left out: {problem}", stacklevel=2)
        work.encode(encoder, batch_size, workers, strict, scheduler)
        work.declare()
    if work.unreadable:
        warnings.warn(work.report(), stacklevel=2)
    return folder


def _is_complete(folder: Path, archive: Archive, provenance: dict[str, str]) -> bool:
    """Whether a whole store of just these images is there. Raises ValueError for another encoder's."""
    if not (folder / store.MANIFEST).exists():
        return False
    try:
        features = open_store(folder)
        held = features.files, features.classes
    except ValueError:
        return False  # what is whole of it is kept
    store.check_provenance(features.provenance, provenance, folder)
    unfinished = store.leftovers(folder, {shard.name for shard in store.read_manifest(folder)[1]})
    return held == (archive.files, archive.classes) and not unfinished and not replaced(features, archive)


class _Extraction:
    """The state of an extraction: whole shards in the folder, the image of each of their rows, rows not saved yet.

    Attributes:
        source: (N, 2) int64, shard and row of each image of the archive, -1 for none.
        problems: What is wrong with damaged shards, whose images are encoded again.
        unreadable: Images that can't be read, and why.
    """

    def __init__(self, archive: Archive, folder: Path, provenance: dict[str, str]) -> None:
        """Find what stands. Raises ValueError for shards of another encoder, or of no image of the archive."""
        self.archive, self.folder, self.provenance = archive, folder, provenance
        self.source = np.full((len(archive), 2), -1)
        self.unreadable: dict[str, str] = {}
        self._unsaved: list[tuple[list[tuple[int, Stamp]], np.ndarray]] = []  # by batch: its images, and their rows
        self._saved = time.perf_counter()
        self.shards, self.problems = store.standing_shards(folder)
        position = {file: i for i, file in enumerate(archive.files)}
        for k, shard in enumerate(self.shards):
            store.check_provenance(shard.ids["provenance"], provenance, folder)
            for row, (file, stamp) in enumerate(zip(shard.files, shard.stamps, strict=True)):
                i = position.get(file)
                if i is not None and stamp.fits(archive.path(i)):
                    self.source[i] = k, row
        if self.shards and (self.source < 0).all():
            raise ValueError(
                f"{folder} holds the features of another archive: none of its images, such as "
                f"{self.shards[0].files[0]}, is in {archive.root} unchanged. {store.AGAIN}"
            )

    def report(self) -> str:
        """Which images can't be read."""
        first = "; ".join(list(self.unreadable.values())[:3]) + ("; ..." if len(self.unreadable) > 3 else "")
        count = f"{len(self.unreadable)} of {len(self.archive)} images of {self.archive.name}"
        return f"{count} can't be read and are left out (Features.unreadable): {first}"

    @property
    def done(self) -> np.ndarray:
        """Positions of the images that have a saved row."""
        return np.flatnonzero(self.source[:, 0] >= 0)

    def encode(
        self, encoder: "Encoder", batch_size: int | None, workers: int | None, strict: bool, scheduler: str | None
    ) -> None:
        """Encode the images that have no row yet, and save them every few seconds, and whatever ends it."""
        missing = np.flatnonzero(self.source[:, 0] < 0)
        total, name = len(self.archive), self.archive.name
        images = _Images(self.archive, encoder.preprocess, missing)
        bar = tqdm(total=total, initial=total - len(missing), unit="image", desc=f"{name}, {encoder.name}")
        try:
            with bar, closing(_encoded_batches(images, encoder, batch_size, workers, scheduler)) as batches:
                first = 0
                for stamps, feats in batches:
                    batch = list(zip(missing[first : first + len(stamps)].tolist(), stamps, strict=True))
                    read = [(position, stamp) for position, stamp in batch if isinstance(stamp, Stamp)]
                    unread = {position: stamp for position, stamp in batch if isinstance(stamp, str)}
                    if strict and unread:
                        position, reason = next(iter(unread.items()))
                        raise ValueError(f"row {position} of {name}: {reason}")
                    self.unreadable |= {self.archive.files[position]: reason for position, reason in unread.items()}
                    if feats is not None:
                        _check_encoded(feats, [self.archive.path(position) for position, _ in read], encoder)
                        self._unsaved.append((read, feats.astype(self.provenance["dtype"])))
                    first += len(stamps)
                    bar.update(len(stamps))
                    if time.perf_counter() - self._saved > SAVE_SECONDS:
                        self._save()
        except BaseException:
            with suppress(OSError):
                self._save()
            raise
        self._save()

    def _save(self) -> None:
        """Write the rows since the last time as a shard."""
        if self._unsaved:
            positions, stamps = zip(*(image for images, _ in self._unsaved for image in images), strict=True)
            rows, seconds = np.concatenate([rows for _, rows in self._unsaved]), time.perf_counter() - self._saved
            with _explained(self.folder, f"{len(self.done)} of {len(self.archive)} images are done and kept"):
                self.shards.append(self._write(positions, stamps, rows, seconds, moments=False))
            self.source[list(positions)] = [(len(self.shards) - 1, row) for row in range(len(positions))]
        self._unsaved.clear()
        self._saved = time.perf_counter()

    def declare(self) -> None:
        """Put the rows into the archive's order, in shards of full size, and write the manifest that declares those."""
        order = self.done
        if not order.size:
            first = next(iter(self.unreadable.values()))
            raise ValueError(f"{self.archive.root}: no image can be read; the first: {first}")
        size = max(1, store.SHARD_BYTES // self.shards[0].feats[0].nbytes)
        with _explained(self.folder, f"all {len(order)} images are done and kept"):
            final = [self._gather(order[start : start + size]) for start in range(0, len(order), size)]
            store.write_manifest(self.folder, final, self.provenance, self.unreadable)

    def _gather(self, positions: np.ndarray) -> Shard:
        """One shard of the images at these positions; it may stand already."""
        source = self.source[positions]
        stamps = [self.shards[k].stamps[row] for k, row in source]
        name = store.shard_name(store.columns(*self._ids(positions), stamps), self.provenance)
        for shard in self.shards:
            if shard.name == name and "moments.npy" in shard.sha256:
                return shard
        feats = np.empty((len(positions), self.shards[0].feats.shape[1]), self.shards[0].feats.dtype)
        seconds = 0.0
        for k in np.unique(source[:, 0]):
            here = source[:, 0] == k
            feats[here] = self.shards[k].feats[source[here, 1]]
            seconds += float(self.shards[k].ids["seconds"] * here.sum() / self.shards[k].rows)
        return self._write(positions, stamps, feats, seconds)

    def _write(
        self, positions: Positions, stamps: Sequence[Stamp], rows: np.ndarray, seconds: float, moments: bool = True
    ) -> Shard:
        ids = self._ids(positions)
        return store.write_shard(self.folder, rows, *ids, stamps, self.provenance, seconds, moments)

    def _ids(self, positions: Positions) -> tuple[list[str], list[str]]:
        return [self.archive.files[i] for i in positions], [self.archive.classes[i] for i in positions]


def _check_encoded(feats: np.ndarray, paths: Sequence[Path], encoder: "Encoder") -> None:
    """Raise ValueError, naming the image, unless all features are finite and of unit length."""
    lengths = np.linalg.norm(feats.astype(np.float64), axis=1)
    wrong = np.flatnonzero(~(np.abs(lengths - 1) < store.TOLERANCE))
    if wrong.size:
        length = lengths[wrong[0]]
        given = f"features of length {length:.6g}" if np.isfinite(length) else "no finite features"
        raise ValueError(
            f"{encoder.name} ({encoder.precision}) gives {given} for {paths[wrong[0]]}; try precision float32"
        )


@contextmanager
def _explained(folder: Path, kept: str) -> Iterator[None]:
    """Errors of the disk, with what is kept and what to do."""
    try:
        yield
    except BlockingIOError:  # another process is there, and the message says so
        raise
    except OSError as error:
        raise OSError(
            error.errno,
            f"{folder}: {error.strerror or error}; {kept}. Make room there, or make it writable, and call again: the "
            "extraction goes on from what is kept",
        ) from error


class _Images(Dataset[tuple[Stamp | str, torch.Tensor | None]]):
    """Preprocessed images at these positions of an archive, each with its stamp; an unreadable one is a reason."""

    def __init__(
        self, archive: Archive, preprocess: Callable[[Image.Image], torch.Tensor], positions: Sequence[int] | np.ndarray
    ) -> None:
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


def _stacked(
    images: Sequence[tuple[Stamp | str, torch.Tensor | None]],
) -> tuple[list[Stamp | str], torch.Tensor | None]:
    """Stamps or reasons of a batch, and the pictures of those that have one."""
    pictures = [picture for _, picture in images if picture is not None]
    return [stamp for stamp, _ in images], torch.stack(pictures) if pictures else None


def _encoded_batches(
    images: _Images, encoder: "Encoder", batch_size: int | None, workers: int | None, scheduler: str | None
) -> Generator[Batch, None, None]:
    """Stamps and features of the images in order, a batch at a time."""
    device = torch.device(encoder.device).type
    if device == "cpu" or scheduler:  # each process decodes and encodes: none waits for another
        size = batch_size or (16 if device == "cpu" else 128)
        sent = max(size, SENT // size * size) if scheduler else size
        pieces = [range(start, min(start + sent, len(images))) for start in range(0, len(images), sent)]
        for piece in each(partial(_encoded_items, images, encoder, size), pieces, scheduler, workers):
            yield from piece
        return
    if workers is None:
        workers = min(MOST_WORKERS, os.cpu_count() or 1) if len(images) > WORKERS_FROM else 1
    loader = DataLoader(
        images,
        batch_size or 128,
        num_workers=workers if workers > 1 else 0,
        collate_fn=_stacked,
        pin_memory=device == "cuda",
    )
    # While one batch is computed, the next is on its way to the GPU and the last one back, so that it never waits
    with ThreadPoolExecutor(2 if device == "cuda" else 1) as pool:
        coming: deque[tuple[list[Stamp | str], Future[np.ndarray] | None]] = deque()
        for stamps, batch in loader:
            coming.append((stamps, None if batch is None else pool.submit(_encoded, encoder, batch)))
            if len(coming) > 2:
                stamps, rows = coming.popleft()
                yield stamps, rows.result() if rows else None
        for stamps, rows in coming:
            yield stamps, rows.result() if rows else None


def _encoded_items(images: _Images, encoder: "Encoder", size: int, items: range) -> list[Batch]:
    """Stamps and features of the images at `items`, `size` at a time."""
    batches = []
    for start in items[::size]:
        stamps, batch = _stacked([images[item] for item in range(start, min(start + size, items.stop))])
        batches.append((stamps, None if batch is None else _encoded(encoder, batch)))
    return batches


def _encoded(encoder: "Encoder", batch: torch.Tensor) -> np.ndarray:
    """Features of a batch, in halves where it doesn't fit into the GPU's memory."""
    try:
        return encoder.encode_images(batch)
    except torch.OutOfMemoryError:
        if len(batch) == 1:
            raise
    torch.cuda.empty_cache()
    half = len(batch) // 2
    return np.concatenate([_encoded(encoder, batch[:half]), _encoded(encoder, batch[half:])])
