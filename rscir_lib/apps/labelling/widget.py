"""The labelling widget: a picture, a key a value; the browser shows, the session keeps."""

from collections import Counter
from math import isnan
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from rscir_lib.apps.labelling.session import Session

AHEAD = 8  # pictures sent before they are asked for, so that a quick hand never waits


class Labeller(anywidget.AnyWidget):
    """Shows the images of a session one after the other.

    Keys: 1 to 9 for the values, Enter takes the proposal, 0 or Space says *can't tell*, U or Backspace undoes.
    """

    _esm = Path(__file__).with_name("labeller.js")
    _css = Path(__file__).with_name("labeller.css")
    title = traitlets.Unicode().tag(sync=True)
    values: traitlets.List[str] = traitlets.List().tag(sync=True)
    # the next images: name, picture, proposed value, margin
    queue: traitlets.List[dict[str, Any]] = traitlets.List().tag(sync=True)
    counts = traitlets.Dict().tag(sync=True)  # how often each value was given, "" for can't tell
    left = traitlets.Int().tag(sync=True)
    problem = traitlets.Unicode().tag(sync=True)  # why the last answer was not kept

    def __init__(self, session: Session, title: str = "") -> None:
        super().__init__(title=title or session.path.stem, values=session.values)
        self.session = session
        self._pictures: dict[str, str] = {}
        self.on_msg(self._answer)
        self._show()

    def _answer(self, _widget: anywidget.AnyWidget, content: dict[str, Any], _buffers: list[bytes]) -> None:
        try:
            if content.get("undo"):
                self.session.undo()
            else:
                self.session.label(content["image"], content["value"])
            self.problem = ""
        except (ValueError, KeyError, OSError) as error:  # a full disk must not look like a kept answer
            self.problem = f"not kept: {error}"
        self._show()

    def _show(self) -> None:
        left = self.session.left
        ahead = self.session.proposals.loc[left[:AHEAD]]
        self._pictures = {image: self._pictures.get(image) or self._picture(image) for image in ahead.index}
        with self.hold_sync():
            columns = zip(self._pictures.items(), ahead["proposed"], ahead["margin"], strict=True)
            self.queue = [
                {"image": image, "picture": picture, "proposed": proposed, "margin": None if isnan(margin) else margin}
                for (image, picture), proposed, margin in columns
            ]
            self.counts = Counter(self.session.labels["value"])
            self.left = len(left)

    def _picture(self, image: str) -> str:
        try:
            return self.session.picture(image)
        except (OSError, ValueError):
            return ""  # shown as a note; the person skips it
