"""Speed and memory: two ways to do the same thing, in one run, as ratios.

    python -m bench [--quick] [--out runs/bench] [--only PART] # evaluator, search, extractor
    python -m bench rehearse [--quick] [--out runs/rehearsal] # every step at PatternNet's size
    python -m bench scale [--quick] [--out runs/scale]        # ten million rows on disk, and Dask

Features here are random around class centres, images are synthetic (`rscir_lib.benchmarks.synthcom`), weights are
random except the demo encoder's: good for times and memory, not for retrieval quality.
"""

import argparse
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import open_clip
import pandas as pd
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from bench import scale
from bench.compiled import compile_tower
from bench.measure import DIM, Report, machine, timed, unit
from rscir_lib.archive import Archive, read_image
from rscir_lib.benchmarks import synthcom
from rscir_lib.benchmarks.base import Benchmark
from rscir_lib.benchmarks.patterncom import CLASSES, MERGES, read_patterncom
from rscir_lib.encoders import Encoder, load_encoder
from rscir_lib.encoders.hub import PUBLISHED
from rscir_lib.evaluation import evaluate, summarize
from rscir_lib.evaluation.metrics import METRICS
from rscir_lib.features import Features, extract_features, read_features
from rscir_lib.features.features import MemoryShard
from rscir_lib.features.store import columns
from rscir_lib.search import top_k
from rscir_lib.similarity import InMemory, Moments
from rscir_lib.storage.measuring import measured

PATTERNNET = 30_400  # images
LAMBDAS = tuple(np.arange(11) / 10)
# up to four classes an attribute, two to five values a class, as in PatternCom
VALUES = {
    "color": {"airplane": 5, "nursinghome": 4, "storagetank": 3, "tenniscourt": 5},
    "context": {"bridge": 3, "overpass": 3, "airplane": 3, "swimmingpool": 4},
    "density": {"denseresidential": 2, "sparseresidential": 2, "christmastreefarm": 2, "mobilehomepark": 3},
    "existence": {"ferryterminal": 3, "harbor": 3, "parkinglot": 4, "parkingspace": 4},
    "quantity": {"airplane": 4, "storagetank": 5, "swimmingpool": 3, "tenniscourt": 5},
    "shape": {"closedroad": 4, "intersection": 4, "river": 3, "swimmingpool": 5},
}


def random_features(classes: list[str] | tuple[str, ...], dim: int = DIM) -> np.ndarray:
    """(N, dim) float32, L2-normalised: one direction that all share, one a class, and noise."""
    rng = np.random.default_rng(0)
    names, codes = np.unique(classes, return_inverse=True)
    centres = rng.standard_normal((len(names), dim), np.float32) + 2 * rng.standard_normal(dim, np.float32)
    feats = np.empty((len(codes), dim), np.float32)
    for start in range(0, len(codes), 8192):
        rows = codes[start : start + 8192]
        feats[start : start + 8192] = unit(centres[rows] + 1.2 * rng.standard_normal((len(rows), dim), np.float32))
    return feats


def random_texts(texts: list[str], dim: int = DIM) -> np.ndarray:
    """Stands in for a text encoder: n texts -> (n, dim), the same for a text wherever it stands."""
    return unit(np.stack([np.random.default_rng([*map(ord, t)]).standard_normal(dim, np.float32) for t in texts]))


