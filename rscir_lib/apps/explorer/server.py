"""The explorer as a web page of this machine: one process, one encoder, any number of visitors.

It answers the page's three files and the questions of session.py; no other address. No path of a visitor ever reaches
the disk; images are asked for by their position in the archive.
"""

import asyncio
import errno
import json
import os
import socket
import sys
import time
import webbrowser
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import torch
import tornado.httpserver
import tornado.web

from rscir_lib.apps.explorer.page import page_files
from rscir_lib.apps.explorer.session import Explorer

LARGEST = 96 * 2**20  # bytes of a question, an uploaded picture of 64 MB in base64 included
KEPT = 2**26  # bytes of replies that are remembered: three thousand of an archive of a thousand images
SLOW = ("upload", "rated")  # questions that may take seconds: answered one after the other, beside the others
TYPES = {"": "text/html", "explorer.css": "text/css", "explorer.js": "text/javascript"}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' blob: data:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class _Listener(socket.socket):
    """Where no file handle is left, it waits a moment. Tornado would try again at once, with a traceback each time."""

    def accept(self) -> tuple[socket.socket, Any]:
        try:
            return super().accept()
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                raise
            time.sleep(0.1)
            raise BlockingIOError from None


@tornado.web.stream_request_body  # or a body would be held in memory before anybody looks at whose it is
class _Handler(tornado.web.RequestHandler):
    def initialize(self, explorer: Explorer, files: dict[str, str], known: dict[bytes, bytes], **pools: Any) -> None:
        self.explorer, self.files, self.known, self.pools, self.body = explorer, files, known, pools, bytearray()

    def data_received(self, chunk: bytes) -> None:
        self.body += chunk

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
        if name != "ask":
            raise tornado.web.HTTPError(404)
        question: Any = None
        with suppress(ValueError, RecursionError):
            question = json.loads(self.body)
        question = question if isinstance(question, dict) else {}
        body, changed = bytes(self.body), self.explorer.thumbnails.changed
        reply = self.known.get(body)
        if reply is None or any(changed(image) for image in question["images"] if isinstance(image, int)):
            # off the loop, so that one visitor's long question does not hold up the others
            pool = self.pools["slow" if question.get("ask") in SLOW else "quick"]
            status, new, keep = await asyncio.get_running_loop().run_in_executor(pool, self.answered, question)
            self.set_status(status)
            if keep:  # people ask the same ones again
                self.known[body] = new
                while sum(map(len, self.known.values())) > KEPT:
                    del self.known[next(iter(self.known))]  # the oldest
            reply = new
        self.set_header("Content-Type", "application/json; charset=utf-8")
        self.finish(reply)

    def answered(self, question: dict[str, Any]) -> tuple[int, bytes, bool]:
        """Status and body of the reply, and whether it stays the same: that to a query does."""
        answer = self.explorer.answer(question)
        status = 400 if answer.pop("malformed", False) else 200
        return status, json.dumps(answer).encode(), "similarities" in answer


def listen(explorer: Explorer, port: int) -> tuple[tornado.httpserver.HTTPServer, int]:
    """A server on loopback, in the event loop that runs, and its port; 0 takes a free one."""
    files = page_files(explorer.title, "http.js")
    pools = {"quick": ThreadPoolExecutor(4), "slow": ThreadPoolExecutor(1)}
    given = {"explorer": explorer, "files": files, "known": {}, **pools}
    application = tornado.web.Application([("/(.*)", _Handler, given)], log_function=lambda handler: None)
    server = tornado.httpserver.HTTPServer(application, max_body_size=LARGEST)
    try:
        listener = _Listener(fileno=socket.create_server(("127.0.0.1", port), backlog=1024).detach())
    except OSError as error:
        advice = "choose another by --port, or 0 for any that is free"
        raise OSError(f"port {port} can't be served ({error.strerror}): {advice}") from None
    listener.setblocking(False)
    server.add_sockets([listener])
    return server, listener.getsockname()[1]


def leave_one_core() -> None:
    """Torch leaves one core to the browser from now on: with a thread for each core, both take ten times as long."""
    torch.set_num_threads(min(torch.get_num_threads(), max(1, (os.cpu_count() or 1) - 1)))


def serve(explorer: Explorer, port: int) -> None:
    """Serve on loopback until interrupted, and show the page where a person is there to see it."""

    async def forever() -> None:
        server, taken = listen(explorer, port)
        address = f"http://127.0.0.1:{taken}/"
        print(f"the explorer is at {address} (Ctrl+C ends it)", flush=True)
        if sys.stdout.isatty() and (os.name != "posix" or sys.platform == "darwin" or os.environ.get("DISPLAY")):
            webbrowser.open(address)
        try:
            await asyncio.Event().wait()
        finally:  # or whoever is waiting for an answer would get an error of the server's
            server.stop()
            await server.close_all_connections()

    leave_one_core()
    asyncio.run(forever())
