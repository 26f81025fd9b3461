"""Painters of scenes about places: roads, bridges, harbours, parking, water and land."""

from itertools import product

import numpy as np

from rscir_lib.benchmarks.synthcom.canvas import ASPHALT, COLORS, LINE, PAVED, turned
from rscir_lib.benchmarks.synthcom.things import Scenery, Values, path, scene


@scene("closed road", shape="straight curved round", trees=(6, 80))
def closedroad(c: Scenery, v: Values) -> None:
    for x, y in c.rng.uniform((-150, 66), (150, 140), (6, 2)):
        c.house(x, y * c.pick([-1, 1]), *c.rng.uniform(20, 34, 2), c.rng.normal(0, 0.2))
    end = c.rng.uniform(20, 50)
    bend = 42 if v["shape"] == "curved" else 0
    if v["shape"] == "round":
        for r, color in ((34, PAVED), (30, ASPHALT)):
            c.oval(end, 0, r, r, c.tone(color, 4))
    points = path(bend, c.rng.uniform(-0.5, 0.5), end)
    c.road(points, 22)
    if v["shape"] == "round":
        c.oval(end, 0, 30, 30, c.tone(ASPHALT, 3))
        c.oval(end, 0, 9, 9, c.tone((104, 118, 76)))
    for k in c.rng.integers(2, 20, 2):
        c.car(*points[k] + (0, 5), 0)
    for x, y in c.rng.uniform((end + 45, -70), (150, 70), (5, 2)):
        c.tree(x, y, c.rng.uniform(7, 12))


@scene("intersection", shape="cross round")
def intersection(c: Scenery, v: Values) -> None:
    for x, y in product((-100, 100), repeat=2):
        c.house(*c.rng.normal((x, y), 7), *c.rng.uniform(40, 70, 2), 0)
        c.tree(x * 0.55, y * 0.6, c.rng.uniform(6, 10))
    for reach in ([(-200, 0), (200, 0)], [(0, -200), (0, 200)]):
        c.road(reach, 32)
    if v["shape"] == "round":
        for r, color in ((66, PAVED), (62, ASPHALT), (29, PAVED), (26, (108, 122, 80))):
            c.oval(0, 0, r, r, c.tone(color, 4))
        c.tree(4, -3, 9)
    else:
        c.rect(0, 0, 32, 32, c.tone(ASPHALT, 3))
        for turn, stripe in product(range(4), range(-12, 13, 6)):
            c.rect(*np.array([24, stripe]) @ turned(turn * np.pi / 2), 9, 3, LINE, turn * np.pi / 2)
    for x in c.rng.uniform(70, 140, 3):
        c.car(c.pick([-x, x]), c.pick([-8, 8]))
        c.car(c.pick([-8, 8]), c.pick([-x, x]), np.pi / 2)


def under(c: Scenery, context: str) -> None:
    """What a bridge or an overpass crosses, along the y axis."""
    if context == "water":
        c.band(path(10, c.rng.uniform(0, 6))[:, ::-1], (c.rng.uniform(55, 85), 0), "water")
    elif context == "road":
        for x in (-20, 20):
            c.road([(x, -200), (x, 200)], 30)
            for y in c.rng.uniform(-130, 130, 3):
                c.car(x + c.pick([-7, 7]), y, np.pi / 2)
    elif context == "railway":
        for x in (-18, 18):
            c.rails(x)
    elif context == "sand":
        band = path(14, c.rng.uniform(0, 6))[:, ::-1]
        c.band(band, (70, 0), "sand")
        c.line(band, 10, c.tone((160, 144, 112)))
    else:
        c.line(path(20, c.rng.uniform(0, 6))[:, ::-1], 7, c.tone((170, 156, 124)))
        for x, y in c.rng.uniform(-120, 120, (8, 2)):
            c.tree(x, y, c.rng.uniform(6, 11))


def span(c: Scenery, v: Values, width: float, lanes: int) -> None:
    """A deck along the x axis over what it crosses, with its shadow and cars."""
    under(c, v["context"])
    c.rect(0, 0, 210, width, PAVED, height=20)
    c.strip(0, width + 6, c.tone((186, 184, 178), 5))
    c.strip(0, width, c.tone((118, 117, 116), 6))
    for y in np.linspace(-width / 2, width / 2, lanes + 1)[1:-1]:
        c.dashes(y, 9, 20)
    for x in c.rng.uniform(-120, 120, 4):
        c.car(x, width / lanes * (c.rng.integers(lanes) + 0.5) - width / 2)
    for x in (-96, 96):
        c.rect(x, 0, 4, width + 12, c.tone((150, 146, 138)))


@scene("bridge", "meadow soil grass", context="water sand grass", trees=(8, 120))
def bridge(c: Scenery, v: Values) -> None:
    span(c, v, 26, 2)
    for y, x in product((-26, 26), (-60, 0, 60)):
        c.rect(x, y * 0.72, 8, 8, c.tone((172, 168, 160)), 0, 6)


