"""An encoder of open_clip's with an image tower that torch compiles, for many images on a GPU."""

import copy
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from rscir_lib.encoders.openclip import OpenClipEncoder


@dataclass(kw_only=True, eq=False)
class CompiledEncoder(OpenClipEncoder):
    """Gives its image tower batches of one size: another would be compiled for anew."""

    batch_size: int

    def __getstate__(self) -> dict:
        """Torch would leave the compiled code behind, and say nothing."""
        raise TypeError("a compiled encoder can't be sent to another process: send the plain one")

    def encode_images(self, batch: torch.Tensor) -> np.ndarray:
        """As the plain encoder does; the last part is filled up."""
        features = []
        for part in batch.split(self.batch_size):
            filled = torch.nn.functional.pad(part, (0, 0, 0, 0, 0, 0, 0, self.batch_size - len(part)))
            features.append(super().encode_images(filled)[: len(part)])
        return np.concatenate(features)


def compile_tower(encoder: OpenClipEncoder, batch_size: int = 128) -> CompiledEncoder:
    """The encoder with a compiled image tower; a transformer's blocks share their code, and so are compiled once.

    batch_size: that of `extract_features`. Features differ from the plain encoder's by the rounding of the precision,
    so that a store keeps them apart. Raises ValueError for one that isn't on a GPU, since nothing is gained there, and
    torch.OutOfMemoryError for a batch that its memory can't hold.
    """
    if encoder.device.type != "cuda":
        raise ValueError(f"{encoder.name} is on {encoder.device}, where nothing is gained; leave compile_tower out")
    model = copy.deepcopy(encoder.model)
    for block in getattr(getattr(model.visual, "transformer", None), "resblocks", [model.visual]):
        block.compile(dynamic=False)
    provenance = encoder.provenance | {"precision": f"{encoder.precision}, compiled"}
    changed = {"model": model, "provenance": provenance, "batch_size": batch_size}
    compiled = CompiledEncoder(**vars(encoder) | changed)
    image = encoder.preprocess(Image.new("RGB", (256, 256)))
    compiled.encode_images(image.expand(batch_size, -1, -1, -1))
    return compiled
