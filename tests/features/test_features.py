"""Feature stores: what is in them, what an interruption leaves, what is refused."""

import dataclasses
import errno
import hashlib
import io
import json
import multiprocessing
import os
import pickle
import shutil
import time
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from PIL import Image

import rscir_lib.features.store
from rscir_lib.apps.commands import cli
from rscir_lib.archive import Reading, read_archive
from rscir_lib.features import Features, extract_features, extraction, read_features
from rscir_lib.similarity.moments import Moments
from rscir_lib.storage.digests import sha256_of_file


def to_tensor(image):
    return torch.from_numpy(np.asarray(image.resize((8, 8)), np.float32)).permute(2, 0, 1) / 255


class FakeEncoder:
    """The encoders' interface: a fixed random projection of the 8 x 8 image, to `dim` numbers."""

    name, architecture, dim, device, precision = "fake", "tiny", 5, torch.device("cpu"), "float32"
    preprocess = staticmethod(to_tensor)

    def __init__(self, weights="aaa", delay=0.0):
        self.provenance = {"encoder": "fake", "weights_sha256": weights, "torch": torch.__version__}
        self.delay, self.seen = delay, 0
        self.projection = np.random.default_rng(0).normal(size=(192, self.dim)).astype(np.float32)

    def encode_images(self, batch):
        time.sleep(self.delay)
        self.seen += len(batch)
        rows = (batch.numpy().reshape(len(batch), -1) - 0.5) @ self.projection
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def draw(root, images=23, seed=0):
    rng = np.random.default_rng(seed)
    for i in range(images):
        path = root / "images" / ("tennis_court" if i % 2 else "beach") / f"scene{i:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (12, 12 + seed, 3), np.uint8)).save(path)
    return read_archive(root)


@pytest.fixture
def archive(tmp_path):
    return draw(tmp_path / "Archive")


@pytest.fixture
def expected(archive):
    images = [to_tensor(Image.open(archive.path(i)).convert("RGB")) for i in range(len(archive))]
    return FakeEncoder().encode_images(torch.stack(images))


# --- extraction


@pytest.mark.parametrize(("batch_size", "workers"), [(1, 1), (7, 1), (64, None), (4, 2), (None, None)])
@pytest.mark.parametrize("device", ["cpu", "mps", "cuda"])
@pytest.mark.filterwarnings("ignore:.pin_memory")
def test_extract(archive, expected, tmp_path, monkeypatch, batch_size, workers, device):
    monkeypatch.setattr(FakeEncoder, "device", torch.device(device))  # which the fake one never asks for
    folder = extract_features(archive, FakeEncoder(), tmp_path / "store", batch_size, workers)
    read = read_features(folder, archive, FakeEncoder())
    np.testing.assert_allclose(read.aligned(archive), expected, atol=1e-6)
    assert read.feats.dtype == np.float32
    assert (read.files, read.classes) == (archive.files, archive.classes)
    assert read.classes[-1] == "tenniscourt"
    assert read.provenance["weights_sha256"] == "aaa"
    assert read.provenance["archive_fingerprint"] == archive.fingerprint
    assert read.provenance["reading"] == str(archive.rule)
    whole, moments = Moments.of(read.feats), read.moments
    np.testing.assert_allclose(moments.covariance, whole.covariance, atol=1e-12)
    np.testing.assert_allclose(moments.mean, whole.mean, atol=1e-12)
    endings = sorted(path.name.split(".", 1)[1] for path in folder.iterdir())
    assert endings == ["json", "json", "lock", "looks.json", "moments.npy", "npy"]


@pytest.mark.filterwarnings("ignore:.pin_memory")
def test_batches_that_do_not_fit_into_memory_are_halved(archive, expected, tmp_path):
    class SmallGpu(FakeEncoder):
        device, sizes = torch.device("cuda"), ()

        def encode_images(self, batch):
            self.sizes += (len(batch),)
            if len(batch) > 3:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().encode_images(batch)

    encoder = SmallGpu()
    folder = extract_features(archive, encoder, tmp_path / "store", batch_size=12, workers=1)
    np.testing.assert_allclose(read_features(folder).feats, expected, atol=1e-6)
    assert {12, 6, 3} <= set(encoder.sizes)
    with pytest.raises(torch.OutOfMemoryError):
        extraction._encoded(Mock(encode_images=Mock(side_effect=torch.OutOfMemoryError("even one"))), torch.zeros(4, 1))


