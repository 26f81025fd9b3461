"""The explorer as a cell of JupyterLab."""

from typing import Any

import anywidget
import traitlets

from rscir_lib.apps.explorer.page import HERE, joined
from rscir_lib.apps.explorer.session import Explorer


class Widget(anywidget.AnyWidget):
    """The page, asking the `Explorer` of this kernel by messages: its state holds no image and no similarity."""

    _esm = joined("widget.js")
    _css = HERE / "explorer.css"
    start = traitlets.Dict().tag(sync=True)

    def __init__(self, explorer: Explorer, image: int | None = None, words: str = "", lam: float = 0.5) -> None:
        """The first query: image (an archive position), words, lam in [0, 1]; without image one of the benchmark's."""
        super().__init__(start={} if image is None else {"images": [image], "text": words, "lambda": lam})
        self.explorer = explorer
        self.on_msg(self._answer)

    def _answer(self, _: object, message: dict[str, Any], buffers: list[bytes]) -> None:
        self.send({"id": message["id"], "answer": self.explorer.answer(message["question"])})
