"""The plugin among others: registration, import order, worker processes, and other people's runs left as they are."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

OPTIONS = Path(__file__).parents[2] / "options"
STUB_ONLY = """
import sys, types
from torchvision.transforms.functional import rgb_to_grayscale
stub = types.ModuleType("torchvision.transforms.functional_tensor")
stub.rgb_to_grayscale = rgb_to_grayscale
sys.modules[stub.__name__] = stub
"""
USERS_SCRIPT = """
{first}
if __name__ == "__main__":
    import torch
    torch.set_num_threads(1)
    {start}
    from basicsr.train import train_pipeline
    train_pipeline(".")
"""


def run(folder: Path, script: str, *arguments: str) -> str:
    """Run a script in a folder, which must succeed, and return its output."""
    path = folder / "train.py"
    path.write_text(script)
    done = subprocess.run(
        [sys.executable, path, *arguments], cwd=folder, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout + done.stderr


DERIVED_MODEL = """
import drsformer_arch.plugin
from basicsr.utils.registry import MODEL_REGISTRY
from drsformer_arch.training.derain_model import DerainModel

@MODEL_REGISTRY.register()
class Mine(DerainModel):
    pass
"""


def edsr_options(pairs: Path) -> dict:
    dataset = {"type": "PairedImageDataset", "dataroot_lq": str(pairs / "input.lmdb")}
    dataset |= {"dataroot_gt": str(pairs / "target.lmdb"), "io_backend": {"type": "lmdb"}}
    loading = {"gt_size": 32, "use_hflip": True, "use_rot": True, "num_worker_per_gpu": 1, "batch_size_per_gpu": 3}
    network = {"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 8, "num_block": 1, "upscale": 1}
    metric = {"psnr": {"type": "calculate_psnr", "crop_border": 0, "test_y_channel": True}}
    return {
        "name": "edsr",
        "model_type": "SRModel",
        "scale": 1,
        "num_gpu": 0,
        "manual_seed": 5,
        "datasets": {"train": {"name": "t", **dataset, **loading}, "val": {"name": "v", **dataset}},
        "network_g": network,
        "path": {"pretrain_network_g": None, "resume_state": None},
        "train": {
            "total_iter": 6,
            "warmup_iter": -1,
            "optim_g": {"type": "Adam", "lr": 0.001},
            "scheduler": {"type": "MultiStepLR", "milestones": [3], "gamma": 0.5},
            "pixel_opt": {"type": "L1Loss"},
        },
        "val": {"val_freq": 3, "save_img": False, "metrics": metric},
        "logger": {"print_freq": 1, "save_checkpoint_freq": 3, "use_tb_logger": False},
    }


def figures(output: str) -> list[str]:
    """Read all losses, rates and scores of a log."""
    return re.findall(r"(?:l_pix|lr|# psnr)[^\d]*([\d.e+-]+)", output)


def test_a_stock_run_is_the_same_with_and_without_the_plugin(pairs, tmp_path):
    options = edsr_options(pairs)
    # BasicSR cannot open one LMDB twice in a process, so that the run without the plugin validates from the folders.
    for key, part in (("dataroot_lq", "input"), ("dataroot_gt", "target")):
        options["datasets"]["val"] |= {key: str(pairs / part), "io_backend": {"type": "disk"}}
    logs = []
    for name, first in (("without", STUB_ONLY), ("with", "import drsformer_arch.plugin")):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "edsr.yml").write_text(yaml.safe_dump(options))
        logs.append(figures(run(folder, USERS_SCRIPT.format(first=first, start=""), "-opt", "edsr.yml")))
    assert logs[0] == logs[1]
    # 10 pictures in batches of 3 are 3 iterations an epoch where BasicSR counts 4: its last iteration never comes.
    assert len(logs[0]) >= 2 * 6 + 2


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_drsformer_under_basicsrs_own_model_data_set_and_metric(pairs, tmp_path, method):
    """One import line in a stranger's project; train and val read the same LMDB; workers start either way."""
    options = edsr_options(pairs) | {
        "network_g": {"type": "DRSformer", "dim": 8, "num_blocks": [1, 1, 1, 1], "with_mefc": False}
    }
    options["train"]["total_iter"] = 2
    options["datasets"]["val"] = {}  # 75x61 is no multiple of 8: padding is our model's work, not BasicSR's
    del options["datasets"]["val"], options["val"]
    (tmp_path / "drs.yml").write_text(yaml.safe_dump(options))
    start = f"torch.multiprocessing.set_start_method({method!r})"
    script = USERS_SCRIPT.format(first="from drsformer_arch.plugin import train_pipeline", start=start)
    output = run(tmp_path, script, "-opt", "drs.yml")
    assert "Network: DRSformer" in output
    assert len(re.findall(r"l_pix: [\d.e+-]+", output)) == 2
    assert (tmp_path / "experiments/edsr/models/net_g_latest.pth").exists()


