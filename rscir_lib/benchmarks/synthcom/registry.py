"""The classes of scenes: each has a painter, (canvas, values) -> None, which finds the ground painted already."""

from collections.abc import Callable
from dataclasses import dataclass

from rscir_lib.benchmarks.synthcom.canvas import NATURAL
from rscir_lib.benchmarks.synthcom.things import Scenery

Values = dict[str, str]  # attribute -> value
Painter = Callable[[Scenery, Values], None]


@dataclass(frozen=True)
class SceneClass:
    """A painter, the class in words, the grounds it can stand on, and the values that each attribute varies in."""

    paint: Painter
    words: str
    grounds: tuple[str, ...]
    attributes: dict[str, tuple[str, ...]]


CLASSES: dict[str, SceneClass] = {}


def scene(words: str, grounds: str = " ".join(NATURAL), **attributes: str) -> Callable[[Painter], Painter]:
    """Registers a painter in `CLASSES` under its own name. Grounds and values are separated by blanks."""

    def register(paint: Painter) -> Painter:
        options = {attribute: tuple(values.split()) for attribute, values in attributes.items()}
        CLASSES[paint.__name__] = SceneClass(paint, words, tuple(grounds.split()), options)
        return paint

    return register
