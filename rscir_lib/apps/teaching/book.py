"""The workbook as a web site: its notebooks as they ran, its pages, its API, into `runs/book`.

Sphinx makes it, from a mirror of the project, so that a link that works in the repository works in the book. Nothing on
a page comes from elsewhere: equations are MathML, which browsers draw themselves, and the search is a script beside it.
"""

import html
import io
import json
import os
import pkgutil
import shutil
from functools import partial
from pathlib import Path

import nbformat
from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util.display import progress_message

import rscir_lib
from rscir_lib.apps.commands import workbook
from rscir_lib.apps.explorer import Explorer
from rscir_lib.apps.explorer.page import write_page
from rscir_lib.runs import RunConfig, open_run
from rscir_lib.storage.atomic import write_text
from rscir_lib.storage.locks import folder_lock
from rscir_lib.storage.project import ROOT

PAGES = ROOT / "notebooks" / "book"  # with conf.py, which Sphinx reads, and contents.txt, what comes after what
PLACES = "LICENSE CITATION.cff CONTRIBUTING.md CHANGELOG.md figures data/README.md data/whucom/README.md".split()
PLACES += "data/demo_encoder/README.md data/demo_encoder/loss.png data/published notebooks/book".split()
# what a widget looks like, below the cell that shows it; a page has no kernel
WIDGETS = {
    "Widget(explorer": "![The explorer on the bundled run](../figures/explorer.png)",
    "Labeller(session": "![The labelling widget on the bundled run](../figures/labelling.png)",
}
LIVE = '<a href="../explorer/index.html">Open the explorer of this run</a>, as a page that needs no kernel.'
LARGEST = 5000  # images of such a page: 5 kB each
MOVING = {"application/vnd.jupyter.widget-view+json"}  # needs a kernel


def mirror(source: Path, executed: Path, live: bool = False) -> None:
    """Copies the book's sources to the empty folder `source`, at the places that they have in the project.

    The notebooks are those of `executed`, the `notebooks` folder of a run; live: whether its explorer lies beside them.
    """
    for place in PLACES:
        copy = shutil.copytree if (ROOT / place).is_dir() else shutil.copy
        (source / place).parent.mkdir(parents=True, exist_ok=True)
        copy(ROOT / place, source / place)
    pages = ROOT / "README.md", PAGES / "contents.txt"
    write_text(source / "index.md", "".join(path.read_text(encoding="utf-8") for path in pages))
    for path in executed.glob("[0-9]*.ipynb"):
        text = nbformat.writes(_readable(nbformat.read(path, as_version=4), live))
        for place, name in ((f"{ROOT}/", ""), (str(ROOT), "."), (str(Path.home()), "~")):  # no path of this machine
            text = text.replace(json.dumps(place)[1:-1], name)
        write_text(source / "notebooks" / path.name, text)
    (source / "api").mkdir()
    contents = "```{toctree}\n:maxdepth: 1\n:glob:\n\nrscir_lib.*\n```\n"
    write_text(source / "api" / "index.md", f"# rscir_lib\n\n{rscir_lib.__doc__}\n{contents}")
    for module in pkgutil.walk_packages(rscir_lib.__path__, "rscir_lib."):
        if module.name.endswith("__main__"):
            continue
        # of a package the docstring alone: the names that it gives are described where they lie
        directive = f".. automodule:: {module.name}\n" + "   :members:\n" * (not module.ispkg)
        text = f"# {module.name.removeprefix('rscir_lib.')}\n\n```{{eval-rst}}\n{directive}```\n"
        write_text(source / "api" / f"{module.name}.md", text)


