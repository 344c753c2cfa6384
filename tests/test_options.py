"""Option files: safe reading, checks that name the key, translation, and every shipped file in use."""

import copy
import math
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from drsformer_arch.errors import UserError
from drsformer_arch.models.derain_model import DerainModel
from drsformer_arch.options import load_yaml, override, read_options
from drsformer_arch.run import prepare
from tests.test_derain_model import batch

ROOT = Path(__file__).parent.parent
SMALLER = {
    "DRSformer": {"dim": 8, "num_blocks": [1, 1, 1, 1]},
    "Restormer": {"dim": 8, "num_blocks": [1, 1, 1, 1], "num_refinement_blocks": 1},
    "IDT": {"img_size": 64, "embed_dim": 8},
    "SPDNet": {"n_feats": 8, "n_resblocks": 1},
    "DualGCN": {"channels": 8, "num_levels": 1},
}
SHIPPED = sorted((ROOT / "options").rglob("*.yml"))

# In the words of the published fork's files for DRSformer and Restormer.
FORK = """
name: Deraining_DRSformer
model_type: ImageCleanModel
scale: 1
num_gpu: 8
manual_seed: 100
datasets:
  train:
    name: TrainSet
    type: Dataset_PairedImage
    dataroot_gt: {root}/target
    dataroot_lq: {root}/input
    geometric_augs: true
    filename_tmpl: '{{}}'
    io_backend: {{type: disk}}
    use_shuffle: true
    num_worker_per_gpu: 0
    batch_size_per_gpu: 8
    mini_batch_sizes: [4]
    iters: [300000]
    gt_size: 32
    gt_sizes: [32]
    dataset_enlarge_ratio: 1
    prefetch_mode: ~
  val:
    name: ValSet
    type: Dataset_PairedImage
    dataroot_gt: {root}/target
    dataroot_lq: {root}/input
    io_backend: {{type: disk}}
network_g: {{type: DRSformer, dim: 8, num_blocks: [1, 1, 1, 1], heads: [1, 2, 4, 8], LayerNorm_type: WithBias}}
path: {{pretrain_network_g: ~, strict_load_g: true, resume_state: ~}}
train:
  total_iter: 300000
  warmup_iter: -1
  use_grad_clip: true
  scheduler:
    type: CosineAnnealingRestartCyclicLR
    periods: [92000, 208000]
    restart_weights: [1, 1]
    eta_mins: [0.0003, !!float 1e-6]
  mixing_augs: {{mixup: false, mixup_beta: 1.2, use_identity: true}}
  optim_g: {{type: AdamW, lr: !!float 3e-4, weight_decay: !!float 1e-4, betas: [0.9, 0.999]}}
  pixel_opt: {{type: L1Loss, loss_weight: 1, reduction: mean}}
val:
  window_size: 8
  val_freq: !!float 4e3
  save_img: false
  rgb2bgr: true
  use_image: false
  max_minibatch: 8
  metrics: {{psnr: {{type: calculate_psnr, crop_border: 0, test_y_channel: true}}}}
logger:
  print_freq: 1000
  save_checkpoint_freq: !!float 4e3
  use_tb_logger: true
  wandb: {{project: ~, resume_id: ~}}
dist_params: {{backend: nccl, port: 29500}}
"""


def write(path: Path, options: dict | str) -> str:
    path.write_text(options if isinstance(options, str) else yaml.safe_dump(options))
    return str(path)


def started(options: dict) -> dict:
    """The options as BasicSR hands them to a model class."""
    return {**options, "num_gpu": 0, "is_train": True, "dist": False, "rank": 0, "world_size": 1}


