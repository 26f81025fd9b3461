"""What tests of several rooms make: small benchmarks, features, scenes."""

import numpy as np
import rasterio
from hypothesis import HealthCheck, settings
from PIL import Image
from rasterio.transform import from_origin

from rscir_lib.features import Features

VALUES = ("red", "two", "oval")
UTM = {"crs": "EPSG:32633", "transform": from_origin(500_000, 5_400_000, 10, 10)}


def examples(number):
    """Hypothesis' settings: so many random examples; with --hypothesis-profile=fast fewer, with full ten times."""
    share = settings.default.max_examples / 100
    checks = [
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
    ]  # tests make folders anew themselves
    return settings(max_examples=max(2, round(number * share)), deadline=None, suppress_health_check=checks)


def unit(x):
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def write_benchmark(root, classes, rows):
    """A PatternNet-shaped folder without images; rows: (image number, attribute, value). Returns the file names."""
    names = [f"{cls}{i:03d}.jpg" for i, cls in enumerate(classes)]
    lines = [f"images/{cls}/{name} 0 {cls}\n" for cls, name in zip(classes, names, strict=True)]
    (root / "PatternCom").mkdir(parents=True, exist_ok=True)
    (root / "patternnet.csv").write_text("".join(lines))
    for attribute in {attribute for _, attribute, _ in rows}:
        listed = [f"{names[i]},{attribute},{value}\n" for i, a, value in rows if a == attribute]
        (root / "PatternCom" / f"{attribute}.csv").write_text("".join(listed))
    return names


def make_features(archive, feats):
    return Features.from_arrays(feats=feats, files=archive.files, classes=archive.classes, provenance={})


def text_encoder(dim):
    def encode_texts(texts):
        assert len(set(texts)) == len(texts), "each distinct text is encoded once"
        return unit(np.stack([np.random.default_rng([VALUES.index(text), 7]).normal(size=dim) for text in texts]))

    return encode_texts


def write_scene(path, width=700, height=500, bands=4, dtype=np.uint16, seed=0, **profile):
    """A scene of smooth colours, values 0 to 4095."""
    rng, path = np.random.default_rng(seed), path
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = rng.integers(0, 256, (8, 8, bands), dtype=np.uint8)
    layers = [Image.fromarray(coarse[..., b]).resize((width, height), Image.Resampling.BICUBIC) for b in range(bands)]
    values = np.stack([np.asarray(layer) for layer in layers]).astype(dtype) * (16 if dtype == np.uint16 else 1)
    size = {"width": width, "height": height, "count": bands, "dtype": dtype}
    with rasterio.open(path, "w", **({"driver": "GTiff"} | size | profile)) as file:
        file.write(values)
    return values
