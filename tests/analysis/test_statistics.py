"""How far a number can be trusted: each function against a slow or a hand-made answer, or another library's."""

import itertools
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import oracle
from helpers import make_features, text_encoder, unit, write_benchmark
from rscir_lib.analysis.statistics import (
    KINDS,
    against_average,
    balanced_lambda,
    bootstrap_difference,
    bootstrap_mean,
    choose_lambda,
    choose_lambdas,
    compare_methods,
    compare_runs,
    failure_kinds,
    folds,
    holm,
    intervals,
    judged_alone,
    judged_share,
    lambda_choices,
    methods_table,
    precision_ceiling,
    randomisation_test,
    rows_of,
    shortcut_audit,
    wordings,
    write_trec,
)
from rscir_lib.archive import Archive
from rscir_lib.benchmarks.base import Benchmark, ValidationReport
from rscir_lib.benchmarks.patterncom import read_patterncom
from rscir_lib.evaluation import evaluate, summarize, top_lists
from rscir_lib.evaluation.metrics import METRICS, r_precision
from rscir_lib.features import Features

CLASSES = ("bridge", "harbor", "forest")


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """90 images of three classes, two attributes, a third unlabelled; every image and text has a feature of its own."""
    rng = np.random.default_rng(5)
    root = tmp_path_factory.mktemp("benchmark")
    labelled = [
        (i, attribute, value)
        for attribute, values in (("density", ("red", "two")), ("existence", ("red", "two", "oval")))
        for i, value in zip(rng.choice(90, 60, replace=False), rng.choice(values, 60), strict=True)
    ]
    write_benchmark(root, [CLASSES[i % 3] for i in range(90)], labelled)
    benchmark = read_patterncom(root)
    return benchmark, make_features(benchmark.archive, unit(rng.normal(size=(90, 8))))


def rows_for(case, methods, lambdas=(0.5,), **options):
    return evaluate(*case, text_encoder(8), methods, lambdas, "cpu", progress=False, **options)


@pytest.fixture(scope="module")
def rows(case):
    return rows_for(case, ["image", "text", "average", "weicom"], [0.0, 0.2, 0.4, 0.6, 0.8, 1.0])


def made_up(values):
    """Rows of one method with these AP: a list of (attribute, image, text, AP)."""
    table = pd.DataFrame(values, columns=["attribute", "image", "text", "AP"]).rename_axis("query")
    return table.assign(method="mine", **{"lambda": np.nan})


# --- intervals and tests


def test_interval_of_a_case_that_can_be_written_down():
    """Two images, APs 0 and 1, one text: half of the resamples hold both, a quarter each one of them twice."""
    a = made_up([("x", "one", "t", 0.0), ("x", "two", "t", 1.0)])
    found = bootstrap_mean(a, "images", samples=4000)
    assert found.to_dict() == {"Avg": 50.0, "low": 0.0, "high": 100.0}
    alike = bootstrap_mean(a.assign(AP=0.25), "images")
    assert alike.to_dict() == {"Avg": 25.0, "low": 25.0, "high": 25.0}


def test_intervals_have_the_width_of_the_normal_approximation():
    """Many independent images: 1.96 standard errors. Texts as many, all images alike: the same over texts."""
    rng = np.random.default_rng(0)
    ap = rng.uniform(size=400)
    error = 100 * 1.96 * ap.std() / np.sqrt(400)
    by_image = made_up([("x", f"i{i}", "t", value) for i, value in enumerate(ap)])
    by_text = by_image.assign(image=by_image["text"], text=by_image["image"])
    for table, over in ((by_image, "images"), (by_text, "texts")):
        mean, low, high = bootstrap_mean(table, over, samples=4000)
        assert (mean, high - mean, mean - low) == pytest.approx((100 * ap.mean(), error, error), rel=0.08)
    crossed = made_up([("x", f"i{i}", f"t{j}", ap[20 * i + j]) for i in range(20) for j in range(20)])
    widths = {over: bootstrap_mean(crossed, over)["high"] - bootstrap_mean(crossed, over)["low"] for over in
              ("images", "texts", "both")}  # fmt: skip
    assert widths["both"] > max(widths["images"], widths["texts"])


