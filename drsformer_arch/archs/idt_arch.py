"""IDT: attention within windows and between windows, in a U shape.

Xiao, Fu, Liu, Wu, Zha: "Image De-raining Transformer", IEEE TPAMI 2022. The parameter names are those of the authors'
checkpoints (571 tensors, saved with `module.` before each name).

The published weights were trained with some things one would not write today, which are therefore kept:

- A spatial block adds its attention's result window by window to tokens that lie row by row.
- It has no norm before its attention, and its feed-forward has 256 hidden channels whatever the width of its stage.
- The module names `dowsample` and `Position_Extract`; a stage's drop-path rates, of which only two are used.
"""

import dataclasses
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from drsformer_arch.archs.contract import Contract, InputError, Recognition, RestorationNetwork

__all__ = ["IDT"]

WINDOW = 8  # of the spatial blocks
BLOCKS = (3, 3, 2, 2, 1, 1, 2, 2, 3)  # window blocks of encoder 0-3, bottle, decoder 0-3
WIDTHS = (1, 2, 4, 8, 16, 16, 8, 4, 2)  # of the stages, relative to embed_dim
SHRINKS = (1, 2, 4, 8, 16, 8, 4, 2, 1)  # by which the stages are smaller than the picture
BOUNDS = (16, 8, 4, 2, 0, 2, 4, 8, 16)  # of the relative positions between windows; 0: no spatial block


def to_windows(x: Tensor, side: int) -> Tensor:
    """(N, H, W, C) → (N, windows, pixels, C): windows of side x side, they and their pixels row by row."""
    return rearrange(x, "n (rows y) (columns x) c -> n (rows columns) (y x) c", y=side, x=side)


def from_windows(windows: Tensor, side: int, height: int) -> Tensor:
    """The inverse of `to_windows`."""
    return rearrange(windows, "n (rows columns) (y x) c -> n (rows y) (columns x) c", y=side, rows=height // side)


def relative_positions(side: int, bound: int) -> Tensor:
    """(side², side²): which entry of the bias table belongs to query i and key j, both on a grid, row by row."""
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    differences = [
        (axis.flatten()[:, None] - axis.flatten()[None, :]).clamp(1 - bound, bound - 1) + bound - 1
        for axis in (rows, columns)
    ]
    return differences[0] * (2 * bound - 1) + differences[1]


class DropPath(nn.Module):
    """Leave out a sample's branch with a probability while training, and scale the others up for it."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, ...) → the same shape."""
        if not self.training or not self.probability:
            return x
        kept = 1 - self.probability
        mask = torch.empty(x.shape[0], *(1,) * (x.dim() - 1), dtype=x.dtype, device=x.device).bernoulli_(kept)
        return x * mask / kept


class Projections(nn.Module):
    """Query, key, value, and the value of the position branch."""

    def __init__(self, dim: int, bias: bool) -> None:
        super().__init__()
        self.to_q = nn.Linear(dim, dim, bias=bias)
        self.to_kv = nn.Linear(dim, 3 * dim, bias=bias)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(N, T, D) → four times (N, T, D)."""
        return self.to_q(x), *self.to_kv(x).chunk(3, dim=-1)


class WindowAttention(nn.Module):
    """Attention between the tokens of a square grid with a bias per relative position, and a convolution beside it.

    Args:
        dim: D, channels of a token.
        heads: H.
        side: of the grid.
        bound: k; relative positions of k and more count as k - 1.
        qkv_bias: biases of query, key and values.
        qk_scale: factor of the scores; default (D/H)^-0.5.
    """

    def __init__(self, dim: int, *, heads: int, side: int, bound: int, qkv_bias: bool, qk_scale: float | None) -> None:
        super().__init__()
        self.heads, self.side, self.scale = heads, side, qk_scale
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * bound - 1) ** 2, heads).normal_(std=0.02))
        padding = min(side - 1, 2)
        self.Position_Extract = nn.Sequential(
            nn.Conv2d(dim, dim, 2 * padding + 1, padding=padding, groups=dim), nn.Conv2d(dim, dim, 1, groups=heads)
        )
        self.qkv = Projections(dim, qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.positions: Tensor
        self.register_buffer("positions", relative_positions(side, bound), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, side², D) → the same shape."""
        query, key, value, located = self.qkv(x)
        bias = rearrange(self.relative_position_bias_table[self.positions], "i j h -> h i j")
        query, key, value = (rearrange(part, "n t (h d) -> n h t d", h=self.heads) for part in (query, key, value))
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias.to(query.dtype), scale=self.scale)
        positions = self.Position_Extract(rearrange(located, "n (y x) d -> n d y x", y=self.side))
        mixed, positions = rearrange(mixed, "n h t d -> n t (h d)"), rearrange(positions, "n d y x -> n (y x) d")
        return self.proj(mixed + positions)


