"""The changed networks of docs/change_the_network.md: what it says, examples/change_the_network does."""

import copy
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
import torch
import yaml
from torch import nn

from drsformer_arch import DRSformer
from drsformer_arch.archs import drsformer_arch
from drsformer_arch.archs.drsformer_arch import TopKSparseAttention
from drsformer_arch.archs.u_shape import Checkpointed
from drsformer_arch.fast import accelerate, form_of, fuse, plain
from tests.golden_weights import golden_input, load_golden_weights

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "change_the_network"
PAGE = ROOT / "docs" / "change_the_network.md"
SMALL = {"dim": 8, "num_blocks": [1, 1, 1, 1], "with_mefc": False}
FIVE = {**SMALL, "num_blocks": [1, 1, 1, 1, 1]}
# Name of the file: name of the network, arguments, and which form runs after `accelerate`.
CHANGES = {
    "top_k_shares": ("DRSformerQuarters", SMALL, "fast but for TopKSparseAttention"),
    "gated_feed_forward": ("DRSformerGDFN", {**SMALL, "with_mefc": True}, "fast"),
    "five_levels": ("DRSformerFiveLevels", FIVE, "fast"),
}


def diffs() -> dict[str, str]:
    """Read the diffs of the page, by the name in their first line."""
    page = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"```diff\n(@@ (.*?) @@\n.*?)```", page, re.DOTALL)
    return {name: block for block, name in blocks}


def patched(source: str, diff: str) -> str:
    """Apply a diff, each of whose parts must be found once, to a source."""
    for part in re.split(r"^@@.*\n", diff, flags=re.MULTILINE)[1:]:
        lines = part.splitlines(keepends=True)
        old, new = ("".join(line[1:] or line for line in lines if line[0] in kinds) for kinds in (" -\n", " +\n"))
        assert source.count(old) == 1, old
        source = source.replace(old, new)
    return source


@pytest.fixture(params=CHANGES)
def change(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[str, nn.Module, str]:
    """Return file name, network in double precision and its form after `accelerate`."""
    name, arguments, form = CHANGES[request.param]
    monkeypatch.syspath_prepend(EXAMPLES)
    net = getattr(importlib.import_module(request.param), name)(**arguments)
    return request.param, load_golden_weights(net.double(), 0.5).eval(), form


def picture() -> torch.Tensor:
    return golden_input((1, 3, 32, 48), 1).double()


def test_a_copy_changed_as_the_page_says_is_the_example(change, tmp_path, monkeypatch):
    file, net, _ = change
    original = Path(drsformer_arch.__file__).read_text(encoding="utf-8")
    parts = diffs()
    source = patched(patched(original, parts["in every copy"]), parts[file])
    (tmp_path / f"copy_of_{file}.py").write_text(source.replace("DRSformerMine", f"Copy{file}"), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    whole = getattr(importlib.import_module(f"copy_of_{file}"), f"Copy{file}")(**CHANGES[file][1]).double()
    whole.load_state_dict(net.state_dict())
    x = picture()
    with torch.no_grad():
        assert torch.equal(whole(x), net(x))
    assert whole.contract.size_multiple == net.contract.size_multiple
    assert "TopKSparseAttention" in form_of(accelerate(whole)), "classes of a copy are not those with a fast form"

    added, removed = (
        len(re.findall(rf"^\{sign}", parts[file] + parts["in every copy"], re.MULTILINE)) for sign in "+-"
    )
    assert f"| {file} | {added} | {removed} |" in PAGE.read_text(encoding="utf-8")


def test_changed_networks_train_and_their_fast_forms_agree(change):
    _, net, form = change
    assert form_of(net) == "plain"
    assert form_of(accelerate(copy.deepcopy(net))) == form
    x = picture()
    gradients = []
    for one in (net, accelerate(copy.deepcopy(net))):
        output = one(x)
        output.square().mean().backward()
        gradients.append({key: parameter.grad for key, parameter in one.named_parameters()})
    for key, gradient in gradients[0].items():
        assert gradient.any(), key
        torch.testing.assert_close(gradients[1][key], gradient, rtol=1e-6, atol=1e-9, msg=key)
    with torch.no_grad():
        expected = net(x)
        for other in (accelerate(copy.deepcopy(net)), fuse(net, tile=16)):
            assert form_of(other) != "plain"
            torch.testing.assert_close(other(x), expected, rtol=1e-9, atol=1e-9)
        assert torch.equal(plain(accelerate(net))(x), expected)


def test_sizes_and_checkpointing_reach_the_fifth_level(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    kind = importlib.import_module("five_levels").DRSformerFiveLevels
    net = kind(**FIVE, use_checkpoint=True)
    assert all(module.checkpointing for module in net.modules() if isinstance(module, Checkpointed))
    with pytest.raises(ValueError, match="multiples of 16, not 24x32"):
        net(torch.zeros(1, 3, 24, 32))
    with pytest.raises(ValueError, match="five entries"):
        kind(**SMALL)


def test_other_numbers_of_kept_scores_run_fast_without_a_copy():
    net = load_golden_weights(DRSformer(**SMALL).double(), 0.5).eval()
    x = picture()
    with torch.no_grad():
        before = net(x)
        for module in net.modules():
            if isinstance(module, TopKSparseAttention):
                module.top_k = (2, 4, 6, 8)
        expected = net(x)
        assert not torch.allclose(before, expected)
        assert form_of(accelerate(net)) == "fast"
        torch.testing.assert_close(net(x), expected, rtol=1e-9, atol=1e-9)


def test_training_and_deraining_by_the_scripts_of_the_example(pairs, tmp_path, monkeypatch):
    options = yaml.safe_load((EXAMPLES / "train.yml").read_text(encoding="utf-8"))
    for dataset in options["datasets"].values():
        del dataset["dataroot"]
        dataset |= {"dataroot_lq": str(pairs / "input"), "dataroot_gt": str(pairs / "target")}
    options["train"]["total_iter"] = options["val"]["val_freq"] = 2
    options["logger"]["print_freq"] = 1
    options["datasets"]["train"]["num_worker_per_gpu"] = 0
    (tmp_path / "train.yml").write_text(yaml.safe_dump(options))
    done = subprocess.run(
        [sys.executable, EXAMPLES / "train.py", "-opt", "train.yml"],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-2000:]
    assert "DRSformerGDFN runs in its fast form" in done.stdout + done.stderr
    assert len(re.findall(r"l_pix: [\d.e+-]+", done.stdout + done.stderr)) == 2

    monkeypatch.syspath_prepend(EXAMPLES)
    weights = tmp_path / "experiments" / "gated_feed_forward" / "models" / "net_g_latest.pth"
    importlib.import_module("derain").main(str(weights), str(pairs / "input" / "00.png"), str(tmp_path / "clean.png"))
    assert cv2.imread(str(tmp_path / "clean.png")).shape == (61, 75, 3)
