"""The model class: the official training step, accumulation, precision, failures, weights."""

import copy
import logging
import math
import shutil
from collections.abc import Iterator

import cv2
import numpy as np
import pytest
import torch
from basicsr.data import build_dataset
from skimage.data import astronaut
from torch import nn

from drsformer_arch import DRSformer
from drsformer_arch.archs.contract import outputs
from drsformer_arch.fast.channel_attention import FoldedTopKAttention
from drsformer_arch.page.pipeline_page import write_test_page
from drsformer_arch.restore.tiling import restore
from drsformer_arch.system.errors import UserError
from drsformer_arch.training import checkpoints
from drsformer_arch.training.batch_plan import batch_plan
from drsformer_arch.training.derain_model import DerainModel
from drsformer_arch.training.loaders import CheckedDataset, refuse_equal_names
from drsformer_arch.training.lr_scheduler import CosineAnnealingRestartCyclicLR
from tests.golden_weights import load_golden_weights, load_json


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """What BasicSR's logger says, which hands nothing on to Python's root logger once it is set up."""
    logger = logging.getLogger("basicsr")
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)


def batch(size: int, seed: int, side: int = 32, dtype: torch.dtype = torch.float64) -> dict:
    rng = np.random.RandomState(seed)
    lq, gt = (torch.from_numpy(rng.rand(size, 3, side, side).astype(np.float32)).to(dtype) for _ in range(2))
    return {"lq": lq, "gt": gt, "lq_path": [f"picture{i}.png" for i in range(size)]}


def train(opt: dict, batches: list[dict], dtype: torch.dtype = torch.float64) -> tuple[DerainModel, list, list]:
    """Train on the batches; returns the model, the losses and the learning rates."""
    model = DerainModel(copy.deepcopy(opt))
    load_golden_weights(model.net_g)
    model.net_g.to(dtype)
    losses, rates = [], []
    for iteration, data in enumerate(batches, start=1):
        model.update_learning_rate(iteration, opt["train"].get("warmup_iter", -1))
        model.feed_data(data)
        model.optimize_parameters(iteration)
        losses.append(model.get_current_log().get("l_pix"))
        rates.append(model.get_current_learning_rate()[0])
    return model, losses, rates


def weights(model: DerainModel) -> dict:
    return {key: value.clone() for key, value in model.net_g.state_dict().items()}


def test_training_equals_the_official_step(model_options):
    golden = load_json("drsformer_training_20_iterations")
    model_options["network_g"] = {"type": "DRSformer", "dim": 8, "num_blocks": [1, 1, 1, 1], "heads": [1, 2, 4, 8]}
    model_options["train"]["scheduler"]["periods"] = [5, 15]
    model, losses, rates = train(model_options, [batch(2, 1000 + iteration) for iteration in range(1, 21)])
    assert losses == pytest.approx(golden["losses"], rel=1e-9)
    assert rates == pytest.approx(golden["lrs"], rel=1e-12)
    means = {key: value.abs().mean().item() for key, value in model.net_g.state_dict().items()}
    assert means == pytest.approx(golden["final_abs_mean"], rel=1e-9)


def test_accumulated_batches_train_like_whole_ones(model_options):
    model_options["train"]["effective_batch_size"] = 4
    results = []
    for per_step in (4, 2, 1):
        model_options["datasets"]["train"]["batch_size_per_gpu"] = per_step
        model, losses, _ = train(model_options, [batch(4, seed) for seed in range(3)])
        assert model.plan.loader_batch == 4
        assert model.plan.stage(1).steps == 4 // per_step
        results.append((losses, weights(model)))
    for losses, state in results[1:]:
        assert losses == pytest.approx(results[0][0], rel=1e-12)
        torch.testing.assert_close(state, results[0][1], rtol=1e-9, atol=1e-12)


