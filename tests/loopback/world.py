"""The world on the loopback interface: the model hub, its CDN, Google Drive and plain web servers, under their names.

`World` is a proxy: clients are led to it by the variables of `World.environment`, ask for `https://huggingface.co/...`
as ever, and every line of theirs runs as it is, TLS included. What the servers say was read from the clients' sources
(huggingface_hub 2.4, gdown 6.5, open_clip 3.3) and from pages that people have saved. `World.faults` breaks the next
answers.
"""

import gzip
import hashlib
import html
import json
import ssl
import subprocess
import threading
import time
import urllib.parse
from collections import deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub.utils

HUBS = ("huggingface.co", "hf-mirror.com")
HOSTS = (
    *HUBS,
    "cdn-lfs.hf.co",
    "drive.google.com",
    "drive.usercontent.google.com",
    "*.s3.us-west-2.amazonaws.com",
    "*.azureedge.net",
)
COMMIT = "0123456789abcdef0123456789abcdef01234567"
LFS = (".bin", ".pt", ".safetensors", ".zip", ".model")  # kept by digest, answered through the CDN
CONFIRM_FROM = 1000  # bytes from which Drive shows its page about viruses; really 100 MB
PAGE = "<!DOCTYPE html><html><head><title>{title}</title></head><body>{body}</body></html>"
QUOTA = PAGE.format(
    title="Google Drive - Quota exceeded",
    body='<p class="uc-error-caption">Sorry, you can&#39;t view or download this file at this time.</p>'
    '<p class="uc-error-subcaption">Too many users have viewed or downloaded this file recently. Please try again '
    "later.</p>",
)


@dataclass
class Fault:
    """What goes wrong with one answer that has a file's bytes: `kind`, and where in its bytes."""

    kind: str  # cut, stall, status, page, no length, endless, packed, whole, moved, longer, shorter
    at: int = 0  # bytes sent before it, or the status
    headers: dict[str, str] = field(default_factory=dict)


