"""The Jacobians of real blocks, against torch's own at the same input."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from specinspect.architecture import read_architecture
from specinspect.checkpoint import from_module, from_state_dict
from specinspect.layers import apply_facts, discover, with_architecture
from specinspect.layers.blocks import Block, block_tensors, discover_blocks, find_blocks
from specinspect.maps.blocks import Branch, build_branch, cotangent, jacobian, points, tangent
from tests.architecture import nets


def block_of(model: nn.Module, name: str, grid: int = 1) -> tuple[Block, Branch]:
    """A block of a network, traced, and built from its tensors."""
    model.double().eval()
    architecture = read_architecture(model)
    checkpoint = with_architecture(from_module(model), architecture)
    layers = apply_facts(discover(checkpoint), checkpoint, architecture=architecture).layers
    found = discover_blocks(layers, architecture=architecture, tensors=checkpoint.tensors)
    block = next(block for block in found.blocks if block.name == name)
    by_name = {layer.name: layer for layer in layers}
    needed = block_tensors(block, by_name, checkpoint.tensors)

    def read(tensor: str) -> Tensor:
        assert tensor in needed
        return checkpoint.read(tensor).detach()

    return block, build_branch(block, by_name, read, frozenset(needed), grid)


def randomise(model: nn.Module, seed: int = 0) -> None:
    """Give every tensor random values: batch norms of an untrained network do nothing."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.padding_mode = "circular"
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.data.uniform_(0.5, 2, generator=generator)  # type: ignore[union-attr]
            module.running_mean.data.normal_(generator=generator)  # type: ignore[union-attr]
    for parameter in model.parameters():
        fan = max(1, parameter[0].numel())
        parameter.data.normal_(generator=generator).div_(fan**0.5)
        if parameter.ndim == 1:
            parameter.data.add_(0.3)


def check(
    branch: Branch, x: Tensor, inner: Callable[[Tensor], Tensor], whole: Callable[[Tensor], Tensor]
) -> None:
    """J is the Jacobian of `inner`, A + J that of `whole`, both from one input to one output."""
    j, a = jacobian(branch, x)
    for found, function in ((j, inner), (j + a, whole)):
        truth = torch.autograd.functional.jacobian(function, x).reshape(found.shape)
        error = torch.linalg.matrix_norm(found - truth) / torch.linalg.matrix_norm(truth)
        assert float(error) < 1e-6
    # The adjoint is the transpose.
    at = points(branch.stages, x[None])
    generator = torch.Generator().manual_seed(1)
    v = torch.randn(1, *x.shape, generator=generator, dtype=torch.float64)
    forward = tangent(branch.stages, at, v)
    w = torch.randn(forward.shape, generator=generator, dtype=torch.float64)
    backward = cotangent(branch.stages, at, w)
    assert torch.allclose((forward * w).sum(), (v * backward).sum(), rtol=1e-10)
    assert torch.allclose(forward.flatten(), j @ v.flatten(), rtol=1e-10)


def sample(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)


def test_residual_mlp() -> None:
    model = nets.ResidualMLP(2, 8)
    randomise(model)
    block, branch = block_of(model, "layers.1")
    assert block.kind == "residual"

    def inner(x: Tensor) -> Tensor:
        return 0.5 * F.leaky_relu(model.layers[1](x), 0.1)

    check(branch, sample(8), inner, lambda x: x + inner(x))


@pytest.mark.parametrize("name", ["layer1.0", "layer1.1", "layer2.0", "layer2.1"])
@pytest.mark.parametrize(("kind", "expansion"), [(nets.BasicBlock, 1), (nets.Bottleneck, 4)])
def test_resnet(kind: type[nn.Module], expansion: int, name: str) -> None:
    model = nets.ResNet(kind, expansion)
    randomise(model)
    _, branch = block_of(model, name, 6)
    module = model.get_submodule(name)
    names = ("conv1", "conv2") if kind is nets.BasicBlock else ("conv1", "conv2", "conv3")

    def inner(x: Tensor) -> Tensor:
        x = x[None]
        for i, conv in enumerate(names):
            x = F.relu(x) if i else x
            x = module.get_submodule(f"bn{i + 1}")(module.get_submodule(conv)(x))
        return x[0]

    def whole(x: Tensor) -> Tensor:
        beside = module.downsample(x[None])[0] if module.downsample is not None else x  # type: ignore[operator]
        return inner(x) + beside

    x = sample(branch.channels, 6, 6)
    assert torch.allclose(F.relu(whole(x)), module(x[None])[0])
    check(branch, x, inner, whole)


