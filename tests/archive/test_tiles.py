"""Scenes as archives of windows."""

import multiprocessing
import pickle

import geopandas
import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.warp import transform as transform_points
from shapely.geometry import shape

from helpers import UTM, write_scene
from rscir_lib.apps.commands import cli
from rscir_lib.archive import read_archive, split_window
from rscir_lib.archive import reading as pixels
from rscir_lib.archive.reading import Reading
from rscir_lib.archive.tiles import read_scenes
from rscir_lib.encoders import load_encoder
from rscir_lib.features import extract_features, read_features

pytestmark = pytest.mark.filterwarnings(
    "ignore::rasterio.errors.NotGeoreferencedWarning",
    "ignore::PendingDeprecationWarning",  # affine's, of rasterio's own code
)


def picture(values):
    return np.rint(np.moveaxis(values[:3], 0, -1) * 255.0 / 4095).astype(np.uint8)


def test_windows_cover_the_scene_and_hold_its_pixels(tmp_path):
    values = write_scene(tmp_path / "my scene.tif", **UTM)
    archive = read_scenes(tmp_path, tile=256, overlap=32)
    assert len(archive) == 3 * 3
    assert archive.files[0] == "my scene.tif#0,0,256,256"
    assert archive.files[-1] == "my scene.tif#444,244,256,256"
    assert archive.path(3) == tmp_path / "my scene.tif"
    assert archive.nodata == (0.0,) * 9
    assert "9 windows of at most 256 x 256 pixels, overlap 32, from 1 images" in archive.note
    covered, whole = np.zeros((500, 700), bool), picture(values)
    for i, file in enumerate(archive.files):
        column, row, width, height = split_window(file)[1]
        where = np.s_[row : row + height, column : column + width]
        covered[where] = True
        np.testing.assert_array_equal(np.asarray(archive.read(i)), whole[where])  # one stretch, the scene's
    assert covered.all()


def test_footprints_lie_within_a_pixel(tmp_path):
    write_scene(tmp_path / "scene.tif", **UTM)
    archive = read_scenes(tmp_path / "scene.tif", tile=200)
    truth = []
    for file in archive.files:
        column, row, width, height = split_window(file)[1]
        with rasterio.open(tmp_path / "scene.tif") as scene:
            window = rasterio.windows.Window(column, row, width, height)
            truth.append(
                shape({"type": "Polygon", "coordinates": [_ring(*rasterio.windows.bounds(window, scene.transform))]})
            )
    frame = geopandas.GeoDataFrame(
        geometry=[shape(archive.footprint(i)) for i in range(len(archive))], crs=4326
    ).to_crs(32633)
    assert frame.hausdorff_distance(geopandas.GeoSeries(truth, crs=32633)).max() < 0.01  # metres; a pixel has ten
    (east,), (north,) = transform_points(
        "EPSG:4326", "EPSG:32633", *[[c] for c in archive.footprint(0)["coordinates"][0][0]]
    )
    assert (east, north) == pytest.approx((500_000, 5_400_000), abs=0.01)


def _ring(west, south, east, north):
    return [(west, north), (west, south), (east, south), (east, north), (west, north)]


def test_whole_georeferenced_images_have_footprints_too(tmp_path):
    write_scene(tmp_path / "a.tif", 50, 40, **UTM)
    write_scene(tmp_path / "b.tif", 50, 40)
    archive = read_archive(tmp_path)
    own = geopandas.GeoSeries([shape(archive.footprint(0))], crs=4326).to_crs(32633)
    assert own.iloc[0].bounds == pytest.approx((500_000, 5_399_600, 500_500, 5_400_000), abs=0.01)
    assert archive.footprint(1) is None


def test_share_of_pixels_without_data(tmp_path):
    values = write_scene(tmp_path / "scene.tif", 400, 400, **UTM) + 1
    values[:, :100] = 0
    values[:, :300, :100] = 0
    with rasterio.open(tmp_path / "scene.tif", "r+") as file:
        file.nodata = 0
        file.write(values)
    whole = read_scenes(tmp_path, tile=200, max_nodata=1)
    assert whole.nodata == pytest.approx((0.75, 0.5, 0.25, 0))
    assert read_scenes(tmp_path, tile=200).nodata == pytest.approx((0.5, 0.25, 0))
    some = read_scenes(tmp_path, tile=200, max_nodata=0.3)
    assert [file.split("#")[1] for file in some.files] == ["0,200,200,200", "200,200,200,200"]
    assert "left out: 2 windows with more than 30% of pixels without data" in some.note
    assert some.subset([1]).nodata == (0,)
    with rasterio.open(tmp_path / "scene.tif", "r+") as file:
        file.nodata = None
    assert read_scenes(tmp_path, tile=200).nodata == (0.0,) * 4
    declared = read_scenes(tmp_path, tile=200, rule=Reading(nodata=0))
    assert declared.nodata == pytest.approx((0.5, 0.25, 0))
    with rasterio.open(tmp_path / "scene.tif", "r+") as file:
        file.nodata = 0
        file.write(np.zeros_like(values))
    with pytest.raises(ValueError, match=r"no window holds enough data .*raise max_nodata"):
        read_scenes(tmp_path, tile=200)


@pytest.mark.parametrize("name", ["a.tif", "a.png", "a.jpg", "a.bmp", "a.webp"])
def test_plain_large_files_are_tiled_too(tmp_path, name):
    colours = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    Image.fromarray(colours).resize((320, 240)).save(tmp_path / name)
    archive = read_scenes(tmp_path, tile=160)
    assert len(archive) == 4
    whole = read_archive(tmp_path).read(0)
    for i, box in enumerate([(0, 0, 160, 160), (160, 0, 320, 160), (0, 80, 160, 240), (160, 80, 320, 240)]):
        np.testing.assert_allclose(np.asarray(archive.read(i)), np.asarray(whole.crop(box)), atol=12)  # two decoders
        assert archive.footprint(i) is None


