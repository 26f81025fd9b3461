"""What is told of a scene, and then painted."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from rscir_lib.benchmarks.synthcom.canvas import SIZE, Canvas
from rscir_lib.benchmarks.synthcom.classes import (
    CLASSES,
)

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