def test_workers_can_be_spawned(archive):
    # the start method of macOS and Windows pickles all that a worker needs
    images = pickle.loads(pickle.dumps(extraction._Images(archive, to_tensor, [3, 5])))
    assert len(images) == 2
    assert torch.equal(images[1][1], to_tensor(Image.open(archive.path(5))))


def test_complete_store_is_skipped_unless_overwritten(archive, tmp_path):
    extract_features(archive, FakeEncoder(), tmp_path / "store")
    again = FakeEncoder()
    extract_features(archive, again, tmp_path / "store", workers=1)
    assert again.seen == 0
    extract_features(archive, again, tmp_path / "store", workers=1, overwrite=True)
    assert again.seen == len(archive)


@pytest.mark.parametrize(("batch_size", "workers"), [(1, 1), (4, 2), (64, 1)])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.filterwarnings("ignore:.pin_memory")
@pytest.mark.slow
def test_unreadable_images_are_left_out_and_reported(
    archive, expected, tmp_path, monkeypatch, device, batch_size, workers
):
    monkeypatch.setattr(FakeEncoder, "device", torch.device(device))
    store, bad = tmp_path / "store", [5, 6, 7, 8, 17]
    whole = {i: archive.path(i).read_bytes() for i in bad}
    for i in bad:
        archive.path(i).write_bytes(whole[i][:60])
    archive.path(17).unlink()
    with pytest.raises(ValueError, match=rf"row 5 of Archive: .*{archive.names[5]}"):
        extract_features(archive, FakeEncoder(), store, batch_size, workers, strict=True)
    with pytest.warns(UserWarning, match=rf"5 of 23 images of Archive can't be read .*{archive.names[5]}.*; \.\.\."):
        extract_features(archive, FakeEncoder(), store, batch_size, workers)
    read = read_features(store, archive, FakeEncoder())
    assert list(read.unreadable) == [archive.files[i] for i in bad]
    assert "not on disk" in read.unreadable[archive.files[17]]
    good = read.readable(archive)
    assert len(good) == 18
    np.testing.assert_allclose(read.aligned(good), np.delete(expected, bad, 0), atol=1e-6)
    with pytest.raises(ValueError, match=rf"5 images of Archive couldn't be read .*{archive.files[5]}.*readable"):
        read.aligned(archive)
    for i in bad:  # they are put right: only they are encoded
        archive.path(i).write_bytes(whole[i])
    encoder = FakeEncoder()
    extract_features(archive, encoder, store, workers=1)
    assert encoder.seen == 5
    read = read_features(store, archive)
    assert read.unreadable == {}
    assert read.readable(archive) is archive
    np.testing.assert_allclose(read.aligned(archive), expected, atol=1e-6)


def test_no_readable_image_at_all(archive, tmp_path):
    for i in range(len(archive)):
        archive.path(i).write_text("text")
    with pytest.raises(ValueError, match=rf"no image can be read; the first: .*{archive.names[0]}"):
        extract_features(archive, FakeEncoder(), tmp_path / "store")
    with pytest.raises(FileNotFoundError, match="no features here"):
        read_features(tmp_path / "store")


# --- features belong to files


def touch(path):
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 10**9))


