"""What an archive of 10^7 to 10^9 tiles takes, on paper: bytes, seconds, money. `python -m bench cost`.

The constants were measured on two cores of an AMD EPYC, or are assumed, as all prices are: beside each stands the
command that measures it on a machine of yours. The rest is division: rows are independent, so that machines share them,
until the merge or the scheduler is what takes time.
"""

from dataclasses import dataclass

import pandas as pd

BATCH = 256  # queries that share a scan


@dataclass(frozen=True)
class Constants:
    """Of one machine, and of the code. A core's time is that of one that has its machine to itself."""

    dim: int = 768
    cores: int = 16  # assumed
    memory_gb: float = 64.0  # assumed
    disk_gb_s: float = 2.2  # make scale: limit, reading from disk
    row_alone_ns: float = 300.0  # make scale: a row of one query, float16 to float32 and two products
    row_search_ns: float = 54.0  # make scale: a row, a query of a batch
    row_rank_ns: float = 126.0  # make scale: a row, a query that is ranked
    images_s: float = 19.0  # make bench, extraction, ViT-B-32 in bfloat16: 38 images a second on two cores
    task_ms: float = 3.2  # make scale: dask, task_ms, its client's start and end included
    id_bytes: int = 45  # make scale: store, id_bytes; file name, class and stamp of a row
    shard_rows: int = 174_762  # of 2^28 bytes
    machine_usd_hour: float = 0.80  # assumed: sixteen cores, rented
    storage_usd_gb_month: float = 0.02  # assumed: objects; a disk is four times that


def cost(images: int, machines: int, c: Constants = Constants()) -> dict[str, float]:
    """Of an archive of so many images on so many machines: see the page `notebooks/book/scale.md`."""
    rows = images / machines
    size = images * (2 * c.dim + c.id_bytes) / 1e9  # GB, ids included
    scanned = rows * 2 * c.dim / 1e9  # GB a machine
    shards = -(-images // c.shard_rows)
    moments = shards * 8 * (c.dim + 1) * c.dim / 1e9  # GB, read once
    resident = scanned <= 0.8 * c.memory_gb
    read = 0 if resident else scanned / c.disk_gb_s  # from memory, reading is part of what a row costs
    overhead = shards * c.task_ms / 1e3 * (machines > 1)  # one scheduler hands them all out
    alone = max(read, rows * c.row_alone_ns / 1e9 / c.cores) + overhead
    batch = (max(read, BATCH * rows * c.row_search_ns / 1e9 / c.cores) + overhead) / BATCH
    ranked = (max(read, BATCH * rows * c.row_rank_ns / 1e9 / c.cores) + overhead) / BATCH
    extraction = rows / (c.images_s * c.cores) / 3600
    usd = machines * c.machine_usd_hour
    return {
        "tiles": images,
        "machines": machines,
        "GB": size,
        "USD a month": size * c.storage_usd_gb_month,
        "scanned from": "memory" if resident else "disk",
        "extraction h": extraction,
        "USD extraction": extraction * usd,
        "moments GB": moments,
        "alone s": alone,
        "in a batch s": batch,
        "USD 1,000 queries": batch * 1000 / 3600 * usd,
        "22,240 ranked h": 22_240 * ranked / 3600,
    }


def table(c: Constants = Constants()) -> pd.DataFrame:
    """`cost` at 10^7, 10^8 and 10^9 tiles, on one machine, ten and a hundred."""
    return pd.DataFrame([cost(10**k, machines, c) for k in (7, 8, 9) for machines in (1, 10, 100)])


def report(c: Constants = Constants()) -> str:
    """The table as Markdown."""
    rows = table(c)
    lines = ["| " + " | ".join(rows.columns) + " |", "| " + " | ".join("---" for _ in rows.columns) + " |"]
    lines += ["| " + " | ".join(v if isinstance(v, str) else _digits(v) for v in row) + " |" for row in rows.to_numpy()]
    return "\n".join(lines)


def _digits(value: float) -> str:
    """Two digits that count: no constant is known better."""
    if value in (1, 10, 100) or value >= 1e7:
        return f"{int(value):,}"
    return f"{float(f'{value:.2g}'):,.10g}"
