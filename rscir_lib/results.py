"""The tables of one dataset and one encoder, printed: methods x attributes, with chance and intervals beside them.

python -m rscir_lib.results                              # the bundled synthetic benchmark and encoder
python -m rscir_lib.results --seed 1                     # a synthetic benchmark that nothing was tuned on
python -m rscir_lib.results ROOT --encoder FOLDER --listing FOLDER/heldout.csv
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from rscir_lib.benchmark import Benchmark, read_benchmark
from rscir_lib.encoders import Encoder, load_encoder
from rscir_lib.evaluation import BASELINES, evaluate, summarize, with_chance
from rscir_lib.features import extract_features, read_features
from rscir_lib.runs import dataset_root, run_folder
from rscir_lib.statistics import against_average, choose_lambda, folds, lambdas_told
from rscir_lib.synthcom import CLASS_WORDS, HELD_OUT, draw_synthcom
from rscir_lib.training import zero_shot_accuracy

LAMBDAS = tuple(np.arange(11) / 10)


def report(
    root: str | Path, encoder: Encoder, folder: Path, listing: str | Path | None = None, echo: Callable = print
) -> pd.DataFrame:
    """Extract features into `folder` where they don't stand, evaluate, and print every table; returns the rows."""
    benchmark = read_benchmark(root, listing)
    archive = benchmark.archive
    features = read_features(extract_features(archive, encoder, folder), archive, encoder)
    rows = evaluate(benchmark, features, encoder.encode_texts, (*BASELINES, "weicom"), LAMBDAS)
    echo(f"\n{archive.name}, encoder {encoder.name}, {len(archive)} images, mAP in %\n")
    echo(_table(rows, benchmark))
    best = summarize(rows).loc["weicom"]["Avg"].idxmax()
    echo(_against_average(rows, best))
    for by, others in (("attribute", "attributes"), ("half", "images")):
        split = folds(benchmark, by)
        if split.nunique() > 1:
            honest, lambdas = choose_lambda(rows, "weicom", split)
            echo(f"weicom, lambda chosen on other {others} ({lambdas_told(lambdas)}): Avg {_avg(honest):.1f}")
    if (archive.root / "synthcom.json").exists():
        asked = zip(
            benchmark.queries["attribute"],
            [archive.classes[i] for i in benchmark.queries["position"]],
            benchmark.queries["text"],
            strict=True,
        )
        unseen = benchmark.queries.index[[key in HELD_OUT for key in asked]]
        echo(f"\nQueries for combinations never seen in training alone ({len(unseen)}), mAP in %\n")
        held_out = rows[rows.index.isin(unseen)]
        echo(_table(held_out))
        for lam in (best, summarize(held_out).loc["weicom"]["Avg"].idxmax()):
            echo(_against_average(held_out, lam))
        echo("\nZero-shot accuracy in % (chance)\n")
        echo(_zero_shot(benchmark, features.aligned(archive), encoder).round(1).to_string())
    return rows


def _table(rows: pd.DataFrame, benchmark: Benchmark | None = None) -> str:
    table = summarize(rows)
    if benchmark is not None:
        table = with_chance(table, benchmark)
    table.index = [f"{method} {lam:.1f}" if lam == lam else method for method, lam in table.index]
    return table.round(1).to_string()


def _avg(rows: pd.DataFrame) -> float:
    """Avg of one method's rows, whatever lambda each has."""
    return summarize(rows.assign(**{"lambda": np.nan}))["Avg"].item()


def _against_average(rows: pd.DataFrame, lam: float) -> str:
    table = against_average(rows, "weicom", lam)
    intervals = ", ".join(
        f"{low:+.1f} to {high:+.1f} over {over}" for over, low, high in table[["low", "high"]].itertuples()
    )
    difference = table["difference"].iloc[0]
    return f"weicom at lambda {lam:.1f} minus average: {difference:+.1f} points of Avg, 95 % intervals {intervals}"


def _zero_shot(benchmark: Benchmark, feats: np.ndarray, encoder: Encoder) -> pd.DataFrame:
    """Accuracy of class names over all images, and of bare values over the labelled images of each attribute."""

    def accuracy(positions: Sequence[int], labels: Sequence[str], prompts: dict[str, list[str]]) -> tuple[float, float]:
        found = zero_shot_accuracy(feats[positions], labels, encoder.encode_texts, prompts)
        return 100 * found, 100 / len(prompts)

    archive = benchmark.archive
    lines = {"class": accuracy(range(len(archive)), archive.classes, {c: [w] for c, w in CLASS_WORDS.items()})}
    for attribute, labels in benchmark.labels.groupby("attribute", sort=False):
        values = sorted(labels["value"].unique())
        lines[attribute] = accuracy(labels["position"].to_numpy(), labels["value"], {v: [v] for v in values})
    return pd.DataFrame(lines, index=["accuracy", "chance"]).T


def main() -> None:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m rscir_lib.results", description=__doc__.split("\n")[0])
    parser.add_argument("root", nargs="?", default="", help="dataset root; the bundled synthetic benchmark without one")
    parser.add_argument("--seed", type=int, default=0, help="of the bundled benchmark")
    parser.add_argument("--encoder", default="demo", help="a registered name, or the folder of an adapted encoder")
    parser.add_argument("--architecture", default="", help="the encoder's default without one")
    parser.add_argument("--listing", default="", help="a part of the archive, in the format of patternnet.csv")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    root = arguments.root or ("" if arguments.seed == 0 else f"runs/synthcom-seed{arguments.seed}")
    if not arguments.root:
        draw_synthcom(dataset_root(root), seed=arguments.seed)
    encoder = load_encoder(
        arguments.encoder, arguments.architecture or None, arguments.device, models_root=dataset_root(root) / "models"
    )
    run = run_folder("", root, arguments.encoder, arguments.architecture, arguments.listing)
    report(dataset_root(root), encoder, run / "features", arguments.listing or None)


if __name__ == "__main__":
    main()
