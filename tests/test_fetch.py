"""Fetching, against a stand-in for the hub and the drive on the loopback interface."""

import functools
import io
import itertools
import sys
import threading
import zipfile
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from PIL import Image

from rscir_lib import fetch
from rscir_lib.patterncom import ATTRIBUTES, CLASSES

gdown = pytest.importorskip("gdown", reason="the extra `fetch` is not installed")
hub = pytest.importorskip("huggingface_hub", reason="the extra `fetch` is not installed")

PER_CLASS = 4


def jpg(size=(256, 256)):
    data = io.BytesIO()
    Image.new("RGB", size, "green").save(data, "JPEG")
    return data.getvalue()


def zipped(members):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return data.getvalue()


def folder_of(cls):
    return {"golfcourse": "golf_course"}.get(cls, cls)  # folders may carry underscores


FILES = [f"images/{folder_of(c)}/{c}{i:03}.jpg" for c in sorted(CLASSES) for i in range(1, PER_CLASS + 1)]


def patternnet(**changes):
    others = {"PatternNet/patternnet_description.pdf": b"%PDF", "__MACOSX/images/beach/._beach001.jpg": b"?"}
    return zipped({f"PatternNet/{file}": jpg() for file in FILES} | others | changes)


def listing():
    lines = [f"{file} {i // PER_CLASS} {file.split('/')[1]}" for i, file in enumerate(FILES)]
    return "\n".join(lines).encode()


def labels(attribute):
    values = itertools.cycle(["one", "two"])
    return "\n".join(f"{Path(f).name},{attribute},{v}" for f, v in zip(FILES, values, strict=False)).encode()


class Server(ThreadingHTTPServer):
    """Serves `files`, path -> content; `cut` breaks the next answers off after that many bytes."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.cut, self.asked = {}, [], []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.server.asked.append((self.path, self.headers.get("Range")))
        self.answer(body=True)

    def answer(self, body):
        content = self.server.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        start = int(self.headers.get("Range", "bytes=0-")[6:].split("-")[0])
        self.send_response(206 if "Range" in self.headers else 200)
        if "Range" in self.headers:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", f'"{hash(content):x}"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.end_headers()
        if body:
            stop = self.server.cut.pop() if self.server.cut else len(content)
            self.wfile.write(content[start:stop])
            self.close_connection = True

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch, tmp_path):
    """Hub and drive, holding a PatternNet of 4 images a class."""
    with Server() as server:
        threading.Thread(target=functools.partial(server.serve_forever, 0.02), daemon=True).start()
        from_hub = functools.partial(hub.hf_hub_download, endpoint=server.url)
        monkeypatch.setattr(hub, "hf_hub_download", from_hub)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        real = gdown.download

        def download(id, output, **options):
            return real(url=f"{server.url}/drive/{id}", output=output, **options | {"retries": 0})

        def download_folder(id, output, **options):
            Path(output).mkdir(exist_ok=True)
            for attribute in ATTRIBUTES:
                download(f"{id}/{attribute}", f"{output}/{attribute}.csv", **options)

        monkeypatch.setattr(gdown, "download", download)
        monkeypatch.setattr(gdown, "download_folder", download_folder)
        monkeypatch.setattr(fetch, "IMAGES_PER_CLASS", PER_CLASS)
        monkeypatch.setattr(fetch, "QUERIES", 100)
        for name in ("IMAGES", "LISTING", "CLIP", "REMOTECLIP"):
            monkeypatch.setattr(fetch, name, replace(getattr(fetch, name), least=50))
        server.zip = f"/datasets/torchgeo/PatternNet/resolve/{fetch.IMAGES.hub[2]}/PatternNet.zip"
        server.remoteclip = f"/drive/{fetch.REMOTECLIP.drive}"
        server.files = {
            server.zip: patternnet(),
            f"/drive/{fetch.LISTING.drive}": listing(),
            f"/drive/{fetch.CLIP.drive}": b"PK" + bytes(100),
            server.remoteclip: b"PK" + bytes(200),
            **{f"/drive/{fetch.PATTERNCOM_ID}/{attribute}": labels(attribute) for attribute in ATTRIBUTES},
        }
        yield server
        server.shutdown()


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["fetch", *map(str, arguments)])
    fetch.main()


def test_everything_is_fetched_once(server, tmp_path, monkeypatch, capsys):
    run(monkeypatch, tmp_path / "PatternNet")
    root = tmp_path / "PatternNet"
    assert sorted(p.relative_to(root).as_posix() for p in root.glob("images/*/*")) == sorted(FILES)
    assert (root / "models" / "CLIP-ViT-L-14.bin").stat().st_size == 102
    assert (root / "models" / "RemoteCLIP-ViT-L-14.pt").stat().st_size == 202
    assert capsys.readouterr().out.count("complete in") == 3
    server.asked.clear()
    run(monkeypatch, root)
    assert server.asked == []


def test_only_the_named_steps(server, tmp_path, monkeypatch, capsys):
    run(monkeypatch, tmp_path, "--only", "models")
    assert [p.name for p in tmp_path.iterdir()] == ["models"]
    with pytest.raises(SystemExit):
        run(monkeypatch, tmp_path, "--only", "model")
    assert "images, patterncom, models" in capsys.readouterr().err


def test_a_broken_download_goes_on_where_it_stopped(server, tmp_path):
    whole = server.files[f"/drive/{fetch.CLIP.drive}"] = b"PK" + bytes(range(250)) * 4000
    server.cut = [700_000]
    with pytest.raises(FileNotFoundError, match=r"CLIP-ViT-L-14\.bin could not be fetched.*incomplete"):
        fetch.fetch_models(tmp_path)
    assert not (tmp_path / "models" / "CLIP-ViT-L-14.bin").exists()
    fetch.fetch_models(tmp_path)
    assert (f"/drive/{fetch.CLIP.drive}", "bytes=524288-") in server.asked  # gdown keeps whole chunks
    assert (tmp_path / "models" / "CLIP-ViT-L-14.bin").read_bytes() == whole


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
