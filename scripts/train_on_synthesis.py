"""How much of what real pairs teach does synthetic rain teach? Train the same small network on both, test on real rain.

python scripts/train_on_synthesis.py rain200l RAINY CLEAN --out DIR            two folders of real pairs
python scripts/train_on_synthesis.py rain800 PICTURES --side-by-side --out DIR  clean half left, rainy half right

A fifth of the scenes is held back (pictures that look alike stay together). The network of options/quickstart.yml is
trained twice for the same iterations: on the real pairs, and on the same clean pictures with rain drawn on them by the
preset. Both are scored on the pairs held back. Exit code 1 where the synthesis gains less than half the dB.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import yaml

from drsformer_arch import DRSformer
from drsformer_arch.data.datasets.sources import open_pairs
from drsformer_arch.data.prepare.perceptual_hash import NEAR
from drsformer_arch.data.prepare.preparation import prepare_dataset
from drsformer_arch.data.prepare.scene_split import linked_groups
from drsformer_arch.data.store.manifest import read_manifest
from drsformer_arch.fast import accelerate
from drsformer_arch.metrics import calculate_psnr_rain200
from drsformer_arch.restore.tiling import restore
from drsformer_arch.restore.weights import read_weights

QUICKSTART = Path(__file__).resolve().parent.parent / "options/quickstart.yml"
WANTED_SHARE = 0.5
SCORED = 32  # of the pairs held back


def scenes(manifest: Path) -> list[list[str]]:
    """Group the names of the pairs by what their clean pictures look like."""
    rows = [row for row in read_manifest(manifest)[1] if "skipped" not in row]
    hashes = np.array([int(row["target"]["phash"], 16) for row in rows], np.uint64)
    near = np.argwhere(np.bitwise_count(hashes[:, None] ^ hashes) <= NEAR)
    return [[rows[index]["name"] for index in group] for group in linked_groups(len(rows), near)]


def hold_back(root: Path) -> None:
    """Move every fifth scene from `train` to `test`."""
    for number, names in enumerate(scenes(root / "train/manifest.jsonl")):
        for name in names if number % 5 == 0 else ():
            for role in ("input", "target"):
                (file,) = (root / "train" / role).glob(f"{name}.*")
                (root / "test" / role).mkdir(parents=True, exist_ok=True)
                file.rename(root / "test" / role / file.name)


def train(name: str, source: dict[str, Any], root: Path, iterations: int) -> Path:
    """Train the network of the quick start on a data set; returns its weights."""
    options = yaml.safe_load(QUICKSTART.read_text())
    weights = root / "experiments" / name / "models/net_g_latest.pth"
    train_set = options["datasets"]["train"]
    for key in ("type", "dataroot", "dataroot_lq", "dataroot_gt", "io_backend"):
        train_set.pop(key, None)
    options["name"] = name
    options["datasets"] = {"train": {**train_set, **source}}
    options["train"]["optim_g"]["lr"] = 3e-3
    options["train"]["total_iter"] = iterations
    options["train"]["scheduler"] |= {"periods": [iterations // 5, iterations], "eta_mins": [3e-3, 1e-5]}
    options["val"] = {"val_freq": iterations}
    options["logger"] |= {"print_freq": 100, "save_checkpoint_freq": 500}
    file = root / f"{name}.yml"
    file.write_text(yaml.safe_dump(options))
    command = ["drsformer", "train", "-opt", str(file), "--auto_resume"]
    subprocess.run(command, cwd=root, check=True)
    return weights


def load(weights: Path) -> DRSformer:
    arguments = yaml.safe_load(QUICKSTART.read_text())["network_g"]
    arguments.pop("type")
    network = accelerate(DRSformer(**arguments))
    network.load_state_dict(read_weights(weights, "params_ema").state)
    return network.eval()


def score(network: DRSformer | None, root: Path) -> list[float]:
    """Score by PSNR (rain200, dB) the pairs held back; the rainy pictures where there is no network."""
    pairs, scores = open_pairs(str(root / "test")), []
    for index in range(min(len(pairs), SCORED)):
        rainy, clean = (one[:, :] for one in pairs.pair(index))
        if network is not None:
            tensor = torch.from_numpy(rainy.transpose(2, 0, 1).astype(np.float32) / 255)[None]
            with torch.inference_mode():
                restored = restore(network, tensor, multiple=network.size_multiple)[0].clamp(0, 1).numpy()
            rainy = np.rint(restored.transpose(1, 2, 0) * 255).astype(np.uint8)
        scores.append(float(calculate_psnr_rain200(rainy[..., ::-1], clean[..., ::-1])))
    return scores


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("preset", help="of the synthesis")
    parser.add_argument("pictures", nargs="+", type=Path, help="two folders: rainy, clean; or one, --side-by-side")
    parser.add_argument("--side-by-side", action="store_true", help="clean half left, rainy half right")
    parser.add_argument("--iterations", type=int, default=1000, help="of each training (%(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="folder for data and experiments")
    arguments = parser.parse_args(argv)
    root = arguments.out.resolve()
    cv2.setNumThreads(1)
    if not (root / "test").is_dir():
        prepare_dataset("rain800" if arguments.side_by_side else "pairs", arguments.pictures, root, split="train")
        hold_back(root)
    clean = {"type": "RainSynthesisDataset", "dataroot_gt": str(root / "train/target"), "presets": arguments.preset}
    sources = {"real": {"type": "PairedRainDataset", "dataroot": str(root / "train")}, "synthetic": clean}
    before = score(None, root)
    pairs = {split: len(os.listdir(root / split / "input")) for split in ("train", "test")}
    print(f"{pairs['train']} pairs to train, {pairs['test']} held back, {len(before)} of them scored", flush=True)
    gains = {}
    for name, source in sources.items():
        after = score(load(train(name, source, root, arguments.iterations)), root)
        gains[name] = float(np.mean(np.subtract(after, before)))
    share = gains["synthetic"] / gains["real"]
    print("\n| preset | iterations | rainy | trained on real pairs | on synthetic rain | share of the gain |")
    print("|---|---|---|---|---|---|")
    rainy = float(np.mean(before))
    print(
        f"| {arguments.preset} | {arguments.iterations} | {rainy:.2f} dB | {rainy + gains['real']:.2f} dB "
        f"(+{gains['real']:.2f}) | {rainy + gains['synthetic']:.2f} dB (+{gains['synthetic']:.2f}) | {share:.0%} |"
    )
    return 0 if share >= WANTED_SHARE else 1


if __name__ == "__main__":
    sys.exit(main())
