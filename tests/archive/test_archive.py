"""Archives: any folder of images, and how one is read."""

import hashlib
import os
import pickle
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from PIL import Image

from rscir_lib.archive import Archive, read_archive, write_listing
from rscir_lib.archive.reading import Reading, colour_bands, open_raster, read_image
from rscir_lib.archive.tiles import read_scenes
from rscir_lib.encoders import load_encoder
from rscir_lib.features import extract_features, read_features

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def fill(root, *files, size=(9, 7)):
    for file in files:
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (10, 20, 30)).save(path)
    return root


def write_raster(path, array, **profile):
    """array (H, W) or (H, W, bands), any dtype."""
    bands = np.atleast_3d(array)
    height, width, count = bands.shape
    size = {"width": width, "height": height, "count": count, "dtype": bands.dtype}
    with rasterio.open(path, "w", **({"driver": "GTiff"} | size | profile)) as file:
        file.write(np.moveaxis(bands, -1, 0))
    return path


# --- which files, which classes


@pytest.mark.parametrize(
    ("files", "classes", "note"),
    [
        (["b.jpg", "a.png"], ["", ""], "2 images, no classes"),
        (["IMG_01.jpg", "IMG_02.jpg"], ["", ""], "2 images, no classes"),
        (["sea/a.jpg", "oil_well/b.jpg"], ["oilwell", "sea"], "2 images, 2 classes from their folders"),
        (["images/sea/a.jpg", "other/b.jpg"], ["sea"], "1 images, 1 classes from their folders"),
        (["train/sea/a.jpg", "test/sea/a.jpg", "c.jpg"], ["", "sea", "sea"], "1 classes from their folders, 1 images"),
        (["images/a.jpg"], [""], "1 images, no classes"),
        (
            ["sea_1.jpg", "sea_2.jpg", "oil_well1.jpg", "oil_well2.jpg"],
            ["oilwell", "oilwell", "sea", "sea"],
            "2 classes from their file names, as in PatternNet",
        ),
        (["a b/c d.bmp", "ü/é.webp", "x/y.jp2", "x/z.TIF"], ["ab", "x", "x", "ü"], "3 classes"),
    ],
)
def test_a_folder_of_images_is_an_archive(tmp_path, files, classes, note):
    archive = read_archive(fill(tmp_path / "mine", *files))
    assert sorted(archive.files) == list(archive.files)
    assert list(archive.classes) == classes
    assert note in archive.note
    assert all(archive.read(i).size == (9, 7) for i in range(len(archive)))


