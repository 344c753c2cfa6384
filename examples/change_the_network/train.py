"""Train one of the networks of this folder: `python train.py -opt train.yml`."""

import five_levels  # noqa: F401 - importing a network's file registers it
import gated_feed_forward  # noqa: F401
import top_k_shares  # noqa: F401

from drsformer_arch.plugin import train_pipeline

if __name__ == "__main__":
    train_pipeline(".")  # experiments/ is made here
