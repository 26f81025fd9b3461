"""A store of ten million rows: made, scanned, searched, evaluated, on one machine and on a local Dask cluster.

Rows are random around class centres (synthetic), and there are no images: good for times and memory alone.
"""

import os
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from scipy.special import ndtr
from tqdm.auto import tqdm

from bench.measure import DIM, Report, anonymous_mib, machine, timed, unit
from rscir_lib.features import Features, read_features, store
from rscir_lib.features.store import Shard
from rscir_lib.methods import METHODS
from rscir_lib.ranking import ImageSets, Job, Questions, rank_relevant, top_k
from rscir_lib.similarity import Gallery, InMemory, Moments, best_first
from rscir_lib.storage.device import torch_device
from rscir_lib.storage.measuring import measured
from rscir_lib.storage.parallel import each, parallel_map, running

IMAGES = 10_000_000
LAM, TOP = 0.5, 20
JOB = Job(METHODS["weicom"], LAM)
WORKERS = 3  # of the cluster
CLASSES = 1_000
NOISE = 1.2
DRAWN = 4  # shards
MADE = {"encoder": "none: random rows around class centres", "archive": "synthetic", "dtype": "float16"}


def directions(dim: int) -> np.ndarray:
    """(CLASSES, dim) float32: one direction that all share, and one a class."""
    rng = np.random.default_rng(0)
    return rng.standard_normal((CLASSES, dim), np.float32) + 2 * rng.standard_normal(dim, np.float32)


def make_store(folder: Path, images: int, dim: int, shard_bytes: int = store.SHARD_BYTES) -> Path:
    """A feature store of float16 rows around class centres, shard by shard; shards that stand are kept.

    The first `DRAWN` shards are random. Each further one turns the columns of one of them by some steps, and its
    moments too: rows of their own, in a fraction of the time. Raises FileExistsError where the folder holds another
    store.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made = MADE | {"images": str(images), "dim": str(dim)}
    if (folder / store.MANIFEST).exists():
        with suppress(ValueError):  # damaged: what is whole of it is kept
            there = store.read_manifest(folder)[0]["provenance"]
            if other := {key: there.get(key) for key, value in made.items() if there.get(key) != value}:
                raise FileExistsError(
                    f"{folder} holds another store ({other}); delete it, or choose another folder with --out"
                )
    whole, problems = store.standing_shards(folder)
    for problem in problems:
        print(problem)
    standing = {shard.name: shard for shard in whole}
    size = shard_bytes // (2 * dim)
    shards: list[Shard] = []
    for number, start in enumerate(tqdm(range(0, images, size), "making the store", unit="shard")):
        rows = range(start, min(start + size, images))
        files = [f"tiles/{row:09d}.tif" for row in rows]
        ids = store.columns(files, [f"class{row % CLASSES}" for row in rows])
        name = store.shard_name(ids, made)
        if name not in standing:
            moments = True
            if number < DRAWN or len(rows) < size:
                feats = draw(rows, dim, number)
            else:
                like, steps = shards[number % DRAWN], number // DRAWN
                feats, of = np.roll(replace(like).feats, steps, axis=1), like.moments
                moments = Moments(np.roll(of.mean, steps), np.roll(of.covariance, (steps, steps), axis=(0, 1)))
            standing[name] = store.write_shard(folder, feats, ids, made, moments=moments)
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


# --- measurements


def dropped(features: Features) -> None:
    """Ask the system to forget the store's pages, so that the next scan reads the disk."""
    for shard in features.shards():
        with shard.path("npy").open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def disk_speed(features: Features, most: int = 2**31) -> float:
    """Bytes a second of plain reads, one file after the other, in large pieces: the disk's own limit."""
    dropped(features)
    piece, read = bytearray(2**23), 0
    start = time.perf_counter()
    for shard in features.shards():
        with shard.path("npy").open("rb", buffering=0) as file:
            while size := file.readinto(piece):
                read += size
        if read >= most:
            break
    return read / (time.perf_counter() - start)


def memory_speed(size: int = 2**28) -> float:
    """Bytes a second that all cores together read from memory, each from an array of its own."""
    return sum(parallel_map(_read_memory, [size] * torch.get_num_threads()))