@pytest.mark.parametrize("name", ["blocks.0", "blocks.1"])
def test_pre_activation(name: str) -> None:
    model = nets.PreActivationResNet()
    randomise(model)
    _, branch = block_of(model, name, 4)
    module = model.get_submodule(name)

    def inner(x: Tensor) -> Tensor:
        out = F.relu(module.bn1(x[None])) if name == "blocks.0" else x[None]  # type: ignore[operator]
        return module.conv2(F.relu(module.bn2(module.conv1(out))))[0]  # type: ignore[operator]

    def whole(x: Tensor) -> Tensor:
        return inner(x) + (x if module.shortcut is None else module.shortcut(x[None])[0])  # type: ignore[operator]

    check(branch, sample(8, 4, 4), inner, whole)


class NormFirst(nn.Module):
    """A block of timm's resnetv2: basic with two convolutions, bottleneck with three."""

    def __init__(self, inside: int, out: int, *, bottleneck: bool, stride: int, word: str) -> None:
        super().__init__()
        mid = out // 2 if bottleneck else out
        widths = [inside, mid, mid, out] if bottleneck else [inside, out, out]
        self.downsample: nn.Module | None = None
        if inside != out or stride > 1:
            self.downsample = nn.ModuleDict({"conv": nn.Conv2d(inside, out, 1, stride, bias=False)})
        self.names = []
        for i, (a, b) in enumerate(pairwise(widths), 1):
            one = bottleneck and i != 2
            step = stride if i == (2 if bottleneck else 1) else 1
            self.add_module(f"{word}{i}", nn.BatchNorm2d(a))
            self.add_module(f"conv{i}", nn.Conv2d(a, b, 1 if one else 3, step, 0 if one else 1, bias=False))
            self.names.append((f"{word}{i}", f"conv{i}"))

    def after_first(self, x: Tensor) -> Tensor:
        return F.relu(self.get_submodule(self.names[0][0])(x))

    def branch(self, x: Tensor) -> Tensor:
        """From what the first activation puts out."""
        x = self.get_submodule(self.names[0][1])(x)
        for norm, conv in self.names[1:]:
            x = self.get_submodule(conv)(F.relu(self.get_submodule(norm)(x)))
        return x


@pytest.mark.parametrize("word", ["bn", "norm"])
@pytest.mark.parametrize("bottleneck", [False, True])
@pytest.mark.parametrize("ordered", [False, True])
def test_normalisation_first_by_names_alone(word: str, bottleneck: bool, ordered: bool) -> None:
    def make(inside: int, out: int, stride: int) -> NormFirst:
        return NormFirst(inside, out, bottleneck=bottleneck, stride=stride, word=word)

    def stage(*blocks: NormFirst) -> nn.Module:
        return nn.ModuleDict({"blocks": nn.ModuleList(blocks)})

    model = nn.ModuleDict(
        {"stages": nn.ModuleList([stage(make(8, 8, 1)), stage(make(8, 12, 2), make(12, 12, 1))])}
    )
    randomise(model)
    model.double().eval()
    state = {name: t for name, t in model.state_dict().items() if "num_batches" not in name}
    if not ordered:  # as safetensors stores them
        state = {name: state[name] for name in sorted(state)}
    checkpoint = from_state_dict(state)
    layers = apply_facts(discover(checkpoint), checkpoint).layers
    blocks = find_blocks(layers, tensors=checkpoint.tensors)
    assert [block.name for block in blocks] == [f"stages.{i}.blocks.{j}" for i, j in ((0, 0), (1, 0), (1, 1))]
    by_name = {layer.name: layer for layer in layers}
    for block in blocks:
        assert block.after is None
        needed = block_tensors(block, by_name, checkpoint.tensors)
        branch = build_branch(block, by_name, lambda n: checkpoint.read(n).detach(), frozenset(needed), 4)
        module = model.get_submodule(block.name)
        assert isinstance(module, NormFirst)

        def inner(x: Tensor, module: NormFirst = module) -> Tensor:
            x = x[None]
            return module.branch(x if module.downsample is not None else module.after_first(x))[0]

        def whole(x: Tensor, module: NormFirst = module) -> Tensor:
            beside = x if module.downsample is None else module.get_submodule("downsample.conv")(x[None])[0]
            return inner(x, module) + beside

        check(branch, sample(branch.channels, 4, 4), inner, whole)


