"""SynthCom: the synthetic scenes, and the folder that they are written to."""

import json
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from contact_sheet import contact_sheet
from PIL import Image

from rscir_lib.benchmarks import synthcom
from rscir_lib.benchmarks.patterncom import ATTRIBUTES, read_patterncom
from rscir_lib.benchmarks.synthcom import CLASSES, HELD_OUT, describe, draw_synthcom, paint, training_scene

PER_CLASS = 9


@pytest.fixture(scope="module")
def root(tmp_path_factory, slow_to_make):
    return draw_synthcom(tmp_path_factory.mktemp("synthcom"), seed=3, images_per_class=PER_CLASS)


def pixels(root):
    return {path.name: np.asarray(Image.open(path)).tobytes() for path in root.glob("images/*/*.jpg")}


def test_folder_reads_as_patternnet_and_patterncom(root):
    benchmark = read_patterncom(root)
    archive = benchmark.archive
    assert benchmark.warnings.empty
    assert len(archive) == PER_CLASS * len(CLASSES)
    assert set(archive.classes) == set(CLASSES)
    assert archive.files[0] == "images/airplane/airplane001.jpg"
    assert archive.name.endswith("(synthetic)")
    assert set(benchmark.labels["attribute"]) == set(ATTRIBUTES)
    line = (root / "patternnet.csv").read_text().splitlines()[PER_CLASS]
    assert line == "images/baseballfield/baseballfield001.jpg 1 baseballfield"
    with Image.open(archive.path(0)) as image:
        assert (image.size, image.mode) == ((256, 256), "RGB")


def test_labels_are_what_was_drawn_and_part_stays_unlabelled(root):
    labels = read_patterncom(root).labels
    for row in labels.itertuples():
        name, number = row.image[:-7], int(row.image[-7:-4])
        assert describe(3, number, name).values[row.attribute] == row.value
    labelled = [name for name, kind in CLASSES.items() if kind.attributes]
    share = 1 - labels["image"].nunique() / (PER_CLASS * len(labelled))
    assert 0.15 < share < 0.4


def test_classes_merges_and_values():
    plain = [name for name, kind in CLASSES.items() if not kind.attributes]
    assert len(CLASSES) - len(plain) >= 14
    assert len(plain) >= 3
    pairs = {
        "density": ("denseresidential", "sparseresidential"),
        "shape": ("closedroad", "intersection"),
        "context": ("bridge", "overpass"),
        "existence": ("ferryterminal", "harbor", "parkingspace", "parkinglot"),
    }
    for attribute, names in pairs.items():
        assert all(attribute in CLASSES[name].attributes for name in names)
    for kind in CLASSES.values():
        for values in kind.attributes.values():
            assert 2 <= len(set(values)) <= 5


def test_most_values_belong_to_several_classes():
    """Else the text alone would name the class."""
    owners = Counter()
    for kind in CLASSES.values():
        owners.update({(attribute, v) for attribute, values in kind.attributes.items() for v in values})
    assert sum(count > 1 for count in owners.values()) > 0.6 * len(owners)


def test_held_out_never_in_training_but_in_the_benchmark():
    seen, drawn = set(), set()
    for number in range(4000):
        scene = describe(0, number)
        seen |= {(attribute, scene.name, value) for attribute, value in scene.values.items()}
    for name in CLASSES:
        for number in range(1, 37):
            scene = describe(0, number, name)
            drawn |= {(attribute, name, value) for attribute, value in scene.values.items()}
    every = {(a, name, v) for name, kind in CLASSES.items() for a, values in kind.attributes.items() for v in values}
    assert every >= HELD_OUT
    assert seen == every - HELD_OUT
    assert drawn == every
    for attribute, _, value in HELD_OUT:
        assert any(a == attribute and v == value for a, _, v in seen)


def test_captions_name_class_and_values():
    for number in range(30):
        image, captions = training_scene(5, number, size=32)
        scene = describe(5, number)
        assert image.size == (32, 32)
        assert {synthcom.CLASS_WORDS[scene.name], *scene.values.values()} <= set(captions)
        assert any(len(caption.split()) >= 4 for caption in captions)


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("airplane", {"color": "red", "quantity": "two", "context": "grass"}, "two red airplanes on grass"),
        ("swimmingpool", {"shape": "oval", "context": "trees"}, "an oval swimming pool surrounded by trees"),
        ("overpass", {"context": "railway"}, "an overpass over railway"),
        ("harbor", {"existence": "empty"}, "an empty harbor"),
        ("harbor", {"existence": "boats"}, "a harbor with boats"),
        ("denseresidential", {"density": "moderate"}, "a moderate residential area"),
    ],
)
def test_phrase(name, values, words):
    assert synthcom.phrase(name, values) == words