def test_a_model_derived_from_ours_accumulates_in_a_strangers_pipeline(options, tmp_path):
    options["train"] |= {"total_iter": 3, "effective_batch_size": 4}
    options["datasets"]["train"] |= {"name": "t", "io_backend": {"type": "lmdb"}}
    options["datasets"]["val"] |= {"name": "v", "io_backend": {"type": "lmdb"}}
    options |= {"scale": 1, "path": {"resume_state": None}, "model_type": "Mine"}
    options["logger"]["use_tb_logger"] = False
    options["val"]["save_img"] = True
    options["train"]["optim_g"]["lr"] = 0.0003
    (tmp_path / "ours.yml").write_text(yaml.safe_dump(options))
    output = run(tmp_path, USERS_SCRIPT.format(first=DERIVED_MODEL, start=""), "-opt", "ours.yml")
    assert "effective batch 4 = 1 process(es) x 2 picture(s) x 2 accumulation step(s)" in output
    assert "# psnr [rain200 protocol]" in output
    assert len(re.findall(r"l_pix: ", output)) == 3


OTHER_PROJECT = """
from basicsr.utils.registry import ARCH_REGISTRY
from torch import nn

@ARCH_REGISTRY.register()
class Restormer(nn.Module):
    pass
"""


@pytest.mark.parametrize(
    "imports",
    [
        # Where BasicSR imports by itself, as it does once `importable` has been imported, either order works.
        "import drsformer_arch.bridge.importable, other, drsformer_arch.plugin",
        "import drsformer_arch.plugin, other",
        "import drsformer_arch.bridge.importable, basicsr, drsformer_arch.plugin, other",
    ],
)
def test_names_of_others_stay_theirs(imports, tmp_path):
    """Whoever comes first: the other project's name is its own, ours has a suffix, one line says so."""
    (tmp_path / "other.py").write_text(OTHER_PROJECT)
    script = f"""
{imports}
import importlib
importlib.reload(drsformer_arch.plugin)
from basicsr.utils.registry import ARCH_REGISTRY
assert ARCH_REGISTRY.get("Restormer") is other.Restormer
assert ARCH_REGISTRY.get("Restormer_drsformer").__module__.startswith("drsformer_arch")
assert ARCH_REGISTRY.get("DRSformer").__module__.startswith("drsformer_arch")
"""
    assert run(tmp_path, script) == "Restormer is registered by other; ours is Restormer_drsformer\n"


def test_a_name_that_another_project_registers_twice_is_its_own_mistake(tmp_path):
    (tmp_path / "other.py").write_text(OTHER_PROJECT)
    (tmp_path / "again.py").write_text(OTHER_PROJECT)
    script = """
import drsformer_arch.plugin, other
try:
    import again
except AssertionError as error:
    print(error)
"""
    assert "'Restormer' was already registered" in run(tmp_path, script)


def test_the_quickstart_runs_as_it_stands_under_a_users_script(pairs, tmp_path):
    """On a machine without CUDA, whatever num_gpu says; only what takes long is shortened."""
    shorter = ("train:total_iter=2", "val:val_freq=2", "datasets:train:batch_size_per_gpu=2", "logger:print_freq=1")
    data = [f"datasets:{phase}:dataroot={pairs}" for phase in ("train", "val")]
    script = USERS_SCRIPT.format(first="from drsformer_arch.plugin import train_pipeline", start="")
    output = run(tmp_path, script, "-opt", str(OPTIONS / "quickstart.yml"), "--force_yml", *shorter, *data)
    assert len(re.findall(r"l_pix: [\d.e+-]+", output)) == 2
    assert "# psnr [rain200 protocol]" in output
    assert torch.cuda.is_available() or "num_gpu is 1, this machine has none: using the CPU" in output


def test_networks_need_no_basicsr():
    script = "import drsformer_arch, sys; assert not {'basicsr', 'cv2', 'yaml'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", script], check=True)
