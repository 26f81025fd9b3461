"""The explorer: pick a picture, type words, slide lambda, look.

    Widget(Explorer.of(run))                # a cell of a notebook
    rscir explore                           # a page on this machine
    rscir page                              # files that need neither Python nor network

One page in JavaScript (view.js and what it imports, explorer.css) and three hosts that answer its questions.
"""

from rscir_lib.apps.explorer.marks import marked_labels, marks_table, read_marks
from rscir_lib.apps.explorer.session import Explorer
from rscir_lib.apps.explorer.widget import Widget

__all__ = ["Explorer", "Widget", "marked_labels", "marks_table", "read_marks"]
