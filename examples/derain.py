# ---
# jupyter:
#   jupytext:
#     formats: py:percent
# ---

# %% [markdown]
# # Derain pictures in Python
#
# A script, `python derain.py`, and a notebook: `jupytext --to notebook derain.py`, or open it as one in VS Code,
# Spyder or PyCharm. It makes its own pictures, for which it needs scikit-image: `pip install scikit-image`.

# %%
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from drsformer_arch import Restorer
from drsformer_arch.data.prepare.sample_data import write_samples
from drsformer_arch.metrics import calculate_psnr_rain200, calculate_ssim_rain200

write_samples(Path("samples"))  # as `drsformer samples` does; nothing where they are there
RAINY, CLEAN = Path("samples/test/input"), Path("samples/test/target")

# %% [markdown]
# ## One picture
#
# Pictures are arrays: height x width x RGB, 8 or 16 bits, of any size. `Restorer()` takes DRSformer-S, the weights that
# come with the package, `Restorer("net_g_latest.pth")` others.


# %%
def load(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


restorer = Restorer()
print(restorer.describe())
rainy, clean = load(RAINY / "chelsea_0.png"), load(CLEAN / "chelsea_0.png")
derained = restorer(rainy)
Image.fromarray(derained).save("derained.png")

# %% [markdown]
# ## Side by side, with scores
#
# PSNR and SSIM by the protocol of Rain200L and Rain200H. (In BasicSR pictures are BGR; these are not.)


# %%
def scores(picture: np.ndarray) -> str:
    psnr = calculate_psnr_rain200(picture, clean, channel_order="rgb")
    ssim = calculate_ssim_rain200(picture, clean, channel_order="rgb")
    return f"{psnr:.2f} dB / {ssim:.3f}"


figure, axes = plt.subplots(1, 3, figsize=(12, 4.2), layout="constrained")
for axis, (name, picture) in zip(axes, {"rainy": rainy, "derained": derained, "clean": clean}.items(), strict=True):
    axis.imshow(picture)
    axis.set_title(name if picture is clean else f"{name}: {scores(picture)}")
    axis.set_axis_off()
figure.savefig("side_by_side.png")
plt.show()

# %% [markdown]
# ## In bfloat16
#
# Faster where the processor or the GPU computes with it; the result differs by rounding.


# %%
def psnr_of(picture: np.ndarray, other: np.ndarray) -> float:
    error = np.mean((picture.astype(float) - other.astype(float)) ** 2)
    return float("inf") if error == 0 else 10 * np.log10(255**2 / error)


for precision in ("float32", "bf16"):
    restore = Restorer(precision=precision)
    restore(rainy)  # the first one also allocates
    begin = time.perf_counter()
    result = restore(rainy)
    seconds = time.perf_counter() - begin
    print(f"{precision}: {seconds:.2f} s, {scores(result)}, {psnr_of(result, derained):.1f} dB to float32")

# %% [markdown]
# ## In tiles
#
# Pictures for which the memory does not suffice are computed in tiles by themselves. `tile` says how large; it changes
# the result a little, as the network looks at all pixels of what it gets.

# %%
tiled = Restorer(tile=128)(rainy)
print(f"tiles of 128: {scores(tiled)}, {psnr_of(tiled, derained):.1f} dB to the whole picture")

# %% [markdown]
# ## Many pictures
#
# Pictures of one size go through the network together with `batch`. For folders and videos there is the command:
# `drsformer derain samples/test/input -o derained`.

# %%
paths = sorted(RAINY.glob("coffee_*.png"))
out = Path("derained")
out.mkdir(exist_ok=True)
for path, picture in zip(paths, restorer.batch([load(path) for path in paths]), strict=True):
    clean = load(CLEAN / path.name)
    print(f"{path.name}: {scores(load(path))} before, {scores(picture)} derained")
    Image.fromarray(picture).save(out / path.name)