def test_progressive_stages_choose_patch_batch_and_steps(options):
    options["datasets"]["train"] |= {
        "batch_size_per_gpu": 4,
        "gt_size": 64,
        "mini_batch_sizes": [4, 1],
        "gt_sizes": [32, 64],
        "iters": [10, 5],
    }
    options["train"]["effective_batch_size"] = [8, 4]
    plan = batch_plan({**options, "dist": True, "world_size": 2})
    assert [plan.stage(iteration).patch for iteration in (1, 10, 11, 15, 99)] == [32, 32, 64, 64, 64]
    assert [(s.micro_batch, s.steps) for s in plan.stages] == [(4, 1), (1, 2)]
    assert plan.loader_batch == 4
    images = torch.arange(4.0)[:, None, None, None].expand(4, 3, 64, 64)
    early, late = plan.select(10, images, images, list("abcd")), plan.select(11, images, images, list("abcd"))
    assert early[0].shape == (4, 3, 32, 32)
    assert late[0].shape == (2, 3, 64, 64)
    assert ["abcd"[int(i)] for i in late[0][:, 0, 0, 0]] == late[2]  # names follow the chosen pictures

    for effective, message in ((6, "6 is no multiple of 2 process"), ([8, 4, 4], "3 entries for 2 stages")):
        options["train"]["effective_batch_size"] = effective
        with pytest.raises(UserError, match=message):
            batch_plan({**options, "dist": True, "world_size": 2})
    options["datasets"]["train"] |= {"mini_batch_sizes": [3, 1]}
    for effective, numbers in ((16, "to 1, 2, 4 or 8$"), (15, "make it a multiple of 2, or"), (2, "to 1$")):
        options["train"]["effective_batch_size"] = effective
        with pytest.raises(UserError, match=numbers):
            batch_plan({**options, "dist": True, "world_size": 2})


def test_cyclic_schedule_follows_its_formula():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = CosineAnnealingRestartCyclicLR(optimizer, [4, 6], [1, 0.5], [2.0, 0.2])
    rates = []
    for _ in range(13):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    second = [0.2 + 0.5 * 0.5 * 1.8 * (1 + math.cos(math.pi * t / 6)) for t in range(1, 7)]
    assert rates == pytest.approx([2.0] * 5 + second + [0.2, 0.2])


def test_warm_up_hands_over_to_a_stepwise_schedule(model_options):
    """BasicSR's own warm-up leaves MultiStepLR at (w-1)/w of the rate for ever."""
    model_options["train"] |= {
        "warmup_iter": 4,
        "scheduler": {"type": "MultiStepLR", "milestones": [6], "gamma": 0.5},
    }
    _, _, rates = train(model_options, [batch(2, seed) for seed in range(8)])
    assert rates == pytest.approx([3e-4 * f for f in (0.25, 0.5, 0.75, 1, 1, 1, 0.5, 0.5)])


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_mixed_precision_keeps_the_scores_in_float32(model_options, monkeypatch, amp):
    model_options["train"]["amp"] = amp
    seen = set()
    original = FoldedTopKAttention.maps
    monkeypatch.setattr(
        FoldedTopKAttention, "maps", lambda self, scores: seen.add(scores.dtype) or original(self, scores)
    )
    model, losses, _ = train(model_options, [batch(2, 1, dtype=torch.float32)] * 3, torch.float32)
    assert seen == {torch.float32}
    assert all(math.isfinite(loss) for loss in losses)
    start = load_golden_weights(DerainModel(model_options).net_g).state_dict()
    assert all(not torch.equal(start[key], value) for key, value in weights(model).items() if "conv" in key)


@pytest.mark.parametrize(
    "network",
    [
        {"type": "DualGCN", "channels": 24, "num_levels": 1},
        {"type": "SFHformer", "embed_dim": [16, 32, 64, 32, 16], "depth": [1, 1, 1, 1, 1]},
        {"type": "DRSformer", "dim": 8, "num_blocks": [1, 1, 1, 1], "fast": False},
    ],
    ids=lambda network: network["type"],
)
def test_dilated_convolutions_get_their_gradients_in_16_bits(model_options, network):
    model_options["network_g"], model_options["channels_last"] = network, True
    gradients = []
    for amp in (False, "bf16"):
        model_options["train"]["amp"] = amp
        model = DerainModel(copy.deepcopy(model_options))
        load_golden_weights(model.net_g)
        model.feed_data(batch(2, 1, dtype=torch.float32))
        with torch.autocast("cpu", torch.bfloat16, enabled=bool(amp)):
            output = outputs(model.net_g(model.lq))[0]
        (output.float() - model.gt).abs().mean().backward()
        gradients.append(
            {
                name: module.weight.grad
                for name, module in model.net_g.named_modules()
                if isinstance(module, nn.Conv2d) and max(module.dilation) > 1
            }
        )
    assert gradients[0]
    for name, gradient in gradients[0].items():
        assert torch.cosine_similarity(gradient.flatten(), gradients[1][name].flatten(), dim=0) > 0.9, name