def test_only_what_is_new_is_encoded(archive, expected, tmp_path):
    store, part = tmp_path / "store", archive.subset(range(20))
    extract_features(part, FakeEncoder(), store)

    def encoded(archive):
        encoder = FakeEncoder()
        extract_features(archive, encoder, store, workers=1)
        assert len(read_features(store, archive)) == len(archive)
        return encoder.seen

    assert encoded(archive) == 3  # added
    assert encoded(archive.subset(range(22, 0, -1))) == 0  # removed, and turned round
    np.testing.assert_allclose(read_features(store).feats, expected[22:0:-1], atol=1e-6)
    with pytest.raises(ValueError, match=rf"1 of 23 images of Archive have no features, the first {archive.files[0]}"):
        read_features(store, archive)
    assert encoded(archive) == 1
    for i in range(len(archive)):
        touch(archive.path(i))  # as a copy of the archive
    assert encoded(archive) == 0
    pixels = np.array(Image.open(archive.path(7)))
    size = archive.path(7).stat().st_size
    Image.fromarray(255 - pixels).save(archive.path(7))
    archive.path(7).write_bytes(
        archive.path(7).read_bytes().ljust(size, b"\0")[:size]
    )  # another image of the same size
    touch(archive.path(7))
    with pytest.raises(
        ValueError, match=rf"1 of 23 .* were replaced since, the first {archive.files[7]}.*encodes those"
    ):
        read_features(store, archive)
    assert encoded(archive) == 1
    assert not np.allclose(read_features(store).feats[7], expected[7], atol=0.01)
    np.testing.assert_allclose(np.delete(read_features(store).feats, 7, 0), np.delete(expected, 7, 0), atol=1e-6)


def swap(one, two):
    between = one.with_name("between")
    one.rename(between)
    two.rename(one)
    between.rename(two)


@pytest.mark.parametrize("how", ["pictures renamed", "folders renamed", "links", "links to folders", "written"])
def test_pictures_that_changed_places_are_noticed(tmp_path, capsys, how):
    """Of equal size and time, whichever way they did."""
    places = {name: tmp_path / "Archive" / "images" / name for name in ("a", "b")}
    for name, folder in places.items():
        lies = tmp_path / f"real {name}" if how == "links to folders" else folder
        lies.mkdir(parents=True)
        for grey in (50, 200) if name == "a" else (80, 250):
            path = lies / f"{grey < 100}.bmp"
            Image.fromarray(np.random.default_rng(grey).integers(0, grey, (12, 12, 3), np.uint8)).save(path)
            os.utime(path, ns=(0, 10**18))
            if how == "links":
                path.rename(tmp_path / f"{grey}.bmp")
                path.symlink_to(tmp_path / f"{grey}.bmp")
        if how == "links to folders":
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.symlink_to(lies)
    archive = read_archive(tmp_path / "Archive")
    store = extract_features(archive, FakeEncoder(), tmp_path / "store")
    read_features(store, archive)  # compared now, and known from here on
    if "folders" in how:
        swap(*places.values())
    elif how == "written":
        one, two = (folder / "True.bmp" for folder in places.values())
        contents = one.read_bytes(), two.read_bytes()
        for path, content in zip((two, one), contents, strict=True):
            path.write_bytes(content)
            os.utime(path, ns=(0, 10**18))
    else:
        swap(*(folder / "True.bmp" for folder in places.values()))
    count = 4 if "folders" in how else 2
    with pytest.raises(ValueError, match=f"{count} of 4 images of Archive were replaced since"):
        read_features(store, archive)
    assert cli.main(["verify", str(store)]) == 0
    assert cli.main(["verify", str(store), "--archive", str(archive.root)]) == 1
    assert capsys.readouterr().err.count(": another picture than the features are of") == count


def test_images_are_read_once_to_be_compared_in_another_place(archive, tmp_path, monkeypatch):
    store = extract_features(archive, FakeEncoder(), tmp_path / "store")
    moved = tmp_path / "moved" / archive.root.name
    shutil.copytree(archive.root, moved)
    compared = []
    monkeypatch.setattr(
        rscir_lib.features.store, "_content", lambda path, *known: compared.append(path) or sha256_of_file(path)
    )
    for root, times in ((archive.root, 1), (archive.root, 0), (moved, 1), (moved, 0), (archive.root, 1)):
        compared.clear()
        read_features(store, read_archive(root))
        assert len(compared) == times * len(archive), root


