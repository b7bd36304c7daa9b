"""--conv-operator, --conv-pattern and --inputs reach blocks: against torch's own layers and Jacobians."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from scipy.sparse.linalg import LinearOperator, svds
from torch import nn

import specinspect
from specinspect.errors import SettingsError
from specinspect.report.model import BlockResult

GRID = 6
MODULE = """
import torch
from torch import nn

class Mlp(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(4)
        self.fc1, self.fc2 = nn.Linear(4, 6), nn.Linear(6, 4)

    def forward(self, x):
        return x + self.fc2(torch.relu(self.fc1(self.norm(x))))

class Basic(nn.Module):
    def __init__(self, inn=3, out=3, stride=1, padding=1):
        super().__init__()
        self.conv1 = nn.Conv2d(inn, out, 3, stride=stride, padding=padding)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1)
        self.down = nn.Conv2d(inn, out, 1, stride=stride) if inn != out or stride > 1 else nn.Identity()

    def branch(self, x):
        return self.conv2(torch.relu(self.conv1(x)))

    def forward(self, x):
        return self.branch(x) + self.down(x)
"""


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the module that MODULE is."""
    import importlib
    import sys

    (tmp_path / "block_nets.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("block_nets", None)
    return importlib.import_module("block_nets")


def randomised(module: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for tensor in module.parameters():
            tensor.copy_(torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype) / 2)
    return module.double().eval()


def jacobian(function: Any, x: torch.Tensor) -> NDArray[np.float64]:
    j = torch.autograd.functional.jacobian(lambda v: function(v[None])[0].flatten(), x)
    return j.reshape(j.shape[0], -1).numpy()


def only_block(report: specinspect.Report) -> BlockResult:
    assert len(report.blocks) == 1
    return report.blocks[0]


def assert_values(found: Any, matrix: NDArray[np.float64]) -> None:
    truth = np.linalg.svd(matrix, compute_uv=False)
    assert found is not None
    assert found.singular_values is not None
    assert np.asarray(found.singular_values) == pytest.approx(truth, rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("shape", [(3, 3, 1), (2, 4, 2)], ids=["identity", "strided"])
def test_padded_blocks_with_a_diagonal_per_pixel(
    nets: Any, shape: tuple[int, int, int], tmp_path: Path
) -> None:
    net = randomised(nets.Basic(*shape))
    torch.save(net.state_dict(), tmp_path / "net.pt")
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, shape[0], GRID, GRID, generator=generator, dtype=torch.float64)
    np.save(tmp_path / "x.npy", x.numpy())
    common: dict[str, Any] = {"grid": GRID, "conv_operator": "padded", "spectra": True, "activation": "auto"}
    arguments = f'{{"inn": {shape[0]}, "out": {shape[1]}, "stride": {shape[2]}}}'
    report = specinspect.inspect(
        "net.pt", model="block_nets:Basic", model_args=arguments, inputs="x.npy", rho=0.7, **common
    )
    block = only_block(report)
    # One diagonal per channel, that of the middle pixel.
    with torch.no_grad():
        z = net.conv1(x)[0]  # type: ignore[operator]
    middle = (z[:, z.shape[1] // 2, z.shape[2] // 2] > 0).double()
    mask = middle[:, None, None].expand_as(z)
    j = jacobian(lambda v: net.conv2(mask * net.conv1(v)), x[0])  # type: ignore[operator]
    a = jacobian(net.down, x[0])
    assert_values(block.chain, j)
    assert_values(block.skip, 0.7 * a + j)
    assert block.chain is not None
    assert "zero-padded" in block.chain.method
    # The channels that the activation zeroes leave J a lower rank, by construction.
    passing, values = int(mask.sum()), np.linalg.svd(j, compute_uv=False)
    assert passing < min(j.shape)
    assert block.chain.condition_number_status == "infinite"
    assert block.chain.numerical_rank == np.linalg.matrix_rank(j) == passing
    assert block.chain.pseudo_condition_number == pytest.approx(values[0] / values[passing - 1])
    assert f"{GRID}×{GRID} grid with zeros around it: the sides of the inputs given" in block.assumptions
    assert not any("standard normal" in sentence for sentence in block.assumptions)


@pytest.mark.parametrize("shape", [(3, 3, 1), (2, 4, 2)], ids=["identity", "strided"])
def test_with_a_diagonal_per_pixel_it_is_the_jacobian(nets: Any, shape: tuple[int, int, int]) -> None:
    from specinspect.engine import block_jobs, open_source
    from specinspect.settings import Settings
    from specinspect.spectra.blocks import measure_block
    from specinspect.spectra.plan import Plan

    net = randomised(nets.Basic(*shape))
    settings = Settings(grid=GRID, conv_operator="padded", conv_pattern="pixel", spectra=True)
    jobs, _ = block_jobs(open_source(net, settings), Plan("cpu"))
    x = torch.randn(1, shape[0], GRID, GRID, dtype=torch.float64)
    job = jobs[0]
    found = measure_block(
        job.block, job.layers, job.read, available=frozenset(job.tensors), plan=job.plan, grid=GRID,
        keep_values=True, per_pixel=True, zeros=True, inputs=x,
    ).spectra  # fmt: skip
    assert_values(found.chain, jacobian(net.branch, x[0]))
    assert_values(found.skip, jacobian(net, x[0]))
    report = specinspect.inspect(net, grid=GRID, conv_operator="padded", conv_pattern="pixel", patterns=2)
    chain = only_block(report).chain
    assert chain is not None
    assert "zero-padded, a diagonal per pixel" in chain.method


def test_a_block_that_shrinks_its_images_is_measured_on_a_periodic_grid_and_says_so(nets: Any) -> None:
    net = randomised(nets.Basic(2, 4, 2, 0))
    found = only_block(specinspect.inspect(net, grid=8, conv_operator="padded", patterns=1))
    assert (
        "measured on a periodic grid: with its own zeros it does not keep the grid's size"
        in found.assumptions
    )
    assert found.chain is not None
    assert "zero-padded" not in found.chain.method


def mlp_truth(net: Any, entering: torch.Tensor) -> NDArray[np.float64]:
    with torch.no_grad():
        d = (net.fc1(entering) > 0).double()
        return (net.fc2.weight * d @ net.fc1.weight * net.norm.weight).numpy()


def test_inputs_of_the_first_layer(nets: Any, tmp_path: Path) -> None:
    net = randomised(nets.Mlp())
    torch.save(net.state_dict(), tmp_path / "net.pt")
    x = torch.randn(1, 4, dtype=torch.float64)
    save_file({"fc1": x}, tmp_path / "x.safetensors")
    common: dict[str, Any] = {"spectra": True, "compose": ("fc1:fc2",), "activation": "relu"}
    report = specinspect.inspect("net.pt", inputs="x.safetensors", **common)
    block = next(found for found in report.blocks if found.block.kind == "composed")
    truth = jacobian(lambda v: torch.relu(net.fc2(torch.relu(net.fc1(v)))), x[0])  # type: ignore[operator]
    assert_values(block.chain, truth)
    assert not any("standard normal" in sentence for sentence in block.assumptions)


def test_inputs_through_the_network(nets: Any, tmp_path: Path) -> None:
    net = randomised(nets.Mlp())
    torch.save(net.state_dict(), tmp_path / "net.pt")
    x = torch.randn(1, 4, dtype=torch.float64)
    np.save(tmp_path / "x.npy", x.numpy())
    report = specinspect.inspect("net.pt", model="block_nets:Mlp", inputs="x.npy", spectra=True)
    with torch.no_grad():
        entering = net.norm(x)[0]  # type: ignore[operator]
    assert_values(only_block(report).chain, mlp_truth(net, entering))


def test_inputs_of_other_sides_than_the_grid_are_the_grid(nets: Any, tmp_path: Path) -> None:
    net = randomised(nets.Basic())
    torch.save(net.state_dict(), tmp_path / "net.pt")
    x = torch.randn(1, 3, 7, 5, dtype=torch.float64)
    np.save(tmp_path / "x.npy", x.numpy())
    common: dict[str, Any] = {"model": "block_nets:Basic", "inputs": "x.npy", "grid": GRID, "spectra": True}
    block = only_block(specinspect.inspect("net.pt", **common))
    assert block.grid == (7, 5)
    assert "periodic 7×5 grid: the sides of the inputs given" in block.assumptions
    assert not any("standard normal" in sentence for sentence in block.assumptions)
    assert block.chain is not None
    assert block.chain.count == 3 * 7 * 5
    padded = only_block(specinspect.inspect("net.pt", **common, conv_operator="padded"))
    with torch.no_grad():
        z = net.conv1(x)[0]  # type: ignore[operator]
    mask = (z[:, 3, 2] > 0).double()[:, None, None].expand_as(z)  # the middle pixel's
    assert_values(padded.chain, jacobian(lambda v: net.conv2(mask * net.conv1(v)), x[0]))  # type: ignore[operator]


def test_inputs_that_no_periodic_grid_can_have_are_not_taken(nets: Any, tmp_path: Path) -> None:
    net = randomised(nets.Basic(2, 4, 2))
    torch.save(net.state_dict(), tmp_path / "net.pt")
    np.save(tmp_path / "x.npy", np.ones((1, 2, 7, 5)))
    arguments = '{"inn": 2, "out": 4, "stride": 2}'
    report = specinspect.inspect(
        "net.pt", model="block_nets:Basic", model_args=arguments, inputs="x.npy", grid=GRID
    )
    block = only_block(report)
    assert "the inputs given have sides 7×5, not those of its grid" in block.assumptions
    assert "activations sampled at standard normal inputs of the block" in block.assumptions


def test_inputs_too_large_to_be_written_out_change_no_grid_unless_every_pixel_is_asked_for(
    nets: Any, tmp_path: Path
) -> None:
    net = randomised(nets.Basic())
    torch.save(net.state_dict(), tmp_path / "net.pt")
    x = torch.randn(1, 3, 37, 38, dtype=torch.float64)  # 4218 columns
    np.save(tmp_path / "x.npy", x.numpy())
    common: dict[str, Any] = {"model": "block_nets:Basic", "inputs": "x.npy", "conv_operator": "padded"}
    common |= {"layers": ("conv*",), "grid": GRID}
    block = only_block(specinspect.inspect("net.pt", **common))
    assert block.grid == (GRID, GRID)
    assert "the inputs given have sides 37×38, not those of its grid" in block.assumptions
    block = only_block(specinspect.inspect("net.pt", **common, conv_pattern="pixel"))
    assert block.grid == (37, 38)
    assert block.chain is not None
    assert "Lanczos" in block.chain.method
    # What the ReLU zeroes between the two leaves J a lower rank, by construction.
    assert (block.chain.sigma_min, block.chain.condition_number_status) == (0.0, "infinite")
    with torch.no_grad():
        passing = int((net.conv1(x) > 0).sum())  # type: ignore[operator]
    assert 0 < passing < x.numel()

    def product(v: NDArray[np.float64], *, transposed: bool) -> NDArray[np.float64]:
        start = x.clone().requires_grad_()
        out = net.branch(start)  # type: ignore[operator]
        other = torch.ones_like(out).requires_grad_()
        (pulled,) = torch.autograd.grad(out, start, other, create_graph=not transposed)
        if transposed:
            other = torch.from_numpy(np.ascontiguousarray(v)).reshape(out.shape)
            (found,) = torch.autograd.grad(net.branch(start), start, other)  # type: ignore[operator]
        else:
            direction = torch.from_numpy(np.ascontiguousarray(v)).reshape(x.shape)
            (found,) = torch.autograd.grad(pulled, other, direction)
        return np.asarray(found.flatten())

    n = x.numel()
    forward, backward = partial(product, transposed=False), partial(product, transposed=True)
    j = LinearOperator((n, n), matvec=forward, rmatvec=backward, dtype=np.float64)
    top = float(svds(j, k=1, return_singular_vectors=False, random_state=0)[0])
    assert block.chain.sigma_max == pytest.approx(top, rel=1e-6)


def test_inputs_that_do_not_fit(nets: Any, tmp_path: Path) -> None:
    torch.save(randomised(nets.Mlp()).state_dict(), tmp_path / "net.pt")
    for bad in (torch.randn(2, 5), torch.full((2, 4), torch.nan), torch.zeros(0, 4)):
        save_file({"fc1": bad}, tmp_path / "x.safetensors")
        with pytest.raises(SettingsError, match="--inputs"):
            specinspect.inspect("net.pt", inputs="x.safetensors", compose=("fc1:fc2",), activation="relu")
