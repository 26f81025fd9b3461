"""A stand-in for the hub and the drive on the loopback interface, holding a PatternNet of 4 images a class."""

import functools
import io
import itertools
import zipfile
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from PIL import Image

from rscir_lib.apps.commands import fetch
from rscir_lib.benchmarks.patterncom import ATTRIBUTES, CLASSES

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

    def handle_error(self, request, client_address):
        """One who stopped listening is no error."""


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


def stand_in(server, monkeypatch):
    """Make the server hub and drive, holding a PatternNet of 4 images a class."""
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
    monkeypatch.setattr(fetch, "FURTHER", {name: list(sources) for name, sources in fetch.FURTHER.items()})
    further = {name: functools.partial(fetch.fetch_further, sources) for name, sources in fetch.FURTHER.items()}
    monkeypatch.setattr(fetch, "STEPS", fetch.STEPS | further)
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
