"""Bad input, as a table: what lies there or is given, who reads it, and what the message says about it.

Each message names the file, row or parameter, the value found, and what is expected or what to do.
"""

import json
from functools import partial

import numpy as np
import pandas as pd
import pytest

from rscir_lib.archive import Archive
from rscir_lib.benchmark import Benchmark, Report, read_benchmark
from rscir_lib.multilabels import read_multilabels
from rscir_lib.patterncom import read_patterncom
from rscir_lib.triplets import read_triplets
from rscir_lib.ucmcom import read_ucmcom

IMAGES = ("harbor/h0.jpg", "harbor/h1.jpg", "harbor/h2.jpg", "harbor/h3.jpg", "harbor/same.jpg", "beach/same.jpg")


def row(files, read, message, name):
    """files: what is written under the root, text or bytes, None for a folder."""
    return pytest.param(files, read, message, id=name)


def shape(rows, message, name):
    return row({"PatternCom/shape.csv": rows}, read_patterncom, message, f"label {name}")


GOOD = "h0.jpg,shape,oval\n"
PATTERNCOM = [
    shape("", r"shape\.csv: the file is empty", "empty file"),
    shape("\n \n", r"shape\.csv: the file is empty", "blank lines"),
    shape("file,attribute,value\n" + GOOD, r"shape\.csv, line 1: image 'file' .*a header", "header"),
    shape(GOOD + "h1.jpg,shape\n", r"line 2: expected `file name,attribute,value`, found 'h1\.jpg,shape'", "2 fields"),
    shape(GOOD + "h1.jpg,shape,oval,big\n", "line 2: expected `file name,attribute,value`", "4 fields"),
    shape(GOOD + "h1.jpg,shape,\n", "line 2: expected `file name,attribute,value`", "blank value"),
    shape(GOOD + ",shape,oval\n", "line 2: expected `file name,attribute,value`", "blank image"),
    shape(GOOD + "h1.jpg;shape;oval\n", "line 2: expected `file name,attribute,value`", "semicolons"),
    shape(GOOD + "h1.jpg\tshape\toval\n", "line 2: expected `file name,attribute,value`", "tabs"),
    shape(GOOD + '"h1.jpg,shape,oval\n', "line 2: expected `file name,attribute,value`", "open quote"),
    shape(GOOD + "h1.jpg,color,blue\n", "line 2: attribute 'color' in the file of 'shape'; correct", "other attribute"),
    shape(GOOD + "h9.jpg,shape,oval\n", r"line 2: image 'h9\.jpg' is not in the archive; correct the name", "no image"),
    shape(GOOD + "../h0.jpg,shape,oval\n", r"line 2: image '\.\./h0\.jpg' is not in the archive", "outside the root"),
    shape(GOOD + "beach/h0.jpg,shape,oval\n", r"line 2: image 'beach/h0\.jpg' is not in the archive", "wrong folder"),
    shape(
        "same.jpg,shape,oval\n",
        r"line 1: .*several images named 'same\.jpg'; say which: '.*beach/same\.jpg' or '.*harbor/same\.jpg'",
        "two of one name",
    ),
    shape(GOOD + "h1.jpg,shape,-\n", "line 2: value '-' is no word to ask for; correct the row", "dash"),
    shape(GOOD.encode() + b"h1.jpg,shape,caf\xe9\n", "line 2: not UTF-8 text; save the file as UTF-8", "latin-1"),
    shape(GOOD.encode("utf-16"), "line 1: not UTF-8 text; save the file as UTF-8", "UTF-16"),
    shape(None, "PatternCom: no attribute file here; `make fetch` gets", "folder of the name"),
    row({"PatternCom/._shape.csv": GOOD}, read_patterncom, "no attribute file here; `make fetch`", "hidden file alone"),
    row({"PatternCom/shape.txt": GOOD}, read_patterncom, "no attribute file here; `make fetch`", "other suffix alone"),
    row(
        {"PatternCom/shape.csv": GOOD, "PatternCom/Shape.csv": GOOD.replace("shape", "Shape")},
        read_patterncom,
        r"Shape\.csv and shape\.csv differ in case alone; rename one",
        "two spellings of one attribute",
    ),
    *(
        row({"PatternCom/shape.csv": GOOD}, partial(read_patterncom, **{parameter: value}), message, f"{value!r}")
        for parameter, value, message in [
            ("protocol", "latest", "protocol 'latest' is unknown; choose one of released, first-release"),
            ("attributes", "shape", "attributes 'shape': expected a list of names, such as"),
            ("attributes", [], r"attributes \[\]: expected a list of names"),
            ("attributes", ["shape", "shape"], "'shape' is there twice; its queries would count double"),
            ("attributes", ["shap"], r"unknown attributes \['shap'\]; choose from color, .*, or add the file to"),
            ("attributes", ["../shape"], r"unknown attributes \['\.\./shape'\]; choose from"),
            ("attributes", ["color"], r"color\.csv: no such file; `make fetch"),
            ("listing", "nowhere.csv", r"nowhere\.csv: no such listing"),
        ]
    ),
    row({}, read_benchmark, r"no benchmark here\. Expected one of: PatternCom; .*multilabels\.tsv", "no benchmark"),
]


