"""Things seen from above: trees, houses, vehicles, roads."""

import numpy as np

from rscir_lib.benchmarks.synthcom.canvas import ASPHALT, COLORS, FOLIAGE, LINE, PAVED, ROOFS, Canvas, turned


def tree(c: Canvas, x: float, y: float, r: float):
    if not c.sees(x, y, 2 * r):
        return
    (x, y), r, color = c.place((x, y)).tolist(), r * c.zoom, c.tone(FOLIAGE, 11)
    sx, sy = (c.sun / c.zoom).tolist()
    c.blot(x + 0.7 * r * sx, y + 0.7 * r * sy, r, c.shadow)
    c.blot(x, y, 0.8 * r, color)
    for dx, dy, size, light in c.rng.uniform((-0.6, -0.6, 0.25, -8), (0.6, 0.6, 0.5, 8), (9, 4)).tolist():
        light -= 26 * (dx * sx + dy * sy)
        c.blot(x + dx * r, y + dy * r, size * r, tuple(int(v + light) for v in color))


def shrubs(c: Canvas, points: np.ndarray, radii: np.ndarray, color, spread: float):
    """Small round plants with a lighter top."""
    points, radii, lean = c.place(points), radii * c.zoom, (4 * c.sun).tolist()
    seen = (abs(points - c.side / 2) < c.side / 2 + radii[:, None]).all(1)
    for x, y, r in np.c_[points, radii][seen].tolist():
        tone = c.tone(color, spread)
        c.blot(x + lean[0], y + lean[1], r, c.shadow)
        c.blot(x, y, r, tone)
        c.blot(x, y, 0.45 * r, tuple(v + 22 for v in tone))


def trees(c: Canvas, n: int, near: float = 95, far: float = 175):
    """Scattered around the middle, some hanging over what is there."""
    for angle, radius, r in c.rng.uniform((0, near, 5), (2 * np.pi, far, 12), (n, 3)):
        tree(c, radius * np.cos(angle), radius * np.sin(angle), r)


_ROOF = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1], [-0.8, 0], [0.8, 0]]) / 2  # four corners and the ridge


def house(c: Canvas, x: float, y: float, w: float, d: float, angle=0.0, color=None, height=9.0):
    if not c.sees(x, y, w):
        return
    color = c.tone(c.pick(ROOFS) if color is None else color, 7)
    roof = c.place(_ROOF * (w, d) @ turned(angle) + (x, y))
    c.draw.polygon((roof[:4] + c.sun * height).ravel().tolist(), c.shadow)
    for corners, light in (((0, 1, 2, 3), 1), ((0, 1, 5, 4), 0.78), ((0, 3, 4), 0.84), ((1, 2, 5), 0.96)):
        c.draw.polygon(roof.take(corners, 0).ravel().tolist(), tuple(int(light * v) for v in color))


def car(c: Canvas, x: float, y: float, angle=0.0, size=1.0):
    if not c.sees(x, y):
        return
    color = c.tone(c.pick([(226, 226, 224), (60, 62, 66), (150, 152, 156), (146, 52, 46), (54, 78, 124)]), 8)
    c.rect(x, y, 16 * size, 7.5 * size, color, angle, 3 * size)
    c.rect(x, y, 8 * size, 6 * size, (44, 50, 58), angle)
    c.rect(x, y, 5 * size, 6 * size, tuple(min(255, v + 10) for v in color), angle)


def truck(c: Canvas, x: float, y: float, angle=0.0, size=1.0):
    dx, dy = np.array([20 * size, 0]) @ turned(angle)
    c.rect(x + dx, y + dy, 8 * size, 9 * size, c.tone(c.pick(list(COLORS.values()))), angle, 6 * size)
    color = c.tone(c.pick([(226, 226, 222), (204, 200, 190), (120, 140, 160)]))
    c.rect(x, y, 32 * size, 10 * size, color, angle, 8 * size)


VEHICLES = {"cars": car, "trucks": truck}


def boat(c: Canvas, x: float, y: float, angle=0.0, size=1.0):
    hull = np.array([[-14, -5], [6, -5], [17, 0], [6, 5], [-14, 5]]) * size
    c.poly(hull @ turned(angle) + (x, y), c.tone((232, 232, 228), 6), 2 * size)
    c.rect(x, y, 11 * size, 5.5 * size, c.tone(c.pick([(150, 120, 92), (74, 96, 128), (196, 198, 200)])), angle)