def test_shipped_files_equal_the_generators_output():
    assert subprocess.run([sys.executable, ROOT / "scripts/make_options.py", "--check"], check=False).returncode == 0


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(ROOT / "options")))
def test_every_shipped_file_builds_and_trains_a_step(path):
    options, messages = read_options(path, is_train="test" not in str(path.relative_to(ROOT)))
    assert not messages
    options["network_g"] |= SMALLER[options["network_g"]["type"]]  # the rest of the file as it is
    options["path"]["pretrain_network_g"] = None  # an own training's, or of another size
    if "train" not in options:
        options["val"]["allow_random_weights"] = True
        DerainModel({**started(options), "is_train": False})
        return
    patch = options["network_g"].get("img_size", 16)
    options["datasets"]["train"] |= {"gt_size": patch}
    if "gt_sizes" in options["datasets"]["train"]:
        options["datasets"]["train"]["gt_sizes"] = [8, *[16] * (len(options["datasets"]["train"]["gt_sizes"]) - 1)]
    model = DerainModel(started(options))
    warm_up = options["train"].get("warmup_iter", -1)
    model.update_learning_rate(1, warm_up)
    model.feed_data(batch(model.plan.loader_batch, 1, patch, next(model.net_g.parameters()).dtype))
    model.optimize_parameters(1)
    assert model.get_current_learning_rate() == [options["train"]["optim_g"]["lr"] / max(1, warm_up)]
    assert math.isfinite(model.get_current_log()["l_pix"])


def test_files_of_the_published_fork_run(pairs, tmp_path, capsys):
    path = write(tmp_path / "fork.yml", FORK.format(root=pairs))
    options = prepare(path, ["num_gpu=0"], is_train=True, distributed=False)
    said = capsys.readouterr().out
    for name in ("ImageCleanModel", "Dataset_PairedImage", "geometric_augs", "use_grad_clip", "rgb2bgr"):
        assert said.count(f": {name}") + said.count(f".{name}") + said.count(f"type {name}") >= 1, name
    assert options["train"]["grad_clip"] == 0.01 and options["datasets"]["train"]["use_rot"] is True
    model = DerainModel(started(options))
    model.update_learning_rate(1)
    model.feed_data(batch(8, 1, dtype=next(model.net_g.parameters()).dtype))
    model.optimize_parameters(1)
    assert model.output.shape[0] == 4  # a random 4 of the 8 loaded, as in the published loop


def test_overrides_are_values_not_code(options):
    override(options, ["train:optim_g:lr=1e-4", "train:total_iter=5e3", "name=a=b", "train:scheduler:periods=[1, 2]"])
    assert options["train"]["optim_g"]["lr"] == 1e-4 and options["train"]["total_iter"] == 5000
    assert options["name"] == "a=b" and options["train"]["scheduler"]["periods"] == [1, 2]
    override(options, ["name=__import__('os').mkdir('executed')"])
    assert options["name"] == "__import__('os').mkdir('executed')"
    with pytest.raises(UserError, match="no section 'trian'; did you mean 'train'"):
        override(options, ["trian:total_iter=3"])


