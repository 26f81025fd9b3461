"""SynthCom: a synthetic benchmark of PatternCom's shape, drawn with Pillow and numpy.

A scene is first *described* (class and attribute values, sampled from its own random stream), then *painted*.
Benchmark and training scenes come from disjoint streams; training scenes never show a combination of ``HELD_OUT``.
"""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFilter
from tqdm.auto import tqdm

from rscir_lib.parallel import parallel_map
from rscir_lib.patterncom import ATTRIBUTES, read_patterncom

VERSION = 1  # of the drawing; same seed and number: same pixels, with the pinned numpy and Pillow
SIZE = 256  # pixels
UNLABELLED = 0.27  # share of scenes of the labelled classes that no attribute file lists

HELD_OUT = frozenset(
    {
        ("color", "airplane", "blue"),
        ("color", "nursinghome", "grey"),
        ("color", "tenniscourt", "red"),
        ("context", "airplane", "grass"),
        ("context", "swimmingpool", "sand"),
        ("density", "mobilehomepark", "moderate"),
        ("existence", "freeway", "trucks"),
        ("existence", "harbor", "cars"),
        ("quantity", "storagetank", "three"),
        ("quantity", "swimmingpool", "two"),
        ("shape", "swimmingpool", "round"),
    }
)

# --- Palette and texture --------------------------------------------------------------------------

COLORS = {
    "white": (224, 224, 219),
    "grey": (134, 137, 140),
    "red": (150, 66, 52),
    "blue": (58, 92, 150),
    "green": (62, 112, 80),
    "brown": (112, 84, 62),
}
ROOFS = [COLORS[name] for name in ("red", "grey", "white", "brown")] + [(128, 112, 98), (92, 92, 96)]
ASPHALT, PAVED, LINE, FOLIAGE = (98, 98, 99), (164, 161, 154), (222, 220, 208), (62, 80, 46)
MATERIALS = {  # the two tones of a surface, and the tile that mixes them
    "grass": ((94, 112, 68), (140, 142, 98), "soft"),
    "meadow": ((120, 118, 78), (158, 148, 112), "soft"),
    "soil": ((126, 104, 80), (160, 138, 110), "soft"),
    "sand": ((188, 168, 130), (214, 197, 160), "soft"),
    "concrete": ((150, 148, 143), (176, 173, 166), "soft"),
    "asphalt": ((92, 92, 93), (114, 113, 111), "soft"),
    "water": ((40, 66, 80), (64, 94, 102), "soft"),
    "trees": ((28, 42, 26), (96, 112, 68), "canopy"),
}
OCTAVES = {  # cells across a tile and their weight
    "soft": [(4, 1), (8, 1), (16, 0.8), (64, 0.5), (256, 0.4), (1024, 0.5)],
    "cloud": [(8, 1), (16, 0.7), (32, 0.4), (128, 0.15)],
    "grain": [(512, 1), (1024, 2)],
}
NATURAL = ("grass", "meadow", "soil", "concrete")


@cache
def _tile(kind: str, side: int) -> Image.Image:
    """A square grey-level texture, the same on every machine: ``canopy`` or one of ``OCTAVES``."""
    if side < 1024:
        return _tile(kind, 1024).resize((side, side), Image.Resampling.BOX)
    rng = np.random.default_rng(7)
    if kind == "canopy":
        tile = Image.new("L", (1024, 1024), 60)
        draw = ImageDraw.Draw(tile)
        for x, y, r, tone in rng.uniform((-10, -10, 7, 90), (1034, 1034, 17, 225), (6000, 4)):
            draw.ellipse((x - r, y - r, x + r, y + r), int(tone * 0.35))
            draw.ellipse((x - r, y - r, x + r * 0.6, y + r * 0.6), int(tone * 0.75))
            draw.ellipse((x - r * 0.8, y - r * 0.8, x + r * 0.1, y + r * 0.1), int(tone))
        return tile.filter(ImageFilter.GaussianBlur(1))
    field = np.zeros((1024, 1024), np.float32)
    for cells, weight in OCTAVES[kind]:
        noise = Image.fromarray(rng.standard_normal((cells, cells)).astype(np.float32))
        field += weight * np.asarray(noise.resize((1024, 1024), Image.Resampling.BICUBIC))
    return Image.fromarray(np.clip(128 + 48 * field / field.std(), 0, 255).astype(np.uint8))


