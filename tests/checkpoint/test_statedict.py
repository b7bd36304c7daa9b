"""Which of the nested dicts are the weights, and what becomes of the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from specinspect.checkpoint import Checkpoint, from_state_dict, open_checkpoint
from specinspect.errors import AmbiguousKeyError, CheckpointError


def weights(seed: int = 0, layers: int = 2) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {f"l{i}.weight": torch.randn(3, 2, generator=generator) for i in range(layers)}


def opened(root: Any, tmp_path: Path, key: str | None = None) -> Checkpoint:
    torch.save(root, tmp_path / "a.ckpt")
    return open_checkpoint(tmp_path / "a.ckpt", key)


def trained() -> tuple[nn.Module, torch.optim.Optimizer]:
    net = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    optimizer = torch.optim.AdamW(net.parameters())
    net(torch.randn(4, 2)).sum().backward()
    optimizer.step()
    return net, optimizer


@pytest.mark.parametrize(
    "name", ["state_dict", "model", "model_state_dict", "module", "net", "params", "generator"]
)
def test_usual_names(name: str, tmp_path: Path) -> None:
    checkpoint = opened({"epoch": 3, name: weights(), "args": {"lr": 0.1}}, tmp_path)
    assert list(checkpoint.tensors) == ["l0.weight", "l1.weight"]
    assert checkpoint.key == name
    assert any(repr(name) in note for note in checkpoint.assumptions)


def test_optimizer_is_not_layers(tmp_path: Path) -> None:
    net, optimizer = trained()
    root = {
        "model": net.state_dict(),
        "optimizer": optimizer.state_dict(),
        "history": [{"loss": torch.ones(2)}],
    }
    checkpoint = opened(root, tmp_path)
    assert set(checkpoint.tensors) == set(net.state_dict())
    assert [(item.name, item.reason) for item in checkpoint.skipped] == [
        ("optimizer", "training state, not weights: 12 tensors"),
        ("history", "training state, not weights: 1 tensor"),
    ]


def test_optimizer_alone(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="optimizer state alone"):
        opened(trained()[1].state_dict(), tmp_path)


def test_optimizer_under_another_name(tmp_path: Path) -> None:
    checkpoint = opened({"g": weights(), "adam": trained()[1].state_dict()}, tmp_path)
    assert checkpoint.key == "g"


def test_lightning(tmp_path: Path) -> None:
    root = {
        "epoch": 1,
        "pytorch-lightning_version": "2.0",
        "state_dict": {f"model.{name}": value for name, value in weights().items()},
        "optimizer_states": [trained()[1].state_dict()],
        "lr_schedulers": [{"last": torch.ones(1)}],
        "callbacks": {"ModelCheckpoint": {"best": torch.tensor(0.1)}},
        "hyper_parameters": {"lr": 1},
    }
    checkpoint = opened(root, tmp_path)
    assert list(checkpoint.tensors) == ["model.l0.weight", "model.l1.weight"]
    assert {item.name for item in checkpoint.skipped} == {"optimizer_states", "lr_schedulers", "callbacks"}


@pytest.mark.parametrize("average", ["model_ema", "ema", "state_dict_ema", "ema_state_dict"])
def test_averages_come_second(average: str, tmp_path: Path) -> None:
    checkpoint = opened({average: weights(1), "model": weights(0)}, tmp_path)
    assert checkpoint.key == "model"
    assert checkpoint.skipped[0].name == average
    assert "--key" in checkpoint.skipped[0].reason
    assert torch.equal(
        opened({average: weights(1), "model": weights(0)}, tmp_path, average).read("l0.weight"),
        weights(1)["l0.weight"],
    )
    assert opened({average: weights(1)}, tmp_path).key == average


def test_ambiguous(tmp_path: Path) -> None:
    root = {"generator": weights(0, 2), "discriminator": weights(1, 3), "step": 7}
    with pytest.raises(
        AmbiguousKeyError, match=r"'generator' \(2 tensors\), 'discriminator' \(3 tensors\)"
    ) as caught:
        opened(root, tmp_path)
    assert "--key" in caught.value.hint
    assert len(opened(root, tmp_path, "discriminator").tensors) == 3
    whole = opened({**root, "optimizer": trained()[1].state_dict()}, tmp_path, ".")
    assert list(whole.tensors)[:3] == [
        "generator.l0.weight",
        "generator.l1.weight",
        "discriminator.l0.weight",
    ]
    assert [item.name for item in whole.skipped] == ["optimizer"]


def test_a_model_in_parts(tmp_path: Path) -> None:
    root = {"model": {"encoder": weights(), "decoder": weights(1)}, "step": 1}
    with pytest.raises(AmbiguousKeyError, match=r"'model.encoder'"):
        opened(root, tmp_path)
    assert next(iter(opened(root, tmp_path, "model").tensors)) == "encoder.l0.weight"
    assert opened(root, tmp_path, "model.decoder").key == "model.decoder"


@pytest.mark.parametrize("key", ["nothing", "model.l0.weight", "step", ""])
def test_unknown_key(key: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="'model'"):
        opened({"model": weights(), "step": 1}, tmp_path, key)


def test_keys_with_dots(tmp_path: Path) -> None:
    root = {"a.b": weights(0), "a": {"c": weights(1)}}
    assert opened(root, tmp_path, "a.b").key == "a.b"
    assert opened(root, tmp_path, "a.c").key == "a.c"


def test_flat_with_a_nested_average(tmp_path: Path) -> None:
    checkpoint = opened({**weights(), "ema": weights(1), "_metadata": {"v": 1}, "steps": 3}, tmp_path)
    assert checkpoint.key is None
    assert list(checkpoint.tensors) == ["l0.weight", "l1.weight"]
    assert [item.name for item in checkpoint.skipped] == ["ema"]


def test_a_stray_tensor_beside_the_model(tmp_path: Path) -> None:
    checkpoint = opened({"best": torch.tensor(0.3), "model": weights()}, tmp_path)
    assert checkpoint.key == "model"
    assert [item.name for item in checkpoint.skipped] == ["best"]


def test_extra_state_is_ignored(tmp_path: Path) -> None:
    checkpoint = opened(
        {**weights(), "l0._extra_state": {"scale": torch.ones(1)}, "l1._extra_state": 3}, tmp_path
    )
    assert list(checkpoint.tensors) == ["l0.weight", "l1.weight"]
    assert [item.name for item in checkpoint.skipped] == ["l0._extra_state"]


def test_a_single_tensor_and_none(tmp_path: Path) -> None:
    assert list(opened(torch.ones(2, 2), tmp_path).tensors) == ["tensor"]
    for root in ({}, {"a": 1}, [1, 2], None, "text"):
        with pytest.raises(CheckpointError, match="expected tensors"):
            opened(root, tmp_path)


def test_cyclic_containers() -> None:
    root: dict[str, Any] = {"model": weights()}
    root["self"] = root
    root["list"] = [root, root]
    assert from_state_dict(root).key == "model"
    assert len(from_state_dict(root, key=".").tensors) == 2


@pytest.mark.parametrize(
    ("prefix", "kept"),
    [
        ("module.", ""),
        ("_orig_mod.", ""),
        ("module._orig_mod.", ""),
        ("_orig_mod.module.", ""),
        ("model.", "model."),
    ],
)
def test_wrapper_prefixes(prefix: str, kept: str) -> None:
    checkpoint = from_state_dict({prefix + name: value for name, value in weights().items()})
    assert list(checkpoint.tensors) == [f"{kept}l0.weight", f"{kept}l1.weight"]
    assert bool(checkpoint.assumptions) == (not kept)


def test_prefixes_in_the_middle() -> None:
    names = ["blocks.0._orig_mod.w", "blocks.1._fsdp_wrapped_module.w", "module.w"]
    checkpoint = from_state_dict({name: torch.ones(1) for name in names})
    assert list(checkpoint.tensors) == ["blocks.0.w", "blocks.1.w", "module.w"]
    assert all(info.name == name for name, info in checkpoint.tensors.items())


def test_a_collision_keeps_the_names() -> None:
    checkpoint = from_state_dict({"a._orig_mod.w": torch.ones(1), "a.w": torch.ones(2)})
    assert list(checkpoint.tensors) == ["a._orig_mod.w", "a.w"]
    assert "kept" in checkpoint.assumptions[0]


def test_names_sort_naturally() -> None:
    from specinspect.checkpoint.names import natural_key

    names = ["a.10.w", "a.2.w", "a.w", "b", "1", "10", "2", "a.2.b", "", "a.02.c"]
    assert sorted(names, key=natural_key) == [
        "",
        "1",
        "2",
        "10",
        "a.2.b",
        "a.02.c",
        "a.2.w",
        "a.10.w",
        "a.w",
        "b",
    ]
