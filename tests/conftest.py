"""What holds for every test: its kind, who runs it, fixtures (optional real data, a browser, JupyterLab)."""

import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

# threads that wait sleep: tests share the cores with browsers, kernels and each other, and with threads that spin
# instead an operation waits for a core each time. Before torch is imported; kernels inherit it
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
if "PYTEST_XDIST_WORKER" in os.environ:  # the cores are taken by the other workers
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis
import pytest

# the library is imported by the fixtures that need it: the process that hands out the tests runs none
ROOT = Path(__file__).parents[1]
sys.modules.setdefault("rfc3987_syntax", None)  # jsonschema builds its grammars for a second, to check no address here

# how many random examples, for 100 that a test asks for by `helpers.examples`: --hypothesis-profile=fast
for profile, number in {"fast": 15, "default": 100, "full": 1000}.items():
    hypothesis.settings.register_profile(profile, max_examples=number, deadline=None)

# the long ones first, or one worker would be left with them when the other has nothing to do
FIRST = ("long", "notebook", "browser", "campaign", "slow")
KINDS_BY_FIXTURE = {"chromium": "browser", "kernel": "notebook", "slow_to_make": "slow", "long_to_make": "long"}


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """A file is one worker's, for what its tests share; so are all notebooks in their place, which fill one folder.

    Not by pytest-xdist's own groups: 3.8 writes them where pytest 9.2 no longer looks.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.split("::")[0]
            return "notebooks" if file.endswith(".ipynb") else file

    return ByFile(config, log)


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test by what it is and uses; see FIRST."""
    for item in items:
        if item.path.suffix == ".ipynb":  # nbval's: they write into one folder, in this order
            item.add_marker(pytest.mark.notebook)
            continue
        if "campaigns" in item.path.parts:
            item.add_marker(pytest.mark.campaign)
            item.add_marker(pytest.mark.timeout(1200, method="thread"))  # they use SIGALRM themselves
        for fixture, kind in KINDS_BY_FIXTURE.items():
            if fixture in item.fixturenames:
                item.add_marker(getattr(pytest.mark, kind))

    def turn(item: pytest.Item) -> int:
        names = {mark.name for mark in item.iter_markers()}
        kind = next((i for i, name in enumerate(FIRST) if name in names), len(FIRST))
        return -1 if item.path.suffix == ".ipynb" else kind

    items.sort(key=turn)


@pytest.fixture(scope="session")
def kernel() -> None:
    """Asked for by whatever starts the kernel of a notebook: each takes seconds to import what it needs."""


@pytest.fixture(scope="session")
def slow_to_make() -> None:
    """Asked for by a fixture that takes half a second of a processor or more: its tests are slow."""


@pytest.fixture(scope="session")
def long_to_make() -> None:
    """Asked for by a fixture that takes more than half a minute of a processor: its tests are long."""


def optional_data(variable: str, what: str) -> Path:
    """A folder of optional real data; the test skips, and says why, where it is absent."""
    folder = os.environ.get(variable, "")
    if not folder or not Path(folder).is_dir():
        pytest.skip(f"{variable} names no folder: set it to {what} to run this test")
    return Path(folder)


@pytest.fixture(scope="session")
def ucm_root() -> Path:
    return optional_data("RSCIR_UCM_ROOT", "the UC Merced archive (images/, multilabels.tsv, captions.json)")


@pytest.fixture(scope="session")
def whu_root() -> Path:
    return optional_data("RSCIR_WHU_ROOT", "a folder of stored WHU-RS19 features (<model>_<architecture>.npz)")


@pytest.fixture(scope="module")
def chromium():
    """A browser, in one module at a time: its event loop stands in the way of another's."""
    from browser import browser, find_browser

    if find_browser() is None:
        pytest.skip("no Chromium or Chrome on the PATH to open the page with")
    with browser() as found:
        yield found


@pytest.fixture
def visit(chromium):
    """visit(address, **options of a browser context) -> page. An error on the console of any of them, and a request
    that leaves this machine, fail the test at its end."""
    contexts, errors, asked = [], [], []

    def visited(address: str, **options: object):
        contexts.append(chromium.new_context(**{"viewport": {"width": 1300, "height": 900}} | options))
        page = contexts[-1].new_page()
        page.set_default_timeout(60_000)  # a machine may have other things to do
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address, timeout=120_000)
        return page

    yield visited
    for context in contexts:
        context.close()
    assert errors == []
    local = re.compile(r"(https?|ws)://(127\.0\.0\.1|localhost)[:/]|file:|blob:|data:")
    assert [url for url in asked if not local.match(url)] == []


class Lab:
    """JupyterLab on loopback, which shows `folder`."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.root = folder, f"http://127.0.0.1:{port}"

    def address(self, notebook: str, **parameters: object) -> str:
        """Where a notebook of the workbook is opened with these parameters."""
        import papermill

        name = f"{notebook}.ipynb"
        papermill.execute_notebook(
            str(ROOT / "notebooks" / name), str(self.folder / name), parameters, prepare_only=True
        )
        return f"{self.root}/lab/tree/{name}"

    def run_all(self, page) -> None:
        """Run all cells of the notebook that the page shows, and wait for the last: it takes the focus when done."""
        page.get_by_text("Python 3 (ipykernel) | Idle").wait_for(timeout=120_000)  # or it asks for a kernel
        page.locator(".lm-MenuBar-itemLabel", has_text=re.compile("^Run$")).click()
        page.locator(".lm-Menu-itemLabel", has_text=re.compile("^Run All Cells$")).click()
        running = "[...document.querySelectorAll('.jp-InputPrompt')].some(prompt => prompt.textContent.includes('*'))"
        page.wait_for_function(running, timeout=60_000)
        page.wait_for_function(f"!{running}", timeout=300_000)


@pytest.fixture(scope="module")
def lab(chromium, tmp_path_factory):
    folder = tmp_path_factory.mktemp("lab")
    (folder / "notebooks").mkdir()
    settings = folder / "settings" / "@jupyterlab" / "notebook-extension" / "tracker.jupyterlab-settings"
    settings.parent.mkdir(parents=True)
    settings.write_text('{"windowingMode": "none"}')  # every cell on the page, also those out of sight
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        lab = Lab(folder / "notebooks", free.getsockname()[1])
    command = [
        sys.executable, "-m", "jupyterlab", f"--port={lab.root.split(':')[-1]}", "--ip=127.0.0.1", "--no-browser",
        "--allow-root", "--IdentityProvider.token=", f"--ServerApp.root_dir={lab.folder}", "--LabApp.news_url=",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]  # fmt: skip
    own = {"JUPYTER_CONFIG_DIR": str(folder / "config"), "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
           "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"), "PYTHONPATH": str(ROOT)}  # fmt: skip
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, env=os.environ | own, **quiet) as server:
        try:
            for _ in range(240):
                try:
                    urllib.request.urlopen(f"{lab.root}/api", timeout=1)
                    break
                except OSError:
                    time.sleep(0.5)
            yield lab
        finally:
            server.terminate()
            server.wait()


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    """The hub, its CDN and Drive on the loopback interface, for the tests of a module."""
    from loopback.world import World  # which makes a certificate, and few tests need it

    with World(tmp_path_factory.mktemp("world")) as world:
        yield world
