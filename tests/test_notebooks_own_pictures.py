"""The notebooks on pictures of one's own: without labels, and real ones."""

import json
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
import rasterio
from PIL import Image
from rasterio.transform import from_origin

from notebook_runs import LAMBDAS, code_cells_of, read_table, run
from rscir_lib.apps.commands import cli, workbook
from rscir_lib.benchmarks.registry import read_benchmark
from rscir_lib.evaluation import chance


@pytest.fixture(scope="module")
def unlabelled(tmp_path_factory, kernel, long_to_make):
    """Parameters of a flat folder of GeoTIFFs, without classes or labels, its name with a space and an umlaut."""
    folder = tmp_path_factory.mktemp("own pictures für")
    (folder / "archive").mkdir()
    rng = np.random.default_rng(0)
    for i in range(12):
        pixels = rng.integers(0, 255, (48, 48, 3), dtype=np.uint8)
        path, place = folder / "archive" / f"picture {i}.tif", from_origin(500_000 + 480 * i, 5_400_000, 10, 10)
        size = {"width": 48, "height": 48, "count": 3, "dtype": "uint8"}
        with rasterio.open(path, "w", driver="GTiff", crs="EPSG:32633", transform=place, **size) as file:
            file.write(np.moveaxis(pixels, -1, 0))
    (folder / "archive" / "text.jpg").write_text("no image")
    Image.fromarray(pixels[:30]).save(folder / "my own ü.jpg")
    return {"DATASET_ROOT": str(folder / "archive"), "OUTPUT_ROOT": str(folder / "runs")}


def test_an_archive_without_labels_from_pictures_to_a_gallery(unlabelled, capsys):
    """All six by one command: what needs labels ends cleanly, what needs none is done."""
    asked = Path(unlabelled["DATASET_ROOT"]).parent / "my own ü.jpg"
    small = ["DEVICE=cpu", "TOP=3", "FREE_TEXTS=['large']", "LAMBDAS=[0.5]", f"QUERY_IMAGE={asked}", "QUERY_TEXT=red"]
    assert (
        cli.main(["workbook", *"01 02 03 04 05 06".split(), *(f"{k}={v}" for k, v in unlabelled.items()), *small]) == 0
    )
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("THE BUNDLED ENCODER KNOWS DRAWN SCENES ALONE")] == lines[:1]
    outcomes = [line.split(",")[0].strip() for line in lines if line.startswith("      ")]
    early = "ran as far as it goes without labels"
    assert outcomes == [early, "ran", early, early, early, early]
    folder = Path(unlabelled["OUTPUT_ROOT"]) / "archive_demo"
    assert (folder / "figures" / "06_free_text.png").stat().st_size > 10_000
    (hits,) = folder.glob("tables/06_hits_*.csv")
    found = pd.read_csv(hits)
    assert found["rank"].tolist() == [1, 2, 3]
    assert set(found["query_image"]) == {"my own ü.jpg"}
    assert (folder / "figures" / f"{hits.stem}.html").read_text().count('src="data:image/jpeg;base64,') == 4
    places = json.loads((folder / "tables" / f"{hits.stem}.geojson").read_text())["features"]
    assert [place["properties"]["file"] for place in places] == found["file"].tolist()
    unread = pd.read_csv(folder / "tables" / "02_unreadable.csv")
    assert unread["file"].tolist() == ["text.jpg"]
    assert "its content is not of an image format" in unread["reason"][0]
    for name in ("02_feature_extraction", "06_retrieval_galleries"):
        ran = nbformat.read(folder / "notebooks" / f"{name}.ipynb", as_version=4)
        said = "".join(out.get("text", "") for cell in code_cells_of(ran) for out in cell.outputs)
        assert said.count("KNOWS DRAWN SCENES ALONE") == 1
        assert "ENCODER=clip-openai" in said
    described = nbformat.read(folder / "notebooks" / "01_dataset_construction.ipynb", as_version=4)
    printed = "".join(out.get("text", "") for cell in code_cells_of(described) for out in cell.outputs)
    assert "archive has no labels: this notebook ends here" in printed


