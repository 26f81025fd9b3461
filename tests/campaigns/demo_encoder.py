"""Trains the bundled encoder again, on synthetic scenes, by the recipe of `make adapt` and a second stage of its own.

make demo-encoder                       SynthCom scenes -> data/demo_encoder
make demo-encoder ARGS="--cone-steps 0 --out FOLDER"
"""

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from tqdm.auto import tqdm

from rscir_lib.apps.commands.training import Recipe, thumbnail, train
from rscir_lib.benchmarks.synthcom import HELD_OUT, training_scene
from rscir_lib.encoders import DEMO_FOLDER
from rscir_lib.storage.parallel import parallel_map
from rscir_lib.storage.project import DATA


@dataclass(frozen=True)
class Cones:
    """A second stage of training, after which each modality fills a cone of its own, as CLIP's do (Liang et al. 2022).

    A constant vector is added to the output of each tower, `image` and `text` times as long as its mean feature, by
    biases that the model has. Both towers then learn on at one low, fixed temperature, which keeps the cones apart and
    needs image-text similarities to spread little; how much image-image similarities spread follows from the cone.
    """

    steps: int = 300
    learning_rate: float = 1e-3
    image: float = 1.25
    text: float = 3.0
    temperature: float = 0.01

    @torch.no_grad()
    def begin(self, model: torch.nn.Module, images: torch.Tensor, tokens: torch.Tensor) -> None:
        """Fix the temperature; add to each tower a constant of random direction, its length measured on one batch."""
        model.eval()
        image = model.encode_image(images).norm(dim=1).mean()
        text = model.encode_text(tokens).norm(dim=1).mean()
        model.train()
        bias = model.visual.attnpool.c_proj.bias
        bias += self.image * image * F.normalize(torch.randn_like(bias), dim=0)
        direction = torch.randn_like(model.ln_final.bias)  # what the text tower adds goes through its projection
        model.ln_final.bias += self.text * text * direction / (direction @ model.text_projection).norm()
        model.logit_scale.fill_(-math.log(self.temperature))


def demo(folder: Path, scenes: int, recipe: Recipe) -> pd.Series:
    """Train the demo encoder on `scenes` synthetic scenes; returns the loss of each step."""

    def draw(number: int) -> tuple[np.ndarray, list[str]]:
        picture, texts = training_scene(0, number, 128)
        return thumbnail(picture), texts

    drawn = tqdm(parallel_map(draw, range(scenes)), "drawing", scenes, unit="scene")
    pictures, captions = zip(*drawn, strict=True)
    held_out = "\n".join(f"* {attribute}: {name}, {value}" for attribute, name, value in sorted(HELD_OUT))
    card = (DATA / "published" / "demo_card.txt").read_text(encoding="utf-8").format(held_out=held_out)
    return train(np.stack(pictures), captions, folder, recipe, card)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=DEMO_FOLDER, help="folder; without it the bundled encoder's")
    parser.add_argument("--scenes", type=int, default=16_000, help="synthetic scenes to train on")
    parser.add_argument("--steps", type=int, default=1_200, help="of the first stage")
    parser.add_argument("--cone-steps", type=int, default=300, help="of the second stage; 0 for none")
    given = parser.parse_args()
    second = Cones(given.cone_steps) if given.cone_steps else None
    demo(given.out, given.scenes, Recipe(given.steps, second=second))


if __name__ == "__main__":
    main()