def table(text, message, name):
    return row({"multilabels.tsv": text}, read_multilabels, message, f"multi-labels {name}")


HEADER = "image\tship\tbare-soil\n"
ROWS = "".join(f"{image}\t{int(i < 2)}\t0\n" for i, image in enumerate(IMAGES))
MULTILABELS = [
    table("", r"multilabels\.tsv: the file is empty", "empty file"),
    table((HEADER + ROWS).replace("\t", ","), r"line 1: expected a header .* between tabs, found commas", "commas"),
    table("image\n", "line 1: expected a header of labels between tabs, found no tab: 'image'", "no label"),
    table("image\tship\t\tcars\n" + ROWS, "line 1: the label of column 3 is '', no word to ask for; name", "no name"),
    table("image\tship\t-\n" + ROWS, "line 1: the label of column 3 is '', no word to ask for; name it", "a dash"),
    table("image\tship\tship\n" + ROWS, "line 1: two columns of the name 'ship'; rename or remove one", "same column"),
    table("image\tbare_soil\tbare-soil\n" + ROWS, "line 1: two columns of the name 'bare soil'", "same but for dashes"),
    table(HEADER + "h0\t1\n" + ROWS, "line 2: expected an image and 2 values 0 or 1 between tabs, found", "few values"),
    table(HEADER + "h0\t1\t0\t0\n" + ROWS, "line 2: expected an image and 2 values 0 or 1 between tabs", "many values"),
    table(HEADER + "h0\t2\t0\n" + ROWS, "line 2: value '2' of 'h0'; expected 0 or 1", "a count"),
    table(HEADER + "h0\t\t0\n" + ROWS, "line 2: value '' of 'h0'; expected 0 or 1", "a blank"),
    table(HEADER + "h0\tyes\t0\n" + ROWS, "line 2: value 'yes' of 'h0'; expected 0 or 1", "a word"),
    table(HEADER + ROWS + "h0\t0\t0\n", "line 8: 'h0' has other values than in line 2; keep the", "contradiction"),
    table(HEADER + ROWS + "h9\t0\t0\n", "line 8: image 'h9' is not in the archive; correct the name", "no image"),
    table(HEADER + ROWS + "same\t0\t0\n", "line 8: .*several images named 'same'; say which: ", "stem in two classes"),
    table(HEADER + "h0\t1\t0\n", r"no row for image '.*' \(5 images of the archive have none\); add", "rows missing"),
    table(HEADER + ROWS.replace("\t1", "\t0"), "no label is there in 2 images .*; label more images", "nothing varies"),
    table(HEADER.encode() + b"caf\xe9\t0\t0\n", "line 2: not UTF-8 text; save the file", "latin-1"),
    row(
        {"multilabels.tsv": HEADER + ROWS},
        partial(read_benchmark, protocol="first-release"),
        "protocol 'first-release': this benchmark knows 'multi-label' only; leave PROTOCOL",
        "multi-labels, another protocol",
    ),
]


def triplets(text, message, name):
    return row({"triplets.csv": text}, read_triplets, message, f"triplets {name}")


def entries(value, message, name):
    text = value if isinstance(value, str | bytes) else json.dumps(value)
    return row({"triplets.json": text}, read_triplets, message, f"triplets, JSON {name}")


