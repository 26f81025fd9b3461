"""Image features on disk: extract them with an encoder, read them back.

A feature store is a folder: `features.npy`, (N, d) float32, and `features.json`, files, classes and provenance.
"""

import hashlib
import json
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from rscir_lib.archive import Archive, read_image
from rscir_lib.parallel import MOST_WORKERS, parallel_map
from rscir_lib.pickles import read_pickle

if TYPE_CHECKING:  # reading features needs no encoder
    from rscir_lib.encoders import Encoder

SAVE_SECONDS = 5.0  # what a killed extraction loses at most, plus one batch
# Recorded, but no reason to refuse a store: it may have moved, or a package been updated
NOT_COMPARED = {"archive", "python", "torch", "torchvision", "open_clip_torch", "pillow", "numpy"}


@dataclass(frozen=True)
class Features:
    """Features of N images: feats (N, d) float32, rows L2-normalised; N files and classes; provenance."""

    feats: np.ndarray
    files: tuple[str, ...]
    classes: tuple[str, ...]
    provenance: dict[str, str]

    def aligned(self, archive: Archive) -> np.ndarray:
        """The features in the archive's order, (len(archive), d) float32.

        Files match by the archive's relative paths, whatever folders lie above; if none does, by file name. Features
        of further images are left out, so that those of a whole archive serve a part of it.
        Raises ValueError naming the first files that are missing or ambiguous.
        """
        if self.files == archive.files:
            return self.feats
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
        return self.feats[[rows[tail] for tail in wanted]]


def _tails(files: Iterable[str], depth: int) -> list[str]:
    return ["/".join(file.replace("\\", "/").split("/")[-depth:]) for file in files]


class _Images(Dataset):
    """Preprocessed images of an archive from position `start` on."""

    def __init__(self, archive: Archive, preprocess: Callable, start: int) -> None:
        self.archive, self.preprocess, self.start = archive, preprocess, start

    def __len__(self) -> int:
        return len(self.archive) - self.start

    def __getitem__(self, item: int) -> torch.Tensor:
        row = self.start + item
        try:
            return self.preprocess(read_image(self.archive.path(row)))
        except (OSError, ValueError) as error:
            raise ValueError(f"row {row} of {self.archive.name}: {error}") from None


def extract_features(
    archive: Archive,
    encoder: "Encoder",
    folder: str | Path,
    batch_size: int | None = None,
    workers: int | None = None,
    overwrite: bool = False,
) -> Path:
    """Encode every image of the archive into the feature store `folder`, and return the folder.

    A complete store is left as it is, an interrupted one continued. batch_size: images encoded at a time; None for 16
    on a CPU, 128 elsewhere. On a GPU, a batch that its memory can't hold is halved. workers: processes, which decode
    images and, on a CPU, encode them too; None for one a core, 1 for none but this one.

    Raises ValueError for a store of another archive or encoder, showing both (`overwrite` starts afresh), and for
    an image that can't be read, naming file and row; what is done is kept: replace the image and call again.
    """
    folder = Path(folder)
    paths = store, npy, progress, partial = [
        folder / f"features.{end}" for end in ("json", "npy", "partial.json", "partial.npy")
    ]
    if overwrite:
        for path in paths:
            path.unlink(missing_ok=True)
    if store.exists():
        read_features(folder, archive, encoder)
        return folder
    if len(archive) == 0:
        raise ValueError(f"{archive.root}: the archive holds no images")
    folder.mkdir(parents=True, exist_ok=True)
    if not partial.exists():
        progress.unlink(missing_ok=True)  # progress never outlives its matrix: it would vouch for empty rows
    state = _encode_all(archive, encoder, batch_size, workers, progress, partial)
    _check_rows(np.load(partial, mmap_mode="r"), archive.files, folder)
    os.replace(partial, npy)
    seconds = state["seconds"]
    numbers = {"seconds": round(seconds, 3), "images_per_second": round(len(archive) / seconds, 1)}
    images = {"files": archive.files, "classes": archive.classes}
    _write_json(store, {"provenance": state["provenance"], "sha256": _sha256(npy)} | numbers | images)
    progress.unlink()
    return folder


def _encode_all(
    archive: Archive, encoder: "Encoder", batch_size: int | None, workers: int | None, progress: Path, partial: Path
) -> dict:
    """Encode what `partial` doesn't hold yet, and return the last state that was saved in `progress`."""
    provenance = encoder.provenance | {"archive": archive.name, "archive_fingerprint": archive.fingerprint}
    content = _Content(archive)
    done, seconds = 0, 0.0
    if progress.exists() and partial.exists():
        state = json.loads(progress.read_text())
        done, seconds = state["done"], state["seconds"]
        _check_same(state["provenance"], provenance | {"archive_content": content.up_to(done)}, partial.parent)
        feats = np.lib.format.open_memmap(partial, mode="r+")
    else:
        feats = np.lib.format.open_memmap(partial, "w+", np.float32, (len(archive), encoder.dim))

    def save() -> dict:
        feats.flush()
        stamp = provenance | {"archive_content": content.up_to(done)}
        state = {"done": done, "seconds": seconds + time.perf_counter() - start, "provenance": stamp}
        _write_json(progress, state)
        return state

    images = _Images(archive, encoder.preprocess, done)
    bar = tqdm(total=len(archive), initial=done, unit="image", desc=f"{archive.name}, {encoder.name}")
    start = saved = time.perf_counter()
    try:
        with bar:
            for rows in _encoded_batches(images, encoder, batch_size, workers):
                bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
                if bad.size:
                    raise ValueError(
                        f"{encoder.name} ({encoder.precision}) gives no finite features for "
                        f"{archive.path(done + bad[0])}; try precision float32"
                    )
                feats[done : done + len(rows)] = rows
                done += len(rows)
                bar.update(len(rows))
                if time.perf_counter() - saved > SAVE_SECONDS:
                    save()
                    saved = time.perf_counter()
    finally:
        state = save()
    return state


