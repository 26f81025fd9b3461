"""Benchmarks in the forms in which people download them, made on the spot: read by `read_benchmark`, and run by the
workbook's notebooks."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rasterio
from PIL import Image

from helpers import UTM
from rscir_lib.apps.commands import cli
from rscir_lib.archive import read_archive
from rscir_lib.archive.reading import read_image
from rscir_lib.benchmarks.registry import read_benchmark
from rscir_lib.benchmarks.triplets import read_cirr


def image(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((32, 32)).save(path)


def uc_merced(root, labels="multilabels/LandUse_Multilabeled.txt"):
    """The zip of the images, and that of Chaudhuri et al.'s labels, each unpacked beside the other."""
    lines = ["IMAGE\\LABEL\tairplane\tbare-soil\tcars"]
    for number, cls in enumerate(("airplane", "beach")):
        for i in range(8):
            image(root / "UCMerced_LandUse" / "Images" / cls / f"{cls}{i:02}.tif", 10 * number + i)
            lines.append(f"{cls}{i:02}\t{int(cls == 'airplane')}\t{i % 2}\t{int(i < 3)}")
    (root / labels).parent.mkdir(parents=True, exist_ok=True)
    (root / labels).write_text("\n".join(lines) + "\n")


def patterncir(root, split="test1", targets=True):
    """As PatternCIR's zip: CIRR's folders and names; the splits say where the images are."""
    named = {f"pattern-{i}": f"./{split}/{i % 3}/view{i}.png" for i in range(9)}
    for i, file in enumerate(named.values()):
        image(root / file, i)
    pairs = [
        {
            "pairid": i, "reference": f"pattern-{i}", "caption": f"has {i} more ships.", "target_soft": {},
            "img_set": {"id": 1, "members": [f"pattern-{i}", "pattern-8"]},
        }
        | ({"target_hard": f"pattern-{i + 1}"} if targets else {})
        for i in range(6)
    ]  # fmt: skip
    for folder, name, content in (("captions", "cap", pairs), ("image_splits", "split", named)):
        (root / "cirr" / folder).mkdir(parents=True, exist_ok=True)
        (root / "cirr" / folder / f"{name}.rc2.{split}.json").write_text(json.dumps(content))


def xview2(root):
    """The authors' list, which names TIFFs, beside the PNGs of the challenge."""
    lines = ["image,query_default,query_alt1,query_alt2,target"]
    for i in range(4):
        pre, post = (f"test/images/quake_{i}_{when}_disaster" for when in ("pre", "post"))
        image(root / f"{pre}.png", i)
        image(root / f"{post}.png", 20 + i)
        lines.append(f"{pre}.tif,post earthquake,earthquake damaged area,seismic damage,{post}.tif")
    (root / "xview2_cir.csv").write_text("\n".join(lines) + "\n")


def icir(root):
    """The tarball, unpacked."""
    lists = {"database": [], "query": []}
    for instance in ("temple", "tower"):
        for i in range(6):
            file = f"database/{instance}/{i}.jpg"
            image(root / file, len(instance) + i)
            lists["database"].append(f"icir/{file},{'at night' if i < 2 else 'in snow'},{instance}")
        image(root / f"query/{instance}/0.jpg", 50)
        lists["query"] += [f"icir/query/{instance}/0.jpg,{text},{instance}" for text in ("at night", "in snow")]
    for name, lines in lists.items():
        (root / f"{name}_files.csv").write_text("\n".join(lines) + "\n")


FORMS = {"uc_merced": uc_merced, "patterncir": patterncir, "xview2": xview2, "icir": icir}
QUERIES = {"uc_merced": 18, "patterncir": 6, "xview2": 12, "icir": 4}


@pytest.mark.parametrize("form", FORMS)
def test_read_by_its_own_files(form, tmp_path):
    FORMS[form](tmp_path)
    benchmark = read_benchmark(tmp_path)
    assert len(benchmark.queries) == QUERIES[form]
    assert all(benchmark.archive.path(i).is_file() for i in range(len(benchmark.archive)))
    benchmark.read_query(benchmark.queries.index[-1])


