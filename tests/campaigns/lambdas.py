"""WHUCom's methods, and lambda without a label: rules that read it off the similarities, against 0.5 and the best.

    make lambdas                      WHUCom by the two bundled encoders, SynthCom with seeds 0 to 2
    make lambdas ARGS=FOLDER          and by the other encoders whose features RS-TransCLIP stores, in FOLDER

Where RSCIR_UCM_ROOT names UC Merced, UCMCom too: by an encoder that `make adapt` trains first, on other images.

notebooks/book/lambda.md holds the rules, which were written there before they were run here, and what came out.
"""

import argparse
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from rscir_lib.analysis import bootstrap_difference, bootstrap_mean, rows_of
from rscir_lib.apps.commands.training import adapt
from rscir_lib.benchmarks import Benchmark, read_benchmark, whucom
from rscir_lib.benchmarks.synthcom import draw_synthcom
from rscir_lib.encoders import load_encoder
from rscir_lib.encoders.stored import TABLE
from rscir_lib.evaluation import evaluate, summarize
from rscir_lib.features import Features, extract_features, read_features
from rscir_lib.methods import Basic, mix
from rscir_lib.similarity.lambda_auto import QUERIES, two_normals
from rscir_lib.similarity.scales import upper_tail
from rscir_lib.storage.atomic import write_file
from rscir_lib.storage.project import ROOT

GRID = [round(lam, 2) for lam in np.arange(21) / 20]
DEVELOPED = ("synthcom-0", "collages-clip_ViT-L-14", "lookalikes-clip_ViT-L-14")
METHODS = ("average", "linear", "zscore", "weicom", "product")
Task = tuple[str, Benchmark, Features, object]


def bundle(source: Path, folder: Path) -> None:
    """Writes the table of a `StoredEncoder` from a file of RS-TransCLIP's: its images and all phrases, in float16."""
    with np.load(source, allow_pickle=False) as stored:
        classes = [whucom.CLASSES[i] for i in stored["class_index"]]
        plain = [cls.replace(" ", "") for cls in classes]
        files = [f"{cls}/{cls}{number:04d}.png" for number, cls in enumerate(plain, 1)]
        templates = [name for name in stored.files if name.startswith("text_") and name != "text_averageprompt"]
        phrases = [f"{t.removeprefix('text_').replace('_', ' ')} {cls}" for t in templates for cls in whucom.CLASSES]
        texts = np.concatenate([stored["text_a_satellite_image_of_a"], *(stored[t] for t in templates)])
        arrays = {"images": stored["image_features"].astype(np.float16), "texts": texts.astype(np.float16)}
    phrases = np.array([*whucom.CLASSES, *phrases])
    arrays |= {"files": np.array(files), "classes": np.array(classes), "phrases": phrases}
    folder.mkdir(parents=True, exist_ok=True)
    made_by = np.array(source.stem.split("_", 1)[1])
    write_file(folder / TABLE, lambda file: np.savez(file, **arrays, made_by=made_by))


def whucom_tasks(tables: dict[str, Path], root: Path) -> Iterator[Task]:
    """Both tasks for every table; lookalikes are judged by the ViT-L-14 of the other kind."""
    whucom.draw_whucom(root / "collages", "collages", tables)
    for kind, judge in (("clip", "remoteclip"), ("remoteclip", "clip")):
        own = {name: table for name, table in tables.items() if name.startswith(kind + "_")}
        whucom.draw_whucom(root / f"lookalikes_{kind}", "lookalikes", own, tables[f"{judge}_ViT-L-14"])
    for task in ("collages", "lookalikes"):
        for name, table in tables.items():
            folder = root / (task if task == "collages" else f"{task}_{name.split('_')[0]}")
            benchmark = read_benchmark(folder)
            features = read_features(folder / f"{name}.npz", benchmark.archive)
            yield f"{task}-{name}", benchmark, features, load_encoder(table.parent)


def synthcom_tasks(root: Path) -> Iterator[Task]:
    encoder = load_encoder("demo")
    for seed in range(3):
        benchmark = read_benchmark(draw_synthcom(root / f"synthcom-seed{seed}", seed=seed))
        store = extract_features(benchmark.archive, encoder, root / f"synthcom-seed{seed}-features")
        yield f"synthcom-{seed}", benchmark, read_features(store, benchmark.archive, encoder), encoder


