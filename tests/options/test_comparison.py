"""The comparison's option files follow the rule of docs/comparison.md, and differ in their networks alone."""

import inspect
import math
from pathlib import Path

import pytest
import torch
import yaml

from drsformer_arch import archs

FILES = {path.stem: path for path in sorted((Path(__file__).parents[2] / "options/comparison").glob("*.yml"))}
MOST = 1_600_000
DEPTHS = ("num_blocks", "num_refinement_blocks", "n_resblocks", "num_levels", "depth")
WIDTHS = ("dim", "embed_dim", "n_feats", "channels")
# Where the published network is not the class's default.
PUBLISHED = {"IDT": {"img_size": 64}, "DRSformer": {"with_mefc": False}}


def options_of(network: str) -> dict:
    return yaml.safe_load(FILES[network].read_text())


def parameters(network: str, arguments: dict) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in getattr(archs, network)(**arguments).parameters())


def scaled(published: object, width: int) -> object:
    """Return the published width, or widths in their ratio, for the first one."""
    if isinstance(published, int):
        return width
    return [width * each // published[0] for each in published]


@pytest.mark.parametrize("network", FILES)
def test_sizes_follow_the_rule(network):
    section = options_of(network)["network_g"]
    assert section.pop("type") == network
    defaults = {name: one.default for name, one in inspect.signature(getattr(archs, network)).parameters.items()}
    published = {**defaults, **PUBLISHED.get(network, {})}
    (width,) = (name for name in section if name in WIDTHS)
    for name, value in section.items():
        if name in DEPTHS:  # a quarter, rounded up
            each, full = (one if isinstance(one, list | tuple) else [one] for one in (value, published[name]))
            assert list(each) == [math.ceil(number / 4) for number in full]
        elif name != width:
            assert value == (list(published[name]) if isinstance(value, list) else published[name]), name
    full = published[width]
    fitting = [
        size
        for size in range(4, (full if isinstance(full, int) else full[0]) + 1, 4)
        if parameters(network, {**section, width: scaled(full, size)}) <= MOST
    ]
    assert section[width] == scaled(full, max(fitting))
    count = parameters(network, section)
    assert count >= 1_000_000
    assert f"# {network} with {count / 1e6:.2f} M parameters" in FILES[network].read_text()


def test_files_differ_in_networks_alone():
    assert len(FILES) == 8
    losses = {}
    shared = []
    for network in FILES:
        options = options_of(network)
        train = options.pop("train")
        losses[network] = [train.pop(key) for key in ("losses", "pixel_opt") if key in train]
        assert options.pop("name") == f"comparison_{network}"
        del options["network_g"]
        shared.append((options, train))
    assert all(one == shared[0] for one in shared)
    several = {network for network, (loss,) in losses.items() if loss != {"type": "L1Loss"}}
    assert several == {"SPDNet", "NeRDRain"}
    for network in several:
        assert {term["type"] for term in losses[network][0]} == {"L1Loss"}
