"""Encode an archive's images into a feature store, going on from whatever stands there already."""

import itertools
import os
import time
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from rscir_lib.archive import Archive
from rscir_lib.archive.reading import NO_ROOM
from rscir_lib.features import store
from rscir_lib.features.features import Features, open_store, replaced
from rscir_lib.features.store import Stamp
from rscir_lib.storage.locks import folder_lock
from rscir_lib.storage.parallel import MOST_WORKERS, each

if TYPE_CHECKING:
    from rscir_lib.encoders import Encoder

TASK_IMAGES = 512  # in a task of a scheduler: fewer cost more messages, more are lost with a worker that dies
SAVE_SECONDS = 5.0  # work that a killed extraction loses at most, plus one batch; less writes more small files
# Seconds to wait for another extraction: the workers of a killed process need up to 5 to notice, and hold its lock
LOCK_SECONDS = 6.0
WORKERS_FROM = 500  # images from which several processes read for a GPU: to start them takes as long as some hundred

Known = tuple[int, Stamp | str]  # an image's position, and what its file was, or why it can't be read
Batch = tuple[list[Known], np.ndarray]  # and the features of those that can be read


def extract_features(
    archive: Archive, encoder: "Encoder", folder: str | Path, batch_size: int | None = None, workers: int | None = None,
    overwrite: bool = False, dtype: str = "float32", strict: bool = False, scheduler: str | None = None,
) -> Path:  # fmt: skip
    """Encode every image of the archive into the feature store `folder`, made if need be, and return the folder.

    Features belong to files: what the store holds of them stays as it is, and only images that are new, or whose
    content changed, are encoded; those that left the archive leave the store. An interrupted extraction goes on where
    it was. An image that can't be read is left out, reported and kept in `Features.unreadable`.

    Args:
        archive, encoder, folder: The images, what makes their features, and where these lie.
        batch_size: Images encoded at a time; None for 16 on a CPU, 128 elsewhere. On a GPU, a batch that its memory
            can't hold is halved.
        workers: Processes, which decode images and, on a CPU, encode them too; None for one a core, 1 for this alone.
        overwrite: Start afresh, whatever lies in the folder.
        dtype: "float32", or "float16" for half the size and three digits.
        strict: Stop at an image that can't be read.
        scheduler: "local" or an address, for Dask (`parallel.each`): its workers, which see the same files, encode
            `TASK_IMAGES` images at a time, each on the encoder's device, and this process writes the store.

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
    made_by = {key: value for key, value in encoder.provenance.items() if key != "template"}  # which is of texts
    provenance = made_by | archive.reading | named
    if not overwrite and _is_complete(folder, archive, provenance):
        return folder
    with ExitStack() as lock:
        with _explained(folder, "nothing was changed"):
            lock.enter_context(folder_lock(folder, LOCK_SECONDS))
        if overwrite:
            store.clean(folder)
        work = _Extraction(archive, folder, provenance)
        for problem in work.problems:
            warnings.warn(f"left out: {problem}", stacklevel=2)
        work.encode(encoder, batch_size, workers, strict, scheduler)
        work.declare()
    if said := unreadable_in_words(work.unreadable, archive):
        warnings.warn(said, stacklevel=2)
    return folder


def unreadable_in_words(unreadable: Mapping[str, str], archive: Archive) -> str:
    """How many images can't be read, and why, those first that `make tiles` makes readable; "" where every one can."""
    gone = unreadable.keys() & {*archive.files}
    reasons = sorted((unreadable[file] for file in gone), key=lambda why: ("make tiles" not in why, why))
    first = "; ".join(reasons[:3]) + "; ... (notebook 02 lists them all)" * (len(reasons) > 3)
    count = f"{len(reasons)} of {len(archive)} images of {archive.name} can't be read and are left out"
    return f"{count}: {first}" if reasons else ""


def _is_complete(folder: Path, archive: Archive, provenance: dict[str, str]) -> bool:
    """Whether a whole store of just these images is there. Raises ValueError for another encoder's."""
    try:
        features = open_store(folder)
        held = features.files, features.classes
    except (FileNotFoundError, ValueError):
        return False  # the shards that are whole will be used
    store.check_provenance(features.provenance, provenance, folder)
    declared = {shard.name for shard in features.shards() if isinstance(shard, store.Shard)}
    unchanged = held == (archive.files, archive.classes) and not replaced(features, archive)
    return unchanged and not store.leftovers(folder, declared)


