"""Training scenes and their captions."""

from PIL import Image

from rscir_lib.benchmarks.synthcom.canvas import SIZE
from rscir_lib.benchmarks.synthcom.classes import CLASSES
from rscir_lib.benchmarks.synthcom.scenes import CLASS_WORDS, describe, paint

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
