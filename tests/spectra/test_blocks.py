"""Spectra of blocks against dense matrices."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from specinspect.architecture import read_architecture
from specinspect.checkpoint import from_module, open_checkpoint
from specinspect.errors import LayerError
from specinspect.layers import apply_facts, discover, with_architecture
from specinspect.layers.blocks import Block, block_tensors, compose, discover_blocks
from specinspect.layers.model import Layer
from specinspect.maps.blocks import Branch, build_branch, jacobian, sample_inputs
from specinspect.report.blocks import block_to_dict
from specinspect.report.model import BlockResult
from specinspect.spectra.blocks import block_operations, measure_block
from specinspect.spectra.model import Spectrum
from specinspect.spectra.plan import Plan
from tests.architecture import nets
from tests.test_jacobians import Transformer, randomise

SAMPLES = Path(__file__).parents[2] / "samples"


class Found:
    """The blocks of a network, and what is needed to measure them."""

    def __init__(self, model: nn.Module) -> None:
        model.eval()
        architecture = read_architecture(model)
        self.checkpoint = with_architecture(from_module(model), architecture)
        facts = apply_facts(discover(self.checkpoint), self.checkpoint, architecture=architecture)
        self.layers: Mapping[str, Layer] = {layer.name: layer for layer in facts.layers}
        found = discover_blocks(facts.layers, architecture=architecture, tensors=self.checkpoint.tensors)
        self.blocks = {block.name: block for block in found.blocks}

    def read(self, name: str) -> Tensor:
        return self.checkpoint.read(name).detach()

    def available(self, block: Block) -> frozenset[str]:
        return frozenset(block_tensors(block, self.layers, self.checkpoint.tensors))

    def measure(self, block: Block | str, **more: Any) -> BlockResult:
        block = self.blocks[block] if isinstance(block, str) else block
        available = self.available(block)
        answer = measure_block(
            block, self.layers, self.read, available=available, plan=Plan("cpu"), keep_values=True, **more
        )
        return BlockResult.of(answer.spectra)

    def branch(self, name: str, grid: int = 1) -> Branch:
        block = self.blocks[name]
        return build_branch(block, self.layers, self.read, self.available(block), grid)


def assert_spectrum(found: Spectrum | None, matrix: Tensor, rank: int | None = None) -> None:
    assert found is not None
    truth = torch.linalg.svdvals(matrix).numpy()
    assert found.singular_values is not None
    assert found.count == len(truth)
    np.testing.assert_allclose(found.singular_values, truth, rtol=1e-6, atol=1e-7 * truth[0])
    if rank is None and truth[-1] > 1e-4 * truth[0]:
        assert found.condition_number == pytest.approx(truth[0] / truth[-1], rel=1e-5)
    if rank is not None:
        assert found.numerical_rank == rank
        assert found.condition_number_status == "infinite"
        assert found.pseudo_condition_number == pytest.approx(truth[0] / truth[rank - 1], rel=1e-5)


def constant(branch: Branch, seed: int = 0) -> Tensor:
    """An input that is the same at every pixel: one diagonal per channel is then exact."""
    vector = torch.randn(branch.channels, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return vector.reshape(1, -1, *(1,) * len(branch.grid)).repeat(1, 1, *branch.grid)


@pytest.mark.parametrize(
    ("kind", "expansion", "name", "grid"),
    [
        (nets.BasicBlock, 1, "layer1.0", 5),
        (nets.BasicBlock, 1, "layer1.1", 4),
        (nets.BasicBlock, 1, "layer2.0", 8),
        (nets.Bottleneck, 4, "layer1.0", 3),
        (nets.Bottleneck, 4, "layer1.1", 3),
        (nets.Bottleneck, 4, "layer2.0", 4),
    ],
)
def test_resnet_blocks_by_frequency(kind: type[nn.Module], expansion: int, name: str, grid: int) -> None:
    model = nets.ResNet(kind, expansion).double()
    randomise(model)
    found = Found(model)
    branch = found.branch(name, grid)
    assert name == "layer2.0" or branch.grid == (grid, grid)
    x = constant(branch)
    result = found.measure(name, grid=grid, inputs=x, rho=0.7, beta=1.3)
    j, a = jacobian(branch, x[0])
    assert_spectrum(result.chain, j)
    assert_spectrum(result.skip, 0.7 * a + 1.3 * j)
    for spectrum, matrix in ((result.chain, j), (result.skip, 0.7 * a + 1.3 * j)):
        assert spectrum is not None
        full = int(torch.linalg.matrix_rank(matrix)) == min(matrix.shape)
        assert spectrum.condition_number_status == ("resolved" if full else "infinite")
    assert result.norm == pytest.approx(float(torch.linalg.matrix_norm(j, 2)))


def test_a_wide_block_with_a_narrow_place() -> None:
    """Fewer than half of the channels in the middle: the skip map is solved on a subspace."""
    torch.manual_seed(0)

    class Narrow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(12, 4, 3, padding=1), nn.Conv2d(4, 12, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.b(F.relu(self.a(x)))

    found = Found(Narrow().double())
    (name,) = found.blocks
    branch = found.branch(name, 4)
    x = constant(branch, 1)
    result = found.measure(name, grid=4, inputs=x, beta=-0.4)
    j, a = jacobian(branch, x[0])
    rank = int(torch.linalg.matrix_rank(j))
    assert 0 < rank < 12 * 16
    assert_spectrum(result.chain, j, rank=rank)
    assert_spectrum(result.skip, a - 0.4 * j)


def test_grouped_and_normalised_convolutions() -> None:
    model = nets.ConvNeXtBlock().double()
    randomise(model)
    found = Found(model)
    branch = found.branch("dwconv..pwconv2", 7)
    x = constant(branch)
    result = found.measure("dwconv..pwconv2", grid=7, inputs=x)
    j, a = jacobian(branch, x[0])
    assert_spectrum(result.chain, j)
    assert_spectrum(result.skip, a + j)


@pytest.mark.parametrize("gated", [False, True])
def test_transformer_blocks(gated: bool) -> None:
    model = Transformer(gated).double()
    randomise(model)
    found = Found(model)
    for name in ("mlp", "attn"):
        result = found.measure(name, patterns=3, seed=5)
        branch = found.branch(name)
        inputs = sample_inputs(branch, name, 3, 5)
        assert result.chain is not None
        assert result.skip is not None
        spectra = [jacobian(branch, x) for x in inputs]
        tops = sorted(float(torch.linalg.matrix_norm(j, 2)) for j, _ in spectra)
        kappas = sorted(float(torch.linalg.cond(a + j)) for j, a in spectra)
        assert result.chain.sigma_max == pytest.approx(tops[1])
        assert result.skip.condition_number == pytest.approx(kappas[1], rel=1e-6)
        assert (result.chain.patterns is None) == (name == "attn")
        assert len(result.heads) == (2 if name == "attn" else 0)


def test_heads() -> None:
    model = Transformer(gated=False).double()
    randomise(model)
    found = Found(model)
    result = found.measure("attn")
    v, o = model.attn.qkv.weight[16:].detach(), model.attn.proj.weight.detach()
    assert_spectrum(result.chain, o @ v)
    for h, head in enumerate(result.heads):
        rows = slice(4 * h, 4 * h + 4)
        assert_spectrum(head, o[:, rows] @ v[rows], rank=4)


def test_the_same_seed_gives_the_same_numbers() -> None:
    model = nets.ResNet()
    randomise(model)
    found = Found(model)
    first, again, other = (found.measure("layer1.0", grid=4, seed=seed) for seed in (1, 1, 2))
    assert block_to_dict(first) == block_to_dict(again)
    assert block_to_dict(first) != block_to_dict(other)
    assert first.chain is not None
    assert first.chain.patterns is not None
    assert first.chain.patterns.n == 8
    assert first.chain.storage_floor is not None
    assert 1e-8 < first.chain.storage_floor < 1e-4  # float32 weights


def test_storage_floor_is_what_rounding_does() -> None:
    torch.manual_seed(0)
    model = nets.ResidualMLP(1, 64)
    exact = nn.Linear(64, 64).double()
    model.double().layers[0].load_state_dict(exact.state_dict())
    truth = Found(model).measure("layers.0", patterns=1)
    rounded = Found(model.bfloat16()).measure("layers.0", patterns=1)
    assert truth.chain is not None
    assert rounded.chain is not None
    assert truth.chain.storage_floor is not None
    assert rounded.chain.storage_floor is not None
    d = torch.linalg.matrix_norm((exact.weight - exact.weight.bfloat16().double()).detach(), 2)
    assert 0.3 * 0.5 * float(d) < rounded.chain.storage_floor < 1.3 * float(d)
    assert truth.chain.storage_floor < 1e-12


@pytest.mark.parametrize("tensor", ["layers.0.weight", "layers.0.bias"])
def test_nan(tensor: str) -> None:
    model = nets.ResidualMLP(1, 8)
    model.get_parameter(tensor).data.view(-1)[3] = float("nan")
    result = Found(model).measure("layers.0")
    for spectrum in (result.chain, result.skip):
        assert spectrum is not None
        assert spectrum.condition_number_status == "nonfinite_weights"
        assert spectrum.sigma_max is None
    assert "1 NaN" in result.notes[0]
    block_to_dict(result)


def test_a_branch_of_zeros_leaves_the_shortcut() -> None:
    model = nets.ResidualMLP(1, 8)
    model.get_parameter("layers.0.weight").data.zero_()
    result = Found(model).measure("layers.0", rho=2.0)
    assert result.chain is not None
    assert result.skip is not None
    assert (result.norm, result.chain.condition_number_status) == (0.0, "infinite")
    assert result.skip.sigma_max == 2.0
    assert result.skip.condition_number == pytest.approx(1.0)
    block_to_dict(result)


@pytest.mark.parametrize("size", [1e150, 1e-150, 1e-300])
def test_weights_of_extreme_size(size: float) -> None:
    model = nets.ResidualMLP(1, 8).double()
    model.get_parameter("layers.0.weight").data.mul_(size)
    result = Found(model).measure("layers.0")
    if size > 1:
        assert (result.chain, result.skip) == (None, None)
        assert "leave float64" in result.notes[0]
    else:
        assert result.skip is not None
        assert result.skip.condition_number == pytest.approx(1.0)
    block_to_dict(result)


def test_per_pixel_dense_and_by_iteration(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nets.ResNet().double()
    randomise(model)
    for parameter in model.get_submodule("layer1.0.bn2").parameters():
        parameter.data.mul_(0.3)
    found = Found(model)
    for name in ("layer1.0", "layer2.0"):
        dense = found.measure(name, grid=6, patterns=1, per_pixel=True)
        branch = found.branch(name, 6)
        j, a = jacobian(branch, sample_inputs(branch, name, 1, 0)[0])
        assert_spectrum(dense.chain, j)
        assert_spectrum(dense.skip, a + j)
        monkeypatch.setattr("specinspect.spectra.blocks.pixel.DENSE_COLUMNS", 1)
        iterated = found.measure(name, grid=6, patterns=1, per_pixel=True)
        monkeypatch.undo()
        for exact, other, matrix in ((dense.chain, iterated.chain, j), (dense.skip, iterated.skip, a + j)):
            assert exact is not None
            assert other is not None
            assert other.sigma_max == pytest.approx(exact.sigma_max, rel=1e-6)
            if other.condition_number_status == "infinite":  # what the ReLU leaves has a lower rank
                assert torch.linalg.matrix_rank(matrix) < min(matrix.shape)
                assert other.sigma_min == 0
            elif other.condition_number is None:
                assert other.condition_number_status == "below_computation_precision"
                assert "out of reach" in iterated.notes[0]
            else:
                assert other.condition_number == pytest.approx(exact.condition_number, rel=1e-2)


def test_a_large_block_gets_a_smaller_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("specinspect.spectra.blocks.cost.MOST_OPERATIONS", 1e6)
    result = Found(nets.ResNet()).measure("layer1.0", grid=16)
    assert result.grid == (3, 3)
    assert any("smaller than 16" in sentence for sentence in result.assumptions)


def test_where_the_kernels_forbid_a_smaller_grid_there_are_fewer_patterns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = Found(nets.ConvNeXtBlock())
    whole = found.measure("dwconv..pwconv2", grid=7, patterns=4)
    each = block_operations(whole.block, found.layers, 7, 1)
    monkeypatch.setattr("specinspect.spectra.blocks.cost.MOST_OPERATIONS", 2.5 * each)
    result = found.measure("dwconv..pwconv2", grid=16, patterns=4)
    assert result.grid == (7, 7)
    assert result.chain is not None
    assert result.chain.patterns is not None
    assert result.chain.patterns.n == 2
    assert "2 of 4 activation patterns, to bound the work" in result.assumptions


def test_inputs_of_the_wrong_shape() -> None:
    found = Found(nets.ResNet())
    with pytest.raises(LayerError, match="expected inputs of 8×4×4"):
        found.measure("layer1.0", grid=4, inputs=torch.zeros(1, 8, 4, 5))


class Digits(nn.Module):
    """The network of samples/digits_*.pt."""

    def __init__(self, *, residual: bool) -> None:
        super().__init__()
        self.residual = residual
        self.hidden = nn.ModuleList(nn.Linear(64, 64) for _ in range(8))
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.hidden:
            y = F.relu(layer(x))
            x = x + y if self.residual else y
        return self.head(x)


def test_the_chain_and_its_residual_twin() -> None:
    """Same widths, names and training: only the residual network has blocks, and its κ are small."""
    results: dict[str, list[BlockResult]] = {}
    for name, residual in (("digits_chain", False), ("digits_residual", True)):
        model = Digits(residual=residual)
        source = open_checkpoint(str(SAMPLES / f"{name}.pt"))
        model.load_state_dict({tensor: source.read(tensor).clone() for tensor in source.tensors})
        found = Found(model)
        assert list(found.blocks) == ([f"hidden.{i}" for i in range(8)] if residual else [])
        results[name] = [found.measure(block) for block in found.blocks]
        text = ":".join(f"hidden.{i}" for i in range(8))
        whole = found.measure(compose(text, tuple(found.layers.values())))
        assert whole.chain is not None
        assert whole.chain.condition_number is None  # ReLU removes rows: infinite
        results[name].append(whole)
    *blocks, _ = results["digits_residual"]
    for result in blocks:
        assert result.chain is not None
        assert result.skip is not None
        assert result.chain.condition_number_status == "infinite"
        assert result.skip.condition_number is not None
        assert result.skip.condition_number < 5
        assert result.chain.pseudo_condition_number is not None
        assert result.skip.condition_number < result.chain.pseudo_condition_number
    bound = prod(r.skip.condition_number for r in blocks if r.skip and r.skip.condition_number)
    (plain,) = results["digits_chain"]
    assert plain.chain is not None
    assert plain.chain.numerical_rank is not None
    assert plain.chain.numerical_rank < 32
    assert plain.chain.pseudo_condition_number is not None
    # MATH R26 bounds κ of all eight blocks together: still less than what is left of the chain.
    assert bound < plain.chain.pseudo_condition_number


def test_composed_layers_are_multiplied() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 9), nn.Linear(9, 5), nn.Linear(5, 4)).double()
    found = Found(model)
    result = found.measure(compose("0:1:2", tuple(found.layers.values())))
    a, b, c = (model.get_parameter(f"{i}.weight").detach() for i in range(3))
    product = c @ b @ a
    assert_spectrum(result.chain, product)
    assert_spectrum(result.skip, product + torch.eye(4, 6, dtype=torch.float64))
    assert result.block.shortcut.kind == "rectangular-identity"
    data = block_to_dict(result)
    assert data["layers"] == ["0", "1", "2"]
    assert data["shortcut"]["kind"] == "rectangular-identity"
    assert data["maps"]["chain"]["sigma_max"] == result.norm


def test_composed_convolutions_beside_a_pool() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.Conv2d(6, 3, 3, stride=2, padding=1, bias=False)
    ).double()
    found = Found(model)
    block = compose("0:1", tuple(found.layers.values()))
    assert block.shortcut.kind == "average-pool"
    result = found.measure(block, grid=6)
    branch = build_branch(block, found.layers, found.read, found.available(block), 6)
    j, a = jacobian(branch, torch.zeros(3, 6, 6, dtype=torch.float64))
    assert torch.allclose(torch.linalg.svdvals(a), torch.ones(27, dtype=torch.float64))  # MATH R33
    assert_spectrum(result.chain, j)
    assert_spectrum(result.skip, a + j)