def _readable(notebook: nbformat.NotebookNode, live: bool) -> nbformat.NotebookNode:
    """An executed notebook for readers: solutions folded up, pictures with their texts, nothing that needs a kernel."""
    notebook.metadata = {key: notebook.metadata[key] for key in ("kernelspec", "language_info")}
    notebook.cells = [cell for cell in notebook.cells if "injected-parameters" not in cell.metadata.get("tags", [])]
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        cell.metadata = {"tags": [*tags, "hide-input"] if "solution" in tags else tags}
        if cell.cell_type == "code":
            cell.outputs = [out for out in cell.outputs if not MOVING & set(out.get("data", {}))]
            pictures = [out.metadata.get("image/png", {}) for out in cell.outputs if "metadata" in out]
            if alts := [picture.alt for picture in pictures if "alt" in picture]:
                cell.metadata["mystnb"] = {"image": {"alt": " ".join(alts)}}
    for number, cell in reversed([*enumerate(notebook.cells)]):
        for widget, picture in WIDGETS.items():
            if cell.cell_type == "code" and widget in cell.source:
                text = f"{picture}\n\n{LIVE if live and widget.startswith('Widget') else ''}"
                notebook.cells.insert(number + 1, nbformat.v4.new_markdown_cell(text))
    return notebook


def build(source: Path, out: Path, work: Path) -> None:
    """Writes the site of a mirrored source to `out`; `work` keeps what a second build need not read again.

    Raises RuntimeError for any warning: a dead link, a docstring that can't be parsed, a missing picture.
    """
    warnings = io.StringIO()
    work.mkdir(parents=True, exist_ok=True)
    with progress_message("building the book"):
        places = source, PAGES, out, work / "doctrees"
        Sphinx(*places, "html", status=None, warning=warnings, parallel=os.cpu_count()).build()
    if text := warnings.getvalue().strip():
        raise RuntimeError(f"the book has warnings:\n{text}")


def setup(app: Sphinx) -> dict[str, bool]:
    """Makes this module an extension of Sphinx: equations, and what the search shows of a page."""
    inline, block = (partial(_equation, block=block) for block in (False, True))
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    app.connect("html-page-context", lambda app, page, *_: app.add_js_file("excerpts.js") if page == "search" else None)
    app.connect("build-finished", _write_excerpts)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _equation(writer: object, node: nodes.Element, block: bool) -> None:
    equation = tex2mathml(node.astext(), as_block=block)
    writer.body.append(f'<div class="equation">{equation}</div>' if block else equation)
    raise nodes.SkipNode


def _write_excerpts(app: Sphinx, error: Exception | None) -> None:
    """Writes the text of every page into a script, from which the search page takes what it shows of each: Sphinx's own
    way is to fetch the page, which browsers refuse where a site lies on the disk."""
    if error:
        return
    texts = {}
    for name in app.env.found_docs:
        document = app.env.get_doctree(name)
        for node in list(document.findall(lambda node: isinstance(node, nodes.raw | nodes.comment))):
            node.parent.remove(node)
        texts[f"./{app.builder.get_target_uri(name)}"] = f'<div role="main">{html.escape(document.astext())}</div>'
    answer = "globalThis.fetch = async (page) => ({ text: async () => texts[page] });"
    write_text(app.outdir / "_static" / "excerpts.js", f"{{ const texts = {json.dumps(texts)}; {answer} }}\n")


def write_book(given: dict[str, str]) -> Path:
    """Writes the book of a run, whose notebooks run where they do not stand already; returns its folder."""
    plan = workbook.resolve_parameters(workbook.select_notebooks([]), given)
    workbook.run_plan(plan)
    book, work = ROOT / "runs" / "book", ROOT / "runs" / ".book"
    own = next(parameters for notebook, parameters in plan.items() if notebook.stem.startswith("07"))
    run = open_run(**{name: value for name, value in own.items() if name in RunConfig.model_fields})
    live = run.has_benchmark and len(run.whole_archive) <= LARGEST
    with folder_lock(work):  # another command may be at it
        shutil.rmtree(work / "source", ignore_errors=True)
        shutil.rmtree(book, ignore_errors=True)
        mirror(work / "source", run.folder / "notebooks", live)
        if live:
            write_page(Explorer.of(run), book / "explorer")
        build(work / "source", book, work)
    return book
