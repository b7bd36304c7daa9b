"""Directories and indexes: which files are the weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from specinspect.checkpoint import open_checkpoint
from specinspect.errors import CheckpointError
from tests.checkpoint.same import assert_same

STATE = {"b.weight": torch.randn(3, 2), "b.bias": torch.randn(3), "a.weight": torch.randn(4, 3)}


def sharded(folder: Path, end: str = "safetensors", *, index: bool = True) -> Path:
    """Write STATE as two shards; return the index's path."""
    stem = "model" if end == "safetensors" else "pytorch_model"
    names = list(STATE)
    parts = {f"{stem}-00001-of-00002.{end}": names[:2], f"{stem}-00002-of-00002.{end}": names[2:]}
    for file, inside in parts.items():
        tensors = {name: STATE[name] for name in inside}
        if end == "safetensors":
            safetensors.torch.save_file(tensors, folder / file)
        else:
            torch.save(tensors, folder / file)
    path = folder / f"{stem}.{end}.index.json"
    if index:
        weight_map = {name: file for file, inside in parts.items() for name in inside}
        path.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
    return path


def rewrite(path: Path, weight_map: Any) -> Path:
    path.write_text(json.dumps({"weight_map": weight_map}))
    return path


@pytest.mark.parametrize("end", ["safetensors", "bin"])
@pytest.mark.parametrize("index", [True, False])
def test_shards(end: str, index: bool, tmp_path: Path) -> None:
    path = sharded(tmp_path, end, index=index)
    (tmp_path / "config.json").write_text('{"hidden_size": 3}')
    for name in ("optimizer.pt", "scheduler.pt", "training_args.bin", "rng_state_0.pth"):
        torch.save({"x": torch.ones(1)}, tmp_path / name)
    for source in [tmp_path, path] if index else [tmp_path]:
        checkpoint = open_checkpoint(source)
        assert_same(checkpoint, STATE)
        assert checkpoint.format == ("safetensors" if end == "safetensors" else "torch-zip")
        assert len(checkpoint.files) == 2
        assert checkpoint.config == {"hidden_size": 3}
        assert checkpoint.bytes == sum(Path(file).stat().st_size for file in checkpoint.files)
        assert checkpoint.assumptions == ()
        assert checkpoint.path == str(source)


def test_working_directory_may_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sharded(tmp_path)
    monkeypatch.chdir(tmp_path)
    for source in (".", "model.safetensors.index.json", "model-00001-of-00002.safetensors"):
        checkpoint = open_checkpoint(source)
        monkeypatch.chdir("/")
        checkpoint.read("b.weight")
        monkeypatch.chdir(tmp_path)


def test_safetensors_before_bin(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "pytorch_model.bin")
    safetensors.torch.save_file(STATE, tmp_path / "model.safetensors")
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.format == "safetensors"
    assert "'pytorch_model.bin'" in checkpoint.assumptions[0]


def test_adapter(tmp_path: Path) -> None:
    safetensors.torch.save_file(STATE, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text('{"r": 8}')
    checkpoint = open_checkpoint(tmp_path / "adapter_model.safetensors")
    assert checkpoint.config == {"adapter_config": {"r": 8}}
    assert open_checkpoint(tmp_path).tensors.keys() == STATE.keys()


def test_damaged_config_is_a_remark(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "whatever.pth")
    (tmp_path / "config.json").write_text("{nonsense\x1b")
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.config == {}
    assert "config.json was not used" in checkpoint.assumptions[0]
    assert checkpoint.assumptions[0].isprintable()


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([], "found nothing"),
        (["readme.md", "b\n.txt"], "'readme.md'"),
        (["optimizer.pt"], "'optimizer.pt'"),
        (["saved_model.pb"], "TensorFlow"),
        (["one.pt", "two.pt"], "'one.pt', 'two.pt'"),
        (["model-00001-of-00003.safetensors"], "'model-00002-of-00003.safetensors'"),
    ],
)
def test_directories_without_one_model(names: list[str], words: str, tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(CheckpointError, match=words) as caught:
        open_checkpoint(tmp_path)
    assert str(caught.value).isprintable()


def test_weights_in_a_subdirectory(tmp_path: Path) -> None:
    (tmp_path / "unet").mkdir()
    (tmp_path / "tokenizer").mkdir()
    torch.save(STATE, tmp_path / "unet" / "a.bin")
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(tmp_path)
    assert "'unet'" in caught.value.hint
    assert "tokenizer" not in caught.value.hint


@pytest.mark.parametrize(
    ("weight_map", "words"),
    [
        ({"b.weight": "../model-00001-of-00002.safetensors"}, "inside"),
        ({"b.weight": "/etc/passwd"}, "inside"),
        ({"b.weight": "x/../../y"}, "inside"),
        ({"b.weight": "C:\\x"}, "inside"),
        ({"b.weight": ""}, "inside"),
        ({"b.weight": 3}, "file name"),
        ({}, "empty"),
        ([1], "other JSON"),
        ({"b.weight": "gone\n.safetensors"}, "missing"),
        ({"nowhere": "model-00001-of-00002.safetensors"}, "'nowhere'"),
    ],
)
def test_indexes_that_lie(weight_map: Any, words: str, tmp_path: Path) -> None:
    path = rewrite(sharded(tmp_path), weight_map)
    with pytest.raises(CheckpointError, match=words) as caught:
        open_checkpoint(path)
    assert str(caught.value).isprintable()


def test_tensors_beyond_the_index(tmp_path: Path) -> None:
    path = rewrite(sharded(tmp_path), {"b.weight": "model-00001-of-00002.safetensors"})
    checkpoint = open_checkpoint(path)
    assert list(checkpoint.tensors) == ["b.weight"]
    assert checkpoint.skipped[0].name == "b.bias"


def test_same_tensor_in_two_shards(tmp_path: Path) -> None:
    for number in (1, 2):
        torch.save(STATE, tmp_path / f"m-0000{number}-of-00002.bin")
    with pytest.raises(CheckpointError, match="in two"):
        open_checkpoint(tmp_path)


def test_hub_cache_links(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    (tmp_path / "snapshot").mkdir()
    sharded(tmp_path / "blobs")
    for file in (tmp_path / "blobs").iterdir():
        (tmp_path / "snapshot" / file.name).symlink_to(file)
    assert_same(open_checkpoint(tmp_path / "snapshot"), STATE)
