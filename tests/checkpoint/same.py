"""Bitwise comparison with what the reference loaders return."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from specinspect.checkpoint import Checkpoint


def bits(tensor: torch.Tensor) -> bytes:
    return (
        tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        if tensor.numel()
        else b""
    )


def assert_same(checkpoint: Checkpoint, expected: Mapping[str, torch.Tensor]) -> None:
    assert set(checkpoint.tensors) == set(expected)
    for name, truth in expected.items():
        info, got = checkpoint.tensors[name], checkpoint.read(name)
        assert info.name == name
        assert got.dtype == truth.dtype, name
        assert info.shape == tuple(got.shape) == tuple(truth.shape), name
        assert bits(got) == bits(truth), name
