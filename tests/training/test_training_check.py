"""`drsformer train --check`: all that comes before the first iteration; it starts nothing and leaves nothing behind."""

from pathlib import Path

import torch

from drsformer_arch import DRSformer
from drsformer_arch.data.prepare.preparation import prepare_dataset
from drsformer_arch.training.memory import activation_bytes
from tests.conftest import SMALL_NETWORK
from tests.runs import drsformer, write


def files(folder: Path) -> dict[str, tuple[float, int]]:
    return {str(path): (path.stat().st_mtime, path.stat().st_size) for path in folder.rglob("*")}


def test_a_check_says_what_a_training_would_do(options, pairs, tmp_path):
    options["train"] |= {"effective_batch_size": 4, "total_iter": 6}
    options["datasets"]["train"] |= {"num_worker_per_gpu": 2, "prefetch_mode": "cuda", "pin_memory": True}
    prepare_dataset("pairs", [pairs / "input", pairs / "target"], tmp_path / "data", output="raw", workers=1)
    store = str(tmp_path / "data/train.lmdb")
    options["datasets"]["val"] = {"type": "PairedRainDataset", "dataroot": store, "stage": str(tmp_path / "disk")}
    write(tmp_path, options)
    said = drsformer(tmp_path, "train", "--check", "-opt", "small.yml", "--processes", "2")
    assert {path.name for path in tmp_path.iterdir()} == {"small.yml", "data"}
    for part in (
        "prefetch_mode: cuda needs a GPU, and this machine has none",
        "Training: 10 pictures, 4 per iteration, 3 iterations per epoch, 2 epochs, 6 iterations",
        "Number of validation pictures in val: 10",
        "DRSformer runs in its fast form",
        "Network DRSformer: ",
        "Batch plan: 32 px, effective batch 4 = 2 process(es) x 2 picture(s) x 1 accumulation step(s)",
        "Memory: about 1.5 GiB per process",
        "datasets.val: a store that is copied to the node's disk first (stage); not now",
        "It would begin anew, in ",
    ):
        assert said.count(part) == 1, said
    said = drsformer(tmp_path, "train", "--check", "-opt", "small.yml", "--processes", "3", expect=2)
    assert "is no multiple of 3 process(es)" in said
    options["datasets"]["val"]["dataroot"] = str(pairs)
    write(tmp_path, options)
    said = drsformer(tmp_path, "train", "--check", "-opt", "small.yml", expect=2)
    assert said.count("is no store, and only stores are staged") == 1
    options["datasets"]["val"].pop("stage")
    options["val"]["metrics"]["psnr"]["crop_border"] = 40
    write(tmp_path, options)
    said = drsformer(tmp_path, "train", "--check", "-opt", "small.yml", expect=2)
    assert "val.metrics.psnr on " in said
    assert "Traceback" not in said


def test_a_check_resumes_and_keeps_the_old(options, tmp_path):
    """It goes as far as a resumed training: its next batch, in another epoch, changed options, damaged files."""
    options["train"]["total_iter"] = 6
    options["datasets"].pop("val")
    options.pop("val")
    write(tmp_path, options)
    drsformer(tmp_path, "train", "-opt", "small.yml")
    before = files(tmp_path)
    options["train"]["total_iter"] = 20
    write(tmp_path, options, "longer.yml")
    said = drsformer(tmp_path, "train", "--check", "-opt", "longer.yml", "--auto_resume")
    assert "Option changed since iteration 6: train.total_iter: was 6, is 20" in said
    assert "It would go on from iteration 6 of 20" in said
    said = drsformer(tmp_path, "train", "--check", "-opt", "longer.yml")
    assert "small is there and would be kept under another name" in said
    options["network_g"]["dim"] = 16
    write(tmp_path, options, "longer.yml")
    said = drsformer(tmp_path, "train", "--check", "-opt", "longer.yml", "--auto_resume", expect=2)
    assert "does not fit DRSformer" in said
    assert "Traceback" not in said
    (tmp_path / "longer.yml").unlink()
    assert files(tmp_path) == before


def test_memory_is_counted_without_taking_it():
    """As a real forward pass keeps it; with shapes alone, whatever the size."""
    arguments = {key: value for key, value in SMALL_NETWORK.items() if key != "type"}
    net, kept = DRSformer(**arguments), {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        net(torch.rand(2, 3, 32, 32))
    for parameter in net.parameters():
        kept.pop(parameter.untyped_storage().data_ptr(), None)
    counted = activation_bytes(lambda: DRSformer(**arguments), 2, 32, bf16=False)
    assert counted == sum(storage.nbytes() for storage in kept.values())
    assert activation_bytes(lambda: DRSformer(**arguments), 2**20, 32, bf16=False) == counted * 2**19
