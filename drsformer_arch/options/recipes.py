"""Recipes of training and test for each network and data set; the repository's option files are written from them."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from textwrap import indent
from typing import Any, NamedTuple

import yaml

TEMPLATES = Path(__file__).parent / "templates"  # texts with {names} of what they are filled with


class DataSet(NamedTuple):
    """A benchmark: names, sizes, the protocol of its published scores, whether DRSformer's weights for it have MEFC.

    Where it is tested on several sets, these have names of their own, and some of them validate a training.
    """

    name: str
    key: str  # its name for `drsformer prepare`
    train_pairs: int
    test_pairs: int
    protocol: str
    with_mefc: bool
    tests: tuple[str, ...] = ()
    validations: tuple[str, ...] = ()


DATA_SETS = (
    DataSet("Rain200L", "rain200l", 1_800, 200, "rain200", False),
    DataSet("Rain200H", "rain200h", 1_800, 200, "rain200", True),
    DataSet("DID-Data", "did", 12_000, 1_200, "ddn", True),
    DataSet("DDN-Data", "ddn", 12_600, 1_400, "ddn", True),
    DataSet("SPA-Data", "spa", 638_492, 1_000, "rain200", False),
)
RAIN13K = DataSet(
    "Rain13K",
    "rain13k",
    13_712,
    4_300,
    "rain200",
    True,
    ("Test100", "Rain100H", "Rain100L", "Test2800", "Test1200"),
    ("Rain100H", "Rain100L"),
)
OF_RAIN13K = ("DRSformer", "Restormer", "NeRDRain")  # with option files for it
UNPUBLISHED = "\n# Nothing is published of a training on Rain13K: this is the recipe for the other data sets."


def _template(name: str) -> str:
    return (TEMPLATES / f"{name}.yml.txt").read_text(encoding="utf-8")


RECIPES: dict[str, dict[str, Any]] = yaml.safe_load(_template("recipes"))
# Iterations of an epoch of so many pairs, of recipes that are counted in epochs.
EPOCHS: dict[str, Callable[[int], int]] = {
    "IDT": lambda pairs: math.ceil(pairs / 4),
    "SPDNet": lambda pairs: math.ceil(pairs * (1000 // (pairs // 16)) / 16),
    "DualGCN": lambda pairs: pairs // 10,
}
# SPA-Data's 638,492 pairs would make tens of millions of iterations, which nobody can have meant.
PAIRS_INSTEAD = {"SPA-Data": 12_600}
REMARK = "\n# With all pairs of SPA-Data the recipe's epochs are not feasible: iterations are those of DDN-Data."


def recipe_of(network: str, data: DataSet) -> dict[str, Any]:
    """Say how a network is trained on a data set.

    Returns:
        The values of templates/recipes.yml.txt, of which the texts are lines of an option file.
    """
    recipe = {"warmup_iter": "-1  # no warm-up", "remarks": {}, **RECIPES[network]}
    if data is RAIN13K and network != "Restormer":  # whose own data set it is
        recipe["summary"] += UNPUBLISHED
    values = {"remark": recipe["remarks"].get(data.name, "")}
    if network in EPOCHS:
        epoch = EPOCHS[network](PAIRS_INSTEAD.get(data.name, data.train_pairs))
        recipe["total_iter"] = recipe["epochs"] * epoch
        values = {
            "epoch": epoch,
            "milestones": [number * epoch for number in recipe["milestones"]],
            "remark": REMARK if data.name in PAIRS_INSTEAD else "",
        }
    elif isinstance(recipe["total_iter"], dict):
        recipe["total_iter"] = recipe["total_iter"][data.name]
    for text in ("summary", "schedule"):
        recipe[text] = recipe[text].format(**values, total_iter=recipe["total_iter"])
    return recipe


PIXEL_LOSS = """\
pixel_opt:
  type: L1Loss
"""


TILES = """\
  # For pictures too large for the GPU; tiles change the result a little, so benchmarks are run without.
  # tile: 512
  # tile_overlap: 32
