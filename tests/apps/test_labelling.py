"""Labels of one's own: journals, agreement, the session's order and safety; the widget's side of the kernel."""

import math
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from filelock import FileLock
from PIL import Image

from rscir_lib.apps.labelling import (
    Labeller,
    Session,
    agreement,
    changed_share,
    check_proposals,
    cohens_kappa,
    merge_journals,
    propose,
    read_journal,
    write_patterncom,
)
from rscir_lib.archive import read_archive
from rscir_lib.benchmarks.patterncom import read_patterncom

VALUES = ["smooth", "rough"]


@pytest.fixture
def archive(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "data" / "images" / name).mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (9, 5), (40 * number, 0, 0)).save(
                tmp_path / "data" / "images" / name / f"{name}{number}.png"
            )
    return read_archive(tmp_path / "data")


def journal(*rows):
    return pd.DataFrame([(*row, "")[:3] for row in rows], columns=["image", "value", "proposed"])


def test_every_answer_is_on_disk_at_once_and_the_next_session_goes_on(archive, tmp_path):
    path = tmp_path / "labels" / "texture" / "ann.csv"
    session = Session(archive, VALUES, path)
    assert session.left[0] == "a0.png"
    session.label("a0.png", "smooth")
    assert path.read_text() == "image,value,proposed\na0.png,smooth,\n"
    session.label("a1.png", "")
    session.label("a2.png", "rough")
    assert session.undo() == "a2.png"
    session.close()
    again = Session(archive, VALUES, path)
    assert again.left == ["a2.png", "b0.png", "b1.png", "b2.png"]
    assert again.labels["value"].tolist() == ["smooth", ""]
    assert [again.undo(), again.undo(), again.undo()] == ["a1.png", "a0.png", None]
    assert read_journal(path).empty


def test_an_answer_that_could_not_be_written_is_no_answer(archive, tmp_path, monkeypatch):
    labeller = Labeller(Session(archive, VALUES, tmp_path / "ann.csv"))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("rscir_lib.apps.labelling.session.write_rows", full)
    labeller._answer(labeller, {"image": "a0.png", "value": "smooth"}, [])
    assert "No space left" in labeller.problem
    assert labeller.queue[0]["image"] == "a0.png"
    assert labeller.counts == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,value\n", "line 1: expected the header"),
        ("image,value,proposed\na0.png,smooth\n", "line 2: expected image,value,proposed"),
        ("image,value,proposed\na0.png,smooth,\na0.png,rough,\n", "line 3: 'a0.png' is labelled twice"),
        ("image,value,proposed\nz.png,smooth,\n", "image 'z.png' is not of this archive"),
        ("image,value,proposed\na0.png,oval,\n", "value 'oval' is not of this archive and these values"),
        (b"image,value,proposed\n\xff,smooth,\n", "not a CSV file in UTF-8"),
    ],
)
def test_a_journal_that_is_not_understood_is_refused(archive, tmp_path, text, message):
    path = tmp_path / "ann.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=message):
        Session(archive, VALUES, path)


def test_one_journal_one_session(archive, tmp_path):
    first = Session(archive, VALUES, tmp_path / "ann.csv")
    first.label("a0.png", "smooth")
    second = Session(archive, VALUES, tmp_path / "ann.csv")  # the cell run again
    with pytest.raises(ValueError, match="open in a newer widget"):
        first.label("a1.png", "smooth")
    assert second.left[0] == "a1.png"
    other = f"from filelock import FileLock; FileLock({str(tmp_path / 'ann.lock')!r}).acquire(timeout=0)"
    assert subprocess.run([sys.executable, "-c", other], capture_output=True).returncode != 0
    second.close()
    held = FileLock(tmp_path / "ann.lock")
    with held, pytest.raises(ValueError, match="open in another notebook"):
        Session(archive, VALUES, tmp_path / "ann.csv")
    Session(archive, VALUES, tmp_path / "ann.csv").close()


@pytest.mark.parametrize("values", [["smooth"], ["smooth", "smooth"], ["smooth", "a,b"], ["smooth", " "], ["x/y", "z"]])
def test_values_that_patterncom_could_not_hold_are_refused(archive, tmp_path, values):
    with pytest.raises(ValueError, match="value"):
        Session(archive, values, tmp_path / "ann.csv")


def test_proposals_ask_for_the_least_sure_first(archive, tmp_path):
    feats = np.array([[1, 0], [0.8, 0.6], [0.6, 0.8], [0, 1], [0.96, 0.28], [1, 0]])
    table = propose(
        feats, lambda texts: np.eye(2)[: len(texts)], {"smooth": "a smooth place", "rough": "a rough place"}
    )
    assert table["position"].tolist() == [1, 2, 4, 0, 3, 5]  # margins 0.2, 0.2, 0.68, 1, 1, 1; ties by archive order
    assert table["proposed"].tolist() == ["smooth", "rough", "smooth", "smooth", "rough", "smooth"]
    session = Session(archive, VALUES, tmp_path / "ann.csv", table)
    assert session.left[:2] == ["a1.png", "a2.png"]
    session.label("a1.png", "rough")
    session.label("a2.png", "rough")
    session.label("b1.png", "")
    assert changed_share(session.labels) == 0.5
    assert math.isnan(changed_share(journal(("x", "smooth"))))