class Transformer(nn.Module):
    """Attention and an MLP, each in a skip, with no normalisation in front."""

    def __init__(self, gated: bool) -> None:
        super().__init__()
        self.attn = nets.Attention(8)
        self.mlp: nn.Module = (
            nets.GatedMLP(8) if gated else nn.Sequential(nn.Linear(8, 20), nn.GELU(), nn.Linear(20, 8))
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(x)
        return x + self.mlp(x)


@pytest.mark.parametrize("gated", [False, True])
def test_transformer_mlp(gated: bool) -> None:
    model = Transformer(gated)
    randomise(model)
    block, branch = block_of(model, "mlp")
    assert block.kind == ("gated-mlp" if gated else "mlp")
    check(branch, sample(8), model.mlp, lambda x: x + model.mlp(x))


def test_gate_and_up_in_one_layer() -> None:
    class Glu(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.both, self.down = nn.Linear(8, 24), nn.Linear(12, 8)

        def inner(self, x: Tensor) -> Tensor:
            gate, up = self.both(x).chunk(2, -1)
            return self.down(F.silu(gate) * up)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.inner(x)

    model = Glu()
    randomise(model)
    architecture = read_architecture(model.double())
    _, branch = block_of(model, architecture.blocks[0].name)
    check(branch, sample(8), model.inner, model)


def test_attention_at_a_single_token() -> None:
    model = Transformer(gated=False)
    randomise(model)
    block, branch = block_of(model, "attn")
    assert block.kind == "attention-vo"

    def inner(x: Tensor) -> Tensor:
        return model.attn(x[None, None])[0, 0]

    check(branch, sample(8), inner, lambda x: x + inner(x))


def test_grouped_query_attention_at_a_single_token() -> None:
    from samples.make_samples import DecoderBlock

    torch.manual_seed(0)
    attention = DecoderBlock().double().self_attn
    checkpoint = from_module(nn.ModuleDict({"self_attn": attention}))
    layers = apply_facts(discover(checkpoint), checkpoint).layers
    config = {"num_attention_heads": 4, "num_key_value_heads": 2}
    (block,) = find_blocks(layers, config=config, tensors=checkpoint.tensors)
    by_name = {layer.name: layer for layer in layers}
    needed = block_tensors(block, by_name, checkpoint.tensors)
    branch = build_branch(block, by_name, lambda n: checkpoint.read(n).detach(), frozenset(needed), 1)

    def inner(x: Tensor) -> Tensor:
        return attention(x[None, None])[0, 0]

    check(branch, sample(branch.channels), inner, lambda x: x + inner(x))


def test_the_gain_before_a_block_is_folded_in() -> None:
    model = nets.LlamaBlock()
    randomise(model)
    block, branch = block_of(model, "mlp")
    assert any("post_attention_layernorm" in sentence for sentence in block.assumptions)
    gain = model.post_attention_layernorm.weight.detach()
    check(branch, sample(8), lambda x: model.mlp(gain * x), lambda x: x + model.mlp(gain * x))


def test_a_normalisation_inside_a_branch_has_its_own_jacobian() -> None:
    model = nets.ConvNeXtBlock()
    randomise(model)
    _, branch = block_of(model, "dwconv..pwconv2", 7)
    check(
        branch,
        sample(8, 7, 7),
        lambda x: model(x[None])[0] - x,
        lambda x: model(x[None])[0],
    )