def test_what_is_left_out_is_counted(tmp_path):
    root = fill(tmp_path / "mine", "a.jpg", ".thumbs/b.jpg")
    for name in ("._a.jpg", "notes.txt", "a.tfw", "b.TXT", "README"):
        (root / name).write_text("no image")
    os.mkfifo(root / "pipe.jpg")
    (root / "broken.jpg").symlink_to("gone.jpg")
    (root / "line\nbreak.jpg").touch()
    archive = read_archive(root)
    assert archive.files == ("a.jpg",)
    for part in (
        "1 hidden files",
        "1 hidden folders",
        "2 .txt files",
        "1 .tfw files",
        "1 files without suffix",
        "2 pipes, devices or broken links",
        "1 files with a control character",
    ):
        assert part in archive.note
    (root / "a.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"no archive here, for it holds no image; left out: .*2 \.txt files"):
        read_archive(root)


def test_what_the_workbook_reads_and_writes_beside_the_images_is_no_lost_picture(tmp_path):
    root = fill(tmp_path / "mine", "a.jpg")
    for name in ("tiles256.csv", "captions.json", "multilabels.tsv", "clip.NPZ", "notes.txt"):
        (root / name).write_text("no image")
    (root / "reading.json").write_text("{}")
    assert read_archive(root).left_out == ((".txt files", 1, ""),)


PHONE = {"a.jpg": 6, "b.HEIC": 2, "c.heif": 1, "d.gif": 1, "e.DNG": 5, "f.mov": 1, "g.AVIF": 1, "h.webp": 1, "i.nef": 1}
FOLDERS = [
    ".Trash", ".Trash-1000", ".thumbnails", "@eaDir", "#recycle", "@Recycle", "@tmp", "#snapshot", "$RECYCLE.BIN",
    "System Volume Information", "__MACOSX", "lost+found", "Recycler", "found.000",
]  # fmt: skip


def test_what_phones_drives_and_systems_leave_is_no_image_and_is_counted(tmp_path):
    """Folders of systems are neither images nor classes, whatever their case and depth; pictures that aren't read have
    a remedy."""
    for name, count in PHONE.items():
        for i in range(count):
            (tmp_path / "my phone" / "beach").mkdir(parents=True, exist_ok=True)
            (tmp_path / "my phone" / "beach" / f"{i}{name}").write_bytes(b"whatever it is")
    for folder in (*FOLDERS, *(name.swapcase() for name in FOLDERS)):
        fill(tmp_path / "my phone", f"beach/{folder}/thumb.jpg", f"{folder}/deep/b.png")
    for name in ("Thumbs.db", "desktop.ini", "ehthumbs.db", "beach/Thumbs.db", "beach/.DS_Store", "beach/._a.jpg"):
        (tmp_path / "my phone" / name).write_text("system")
    archive = read_archive(tmp_path / "my phone")
    assert len(archive) == 12
    assert set(archive.classes) == {"beach"}
    left = {kind: (count, remedy) for kind, count, remedy in archive.left_out}
    print(f"{sum(count for count, _ in left.values())} files and folders left out, of {len(left)} kinds")
    seen = {p.name for p in (tmp_path / "my phone").iterdir() if p.is_dir()}
    hidden = sum(name.startswith(".") for name in seen)
    assert left["hidden folders"][0] == 2 * hidden
    assert left["system folders"][0] == 2 * (len(seen) - 1 - hidden)
    assert left["system files"] == (4, "")
    number, remedy = left[".dng files"]
    assert number == 5
    command = remedy.partition("as ImageMagick 7 does: ")[2]
    (tmp_path / "bin").mkdir()  # a stand-in that notes what it is given: the command works wherever it is typed
    (tmp_path / "bin" / "magick").write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > "{tmp_path}/given"\n')
    (tmp_path / "bin" / "magick").chmod(0o755)
    paths = os.pathsep.join([str(tmp_path / "bin"), os.environ["PATH"]])
    subprocess.run(command, shell=True, check=True, cwd="/", env={**os.environ, "PATH": paths})
    converted = (tmp_path / "given").read_text().splitlines()
    assert converted[:3] == ["mogrify", "-format", "jpg"]
    assert len(converted[3:]) == number
    assert all(Path(file).suffix.lower() == ".dng" and Path(file).is_file() for file in converted[3:])
    assert left[".mov files"] == (1, "")
    assert {kind for kind, (_, remedy) in left.items() if remedy} == {".dng files", ".nef files"}
    assert "5 .dng files (save them as JPEG" in archive.note


def test_images_that_a_listing_does_not_hold_are_counted(tmp_path):
    """By their files, where it lists windows; beside what else is left out. They need not be there."""
    root = fill(tmp_path / "mine", "a/b.jpg", "a/new.heic", "scene.tif")
    for other in ("notes.txt", "raw.dng"):
        (root / other).touch()
    listing = tmp_path / "some.csv"
    listing.write_text("a/b.jpg 0 a\nscene.tif#0,0,9,9 1 -\nscene.tif#9,0,9,9 1 -\nabsent.jpg 1 -\n")
    archive = read_archive(root, listing)
    left = {kind: count for kind, count, _ in archive.left_out}
    assert left == {".txt files": 1, ".dng files": 1, "images that some.csv doesn't list": 1}
    assert "doesn't list (write the listing again" in archive.note
    listing.write_text("a/b.jpg 0 a\nscene.tif 1 -\na/new.heic 0 a\n")
    assert {kind for kind, *_ in read_archive(root, listing).left_out} == {".txt files", ".dng files"}
    listing.write_text("a/b.jpg 0 a\n")
    assert read_archive(tmp_path / "nowhere", listing).left_out == ()


def test_folders_without_permission_are_counted(tmp_path, monkeypatch):
    root = fill(tmp_path / "mine", "a/b.jpg", "closed/c.jpg")
    allowed = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: "closed" not in str(path) and allowed(path, mode))
    archive = read_archive(root)
    assert archive.files == ("a/b.jpg",)
    assert archive.left_out == (("folders without permission", 1, f"chmod -R u+rX {root} gives it"),)