class LocallyEnhancedFeedForward(nn.Module):
    """LeFF: two linear layers with a depth-wise convolution between them."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.linear1 = nn.Sequential(nn.Linear(channels, hidden), nn.GELU())
        self.dwconv = nn.Sequential(nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden), nn.GELU())
        self.linear2 = nn.Sequential(nn.Linear(hidden, channels))

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, H, W, C) → the same shape."""
        hidden = self.linear1(x)
        local = self.dwconv(rearrange(hidden, "n h w c -> n c h w"))
        return self.linear2(hidden + rearrange(local, "n c h w -> n h w c"))


class WindowBlock(nn.Module):
    """x + attention within windows(LN(x)), then x + LeFF(LN(x))."""

    def __init__(self, channels: int, window: int, mlp_ratio: float, drop_path: float, **attention: Any) -> None:
        super().__init__()
        self.window = window
        self.norm1 = nn.LayerNorm(channels)
        self.attn = WindowAttention(channels, side=window, bound=8, **attention)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = LocallyEnhancedFeedForward(channels, int(channels * mlp_ratio))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, H, W, C) → the same shape."""
        windows = to_windows(self.norm1(x), self.window)
        mixed = self.attn(windows.flatten(0, 1)).view(windows.shape)
        x = x + self.drop_path(from_windows(mixed, self.window, x.shape[1]))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class SpatialBlock(nn.Module):
    """x + attention between windows(x), then x + LeFF(LN(x)); a token is one channel of one window."""

    def __init__(self, channels: int, side: int, bound: int, mlp_ratio: float, drop_path: float, **rest: Any) -> None:
        super().__init__()
        area = WINDOW**2
        self.attn = WindowAttention(area, side=side // WINDOW, bound=bound, **rest)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = LocallyEnhancedFeedForward(channels, int(area * mlp_ratio))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, H, W, C) → the same shape."""
        tokens = rearrange(to_windows(x, WINDOW), "n windows pixels c -> (n c) windows pixels")
        mixed = rearrange(self.attn(tokens), "(n c) windows pixels -> n windows pixels c", n=x.shape[0])
        # The result stays in the order of the windows although x is in the order of the rows: the weights need it.
        x = x + self.drop_path(mixed.reshape(x.shape))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class Stage(nn.Module):
    """The blocks of one size, on pictures."""

    def __init__(self, blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W) → the same shape."""
        x = rearrange(x, "n c h w -> n h w c")
        for block in self.blocks:
            x = block(x)
        return rearrange(x, "n h w c -> n c h w")


def under(key: str, *layers: nn.Module) -> nn.Sequential:
    """Layers one after the other whose parameters are called KEY.0, KEY.1, ..., as in the checkpoints."""
    return nn.Sequential(OrderedDict([(key, nn.Sequential(*layers))]))


def drop_path_rates(depths: Sequence[int], rate: float) -> list[tuple[float, float]]:
    """Rates of a stage's window blocks and of its spatial block, stage by stage.

    Of the rates that rise over the encoder and fall over the decoder, every stage uses its first and its last.
    """
    total = sum(depths[:4])
    rising = [rate * step / (total - 1) for step in range(total)]
    rates = []
    for slopes, parts in ((rising, depths[:4]), (rising[::-1], depths[5:])):
        start = 0
        for depth in parts:
            rates.append((slopes[start], slopes[start + depth - 1]))
            start += depth
    return [*rates[:4], (rate, rate), *rates[4:]]


STAGES = (*(f"encoderlayer_{i}" for i in range(4)), "bottle", *(f"decoderlayer_{i}" for i in range(4)))
TABLES = tuple(f"{stage}.blocks.0.attn.relative_position_bias_table" for stage in STAGES)
EMBEDDING = "input_proj.proj.0.weight"
HIDDEN = "encoderlayer_0.blocks.0.mlp.linear1.0.weight"
LOWEST = "encoderlayer_3.blocks.2.attn.Position_Extract.0.weight"  # of the lowest spatial block


def arguments_of(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read the arguments of IDT from its weights.

    Its picture size is 64 or 128; weights for pictures of 256x256 and more look like those for 128x128.
    """
    embed_dim, in_chans = state[EMBEDDING].shape[:2]
    return {
        "img_size": 64 if state[LOWEST].shape[-1] == 1 else 128,  # only one window is left there
        "in_chans": in_chans,
        "embed_dim": embed_dim,
        "num_heads": [state[table].shape[1] for table in TABLES],
        "mlp_ratio": state[HIDDEN].shape[0] / embed_dim,
        "qkv_bias": "bottle.blocks.0.attn.qkv.to_q.bias" in state,
    }


def patch_weights(side: int) -> Tensor:
    """Weights (side, side) that fall with the distance from the centre, as in the authors' test script."""
    distance = torch.arange(side, dtype=torch.float64) - side // 2
    return (distance[:, None].square() + distance[None, :].square() + 1e-3).rsqrt()


