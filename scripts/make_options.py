"""Write options/train/NETWORK/DATASET.yml and options/test/NETWORK/DATASET.yml from the tables below.

python scripts/make_options.py           write the files
python scripts/make_options.py --check   fail where a file differs from what would be written
"""

import argparse
import sys
from pathlib import Path
from typing import NamedTuple

OPTIONS = Path(__file__).resolve().parent.parent / "options"


class DataSet(NamedTuple):
    """A benchmark: names, sizes, the protocol its published scores use, whether its published weights have MEFC."""

    name: str
    key: str  # its name for `drsformer prepare`
    train_pairs: int
    test_pairs: int
    protocol: str
    with_mefc: bool
    published: str


DATA_SETS = (
    DataSet("Rain200L", "rain200l", 1_800, 200, "rain200", False, "41.23 dB / 0.9894"),
    DataSet("Rain200H", "rain200h", 1_800, 200, "rain200", True, "32.17 dB / 0.9326"),
    DataSet("DID-Data", "did", 12_000, 1_200, "ddn", True, "35.35 dB / 0.9646"),
    DataSet("DDN-Data", "ddn", 12_600, 1_400, "ddn", True, "34.35 dB / 0.9588"),
    DataSet("SPA-Data", "spa", 638_492, 1_000, "rain200", False, "48.54 dB / 0.9924"),
)

# GiB of activations per 128 px patch: scripts/measure_training_memory.py; weights and moments take 0.5 GiB more.
ACTIVATIONS = {True: (4.4, 2.5), False: (3.3, 2.0)}

PICTURES = """\
    type: PairedRainDataset
    dataroot: datasets/{name}/{part}.lmdb  # made by: drsformer prepare {key} SRC -o datasets/{name} --lmdb
    # Instead of the store, a folder with input/ and target/ (pictures, or LMDBs in BasicSR's layout):
    # dataroot: datasets/{name}/{part}
"""

NETWORK = """\
network_g:
  type: DRSformer
  inp_channels: 3
  out_channels: 3
  dim: 48
  num_blocks: [4, 6, 6, 8]
  heads: [1, 2, 4, 8]
  ffn_expansion_factor: 2.66
  bias: false
  LayerNorm_type: WithBias
  with_mefc: {mefc}  # as the published weights of this data set
"""

METRICS = """\
  metrics:  # the {protocol} protocol: the one of the published scores of this data set
    psnr:
      type: calculate_psnr_{protocol}
    ssim:
      type: calculate_ssim_{protocol}
"""

TRAIN = """\
# DRSformer on {name}: {train_pairs:,} training and {test_pairs:,} test pairs.
# Published PSNR / SSIM: {published} ({protocol} protocol).
# Recipe of the paper: effective batch 16, 128 px patches, AdamW, 300,000 iterations.
# Written by scripts/make_options.py; change the table there, or copy this file.
#
#   drsformer train -opt options/train/DRSformer/{name}.yml
#
# What to lower for your GPU (one 128 px patch keeps about {float32} GiB of activations, {bf16} GiB with amp: bf16):
#    8 GB: batch_size_per_gpu: 1     12 GB: batch_size_per_gpu: 2     24 GB: batch_size_per_gpu: 4
# effective_batch_size stays 16: the missing pictures are accumulated, and the training stays the same.
# More than four GPUs: batch_size_per_gpu: 16 / number of GPUs.

name: DRSformer_{name}
model_type: DerainModel
num_gpu: auto
manual_seed: 100

datasets:
  train:
    name: {name}
{train_pictures}
    gt_size: 128  # side of the patches in pixels
    use_hflip: true  # together the 8 symmetries
    use_rot: true

    num_worker_per_gpu: 4
    batch_size_per_gpu: 4  # what one GPU holds at once
    dataset_enlarge_ratio: 1
    prefetch_mode: ~

  val:
    name: {name}-test
{test_pictures}
{network}
path:
  pretrain_network_g: ~
  strict_load_g: true
  resume_state: ~

train:
  total_iter: 300000
  warmup_iter: -1  # no warm-up
  effective_batch_size: 16  # processes x batch_size_per_gpu x accumulation steps
  grad_clip: 0.01  # of the gradient's norm
  amp: false  # bf16 and fp16 keep normalisation, scores and softmax in float32

  optim_g:
    type: AdamW
    lr: 3e-4
    weight_decay: 1e-4
    betas: [0.9, 0.999]

  scheduler:  # constant for 92,000 iterations, then a cosine down to 1e-6
    type: CosineAnnealingRestartCyclicLR
    periods: [92000, 208000]
    restart_weights: [1, 1]
    eta_mins: [3e-4, 1e-6]

  pixel_opt:
    type: L1Loss
    loss_weight: 1
    reduction: mean

  mixing_augs:
    mixup: false
    mixup_beta: 1.2
    use_identity: true

val:
  val_freq: 10000
  save_img: false
{metrics}
logger:
  print_freq: 100
  save_checkpoint_freq: 10000
  use_tb_logger: true

dist_params:
  backend: nccl
"""

TEST = """\
# Test DRSformer on {name}: {test_pairs:,} pairs. Published: {published} ({protocol} protocol).
# Written by scripts/make_options.py; change the table there, or copy this file.
#
#   drsformer test -opt options/test/DRSformer/{name}.yml

name: DRSformer_{name}_test
model_type: DerainModel
num_gpu: auto
manual_seed: 100

datasets:
  test:
    name: {name}-test
{test_pictures}
{network}
path:
  # Own weights; or the file that the authors publish for this data set.
  pretrain_network_g: experiments/DRSformer_{name}/models/net_g_latest.pth
  param_key_g: params
  strict_load_g: true

val:
  save_img: true
  suffix: ~
  # For pictures too large for the GPU; tiles change the result a little, so benchmarks are run without.
  # tile: 512
  # tile_overlap: 32
{metrics}"""


def files() -> dict[Path, str]:
    """All option files with their content."""
    written = {}
    for data in DATA_SETS:
        float32, bf16 = ACTIVATIONS[data.with_mefc]
        values = {
            **data._asdict(),
            "float32": float32,
            "bf16": bf16,
            "train_pictures": PICTURES.format(**data._asdict(), part="train"),
            "test_pictures": PICTURES.format(**data._asdict(), part="test"),
            "network": NETWORK.format(mefc=str(data.with_mefc).lower()),
            "metrics": METRICS.format(protocol=data.protocol),
        }
        written[OPTIONS / "train" / "DRSformer" / f"{data.name}.yml"] = TRAIN.format(**values)
        written[OPTIONS / "test" / "DRSformer" / f"{data.name}.yml"] = TEST.format(**values)
    return written


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where a file differs")
    args = parser.parse_args()
    different = {path: text for path, text in files().items() if not path.exists() or path.read_text() != text}
    for path, text in different.items():
        if not args.check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        print(("differs: " if args.check else "wrote ") + str(path.relative_to(OPTIONS.parent)))
    return 1 if args.check and different else 0


if __name__ == "__main__":
    sys.exit(main())
