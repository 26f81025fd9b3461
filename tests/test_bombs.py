"""Files of few bytes that would take much memory or time: each reader refuses them in words, or stays within bounds."""

import multiprocessing
import os
import resource
import subprocess
import sys
import time
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from PIL import Image
from rasterio.errors import NotGeoreferencedWarning

from rscir_lib.archive import Archive, read_image
from rscir_lib.archive.reading import LONGEST, MOST_BLOCK, MOST_SCANS, Reading, rgb_of
from rscir_lib.archive.tiles import read_scenes
from rscir_lib.encoders import load_encoder
from rscir_lib.features import extract_features, read_features

MEMORY = 400  # MiB that any reader may take for any file: a picture of the most pixels and a few copies of it
SECONDS = 20  # on a loaded machine


def blank(path, mode="L", size=(100_000, 1), **options):
    Image.new(mode, size).save(path, **options)


def of_scans(path, number=4000):
    """A progressive JPEG whose last scan is repeated: 41 bytes a pass over 16 million pixels."""
    blank(path, size=(4096, 4096), progressive=True)
    data = path.read_bytes()
    start = data.rfind(b"\xff\xda")
    path.write_bytes(data[:start] + data[start:-2] * number + data[-2:])


def of_bands(path, count=1100, driver="GTiff", side=256, dtype="uint16", width=0, **options):
    with warnings.catch_warnings(), rasterio.Env(GDAL_CACHEMAX=64):
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "w", driver, width or side, side, count, dtype=dtype, **options) as file:
            if driver != "GTiff":
                file.write(np.zeros((count, side, side), dtype))


TILED = {"compress": "deflate", "tiled": True, "interleave": "pixel"}
# name -> what writes it, and what is said: "" where it is read, in the memory that its pixels take
PICTURES = {
    "wide.png": (blank, "100000 x 1 pixels, the limit is 64 to 1"),
    "tall.png": (partial(blank, mode="1", size=(1, 60_000)), "1 x 60000 pixels"),
    "wide.bmp": (partial(blank, mode="1"), "a line rather than a picture"),
    "wide.tif": (partial(of_bands, count=1, side=1, width=80_000), "80000 x 1 pixels"),
    "scans.jpg": (of_scans, f"scans, which takes long; the limit is {MOST_SCANS}"),
    "block.tif": (partial(of_bands, **TILED), f"in one block, the limit is {MOST_BLOCK:,}"),
    "block.jp2": (partial(of_bands, count=2100, driver="JP2OpenJPEG", dtype="uint8"), "of 2100 bands in one block"),
    "bands.tif": (partial(of_bands, count=20_000, side=16, dtype="uint8", compress="deflate"), ""),
    "apart.tif": (partial(of_bands, compress="deflate", interleave="band"), ""),
    "blank.png": (partial(blank, mode="1", size=(4096, 4096)), ""),
    "blank.webp": (partial(blank, mode="RGB", size=(16_383, 1024)), ""),
    "blank.gif": (partial(blank, size=(4096, 4096)), ""),
    "blank.heic": (partial(blank, mode="RGB", size=(2048, 2048)), ""),
    "blank.avif": (partial(blank, mode="RGB", size=(4096, 4096), speed=10), ""),
    "deep.png": (partial(blank, mode="I;16", size=(4096, 4096)), ""),
    "deep.tif": (partial(of_bands, count=1, side=4096, dtype="float64", compress="deflate", sparse_ok=True), ""),
    "scene.png": (partial(blank, mode="1", size=(20_000, 20_000)), "the limit is 16,777,216"),
}


