"""Fetching, from the hub and the drive on the loopback interface."""

import io
import json
import os
import struct
import zipfile
from dataclasses import replace

import pytest

from fetch_stand_in import FILES, jpg, listing, patternnet, stand_in, zip_of_images, zipped
from loopback.world import Fault, digest
from rscir_lib.apps.commands import fetch
from rscir_lib.encoders import hub
from rscir_lib.storage import downloads
from rscir_lib.storage.downloads import NotFetched

pytestmark = pytest.mark.slow  # real clients against a server on loopback


@pytest.fixture
def world(started, monkeypatch, tmp_path_factory):
    """Hub and drive as they are, for a fresh machine."""
    for kept in (started.hub, started.folders, started.over_quota, started.faults, started.asked):
        kept.clear()
    stand_in(started, monkeypatch, tmp_path_factory.mktemp("home"))
    return started


def run(root=None, *steps, **options):
    fetch.fetch(root, steps or fetch.PATTERNNET, **options)


def test_everything_is_fetched_once(world, tmp_path, monkeypatch, capsys):
    run(tmp_path / "PatternNet")
    root = tmp_path / "PatternNet"
    assert sorted(p.relative_to(root).as_posix() for p in root.glob("images/*/*")) == sorted(FILES)
    assert hub.published_as("clip").place.stat().st_size == 2002
    assert hub.published_as("remoteclip").place.stat().st_size == 3002
    assert capsys.readouterr().out.count("complete in") == 3
    assert not (root / "models").exists()
    world.asked.clear()
    run(root)
    assert world.asked == []


def test_only_the_named_steps(world, tmp_path, monkeypatch, capsys):
    (tmp_path / "here" / "clip").mkdir(parents=True)  # of another kind, where the command is typed
    monkeypatch.chdir(tmp_path / "here")
    run(tmp_path, "models")
    assert hub.published_as("clip").place.is_file()
    assert [path.name for path in tmp_path.glob("[!.]*")] == ["here"]
    with pytest.raises(ValueError, match="nothing to fetch is called 'model'; there are images, patterncom, models"):
        run(tmp_path, "model")


def test_uc_merced_comes_from_the_hub_and_its_labels_by_hand(world, tmp_path, monkeypatch):
    names = [f"{cls}{i:02}" for cls in ("beach", "harbor") for i in range(4)]
    packed = zipped({f"UCMerced_LandUse/Images/{name[:-2]}/{name}.tif": b"II*" + bytes(100) for name in names})
    world.hub[fetch.UCM.repository, "dataset"] = {fetch.UCM.file: packed}
    world.hub["revisions", fetch.UCM.repository] = {fetch.UCM.revision: b""}
    monkeypatch.setattr(fetch, "UCM", replace(fetch.UCM, size=len(packed), sha256=digest(packed)))
    monkeypatch.setattr(fetch, "UCM_IMAGES", (2, 4))
    with pytest.raises(FileNotFoundError, match=r"by hand: multilabels\.tsv: .*Chaudhuri.*captions\.json: .*Qu et al"):
        run(tmp_path, "ucm")
    assert sorted(path.stem for path in tmp_path.glob("images/*/*.tif")) == names
    rows = [f"{name}\t{int(name[-1] < '2')}" for name in names]
    (tmp_path / "multilabels.tsv").write_text("\n".join(["image\tcars", *rows]))
    (tmp_path / "captions.json").write_text(json.dumps({name: ["A place ."] for name in names}))
    world.asked.clear()
    run(tmp_path, "ucm")
    assert world.asked == []
    (tmp_path / "images" / "beach" / "beach00.tif").rename(tmp_path / "images" / "harbor" / "more.tif")
    with pytest.raises(ValueError, match="is not UC Merced, 2 classes of 4 images"):
        fetch.fetch_ucm(tmp_path)


def test_a_broken_download_goes_on_where_it_stopped(world, tmp_path):
    whole = world.hub[fetch.IMAGES.repository, "dataset"][fetch.IMAGES.file]
    world.faults.extend([Fault("cut", 2**15), *(Fault("cut", 0) for _ in range(downloads.TRIES))])
    with pytest.raises(NotFetched, match=r"PatternNet\.zip could not be fetched.*torchgeo/PatternNet.*or put the file"):
        fetch.fetch_images(tmp_path)
    assert not (tmp_path / "downloads" / "PatternNet.zip").exists()
    world.sent = 0
    fetch.fetch_images(tmp_path)
    assert world.sent == len(whole) - 2**15
    assert (tmp_path / "downloads" / "PatternNet.zip").read_bytes() == whole


def test_the_drive_steps_in_for_the_hub(world, tmp_path):
    world.hub.clear()
    fetch.fetch_models(tmp_path)
    assert hub.published_as("remoteclip").place.stat().st_size == 3002


def test_weights_in_the_root_are_enough(world, tmp_path):
    (tmp_path / "models").mkdir()
    for name in ("CLIP-ViT-L-14.bin", "RemoteCLIP-ViT-L-14.pt"):
        (tmp_path / "models" / name).touch()
    fetch.fetch_models(tmp_path)
    assert world.asked == []


def test_a_file_that_the_drive_does_not_give(world, tmp_path):
    shape = next(key for key, name in world.folders[fetch.PATTERNCOM_ID] if name == "shape.csv")
    world.over_quota.add(shape)
    with pytest.raises(NotFetched, match=r"shape\.csv could not be fetched.*over Google's limit for today"):
        fetch.fetch_patterncom(tmp_path)
    del world.folders[fetch.PATTERNCOM_ID][0]
    with pytest.raises(NotFetched, match=rf"folder {fetch.PATTERNCOM_ID} shows no .*\.csv: open it in a browser"):
        fetch.fetch_patterncom(tmp_path / "again")


