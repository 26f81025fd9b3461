"""The book: built without a warning, no link dead, nothing loaded from elsewhere, readable on a telephone."""

import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import nbformat
import pytest

from rscir_lib.apps.commands import workbook
from rscir_lib.apps.teaching import book

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNkYAAAAAYAAjCB0C8AAAAASUVORK5CYII="


class Page(HTMLParser):
    """Where a page leads (`links`), what it loads (`loads`), the ids in it, and its pictures' alternative texts."""

    def __init__(self, path: Path):
        super().__init__()
        self.links, self.loads, self.ids, self.alts = [], [], set(), {}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.ids.update(value for name in ("id", "name") if (value := found.get(name)))
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
        elif tag == "link" and found.get("rel") not in ("author", "copyright"):
            self.loads.append(found["href"])
        if tag == "img":
            self.alts[found["src"]] = found.get("alt")
        if tag != "a" and found.get("src"):
            self.loads.append(found["src"])


@pytest.fixture(scope="module")
def site(tmp_path_factory, long_to_make):
    """The book of the committed notebooks, which hold few outputs; one gets a figure with an alternative text."""
    folder = tmp_path_factory.mktemp("book")
    shutil.copytree(workbook.NOTEBOOKS, folder / "executed")
    path = folder / "executed" / "03_baselines.ipynb"
    notebook = nbformat.read(path, as_version=4)
    told = {"image/png": {"alt": "A picture <of> one pixel."}}
    notebook.cells[-2:-2] = [
        nbformat.v4.new_code_cell(
            "2", outputs=[nbformat.v4.new_output("stream", text=f"{book.ROOT}/runs/a of {book.ROOT}, {Path.home()}/b")]
        ),
        nbformat.v4.new_code_cell(
            "1", outputs=[nbformat.v4.new_output("display_data", {"image/png": PNG}, metadata=told)]
        ),
    ]
    nbformat.write(notebook, path)
    (folder / "source").mkdir()
    book.mirror(folder / "source", folder / "executed", live=True)
    (folder / "site" / "explorer").mkdir(parents=True)
    (folder / "site" / "explorer" / "index.html").write_text("<html lang=en><title>its page</title></html>")
    book.build(folder / "source", folder / "site", folder / "work")
    return folder / "site"


@pytest.fixture(scope="module")
def pages(site):
    return {path: Page(path) for path in site.rglob("*.html") if "_static" not in path.parts}


def test_every_page_is_there(site):
    for path in workbook.NOTEBOOKS.glob("[0-9]*.ipynb"):
        assert (site / "notebooks" / f"{path.stem}.html").is_file()
    for path in book.PAGES.glob("*.md"):
        assert (site / "notebooks" / "book" / f"{path.stem}.html").is_file()
    api = (site / "api" / "rscir_lib.evaluation.evaluate.html").read_text(encoding="utf-8")
    assert 'id="rscir_lib.evaluation.evaluate.evaluate"' in api
    assert "searchindex.js" in (site / "search.html").read_text(encoding="utf-8")


def test_pages_are_listed_in_reading_order():
    contents = (book.PAGES / "contents.txt").read_text(encoding="utf-8")
    reading = re.findall(r"^notebooks/book/(.+)$", contents, re.MULTILINE)
    assert sorted(reading) == sorted(path.stem for path in book.PAGES.glob("*.md"))
    assert reading[0] == "protocol"


def test_widgets_are_seen_without_a_kernel(site):
    explorer = (site / "notebooks" / "07_explorer.html").read_text(encoding="utf-8")
    assert 'alt="The explorer on the bundled run"' in explorer
    assert 'href="../explorer/index.html"' in explorer
    labelling = (site / "notebooks" / "08_labelling.html").read_text(encoding="utf-8")
    assert 'alt="The labelling widget on the bundled run"' in labelling


def test_no_link_is_dead(pages):
    for path, page in pages.items():
        for link in page.links + page.loads:
            target, anchor = urldefrag(link)
            if urlsplit(target).scheme:
                continue
            place = (path.parent / unquote(urlsplit(target).path)).resolve() if target else path
            assert place.is_file(), f"{path.name} leads to {link}"
            if anchor and place.suffix == ".html":
                assert unquote(anchor) in pages[place].ids, f"{path.name} leads to {link}"


def test_no_page_tells_a_path_of_this_machine(site):
    places = (str(book.ROOT), str(Path.home()))
    for path in site.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        assert not [place for place in places if f"{place}/" in text or f"{place}&#" in text or f"{place}<" in text], (
            path
        )


def test_nothing_is_loaded_from_elsewhere(site, pages):
    for path, page in pages.items():
        assert not [load for load in page.loads if urlsplit(load).scheme not in ("", "data")], path
    for path in site.rglob("*.css"):
        assert not re.findall(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//[^)]*", path.read_text(encoding="utf-8")), path


def test_pictures_are_described_and_equations_are_drawn(site, pages):
    alts = pages[site / "notebooks" / "03_baselines.html"].alts
    assert "A picture <of> one pixel." in alts.values()
    assert all(pages[site / "index.html"].alts.values())
    protocol = (site / "notebooks" / "book" / "protocol.html").read_text(encoding="utf-8")
    assert "<math" in protocol
    assert "\\mathrm" not in protocol


@pytest.mark.slow
def test_a_warning_stops_it(tmp_path):
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "index.md").write_text("# A page\n\n[nowhere](not_there.md)\n")
    with pytest.raises(RuntimeError, match=r"not_there\.md"):
        book.build(tmp_path / "source", tmp_path / "site", tmp_path / "work")


def test_in_a_browser(site, pages, visit):
    """No page is wider than a telephone, keys are enough, and the search finds."""
    page = visit(site.as_uri() + "/index.html", viewport={"width": 400, "height": 800})
    for path in pages:
        page.goto(path.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= 400, path.name
    page.goto((site / "index.html").as_uri())
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent").strip() == "Skip to main content"
    page.keyboard.press("Control+k")
    page.keyboard.type("lambda")
    page.keyboard.press("Enter")
    # results come one after the other: on a busy machine the first is there long before the others
    page.wait_for_function("document.querySelectorAll('#search-results li .context').length > 10")
    excerpts = page.locator("#search-results li .context").all_text_contents()
    assert all("lambda" in excerpt.lower() for excerpt in excerpts)


def test_every_promise_has_its_tests():
    """What trust.md names is there: files of tests, tests, and make's targets."""
    page = (book.ROOT / "notebooks" / "book" / "trust.md").read_text(encoding="utf-8")
    tests = {path.name: path.read_text(encoding="utf-8") for path in Path(__file__).parents[1].rglob("*.py")}
    functions = set(re.findall(r"^def (test_\w+)", "\n".join(tests.values()), re.MULTILINE))
    makefile = (book.ROOT / "Makefile").read_text(encoding="utf-8")
    targets = {f"make {target}" for target in re.findall(r"^([a-z-]+):", makefile, re.MULTILINE)}
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| ")]
    for promise, *_, where in [row for row in rows if row[0] not in ("promise", "what went wrong", "---")]:
        named = [name.removeprefix("tests/") for name in re.findall(r"`([^`]+)`", where)]
        assert named, promise
        assert set(named) <= tests.keys() | functions | targets, promise