@pytest.mark.parametrize("over", ["images", "texts", "both"])
def test_resampling_is_by_image_and_text_as_the_slow_way_does_it(rows, over):
    """One resample after the other: a query counts as often as its image, times as often as its text was drawn."""
    a, b = rows_of(rows, "image"), rows_of(rows, "text")
    rng, means = np.random.default_rng(1), []
    parts = [
        (part["image"].tolist(), part["text"].tolist(), (a["AP"] - b["AP"]).loc[part.index].tolist())
        for _, part in a.groupby("attribute")
    ]
    for _ in range(300):
        of_attributes = []
        for images, texts, differences in parts:
            often = []
            for column, names in (("images", images), ("texts", texts)):
                there = sorted(set(names))
                resample = over in (column, "both")
                often.append(Counter(rng.choice(there, len(there)) if resample else there))
            weights = [often[0][image] * often[1][text] for image, text in zip(images, texts, strict=True)]
            of_attributes.append(np.average(differences, weights=weights))
        means.append(100 * np.mean(of_attributes))
    slow = np.percentile(means, [2.5, 97.5])
    found = bootstrap_difference(a, b, over)
    table = summarize(rows)["Avg"].droplevel("lambda")
    assert found["difference"] == pytest.approx(table["image"] - table["text"])
    assert found[["low", "high"]].to_numpy() == pytest.approx(slow, abs=0.2 * (slow[1] - slow[0]))


def test_a_single_case_has_no_interval():
    a = made_up([("x", "one", "t", 0.2), ("x", "one", "u", 0.4), ("y", "one", "t", 0.2), ("y", "two", "u", 0.4)])
    for over in ("images", "both"):
        found = bootstrap_mean(a, over)
        assert found["Avg"] == pytest.approx(30)
        assert found[["low", "high"]].isna().all()
    assert bootstrap_mean(a, "texts").notna().all()


def test_what_does_not_pair_is_refused(rows):
    image, text = rows_of(rows, "image"), rows_of(rows, "text")
    with pytest.raises(ValueError, match="same queries"):
        bootstrap_difference(image, text.iloc[1:])
    with pytest.raises(ValueError, match="over 'words' is unknown; choose images, texts, both"):
        bootstrap_difference(image, text, "words")
    with pytest.raises(ValueError, match=r"expected one row a query; there are .*weicom 0\.4"):
        rows_of(rows, "weicom")


def exact_p(images):
    """Every way to swap."""
    observed = abs(sum(images))
    swaps = [abs(sum(sign * x for sign, x in zip(signs, images, strict=True)))
             for signs in itertools.product([1, -1], repeat=len(images))]  # fmt: skip
    return np.mean([swapped >= observed - 1e-12 for swapped in swaps])


def test_randomisation_test_against_every_swap():
    differences = [0.3, 0.1, -0.05, 0.2, 0.15, 0.02, -0.1]
    a = made_up([("x", f"i{i}", "t", 0.4 + d) for i, d in enumerate(differences)])
    found = randomisation_test(a, a.assign(AP=0.4), samples=20_000)
    assert found == pytest.approx(exact_p(differences), abs=0.01)


def test_the_texts_of_an_image_are_swapped_together():
    """Two images with forty texts each are two cases, not eighty: p can't fall below a half."""
    a = made_up([("x", f"i{i}", f"t{j}", 0.9) for i in range(2) for j in range(40)])
    assert randomisation_test(a, a.assign(AP=0.1)) == pytest.approx(0.5, abs=0.03)


def test_alike_methods_give_any_p_value_equally_often():
    rng = np.random.default_rng(0)
    a = made_up([("x", f"i{i}", "t", 0.0) for i in range(40)])
    noise = rng.normal(size=(200, 40))
    found = [randomisation_test(a.assign(AP=values), a, samples=400, seed=i) for i, values in enumerate(noise)]
    assert np.histogram(found, bins=4, range=(0, 1))[0] == pytest.approx([50] * 4, abs=22)


def test_holm_by_hand():
    found = holm({"a": 0.04, "b": 0.01, "c": 0.03, "d": 0.5})
    assert found.to_dict() == pytest.approx({"a": 0.09, "b": 0.04, "c": 0.09, "d": 0.5})
    assert holm({"a": 0.7, "b": 0.8}).tolist() == [1, 1]