def test_small_and_damaged_files_stay_whole(tmp_path):
    write_scene(tmp_path / "sea" / "large.tif", 300, 200)
    Image.new("RGB", (100, 80)).save(tmp_path / "small.jpg")
    (tmp_path / "text.tif").write_text("no image")
    archive = read_scenes(tmp_path, tile=256)
    assert archive.files == ("sea/large.tif#0,0,256,200", "sea/large.tif#44,0,256,200", "small.jpg", "text.tif")
    assert archive.classes == ("sea", "sea", "", "")
    assert "1 files that rasterio can't open, taken whole" in archive.note
    with pytest.raises(ValueError, match=r"text\.tif: not a readable image"):
        archive.read(3)
    assert archive.read(2).size == (100, 80)


@pytest.mark.parametrize("wrong", [{"tile": 0}, {"tile": 8, "overlap": 8}, {"overlap": -1}, {"max_nodata": 2}])
def test_tiles_that_make_no_sense(tmp_path, wrong):
    with pytest.raises(ValueError, match="wanted are tile >= 1, 0 <= overlap < tile"):
        read_scenes(tmp_path, **wrong)


def test_absent_scenes(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"a\.tif: no such scene"):
        read_scenes([tmp_path / "a.tif"])
    with pytest.raises(ValueError, match="no scene is given"):
        read_scenes([])


def test_files_of_several_folders(tmp_path):
    for name in ("a/x.tif", "b/c/y.tif"):
        write_scene(tmp_path / name, 64, 64)
    archive = read_scenes([tmp_path / "b" / "c" / "y.tif", tmp_path / "a" / "x.tif"], tile=64)
    assert (archive.root, archive.files) == (tmp_path, ("b/c/y.tif", "a/x.tif"))


def _shape(archive, i):
    return archive.read(i).size


def test_handles_are_opened_once_a_process_and_survive_fork_and_pickle(tmp_path):
    write_scene(tmp_path / "scene.tif")
    archive = read_scenes(tmp_path, tile=100)
    before = pixels._opened.cache_info().misses
    for i in range(len(archive)):
        archive.read(i)
    assert pixels._opened.cache_info().misses == before
    with multiprocessing.get_context("fork").Pool(2) as pool:
        jobs = [(pickle.loads(pickle.dumps(archive)), i) for i in range(len(archive))]
        assert set(pool.starmap(_shape, jobs)) == {(100, 100)}
    write_scene(tmp_path / "scene.tif", 120, 100, seed=1)  # a changed file is opened again
    with pytest.raises(ValueError, match="lies outside its 120 x 100 pixels"):
        archive.read(len(archive) - 1)


def test_the_command_writes_a_listing_that_is_the_archive(tmp_path, capsys):
    write_scene(tmp_path / "my scene.tif", **UTM)
    assert cli.main(["tiles", str(tmp_path), "--tile", "200", "--overlap", "20"]) == 0
    listing = tmp_path / "tiles200.csv"
    assert f"LISTING={listing}" in capsys.readouterr().out
    listed, archive = read_archive(tmp_path, listing), read_scenes(tmp_path, 200, 20)
    assert listed.files == archive.files
    assert listed.fingerprint == archive.fingerprint
    assert listed.footprint(5) == archive.footprint(5)
    assert listed.read(5) == archive.read(5)
    assert read_scenes(tmp_path, 100, listing=listing).files == archive.files


def test_the_command_says_what_the_folder_holds_beside_its_scenes(tmp_path, capsys):
    """With what helps: whoever searches the listing hears no more of it. What was written before isn't counted."""
    write_scene(tmp_path / "scene.tif", **UTM)
    (tmp_path / "phone.DNG").touch()
    for _ in range(2):
        assert cli.main(["tiles", str(tmp_path)]) == 0
        said = capsys.readouterr().out
        assert f"left out: 1 .dng files (save them as JPEG, as ImageMagick 7 does: find {tmp_path}" in said
        assert ".csv files" not in said


def test_windows_are_extracted_like_files(tmp_path):
    write_scene(tmp_path / "scene.tif", 600, 500, **UTM)
    archive = read_scenes(tmp_path, tile=200)
    encoder = load_encoder("demo", device="cpu")
    features = read_features(extract_features(archive, encoder, tmp_path / "store", workers=2), archive, encoder)
    assert features.files == archive.files
    assert len(np.unique(features.feats.round(4), axis=0)) == len(archive) == 9


def test_ground_control_points_alone_are_a_place(tmp_path):
    """The outline of a file with points is that of the same file with a transform; other systems are refused."""
    import rasterio
    from rasterio.control import GroundControlPoint
    from rasterio.transform import from_origin

    transform, values = from_origin(500_000, 5_400_000, 10, 10), np.ones((1, 40, 50), np.uint8)
    corners = [(row, column, *(transform * (column, row))) for row in (0, 40) for column in (0, 50)]
    points = [GroundControlPoint(*corner) for corner in corners]
    for name, place in (("a.tif", {"transform": transform}), ("b.tif", {"gcps": points})):
        profile = {"driver": "GTiff", "width": 50, "height": 40, "count": 1, "dtype": "uint8", "crs": "EPSG:32633"}
        with rasterio.open(tmp_path / name, "w", **profile, **place) as file:
            file.write(values)
    archive = read_archive(tmp_path)
    assert shape(archive.footprint(1)).equals_exact(shape(archive.footprint(0)), 1e-9)
