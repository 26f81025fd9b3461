"""Configs of encoder folders, which may be anybody's: read, and refused where a number in one could fill the memory."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from rscir_lib.storage.atomic import read_json

WEIGHTS = "open_clip_model.safetensors"  # the names that open_clip's "local-dir:" scheme looks for
CONFIG = "open_clip_config.json"
MOST_BYTES = 2**20  # of a config file; the largest known has some kilobytes
# The largest numbers that a config may hold, where a greater one costs hours or gigabytes before the weights, which
# must fit, show that it is wrong. open_clip's own stay below half of them.
LIMITS = {
    **dict.fromkeys(("layers", "heads", "num_hidden_layers", "num_attention_heads", "attn_pooler_heads"), 128),
    **dict.fromkeys(("image_size", "size", "height", "shortest_edge", "longest_edge"), 2048),
    **dict.fromkeys(("context_length", "max_position_embeddings", "n_queries", "attn_pooler_queries"), 4096),
    **dict.fromkeys(("embed_dim", "width", "hidden_size", "projection_dim", "projection_size"), 8192),
    **dict.fromkeys(("patch_size", "head_width", "dim_head"), 1024),
    "mlp_ratio": 32, "intermediate_size": 65_536, "vocab_size": 2_000_000, "num_channels": 3,
}  # fmt: skip
NEVER = {
    **dict.fromkeys(("auto_map", "custom_code"), "names code of its own, which is never run"),
    # the weights file holds both towers
    **dict.fromkeys(("timm_model_pretrained", "hf_model_name"), "would be fetched from a hub, and nothing is"),
}


def read_config(path: Path, parts: Mapping[str, Collection[str]] | None = None) -> dict[str, Any]:
    """The keys and values of a config file.

    Args:
        path: The file.
        parts: The keys that it may hold ("") and that each part of it may hold; any without it.

    Raises:
        ValueError: Naming file, key and value, for what is no such config or a huge one, an unknown key, a number
            beyond `LIMITS`, and what would be run or fetched.
    """
    if (size := path.stat().st_size) > MOST_BYTES:
        raise ValueError(f"{path} has {size} bytes, no config has more than {MOST_BYTES}")
    config = read_json(path, expected="the keys and values of an encoder; save the model again")
    inside = [("", "", config)]
    for place, part, values in inside:  # which grows meanwhile
        for key, value in values.items():
            inner, short = f"{place}.{key}".lstrip("."), f"{str(value)[:50]!r}"
            if parts and key not in parts[part]:
                raise ValueError(f"{path}: {place} has the unknown key {key!r} ({short}); take it out")
            if key in NEVER and value:
                raise ValueError(f"{path}: {inner} is {short}, which {NEVER[key]}; take it out")
            if isinstance(value, dict) and (not parts or key in parts):
                inside.append((inner, key, value))
            elif parts and key in parts and (value is not None or key.endswith("_cfg")):
                raise ValueError(f"{path}: {inner} holds {short}, not keys and values; save the model again")
            elif key in LIMITS and value is not None:
                for number in value if isinstance(value, list) and len(value) <= 4 else [value]:
                    if type(number) not in (int, float) or not 0 < number <= LIMITS[key]:
                        wrong = f"is {str(number)[:50]!r}; it is a number above 0, at most {LIMITS[key]}"
                        raise ValueError(f"{path}: {inner} {wrong}")
    return config
