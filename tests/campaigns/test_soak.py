"""A short form of the explorer's campaign, and that it notices a wrong answer, a lost mark and a refusal."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import soak

from rscir_lib.apps.explorer import Explorer
from rscir_lib.apps.explorer.marks import add_mark
from rscir_lib.benchmarks.registry import read_benchmark
from rscir_lib.benchmarks.synthcom import draw_synthcom
from rscir_lib.encoders import load_encoder
from rscir_lib.features import extract_features, read_features


def test_a_short_campaign_has_no_wrong_answer():
    done = subprocess.run([sys.executable, Path(soak.__file__), "--quick"], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert "1 restarts" in done.stdout
    assert done.stdout.count(" 0 wrong") == 2


@pytest.fixture(scope="module")
def campaign(tmp_path_factory):
    folder = tmp_path_factory.mktemp("soak")
    root, encoder = draw_synthcom(folder / "drawn", images_per_class=2, workers=1), load_encoder("demo", device="cpu")
    archive = read_benchmark(root).archive
    store = extract_features(archive, encoder, folder / "store", workers=1)
    explorer = Explorer(archive, read_features(store), encoder, folder / "run")
    return soak.Soak(root, store, 8, 0), explorer


def test_it_notices_what_is_wrong(campaign, tmp_path):
    asked, explorer = campaign
    question = {"ask": "query", "images": [3], "words": "red", "without": ""}
    other = explorer.answer(question | {"images": [4]})
    answer = explorer.answer(question)
    assert asked.compare(question, 200, answer) == ""
    assert asked.compare(question, 200, other) == "other similarities"
    moved = answer | {"moments": [answer["moments"][0], other["moments"][0]]}
    assert asked.compare(question, 200, moved).startswith("hits ")
    assert asked.compare(question, 200, {"error": "no"}) == "200 no"
    assert "to what no page asks" in asked.compare(question | {"images": "x"}, 500, {})
    body = json.dumps(question).encode()
    for reply in (answer, answer, other):
        asked.take(question, body, 200, json.dumps(reply).encode())
    assert len(asked.wrong) == 1
    mark = {"ask": "mark", "image": "a.jpg", "text": "red", "answer": "b.jpg", "verdict": "right"}
    asked.take(mark, b"", 200, b"{}")
    add_mark(tmp_path / "marks.csv", "a.jpg", "red", "b.jpg", "wrong")
    assert "'right' was saved, 'wrong' is there" in asked.lost_marks(tmp_path / "marks.csv")[0]
    add_mark(tmp_path / "marks.csv", "a.jpg", "red", "b.jpg", "right")
    assert asked.lost_marks(tmp_path / "marks.csv") == []