def test_average_follows_parameters_and_buffers(model_options):
    class WithBuffer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm2d(3)

        def forward(self, x):
            return self.norm(x)

    model_options["train"]["ema_decay"] = 0.5
    model = DerainModel(model_options)
    model.net_g, model.net_g_ema = WithBuffer(), WithBuffer()
    model.net_g.train()(torch.rand(2, 3, 8, 8))
    nn.init.constant_(model.net_g.norm.weight, 3.0)
    model.model_ema(0.5)
    torch.testing.assert_close(model.net_g_ema.norm.weight, torch.full((3,), 2.0))
    torch.testing.assert_close(model.net_g_ema.norm.running_var, model.net_g.norm.running_var)


def test_mixup_blends_input_and_target_alike(model_options, monkeypatch):
    model_options["train"]["mixing_augs"] = {"mixup": True, "use_identity": False}
    model = DerainModel(model_options)
    lq = torch.tensor([0.0, 1.0])[:, None, None, None].expand(2, 3, 8, 8)
    np.random.seed(1)
    monkeypatch.setattr(torch, "randperm", lambda _: torch.tensor([1, 0]))
    mixed_lq, mixed_gt = model._mixup(lq, 10 * lq)
    torch.testing.assert_close(mixed_gt, 10 * mixed_lq)
    assert torch.isclose(mixed_lq[0] + mixed_lq[1], torch.ones(3, 8, 8)).all()
    assert 0 < mixed_lq[0].max() < 1


def test_non_finite_losses_stop_or_are_skipped(model_options, fault):
    good, bad = batch(2, 1), batch(2, 2)
    bad["gt"][0, 0, 0, 0] = math.nan
    with fault("batch that is not a number"):
        with pytest.raises(UserError, match=r"loss of iteration 2 is not finite; .* picture0.png, picture1.png"):
            train(model_options, [good, bad])
        model_options["train"]["max_nonfinite_skips"] = 1
        skipped, _, _ = train(model_options, [good, bad])
        reference, _, _ = train(model_options, [good])
        torch.testing.assert_close(weights(skipped), weights(reference), rtol=0, atol=0)
        with pytest.raises(UserError, match="iteration 3"):
            train(model_options, [good, bad, bad])


@pytest.mark.parametrize("amp", [None, "fp16"])
def test_non_finite_gradients_never_reach_the_weights(model_options, monkeypatch, amp, fault):
    model_options["train"] |= {"amp": amp, "grad_clip": None}
    nothing, _, _ = train(model_options, [], torch.float32)
    original = DerainModel._losses

    def with_infinite_slope(self, lq, gt):
        loss, parts = original(self, lq, gt)
        return loss + (self.output - self.output.detach()).sqrt().sum(), parts  # 0, with an infinite gradient

    monkeypatch.setattr(DerainModel, "_losses", with_infinite_slope)
    data = [batch(2, 1, dtype=torch.float32)]
    with fault("gradient that is not finite"):
        with pytest.raises(UserError, match="the gradient of iteration"):
            train(model_options, data * (1 if amp is None else 40), torch.float32)
        model_options["train"]["max_nonfinite_skips"] = 1
        skipped, _, _ = train(model_options, data, torch.float32)
        torch.testing.assert_close(weights(skipped), weights(nothing), rtol=0, atol=0)


COSINE = {"type": "CosineAnnealingRestartLR", "periods": [100], "eta_min": 0}
STEPS = {"type": "MultiStepLR", "milestones": [100], "gamma": 0.5}