class _Extraction:
    """An extraction under way: the whole shards in the folder, which row is of which image, and rows not saved yet.

    Attributes:
        row: (N,) the row of each image of the archive, counted through all shards, -1 for none.
        problems: What is wrong with damaged shards, whose images are encoded again.
        unreadable: Images that can't be read, and why.
    """

    def __init__(self, archive: Archive, folder: Path, provenance: dict[str, str]) -> None:
        """Raises ValueError for shards of another encoder, or of no image of the archive."""
        self.archive, self.folder, self.provenance = archive, folder, provenance
        self.row = np.full(len(archive), -1)
        self.unreadable: dict[str, str] = {}
        self._unsaved: list[tuple[int, Stamp, np.ndarray]] = []  # images, by position in the archive, and their rows
        self._saved = time.perf_counter()
        self.shards, self.problems = store.standing_shards(folder)
        position, row = {file: i for i, file in enumerate(archive.files)}, itertools.count()
        looks = store.read_looks(folder)
        for shard in self.shards:
            store.check_provenance(shard.ids["provenance"], provenance, folder)
            for file, stamp, number in zip(shard.ids["files"], shard.stamps, row, strict=False):
                i = position.get(file)
                if i is not None and stamp.fits(archive.path(i), looks, file):
                    self.row[i] = number
        if self.shards and not self.done.size:
            none = f"none of its images, such as {self.shards[0].ids['files'][0]}, is in {archive.root} unchanged"
            raise ValueError(f"{folder} holds the features of another archive: {none}. {store.AGAIN}")

    @property
    def done(self) -> np.ndarray:
        """Positions of the images that have a saved row."""
        return np.flatnonzero(self.row >= 0)

    def encode(
        self, encoder: "Encoder", batch_size: int | None, workers: int | None, strict: bool, scheduler: str | None
    ) -> None:
        """Encode the images that have no row yet, and save them every few seconds, and whatever ends it."""
        archive, made_by = self.archive, f"{encoder.name} in {encoder.precision}"
        images = _Images(archive, encoder.preprocess, np.flatnonzero(self.row < 0).tolist())
        bar = tqdm(total=len(archive), initial=len(self.done), unit="image", desc=f"{archive.name}, {encoder.name}")
        try:
            with bar, closing(_encoded_batches(images, encoder, batch_size, workers, scheduler)) as batches:
                for batch, feats in batches:
                    read = [(i, stamp) for i, stamp in batch if isinstance(stamp, Stamp)]
                    for i, reason in ((i, reason) for i, reason in batch if isinstance(reason, str)):
                        if strict:
                            raise ValueError(f"row {i} of {archive.name}: {reason}")
                        self.unreadable[archive.files[i]] = reason
                    store.check_rows(feats, [archive.files[i] for i, _ in read], made_by, "try precision float32")
                    rows = feats.astype(self.provenance["dtype"])
                    self._unsaved += [(*image, row) for image, row in zip(read, rows, strict=True)]
                    bar.update(len(batch))
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
            positions, stamps, rows = map(list, zip(*self._unsaved, strict=True))
            ids, seconds = self._ids(positions, stamps), time.perf_counter() - self._saved
            first = sum(shard.rows for shard in self.shards)
            with _explained(self.folder, f"{len(self.done)} of {len(self.archive)} images are done and kept"):
                shard = store.write_shard(self.folder, np.stack(rows), ids, self.provenance, seconds, moments=False)
            self.shards.append(shard)
            self.row[positions] = first + np.arange(len(positions))
        self._unsaved.clear()
        self._saved = time.perf_counter()

    def declare(self) -> None:
        """Put the rows into the archive's order, in shards of full size, and write the manifest that declares those."""
        order = self.done
        if not order.size:
            first = next(iter(self.unreadable.values()))
            raise ValueError(f"{self.archive.root}: no image can be read; the first: {first}")
        size = max(1, store.SHARD_BYTES // self.shards[0].feats[0].nbytes)
        standing = Features(self.shards)
        stamps = [stamp for shard in self.shards for stamp in shard.stamps]
        seconds = np.concatenate([np.full(s.rows, s.ids["seconds"] / s.rows) for s in self.shards])
        final = []
        with _explained(self.folder, f"all {len(order)} images are done and kept"):
            for positions in np.split(order, range(size, len(order), size)):
                rows = self.row[positions]
                ids = self._ids(positions, [stamps[row] for row in rows])
                name = store.shard_name(ids, self.provenance)
                shard = next((s for s in self.shards if s.name == name and "moments.npy" in s.sha256), None)
                if shard is None:
                    feats = standing.rows(rows).astype(self.provenance["dtype"])
                    shard = store.write_shard(self.folder, feats, ids, self.provenance, float(seconds[rows].sum()))
                final.append(shard)
            store.write_manifest(self.folder, final, self.provenance, self.unreadable)

    def _ids(self, positions: Iterable[int], stamps: Sequence[Stamp]) -> store.Ids:
        files, classes = zip(*((self.archive.files[i], self.archive.classes[i]) for i in positions), strict=True)
        return store.columns(files, classes, stamps)


@contextmanager
def _explained(folder: Path, kept: str) -> Iterator[None]:
    """Errors of the disk, with what is kept and what to do."""
    try:
        yield
    except BlockingIOError:  # another process is there, and the message says so
        raise
    except OSError as error:
        advice = "Make room there, or make it writable, and call again: the extraction goes on from what is kept"
        raise OSError(error.errno, f"{folder}: {error.strerror or error}; {kept}. {advice}") from error


@dataclass(frozen=True)
class _Images(Dataset[tuple[Known, torch.Tensor | None]]):
    """The preprocessed images at these positions of an archive, or what is known of those that can't be read."""

    archive: Archive
    preprocess: Callable[[Image.Image], torch.Tensor]
    positions: Sequence[int]

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, item: int) -> tuple[Known, torch.Tensor | None]:
        position = self.positions[item]
        path = self.archive.path(position)
        try:
            stamp = Stamp.of(path)  # before its picture: a file that is replaced in between is noticed next time
            return (position, stamp), self.preprocess(self.archive.read(position))
        except FileNotFoundError:
            return (position, f"{path}: not on disk"), None
        except (OSError, ValueError) as error:  # its advice as a command that can be copied
            return (position, str(error).replace("ROOT=...", f"ROOT={quote(str(self.archive.root))}")), None
        except (MemoryError, RuntimeError) as error:  # torch's own has no class on a CPU
            if isinstance(error, RuntimeError) and "allocate memory" not in str(error):
                raise
            return (position, f"{path}: {NO_ROOM}"), None


