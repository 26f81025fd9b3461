"""A scene of 20,000 x 20,000 pixels, tiled, extracted, searched and put on a map; prints times and peak memory.

`python tests/campaigns/large_scene.py --out runs/scene` draws it first (4 bands, 12 bits in 16, UTM, a corner without
data): a patchwork of SynthCom's synthetic images, so that the class of every window is known. `--side 2048` is a small
one.
"""

import argparse
import os
from dataclasses import replace
from pathlib import Path

import geopandas
import matplotlib.pyplot as plt
import numpy as np
import rasterio
from bench import machine
from rasterio.transform import from_origin
from shapely.geometry import box, shape
from tqdm.auto import tqdm

from rscir_lib.archive import Archive, read_archive, split_window
from rscir_lib.archive.reading import CACHE
from rscir_lib.archive.tiles import read_scenes
from rscir_lib.benchmarks.synthcom import draw_synthcom
from rscir_lib.encoders import load_encoder
from rscir_lib.features import extract_features, read_features
from rscir_lib.search import search
from rscir_lib.storage.measuring import measured, memory_mib

TILE, METRES, WEST, NORTH, UTM = 256, 0.5, 500_000, 5_400_000, "EPSG:32633"


def draw(path: Path, side: int, patches: Archive) -> np.ndarray:
    """Write the scene, a row of patches at a time; returns each patch's class, (rows, columns)."""
    count, rng = -(-side // TILE), np.random.default_rng(0)
    chosen = rng.integers(0, len(patches), (count, count))
    size = {"width": side, "height": side, "count": 4, "dtype": "uint16", "nodata": 0}
    place = {"crs": UTM, "transform": from_origin(WEST, NORTH, METRES, METRES)}
    stored = {"tiled": True, "blockxsize": TILE, "blockysize": TILE, "compress": "zstd", "BIGTIFF": "YES"}
    with rasterio.open(path, "w", driver="GTiff", **size, **place, **stored) as scene:
        for row in tqdm(range(count), "drawing the scene", unit="row"):
            strip = np.zeros((4, TILE, count * TILE), np.uint16)
            for column in range(max(0, count // 5 - row), count):  # the north-west corner stays without data
                rgb = np.moveaxis(np.asarray(patches.read(chosen[row, column])), -1, 0)
                strip[:3, :, column * TILE : (column + 1) * TILE] = rgb * np.uint16(16) + 1
            strip[3] = strip[1]
            height = min(TILE, side - row * TILE)
            scene.write(strip[:, :height, :side], window=((row * TILE, row * TILE + height), (0, side)))
    return np.array(patches.classes)[chosen]


def run(out: Path, side: int) -> None:
    """Every step from the scene to the map, measured."""
    out.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("GDAL_CACHEMAX", CACHE)  # for the drawing
    print(machine())
    patches = read_archive(draw_synthcom(out / "patches", images_per_class=4))
    path = out / "scenes" / "scene.tif"
    path.parent.mkdir(exist_ok=True)
    classes = draw(path, side, patches)
    encoder, most = load_encoder("demo", device="cpu"), 0.0

    def step(what: str, function, *arguments, **options):
        nonlocal most
        before = memory_mib()
        seconds, more, result = measured(function, *arguments, **options)
        most = max(most, before + more)
        print(f"{what}: {seconds:.1f} s, peak memory of all processes {before + more:.0f} MiB", flush=True)
        return result

    archive = step(f"{side} x {side} pixels to windows", read_scenes, path, TILE)
    print(archive.note)
    folder = step(f"extract {len(archive)} windows", extract_features, archive, encoder, out / "features")
    features = step("read the features", read_features, folder, archive, encoder)
    columns, rows, _, _ = np.transpose([split_window(file)[1] for file in archive.files])
    known = classes[rows // TILE, columns // TILE]
    cls = "swimmingpool" if "swimmingpool" in known else known[0]
    query = int(np.flatnonzero(known == cls)[0])
    hits = step("search every window", search, features, query, "white", 0.5, "weicom", len(archive), encoder, archive)
    best = hits.table["position"].to_numpy()[:20]
    print(f"like window {query} ({cls}), white: {np.mean(known[best] == cls):.0%} of the 20 hits are {cls}")

    replace(hits, table=hits.table[:20]).to_geojson(out / "hits.geojson")
    found = geopandas.read_file(out / "hits.geojson").to_crs(UTM)
    east, north = WEST + columns[best] * METRES, NORTH - rows[best] * METRES
    truth = [box(e, n - TILE * METRES, e + TILE * METRES, n) for e, n in zip(east, north, strict=True)]
    apart = found.hausdorff_distance(geopandas.GeoSeries(truth, crs=UTM)).max() / METRES
    print(f"footprints read back from GeoJSON: at most {apart:.4f} pixels from the windows")
    scores = hits.table.set_index("position")["score"].sort_index().to_numpy()
    draw_map(archive, scores, best, query).savefig(out / "map.png", dpi=120, bbox_inches="tight")
    print(f"peak memory of all processes, over all steps: {most:.0f} MiB; map and GeoJSON in {out}")
    if apart > 1 or most > 1536:
        raise SystemExit("footprints further than a pixel, or more than 1.5 GiB")


def draw_map(archive: Archive, scores: np.ndarray, best: np.ndarray, query: int) -> plt.Figure:
    """Scores over the scene, the hits and the query outlined."""
    footprints = [shape(archive.footprint(i)) for i in range(len(archive))]
    frame = geopandas.GeoDataFrame({"score": scores}, geometry=footprints, crs=4326)
    frame = frame.to_crs(UTM)
    figure, ax = plt.subplots(figsize=(8, 7))
    frame.plot(
        "score", ax=ax, cmap="viridis", edgecolor="none", legend=True, legend_kwds={"label": "score", "shrink": 0.8}
    )
    frame.iloc[best].boundary.plot(ax=ax, color="red", linewidth=1)
    frame.iloc[[query]].boundary.plot(ax=ax, color="white", linewidth=2)
    ax.set(title="Scores over the scene (synthetic); red: hits, white: query", xlabel="east (m)", ylabel="north (m)")
    return figure


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/scene"))
    parser.add_argument("--side", type=int, default=20_000)
    given = parser.parse_args()
    run(given.out, given.side)