class Canvas:
    """A scene under the brush, drawn at twice its size; units are pixels of a 256-pixel scene, origin at its centre.

    What is drawn gets turned, scaled and shifted by the scene's own amounts; heights cast shadows away from the sun.
    """

    def __init__(self, rng: np.random.Generator, size: int, ground: str):
        self.rng, self.side = rng, 2 * size
        self.unit = self.side / SIZE
        angle, zoom, sun = rng.uniform((0, 0.84, 0), (2 * np.pi, 1.14, 2 * np.pi))
        self.zoom = zoom * self.unit
        self.matrix = self.zoom * _turn(angle)
        self.origin = self.side / 2 + self.unit * rng.uniform(-12, 12, 2)
        self.sun = self.zoom * rng.uniform(0.5, 1.1) * np.array([np.cos(sun), np.sin(sun)])
        self.shadow = (12, 14, 28, int(rng.uniform(70, 135)))
        self.image = self.material(ground)
        self.draw = ImageDraw.Draw(self.image, "RGBA")
        patches = rng.uniform((-150, -150, 60, 60, 0), (150, 150, 200, 140, 3), (3, 5))
        for x, y, w, h, angle in patches if ground != "trees" else ():
            self.rect(x, y, w, h, (*self.tone(self.pick(MATERIALS[self.pick(NATURAL)][:2])), 70), angle)

    def pick(self, options):
        return options[self.rng.integers(len(options))]

    def tone(self, color, spread: float = 8) -> tuple[int, ...]:
        """The colour, a little lighter or darker and off its hue."""
        shift, *hue = (spread * self.rng.standard_normal(4)).tolist()
        return tuple(min(255, max(0, int(v + shift + h / 4))) for v, h in zip(color, hue, strict=True))

    def sees(self, x, y, r=30) -> bool:
        """Whether a thing of radius r at (x, y) can show."""
        px, py = self.place((x, y)).tolist()
        margin = r * self.zoom
        return -margin < px < self.side + margin and -margin < py < self.side + margin

    def crop(self, kind: str, side: int) -> Image.Image:
        tile = _tile(kind, int(1024 * side / self.side * self.unit / 2))
        x, y = (self.rng.random(2) * (tile.width - side)).astype(int).tolist()
        turn = self.pick(list(Image.Transpose))
        return tile.crop((x, y, x + side, y + side)).transpose(turn)

    def material(self, name: str) -> Image.Image:
        low, high, kind = MATERIALS[name]
        tones = [Image.new("RGB", (self.side,) * 2, self.tone(tone, 9)) for tone in (high, low)]
        return Image.composite(*tones, self.crop(kind, self.side))

    def place(self, points) -> np.ndarray:
        return np.asarray(points, float) @ self.matrix + self.origin

    def poly(self, points, color, height: float = 0, material: str | None = None):
        points = self.place(points)
        if height:
            self.draw.polygon((points + self.sun * height).ravel().tolist(), self.shadow)
        outline = points.ravel().tolist()
        if material:
            mask = Image.new("L", self.image.size)
            ImageDraw.Draw(mask).polygon(outline, 255)
            self.image.paste(self.material(material), mask=mask)
        else:
            self.draw.polygon(outline, color)

    def rect(self, x, y, w, h, color, angle: float = 0, height: float = 0, **options):
        corners = np.array([[-w, -h], [w, -h], [w, h], [-w, h]]) / 2
        self.poly(corners @ _turn(angle) + (x, y), color, height, **options)

    def oval(self, x, y, rx, ry, color, angle: float = 0, height: float = 0, power: float = 1, **options):
        t = np.linspace(0, 2 * np.pi, 28, endpoint=False)
        c, s = np.cos(t), np.sin(t)
        ring = np.stack([rx * np.sign(c) * abs(c) ** power, ry * np.sign(s) * abs(s) ** power], 1)
        self.poly(ring @ _turn(angle) + (x, y), color, height, **options)

    def band(self, points: np.ndarray, reach, material: str):
        """The strip within ``reach`` (dx, dy) of a path."""
        self.poly(np.r_[points - np.array(reach), points[::-1] + np.array(reach)], None, material=material)

    def strip(self, y, width: float, color):
        """A straight line right across."""
        self.line([(-200, y), (200, y)], width, color)

    def line(self, points, width: float, color):
        points = self.place(points).ravel().tolist()
        self.draw.line(points, color, max(1, round(width * self.zoom)), joint="curve")

    def blot(self, x, y, r, color):
        """A disc in pixels of the drawing."""
        self.draw.ellipse((x - r, y - r, x + r, y + r), color)

    def finish(self) -> Image.Image:
        """Light, haze, clouds, blur and sensor noise over the drawing, at the scene's size."""
        rng, size = self.rng, self.side // 2
        blur, gain, saturation, haze, noise = rng.uniform((0.1, 0.8, 0.6, 0, 0.08), (0.7, 1.16, 0.9, 22, 0.22)).tolist()
        gains = gain * rng.normal(1, 0.02, 3)
        mix = gains[:, None] * (saturation * np.eye(3) + (1 - saturation) / 3)
        image = self.image.reduce(2).convert("RGB", tuple(np.c_[mix, [haze] * 3].ravel().tolist()))
        pixels = np.asarray(image.filter(ImageFilter.BoxBlur(blur * size / SIZE)), np.float32)
        factor = 0.84 + np.asarray(self.crop("soft", size), np.float32) / 800
        offset = noise * (np.asarray(self.crop("grain", size), np.float32) - 128)
        if rng.random() < 0.14:
            cloud = np.clip((np.asarray(self.crop("cloud", size), np.float32) - 140) / 90, 0, 0.8)
            factor, offset = factor * (1 - cloud), offset + 225 * cloud
        pixels *= factor[..., None]
        pixels += offset[..., None]
        return Image.fromarray(np.clip(pixels, 0, 255, out=pixels).astype(np.uint8))