def test_a_template_is_read_by_the_notebooks_and_shares_the_features(unlabelled, capsys):
    """Stands the second time; without its store, notebook 02 makes it again."""
    given = [*(f"{name}={value}" for name, value in unlabelled.items()), "TEMPLATE=many, {}|two {}", "DEVICE=cpu"]
    given += ["TOP=3", "FREE_TEXTS=['large']", "LAMBDAS=[0.5]", "QUERY_TEXT=red"]
    words = ["workbook", "02", "06", *given]
    assert cli.main(words) == 0
    runs = Path(unlabelled["OUTPUT_ROOT"])
    (folder,) = runs.glob("archive_demo_many-two-*")
    assert not list((folder / "features").iterdir())
    assert (runs / "archive_demo" / "features" / "manifest.json").is_file()
    hits = pd.read_csv(next(folder.glob("tables/06_hits_*.csv")))
    assert len(hits) == 3
    assert cli.main(words) == 0
    assert capsys.readouterr().out.count("stands, ") == 2
    (runs / "archive_demo" / "features" / "manifest.json").unlink()
    assert cli.main(words) == 0
    assert "[1/2] 02_feature_extraction ...\n      ran" in capsys.readouterr().out


def test_papermill_alone_ends_cleanly_and_checks_parameters_too(unlabelled, tmp_path):
    def papermill(*words: str) -> subprocess.CompletedProcess:
        notebook, place = str(workbook.NOTEBOOKS / "03_baselines.ipynb"), str(workbook.NOTEBOOKS)
        where = [notebook, str(tmp_path / "out.ipynb"), "-k", "python3", "--cwd", place]
        given = [word for name, value in unlabelled.items() for word in ("-p", name, value)]
        return subprocess.run(
            [sys.executable, "-m", "papermill", *where, *given, *words], capture_output=True, text=True
        )

    assert papermill().returncode == 0
    refused = papermill("-p", "PRECISION", "half")
    assert refused.returncode == 1
    assert "PRECISION='half': expected one of float32, bfloat16, float16" in refused.stderr


def test_strict_stops_at_an_unreadable_image(unlabelled, tmp_path):
    with pytest.raises(RuntimeError, match=r"02_feature_extraction, cell .*ValueError: row 12 of archive: .*text\.jpg"):
        run("02", **unlabelled | {"OUTPUT_ROOT": str(tmp_path)}, STRICT=True, DEVICE="cpu")


def test_a_position_outside_the_archive_is_named(unlabelled):
    if not (Path(unlabelled["OUTPUT_ROOT"]) / "archive_demo" / "features" / "manifest.json").exists():
        run("02", **unlabelled, DEVICE="cpu")
    with pytest.raises(RuntimeError, match=r"ValueError: POSITION=99999: expected 0 to 11, a position in .*archive"):
        run("06", **unlabelled, POSITION=99999, DEVICE="cpu")


def test_real_images(ucm_root, tmp_path, kernel, long_to_make):
    """Four on real JPEGs of uneven sizes with human labels: nothing in the chain is special to synthetic data."""
    lines = [
        f"images/{path.parent.name}/{path.name} 0 {path.parent.name}\n"
        for cls in ("denseresidential", "harbor", "parkinglot", "storagetanks")
        for path in sorted((ucm_root / "images" / cls).iterdir())[::5]
    ]
    (tmp_path / "few.csv").write_text("".join(lines))
    given = {"DATASET_ROOT": str(ucm_root), "LISTING": str(tmp_path / "few.csv"), "OUTPUT_ROOT": str(tmp_path / "runs")}
    for number in ("01", "02"):
        run(number, **given)
    folder = run("05", **given, LAMBDAS=LAMBDAS)
    run("06", **given, LAMBDAS=LAMBDAS, TOP=3)
    assert folder.name == f"{ucm_root.name}_demo_few"
    table = read_table(folder, "05_map")
    assert table.columns.tolist() == ["Existence", "Quantity", "Avg"]
    benchmark = read_benchmark(ucm_root, tmp_path / "few.csv")
    assert table.loc["image", "Avg"].item() > chance(benchmark)["Avg"]
    provenance = json.loads((folder / "features" / "manifest.json").read_text())["provenance"]
    assert "synthetic" not in provenance["archive"]
