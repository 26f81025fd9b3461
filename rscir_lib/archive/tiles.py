"""Large scenes as archives of windows, without a chip written to disk; rasterio reads them, with or without place.

`rscir tiles FOLDER --tile 256` writes the windows as a listing, which every notebook takes as LISTING.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from tqdm.auto import tqdm

from rscir_lib.archive import Archive, read_archive, split_window
from rscir_lib.archive.reading import Reading, Window, band_values, colour_bands, open_raster, read_rule


def read_scenes(
    scenes: str | Path | Iterable[str | Path],
    tile: int = 256,
    overlap: int = 0,
    max_nodata: float = 0.5,
    rule: Reading | None = None,
    listing: str | Path | None = None,
    too_large_only: bool = False,
) -> Archive:
    """The archive of the windows of scenes, `tile` x `tile` pixels, row by row; `archive.note` says what was left out.

    scenes: a folder, as `read_archive` takes it (with its `listing`), or one file or several below one folder. overlap:
    pixels that neighbours share, at least; the last window of a row or column moves back to end at the scene's edge.
    max_nodata: windows with a larger share of pixels without data are left out; `archive.nodata` has the shares. Only
    scenes that declare such pixels, or hold fractions, are looked through for them, row by row of windows. A file that
    is no larger than a tile, or that rasterio can't open, stays whole; with `too_large_only` all that the rule reads.

    Raises ValueError for a tile, overlap or share that makes no sense, and without rasterio; else as `read_archive`.
    """
    if tile < 1 or not 0 <= overlap < tile or not 0 <= max_nodata <= 1:
        given = f"tile {tile}, overlap {overlap}, max_nodata {max_nodata}"
        raise ValueError(f"{given}: wanted are tile >= 1, 0 <= overlap < tile, 0 <= max_nodata <= 1")
    whole, unopened = _scenes(scenes, listing, rule), 0
    tiles: list[tuple[str, str, float]] = []  # file, class, share of pixels without data
    for i, file in enumerate(tqdm(whole.files, f"tiles of {whole.name}", unit="scene")):
        try:
            listed = split_window(file)[1]  # a listing may name windows: they stay
            windows = [(None, 0.0)] if listed else list(_windows(whole, i, tile, overlap, too_large_only))
        except OSError:  # no format of GDAL's, or absent: reading it will say so
            windows, unopened = [(None, 0.0)], unopened + 1
        for window, share in windows:
            tiles.append((f"{file}#{','.join(map(str, window))}" if window else file, whole.classes[i], share))
    kept = [row for row in tiles if row[2] <= max_nodata]
    note = f"{len(kept)} windows of at most {tile} x {tile} pixels, overlap {overlap}, from {whole.note}"
    note += f"; {unopened} files that rasterio can't open, taken whole" if unopened else ""
    if left := len(tiles) - len(kept):
        note += f"; left out: {left} windows with more than {max_nodata:.0%} of pixels without data"
    if not kept:
        raise ValueError(f"{whole.root}: no window holds enough data ({note}); raise max_nodata")
    files, classes, shares = zip(*kept, strict=True)
    return Archive(whole.root, files, classes, whole.rule, note, shares)


def _scenes(scenes: str | Path | Iterable[str | Path], listing: str | Path | None, rule: Reading | None) -> Archive:
    if isinstance(scenes, str | Path):
        if not Path(scenes).expanduser().is_file():
            return read_archive(scenes, listing, rule)
        scenes = [scenes]
    paths = [Path(path).expanduser().resolve() for path in scenes]
    if absent := [path for path in paths if not path.is_file()]:
        raise FileNotFoundError(f"{absent[0]}: no such scene")
    if not paths:
        raise ValueError("no scene is given; name a folder or files")
    root = Path(os.path.commonpath([path.parent for path in paths]))
    files = tuple(path.relative_to(root).as_posix() for path in paths)
    return Archive(root, files, ("",) * len(files), rule or read_rule(root), f"{len(files)} scenes")


def _windows(whole: Archive, i: int, tile: int, overlap: int, large: bool) -> Iterator[tuple[Window | None, float]]:
    """Windows of a scene with their shares of pixels without data; None for one that stays whole."""
    scene, rule = open_raster(whole.path(i)), whole.rule
    if max(scene.shape) <= tile or (large and scene.width * scene.height <= rule.most_pixels):
        yield None, 0.0
        return
    ends = [max(0, length - tile) for length in scene.shape]  # where the last window of a column and of a row begins
    rows, columns = ([*range(0, end, tile - overlap), end] for end in ends)
    width, height = min(tile, scene.width), min(tile, scene.height)
    band = colour_bands(scene, rule)[0]
    gaps = rule.nodata is not None or "float" in scene.dtypes[band - 1]
    gaps = gaps or any(flag.name != "all_valid" for flag in scene.mask_flag_enums[band - 1])
    for row in tqdm(rows, f"pixels without data in {whole.names[i]}", unit="row", leave=False) if gaps else rows:
        valid = band_values(scene, band, ((row, row + height), (0, scene.width)), rule)[1] if gaps else None
        for column in columns:
            share = 0.0 if valid is None else 1 - valid[:, column : column + width].mean()
            yield (column, row, width, height), float(share)