def _stacked(images: Sequence[tuple[Known, torch.Tensor | None]]) -> tuple[list[Known], torch.Tensor]:
    """What is known of the images of a batch, and the pictures of those that can be read."""
    pictures = [picture for _, picture in images if picture is not None]
    return [known for known, _ in images], torch.stack(pictures) if pictures else torch.empty(0)


def _encoded_batches(
    images: _Images, encoder: "Encoder", batch_size: int | None, workers: int | None, scheduler: str | None
) -> Generator[Batch, None, None]:
    """The images' features in order, a batch at a time."""
    device = torch.device(encoder.device).type
    if device == "cpu" or scheduler:  # each process decodes and encodes: none waits for another
        size = batch_size or (16 if device == "cpu" else 128)
        step = max(size, TASK_IMAGES // size * size) if scheduler else size
        tasks = [range(len(images))[start : start + step] for start in range(0, len(images), step)]
        for batches in each(partial(_encoded_items, images, encoder, size), tasks, scheduler, workers):
            yield from batches
        return
    if workers is None:
        workers = min(MOST_WORKERS, os.cpu_count() or 1) if len(images) > WORKERS_FROM else 1
    number, pinned = workers if workers > 1 else 0, device == "cuda"
    loader = DataLoader(images, batch_size or 128, num_workers=number, collate_fn=_stacked, pin_memory=pinned)
    # While one batch is computed, the next is on its way to the GPU and the last one back, so that it never waits
    with ThreadPoolExecutor(2 if device == "cuda" else 1) as pool:
        coming: deque[tuple[list[Known], Future[np.ndarray]]] = deque()
        for known, batch in loader:
            coming.append((known, pool.submit(_encoded, encoder, batch)))
            if len(coming) > 2:
                known, rows = coming.popleft()
                yield known, rows.result()
        yield from ((known, rows.result()) for known, rows in coming)


def _encoded_items(images: _Images, encoder: "Encoder", size: int, items: range) -> list[Batch]:
    """The features of the images at `items`, `size` at a time."""
    batches = (_stacked([images[item] for item in items[start : start + size]]) for start in range(0, len(items), size))
    return [(known, _encoded(encoder, batch)) for known, batch in batches]


def _encoded(encoder: "Encoder", batch: torch.Tensor) -> np.ndarray:
    """Features of a batch, in halves where it doesn't fit into the GPU's memory."""
    if not len(batch):
        return np.empty((0, 0), np.float32)
    try:
        return encoder.encode_images(batch)
    except torch.OutOfMemoryError:
        if len(batch) == 1:
            raise
    torch.cuda.empty_cache()
    return np.concatenate([_encoded(encoder, half) for half in batch.chunk(2)])