def test_links(tmp_path):
    outside = fill(tmp_path / "elsewhere", "b.jpg", "c/d.jpg")
    root = fill(tmp_path / "mine", "a.jpg")
    (root / "b.jpg").symlink_to(outside / "b.jpg")
    (root / "round").symlink_to(root)
    (root / "c").symlink_to(outside / "c")
    archive = read_archive(root)
    assert archive.files == ("a.jpg", "b.jpg", "c/d.jpg")
    assert "2 lie outside the folder, through links" in archive.note


def test_order_and_fingerprint_of_the_patternnet_layout_stand(tmp_path):
    files = ["images/harbor/b.jpg", "images/harbor 2/a.jpg", "images/beach/z.jpg"]
    archive = read_archive(fill(tmp_path, *files))
    assert archive.files == ("images/beach/z.jpg", "images/harbor/b.jpg", "images/harbor 2/a.jpg")
    rows = "images/beach/z.jpg beach\nimages/harbor/b.jpg harbor\n"
    assert archive.subset([0, 1]).fingerprint == hashlib.sha256(rows.encode()).hexdigest()


# --- listings


def test_listing_with_spaces_and_round_trip(tmp_path):
    (tmp_path / "patternnet.csv").write_text("images/my beach/a 1.jpg 0 oil_well\n./b.jpg -1 -\n\n")
    archive = read_archive(tmp_path)
    assert archive.files == ("images/my beach/a 1.jpg", "b.jpg")
    assert archive.classes == ("oilwell", "")
    write_listing(archive, tmp_path / "again.csv")
    again = read_archive(tmp_path, tmp_path / "again.csv")
    assert (again.files, again.classes) == (archive.files, archive.classes)
    with pytest.raises(FileNotFoundError, match="not on disk"):
        again.read(0)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/etc/passwd 0 c", "'/etc/passwd' is not a path inside the archive; give it relative to the root"),
        ("../../x.jpg 0 c", r"'../../x.jpg' is not a path inside"),
        ("a/../../x.jpg 0 c", "is not a path inside"),
        ("C:/x.jpg 0 c", "is not a path inside"),
        (".. 0 c", "is not a path inside"),
        ("./images/a.jpg 0 c", "'images/a.jpg' is listed twice; remove one line"),
        ("images//a.jpg 0 c", "'images/a.jpg' is listed twice"),
        ("path index class", "found 'path index class'$"),
        ("images/b.jpg c", "expected `path class-index class-name`"),
        ("a\x07.jpg 0 c", "control character"),
    ],
)
def test_bad_lines_name_file_line_and_value(tmp_path, line, message):
    (tmp_path / "patternnet.csv").write_text(f"images/a.jpg 0 c\n{line}\n")
    with pytest.raises(ValueError, match=r"patternnet\.csv, line 2: .*" + message):
        read_archive(tmp_path)


def test_header_and_pipe_as_listing(tmp_path):
    (tmp_path / "a.csv").write_text("file index class\na.jpg 0 c\n")
    with pytest.raises(ValueError, match=r"line 1: .*a header\? remove the line"):
        read_archive(tmp_path, tmp_path / "a.csv")
    os.mkfifo(tmp_path / "b.csv")
    with pytest.raises(FileNotFoundError, match="no such listing"):
        read_archive(tmp_path, tmp_path / "b.csv")


