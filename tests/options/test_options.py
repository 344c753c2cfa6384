"""Option files: safe reading, checks that name the key, translation, and every shipped file in use."""

import copy
import importlib.machinery
import importlib.util
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from drsformer_arch.bridge.option_checks import prepare
from drsformer_arch.cli import main
from drsformer_arch.options.reading import load_yaml, override, read_options
from drsformer_arch.options.recipes import largest_batch
from drsformer_arch.system.errors import UserError
from drsformer_arch.training.derain_model import DerainModel
from tests.golden_weights import small_arguments
from tests.training.test_derain_model import batch

ROOT = Path(__file__).parents[2]
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
    kind = options["network_g"]["type"]
    options["network_g"] |= SMALLER.get(kind) or small_arguments()[kind]  # the rest of the file as it is
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
    losses = [value for name, value in model.get_current_log().items() if name.startswith("l_")]
    assert losses
    assert all(map(math.isfinite, losses))


@pytest.mark.parametrize("capability", ["AVX512", "AVX2"])
def test_precisions_that_a_processor_is_slow_in_are_said(capability, pairs, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    path = write(tmp_path / "fork.yml", FORK.format(root=pairs))

    def said(*overrides):
        prepare(path, overrides, is_train=True, distributed=False)
        return [line.partition(": ")[2] for line in capsys.readouterr().out.splitlines() if "10 times" in line]

    in_bf16 = "bf16 takes more than 10 times as long as float32 on this processor, which has no AVX-512"
    assert said() == []
    if capability == "AVX512":
        assert said("train:amp=bf16", "val:precision=bf16") == []
        assert said("train:amp=fp16") == [
            "train.amp: fp16 takes more than 10 times as long as bf16 on a CPU; set train.amp: bf16"
        ]
    else:
        assert said("train:amp=bf16", "val:precision=bf16") == [
            f"train.amp: {in_bf16}; set train.amp: false",
            f"val.precision: {in_bf16}; set val.precision: float32",
        ]
        assert said("train:amp=fp16") == [
            "train.amp: fp16 takes more than 10 times as long as float32 on a CPU; set train.amp: false"
        ]


def test_files_of_the_published_fork_run(pairs, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    path = write(tmp_path / "fork.yml", FORK.format(root=pairs))
    options = prepare(path, ["num_gpu=0"], is_train=True, distributed=False)
    said = capsys.readouterr().out
    for name in ("ImageCleanModel", "Dataset_PairedImage", "geometric_augs", "use_grad_clip", "rgb2bgr"):
        assert said.count(f": {name}") + said.count(f".{name}") + said.count(f"type {name}") >= 1, name
    assert options["train"]["grad_clip"] == 0.01
    assert options["datasets"]["train"]["use_rot"] is True
    prepare(path, ["train:amp=fp16"], is_train=True, distributed=False)  # written for 8 GPUs, and there is none
    said = capsys.readouterr().out
    assert "effective batch was 32 on the 8 GPUs of num_gpu, is 4 here: set train.effective_batch_size: 32" in said
    assert "train.amp: fp16 takes more than 10 times as long as bf16 on a CPU" in said
    prepare(path, ["train:effective_batch_size=32"], is_train=True, distributed=False)
    assert "effective batch" not in capsys.readouterr().out
    model = DerainModel(started(options))
    model.update_learning_rate(1)
    model.feed_data(batch(8, 1, dtype=next(model.net_g.parameters()).dtype))
    model.optimize_parameters(1)
    assert model.output.shape[0] == 4  # a random 4 of the 8 loaded, as in the published loop


def test_overrides_are_values_not_code(options):
    override(options, ["train:optim_g:lr=1e-4", "train:total_iter=5e3", "name=a=b", "train:scheduler:periods=[1, 2]"])
    assert options["train"]["optim_g"]["lr"] == 1e-4
    assert options["train"]["total_iter"] == 5000
    assert options["name"] == "a=b"
    assert options["train"]["scheduler"]["periods"] == [1, 2]
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
        ("train:optim_g:lr", "fast", "train.optim_g.lr must be a number of at least 0, not 'fast'"),
        ("train:total_iter", "many", "option train.total_iter must be a whole number"),
        ("train:total_iter", ..., "option train.total_iter is missing"),
        ("train:amp", True, "option train.amp must be one of"),
        ("train:pixel_opt", {"type": "L1Los"}, "train.pixel_opt: nothing is registered as 'L1Los'; did you mean 'L1L"),
        ("train:pixel_opt", {"type": "L1Loss", "wait": 1}, "unknown option train.pixel_opt.wait"),
        ("train:losses", {"type": "L1Loss"}, "option train.losses must be a list"),
        (
            "train:losses",
            [{"type": "FFTLos"}],
            "train.losses[0]: nothing is registered as 'FFTLos'; did you mean 'FFTL",
        ),
        ("train:losses", [{"type": "FFTLoss", "norm": 1}], "unknown option train.losses[0].norm"),
        ("train:losses", [{"type": "FFTLoss", "convention": "x"}], "train.losses[0]: ValueError: convention must be"),
        (
            "train:losses",
            [{"type": "FFTLoss", "outputs": [0, 1]}],
            "losses[0].outputs: the network's pictures are 0 to",
        ),
        ("train:losses", [{"type": "L1Loss", "reduction": "none"}], "losses[0]: ValueError: it gives no single number"),
        ("train:losses", [{"type": "EdgeLoss", "eps": 0}], "the loss or its gradient is not finite"),
        ("train:losses", [{"type": "PerceptualLoss", "layer_weights": {}}], "give it as train.perceptual_opt"),
        ("train:losses", [{"type": "FFTLoss"}] * 2, "train.losses: two terms are called l_fft in the log; give one"),
        ("train:losses", [{"type": "L1Loss", "name": "pix"}], "train.losses: two terms are called l_pix"),
        ("val:tiles", 3, "unknown option val.tiles; did you mean 'tile'"),
        ("val:metrics", {"psnr": {"type": "calculate_psnr_rain100"}}, "did you mean 'calculate_psnr_rain200'"),
        ("network_g:type", "DRSFormer", "nothing is registered as 'DRSFormer'; did you mean 'DRSformer'"),
        ("network_g:dims", 8, "unknown option network_g.dims; did you mean 'dim'"),
        ("network_g:dim", "48", "option network_g.dim must be a whole number of at least 1, not '48'"),
        ("network_g:num_blocks", [1, 1, 1, "1"], "option network_g.num_blocks must be a list"),
        ("network_g:LayerNorm_type", "Batch", "option network_g.LayerNorm_type must be one of WithBias, BiasFree"),
        ("network_g:num_blocks", [1, 1, -1, 1], "network_g.num_blocks must be a list, each entry a whole number of at"),
        ("network_g:heads", [0, 1, 1, 1], "network_g.heads must be a list, each entry a whole number of at least 1"),
        ("network_g:dim", -8, "network_g.dim must be a whole number of at least 1, not -8"),
        (
            "network_g",
            {"type": "DualGCN", "in_channels": 1},
            "takes pictures of 1 channel, those of datasets.train have 3",
        ),
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
        ("train:scheduler:periods", 5, "train.scheduler.periods must be a list that is not empty"),
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
    assert message in str(error.value)
    assert path in str(error.value)
    assert "\n" not in str(error.value)


def test_a_network_without_blocks_trains_on_patches_that_it_takes(options, tmp_path):
    options["network_g"] = {"type": "FADformer", "depth": [0] * 5}
    path = write(tmp_path / "options.yml", options)
    prepare(path, [], is_train=True, distributed=False)
    with pytest.raises(
        UserError, match=r"datasets\.train\.gt_size: 8 is below 12, the smallest that the network takes"
    ):
        prepare(path, ["datasets:train:gt_size=8"], is_train=True, distributed=False)


# Of each kind some: places and what the command line says, names, values that mean nothing or are out of range.
TRAIN_ONLY = [
    ("path", {"experiments_root": "elsewhere"}, "option path.experiments_root has no place in an option file"),
    ("path", {"models": "elsewhere"}, "option path.models has no place"),
    ("path", {"training_states": "elsewhere"}, "option path.training_states has no place"),
    ("path", {"log": "elsewhere"}, "option path.log has no place"),
    ("path", {"visualization": "elsewhere"}, "option path.visualization has no place"),
    ("auto_resume", True, "option auto_resume has no place in an option file: it is given on the command line"),
    ("dist", True, "option dist has no place"),
    ("rank", 1, "option rank has no place"),
    ("world_size", 2, "option world_size has no place"),
    ("is_train", False, "option is_train has no place"),
    ("root_path", "/tmp", "option root_path has no place"),
    ("launcher", "pytorch", "option launcher has no place"),
    ("debug", True, "option debug has no place"),
    ("start_iter", 4, "option start_iter has no place"),
    ("datasets:val:phase", "train", "option datasets.val.phase has no place"),
    ("datasets:val:scale", 4, "option datasets.val.scale has no place"),
    ("datasets:train_2", {"type": "PairedRainDataset"}, "option datasets.train_2: a training file knows train, val"),
    ("datasets:test", {"type": "PairedRainDataset"}, "option datasets.test: a training file knows train, val"),
    ("scale", 4, "option scale must be 1, not 4"),
    ("name", "../victim", "option name names a file or folder, which '../victim' cannot: it is a path"),
    ("name", "rain/exp1", "it is a path"),
    ("name", "rain\\exp1", "it is a path"),
    ("name", "", "it is empty"),
    ("name", ".", "begins or ends with a dot"),
    ("name", "small.", "begins or ends with a dot"),
    ("name", "small ", "begins or ends with a dot or a space"),
    ("name", "sm\u200ball", "characters that cannot be seen"),
    ("name", "sm\0all", "option name holds a control character, '\\x00'"),
    ("name", "x" * 129, "longer than 128 bytes"),
    ("name", 5, "it is no text"),
    ("datasets:val:name", "../val", "option datasets.val.name names a file or folder"),
    ("val:metrics:iter", {"type": "calculate_psnr_ddn"}, "option val.metrics.iter: the log of a training calls"),
    ("val:metrics:a/b", {"type": "calculate_psnr_ddn"}, "val.metrics.a/b names a file or folder"),
    ("datasets:train:dataroot_lq", "a\0b", "option datasets.train.dataroot_lq holds a control character"),
    ("datasets:train:dataroot_lq", "x" * 3000, "there is no folder xxx"),
    ("path", {"pretrain_network_g": ""}, "option path.pretrain_network_g is empty: name a file"),
    ("path", {"pretrain_network_g": "~nobody_is_there/net.pth"}, "path.pretrain_network_g: "),
    ("datasets:train:batch_size_per_gpu", 10**9, "datasets.train.batch_size_per_gpu must be a whole number"),
    ("datasets:train", ("gt_size", 4096, "batch_size_per_gpu", 65536), "pairs of 4096 px of an iteration take"),
    ("datasets:train:num_worker_per_gpu", -1, "datasets.train.num_worker_per_gpu must be a whole number of at least 0"),
    ("datasets:train:gt_size", -8, "datasets.train.gt_size must be a whole number of at least 1"),
    ("datasets:train:gt_size", 10**9, "datasets.train.gt_size must be a whole number"),
    ("datasets:train:gt_sizes", [], "datasets.train.gt_sizes must be a list that is not empty"),
    ("datasets:train:dataset_enlarge_ratio", 1e9, "dataset_enlarge_ratio must be a number of at least"),
    ("datasets:train:type", ["a"], "datasets.train needs a type"),
    ("datasets:train:prefetch_mode", "cuda", "prefetch_mode: cuda needs pin_memory: true"),
    ("datasets:val", None, "datasets.val needs a type"),
    ("datasets", [1], "option datasets must be a section with keys"),
    ("path", [1], "option path must be a section"),
    ("val", 3, "option val must be a section"),
    ("train", "x", "option train must be a section"),
    (1, 2, "a key must be a name, not 1"),
    ("manual_seed", 2**70, "option manual_seed: a whole number of 71 bits is out of range"),
    ("manual_seed", 2**40, "option manual_seed must be a whole number of at least 0"),
    ("train:total_iter", 0, "option train.total_iter must be a whole number of at least 1"),
    ("train:total_iter", 1e30, "option train.total_iter must be a whole number"),
    ("train:total_iter", math.nan, "option train.total_iter is not a number"),
    ("val:val_freq", 0, "option val.val_freq must be a whole number of at least 1"),
    ("logger:print_freq", -1, "option logger.print_freq must be a whole number"),
    ("logger:save_checkpoint_freq", 0.5, "option logger.save_checkpoint_freq must be a whole number"),
    ("train:ema_decay", 1.5, "option train.ema_decay must be a number of at least 0 and below 1"),
    ("train:grad_clip", math.inf, "option train.grad_clip must be a number above 0"),
    ("train:effective_batch_size", 10**9, "option train.effective_batch_size must be"),
    ("train:warmup_iter", -7, "option train.warmup_iter must be"),
    ("train:optim_g", {"type": "AdamW"}, "option train.optim_g.lr is missing"),
    ("train:optim_g:lr", math.inf, "option train.optim_g.lr must be a number of at least 0, not inf"),
    ("train:optim_g:lr", -1, "option train.optim_g.lr must be a number of at least 0"),
    ("train:optim_g:betas", [0.9], "option train.optim_g.betas must be two numbers from 0 to below 1"),
    ("train:optim_g:betas", [0.9, 0.9, 0.9], "option train.optim_g.betas must be two numbers"),
    ("train:optim_g:eps", "a", "train.optim_g: "),
    ("train:optim_g:differentiable", True, "train.optim_g: "),
    ("train:scheduler:periods", [-8, 16], "option train.scheduler.periods must be a list"),
    ("train:scheduler:eta_mins", ["a", 1], "option train.scheduler.eta_mins must be a list"),
    ("train:pixel_opt", {"type": "L1Loss", "reduction": "max"}, "train.pixel_opt: ValueError: Unsupported reduction"),
    ("train:pixel_opt", {"type": "L1Loss", "loss_weight": -1}, "train.pixel_opt.loss_weight must be a number above 0"),
    ("train:pixel_opt", {"type": "GANLoss", "gan_type": "vanilla"}, "train.pixel_opt: "),
    ("train:perceptual_opt", {"type": "L1Loss"}, "train.perceptual_opt.type: L1Loss is no perceptual loss"),
    ("val:metrics", {"psnr": {"type": "calculate_psnr"}}, "option val.metrics.psnr.crop_border is missing"),
    ("val:metrics", {"n": {"type": "calculate_niqe"}}, "option val.metrics.n.crop_border is missing"),
    ("val:metrics:psnr", {"type": "calculate_psnr", "crop_border": -1}, "val.metrics.psnr.crop_border must be"),
    ("val:metrics:psnr", {"type": "calculate_psnr", "crop_border": 10**6}, "val.metrics.psnr: "),
    (
        "val:metrics:psnr",
        {"type": "calculate_psnr", "crop_border": 0, "test_y_chanel": True},
        "unknown option val.metrics.psnr.test_y_chanel; did you mean 'test_y_channel'",
    ),
    ("val:metrics:psnr", {"type": "calculate_psnr", "crop_border": 0, "input_order": "HCW"}, "val.metrics.psnr: "),
    ("val:metrics", ["psnr"], "option val.metrics must be a section with keys"),
    ("val:metrics:psnr", ["x"], "option val.metrics.psnr must be a section with keys, not ['x']"),
    ("logger:wandb", {"project": "p"}, "option logger.wandb: it gets TensorBoard's curves; set logger.use_tb_logger"),
    ("logger:wandb", {"projekt": "p"}, "unknown option logger.wandb.projekt; did you mean 'project'"),
    ("dist_params", {"timeout_minutes": 1e18}, "option dist_params.timeout_minutes must be"),
    ("network_g:heads", [0, 2, 4, 8], "network_g"),
    ("network_g", {"type": "SwinIR", "window_size": 7}, "network_g: RuntimeError: shape "),
    (
        "network_g",
        {"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 10**9},
        "num_feat must be at most",
    ),
    ("path", {"ignore_resume_networks": ["network_g"]}, "without its own weights network_g would go on from random"),
    ("path", {"ignore_resume_networks": ["network_q"]}, "there is no network 'network_q'"),
    ("train:optim_g:weight_decay", math.nan, "option train.optim_g.weight_decay is not a number"),
]


@pytest.mark.parametrize(("keys", "value", "message"), TRAIN_ONLY, ids=lambda value: str(value)[:30])
def test_what_cannot_be_obeyed_is_refused_before_anything_is_made(  # noqa: PLR0917 - fixtures
    options, tmp_path, monkeypatch, keys, value, message
):
    monkeypatch.chdir(tmp_path)
    if isinstance(value, tuple):
        options["datasets"]["train"] |= dict(zip(value[::2], value[1::2], strict=True))
    else:
        options = edit(options, keys, value) if isinstance(keys, str) else {**options, keys: value}
    assert refused("bad.yml", options).find(message) >= 0
    assert [path.name for path in tmp_path.iterdir()] == ["bad.yml"]


def refused(path: str, options: dict, *, is_train: bool = True) -> str:
    with pytest.raises(UserError) as error:
        prepare(write(Path(path), options), [], is_train=is_train, distributed=False)
    said = str(error.value)
    assert path in said, said
    assert len(said) < 400, said
    assert said.isprintable(), said
    return said


@pytest.mark.parametrize("package", ["tensorboard", "wandb"])
def test_a_logger_whose_package_is_missing_is_named(options, tmp_path, monkeypatch, package):
    monkeypatch.chdir(tmp_path)
    find = importlib.util.find_spec
    spec = importlib.machinery.ModuleSpec("there", None)
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == package else find(name, *a) or spec
    )
    options["logger"] |= {"use_tb_logger": True, "wandb": {"project": "rain"}}
    assert f"needs the package {package}: pip install {package}" in refused("bad.yml", options)


def test_batches_that_documents_recommend_divide_the_effective_batch():
    table = (ROOT / "docs/long_trainings.md").read_text()
    for gpu in (8, 12, 24, 48):
        estimates = [largest_batch(gpu, activations, 16) for activations in (2.8, 1.5, 2.1, 1.2)]
        assert f"| {gpu} GB | {' | '.join(map(str, estimates))} |" in table
        assert all(16 % number == 0 for number in estimates)


def test_the_folder_of_earlier_runs_is_not_taken_for_the_package(options, tmp_path, monkeypatch):
    (tmp_path / "wandb").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)  # as `python -m` does
    options["logger"] |= {"use_tb_logger": True, "wandb": {"project": "rain"}}
    if getattr(importlib.util.find_spec("wandb"), "origin", None) is None:
        assert "needs the package wandb: pip install wandb" in refused("bad.yml", options)


def test_places_and_names_of_a_test_are_obeyed_or_refused(options, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one = options["datasets"]["val"]
    options = {**options, "datasets": {"test": one}}
    del options["train"]
    options["val"]["allow_random_weights"] = True
    prepare(write(Path("fine.yml"), options), [], is_train=False, distributed=False)
    for key in ("results_root", "experiments_root", "visualization", "log", "models", "resume_state"):
        assert f"option path.{key} has no place" in refused("bad.yml", {**options, "path": {key: "x"}}, is_train=False)
    for key, value in (("auto_resume", True), ("is_train", True), ("dist", True), ("rank", 0)):
        assert f"option {key} has no place" in refused("bad.yml", {**options, key: value}, is_train=False)
    twice = {**options, "datasets": {"test_1": {**one, "name": "Rain"}, "test_2": {**one, "name": "rain"}}}
    said = refused("bad.yml", twice, is_train=False)
    assert "option datasets.test_1.name and option datasets.test_2.name have the same name 'rain'" in said
    assert "option val.suffix names a file" in refused("bad.yml", edit(options, "val:suffix", "../x"), is_train=False)
    assert "a test file knows" in refused("bad.yml", {**options, "datasets": {"foo": one}}, is_train=False)
    with pytest.raises(UserError, match=r"option name names a file or folder, which '\.\./\.\./x' cannot"):
        prepare("fine.yml", ["name=../../x"], is_train=False, distributed=False)


def test_other_peoples_files_are_checked_for_what_basicsr_reads(options, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options |= {"model_type": "SRModel", "network_g": {"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3}}
    options["datasets"]["train"] |= {"type": "PairedImageDataset", "their_augmentation": {1: "x"}}
    assert "option train.optim_g.type: SRModel takes Adam, not AdamW; model_type: DerainModel takes" in refused(
        "bad.yml", options
    )
    options["train"]["optim_g"]["type"] = "Adam"
    assert "train.scheduler.type: SRModel takes CosineAnnealingRestartLR, MultiStepLR, MultiStepRestartLR, not Cos" in (
        refused("bad.yml", options)
    )
    options["train"]["scheduler"] = {"type": "MultiStepLR", "milestones": [4]}
    prepare(write(Path("theirs.yml"), options), [], is_train=True, distributed=False)
    for keys, value, message in (
        ("val:val_freq", 0, "option val.val_freq must be"),
        ("logger:print_freq", 0, "option logger.print_freq must be"),
        ("train:total_iter", 0, "option train.total_iter must be"),
        ("datasets:train:num_worker_per_gpu", -1, "option datasets.train.num_worker_per_gpu must be"),
        ("datasets:train:batch_size_per_gpu", ..., "option datasets.train.batch_size_per_gpu is missing"),
        ("num_gpu", "two", "option num_gpu must be auto or a whole number"),
        ("train:optim_g:weight_dekay", 1, "train.optim_g: TypeError"),
        ("train:scheduler:gama", 1, "train.scheduler: TypeError"),
        ("train:pixel_opt", None, "there is no loss"),
        ("train:pixel_opt:reduction", "x", "train.pixel_opt: "),
        ("auto_resume", True, "option auto_resume has no place"),
        ("name", "a/b", "option name names a file"),
    ):
        assert message in refused("bad.yml", edit(options, keys, value))


def test_best_weights_that_could_never_be_written_are_named(options, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    options["logger"]["save_best"] = "psnr"
    single = {"type": "SingleImageDataset", "dataroot_lq": options["datasets"]["val"]["dataroot_lq"]}
    only_train = {**options, "datasets": {"train": options["datasets"]["train"]}}
    assert "save_best needs a validation set" in refused("bad.yml", only_train)
    assert "psnr compares with targets, and the first validation set, datasets.val, has none" in refused(
        "bad.yml", edit(options, "datasets:val", single)
    )
    options["val"]["val_freq"] = 1000
    prepare(write(Path("fine.yml"), options), [], is_train=True, distributed=False)
    assert "only the last weights are validated" in capsys.readouterr().out


def test_a_state_of_another_experiment_and_a_launcher_that_is_none_are_refused(options, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    states = Path("experiments/other/training_states")
    states.mkdir(parents=True)
    (states / "4.state").touch()
    options["path"] = {"resume_state": str(states / "4.state")}
    assert "is not of this experiment, whose states lie in experiments/small/training_states" in refused(
        "bad.yml", options
    )
    monkeypatch.delenv("RANK", raising=False)
    assert main(["train", "-opt", "bad.yml", "--launcher", "pytorch"]) == 2
    assert "--launcher pytorch is for processes of torchrun" in capsys.readouterr().err
    options["path"] = {}
    debugged = prepare(write(Path("a.yml"), options), [], is_train=True, distributed=False, debug=True)
    assert debugged["name"] == "debug_small"
    assert "the name holds 'debug'" in capsys.readouterr().out


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
    options["train"] |= {
        "their_loss_weight": 1,
        "optim_g": {"type": "Adam", "lr": 1e-3},
        "scheduler": {"type": "MultiStepLR", "milestones": [4]},
    }
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
