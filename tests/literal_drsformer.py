"""DRSformer written down literally, step by step as the paper and the published weights have it: slow, plain, lean.

What `drsformer_arch` computes faster is compared with this, and ratios of speed and memory are taken against it. It is
no straw man: one operation per step of the description, no copies besides, channels first. It shares no code with the
package, only the names of the weights.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Convolution = nn.Conv2d


class LayerNorm(nn.Module):
    def __init__(self, channels: int, kind: str) -> None:
        super().__init__()
        self.body = nn.Module()
        self.body.weight = nn.Parameter(torch.ones(channels))
        self.body.bias = nn.Parameter(torch.zeros(channels)) if kind == "WithBias" else None

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        x = x.reshape(n, c, h * w).transpose(1, 2)
        if self.body.bias is None:
            x = x / torch.sqrt(x.var(-1, keepdim=True, unbiased=False) + 1e-5) * self.body.weight
        else:
            x = F.layer_norm(x, (c,), self.body.weight, self.body.bias, 1e-5)
        return x.transpose(1, 2).reshape(n, c, h, w)


class Attention(nn.Module):
    def __init__(self, channels: int, heads: int, bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = Convolution(channels, 3 * channels, 1, bias=bias)
        self.qkv_dwconv = Convolution(3 * channels, 3 * channels, 3, 1, 1, groups=3 * channels, bias=bias)
        self.project_out = Convolution(channels, channels, 1, bias=bias)
        for number in range(1, 5):
            setattr(self, f"attn{number}", nn.Parameter(torch.tensor([0.2])))

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        q, k, v = (
            part.reshape(n, self.heads, c // self.heads, h * w) for part in self.qkv_dwconv(self.qkv(x)).chunk(3, 1)
        )
        scores = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1) * self.temperature
        each = c // self.heads
        out = 0
        for weight, kept in (
            (self.attn1, each // 2),
            (self.attn2, each * 2 // 3),
            (self.attn3, each * 3 // 4),
            (self.attn4, each * 4 // 5),
        ):
            index = torch.topk(scores, kept, dim=-1).indices
            mask = torch.zeros_like(scores).scatter_(-1, index, 1.0)
            sparse = torch.where(mask > 0, scores, float("-inf"))
            out = out + (sparse.softmax(-1) * weight) @ v
        return self.project_out(out.reshape(n, c, h, w))


class FeedForward(nn.Module):
    def __init__(self, channels: int, factor: float, bias: bool) -> None:
        super().__init__()
        hidden = int(channels * factor)
        self.project_in = Convolution(channels, 2 * hidden, 1, bias=bias)
        self.dwconv3x3 = Convolution(2 * hidden, 2 * hidden, 3, 1, 1, groups=2 * hidden, bias=bias)
        self.dwconv5x5 = Convolution(2 * hidden, 2 * hidden, 5, 1, 2, groups=2 * hidden, bias=bias)
        self.dwconv3x3_1 = Convolution(2 * hidden, hidden, 3, 1, 1, groups=hidden, bias=bias)
        self.dwconv5x5_1 = Convolution(2 * hidden, hidden, 5, 1, 2, groups=hidden, bias=bias)
        self.project_out = Convolution(2 * hidden, channels, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.project_in(x)
        a3, b3 = F.relu(self.dwconv3x3(x), inplace=True).chunk(2, 1)
        a5, b5 = F.relu(self.dwconv5x5(x), inplace=True).chunk(2, 1)
        x1 = F.relu(self.dwconv3x3_1(torch.cat((a3, a5), 1)), inplace=True)
        x2 = F.relu(self.dwconv5x5_1(torch.cat((b3, b5), 1)), inplace=True)
        return self.project_out(torch.cat((x1, x2), 1))


class Block(nn.Module):
    def __init__(self, channels: int, heads: int, factor: float, bias: bool, norm: str) -> None:
        super().__init__()
        self.norm1, self.attn = LayerNorm(channels, norm), Attention(channels, heads, bias)
        self.norm2, self.ffn = LayerNorm(channels, norm), FeedForward(channels, factor, bias)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.ffn(self.norm2(x))


def holder(name: str, module: nn.Module) -> nn.Module:
    """A module that only gives another one its name in the checkpoint."""
    outer = nn.Module()
    outer.add_module(name, module)
    return outer


def expert(channels: int, kernel: int, dilation: int, separable: bool) -> nn.Module:
    def pair() -> list[nn.Module]:
        padding = kernel // 2 * dilation
        return [
            Convolution(channels, channels, kernel, 1, padding, dilation, groups=channels, bias=False),
            Convolution(channels, channels, 1, bias=False),
        ]

    return nn.Sequential(*pair(), nn.ReLU(inplace=True), *pair()) if separable else nn.Sequential(*pair())


class Step(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        experts = [expert(channels, kernel, 1, separable=True) for kernel in (1, 3, 5, 7)]
        experts += [expert(channels, kernel, 2, separable=False) for kernel in (3, 5, 7)]
        experts += [nn.AvgPool2d(3, 1, 1, count_include_pad=False)]
        self._ops = nn.ModuleList(holder("op", one) for one in experts)
        self._out = nn.Sequential(Convolution(8 * channels, channels, 1, bias=False), nn.ReLU(inplace=True))

    def forward(self, x: Tensor, gates: Tensor) -> Tensor:
        outputs = [one.op(x) * gates[:, number].reshape(-1, 1, 1, 1) for number, one in enumerate(self._ops)]
        return F.relu(self._out(torch.cat(outputs, 1)) + x, inplace=True)


class Compensator(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        gate = holder("ca_fc", nn.Sequential(nn.Linear(channels, 64), nn.ReLU(), nn.Linear(64, 32)))
        body = holder("_ops", nn.ModuleList(Step(channels) for _ in range(4)))
        first = nn.Sequential(Convolution(channels, channels, 1, bias=False), nn.ReLU(inplace=True))
        body.preprocess = holder("op", first)
        self.layers = nn.ModuleList((gate, body))

    def forward(self, x: Tensor) -> Tensor:
        gate, body = self.layers
        gates = gate.ca_fc(x.mean((2, 3))).reshape(-1, 4, 8).softmax(-1)
        x = body.preprocess.op(x)
        for number, step in enumerate(body._ops):
            x = step(x, gates[:, number])
        return x


class LiteralDRSformer(nn.Module):
    block: type[nn.Module] = Block

    def __init__(  # noqa: PLR0917 - the order of the published class
        self,
        inp_channels=3,
        out_channels=3,
        dim=48,
        num_blocks=(4, 6, 6, 8),
        heads=(1, 2, 4, 8),
        ffn_expansion_factor=2.66,
        bias=False,
        LayerNorm_type="WithBias",
        with_mefc=True,
    ) -> None:
        super().__init__()

        def level(channels: int, number: int) -> nn.Sequential:
            arguments = (channels, heads[number], ffn_expansion_factor, bias, LayerNorm_type)
            return nn.Sequential(*(self.block(*arguments) for _ in range(num_blocks[number])))

        def resample(channels: int, outputs: int, shuffle: nn.Module) -> nn.Module:
            return holder("body", nn.Sequential(Convolution(channels, outputs, 3, 1, 1, bias=False), shuffle))

        self.patch_embed = holder("proj", Convolution(inp_channels, dim, 3, 1, 1, bias=False))
        self.encoder_level0 = Compensator(dim) if with_mefc else nn.Identity()
        self.encoder_level1 = level(dim, 0)
        self.down1_2 = resample(dim, dim // 2, nn.PixelUnshuffle(2))
        self.encoder_level2 = level(2 * dim, 1)
        self.down2_3 = resample(2 * dim, dim, nn.PixelUnshuffle(2))
        self.encoder_level3 = level(4 * dim, 2)
        self.down3_4 = resample(4 * dim, 2 * dim, nn.PixelUnshuffle(2))
        self.latent = level(8 * dim, 3)
        self.up4_3 = resample(8 * dim, 16 * dim, nn.PixelShuffle(2))
        self.reduce_chan_level3 = Convolution(8 * dim, 4 * dim, 1, bias=bias)
        self.decoder_level3 = level(4 * dim, 2)
        self.up3_2 = resample(4 * dim, 8 * dim, nn.PixelShuffle(2))
        self.reduce_chan_level2 = Convolution(4 * dim, 2 * dim, 1, bias=bias)
        self.decoder_level2 = level(2 * dim, 1)
        self.up2_1 = resample(2 * dim, 4 * dim, nn.PixelShuffle(2))
        self.decoder_level1 = level(2 * dim, 0)
        self.refinement = Compensator(2 * dim) if with_mefc else nn.Identity()
        self.output = Convolution(2 * dim, out_channels, 3, 1, 1, bias=bias)

    def forward(self, image: Tensor) -> Tensor:
        level1 = self.encoder_level1(self.encoder_level0(self.patch_embed.proj(image)))
        level2 = self.encoder_level2(self.down1_2.body(level1))
        level3 = self.encoder_level3(self.down2_3.body(level2))
        x = self.latent(self.down3_4.body(level3))
        x = self.decoder_level3(self.reduce_chan_level3(torch.cat((self.up4_3.body(x), level3), 1)))
        x = self.decoder_level2(self.reduce_chan_level2(torch.cat((self.up3_2.body(x), level2), 1)))
        x = self.decoder_level1(torch.cat((self.up2_1.body(x), level1), 1))
        return self.output(self.refinement(x)) + image
