"""LPIPS: how different two pictures look to a network that was trained to recognise things.

Zhang, Isola, Efros, Shechtman and Wang, "The unreasonable effectiveness of deep features as a perceptual metric", CVPR
2018, computed by the authors' package `lpips` (version 0.1 of its weights, which it carries). The weights of the
network below it come from a file, as torchvision has them: nothing is fetched.
"""

import functools
import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from drsformer_arch.restore.weights import load_file
from drsformer_arch.system import packages
from drsformer_arch.system.errors import UserError
from drsformer_arch.system.files import expanded, refuse_no_file

# A weight that only this one of the package's networks has, and the network's name there.
NETWORKS = {"features.3.squeeze.weight": "squeeze", "features.28.weight": "vgg", "features.10.weight": "alex"}
KNOWN = "AlexNet, VGG16 or SqueezeNet 1.1 as torchvision has them"
LEAST = 32  # pixels a side: fewer leave nothing behind the last pooling of one of the networks


@functools.lru_cache(maxsize=1)
def load_lpips(weights: str) -> nn.Module:
    """Load LPIPS on the CPU.

    Args:
        weights: file of AlexNet, VGG16 or SqueezeNet 1.1, as torchvision has them; which one, its keys say.

    Raises:
        ModuleNotFoundError: the package `lpips` is not installed; the message says what installs it.
        UserError: there is no such file, or it holds other weights.
    """
    packages.require("lpips")
    import lpips  # noqa: PLC0415 - of an extra, and it takes seconds

    path = expanded(weights)
    refuse_no_file(path, "weights")
    if not path.is_file():
        raise UserError(f"there is no file {weights}; LPIPS needs the weights of {KNOWN}")
    state = load_file(path)
    name = next((name for key, name in NETWORKS.items() if isinstance(state, dict) and key in state), None)
    if name is None:
        raise UserError(f"{weights} holds no weights of {KNOWN}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torchvision's of how the package builds its networks
        model = lpips.LPIPS(net=name, pnet_rand=True, verbose=False)
    own = {key: f"features.{key.partition('.')[2]}" for key in model.net.state_dict()}  # slice2.3.bias: features.3.bias
    try:
        model.net.load_state_dict({key: state[of_torchvision] for key, of_torchvision in own.items()})
    except (KeyError, RuntimeError, TypeError, AttributeError) as error:
        raise UserError(f"{weights} holds no weights of {KNOWN}") from error
    if not all(bool(tensor.isfinite().all()) for tensor in model.net.state_dict().values()):
        raise UserError(f"{weights} holds NaN or infinite values; it is damaged, fetch it again")
    return model.requires_grad_(False)


def lpips_of(picture: NDArray[np.uint8], other: NDArray[np.uint8], weights: str) -> float:
    """Compute LPIPS of two pictures; 0 where they are equal, and the lower the nearer.

    Args:
        picture: (H, W, 3) RGB, uint8.
        other: of the same shape.
        weights: as `load_lpips` takes them.

    Raises:
        ModuleNotFoundError: as `load_lpips`.
        UserError: as `load_lpips`, or a side is too short.
    """
    model = load_lpips(weights)
    height, width = picture.shape[:2]
    if min(height, width) < LEAST:
        raise UserError(f"LPIPS needs at least {LEAST} x {LEAST} pixels, these are {height} x {width}")
    tensors = (
        torch.from_numpy(np.ascontiguousarray(one)).permute(2, 0, 1)[None] / 127.5 - 1 for one in (picture, other)
    )
    with torch.inference_mode():
        return float(model(*tensors))


def calculate_lpips(
    img: NDArray[np.uint8],
    img2: NDArray[np.uint8],
    weights: str,
    crop_border: int = 0,
    better: str = "lower",  # noqa: ARG001 - BasicSR hands over all keys of a section, also the one that validation reads
    **_: Any,
) -> float:
    """Compute LPIPS for BasicSR.

    Args:
        img: result, (H, W, 3) BGR, uint8.
        img2: target, of the same shape.
        weights: as `load_lpips` takes them.
        crop_border: pixels left out at every edge.
        better: of two scores; lower.

    Raises:
        ModuleNotFoundError: as `load_lpips`.
        UserError: as `lpips_of`.
    """
    inside = slice(crop_border, -crop_border or None)
    return lpips_of(img[inside, inside, ::-1], img2[inside, inside, ::-1], weights)
