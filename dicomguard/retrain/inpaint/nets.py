"""Three inpainting networks of different construction, so that no one up-sampler's trace stands for all of them.

Each maps B×4×H×W (known image with a smooth fill in the hole, hole, lesion wanted, noise) to B×1×H×W, the correction
of the smooth fill; H and W are multiples of 8. Grey levels are normalised (`fill.levels`). Sources: U-Net
(Ronneberger 2015); gated convolution (Yu 2019, arXiv 1806.03589); Fourier convolution in the trunk (Suvorov 2022,
LaMa, arXiv 2109.07161); sub-pixel up-sampling (Shi 2016).
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.nn import functional

CHANNELS = 4
# Sides must be multiples of this.
STRIDE = 8


def smooth_fill(image: Tensor, hole: Tensor) -> Tensor:
    """B×1×H×W with the hole filled from a pyramid of means of the known pixels (push-pull, Gortler 1996)."""
    known = 1 - hole
    if min(image.shape[-2:]) < 4:
        middle = (image * known).sum((2, 3), keepdim=True) / known.sum((2, 3), keepdim=True).clamp(min=1e-6)
        return image * known + middle * hole
    weight = functional.avg_pool2d(known, 2, ceil_mode=True)
    coarse = functional.avg_pool2d(image * known, 2, ceil_mode=True) / weight.clamp(min=1e-6)
    coarse = smooth_fill(coarse, (weight <= 0).to(image.dtype))
    pulled = functional.interpolate(coarse, size=image.shape[-2:], mode="bilinear", align_corners=False)
    return image * known + pulled * hole


def _pair(given: int, made: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(given, made, 3, padding=1), nn.SiLU(), nn.Conv2d(made, made, 3, padding=1), nn.SiLU()
    )


class Plain(nn.Module):
    """U-Net of three scales: mean pooling down, bilinear up."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = _pair(CHANNELS, 16), _pair(16, 32), _pair(32, 40)
        self.deep = _pair(40, 40)
        self.up_third, self.up_second, self.up_first = _pair(80, 32), _pair(64, 16), _pair(32, 16)
        self.out = nn.Conv2d(16, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.first(x)
        second = self.second(functional.avg_pool2d(first, 2))
        third = self.third(functional.avg_pool2d(second, 2))
        y = self.deep(functional.avg_pool2d(third, 2))
        for skipped, block in ((third, self.up_third), (second, self.up_second), (first, self.up_first)):
            grown = functional.interpolate(y, scale_factor=2, mode="bilinear", align_corners=False)
            y = block(torch.cat([grown, skipped], 1))
        out: Tensor = self.out(y)
        return out


class _Gate(nn.Module):
    """A convolution whose output is gated by its own other half."""

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.conv(x).chunk(2, 1)
        return functional.elu(value) * torch.sigmoid(gate)


class Gated(nn.Module):
    """Encoder and decoder of gated convolutions without skips: strides down, transposed convolutions up."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _Gate(nn.Conv2d(CHANNELS, 32, 5, padding=2)),
            _Gate(nn.Conv2d(16, 48, 3, stride=2, padding=1)),
            _Gate(nn.Conv2d(24, 64, 3, stride=2, padding=1)),
            _Gate(nn.Conv2d(32, 64, 3, padding=2, dilation=2)),
            _Gate(nn.Conv2d(32, 64, 3, padding=4, dilation=4)),
            _Gate(nn.Conv2d(32, 64, 3, padding=1)),
            _Gate(nn.ConvTranspose2d(32, 48, 4, stride=2, padding=1)),
            _Gate(nn.ConvTranspose2d(24, 32, 4, stride=2, padding=1)),
            nn.Conv2d(16, 1, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x)
        return out


class _Spectral(nn.Module):
    """A point-wise convolution of the Fourier transform: every pixel sees the whole crop."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(2 * width, 2 * width, 1)

    def forward(self, x: Tensor) -> Tensor:
        spectrum = torch.fft.rfft2(x, norm="ortho")
        real, imaginary = functional.silu(self.mix(torch.cat([spectrum.real, spectrum.imag], 1))).chunk(2, 1)
        back: Tensor = torch.fft.irfft2(torch.complex(real, imaginary), s=x.shape[-2:], norm="ortho")
        return back


class Shuffled(nn.Module):
    """All work at a quarter of the scale: pixels folded into channels, a dilated residual trunk, pixels unfolded."""

    def __init__(self) -> None:
        super().__init__()
        width = 44
        self.stem = nn.Conv2d(16 * CHANNELS, width, 1)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.GroupNorm(4, width), nn.SiLU(), nn.Conv2d(width, width, 3, padding=d, dilation=d))
            for d in (1, 2, 1, 3, 1)
        )
        self.spectral = _Spectral(width)
        self.out = nn.Conv2d(width, 16, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(functional.pixel_unshuffle(x, 4))
        for index, block in enumerate(self.blocks):
            y = y + block(y)
            if index == 1:
                y = y + self.spectral(y)
        return functional.pixel_shuffle(self.out(y), 4)


NETS: Mapping[str, Callable[[], nn.Module]] = MappingProxyType({"plain": Plain, "gated": Gated, "shuffled": Shuffled})


def build(name: str) -> nn.Module:
    """A network of chance whose first answer is the smooth fill itself."""
    net = NETS[name]()
    last = [module for module in net.modules() if isinstance(module, nn.Conv2d)][-1]
    for parameter in last.parameters():
        nn.init.zeros_(parameter)
    return net


def complete(net: nn.Module, image: Tensor, hole: Tensor, label: Tensor, noise: Tensor) -> Tensor:
    """B×1×H×W normalised image whose hole is filled; `label` is 1 where a lesion is wanted, 0 for healthy tissue."""
    ground = smooth_fill(image, hole)
    out: Tensor = net(torch.cat([ground, hole, label, noise], 1))
    return image * (1 - hole) + (ground + out) * hole
