"""The explorer: pick a picture, type words, slide lambda, look.

    explore(run)                      # a cell of a notebook
    python -m rscir_lib.explorer      # a page on this machine; `page` writes one that needs no Python

One component in JavaScript (explorer.js, explorer.css) and three hosts: a widget, a small server, a static page.
"""

from rscir_lib.explorer.marks import read_marks
from rscir_lib.explorer.session import Explorer
from rscir_lib.explorer.widget import Widget

__all__ = ["Explorer", "Widget", "read_marks"]
