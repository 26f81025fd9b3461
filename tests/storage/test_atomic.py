"""The one way to write: the old file or the new one, never a part of either."""

import json
import multiprocessing
import os
import resource

import numpy as np
import pytest
from PIL import Image

from rscir_lib.storage import atomic as files


def test_text_json_and_arrays_come_back(tmp_path):
    assert files.write_text(tmp_path / "a b.txt", "ä\n").read_text("utf-8") == "ä\n"
    odd = {"name \udcff": [1, None, 0.5]}  # as of a file name that isn't UTF-8
    assert json.loads(files.write_json(tmp_path / "a.json", odd).read_text()) == odd
    array = np.arange(6, dtype=np.float16).reshape(2, 3)
    np.testing.assert_array_equal(np.load(files.write_npy(tmp_path / "a.npy", array)), array)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a b.txt", "a.json", "a.npy"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failed_write_leaves_the_old_file_alone(tmp_path, error):
    path = files.write_text(tmp_path / "a.txt", "old")

    def fails(file):
        file.write(b"half")
        raise error

    with pytest.raises(error):
        files.write_file(path, fails)
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(path, float("nan"))
    with pytest.raises(FileNotFoundError):
        files.write_text(tmp_path / "no folder" / "a.txt", "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


NOISE = np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)
WRITERS = {
    "array": lambda file: np.save(file, np.ones(100_000)),
    "picture": lambda file: Image.fromarray(NOISE).save(file, "JPEG"),
    "bytes": lambda file: file.write(bytes(100_000)),
}


def _limited(path, what):
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
    try:
        files.write_file(path, WRITERS[what])
    except OSError as error:
        os._exit(7 if str(path) in str(error) else 8)


@pytest.mark.parametrize("what", WRITERS)
def test_a_disk_without_room_raises_and_leaves_nothing(tmp_path, what):
    path = files.write_text(tmp_path / "a.npy", "old")
    child = multiprocessing.get_context("fork").Process(target=_limited, args=(path, what))
    child.start()
    child.join(60)
    assert child.exitcode == 7
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.npy"]


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    done = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *args, name=name, real=real: done.append(name) or real(*args))
    files.write_text(tmp_path / "a.txt", "new")
    assert done == ["fsync", "replace", "fsync"]
    files.write_file(tmp_path / "a.txt", lambda file: file.write(b"cache"), durable=False)
    assert done[3:] == ["replace"]
