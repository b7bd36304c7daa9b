"""The order of tensors that are spread over shards."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

from specinspect.checkpoint import open_checkpoint


def test_a_block_that_is_cut_in_two_stays_together(tmp_path: Path) -> None:
    one = {"layers.0.a": torch.ones(1), "layers.10.a": torch.ones(1), "layers.2.a": torch.ones(1)}
    two = {"embed": torch.ones(1), "layers.2.b": torch.ones(1), "layers.3.a": torch.ones(1)}
    save_file(one, tmp_path / "model-00001-of-00002.safetensors")
    save_file(two, tmp_path / "model-00002-of-00002.safetensors")
    assert list(open_checkpoint(tmp_path).tensors) == [
        "embed", "layers.0.a", "layers.2.a", "layers.2.b", "layers.3.a", "layers.10.a",
    ]  # fmt: skip
