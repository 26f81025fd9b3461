"""The workbook as a web site: its notebooks as they ran, its pages, its API, into `runs/book`.

    rscir book                       # the bundled run; runs what does not stand already
    rscir book DATASET_ROOT=~/my_archive

Sphinx makes it, from a mirror of the project, so that a link that works in the repository works in the book. Nothing on
a page comes from elsewhere: equations are MathML, which browsers draw themselves, and the search is a script beside it.
"""

import hashlib
import os
import pkgutil
import shutil
from binascii import a2b_base64
from pathlib import Path

import nbformat
from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util.display import progress_message

import rscir_lib
from rscir_lib.apps.commands import workbook
from rscir_lib.runs import run_of
from rscir_lib.storage.project import ROOT

PAGES = ROOT / "notebooks" / "book"
THEME = {
    "use_fullscreen_button": False,
    "use_download_button": False,
    "show_toc_level": 2,
    "navbar_persistent": [],  # the search is in the sidebar already
    "pygments_light_style": "a11y-light",
}
CONFIG = {
    "project": "RSCIR workbook",
    "html_title": "RSCIR workbook",
    "author": "the authors of the RSCIR workbook",
    "copyright": "the authors of the RSCIR workbook, Apache-2.0",
    "language": "en",
    "extensions": [
        "myst_nb",
        "sphinx.ext.autodoc",
        "sphinx.ext.napoleon",
        "sphinx_copybutton",
        "rscir_lib.apps.teaching.book",
    ],
    "napoleon_numpy_docstring": False,
    "html_theme": "sphinx_book_theme",
    "html_theme_options": THEME,
    "html_context": {"default_mode": "auto"},  # light or dark, as the reader's system is
    "html_math_renderer": "mathml",
    "html_static_path": ["notebooks/book/book.css"],
    "html_css_files": ["book.css"],
    "html_show_search_summary": False,  # it fetches pages, which browsers refuse for files
    "html_show_sphinx": False,
    "html_copy_source": False,
    "nb_execution_mode": "off",
    "nb_code_prompt_show": "Show the solution",  # nothing else is folded up
    "nb_code_prompt_hide": "Hide the solution",
    "nb_ipywidgets_js": {},  # they would come from elsewhere
    "suppress_warnings": ["ref.python"],  # a class that is told of in two places
    "myst_enable_extensions": ["dollarmath"],
    "myst_heading_anchors": 4,
    "default_role": "code",
    "autodoc_typehints_format": "short",
    "autodoc_member_order": "bysource",
}
MOVING = {"application/vnd.jupyter.widget-view+json"}  # needs a kernel


OTHER_PAGES = ["data/README", "data/whucom/README", "data/demo_encoder/README", "CONTRIBUTING", "CHANGELOG"]


def mirror(source: Path, executed: Path) -> None:
    """Lays out what the book is made of, as it lies in the project, with the executed notebooks in place of the others.

    source: an empty folder; executed: the `notebooks` folder of a run.
    """
    for place in (
        "README.md",
        "LICENSE",
        "CITATION.cff",
        *(f"{page}.md" for page in OTHER_PAGES),
        "figures",
        "data/demo_encoder/loss.png",
        "data/published",
        "notebooks/book",
    ):
        copy = shutil.copytree if (ROOT / place).is_dir() else shutil.copy
        (source / place).parent.mkdir(parents=True, exist_ok=True)
        copy(ROOT / place, source / place)
    (source / "README.md").rename(source / "index.md")
    notebooks = sorted(executed.glob("[0-9]*.ipynb"))
    for path in notebooks:
        nbformat.write(_readable(nbformat.read(path, as_version=4)), source / "notebooks" / path.name)
    # a package has its docstring alone: the names that it gives are described where they lie
    members = {
        m.name: "" if m.ispkg else "   :members:\n" for m in pkgutil.walk_packages(rscir_lib.__path__, "rscir_lib.")
    }
    modules = [name for name in members if not name.endswith("__main__")]
    (source / "api").mkdir()
    for name in modules:
        text = f"# {name.removeprefix('rscir_lib.')}\n\n```{{eval-rst}}\n.. automodule:: {name}\n{members[name]}```\n"
        (source / "api" / f"{name}.md").write_text(text, encoding="utf-8")
    pages = sorted(path.stem for path in PAGES.glob("*.md"))
    parts = {
        "Notebooks": [f"notebooks/{path.stem}" for path in notebooks],
        "Pages": [f"notebooks/book/{page}" for page in pages] + OTHER_PAGES,
        "Library": ["api/index"],
    }
    with open(source / "index.md", "a", encoding="utf-8") as index:
        index.writelines(_contents(entries, f":caption: {part}\n:hidden:\n") for part, entries in parts.items())
    every = f"# {rscir_lib.__name__}\n\n{rscir_lib.__doc__}\n{_contents(modules, ':maxdepth: 1')}"
    (source / "api" / "index.md").write_text(every, encoding="utf-8")


