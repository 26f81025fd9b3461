"""Bad input, as a table: what lies there or is given, who reads it, and what the message says about it.

Each message names the file, row or parameter, the value found, and what is expected or what to do.
"""

import contextlib
import io
import json
import re
import zipfile
from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from rscir_lib.apps.commands import cli
from rscir_lib.apps.explorer.marks import read_marks
from rscir_lib.archive import Archive, read_archive
from rscir_lib.benchmarks.base import Benchmark, ValidationReport
from rscir_lib.benchmarks.multilabels import read_multilabels
from rscir_lib.benchmarks.patterncom import read_patterncom
from rscir_lib.benchmarks.registry import read_benchmark
from rscir_lib.benchmarks.synthcom import draw_synthcom
from rscir_lib.benchmarks.triplets import read_triplets
from rscir_lib.benchmarks.ucmcom import read_ucmcom
from rscir_lib.encoders import load_encoder
from rscir_lib.evaluation import evaluate, summarize
from rscir_lib.features import Features
from rscir_lib.methods import Basic, Expanded, FreeDom, read_vocabulary
from rscir_lib.methods.registry import METHODS
from rscir_lib.runs import check_parameters, open_run
from rscir_lib.search import search, top_k
from rscir_lib.storage.project import ROOT

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
    row({}, read_benchmark, r"no benchmark here\. Expected one of: .*PatternCom; .*multilabels\.tsv", "no benchmark"),
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
        "protocol 'first-release': this benchmark has no other than its own; leave PROTOCOL",
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
    triplets(FIELDS + "h0,a\rb,h1\n", r"line 2: a carriage return inside 'h0,a\\rb,h1'; end lines by", "half an end"),
    triplets(FIELDS + "h0,ships\n", "line 2: expected 3 fields as the header has, found 2: 'h0,ships'", "few fields"),
    triplets(FIELDS + "h0,ships, small,h1\n", "line 2: expected 3 fields as the header has", "comma in a text"),
    triplets(FIELDS + "h0,,h1\n", "line 2: text is ''; expected a word", "blank text"),
    triplets(FIELDS + "h0,ships,\n", "line 2: target is ''; expected a word", "blank target"),
    triplets(FIELDS + "h0,ships,h1;;h2\n", "line 2: target is ''; expected a word", "blank among targets"),
    triplets(FIELDS + "h9,ships,h1\n", "line 2: image 'h9' is not in the archive; correct the name", "no image"),
    triplets(FIELDS + "h0,ships,h9\n", "line 2: image 'h9' is not in the archive; correct the name", "no target image"),
    triplets(FIELDS + "same,ships,h1\n", "line 2: .*several images named 'same'; say which: ", "two of one name"),
    triplets(FIELDS + "h0,ships,h0\n", "line 2: 'h0' is its own target; correct the row, or read with", "own target"),
    entries("{", r"triplets\.json .*no JSON in UTF-8: expected JSON, a list of queries", "cut short"),
    entries("[" * 100_000, r"triplets\.json .*no JSON in UTF-8: expected JSON, a list of queries", "nested too deep"),
    entries(b'["caf\xe9"]', r"triplets\.json .*no JSON in UTF-8", "in latin-1"),
    entries(ENTRY, r"triplets\.json .*expected JSON, a list of queries, found a dict", "without a list"),
    entries([], r"triplets\.json: expected JSON, a list of queries", "empty list"),
    entries([ENTRY, "h0"], r"triplets\.json: expected JSON, a list of queries, each an object", "entry no object"),
    entries([ENTRY, ENTRY | {"text": 3}], "entry 2: text is 3; expected a word", "number as text"),
    entries([ENTRY, ENTRY | {"target": ["h1", None]}], "entry 2: target is None; expected a word", "null target"),
    entries([ENTRY, ENTRY | {"target": []}], "entry 2: target is .*; expected a word", "no target listed"),
    row(
        {"triplets.csv": FIELDS + "h0,ships,h1\n"},
        partial(read_benchmark, protocol="first-release"),
        "protocol 'first-release': this benchmark has no other than its own; leave PROTOCOL",
        "triplets, another protocol",
    ),
]


