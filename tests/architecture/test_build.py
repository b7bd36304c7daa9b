"""From MODULE:FACTORY to a module, and all that can go wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from specinspect.architecture import build, build_with_notes, check_match, read_architecture
from specinspect.errors import SettingsError

CODE = """
import torch
from torch import nn

CONSTANT = torch.ones(2)
NUMBER = 3
instance = nn.Linear(2, 2)
print("loud import")


class Net(nn.Module):
    def __init__(self, width=4, depth=1):
        super().__init__()
        self.layers = nn.Sequential(*(nn.Linear(width, width) for _ in range(depth)))

    def forward(self, x):
        return self.layers(x)


def function(*args, **kwargs):
    print("loud factory")
    return Net(*args, **kwargs)


class Box:
    make = Net


def drop_rates(depth=2):
    rates = [rate.item() for rate in torch.linspace(0, 0.5, depth)]
    net = nn.Sequential(*(nn.Dropout(rate) for rate in rates), nn.Linear(2, 2), nn.Linear(2, 2))
    net[-1].weight = net[-2].weight
    return net


def reads_weights():
    net = Net()
    net.scale = float(net.layers[0].weight.abs().max())
    return net


def broken(**kwargs):
    raise ValueError("no\\n such   thing\\x1b[31m")


def leaves():
    raise SystemExit(0)


def number():
    return 3


def lazy():
    return nn.Sequential(nn.LazyLinear(3), nn.ReLU())
"""


@pytest.fixture(autouse=True)
def user_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "usermodels.py").write_text(CODE)
    (tmp_path / "userneeds.py").write_text("import surely_not_installed_anywhere")
    (tmp_path / "userbroken.py").write_text("def (")
    (tmp_path / "userpack").mkdir()
    (tmp_path / "userpack" / "__init__.py").touch()
    (tmp_path / "userpack" / "resnet.py").write_text("from usermodels import Net")
    monkeypatch.chdir(tmp_path)
    before, path = set(sys.modules), list(sys.path)
    yield
    assert sys.path == path
    for name in set(sys.modules) - before:
        if name.startswith("user"):
            del sys.modules[name]


def test_what_native_code_writes_to_file_descriptor_1_goes_to_stderr(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    code = """
import ctypes, os
from torch import nn
def build():
    os.write(1, b"native")
    ctypes.CDLL(None).printf(b"buffered")
    print("python")
    return nn.Linear(2, 2)
