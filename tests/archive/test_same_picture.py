"""One file is one picture: as a whole, as the window that is the whole, and held in memory; and where it lies."""

import io
import itertools
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps, PngImagePlugin

from rscir_lib.archive import read_archive, read_image
from rscir_lib.archive.archive import polygon_on_earth
from rscir_lib.archive.reading import Reading, rgb_of

rasterio = pytest.importorskip("rasterio")
pytestmark = pytest.mark.filterwarnings("ignore:Dataset has no geotransform")  # of those that are written here
SIDE = 32
y, x = np.mgrid[:SIDE, :SIDE]
PICTURE = np.stack([x * 7, y * 7, (x ^ y) * 7]).astype(np.uint8)
HOLED = np.where(np.arange(SIDE) < 10, 255, PICTURE).astype(np.uint8)
MASK = np.where(np.arange(SIDE) < 10, 0, 255).astype(np.uint8) * np.ones((SIDE, 1), np.uint8)


def png_of_bits(path, bits):
    """Grey of fewer than 8 bits, which Pillow does not write."""
    values, each = PICTURE[0] >> (8 - bits), 8 // bits
    packed = sum(values[:, i::each].astype(np.uint8) << (8 - bits * (i + 1)) for i in range(each)).astype(np.uint8)
    rows = zlib.compress(b"".join(b"\0" + row.tobytes() for row in packed))
    parts = ((b"IHDR", struct.pack(">IIBBBBB", SIDE, SIDE, bits, 0, 0, 0, 0)), (b"IDAT", rows), (b"IEND", b""))
    chunks = (struct.pack(">I", len(d)) + kind + d + struct.pack(">I", zlib.crc32(kind + d)) for kind, d in parts)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


def tiff(path, values, mask=None, **options):
    values = values if values.ndim == 3 else values[None]
    bands, height, width = values.shape
    shape = {"count": bands, "height": height, "width": width, "dtype": options.pop("dtype", values.dtype)}
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(path, "w", driver="GTiff", **shape, **options) as file,
    ):
        file.write(values)
        if mask is not None:
            file.write_mask(mask)


def forms():
    """A name for each form that Pillow and GDAL write here, and what writes it."""
    pillow = {"L": PICTURE[0], "RGB": np.moveaxis(PICTURE, 0, -1)}
    pillow["RGBA"] = np.concatenate([pillow["RGB"], MASK[..., None]], axis=-1)
    for mode, suffix in itertools.product(
        ("1", "L", "P", "RGB", "RGBA", "LA", "CMYK"), ("png", "jpg", "tif", "bmp", "webp", "gif", "avif", "heic")
    ):
        source = Image.fromarray(pillow.get(mode, pillow["RGB"])).convert(mode)
        with io.BytesIO() as file:
            try:
                source.save(file, {"jpg": "JPEG", "tif": "TIFF", "heic": "HEIF"}.get(suffix, suffix.upper()))
            except (OSError, ValueError):  # a mode that the format does not have
                continue
        yield f"Pillow {mode} {suffix}", suffix, lambda path, source=source: source.save(path)
    for turn in range(1, 9):
        exif = Image.Exif()
        exif[0x112] = turn
        for suffix in ("jpg", "avif", "heic"):
            write = lambda path, exif=exif: Image.fromarray(pillow["RGB"]).save(path, exif=exif)  # noqa: E731
            yield f"turned {turn} {suffix}", suffix, write
        yield (
            f"turned {turn} tif",
            "tif",
            lambda path, turn=turn: Image.fromarray(pillow["RGB"]).save(path, tiffinfo={274: turn}),
        )
    for bits in (1, 2, 4):
        yield f"png of {bits} bits", "png", lambda path, bits=bits: png_of_bits(path, bits)
        yield f"tif of {bits} bits", "tif", lambda path, bits=bits: tiff(path, PICTURE[0] >> (8 - bits), nbits=bits)
    yield "16-bit png", "png", lambda path: Image.fromarray(PICTURE[0].astype(np.uint16) * 100).save(path)
    for dtype in ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"):
        values = (PICTURE.astype(float) - (100 if dtype.startswith("i") else 0)).clip(
            -120, 120 if dtype == "int8" else None
        )
        for bands, compress in itertools.product((1, 3, 4), ("none", "lzw", "deflate", "packbits", "zstd")):
            data = np.concatenate([values, values[:1]])[:bands].astype(dtype)
            yield f"tif {dtype} x {bands} {compress}", "tif", lambda path, d=data, c=compress: tiff(path, d, compress=c)
        yield f"tif {dtype} nodata", "tif", lambda path, d=data: tiff(path, d, nodata=float(d.max()))
    yield "tif with a mask", "tif", lambda path: tiff(path, HOLED, mask=MASK)
    yield (
        "tif with alpha",
        "tif",
        lambda path: tiff(path, np.concatenate([HOLED, MASK[None]]), photometric="RGB", alpha="YES"),
    )
    yield "tif tiled", "tif", lambda path: tiff(path, PICTURE, tiled=True, blockxsize=16, blockysize=16)
    yield "tif jpeg", "tif", lambda path: tiff(path, PICTURE, compress="jpeg", photometric="YCBCR", interleave="pixel")