@scene("overpass", context="road railway grass", rim=(3, 120), trees=(4, 120))
def overpass(c: Scenery, v: Values) -> None:
    span(c, v, 46, 4)
    c.line([(-200, -90), (-60, -60), (-36, -23)], 12, c.tone((118, 117, 116)))


@scene("freeway", existence="cars empty trucks", rim=(4, 120), trees=(8, 105))
def freeway(c: Scenery, v: Values) -> None:
    for y in (-38, 38):
        c.strip(y, 62, c.tone((150, 148, 142), 5))
        c.strip(y, 54, c.tone((116, 115, 114), 6))
        for lane in (-9, 9):
            c.dashes(y + lane, 11, 24)
        step, vehicle = (46, c.car) if v["existence"] == "cars" else (66, c.truck)
        for x in np.arange(-120, 121, step) if v["existence"] != "empty" else ():
            if c.rng.random() < 0.75:
                px, py = x + c.rng.uniform(-12, 12), y + c.pick([-18, 0, 18])
                vehicle(px, py, 0 if y < 0 else np.pi, 1.4)


@scene("runway", "grass meadow soil", existence="airplane empty")
def runway(c: Scenery, v: Values) -> None:
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
        c.plane(x, y, span, turn, COLORS[color])
    c.clutter(2, 130)


def coast(c: Scenery, y: float, houses: float) -> None:
    """Land with a quay and houses; water from `y` on."""
    c.rect(0, y + 130, 500, 260, None, material="water")
    c.rect(0, y - 12, 500, 30, c.tone(PAVED))
    for x, back in c.rng.uniform((-140, 45), (140, 75), (3, 2)):
        c.house(x, houses - back, *c.rng.uniform(26, 44, 2), 0)


@scene("harbor", existence="boats cars empty")
def harbor(c: Scenery, v: Values) -> None:
    coast(c, -40, -52)
    for x in (-95, -15, 65, 145):
        c.rect(x, 45, 8, 160, c.tone((176, 166, 150)), 0, 3)
        for y in range(-10, 120, 24):
            for side in (-1, 1):
                c.rect(x + side * 15, y, 24, 2.5, c.tone((170, 160, 146)))
                if v["existence"] == "boats" and c.rng.random() < 0.8:
                    c.boat(x + side * 20, y + 12, np.pi * (side < 0) + c.rng.normal(0, 0.05), 0.95)
    for x, row in product(np.linspace(-120, 120, 12), (-61, -43)) if v["existence"] == "cars" else ():
        c.car(x, row, np.pi / 2, 1.05)


@scene("ferry terminal", existence="boats cars empty")
def ferryterminal(c: Scenery, v: Values) -> None:
    coast(c, -10, -62)
    c.rect(0, -42, 230, 60, c.tone((150, 148, 144)))
    for y in (-60, -48, -36, -24):
        c.line([(-110, y), (110, y)], 1.3, LINE)
    c.house(-62, -42, 70, 30, 0, c.pick([(206, 204, 198), (128, 130, 134), (96, 110, 124)]), 12)
    for x in (-42, 42):
        c.rect(x, 40, 11, 100, c.tone((160, 156, 150)), 0, 4)
    if v["existence"] == "boats":
        for x in (0, 84)[: c.rng.integers(1, 3)]:
            hull = np.array([[-50, -17], [34, -17], [54, -7], [54, 7], [34, 17], [-50, 17]])
            c.poly(hull @ turned(np.pi / 2) + (x, 62), c.tone((226, 226, 222), 5), 8)
            c.rect(x, 56, 22, 62, c.tone(c.pick([(196, 198, 200), (120, 140, 164), (176, 168, 150)])), 0, 5)
            c.rect(x, 40, 10, 12, c.tone(c.pick(list(COLORS.values()))), 0, 5)
    elif v["existence"] == "cars":
        for y, x in product((-54, -42, -30), np.arange(-8, 105, 20)):
            if c.rng.random() < 0.9:
                c.car(x, y, 0, 0.95)


def stalls(c: Scenery, existence: str, rows: tuple[int, ...], pitch: float, size: float, reach: float) -> None:
    """Rows of parking stalls with their lines; vehicles stand in most of them, or in none."""
    for y in rows:
        c.line([(-reach, y), (reach, y)], 1.4, LINE)
        for x in np.arange(-reach, reach + 1, pitch):
            c.line([(x, y - 11 * size), (x, y + 11 * size)], 1.3, LINE)
    if existence != "empty":
        rows, step, vehicle = (rows, pitch, c.car) if existence == "cars" else (rows[::2], 1.15 * pitch, c.truck)
        for y, x in product(rows, np.arange(-reach + step / 2, reach, step)):
            if c.rng.random() < 0.78:
                vehicle(x, y + c.rng.normal(0, 1), c.pick([1, -1]) * np.pi / 2, size)


