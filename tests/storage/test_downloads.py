"""Downloads against the hub, its CDN, Drive and plain servers on the loopback interface, cut and killed anywhere."""

import gzip
import hashlib
import io
import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests

from loopback.world import QUOTA, Fault, World, digest
from rscir_lib.storage import downloads
from rscir_lib.storage.downloads import TRIES, NotFetched, download

pytestmark = pytest.mark.slow  # real clients against a server on loopback
HUB = "https://huggingface.co/chendelong/RemoteCLIP/resolve/main/RemoteCLIP-RN50.pt"
DRIVE = "https://drive.google.com/uc?id=1F9Kk7PZXhkv1KkCN0CCrctE5nnS1DmUv&export=download"
CONTENT = random.Random(0).randbytes(700_001)
SIZE, SHA256 = len(CONTENT), digest(CONTENT)


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    with World(tmp_path_factory.mktemp("world")) as world:
        yield world


@pytest.fixture
def world(started, monkeypatch):
    for key, value in started.environment.items():
        monkeypatch.setenv(key, value)
    started.hub = {("chendelong/RemoteCLIP", "model"): {"RemoteCLIP-RN50.pt": CONTENT}}
    started.drive = {"1F9Kk7PZXhkv1KkCN0CCrctE5nnS1DmUv": ("RemoteCLIP-RN50.pt", CONTENT)}
    for kept in (started.gated, started.over_quota, started.faults, started.asked):
        kept.clear()
    started.sent = 0
    return started


def fetched(folder, *addresses, size=SIZE, sha256=SHA256, **options):
    target = folder / "RN50.pt"
    options = {"timeout": 0.5, "pause": 0.001} | options
    assert download(target, addresses, size, sha256, **options) == SHA256
    assert target.read_bytes() == CONTENT
    assert [path.name for path in folder.iterdir() if path.suffix == ".part"] == []
    return target


@pytest.mark.parametrize("address", [HUB, DRIVE])
@pytest.mark.parametrize("facts", [{}, {"size": None, "sha256": None}])
def test_whole(world, tmp_path, address, facts):
    fetched(tmp_path, address, **facts)
    assert world.sent == SIZE


