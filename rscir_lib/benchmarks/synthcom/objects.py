"""Painters of scenes about things: their number, colour, shape, or how densely they stand."""

from itertools import product

import numpy as np

from rscir_lib.benchmarks.synthcom.canvas import ASPHALT, COLORS, LINE, PAVED, turned
from rscir_lib.benchmarks.synthcom.things import Scenery, Values, path, scene


@scene(
    "airplane", "concrete grass sand",
    color="white blue red", context="concrete grass sand", quantity="one two three many", rim=(3, 130),
)  # fmt: skip
def airplane(c: Scenery, v: Values) -> None:
    if v["context"] == "concrete":
        for x in (-90, 0, 90):
            c.line([(x, -200), (x, 200)], 1.2, (196, 176, 90))
        c.rect(0, 120, 300, 26, c.tone(ASPHALT))
    if v["context"] == "sand":
        c.line(path(14, 1, y=95), 12, c.tone((172, 152, 118)))
    points, room = c.spots(v["quantity"])
    heading = c.rng.uniform(0, 2 * np.pi)
    for x, y in points:
        c.plane(x, y, room, heading + c.rng.normal(0, 0.12), COLORS[v["color"]])


@scene("storage tank", "grass soil concrete sand", color="white grey red", quantity="one two three many", rim=(3, 130))
def storagetank(c: Scenery, v: Values) -> None:
    for offset in c.rng.uniform(-140, 140, 2):
        c.strip(offset, 9, c.tone(PAVED))
    points, room = c.spots(v["quantity"])
    for x, y in points:
        r = room * c.rng.uniform(0.34, 0.44)
        if v["quantity"] != "many":
            c.rect(x, y, 2.5 * r, 2.5 * r, c.tone((146, 132, 108), 5))
        color = np.array(c.tone(COLORS[v["color"]], 7))
        c.oval(x, y, r, r, tuple((color * 0.62).astype(int).tolist()), height=r * 0.5)
        c.oval(x, y, r * 0.93, r * 0.93, tuple(color.tolist()))
        c.oval(x, y, r * 0.5, r * 0.5, tuple((color * 0.95).astype(int).tolist()))
        c.line([(x, y), (x + r, y)], 1.6, (84, 84, 84))


@scene(
    "tennis court", "grass concrete trees",
    color="blue green red", context="grass concrete trees", quantity="one two three", rim=(4, 130), trees=(6, 95),
)  # fmt: skip
def tenniscourt(c: Scenery, v: Values) -> None:
    points, _ = c.spots(v["quantity"])
    long, wide = (116, 62) if v["quantity"] == "one" else (92, 50)
    in_a_row = {"two": [(0, -31), (0, 31)], "three": [(0, -56), (0, 0), (0, 56)]}
    points = np.array(in_a_row.get(v["quantity"], points))
    outer = c.tone(c.pick([COLORS["green"], COLORS["red"], COLORS["grey"], COLORS["green"]]))
    extent = points.max(0) - points.min(0) + (long + 14, wide + 10)
    inner = c.tone(COLORS[v["color"]], 6)
    c.rect(0, 0, *extent, tuple(int(0.35 * a + 0.65 * b) for a, b in zip(outer, inner, strict=True)), height=2)
    for x, y in points:
        w, h = long * 0.8, wide * 0.72
        c.rect(x, y, w, h, LINE)
        c.rect(x, y, w - 3, h - 3, inner)
        for dy in (-0.38, 0.38):
            c.line([(x - w / 2, y + dy * h), (x + w / 2, y + dy * h)], 1.4, LINE)
        for dx in (-0.26, 0.26):
            c.line([(x + dx * w, y - 0.38 * h), (x + dx * w, y + 0.38 * h)], 1.4, LINE)
        c.line([(x - w * 0.26, y), (x + w * 0.26, y)], 1.4, LINE)
        c.line([(x, y - h * 0.6), (x, y + h * 0.6)], 2, (52, 54, 56))


@scene(
    "swimming pool", "grass concrete sand trees",
    context="grass concrete sand trees", quantity="one two", shape="oval rectangular kidney round", trees=(7, 88),
)  # fmt: skip
def swimmingpool(c: Scenery, v: Values) -> None:
    c.house(*c.rng.uniform(-20, 20, 1), 118, 120, 56)
    c.clutter(2, 125)
    points, room = c.spots(v["quantity"])
    for x, y in points:
        r, angle = room * 0.42, c.rng.uniform(0, np.pi)
        rx, ry, power = {"oval": (1, 0.56, 1), "round": (0.78, 0.78, 1)}.get(v["shape"], (1, 0.55, 0.12))
        water, rim = c.tone((84, 166, 186), 10), c.tone((208, 204, 194), 6)
        if v["context"] != "concrete":
            c.rect(x, y, 2.5 * r, 2.0 * r, c.tone((186, 178, 166)), angle)
        for grow, color in ((1.1, rim), (1, water)):
            if v["shape"] == "kidney":
                t = np.linspace(0, 2 * np.pi, 40)
                dent = 1 - 0.55 * np.exp(-(((t - np.pi / 2) / 0.7) ** 2))
                bean = np.stack([dent * np.cos(t), 0.62 * dent * np.sin(t)], 1)
                c.poly(grow * r * bean @ turned(angle) + (x, y), color)
            else:
                c.oval(x, y, grow * rx * r, grow * ry * r, color, angle, power=power)
        for _ in range(3):
            reach = np.array([0, r * c.rng.uniform(0.95, 1.15)])
            c.rect(*(reach @ turned(angle + c.rng.normal(0, 0.4)) + (x, y)), 7, 3, LINE, angle)