def test_new_classes_need_no_new_features(archive, tmp_path):
    store, encoder = extract_features(archive, FakeEncoder(), tmp_path / "store"), FakeEncoder()
    renamed = dataclasses.replace(archive, classes=("harbor",) * len(archive))
    extract_features(renamed, encoder, store, workers=1)
    assert encoder.seen == 0
    assert set(read_features(store, renamed).classes) == {"harbor"}


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_shards(archive, expected, tmp_path, monkeypatch, dtype):
    monkeypatch.setattr(rscir_lib.features.store, "SHARD_BYTES", 9 * 5 * np.dtype(dtype).itemsize)
    store = extract_features(archive, FakeEncoder(), tmp_path / "store", dtype=dtype)
    read = read_features(store, archive)
    assert [len(shard.feats) for shard in read.shards()] == [9, 9, 5]
    assert {shard.feats.dtype for shard in read.shards()} == {np.dtype(dtype)}
    assert [file for shard in read.shards() for file in shard.ids["files"]] == list(archive.files)
    assert read.feats.dtype == np.float32
    assert (len(read), read.dim) == expected.shape
    np.testing.assert_allclose(read.feats, expected, atol=1e-6 if dtype == "float32" else 1e-3)
    np.testing.assert_allclose(read.moments.covariance, Moments.of(read.feats).covariance, atol=1e-12)
    before = {path.name: path.stat().st_ino for path in store.glob("*.npy")}
    extract_features(archive.subset(range(22)), FakeEncoder(), store, dtype=dtype)
    after = {path.name: path.stat().st_ino for path in store.glob("*.npy")}
    assert len(before.items() & after.items()) == 4  # the two first shards and their moments weren't touched
    with pytest.raises(ValueError, match="dtype: stored float"):
        extract_features(archive, FakeEncoder(), store, dtype={"float32": "float16", "float16": "float32"}[dtype])


def test_precision_is_recorded_and_rows_of_one_store_share_it(archive, tmp_path):
    low, full = FakeEncoder(), FakeEncoder()
    low.provenance["precision"], full.provenance["precision"] = "bfloat16", "float32"
    store = extract_features(archive.subset(range(9)), low, tmp_path / "store")
    assert read_features(store, encoder=full).provenance["precision"] == "bfloat16"  # texts in any precision
    with pytest.raises(ValueError, match="precision: stored bfloat16, asked for float32"):
        extract_features(archive, full, store)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"dtype": "int8"}, "dtype 'int8'"), ({"batch_size": -1}, "batch_size -1"), ({"workers": -2}, "workers -2")],
)
def test_wrong_parameters_are_named(archive, tmp_path, wrong, message):
    with pytest.raises(ValueError, match=message):
        extract_features(archive, FakeEncoder(), tmp_path / "store", **wrong)
    assert not (tmp_path / "store").exists()


# --- interruption


def test_killed_extraction_continues(archive, expected, tmp_path, monkeypatch):
    monkeypatch.setattr(extraction, "SAVE_SECONDS", 0)
    store = tmp_path / "store"
    child = multiprocessing.get_context("fork").Process(
        target=extract_features, args=(archive, FakeEncoder(delay=0.1), store, 2)
    )
    child.start()
    while not list(store.glob("*.json")) and child.is_alive():
        time.sleep(0.01)
    time.sleep(0.15)
    child.kill()
    child.join()
    with pytest.raises(FileNotFoundError, match="unfinished"):
        read_features(store)
    encoder = FakeEncoder()
    extract_features(archive, encoder, store, workers=1)
    assert 0 < encoder.seen < len(archive)
    np.testing.assert_allclose(read_features(store).feats, expected, atol=1e-6)


class Killed(BaseException):
    """No handler for errors catches it, and nothing cleans up after it."""


def kill_at(patch, operation):
    """The process dies before the nth write, fsync, rename or removal, and no handler of its own can write any more."""
    left = iter(range(operation))

    def counted(real):
        def call(*args, **kwargs):
            if next(left, None) is None:
                raise Killed
            return real(*args, **kwargs)

        return call

    for module, name in ((os, "fsync"), (os, "replace"), (os, "unlink"), (io, "open")):
        patch.setattr(module, name, counted(getattr(module, name)))