def test_compare_methods(rows):
    chosen = {name: rows_of(rows, name) for name in ("image", "text", "average")}
    chosen["again"] = chosen["average"].assign(method="again")
    found = compare_methods(chosen, "average")
    assert found.index.tolist() == ["image", "text", "again"]
    assert found.loc["again", ["difference", "p", "significant"]].tolist() == [0, 1, False]
    assert found.loc["image", "difference"] == bootstrap_difference(chosen["image"], chosen["average"])["difference"]
    best = against_average(rows)
    table = summarize(rows)["Avg"]
    assert best["difference"].to_numpy() == pytest.approx(table["weicom"].max() - table["average"].item())
    assert best.index.tolist() == ["images", "texts", "both"]
    assert (best["lambda"] == table["weicom"].idxmax()).all()


def test_the_interval_of_every_cell(rows):
    """Avg's is that of `bootstrap_mean`; an attribute's that of its rows alone; a single image has none."""
    found, table = intervals(rows, samples=2000), summarize(rows)
    assert found.loc["low"].index.equals(table.index)
    assert found.columns.equals(table.columns)
    for name, lam in (("image", None), ("weicom", 0.4)):
        one = rows_of(rows, name, lam)
        (place,) = [i for i, (m, x) in enumerate(table.index) if m == name and (lam is None or x == lam)]
        expected = bootstrap_mean(one)
        density = bootstrap_mean(one[one["attribute"] == "density"])  # the first: the same draws
        for end in ("low", "high"):
            assert found.loc[end].iloc[place][["Density", "Avg"]].tolist() == [density[end], expected[end]]
    alone = made_up([("x", "one", "t", 0.2), ("x", "one", "u", 0.4), ("y", "one", "t", 0.2), ("y", "two", "u", 0.4)])
    assert intervals(alone).isna().to_numpy().tolist() == [[True, False, True]] * 2


def test_runs_are_compared_where_they_share_queries(rows):
    image, text = rows_of(rows, "image"), rows_of(rows, "text")
    shuffled = text.sample(frac=1, random_state=0).reset_index(drop=True).rename_axis("query")
    found = compare_runs({"a": image, "b": shuffled, "c": image.iloc[1:], "d": text.iloc[1:]})
    assert found.index.tolist() == [("b", "a"), ("d", "c")]
    table = summarize(rows)["Avg"].droplevel("lambda")
    assert found.loc[("b", "a"), "difference"] == pytest.approx(table["text"] - table["image"])
    assert found["low"].lt(found["difference"]).all()
    assert found["p"].between(0, 1).all()
    assert compare_runs({"a": image, "c": image.iloc[1:]}).empty


def test_the_methods_table_says_what_was_worked_out():
    means = pd.DataFrame({"Color": [40, 60.04], "Avg": [40, 60.04], "lambda": ["", "0.4, 0.6"]}, ["text", "weicom"])
    sure = pd.DataFrame(
        {
            "Avg": [40, 60.04], "low": [np.nan, 55], "high": [np.nan, 65.26], "difference": [-20.04, np.nan],
            "low of difference": [-25.0, np.nan], "high of difference": [3.0, np.nan], "p": [0.0499, np.nan],
        },
        means.index,
    )  # fmt: skip
    found = methods_table(means, sure, pd.DataFrame({"ms a query": [0.5, 12.346]}, means.index))
    assert found.loc["weicom"].tolist() == ["0.4, 0.6", "60.0", "60.0 (55.0 to 65.3)", "", "12.35"]
    assert found.loc["text"].tolist() == ["", "40.0", "40.0 (no interval)", "-20.0 (-25.0 to +3.0) *", "0.50"]
    assert found.index.tolist() == ["weicom", "text"]
    assert "*" not in methods_table(means, sure.assign(p=0.05), found[["ms a query"]].astype(float)).to_string()


# --- lambda


@pytest.mark.parametrize("by", ["attribute", "group", "half"])
def test_lambda_is_chosen_on_the_other_folds_alone(case, rows, by):
    benchmark, _ = case
    split = folds(benchmark, by)
    found, chosen = choose_lambda(rows, "weicom", split)
    weicom = rows[rows["method"] == "weicom"]
    for fold, lam in chosen.items():
        others = weicom[(split != fold).reindex(weicom.index)]
        best, highest = None, -1.0
        for candidate in weicom["lambda"].unique():  # the slow way
            aps = others[others["lambda"] == candidate]
            avg = np.mean([aps.loc[aps["attribute"] == a, "AP"].mean() for a in aps["attribute"].unique()])
            best, highest = (candidate, avg) if avg > highest + 1e-12 else (best, highest)
        assert lam == best
        inside = split.index[split == fold]
        expected = weicom[(weicom["lambda"] == lam) & weicom.index.isin(inside)]
        pd.testing.assert_frame_equal(found.loc[inside], expected.loc[inside])
        # what happens inside a fold doesn't change what is chosen for it
        changed = weicom.assign(AP=np.where(weicom.index.isin(inside), weicom["lambda"] == 1.0, weicom["AP"]))
        assert choose_lambda(changed, "weicom", split)[1][fold] == lam
    assert found.index.equals(benchmark.queries.index)