@scene("parking space", existence="cars empty trucks", trees=(8, 100))
def parkingspace(c: Scenery, v: Values) -> None:
    c.rect(0, 0, 300, 170, c.tone(ASPHALT))
    stalls(c, v["existence"], (-58, 0, 58), 19, 1.5, 140)


@scene("parking lot", existence="cars empty trucks", trees=(6, 120))
def parkinglot(c: Scenery, v: Values) -> None:
    c.rect(0, -10, 230, 190, c.tone(ASPHALT))
    stalls(c, v["existence"], (-88, -58, -28, 2, 32, 62), 13, 0.95, 102)
    c.house(0, 118, 150, 44, 0)
    for x in (-60, 60):
        c.tree(x, -13, 7)


@scene("wastewater treatment plant", "grass meadow concrete", shape="round rectangular", rim=(3, 128), trees=(5, 110))
def wastewatertreatmentplant(c: Scenery, v: Values) -> None:
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


@scene("river", "grass meadow trees", shape="straight curved")
def river(c: Scenery, v: Values) -> None:
    bend, width = (46 if v["shape"] == "curved" else 0), c.rng.uniform(22, 42)
    band = path(bend, c.rng.uniform(0, 6))
    if c.rng.random() < 0.5:
        c.line(band, 2 * width + 14, c.tone((176, 160, 126)))
    c.band(band, (0, width), "water")
    for x, y in band[c.rng.integers(0, 25, 16)]:
        c.tree(x, y + c.pick([-1, 1]) * (width + c.rng.uniform(6, 40)), c.rng.uniform(6, 12))
    c.clutter(3, 115)


@scene("forest", "trees", trees=(12, 0))
def forest(c: Scenery, v: Values) -> None:
    if c.rng.random() < 0.4:
        c.line(path(30, c.rng.uniform(0, 6)), c.rng.uniform(5, 10), c.tone((150, 134, 104)))


@scene("beach", "sand")
def beach(c: Scenery, v: Values) -> None:
    edge = path(c.rng.uniform(4, 14), c.rng.uniform(0, 6), y=c.rng.uniform(-25, 15))
    sea = np.r_[edge, [(200, 300), (-200, 300)]]
    c.poly(sea - (0, 3), c.tone((160, 142, 110)))
    c.poly(sea, None, material="water")
    for offset in c.rng.uniform(2, 26, 3):
        c.line(edge + np.array([0, offset]), c.rng.uniform(1.5, 4.5), c.tone((214, 220, 216)))
    for x, y in c.rng.uniform((-120, -70), (120, -35), (7, 2)):
        c.blot(*c.place((x, y)), 3 * c.zoom, c.tone(c.pick(list(COLORS.values()))))
    if c.rng.random() < 0.5:
        c.road([(-200, -112), (200, -112)], 14)


@scene("chaparral", "meadow soil sand")
def chaparral(c: Scenery, v: Values) -> None:
    c.shrubs(c.rng.uniform(-160, 160, (240, 2)), c.rng.uniform(2, 6, 240), (80, 88, 56), 10)


@scene("golf course", "grass", trees=(24, 40))
def golfcourse(c: Scenery, v: Values) -> None:
    for x, y, rx, ry, angle in c.rng.uniform((-70, -90, 60, 22, -0.5), (70, 90, 110, 36, 0.5), (3, 5)):
        c.oval(x, y, rx, ry, c.tone((122, 142, 84)), angle)
    for x, y, r in c.rng.uniform((-110, -110, 8), (110, 110, 17), (7, 3)):
        c.oval(x, y, r * 1.3, r * 0.8, c.tone((218, 206, 176)), c.rng.uniform(0, 3))
    c.oval(*c.rng.uniform(-50, 50, 2), 20, 15, c.tone((134, 166, 98)))
    if c.rng.random() < 0.5:
        c.oval(*c.rng.uniform(-80, 80, 2), 34, 20, None, c.rng.uniform(0, 3), material="water")


@scene("baseball field", "grass meadow", trees=(5, 125))
def baseballfield(c: Scenery, v: Values) -> None:
    t = np.linspace(0, np.pi / 2, 16)
    for r, color in ((170, (164, 134, 100)), (160, (112, 132, 80)), (88, (170, 136, 100))):
        fan = np.r_[[(0, 0)], r * np.stack([np.cos(t), np.sin(t)], 1)]
        c.poly(fan - 62, c.tone(color, 6))
    c.poly(np.array([(12, 12), (58, 12), (58, 58), (12, 58)]) - 62, c.tone((112, 132, 80)))
    c.oval(-28, -28, 6, 6, c.tone((176, 144, 108)))
    for end in ((110, -62), (-62, 110)):
        c.line([(-62, -62), end], 1.6, LINE)
    c.clutter(3, 130)
