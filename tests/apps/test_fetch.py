"""Fetching, against a stand-in for the hub and the drive on the loopback interface."""

import functools
import io
import json
import os
import struct
import sys
import threading
import zipfile
from dataclasses import replace

import pytest

from fetch_stand_in import FILES, Server, jpg, listing, patternnet, stand_in, zipped
from rscir_lib.apps.commands import fetch
from rscir_lib.encoders import ENCODERS


@pytest.fixture
def server(monkeypatch, tmp_path):
    """Hub and drive on a thread."""
    with Server() as server:
        threading.Thread(target=functools.partial(server.serve_forever, 0.02), daemon=True).start()
        stand_in(server, monkeypatch)
        yield server
        server.shutdown()


def test_everything_is_fetched_once(server, tmp_path, monkeypatch, capsys):
    fetch.fetch(tmp_path / "PatternNet")
    root = tmp_path / "PatternNet"
    assert sorted(p.relative_to(root).as_posix() for p in root.glob("images/*/*")) == sorted(FILES)
    assert (root / "models" / "CLIP-ViT-L-14.bin").stat().st_size == 102
    assert (root / "models" / "RemoteCLIP-ViT-L-14.pt").stat().st_size == 202
    assert capsys.readouterr().out.count("complete in") == 3
    server.asked.clear()
    fetch.fetch(root)
    assert server.asked == []


def test_only_the_named_steps(server, tmp_path, monkeypatch, capsys):
    fetch.fetch(tmp_path, ["models"])
    assert [p.name for p in tmp_path.glob("[!.]*")] == ["models"]
    with pytest.raises(ValueError, match="'model'; there are images, patterncom, models"):
        fetch.fetch(tmp_path, ["model"])


def test_uc_merced_comes_from_the_hub_and_its_labels_by_hand(server, tmp_path, monkeypatch):
    names = [f"{cls}{i:02}" for cls in ("beach", "harbor") for i in range(4)]
    packed = zipped({f"UCMerced_LandUse/Images/{name[:-2]}/{name}.tif": b"II*" + bytes(100) for name in names})
    server.files[f"/datasets/torchgeo/ucmerced/resolve/{fetch.UCM.hub[2]}/UCMerced_LandUse.zip"] = packed
    monkeypatch.setattr(fetch, "UCM", replace(fetch.UCM, least=50))
    monkeypatch.setattr(fetch, "UCM_IMAGES", (2, 4))
    with pytest.raises(FileNotFoundError, match=r"by hand: multilabels\.tsv: .*Chaudhuri.*captions\.json: .*Qu et al"):
        fetch.fetch(tmp_path, ["ucm"])
    assert sorted(path.stem for path in tmp_path.glob("images/*/*.tif")) == names
    rows = [f"{name}\t{int(name[-1] < '2')}" for name in names]
    (tmp_path / "multilabels.tsv").write_text("\n".join(["image\tcars", *rows]))
    (tmp_path / "captions.json").write_text(json.dumps({name: ["A place ."] for name in names}))
    server.asked.clear()
    fetch.fetch(tmp_path, ["ucm"])
    assert server.asked == []
    (tmp_path / "images" / "beach" / "beach00.tif").rename(tmp_path / "images" / "harbor" / "more.tif")
    with pytest.raises(ValueError, match="is not UC Merced, 2 classes of 4 images"):
        fetch.fetch_ucm(tmp_path)


def test_a_broken_download_goes_on_where_it_stopped(server, tmp_path):
    whole = server.files[f"/drive/{fetch.CLIP.drive}"] = b"PK" + bytes(range(250)) * 4000
    server.cut = [700_000]
    with pytest.raises(FileNotFoundError, match=r"CLIP-ViT-L-14\.bin could not be fetched.*incomplete"):
        fetch.fetch_models(tmp_path)
    assert not (tmp_path / "models" / "CLIP-ViT-L-14.bin").exists()
    fetch.fetch_models(tmp_path)
    assert (f"/drive/{fetch.CLIP.drive}", "bytes=524288-") in server.asked  # gdown keeps whole chunks
    assert (tmp_path / "models" / "CLIP-ViT-L-14.bin").read_bytes() == whole


def test_a_download_killed_when_all_was_there_but_its_name(server, tmp_path):
    whole = server.files[f"/drive/{fetch.CLIP.drive}"]
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "CLIP-ViT-L-14.binabcdefgh.part").write_bytes(whole)
    fetch.fetch_models(tmp_path)
    assert (tmp_path / "models" / "CLIP-ViT-L-14.bin").read_bytes() == whole
    assert not list(tmp_path.rglob("*.part"))