FIELDS, ENTRY = "image,text,target\n", {"image": "h0", "text": "ships", "target": "h1"}
TRIPLETS = [
    row({}, read_triplets, r"no triplets here\. Expected triplets\.csv or triplets\.json", "no triplets"),
    triplets("", r"triplets\.csv: the file is empty", "empty file"),
    triplets(FIELDS, r"triplets\.csv: no query has a target in the archive", "header alone"),
    triplets("image,text\nh0,ships\n", "line 2: expected one of the fields target, targets, target_hard", "no target"),
    triplets("image,target\nh0,h1\n", "line 2: expected one of the fields text, caption, captions; found", "no text"),
    triplets(
        "image,reference,text,target\nh0,h1,ships,h2\n",
        "line 2: expected one of the fields image, reference, candidate; found image, reference",
        "two images",
    ),
    triplets("image,text,text,target\nh0,a,b,h1\n", "line 1: a column is named twice in .*; rename", "column twice"),
    triplets(FIELDS + "h0,ships\n", "line 2: expected 3 fields as the header has, found 2: 'h0,ships'", "few fields"),
    triplets(FIELDS + "h0,ships, small,h1\n", "line 2: expected 3 fields as the header has", "comma in a text"),
    triplets(FIELDS + "h0,,h1\n", "line 2: text is ''; expected a word", "blank text"),
    triplets(FIELDS + "h0,ships,\n", "line 2: target is ''; expected a word", "blank target"),
    triplets(FIELDS + "h0,ships,h1;;h2\n", "line 2: target is ''; expected a word", "blank among targets"),
    triplets(FIELDS + "h9,ships,h1\n", "line 2: image 'h9' is not in the archive; correct the name", "no image"),
    triplets(FIELDS + "h0,ships,h9\n", "line 2: image 'h9' is not in the archive; correct the name", "no target image"),
    triplets(FIELDS + "same,ships,h1\n", "line 2: .*several images named 'same'; say which: ", "two of one name"),
    triplets(FIELDS + "h0,ships,h0\n", "line 2: 'h0' is its own target; correct the row, or read with", "own target"),
    entries("{", r"triplets\.json: expected JSON in UTF-8, a list of queries", "cut short"),
    entries("[" * 100_000, r"triplets\.json: expected JSON in UTF-8, a list of queries", "nested too deep"),
    entries(b'["caf\xe9"]', r"triplets\.json: expected JSON in UTF-8", "in latin-1"),
    entries(ENTRY, r"triplets\.json: expected JSON, a list of queries, each an object", "without a list"),
    entries([], r"triplets\.json: expected JSON, a list of queries", "empty list"),
    entries([ENTRY, "h0"], r"triplets\.json: expected JSON, a list of queries, each an object", "entry no object"),
    entries([ENTRY, ENTRY | {"text": 3}], "entry 2: text is 3; expected a word", "number as text"),
    entries([ENTRY, ENTRY | {"target": ["h1", None]}], "entry 2: target is None; expected a word", "null target"),
    entries([ENTRY, ENTRY | {"target": []}], "entry 2: target is .*; expected a word", "no target listed"),
    row(
        {"triplets.csv": FIELDS + "h0,ships,h1\n"},
        partial(read_benchmark, protocol="first-release"),
        "protocol 'first-release': this benchmark knows 'triplets' only; leave PROTOCOL",
        "triplets, another protocol",
    ),
]


def captions(text, message, name):
    files = {"multilabels.tsv": HEADER + ROWS, "captions.json": text if isinstance(text, bytes) else json.dumps(text)}
    return row(files, read_ucmcom, message, f"captions {name}")


CAPTIONS = [
    captions(b"{", r"captions\.json: expected JSON, image name -> list of captions", "cut short"),
    captions(b"[" * 100_000, r"captions\.json: expected JSON, image name -> list of captions", "nested too deep"),
    captions(b'{"h0": ["caf\xe9"]}', r"captions\.json: not UTF-8 text .*; save the file as UTF-8", "in latin-1"),
    captions(["a ship"], r"captions\.json: expected JSON, image name -> .*; found a list", "without names"),
    captions({"h0": "a ship"}, "h0 needs a list of captions, none of them blank, found 'a ship'", "a text alone"),
    captions({"h0": ["a ship", " "]}, r"h0 needs a list of captions, none of them blank, found", "blank"),
    captions({"h0": [["a ship"]]}, r"h0 needs a list of captions, none of them blank, found", "nested"),
    captions({"h0": [3]}, r"h0 needs a list of captions, none of them blank, found \[3\]", "a number"),
    captions({"x": ["a ship"]}, "captions.json names no image of .*, whose first is same.jpg", "of other images"),
    captions({"same": ["a ship"]}, "several images named 'same'; say which: ", "for two of one name"),
]


def made(**changes):
    """A benchmark of two queries over four images, changed."""

    def make(root):
        queries = pd.DataFrame(
            {
                "attribute": "shape", "group": "c", "image": ["a", "b"], "value": ["oval", "round"],
                "text": ["round", "oval"], "position": [0, 1], "target": [0, 1], "unknown": [0, -1],
            }
        )  # fmt: skip
        labels = pd.DataFrame(
            {"attribute": "shape", "image": ["a", "b"], "group": "c", "value": ["oval", "round"], "position": [0, 1]}
        )
        parts = {"queries": queries, "labels": labels, "targets": (np.array([1, 2]), np.array([0]))}
        parts |= {"unknowns": (np.array([3]),), "query_archive": None, "exclude_self": False}
        for name, change in changes.items():
            parts[name] = change(parts[name]) if callable(change) else change
        archive = Archive(root, tuple("abcd"), ("c",) * 4)
        return Benchmark(archive, "test", warnings=Report().table(), **parts)

    return make


