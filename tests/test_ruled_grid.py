"""A rule's grid is that of its layer: in all maps, in blocks, bounds, the cache, and from a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional

import specinspect
from specinspect.config import load_config
from specinspect.errors import ResourceError
from specinspect.layers.rules import Rule
from specinspect.report.model import LayerResult

Array = NDArray[np.float64]


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def kernels(*names: str) -> dict[str, torch.Tensor]:
    return {f"{name}.weight": torch.randn(3, 3, 3, 3, dtype=torch.float64) for name in names}


def inspect(source: object, **settings: object) -> specinspect.Report:
    return specinspect.inspect(source, spectra=True, device="cpu", **settings)  # type: ignore[arg-type]


def operator(kernel: torch.Tensor, side: int, *, zeros: bool = False, stride: int = 1) -> Array:
    """Return torch's own convolution, periodic or between zeros, as a matrix."""
    images = torch.eye(3 * side * side, dtype=torch.float64).reshape(-1, 3, side, side)
    images = functional.pad(images, (1, 1, 1, 1), mode="constant" if zeros else "circular")
    return functional.conv2d(images, kernel, stride=stride).flatten(1).T.numpy()


def assert_values(result: Any, name: str, matrix: Array) -> None:
    truth = np.linalg.svd(matrix, compute_uv=False)
    found = result.maps[name].singular_values
    assert found is not None
    assert found.shape == truth.shape
    assert np.abs(found - truth).max() <= 1e-7 * truth[0]


def of(report: specinspect.Report, name: str) -> LayerResult:
    return next(result for result in report if result.layer.name == name)


@pytest.mark.parametrize("zeros", [False, True])
def test_all_maps_of_a_layer(zeros: bool) -> None:
    state = kernels("a", "b")
    how = "padded" if zeros else "circular"
    rules = (Rule("a", grid=5, activation="abs"),)
    report = inspect(state, rules=rules, grid=4, conv_operator=how, patterns=1)
    for name, side in (("a", 5), ("b", 4)):
        result, dense = of(report, name), operator(state[f"{name}.weight"], side, zeros=zeros)
        assert result.grid == (side, side)
        assert_values(result, "weight", dense)
        assert_values(result, "skip", np.eye(len(dense)) + dense)
    # |z| has slopes ±1, which change no singular value.
    assert_values(of(report, "a"), "chain", operator(state["a.weight"], 5, zeros=zeros))
    assert "periodic 5×5 grid, as a rule says" in of(report, "a").assumptions or zeros


def test_a_grid_that_the_stride_does_not_divide_is_widened() -> None:
    state = kernels("a")
    result = inspect(state, rules=(Rule("a", grid=5, stride=2),)).layers[0]
    assert result.grid == (6, 6)
    # The phase of the samples does not matter to W.
    assert_values(result, "weight", operator(state["a.weight"], 6, stride=2))
    assert any("instead of side 5" in sentence for sentence in result.assumptions)


def test_blocks_take_the_grid_of_their_first_layer_that_has_one() -> None:
    state = kernels("a", "b")
    rules = (Rule("a", grid=5, activation="identity"), Rule("b", grid=7, activation="identity"))
    block = inspect(state, rules=rules, compose=["a:b"]).blocks[-1]
    assert block.grid == (5, 5)
    assert "periodic 5×5 grid, as a rule says" in block.assumptions
    narrow = (Rule("a", grid=2, activation="identity"), rules[1])
    (told,) = (s for s in inspect(state, rules=narrow, compose=["a:b"]).blocks[-1].assumptions if "grid" in s)
    assert told == "periodic 3×3 grid instead of side 2, to hold the kernels and divide by the strides"
    product = operator(state["b.weight"], 5) @ operator(state["a.weight"], 5)
    assert block.chain is not None
    assert block.skip is not None
    for found, matrix in ((block.chain, product), (block.skip, np.eye(75) + product)):
        truth = np.linalg.svd(matrix, compute_uv=False)
        assert found.singular_values is not None
        assert np.abs(found.singular_values - truth).max() <= 1e-7 * truth[0]


def test_bounds_are_of_the_same_operator() -> None:
    state = kernels("a")
    result = inspect(state, rules=(Rule("a", grid=5, activation="identity"),), bounds=True).layers[0]
    assert result.tau is not None
    dense = operator(state["a.weight"], 5)
    ends = np.linalg.eigvalsh(dense + dense.T)[[0, -1]]
    assert [result.tau.min, result.tau.max] == pytest.approx(ends, rel=1e-9)
    assert result.bounds
    assert not [check for check in result.bounds if check.verdict == "violated"]


def test_the_cache_keeps_the_grids_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECINSPECT_CACHE_DIR", str(tmp_path))
    state = kernels("a")
    for side in (4, 5, 4):
        result = inspect(state, rules=(Rule("a", grid=side),), cache=True).layers[0]
        assert_values(result, "weight", operator(state["a.weight"], side))


def test_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "specinspect.toml"
    path.write_text('grid = 4\n[rules."a"]\ngrid = 5\n')
    config = load_config({"grid": int}, path)
    state = kernels("a", "b")
    report = inspect(state, **config.settings, rules=config.rules)
    assert [result.grid for result in report] == [(5, 5), (4, 4)]
    assert_values(of(report, "a"), "weight", operator(state["a.weight"], 5))


def test_a_grid_that_is_too_fine_is_refused() -> None:
    with pytest.raises(ResourceError, match="choose a smaller grid"):
        inspect(kernels("a"), rules=(Rule("a", grid=2000),))
