"""Fine-tune DRSformer-S, the weights that come with the package, on own pairs, and say whether that helped.

    drsformer prepare pairs RAINY CLEAN -o datasets/mine --lmdb --split train   # two folders of pictures
    drsformer prepare pairs RAINY CLEAN -o datasets/mine --lmdb --split test    # two others, of other scenes
    python finetune.py datasets/mine

It trains on DATA/train.lmdb, and scores the pictures of DATA/test.lmdb, which it never trains on, before and after.
What it runs is `drsformer train -opt NAME.yml --auto_resume`: Ctrl-C saves and stops, the same command goes on.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import yaml

from drsformer_arch import Restorer
from drsformer_arch.cli import main as drsformer
from drsformer_arch.data.datasets.paired_dataset import PairedRainDataset
from drsformer_arch.data.datasets.samples import to_picture
from drsformer_arch.metrics import calculate_psnr_rain200
from drsformer_arch.system.errors import UserError

WEIGHTS = "DRSformer-S"


def options(data: Path, arguments: argparse.Namespace) -> dict:
    """Options of the training: the shipped network and weights, a small learning rate that falls to nothing."""
    total = arguments.iterations
    return {
        "name": arguments.name,
        "model_type": "DerainModel",
        "num_gpu": "auto",
        "manual_seed": 0,
        "datasets": {
            "train": {
                "name": "train",
                "type": "PairedRainDataset",
                "dataroot": str(data / "train.lmdb"),
                "gt_size": arguments.patch,
                "use_hflip": True,
                "use_rot": True,
                "batch_size_per_gpu": arguments.batch,
                "num_worker_per_gpu": 1,
            },
            "val": {"name": "test", "type": "PairedRainDataset", "dataroot": str(data / "test.lmdb")},
        },
        "network_g": {"type": "DRSformer", "dim": 20, "num_blocks": [1, 1, 1, 1], "with_mefc": False},
        "path": {"pretrain_network_g": WEIGHTS, "param_key_g": "params_ema"},
        "train": {
            "total_iter": total,
            "warmup_iter": total // 10,  # the optimizer knows nothing of these weights yet
            "grad_clip": 1.0,
            "ema_decay": 0.98,
            "optim_g": {"type": "AdamW", "lr": arguments.lr, "weight_decay": 1e-4},
            "scheduler": {"type": "CosineAnnealingRestartLR", "periods": [total], "eta_min": arguments.lr / 100},
            "pixel_opt": {"type": "L1Loss"},
        },
        "val": {"val_freq": total, "metrics": {"psnr": {"type": "calculate_psnr_rain200"}}},
        "logger": {"print_freq": 20, "save_checkpoint_freq": max(total // 4, 1), "keep_checkpoints": 1},
    }


def score(weights: str | Path, held_out: PairedRainDataset) -> dict[str, float]:
    """PSNR in dB of each derained picture, by its name."""
    restorer = Restorer(weights)
    psnr = {}
    for sample in held_out:
        rainy, clean = (to_picture(sample[part], np.uint8) for part in ("lq", "gt"))
        psnr[Path(sample["lq_path"]).stem] = calculate_psnr_rain200(restorer(rainy), clean, channel_order="rgb")
    return psnr


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA", help="folder with train.lmdb and test.lmdb")
    parser.add_argument("--name", default="finetuned", help="of the experiment and its option file (%(default)s)")
    parser.add_argument("--iterations", type=int, default=200, help="steps of the optimizer (%(default)s)")
    parser.add_argument("--batch", type=int, default=4, help="pictures per step (%(default)s)")
    parser.add_argument("--patch", type=int, default=96, help="side of the patches in pixels (%(default)s)")
    parser.add_argument("--lr", type=float, default=2e-4, help="learning rate (%(default)s)")
    arguments = parser.parse_args()

    try:
        store = {
            "name": "test",
            "phase": "val",
            "type": "PairedRainDataset",
            "dataroot": str(arguments.data / "test.lmdb"),
        }
        held_out = PairedRainDataset(store)
        before = score(WEIGHTS, held_out)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2

    file = Path(f"{arguments.name}.yml")
    file.write_text(yaml.safe_dump(options(arguments.data, arguments), sort_keys=False), encoding="utf-8")
    code = drsformer(["train", "-opt", str(file), "--auto_resume"])
    if code:
        return code

    weights = Path("experiments", arguments.name, "models/net_g_latest.pth")
    after = score(weights, held_out)
    print(f"\nPSNR of pictures that were not trained on, in dB\n{'picture':20}{WEIGHTS:>12}{arguments.name:>12}")
    for name in before:
        print(f"{name:20}{before[name]:12.2f}{after[name]:12.2f}")
    means = [float(np.mean(list(psnr.values()))) for psnr in (before, after)]
    print(f"{'mean':20}{means[0]:12.2f}{means[1]:12.2f}")
    if means[1] > means[0]:
        print(f"{means[1] - means[0]:.2f} dB better: drsformer derain photographs/ -o derained -w {weights}")
    else:
        print(
            f"{means[0] - means[1]:.2f} dB worse: keep {WEIGHTS}, or try more pairs, more --iterations, a smaller --lr"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
