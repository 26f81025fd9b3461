"""Configs of encoder folders, which may be anybody's: read, and refused where a number in one could fill the memory."""

from pathlib import Path
from typing import Any

from rscir_lib.storage.atomic import read_json

MOST_BYTES = 2**20  # of a config file; the largest known has some kilobytes
# The largest numbers that a config may hold, where a greater one costs hours or gigabytes before the weights, which
# must fit, show that it is wrong. open_clip's own stay below half of them.
LIMITS = {
    **dict.fromkeys(("layers", "heads", "num_hidden_layers", "num_attention_heads", "attn_pooler_heads"), 128),
    **dict.fromkeys(("image_size", "size", "height", "shortest_edge", "longest_edge"), 2048),
    **dict.fromkeys(("context_length", "max_position_embeddings", "n_queries", "attn_pooler_queries"), 4096),
    **dict.fromkeys(("embed_dim", "width", "hidden_size", "projection_dim", "projection_size"), 8192),
    **dict.fromkeys(("patch_size", "head_width", "dim_head"), 1024),
    "mlp_ratio": 32,
    "intermediate_size": 65_536,
    "vocab_size": 2_000_000,
    "num_channels": 3,
}


def read_config(path: Path) -> dict[str, Any]:
    """The keys and values of a config file. Raises ValueError, naming the file, for anything else, and a huge one."""
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise ValueError(f"{path} has {size} bytes, no config has more than {MOST_BYTES}")
    return read_json(path, expected="the keys and values of an encoder; save the model again")


def check_number(key: str, value: Any, place: str) -> None:
    """Raise ValueError, naming place and value, unless what `LIMITS` names is a number above 0 and within them."""
    if key not in LIMITS or value is None or isinstance(value, dict):
        return
    for number in value if isinstance(value, list) and len(value) <= 4 else [value]:
        if type(number) not in (int, float) or not 0 < number <= LIMITS[key]:
            raise ValueError(f"{place} is {str(number)[:50]!r}; it is a number above 0, at most {LIMITS[key]}")