FORMS = {name: (suffix, write) for name, suffix, write in forms()}


@pytest.mark.parametrize("name", FORMS)
def test_the_window_that_is_the_whole_is_the_whole(tmp_path, name):
    suffix, write = FORMS[name]
    write(path := tmp_path / f"a.{suffix}")
    whole = read_image(path)
    window = np.asarray(read_image(path, window=(0, 0, *whole.size)))
    assert np.array_equal(np.asarray(whole), window)
    assert np.asarray(whole).std() > 5  # not a black or white one
    assert np.array_equal(np.asarray(read_image(path, window=(3, 5, 10, 12))), window[5:17, 3:13])


def test_so_many_forms():
    assert len(FORMS) > 150


@pytest.mark.parametrize("name", [name for name in FORMS if name.startswith(("Pillow", "turned", "16-bit"))])
def test_a_picture_in_memory_is_what_its_file_is(tmp_path, name):
    suffix, write = FORMS[name]
    write(path := tmp_path / f"a.{suffix}")
    with Image.open(path) as image:
        held = np.asarray(rgb_of(image))
    assert np.array_equal(held, np.asarray(read_image(path))) or "A tif" in name  # whose transparent part is no data


def test_fractions_in_memory_are_stretched():
    grey = Image.fromarray(PICTURE[0].astype(np.float32) / 255)
    assert np.asarray(rgb_of(grey)).std() > 40


def test_valid_files_that_were_called_unreadable(tmp_path):
    text = PngImagePlugin.PngInfo()
    text.add_itxt("XML:com.adobe.xmp", "x" * 2_000_000, zip=True)
    Image.fromarray(np.moveaxis(PICTURE, 0, -1)).save(tmp_path / "text.png", pnginfo=text)
    assert read_image(tmp_path / "text.png").size == (SIDE, SIDE)
    with rasterio.open(
        tmp_path / "palette.tif", "w", driver="GTiff", height=4, width=4, count=1, dtype="uint16", photometric="PALETTE"
    ) as file:
        file.write(np.arange(300, 316, dtype=np.uint16).reshape(4, 4), 1)
        file.write_colormap(1, {i: (i % 256, 0, 0, 255) for i in range(65536)})
    assert np.asarray(read_image(tmp_path / "palette.tif"))[0, :, 0].tolist() == [44, 45, 46, 47]
    tiff(tmp_path / "complex.tif", np.zeros((4, 4), np.complex64))
    with pytest.raises(ValueError, match="values of type complex64 are no brightness; convert the file first"):
        read_image(tmp_path / "complex.tif")


@pytest.mark.parametrize(
    "name",
    ["at 3.04.05\u202fPM.png", "Luftbild\u00a01.png", "\u06a9\u0648\u0647\u200c\u0647\u0627.png",
     "\U0001f469\u200d\U0001f33e.png", "Flug\u00adplatz.png", "1:5000.png", " blank.png", "for\u00eat.png"],
)  # fmt: skip
def test_names_that_people_give(tmp_path, name):
    from rscir_lib.archive import write_listing

    Image.new("RGB", (8, 8)).save(tmp_path / name)
    archive = read_archive(tmp_path)
    assert archive.files == (name,)
    write_listing(archive, tmp_path / "list.csv")
    assert read_archive(tmp_path, tmp_path / "list.csv").files == (name,)