def captions(text, message, name):
    files = {"multilabels.tsv": HEADER + ROWS, "captions.json": text if isinstance(text, bytes) else json.dumps(text)}
    return row(files, read_ucmcom, message, f"captions {name}")


CAPTIONS = [
    captions(b"{", r"captions\.json .*expected JSON, image name -> list of captions", "cut short"),
    captions(b"[" * 100_000, r"captions\.json .*expected JSON, image name -> list of captions", "nested too deep"),
    captions(b'{"h0": ["caf\xe9"]}', r"captions\.json .*no JSON in UTF-8: expected JSON, image", "in latin-1"),
    captions(["a ship"], r"captions\.json .*expected JSON, image name -> .*, found a list", "without names"),
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
        return Benchmark(archive, "test", warnings=ValidationReport().table(), **parts)

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


def parameter(name, value, expected):
    """One parameter's value that no notebook takes."""
    message = f"^{re.escape(f'{name}={value!r}')}: expected .*{expected}"
    return row({}, lambda root: check_parameters(**{name: value}), message, f"{name}={value!r}"[:50])


def command(*words, expected, files=None):
    """Words of the workbook's command line; `{root}` in them stands for the folder that holds `files`."""

    def run(root):
        errors = io.StringIO()
        given = [f"OUTPUT_ROOT={root / 'runs'}", *(word.replace("{root}", str(root)) for word in words)]
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
            assert cli.main(["workbook", *given]) == 1
        assert "Traceback" not in errors.getvalue()
        assert not (root / "runs").exists(), "a folder was made for parameters that are refused"
        raise ValueError(errors.getvalue())  # the sentence

    return row(files or {}, run, f"(?s){expected}", " ".join(words)[:50])


LIST = "a list without repetition, each a number from 0 to 1"
TEXTS = "a list without repetition, each a text that is not blank"

PARAMETER_VALUES = [
    *[parameter("LAMBDAS", value, LIST) for value in ("0.5", None, 0.5, [], [2], ["a"], [-0.1], [0.5, 0.5], [True])],
    *[parameter("LAMBDAS", value, LIST) for value in ([float("nan")], [None], {"a": 1}, [[0.5]], (0.5,))],
    *[parameter("LAMBDA", value, "a number from 0 to 1") for value in (7, -1, "0.5", None, float("nan"), True, [0.5])],
    *[parameter("TOP", value, "a whole number from 1") for value in (-3, 0, 2.5, "8", None, True)],
    *[parameter("POSITION", value, "a whole number from 0") for value in (-1, 0.0, "0", None)],
    *[parameter("QUERY", value, "a whole number from 0") for value in (-1, 1.5, "first", None)],
    *[parameter("SEED", value, "a whole number from 0") for value in (-1, 2**32, 0.5, "x")],
    *[parameter("BATCH_SIZE", value, "a whole number from 0") for value in (-1, 1.5, "32", None)],
    *[parameter("OVERWRITE", value, "True or False") for value in (1, "yes", None)],
    *[parameter("PROTOCOL", value, "one of released, first-release") for value in ("x", "", None, 1, "Released")],
    *[parameter("PRECISION", value, "one of float32, bfloat16, float16") for value in ("x", "", 32, "fp16", None)],
    *[parameter("SCHEDULER", value, "local, the address of a Dask") for value in ("host:8786", "dask", None, 1, True)],
    *[parameter("DEVICE", value, "auto, cpu, cuda") for value in ("gpu", "tpu", "", "cuda:", "cuda:-1", None, "CPU")],
    *[parameter("ENCODER", value, "one of demo, clip.*folder") for value in ("clpi", "", None, 3, "no/such/folder")],
    *[parameter("ARCHITECTURE", value, "the name of an arch") for value in ("../..", "/etc", "a/b", "..", None, "a b")],
    *[parameter("DATASET_ROOT", value, "a folder that is there") for value in ("/no/such/folder", None, 3, ["a"])],
    *[parameter("MODELS_ROOT", value, "a folder that is there") for value in ("/no/such/folder", None)],
    *[parameter("LISTING", value, "a file that is there") for value in ("/no/such/file.csv", None, "/")],
    *[parameter("FEATURES", value, "a feature store or a .pkl file") for value in ("/no/such/store", None)],
    *[parameter("OUTPUT_ROOT", value, "a folder") for value in (None, 3, __file__)],
    *[parameter("TEXTS", value, TEXTS) for value in ([], "white", [""], [" "], [1], [None], ["a", "a"], None)],
    *[parameter("FREE_TEXTS", value, TEXTS) for value in ([], "large", ["", "b"], [["a"]])],
    *[parameter("ABLATION", value, "each one of .*weicom") for value in ([], ["weicm"], "weicom", [None], [1])],
    row(
        {},
        lambda root: check_parameters(ENCODER="clip", ARCHITECTURE="ViT-L/14"),
        "ARCHITECTURE='ViT-L/14': expected the name of an architecture, such as ViT-L-14",
        "clip ViT-L/14",
    ),
    row(
        {},
        lambda root: check_parameters(ENCODER="clip", ARCHITECTURE="ViT-H-14"),
        "ARCHITECTURE='ViT-H-14': expected one of ViT-L-14, ViT-B-32, RN50, which clip comes in",
        "clip ViT-H-14",
    ),
    row(
        {},
        lambda root: check_parameters(NEW=3),
        "no parameter 'NEW' here; there are DATASET_ROOT",
        "NEW=3",
    ),
    row(
        {},
        lambda root: open_run(str(root), DEVICE="cuda:999", OUTPUT_ROOT=str(root / "runs")),
        "DEVICE='cuda:999': expected auto, cpu.*torch finds [0-9]+ CUDA devices here",
        "open_run cuda:999",
    ),
]

COMMAND_LINES = [
    command("07x", expected="error: no notebook '07x'; there are 01_dataset_construction"),
    command("LAMDAS=[0.1]", expected="error: no parameter 'LAMDAS' in these notebooks; they declare DATASET_ROOT"),
    command("TOP=8", "01", expected="error: no parameter 'TOP' in these notebooks"),
    command("LAMBDAS=0.5,", expected=re.escape("LAMBDAS=(0.5,): expected ") + LIST),
    command("LAMBDAS=[0.1", expected=re.escape("LAMBDAS=[0.1: not a literal like [")),
    command("LAMBDAS=" + "[" * 3000, expected="not a literal like"),
    command("LAMBDAS=['a']", expected=re.escape("LAMBDAS=['a']: expected ") + LIST),
    command("LAMBDAS=[2]", expected=re.escape("LAMBDAS=[2]: expected ") + LIST),
    command("LAMBDAS=[]", expected=re.escape("LAMBDAS=[]: expected ") + LIST),
    command("LAMBDA=7", expected="LAMBDA=7: expected a number from 0 to 1"),
    command("TOP=-3", expected="TOP=-3: expected a whole number from 1"),
    command("BATCH_SIZE=many", expected="BATCH_SIZE=many: not a literal like 0"),
    command("OVERWRITE=true", expected="OVERWRITE=true: not a literal like False"),
    command("PROTOCOL=x", expected="PROTOCOL='x': expected one of released"),
    command("DEVICE=gpu", expected="DEVICE='gpu': expected auto, cpu"),
    command("DATASET_ROOT={root}/none", expected="DATASET_ROOT='.*/none': expected a folder that is there"),
    command("DATASET_ROOT={root}/f", files={"f": b""}, expected="DATASET_ROOT='.*/f': expected a folder that is there"),
    command("LISTING={root}", expected="LISTING=.*: expected a file that is there"),
    command("ENCODER=demo", "ARCHITECTURE=RN50", expected="ARCHITECTURE='RN50': expected \"\", as demo comes in one"),
    command("--params", "{root}/none.yaml", expected="No such file or directory: '.*none.yaml'"),
    command("--params", "{root}", expected="Is a directory"),
]

YAML = {
    "empty.yaml": (b"", "expected lines of `NAME: value`, such as `ENCODER: clip`; found nothing"),
    "comment.yaml": (b"# none\n", "expected lines of `NAME: value`.*found nothing"),
    "list.yaml": (b"- ENCODER\n- clip\n", "expected lines of `NAME: value`.*found a list"),
    "word.yaml": (b"clip\n", "expected lines of `NAME: value`.*found a str"),
    "number.yaml": (b"3: 4\n", "expected lines of `NAME: value`.*found a dict"),
    "open.yaml": (b"LAMBDAS: [0.1\n", "not YAML .*line"),
    "tab.yaml": (b"ENCODER:\tclip\n\tx: 1", "not YAML .*line"),
    "latin.yaml": ("ENCODER: für".encode("latin-1"), "not YAML .*utf-8"),
    "object.yaml": (b"ENCODER: !!python/object/apply:os.system [ls]", "not YAML .*could not determine a constructor"),
    "unknown.yaml": (b"ENCODR: clip", "no parameter 'ENCODR'"),
    "value.yaml": (b"LAMBDAS: [0.5, x]", r"LAMBDAS=\[0.5, 'x'\]: expected a list"),
    "none.yaml": (b"ENCODER:", "ENCODER=None: expected one of demo"),
}
PARAMETER_FILES = [
    command("--params", "{root}/" + name, files={name: content}, expected=message)
    for name, (content, message) in YAML.items()
]


def saved(thing, **options):
    """What torch.save makes of a thing."""
    file = io.BytesIO()
    torch.save(thing, file, **options)
    return file.getvalue()


def packed(name, size):
    """A zip of few bytes that unpacks to `size` zeros."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as target:
        target.writestr(name, bytes(size))
    return file.getvalue()


def checkpoint(content, message, name, file="CLIP-RN50.bin", encoder="clip"):
    return row({f"models/{file}": content}, partial(load_models, encoder), f"{file} {message}", f"checkpoint {name}")


def load_models(encoder, root):
    return load_encoder(encoder, "RN50", "cpu", models_root=root / "models")


REFUSED = "is refused: it must hold tensors only, as a saved state dict or safetensors .*"
SAFE = {"file": "OpenAI-RN50.safetensors", "encoder": "clip-openai"}
TENSOR = torch.zeros(3)
CHECKPOINTS = [
    checkpoint(b"", REFUSED + "it is empty. Fetch it again", "empty"),
    checkpoint(b"", REFUSED + "it is empty. Fetch it again", "empty, safetensors", **SAFE),
    checkpoint(b"<html>", REFUSED + "it is no file of torch's, or one cut short", "a web page"),
    checkpoint(b"<html>" * 9, REFUSED + "save it as safetensors", "a web page, safetensors", **SAFE),
    checkpoint(saved({"a": TENSOR})[:-100], REFUSED + "it is no file of torch's, or one cut short", "cut short"),
    checkpoint(saved({"a": TENSOR}, _use_new_zipfile_serialization=False), REFUSED + "no file of torch's", "of old"),
    checkpoint(saved([TENSOR]), REFUSED + "a value of type list and no tensors by name", "a list"),
    checkpoint(saved(TENSOR), REFUSED + "a value of type Tensor and no tensors by name", "a bare tensor"),
    checkpoint(saved({}), REFUSED + "a value of type dict and no tensors by name", "nothing"),
    checkpoint(saved({"state_dict": [1]}), REFUSED + "a value of type list and no tensors", "a list as state_dict"),
    checkpoint(saved({"a": 1}), REFUSED + "'a' in it is of type int, not a named, dense", "a number"),
    checkpoint(saved({1: TENSOR}), REFUSED + "1 in it is of type Tensor .*, not a named", "a number as name"),
    checkpoint(saved({"model": {"a": TENSOR}}), REFUSED + "'model' in it is of type dict, not a named", "nested"),
    checkpoint(saved({"a": TENSOR.to_sparse()}), REFUSED + "of type Tensor .torch.sparse_coo., not a named", "sparse"),
    checkpoint(saved({"a": partial}), REFUSED + "save it as safetensors", "code"),
    checkpoint(packed("archive/data.pkl", 10**7), REFUSED + "archive/data.pkl in it is packed .10000000", "a bomb"),
    checkpoint(
        saved({"a": TENSOR}), "does not fit RN50: .* is missing from the file; it fits none", "of another model"
    ),
]

DEVICES = [
    row({}, partial(lambda device, _: load_encoder("demo", device=device), device), message, f"device {device}")
    for device, message in {
        **{
            name: f"device {name!r} is unknown: choose auto, cpu, cuda, cuda:<number> or mps"
            for name in ("gpu", "tpu", "cpu:1", "meta", "", "GPU 0", None, -1)
        },
        "cuda:77": "device 'cuda:77': torch finds [0-9]+ CUDA devices here; choose auto or cpu",
    }.items()
]

ENCODER_NAMES = [
    row({}, partial(lambda given, _: load_encoder(**given), given), message, f"encoder {given}")
    for given, message in (
        ({"name": "clipp"}, "unknown encoder 'clipp': one of demo, clip, remoteclip"),
        ({"name": ""}, "an encoder is given by name or folder, not by ''"),
        ({"name": None}, "an encoder is given by name or folder, not by None"),
        ({"name": ["clip"]}, r"an encoder is given by name or folder, not by \['clip'\]"),
        ({"name": "clip", "architecture": "../.."}, r"unknown architecture of clip: '\.\./\.\.'; one of ViT-L-14"),
        ({"name": "clip", "architecture": "ViT-B-16"}, "unknown architecture of clip: 'ViT-B-16'; one of ViT-L-14"),
        ({"name": "clip", "architecture": 3}, "unknown architecture of clip: 3; one of ViT-L-14"),
        ({"name": "demo", "architecture": "RN50"}, "unknown architecture of demo: 'RN50'; one of custom"),
        ({"name": "demo", "precision": "float8"}, "unknown precision: 'float8'; one of float32"),
        ({"name": "demo", "precision": 16}, "unknown precision: 16; one of float32"),
        ({"name": "skyclip", "models_root": "none"}, r"SkyCLIP-ViT-L-14\.pt is missing: .*SkyScript"),
    )
]

TEXTS = [
    row({}, partial(lambda texts, _: load_encoder("demo", device="cpu").encode_texts(texts), texts), message, name)
    for texts, message, name in (
        ([None], r"texts\[0\] is None, not a string; leave it out", "text none"),
        (["red", 3], r"texts\[1\] is 3, not a string", "text a number"),
        (["red", ""], r"texts\[1\] is blank for 'demo': ''; write a word", "text blank"),
        (["red " * 40], r"texts\[0\] has 42 tokens, 'demo' reads 32; shorten", "text too long"),
        (["x" * 10**6], r"texts\[0\] has 1000000 characters, 'demo' reads 32 tokens; shorten it", "text of a million"),
        (["\ud800"], r"texts\[0\] is .*, which is no Unicode text; type it again", "text no Unicode"),
        ("red", "encode_texts takes a list with at least one text", "text alone"),
        ([], "encode_texts takes a list with at least one text", "text list empty"),
        (None, "encode_texts takes a list with at least one text", "text list none"),
        (7, "encode_texts takes a list with at least one text", "text list a number"),
    )
]


# evaluation and search: three images, one query


def asked(message, name, methods=("image",), lambdas=(0.5,), encode=None, features=None, **options):
    def read(root):
        benchmark = made()(root)
        evaluate(
            benchmark, features or unit_features(benchmark.archive), encode or encode_ones, methods, lambdas,
            progress=False, **options,
        )  # fmt: skip

    return pytest.param({}, read, message, id=f"evaluate {name}")


def encode_ones(texts):
    return np.eye(4, dtype=np.float32)[[1] * len(texts)]


def unit_features(archive, dim=4):
    feats = np.random.default_rng(0).normal(size=(len(archive), dim))
    feats = (feats / np.linalg.norm(feats, axis=1, keepdims=True)).astype(np.float32)
    return Features.from_arrays(feats, archive.files, archive.classes, {"encoder": "clip"})


def own(score, name="mine"):
    """A method of one's own that scores so."""
    return SimpleNamespace(name=name, has_lambda=False, fit=lambda features, encode_texts: score)


NOT_A_SHARE = r"is outside \[0, 1\]; 0 is image alone, 1 text alone"
EVALUATIONS = [
    *(asked(f"list of method names, found {re.escape(repr(value))}", f"methods {value!r}", value)
      for value in ("weicom", [], ())),
    asked("unknown method 'wiecom'; choose from text, image", "misspelt", ["wiecom"]),
    asked("unknown method ''; choose from text", "blank", [""]),
    asked("3 is no method: it lacks name, has_lambda, fit", "number as method", [3]),
    asked("is no method: it lacks has_lambda, fit", "half a method", [SimpleNamespace(name="half")]),
    asked("another method named 'weicom': give this one a name of its own", "taken name", [own(None, "weicom")]),
    asked("two of the methods are named 'mine'", "one name twice", [own(None), own(None)]),
    *(asked(f"lambdas: expected a list of numbers in .0, 1., found {re.escape(repr(value))}; for one, write",
            f"lambdas {value!r}", ["weicom"], value) for value in (0.5, None, "0.5", {0.5})),
    *(asked(f"lambda {re.escape(repr(value))} {NOT_A_SHARE}", f"lambda {value!r}", ["weicom"], [value])
      for value in (-0.1, 1.5, "a", None, float("nan"), float("inf"), True, [0.5])),
    asked("method 'weicom' needs at least one lambda, such as lambdas=", "no lambda", ["weicom"], []),
    *(asked(f"cutoffs: expected a list of whole numbers, .*found {re.escape(repr(value))}", f"cutoffs {value!r}",
            cutoffs=value) for value in ("5", 5, [], None)),
    *(asked(f"cutoff {re.escape(repr(value))} is no whole number of images of at least 1", f"cutoff {value!r}",
            cutoffs=[value]) for value in (0, -1, 2.5, True, "5")),
    *(asked(f"device {value!r} is unknown: choose auto, cpu, cuda", f"device {value!r}", device=value)
      for value in ("gpu", "tpu", "cuda:", "cuda:x", "")),
    asked(r"device 'cuda:99': torch finds \d+ CUDA devices here; choose auto or cpu", "no such GPU", device="cuda:99"),
    asked(r"gave shape \(2, 3\) for 2 texts, the image features ask for \(2, 4\): are they of the same encoder",
          "texts of another encoder", encode=lambda texts: np.ones((len(texts), 3))),
    asked("must L2-normalise: the feature of 'round' has norm 2", "texts not normalised",
          encode=lambda texts: 2 * encode_ones(texts)),
    asked("must L2-normalise: the feature of 'round' has norm nan", "texts not finite",
          encode=lambda texts: np.nan * encode_ones(texts)),
    asked(r"method 'mine' gave scores of shape \(1, 2\) for 2 queries; expected \(2, 4\), one an archive image",
          "scores of another shape", [own(lambda questions, lam: np.zeros((1, 2)))]),
    *(asked("method 'mine' gives scores that are not finite", f"scores {value}",
            [own(lambda questions, lam, value=value: np.full((2, 4), value))])
      for value in (np.nan, np.inf, -np.inf)),
    pytest.param({}, lambda root: summarize(pd.DataFrame(), rounding="up"), "rounding 'up' is unknown", id="rounding"),
]  # fmt: skip


def question(message, name, image=0, text="red", given=None, **options):
    def read(root):
        archive = made()(root).archive
        encoder = SimpleNamespace(encode_texts=encode_ones, name="ones")
        search(unit_features(archive), image, text, **({"encoder": encoder, "archive": None} | options))

    return pytest.param(given or {}, read, message, id=f"search {name}")


QUESTIONS = [
    *(question(rf"position {value} is outside the archive: it has \d images, 0 to \d", f"position {value}", value)
      for value in (-1, 99_999)),
    *(question(f"query image {re.escape(repr(value))}: expected a position, a path or a PIL image", f"{value!r}", value)
      for value in (1.5, True, [0])),
    question("nowhere.png: the archive lists this image, but it is not on disk|nowhere.png.*no such", "no file",
             "nowhere.png"),
    question("no query image: give a position, a path or a picture", "neither image", None),
    *(question("no text: type some words, or ask by the image alone", f"text {value!r}", 0, value)
      for value in ("", "  ", None)),
    *(question(f"text {re.escape(repr(value))}: expected words, found", f"text {value!r}", 0, value)
      for value in (3, ["red"], b"red")),
    *(question(f"lambda {re.escape(repr(value))} {NOT_A_SHARE}", f"lambda {value!r}", lam=value)
      for value in (-0.1, 1.5, "a", None, float("nan"))),
    *(question(f"top {re.escape(repr(value))}: ask for a whole number of images", f"top {value!r}", top=value)
      for value in (0, -1, 2.5, True, "5", None)),
    question("unknown method 'wiecom'; choose from", "method", method="wiecom"),
    question(r"pass encoder=, the one that made these features \(clip\)", "no encoder", encoder=None),
    question("the query features are not finite", "a text that is not finite",
             encoder=SimpleNamespace(encode_texts=lambda texts: np.full((1, 4), np.nan))),
    question(r"a query feature has shape \(3,\), the archive's \(4,\): of another encoder", "another encoder",
             encoder=SimpleNamespace(encode_texts=lambda texts: np.ones((1, 3), np.float32))),
    pytest.param({}, lambda root: top_k(np.full((3, 4), np.nan), np.ones(4), np.ones(4)),
                 "the features of image 0 are not finite; extract", id="search features not finite"),
]  # fmt: skip

METHODS_OF_OURS = [
    row(files, read, message, f"method {message[:20]}")
    for files, read, message in [
        ({}, lambda root: FreeDom(neighbours=0), "neighbours 0, words 7, kept 7: each must be at least 1"),
        ({}, lambda root: Basic(contrast=2), r"contrast 2, .*: wanted are a contrast in \[0, 1\]"),
        ({}, lambda root: Expanded(METHODS["image"], 0), "neighbours 0: at least 1 is wanted"),
        ({}, lambda root: read_vocabulary(["a"]), "at least two words are needed"),
        ({}, lambda root: read_vocabulary(["a", "b", "a"]), "'a' is listed twice"),
        ({"words.txt": ""}, lambda root: read_vocabulary(root / "words.txt"), "at least two words are needed"),
        ({}, lambda root: read_vocabulary("nowhere.txt"), "no such list of words; name a text file"),
        (
            {"words.txt": b"caf\xe9\nsea"},
            lambda root: read_vocabulary(root / "words.txt"),
            r"words\.txt: not UTF-8 text",
        ),
    ]
]


def marks(content, message):
    return row(
        {"marks.csv": content}, lambda root: read_marks(root / "marks.csv", read_archive(root)), message, message
    )


MARKED = "image,text,answer,verdict\n"
FILES_OF_OURS = [
    marks("", r"marks\.csv, line 1: expected the header image,text,answer,verdict; these are no marks"),
    marks(MARKED, r"marks\.csv: no answer to a picture and words is marked right"),
    marks(MARKED.encode() + b"caf\xe9,,,", r"marks\.csv: not a CSV file in UTF-8 .*restore it, or move it away"),
    marks(MARKED + "a,b,c,maybe\n", r"marks\.csv, line 2: expected .*found .*maybe.*; mend or remove it"),
    marks(MARKED + "a,b,c,right\n", r"marks\.csv marks 2 images that .* lacks"),
    *(
        row({"synthcom.json": content}, draw_synthcom, f"holds {held}.*, not .*: choose another folder", f"draw {held}")
        for content, held in (
            (b'{"seed": ', "a damaged synthcom.json"),
            (b"\xff", "a damaged"),
            (b"[3]", "a damaged"),
        )
    ),
    row(
        {"patternnet.csv": "x" * 70_000}, read_archive, "line 1: 70000 characters, at most 65536 make a row", "long row"
    ),
]


def write(root, files):
    for image in IMAGES:
        path = root / "images" / image
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(exist_ok=True)
        path.mkdir() if content is None else path.write_bytes(content.encode() if isinstance(content, str) else content)


TABLE = [
    *PATTERNCOM,
    *MULTILABELS,
    *TRIPLETS,
    *CAPTIONS,
    *BENCHMARK,
    *PARAMETER_VALUES,
    *COMMAND_LINES,
    *PARAMETER_FILES,
    *CHECKPOINTS,
    *DEVICES,
    *ENCODER_NAMES,
    *TEXTS,
    *EVALUATIONS,
    *QUESTIONS,
    *METHODS_OF_OURS,
    *FILES_OF_OURS,
]


def test_the_table_is_as_long_as_the_page_says():
    page = (ROOT / "notebooks" / "book" / "trust.md").read_text(encoding="utf-8")
    assert int(re.search(r"more than (\d+) inputs", page)[1]) < len(TABLE)


@pytest.mark.parametrize(("files", "read", "message"), TABLE)
def test_bad_input_is_named(tmp_path, files, read, message):
    write(tmp_path, files)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read(tmp_path)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("explore ENCODER=clpi", "ENCODER='clpi': expected one of demo, clip"),
        ("explore LAMBDA=0.5", "no parameter 'LAMBDA' here; there are DATASET_ROOT"),
        ("methods none", "09_methods.csv is missing: run notebook 09 there"),
        ("page DATASET_ROOT=none", "none': expected a folder that is there"),
        ("tiles none", "none"),
        ("train adapt none captions.json --out out", "none: no archive here"),
        ("fetch file --only images", "file"),
        ("fetch none --only model", "nothing to fetch is called 'model'; there are images"),
        ("geoparquet export none tiles.parquet", "none: no features here"),
        ("geoparquet import none store", "none"),
        ("verify none", "none: no features here"),
        ("nonsense", "no command 'nonsense'; rscir --help lists them"),
    ],
)
def test_commands_end_in_a_sentence(tmp_path, monkeypatch, capsys, words, message):
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    assert cli.main(words.split()) == (2 if words == "nonsense" else 1)
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error


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


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_an_interrupt_ends_every_command_in_a_sentence(name, monkeypatch, capsys):
    """Wherever it comes, also where Python can't raise it."""

    def interrupted(**given):
        raise KeyboardInterrupt

    _, arguments = cli.COMMANDS[name]
    monkeypatch.setitem(cli.COMMANDS, name, (interrupted, arguments))
    needed = [
        f"--{names[0].lstrip('-')}=x" if names[0].startswith("-") else "x"
        for names, options in arguments
        if options.get("required") or (not names[0].startswith("-") and options.get("nargs") not in ("*", "?"))
    ]
    assert cli.main([*name.split(), *needed]) == 130
    said = capsys.readouterr().err
    assert said == "interrupted; the same command goes on where this one stopped\n"