def ucmcom_tasks(root: Path) -> Iterator[Task]:
    """UCMCom on the images that the encoder did not learn from; nothing where UC Merced isn't on this machine."""
    if not (ucm := os.environ.get("RSCIR_UCM_ROOT")):
        print("RSCIR_UCM_ROOT names no UC Merced: without UCMCom")
        return
    folder = root / "ucm_encoder"
    if not (folder / "heldout.csv").exists():
        print(adapt(ucm, Path(ucm) / "captions.json", folder))
    encoder, benchmark = load_encoder(folder), read_benchmark(ucm, folder / "heldout.csv")
    store = extract_features(benchmark.archive, encoder, root / "ucmcom-features")
    yield "ucmcom", benchmark, read_features(store, benchmark.archive, encoder), encoder


# --- the rules


def rules(image: np.ndarray, text: np.ndarray, own: np.ndarray) -> dict[str, float]:
    """Lambda by each rule, from z-scores (B, N) to the images and texts of B queries, whose own positions are (B,)."""
    sides = [two_normals(z) for z in (image, text)]
    gaps = [np.maximum(fit.high_mean - fit.low_mean, 0) for fit in sides]
    fisher = [gap / fit.high_std**2 for gap, fit in zip(gaps, sides, strict=True)]
    pooled = [gap / (fit.high_std**2 + fit.low_std**2) for gap, fit in zip(gaps, sides, strict=True)]
    middle = [np.median(weight) for weight in fisher]
    low, lam, high = (float(x) for x in np.quantile(_share(*fisher), [0.25, 0.5, 0.75]))
    found = {
        "half": 0.5,
        "fisher": lam,
        "pooled": float(np.median(_share(*pooled))),
        "separate": float(_share(*middle)),
        "halfway": (lam + 0.5) / 2,
        "agreed": 0.5 + (lam - 0.5) * (1 - (high - low)),
        "gated": lam if low >= 0.5 or high <= 0.5 else 0.5,
        "sharper": _sharpened(lam, 1.5),
        "squared": _sharpened(lam, 2),
        "plane": float(np.median([_plane(pair) for pair in np.stack([image, text], axis=2)])),
        "leaves": float(np.median([_leaves(*row) for row in zip(image, text, own, strict=True)])),
    }
    return {name: round(lam, 2) for name, lam in found.items()}


def _share(image: np.ndarray, text: np.ndarray) -> np.ndarray:
    return text / np.maximum(image + text, 1e-12)


def _sharpened(lam: float, power: float) -> float:
    return lam**power / (lam**power + (1 - lam) ** power)


def _plane(points: np.ndarray) -> float:
    """Two normal distributions in the plane (N, 2), and Fisher's direction between them."""
    total = points.sum(axis=1)
    high = (total >= np.quantile(total, 0.97)).astype(float)
    for _ in range(40):
        fits = []
        for part in (1 - high, high):
            mean = part @ points / part.sum()
            centred = points - mean
            covariance = (centred * part[:, None]).T @ centred / part.sum() + 0.05**2 * np.eye(2)
            distance = ((centred @ np.linalg.inv(covariance)) * centred).sum(axis=1)
            fits.append((mean, covariance, np.log(part.mean()) - np.linalg.slogdet(covariance)[1] / 2 - distance / 2))
        high = 1 / (1 + np.exp((fits[0][2] - fits[1][2]).clip(-500, 500)))
    weights = np.linalg.solve((fits[0][1] + fits[1][1]) / 2, fits[1][0] - fits[0][0]).clip(0)
    return float(_share(*weights)) if weights.sum() else 0.5


def _leaves(image: np.ndarray, text: np.ndarray, own: int) -> float:
    """The least lambda at which 30 images stand before the query's own."""
    tails = [upper_tail(torch.from_numpy(z)) for z in (image, text)]
    scores = (mix(*tails, lam) for lam in GRID)
    return next((lam for lam, s in zip(GRID, scores, strict=True) if (s > s[own]).sum() >= 30), 1.0)


# --- the tables