def _encoded_batches(
    images: _Images, encoder: "Encoder", batch_size: int | None, workers: int | None
) -> Iterator[np.ndarray]:
    """Features of the images in order, a batch at a time."""
    device = torch.device(encoder.device).type
    if device == "cpu":  # each process decodes and encodes: none waits for another

        def encoded(rows: range) -> np.ndarray:
            return encoder.encode_images(torch.stack([images[row] for row in rows]))

        size = batch_size or 16
        rows = range(len(images))
        yield from parallel_map(encoded, [rows[start : start + size] for start in rows[::size]], workers)
        return
    if workers is None:  # to start them takes as long as some hundred images
        workers = min(MOST_WORKERS, os.cpu_count() or 1) if len(images) > 500 else 1
    loader = DataLoader(
        images, batch_size or 128, num_workers=workers if workers > 1 else 0, pin_memory=device == "cuda"
    )
    # while one batch is computed, the next is on its way to the GPU and the last one back: it never waits
    with ThreadPoolExecutor(2 if device == "cuda" else 1) as pool:
        coming = deque()
        for batch in loader:
            coming.append(pool.submit(_encoded, encoder, batch))
            if len(coming) > 2:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()


def _encoded(encoder: "Encoder", batch: torch.Tensor) -> np.ndarray:
    """Features of a batch, in halves where it doesn't fit into the GPU's memory."""
    try:
        return encoder.encode_images(batch)
    except torch.OutOfMemoryError:
        if len(batch) == 1:
            raise
    torch.cuda.empty_cache()
    return np.concatenate([_encoded(encoder, half) for half in batch.split(-(-len(batch) // 2))])


def read_features(path: str | Path, archive: Archive | None = None, encoder: "Encoder | None" = None) -> Features:
    """Features from a store folder, or from the authors' `.pkl` (protocol, Data), whose provenance isn't known.

    Given an archive or encoder, a store made with another one is refused. The archive's files and classes are
    compared, and where its images are on disk, their sizes.

    Raises FileNotFoundError for an absent or unfinished store; ValueError for another archive or encoder, showing
    both fingerprints, for a damaged file, and for a pickle of anything but arrays, lists and strings.
    """
    path = Path(path).expanduser()
    if path.suffix == ".pkl":
        provenance = {"encoder": "not recorded", "archive": "not recorded", "source": path.name}
        return Features(*read_pickle(path), provenance)
    store, npy = path / "features.json", path / "features.npy"
    if not store.exists():
        unfinished = (path / "features.partial.json").exists()
        reason = "the extraction is unfinished" if unfinished else "no features here"
        raise FileNotFoundError(f"{path}: {reason}; run extract_features (notebook 02)")
    state = json.loads(store.read_text())
    if _sha256(npy) != state["sha256"]:
        raise ValueError(f"{npy} was changed or cut short (another sha256 than recorded); delete it and extract again")
    expected = dict(encoder.provenance) if encoder else {}
    if archive:
        expected["archive_fingerprint"] = archive.fingerprint
        if archive.path(0).exists():
            expected["archive_content"] = _Content(archive).up_to(len(archive))
    _check_same(state["provenance"], expected, path)
    feats = np.load(npy, mmap_mode="c", allow_pickle=False)  # paged in when used; the file stays as it is
    _check_rows(feats, state["files"], path)
    return Features(np.asarray(feats), tuple(state["files"]), tuple(state["classes"]), state["provenance"])


class _Content:
    """sha256 over path and size of the images: tells archives with equal file names apart."""

    def __init__(self, archive: Archive) -> None:
        self.archive, self.digest, self.done = archive, hashlib.sha256(), 0

    def up_to(self, done: int) -> str:
        """Digest of the first `done` images; `done` may only grow."""
        for row in range(self.done, done):
            size = self.archive.path(row).stat().st_size
            self.digest.update(f"{self.archive.files[row]} {size}\n".encode())
        self.done = done
        return self.digest.hexdigest()


def _check_rows(feats: np.ndarray, files: Sequence[str], folder: Path) -> None:
    """Raise ValueError unless there is a row of unit length for each file."""
    if len(feats) != len(files):
        raise ValueError(f"{folder}: {len(feats)} rows for {len(files)} files; extract again with overwrite=True")
    norms = np.linalg.norm(feats, axis=1)
    wrong = np.flatnonzero(~(np.abs(norms - 1) < 1e-3))  # so that NaN is wrong too
    if wrong.size:
        raise ValueError(
            f"{folder}: {wrong.size} of {len(feats)} rows are not of unit length, first row {wrong[0]} "
            f"({files[wrong[0]]}), length {norms[wrong[0]]:.6g}; extract again with overwrite=True"
        )


def _check_same(stored: dict[str, str], expected: dict[str, str], folder: Path) -> None:
    different = [
        f"  {key}: stored {stored.get(key)}, asked for {value}"
        for key, value in expected.items()
        if key not in NOT_COMPARED and stored.get(key) != value
    ]
    if different:
        raise ValueError(
            f"{folder} holds the features of another archive or encoder:\n" + "\n".join(different) + "\n"
            "Choose another folder, or extract again with overwrite=True"
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_json(path: Path, value: dict) -> None:
    new = path.with_suffix(".new")  # so that the file is whole at any moment
    new.write_text(json.dumps(value, indent=0))
    os.replace(new, path)
