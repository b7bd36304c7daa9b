"""Damaged, hostile and foreign files: one CheckpointError with one printable line, never anything else."""

from __future__ import annotations

import gzip
import json
import os
import random
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from specinspect.checkpoint import open_checkpoint
from specinspect.errors import CheckpointError


def write_safetensors(path: Path, header: Any, data: bytes = b"", length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def refuse(path: Path, key: str | None = None) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(path, key)
    assert str(caught.value).isprintable(), repr(str(caught.value))
    assert caught.value.hint
    return caught.value


def entry(shape: Any, offsets: Any, dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ({"a": entry([3], [0, 8])}, "12 bytes"),
        ({"a": entry([2], [0, 16])}, "offsets"),
        ({"a": entry([2], [8, 0])}, "offsets"),
        ({"a": entry([2], [-8, 0])}, "offsets"),
        ({"a": entry([2], [0.0, 8])}, "offsets"),
        ({"a": entry([1], [0, 4]), "b": entry([1], [2, 6])}, "overlap"),
        ({"a": entry([1], [4, 8])}, "hole"),
        ({"a": entry([1], [0, 4])}, "4 bytes of tensor data"),
        ({"a": entry([True, 2], [0, 8])}, "shape"),
        ({"a": entry([-1, -2], [0, 8])}, "shape"),
        ({"a": entry([2**70], [0, 8])}, "shape"),
        ({"a": entry([2], [0, 8], 7)}, "dtype name"),
        ({"a": [1]}, "entry without"),
        ({"__metadata__": {"a": 1}}, "__metadata__"),
        (b'{"a": 1, "a": 2}', "twice"),
        (b"[1]", "unknown bytes"),
        (b'{"a":' + b"[" * 200_000, "JSON"),
        (b'{"a": \xff}', "UTF-8"),
        (b'{"a": NaN}', "NaN"),
        ({"a\n\x1b[31m[/]": entry([3], [0, 8])}, "12 bytes"),
    ],
)
def test_safetensors_headers_that_lie(header: Any, words: str, tmp_path: Path) -> None:
    assert words in str(refuse(write_safetensors(tmp_path / "a", header, bytes(8))))


@pytest.mark.parametrize("length", [4 * 2**30, 2**64 - 1, 100_000_001, 200])
def test_safetensors_length_that_lies(length: int, tmp_path: Path) -> None:
    refuse(write_safetensors(tmp_path / "a", b"{}" + bytes(100), length=length))