@pytest.mark.long
@pytest.mark.parametrize("form", ["icir", "xview2"])  # queries from outside the archive; pairs of images
def test_the_notebooks_run_it(form, tmp_path, kernel, capsys):
    """make workbook DATASET_ROOT=..., from the images to the tables."""
    FORMS[form](tmp_path / form)
    given = [f"DATASET_ROOT={tmp_path / form}", f"OUTPUT_ROOT={tmp_path / 'runs'}", "DEVICE=cpu", "LAMBDAS=[0.0, 0.5]"]
    assert cli.main(["workbook", "02", "03", "04", *given]) == 0
    table = pd.read_csv(tmp_path / "runs" / f"{form}_demo" / "tables" / "04_map.csv")
    assert table["Avg"].between(0, 100).all()


@pytest.mark.parametrize("labels", ["LandUse_Multilabeled.txt", "multilabels/LandUse_Multilabeled.txt"])
def test_uc_merceds_labels_from_where_they_are(tmp_path, labels):
    uc_merced(tmp_path, labels)
    benchmark = read_benchmark(tmp_path)
    assert benchmark.archive.classes[0] == "airplane"
    assert set(benchmark.queries["text"]) == {"bare soil", "cars"}
    (tmp_path / labels).write_text((tmp_path / labels).read_text().replace("beach03\t0", "beach03\t7"))
    with pytest.raises(ValueError, match=r"LandUse_Multilabeled\.txt, line 13: value '7' of 'beach03'"):
        read_benchmark(tmp_path)


def test_uc_merceds_labels_with_captions_are_ucmcom(tmp_path):
    uc_merced(tmp_path)
    names = [f"{cls}{i:02}.tif" for cls in ("airplane", "beach") for i in range(8)]
    said = [f"There are {('three', 'two')[i % 2]} airplanes ." for i in range(16)]
    entries = [
        {"filename": name, "split": "train", "sentences": [{"raw": text}] * 5}
        for name, text in zip(names, said, strict=True)
    ]
    (tmp_path / "captions.json").write_text(json.dumps({"images": entries, "dataset": "ucm"}))
    assert set(read_benchmark(tmp_path).queries["attribute"]) == {"existence", "quantity"}


def test_the_real_labels_under_their_own_name(ucm_root, tmp_path):
    """Nothing differs but the name of the file."""
    expected = read_benchmark(ucm_root)
    (tmp_path / "UCMerced_LandUse").mkdir()
    (tmp_path / "UCMerced_LandUse" / "Images").symlink_to(ucm_root / "images")
    shutil.copy(ucm_root / "multilabels.tsv", tmp_path / "LandUse_Multilabeled.txt")
    shutil.copy(ucm_root / "captions.json", tmp_path)
    benchmark = read_benchmark(tmp_path)
    assert len(benchmark.queries) == len(expected.queries)
    assert benchmark.queries["text"].tolist() == expected.queries["text"].tolist()


def test_patterncirs_names_are_those_of_its_split(tmp_path):
    """Not those of the files; the split is the gallery, less the query's own image."""
    patterncir(tmp_path)
    image(tmp_path / "train" / "0" / "pattern-3.png", 99)
    benchmark = read_benchmark(tmp_path)
    first = benchmark.queries.iloc[0]
    assert benchmark.archive.files[first["position"]] == "test1/0/view0.png"
    assert [benchmark.archive.files[i] for i in benchmark.targets[first["target"]]] == ["test1/1/view1.png"]
    assert first["text"] == "has 0 more ships."
    assert benchmark.exclude_self
    assert len(benchmark.archive) == 9
    assert list(benchmark.n_ranked) == [8] * 6
    assert set(benchmark.warnings["value"]) == {"pairid", "target_soft", "img_set"}
    shutil.move(tmp_path / "cirr" / "captions", tmp_path / "captions")
    shutil.move(tmp_path / "cirr" / "image_splits", tmp_path / "image_splits")
    assert read_benchmark(tmp_path).queries.equals(benchmark.queries)