def test_proposals_are_checked_where_labels_know():
    """Of 20 images, the surest 12 are proposed rightly; one more has a value that was not on offer."""
    proposals = pd.DataFrame({"position": range(21), "proposed": ["smooth", "rough"] * 10 + ["rough"], "margin": 0.0})
    values = ["oval", *(["rough", "smooth"] * 4)[:8], *(["smooth", "rough"] * 6)]
    labels = pd.DataFrame({"position": [20, *range(20)], "value": values})
    table = check_proposals(proposals, labels)
    assert table["images"].to_dict() == {"least sure tenth": 2, "all": 20, "surest tenth": 2}
    assert table["right"].to_dict() == {"least sure tenth": 0, "all": 0.6, "surest tenth": 1}
    for nothing in (None, labels[:0]):
        table = check_proposals(proposals, nothing)
        assert table["images"].tolist() == [0, 0, 0]
        assert table["right"].isna().all()


def test_kappa_by_hand():
    # agree on 6 of 8; one says yes 5 times, the other 5: by chance (25 + 9) / 64
    one, other = list("yyyyynnn"), list("yyyynnny")
    assert cohens_kappa(one, other) == pytest.approx((6 / 8 - 34 / 64) / (1 - 34 / 64))
    assert cohens_kappa(one, one) == 1
    assert math.isnan(cohens_kappa(["y"], ["y"]))
    assert math.isnan(cohens_kappa([], []))
    assert cohens_kappa(["y", "y"], ["n", "n"]) == 0  # one never says what the other says: chance agrees on nothing too


def test_agreement_and_merging_of_three_people():
    people = {
        "ann": journal(("1", "smooth"), ("2", "rough"), ("3", "smooth"), ("4", "")),
        "bob": journal(("1", "smooth"), ("2", "smooth"), ("4", "")),
        "cid": journal(("1", "rough"), ("2", "rough"), ("3", "rough")),
    }
    table = agreement(people).set_index(["one", "other"])
    assert table.loc[("ann", "bob"), "images"] == 2
    assert table.loc[("ann", "cid"), "agree"] == pytest.approx(1 / 3)
    labels, left = merge_journals(people)
    assert dict(labels.to_numpy()) == {"1": "smooth", "2": "rough"}
    assert dict(left.to_numpy()) == {"3": "smooth 1, rough 1", "4": "nobody could tell"}
    assert agreement({"ann": people["ann"]}).empty
    assert len(merge_journals({})[0]) == 0


def test_the_labels_make_queries(archive, tmp_path):
    session = Session(archive, VALUES, tmp_path / "ann.csv")
    for image in list(session.left):
        session.label(image, "smooth" if "0" in image else "rough")
    labels, _ = merge_journals({"ann": session.labels})
    path = write_patterncom(labels, "texture", archive.root / "PatternCom")
    assert path.read_text().splitlines()[0] == "a0.png,texture,smooth"
    benchmark = read_patterncom(archive.root)
    assert len(benchmark.queries) == 6
    assert set(benchmark.queries["attribute"]) == {"texture"}
    for bad in ("tex/ture", "a,b", ""):
        with pytest.raises(ValueError, match="attribute"):
            write_patterncom(labels, bad, archive.root / "PatternCom")
    with pytest.raises(ValueError, match="no label of 'texture'"):
        write_patterncom(labels[:0], "texture", archive.root / "PatternCom")


def test_the_widget_keeps_answers_by_name(archive, tmp_path):
    session = Session(archive, VALUES, tmp_path / "ann.csv")
    labeller = Labeller(session, "texture")
    assert [item["image"] for item in labeller.queue][:3] == ["a0.png", "a1.png", "a2.png"]
    assert labeller.queue[0]["picture"].startswith("data:image/jpeg;base64,")
    labeller._answer(labeller, {"image": "a1.png", "value": "rough"}, [])
    labeller._answer(labeller, {"image": "a0.png", "value": ""}, [])
    assert labeller.counts == {"rough": 1, "": 1}
    assert labeller.left == 4
    labeller._answer(labeller, {"undo": True}, [])
    assert labeller.queue[0]["image"] == "a0.png"
    labeller._answer(labeller, {"image": "nowhere.png", "value": "rough"}, [])
    assert "nowhere.png" in labeller.problem
    os.unlink(archive.path(1))
    assert Labeller(session)._picture("a1.png") == ""