@pytest.mark.slow
def test_scene_depends_on_seed_class_and_number_alone(root, tmp_path):
    other = draw_synthcom(tmp_path, seed=3, images_per_class=2, workers=1)
    drawn = pixels(root)
    for name, content in pixels(other).items():
        assert content == drawn[name]
    assert paint(describe(3, 1, "harbor"), 64) == paint(describe(3, 1, "harbor"), 64)


def test_seeds_and_training_share_no_scene():
    scenes = [paint(describe(seed, number, "forest"), 64) for seed in (0, 1) for number in (1, 2)]
    scenes += [training_scene(seed, number, 64)[0] for seed in (0, 1) for number in (1, 2)]
    assert len({scene.tobytes() for scene in scenes}) == 8


def test_resumes_and_leaves_the_rest_alone(tmp_path):
    draw_synthcom(tmp_path, images_per_class=1, workers=1)
    before = pixels(tmp_path)
    kept = tmp_path / "images/beach/beach001.jpg"
    stamp = kept.stat().st_mtime_ns
    for name in ("river", "forest"):
        (tmp_path / f"images/{name}/{name}001.jpg").unlink()
    (tmp_path / "images/river/.river001.jpg.0a.unfinished").write_bytes(b"half a file")
    (tmp_path / "PatternCom/color.csv").unlink()
    draw_synthcom(tmp_path, images_per_class=1, workers=2)
    assert pixels(tmp_path) == before
    assert kept.stat().st_mtime_ns == stamp
    assert (tmp_path / "PatternCom/color.csv").exists()
    assert not list(tmp_path.rglob("*.unfinished"))


DRAWING = """
import sys, time
from pathlib import Path
from rscir_lib.storage.locks import folder_lock

with folder_lock(Path(sys.argv[1])):
    half = Path(sys.argv[1], ".half.0a.unfinished")
    half.touch()
    print(flush=True)
    time.sleep(3)
    half.rename(Path(sys.argv[1], "whole"))
"""


@pytest.mark.slow
def test_two_drawings_at_once_take_turns(tmp_path, capsys):
    draw_synthcom(tmp_path, images_per_class=1, workers=1)
    (tmp_path / "images/river/river001.jpg").unlink()
    other = subprocess.Popen([sys.executable, "-c", DRAWING, str(tmp_path)], stdout=subprocess.PIPE)
    other.stdout.readline()
    draw_synthcom(tmp_path, images_per_class=1, workers=1)
    assert (tmp_path / "whole").exists()
    assert "another command works in" in capsys.readouterr().out
    other.communicate()
    assert other.returncode == 0


def test_complete_folder_is_not_drawn_again(root, monkeypatch):
    monkeypatch.setattr(synthcom, "paint", lambda *_: pytest.fail("drew a scene that was there"))
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    assert draw_synthcom(root, seed=3, images_per_class=PER_CLASS, workers=1) == root
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_refuses_another_seed_size_or_archive(root, tmp_path):
    marker = json.loads((root / "synthcom.json").read_text())
    assert marker["synthetic"] is True
    assert marker["seed"] == 3
    with pytest.raises(ValueError, match=r"'seed': 3.*another folder"):
        draw_synthcom(root, seed=4, images_per_class=PER_CLASS)
    with pytest.raises(ValueError, match="images_per_class"):
        draw_synthcom(root, seed=3, images_per_class=PER_CLASS + 1)
    (tmp_path / "images").mkdir()
    with pytest.raises(ValueError, match=r"holds other things .*another folder"):
        draw_synthcom(tmp_path)


@pytest.mark.parametrize("wrong", [{"images_per_class": 0}, {"seed": -1}, {"workers": 0}])
def test_refuses_impossible_numbers(tmp_path, wrong):
    with pytest.raises(ValueError, match="at least"):
        draw_synthcom(tmp_path / "new", **wrong)
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_contact_sheet(root):
    figure = contact_sheet(root)
    assert "synthetic" in figure.get_suptitle()
    assert (
        sum(len(ax.images) for ax in figure.axes)
        == read_patterncom(root)
        .labels.assign(name=lambda labels: labels["image"].str[:-7])
        .drop_duplicates(["attribute", "name", "value"])
        .shape[0]
    )