class World(ThreadingHTTPServer):
    """hub: (repository, "model" or "dataset") -> path -> bytes; drive: id -> (name, bytes); web: address -> bytes."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, folder: Path):
        super().__init__(("127.0.0.1", 0), Handler)
        self.hub: dict[tuple[str, str], dict[str, bytes]] = {}
        self.drive: dict[str, tuple[str, bytes]] = {}
        self.folders: dict[str, list[tuple[str, str]]] = {}  # Drive's: id -> (id, name) of what lies in it
        self.web: dict[str, bytes] = {}
        self.gated: set[str] = set()  # repositories
        self.over_quota: set[str] = set()  # Drive ids
        self.faults: deque[Fault] = deque()
        self.asked: list[tuple[str, str, dict[str, str]]] = []  # method, address, headers
        self.sent = 0  # bytes of files
        self.released = threading.Event()  # ends every stall
        self.certificate, key = certificate(folder)
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(self.certificate, key)

    def __enter__(self):
        huggingface_hub.utils.close_session()  # of this process: it would go on to a world before this one
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *error):
        huggingface_hub.utils.close_session()
        self.released.set()
        self.shutdown()
        self.server_close()

    @property
    def environment(self) -> dict[str, str]:
        """What leads requests, httpx and urllib here."""
        address, trusted = f"http://127.0.0.1:{self.server_address[1]}", str(self.certificate)
        proxies = dict.fromkeys(("HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy"), address)
        return proxies | {"SSL_CERT_FILE": trusted, "REQUESTS_CA_BUNDLE": trusted, "NO_PROXY": "", "no_proxy": ""}

    def handle_error(self, request, client_address):
        """One who stopped listening is no error."""

    def addresses(self, part: str = "") -> list[str]:
        return [f"{method} {address}" for method, address, _ in self.asked if part in address]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60
    host = ""

    def do_CONNECT(self):
        self.host = self.path.partition(":")[0]
        self.send_response(200)
        self.end_headers()
        self.connection = self.server.tls.wrap_socket(self.connection, server_side=True)
        self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb", buffering=0)
        self.close_connection = False

    def finish(self):
        super().finish()
        self.connection.close()  # wrapped, it isn't the one that the server closes

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        address = f"https://{self.host}{self.path}" if self.host else self.path
        self.server.asked.append((self.command, address, dict(self.headers)))
        parts = urllib.parse.urlsplit(address)
        query = dict(urllib.parse.parse_qsl(parts.query))
        path = urllib.parse.unquote(parts.path)
        if parts.hostname in HUBS:
            return self.hub(path, query, parts)
        if parts.hostname == "cdn-lfs.hf.co":
            found = [
                b for files in self.server.hub.values() for b in files.values() if digest(b) == path.split("/")[-1]
            ]
            return self.file(found[0], {}) if found else self.say(403, "the signature is over")
        if parts.hostname == "drive.google.com":
            return self.drive(path, query)
        if parts.hostname == "drive.usercontent.google.com":
            return self.drive_file(query)
        content = self.server.web.get(address)
        return self.say(404, "no such key") if content is None else self.file(content, {"ETag": f'"{digest(content)}"'})

    # the hub

    def hub(self, path, query, parts):
        kind = "dataset" if path.startswith(("/datasets/", "/api/datasets/")) else "model"
        inner = path.removeprefix("/api").removeprefix("/models").removeprefix("/datasets").strip("/").split("/")
        repository, rest = "/".join(inner[:2]), inner[2:]
        files = self.server.hub.get((repository, kind))
        if files is None:  # the hub doesn't say whether there is a private one
            return self.say(401, "Invalid username or password.", {"X-Error-Code": "RepoNotFound"})
        if repository in self.server.gated and "Authorization" not in self.headers and rest[:1] == ["resolve"]:
            message = f"Access to model {repository} is restricted. You must have access to it and be authenticated."
            return self.say(401, message, {"X-Error-Code": "GatedRepo", "X-Error-Message": message})
        if rest[:1] in (["revision"], []) and path.startswith("/api"):
            return self.say(200, json.dumps(self.listing(repository, files, "blobs" in query)), {}, "application/json")
        if rest[:1] == ["tree"]:
            entries = [entry(name, content) for name, content in files.items()]
            return self.say(200, json.dumps(entries), {}, "application/json")
        revision, name = rest[1] if len(rest) > 1 else "", "/".join(rest[2:])
        if revision not in ("main", COMMIT) and revision not in self.server.hub.get(("revisions", repository), {}):
            return self.say(404, "Invalid rev id", {"X-Error-Code": "RevisionNotFound"})
        if name not in files:
            return self.say(404, "Entry not found", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        content = files[name]
        commit = COMMIT if revision == "main" else revision
        headers = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if not name.endswith(LFS):
            return self.file(content, headers | {"ETag": f'"{git(content)}"'})
        linked = {"X-Linked-Size": str(len(content)), "X-Linked-ETag": f'"{digest(content)}"'}
        place = (
            f"https://cdn-lfs.hf.co/repos/ab/cd/{digest(content)}?response-content-disposition=inline&Signature=x~y__"
        )
        return self.say(302, f"Found. Redirecting to {place}", headers | linked | {"Location": place})

    @staticmethod
    def listing(repository, files, blobs):
        siblings = []
        for name, content in files.items():
            facts = {"size": len(content), "blobId": git(content)}
            if name.endswith(LFS):
                facts["lfs"] = {"sha256": digest(content), "size": len(content), "pointerSize": 134}
            siblings.append({"rfilename": name} | (facts if blobs else {}))
        made = {"_id": "1", "id": repository, "sha": COMMIT, "private": False, "gated": False, "siblings": siblings}
        return made | {"cardData": {"license": "mit"}, "tags": ["license:mit"], "downloads": 1, "likes": 1}

    # Drive

    def drive(self, path, query):
        if path == "/embeddedfolderview":
            inside = self.server.folders.get(query.get("id", ""))
            if inside is None:
                return self.say(404, PAGE.format(title="Error 404 (Not Found)!!1", body="404"), {}, "text/html")
            entries = "".join(
                f'<div class="flip-entry" id="entry-{key}"><div class="flip-entry-info"><a href="https://drive.google.com'
                f'/file/d/{key}/view?usp=drive_web" target="_blank"><div class="flip-entry-title">{html.escape(name)}'
                "</div></a></div></div>"
                for key, name in inside
            )
            return self.say(200, PAGE.format(title="PatternCom", body=entries), {}, "text/html; charset=utf-8")
        if path != "/uc":
            return self.say(404, PAGE.format(title="Not Found", body=""), {}, "text/html")
        query = urllib.parse.urlencode({"id": query.get("id", ""), "export": "download"})
        place = f"https://drive.usercontent.google.com/download?{query}"
        return self.say(
            303, "", {"Location": place, "Set-Cookie": "NID=511=abc; path=/; domain=.google.com"}, "text/html"
        )

    def drive_file(self, query):
        key = query.get("id", "")
        if key in self.server.over_quota:
            return self.say(200, QUOTA, {}, "text/html; charset=utf-8")
        if key not in self.server.drive:
            return self.say(404, PAGE.format(title="Error 404 (Not Found)!!1", body="404"), {}, "text/html")
        name, content = self.server.drive[key]
        if len(content) >= CONFIRM_FROM and query.get("confirm") != "t":
            form = "".join(
                f'<input type="hidden" name="{k}" value="{v}">'
                for k, v in {"id": key, "export": "download", "confirm": "t", "uuid": "5b0f-11"}.items()
            )
            page = (
                '<p class="uc-warning-caption">Google Drive can&#39;t scan this file for viruses.</p><form '
                'id="download-form" action="https://drive.usercontent.google.com/download" method="get"><input '
                f'type="submit" id="uc-download-link" value="Download anyway"/>{form}</form>'
            )
            return self.say(
                200, PAGE.format(title="Google Drive - Virus scan warning", body=page), {}, "text/html; charset=utf-8"
            )
        disposition = f"attachment; filename=\"{name}\"; filename*=UTF-8''{urllib.parse.quote(name)}"
        modified = {"Last-Modified": "Fri, 01 Mar 2024 10:00:00 GMT"}
        return self.file(content, modified | {"Content-Disposition": disposition})

    # answers

    def say(self, status, text, headers=None, kind="text/plain"):
        body = text.encode()
        self.send_response(status)
        for key, value in {"Content-Type": kind, "Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def file(self, content, headers):
        """The bytes that were asked for, with the next fault."""
        fault = self.server.faults.popleft() if self.server.faults and self.command == "GET" else Fault("none")
        if fault.kind == "status":
            return self.say(fault.at, "not now", fault.headers)
        if fault.kind == "page":
            return self.say(200, PAGE.format(title="Sign in to the network", body="Welcome"), {}, "text/html")
        start, total = 0, len(content)
        asked = self.headers.get("Range", "")
        ranged = asked.startswith("bytes=") and fault.kind != "whole"
        if ranged:
            start = int(asked[6:].split("-")[0])
            if start >= total:
                return self.say(416, "", {"Content-Range": f"bytes */{total}"})
            start = max(0, start - 3) if fault.kind == "moved" else start
        body = content[start:]
        if fault.kind == "longer":
            body += b"and more"
        if fault.kind == "shorter":
            body = body[: fault.at]
        self.send_response(206 if ranged else 200)
        headers = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes"} | headers
        if fault.kind == "packed":
            body = gzip.compress(body)
            headers["Content-Encoding"] = "gzip"
        if ranged:
            headers["Content-Range"] = f"bytes {start}-{total - 1}/{total}"
        if fault.kind in ("no length", "endless"):
            headers["Connection"] = "close"
        else:
            headers["Content-Length"] = str(len(body))
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "GET":
            return None
        if fault.kind in ("no length", "cut", "stall"):
            body = body[: fault.at] if fault.kind != "no length" or fault.at else body
        for place in range(0, len(body), 2**16):
            self.wfile.write(body[place : place + 2**16])
            self.server.sent += len(body[place : place + 2**16])
            if fault.kind == "slow":
                time.sleep(fault.at / 1000)
        if fault.kind == "stall":
            self.server.released.wait(60)
        if fault.kind in ("cut", "stall", "no length"):
            self.close_connection = True
        return None

    def log_message(self, *args):
        pass


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def git(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def entry(name: str, content: bytes) -> dict:
    made = {"type": "file", "oid": git(content), "size": len(content), "path": name}
    return made | (
        {"lfs": {"oid": digest(content), "size": len(content), "pointerSize": 134}} if name.endswith(LFS) else {}
    )


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate of all hosts that vouches for itself, and its key."""
    made, key = folder / "loopback.pem", folder / "loopback.key"
    names = ",".join(f"DNS:{host}" for host in HOSTS)
    options = f"-subj /CN=loopback -addext subjectAltName={names} -addext basicConstraints=critical,CA:TRUE"
    command = f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 {options}"
    command += " -addext keyUsage=critical,keyCertSign,digitalSignature"
    subprocess.run([*command.split(), "-keyout", str(key), "-out", str(made)], check=True, capture_output=True)
    return made, key