# --- the object itself


@pytest.mark.parametrize(
    ("files", "classes", "message"),
    [
        (("a.jpg", "./a.jpg"), ("", ""), "'a.jpg' stands twice"),
        (("a.jpg",), (), "1 files, 0 classes"),
        (("/a.jpg",), ("",), "not a path inside"),
        (("b/../../a.jpg",), ("",), "not a path inside"),
        (("",), ("",), "not a path inside"),
        (("a\nb.jpg",), ("",), "control character"),
        (("a\udcff.jpg",), ("",), "broken encoding"),
    ],
)
def test_an_archive_checks_itself(tmp_path, files, classes, message):
    with pytest.raises(ValueError, match=message):
        Archive(tmp_path, files, classes)


def test_an_archive_travels(tmp_path):
    archive = read_archive(fill(tmp_path, "a.jpg", "b.jpg"))
    again = pickle.loads(pickle.dumps(archive))
    assert again == archive
    assert again.reading == archive.reading
    assert archive.subset([1]).reading == archive.reading
    assert archive.footprint(0) is None
    custom = read_archive(tmp_path, rule=Reading(limits=(0, 4095), bands=(4, 3, 2), nodata=0))
    assert custom.reading == {"reading": "8-bit RGB; other depths: values 0 to 4095; bands 4 3 2; no data: 0"}


@pytest.mark.parametrize(
    "values",
    [
        {"bands": (1, 2)},
        {"bands": (0,)},
        {"bands": (1.5,)},
        {"percentiles": (98, 2)},
        {"limits": (5, 5)},
        {"limits": (1, 2, 3)},
        {"most_pixels": 0},
    ],
)
def test_a_rule_checks_itself(values):
    with pytest.raises(ValueError, match=rf"{next(iter(values))} .*wanted|{next(iter(values))} .*: name"):
        Reading(**values)


def test_the_rule_beside_the_images(tmp_path, picture):
    """Band choice and limits for whoever works with commands and notebooks alone."""
    write_raster(tmp_path / "a.tif", picture[..., ::-1].astype(np.uint16) * 16)
    (tmp_path / "reading.json").write_text('{"bands": [3, 2, 1], "limits": [0, 4080], "nodata": null}')
    archive = read_archive(tmp_path)
    assert archive.rule == Reading(bands=(3, 2, 1), limits=(0, 4080))
    np.testing.assert_array_equal(np.asarray(archive.read(0)), picture)
    assert read_archive(tmp_path, rule=Reading(bands=(1,))).rule == Reading(bands=(1,))  # what is passed goes first
    assert read_scenes(tmp_path / "a.tif", tile=64).rule == archive.rule


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "expected a JSON object of bands, percentiles, limits"),
        ("[]", "expected a JSON object"),
        ('{"band": [1]}', "unexpected keyword argument 'band'"),
        ('{"bands": 3}', "expected a JSON object"),
        ('{"bands": ["red"]}', "'red': a number is wanted"),
        ('{"limits": [0, true]}', "True: a number is wanted"),
        ('{"percentiles": [2]}', "two numbers that rise"),
        ('{"nodata": false}', "False: a number is wanted"),
        ('{"nodata": []}', "a number is wanted"),
    ],
)
def test_a_wrong_rule_beside_the_images_is_named(tmp_path, text, message):
    fill(tmp_path, "a.jpg")
    (tmp_path / "reading.json").write_text(text)
    with pytest.raises(ValueError, match=rf"reading\.json: .*{message}"):
        read_archive(tmp_path)


# --- reading


@pytest.fixture(scope="module")
def picture():
    """A picture with much contrast, (96, 128, 3) uint8."""
    rows, columns = np.mgrid[:96, :128]
    picture = np.stack([columns * 2, rows * 2 + 30, 255 - columns - rows], axis=-1).astype(np.uint8)
    picture[20:50, 30:80] = (240, 230, 220)
    picture[60:80, 10:120:8] = (20, 60, 10)
    return picture