@pytest.mark.slow
@pytest.mark.filterwarnings("error:left out")
@pytest.mark.parametrize(("step", "second"), [(1, None), (3, 1), (5, 12)])
def test_killed_at_every_file_operation_and_again(tmp_path, monkeypatch, step, second):
    monkeypatch.setattr(extraction, "SAVE_SECONDS", 0)
    monkeypatch.setattr(rscir_lib.features.store, "SHARD_BYTES", 5 * 20)
    archive = draw(tmp_path / "Archive", images=9)
    expected = read_features(extract_features(archive, FakeEncoder(), tmp_path / "whole", 4, workers=1)).feats
    operation = 0
    finished = False
    while not finished:
        store = tmp_path / f"store{operation}"
        for at in (operation, second):
            with monkeypatch.context() as patch:
                if at is not None:
                    kill_at(patch, at)
                try:
                    extract_features(archive, FakeEncoder(), store, 4, workers=1)
                    finished = finished or at == operation
                except Killed:
                    pass
        extract_features(archive, FakeEncoder(), store, 4, workers=1)
        np.testing.assert_array_equal(read_features(store, archive).feats, expected)
        # shards, manifest, lock, and how the files looked: nothing is left behind
        assert len(list(store.iterdir())) == 2 * 3 + 3
        operation += step
    assert operation > 50


def test_interrupt_keeps_what_is_done(archive, expected, tmp_path, monkeypatch):
    class Interrupted(FakeEncoder):
        def encode_images(self, batch):
            if self.seen >= 12:
                raise KeyboardInterrupt
            return super().encode_images(batch)

    with pytest.raises(KeyboardInterrupt):
        extract_features(archive, Interrupted(), tmp_path / "store", batch_size=4, workers=1)
    encoder = FakeEncoder()
    extract_features(archive, encoder, tmp_path / "store", workers=1)
    assert encoder.seen == 11
    np.testing.assert_allclose(read_features(tmp_path / "store").feats, expected, atol=1e-6)


def test_full_disk_says_what_is_kept(archive, expected, tmp_path, monkeypatch):
    monkeypatch.setattr(extraction, "SAVE_SECONDS", 0)
    store, write = tmp_path / "store", rscir_lib.features.store.write_npy
    room = iter([1, 1])

    def full(path, array):
        if next(room, None) is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(path, array)

    with monkeypatch.context() as patch:
        patch.setattr(rscir_lib.features.store, "write_npy", full)
        with pytest.raises(
            OSError, match=rf"{store}: No space left on device; 8 of 23 images are done and kept\. Make"
        ):
            extract_features(archive, FakeEncoder(), store, batch_size=4, workers=1)
    encoder = FakeEncoder()
    extract_features(archive, encoder, store, workers=1)
    assert encoder.seen == 15
    np.testing.assert_allclose(read_features(store).feats, expected, atol=1e-6)


def test_two_extractions_into_one_store(archive, tmp_path, monkeypatch):
    monkeypatch.setattr(extraction, "LOCK_SECONDS", 0.1)
    store = tmp_path / "store"
    child = multiprocessing.get_context("fork").Process(
        target=extract_features, args=(archive, FakeEncoder(delay=60), store, 2, 1)
    )
    child.start()
    try:
        while not (store / ".lock").exists() or not (store / ".lock").read_text():
            assert child.is_alive()
            time.sleep(0.01)
        with pytest.raises(BlockingIOError, match=rf"{store}: another command .*process {child.pid} on .*Wait until"):
            extract_features(archive, FakeEncoder(), store)
    finally:
        child.kill()
        child.join()
    extract_features(archive, FakeEncoder(), store)  # the lock of a killed process is none
    assert len(read_features(store)) == len(archive)


def interrupt(archive, store):
    whole = archive.path(20).read_bytes()
    archive.path(20).write_bytes(b"")
    with pytest.raises(ValueError, match="row 20"):
        extract_features(archive, FakeEncoder(), store, batch_size=4, strict=True)
    archive.path(20).write_bytes(whole)