def _read_memory(size: int) -> float:
    array = np.ones(size // 8, np.int64)
    return array.nbytes / min(timed(np.bitwise_or.reduce, array)[0] for _ in range(5))


def double_speed() -> float:
    """FLOP/s of float64 products of (512, d) and (d, 2048) on all cores, each by itself."""
    return sum(parallel_map(_multiply, [2**9] * torch.get_num_threads()))


def _multiply(rows: int) -> float:
    a, b = torch.ones(rows, DIM, dtype=torch.float64), torch.ones(DIM, 2**11, dtype=torch.float64)
    return 2 * rows * DIM * 2**11 / min(timed(torch.mm, a, b)[0] for _ in range(5))


@dataclass(frozen=True)
class Asked:
    """Random questions to an archive: Q images, as many texts, and some relevant images each."""

    images: np.ndarray
    texts: np.ndarray
    targets: list[np.ndarray]

    @classmethod
    def of(cls, features: Features, number: int, positives: int = 50) -> "Asked":
        rng = np.random.default_rng(5)
        images = features.rows(rng.choice(len(features), number, replace=False))
        drawn = [rng.choice(len(features), min(positives, len(features) // 2), replace=False) for _ in range(number)]
        return cls(images, unit(rng.standard_normal(images.shape, np.float32)), [np.sort(some) for some in drawn])

    def first(self, number: int) -> "Asked":
        return Asked(self.images[:number], self.texts[:number], self.targets[:number])

    @property
    def questions(self) -> Questions:
        own = np.arange(len(self.images))
        return Questions(self.images, self.texts, ("",) * len(self.texts), own, own)

    def search(self, features: Gallery, **options) -> tuple[np.ndarray, np.ndarray]:
        return top_k(self.questions, TOP, features, JOB, **options)

    def ranks(self, features: Gallery, **options) -> dict[int, np.ndarray]:
        """Those of the relevant images, by question."""
        relevant = ImageSets(self.targets, np.arange(len(self.targets)))
        found = rank_relevant(self.questions, relevant, ImageSets.empty(len(self.targets)), features, [JOB], **options)
        return {query: ranks for some in found for query, ranks in zip(some.queries, some.ranks[0], strict=True)}


def plain_scan(features: Features, asked: Asked) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Of each question, the best positions and the ranks of its relevant images: every row in float64, mean and std
    from all similarities, then sorted. What a first script would do, with memory for all of it."""
    queries = np.concatenate([asked.images, asked.texts]).astype(np.float64).T
    s = np.empty((queries.shape[1], len(features)))
    first = 0
    for shard in features.shards():
        for start in range(0, shard.rows, 8192):
            rows = shard.feats[start : start + 8192].astype(np.float64)
            s[:, first + start : first + start + len(rows)] = (rows @ queries).T
        first += shard.rows
    best, found = [], []
    for image, text, target in zip(s, s[len(asked.images) :], asked.targets, strict=False):
        sides = [-ndtr(-(side - side.mean()) / side.std(ddof=1)) for side in (image, text)]
        scores = (1 - LAM) * sides[0] + LAM * sides[1]
        best.append(best_first(scores, TOP))
        found.append(np.sort([(scores > scores[t]).sum() + (scores[:t] == scores[t]).sum() + 1 for t in target]))
    return best, found


def some_of(features: Features, images: int) -> Features:
    """The first rows of a store: whole shards where they are as many, else a part of one, in memory."""
    shards = list(features.shards())
    whole = [i for i, rows in enumerate(np.cumsum([shard.rows for shard in shards]), 1) if rows <= images]
    if whole:
        return Features(shards[: whole[-1]], features.provenance)
    rows = shards[0].feats[:images].astype(np.float32)
    return Features.from_arrays(rows, shards[0].ids["files"][:images], shards[0].ids["classes"][:images])


def bench_store(report: Report, folder: Path, images: int, dim: int, shard_bytes: int) -> Features:
    seconds, _ = timed(make_store, folder, images, dim, shard_bytes)
    size = images * dim * 2 / 1e9
    report.add("store", "made, or found standing and verified", seconds=seconds, images=images, gb=size)
    seconds, features = timed(read_features, folder)
    report.add("store", "opened", seconds=seconds, images=images)
    report.add("store", "moments, merged", seconds=timed(lambda: features.moments)[0], images=images)
    ids = sum(shard.path("json").stat().st_size for shard in features.shards())
    report.add("store", "id_bytes", bytes=ids / images)
    return features


def bench_limits(report: Report, features: Features) -> dict[str, float]:
    limits = {"disk": disk_speed(features), "memory": memory_speed()}
    for what, speed in limits.items():
        report.add("limit", f"reading from {what}", gb_per_second=speed / 1e9)
    limits["float64"] = double_speed()
    report.add("limit", "float64 products", gflops=limits["float64"] / 1e9)
    return limits


def bench_scan(report: Report, features: Features, asked: Asked) -> tuple[np.ndarray, np.ndarray]:
    """A question alone and in a batch; the batch's answers."""
    size = len(features) * features.dim * 2 / 1e9

    def scanned(what: str, questions: Asked) -> tuple[np.ndarray, np.ndarray]:
        seconds, mib, found = measured(questions.search, features, memory=anonymous_mib)
        number = len(questions.images)
        each = {"seconds": seconds, "gb_per_second": size / seconds, "mib": mib, "queries": number}
        report.add("scan", what, **each, seconds_a_query=seconds / number, images=len(features))
        return found

    dropped(features)
    scanned("one query, from disk", asked.first(1))
    scanned("one query, as far as memory caches the store", asked.first(1))
    return scanned("a batch", asked)


def bench_core(report: Report, features: Features, queries: int) -> None:
    """What a row costs one core, by its own clock, in one thread: constants of the table in scale.md."""
    some = Features([next(features.shards())], features.provenance)
    asked, threads = Asked.of(some, queries), torch.get_num_threads()
    asks = {"row_alone_ns": asked.first(1).search, "row_search_ns": asked.search, "row_rank_ns": asked.ranks}
    torch.set_num_threads(1)
    try:
        for what, ask in asks.items():
            ask(some, workers=1)  # start-up
            start, number = time.process_time(), 1 if what == "row_alone_ns" else queries
            ask(some, workers=1)
            report.add("core", what, ns=1e9 * (time.process_time() - start) / len(some) / number, queries=number)
    finally:
        torch.set_num_threads(threads)


def check(
    report: Report, features: Features, asked: Asked, positions: np.ndarray, found: dict[int, np.ndarray]
) -> None:
    """Raises RuntimeError unless the best and the ranks are those of the plain scan."""
    seconds, (best, expected) = timed(plain_scan, features, asked)
    number = len(asked.images)
    for q in range(number):
        if not np.array_equal(best[q], positions[q]) or not np.array_equal(expected[q], found[q]):
            raise RuntimeError(f"query {q}: another top {TOP} or other ranks than a plain float64 scan finds")
    report.add("check", f"top {TOP} and ranks equal to a plain float64 scan", queries=number, seconds=seconds)


def bench_dask(
    report: Report, features: Features, asked: Asked, expected: tuple, alone: float, workers: int = 3
) -> None:
    """The batch on a local cluster, undisturbed and with a worker killed; raises RuntimeError for other bytes."""
    try:
        from distributed import Client
    except ImportError:
        print("Dask is skipped: pip install 'rscir-workbook[scale]'")
        return
    start = time.perf_counter()
    with running("local", WORKERS) as cluster:
        with Client(cluster) as client:
            client.run(import_module, "rscir_lib.ranking")
        report.add("dask", f"{WORKERS} processes started", seconds=time.perf_counter() - start)
        tasks = 500
        seconds, _ = timed(lambda: list(each(abs, range(tasks), cluster)))
        report.add("dask", "task_ms", ms=1e3 * seconds / tasks)
        usual = None
        for what in ("undisturbed", "a worker killed"):
            timer = threading.Timer(0.3 * (usual or 0), lambda: os.kill(next(iter(cluster.workers.values())).pid, 9))
            if usual:
                timer.start()
            seconds, mib, found = measured(asked.search, features, memory=anonymous_mib, scheduler=cluster)
            timer.cancel()
            if [f.tobytes() for f in found] != [e.tobytes() for e in expected]:
                raise RuntimeError(f"Dask, {what}: other bytes than one process finds")
            usual = usual or seconds
            values = {"seconds": seconds, "mib": mib, "ratio": seconds / alone}
            report.add("dask", f"a batch, {what}: equal bytes", **values, overhead=seconds - alone)


def bench_resident(report: Report, features: Features, asked: Asked, expected: tuple, device: str) -> None:
    """A question alone and a batch, over rows that the device holds; raises RuntimeError for other bytes."""
    try:
        seconds, resident = timed(InMemory.on, device, features)
    except torch.OutOfMemoryError as error:
        print(f"resident   is skipped: {error}")
        return
    size = len(features) * features.dim * 2 / 1e9
    report.add("resident", f"rows moved to {device}", seconds=seconds, gb=size)
    for what, questions in (("one query", asked.first(1)), ("a batch", asked)):
        search = partial(questions.search, resident)
        search()  # start-up
        seconds, found = timed(search)
        if [f.tobytes() for f in found] != [e[: len(f)].tobytes() for f, e in zip(found, expected, strict=True)]:
            raise RuntimeError(f"{device}, {what}: other bytes than a scan of the shards finds")
        values = {"seconds": seconds, "gb_per_second": size / seconds, "queries": len(questions.images)}
        report.add("resident", f"{what} on {device}: equal bytes", **values)


def bench_sizes(report: Report, features: Features, asked_number: int, sizes: list[int]) -> dict[int, np.ndarray]:
    """One query, and an evaluation, over growing parts of the store; the last one's ranks."""
    for images in sizes:
        some = features if images >= len(features) else some_of(features, images)
        some.moments  # noqa: B018, once an archive
        asked = Asked.of(some, asked_number)
        seconds, mib, _ = measured(asked.first(1).search, some, memory=anonymous_mib)
        report.add("scaling", "one query", images=len(some), queries=1, seconds=seconds, mib=mib)
        seconds, mib, found = measured(asked.ranks, some, memory=anonymous_mib)
        report.add("scaling", "evaluation", images=len(some), queries=asked_number, seconds=seconds, mib=mib)
    return found


def scaling_figure(table: pd.DataFrame) -> Figure:
    """Time and memory of search and evaluation against archive size, on log axes, each with what no code can beat."""
    figure = Figure(figsize=(12, 4), layout="constrained")
    axes = figure.subplots(1, 3)
    rows = table[table["section"] == "scaling"]
    limit = table[table["section"] == "limit"].set_index("what")
    images = np.sort(rows["images"].unique())
    size = images * table["dim"].iloc[0]
    for ax, what in zip(axes, ("one query", "evaluation"), strict=False):
        of = rows[rows["what"] == what]
        ax.plot(of["images"], of["seconds"], "o-", label="measured")
        if what == "one query":
            for where, style in (("memory", "--"), ("disk", ":")):
                speed = limit.at[f"reading from {where}", "gb_per_second"]
                ax.plot(images, 2 * size / speed / 1e9, "k" + style, label=f"to read it from {where}, {speed:.1f} GB/s")
            ax.set_title("one query, top 20")
        else:
            queries, speed = of["queries"].iloc[0], limit.at["float64 products", "gflops"]
            ax.plot(images, 4 * size * queries / speed / 1e9, "k--", label=f"its float64 products, {speed:.0f} GFLOP/s")
            ax.set_title(f"ranks for {queries:.0f} queries")
        ax.set_ylabel("seconds")
        axes[2].plot(of["images"], of["mib"].clip(lower=1), "o-", label=what)
    axes[2].axhline(2048, color="k", linestyle="--", label="2 GiB")
    axes[2].set(title="memory of its own (no page cache)", ylabel="MiB")
    for ax in axes:
        ax.set(xscale="log", yscale="log", xlabel="images")
        ax.grid(alpha=0.3)
        ax.set_ylim(top=50 * ax.get_ylim()[1])  # room for the legend, above the lines
        ax.legend(fontsize="small", loc="upper left")
    figure.suptitle("WeiCom, CPU; random float16 features")
    return figure


def scale(out: Path, quick: bool, images: int, queries: int) -> None:
    """The store made, scanned, searched, evaluated, on this machine's cores and on a local Dask cluster."""
    report = Report()
    print(machine())
    images, dim, shard_bytes = (20_000, 64, 2**19) if quick else (images, DIM, store.SHARD_BYTES)
    features = bench_store(report, out / "store", images, dim, shard_bytes)
    bench_limits(report, features)
    asked = Asked.of(features, queries)
    expected = bench_scan(report, features, asked)
    alone = report.rows[-1]["seconds"]
    bench_core(report, features, queries)
    sizes = [10**k for k in range(3, 8) if 10**k < images]
    found = bench_sizes(report, features, queries, [*sizes, images])
    sampled = asked.first(2)
    check(report, features, sampled, expected[0], found)
    bench_dask(report, features, asked, expected, alone)
    device = torch_device(float64=True).type
    if quick or device == "cuda":
        bench_resident(report, features, asked, expected, device)
    else:
        print("resident   is skipped: torch finds no CUDA device to hold the rows")
    table = pd.DataFrame(report.rows).assign(dim=dim, machine=machine())
    table.to_csv(out / "scale.csv", index=False)
    scaling_figure(table).savefig(out / "scaling.png", dpi=120)
    print(f"written: {out / 'scale.csv'}, {out / 'scaling.png'}; the store, {out / 'store'}, is yours to delete")
