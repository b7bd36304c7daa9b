"""NaN, infinite and negative entries from bit patterns, against torch and numpy."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from specinspect.checkpoint import from_state_dict, open_checkpoint
from specinspect.checkpoint.entries import Counts, count_entries
from specinspect.errors import CheckpointError

EDGES = {
    torch.float64: torch.int64,
    torch.float32: torch.int32,
}
"""Dtype → integer of its size: too many patterns to try all."""
SMALL = {
    torch.float16: torch.int16,
    torch.bfloat16: torch.int16,
    torch.float8_e4m3fn: torch.int8,
    torch.float8_e5m2: torch.int8,
}


def expected(tensor: torch.Tensor) -> Counts:
    values = tensor.double()
    return Counts(int(values.isnan().sum()), int(values.isinf().sum()), int((values < 0).sum()))


def saved(tensor: torch.Tensor, path: Path) -> Counts:
    save_file({"x": tensor.contiguous()}, path)
    return count_entries(open_checkpoint(str(path)).tensors["x"], negative=True)


@pytest.mark.parametrize("dtype", list(SMALL), ids=str)
def test_every_pattern_of_the_small_formats(dtype: torch.dtype, tmp_path: Path) -> None:
    integer = SMALL[dtype]
    patterns = torch.arange(torch.iinfo(integer).min, torch.iinfo(integer).max + 1).to(integer).view(dtype)
    counts = saved(patterns, tmp_path / "x.safetensors")
    assert counts == expected(patterns)
    assert counts == count_entries(from_state_dict({"x": patterns}).tensors["x"], negative=True)
    # One by one: a count could come out right by two mistakes.
    for start in range(0, len(patterns), max(len(patterns) // 256, 1)):
        info = from_state_dict({"x": patterns[start : start + 1]}).tensors["x"]
        assert count_entries(info, negative=True) == expected(patterns[start : start + 1])


@pytest.mark.parametrize("dtype", list(EDGES), ids=str)
def test_the_patterns_around_every_edge(dtype: torch.dtype, tmp_path: Path) -> None:
    limits = torch.finfo(dtype)
    inf = torch.tensor(float("inf"), dtype=dtype).view(EDGES[dtype])
    values = [0.0, -0.0, limits.max, limits.min, limits.tiny, -limits.smallest_normal / 4, 1.0, -1.0]
    near = torch.stack([inf - 1, inf, inf + 1]).view(dtype)  # the largest number, infinity, a signalling NaN
    tensor = torch.cat(
        [torch.tensor(values, dtype=dtype), near, -near, torch.full((2,), torch.nan).to(dtype)]
    )
    assert saved(tensor, tmp_path / "x.safetensors") == expected(tensor) == Counts(4, 2, 5)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128], ids=str)
def test_a_complex_entry_is_what_either_part_is(dtype: torch.dtype, tmp_path: Path) -> None:
    parts = torch.tensor([0.0, -1.0, torch.nan, torch.inf, -torch.inf], dtype=torch.float64)
    pairs = torch.cartesian_prod(parts, parts)
    tensor = torch.view_as_complex(pairs).to(dtype)
    nan = int(pairs.isnan().any(1).sum())
    infinite = int((pairs.isinf().any(1) & ~pairs.isnan().any(1)).sum())
    wide = torch.ones(200_001, 2, dtype=dtype)
    wide[:25, 0] = tensor
    torch.save(
        {"x": tensor, "conj": tensor.conj(), "left": wide[:, 0], "right": wide[:, 1]}, tmp_path / "x.pt"
    )
    opened = open_checkpoint(str(tmp_path / "x.pt")).tensors
    counts = {name: count_entries(info) for name, info in opened.items()}
    assert counts == {name: Counts(*((0, 0) if name == "right" else (nan, infinite))) for name in opened}
    assert count_entries(from_state_dict({"x": tensor.conj()}).tensors["x"], negative=True) == counts["x"]


def test_more_than_one_piece(tmp_path: Path) -> None:
    tensor = torch.randn(700_001)
    tensor[[0, 262_143, 262_144, 700_000]] = torch.tensor([torch.nan, torch.inf, -torch.inf, torch.nan])
    assert saved(tensor, tmp_path / "x.safetensors") == expected(tensor)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compressed", [False, True])
def test_both_byte_orders_and_deflated_members(order: str, compressed: bool, tmp_path: Path) -> None:
    array = np.array([[1.0, np.nan, -2.0], [np.inf, 0.0, -np.inf]]).astype(f"{order}f4")
    path = tmp_path / "x.npz"
    (np.savez_compressed if compressed else np.savez)(path, x=array)
    assert count_entries(open_checkpoint(str(path)).tensors["x"], negative=True) == Counts(1, 2, 2)


def test_what_lies_between_the_entries_of_a_view_does_not_count(tmp_path: Path) -> None:
    whole = torch.ones(6, 4)
    whole[:, 1] = torch.nan
    whole[2, 3] = torch.inf
    views = {"even": whole[:, ::2], "odd": whole[:, 1::2], "all": whole.t(), "wide": whole[0, 1].expand(5, 7)}
    torch.save(views, tmp_path / "x.pt")
    opened = open_checkpoint(str(tmp_path / "x.pt")).tensors
    for name, view in views.items():
        assert opened[name].strides != (1,)
        assert count_entries(opened[name], negative=True) == expected(view), name


def test_a_file_that_became_shorter_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"x": torch.ones(1000)}, path)
    info = open_checkpoint(str(path)).tensors["x"]
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(CheckpointError):
        count_entries(info)


def test_no_torch_is_loaded_for_what_lies_in_a_file(tmp_path: Path) -> None:
    import subprocess

    path = tmp_path / "x.safetensors"
    save_file({"x": torch.full((3,), torch.nan).bfloat16()}, path)
    script = (
        "import sys; from specinspect.checkpoint import open_checkpoint; "
        "from specinspect.checkpoint.entries import count_entries; "
        "assert count_entries(open_checkpoint(sys.argv[1]).tensors['x']).nan == 3; "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script, str(path)], check=True)
