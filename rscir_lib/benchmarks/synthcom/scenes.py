"""Scenes: described first, then painted; and the captions of those for training."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from rscir_lib.benchmarks.synthcom import objects, places  # noqa: F401 (their painters fill CLASSES)
from rscir_lib.benchmarks.synthcom.canvas import SIZE
from rscir_lib.benchmarks.synthcom.things import CLASSES, Scenery

# Share of the scenes of labelled classes that no attribute file lists, so that rankings hold unlabelled images, as
# PatternCom's do.
UNLABELLED = 0.27
# attribute, class, value: never seen in training, so that a benchmark asks for combinations that are new to the encoder
HELD_OUT = frozenset({
    ("color", "airplane", "blue"), ("color", "nursinghome", "grey"), ("color", "tenniscourt", "red"),
    ("context", "airplane", "grass"), ("context", "swimmingpool", "sand"),
    ("density", "mobilehomepark", "moderate"),
    ("existence", "freeway", "trucks"), ("existence", "harbor", "cars"),
    ("quantity", "storagetank", "three"), ("quantity", "swimmingpool", "two"),
    ("shape", "swimmingpool", "round"),
})  # fmt: skip
CLASS_WORDS = {name: kind.words for name, kind in CLASSES.items()}
TEMPLATES = (
    "{}", "an aerial image of {}", "a satellite photo of {}", "an overhead view of {}", "{} seen from above",
    "a remote sensing image showing {}", "there is {} in this aerial photo",
)  # fmt: skip


@dataclass(frozen=True)
class Scene:
    """A described scene: its class and all values, whether labels list it, and the random stream that paints it."""

    name: str
    values: dict[str, str]
    listed: bool
    rng: np.random.Generator


def describe(seed: int, number: int, name: str | None = None) -> Scene:
    """Scene `number` of the class `name` in the benchmark; without a name, training scene `number`, of any class."""
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
    """The scene as an RGB image of `size` x `size` pixels. Call it once per scene: it goes on in its random stream."""
    kind, ground = CLASSES[scene.name], scene.values.get("context")
    if ground not in kind.grounds:
        ground = kind.grounds[scene.rng.integers(len(kind.grounds))]
    canvas = Scenery(scene.rng, size, ground)
    canvas.clutter(*kind.rim)
    kind.paint(canvas, scene.values)
    canvas.trees(*kind.trees)
    return canvas.finish()


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
        preposition = "over" if name in ("bridge", "overpass") else "surrounded by" if context == "trees" else "on"
        words.append(f"{preposition} {context}")
    if presence not in (None, "empty"):
        words.append(f"with {presence}")
    return " ".join(words)


def training_scene(seed: int, index: int, size: int = SIZE) -> tuple[Image.Image, list[str]]:
    """A scene for training and its captions, from a random stream that no benchmark uses; never one of `HELD_OUT`.

    Returns:
        The RGB image, `size` x `size` pixels, and at least three captions in varied wording: bare values, bare class
        words and whole sentences among them.
    """
    scene = describe(seed, index)
    image, rng, values = paint(scene, size), scene.rng, scene.values
    captions = [CLASS_WORDS[scene.name], *values.values()]
    captions += [phrase(scene.name, {attribute: value}) for attribute, value in values.items()]
    captions += [f"{CLASS_WORDS[scene.name]}, {value}" for value in values.values()]
    for share in (0, 0.6, 1):
        shown = {attribute: value for attribute, value in values.items() if rng.random() < share}
        captions.append(TEMPLATES[rng.integers(len(TEMPLATES))].format(phrase(scene.name, shown)))
    return image, captions