def _turn(angle: float) -> np.ndarray:
    return np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])


# --- Things seen from above -----------------------------------------------------------------------


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
    roof = c.place(_ROOF * (w, d) @ _turn(angle) + (x, y))
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
    dx, dy = np.array([20 * size, 0]) @ _turn(angle)
    c.rect(x + dx, y + dy, 8 * size, 9 * size, c.tone(c.pick(list(COLORS.values()))), angle, 6 * size)
    color = c.tone(c.pick([(226, 226, 222), (204, 200, 190), (120, 140, 160)]))
    c.rect(x, y, 32 * size, 10 * size, color, angle, 8 * size)


VEHICLES = {"cars": car, "trucks": truck}


def boat(c: Canvas, x: float, y: float, angle=0.0, size=1.0):
    hull = np.array([[-14, -5], [6, -5], [17, 0], [6, 5], [-14, 5]]) * size
    c.poly(hull @ _turn(angle) + (x, y), c.tone((232, 232, 228), 6), 2 * size)
    c.rect(x, y, 11 * size, 5.5 * size, c.tone(c.pick([(150, 120, 92), (74, 96, 128), (196, 198, 200)])), angle)


def plane(c: Canvas, x: float, y: float, span: float, angle: float, color):
    s, body = span / 100, c.tone(color, 6)
    dark = tuple(int(0.8 * v) for v in body)
    wings = [[16, 0], [8, 5], [-16, 48], [-25, 48], [-10, 4], [-10, -4], [-25, -48], [-16, -48], [8, -5]]
    tail = [[-36, 0], [-47, 18], [-53, 18], [-47, 0], [-53, -18], [-47, -18]]
    for shape in (wings, tail):
        c.poly(s * np.array(shape, float) @ _turn(angle) + (x, y), dark, 9 * s)
    for side in (-1, 1):
        dx, dy = s * np.array([4, side * 20]) @ _turn(angle)
        c.rect(x + dx, y + dy, 11 * s, 5 * s, (92, 94, 98), angle)
    c.oval(x, y, 51 * s, 6 * s, body, angle, 7 * s, power=0.75)
    dx, dy = s * np.array([44, 0]) @ _turn(angle)
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


# --- The classes: a painter each, (canvas, values) -> None, the ground being there already --------


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
                c.poly(grow * r * bean @ _turn(angle) + (x, y), color)
            else:
                c.oval(x, y, grow * rx * r, grow * ry * r, color, angle, power=power)
        for _ in range(3):
            reach = np.array([0, r * c.rng.uniform(0.95, 1.15)])
            c.rect(*(reach @ _turn(angle + c.rng.normal(0, 0.4)) + (x, y)), 7, 3, LINE, angle)
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
                c.rect(*np.array([24, stripe]) @ _turn(turn * np.pi / 2), 9, 3, LINE, turn * np.pi / 2)
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
            c.poly(hull @ _turn(np.pi / 2) + (x, 62), c.tone((226, 226, 222), 5), 8)
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
                c.line([(x, y), (x, y) + r * np.array([1, 0]) @ _turn(c.rng.uniform(0, 6))], 3, LINE)
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


# --- What is told of a scene ----------------------------------------------------------------------