def resumed(saved: dict, then: dict, at: int = 4) -> DerainModel:
    """A model that goes on under other options from the state of one that trained for some iterations."""
    first, _, _ = train(saved, [batch(2, seed) for seed in range(at)])
    first.best_metric_results["v"] = {
        name: {"better": "higher", "val": 1, "iter": 2} for name in saved["val"]["metrics"]
    }
    first.save(0, at)
    then = copy.deepcopy(then)
    then["path"] |= {"resume_state": f"{then['path']['training_states']}/{at}.state"}
    model = DerainModel(then)
    model.net_g.double()
    model.resume_training(torch.load(then["path"]["resume_state"]))
    return model


@pytest.mark.parametrize(
    ("before", "after", "rate"),
    [
        ({"scheduler": STEPS}, {"optim_g": {"type": "AdamW", "lr": 1e-2}}, 1e-2),
        ({"scheduler": STEPS}, {"scheduler": STEPS | {"milestones": [1]}}, 5e-4),
        ({"scheduler": STEPS | {"milestones": [1]}}, {"scheduler": STEPS | {"milestones": [1, 2], "gamma": 0.1}}, 1e-5),
        ({"scheduler": COSINE}, {"scheduler": STEPS | {"milestones": [2, 3]}}, 2.5e-4),
        ({"scheduler": STEPS}, {"scheduler": COSINE | {"periods": [8]}}, 5e-4),
        ({"scheduler": COSINE}, {"scheduler": COSINE | {"eta_min": 1e-3}}, 1e-3),
        ({"scheduler": STEPS}, {"scheduler": STEPS, "warmup_iter": 10}, 5e-4),
        ({"scheduler": STEPS, "warmup_iter": 10}, {"scheduler": STEPS, "warmup_iter": -1}, 1e-3),
    ],
)
def test_a_resumed_rate_is_what_the_options_say(model_options, before, after, rate):
    """At iteration 5, the first one that is trained again; the saved past counts for nothing."""
    model_options["train"] |= {"optim_g": {"type": "AdamW", "lr": 1e-3}, **before}
    now = copy.deepcopy(model_options)
    now["train"] |= {"warmup_iter": -1, **after}
    model = resumed(model_options, now)
    model.update_learning_rate(5, now["train"]["warmup_iter"])
    assert model.get_current_learning_rate() == pytest.approx([rate], rel=1e-12)


def test_a_resumed_optimizer_has_the_options_and_the_saved_memory(model_options, log):
    now = copy.deepcopy(model_options)
    now["train"]["optim_g"] |= {"weight_decay": 0.5, "betas": [0.5, 0.9], "eps": 1e-6}
    now["val"]["metrics"] = {"psnr": {"type": "calculate_psnr_ddn"}, "ssim": now["val"]["metrics"]["ssim"]}
    model_options["val"]["metrics"]["other"] = now["val"]["metrics"]["other"] = {"type": "calculate_ssim_ddn"}
    model_options["logger"]["save_best"], now["logger"]["save_best"] = "ssim", "other"
    model = resumed(model_options, now)
    group = model.optimizer_g.param_groups[0]
    assert (group["weight_decay"], group["betas"], group["eps"]) == (0.5, (0.5, 0.9), 1e-6)
    assert all(state["step"] == 4 and state["exp_avg"].any() for state in model.optimizer_g.state.values())
    assert {name: list(records) for name, records in model.best_metric_results.items()} == {"v": ["ssim"]}
    assert "train.optim_g.weight_decay: was 0.0001, is 0.5" in log.text
    assert "Kept as saved: what the optimizer remembers of each parameter (step, exp_avg, exp_avg_sq)" in log.text
    assert "Best scores start anew, as val.metrics or logger.save_best changed: other, psnr" in log.text
    model.update_learning_rate(5)
    model.feed_data(batch(2, 4))
    model.optimize_parameters(5)
    model._initialize_best_metric_results("v")
    assert model.best_metric_results["v"]["psnr"]["iter"] == -1
    assert model.best_metric_results["v"]["ssim"]["iter"] == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optim_g": {"type": "SGD", "lr": 1e-3}}, "another optimizer than SGD .*pretrain_network_g: .*net_g_4.pth"),
        ({"optim_g": {"type": "RMSprop", "lr": 1e-3}}, "another optimizer than RMSprop"),
        ({"optim_g": {"type": "NAdam", "lr": 1e-3}}, "another optimizer than NAdam"),
        ({"optim_g": {"type": "AdamW", "lr": 1e-3, "amsgrad": True}}, "it has no max_exp_avg_sq"),
        ({"total_iter": 3}, "train.total_iter is 3, but .*4.state is the state of iteration 4"),
    ],
)
def test_a_state_that_these_options_cannot_go_on_from_is_refused(model_options, change, message):
    now = copy.deepcopy(model_options)
    now["train"] |= change
    with pytest.raises(UserError, match=message) as error:
        resumed(model_options, now)
    assert "\n" not in str(error.value)


