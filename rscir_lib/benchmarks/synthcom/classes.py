"""The classes of scenes: a painter each, (canvas, values) -> None, the ground being there already."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from rscir_lib.benchmarks.synthcom.canvas import ASPHALT, COLORS, LINE, NATURAL, PAVED, Canvas, turned
from rscir_lib.benchmarks.synthcom.things import (
    VEHICLES,
    boat,
    car,
    clutter,
    dashes,
    house,
    path,
    plane,
    rails,
    road,
    shrubs,
    spots,
    tree,
    trees,
    truck,
)


@dataclass(frozen=True)
class SceneClass:
    paint: Callable[[Canvas, dict[str, str]], None]
    words: str
    grounds: tuple[str, ...]
    attributes: dict[str, tuple[str, ...]]


CLASSES: dict[str, SceneClass] = {}


def scene(words: str, grounds: str = " ".join(NATURAL), **attributes: str):
    """Registers a painter under its name: the class in words, what it can stand on, the values it varies in."""

    def register(paint):
        options = {attribute: tuple(values.split()) for attribute, values in attributes.items()}
        CLASSES[paint.__name__] = SceneClass(paint, words, tuple(grounds.split()), options)
        return paint

    return register


@scene(
    "airplane",
    "concrete grass sand",
    color="white blue red",
    context="concrete grass sand",
    quantity="one two three many",
)
def airplane(c, v):
    clutter(c, 3, 130)
    if v["context"] == "concrete":
        for x in (-90, 0, 90):
            c.line([(x, -200), (x, 200)], 1.2, (196, 176, 90))
        c.rect(0, 120, 300, 26, c.tone(ASPHALT))
    if v["context"] == "sand":
        c.line(path(14, 1, y=95), 12, c.tone((172, 152, 118)))
    points, room = spots(c, v["quantity"])
    heading = c.rng.uniform(0, 2 * np.pi)
    for x, y in points:
        plane(c, x, y, room, heading + c.rng.normal(0, 0.12), COLORS[v["color"]])


@scene("storage tank", "grass soil concrete sand", color="white grey red", quantity="one two three many")
def storagetank(c, v):
    clutter(c, 3, 130)
    for offset in c.rng.uniform(-140, 140, 2):
        c.strip(offset, 9, c.tone(PAVED))
    points, room = spots(c, v["quantity"])
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
    "tennis court",
    "grass concrete trees",
    color="blue green red",
    context="grass concrete trees",
    quantity="one two three",
)
def tenniscourt(c, v):
    clutter(c, 4, 130)
    points, _ = spots(c, v["quantity"])
    long, wide = (116, 62) if v["quantity"] == "one" else (92, 50)
    if v["quantity"] == "three":
        points = np.array([(0, -56), (0, 0), (0, 56)])
    elif v["quantity"] == "two":
        points = np.array([(0, -31), (0, 31)])
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
    trees(c, 6, 95)


@scene(
    "swimming pool",
    "grass concrete sand trees",
    context="grass concrete sand trees",
    quantity="one two",
    shape="oval rectangular kidney round",
)
def swimmingpool(c, v):
    house(c, *c.rng.uniform(-20, 20, 1), 118, 120, 56)
    clutter(c, 2, 125)
    points, room = spots(c, v["quantity"])
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
    trees(c, 7, 88)


@scene("nursing home", "grass meadow", color="red grey white brown")
def nursinghome(c, v):
    road(c, path(6, y=100), 18)
    c.rect(-10, 66, 120, 26, c.tone(ASPHALT))
    for x in c.rng.choice(np.arange(-60, 50, 12), 5, replace=False):
        car(c, x, 66, np.pi / 2, 0.9)
    color, wing = COLORS[v["color"]], c.rng.uniform(60, 84)
    plan = c.pick(["H", "U", "E"])
    house(c, 0, {"H": 0, "U": 30, "E": 30}[plan] - 18, 150, 30, 0, color, 12)
    for x in {"H": (-62, 62), "U": (-62, 62), "E": (-62, 0, 62)}[plan]:
        house(c, x, {"H": -18, "U": -14, "E": -14}[plan], wing, 28, np.pi / 2, color, 12)
    clutter(c, 3, 130)
    trees(c, 10, 85)


SPACING = {"dense": 1.0, "moderate": 1.6, "sparse": 2.7}


@scene("dense residential area", "grass meadow", density="dense moderate")
def denseresidential(c, v):
    gap = 28 * SPACING[v["density"]]
    for y in np.arange(-180, 181, 2 * gap + 20):
        road(c, [(-200, y), (200, y)], 11, dashed=False)
        for x in np.arange(-185, 186, gap):
            for side in (-1, 1):
                if c.rng.random() < 0.93:
                    px, py = c.rng.normal((x, y + side * (gap * 0.55 + 10)), 2)
                    house(c, px, py, *c.rng.uniform(19, 25, 2), c.pick([0, np.pi / 2]))
                if c.rng.random() < 0.25:
                    car(c, x, y + side * 3, 0, 0.6)
    trees(c, 14, 20)


@scene("sparse residential area", "grass meadow", density="moderate sparse")
def sparseresidential(c, v):
    bend = c.rng.uniform(25, 45)
    road(c, path(bend, c.rng.uniform(0, 6)), 12, kerb=(150, 140, 116), dashed=False)
    gap = 42 * SPACING[v["density"]] / 1.2
    trees(c, 30, 15)
    for x in np.arange(-150, 151, gap):
        for y in np.arange(-150, 151, gap):
            px, py = (x, y) + c.rng.uniform(-0.2, 0.2, 2) * gap
            house(c, px, py, *c.rng.uniform(24, 32, 2), c.rng.uniform(0, np.pi))
            if c.rng.random() < 0.2:
                c.oval(px + 22, py, 6, 4, (96, 164, 180))
            tree(c, px - 22, py + 8, c.rng.uniform(6, 10))


@scene("christmas tree farm", "grass meadow soil", density="dense moderate sparse")
def christmastreefarm(c, v):
    stops = np.arange(-175, 176, 11.5 * SPACING[v["density"]])
    points = np.stack(np.meshgrid(stops, stops), -1).reshape(-1, 2)
    points = points[c.rng.random(len(points)) < 0.95]
    shrubs(c, c.rng.normal(points, 0.5), c.rng.uniform(3.4, 5.2, len(points)), c.tone((46, 74, 46)), 3)
    if c.rng.random() < 0.5:
        c.strip(40, 16, c.tone((160, 142, 112)))
    clutter(c, 1, 100)


@scene("mobile home park", "grass meadow soil", density="dense moderate sparse")
def mobilehomepark(c, v):
    gap = 19 * SPACING[v["density"]]
    slant = c.rng.uniform(0.2, 0.6)
    for y in np.arange(-160, 161, 62):
        road(c, [(-200, y), (200, y)], 12, dashed=False)
        for x in np.arange(-190, 191, gap):
            if c.rng.random() < 0.94:
                color = c.pick([(216, 214, 206), (190, 188, 182), (168, 156, 140)])
                house(c, x, y + 31, 36, 11, np.pi / 2 - slant, color, 5)
            if c.rng.random() < 0.35:
                car(c, x + gap / 2, y + 10, slant, 0.7)
    trees(c, 10, 10)


@scene("shipping yard", "concrete asphalt", density="dense moderate sparse")
def shippingyard(c, v):
    palette = [(150, 66, 52), (58, 92, 150), (62, 112, 80), (206, 204, 198), (172, 118, 56), (120, 124, 128)]
    keep = {"dense": 0.96, "moderate": 0.5, "sparse": 0.16}[v["density"]]
    for y in np.arange(-150, 151, 44):
        c.strip(y + 21, 1.2, (206, 190, 110))
        for x in np.arange(-170, 171, 33):
            if c.rng.random() < keep:
                for row in (-10.5, 0, 10.5):
                    c.rect(x, y + row, 30, 9.5, c.tone(c.pick(palette), 10), 0, 6)
    for y in c.rng.choice(np.arange(-128, 173, 44), 2, replace=False):
        truck(c, c.rng.uniform(-90, 90), y, 0, 0.8)


@scene("closed road", shape="straight curved round")
def closedroad(c, v):
    for x, y in c.rng.uniform((-150, 66), (150, 140), (6, 2)):
        house(c, x, y * c.pick([-1, 1]), *c.rng.uniform(20, 34, 2), c.rng.normal(0, 0.2))
    end = c.rng.uniform(20, 50)
    bend = 42 if v["shape"] == "curved" else 0
    if v["shape"] == "round":
        for r, color in ((34, PAVED), (30, ASPHALT)):
            c.oval(end, 0, r, r, c.tone(color, 4))
    points = path(bend, c.rng.uniform(-0.5, 0.5), end)
    road(c, points, 22)
    if v["shape"] == "round":
        c.oval(end, 0, 30, 30, c.tone(ASPHALT, 3))
        c.oval(end, 0, 9, 9, c.tone((104, 118, 76)))
    for k in c.rng.integers(2, 20, 2):
        car(c, *points[k] + (0, 5), 0)
    for x, y in c.rng.uniform((end + 45, -70), (150, 70), (5, 2)):
        tree(c, x, y, c.rng.uniform(7, 12))
    trees(c, 6, 80)


@scene("intersection", shape="cross round")
def intersection(c, v):
    for x in (-100, 100):
        for y in (-100, 100):
            house(c, *c.rng.normal((x, y), 7), *c.rng.uniform(40, 70, 2), 0)
            tree(c, x * 0.55, y * 0.6, c.rng.uniform(6, 10))
    for reach in ([(-200, 0), (200, 0)], [(0, -200), (0, 200)]):
        road(c, reach, 32)
    if v["shape"] == "round":
        for r, color in ((66, PAVED), (62, ASPHALT), (29, PAVED), (26, (108, 122, 80))):
            c.oval(0, 0, r, r, c.tone(color, 4))
        tree(c, 4, -3, 9)
    else:
        c.rect(0, 0, 32, 32, c.tone(ASPHALT, 3))
        for turn in range(4):
            for stripe in range(-12, 13, 6):
                c.rect(*np.array([24, stripe]) @ turned(turn * np.pi / 2), 9, 3, LINE, turn * np.pi / 2)
    for x in c.rng.uniform(70, 140, 3):
        car(c, c.pick([-x, x]), c.pick([-8, 8]))
        car(c, c.pick([-8, 8]), c.pick([-x, x]), np.pi / 2)


def under(c: Canvas, context: str):
    """What a bridge or an overpass crosses, along the y axis."""
    if context == "water":
        band = path(10, c.rng.uniform(0, 6))[:, ::-1]
        width = c.rng.uniform(55, 85)
        c.band(band, (width, 0), "water")
    elif context == "road":
        for x in (-20, 20):
            road(c, [(x, -200), (x, 200)], 30)
            for y in c.rng.uniform(-130, 130, 3):
                car(c, x + c.pick([-7, 7]), y, np.pi / 2)
    elif context == "railway":
        for x in (-18, 18):
            rails(c, x)
    elif context == "sand":
        band = path(14, c.rng.uniform(0, 6))[:, ::-1]
        c.band(band, (70, 0), "sand")
        c.line(band, 10, c.tone((160, 144, 112)))
    else:
        c.line(path(20, c.rng.uniform(0, 6))[:, ::-1], 7, c.tone((170, 156, 124)))
        for x, y in c.rng.uniform(-120, 120, (8, 2)):
            tree(c, x, y, c.rng.uniform(6, 11))


def span(c: Canvas, v: dict[str, str], width: float, lanes: int):
    """A deck along the x axis over what it crosses, with its shadow and cars."""
    under(c, v["context"])
    c.poly(np.array([(-105, -width / 2), (105, -width / 2), (105, width / 2), (-105, width / 2)]), PAVED, 20)
    c.strip(0, width + 6, c.tone((186, 184, 178), 5))
    c.strip(0, width, c.tone((118, 117, 116), 6))
    for y in np.linspace(-width / 2, width / 2, lanes + 1)[1:-1]:
        dashes(c, y, 9, 20)
    for x in c.rng.uniform(-120, 120, 4):
        car(c, x, width / lanes * (c.rng.integers(lanes) + 0.5) - width / 2)
    for x in (-96, 96):
        c.rect(x, 0, 4, width + 12, c.tone((150, 146, 138)))


@scene("bridge", "meadow soil grass", context="water sand grass")
def bridge(c, v):
    span(c, v, 26, 2)
    for y in (-26, 26):
        for x in (-60, 0, 60):
            c.rect(x, y * 0.72, 8, 8, c.tone((172, 168, 160)), 0, 6)
    trees(c, 8, 120)


@scene("overpass", context="road railway grass")
def overpass(c, v):
    clutter(c, 3, 120)
    span(c, v, 46, 4)
    c.line([(-200, -90), (-60, -60), (-36, -23)], 12, c.tone((118, 117, 116)))
    trees(c, 4, 120)


@scene("freeway", existence="cars empty trucks")
def freeway(c, v):
    clutter(c, 4, 120)
    for y in (-38, 38):
        c.strip(y, 62, c.tone((150, 148, 142), 5))
        c.strip(y, 54, c.tone((116, 115, 114), 6))
        for lane in (-9, 9):
            dashes(c, y + lane, 11, 24)
        if v["existence"] != "empty":
            for x in np.arange(-120, 121, 46 if v["existence"] == "cars" else 66):
                if c.rng.random() < 0.75:
                    px, py = x + c.rng.uniform(-12, 12), y + c.pick([-18, 0, 18])
                    VEHICLES[v["existence"]](c, px, py, 0 if y < 0 else np.pi, 1.4)
    trees(c, 8, 105)


@scene("runway", "grass meadow soil", existence="airplane empty")
def runway(c, v):
    c.strip(105, 22, c.tone((128, 126, 122)))
    c.line([(60, 105), (60, 0)], 22, c.tone((128, 126, 122)))
    c.strip(0, 84, c.tone((132, 131, 128)))
    c.strip(0, 74, c.tone((104, 104, 105)))
    for x in range(-200, 200, 42):
        c.rect(x, 0, 24, 3, LINE)
    start = c.rng.uniform(-110, -70)
    for y in np.linspace(-30, 30, 8):
        c.rect(start, y, 30, 4, LINE)
    for y in (-36, 36):
        c.strip(y, 1.4, LINE)
    for _ in range(3):
        c.rect(start + c.rng.uniform(40, 120), c.rng.normal(0, 9), 60, 4, (52, 52, 54, 60))
    if v["existence"] == "airplane":
        (x, y, span), turn = c.rng.normal((30, 0, 76), (18, 4, 5)), c.pick([0, np.pi])
        color = c.pick(["white", "white", "grey", "red"])  # blue airplanes are held out
        plane(c, x, y, span, turn, COLORS[color])
    clutter(c, 2, 130)


def coast(c: Canvas, y: float, houses: float):
    """Land with a quay and houses; water from ``y`` on."""
    c.rect(0, y + 130, 500, 260, None, material="water")
    c.rect(0, y - 12, 500, 30, c.tone(PAVED))
    for x, back in c.rng.uniform((-140, 45), (140, 75), (3, 2)):
        house(c, x, houses - back, *c.rng.uniform(26, 44, 2), 0)


@scene("harbor", existence="boats cars empty")
def harbor(c, v):
    coast(c, -40, -52)
    for x in (-95, -15, 65, 145):
        c.rect(x, 45, 8, 160, c.tone((176, 166, 150)), 0, 3)
        for y in range(-10, 120, 24):
            for side in (-1, 1):
                c.rect(x + side * 15, y, 24, 2.5, c.tone((170, 160, 146)))
                if v["existence"] == "boats" and c.rng.random() < 0.8:
                    boat(c, x + side * 20, y + 12, np.pi * (side < 0) + c.rng.normal(0, 0.05), 0.95)
    for x in np.linspace(-120, 120, 12) if v["existence"] == "cars" else ():
        for row in (-61, -43):
            car(c, x, row, np.pi / 2, 1.05)


@scene("ferry terminal", existence="boats cars empty")
def ferryterminal(c, v):
    coast(c, -10, -62)
    c.rect(0, -42, 230, 60, c.tone((150, 148, 144)))
    for y in (-60, -48, -36, -24):
        c.line([(-110, y), (110, y)], 1.3, LINE)
    house(c, -62, -42, 70, 30, 0, c.pick([(206, 204, 198), (128, 130, 134), (96, 110, 124)]), 12)
    for x in (-42, 42):
        c.rect(x, 40, 11, 100, c.tone((160, 156, 150)), 0, 4)
    if v["existence"] == "boats":
        for x in (0, 84)[: c.rng.integers(1, 3)]:
            hull = np.array([[-50, -17], [34, -17], [54, -7], [54, 7], [34, 17], [-50, 17]])
            c.poly(hull @ turned(np.pi / 2) + (x, 62), c.tone((226, 226, 222), 5), 8)
            c.rect(x, 56, 22, 62, c.tone(c.pick([(196, 198, 200), (120, 140, 164), (176, 168, 150)])), 0, 5)
            c.rect(x, 40, 10, 12, c.tone(c.pick(list(COLORS.values()))), 0, 5)
    elif v["existence"] == "cars":
        for y in (-54, -42, -30):
            for x in np.arange(-8, 105, 20):
                if c.rng.random() < 0.9:
                    car(c, x, y, 0, 0.95)


def stalls(c: Canvas, existence: str, rows, pitch: float, size: float, reach: float):
    """Rows of parking stalls with their lines; vehicles stand in most of them, or in none."""
    for y in rows:
        c.line([(-reach, y), (reach, y)], 1.4, LINE)
        for x in np.arange(-reach, reach + 1, pitch):
            c.line([(x, y - 11 * size), (x, y + 11 * size)], 1.3, LINE)
    if existence != "empty":
        step = pitch if existence == "cars" else 1.15 * pitch
        for y in rows if existence == "cars" else rows[::2]:
            for x in np.arange(-reach + step / 2, reach, step):
                if c.rng.random() < 0.78:
                    VEHICLES[existence](c, x, y + c.rng.normal(0, 1), c.pick([1, -1]) * np.pi / 2, size)


@scene("parking space", existence="cars empty trucks")
def parkingspace(c, v):
    c.rect(0, 0, 300, 170, c.tone(ASPHALT))
    stalls(c, v["existence"], (-58, 0, 58), 19, 1.5, 140)
    trees(c, 8, 100)


@scene("parking lot", existence="cars empty trucks")
def parkinglot(c, v):
    c.rect(0, -10, 230, 190, c.tone(ASPHALT))
    stalls(c, v["existence"], (-88, -58, -28, 2, 32, 62), 13, 0.95, 102)
    house(c, 0, 118, 150, 44, 0)
    for x in (-60, 60):
        tree(c, x, -13, 7)
    trees(c, 6, 120)


@scene("wastewater treatment plant", "grass meadow concrete", shape="round rectangular")
def wastewatertreatmentplant(c, v):
    clutter(c, 3, 128)
    water = c.tone(c.pick([(58, 72, 62), (74, 84, 78), (84, 78, 60)]))
    for x in (-56, 56):
        c.line([(x, -200), (x, 200)], 8, c.tone(PAVED))
        for y in (-56, 56) if c.rng.random() < 0.8 else (0,):
            r = c.rng.uniform(36, 44)
            if v["shape"] == "round":
                c.oval(x, y, r, r, c.tone((186, 182, 174)), height=3)
                c.oval(x, y, r * 0.88, r * 0.88, water)
                c.oval(x, y, r * 0.16, r * 0.16, c.tone(PAVED))
                c.line([(x, y), (x, y) + r * np.array([1, 0]) @ turned(c.rng.uniform(0, 6))], 3, LINE)
            else:
                c.rect(x, y, 2 * r, 1.7 * r, c.tone((186, 182, 174)), 0, 3)
                for k in (-1, 0, 1):
                    c.rect(x, y + k * r * 0.52, 1.84 * r, r * 0.42, water)
    trees(c, 5, 110)


@scene("river", "grass meadow trees", shape="straight curved")
def river(c, v):
    bend, width = (46 if v["shape"] == "curved" else 0), c.rng.uniform(22, 42)
    band = path(bend, c.rng.uniform(0, 6))
    if c.rng.random() < 0.5:
        c.line(band, 2 * width + 14, c.tone((176, 160, 126)))
    c.band(band, (0, width), "water")
    for x, y in band[c.rng.integers(0, 25, 16)]:
        tree(c, x, y + c.pick([-1, 1]) * (width + c.rng.uniform(6, 40)), c.rng.uniform(6, 12))
    clutter(c, 3, 115)


@scene("forest", "trees")
def forest(c, v):
    if c.rng.random() < 0.4:
        c.line(path(30, c.rng.uniform(0, 6)), c.rng.uniform(5, 10), c.tone((150, 134, 104)))
    trees(c, 12, 0)


@scene("beach", "sand")
def beach(c, v):
    edge = path(c.rng.uniform(4, 14), c.rng.uniform(0, 6), y=c.rng.uniform(-25, 15))
    sea = np.r_[edge, [(200, 300), (-200, 300)]]
    c.poly(sea - (0, 3), c.tone((160, 142, 110)))
    c.poly(sea, None, material="water")
    for offset in c.rng.uniform(2, 26, 3):
        c.line(edge + np.array([0, offset]), c.rng.uniform(1.5, 4.5), c.tone((214, 220, 216)))
    for x, y in c.rng.uniform((-120, -70), (120, -35), (7, 2)):
        c.blot(*c.place((x, y)), 3 * c.zoom, c.tone(c.pick(list(COLORS.values()))))
    if c.rng.random() < 0.5:
        road(c, [(-200, -112), (200, -112)], 14)


@scene("chaparral", "meadow soil sand")
def chaparral(c, v):
    shrubs(c, c.rng.uniform(-160, 160, (240, 2)), c.rng.uniform(2, 6, 240), (80, 88, 56), 10)


@scene("golf course", "grass")
def golfcourse(c, v):
    for x, y, rx, ry, angle in c.rng.uniform((-70, -90, 60, 22, -0.5), (70, 90, 110, 36, 0.5), (3, 5)):
        c.oval(x, y, rx, ry, c.tone((122, 142, 84)), angle)
    for x, y, r in c.rng.uniform((-110, -110, 8), (110, 110, 17), (7, 3)):
        c.oval(x, y, r * 1.3, r * 0.8, c.tone((218, 206, 176)), c.rng.uniform(0, 3))
    c.oval(*c.rng.uniform(-50, 50, 2), 20, 15, c.tone((134, 166, 98)))
    if c.rng.random() < 0.5:
        c.oval(*c.rng.uniform(-80, 80, 2), 34, 20, None, c.rng.uniform(0, 3), material="water")
    trees(c, 24, 40)


@scene("baseball field", "grass meadow")
def baseballfield(c, v):
    t = np.linspace(0, np.pi / 2, 16)
    for r, color in ((170, (164, 134, 100)), (160, (112, 132, 80)), (88, (170, 136, 100))):
        fan = np.r_[[(0, 0)], r * np.stack([np.cos(t), np.sin(t)], 1)]
        c.poly(fan - 62, c.tone(color, 6))
    c.poly(np.array([(12, 12), (58, 12), (58, 58), (12, 58)]) - 62, c.tone((112, 132, 80)))
    c.oval(-28, -28, 6, 6, c.tone((176, 144, 108)))
    for end in ((110, -62), (-62, 110)):
        c.line([(-62, -62), end], 1.6, LINE)
    clutter(c, 3, 130)
    trees(c, 5, 125)
