"""Reading benchmarks: what composes, what is relevant, and what becomes of every kind of bad row."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import oracle
from rscir_lib.archive import class_of, read_archive, read_image
from rscir_lib.benchmarks.patterncom import read_patterncom
from rscir_lib.benchmarks.registry import read_benchmark


def write(root, images, **attributes):
    """images: file names; attributes: name=[(image, value), ...] or the raw bytes of the file."""
    (root / "PatternCom").mkdir(parents=True)
    (root / "patternnet.csv").write_text("".join(f"images/{class_of(i)}/{i} 0 {class_of(i)}\n" for i in images))
    for attribute, rows in attributes.items():
        data = rows if isinstance(rows, bytes) else "".join(f"{i},{attribute},{v}\n" for i, v in rows).encode()
        (root / "PatternCom" / f"{attribute}.csv").write_bytes(data)
    return root


POOLS = [f"swimmingpool{i:03d}.jpg" for i in range(1, 7)]


@pytest.fixture
def pools(tmp_path):
    values = ["oval", "oval", "kidney", "rectangular", "rectangular"]
    return write(tmp_path / "pools", POOLS, shape=list(zip(POOLS[:5], values, strict=True)))


def queries_of(benchmark):
    """As the oracle gives them: (image, text, names of the relevant)."""
    names = benchmark.archive.names
    return [(q.image, q.text, {names[i] for i in benchmark.targets[q.target]}) for q in benchmark.queries.itertuples()]


def test_each_image_with_every_other_value(pools):
    benchmark = read_patterncom(pools, ["shape"])
    assert len(benchmark.queries) == 5 * 2
    assert len(benchmark.targets) == 3
    assert (POOLS[2], "oval", {POOLS[0], POOLS[1]}) in queries_of(benchmark)
    assert POOLS[5] not in set().union(*(relevant for _, _, relevant in queries_of(benchmark)))
    row = benchmark.counts().loc[("shape", "swimmingpool")]
    assert row["values"] == "oval, kidney, rectangular"
    assert list(row[["labelled", "queries", "positives min", "median", "max"]]) == [5, 10, 1, 2, 2]
    assert benchmark.warnings.empty


@pytest.mark.parametrize("protocol", ["released", "first-release"])
def test_merges_as_the_oracle(tmp_path, protocol):
    """Groups merge within their attribute only; relevance merges everywhere; first-release judges by value alone."""
    classes = ["bridge", "overpass", "harbor", "ferryterminal", "parkinglot", "parkingspace", "forest"]
    classes += ["christmastreefarm", "denseresidential", "sparseresidential", "closedroad", "intersection"]
    images = [f"{cls}{i}.jpg" for cls in classes for i in range(4)]
    rng = np.random.default_rng(0)
    attributes = ("color", "context", "density", "existence", "shape")
    root = write(
        tmp_path / "all",
        images,
        **{a: [(i, rng.choice(["x", "y", "z"])) for i in rng.permutation(images)[:40]] for a in attributes},
    )
    benchmark = read_patterncom(root, protocol=protocol)
    expected = [query for a in attributes for query in oracle.composed_queries(root, a, protocol)]

    def comparable(queries):
        return [(image, text, sorted(relevant)) for image, text, relevant in queries]

    assert comparable(queries_of(benchmark)) == comparable(expected)  # in the order of the rows, too
    assert benchmark.labels.index.equals(pd.RangeIndex(200))


@pytest.mark.parametrize(
    ("one", "other", "values"),
    [("for\u00eat", "fore\u0302t", 2), ("grey", "grey\ufeff", 2), ("grey", "\u200bgrey", 2), ("White", "white", 3)],
)
def test_values_that_look_alike(tmp_path, one, other, values):
    """Composed or not, with invisible characters at their ends: one value. In upper and lower case: two, and a line."""
    rows = [(POOLS[0], one), (POOLS[1], other), (POOLS[2], "blue"), (POOLS[3], "blue")]
    benchmark = read_patterncom(write(tmp_path, POOLS, shape=rows), ["shape"])
    assert benchmark.labels["value"].nunique() == values
    alike = [problem for problem in benchmark.warnings["problem"] if "in case alone" in problem]
    assert alike == ["differs from 'White' in case alone, and counts as another value"] * (values - 2)


def test_a_label_finds_a_file_whose_letters_are_not_composed(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "fore\u0302t.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "b.png")
    (tmp_path / "PatternCom").mkdir()
    (tmp_path / "PatternCom" / "colour.csv").write_text("for\u00eat.png,colour,white\nb.png,colour,grey\n", "utf-8")
    assert len(read_benchmark(tmp_path).queries) == 2


def test_duplicate_rows(tmp_path):
    """Both rows ask; the last decides relevance; a value that it overwrites everywhere is asked for in vain."""
    a, b, c = POOLS[:3]
    root = write(tmp_path / "twice", POOLS, shape=[(a, "oval"), (b, "round"), (b, "round"), (c, "oval"), (a, "kidney")])
    benchmark = read_patterncom(root)
    asked = queries_of(benchmark)
    assert len(asked) == 5 * 2
    assert (b, "oval", {c}) in asked
    assert (a, "kidney", {a}) in asked  # from its first row; the last row says what it is
    problems = benchmark.warnings.query("file == 'shape.csv'").set_index("line")["problem"]
    assert problems[3] == "listed again; each row is a query"
    assert "another value (oval, kidney)" in problems[5]
    root = write(tmp_path / "vain", POOLS, shape=[(a, "oval"), (b, "round"), (a, "round")])
    assert (b, "oval", set()) in queries_of(read_patterncom(root))


def test_single_value_and_missing_files_are_reported(tmp_path):
    root = write(
        tmp_path / "one", [*POOLS, "beach1.jpg"], shape=[(POOLS[0], "oval"), ("beach1.jpg", "a"), (POOLS[1], "b")]
    )
    benchmark = read_patterncom(root)
    assert len(benchmark.queries) == 2
    report = benchmark.warnings.set_index("value")["problem"]
    assert "the only value of 'beach'" in report["a"]
    assert report["color"] == "no such file; the attribute is left out"
    with pytest.raises(FileNotFoundError, match=r"color\.csv: no such file; `make fetch"):
        read_patterncom(root, attributes=["color"])


@pytest.mark.parametrize(
    "data",
    [
        b"\xef\xbb\xbfswimmingpool001.jpg,shape,oval\nswimmingpool002.jpg,shape,round\n",  # BOM
        b"swimmingpool001.jpg,shape,oval\r\nswimmingpool002.jpg,shape,round\r\n",  # CRLF
        b"swimmingpool001.jpg, shape , oval\n\nswimmingpool002.jpg,shape,round",  # spaces, blank line, no last newline
    ],
)
def test_harmless_variations(tmp_path, data):
    benchmark = read_patterncom(write(tmp_path / "x", POOLS, shape=data), ["shape"])
    assert sorted(benchmark.queries["text"]) == ["oval", "round"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"shape\.csv: the file is empty"),
        (
            b"file,attribute,value\nswimmingpool001.jpg,shape,oval\n",
            "line 1: image 'file' is not in the archive .a header",
        ),
        (
            b"swimmingpool001.jpg,shape,oval\nswimmingpool999.jpg,shape,oval\n",
            "line 2: image 'swimmingpool999.jpg' is not",
        ),
        (
            b"swimmingpool001.jpg,shape\n",
            "line 1: expected `file name,attribute,value`, found 'swimmingpool001.jpg,shape'",
        ),
        (b"swimmingpool001.jpg,shape,\n", "line 1: expected `file name,attribute,value`"),
        (b"swimmingpool001.jpg,shape,oval,big\n", "line 1: expected"),
        (b"swimmingpool001.jpg,color,blue\n", "line 1: attribute 'color' in the file of 'shape'"),
        (b"swimmingpool001.jpg,shape,oval\nswimmingpool002.jpg,shape,caf\xe9\n", "line 2: not UTF-8"),
    ],
)
def test_bad_rows_name_file_and_line(tmp_path, data, message):
    with pytest.raises(ValueError, match=message):
        read_patterncom(write(tmp_path / "x", POOLS, shape=data), ["shape"])


def test_bad_arguments(pools, tmp_path):
    with pytest.raises(ValueError, match="protocol 'latest' is unknown; choose one of released, first-release"):
        read_patterncom(pools, protocol="latest")
    with pytest.raises(ValueError, match=r"unknown attributes \['colour'\]; choose from color"):
        read_patterncom(pools, attributes=["colour"])
    with pytest.raises(FileNotFoundError, match="no archive here"):
        read_patterncom(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="no benchmark here"):
        read_benchmark(tmp_path)


def test_classes_are_checked(tmp_path):
    root = write(tmp_path / "x", ["lagoon1.jpg", *POOLS], shape=[(POOLS[0], "oval"), (POOLS[1], "round")])
    listing = (root / "patternnet.csv").read_text().replace("001.jpg 0 swimmingpool", "001.jpg 0 swimming_lake")
    (root / "patternnet.csv").write_text(listing)
    report = read_patterncom(root, ["shape"]).warnings
    assert set(report[report["file"] == "archive"]["value"]) == {"lagoon", "swimminglake"}
    assert "named as 'swimmingpool', listed as 'swimminglake'" in report.iloc[2]["problem"]


def test_listing_restricts_archive_and_queries(pools, tmp_path):
    listing = tmp_path / "part.csv"
    listing.write_text("".join((pools / "patternnet.csv").read_text().splitlines(keepends=True)[1:4]))
    benchmark = read_patterncom(pools, ["shape"], listing=listing)
    assert benchmark.archive.names == tuple(POOLS[1:4])
    assert len(benchmark.queries) == 3 * 2
    (warning,) = benchmark.warnings.itertuples()
    assert "left out" in warning.problem
    assert warning.value == "2"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a/b.jpg 0\n", "line 1: expected `path class-index"),
        ("a/b.jpg 0 c\na/b.jpg 0 c\n", "line 2: 'a/b.jpg' is listed twice"),
    ],
)
def test_bad_listing(tmp_path, text, message):
    (tmp_path / "patternnet.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_archive(tmp_path)


def test_archive_without_listing_and_images(tmp_path):
    from PIL import Image

    for name, mode in [("oil_well/oilwell1.png", "L"), ("beach/b.jpg", "RGB"), ("beach/a.jpg", "CMYK")]:
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new(mode, (8, 6)).save(tmp_path / "images" / name)
    (tmp_path / "images" / "beach" / "notes.txt").write_text("not an image")
    archive = read_archive(tmp_path)
    assert archive.names == ("a.jpg", "b.jpg", "oilwell1.png")
    assert archive.classes == ("beach", "beach", "oilwell")
    assert {read_image(archive.path(i)).mode for i in range(3)} == {"RGB"}
    assert archive.subset([2]).names == ("oilwell1.png",)
    assert archive.fingerprint != archive.subset([1, 0, 2]).fingerprint
    archive.path(0).write_bytes(archive.path(0).read_bytes()[:100])
    with pytest.raises(ValueError, match=r"a\.jpg: not a readable image .*; replace the file"):
        read_image(archive.path(0))
    with pytest.raises(FileNotFoundError, match="the archive lists this image"):
        read_image(tmp_path / "gone.jpg")


def test_same_file_name_in_two_folders(tmp_path):
    root = write(tmp_path / "x", POOLS, shape=[(POOLS[0], "oval")])
    with open(root / "patternnet.csv", "a") as file:
        file.write(f"images/other/{POOLS[0]} 0 swimmingpool\n")
    with pytest.raises(ValueError, match=r"several images named 'swimmingpool001\.jpg'"):
        read_patterncom(root, ["shape"])


def test_any_attribute_makes_queries(tmp_path):
    root = write(tmp_path / "own", POOLS, texture=[(POOLS[0], "rough"), (POOLS[1], "smooth")])
    (root / "PatternCom" / "ship quantity.csv").write_text(f"{POOLS[0]},ship quantity,1\n{POOLS[2]},ship quantity,2\n")
    benchmark = read_benchmark(root)
    assert list(benchmark.queries["attribute"].unique()) == ["ship quantity", "texture"]
    assert (POOLS[0], "smooth", {POOLS[1]}) in queries_of(benchmark)
    assert benchmark.warnings.empty  # none of PatternCom's six is there: none is missed
    assert read_patterncom(root, ["texture"]).queries["attribute"].unique() == ["texture"]


def test_patterncoms_own_attributes_come_first_and_other_files_are_reported(pools):
    (pools / "PatternCom" / "aspect.csv").write_text(f"{POOLS[0]},aspect,new\n{POOLS[1]},aspect,old\n")
    for name in ("notes.txt", "._shape.csv", "color.CSV"):
        (pools / "PatternCom" / name).write_text("?")
    benchmark = read_patterncom(pools)
    assert list(benchmark.labels["attribute"].unique()) == ["shape", "aspect"]
    report = benchmark.warnings.groupby("problem")["file"].agg(set)
    assert report["not read: an attribute file is called <attribute>.csv"] == {"notes.txt", "._shape.csv", "color.CSV"}
    missing = {"color.csv", "context.csv", "density.csv", "existence.csv", "quantity.csv"}
    assert report["no such file; the attribute is left out"] == missing


def test_images_of_one_name_are_told_apart_by_path(tmp_path):
    """One is relevant, the other is not, and the tables name them by path."""
    root = write(tmp_path / "x", POOLS, shape=b"")
    with open(root / "patternnet.csv", "a") as file:
        file.write(f"images/other/{POOLS[0]} 0 swimmingpool\n")
    rows = [("other/" + POOLS[0], "oval"), ("swimmingpool/" + POOLS[0], "round"), (POOLS[1], "round")]
    (root / "PatternCom" / "shape.csv").write_text("".join(f"{image},shape,{value}\n" for image, value in rows))
    benchmark = read_patterncom(root, ["shape"])
    asked = benchmark.queries.set_index("image")
    assert list(asked.index) == ["images/other/" + POOLS[0], "images/swimmingpool/" + POOLS[0], POOLS[1]]
    assert list(asked["position"]) == [6, 0, 1]
    assert [list(benchmark.targets[target]) for target in asked["target"]] == [[0, 1], [6], [6]]


def test_a_name_with_commas_stands_in_quotes(tmp_path):
    root = write(
        tmp_path / "x", ["port1,2.jpg", "port2.jpg"], shape=b'"port1,2.jpg",shape,oval\nport2.jpg,shape,round\n'
    )
    assert sorted(read_patterncom(root, ["shape"]).queries["image"]) == ["port1,2.jpg", "port2.jpg"]


def test_without_classes_all_images_are_one_group(tmp_path):
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        (tmp_path / name).touch()
    (tmp_path / "PatternCom").mkdir()
    (tmp_path / "PatternCom" / "texture.csv").write_text("a.jpg,texture,rough\nb.jpg,texture,smooth\n")
    benchmark = read_benchmark(tmp_path)
    assert set(benchmark.archive.classes) == {""}
    assert queries_of(benchmark) == [("a.jpg", "smooth", {"b.jpg"}), ("b.jpg", "rough", {"a.jpg"})]
    assert set(benchmark.queries["group"]) == {"all"}
    assert benchmark.warnings.empty


def test_without_files_is_as_a_listing_without_them(pools, tmp_path):
    lines = (pools / "patternnet.csv").read_text().splitlines(keepends=True)
    (tmp_path / "part.csv").write_text("".join(lines[:2] + lines[4:]))
    part = read_patterncom(pools, ["shape"], listing=tmp_path / "part.csv")
    less = read_patterncom(pools, ["shape"]).without([f"images/swimmingpool/{name}" for name in POOLS[2:4]])
    assert less.archive.files == part.archive.files
    assert queries_of(less) == queries_of(part)
    assert queries_of(less)  # "kidney" is gone with its only image, "rectangular" is not
    assert list(less.labels["position"]) == list(part.labels["position"])
