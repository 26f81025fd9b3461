"""Benchmarks given query by query, in the forms of xView2-CIR, CIRR and Fashion-IQ."""

import json

import numpy as np
import pytest
from PIL import Image

from rscir_lib.benchmarks.registry import read_benchmark
from rscir_lib.benchmarks.triplets import read_triplets
from rscir_lib.evaluation import evaluate, summarize
from rscir_lib.features import Features

NAMES = ("quake_0_post", "quake_0_pre", "flood_1_post", "flood_1_pre", "flood_2_post")
# the header, and rows of the form, of the CSV that xView2-CIR publishes
XVIEW2 = """image,query_default,query_alt1,query_alt2,target
test/images/quake_0_pre.tif,post earthquake,earthquake damaged area,seismic damage,test/images/quake_0_post.tif
test/images/flood_1_pre.tif,post flood,flooded area,flood-affected region,test/images/flood_1_post.tif
"""


@pytest.fixture
def root(tmp_path):
    (tmp_path / "test" / "images").mkdir(parents=True)
    for name in NAMES:
        Image.new("RGB", (8, 8)).save(tmp_path / "test" / "images" / f"{name}.tif")
    return tmp_path


def queries_of(benchmark):
    names = np.array([name.removesuffix(".tif") for name in benchmark.archive.names])
    return [
        (q.attribute, q.image.removesuffix(".tif"), q.text, set(names[benchmark.targets[q.target]]))
        for q in benchmark.queries.itertuples()
    ]


def test_names_with_another_suffix_are_found_and_told(root):
    for path in (root / "test" / "images").iterdir():
        path.rename(path.with_suffix(".png"))
    (root / "xview2_cir.csv").write_text(XVIEW2)
    benchmark = read_benchmark(root)
    assert len(benchmark.queries) == 6
    assert benchmark.warnings["problem"].tolist() == [
        "of another suffix than the file: test/images/quake_0_pre.tif is test/images/quake_0_pre.png"
    ]
    Image.new("RGB", (8, 8)).save(root / "test" / "images" / "quake_0_pre.jpg")
    with pytest.raises(ValueError, match="holds several images named 'test/images/quake_0_pre'; say which"):
        read_benchmark(root)


def test_three_wordings_are_three_queries(root):
    (root / "xview2_cir.csv").write_text(XVIEW2)
    benchmark = read_benchmark(root)
    assert queries_of(benchmark)[:3] == [
        ("default", "quake_0_pre", "post earthquake", {"quake_0_post"}),
        ("alt1", "quake_0_pre", "earthquake damaged area", {"quake_0_post"}),
        ("alt2", "quake_0_pre", "seismic damage", {"quake_0_post"}),
    ]
    assert len(benchmark.queries) == 6
    assert len(benchmark.targets) == 2  # shared by the wordings
    assert benchmark.exclude_self
    assert list(benchmark.n_ranked) == [4] * 6
    assert list(benchmark.counts(["attribute"])["queries"]) == [2, 2, 2]


def test_query_images_from_outside_the_listing(root, tmp_path):
    """An archive of the images after the event, asked with those before it."""
    (root / "xview2_cir.csv").write_text(XVIEW2)
    listing = tmp_path / "post.csv"
    listing.write_text("".join(f"test/images/{name}.tif 0 x\n" for name in NAMES if name.endswith("post")))
    benchmark = read_benchmark(root, listing)
    assert list(benchmark.queries["position"]) == [-1] * 6
    assert benchmark.query_archive.names == ("quake_0_pre.tif", "flood_1_pre.tif")
    assert [q[3] for q in queries_of(benchmark)][::3] == [{"quake_0_post"}, {"flood_1_post"}]
    assert benchmark.read_query(5).size == (8, 8)
    listing.write_text("test/images/quake_0_post.tif 0 x\n")
    part = read_benchmark(root, listing)
    assert len(part.queries) == 3
    assert "no target of theirs is in the listing" in part.warnings.iloc[0]["problem"]


@pytest.mark.parametrize(
    ("entry", "text", "targets"),
    [
        ({"image": "quake_0_pre", "text": "ruins", "target": "quake_0_post"}, "ruins", {"quake_0_post"}),
        (
            {"image": "flood_1_pre", "text": "water", "targets": ["flood_1_post", "images/flood_2_post.tif"]},
            "water",
            {"flood_1_post", "flood_2_post"},
        ),
        (  # CIRR's
            {
                "pairid": 7, "reference": "quake_0_pre", "target_hard": "quake_0_post", "caption": "in ruins",
                "target_soft": {"quake_0_post": 1.0}, "img_set": {"id": 1},
            },
            "in ruins",
            {"quake_0_post"},
        ),
        (  # Fashion-IQ's
            {"candidate": "flood_1_pre", "target": "flood_1_post", "captions": ["is wet", "has fewer roads"]},
            "is wet and has fewer roads",
            {"flood_1_post"},
        ),
    ],
)  # fmt: skip
def test_json_forms(root, entry, text, targets):
    (root / "triplets.json").write_text(json.dumps([entry]))
    benchmark = read_benchmark(root)
    assert [query[2:] for query in queries_of(benchmark)] == [(text, targets)]
    unread = {"pairid", "target_soft", "img_set"} & set(entry)
    assert set(benchmark.warnings["value"]) == unread  # said, not swallowed


def test_several_targets_in_csv_and_a_query_asked_twice(root):
    text = "image,text,target\nflood_1_pre,wet,flood_1_post; flood_2_post\nflood_1_pre,wet,flood_1_post\n"
    (root / "triplets.csv").write_text(text)
    benchmark = read_triplets(root)
    assert [query[3] for query in queries_of(benchmark)] == [{"flood_1_post", "flood_2_post"}, {"flood_1_post"}]
    assert "asked again with other targets" in benchmark.warnings.iloc[0]["problem"]


@pytest.mark.parametrize("exclude_self", [True, False])
def test_recall_at_one_and_fifty_without_the_query_itself(root, exclude_self):
    """The image alone ranks itself first, then the target: R@1 is 1 where the query is taken out, else 0."""
    (root / "xview2_cir.csv").write_text(XVIEW2)
    benchmark = read_triplets(root, exclude_self=exclude_self)
    feats = np.eye(5, 8, dtype=np.float32)
    for scene in ("quake_0", "flood_1"):
        pre, post = (benchmark.archive.names.index(f"{scene}_{when}.tif") for when in ("pre", "post"))
        feats[pre] = 0.8 * feats[pre] + 0.6 * feats[post]
    features = Features.from_arrays(feats, benchmark.archive.files, benchmark.archive.classes, {})
    rows = evaluate(
        benchmark, features, lambda texts: np.eye(len(texts), 8, dtype=np.float32), ["image"], cutoffs=(1, 50),
        progress=False,
    )  # fmt: skip
    assert list(rows["R@1"]) == [float(exclude_self)] * 6
    assert list(rows["R@50"]) == [1.0] * 6
    assert list(summarize(rows).columns) == ["Default", "Alt1", "Alt2", "Avg"]


@pytest.mark.slow
def test_twenty_thousand_texts_stay_compact(root):
    """Queries with the same answers share one array, whatever their texts."""
    rows = [f"flood_1_pre,text {i},flood_{1 + i % 2}_post\n" for i in range(20_000)]
    (root / "triplets.csv").write_text("image,text,target\n" + "".join(rows))
    benchmark = read_triplets(root)
    assert benchmark.queries["text"].nunique() == 20_000
    assert sorted(list(target) for target in benchmark.targets) == sorted(
        [benchmark.archive.names.index(f"flood_{i}_post.tif")] for i in (1, 2)
    )
