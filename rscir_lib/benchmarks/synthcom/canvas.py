"""A canvas with the palette and textures of a place seen from above."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw, ImageFilter

SIZE = 256  # pixels a side
Color = tuple[int, ...]  # RGB, or RGB and opacity, 0 to 255

COLORS = {
    "white": (224, 224, 219), "grey": (134, 137, 140), "red": (150, 66, 52),
    "blue": (58, 92, 150), "green": (62, 112, 80), "brown": (112, 84, 62),
}  # fmt: skip
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
    """A square grey-level texture, the same on every machine: `canopy` or one of `OCTAVES`."""
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

    def __init__(self, rng: np.random.Generator, size: int, ground: str) -> None:
        self.rng, self.side = rng, 2 * size
        self.unit = self.side / SIZE
        angle, zoom, sun = rng.uniform((0, 0.84, 0), (2 * np.pi, 1.14, 2 * np.pi))
        self.zoom = zoom * self.unit
        self.matrix = self.zoom * turned(angle)
        self.origin = self.side / 2 + self.unit * rng.uniform(-12, 12, 2)
        self.sun = self.zoom * rng.uniform(0.5, 1.1) * np.array([np.cos(sun), np.sin(sun)])
        self.shadow = (12, 14, 28, int(rng.uniform(70, 135)))
        self.image = self.material(ground)
        self.draw = ImageDraw.Draw(self.image, "RGBA")
        patches = rng.uniform((-150, -150, 60, 60, 0), (150, 150, 200, 140, 3), (3, 5))
        for x, y, w, h, angle in patches if ground != "trees" else ():
            self.rect(x, y, w, h, (*self.tone(self.pick(MATERIALS[self.pick(NATURAL)][:2])), 70), angle)

    def pick(self, options: Sequence[Any]) -> Any:
        return options[self.rng.integers(len(options))]

    def tone(self, color: Color, spread: float = 8) -> Color:
        """The colour, a little lighter or darker and off its hue."""
        shift, *hue = (spread * self.rng.standard_normal(4)).tolist()
        return tuple(min(255, max(0, int(v + shift + h / 4))) for v, h in zip(color, hue, strict=True))

    def sees(self, x: float, y: float, r: float = 30) -> bool:
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

    def place(self, points: ArrayLike) -> np.ndarray:
        return np.asarray(points, float) @ self.matrix + self.origin

    def poly(self, points: ArrayLike, color: Color | None, height: float = 0, material: str | None = None) -> None:
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

    def rect(
        self, x: float, y: float, w: float, h: float, color: Color | None,
        angle: float = 0, height: float = 0, material: str | None = None,
    ) -> None:  # fmt: skip
        corners = np.array([[-w, -h], [w, -h], [w, h], [-w, h]]) / 2
        self.poly(corners @ turned(angle) + (x, y), color, height, material)

    def oval(
        self, x: float, y: float, rx: float, ry: float, color: Color | None,
        angle: float = 0, height: float = 0, power: float = 1, material: str | None = None,
    ) -> None:  # fmt: skip
        t = np.linspace(0, 2 * np.pi, 28, endpoint=False)
        c, s = np.cos(t), np.sin(t)
        ring = np.stack([rx * np.sign(c) * abs(c) ** power, ry * np.sign(s) * abs(s) ** power], 1)
        self.poly(ring @ turned(angle) + (x, y), color, height, material)

    def band(self, points: np.ndarray, reach: tuple[float, float], material: str) -> None:
        """The strip within `reach` (dx, dy) of a path."""
        self.poly(np.r_[points - np.array(reach), points[::-1] + np.array(reach)], None, material=material)

    def strip(self, y: float, width: float, color: Color) -> None:
        """A straight line right across."""
        self.line([(-200, y), (200, y)], width, color)

    def line(self, points: ArrayLike, width: float, color: Color) -> None:
        points = self.place(points).ravel().tolist()
        self.draw.line(points, color, max(1, round(width * self.zoom)), joint="curve")

    def blot(self, x: float, y: float, r: float, color: Color) -> None:
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


def turned(angle: float) -> np.ndarray:
    return np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
