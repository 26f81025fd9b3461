"""The explorer as a web page of this machine: one process, one encoder, any number of visitors.

It answers the page, its scripts, its style, and the questions of session.py; no other address. No path of a
visitor ever reaches the disk; images are asked for by their position in the archive.
"""

import asyncio
import functools
import html
import json
import logging
import struct
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import torch
import tornado.httpserver
import tornado.netutil
import tornado.web

from rscir_lib.apps.explorer.modules import SCRIPTS
from rscir_lib.apps.explorer.session import Explorer

HERE = Path(__file__).parent
LARGEST = 64 * 2**20  # bytes of a question, an uploaded picture included
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>{title}</title><link rel="icon" href="data:,">
<link rel="stylesheet" href="explorer.css"><style>body{{margin:0}}</style></head>
<body><main id="explorer" data-start="{start}"></main><script type="module" src="http.js"></script></body></html>
"""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' blob: data:; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
logger = logging.getLogger(__name__)


def pack(head: dict, buffers: list[bytes]) -> bytes:
    """Length of the head, the head as JSON with the buffers' lengths, the buffers."""
    text = json.dumps(head | {"lengths": [len(buffer) for buffer in buffers]}).encode()
    return b"".join([struct.pack("<I", len(text)), text, *buffers])


def unpack(data: bytes) -> tuple[dict, list[bytes]]:
    """The head and the buffers of `pack`. Raises ValueError where the lengths don't fit the data."""
    if len(data) < 4:
        raise ValueError("the question is empty")
    start = 4 + struct.unpack_from("<I", data)[0]
    head = json.loads(data[4:start])
    if not isinstance(head, dict):
        raise ValueError("the question is no object")
    buffers = []
    for length in head.pop("lengths", []):
        if not isinstance(length, int) or not 0 <= length <= len(data) - start:
            raise ValueError("the question was cut short")
        buffers.append(data[start : start + length])
        start += length
    return head, buffers


class _Handler(tornado.web.RequestHandler):
    def prepare(self) -> None:
        # another site's page in the same browser must not ask: not by a name that it points here, not by a form
        host, origin = self.request.host, self.request.headers.get("Origin", "")
        if host.rsplit(":", 1)[0] not in ("127.0.0.1", "localhost") or origin not in ("", f"http://{host}"):
            raise tornado.web.HTTPError(403)

    def set_default_headers(self) -> None:
        self.set_header("Content-Security-Policy", POLICY)
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Referrer-Policy", "no-referrer")
        self.set_header("Cache-Control", "no-store")
        self.clear_header("Server")

    def log_exception(self, typ: type, value: BaseException, tb: object) -> None:
        if not isinstance(value, tornado.web.HTTPError):
            logger.error("%s: %s", self.request.path, value, exc_info=value)


class _Fixed(_Handler):
    def initialize(self, kind: str, content: bytes) -> None:
        self.kind, self.content = kind, content

    def get(self) -> None:
        self.set_header("Content-Type", f"{self.kind}; charset=utf-8")
        self.finish(self.content)


class _Ask(_Handler):
    def initialize(self, explorer: Explorer, pool: ThreadPoolExecutor) -> None:
        self.explorer, self.pool = explorer, pool

    async def post(self) -> None:
        try:
            question, buffers = unpack(self.request.body)
        except (ValueError, UnicodeDecodeError) as error:
            raise tornado.web.HTTPError(400) from error
        # off the loop, so that one visitor's long question does not hold up the others
        answer = functools.partial(self.explorer.answer, question, buffers)
        head, found = await asyncio.get_running_loop().run_in_executor(self.pool, answer)
        self.set_header("Content-Type", "application/octet-stream")
        self.finish(pack(head, found))


def application(explorer: Explorer, start: dict | None = None) -> tornado.web.Application:
    """The server. start: the query that a visitor without a link sees: image (position), words, lambda."""
    page = PAGE.format(title=html.escape(explorer.title), start=html.escape(json.dumps(start or {})))
    fixed = {
        "/": ("text/html", page.encode()),
        "/explorer.css": ("text/css", (HERE / "explorer.css").read_bytes()),
    }
    fixed |= {f"/{name}": ("text/javascript", (HERE / name).read_bytes()) for name in SCRIPTS}
    routes = [(path, _Fixed, {"kind": kind, "content": content}) for path, (kind, content) in fixed.items()]
    asks = {"explorer": explorer, "pool": ThreadPoolExecutor(4)}
    return tornado.web.Application([*routes, ("/ask", _Ask, asks)], log_function=lambda handler: None)


def listen(explorer: Explorer, start: dict | None, port: int) -> tuple[tornado.httpserver.HTTPServer, int]:
    """A server on loopback, in the event loop that runs, and its port; 0 takes a free one."""
    server = tornado.httpserver.HTTPServer(application(explorer, start), max_buffer_size=LARGEST)
    sockets = tornado.netutil.bind_sockets(port, "127.0.0.1")
    server.add_sockets(sockets)
    return server, sockets[0].getsockname()[1]


_servers: list[int] = []  # for each that runs, the threads that torch had before the first
_servers_lock = threading.Lock()


@contextmanager
def one_core_left() -> Iterator[None]:
    """Meanwhile torch leaves one core alone, however many servers run: the browser draws on this machine too, and
    threads that wait for a core take ten times as long as one fewer."""
    with _servers_lock:
        _servers.append(_servers[0] if _servers else torch.get_num_threads())
        torch.set_num_threads(max(1, _servers[0] - 1))
    try:
        yield
    finally:
        with _servers_lock:
            threads = _servers.pop()
            if not _servers:
                torch.set_num_threads(threads)


def serve(explorer: Explorer, start: dict | None = None, port: int = 8866, ready=print) -> None:
    """Serve on loopback until interrupted; port 0 takes a free one. `ready` is called with the address."""

    async def forever() -> None:
        _, taken = listen(explorer, start, port)
        ready(f"http://127.0.0.1:{taken}/")
        await asyncio.Event().wait()

    with one_core_left():
        asyncio.run(forever())
