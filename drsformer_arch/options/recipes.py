"""How each network is trained and tested on each data set: what option files of the repository are written from."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

TEMPLATES = Path(__file__).parent / "templates"  # texts with {names} of what they are filled with


class DataSet(NamedTuple):
    """A benchmark: names, sizes, the protocol of its published scores, whether DRSformer's weights for it have MEFC."""

    name: str
    key: str  # its name for `drsformer prepare`
    train_pairs: int
    test_pairs: int
    protocol: str
    with_mefc: bool


DATA_SETS = (
    DataSet("Rain200L", "rain200l", 1_800, 200, "rain200", False),
    DataSet("Rain200H", "rain200h", 1_800, 200, "rain200", True),
    DataSet("DID-Data", "did", 12_000, 1_200, "ddn", True),
    DataSet("DDN-Data", "ddn", 12_600, 1_400, "ddn", True),
    DataSet("SPA-Data", "spa", 638_492, 1_000, "rain200", False),
)

# GiB of activations per patch of the recipe's size, float32 and bf16: benchmarks/training_memory.py
ACTIVATIONS = {
    "DRSformer": (2.8, 1.5),
    "Restormer": (2.3, 1.3),
    "IDT": (1.2, 0.8),
    "SPDNet": (0.5, 0.3),
    "DualGCN": (0.5, 0.3),
}


def patches(size: int) -> str:
    """Write the lines for patches of one size."""
    return f"    gt_size: {size}  # side of the patches in pixels\n"


class Recipe(NamedTuple):
    """How a network is trained on a data set: lines of its option file."""

    summary: str  # comment lines at the top of the file
    total_iter: int
    optimizer: str
    schedule: str
    loss: str
    patch: str = patches(128)  # lines under datasets.train
    rotations: bool = False
    batch: int = 4  # per GPU
    effective: str = "16"
    parts: str = "batch_size_per_gpu"  # of the effective batch
    grad_clip: str = "~  # none"


COSINE = """\
  scheduler:  # constant for 92,000 iterations, then a cosine down to 1e-6
    type: CosineAnnealingRestartCyclicLR
    periods: [92000, 208000]
    restart_weights: [1, 1]
    eta_mins: [3.0e-4, 1.0e-6]
"""
ADAMW = """\
    type: AdamW
    lr: 3.0e-4
    weight_decay: 1.0e-4
    betas: [0.9, 0.999]
"""
L1 = """\
    type: L1Loss
    loss_weight: 1
    reduction: mean
"""


def adam(rate: str) -> str:
    """Optimizer lines."""
    return f"    type: Adam\n    lr: {rate}\n    weight_decay: 0\n    betas: [0.9, 0.999]\n"


def steps(milestones: Sequence[int], gamma: float, remark: str) -> str:
    """Schedule lines."""
    return f"  scheduler:  # {remark}\n    type: MultiStepLR\n    milestones: {list(milestones)}\n    gamma: {gamma}\n"


def drsformer(_data: DataSet) -> Recipe:
    """The recipe of the DRSformer paper; also the one for a fair comparison."""
    return Recipe(
        "# Recipe of the DRSformer paper: effective batch 16, 128 px patches, AdamW, 300,000 iterations.",
        300_000,
        ADAMW,
        COSINE,
        L1,
        rotations=True,
        grad_clip="0.01  # of the gradient's norm",
    )


def restormer(data: DataSet) -> Recipe:
    """The same with progressive learning."""
    return drsformer(data)._replace(
        summary="# Recipe of the paper: progressive learning, patches from 128 to 384 px while the batch shrinks from\n"
        "# 64 to 8, AdamW, 300,000 iterations; published for 8 GPUs, on fewer the rest is accumulated.",
        patch="""\
    gt_size: 384  # the largest patch
    gt_sizes: [128, 160, 192, 256, 320, 384]  # of the six stages
    mini_batch_sizes: [8, 5, 4, 2, 1, 1]  # what one GPU holds at once
    iters: [92000, 64000, 48000, 36000, 36000, 24000]
""",
        batch=8,
        effective="[64, 40, 32, 16, 8, 8]",
        parts="mini_batch_sizes",
    )


def epochs_of(data: DataSet) -> tuple[int, str]:
    """How many pairs an epoch of recipes counted in epochs has, and a remark.

    SPA-Data's 638,492 pairs would make tens of millions of iterations, which nobody can have meant.
    """
    if data.name != "SPA-Data":
        return data.train_pairs, ""
    return (
        12_600,
        "\n# With all pairs of SPA-Data the recipe's epochs are not feasible: iterations are those of DDN-Data.",
    )


def idt(data: DataSet) -> Recipe:
    """Of the authors' training script."""
    pairs, remark = epochs_of(data)
    epoch = math.ceil(pairs / 4)
    return Recipe(
        "# Recipe of the authors' script: loss -SSIM, batch 4, 128 px patches, Adam, 400 epochs of "
        f"{epoch:,} iterations.\n"
        "# The script mirrors a quarter of the patches up and down, a quarter left and right; here half of them are "
        "mirrored left\n# and right."
        f"{remark}",
        400 * epoch,
        adam("1.0e-4"),
        steps([100 * epoch, 250 * epoch, 350 * epoch], 0.1, "after 100, 250 and 350 epochs"),
        "    type: NegativeSSIMLoss\n    loss_weight: 1\n",
        effective="4",
    )