@pytest.mark.parametrize(("crs", "origin", "widest"), [
    ("EPSG:3857", (20037508 - 32000, -1.9e6, 1000, 1000), 1), ("EPSG:4326", (179.5, -17, 1 / 32, 1 / 32), 1),
    ("EPSG:4326", (350, 50, 20 / 32, 10 / 32), 20), ("EPSG:32701", (160000, 8000000, 1000, 1000), 1),
    ("EPSG:4326", (-180, 90, 360 / 32, 180 / 32), 360),
])  # fmt: skip
def test_places_across_the_antimeridian(tmp_path, crs, origin, widest):
    shapely = pytest.importorskip("shapely.geometry")
    tiff(tmp_path / "a.tif", PICTURE, crs=crs, transform=rasterio.transform.from_origin(*origin))
    outline = shapely.shape(read_archive(tmp_path).footprint(0))
    parts = list(getattr(outline, "geoms", [outline]))
    assert all(part.exterior.is_ccw and -180 <= part.bounds[0] < part.bounds[2] <= 180 for part in parts)
    assert all(part.bounds[2] - part.bounds[0] <= widest for part in parts)
    assert sum(part.area for part in parts) > 0


@pytest.mark.parametrize("crs", [
    'LOCAL_CS["Local Coordinates (m)",UNIT["metre",1]]',
    'GEOGCS["Moon 2000",DATUM["D_Moon_2000",SPHEROID["Moon_2000_IAU_IAG",1737400,0]],PRIMEM["Reference_Meridian",0],'
    'UNIT["Degree",0.0174532925199433]]',
    "EPSG:32633",
])  # fmt: skip
def test_no_place_on_earth(tmp_path, crs):
    origin = (1e12, 1e12, 1, 1) if crs.startswith("EPSG") else (10, 50, 0.01, 0.01)
    tiff(tmp_path / "a.tif", PICTURE, crs=crs, transform=rasterio.transform.from_origin(*origin))
    assert read_archive(tmp_path).footprint(0) is None


def test_a_quadrilateral_is_cut_in_two_at_the_antimeridian():
    shapely = pytest.importorskip("shapely")
    cut = shapely.geometry.shape(polygon_on_earth([(179.0, 0.0), (179.0, -2.0), (-179.0, -2.0), (-179.0, 0.0)]))
    halves = shapely.MultiPolygon([shapely.box(-180, -2, -179, 0), shapely.box(179, -2, 180, 0)])
    assert all(part.exterior.is_ccw for part in cut.geoms)
    assert cut.normalize().equals_exact(halves.normalize(), 1e-9)


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "heic", "avif", "tif"])
def test_a_picture_is_turned_as_its_exif_says_once_whatever_its_format(tmp_path, suffix, turn):
    exif = Image.Exif()
    exif[0x112] = turn
    corners = np.zeros((64, 96, 3), np.uint8)
    corners[:32, :48], corners[:32, 48:], corners[32:, :48] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    picture = Image.fromarray(corners)
    picture.save(tmp_path / f"a.{suffix}", exif=exif.tobytes())  # of HEIC the container's turn counts, set by these
    picture.getexif()[0x112] = turn
    expected = np.asarray(ImageOps.exif_transpose(picture)).astype(int)
    read = np.asarray(read_image(tmp_path / f"a.{suffix}")).astype(int)
    assert read.shape == expected.shape
    assert np.abs(read - expected).mean() < 8  # what a lossy format loses


def test_a_heic_too_large_names_what_helps(tmp_path):
    """rasterio may lack the format: it is saved as JPEG first."""
    Image.new("RGB", (64, 64)).save(path := tmp_path / "a.heic")
    for window in (None, (0, 0, 8, 8)):
        with pytest.raises(ValueError, match="save it as JPEG, then cut it into windows by make tiles"):
            read_image(path, Reading(most_pixels=100), window)