"""
    (tmp_path / "noisy_factory.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    build_with_notes("noisy_factory:build")
    os.write(1, b"data")
    captured = capfd.readouterr()
    assert captured.out == "data"
    assert all(word in captured.err for word in ("native", "buffered", "python"))


def test_kinds_of_factories(capsys: pytest.CaptureFixture[str]) -> None:
    for spec, arguments, shape in (
        ("usermodels:Net", None, (4, 4)),
        ("usermodels:Net", '{"width": 3, "depth": 2}', (3, 3)),
        ("usermodels:function", "[5]", (5, 5)),
        ("usermodels:Box.make", "{}", (4, 4)),
        ("userpack.resnet:Net", None, (4, 4)),
    ):
        module = build(spec, arguments)
        assert module.get_parameter("layers.0.weight").shape == shape
        assert all(parameter.is_meta for parameter in module.parameters())
    assert isinstance(build("usermodels:instance"), nn.Linear)
    assert not sys.modules["usermodels"].CONSTANT.is_meta
    assert "loud" not in capsys.readouterr().out


def test_values_needed_while_building() -> None:
    built = build_with_notes("usermodels:drop_rates")
    assert not built.notes
    assert all(parameter.is_meta for parameter in built.module.parameters())
    assert [part.p for part in built.module.children() if isinstance(part, nn.Dropout)] == [0.0, 0.5]
    assert built.module.get_parameter("2.weight") is built.module.get_parameter("3.weight")


def test_cannot_be_built_on_meta() -> None:
    built = build_with_notes("usermodels:reads_weights")
    assert not any(parameter.is_meta for parameter in built.module.parameters())
    (note,) = built.notes
    assert "was run on the CPU" in note
    assert read_architecture(built.module, built.notes).notes == built.notes


@pytest.mark.parametrize(
    ("spec", "arguments", "words"),
    [
        ("usermodels", None, ["expected MODULE:FACTORY", "for example"]),
        ("./usermodels.py:Net", None, ["expected MODULE:FACTORY", "not as a file"]),
        ("usermodels:", None, ["expected MODULE:FACTORY"]),
        ("usermodel:Net", None, ["none called 'usermodel'", "did you mean usermodels"]),
        ("userpack.resnets:Net", None, ["none called 'userpack.resnets'", "did you mean userpack.resnet?"]),
        ("nowhere_at_all.x:Net", None, ["none called 'nowhere_at_all'"]),
        ("userneeds:Net", None, ["importing 'userneeds' raised ModuleNotFoundError", "surely_not_installed"]),
        ("userbroken:Net", None, ["importing 'userbroken' raised SyntaxError"]),
        ("usermodels:Nett", None, ["found no 'Nett'", "did you mean Net?"]),
        ("usermodels:Box.mak", None, ["found no 'mak'", "did you mean make?"]),
        ("usermodels:NUMBER", None, ["found an int"]),
        ("usermodels:number", None, ["to return an nn.Module, found an int"]),
        ("usermodels:broken", None, ["calling 'usermodels:broken' raised ValueError: no such thing"]),
        ("usermodels:broken", None, ["ValueError"]),
        ("usermodels:leaves", None, ["raised SystemExit"]),
        ("usermodels:Net", '{"widht": 3}', ["raised TypeError", "widht"]),
        ("usermodels:Net", "{width: 3}", ["as JSON"]),
        ("usermodels:Net", "3", ["JSON object or array"]),
        ("usermodels:Net", "[" * 100_000, ["as JSON"]),
        ("usermodels:instance", "[3]", ["leave the arguments out"]),
    ],
)
def test_errors(spec: str, arguments: str | None, words: list[str]) -> None:
    with pytest.raises(SettingsError) as caught:
        build(spec, arguments)
    text = str(caught.value)
    assert text.isprintable()
    assert len(text) < 700
    assert all(word in text for word in words), text
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_lazy_parameters() -> None:
    found = read_architecture(build("usermodels:lazy"))
    assert found.shapes == {}
    assert found.activations["0"].name == "relu"


def test_not_a_module() -> None:
    with pytest.raises(SettingsError, match="found a dict"):
        read_architecture({})


def test_importing_costs_nothing() -> None:
    code = "import sys, specinspect.architecture; sys.exit('torch' in sys.modules)"
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


def tensors(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def tied() -> nn.Module:
    net = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 5), nn.BatchNorm1d(5))
    net[1].weight = net[0].weight
    return net


def test_match() -> None:
    found = read_architecture(tied())
    assert found.tied == {"0.weight": "0.weight", "1.weight": "0.weight"}
    shapes = tensors(tied())
    check_match(found, shapes)
    for gone in ("0.weight", "1.weight", "2.num_batches_tracked"):
        check_match(found, {name: shape for name, shape in shapes.items() if name != gone})
    check_match(
        read_architecture(nn.Linear(2, 2)), {"weight": (2, 2), "bias": (2,), "num_batches_tracked": ()}
    )


def mismatch(module: nn.Module, shapes: Any) -> str:
    with pytest.raises(SettingsError) as caught:
        check_match(read_architecture(module), shapes)
    return str(caught.value)


def test_mismatch() -> None:
    net = nn.Sequential(*(nn.Conv2d(4, 4, 1) for _ in range(8)))
    shapes = tensors(net) | {f"{i}.weight": (4, 4, 3, 3) for i in range(7)}
    del shapes["7.weight"], shapes["7.bias"]
    shapes["evil\x1b[0m.weight"] = ()
    text = mismatch(net, shapes)
    assert "7 of another shape, 2 missing in the checkpoint, 1 not in the model" in text
    assert "0.weight: checkpoint 4×4×3×3, model 4×4×1×1; " in text
    assert "missing in the checkpoint: 7.weight" in text
    assert "not in the model: 'evil\\x1b[0m.weight'" in text
    assert "; and 5 more" in text
    assert text.isprintable()


def test_mismatch_by_a_prefix() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    shapes = tensors(net)
    text = mismatch(net, {f"model.body.{name}": shape for name, shape in shapes.items()})
    assert "the checkpoint's names start with 'model.body.'" in text
    outer = nn.ModuleDict({"body": net})
    assert "the model's names start with 'body.'" in mismatch(outer, shapes)


def test_wrappers_are_taken_off() -> None:
    net = nn.DataParallel(nn.Sequential(nn.Linear(2, 2), nn.ReLU()))
    found = read_architecture(net)
    assert list(found.shapes) == ["0.weight", "0.bias"]
    assert found.activations["0"].name == "relu"
    assert torch.is_grad_enabled()
