"""pyproject.toml, requirements.lock and environment.yml tell one story."""

import os
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from rscir_lib.apps.commands import workbook

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCKED = [
    Requirement(line)
    for line in (ROOT / "requirements.lock").read_text().splitlines()
    if line.strip() and not line.lstrip().startswith("#")
]
DECLARED = [Requirement(r) for r in sum(PROJECT["optional-dependencies"].values(), PROJECT["dependencies"])]


def test_lock_pins_exactly():
    loose = [str(r) for r in LOCKED if not re.fullmatch(r"==[^*,]+", str(r.specifier))]
    assert not loose, "run `make lock`"
    assert not [r for r in LOCKED if r.url], "a lock names packages, not places"


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
def test_lock_satisfies_pyproject(platform, python):
    environment = {"sys_platform": platform, "python_version": python, "python_full_version": f"{python}.5"}
    pins = {
        canonicalize_name(pin.name): next(iter(pin.specifier)).version
        for pin in LOCKED
        if pin.marker is None or pin.marker.evaluate(environment)
    }
    for requirement in DECLARED:
        pin = pins.get(canonicalize_name(requirement.name))
        assert pin, f"{requirement.name} is not locked: run `make lock`"
        assert requirement.specifier.contains(pin, prereleases=True), f"{requirement.name}: run `make lock`"


def test_environment_takes_everything_from_the_lock():
    lines = [line.strip() for line in (ROOT / "environment.yml").read_text().splitlines()]
    listed = lines[lines.index("dependencies:") + 1 :]
    python = PROJECT["requires-python"]
    assert listed == [f"- python {python}", "- pip", "- pip:", "- -r requirements.lock", "- -e ."]


def test_binder_takes_everything_from_the_lock():
    (python,) = re.findall(r"- python ([\d.]+)\.\*", (ROOT / ".binder" / "environment.yml").read_text())
    assert SpecifierSet(PROJECT["requires-python"]).contains(f"{python}.0")
    script = ROOT / ".binder" / "postBuild"
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", script], check=True)
    pattern = re.search(r"grep -vE '(.*)' requirements.lock", script.read_text()).group(1)
    assert pattern in (ROOT / "Makefile").read_text()  # the same packages are left out


def outside_make() -> dict[str, str]:
    """The environment, without what a `make test TORCH_BACKEND=cpu` around these tests hands on."""
    of_make = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "MAKEOVERRIDES", "ARGS", "VENV", "READY", "TORCH_BACKEND")
    return {name: value for name, value in os.environ.items() if name not in of_make}


@pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
@pytest.mark.parametrize(
    ("target", "named"),
    [
        ("workbook", {"DATASET_ROOT": 1, "ENCODER": 1, "LISTING": 1}),
        ("reproduce", {"DATASET_ROOT": 1, "ENCODER": 1, "LISTING": 1}),
        ("results", {"DATASET_ROOT": 1, "ENCODER": 1, "LISTING": 1}),
        ("fetch", {"DATASET_ROOT": 0}),
        ("tiles", {"DATASET_ROOT": 0}),
        ("adapt", {"IMAGES": 0, "CAPTIONS": 0, "OUT": 0}),
    ],
)
def test_make_passes_paths_on_as_they_are(target, named, tmp_path):
    """Spaces, quotes and unicode; the python that make calls is stood in for by one that shows its words."""
    shown = tmp_path / "shown"
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("requirements.lock", "pyproject.toml", ".venv/bin/python", ".venv/.ready"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    python = tmp_path / ".venv" / "bin" / "python"
    python.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >> "{shown}"\n')
    python.chmod(0o755)
    place = "/my archive/für 'ø' \"x\""
    words = [f"{name}={place}/{name.lower()}" for name in named]
    subprocess.run(["make", "-s", target, *words], cwd=tmp_path, env=outside_make(), check=True)
    given = shown.read_text().splitlines()
    for name, with_name in named.items():
        assert f"{place}/{name.lower()}" in given or f"{name}={place}/{name.lower()}" in given
        assert (f"{name}={place}/{name.lower()}" in given) == bool(with_name)


@pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
def test_make_passes_nothing_that_was_not_given():
    """So that a parameter file behind ARGS is not overruled by an empty DATASET_ROOT; under `make test`, too."""
    done = subprocess.run(
        ["make", "-n", "workbook"], cwd=ROOT, env=outside_make(), capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1].split("rscir_lib workbook")[1].strip() == ""


@pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
def test_make_clean_leaves_what_people_made(tmp_path):
    """Labels, marks, encoders, a worked course copy, labels written into the drawn archive; all else goes."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "requirements.lock").touch()
    made = """runs/a b_demo/run.json runs/a b_demo/features/manifest.json runs/a b_demo/tables/04.csv
        runs/a b_demo/.lock runs/a b_demo/thumbnails/0.jpg runs/a b_demo/index.html runs/a b_demo/notebooks/04.ipynb
        runs/marked_demo/figures/0.png runs/book/index.html runs/.book/doctrees/a
        runs/page/explorer.js runs/page/index.html runs/.lock
        data/synthcom/images/a/a001.jpg data/synthcom/patternnet.csv data/synthcom/PatternCom/color.csv"""
    kept = """runs/marked_demo/run.json runs/marked_demo/marks.csv runs/labelled_demo/run.json
        runs/labelled_demo/labels/ground/me.csv runs/encoder/model.safetensors runs/encoder/features/manifest.json
        runs/course/student/03_baselines.ipynb data/synthcom/synthcom.json data/synthcom/PatternCom/ground.csv"""
    made, kept = [re.sub(r"\s+(?=runs|data)", "\n", text).split("\n") for text in (made, kept)]
    for name in made + kept:
        (tmp_path / name.strip()).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name.strip()).write_text("a")
    done = subprocess.run(
        ["make", "clean"], cwd=tmp_path, env=outside_make(), capture_output=True, text=True, check=True
    )
    left = [
        path.relative_to(tmp_path).as_posix() for place in ("runs", "data") for path in (tmp_path / place).rglob("*")
    ]
    assert sorted(name for name in left if (tmp_path / name).is_file()) == sorted(kept)
    for name in ("marked_demo", "labelled_demo", "encoder", "course"):
        assert f"kept, since people may have made it: runs/{name}" in done.stdout
    for name in kept:
        (tmp_path / name).unlink()
    (tmp_path / "data/synthcom/synthcom.json").write_text("a")
    (tmp_path / "data/synthcom/images").mkdir()
    subprocess.run(["make", "clean"], cwd=tmp_path, env=outside_make(), check=True)
    assert not (tmp_path / "data" / "synthcom").exists()


PAGES = [ROOT / "README.md", *sorted((ROOT / "notebooks" / "book").glob("*.md"))]
COMMANDS = sorted({line for page in PAGES for line in re.findall(r"(?m)(?:^|`)make ([^`#\n]+)", page.read_text())})


@pytest.mark.parametrize("command", COMMANDS)
def test_every_make_command_that_the_pages_show_is_there(command):
    """Its target, its variables, and the notebooks and parameters in its words."""
    makefile = (ROOT / "Makefile").read_text()
    words = [word for word in shlex.split(command) if word != "..."]
    given = dict(word.split("=", 1) for word in words if "=" in word)
    targets = [word for word in words if "=" not in word]
    for target in targets:
        assert re.search(rf"(?m)^{target}:.*## ", makefile), target
    for name in given:
        assert re.search(rf"(?m)^{name} \?=|^export .*\b{name}\b", makefile), name
    if targets in (["workbook"], ["reproduce"]):
        words = [word for word in shlex.split(given.get("ARGS", "")) if not word.startswith("--")]
        notebooks = workbook.select_notebooks([word for word in words if "=" not in word])
        declared = {name for notebook in notebooks for name in workbook.declared_parameters(notebook)}
        asked = {word.split("=")[0] for word in words if "=" in word} | given.keys() - {"ARGS", "TORCH_BACKEND"}
        assert asked <= declared


def test_the_lines_for_colab_install_what_fetching_imports():
    """Each package that fetching and its encoders import is a dependency, or in an extra that the lines name."""
    page = (ROOT / "notebooks" / "book" / "elsewhere.md").read_text()
    (line,) = re.findall(r'pip install --quiet -e "rscir\[(.+)\]"', page)
    extras = [package for extra in line.split(",") for package in PROJECT["optional-dependencies"][extra]]
    wanted = [*PROJECT["dependencies"], *extras]
    names = {re.split(r"[<>=!\[; ]", name)[0].replace("-", "_") for name in wanted}
    assert {"requests", "platformdirs", "tqdm", "open_clip_torch", "huggingface_hub", "transformers"} <= names
