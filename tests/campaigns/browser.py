"""The explorer in a real browser that nobody sees: for measurements, tests and the picture in the README.

python tests/campaigns/browser.py figures/explorer.png figures/labelling.png    # the bundled run's widgets
"""

import asyncio
import json
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from rscir_lib.apps import labelling
from rscir_lib.apps.explorer.opening import prepared
from rscir_lib.apps.explorer.server import leave_one_core, listen
from rscir_lib.apps.explorer.session import Explorer
from rscir_lib.apps.labelling import Labeller, Session, propose
from rscir_lib.runs import open_run

if TYPE_CHECKING:
    from playwright.sync_api import Browser

OPTIONS = (
    "--no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-component-update "
    "--disable-sync"
).split()


def find_browser() -> str | None:
    """Path of a Chromium on this machine."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@contextmanager
def browser() -> Iterator["Browser"]:
    """A Chromium that Playwright drives. Raises RuntimeError saying what to install where there is none."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise RuntimeError("playwright is missing; pip install playwright") from None
    if not (path := find_browser()):
        raise RuntimeError("no Chromium on this machine; install one (Debian: apt install chromium)")
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=path, args=OPTIONS)
        yield found
        found.close()


@contextmanager
def served(explorer: Explorer) -> Iterator[str]:
    """The explorer's server in a thread of its own: its address."""

    async def begin() -> tuple:
        return listen(explorer, 0)

    async def end() -> None:
        server.stop()
        with suppress(TimeoutError):  # a browser that keeps its connection would wait for an answer forever
            await asyncio.wait_for(server.close_all_connections(), 5)

    leave_one_core()
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    server, port = asyncio.run_coroutine_threadsafe(begin(), loop).result(30)
    try:
        yield f"http://127.0.0.1:{port}/"
    finally:
        asyncio.run_coroutine_threadsafe(end(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def picture(explorer: Explorer, path: str | Path, width: int = 1200) -> Path:
    """A PNG of the explorer, so many pixels wide, as it opens."""
    query = explorer.queries.iloc[explorer.hello()["opening"]]
    file = explorer.archive.files[query["position"]]
    link = urlencode({"image": file, "words": query["text"], "lambda": 0.5, "top": 10})
    with served(explorer) as address, browser() as chromium:
        page = chromium.new_page(viewport={"width": width, "height": 800})
        page.goto(f"{address}#{link}")
        page.locator(".rscir[data-drawn]").wait_for()
        page.locator("polyline.curve").wait_for()  # the last to come
        page.locator(".thumbs img").last.wait_for()
        page.screenshot(path=path, full_page=True)
    return Path(path)


LABELLER = """<!doctype html><style>{css}</style><div id="place" style="padding: 12px"></div><script>
{script}
const model = {{ get: (name) => ({state})[name], on() {{}}, off() {{}}, send() {{}} }};
render({{ model, el: document.getElementById("place") }});</script>"""


def labelling_picture(explorer: Explorer, path: str | Path, width: int = 540) -> Path:
    """A PNG of the labelling widget as notebook 08 begins with it."""
    values = ["smooth", "rough"]
    with TemporaryDirectory() as folder:
        session = Session(explorer.archive, values, Path(folder) / "me.csv", propose(
            explorer.feats, explorer.encoder.encode_texts, {value: value for value in values}))  # fmt: skip
        widget = Labeller(session, f"ground of {explorer.archive.name}, by me")
        state = {name: getattr(widget, name) for name in ("title", "values", "queue", "counts", "left", "problem")}
        session.close()
    code = Path(labelling.__file__).parent
    script = (code / "labeller.js").read_text().replace("export default { render };", "")
    with browser() as chromium:
        page = chromium.new_page(viewport={"width": width, "height": 500})
        css = (code / "labeller.css").read_text()
        page.set_content(LABELLER.format(css=css, script=script, state=json.dumps(state)))
        page.locator("#place img").wait_for()
        page.screenshot(path=path, full_page=True)
    return Path(path)


if __name__ == "__main__":
    bundled = Explorer.of(prepared(open_run()))
    print(picture(bundled, sys.argv[1]), *(labelling_picture(bundled, path) for path in sys.argv[2:]))