class IDT(RestorationNetwork):
    """Image de-raining transformer for pictures of one size; returns the input plus a predicted residual.

    Args:
        img_size: height and width of its pictures: 64 or a multiple of 128. Published weights: 128.
        in_chans: channels of the picture.
        embed_dim: channels at full size.
        depths: decides the drop-path rates only: 9 numbers, of encoder 0-3, bottle, decoder 0-3.
        num_heads: heads of the nine stages.
        win_size: side of the windows of window blocks.
        mlp_ratio: hidden channels of a feed-forward relative to its input.
        qkv_bias: biases of query, key and values.
        qk_scale: factor of the scores; default (channels per head)^-0.5.
        drop_path_rate: the largest probability with which a branch is left out in training.

    Raises:
        ValueError: arguments that do not fit together.
    """

    contract = Contract(
        patch_overlap=20,
        patch_weights=patch_weights,
        recognition=Recognition(keys=(EMBEDDING, *TABLES, LOWEST, HIDDEN), arguments=arguments_of),
    )

    def __init__(  # noqa: PLR0917 - the order of the published class; users pass names
        self,
        img_size: int = 128,
        in_chans: int = 3,
        embed_dim: int = 32,
        depths: Sequence[int] = (3, 3, 2, 2, 1, 1, 2, 2, 3),
        num_heads: Sequence[int] = (1, 2, 4, 8, 16, 16, 8, 4, 2),
        win_size: int = 8,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        drop_path_rate: float = 0.1,
    ) -> None:
        if img_size != 64 and (img_size % 128 or img_size <= 0):
            raise ValueError(f"img_size must be 64 or a multiple of 128, not {img_size}")
        if len(depths) != 9 or len(num_heads) != 9 or min(depths) < 1:
            raise ValueError(f"depths and num_heads need nine entries each, not {depths} and {num_heads}")
        super().__init__()
        self.contract = dataclasses.replace(self.contract, picture_channels=in_chans, patch_size=img_size)
        rates = drop_path_rates(depths, drop_path_rate)

        def stage(index: int) -> Stage:
            channels, side = WIDTHS[index] * embed_dim, img_size // SHRINKS[index]
            shared: dict[str, Any] = {
                "heads": num_heads[index],
                "mlp_ratio": mlp_ratio,
                "qkv_bias": qkv_bias,
                "qk_scale": qk_scale,
            }
            within, between = rates[index]
            blocks: list[nn.Module] = [
                WindowBlock(channels, min(win_size, side), drop_path=within, **shared) for _ in range(BLOCKS[index])
            ]
            if BOUNDS[index]:
                blocks.append(SpatialBlock(channels, side, BOUNDS[index], drop_path=between, **shared))
            return Stage(blocks)

        self.input_proj = under("proj", nn.Conv2d(in_chans, embed_dim, 3, padding=1), nn.LeakyReLU(0.01))
        for i in range(4):
            self.add_module(f"encoderlayer_{i}", stage(i))
            channels = 2**i * embed_dim
            self.add_module(f"dowsample_{i}", under("conv", nn.Conv2d(channels, 2 * channels, 4, stride=2, padding=1)))
        self.bottle = stage(4)
        for i, (wide, narrow) in enumerate(((16, 8), (16, 4), (8, 2), (4, 1))):
            larger = nn.ConvTranspose2d(wide * embed_dim, narrow * embed_dim, 2, stride=2)
            self.add_module(f"upsample_{i}", under("deconv", larger))
            self.add_module(f"decoderlayer_{i}", stage(5 + i))
        self.output_proj = under("proj", nn.Conv2d(2 * embed_dim, in_chans, 3, padding=1))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, image: Tensor) -> Tensor:
        """Derain pictures.

        Args:
            image: (N, in_chans, img_size, img_size), RGB in [0, 1].

        Returns:
            The derained pictures, same shape, not clamped to [0, 1].

        Raises:
            ValueError: another number of channels or another size.
        """
        channels, height, width = image.shape[1:]
        wanted, side = self.contract.picture_channels, self.contract.patch_size
        if channels != wanted:
            raise InputError(f"IDT was built for {wanted} channels, the picture has {channels}")
        if (height, width) != (side, side):
            raise InputError(f"IDT was built for {side}x{side}, the picture is {height}x{width}")
        skips = []
        x = self.input_proj(image)
        for i in range(4):
            x = self.get_submodule(f"encoderlayer_{i}")(x)
            skips.append(x)
            x = self.get_submodule(f"dowsample_{i}")(x)
        x = self.bottle(x)
        for i in range(4):
            x = torch.cat((self.get_submodule(f"upsample_{i}")(x), skips.pop()), dim=1)
            x = self.get_submodule(f"decoderlayer_{i}")(x)
        return image + self.output_proj(x)