@pytest.mark.parametrize("unfinished", [False, True])
def test_another_encoder_or_archive_is_refused(archive, tmp_path, unfinished):
    store = tmp_path / "store"
    if unfinished:
        interrupt(archive, store)
    else:
        extract_features(archive, FakeEncoder(), store)
    with pytest.raises(ValueError, match="weights_sha256: stored aaa, asked for bbb"):
        extract_features(archive, FakeEncoder("bbb"), store)
    other = draw(tmp_path / "other" / "Archive", seed=1)  # equal file names, other images
    assert other.fingerprint == archive.fingerprint
    with pytest.raises(ValueError, match=rf"of another archive: none of its images, such as {archive.files[0]}, is in"):
        extract_features(other, FakeEncoder(), store)
    read_as = dataclasses.replace(archive, rule=Reading(percentiles=(0, 100)))
    with pytest.raises(
        ValueError, match=r"reading: stored .* percentiles 2 to 98 .* asked for .* percentiles 0 to 100"
    ):
        extract_features(read_as, FakeEncoder(), store)
    if not unfinished:
        with pytest.raises(ValueError, match="reading: stored"):
            read_features(store, archive=read_as)
        with pytest.raises(ValueError, match="weights_sha256"):
            read_features(store, encoder=FakeEncoder("bbb"))
        with pytest.raises(ValueError, match="23 of 23 images of Archive were replaced since"):
            read_features(store, archive=other)
    extract_features(archive, FakeEncoder("bbb"), store, overwrite=True)
    assert read_features(store, archive, FakeEncoder("bbb")).provenance["weights_sha256"] == "bbb"


def test_moved_archive_updated_package_and_absent_images_are_accepted(archive, tmp_path):
    encoder = FakeEncoder()
    encoder.provenance["torch"] = "0.1"
    store = extract_features(archive, encoder, tmp_path / "store")
    moved = read_archive(archive.root.rename(tmp_path / "moved"))
    read_features(store, moved, FakeEncoder())
    read_features(store, archive)  # no image there any more: the files decide
    assert extract_features(moved, again := FakeEncoder(), store, workers=1) == store
    assert again.seen == 0


# --- damage


def edit(path, change):
    value = json.loads(path.read_text())
    path.write_text(json.dumps(change(value) or value))


def the(store, ending):
    (path,) = store.glob("?" * 16 + ending)
    return path


def flip(path):
    data = bytearray(path.read_bytes())
    data[200 % len(data)] ^= 1
    path.write_bytes(data)