def patterncom_shaped(images: int, labelled: float = 0.4) -> Benchmark:
    """A benchmark over about `images` images in PatternNet's classes; that share of a class is labelled by each
    attribute (all of it by density). Its files are written, read and removed; there are no images."""
    rng = np.random.default_rng(0)
    size = -(-images // len(CLASSES))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "PatternComShaped"
        (root / "PatternCom").mkdir(parents=True)
        files = [f"images/{name}/{name}{i}.jpg 0 {name}\n" for name in sorted(CLASSES) for i in range(size)]
        (root / "patternnet.csv").write_text("".join(files))
        for attribute, classes in VALUES.items():
            lines = []
            for name, values in classes.items():
                rows = size if attribute == "density" else max(2 * values, round(labelled * size))
                share = 0.4 ** np.arange(values)  # the first value is the most common, the last one rare
                drawn = rng.choice(values, max(rows - 2 * values, 0), p=share / share.sum())
                number = rng.permutation(size)  # each value at least twice
                for i, value in zip(number, [*np.repeat(np.arange(values), 2), *drawn], strict=False):
                    lines.append(f"{name}{i}.jpg,{attribute},value{value}\n")
            (root / "PatternCom" / f"{attribute}.csv").write_text("".join(lines))
        return read_patterncom(root)


def in_shards(features: Features, number: int) -> Features:
    """The same rows in so many parts."""
    bounds = np.linspace(0, len(features), number + 1).astype(int)
    parts = [slice(*pair) for pair in pairwise(bounds)]
    return Features([MemoryShard(features.feats[p], columns(features.files[p], features.classes[p])) for p in parts])


def some_queries(benchmark: Benchmark, number: int) -> Benchmark:
    """The benchmark with so many of its queries, drawn at random."""
    return replace(benchmark, queries=benchmark.queries.sample(min(number, len(benchmark.queries)), random_state=0))


def plain_loop(benchmark: Benchmark, feats: np.ndarray, lam: float = 0.5) -> list[float]:
    """AP of each composed query by WeiCom, the way a first script goes about it: two float32 products over the archive
    a query, then Python over the whole ranked list to judge each image by its name, class and label."""
    x = torch.from_numpy(feats)
    texts = list(dict.fromkeys(benchmark.queries["text"]))
    text_feats = dict(zip(texts, torch.from_numpy(random_texts(texts, feats.shape[1])), strict=True))
    merged = {cls: name for merge in MERGES.values() for cls, name in merge.items()}
    values = benchmark.labels.set_index(["attribute", "image"])["value"].to_dict()
    classes = dict(zip(benchmark.archive.names, benchmark.archive.classes, strict=True))
    results = []
    for query in benchmark.queries.itertuples():
        scores = 0
        for weight, feature in ((1 - lam, x[query.position]), (lam, text_feats[query.text])):
            s = x @ feature
            scores = scores + weight * torch.special.ndtr((s - s.mean()) / s.std())
        wanted = classes[query.image]
        found, precisions = 0, []
        for rank, i in enumerate(torch.argsort(scores, descending=True), 1):
            name = os.path.basename(benchmark.archive.files[i])
            if values.get((query.attribute, name)) == query.text:
                cls = classes[name]
                if merged.get(cls, cls) == merged.get(wanted, wanted):
                    found += 1
                    precisions.append(found / rank)
        results.append(sum(precisions) / found if found else 0.0)
    return results


@contextmanager
def two_cores():
    """The evaluator's targets are for two cores, whatever the machine has."""
    threads = torch.get_num_threads()
    torch.set_num_threads(min(2, threads))
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def largest_difference(one: pd.DataFrame, other: pd.DataFrame) -> float:
    """The largest difference of a metric between two tables of `evaluate`, of the same queries in any order."""
    one, other = (
        rows.rename_axis("query").set_index(["method", "lambda"], append=True)[list(METRICS)].sort_index()
        for rows in (one, other)
    )
    return float(np.abs(one.to_numpy() - other.to_numpy()).max())


@two_cores()
def bench_evaluator(report: Report, quick: bool) -> None:
    images, dim, sample = (760, 32, 5) if quick else (PATTERNNET, DIM, 40)
    benchmark = patterncom_shaped(images)
    archive = benchmark.archive
    features = Features.from_arrays(random_features(archive.classes, dim), archive.files, archive.classes, {})
    n = len(benchmark.queries)
    positives = [len(target) for target in benchmark.targets]
    sizes = f"{len(archive)} x {dim}, {n} composed queries, {min(positives)} to {max(positives)} positives"
    print(f"evaluator  {sizes}, {torch.get_num_threads()} cores")

    def run(
        device: str = "cpu", benchmark: Benchmark = benchmark, features: Features = features, **options
    ) -> pd.DataFrame:
        return evaluate(benchmark, features, partial(random_texts, dim=dim), device=device, **options)

    few = some_queries(benchmark, sample)
    loop, ap = timed(plain_loop, few, features.feats)
    rows = run(benchmark=few, methods=["weicom"], progress=False)
    report.add("evaluator", "a loop over queries, per query", seconds=loop / sample)
    report.add("evaluator", "largest difference of their AP", difference=np.abs(rows["AP"] - ap).max())
    one, _ = timed(run, methods=["weicom"])
    report.add("evaluator", "evaluate, weicom, per query", seconds=one / n, queries=n, ratio=loop / sample / (one / n))
    every, on_cpu = timed(run, lambdas=LAMBDAS)
    report.add("evaluator", "evaluate, three baselines and eleven lambdas", seconds=every, queries=n)
    jobs = len(on_cpu) // n
    report.add("evaluator", "  per scored query", seconds=every / n / jobs, queries=n * jobs)
    # a tenth of the queries for further ways, and for memory, whose watching takes time
    tenth = partial(measured, run, benchmark=some_queries(benchmark, n // 10), lambdas=LAMBDAS)
    ways = {"in one block": tenth(), "in three shards": tenth(features=in_shards(features, 3))}
    for way, (seconds, mib, rows) in ways.items():
        per, worst = seconds / len(rows), largest_difference(rows, on_cpu.loc[rows.index.unique()])
        ratio = ways["in one block"][0] / seconds
        report.add("evaluator", f"  a tenth of them {way}, per scored query", seconds=per, ratio=ratio, mib=mib)
        report.add("evaluator", "  largest difference of a metric", difference=worst)
    if torch.cuda.is_available():
        run("cuda", few)  # start-up
        for what, options, cpu in (("weicom", {"methods": ["weicom"]}, one), ("all", {"lambdas": LAMBDAS}, every)):
            seconds, on_gpu = timed(run, "cuda", **options)
            report.add("evaluator", f"on the GPU, {what}", seconds=seconds, queries=n, ratio=cpu / seconds)
        worst = largest_difference(on_gpu, on_cpu)
        report.add("evaluator", "largest difference of a metric from the CPU's", difference=worst)


@contextmanager
def random_weights(architecture: str):
    """A models root with random weights of an architecture, in the two file formats of WeiCom's authors."""
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        first = Path(folder) / PUBLISHED["clip"][architecture].file
        torch.save(open_clip.create_model(architecture).state_dict(), first)
        shutil.copyfile(first, Path(folder) / PUBLISHED["remoteclip"][architecture].file)
        yield folder


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of the best of half a second of large matrix products: the chip's peak, as far as torch reaches it."""
    n = 8192 if device.type == "cuda" else 1024
    a = torch.randn(n, n, device=device, dtype=dtype)

    def product() -> None:
        a @ a
        synchronize(device)

    product()
    seconds: list[float] = []
    while sum(seconds) < 0.5:  # one product, where a processor has to imitate the dtype
        seconds.append(timed(product)[0])
    return 2 * n**3 / min(seconds)


def image_flops(encoder: Encoder) -> int:
    """FLOPs of the image tower for one image (autograd on, so that no fused layer hides its own)."""
    image = encoder.preprocess(Image.new("RGB", (256, 256)))[None]
    with FlopCounterMode(display=False) as counter:
        encoder.model.encode_image(image.to(encoder.device, getattr(torch, encoder.precision)))
    return counter.get_total_flops()


def plain_extraction(archive: Archive, encoder: Encoder, batch_size: int = 64) -> np.ndarray:
    """Features in one process, batch after batch: decode, then encode."""
    batches = []
    for start in range(0, len(archive), batch_size):
        paths = [archive.path(i) for i in range(start, min(start + batch_size, len(archive)))]
        batches.append(encoder.encode_images(torch.stack([encoder.preprocess(read_image(path)) for path in paths])))
    return np.concatenate(batches)


def bench_throughput(
    report: Report, archive: Archive, load: Callable[[str], Encoder], precisions: tuple[str, ...], note: str
) -> dict[str, Features]:
    """Images a second of `extract_features` by each precision, the share of the chip's peak that it reaches, and the
    ratio to the plain loop in float32, which gets a thousand images. Returns the features by precision."""
    features = {}
    start, few = archive.subset([0]), archive.subset(range(min(1024, len(archive))))
    encoder = load("float32")
    plain_extraction(start, encoder)  # a first call takes longer
    plain, before = timed(plain_extraction, few, encoder)
    flops = image_flops(encoder)
    gpu = encoder.device.type == "cuda"
    for precision in precisions:
        encoder = load(precision)
        plain_extraction(start, encoder)
        some = few if gpu and note != "demo" and precision == "float32" else archive  # a GPU's slow way
        dtype = getattr(torch, encoder.precision)
        peak = peak_flops(encoder.device, dtype)
        with tempfile.TemporaryDirectory() as folder:
            seconds, _ = timed(extract_features, some, encoder, folder)
            stored = read_features(folder, some, encoder)
            # in memory: they are asked after the folder is gone
            features[precision] = Features.from_arrays(stored.feats, stored.files, stored.classes, stored.provenance)
        alone = tower_speed(encoder, 128 if gpu else 16)
        peak = max(peak, peak_flops(encoder.device, dtype))  # and after: a shared machine's speed varies
        rate = len(some) / seconds
        values = {"images": len(some), "seconds": seconds, "images_per_second": rate}
        ratio = rate / (len(few) / plain)
        report.add("extractor", f"{note}, {precision}", **values, ratio=ratio, share_of_peak=flops * rate / peak)
        report.add("extractor", "  its image tower alone", images_per_second=alone, share_of_peak=flops * alone / peak)
        worst = np.abs(before - features[precision].feats[: len(few)]).max()
        report.add("extractor", "  largest difference from the plain loop's", difference=worst)
    return features


def tower_speed(encoder: Encoder, batch_size: int) -> float:
    """Random images a second, on the device already, the best of two seconds."""
    shape = encoder.preprocess(Image.new("RGB", (256, 256))).shape
    batch = torch.randn(batch_size, *shape, device=encoder.device)
    seconds: list[float] = []
    while sum(seconds) < 2:
        seconds.append(timed(encoder.encode_images, batch)[0])
    return batch_size / min(seconds)


def bench_extractor(report: Report, quick: bool, out: Path, demo: str) -> None:
    gpu = torch.cuda.is_available()
    precisions = ("float32", "bfloat16", "float16")[: 3 if gpu else 2]  # float16 crawls on a processor
    per_class = 2 if quick else 800 if gpu else 36
    benchmark = read_patterncom(synthcom.draw_synthcom(out / f"synthcom_{per_class}", images_per_class=per_class))
    archive, load = benchmark.archive, lambda precision: load_encoder(demo, precision=precision)
    scores = {}
    for precision, features in bench_throughput(report, archive, load, precisions, "demo").items():
        encode_texts = load(precision).encode_texts
        rows = evaluate(benchmark, features, encode_texts, ["image", "weicom"], progress=False)
        scores[precision] = summarize(rows)["Avg"].droplevel("lambda")
        for method, value in scores[precision].items():
            lost = value - scores["float32"][method]
            report.add("precision", f"demo, {precision}, {method}, Avg mAP", mAP=value, difference=lost)
    if quick:
        return
    # many images where a GPU takes them, few where a processor does
    architecture, few = ("ViT-L-14", len(archive)) if gpu else ("ViT-B-32", 256)
    if not gpu:
        print("extractor  ViT-L-14 is skipped: no GPU here")
    with random_weights(architecture) as models:

        def load(precision: str) -> Encoder:
            precision, _, compiled = precision.partition(", ")
            encoder = load_encoder("clip", architecture, precision=precision, models_root=models)
            return compile_tower(encoder) if compiled else encoder

        precisions += ("bfloat16, compiled",) * gpu
        bench_throughput(report, archive.subset(range(few)), load, precisions, f"{architecture}, random weights")


def bench_search(report: Report, quick: bool, demo: str) -> None:
    """Top 20 of one WeiCom query, without and with encoding its text (the image's feature is stored)."""
    encoders = {"demo": load_encoder(demo, device="cpu")}
    if not quick:
        with random_weights("ViT-L-14") as models:
            encoders["ViT-L-14, random weights"] = load_encoder("clip", "ViT-L-14", "cpu", models_root=models)
    for images in (760,) if quick else (PATTERNNET, 1_000_000):
        feats = random_features(np.arange(images) % len(CLASSES), DIM)
        texts = random_texts([f"text {i}" for i in range(8)])
        seconds, moments = timed(Moments.of, feats)
        report.add("query", "moments, once an archive", images=images, seconds=seconds)
        gallery = InMemory(feats, moments)

        def ask(i: int, encoder: Encoder | None, feats=feats, texts=texts, gallery=gallery) -> None:
            if encoder:
                encoder.encode_texts([f"{i} cars"])
            top_k(gallery, feats[i * 97 % len(feats)], texts[i % len(texts)], 0.5)

        for name, encoder in {"": None, **encoders}.items():
            ask(0, encoder)
            seconds = [timed(ask, i, encoder)[0] for i in range(10 if quick else 100)]
            median, slow = np.percentile(seconds, [50, 99])
            what = "text in, top 20 out" + (f", encoded by {name}" if encoder else "")
            report.add("query", what, images=images, seconds=median, seconds_p99=slow)
        # what any search must do: read the features once
        reading = min(timed(np.max, feats)[0] for _ in range(3))
        report.add("query", "reading the features once", images=images, seconds=reading)


PARTS = ("evaluator", "search", "extractor")


def bench(out: Path, quick: bool, demo: str, parts: Sequence[str] = PARTS) -> None:
    report = Report()
    print(machine())
    if not torch.cuda.is_available():
        print("GPU parts are skipped: torch finds no CUDA device")
    if "evaluator" in parts:
        bench_evaluator(report, quick)
    if "search" in parts:
        bench_search(report, quick, demo)
    if "extractor" in parts:
        bench_extractor(report, quick, out, demo)
    path = out / ("bench.csv" if set(parts) == set(PARTS) else f"bench-{'-'.join(parts)}.csv")
    pd.DataFrame(report.rows).assign(machine=machine()).to_csv(path, index=False)
    print(f"written: {path}")


def rehearse(out: Path, quick: bool, demo: str, images: int = PATTERNNET) -> None:
    """Draw, extract and evaluate at PatternNet's size; then the real architectures in the authors' file formats."""
    report = Report()
    print(machine())

    def step(what: str, function: Callable, *arguments, **options):
        seconds, mib, result = measured(function, *arguments, **options)
        report.add("rehearsal", what, seconds=seconds, mib=mib)
        return result

    per_class = 2 if quick else images // len(synthcom.CLASSES)
    root = step("draw SynthCom (synthetic)", synthcom.draw_synthcom, out / "synthcom", images_per_class=per_class)
    benchmark = step("read the benchmark", read_patterncom, root)
    encoder = load_encoder(demo)
    folder = step("extract, demo", extract_features, benchmark.archive, encoder, out / "features")
    features = read_features(folder, benchmark.archive, encoder)
    rows = step(
        "evaluate, four methods, eleven lambdas", evaluate, benchmark, features, encoder.encode_texts, lambdas=LAMBDAS
    )
    attributes = benchmark.queries["attribute"].nunique()
    print(f"{len(benchmark.archive)} images, {len(benchmark.queries)} composed queries, {attributes} attributes")
    print(summarize(rows).round(2).to_string())

    pictures = [read_image(benchmark.archive.path(i)) for i in range(4 if quick else 32)]
    for architecture in ("RN50",) if quick else ("ViT-L-14", "ViT-B-32", "RN50"):
        with random_weights(architecture) as models:
            feats = {}
            for name in ("clip", "remoteclip"):
                encoder = step(
                    f"load {name} {architecture}", load_encoder, name, architecture, "cpu", models_root=models
                )
                batch = torch.stack([encoder.preprocess(image) for image in pictures])
                feats[name] = step(f"encode {len(pictures)} images, CPU", encoder.encode_images, batch)
            if not np.array_equal(feats["clip"], feats["remoteclip"]):
                raise RuntimeError(f"{architecture}: the same weights in the two file formats give other features")
            if not torch.cuda.is_available():
                print(f"{architecture} on the GPU is skipped: torch finds no CUDA device")
                continue
            encoder = load_encoder("clip", architecture, "cuda", models_root=models)
            cosine = (step("encode, GPU", encoder.encode_images, batch) * feats["clip"]).sum(axis=1).min()
            report.add("rehearsal", f"{architecture}: least cosine, CPU and GPU", cosine=cosine)
            if cosine <= 0.9999:
                raise RuntimeError(f"{architecture}: CPU and GPU features differ, cosine {cosine:.6f}")
    pd.DataFrame(report.rows).assign(machine=machine()).to_csv(out / "rehearsal.csv", index=False)
    print(f"written: {out / 'rehearsal.csv'}")


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no positive whole number")
    return int(text)


def main(argv: list[str] | None = None) -> None:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.split("\n")[0])
    parser.add_argument("command", nargs="?", default="bench", choices=("bench", "rehearse", "scale"))
    parser.add_argument("--quick", action="store_true", help="small sizes, in seconds: does everything still run?")
    parser.add_argument("--out", type=Path, help="folder of what is written; runs/bench, runs/rehearsal or runs/scale")
    parser.add_argument(
        "--only", nargs="+", choices=PARTS, default=PARTS, help="parts of the benchmark; all if not given"
    )
    parser.add_argument("--images", type=_positive, help="of the rehearsal, or of the scale; not with --quick")
    parser.add_argument("--queries", type=_positive, default=32, help="of the scale, at once")
    parser.add_argument("--encoder", default="demo", help="in place of the demo encoder, a folder of an adapted one")
    given = parser.parse_args(argv)
    if given.only is not PARTS and given.command != "bench":
        parser.error(f"--only names parts of bench, not of {given.command}")
    if given.images and (given.quick or given.command not in ("rehearse", "scale")):
        parser.error("--images is for the rehearsal and the scale, without --quick")
    folder = "rehearsal" if given.command == "rehearse" else given.command
    out = given.out or Path("runs") / (folder + "-quick" * given.quick)
    out.mkdir(parents=True, exist_ok=True)
    if given.command == "bench":
        bench(out, given.quick, given.encoder, given.only)
    elif given.command == "rehearse":
        rehearse(out, given.quick, given.encoder, given.images or PATTERNNET)
    else:
        scale.scale(out, given.quick, given.images or scale.IMAGES, given.queries)
