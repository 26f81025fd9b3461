"""How large the published encoders are, and how fast they read pictures here: architectures without their weights.

python tests/campaigns/encoders.py                      # all that `rscir encoders` lists
python tests/campaigns/encoders.py ViT-B-32 PE-Core-B-16
"""

import logging
import sys
import time

import open_clip
import torch

from rscir_lib.encoders.hub import PUBLISHED

# open_clip's names of the models whose folders describe themselves
DESCRIBED = {
    "timm/ViT-B-16-SigLIP2": "ViT-B-16-SigLIP2", "timm/ViT-L-16-SigLIP2-256": "ViT-L-16-SigLIP2-256",
    "timm/PE-Core-L-14-336": "PE-Core-L-14-336", "timm/PE-Core-B-16": "PE-Core-B-16",
    "lcybuaa/Git-RSCLIP": "ViT-L-16-SigLIP-256", "lcybuaa/Git-RSCLIP-base": "ViT-B-16-SigLIP",
}  # fmt: skip
SECONDS = 4.0  # of a core, for each model


def models() -> list[str]:
    """The distinct models of the list, as open_clip calls them."""
    every = (one.model or DESCRIBED[one.repository] for each in PUBLISHED.values() for one in each.values())
    return list(dict.fromkeys(name.removesuffix("-quickgelu") for name in every))


def measure(name: str) -> tuple[float, float]:
    """Megabytes of float32 weights, and pictures that one core's image tower reads in a second of its time.

    Weights are all one number: the time doesn't depend on it. A core's own time is counted, whatever else runs.
    """
    with torch.device("meta"):
        model = open_clip.create_model(name, load_weights=False, pretrained_text=False, device="meta").eval()
    visual = model.visual.to_empty(device="cpu")
    for weights in visual.state_dict().values():
        if weights.is_floating_point():
            weights.fill_(0.01)
    size = visual.image_size
    picture = torch.rand(1, 3, *(size if isinstance(size, tuple) else (size, size)))
    with torch.inference_mode():
        visual(picture)
        began, pictures = time.process_time(), 0
        while time.process_time() - began < SECONDS:
            visual(picture)
            pictures += 1
    seconds = time.process_time() - began
    return 4 * sum(weights.numel() for weights in model.state_dict().values()) / 1e6, pictures / seconds


if __name__ == "__main__":
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)  # that nothing is loaded
    for name in sys.argv[1:] or models():
        megabytes, speed = measure(name)
        print(f"| {name} | {megabytes:,.0f} MB | {speed:.1f} |", flush=True)
