"""Check the networks on a device, for example a GPU: golden values, forms, mixed precision, compilation.

    python scripts/check_device.py --device cuda

Needs torch and numpy only. Every check prints one line; exit code 1 if one fails.
"""

import argparse
import itertools
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # golden values are part of the tests

from drsformer_arch import DRSformer, Restormer  # noqa: E402
from drsformer_arch.fast import accelerate, plain  # noqa: E402
from tests.golden_weights import GOLDEN, golden_input, load_golden_weights, load_json  # noqa: E402

NETWORKS = {"drsformer_small": DRSformer, "drsformer_small_without_mefc": DRSformer, "restormer_small": Restormer}
SMALL = {"dim": 16, "num_blocks": (1, 1, 1, 1)}


def deviation(actual: torch.Tensor, expected: torch.Tensor | np.ndarray) -> float:
    """Largest difference relative to the largest value."""
    expected = torch.as_tensor(expected).double().cpu()
    return float((actual.detach().double().cpu() - expected).abs().max() / expected.abs().max())


def golden_values(device: torch.device) -> str:
    worst = {torch.float64: 0.0, torch.float32: 0.0}
    for name, kind in NETWORKS.items():
        facts, golden = load_json(name), np.load(GOLDEN / f"{name}.npz")
        cases = itertools.product((plain, accelerate), ((torch.float64, 1e-9), (torch.float32, 1e-4)))
        for form, (dtype, tolerance) in cases:
            net = form(load_golden_weights(kind(**facts["config"]))).to(device, dtype)
            image = golden_input(facts["input_shape"], facts["input_seed"]).to(device, dtype).requires_grad_()
            output = net(image)
            direction = np.random.RandomState(facts["input_seed"] + 1).standard_normal(tuple(output.shape))
            (output * torch.from_numpy(direction).to(device, dtype)).sum().backward()
            errors = [deviation(output, golden["output"])]
            if dtype == torch.float64:  # in float32 gradients at the kinks of ReLU follow the device
                errors.append(deviation(image.grad, golden["grad_input"]))
            with torch.no_grad():
                errors += [deviation(net.fused(tile=rows)(image), golden["output"]) for rows in (0, 8)]
            worst[dtype] = max(worst[dtype], *errors)
            assert max(errors) <= tolerance, f"{name} in {dtype}: {errors}"
    return f"largest deviation {worst[torch.float64]:.0e} in float64, {worst[torch.float32]:.0e} in float32"


def half_precision(device: torch.device) -> str:
    image = golden_input((1, 3, 128, 128), 5).to(device)
    net = load_golden_weights(DRSformer(**SMALL)).to(device).eval()  # plain
    with torch.no_grad():
        expected = net(image)
        texts = []
        for dtype in (torch.bfloat16, torch.float16):
            output = net.fused(dtype)(image)
            assert output.dtype == torch.float32
            assert output.isfinite().all()
            noise = (output - expected).square().mean() / (expected - image).square().mean()
            assert noise < 1e-2, f"{dtype}: noise {noise:.1e} of the predicted residual's power"
            texts.append(f"{dtype} {float(noise):.0e}")
    return "noise relative to the residual's power: " + ", ".join(texts)


def mixed_precision_training(device: torch.device) -> str:
    image, target = golden_input((2, 3, 64, 64), 6).to(device), golden_input((2, 3, 64, 64), 7).to(device)
    losses = {}
    for dtype in (None, torch.bfloat16, torch.float16):
        for use_checkpoint in (False, True):
            net = accelerate(load_golden_weights(DRSformer(**SMALL, use_checkpoint=use_checkpoint))).to(device)
            optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4)
            scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
            for _ in range(5):
                with torch.autocast(device.type, dtype, enabled=dtype is not None):
                    output = net(image)
                loss = (output.float() - target).abs().mean()
                optimizer.zero_grad()
                scaler.scale(loss).backward()
                scaler.step(optimizer)
                scaler.update()
            assert all(parameter.isfinite().all() for parameter in net.parameters()), dtype
            losses[dtype, use_checkpoint] = float(loss.detach())
    spread = max(losses.values()) / min(losses.values()) - 1
    assert spread < 0.02, losses
    return f"losses after 5 steps in float32, bf16, fp16, with and without checkpointing, agree to {spread:.1%}"


def compilation(device: torch.device) -> str:
    net = load_golden_weights(DRSformer(**SMALL)).to(device).fused(tile=0)
    start = time.perf_counter()
    compiled = torch.compile(net, dynamic=True, fullgraph=True)
    worst = 0.0
    with torch.no_grad():
        for height, width in ((256, 264), (280, 320), (320, 256)):
            image = torch.rand(1, 3, height, width, device=device)
            worst = max(worst, deviation(compiled(image), net(image)))
    assert worst < 1e-2, worst  # a near tie among scores may fall to the other side
    return f"one graph for three sizes, {time.perf_counter() - start:.0f} s, deviation {worst:.0e}"


CHECKS: tuple[Callable[[torch.device], str], ...] = (
    golden_values,
    half_precision,
    mixed_precision_training,
    compilation,
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", type=torch.device, default=torch.device("cuda"))
    parser.add_argument("--only", nargs="*", choices=[check.__name__ for check in CHECKS])
    args = parser.parse_args()
    if args.device.type == "cuda" and not torch.cuda.is_available():
        print("error: torch finds no GPU; --device cpu checks this processor", file=sys.stderr)
        return 2
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False  # golden values need float32
    failed = False
    for check in CHECKS:
        if args.only and check.__name__ not in args.only:
            continue
        try:
            print(f"{check.__name__}: {check(args.device)}", flush=True)
        except Exception as error:
            failed = True
            traceback.print_exc()
            print(f"{check.__name__}: FAILED: {str(error).splitlines()[:1]}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