@pytest.mark.parametrize("address", [HUB, DRIVE])
@pytest.mark.parametrize("facts", [{}, {"size": None, "sha256": None}])
@pytest.mark.parametrize(
    "faults",
    [
        [Fault("cut", 300_000), Fault("cut", 1), Fault("cut", 0)],
        [Fault("stall", 400_000)],
        [Fault("cut", 500_000), Fault("whole")],  # a server that knows no ranges any more
        [Fault("cut", 500_000), Fault("moved")],
        [Fault("status", 503), Fault("status", 429, {"Retry-After": "0"}), Fault("cut", 10), Fault("status", 504)],
        [Fault("cut", 5000), Fault("status", 429, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"})],
        [Fault("shorter", 600_000)],
    ],
    ids=lambda faults: "+".join(fault.kind for fault in faults),
)
def test_goes_on(world, tmp_path, address, facts, faults):
    if faults[-1].kind == "shorter" and not facts:
        faults = []  # its length, which is wrong, is refused where the right one is known
    elif faults[-1].kind == "shorter":
        pytest.skip("a shorter file is whole where nobody knows better")
    world.faults.extend(faults)
    fetched(tmp_path, address, **facts)
    assert not world.faults


def test_asks_for_what_is_missing_only(world, tmp_path):
    world.faults.extend(Fault("cut", 2**17) for _ in range(5))
    fetched(tmp_path, HUB)
    assert world.sent == SIZE
    ranges = [headers.get("Range") for method, address, headers in world.asked if "cdn-lfs" in address]
    assert ranges == [None, *(f"bytes={start}-" for start in range(2**17, SIZE, 2**17))]


def test_a_page_that_is_followed_gets_no_authorization(world, tmp_path, monkeypatch):
    asked = []

    def get(self, address, headers=None, **_):
        asked.append((address, dict(headers or {})))
        response = requests.Response()
        response.status_code, response.raw = 200, io.BytesIO(b'<form id="download-form" action="https://x.org/get">')
        response.headers["Content-Type"] = "text/html"
        return response

    monkeypatch.setattr(requests.Session, "get", get)
    with pytest.raises(NotFetched):
        fetched(tmp_path, HUB, headers={"Authorization": "Bearer hf_x"})
    assert len(asked) > 1
    assert asked[0][1] == {"Authorization": "Bearer hf_x"}
    assert not any("Authorization" in headers for address, headers in asked if "x.org" in address)


def test_authorization_stays_with_the_hub(world, tmp_path):
    world.gated.add("chendelong/RemoteCLIP")
    with pytest.raises(NotFetched, match=r"agree to terms: do so at https://huggingface.co/chendelong/RemoteCLIP,"):
        fetched(tmp_path, HUB)
    world.asked.clear()
    fetched(tmp_path, HUB, headers={"Authorization": "Bearer hf_x"})
    assert {address.split("/")[2]: "Authorization" in headers for _, address, headers in world.asked} == {
        "huggingface.co": True,
        "cdn-lfs.hf.co": False,
    }
    world.asked.clear()
    fetched(tmp_path, HUB.replace("RN50", "RN51"), DRIVE, headers={"Authorization": "Bearer hf_x"})
    assert {address.split("/")[2] for _, address, headers in world.asked if "Authorization" in headers} == {
        "huggingface.co"
    }


@pytest.mark.parametrize(
    ("faults", "facts", "said"),
    [
        ([Fault("stall", 0)] * TRIES, {}, f"sent nothing for 0.2 seconds, {TRIES} times without a new byte"),
        ([Fault("cut", 0)] * TRIES, {}, "sent 0 of 700001 bytes|broke the connection off"),
        ([Fault("status", 500)] * TRIES, {}, f"answered 500 .*, {TRIES} times"),
        ([Fault("status", 429, {"Retry-After": "86400"})], {}, "asks to wait for 21600 seconds or more"),
        ([Fault("page")], {}, r"answered with a web page \('Sign in to the network'\) and not with a file"),
        ([Fault("packed")], {}, r"answers packed \(gzip\)"),
        ([Fault("no length")], {"size": None, "sha256": None}, "doesn't say how many bytes it has"),
        ([Fault("no length", 1000)], {"size": None, "sha256": None}, "doesn't say how many bytes it has"),
        ([], {"size": SIZE - 1}, "has 700001 bytes, expected 700000"),
        ([], {"sha256": "0" * 64}, f"gave 700001 bytes with sha256 {SHA256}, expected 0000"),
        ([Fault("longer")], {}, "has 700009 bytes, expected 700001"),
    ],
)
def test_refuses(world, tmp_path, faults, facts, said):
    world.faults.extend(faults)
    with pytest.raises(NotFetched, match=said):
        fetched(tmp_path, HUB, timeout=0.2, **facts)
    assert not (tmp_path / "RN50.pt").exists()
    assert not world.faults
    fetched(tmp_path, HUB)  # and what that left behind is in nobody's way


def test_no_length_but_a_digest(world, tmp_path):
    world.faults.extend([Fault("no length", 1000), Fault("no length")])
    fetched(tmp_path, HUB)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        (HUB.replace("RN50", "RN51"), r"has no such file \(404"),
        (HUB.replace("main", "v2"), r"has no such revision \(404"),
        (HUB.replace("chendelong", "nobody"), "answered 401"),
        (DRIVE.replace("id=1F9", "id=2F9"), "answered 404"),
        ("https://x.azureedge.net/x.pt", "answered 404"),
    ],
)
def test_the_next_address(world, tmp_path, address, said):
    with pytest.raises(NotFetched, match=said):
        fetched(tmp_path, address)
    fetched(tmp_path, address, DRIVE)


def test_over_quota(world, tmp_path):
    world.over_quota.add("1F9Kk7PZXhkv1KkCN0CCrctE5nnS1DmUv")
    assert "Quota exceeded" in QUOTA
    with pytest.raises(NotFetched, match="over Google's limit for today: try again tomorrow, or open it in a browser"):
        fetched(tmp_path, DRIVE)
    fetched(tmp_path, DRIVE, HUB)


def test_no_network(tmp_path):
    start = time.monotonic()
    with pytest.raises(NotFetched, match="can't be reached: its name isn't known here, as on a machine"):
        download(tmp_path / "a", ["https://nowhere.invalid/a"])
    assert time.monotonic() - start < 10


def test_a_part_that_is_spoilt(world, tmp_path):
    part = tmp_path / f"RN50.pt.{SHA256[:8]}.part"
    part.write_bytes(bytes(1000))  # as after a power cut
    fetched(tmp_path, HUB)
    part.write_bytes(CONTENT + b"and more")
    fetched(tmp_path, HUB)
    part.write_bytes(CONTENT)
    world.sent = 0
    fetched(tmp_path, HUB)
    assert world.sent == 0