def plane(c: Canvas, x: float, y: float, span: float, angle: float, color):
    s, body = span / 100, c.tone(color, 6)
    dark = tuple(int(0.8 * v) for v in body)
    wings = [[16, 0], [8, 5], [-16, 48], [-25, 48], [-10, 4], [-10, -4], [-25, -48], [-16, -48], [8, -5]]
    tail = [[-36, 0], [-47, 18], [-53, 18], [-47, 0], [-53, -18], [-47, -18]]
    for shape in (wings, tail):
        c.poly(s * np.array(shape, float) @ turned(angle) + (x, y), dark, 9 * s)
    for side in (-1, 1):
        dx, dy = s * np.array([4, side * 20]) @ turned(angle)
        c.rect(x + dx, y + dy, 11 * s, 5 * s, (92, 94, 98), angle)
    c.oval(x, y, 51 * s, 6 * s, body, angle, 7 * s, power=0.75)
    dx, dy = s * np.array([44, 0]) @ turned(angle)
    c.rect(x + dx, y + dy, 4 * s, 7 * s, (52, 56, 64), angle)


def path(bend: float = 0, phase: float = 0, end: float = 200, y: float = 0) -> np.ndarray:
    """Points along the x axis, swinging ``bend`` to both sides; 25 x 2."""
    x = np.linspace(-200, end, 25)
    return np.stack([x, y + bend * np.sin(x / 62 + phase)], 1)


def road(c: Canvas, points, width, kerb=PAVED, dashed=True):
    points = np.asarray(points, float)
    c.line(points, width + 7, c.tone(kerb, 5))
    c.line(points, width, c.tone(ASPHALT, 7))
    if dashed:
        lengths = np.r_[0, np.cumsum(np.hypot(*np.diff(points, axis=0).T))]
        for start in np.arange(0, lengths[-1], 17):
            stops = [np.interp([start, start + 8], lengths, axis) for axis in points.T]
            c.line(np.stack(stops, 1), 1.4, LINE)


def dashes(c: Canvas, y, length, step):
    for x in range(-190, 190, step):
        c.line([(x, y), (x + length, y)], 1.5, LINE)


def rails(c: Canvas, x):
    """A railway of two tracks along the y axis."""
    bed = [(x, 34, (128, 118, 108))]
    for track in (x - 9, x + 9):
        bed += [(track, 9, (96, 84, 74)), *((track + rail, 1.3, (186, 184, 180)) for rail in (-3, 3))]
    for at, width, color in bed:
        c.line([(at, -210), (at, 210)], width, color)


def clutter(c: Canvas, n: int = 4, near: float = 112):
    """Sheds, cars, tanks, pools and courts at the rim: the colours and shapes of other scenes' objects."""
    for angle, radius, size, kind in c.rng.uniform((0, near, 12, 0), (2 * np.pi, 165, 30, 1), (n, 4)):
        x, y = radius * np.cos(angle), radius * np.sin(angle)
        if kind < 0.5:
            house(c, x, y, 1.5 * size, size, c.rng.uniform(0, 3))
        elif kind < 0.62:
            c.oval(x, y, size / 2, size / 2, c.tone(c.pick(ROOFS)), height=5)
        elif kind < 0.74:
            c.rect(x, y, 1.7 * size, size, c.tone(c.pick(list(COLORS.values()))), angle)
        elif kind < 0.82:
            c.oval(x, y, size * 0.6, size * 0.35, (90, 160, 176), angle, power=c.pick([0.3, 1]))
        else:
            car(c, x, y, angle)


def spots(c: Canvas, quantity: str) -> tuple[np.ndarray, float]:
    """Where so many objects stand, with some jitter, and the room that each has across."""
    grid = {
        "one": [(0, 0)],
        "two": [(-48, 0), (48, 0)],
        "three": [(-50, -34), (50, -34), (0, 48)],
        "many": [(x, y) for x in (-66, 0, 66) for y in (-36, 36)],
    }[quantity]
    room = {"one": 128, "two": 88, "three": 82, "many": 62}[quantity] * c.rng.uniform(0.8, 1)
    return np.array(grid) + c.rng.uniform(-6, 6, (len(grid), 2)), room