@pytest.fixture(scope="module")
def mixed(tmp_path_factory, picture):
    """A folder of all kinds of files; those of `same/` and `grey/` show the same picture."""
    root = tmp_path_factory.mktemp("mixed ü")
    for folder in ("same", "grey", "other"):
        (root / folder).mkdir()
    same, grey, other = root / "same", root / "grey", root / "other"
    image, deep = Image.fromarray(picture), picture.astype(np.uint16)
    image.save(same / "plain.png")
    image.save(same / "plain.bmp")
    image.save(same / "plain.tif")
    image.save(same / "lossless.webp", lossless=True)
    image.save(same / "plain.jp2", irreversible=False)
    image.save(same / "good.jpg", quality=95)
    image.convert("RGBA").save(same / "alpha.png")
    image.convert("CMYK").save(same / "cmyk.tif")
    image.convert("CMYK").save(same / "cmyk.jpg", quality=95)
    turned, exif = image.transpose(Image.Transpose.ROTATE_90), Image.Exif()
    exif[0x0112] = 6  # shown a quarter turn to the right
    turned.save(same / "turned ü é.jpg", quality=95, exif=exif)
    write_raster(same / "sixteen.tif", deep * 257)
    write_raster(same / "sixteen.png", deep * 257, driver="PNG")
    write_raster(same / "twelve bits.tif", deep * 16)
    write_raster(same / "twelve.jp2", deep * 16, driver="JP2OpenJPEG", REVERSIBLE="YES", QUALITY=100)
    write_raster(same / "four bands.tif", np.concatenate([deep, deep[..., :1]], axis=-1) * 257)
    write_raster(same / "signed.tif", picture.astype(np.int32) * 1000)
    write_raster(same / "fractions.tif", picture.astype(np.float32) / 255)
    write_raster(same / "infrared.tif", np.concatenate([picture, picture[..., :2]], axis=-1))
    l_image = image.convert("L")
    levels = np.asarray(l_image)
    l_image.save(grey / "plain.png")
    l_image.convert("LA").save(grey / "alpha.png")
    Image.fromarray(levels.astype(np.uint16) * 257).save(grey / "sixteen.png")
    Image.fromarray(levels.astype(np.uint16) * 16).save(grey / "twelve.tif")
    Image.fromarray(levels.astype(np.int32) * 70000).save(grey / "thirtytwo.tif")
    Image.fromarray(levels.astype(np.float32) / 255).save(grey / "fractions.tif")
    image.quantize(16).save(other / "palette.png")
    image.crop((0, 0, 1, 1)).save(other / "one pixel.png")
    write_raster(other / "one deep pixel.tif", np.full((1, 1), 777, np.uint16))
    (other / "truncated.jpg").write_bytes((same / "good.jpg").read_bytes()[:900])
    (other / "truncated.tif").write_bytes((same / "sixteen.tif").read_bytes()[:900])
    (other / "text.jpg").write_text("%!PS not an image\n")
    (other / "empty.png").write_bytes(b"")
    (other / "catalogue.tif").write_text("<VRTDataset rasterXSize='4' rasterYSize='4'></VRTDataset>")
    Image.new("L", (12000, 12000)).save(other / "scene.png")
    write_raster(other / "complex.tif", np.ones((4, 4), np.complex64))
    write_raster(other / "void.tif", np.zeros((4, 4), np.uint16), nodata=0)
    return read_archive(root)


def features_of(images):
    encoder = load_encoder("demo", device="cpu")
    return encoder.encode_images(torch.stack([encoder.preprocess(image) for image in images]))