def test_a_whole_part_of_unknown_length(world, tmp_path):
    (tmp_path / f"RN50.pt.{hashlib.sha256(DRIVE.encode()).hexdigest()[:8]}.part").write_bytes(CONTENT)
    fetched(tmp_path, DRIVE, size=None, sha256=None)
    assert world.sent == 0


def test_full_disk(world, tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match="no room for the 700,001 bytes to come"):
        fetched(tmp_path, HUB)


KILLED = f"""
import sys
from pathlib import Path
from rscir_lib.storage.downloads import download
print(download(Path(sys.argv[1]), sys.argv[2:3], {SIZE}, "{SHA256}", timeout=5, pause=0.001), flush=True)
"""


def killed_at_random(world, folder, kills, seed=0):
    """A download in processes that are killed wherever they are, over connections that are cut; how many of each."""
    draw, target, counts = random.Random(seed), folder / "RN50.pt", {"files": 0, "killed": 0, "cut": 0, "sent": 0}
    while counts["killed"] < kills:
        world.faults.clear()
        cuts = draw.choices([Fault("cut", draw.randrange(SIZE // 4)), Fault("slow", draw.choice([5, 20]))], k=3)
        world.faults.extend(cuts)
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(target), draw.choice([HUB, DRIVE])],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=os.environ | world.environment, text=True,
        )  # fmt: skip
        asked, sent = len(world.asked), world.sent
        limit = sent + draw.randrange(1, SIZE // 2)
        while process.poll() is None and not (len(world.asked) > asked and world.sent >= limit):
            time.sleep(0.0005)
        counts["cut"] += 3 - len(world.faults)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            counts["killed"] += 1
        process.communicate()
        if process.returncode == 0:
            counts["files"] += 1
            assert target.read_bytes() == CONTENT
            target.unlink()
        else:
            assert not target.exists()
    counts["sent"] = world.sent
    return counts


def test_killed_anywhere(world, tmp_path, capsys):
    counts = killed_at_random(world, tmp_path, kills=int(os.environ.get("RSCIR_KILLS", "6")))
    fetched(tmp_path, HUB)
    with capsys.disabled():
        print(f"\ndownloads: {counts}; every file equal")


def test_cut_anywhere(world, tmp_path, capsys):
    draw, files, faults = random.Random(1), int(os.environ.get("RSCIR_CUTS", "20")), 0
    for _ in range(files):
        kinds = draw.choices(
            ["cut", "stall", "moved", "whole", "status"], weights=[20, 1, 2, 2, 2], k=draw.randrange(1, 9)
        )
        world.faults.clear()
        world.faults.extend(Fault(kind, 503 if kind == "status" else draw.randrange(SIZE // 3)) for kind in kinds)
        fetched(tmp_path, draw.choice([HUB, DRIVE]), timeout=0.1).unlink()
        faults += len(kinds) - len(world.faults)
    with capsys.disabled():
        print(f"\ndownloads: {files} files over {faults} faults, {files * SIZE:,} bytes compared, 0 different")


class Mean(BaseHTTPRequestHandler):
    """Answers as no good server does: 300 MB of page in some kB, a page without end, a byte now and then."""

    def do_GET(self):
        self.send_response(200)
        if self.path == "/packed":
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Type", "application/x" if self.path == "/trickles" else "text/html")
        self.send_header("Content-Length", str(10**6 if self.path == "/trickles" else 2**40))
        self.end_headers()
        with suppress(OSError):
            while True:
                self.wfile.write(
                    {"/packed": gzip.compress(bytes(2**20)), "/endless": bytes(2**16)}.get(self.path, b"a")
                )
                time.sleep(0.01 if self.path == "/trickles" else 0)

    def log_message(self, *words):
        pass


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("packed", "answers packed"),
        ("endless", "with a page of more than 1,000,000 bytes"),
        ("trickles", "sends fewer than .* bytes a second"),
    ],
)
def test_a_server_that_means_no_good_is_left(tmp_path, monkeypatch, path, said):
    monkeypatch.setattr(downloads, "SLOWEST", 1)
    monkeypatch.setattr(downloads, "LARGEST_PAGE", 1_000_000)
    with ThreadingHTTPServer(("127.0.0.1", 0), Mean) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        began = time.monotonic()
        with pytest.raises((NotFetched, OSError), match=said):
            download(tmp_path / "a", [f"http://127.0.0.1:{server.server_port}/{path}"], timeout=5, pause=0.001)
        server.shutdown()
    assert time.monotonic() - began < 60
    assert not (tmp_path / "a").exists()