CLASS_WORDS = {name: kind.words for name, kind in CLASSES.items()}


@dataclass(frozen=True)
class Scene:
    """A described scene: all its attribute values, and the random stream that goes on to paint it."""

    name: str
    values: dict[str, str]
    listed: bool
    rng: np.random.Generator


def describe(seed: int, number: int, name: str | None = None) -> Scene:
    """Scene ``number`` of a class of the benchmark; without a class, training scene ``number`` of any class."""
    training = name is None
    entropy = [1, seed, number] if training else [0, seed, sorted(CLASSES).index(name), number]
    rng = np.random.default_rng(np.random.SeedSequence(entropy))
    listed = rng.random() >= UNLABELLED
    name = sorted(CLASSES)[rng.integers(len(CLASSES))] if training else name
    values = {}
    for attribute, options in CLASSES[name].attributes.items():
        allowed = [v for v in options if not training or (attribute, name, v) not in HELD_OUT]
        values[attribute] = allowed[rng.integers(len(allowed))]
    return Scene(name, values, listed, rng)


def paint(scene: Scene, size: int = SIZE) -> Image.Image:
    """The scene as an RGB image of ``size`` x ``size`` pixels; call it once per described scene."""
    kind, ground = CLASSES[scene.name], scene.values.get("context")
    if ground not in kind.grounds:
        ground = kind.grounds[scene.rng.integers(len(kind.grounds))]
    canvas = Canvas(scene.rng, size, ground)
    kind.paint(canvas, scene.values)
    return canvas.finish()


# --- Training scenes ------------------------------------------------------------------------------

TEMPLATES = (
    "{}",
    "an aerial image of {}",
    "a satellite photo of {}",
    "an overhead view of {}",
    "{} seen from above",
    "a remote sensing image showing {}",
    "there is {} in this aerial photo",
)
PLACES = {"trees": "surrounded by trees"}


def phrase(name: str, values: dict[str, str]) -> str:
    """The class in words with some of its values: "two red airplanes on grass"."""
    count, context, presence = (values.get(key) for key in ("quantity", "context", "existence"))
    noun = CLASSES[name].words + ("" if count in (None, "one") else "s")
    if "density" in values:
        noun = noun.removeprefix("dense ").removeprefix("sparse ")
    adjectives = [values[key] for key in ("density", "shape", "color") if key in values]
    words = [*adjectives, *(["empty"] if presence == "empty" else []), noun]
    words.insert(0, count or ("an" if words[0][0] in "aeiou" else "a"))
    if context:
        words.append(f"over {context}" if name in ("bridge", "overpass") else PLACES.get(context, f"on {context}"))
    if presence not in (None, "empty"):
        words.append(f"with {presence}")
    return " ".join(words)


def training_scene(seed: int, index: int, size: int = SIZE) -> tuple[Image.Image, list[str]]:
    """A scene for training and its captions, from a stream that no benchmark uses; never one of ``HELD_OUT``.

    Returns the RGB image, ``size`` x ``size`` pixels, and at least three captions in varied wording, bare values,
    bare class words and whole sentences among them.
    """
    scene = describe(seed, index)
    image, rng, values = paint(scene, size), scene.rng, scene.values
    captions = [CLASS_WORDS[scene.name], *values.values()]
    captions += [phrase(scene.name, {attribute: value}) for attribute, value in values.items()]
    captions += [f"{CLASS_WORDS[scene.name]}, {value}" for value in values.values()]
    for share in (0, 0.6, 1):
        some = {attribute: value for attribute, value in values.items() if rng.random() < share}
        captions.append(TEMPLATES[rng.integers(len(TEMPLATES))].format(phrase(scene.name, some)))
    return image, captions


# --- The benchmark on disk ------------------------------------------------------------------------


def _write(path: Path, save: Callable[[Path], object]):
    """Under a temporary name first: a file that is there is complete."""
    part = path.with_name(path.name + ".part")
    save(part)
    os.replace(part, path)


def _draw(jobs: list[tuple[Path, int, int, str]]) -> int:
    for path, seed, number, name in jobs:
        image = paint(describe(seed, number, name))
        _write(path, lambda part, image=image: image.save(part, "JPEG", quality=92))
    return len(jobs)