def test_halves_share_no_image(case):
    benchmark, _ = case
    half = folds(benchmark, "half")
    assert half.groupby(benchmark.queries["image"]).nunique().max() == 1
    images = benchmark.queries.assign(half=half).drop_duplicates("image")["half"].value_counts()
    assert abs(images[0] - images[1]) <= 1
    with pytest.raises(ValueError, match="by 'third' is unknown"):
        folds(benchmark, "third")


def test_nothing_to_choose(case, rows):
    benchmark, _ = case
    one = pd.Series("all", benchmark.queries.index)
    with pytest.raises(ValueError, match="two folds or more, found 1"):
        choose_lambda(rows, "weicom", one)
    found, told = choose_lambdas(rows, folds(benchmark, "attribute"))
    assert told[["image", "text", "average"]].tolist() == ["", "", ""]
    pd.testing.assert_frame_equal(found["image"], rows_of(rows, "image"))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.floats(0, 1), min_size=4, max_size=4), min_size=4, max_size=9))
def test_ceiling_best_honest(curves):
    """A law: a lambda chosen without an attribute never beats the one chosen with it, in any attribute's share."""
    attributes = [f"a{i % 3}" for i in range(len(curves))]
    table = pd.concat(
        made_up([(a, f"i{i}", "t", curve[j]) for i, (a, curve) in enumerate(zip(attributes, curves, strict=True))])
        .assign(**{"lambda": j / 4})
        for j in range(4)
    )  # fmt: skip
    queries = pd.DataFrame({"attribute": attributes, "group": "g", "image": [f"i{i}" for i in range(len(curves))]})
    found = lambda_choices(table, SimpleNamespace(queries=queries), "mine", 0.3, samples=5)["Avg"]
    best = found["best on these queries (flatters)"]
    assert found["each query's best (ceiling)"] >= best - 1e-9
    assert found["chosen on other attributes"] <= best + 1e-9
    assert found["without labels"] <= best + 1e-9
    assert "chosen on other classes" not in found  # there is one


def test_balanced_lambda():
    """At this lambda the two parts of the sum vary alike: (1 - lambda) s_v = lambda s_t."""
    rng = np.random.default_rng(0)
    x = unit(rng.normal(size=(500, 6)))
    t = unit(rng.normal(size=(5, 6)))
    x[:, 0] += 1
    lam = balanced_lambda(x, t, "linear")
    image, text = (np.mean([np.std(x @ v, ddof=1) for v in asked]) for asked in (x, t))
    assert image > 1.2 * text
    assert (1 - lam) * image == pytest.approx(lam * text)
    assert balanced_lambda(x, t, "weicom") == balanced_lambda(x, t, "zscore") == 0.5


# --- what stands behind a mean


def test_shortcut_audit_by_hand():
    image, text, mixed = (
        made_up([("x", f"i{i}", "t", ap) for i, ap in enumerate(aps)])
        for aps in ([0.9, 0.9, 0.1, 0.1, 0.2], [0.8, 0.0, 0.7, 0.3, 0.2], [0.9, 0.9, 0.2, 0.8, 0.1])
    )
    shares, label = shortcut_audit(image, text, mixed)
    assert label.tolist() == ["either alone", "image alone", "text alone", "needs both", "unsolved"]
    assert shares.loc["x"].drop("gain").tolist() == [0.2] * 5
    assert shares.loc["x", "gain"] == pytest.approx(58 - 44)


