"""Derain a picture with a network of this folder: `python derain.py WEIGHTS RAINY CLEAN`."""

import sys

import cv2
import five_levels  # noqa: F401 - importing a network's file registers it
import gated_feed_forward  # noqa: F401
import top_k_shares  # noqa: F401
import torch

from drsformer_arch.data.datasets.samples import to_picture, to_tensor
from drsformer_arch.plugin import ARCH_REGISTRY
from drsformer_arch.restore.tiling import inference_form, restore
from drsformer_arch.restore.weights import read_weights


def main(weights: str, rainy: str, clean: str) -> None:
    state, network, _ = read_weights(weights)  # a checkpoint of DerainModel names its network and the arguments
    arguments = dict(network)
    net = ARCH_REGISTRY.get(arguments.pop("type"))(**arguments)
    net.load_state_dict(state)
    net, _ = inference_form(net.eval(), bf16=False)  # fused as far as its parts have a fast form
    picture = cv2.cvtColor(cv2.imread(rainy), cv2.COLOR_BGR2RGB)
    with torch.inference_mode():
        derained = restore(net, to_tensor(picture)[None])[0]  # padded to the network's size multiple and cut back
    cv2.imwrite(clean, cv2.cvtColor(to_picture(derained), cv2.COLOR_RGB2BGR))


if __name__ == "__main__":
    main(*sys.argv[1:])
