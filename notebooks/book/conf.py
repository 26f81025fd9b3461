"""The book's configuration, which Sphinx reads; `rscir_lib/apps/teaching/book.py` makes the book."""

project = html_title = "RSCIR workbook"
copyright = "the authors of the RSCIR workbook, Apache-2.0"
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "rscir_lib.apps.teaching.book",
]
suppress_warnings = ["ref.python"]  # a class that is described in two places
default_role = "code"
autodoc_member_order = "bysource"
napoleon_numpy_docstring = False

html_theme = "sphinx_book_theme"
html_theme_options = {
    "use_fullscreen_button": False,
    "use_download_button": False,
    "show_toc_level": 2,
    "navbar_persistent": [],  # the search is in the sidebar already
    "pygments_light_style": "a11y-light",
}
html_context = {"default_mode": "auto"}  # light or dark, as the reader's system is
html_math_renderer = "mathml"
html_static_path = html_css_files = ["book.css"]
html_show_sphinx = html_copy_source = False

nb_execution_mode = "off"
nb_code_prompt_show = "Show the solution"  # nothing else is folded up
nb_code_prompt_hide = "Hide the solution"
nb_ipywidgets_js = {}  # they would come from elsewhere
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