def test_validation_pads_tiles_and_survives_missing_targets(model_options, pairs):
    torch.manual_seed(0)  # of random weights
    model = DerainModel(model_options)
    data = {
        **model_options["datasets"]["val"],
        "phase": "val",
        "scale": 1,
        "name": "odd",
        "io_backend": {"type": "lmdb"},
    }
    loader = torch.utils.data.DataLoader(CheckedDataset(build_dataset(data)))
    model.validation(loader, 1, None)
    scores = dict(model.metric_results)
    assert 15 < scores["psnr"] < 45
    assert 0 < scores["ssim"] < 1
    model.opt["val"] |= {"tile": 48, "tile_overlap": 16}
    model.validation(loader, 2, None)
    assert model.metric_results["psnr"] == pytest.approx(scores["psnr"], abs=1)

    alone = {"type": "SingleImageDataset", "name": "alone", "phase": "val", "dataroot_lq": str(pairs / "input")}
    loader = torch.utils.data.DataLoader(CheckedDataset(build_dataset({**alone, "io_backend": {"type": "disk"}})))
    model.feed_data(batch(1, 1, dtype=torch.float32))  # its target must not be scored against other pictures
    model.validation(loader, 3, None, save_img=True)
    assert "alone" not in model.best_metric_results
    assert not hasattr(model, "gt")
    assert len(list((pairs / "input").glob("*.png"))) == 10


def built(section: dict, name: str) -> CheckedDataset:
    return CheckedDataset(build_dataset({**section, "phase": "val", "name": name, "io_backend": {"type": "disk"}}))