def measured(read, *given):
    """MiB and seconds that a reader takes in a process of its own, and what it says: "" where it reads."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=_measure, args=(sender, read, given))
    process.start()
    sender.close()
    answer = receiver.recv()
    process.join()
    return answer


def _measure(sender, read, given):
    torch.set_num_threads(1)
    before, start, said = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic(), ""
    try:
        read(*given)
    except (ValueError, OSError) as error:
        said = str(error)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    sender.send((grown / 1024, time.monotonic() - start, said))
    sender.close()
    os._exit(0)


def holds(path, words, answer):
    memory, seconds, said = answer
    print(f"{path.name}: {path.stat().st_size:,} bytes, {memory:.0f} MiB, {seconds:.1f} s, {said or 'read'}")
    assert memory < MEMORY
    assert seconds < SECONDS
    assert (words in said and str(path) in said) if words else not said


@pytest.fixture(scope="module")
def encoder():
    return load_encoder("demo", device="cpu")


@pytest.mark.slow
@pytest.mark.parametrize("name", PICTURES)
def test_pictures(tmp_path, encoder, name):
    write, words = PICTURES[name]
    write(tmp_path / name)
    holds(tmp_path / name, words, measured(lambda path: encoder.preprocess(read_image(path)), tmp_path / name))


def test_the_last_that_is_read(tmp_path):
    """The bounds are no tighter than they say, and what is no scan isn't counted as one."""
    blank(tmp_path / "wide.png", size=(LONGEST * 3, 3))
    assert read_image(tmp_path / "wide.png").size == (LONGEST * 3, 3)
    assert read_image(tmp_path / "wide.png", window=(0, 1, LONGEST * 3, 1)).size == (LONGEST * 3, 1)
    blank(tmp_path / "many.jpg", size=(64, 64), progressive=True, exif=b"Exif\0\0" + b"\xff\xda" * 200)
    with (tmp_path / "many.jpg").open("ab") as file:  # a film behind the picture, as phones have it
        file.write(b"\xff\xda\0\x02" * 200)
    assert read_image(tmp_path / "many.jpg").size == (64, 64)


@pytest.mark.slow
def test_remedies_work(tmp_path):
    """A line becomes tiles of the side that the message names; a picture in memory is held to the same."""
    blank(tmp_path / "wide.png", size=(1000, 1))
    with pytest.raises(ValueError, match="--tile 64") as error:
        read_image(tmp_path / "wide.png")
    tiles = read_scenes(tmp_path, tile=int(str(error.value).split("--tile ")[1].split('"')[0]))
    assert [tiles.read(i).size for i in range(len(tiles))] == [(64, 1)] * 16
    with pytest.raises(ValueError, match="a picture in memory: a line"):
        rgb_of(Image.new("L", (1000, 1)))
    of_bands(tmp_path / "block.tif", **TILED)
    with pytest.raises(ValueError, match="rio convert FILE") as error:
        read_image(tmp_path / "block.tif")
    words = str(error.value).split("rio convert ")[1].replace("FILE", "block.tif").split()
    subprocess.run([Path(sys.executable).with_name("rio"), "convert", *words], cwd=tmp_path, check=True)
    assert read_image(tmp_path / "NEW.tif").size == (256, 256)
    with pytest.raises(ValueError, match="1100 bands in one block"):
        read_image(tmp_path / "block.tif", Reading(bands=(3, 2, 1)))


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")]
)
def test_an_image_without_room_is_unreadable_and_the_others_are_encoded(tmp_path, encoder, monkeypatch, error):
    for name in "abc":
        Image.new("RGB", (9, 9), (9, 9, ord(name))).save(tmp_path / f"{name}.png")
    preprocess = encoder.preprocess

    def short(image):
        if image.getpixel((0, 0))[2] == ord("b"):
            raise error
        return preprocess(image)

    monkeypatch.setattr(encoder, "preprocess", short)
    with pytest.warns(UserWarning, match=r"1 of 3 images .*b\.png: it takes more memory than is free"):
        folder = extract_features(Archive(tmp_path, ("a.png", "b.png", "c.png"), ("",) * 3), encoder, tmp_path / "f")
    assert read_features(folder).files == ("a.png", "c.png")


def test_a_file_without_room_is_named(tmp_path, monkeypatch):
    blank(tmp_path / "a.png", size=(9, 9))

    def full(*_, **__):
        raise MemoryError

    monkeypatch.setattr("PIL.Image.Image.convert", full)
    with pytest.raises(ValueError, match=r"a\.png: it takes more memory than is free; end other programs"):
        read_image(tmp_path / "a.png")


@pytest.mark.slow
def test_packed_arrays(tmp_path):
    """A zip of zeros: 200 MB in 200 kB."""
    np.savez_compressed(tmp_path / "zeros.npz", feats=np.zeros((50_000, 1000), np.float32), files=[], classes=[])
    words = "more than 32 times as many: it repeats a few values"
    holds(tmp_path / "zeros.npz", words, measured(read_features, tmp_path / "zeros.npz"))