@scene("nursing home", "grass meadow", color="red grey white brown", trees=(10, 85))
def nursinghome(c: Scenery, v: Values) -> None:
    c.road(path(6, y=100), 18)
    c.rect(-10, 66, 120, 26, c.tone(ASPHALT))
    for x in c.rng.choice(np.arange(-60, 50, 12), 5, replace=False):
        c.car(x, 66, np.pi / 2, 0.9)
    color, wing = COLORS[v["color"]], c.rng.uniform(60, 84)
    plan = c.pick(["H", "U", "E"])
    c.house(0, {"H": 0, "U": 30, "E": 30}[plan] - 18, 150, 30, 0, color, 12)
    for x in {"H": (-62, 62), "U": (-62, 62), "E": (-62, 0, 62)}[plan]:
        c.house(x, {"H": -18, "U": -14, "E": -14}[plan], wing, 28, np.pi / 2, color, 12)
    c.clutter(3, 130)


SPACING = {"dense": 1.0, "moderate": 1.6, "sparse": 2.7}


@scene("dense residential area", "grass meadow", density="dense moderate", trees=(14, 20))
def denseresidential(c: Scenery, v: Values) -> None:
    gap = 28 * SPACING[v["density"]]
    for y in np.arange(-180, 181, 2 * gap + 20):
        c.road([(-200, y), (200, y)], 11, dashed=False)
        for x in np.arange(-185, 186, gap):
            for side in (-1, 1):
                if c.rng.random() < 0.93:
                    px, py = c.rng.normal((x, y + side * (gap * 0.55 + 10)), 2)
                    c.house(px, py, *c.rng.uniform(19, 25, 2), c.pick([0, np.pi / 2]))
                if c.rng.random() < 0.25:
                    c.car(x, y + side * 3, 0, 0.6)


@scene("sparse residential area", "grass meadow", density="moderate sparse")
def sparseresidential(c: Scenery, v: Values) -> None:
    bend = c.rng.uniform(25, 45)
    c.road(path(bend, c.rng.uniform(0, 6)), 12, kerb=(150, 140, 116), dashed=False)
    gap = 42 * SPACING[v["density"]] / 1.2
    c.trees(30, 15)
    for middle in product(np.arange(-150, 151, gap), repeat=2):
        x, y = middle + c.rng.uniform(-0.2, 0.2, 2) * gap
        c.house(x, y, *c.rng.uniform(24, 32, 2), c.rng.uniform(0, np.pi))
        if c.rng.random() < 0.2:
            c.oval(x + 22, y, 6, 4, (96, 164, 180))
        c.tree(x - 22, y + 8, c.rng.uniform(6, 10))


@scene("christmas tree farm", "grass meadow soil", density="dense moderate sparse")
def christmastreefarm(c: Scenery, v: Values) -> None:
    stops = np.arange(-175, 176, 11.5 * SPACING[v["density"]])
    points = np.stack(np.meshgrid(stops, stops), -1).reshape(-1, 2)
    points = points[c.rng.random(len(points)) < 0.95]
    c.shrubs(c.rng.normal(points, 0.5), c.rng.uniform(3.4, 5.2, len(points)), c.tone((46, 74, 46)), 3)
    if c.rng.random() < 0.5:
        c.strip(40, 16, c.tone((160, 142, 112)))
    c.clutter(1, 100)


@scene("mobile home park", "grass meadow soil", density="dense moderate sparse", trees=(10, 10))
def mobilehomepark(c: Scenery, v: Values) -> None:
    gap = 19 * SPACING[v["density"]]
    slant = c.rng.uniform(0.2, 0.6)
    for y in np.arange(-160, 161, 62):
        c.road([(-200, y), (200, y)], 12, dashed=False)
        for x in np.arange(-190, 191, gap):
            if c.rng.random() < 0.94:
                color = c.pick([(216, 214, 206), (190, 188, 182), (168, 156, 140)])
                c.house(x, y + 31, 36, 11, np.pi / 2 - slant, color, 5)
            if c.rng.random() < 0.35:
                c.car(x + gap / 2, y + 10, slant, 0.7)


@scene("shipping yard", "concrete asphalt", density="dense moderate sparse")
def shippingyard(c: Scenery, v: Values) -> None:
    palette = [(150, 66, 52), (58, 92, 150), (62, 112, 80), (206, 204, 198), (172, 118, 56), (120, 124, 128)]
    keep = {"dense": 0.96, "moderate": 0.5, "sparse": 0.16}[v["density"]]
    for y in np.arange(-150, 151, 44):
        c.strip(y + 21, 1.2, (206, 190, 110))
        for x in np.arange(-170, 171, 33):
            if c.rng.random() < keep:
                for row in (-10.5, 0, 10.5):
                    c.rect(x, y + row, 30, 9.5, c.tone(c.pick(palette), 10), 0, 6)
    for y in c.rng.choice(np.arange(-128, 173, 44), 2, replace=False):
        c.truck(c.rng.uniform(-90, 90), y, 0, 0.8)
