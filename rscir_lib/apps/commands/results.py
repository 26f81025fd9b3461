"""The tables of one dataset and one encoder, printed: methods x attributes, with chance and intervals beside them.

python -m rscir_lib.apps.commands.results                              # the bundled synthetic benchmark and encoder
python -m rscir_lib.apps.commands.results --seed 1                     # a synthetic benchmark that nothing was tuned on
python -m rscir_lib.apps.commands.results ROOT --encoder FOLDER --listing FOLDER/heldout.csv
python -m rscir_lib.apps.commands.results --methods RUN_FOLDER ...     # notebook 09's table of runs that have it, in Markdown
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from rscir_lib.analysis import (
    against_average,
    choose_lambda,
    choose_lambdas,
    folds,
    lambdas_in_words,
    methods_table,
    summarize_chosen,
)
from rscir_lib.apps.commands.training import zero_shot_accuracy
from rscir_lib.benchmarks.base import Benchmark
from rscir_lib.benchmarks.registry import read_benchmark
from rscir_lib.benchmarks.synthcom import CLASS_WORDS, HELD_OUT, draw_synthcom
from rscir_lib.encoders import Encoder, load_encoder
from rscir_lib.evaluation import BASELINES, evaluate, summarize, with_chance
from rscir_lib.features import extract_features, read_features
from rscir_lib.runs import dataset_root, run_folder

LAMBDAS = tuple(np.arange(11) / 10)
NORMALISATIONS = ("linear", "zscore", "weicom")  # none, the mean and std, the CDF
FINE = tuple(np.arange(41) / 40)  # the wider one similarity spreads, the closer to an end the best lambda lies


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
    texts = encoder.encode_texts(sorted(set(benchmark.queries["text"])))
    echo("\nSimilarities of images to images, and of images to the queries' texts\n")
    some = features.aligned(archive)[:: -(-len(archive) // 2000)]  # enough to tell, where all pairs are too many
    shapes = spreads(some, texts)
    echo(shapes.round(3).to_string())
    echo("means {:.2f} apart, spread ratio {:.2f}".format(*gap_and_ratio(shapes)))
    echo("\nAvg mAP in % at the best lambda, at one chosen on the other attributes, and at 0.5\n")
    compared = evaluate(benchmark, features, encoder.encode_texts, NORMALISATIONS, FINE)
    echo(best_and_honest(compared).round({"lambda": 3, "best": 1, "honest": 1, "even": 1}).to_string() + "\n")
    best = summarize(rows).loc["weicom"]["Avg"].idxmax()
    echo(_against_average(rows, best))
    for by, others in (("attribute", "attributes"), ("half", "images")):
        split = folds(benchmark, by)
        if split.nunique() > 1:
            honest, lambdas = choose_lambda(rows, "weicom", split)
            avg = summarize_chosen({"weicom": honest})["Avg"].item()
            echo(f"weicom, lambda chosen on other {others} ({lambdas_in_words(lambdas)}): Avg {avg:.1f}")
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


def methods_of(run: Path) -> str:
    """Notebook 09's table of a run, every method with what it is worth and costs, in Markdown.

    Raises FileNotFoundError where notebook 09 hasn't run there.
    """
    found = {}
    for name in ("09_map", "09_how_sure", "09_cost"):
        path = run / "tables" / f"{name}.csv"
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing: run notebook 09 there")
        found[name] = pd.read_csv(path, index_col="method", dtype={"lambda": str}, keep_default_na=name != "09_map")
    table = methods_table(*found.values())
    rows = [table.columns, ["---"] * table.shape[1], *table.to_numpy()]
    lines = [[name, *row] for name, row in zip(["method", "---", *table.index], rows, strict=True)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def spreads(images: np.ndarray, texts: np.ndarray) -> pd.DataFrame:
    """Shape of the similarities of all pairs of different images, and of all pairs of an image and a text.

    images (N, d), N > 1, and texts (T, d) are L2-normalised. Columns: mean, std and the 5, 50 and 95 % quantiles.
    """
    pairs = {"image-image": (images @ images.T)[np.triu_indices(len(images), 1)], "image-text": images @ texts.T}
    quantiles = {"5%": 0.05, "50%": 0.5, "95%": 0.95}
    shapes = {
        kind: {"mean": s.mean(), "std": s.std(), **{name: np.quantile(s, q) for name, q in quantiles.items()}}
        for kind, s in pairs.items()
    }
    return pd.DataFrame(shapes).T


def gap_and_ratio(shapes: pd.DataFrame) -> tuple[float, float]:
    """Of a table of `spreads`: how far the two means lie apart, and the std between images over the other one."""
    images, texts = shapes.loc["image-image"], shapes.loc["image-text"]
    return images["mean"] - texts["mean"], images["std"] / texts["std"]


def best_and_honest(rows: pd.DataFrame) -> pd.DataFrame:
    """Avg mAP in per cent of each method at its best lambda, at an honest one, and at 0.5; index method.

    rows: of `evaluate`, methods with a lambda. Columns `lambda` and `best`: chosen on the queries that it is measured
    on; `honest`: for each attribute the lambda that is best on the others, NaN where there is only one; `even`: at 0.5,
    which nobody chose, NaN where it is not among the rows.
    """
    average = summarize(rows)["Avg"].unstack("lambda", sort=False)
    honest = np.nan
    if rows["attribute"].nunique() > 1:
        honest = summarize_chosen(choose_lambdas(rows, rows["attribute"].groupby(level=0).first())[0])["Avg"]
    columns = {"lambda": average.idxmax(axis=1), "best": average.max(axis=1), "honest": honest}
    return pd.DataFrame(columns).assign(even=average.get(0.5, np.nan))


def _table(rows: pd.DataFrame, benchmark: Benchmark | None = None) -> str:
    table = summarize(rows)
    if benchmark is not None:
        table = with_chance(table, benchmark)
    table.index = [f"{method} {lam:.1f}" if lam == lam else method for method, lam in table.index]
    return table.round(1).to_string()


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
    parser = argparse.ArgumentParser(
        prog="python -m rscir_lib.apps.commands.results", description=__doc__.split("\n")[0]
    )
    parser.add_argument("root", nargs="?", default="", help="dataset root; the bundled synthetic benchmark without one")
    parser.add_argument("--seed", type=int, default=0, help="of the bundled benchmark")
    parser.add_argument("--encoder", default="demo", help="a registered name, or the folder of an adapted encoder")
    parser.add_argument("--architecture", default="", help="the encoder's default without one")
    parser.add_argument("--listing", default="", help="a part of the archive, in the format of patternnet.csv")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--methods", nargs="+", type=Path, metavar="RUN", help="print notebook 09's table of runs")
    arguments = parser.parse_args()
    for run in arguments.methods or ():
        print(f"## {run.resolve().name}\n\n{methods_of(run)}")
    if arguments.methods:
        return
    root = arguments.root or ("" if arguments.seed == 0 else f"runs/synthcom-seed{arguments.seed}")
    if not arguments.root:
        draw_synthcom(dataset_root(root), seed=arguments.seed)
    encoder = load_encoder(
        arguments.encoder, arguments.architecture or None, arguments.device, models_root=dataset_root(root) / "models"
    )
    run = run_folder("", root, arguments.encoder, arguments.architecture, arguments.listing)
    report(dataset_root(root), encoder, run / "features", arguments.listing or None)


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError) as error:
        raise SystemExit(f"error: {error}") from None
