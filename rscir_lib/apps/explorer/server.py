"""The explorer as a web page of this machine: one process, one encoder, any number of visitors.

It answers the page's three files and the questions of session.py; no other address. No path of a visitor ever reaches
the disk; images are asked for by their position in the archive.
"""

import asyncio
import json
import os
import sys
import webbrowser
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch
import tornado.httpserver
import tornado.netutil
import tornado.web

from rscir_lib.apps.explorer.page import page_files
from rscir_lib.apps.explorer.session import Explorer

LARGEST = 96 * 2**20  # bytes of a question, an uploaded picture of 64 MB in base64 included
TYPES = {"": "text/html", "explorer.css": "text/css", "explorer.js": "text/javascript"}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' blob: data:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class _Handler(tornado.web.RequestHandler):
    def initialize(self, explorer: Explorer, files: dict[str, str], pool: ThreadPoolExecutor) -> None:
        self.explorer, self.files, self.pool = explorer, files, pool

    def prepare(self) -> None:
        # another site's page in the same browser must not ask: not by a name that it points here, not by a form
        host, origin = self.request.host, self.request.headers.get("Origin", "")
        if host.rsplit(":", 1)[0] not in ("127.0.0.1", "localhost") or origin not in ("", f"http://{host}"):
            raise tornado.web.HTTPError(403)

    def set_default_headers(self) -> None:
        for name, value in HEADERS.items():
            self.set_header(name, value)
        self.clear_header("Server")

    def get(self, name: str) -> None:
        if name not in TYPES:
            raise tornado.web.HTTPError(404)
        self.set_header("Content-Type", f"{TYPES[name]}; charset=utf-8")
        self.finish(self.files[name or "index.html"])

    async def post(self, name: str) -> None:
        try:
            question = json.loads(self.request.body)
        except ValueError:
            question = None
        if name != "ask" or not isinstance(question, dict):
            raise tornado.web.HTTPError(400)
        # off the loop, so that one visitor's long question does not hold up the others
        self.finish(await asyncio.get_running_loop().run_in_executor(self.pool, self.explorer.answer, question))


def listen(explorer: Explorer, port: int) -> tuple[tornado.httpserver.HTTPServer, int]:
    """A server on loopback, in the event loop that runs, and its port; 0 takes a free one."""
    given = {"explorer": explorer, "files": page_files(explorer.title, "http.js"), "pool": ThreadPoolExecutor(4)}
    application = tornado.web.Application([("/(.*)", _Handler, given)], log_function=lambda handler: None)
    server = tornado.httpserver.HTTPServer(application, max_buffer_size=LARGEST)
    sockets = tornado.netutil.bind_sockets(port, "127.0.0.1")
    server.add_sockets(sockets)
    return server, sockets[0].getsockname()[1]


@contextmanager
def one_core_left() -> Iterator[None]:
    """Meanwhile torch leaves one core alone: the browser draws on this machine too, and threads that wait for a core
    take ten times as long as one fewer."""
    before = torch.get_num_threads()
    torch.set_num_threads(min(before, max(1, (os.cpu_count() or 1) - 1)))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def serve(explorer: Explorer, port: int) -> None:
    """Serve on loopback until interrupted, and show the page where a person is there to see it."""

    async def forever() -> None:
        _, taken = listen(explorer, port)
        address = f"http://127.0.0.1:{taken}/"
        print(f"the explorer is at {address} (Ctrl+C ends it)", flush=True)
        if sys.stdout.isatty() and (os.name != "posix" or sys.platform == "darwin" or os.environ.get("DISPLAY")):
            webbrowser.open(address)
        await asyncio.Event().wait()

    with one_core_left():
        asyncio.run(forever())