def test_every_result_has_a_place(model_options, pairs, tmp_path):
    """Sets have equal names of pictures, folders of one set too; the page of a test finds them all."""
    root = tmp_path / "sets"
    for part in ("input", "target"):
        for place in ("light/1", "heavy/1", "heavy/2"):
            (root / part / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(pairs / part / "00.png", root / part / f"{place}.png")
    folders = {"type": "PairedRainDataset", "dataroot": str(root)}
    flat = {
        "type": "PairedRainDataset",
        "dataroot_lq": str(root / "input/heavy"),
        "dataroot_gt": str(root / "target/heavy"),
    }
    sets = {"folders": built(folders, "folders"), "flat": built(flat, "flat")}

    def saved(kind: str, names: list[str], iteration: object = 3) -> list[str]:
        model_options["path"]["visualization"] = str(tmp_path / kind)
        phases = {f"val_{number}": sets[name].opt for number, name in enumerate(names)}
        model_options["datasets"] = {"train": model_options["datasets"].get("train")} if kind != "test" else {}
        model_options["datasets"] |= phases
        model = DerainModel(copy.deepcopy(model_options))
        for name in names:
            model.validation(torch.utils.data.DataLoader(sets[name]), iteration, None, save_img=True)
        return sorted(str(path.relative_to(tmp_path / kind)) for path in (tmp_path / kind).rglob("*.png"))

    assert saved("one", ["flat"]) == ["1/1_3.png", "2/2_3.png"]
    assert saved("one with folders", ["folders"]) == ["heavy/1/1_3.png", "heavy/2/2_3.png", "light/1/1_3.png"]
    of_folders = [f"folders/{name}" for name in ("heavy/1/1_3.png", "heavy/2/2_3.png", "light/1/1_3.png")]
    assert saved("several", ["folders", "flat"]) == ["flat/1/1_3.png", "flat/2/2_3.png", *of_folders]
    model_options |= {"is_train": False}
    model_options["val"]["allow_random_weights"] = True
    results = saved("test", ["folders", "flat"], "small")
    of_folders = [f"folders/{name}_small.png" for name in ("heavy/1", "heavy/2", "light/1")]
    assert results == ["flat/1_small.png", "flat/2_small.png", *of_folders]
    page, problems = tmp_path / "page.html", []
    model_options["path"]["pretrain_network_g"] = None
    write_test_page(model_options, page, problems.append)
    assert not problems
    assert page.read_text().count("<tr data-name=") == 5

    shutil.copy(root / "input/heavy/1.png", root / "input/heavy/1.tif")
    alone = built({"type": "SingleImageDataset", "dataroot_lq": str(root / "input/heavy")}, "alone")
    with pytest.raises(UserError, match="data set alone: several pictures are named 1; their results would overwrite"):
        refuse_equal_names(alone, {"model_type": "DerainModel", "val": {"save_img": True}})
    with pytest.raises(UserError, match="data set folders: several pictures are named 1"):  # BasicSR keeps no folders
        refuse_equal_names(sets["folders"], {"model_type": "SRModel", "val": {"save_img": True}})
    refuse_equal_names(sets["folders"], {"model_type": "DerainModel", "val": {"save_img": True}})


def test_pictures_without_target_are_scored_by_metrics_that_need_none(model_options, tmp_path, log):
    for part in ("input", "target"):
        (tmp_path / part).mkdir()
        cv2.imwrite(str(tmp_path / part / "1.png"), astronaut()[:192, :200])
    roots = {f"dataroot_{part}": str(tmp_path / folder) for part, folder in (("lq", "input"), ("gt", "target"))}
    paired = built({"type": "PairedRainDataset", **roots}, "paired")
    alone = built({"type": "SingleImageDataset", "dataroot_lq": roots["dataroot_lq"]}, "alone")
    model_options["val"]["metrics"]["niqe"] = {"type": "calculate_niqe", "crop_border": 0}
    model = DerainModel(model_options)
    for dataset in (paired, alone, paired):
        model.validation(torch.utils.data.DataLoader(dataset), 1, None)
    best = model.best_metric_results
    assert list(best["paired"]) == ["psnr", "ssim", "niqe"]
    assert list(best["alone"]) == ["niqe"]
    assert best["paired"]["niqe"]["val"] == best["alone"]["niqe"]["val"] > 0
    assert best["alone"]["niqe"]["better"] == "lower"
    assert "alone has no targets: the pictures are restored but scored by niqe only" in log.text


def test_pictures_that_equal_their_targets_do_not_hide_the_others(model_options, tmp_path, log):
    for kind in ("input", "target"):
        (tmp_path / kind).mkdir()
        for name, value in (("clean", 200), ("rainy", 90 if kind == "input" else 100)):
            cv2.imwrite(str(tmp_path / kind / f"{name}.png"), np.full((16, 16, 3), value, np.uint8))
    model = DerainModel(model_options)
    model.net_g = torch.nn.Identity()
    loader = torch.utils.data.DataLoader(built({"type": "PairedRainDataset", "dataroot": str(tmp_path)}, "half"))
    model.validation(loader, 1, None)
    assert 20 < model.metric_results["psnr"] < 40
    assert "half: 1 of 2 pictures equal their targets, which makes psnr infinite; the mean is that of the" in log.text


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_a_metric_that_fails_is_named_and_costs_no_iteration(model_options, tmp_path, log):
    log.set_level(logging.INFO, logger="basicsr")
    for part in ("input", "target"):
        (tmp_path / part).mkdir()
        cv2.imwrite(str(tmp_path / part / "1.png"), astronaut()[:192, :200])
        cv2.imwrite(str(tmp_path / part / "2.png"), astronaut()[:40, :44])
    roots = {f"dataroot_{part}": str(tmp_path / folder) for part, folder in (("lq", "input"), ("gt", "target"))}
    dataset = built({"type": "PairedRainDataset", **roots}, "odd")
    loader = torch.utils.data.DataLoader(dataset)
    model_options["val"]["metrics"] = {"m": {"type": "calculate_niqe", "crop_border": 0}}
    model = DerainModel(model_options)
    model.try_metrics(loader)
    with pytest.raises(
        UserError, match=r"data set odd, .*2\.png: metric calculate_niqe on a picture of 40x44: Runtime"
    ):
        model.validation(loader, 1, None)
    assert [path.name for path in (tmp_path / "training_states").glob("*.state")] == ["1.state"]

    small = torch.utils.data.DataLoader(torch.utils.data.Subset(dataset, [1]))
    small.dataset.opt = dataset.opt
    with pytest.raises(UserError, match=r"val\.metrics\.m on .*2\.png of odd: RuntimeError"):
        model.try_metrics(small)
    model_options["val"]["metrics"]["m"] = {"type": "calculate_psnr", "crop_border": 30}
    with pytest.raises(UserError, match=r"nothing of a picture of 40x44 is left to score"):
        model.try_metrics(small)
    model.validation(loader, 2, None)
    model.save(0, 2)
    for iteration in (1, 2):  # where nothing was scored no record is begun, which would be taken for damage
        assert checkpoints.read_manifest(tmp_path / f"training_states/{iteration}.state")["best"] == {}
    assert "odd: m gives no number (NaN), which is never the best score" in log.text
    assert "best: none yet" in log.text


def test_validation_runs_on_the_weights_of_its_moment(model_options):
    """On the fused network, in both precisions, also of averaged weights; a test alone works as well."""
    model_options["train"]["ema_decay"] = 0.5
    model = DerainModel(model_options)
    data = {**model_options["datasets"]["val"], "phase": "val", "scale": 1, "name": "v", "io_backend": {"type": "lmdb"}}
    loader = torch.utils.data.DataLoader(CheckedDataset(build_dataset(data)))
    deviations, outputs, original = [], [], model.test

    def test() -> None:
        original()
        with torch.no_grad():
            expected = restore(model.net_g_ema, model.lq, multiple=8)
        deviations.append(float((model.output - expected).abs().max()))
        outputs.append(model.output)
        assert (model.inference_net is None) == alone
        assert model.output.dtype == torch.float32

    model.test, alone = test, False
    for precision, smallest, largest in ((None, 0, 1e-4), ("bf16", 1e-5, 0.2), ("float32", 0, 1e-4)):
        model.opt["val"]["precision"] = precision
        model.update_learning_rate(1)
        model.feed_data(batch(2, 3, dtype=torch.float32))
        model.optimize_parameters(1)
        with torch.no_grad():
            model.net_g.output.weight.mul_(2)
            model.model_ema(0.5)
        model.validation(loader, 1, None)
        assert len(deviations) == 10
        assert smallest <= max(deviations) <= largest
        first = outputs[0]
        deviations.clear()
        outputs.clear()
        model.validation(loader, 1, None)
        assert torch.equal(outputs[0], first)
        deviations.clear()
        outputs.clear()
    alone = True
    model.feed_data(batch(1, 4, dtype=torch.float32))
    model.test()
    assert deviations == [0]


def test_basicsrs_swinir_runs_under_our_model(model_options):
    model_options["network_g"] = {
        "type": "SwinIR",
        **{"upscale": 1, "img_size": 16, "window_size": 8, "img_range": 1.0, "depths": [1], "embed_dim": 12},
        **{"num_heads": [2], "mlp_ratio": 2, "upsampler": "", "resi_connection": "1conv"},
    }
    model_options["val"]["window_size"] = 8
    model = DerainModel(model_options)
    model.update_learning_rate(1)
    model.feed_data(batch(2, 1, side=16, dtype=torch.float32))
    model.optimize_parameters(1)
    model.lq = torch.rand(1, 3, 21, 13)
    model.test()
    assert model.output.shape == (1, 3, 21, 13)
    precise = model.output
    model.opt["val"]["precision"] = "bf16"
    model.test()
    assert model.output.dtype == torch.float32
    assert 0 < (model.output - precise).abs().max() < 0.05


@pytest.mark.parametrize("wrap", ["params", "params_ema", "bare", "module", "state_dict"])
def test_weights_load_in_every_form_in_which_they_circulate(model_options, tmp_path, wrap):
    state = load_golden_weights(DRSformer(dim=8, num_blocks=(1, 1, 1, 1), with_mefc=False)).state_dict()
    if wrap == "module":
        state = {f"module.{key}": value for key, value in state.items()}
    torch.save(state if wrap in ("bare", "module") else {wrap: state}, tmp_path / "weights.pth")
    model_options["path"]["pretrain_network_g"] = str(tmp_path / "weights.pth")
    loaded = DerainModel(model_options).net_g.state_dict()
    torch.testing.assert_close(list(loaded.values()), list(state.values()), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("saved", "network", "message"),
    [
        ({"with_mefc": False}, {"with_mefc": True}, "set network_g.with_mefc: false"),
        ({"with_mefc": True}, {"with_mefc": False}, "set network_g.with_mefc: true"),
        ({"dim": 16}, {}, "another shape"),
        ({"num_blocks": (2, 1, 1, 1)}, {}, "another network or of other arguments"),
    ],
)
def test_weights_that_do_not_fit_are_explained(model_options, tmp_path, saved, network, message):
    base = {"dim": 8, "num_blocks": (1, 1, 1, 1), "with_mefc": False}
    torch.save({"params": DRSformer(**{**base, **saved}).state_dict()}, tmp_path / "weights.pth")
    model_options["network_g"] |= network
    model_options["path"]["pretrain_network_g"] = str(tmp_path / "weights.pth")
    with pytest.raises(UserError, match=message) as error:
        DerainModel(model_options)
    assert "\n" not in str(error.value)


def test_weights_of_which_nothing_fits_are_never_taken_for_some(model_options, tmp_path):
    path = str(tmp_path / "weights.pth")
    torch.save({"params": {"somewhere.else": torch.zeros(3)}}, path)
    model_options["path"] |= {"pretrain_network_g": path, "strict_load_g": False}
    with pytest.raises(UserError, match=r"weights.pth: nothing in it fits DRSformer"):
        DerainModel(model_options)
    state = load_golden_weights(DRSformer(dim=8, num_blocks=(1, 1, 1, 1), with_mefc=False)).state_dict()
    torch.save({"params": dict(list(state.items())[:5])}, path)
    DerainModel(model_options)
    model_options["path"]["param_key_g"] = "paramz"
    with pytest.raises(UserError, match=r"has no entry 'paramz', which path\.param_key_g names"):
        DerainModel(model_options)


def test_failing_to_save_raises_and_keeps_the_old_file(model_options, tmp_path, monkeypatch):
    model = DerainModel(model_options)
    model.save(0, 1)
    before = (tmp_path / "models" / "net_g_1.pth").read_bytes()

    def disk_full(_content, file):
        file.write(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", disk_full)
    with pytest.raises(UserError, match=r"cannot save .*net_g_1.pth: .*No space left"):
        model.save(0, 1)
    assert (tmp_path / "models" / "net_g_1.pth").read_bytes() == before
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["net_g_1.pth"]
    (tmp_path / "readable").touch()
    assert (tmp_path / "models/net_g_1.pth").stat().st_mode == (tmp_path / "readable").stat().st_mode


def test_nan_results_are_no_black_pictures(model_options, log):
    model = DerainModel(copy.deepcopy(model_options))
    model.feed_data(batch(1, 1, dtype=torch.float32))
    model.output = torch.full_like(model.lq, math.nan)
    model.get_current_visuals()  # a training, which must get past its validation, also when it resumes
    assert "picture0.png: the network returns NaN or infinite values" in log.text
    model.is_train = False
    with pytest.raises(UserError, match=r"picture0\.png: the network returns NaN or infinite values"):
        model.get_current_visuals()