def test_shares_sum_to_one(case, rows):
    shares, _ = shortcut_audit(rows_of(rows, "image"), rows_of(rows, "text"), rows_of(rows, "weicom", 0.4))
    assert shares.drop(columns="gain").sum(axis=1).to_numpy() == pytest.approx(1)
    assert shares.index.tolist() == ["density", "existence", "Avg"]
    table = summarize(rows)
    better = np.maximum(table.loc["image"].iloc[0], table.loc["text"].iloc[0])
    expected = (table.loc["weicom"].loc[0.4] - better)[["Density", "Existence"]].mean()
    assert shares.loc["Avg", "gain"] == pytest.approx(expected)


@pytest.fixture
def tiny(tmp_path):
    """Six images; asked of bridge000 (red): two. bridge003 has no label; one forest is two, one has another value."""
    labelled = [(0, "density", "red"), (1, "density", "two"), (2, "density", "red"), (4, "density", "two"),
                (5, "density", "oval")]  # fmt: skip
    write_benchmark(tmp_path, ["bridge"] * 4 + ["forest"] * 2, labelled)
    benchmark = read_patterncom(tmp_path)
    asked = benchmark.queries[(benchmark.queries["image"] == "bridge000.jpg") & (benchmark.queries["text"] == "two")]
    return Benchmark(
        benchmark.archive, benchmark.protocol, asked, benchmark.targets, benchmark.labels, ValidationReport().table()
    )


def test_failure_kinds_by_hand(tiny):
    found = failure_kinds(tiny, np.array([[0, 1, 2, 3, 4, 5]]))
    expected = ["the query image", "relevant", "right class, wrong value", "unlabelled", "right value, wrong class",
                "other"]  # fmt: skip
    for position, kind in enumerate(expected):
        one = failure_kinds(tiny, np.array([[position, -1]])).loc["density"]
        assert one.to_dict() == {k: float(k == kind) for k in KINDS}
    assert found.loc["density"].to_dict() == pytest.approx(dict.fromkeys(KINDS, 1 / 6))
    assert found.loc["Avg"].to_dict() == pytest.approx(dict.fromkeys(KINDS, 1 / 6))


def test_several_labels_an_image():
    """Cars and trees of the same image: asked for cars, an image without cars is wrong whatever it says of trees."""
    archive = Archive("/nowhere", ("a.png", "b.png", "c.png"), ("port", "port", "road"))
    said = [("a", 0, "port", "no cars"), ("b", 1, "port", "cars"), ("b", 1, "port", "no trees"),
            ("c", 2, "road", "cars"), ("c", 2, "road", "trees")]  # fmt: skip
    labels = pd.DataFrame([("existence", f"{n}.png", g, v, p) for n, p, g, v in said],
                          columns=["attribute", "image", "group", "value", "position"])  # fmt: skip
    queries = pd.DataFrame(
        [("existence", "port", "a.png", "no cars", "cars", 0, 0)],
        columns=["attribute", "group", "image", "value", "text", "position", "target"],
    )
    benchmark = Benchmark(archive, "mine", queries, (np.array([1]),), labels, ValidationReport().table())
    found = failure_kinds(benchmark, np.array([[1, 2, 0]])).loc["existence"]
    assert found[found > 0].to_dict() == pytest.approx(
        {"relevant": 1 / 3, "right value, wrong class": 1 / 3, "the query image": 1 / 3}
    )


def test_condensed_lists_against_the_oracle(case):
    """Images without a label of the attribute are taken out of the list, one by one, before it is judged."""
    benchmark, features = case
    condensed = judged_alone(benchmark)
    found = rows_for((condensed, features), ["weicom"], [0.3])
    judged = {a: set(part["position"]) for a, part in benchmark.labels.groupby("attribute")}
    for number in benchmark.queries.index[::17]:
        query = benchmark.queries.loc[number]
        left_out = set(range(len(benchmark.archive))) - judged[query["attribute"]]
        text = text_encoder(8)([query["text"]])[0]
        order = oracle.ranking(features.feats, features.feats[query["position"]], text, "weicom", 0.3, left_out)
        expected = oracle.metrics(order, set(benchmark.targets[query["target"]].tolist()))
        assert found.loc[number, list(METRICS)].to_dict() == pytest.approx(expected)
    assert (found["n_unknown"] == 30).all()
    lower = rows_for(case, ["weicom"], [0.3])
    assert (found["AP"] >= lower["AP"] - 1e-12).all()
    with pytest.raises(ValueError, match="tells unknown from negative already"):
        judged_alone(condensed)