def edit(options: dict, keys: str, value: object) -> dict:
    changed = copy.deepcopy(options)
    *parents, leaf = keys.split(":")
    section = changed
    for parent in parents:
        section = section[parent]
    if value is ...:
        del section[leaf]
    else:
        section[leaf] = value
    return changed


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        ("trian", {}, "unknown option trian; did you mean 'train'"),
        ("train:effective_batchsize", 16, "unknown option train.effective_batchsize; did you mean 'effective_batch"),
        ("train:optim_g:lr", "fast", "train.optim_g.lr must be a number, not 'fast'"),
        ("train:total_iter", "many", "option train.total_iter must be a whole number"),
        ("train:total_iter", ..., "option train.total_iter is missing"),
        ("train:amp", True, "option train.amp must be one of"),
        ("train:pixel_opt", {"type": "L1Los"}, "train.pixel_opt: nothing is registered as 'L1Los'; did you mean 'L1L"),
        ("train:pixel_opt", {"type": "L1Loss", "wait": 1}, "unknown option train.pixel_opt.wait"),
        ("val:tiles", 3, "unknown option val.tiles; did you mean 'tile'"),
        ("val:metrics", {"psnr": {"type": "calculate_psnr_rain100"}}, "did you mean 'calculate_psnr_rain200'"),
        ("network_g:type", "DRSFormer", "nothing is registered as 'DRSFormer'; did you mean 'DRSformer'"),
        ("network_g:dims", 8, "unknown option network_g.dims; did you mean 'dim'"),
        ("network_g:dim", "48", "option network_g.dim must be a whole number, not '48'"),
        ("network_g:num_blocks", [1, 1, 1, "1"], "option network_g.num_blocks must be a list"),
        ("network_g:LayerNorm_type", "Batch", "option network_g.LayerNorm_type must be one of WithBias, BiasFree"),
        ("network_g:heads", [8, 2, 4, 8], "8 channels do not split into 8 heads"),
        ("model_type", "DerainModle", "model_type: nothing is registered as 'DerainModle'; did you mean 'DerainModel'"),
        ("datasets:train:gt_sise", 3, "unknown option datasets.train.gt_sise; did you mean 'gt_size'"),
        ("datasets:train:dataroot_lq", "/nowhere", "datasets.train.dataroot_lq: there is no folder /nowhere"),
        ("datasets:train:gt_size", 36, "datasets.train.gt_size: 36 is no multiple of 8"),
        ("datasets:train:use_shuffle", False, "use_shuffle must be true (training pictures are always shuffled)"),
        ("datasets:train:persistent_workers", True, "persistent_workers: True needs num_worker_per_gpu of at least 1"),
        ("datasets:train:prefetch_mode", "cpu", "prefetch_mode: cpu needs num_worker_per_gpu of at least 1"),
        ("datasets:train:batch_size_per_gpu", ..., "datasets.train.batch_size_per_gpu and datasets.train.gt_size are"),
        ("val:tile", 32, "val.tile_overlap (32, by default 32) must be smaller than val.tile (32)"),
        ("val:window_size", 3, "val.window_size must be a multiple of 8"),
        ("train:pixel_opt", None, "there is no loss: option train.pixel_opt is missing"),
        ("train:scheduler:periods", 5, "train.scheduler: "),
        ("train:scheduler:periods", [1, 2], "periods sum to 3 but train.total_iter is 8"),
        ("train:optim_g:type", "AdamV", "there is no optimizer AdamV; did you mean 'Adam"),
        ("train:optim_g:momentum", 0.9, "train.optim_g: "),
        ("train:effective_batch_size", 5, "train.effective_batch_size 5 is no multiple of"),
        ("manual_seed", -1, "manual_seed must be a whole number of at least 0"),
        ("datasets:train", ..., "datasets.train is missing; a test file cannot train"),
        ("path", {"pretrain_network_g": "/nowhere.pth"}, "path.pretrain_network_g: there is no file /nowhere.pth"),
    ],
)
def test_mistakes_are_named_in_one_line(options, tmp_path, keys, value, message):
    path = write(tmp_path / "bad.yml", edit(options, keys, value))
    with pytest.raises(UserError) as error:
        prepare(path, [], is_train=True, distributed=False)
    assert message in str(error.value) and path in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", "bad.yml, line 1: expected"),
        ("name: x\nname: y\n", "bad.yml, line 2: key 'name' stands twice"),
        ("just text", "holds no options"),
        ("", "holds no options"),
    ],
)
def test_files_that_are_no_option_files(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        load_yaml(write(tmp_path / "bad.yml", text))
    with pytest.raises(UserError, match="cannot read the option file"):
        load_yaml(tmp_path / "missing.yml")


def test_other_peoples_keys_are_never_rejected(options, tmp_path):
    options |= {"model_type": "SRModel", "their_key": 1, "network_g": {"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3}}
    options["train"]["their_loss_weight"] = 1
    options["datasets"]["train"] |= {"type": "PairedImageDataset", "their_augmentation": True}
    prepare(write(tmp_path / "theirs.yml", options), [], is_train=True, distributed=False)


def test_a_training_file_is_no_test(options, tmp_path):
    options["val"]["allow_random_weights"] = True
    with pytest.raises(UserError, match=r"this is a training file; a test file has datasets\.test"):
        prepare(write(tmp_path / "train.yml", options), [], is_train=False, distributed=False)


def test_an_option_file_is_not_moved_away_with_its_experiment(options, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    states = tmp_path / "experiments/small/training_states"
    states.mkdir(parents=True)
    path = write(states.parent / "small.yml", options)
    for resumes in (False, True):  # there is no state yet, so that this would start anew
        with pytest.raises(UserError, match="which this run would move away"):
            prepare(path, [], is_train=True, distributed=False, resumes=resumes)
    (states / "4.state").touch()
    prepare(path, [], is_train=True, distributed=False, resumes=True)


def test_random_weights_are_not_tested_by_accident(options, tmp_path):
    options["datasets"] = {"test": options["datasets"]["val"]}
    path = write(tmp_path / "test.yml", options)
    with pytest.raises(UserError, match="a test needs trained weights"):
        prepare(path, [], is_train=False, distributed=False)
    prepare(path, ["val:allow_random_weights=true"], is_train=False, distributed=False)