def part(message, name, **changes):
    return row({}, made(**changes), message, f"benchmark, {name}")


def column(name, values):
    return lambda table: table.assign(**{name: values})


def outside(root):
    archive = Archive(root, ("q",), ("",))
    return made(queries=lambda table: table.assign(query=[0, -1]), query_archive=archive)(root)


BENCHMARK = [
    part(r"targets\[0\]: position -1 is outside the archive of 4", "negative target", targets=(np.array([-1]),) * 2),
    part(r"targets\[0\]: position 4 is outside the archive of 4 images, 0 to 3", "far", targets=(np.array([4]),) * 2),
    part(r"targets\[0\]: position 1 is out of order or there twice", "unsorted", targets=(np.array([2, 1]),) * 2),
    part(r"targets\[0\]: position 2 is out of order or there twice", "twice", targets=(np.array([2, 2]),) * 2),
    part(r"targets\[0\]: expected a one-dimensional array of integers", "fractions", targets=(np.array([0.5]),) * 2),
    part(r"targets\[0\]: expected a one-dimensional array of integers, found \[1\]", "a list", targets=([1],) * 2),
    part(r"targets\[0\]: expected a one-dimensional", "a matrix", targets=(np.array([[1]]),) * 2),
    part(r"unknowns\[0\]: position 9 is outside the archive", "far unknown", unknowns=(np.array([9]),)),
    part(r"unknowns\[0\]: c is relevant too \(targets\[0\]\)", "two sides", unknowns=(np.array([2]),)),
    part("queries, row 1: position is 4; expected an integer from 0", "far query", queries=column("position", [0, 4])),
    part("queries, row 1: position is -1; expected an integer from 0", "homeless", queries=column("position", [0, -1])),
    part("queries: column 'position' holds float64; expected integers", "half", queries=column("position", [0, 0.5])),
    part("queries, row 1: target is 2; expected an integer from 0 to 1", "no set", queries=column("target", [0, 2])),
    part("queries, row 0: target is -1; expected an integer from 0", "negative set", queries=column("target", [-1, 0])),
    part("queries, row 0: unknown is 1; expected an integer", "no unknown", queries=column("unknown", [1, 0])),
    part("queries, row 0: text is ' '; expected a word", "blank text", queries=column("text", [" ", "oval"])),
    part("queries, row 1: text is nan; expected a word", "missing text", queries=column("text", ["oval", np.nan])),
    part("queries, row 0: attribute is 3; expected a word", "numbered", queries=column("attribute", 3)),
    part("queries: no column 'group'; it needs", "less", queries=lambda table: table.drop(columns="group")),
    part("queries: two rows of index 0; give each its own", "twice", queries=lambda table: table.set_axis([0, 0])),
    part("labels, row 1: position is 7; expected an integer from 0", "far label", labels=column("position", [0, 7])),
    part("labels: no column 'value'; it needs", "valueless label", labels=lambda table: table.drop(columns="value")),
    part("row 0: query is 0; expected an integer from -1 to -1", "no query archive", queries=column("query", [0, -1])),
    part(
        "row 0: image is 'a'; expected an image that is not its own answer", "own answer", exclude_self=True,
        targets=(np.array([0]), np.array([0])),
    ),
    row({}, outside, "row 0: position is 0; expected either an archive position, or -1 and a `query`", "two homes"),
    row({}, lambda root: made()(root).without(["z"]), "'z' is no image of .*; files lists them", "without a stranger"),
]  # fmt: skip


def write(root, files):
    for image in IMAGES:
        path = root / "images" / image
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(exist_ok=True)
        path.mkdir() if content is None else path.write_bytes(content.encode() if isinstance(content, str) else content)


@pytest.mark.parametrize(("files", "read", "message"), [*PATTERNCOM, *MULTILABELS, *TRIPLETS, *CAPTIONS, *BENCHMARK])
def test_bad_input_is_named(tmp_path, files, read, message):
    write(tmp_path, files)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read(tmp_path)


@pytest.mark.parametrize(
    ("files", "read"),
    [
        ({"PatternCom/shape.csv": GOOD}, read_patterncom),
        ({"multilabels.tsv": HEADER + ROWS}, read_multilabels),
        ({"triplets.csv": FIELDS + "h0,ships,h1;h2\n"}, read_triplets),
        ({"triplets.json": json.dumps([ENTRY])}, read_triplets),
        ({"multilabels.tsv": HEADER + ROWS, "captions.json": json.dumps({"h0": ["a ship"]})}, read_ucmcom),
        ({}, made()),
    ],
)
def test_what_the_rows_spoil_is_good_unspoilt(tmp_path, files, read):
    write(tmp_path, files)
    read(tmp_path)