@pytest.mark.slow
@pytest.mark.parametrize("cls", ["same", "grey"])
def test_the_same_picture_in_any_format_has_the_same_features(mixed, picture, cls):
    reference = Image.fromarray(picture).convert("L" if cls == "grey" else "RGB").convert("RGB")
    positions = [i for i, name in enumerate(mixed.classes) if name == cls]
    images = [mixed.read(i) for i in positions]
    assert {(image.mode, image.size) for image in images} == {("RGB", (128, 96))}
    similar = features_of(images) @ features_of([reference])[0]
    assert dict(zip([mixed.names[i] for i in positions], similar > 0.99, strict=True)) == {
        mixed.names[i]: True for i in positions
    }


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("truncated.jpg", r"not a readable image \(.*truncated.*\); replace the file"),
        ("truncated.tif", r"not a readable image .*; replace the file"),
        ("text.jpg", "its content is not of an image format that is read here"),
        ("catalogue.tif", "its content is not of an image format"),
        ("empty.png", "the file is empty"),
        ("scene.png", r"a scene, too large for one feature \(12000 x 12000 pixels, the limit is 16,777,216\); cut it"),
        ("complex.tif", "complex64 are no brightness"),
        ("void.tif", "band 1 holds no data where it was sampled"),
    ],
)
def test_what_cannot_be_read_says_why_and_what_to_do(mixed, name, message):
    with pytest.raises(ValueError, match=rf"{name}: .*{message}"):
        mixed.read(mixed.names.index(name))


def test_one_pixel_and_no_contrast_are_readable(mixed):
    assert mixed.read(mixed.names.index("one pixel.png")).size == (1, 1)
    assert mixed.read(mixed.names.index("one deep pixel.tif")).getpixel((0, 0)) == (194,) * 3  # 777 of 1023
    assert np.isfinite(features_of([mixed.read(mixed.names.index("one pixel.png"))])).all()


@pytest.mark.parametrize("name", ["a.tif", "a.png"])
@pytest.mark.slow
def test_a_scene_beyond_pillows_own_bound_is_named_alike(tmp_path, name):
    Image.new("1", (18_000, 16_000)).save(tmp_path / name)
    with pytest.raises(ValueError, match=rf"{name}: a scene, too large for one feature .*make tiles"):
        read_image(tmp_path / name)