def test_an_encoder_by_its_name(world, tmp_path, monkeypatch, capsys):
    world.hub["owner/name", "model"] = {"open_clip_config.json": b"{}", "open_clip_model.safetensors": bytes(3000)}
    run(None, "hf-hub:owner/name", "remoteclip")
    said = capsys.readouterr().out
    assert "fetching 0 MB from https://huggingface.co/owner/name (licence: mit) to" in said
    assert f"remoteclip: complete in {hub.published_as('remoteclip').place}" in said
    with pytest.raises(ValueError, match="where shall images be fetched to"):
        run(None, "images")
    with pytest.raises(ValueError, match="unknown architecture of remoteclip: 'RN51'; one of"):
        run(None, "remoteclip", architecture="RN51")


def test_interrupted_unpacking_goes_on(world, tmp_path):
    fetch.fetch_images(tmp_path)
    torn, gone = tmp_path / FILES[0], tmp_path / FILES[-1]
    torn.write_bytes(torn.read_bytes()[:100])
    gone.unlink()
    fetch.fetch_images(tmp_path)
    assert torn.read_bytes() == gone.read_bytes() == jpg()


@pytest.mark.parametrize("name", ["../../evil.jpg", "/evil.jpg", "images/../evil.jpg", "a/../../../evil.jpg"])
def test_no_member_leaves_the_folder(world, tmp_path, name):
    packed = tmp_path / "a" / "b" / "evil.zip"
    packed.parent.mkdir(parents=True)
    packed.write_bytes(zipped({name: jpg()}))
    with pytest.raises(ValueError, match="leads out of its folder"):
        fetch.unzip_images(packed, packed.parent / "images")
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [packed]


def test_a_zip_that_grows_is_refused(tmp_path):
    packed = tmp_path / "bomb.zip"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("PatternNet/beach/a.jpg", bytes(10**6))
    with pytest.raises(ValueError, match=r"bomb\.zip would unpack to \d+ times its size, the limit is 10"):
        fetch.unzip_images(packed, tmp_path / "images")
    assert not (tmp_path / "images").exists()


def bomb(name, size):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(name, bytes(size))
    return data.getvalue()


def test_a_bomb_that_lies_about_its_size(tmp_path):
    packed, images = tmp_path / "bomb.zip", tmp_path / "images"
    size, said = 2**21, 1000
    packed.write_bytes(
        bomb("images/beach/beach001.jpg", size).replace(struct.pack("<I", size), struct.pack("<I", said))
    )
    with pytest.raises(ValueError, match="is damaged"):
        fetch.unzip_images(packed, images)
    assert list(images.rglob("*.jpg")) == []


def test_an_image_stands_whole_or_not_at_all(tmp_path, monkeypatch):
    packed, images = tmp_path / "a.zip", tmp_path / "images"
    packed.write_bytes(zipped({"images/beach/beach001.jpg": jpg()}))
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            fetch.unzip_images(packed, images)
    assert list(images.rglob("*.jpg")) == []
    fetch.unzip_images(packed, images)
    assert [path.name for path in images.rglob("*.*")] == ["beach001.jpg"]


def test_a_zip_that_points_before_its_start(tmp_path):
    packed = tmp_path / "a.zip"
    with zipfile.ZipFile(packed, "w") as file:
        file.writestr("images/beach/beach000.jpg", bytes(100))
    whole = packed.read_bytes()
    packed.write_bytes(whole[40:])  # so that the place of its member is negative
    with pytest.raises((ValueError, OSError), match=r"a\.zip (is damaged|to .*what is unpacked stays)"):
        fetch.unzip_images(packed, tmp_path / "images")


def test_damaged_zip(world, tmp_path, monkeypatch):
    whole = patternnet()
    zip_of_images(world, monkeypatch, whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="is damaged"):
        fetch.fetch_images(tmp_path)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"PatternNet/images/beach/beach005.jpg": jpg()}, "images per class beach 5/4"),
        ({"PatternNet/images/moon/moon001.jpg": jpg()}, "images per class moon 1/0"),
        ({"PatternNet/images/airplane/airplane001.jpg": jpg((200, 256))}, r"airplane001.jpg is \(200, 256\)"),
    ],
)
def test_wrong_images(world, tmp_path, monkeypatch, change, problem):
    zip_of_images(world, monkeypatch, patternnet(**change))
    with pytest.raises(ValueError, match=problem):
        fetch.fetch_images(tmp_path)


def test_wrong_listing_labels_and_their_images(world, tmp_path, monkeypatch):
    fetch.fetch_images(tmp_path)
    fetch.fetch_patterncom(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(fetch, "QUERIES", 21_000)
        with pytest.raises(ValueError, match="composed queries, not more than 21000"):
            fetch.fetch_patterncom(tmp_path)
    (tmp_path / FILES[5]).unlink()
    with pytest.raises(ValueError, match=f"1 listed images are not on disk, first {FILES[5]}"):
        fetch.fetch_patterncom(tmp_path)
    (tmp_path / "patternnet.csv").write_bytes(b"\n".join(listing().splitlines()[1:]))
    with pytest.raises(ValueError, match="does not list PatternNet's images"):
        fetch.fetch_patterncom(tmp_path)