def spdnet(data: DataSet) -> Recipe:
    """Of the authors' README and code."""
    pairs, remark = epochs_of(data)
    epoch = math.ceil(pairs * (1000 // (pairs // 16)) / 16)
    return Recipe(
        "# Recipe of the authors' code: MSE of all three outputs, effective batch 16, 128 px patches, Adam,\n"
        f"# 300 epochs of {epoch:,} iterations.{remark}",
        300 * epoch,
        adam("5.0e-4"),
        steps([n * epoch for n in (100, 150, 200, 230, 260, 280)], 0.5, "after 100, 150, 200, 230, 260 and 280 epochs"),
        "    type: MultiOutputMSELoss\n    loss_weight: 65025  # 255 squared: the authors' pictures are in 0 to 255\n",
    )


def dualgcn(data: DataSet) -> Recipe:
    """Second-hand: two reproductions agree on it."""
    pairs, remark = epochs_of(data)
    epoch = pairs // 10
    return Recipe(
        "# SECOND-HAND RECIPE: the authors released no training code. Two reproductions by others agree on L1,\n"
        f"# batch 10, 100 px patches, Adam at a constant rate, 300 epochs of {epoch:,} iterations; check the paper\n"
        f"# before you publish numbers.{remark}",
        300 * epoch,
        adam("1.0e-4"),
        steps([300 * epoch], 1, "constant"),
        L1,
        patch=patches(100),
        batch=10,
        effective="10",
    )


RECIPES = {"DRSformer": drsformer, "Restormer": restormer, "IDT": idt, "SPDNet": spdnet, "DualGCN": dualgcn}

TILES = """\
  # For pictures too large for the GPU; tiles change the result a little, so benchmarks are run without.
  # tile: 512
  # tile_overlap: 32
"""


def memory(network: str, recipe: Recipe) -> str:
    """Comment lines: how to fit a GPU."""
    float32, bf16 = ACTIVATIONS[network]
    if recipe.effective.startswith("["):
        return (
            "# What to lower for your GPU (one 128 px patch keeps about "
            f"{float32} GiB of activations, {bf16} GiB with amp: bf16;\n"
            "# a 384 px patch nine times that): mini_batch_sizes; what is missing is accumulated, and the training\n"
            "# stays the same. network_g.use_checkpoint: true needs a third of the memory for a third more time."
        )
    size = recipe.patch.split()[1]
    whole = int(recipe.effective)
    fits = []
    for gpu in (8, 12, 24):
        # Weights, gradients, moments and the GPU's own context take up to 1.5 GiB.
        largest = max((n for n in range(1, whole + 1) if whole % n == 0 and n * float32 <= gpu - 1.5), default=1)
        fits.append(f"{gpu} GB: batch_size_per_gpu: {largest}")
    return (
        f"# What to lower for your GPU (one {size} px patch keeps about {float32} GiB of activations, "
        f"{bf16} GiB with amp: bf16):\n#    {'     '.join(fits)}\n"
        f"# effective_batch_size stays {whole}: missing pictures are accumulated, and the training stays the same.\n"
        f"# Several GPUs: batch_size_per_gpu x number of GPUs must divide {whole}."
    )


def _template(name: str) -> str:
    return (TEMPLATES / f"{name}.yml.txt").read_text(encoding="utf-8")


def option_files(published: Mapping[str, Mapping[str, tuple[float, float]]]) -> dict[str, str]:
    """The option files of the repository that follow from recipes.

    Args:
        published: PSNR in dB and SSIM of each network on each data set, for the files' heads.

    Returns:
        the text of each file by its path below `options/`.
    """
    written = {}
    variants = [(network, data, data.name, RECIPES[network]) for network in RECIPES for data in DATA_SETS]
    rain200h = DATA_SETS[1]
    # All networks trained alike, for a fair comparison.
    variants += [
        (network, rain200h, "Rain200H_same_recipe", drsformer) for network in RECIPES if network != "DRSformer"
    ]
    for network, data, file, make_recipe in variants:
        recipe = make_recipe(data)
        psnr, ssim = published[network][data.name]
        values = {
            **data._asdict(),
            **recipe._asdict(),
            "network": network,
            "file": file,
            "published": f"{psnr:.2f} dB / {ssim:.4f}",
            "memory": memory(network, recipe),
            "rotations": str(recipe.rotations).lower(),
            "symmetries": "  # together the 8 symmetries" if recipe.rotations else "",
            "network_g": _template(f"networks/{network}").format(mefc=str(data.with_mefc).lower()),
            "tiles": "" if network == "IDT" else TILES,
        }
        if make_recipe is drsformer and network != "DRSformer":
            values["summary"] += f"\n# Not {network}'s own recipe: all networks are trained alike here."
        written[f"train/{network}/{file}.yml"] = _template("train").format(**values)
        written[f"test/{network}/{file}.yml"] = _template("test").format(**values)
    return written