DAMAGE = {
    "a bit of the rows": lambda store: flip(the(store, ".npy")),
    "a bit of the moments": lambda store: flip(the(store, ".moments.npy")),
    "rows cut short": lambda store: the(store, ".npy").write_bytes(the(store, ".npy").read_bytes()[:300]),
    "no rows": lambda store: the(store, ".npy").unlink(),
    "rows that are none": lambda store: the(store, ".npy").write_text("rows"),
    "files reversed": lambda store: edit(the(store, ".json"), lambda ids: ids["files"].reverse()),
    "fewer files": lambda store: edit(the(store, ".json"), lambda ids: ids["files"].pop()),
    "ids cut short": lambda store: the(store, ".json").write_text("{"),
    "ids that are a list": lambda store: the(store, ".json").write_text("[1]"),
    "manifest cut short": lambda store: (store / "manifest.json").write_text('{"rows": 2'),
    "manifest that is a list": lambda store: (store / "manifest.json").write_text("[]"),
    "manifest without shards": lambda store: edit(store / "manifest.json", lambda m: m.pop("shards") and None),
    "manifest of no shards": lambda store: edit(store / "manifest.json", lambda m: m.update(shards=[], rows=0)),
    "manifest of more rows": lambda store: edit(store / "manifest.json", lambda m: m.update(rows=24)),
    "shard elsewhere": lambda store: edit(store / "manifest.json", lambda m: m["shards"][0].update(name="../../a")),
    "latin-1": lambda store: (store / "manifest.json").write_bytes(b"\xe4"),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.filterwarnings("ignore:left out")
@pytest.mark.slow
def test_damage_is_noticed_named_and_mended(archive, expected, tmp_path, damage):
    store = extract_features(archive, FakeEncoder(), tmp_path / "store")
    DAMAGE[damage](store)
    with pytest.raises(ValueError, match=rf"{store}.* (damaged|changed).*run extract_features"):
        read_features(store, archive)
    extract_features(archive, FakeEncoder(), store)
    np.testing.assert_allclose(read_features(store, archive).feats, expected, atol=1e-6)


def test_a_large_store_is_opened_at_once_and_verified_by_command(archive, tmp_path, monkeypatch, capsys):
    store = extract_features(archive, FakeEncoder(), tmp_path / "store")
    assert cli.main(["verify", str(store)]) == 0
    assert "Features(23 x 5, 1 shards, 0 unreadable): whole" in capsys.readouterr().out
    flip(the(store, ".npy"))
    monkeypatch.setattr(rscir_lib.features.store, "VERIFIED_BYTES", 0)
    with monkeypatch.context() as patch:
        patch.setattr(rscir_lib.features.store, "sha256_of_file", Mock(side_effect=AssertionError))
        assert len(read_features(store)) == 23
    assert cli.main(["verify", str(store)]) == 1
    assert ".npy is damaged (changed, cut short or removed" in capsys.readouterr().err
    edit(the(store, ".json"), lambda ids: ids["files"].reverse())
    with pytest.raises(ValueError, match=r"\.json is damaged \(changed"):
        _ = read_features(store).files  # small enough to be checked when it is read


def test_absent_store(tmp_path):
    with pytest.raises(FileNotFoundError, match="no features here"):
        read_features(tmp_path / "store")


@pytest.mark.parametrize("value", [0, np.nan, 2])
def test_rows_that_are_not_of_unit_length_are_never_read(archive, tmp_path, value):
    store = extract_features(archive, FakeEncoder(), tmp_path / "store")
    npy = the(store, ".npy")
    feats = np.load(npy)
    feats[7] = value
    np.save(npy, feats)
    digest = hashlib.sha256(npy.read_bytes()).hexdigest()
    edit(store / "manifest.json", lambda manifest: manifest["shards"][0]["sha256"].update(npy=digest))
    with pytest.raises(ValueError, match=rf"1 rows are not finite and L2-normalised, first row 7 \({archive.files[7]}"):
        read_features(store)


def test_reading_does_not_write(archive, tmp_path):
    store = extract_features(archive, FakeEncoder(), tmp_path / "store")
    read_features(store).feats[:] = 0
    assert read_features(store).feats.any()


@pytest.mark.parametrize(("value", "message"), [(np.nan, "length nan"), (0, "length 0"), (2, "length 4.47")])
def test_features_that_are_none_name_the_image(archive, tmp_path, monkeypatch, value, message):
    monkeypatch.setattr(FakeEncoder, "encode_images", lambda self, batch: np.full((len(batch), 5), value))
    with pytest.raises(ValueError, match=f"fake in float32: .*{archive.names[0]}.*{message}.*; try precision float32"):
        extract_features(archive, FakeEncoder(), tmp_path / "store")
    with pytest.raises(FileNotFoundError):
        read_features(tmp_path / "store")


def test_empty_archive(archive, tmp_path):
    with pytest.raises(ValueError, match="no images"):
        extract_features(archive.subset([]), FakeEncoder(), tmp_path / "store")


# --- an object that can't be wrong


UNIT = np.eye(4, 3, dtype=np.float32)[[0, 1, 2, 0]]


@pytest.mark.parametrize(
    ("feats", "files", "classes", "problem"),
    [
        (UNIT, "abc", "abcd", "4 rows of feats, but 3 files"),
        (UNIT, "abcde", "abcd", "4 rows of feats, but 5 files"),
        (UNIT, "abcd", "", "4 rows of feats, but 0 classes"),
        (UNIT, "abca", "abcd", "a has 2 rows"),
        (UNIT * [[1], [0], [1], [1]], "abcd", "abcd", r"1 rows .*first row 1 \(b\), length 0"),
        (UNIT * [[1], [1], [np.nan], [1]], "abcd", "abcd", r"first row 2 \(c\), length nan"),
        (UNIT + np.inf, "abcd", "abcd", "4 rows .* length inf"),
        (UNIT * 3, "abcd", "abcd", "length 3; divide each row by its length"),
        (UNIT[:0], "", "", r"N and d at least 1; found float32 \(0, 3\)"),
        (UNIT[:, :0], "abcd", "abcd", r"found float32 \(4, 0\)"),
        (UNIT[0], "abc", "abc", r"found float32 \(3,\)"),
        (UNIT.astype(int), "abcd", "abcd", "found int64"),
        (UNIT.tolist(), "abcd", "abcd", "found list"),
    ],
)
def test_features_check_themselves(feats, files, classes, problem):
    with pytest.raises(ValueError, match=problem):
        Features.from_arrays(feats, files, classes)


def test_moments_merge():
    rng = np.random.default_rng(0)
    feats = rng.normal(size=(50, 4)) + 3
    parts = np.split(feats, [1, 2, 30])
    merged = rscir_lib.features.store.merged((len(part), Moments.of(part)) for part in parts)
    np.testing.assert_allclose(merged.mean, feats.mean(0))
    np.testing.assert_allclose(merged.covariance, np.cov(feats.T))


# --- alignment


def test_aligned(archive):
    order = np.random.default_rng(0).permutation(len(archive))
    feats = np.eye(len(archive), dtype=np.float32)
    for prefix in ("/home/someone/data/PatternNet/", "C:\\data\\", "", "elsewhere/"):
        files = [prefix + archive.files[i] for i in order]
        if "\\" in prefix:
            files = [file.replace("/", "\\") for file in files]
        aligned = Features.from_arrays(feats[order], files, files).aligned(archive)
        np.testing.assert_array_equal(aligned, feats)
    names = [archive.names[i] for i in order]
    flat = Features.from_arrays(feats[order], names, names)
    np.testing.assert_array_equal(flat.aligned(archive), feats)


def test_aligned_by_path_where_names_repeat(tmp_path):
    for cls in ("beach", "river"):
        (tmp_path / "images" / cls).mkdir(parents=True)
        (tmp_path / "images" / cls / "1.png").touch()
    archive = read_archive(tmp_path)
    files = tuple("/data/" + file for file in reversed(archive.files))
    feats = np.array([[1.0], [-1.0]], np.float32)
    assert Features.from_arrays(feats, files, files).aligned(archive).tolist() == [[-1], [1]]
    with pytest.raises(ValueError, match=r"more than once \(1.png, 1.png\)"):
        Features.from_arrays(feats, ("a/1.png", "b/1.png"), "ab").aligned(archive)


def test_misaligned_files_are_named(archive):
    feats = np.ones((len(archive), 1), np.float32)
    part, more = archive.files[3:], (*archive.files[:-1], "images/beach/strange.png")
    with pytest.raises(ValueError, match=rf"3 without features \({archive.files[0]}"):
        Features.from_arrays(feats[3:], part, part).aligned(archive)
    with pytest.raises(ValueError, match=r"1 without features \(.*\. Extract"):
        Features.from_arrays(feats, more, more).aligned(archive)
    twice = (*archive.files, "elsewhere/" + archive.files[0])
    with pytest.raises(ValueError, match="1 more than once"):
        Features.from_arrays(feats[[*range(len(archive)), 0]], twice, twice).aligned(archive)


def test_features_of_a_whole_archive_serve_a_part(archive):
    feats = np.eye(len(archive), dtype=np.float32)
    whole = Features.from_arrays(feats, archive.files, archive.classes)
    assert whole.aligned(archive.subset([4, 1])).argmax(1).tolist() == [4, 1]


@pytest.mark.parametrize("damage", ["zeros", "infinite", "longer"])
def test_a_large_store_is_looked_at_when_it_is_opened(tmp_path, monkeypatch, damage):
    """A row that the sample holds, and the size of the file; of a whole store nothing is said."""
    monkeypatch.setattr(rscir_lib.features.store, "VERIFIED_BYTES", 0)
    rows = np.eye(100, 8, dtype=np.float32) + np.eye(100, 8, k=-8, dtype=np.float32)
    rows[~rows.any(axis=1)] = np.eye(1, 8)
    ids = rscir_lib.features.store.columns([f"{i}.png" for i in range(100)], [""] * 100)
    shard = rscir_lib.features.store.write_shard(tmp_path, rows, ids, {})
    rscir_lib.features.store.write_manifest(tmp_path, [shard], {}, {})
    assert len(read_features(tmp_path)) == 100
    content = bytearray(shard.path("npy").read_bytes())
    if damage == "longer":
        content += b"\0" * 100
    else:
        content[-32:] = (np.zeros if damage == "zeros" else np.ones)(8, np.float32).tobytes()
        content[-4:] = content[-4:] if damage == "zeros" else np.float32(np.inf).tobytes()
    shard.path("npy").write_bytes(content)
    with pytest.raises(
        ValueError, match=r"npy is damaged \((row 99 is not of length 1|3\d\d\d bytes for rows of 3200)"
    ):
        read_features(tmp_path)
