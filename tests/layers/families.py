"""Networks of well-known families at tiny width, with the true names of their parts, as real modules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LayerNorm2d(nn.LayerNorm):
    """Over the channels of images."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Permute(nn.Module):
    def __init__(self, *order: int) -> None:
        super().__init__()
        self.order = order

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(self.order)


def depthwise(width: int) -> nn.Conv2d:
    return nn.Conv2d(width, width, 7, padding=3, groups=width)


def norm(width: int) -> nn.LayerNorm:
    return nn.LayerNorm(width, eps=1e-6)


def down(inside: int, out: int) -> nn.Sequential:
    return nn.Sequential(LayerNorm2d(inside, eps=1e-6), nn.Conv2d(inside, out, 2, 2))


class FacebookBlock(nn.Module):
    def __init__(self, width: int, name: str = "norm", scale: str = "gamma") -> None:
        super().__init__()
        self.dwconv = depthwise(width)
        self.add_module(name, norm(width))
        self.pwconv1, self.act, self.pwconv2 = nn.Linear(width, 12), nn.GELU(), nn.Linear(12, width)
        self.register_parameter(scale, nn.Parameter(torch.ones(width)))
        self.names = name, scale

    def forward(self, x: Tensor) -> Tensor:
        y = self.get_submodule(self.names[0])(self.dwconv(x).permute(0, 2, 3, 1))
        y = getattr(self, self.names[1]) * self.pwconv2(self.act(self.pwconv1(y)))
        return x + y.permute(0, 3, 1, 2)


class Mlp(nn.Module):
    def __init__(self, width: int, hidden: int = 12) -> None:
        super().__init__()
        self.fc1, self.act, self.fc2 = nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


class TimmBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv_dw, self.norm, self.mlp = depthwise(width), norm(width), Mlp(width)
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.mlp(self.norm(self.conv_dw(x).permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
        return x + y * self.gamma.reshape(1, -1, 1, 1)


class TorchvisionBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer_scale = nn.Parameter(torch.ones(width, 1, 1))
        self.block = nn.Sequential(
            depthwise(width),
            Permute(0, 2, 3, 1),
            norm(width),
            nn.Linear(width, 12),
            nn.GELU(),
            nn.Linear(12, width),
            Permute(0, 3, 1, 2),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layer_scale * self.block(x) + x


class InOrder(nn.Module):
    """Named parts that run one after the other."""

    def __init__(self, **parts: nn.Module) -> None:
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: Tensor) -> Tensor:
        for part in self.children():
            x = part(x)
        return x


class Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


class FacebookConvNeXt(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        stem = nn.Sequential(nn.Conv2d(3, 4, 4, 4), LayerNorm2d(4))
        self.downsample_layers = nn.ModuleList([stem, down(4, 8)])
        self.stages = nn.ModuleList([nn.Sequential(FacebookBlock(w), FacebookBlock(w)) for w in (4, 8)])
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        for smaller, stage in zip(self.downsample_layers, self.stages, strict=True):
            x = stage(smaller(x))
        return self.head(self.norm(x.mean((2, 3))))


def timm_convnext() -> nn.Module:
    return InOrder(
        stem=nn.Sequential(nn.Conv2d(3, 4, 4, 4), LayerNorm2d(4)),
        stages=nn.Sequential(
            InOrder(blocks=nn.Sequential(TimmBlock(4), TimmBlock(4))),
            InOrder(downsample=down(4, 8), blocks=nn.Sequential(TimmBlock(8))),
        ),
        head=InOrder(pool=Mean(), norm=nn.LayerNorm(8), fc=nn.Linear(8, 5)),
    )


def torchvision_convnext() -> nn.Module:
    return InOrder(
        features=nn.Sequential(
            nn.Sequential(nn.Conv2d(3, 4, 4, 4), LayerNorm2d(4)),
            nn.Sequential(TorchvisionBlock(4), TorchvisionBlock(4)),
            down(4, 8),
            nn.Sequential(TorchvisionBlock(8)),
        ),
        avgpool=nn.AdaptiveAvgPool2d(1),
        classifier=nn.Sequential(LayerNorm2d(8), nn.Flatten(1), nn.Linear(8, 5)),
    )


def transformers_convnext() -> nn.Module:
    def block(width: int) -> nn.Module:
        return FacebookBlock(width, "layernorm", "layer_scale_parameter")

    stages = nn.Sequential(
        InOrder(layers=nn.Sequential(block(4), block(4))),
        InOrder(downsampling_layer=down(4, 8), layers=nn.Sequential(block(8))),
    )
    embeddings = InOrder(patch_embeddings=nn.Conv2d(3, 4, 4, 4), layernorm=LayerNorm2d(4))
    return InOrder(
        convnext=InOrder(
            embeddings=embeddings, encoder=InOrder(stages=stages), pool=Mean(), layernorm=nn.LayerNorm(8)
        ),
        classifier=nn.Linear(8, 5),
    )


CONVNEXTS: Mapping[str, Callable[[], nn.Module]] = {
    "facebook": FacebookConvNeXt,
    "timm": timm_convnext,
    "torchvision": torchvision_convnext,
    "transformers": transformers_convnext,
}


class ConvLayer(nn.Module):
    """Of transformers' ResNet."""

    def __init__(self, inside: int, out: int, kernel: int, stride: int = 1, *, active: bool = True) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(inside, out, kernel, stride, kernel // 2, bias=False)
        self.normalization = nn.BatchNorm2d(out)
        self.activation: nn.Module = nn.ReLU() if active else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.normalization(self.convolution(x)))


class TransformersResNetLayer(nn.Module):
    def __init__(self, inside: int, out: int, stride: int, *, bottleneck: bool) -> None:
        super().__init__()
        changes = inside != out or stride > 1
        self.shortcut: nn.Module = (
            ConvLayer(inside, out, 1, stride, active=False) if changes else nn.Identity()
        )
        narrow = out // 4
        self.layer = (
            nn.Sequential(
                ConvLayer(inside, narrow, 1),
                ConvLayer(narrow, narrow, 3, stride),
                ConvLayer(narrow, out, 1, active=False),
            )
            if bottleneck
            else nn.Sequential(ConvLayer(inside, out, 3, stride), ConvLayer(out, out, 3, active=False))
        )
        self.activation = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        y = y + self.shortcut(x)
        return self.activation(y)


def transformers_resnet(*, bottleneck: bool) -> nn.Module:
    def layer(inside: int, out: int, stride: int = 1) -> nn.Module:
        return TransformersResNetLayer(inside, out, stride, bottleneck=bottleneck)

    first = 16 if bottleneck else 4
    stages = nn.Sequential(
        InOrder(layers=nn.Sequential(layer(4, first), layer(first, first))),
        InOrder(layers=nn.Sequential(layer(first, 2 * first, 2), layer(2 * first, 2 * first))),
    )
    embedder = InOrder(embedder=ConvLayer(3, 4, 7, 2), pooler=nn.MaxPool2d(3, 2, 1))
    return InOrder(
        resnet=InOrder(embedder=embedder, encoder=InOrder(stages=stages), pooler=nn.AdaptiveAvgPool2d(1)),
        classifier=nn.Sequential(nn.Flatten(), nn.Linear(2 * first, 5)),
    )


class Bottleneck(nn.Module):
    """Of torchvision and timm; of a ResNet-D with an average pool on its shortcut."""

    def __init__(self, inside: int, width: int, stride: int, *, pooled: bool) -> None:
        super().__init__()
        out = 4 * width
        self.conv1, self.bn1 = nn.Conv2d(inside, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, out, 1, bias=False), nn.BatchNorm2d(out)
        self.downsample: nn.Module | None = None
        if inside != out or stride > 1:
            pool: list[nn.Module] = []
            if pooled:
                pool = [nn.AvgPool2d(stride) if stride > 1 else nn.Identity()]
            one = nn.Conv2d(inside, out, 1, 1 if pooled else stride, bias=False)
            self.downsample = nn.Sequential(*pool, one, nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn3(self.conv3(F.relu(self.bn2(self.conv2(y)))))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


def resnet(*, deep_stem: bool) -> nn.Module:
    """torchvision's ResNet-50, or timm's ResNet-50-D."""
    stem: nn.Module = nn.Conv2d(3, 8, 7, 2, 3, bias=False)
    if deep_stem:
        stem = nn.Sequential(
            nn.Conv2d(3, 4, 3, 2, 1, bias=False),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Conv2d(4, 4, 3, 1, 1, bias=False),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Conv2d(4, 8, 3, 1, 1, bias=False),
        )

    def block(inside: int, width: int, stride: int = 1) -> nn.Module:
        return Bottleneck(inside, width, stride, pooled=deep_stem)

    return InOrder(
        conv1=stem,
        bn1=nn.BatchNorm2d(8),
        relu=nn.ReLU(),
        maxpool=nn.MaxPool2d(3, 2, 1),
        layer1=nn.Sequential(block(8, 4), block(16, 4)),
        layer2=nn.Sequential(block(16, 6, 2), block(24, 6)),
        avgpool=nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        fc=nn.Linear(24, 5),
    )


class DenseLayer(nn.Module):
    def __init__(self, inside: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(inside), nn.Conv2d(inside, 8, 1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(8), nn.Conv2d(8, 2, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(F.relu(self.norm2(self.conv1(F.relu(self.norm1(x))))))
        return torch.cat([x, y], 1)


def densenet() -> nn.Module:
    features = InOrder(
        conv0=nn.Conv2d(3, 4, 7, 2, 3, bias=False),
        norm0=nn.BatchNorm2d(4),
        relu0=nn.ReLU(),
        pool0=nn.MaxPool2d(3, 2, 1),
        denseblock1=InOrder(denselayer1=DenseLayer(4), denselayer2=DenseLayer(6)),
        transition1=InOrder(
            norm=nn.BatchNorm2d(8), relu=nn.ReLU(), conv=nn.Conv2d(8, 4, 1, bias=False), pool=nn.AvgPool2d(2)
        ),
        denseblock2=InOrder(denselayer1=DenseLayer(4)),
        norm5=nn.BatchNorm2d(6),
    )
    return InOrder(features=features, relu=nn.ReLU(), pool=Mean(), classifier=nn.Linear(6, 5))


RESNETS: Mapping[str, Callable[[], nn.Module]] = {
    "torchvision": lambda: resnet(deep_stem=False),
    "timm resnet-d": lambda: resnet(deep_stem=True),
    "densenet": densenet,
    "transformers basic": lambda: transformers_resnet(bottleneck=False),
    "transformers bottleneck": lambda: transformers_resnet(bottleneck=True),
}


class Scaled(nn.Module):
    """A module's outputs times a stored vector, under the name that a library gives it."""

    def __init__(self, name: str, width: int = 8) -> None:
        super().__init__()
        self.register_parameter(name, nn.Parameter(torch.ones(width)))
        self.name = name

    def forward(self, x: Tensor) -> Tensor:
        return x * getattr(self, self.name)


class RootMeanSquare(nn.Module):
    """A normalisation that its class name does not give away; its gain is `weight`, or 1 + weight."""

    def __init__(self, width: int, offset: float = 0.0, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(width) * 3)
        self.offset, self.eps = offset, eps

    def forward(self, x: Tensor) -> Tensor:
        y = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps)
        return (self.offset + self.weight) * y


def randomise(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give every tensor random values, wrap every convolution around its grid, and return it in float64."""
    generator = torch.Generator().manual_seed(seed)
    for part in model.modules():
        if isinstance(part, nn.Conv2d):
            part.padding_mode = "circular"
        buffers: Any = part
        if isinstance(part, nn.BatchNorm2d):
            buffers.running_var.uniform_(0.5, 2, generator=generator)
            buffers.running_mean.normal_(generator=generator)
    for parameter in model.parameters():
        flat = parameter.ndim == 1 or parameter.numel() == len(parameter)
        fan = 1 if flat else parameter[0].numel()
        parameter.data.normal_(generator=generator).div_(max(1, fan) ** 0.5)
        if flat:
            parameter.data.add_(0.3)
    return model.double().eval()
