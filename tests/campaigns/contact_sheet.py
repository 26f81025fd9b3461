"""SynthCom at a glance, for the README and the book.

python tests/campaigns/contact_sheet.py data/synthcom figures/synthcom.png
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

import rscir_lib.plots  # noqa: F401 (the workbook's style, whoever imported it first)
from rscir_lib.benchmarks.patterncom import read_patterncom


def contact_sheet(root: str | Path) -> Figure:
    """One scene for each attribute, class and value of a folder that `draw_synthcom` wrote."""
    benchmark = read_patterncom(root)
    labels = benchmark.labels.assign(name=[benchmark.archive.classes[i] for i in benchmark.labels["position"]])
    scenes = labels.drop_duplicates(["attribute", "name", "value"]).sort_values(["attribute", "name", "value"])
    rows = -(-len(scenes) // 12)
    figure, axes = plt.subplots(rows, 12, figsize=(20, 2 * rows), layout="constrained")
    for ax in axes.flat:
        ax.axis("off")
    for ax, scene in zip(axes.flat, scenes.itertuples(), strict=False):
        ax.imshow(benchmark.archive.read(scene.position))
        ax.set_title(f"{scene.name}\n{scene.attribute}: {scene.value}", fontsize=9, loc="left")
    figure.suptitle("SynthCom (synthetic): a scene for each attribute, class and value")
    return figure


if __name__ == "__main__":
    contact_sheet(sys.argv[1]).savefig(sys.argv[2], dpi=80)