def test_cirr_keeps_the_answers_of_its_test(tmp_path):
    patterncir(tmp_path, targets=False)
    with pytest.raises(ValueError, match=r"cap\.rc2\.test1\.json: no pair has a target_hard"):
        read_cirr(tmp_path)
    patterncir(tmp_path, split="val")
    assert read_benchmark(tmp_path).protocol == "cirr-val"
    (tmp_path / "cirr" / "captions" / "cap.rc2.val.json").unlink()
    shutil.rmtree(tmp_path / "cirr" / "image_splits")
    with pytest.raises(FileNotFoundError, match=r"no cap\.rc2\.test1\.json with split\.rc2\.test1\.json"):
        read_cirr(tmp_path)


@pytest.mark.parametrize(
    ("part", "wrong", "message"),
    [
        (
            "captions/cap",
            [{"reference": "x", "target_hard": "pattern-1", "caption": "a"}],
            "entry 1: image 'x' is not in",
        ),
        (
            "captions/cap",
            [{"reference": "pattern-1", "target_hard": "pattern-2", "caption": " "}],
            "entry 1: text is ' '",
        ),
        ("captions/cap", [{"reference": "pattern-1", "target_hard": "pattern-1", "caption": "a"}], "is its own target"),
        (
            "captions/cap",  # one without its answer says nothing of the others
            [{"reference": "pattern-1", "target_hard": "pattern-2", "caption": "a"}, {"reference": "pattern-2"}],
            "entry 2",
        ),
        ("captions/cap", {"a": 1}, "is damaged|a list of pairs"),
        ("image_splits/split", {"pattern-0": 3}, "names of images -> their paths"),
        ("image_splits/split", {"pattern-0": "../../etc/passwd"}, "is not a path inside the archive"),
    ],
)
def test_patterncir_that_cannot_be_used(tmp_path, part, wrong, message):
    patterncir(tmp_path)
    (tmp_path / "cirr" / f"{part}.rc2.test1.json").write_text(json.dumps(wrong))
    with pytest.raises(ValueError, match=message):
        read_benchmark(tmp_path)


def deep(path: Path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    size = {"width": 40, "height": 40, "count": 3, "dtype": "uint16"} | UTM
    with rasterio.open(path, "w", driver="GTiff", **size) as file:
        file.write(np.broadcast_to(values, (3, 40, 40)).astype(np.uint16))


def test_a_pair_is_stretched_by_one_stretch(tmp_path):
    """What didn't change looks the same before and after; each by itself, the darker picture would be brightened."""
    ground = np.linspace(3000, 3600, 40)[None, :] * np.ones((40, 1))
    flooded = np.where(np.arange(40)[:, None] < 20, ground, 2600)
    deep(tmp_path / "images" / "flood_0_pre_disaster.tif", ground)
    deep(tmp_path / "images" / "flood_0_post_disaster.tif", flooded)
    deep(tmp_path / "images" / "alone_0_pre_disaster.tif", ground)
    archive = read_archive(tmp_path)
    alone, post, pre = (np.asarray(archive.read(archive.names.index(f"{name}.tif"))) for name in (
        "alone_0_pre_disaster", "flood_0_post_disaster", "flood_0_pre_disaster"))  # fmt: skip
    np.testing.assert_array_equal(pre[:20], post[:20])
    by_itself = np.asarray(read_image(archive.root / "images" / "flood_0_post_disaster.tif"))
    assert np.abs(by_itself[:20].astype(int) - alone[:20]).max() > 20
    np.testing.assert_array_equal(alone, np.asarray(read_image(archive.root / "images" / "alone_0_pre_disaster.tif")))
    assert archive.reading["reading"].endswith("; before and after a disaster by one stretch")
    assert "disaster" not in archive.subset([]).reading["reading"]