def test_judged_share(case):
    benchmark, features = case
    lists = top_lists(benchmark, features, text_encoder(8), "weicom", 0.3, 90, "cpu", progress=False)
    assert judged_share(benchmark, lists).to_numpy() == pytest.approx([60 / 90] * 3)
    condensed = judged_alone(benchmark)
    lists = top_lists(condensed, features, text_encoder(8), "weicom", 0.3, 90, "cpu", progress=False)
    assert judged_share(condensed, lists).tolist() == [1, 1, 1]


def test_a_perfect_ranking_reaches_the_ceiling_of_precision(case):
    benchmark, _ = case
    perfect = benchmark.queries.assign(**{
        f"P@{k}": [np.mean([i < n for i in range(k)]) for n in benchmark.n_relevant] for k in (5, 20)
    })  # fmt: skip
    expected = perfect.groupby("attribute", sort=False)[["P@5", "P@20"]].mean()
    found = precision_ceiling(benchmark, (5, 20))
    assert found.loc[expected.index].to_numpy() == pytest.approx(expected.to_numpy())
    assert found.loc["Avg"].to_numpy() == pytest.approx(expected.mean().to_numpy())
    ranks = [np.arange(1, n + 1) for n in benchmark.n_relevant]
    assert all(r_precision(of) == 1 for of in ranks)


def test_wordings(case):
    benchmark, _ = case
    asked = {name: other.queries for name, other in wordings(benchmark, {"red": "reddish"}).items()}
    query = benchmark.queries.index[benchmark.queries["text"] == "red"][0]
    group = benchmark.queries.loc[query, "group"]
    assert {name: queries.loc[query, "text"] for name, queries in asked.items()} == {
        "value": "red",
        "value, class": f"red, {group}",
        "class, value": f"{group}, red",
        "an aerial image, value": "an aerial image, red",
        "a satellite photo of something value": "a satellite photo of something red",
        "synonym": "reddish",
    }
    pd.testing.assert_frame_equal(asked["value"], benchmark.queries)
    assert "synonym" not in wordings(benchmark, {"purple": "violet"})


# --- exchange


@pytest.mark.filterwarnings("ignore")  # ranx's own
def test_ranx_agrees_on_the_same_files(case, tmp_path):
    """Full-length lists, written as TREC files and judged by another library."""
    import ranx

    benchmark, features = case
    names = tuple(f"a folder/100% {file.rpartition('/')[2]}" for file in benchmark.archive.files)
    renamed = Archive(benchmark.archive.root, names, benchmark.archive.classes)
    benchmark = Benchmark(
        renamed, benchmark.protocol, benchmark.queries, benchmark.targets, benchmark.labels, ValidationReport().table()
    )
    features = Features(features.feats, names, features.classes, {})
    encode = text_encoder(8)
    lists = top_lists(benchmark, features, encode, "weicom", 0.3, len(names), "cpu", progress=False)
    write_trec(benchmark, lists, tmp_path / "run.trec", tmp_path / "qrels.trec")
    qrels = ranx.Qrels.from_file(str(tmp_path / "qrels.trec"), kind="trec")
    run = ranx.Run.from_file(str(tmp_path / "run.trec"), kind="trec")
    names = {"map": "AP", "precision@5": "P@5", "precision@20": "P@20", "recall@5": "R@5", "recall@20": "R@20"}
    ranx.evaluate(qrels, run, list(names))
    theirs = pd.DataFrame(run.scores)[list(names)]
    ours = evaluate(benchmark, features, encode, ["weicom"], [0.3], "cpu", progress=False)
    theirs.index = theirs.index.astype(int)
    expected = theirs.loc[ours.index].to_numpy(float)
    assert ours[list(names.values())].to_numpy() == pytest.approx(expected, abs=1e-9)


def test_unknown_images_are_in_no_file(case, tmp_path):
    benchmark, features = case
    condensed = judged_alone(benchmark)
    lists = top_lists(condensed, features, text_encoder(8), "weicom", 0.3, 90, "cpu", progress=False)
    write_trec(condensed, lists, tmp_path / "run.trec", tmp_path / "qrels.trec")
    lines = (tmp_path / "run.trec").read_text().splitlines()
    assert len(lines) == 60 * len(condensed.queries)
    topic, q0, document, rank, score, name = lines[0].split()
    assert (topic, q0, rank, score, name) == (str(condensed.queries.index[0]), "Q0", "1", "90", "rscir")
    assert document in condensed.archive.files
