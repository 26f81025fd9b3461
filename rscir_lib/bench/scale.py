"""A store of ten million rows: made, scanned, searched, on one machine and on a local Dask cluster."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from rscir_lib import store
from rscir_lib.composition import Moments
from rscir_lib.store import Shard, Stamp

CLASSES = 1_000
NOISE = 1.2
DRAWN = 14  # shards
MADE = {"encoder": "none: random rows around class centres", "archive": "synthetic", "dtype": "float16"}


def directions(dim: int) -> np.ndarray:
    """(CLASSES, dim) float32: one direction that all share, and one a class."""
    rng = np.random.default_rng(0)
    return rng.standard_normal((CLASSES, dim), np.float32) + 2 * rng.standard_normal(dim, np.float32)


def make_store(folder: Path, images: int, dim: int, shard_bytes: int = store.SHARD_BYTES) -> Path:
    """A feature store of float16 rows around class centres, shard by shard; shards that stand are kept.

    The first `DRAWN` shards are random. Each further one takes the columns of one of them in another order, and its
    moments too: rows of their own, for a tenth of the time.
    """
    folder.mkdir(parents=True, exist_ok=True)
    standing = {shard.name: shard for shard in store.standing_shards(folder, print)}
    made = MADE | {"images": str(images), "dim": str(dim)}
    size = shard_bytes // (2 * dim)
    shards: list[Shard] = []
    for number, start in enumerate(tqdm(range(0, images, size), "making the store", unit="shard")):
        rows = range(start, min(start + size, images))
        files = [f"tiles/{row:09d}.tif" for row in rows]
        ids = files, [f"class{row % CLASSES}" for row in rows], [Stamp(0, 0, "")] * len(rows)
        name = store.shard_name(store.columns(*ids), made)
        if name not in standing:
            moments = True
            if number < DRAWN or len(rows) < size:
                feats = draw(rows, dim, number)
            else:
                like, order = shards[number % DRAWN], np.random.default_rng((2, number // DRAWN)).permutation(dim)
                feats, of = replace(like).feats[:, order], like.moments
                moments = Moments(of.mean[order], of.covariance[np.ix_(order, order)])
            standing[name] = store.write_shard(folder, feats, *ids, made, moments=moments)
        shards.append(replace(standing[name]))
    store.write_manifest(folder, shards, made, {})
    return folder


def draw(rows: range, dim: int, seed: int) -> np.ndarray:
    """(len(rows), dim) float16 of unit length."""
    rng, centres = np.random.default_rng((1, seed)), directions(dim)
    feats = np.empty((len(rows), dim), np.float16)
    for at in range(0, len(rows), 8192):
        some = np.arange(rows.start + at, min(rows.start + at + 8192, rows.stop))
        drawn = centres[some % CLASSES] + np.float32(NOISE) * rng.standard_normal((len(some), dim), np.float32)
        feats[at : at + len(some)] = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    return feats
