"""Things seen from above, and the classes of the scenes that they make. Lengths are in pixels of a 256-pixel scene."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from rscir_lib.benchmarks.synthcom.canvas import ASPHALT, COLORS, FOLIAGE, LINE, NATURAL, PAVED, Canvas, Color, turned

ROOFS = [COLORS[name] for name in ("red", "grey", "white", "brown")] + [(128, 112, 98), (92, 92, 96)]
_ROOF = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1], [-0.8, 0], [0.8, 0]]) / 2  # four corners and the ridge


def path(bend: float = 0, phase: float = 0, end: float = 200, y: float = 0) -> np.ndarray:
    """Points along the x axis, swinging `bend` to both sides; 25 x 2."""
    x = np.linspace(-200, end, 25)
    return np.stack([x, y + bend * np.sin(x / 62 + phase)], 1)


class Scenery(Canvas):
    """A canvas with the things that are seen from above; x and y are their middle, angles are in radians."""

    def tree(self, x: float, y: float, r: float) -> None:
        if not self.sees(x, y, 2 * r):
            return
        (x, y), r, color = self.place((x, y)).tolist(), r * self.zoom, self.tone(FOLIAGE, 11)
        sx, sy = (self.sun / self.zoom).tolist()
        self.blot(x + 0.7 * r * sx, y + 0.7 * r * sy, r, self.shadow)
        self.blot(x, y, 0.8 * r, color)
        for dx, dy, size, light in self.rng.uniform((-0.6, -0.6, 0.25, -8), (0.6, 0.6, 0.5, 8), (9, 4)).tolist():
            light -= 26 * (dx * sx + dy * sy)
            self.blot(x + dx * r, y + dy * r, size * r, tuple(int(v + light) for v in color))

    def shrubs(self, points: np.ndarray, radii: np.ndarray, color: Color, spread: float) -> None:
        """Small round plants with a lighter top."""
        points, radii, lean = self.place(points), radii * self.zoom, (4 * self.sun).tolist()
        seen = (abs(points - self.side / 2) < self.side / 2 + radii[:, None]).all(1)
        for x, y, r in np.c_[points, radii][seen].tolist():
            tone = self.tone(color, spread)
            self.blot(x + lean[0], y + lean[1], r, self.shadow)
            self.blot(x, y, r, tone)
            self.blot(x, y, 0.45 * r, tuple(v + 22 for v in tone))

    def trees(self, n: int, near: float = 95, far: float = 175) -> None:
        """Scattered around the middle, some hanging over what is there."""
        for angle, radius, r in self.rng.uniform((0, near, 5), (2 * np.pi, far, 12), (n, 3)):
            self.tree(radius * np.cos(angle), radius * np.sin(angle), r)

    def house(
        self, x: float, y: float, w: float, d: float, angle: float = 0, color: Color | None = None, height: float = 9
    ) -> None:
        if not self.sees(x, y, w):
            return
        color = self.tone(self.pick(ROOFS) if color is None else color, 7)
        roof = self.place(_ROOF * (w, d) @ turned(angle) + (x, y))
        self.draw.polygon((roof[:4] + self.sun * height).ravel().tolist(), self.shadow)
        for corners, light in (((0, 1, 2, 3), 1), ((0, 1, 5, 4), 0.78), ((0, 3, 4), 0.84), ((1, 2, 5), 0.96)):
            self.draw.polygon(roof.take(corners, 0).ravel().tolist(), tuple(int(light * v) for v in color))

    def car(self, x: float, y: float, angle: float = 0, size: float = 1) -> None:
        if not self.sees(x, y):
            return
        color = self.tone(self.pick([(226, 226, 224), (60, 62, 66), (150, 152, 156), (146, 52, 46), (54, 78, 124)]), 8)
        self.rect(x, y, 16 * size, 7.5 * size, color, angle, 3 * size)
        self.rect(x, y, 8 * size, 6 * size, (44, 50, 58), angle)
        self.rect(x, y, 5 * size, 6 * size, tuple(min(255, v + 10) for v in color), angle)

    def truck(self, x: float, y: float, angle: float = 0, size: float = 1) -> None:
        dx, dy = np.array([20 * size, 0]) @ turned(angle)
        self.rect(x + dx, y + dy, 8 * size, 9 * size, self.tone(self.pick(list(COLORS.values()))), angle, 6 * size)
        color = self.tone(self.pick([(226, 226, 222), (204, 200, 190), (120, 140, 160)]))
        self.rect(x, y, 32 * size, 10 * size, color, angle, 8 * size)

    def boat(self, x: float, y: float, angle: float = 0, size: float = 1) -> None:
        hull = np.array([[-14, -5], [6, -5], [17, 0], [6, 5], [-14, 5]]) * size
        self.poly(hull @ turned(angle) + (x, y), self.tone((232, 232, 228), 6), 2 * size)
        color = self.tone(self.pick([(150, 120, 92), (74, 96, 128), (196, 198, 200)]))
        self.rect(x, y, 11 * size, 5.5 * size, color, angle)

    def plane(self, x: float, y: float, span: float, angle: float, color: Color) -> None:
        s, body = span / 100, self.tone(color, 6)
        dark = tuple(int(0.8 * v) for v in body)
        wings = [[16, 0], [8, 5], [-16, 48], [-25, 48], [-10, 4], [-10, -4], [-25, -48], [-16, -48], [8, -5]]
        tail = [[-36, 0], [-47, 18], [-53, 18], [-47, 0], [-53, -18], [-47, -18]]
        for shape in (wings, tail):
            self.poly(s * np.array(shape, float) @ turned(angle) + (x, y), dark, 9 * s)
        for side in (-1, 1):
            dx, dy = s * np.array([4, side * 20]) @ turned(angle)
            self.rect(x + dx, y + dy, 11 * s, 5 * s, (92, 94, 98), angle)
        self.oval(x, y, 51 * s, 6 * s, body, angle, 7 * s, power=0.75)
        dx, dy = s * np.array([44, 0]) @ turned(angle)
        self.rect(x + dx, y + dy, 4 * s, 7 * s, (52, 56, 64), angle)

    def road(self, points: ArrayLike, width: float, kerb: Color = PAVED, dashed: bool = True) -> None:
        points = np.asarray(points, float)
        self.line(points, width + 7, self.tone(kerb, 5))
        self.line(points, width, self.tone(ASPHALT, 7))
        if dashed:
            lengths = np.r_[0, np.cumsum(np.hypot(*np.diff(points, axis=0).T))]
            for start in np.arange(0, lengths[-1], 17):
                stops = [np.interp([start, start + 8], lengths, axis) for axis in points.T]
                self.line(np.stack(stops, 1), 1.4, LINE)

    def dashes(self, y: float, length: float, step: int) -> None:
        for x in range(-190, 190, step):
            self.line([(x, y), (x + length, y)], 1.5, LINE)

    def rails(self, x: float) -> None:
        """A railway of two tracks along the y axis."""
        bed = [(x, 34, (128, 118, 108))]
        for track in (x - 9, x + 9):
            bed += [(track, 9, (96, 84, 74)), *((track + rail, 1.3, (186, 184, 180)) for rail in (-3, 3))]
        for at, width, color in bed:
            self.line([(at, -210), (at, 210)], width, color)

    def clutter(self, n: int = 4, near: float = 112) -> None:
        """Sheds, cars, tanks, pools and courts at the rim: the colours and shapes of other scenes' objects."""
        for angle, radius, size, kind in self.rng.uniform((0, near, 12, 0), (2 * np.pi, 165, 30, 1), (n, 4)):
            x, y = radius * np.cos(angle), radius * np.sin(angle)
            if kind < 0.5:
                self.house(x, y, 1.5 * size, size, self.rng.uniform(0, 3))
            elif kind < 0.62:
                self.oval(x, y, size / 2, size / 2, self.tone(self.pick(ROOFS)), height=5)
            elif kind < 0.74:
                self.rect(x, y, 1.7 * size, size, self.tone(self.pick(list(COLORS.values()))), angle)
            elif kind < 0.82:
                self.oval(x, y, size * 0.6, size * 0.35, (90, 160, 176), angle, power=self.pick([0.3, 1]))
            else:
                self.car(x, y, angle)

    def spots(self, quantity: str) -> tuple[np.ndarray, float]:
        """Where so many objects stand, with some jitter, and the room that each has across."""
        grid = {
            "one": [(0, 0)],
            "two": [(-48, 0), (48, 0)],
            "three": [(-50, -34), (50, -34), (0, 48)],
            "many": [(x, y) for x in (-66, 0, 66) for y in (-36, 36)],
        }[quantity]
        room = {"one": 128, "two": 88, "three": 82, "many": 62}[quantity] * self.rng.uniform(0.8, 1)
        return np.array(grid) + self.rng.uniform(-6, 6, (len(grid), 2)), room


Values = dict[str, str]  # attribute -> value
Painter = Callable[[Scenery, Values], None]


class SceneClass(NamedTuple):
    """A painter, the class in words, the grounds it can stand on, the values that each attribute varies in; clutter at
    the rim, painted first, and trees, painted last: how many, and how far from the middle."""

    paint: Painter
    words: str
    grounds: tuple[str, ...]
    attributes: dict[str, tuple[str, ...]]
    rim: tuple[int, ...]
    trees: tuple[int, ...]


CLASSES: dict[str, SceneClass] = {}


def scene(
    words: str, grounds: str = " ".join(NATURAL), rim: tuple[int, ...] = (0,), trees: tuple[int, ...] = (0,),
    **attributes: str,
) -> Callable[[Painter], Painter]:  # fmt: skip
    """Registers a painter in `CLASSES` under its own name. Grounds and values are separated by blanks."""

    def register(paint: Painter) -> Painter:
        options = {attribute: tuple(values.split()) for attribute, values in attributes.items()}
        CLASSES[paint.__name__] = SceneClass(paint, words, tuple(grounds.split()), options, rim, trees)
        return paint

    return register
