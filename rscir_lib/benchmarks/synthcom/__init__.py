"""SynthCom: a synthetic benchmark of PatternCom's shape, drawn with Pillow and numpy.

A scene is first *described* (class and attribute values, sampled from its own random stream), then *painted*.
Benchmark and training scenes come from disjoint streams; training scenes never show a combination of `HELD_OUT`.
"""

from rscir_lib.benchmarks.synthcom.dataset import draw_synthcom
from rscir_lib.benchmarks.synthcom.scenes import CLASS_WORDS, HELD_OUT, describe, paint, phrase, training_scene
from rscir_lib.benchmarks.synthcom.things import CLASSES

__all__ = ["CLASSES", "CLASS_WORDS", "HELD_OUT", "describe", "draw_synthcom", "paint", "phrase", "training_scene"]