"""


DATA_SET = """\
  {phase}:
    name: {name}
    type: PairedRainDataset
    dataroot: {folder}.lmdb  # made by: drsformer prepare {data.key} SRC -o datasets/{data.name} --lmdb
    # Instead of the store, a folder with input/ and target/ (pictures, or LMDBs in BasicSR's layout):
    # dataroot: {folder}

"""


def data_sets(data: DataSet, phase: str, names: Sequence[str]) -> str:
    """Sections of test sets.

    Args:
        data: the benchmark.
        phase: "val" or "test"; several are numbered.
        names: of its test sets, where there are several.
    """
    folder = f"datasets/{data.name}/test"
    if not names:
        return DATA_SET.format(phase=phase, name=f"{data.name}-test", folder=folder, data=data)
    return "".join(
        DATA_SET.format(phase=f"{phase}_{number}", name=name, folder=f"{folder}/{name}", data=data)
        for number, name in enumerate(names, 1)
    )


def published_scores(scores: Mapping[str, tuple[float, float | None]], data: DataSet) -> str:
    """Say what is published of a network on a data set, as the end of a sentence."""
    if not data.tests:
        psnr, ssim = scores[data.name]
        return f" {psnr:.2f} dB / {ssim:.4f} ({data.protocol} protocol)."
    known = ", ".join(f"{name} {scores[name][0]:.2f} dB" for name in data.tests if name in scores)
    return f"\n# {known} ({data.protocol} protocol)." if known else " nothing that is known here."


def estimated_memory(activations: float) -> float:
    """Estimate the GiB that a training takes of a GPU: nobody has measured it on one.

    Weights, gradients, moments and the GPU's own context: 1.5 GiB. Workspace and gaps: a fifth of the activations.

    Args:
        activations: GiB that all patches of a backward pass keep for it.
    """
    return 1.5 + 1.2 * activations


def largest_batch(gpu: int, activations: float, whole: int) -> int:
    """Estimate how many patches a GPU holds at once: nobody has measured it on one.

    Args:
        gpu: its memory in GiB.
        activations: GiB that one patch keeps for the backward pass.
        whole: the effective batch, of which the number must be a divisor.

    Returns:
        1 at least, which may be too much as well.
    """
    # A twentieth of the GPU is the system's.
    fitting = [n for n in range(1, whole + 1) if whole % n == 0 and estimated_memory(n * activations) <= 0.95 * gpu]
    return max(fitting, default=1)


def memory(network: str, recipe: Mapping[str, Any]) -> str:
    """Comment lines: how to fit a GPU."""
    float32, bf16 = RECIPES[network]["activations"]
    if recipe["effective"].startswith("["):
        return (
            "# What to lower for your GPU (one 128 px patch keeps about "
            f"{float32} GiB of activations, {bf16} GiB with amp: bf16;\n"
            "# a 384 px patch nine times that): mini_batch_sizes; what is missing is accumulated, and the training\n"
            "# stays the same. network_g.use_checkpoint: true needs a third of the memory for a third more time."
        )
    size = int(recipe["patch"].split()[1])
    float32, bf16 = (round(part * (size / 128) ** 2, 1) for part in (float32, bf16))
    whole = int(recipe["effective"])
    fits = [
        f"{gpu} GB: {largest_batch(gpu, float32, whole)} ({largest_batch(gpu, bf16, whole)})" for gpu in (8, 12, 24)
    ]
    return (
        f"# batch_size_per_gpu for your GPU, an estimate: one {size} px patch keeps {float32} GiB of activations, "
        f"{bf16} GiB with amp: bf16.\n#    {'     '.join(fits)}     (with amp: bf16)\n"
        f"# effective_batch_size stays {whole}: missing pictures are accumulated, and the training stays the same.\n"
        f"# Several GPUs: batch_size_per_gpu x number of GPUs must divide {whole}."
    )


def option_files(published: Mapping[str, Mapping[str, tuple[float, float | None]]]) -> dict[str, str]:
    """The option files of the repository that follow from recipes.

    Args:
        published: PSNR in dB and SSIM of each network on each data set, for the files' heads.

    Returns:
        the text of each file by its path below `options/`.
    """
    whole = TEMPLATES / "whole"  # files that no recipe makes, as they are
    written = {
        path.relative_to(whole).as_posix().removesuffix(".txt"): path.read_text(encoding="utf-8")
        for path in sorted(whole.rglob("*.yml.txt"))
    }
    variants = [(network, data, data.name, network) for network in RECIPES for data in DATA_SETS]
    variants += [(network, RAIN13K, RAIN13K.name, network) for network in OF_RAIN13K]
    rain200h = DATA_SETS[1]
    # All networks trained alike, for a fair comparison.
    variants += [
        (network, rain200h, "Rain200H_same_recipe", "DRSformer") for network in RECIPES if network != "DRSformer"
    ]
    for network, data, file, whose in variants:
        recipe = recipe_of(whose, data)
        values = {
            **data._asdict(),
            **recipe,
            "network": network,
            "by": "",
            "file": file,
            "published": published_scores(published[network], data),
            "val_sets": data_sets(data, "val", data.validations),
            "test_sets": data_sets(data, "test", data.tests),
            "memory": memory(network, recipe),
            "patch": indent(recipe["patch"], "    "),
            "optimizer": indent(recipe["optimizer"], "    "),
            "schedule": indent(recipe["schedule"], "  "),
            "loss": indent(recipe["loss"], "  "),
            "rotations": str(recipe["rotations"]).lower(),
            "symmetries": "  # together the 8 symmetries" if recipe["rotations"] else "",
            "network_g": _template(f"networks/{network}").format(mefc=str(data.with_mefc).lower()),
            "tiles": "" if network == "IDT" else TILES,
        }
        if whose != network:
            values["summary"] += f"\n# Not {network}'s own recipe: all networks are trained alike here."
            values["by"] = f" by the recipe of {whose}"
        written[f"train/{network}/{file}.yml"] = _template("train").format(**values)
        written[f"test/{network}/{file}.yml"] = _template("test").format(**values)
    return written | comparison_files()


def comparison_files() -> dict[str, str]:
    """The option files of the comparison in docs/comparison.md, by their paths below `options/`."""
    networks: dict[str, dict[str, str]] = yaml.safe_load(_template("comparison_networks"))
    return {
        f"comparison/{network}.yml": _template("comparison").format(
            network=network,
            parameters=settings["parameters"],
            network_g=indent(settings["network_g"], "  "),
            loss=indent(settings.get("loss", PIXEL_LOSS), "  "),
        )
        for network, settings in networks.items()
    }


def summary_of(text: str) -> str:
    """Return what an option file of ours is, as its first line behind the schema's says, and the next if it ends so."""
    first, second = (line.removeprefix("# ") for line in text.splitlines()[1:3])
    return f"{first} {second}" if first.endswith(":") else first


# In the head of an option file: a command that names another one.
_ANOTHER = re.compile(r"^(#   drsformer .* )options/((?:[\w-]+/)*(\w+))\.yml$", re.MULTILINE)


def own_copy(text: str, recipe: str, option_file: str, origin: str) -> str:
    """Turn the text of an option file of the repository into that of a copy that lies elsewhere.

    Args:
        text: of the file.
        recipe: its path below `options/`.
        option_file: what the copy is called.
        origin: the command that made the copy.

    Returns:
        the text without its first line, which leads to the schema from where the file lies; its head says how the copy
        was made, and its examples name the copy, and others by their own names with the command that writes them, as
        there need be no folder options/.
    """
    head, blank, options = text.partition("\n\n")
    lines = [line for line in head.splitlines()[1:] if "scripts/make_options.py" not in line]
    lines.insert(1, f"# Written by: {origin}")
    told = "\n".join(lines).replace(f"options/{recipe}", option_file)
    told = _ANOTHER.sub(r"\1\3.yml   # made by: drsformer options \2 -o \3.yml", told)
    return re.sub(r"options/(?:\w+/)*(\w+\.yml)", r"\1", told) + blank + options
