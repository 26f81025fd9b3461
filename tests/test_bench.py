"""The benchmark's quick forms: that they run, and write what they promise. No time is asserted."""

import pandas as pd
import pytest

from rscir_lib.bench import main, patterncom_shaped, plain_loop, random_features, random_texts
from rscir_lib.evaluation import evaluate
from rscir_lib.features import Features


def test_plain_loop_is_the_same_measure():
    """What the evaluator is timed against computes the same thing."""
    benchmark = patterncom_shaped(380)
    archive = benchmark.archive
    features = Features(random_features(archive.classes, 16), archive.files, archive.classes, {})
    rows = evaluate(benchmark, features, lambda t: random_texts(t, 16), methods=["weicom"], progress=False)
    assert plain_loop(benchmark, features.feats) == pytest.approx(rows["AP"].tolist(), abs=1e-3)


def test_benchmark_has_the_shape_of_patterncom():
    composition = patterncom_shaped(3_800).composition()
    assert composition.index.get_level_values("attribute").nunique() == 6
    assert composition["values"].str.split(", ").str.len().between(2, 5).all()
    assert composition["positives min"].min() >= 1


def test_bench(tmp_path, capsys):
    main(["--quick", "--out", str(tmp_path)])
    table = pd.read_csv(tmp_path / "bench.csv")
    assert set(table["section"]) == {"evaluator", "query", "extractor", "precision", "scaling"}
    assert (table["seconds"].dropna() > 0).all()
    assert set(table.loc[table["section"] == "scaling", "what"]) == {"archive size", "number of queries"}
    assert table.loc[table["what"] == "evaluate, weicom, per query", "ratio"].notna().all()
    assert (tmp_path / "scaling.png").stat().st_size > 10_000
    assert "evaluate, weicom, per query" in capsys.readouterr().out


def test_rehearsal(tmp_path, capsys):
    main(["rehearse", "--quick", "--out", str(tmp_path)])
    table = pd.read_csv(tmp_path / "rehearsal.csv")
    assert list(table["what"][:4]) == [
        "draw SynthCom (synthetic)",
        "read the benchmark",
        "extract, demo",
        "evaluate, four methods, eleven lambdas",
    ]
    assert table["what"].str.contains("load remoteclip RN50").any()
    loads = table["what"].str.startswith("load")  # a small step may live on what was freed before it
    assert (table.loc[loads, "mib"] > 0).all()
    assert "weicom" in capsys.readouterr().out