FOREIGN = [
    (b"", "empty"),
    (b"GGUF\x03\x00", "GGUF"),
    (b"\x89HDF\r\n\x1a\n" + bytes(20), "HDF5"),
    (gzip.compress(b"x"), "gzip"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 3\n", "git lfs pull"),
    (b"<!DOCTYPE html><html></html>", "web page"),
    (b"just some text", "text"),
    (b"abcdefgh{ text with a brace", "text"),
    (b'{"architectures": []}', "weight_map"),
    (b"\x93NUMPY\x01\x00", ".npy"),
    (b"\x08\x07\x12\x07pytorch\x1a", "ONNX"),
    (b"storages".ljust(257, b"\x00") + b"ustar\x00", "tar-format torch"),
    (b"other".ljust(257, b"\x00") + b"ustar\x00", "tar archive"),
    (bytes(range(128, 160)), "unknown bytes"),
    (b"\x80\x04}q\x00.", "plain pickle"),
    (b"PK\x05\x06" + bytes(18), "empty zip"),
    (b"PK\x03\x04" + bytes(18), "zip"),
]


@pytest.mark.parametrize(("data", "words"), FOREIGN, ids=[words for _, words in FOREIGN])
def test_foreign_files(data: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(data)
    assert words in str(refuse(path))


def test_no_such_file(tmp_path: Path) -> None:
    assert "nothing at" in str(refuse(tmp_path / "no\nfile"))
    assert "cannot read" in str(refuse(tmp_path / ("a" * 5000)))


def test_a_pipe_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "named pipe" in str(refuse(tmp_path / "pipe"))
    assert "device" in str(refuse(Path("/dev/zero")))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_no_permission(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save({"a": torch.ones(1)}, path)
    path.chmod(0)
    assert "permission" in str(refuse(path))


def test_zip_without_weights(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.writestr("hello\x1b.txt", "x")
    assert "zip archive with" in str(refuse(tmp_path / "a.pt"))
    with zipfile.ZipFile(tmp_path / "a.keras", "w") as archive:
        archive.writestr("model.weights.h5", "x")
    assert "Keras" in str(refuse(tmp_path / "a.keras"))


def test_zip_bomb(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, w=np.zeros(1000))
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\x01\x02")
    data[at + 24 : at + 28] = struct.pack("<I", 2**31)  # what the directory says it inflates to
    path.write_bytes(data)
    assert "inflate" in str(refuse(path))


def test_member_that_inflates_to_something_else(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, w=np.random.default_rng(0).standard_normal(1000))
    opened = open_checkpoint(path)
    np.savez_compressed(path, w=np.ones(1000))
    assert opened.read("w").tolist() == [1.0] * 1000
    np.savez_compressed(path, w=np.ones(1001))
    with pytest.raises(CheckpointError):
        opened.read("w")


def test_file_that_shrinks_after_opening(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    safetensors.torch.save_file({"w": torch.ones(10_000)}, path)
    opened = open_checkpoint(path)
    os.truncate(path, 5000)
    with pytest.raises(CheckpointError, match="a file of 5000 bytes"):
        opened.read("w")
    path.unlink()
    with pytest.raises(CheckpointError, match="nothing at"):
        opened.read("w")


def test_key_for_a_flat_format(tmp_path: Path) -> None:
    safetensors.torch.save_file({"w": torch.ones(1)}, tmp_path / "a")
    assert "flat" in str(refuse(tmp_path / "a", "model"))


def _originals(folder: Path) -> dict[str, bytes]:
    model = {f"l{i}.weight": torch.randn(4, 3) for i in range(3)}
    state = {"model": model, "optimizer": {"state": {}}, "epoch": 3}
    safetensors.torch.save_file(model, folder / "safetensors")
    torch.save(state, folder / "zip")
    torch.save(state, folder / "legacy", _use_new_zipfile_serialization=False)
    torch.save(
        torch.nn.Sequential(torch.nn.Linear(2, 2)), folder / "module", _use_new_zipfile_serialization=False
    )
    arrays: dict[str, Any] = {name: tensor.numpy() for name, tensor in model.items()}
    with (folder / "npz").open("wb") as file:
        np.savez(file, **arrays)
    with (folder / "deflated").open("wb") as file:
        np.savez_compressed(file, **arrays)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("kind", ["safetensors", "zip", "legacy", "module", "npz", "deflated"])
def test_truncated_and_flipped(kind: str, tmp_path: Path) -> None:
    """Whatever happens to a file: it opens and reads, or says why not."""
    data = _originals(tmp_path)[kind]
    rng = random.Random(0)
    path = tmp_path / "damaged"
    cases = [data[: len(data) * i // 60] for i in range(60)] + [
        data[:i] for i in (1, 2, 7, 8, 9, len(data) - 1)
    ]
    for _ in range(250):
        changed = bytearray(data)
        for _ in range(rng.randint(1, 3)):
            changed[rng.randrange(len(changed))] = rng.choice([0, 1, 255, rng.randrange(256)])
        cases.append(bytes(changed))
    opened_count, messages = 0, []
    for case in cases:
        path.write_bytes(case)
        try:
            opened = open_checkpoint(path)
            for name in opened.tensors:
                opened.read(name)
            opened_count += 1
        except CheckpointError as error:
            messages.append(str(error))
    assert opened_count
    assert all(message.isprintable() for message in messages)


def test_every_byte_of_a_pickle(tmp_path: Path) -> None:
    torch.save(
        {"a.weight": torch.ones(2, 2), "n": {"k": [1, (2, 3)]}},
        tmp_path / "a",
        _use_new_zipfile_serialization=False,
    )
    data = (tmp_path / "a").read_bytes()
    messages = []
    for at in range(len(data) - 16):
        changed = bytearray(data)
        changed[at] ^= 0x15
        (tmp_path / "b").write_bytes(changed)
        try:
            open_checkpoint(tmp_path / "b")
        except CheckpointError as error:
            messages.append(str(error))
    assert all(message.isprintable() for message in messages)