def test_the_hub_steps_in_for_the_drive(server, tmp_path):
    del server.files[server.remoteclip]
    server.files["/chendelong/RemoteCLIP/resolve/main/RemoteCLIP-ViT-L-14.pt"] = b"PK" + bytes(300)
    fetch.fetch_models(tmp_path)
    assert (tmp_path / "models" / "RemoteCLIP-ViT-L-14.pt").stat().st_size == 302


@pytest.mark.parametrize("content", [None, b"<!DOCTYPE html> quota exceeded" + bytes(100), b"PK"])
def test_failure_says_what_to_put_where(server, tmp_path, content):
    if content is None:
        del server.files[server.remoteclip]
    else:
        server.files[server.remoteclip] = content
    with pytest.raises(FileNotFoundError) as failure:
        fetch.fetch_models(tmp_path)
    message = str(failure.value)
    for part in (
        f"Google Drive id {fetch.REMOTECLIP.drive}",
        "RemoteCLIP-ViT-L-14.pt of the Hugging Face model chendelong/RemoteCLIP",
        f"at {tmp_path / 'models' / 'RemoteCLIP-ViT-L-14.pt'}",
    ):
        assert part in message
    assert {b"PK": "2 bytes", None: "404"}.get(content, "a web page") in message
    server.files[server.remoteclip] = b"PK" + bytes(200)
    fetch.fetch_models(tmp_path)


def test_failed_zip_and_folder_say_what_to_put_where(server, tmp_path):
    del server.files[server.zip], server.files[f"/drive/{fetch.PATTERNCOM_ID}/shape"]
    with pytest.raises(FileNotFoundError, match=r"put PatternNet\.zip of .*torchgeo/PatternNet at .*downloads"):
        fetch.fetch_images(tmp_path)
    with pytest.raises(FileNotFoundError, match=rf"shape\.csv of the Google Drive folder {fetch.PATTERNCOM_ID}"):
        fetch.fetch_patterncom(tmp_path)


def test_interrupted_unpacking_goes_on(server, tmp_path):
    fetch.fetch_images(tmp_path)
    torn, gone = tmp_path / FILES[0], tmp_path / FILES[-1]
    torn.write_bytes(torn.read_bytes()[:100])
    gone.unlink()
    fetch.fetch_images(tmp_path)
    assert torn.read_bytes() == gone.read_bytes() == jpg()


@pytest.mark.parametrize("name", ["../../evil.jpg", "/evil.jpg", "images/../evil.jpg", "a/../../../evil.jpg"])
def test_no_member_leaves_the_folder(server, tmp_path, name):
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
    fetch.unzip_images(packed, tmp_path / "images", most_growth=10**6)
    assert (tmp_path / "images" / "beach" / "a.jpg").stat().st_size == 10**6


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


def test_further_checkpoints(server, tmp_path, monkeypatch):
    for sources in fetch.FURTHER.values():
        for row, source in enumerate(sources):
            sources[row] = replace(source, least=50)
            file = source.inside or source.path.removeprefix("models/")
            server.files[f"/{source.hub[0]}/resolve/main/{file}"] = b"PK" + bytes(100 + row)
    fetch.fetch(tmp_path, ["remoteclip", "georsclip"])
    for name in ("remoteclip", "georsclip"):
        for architecture in ENCODERS[name].models:
            file = tmp_path / "models" / ENCODERS[name].file.format(architecture=architecture)
            assert file.exists() or (name, architecture) == ("remoteclip", "ViT-L-14")  # the paper's


def test_a_zip_that_points_before_its_start(tmp_path):
    packed = tmp_path / "a.zip"
    with zipfile.ZipFile(packed, "w") as file:
        file.writestr("images/beach/beach000.jpg", bytes(100))
    whole = packed.read_bytes()
    packed.write_bytes(whole[40:])  # so that the place of its member is negative
    with pytest.raises((ValueError, OSError), match=r"a\.zip (is damaged|to .*what is unpacked stays)"):
        fetch.unzip_images(packed, tmp_path / "images")


def test_damaged_zip(server, tmp_path):
    whole = server.files[server.zip]
    server.files[server.zip] = whole[: len(whole) // 2]
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
def test_wrong_images(server, tmp_path, change, problem):
    server.files[server.zip] = patternnet(**change)
    with pytest.raises(ValueError, match=problem):
        fetch.fetch_images(tmp_path)


def test_wrong_listing_labels_and_their_images(server, tmp_path, monkeypatch):
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


def test_missing_package_names_the_extra(server, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gdown", None)
    with pytest.raises(ImportError, match=r"\.\[fetch\]"):
        fetch.fetch_models(tmp_path)