def z_scores(benchmark: Benchmark, features: Features, encoder: object) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(B, N) to the images and to the texts of a sample of queries, and the positions of their images."""
    x = features.aligned(benchmark.archive).astype(np.float64)
    some = np.random.default_rng(0).choice(len(benchmark.queries), min(QUERIES, len(benchmark.queries)), replace=False)
    asked = benchmark.queries.iloc[some]
    own, texts = asked["position"].to_numpy(), encoder.encode_texts(asked["text"].tolist())
    both = [side.astype(np.float64) @ x.T for side in (x[own], texts)]
    return *((s - s.mean(axis=1, keepdims=True)) / s.std(axis=1, ddof=1, keepdims=True) for s in both), own


def rules_table(tasks: Iterator[Task]) -> pd.DataFrame:
    """mAP of WeiCom by each rule's lambda, a row a task, with the interval of `fisher` less 0.5."""
    lines = {}
    for name, benchmark, features, encoder in tasks:
        start = time.perf_counter()
        z = z_scores(benchmark, features, encoder)
        two_normals(z[0]), two_normals(z[1])
        seconds = time.perf_counter() - start
        chosen = rules(*z)
        lambdas = sorted({*GRID, *chosen.values()})
        rows = evaluate(benchmark, features, encoder.encode_texts, ["weicom"], lambdas, progress=False)
        curve = summarize(rows)["Avg"].loc["weicom"]
        gain = bootstrap_difference(rows_of(rows, "weicom", chosen["fisher"]), rows_of(rows, "weicom", 0.5))
        lines[name] = {rule: f"{curve.loc[lam]:.1f} ({lam:g})" for rule, lam in chosen.items()}
        lines[name] |= {"best": f"{curve.max():.1f} ({curve.idxmax():g})", "seconds": f"{seconds:.1f}"}
        lines[name]["fisher less 0.5"] = "{:+.1f} ({:+.1f} to {:+.1f})".format(*gain[["difference", "low", "high"]])
        print(name, lines[name], flush=True)
    return pd.DataFrame(lines).T


def methods_table(tasks: Iterator[Task]) -> pd.DataFrame:
    """mAP at 0.5 and at the best lambda, with intervals over texts and images, and what the CDF adds to z-scores."""
    lines = {}
    with np.load(next(iter(whucom.BUNDLES.values()))) as table:
        styles = list(
            dict.fromkeys(phrase.rsplit(" of a ", 1)[0] + " of a" for phrase in table["phrases"][19:].tolist())
        )
    words = {"subjects": whucom.CLASSES, "styles": styles}
    basics = [
        Basic(**words, name="basic, classes and templates"),
        Basic(**words, normalise=False, name="basic, not normalised"),
    ]
    for name, benchmark, features, encoder in tasks:
        rows = evaluate(benchmark, features, encoder.encode_texts, [*METHODS, "basic", *basics], GRID, progress=False)
        averages, line = summarize(rows)["Avg"], {}
        for method in dict.fromkeys(rows["method"]):
            own = averages.loc[method]
            half = rows_of(rows, method, 0.5 if 0.5 in own.index else None)
            avg, low, high = bootstrap_mean(half)[["Avg", "low", "high"]]
            line[method] = (
                f"{avg:.1f}" + (f" / {own.max():.1f}" if len(own) > 1 else "") + f" ({low:.1f} to {high:.1f})"
            )
        for over in ("texts", "images"):
            gain = bootstrap_difference(rows_of(rows, "weicom", 0.5), rows_of(rows, "zscore", 0.5), over)
            line[f"weicom less zscore, over {over}"] = "{:+.1f} ({:+.1f} to {:+.1f})".format(
                *gain[["difference", "low", "high"]]
            )
        lines[name] = line
        print(name, line, flush=True)
    return pd.DataFrame(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, help="of <model>_<architecture>.npz")
    parser.add_argument("--methods", action="store_true", help="WHUCom's methods alone")
    parser.add_argument("--rules", action="store_true", help="the rules alone")
    arguments = parser.parse_args()
    root = ROOT / "runs" / "lambdas"
    tables = {f"{name}_ViT-L-14": table for name, table in whucom.BUNDLES.items()}
    if not arguments.rules:
        print("\nWHUCom (constructed), mAP in % at lambda 0.5 / at the best, 95 % intervals over texts and images\n")
        print(methods_table(whucom_tasks(tables, root)).to_string())
    if arguments.methods:
        return
    for source in sorted(arguments.folder.glob("*.npz")) if arguments.folder else ():
        name = "_".join([source.stem.split("_")[0].lower(), source.stem.split("_")[1]])
        if name not in tables:
            bundle(source, root / "tables" / name)
            tables[name] = root / "tables" / name / TABLE
    print("\nWeiCom by lambda without a label, mAP in % (lambda)\n")
    table = rules_table([*synthcom_tasks(root), *whucom_tasks(tables, root), *ucmcom_tasks(root)])
    print(table.to_string())
    seconds = table["seconds"].astype(float)
    print(f"\nseconds that auto costs: {seconds.min()} to {seconds.max()}")
    values = table.drop(columns=["seconds", "fisher less 0.5"]).map(lambda cell: float(cell.split()[0]))
    for label, part in (("developed on", values.index.isin(DEVELOPED)), ("held out", ~values.index.isin(DEVELOPED))):
        print(f"\n{label}, mean over {part.sum()} tasks\n{values[part].mean().round(1).to_frame().T.to_string()}")


if __name__ == "__main__":
    main()