@pytest.mark.slow
def test_the_limit_can_be_raised(mixed, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    path = mixed.path(mixed.names.index("scene.png"))
    assert read_image(path, Reading(most_pixels=200_000_000)).size == (12000, 12000)


def test_what_is_no_regular_file_never_hangs(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    for path in (tmp_path / "pipe.jpg", tmp_path, "/dev/zero"):
        with pytest.raises(ValueError, match="a folder, pipe or device"):
            read_image(path)


def test_dim_sensor_data_is_stretched_over_the_file_a_band_at_a_time(tmp_path, picture):
    dim = picture.astype(np.uint16) * np.array([1, 2, 3], np.uint16) // 4 + 9000
    path = write_raster(tmp_path / "a.tif", dim)
    got = np.asarray(read_image(path)).astype(float)
    for band in range(3):
        low, high = np.percentile(dim[..., band], (2, 98))
        expected = ((dim[..., band] - low) / (high - low) * 255).clip(0, 255)
        np.testing.assert_allclose(got[..., band], expected, atol=0.5)
    limited = np.asarray(read_image(path, Reading(limits=(9000, 9200))))
    np.testing.assert_allclose(limited, ((dim - 9000.0) / 200 * 255).clip(0, 255), atol=0.5)


def test_bands_by_choice_by_name_and_missing(tmp_path, picture):
    path = write_raster(
        tmp_path / "a.tif", np.concatenate([picture[..., ::-1], picture[..., :1]], axis=-1), photometric="MINISBLACK"
    )
    np.testing.assert_array_equal(np.asarray(read_image(path, Reading(bands=(3, 2, 1)))), picture)
    np.testing.assert_array_equal(np.asarray(read_image(path, Reading(bands=(2,))))[..., 0], picture[..., 1])
    with pytest.raises(ValueError, match=r"a\.tif: band 9 is asked for, it has 4"):
        read_image(path, Reading(bands=(9,)))
    with rasterio.open(path, "r+") as file:
        named = rasterio.enums.ColorInterp
        file.colorinterp = [named.blue, named.green, named.red, named.undefined]
    assert colour_bands(open_raster(path), Reading()) == (3, 2, 1)
    path = write_raster(tmp_path / "b.tif", np.repeat(picture[..., :1], 2, axis=-1).astype(np.uint16) * 257)
    np.testing.assert_array_equal(np.asarray(read_image(path)), np.repeat(picture[..., :1], 3, axis=-1))


def test_palette(mixed):
    position = mixed.names.index("palette.png")
    with Image.open(mixed.path(position)) as image:
        expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(np.asarray(mixed.read(position)), expected)
    window = read_image(mixed.path(position), window=(30, 10, 40, 20))
    np.testing.assert_array_equal(np.asarray(window), expected[10:30, 30:70])


def test_pixels_without_data_are_black_and_do_not_count(tmp_path, picture):
    deep = picture.astype(np.float32) / 255
    deep[:40] = -9999
    deep[50, 50] = np.nan
    got = np.asarray(read_image(write_raster(tmp_path / "a.tif", deep, nodata=-9999)))
    assert not got[:40].any()
    assert not got[50, 50].any()
    np.testing.assert_allclose(got[60:], picture[60:], atol=1)
    undeclared = write_raster(tmp_path / "b.tif", deep)
    np.testing.assert_array_equal(np.asarray(read_image(undeclared, Reading(nodata=-9999))), got)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow tells of damaged tags
@pytest.mark.slow
def test_damaged_files_raise_nothing_else(mixed, tmp_path):
    rng, told = random.Random(0), []
    for name in ("good.jpg", "palette.png", "sixteen.tif", "twelve.jp2", "lossless.webp", "plain.bmp", "sixteen.png"):
        whole = mixed.path(mixed.names.index(name)).read_bytes()
        for _ in range(25):
            data = bytearray(whole[: rng.choice([len(whole), rng.randrange(len(whole))])])
            for _ in range(rng.randrange(1, 6) if data else 0):
                data[rng.randrange(min(len(data), 400))] = rng.randrange(256)
            path = tmp_path / f"damaged{name[-4:]}"
            path.write_bytes(data)
            try:
                assert read_image(path).mode == "RGB"
            except ValueError as error:
                told.append(str(error))
    assert len(told) > 50
    assert all(message.startswith(f"{tmp_path}/damaged") for message in told)


def test_without_rasterio_plain_images_are_read_and_others_say_what_is_needed(mixed, monkeypatch):
    monkeypatch.setitem(sys.modules, "rasterio", None)
    rasterio_free = {"plain.png", "plain.bmp", "alpha.png", "cmyk.jpg", "lossless.webp"}
    for i, name in enumerate(mixed.names):
        if name in rasterio_free:
            assert mixed.read(i).mode == "RGB"
    with pytest.raises(ValueError, match=r"sixteen\.tif: this file is read with rasterio .*pip install rasterio"):
        read_image(mixed.path(mixed.names.index("sixteen.tif")))


@pytest.mark.slow
def test_features_of_a_mixed_folder(mixed, tmp_path):
    with pytest.warns(UserWarning, match=r"8 of 35 images of mixed ü\d can't be read and are left out"):
        folder = extract_features(mixed, load_encoder("demo", device="cpu"), tmp_path / "store", workers=2)
    features = read_features(folder)
    bad = {"truncated.jpg", "truncated.tif", "text.jpg", "catalogue.tif", "empty.png", "scene.png", "complex.tif"}
    assert {file.removeprefix("other/") for file in features.unreadable} == {*bad, "void.tif"}
    assert "cut it into windows by make tiles DATASET_ROOT='" in features.unreadable["other/scene.png"]
    assert "replace the file" in features.unreadable["other/truncated.jpg"]
    readable = [i for i, file in enumerate(mixed.files) if file not in features.unreadable]
    assert features.files == tuple(mixed.files[i] for i in readable)
    expected = features_of([mixed.read(i) for i in readable])
    np.testing.assert_allclose(features.feats, expected, atol=1e-5)
    assert features.provenance["reading"] == mixed.reading["reading"]