def _contents(entries: list[str], options: str) -> str:
    return "\n".join(["", "```{toctree}", options.strip(), "", *entries, "```", ""])


def _readable(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """An executed notebook less what only a kernel can show, and less papermill's own cells and times; solutions folded
    up."""
    notebook.metadata = {key: notebook.metadata[key] for key in ("kernelspec", "language_info")}
    notebook.cells = [cell for cell in notebook.cells if "injected-parameters" not in cell.metadata.get("tags", [])]
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        cell.metadata = {"tags": [*tags, "hide-input"] if "solution" in tags else tags}
        if cell.cell_type == "code":
            cell.outputs = [out for out in cell.outputs if not MOVING & set(out.get("data", {}))]
    return notebook


def build(source: Path, out: Path, work: Path) -> None:
    """The site of a mirrored source, in `out`; `work` keeps what a second build need not read again.

    Raises RuntimeError for any warning: a link that leads nowhere, a docstring that can't be read, a picture that is
    not there.
    """
    warnings = work / "warnings.txt"
    work.mkdir(parents=True, exist_ok=True)
    with open(warnings, "w", encoding="utf-8") as told, progress_message("building the book"):
        app = Sphinx(
            source, None, out, work / "doctrees", "html", CONFIG, status=None, warning=told, parallel=os.cpu_count()
        )
        app.build()
    if found := warnings.read_text(encoding="utf-8").strip():
        raise RuntimeError(f"the book has warnings:\n{found}")


def setup(app: Sphinx) -> dict[str, bool]:
    """Makes this module an extension of Sphinx: equations and alternative texts."""
    inline, block = (
        (lambda writer, node: _equation(writer, node, False)),
        (lambda writer, node: _equation(writer, node, True)),
    )
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    app.connect("doctree-read", _describe)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _equation(writer: object, node: nodes.Element, block: bool) -> None:
    equation = tex2mathml(node.astext(), as_block=block)
    writer.body.append(f'<div class="equation">{equation}</div>' if block else equation)
    raise nodes.SkipNode


def _describe(app: Sphinx, document: nodes.document) -> None:
    """Gives each figure of a notebook the alternative text that its output carries."""
    path = Path(app.env.doc2path(app.env.docname))
    if path.suffix != ".ipynb":
        return
    told = {}
    for cell in nbformat.read(path, as_version=4).cells:
        for out in cell.get("outputs", []):
            if picture := out.get("data", {}).get("image/png"):
                # myst_nb names a picture by its digest
                told[hashlib.sha256(a2b_base64(picture)).hexdigest()] = out.metadata.get("image/png", {}).get("alt")
    for image in document.findall(nodes.image):
        if alt := told.get(Path(image["uri"]).stem):
            image["alt"] = alt


def write_book(given: dict[str, str]) -> Path:
    """Writes the book of a run, whose notebooks run where they do not stand already; returns its folder."""
    plan = workbook.resolve_parameters(workbook.select_notebooks([]), given)
    workbook.run_plan(plan)
    book, work = ROOT / "runs" / "book", ROOT / "runs" / ".book"
    shutil.rmtree(work / "source", ignore_errors=True)
    shutil.rmtree(book, ignore_errors=True)
    mirror(work / "source", run_of(next(iter(plan.values()))) / "notebooks")
    build(work / "source", book, work)
    return book