def draw_synthcom(root: str | Path, seed: int = 0, images_per_class: int = 36, workers: int | None = None) -> Path:
    """Write the synthetic benchmark in PatternNet's and PatternCom's layout under ``root`` and return it.

    Writes ``images/<class>/<class>NNN.jpg`` (256 x 256 RGB), ``patternnet.csv``, ``PatternCom/<attribute>.csv`` and
    the marker ``synthcom.json``. What is there already is kept, so an interrupted call resumes. A scene depends on
    (seed, class, number) alone, not on ``images_per_class`` or ``workers`` (as in `parallel_map`).
    Raises ValueError for impossible numbers and for a folder that holds something else.
    """
    if images_per_class < 1 or seed < 0 or (workers is not None and workers < 1):
        raise ValueError(
            f"images_per_class {images_per_class} and workers {workers} must be at least 1, seed {seed} at least 0"
        )
    root = Path(root).expanduser()
    marker = root / "synthcom.json"
    facts = {"synthetic": True, "version": VERSION, "seed": seed, "images_per_class": images_per_class, "size": SIZE}
    found = json.loads(marker.read_text()) if marker.exists() else None
    if found != facts and (found is not None or (root / "images").exists()):
        raise ValueError(f"{root} holds {found or 'images that are not SynthCom'}, not {facts}: choose another folder")
    for name in CLASSES:
        (root / "images" / name).mkdir(parents=True, exist_ok=True)
    if found is None:
        _write(marker, lambda part: part.write_text(json.dumps(facts, indent=2) + "\n"))

    digits = max(3, len(str(images_per_class)))
    names = {
        (name, number): f"{name}{number:0{digits}d}.jpg"
        for name in sorted(CLASSES)
        for number in range(1, images_per_class + 1)
    }
    there = {file for name in CLASSES for file in os.listdir(root / "images" / name)}
    jobs = [
        (root / "images" / name / file, seed, number, name)
        for (name, number), file in names.items()
        if file not in there
    ]
    chunks = [jobs[start : start + 16] for start in range(0, len(jobs), 16)]
    with tqdm(total=len(jobs), desc="SynthCom (synthetic)", unit="image", disable=not jobs) as bar:
        for done in parallel_map(_draw, chunks, workers):
            bar.update(done)
    tables = [root / "patternnet.csv", *(root / "PatternCom" / f"{attribute}.csv" for attribute in ATTRIBUTES)]
    if not all(table.exists() for table in tables):
        _write_tables(root, seed, names)
    return root


def _write_tables(root: Path, seed: int, names: dict[tuple[str, int], str]):
    """The attribute files and patternnet.csv, from the descriptions alone."""
    listing, rows = [], {attribute: [] for attribute in ATTRIBUTES}
    for (name, number), file in names.items():
        listing.append(f"images/{name}/{file} {sorted(CLASSES).index(name)} {name}\n")
        scene = describe(seed, number, name)
        for attribute, value in scene.values.items() if scene.listed else ():
            rows[attribute].append(f"{file},{attribute},{value}\n")
    (root / "PatternCom").mkdir(exist_ok=True)
    for attribute, lines in rows.items():
        _write(root / "PatternCom" / f"{attribute}.csv", lambda part, lines=lines: part.write_text("".join(lines)))
    _write(root / "patternnet.csv", lambda part: part.write_text("".join(listing)))


def contact_sheet(root: str | Path) -> Figure:
    """One synthetic scene per labelled class and value of a folder that ``draw_synthcom`` wrote, by attribute."""
    benchmark = read_patterncom(root)
    archive = benchmark.archive
    labels = benchmark.labels.assign(name=[archive.classes[i] for i in benchmark.labels["position"]])
    rows = list(labels.drop_duplicates(["attribute", "name", "value"]).groupby(["attribute", "name"]))
    width = max(len(cells) for _, cells in rows)
    blocks = -(-len(rows) // 3)
    figure, axes = plt.subplots(blocks, 3 * width, figsize=(4.2 * width, 1.65 * blocks), layout="constrained")
    for ax in axes.flat:
        ax.axis("off")
    columns = [axes[:, start : start + width] for start in range(0, 3 * width, width)]
    for line, ((attribute, name), cells) in zip(np.concatenate(columns), rows, strict=False):
        title = f"{attribute}: {name}\n"  # over the row's first scene
        for ax, (value, position) in zip(line, cells[["value", "position"]].sort_values("value").values, strict=False):
            with Image.open(archive.path(position)) as image:
                ax.imshow(image)
            ax.set_title(title + value, fontsize=9, loc="left")
            title = ""
    figure.suptitle("SynthCom (synthetic): a scene for each attribute, class and value")
    plt.close(figure)  # else a notebook shows it twice
    return figure
