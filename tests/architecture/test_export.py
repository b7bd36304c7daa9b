"""Networks that torch.fx cannot follow, followed by torch.export with an example."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import specinspect
from specinspect.architecture import Activation, Architecture, Step, read_architecture
from specinspect.architecture import read as reading
from specinspect.architecture.examples import examples
from specinspect.architecture.trace import Recording, record
from tests.architecture import nets, truth

RELU = Activation("relu")
IDENTITY = Activation("identity")


class Shapely(nn.Module):
    """Decides by shapes, which torch.fx cannot, around a residual block."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, 4)
        self.norm = nn.BatchNorm2d(8)
        self.up = nn.Linear(8, 16)
        self.act = nn.ReLU(inplace=True)
        self.down = nn.Linear(16, 8)
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] != 64:
            raise ValueError(f"expected images of 64 by 64, found {tuple(x.shape)}")
        x = self.norm(self.stem(x)).flatten(2).transpose(1, 2)
        for _ in range(x.shape[1] // 256):
            x = x + 0.5 * self.down(self.act(self.up(x)))
        return self.head(F.elu(x).mean(1))


def exported(network: nn.Module, example: Tensor, monkeypatch: pytest.MonkeyPatch) -> Architecture:
    """Read a network as if torch.fx had failed on it."""

    def fail(module: nn.Module) -> Recording:
        recording = Recording()
        recording.fail(module, "", "told so")
        return recording

    with monkeypatch.context() as patch:
        patch.setattr(reading, "record", fail)
        found = read_architecture(network, batch=lambda: example)
    assert found.traced
    assert found.notes[0].startswith(f"torch.export followed {type(network).__name__} with the given inputs")
    return found


@pytest.mark.parametrize(
    ("network", "example"),
    [
        (nets.mlp(), torch.randn(3, 4)),
        (nets.FunctionalMLP(), torch.randn(3, 8)),
        (nets.ResidualMLP(), torch.randn(3, 4)),
        (nets.ResNet(), torch.randn(2, 3, 8, 8)),
        (nets.ResNet(nets.Bottleneck, 4), torch.randn(2, 3, 8, 8)),
        (nets.PreActivationResNet(), torch.randn(2, 3, 8, 8)),
        (nets.DenseNet(), torch.randn(2, 3, 8, 8)),
        (nets.PreNormBlock(), torch.randn(2, 5, 8)),
        (nets.PostNormBlock(), torch.randn(2, 5, 8)),
        (nets.LlamaBlock(), torch.randn(2, 5, 8)),
        (nets.ConvNeXtBlock(), torch.randn(2, 8, 9, 9)),
        (nn.TransformerEncoderLayer(8, 2, 16), torch.randn(2, 5, 8)),
        (nn.TransformerEncoderLayer(8, 2, 16, norm_first=True, activation="gelu"), torch.randn(2, 5, 8)),
        (nn.Sequential(nn.Linear(3, 3), nets.CustomSwish(), nn.Linear(3, 3)), torch.randn(2, 3)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_both_tracers_read_the_same(
    network: nn.Module, example: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_fx = read_architecture(network)
    by_export = exported(network, example, monkeypatch)
    assert by_export.activations == by_fx.activations
    assert by_export.normalizations == by_fx.normalizations
    assert by_export.ambiguous == by_fx.ambiguous
    assert [plain(block.branch) for block in by_export.blocks] == [
        plain(block.branch) for block in by_fx.blocks
    ]
    assert [replace(block, branch=(), shortcut=()) for block in by_export.blocks] == [
        replace(block, branch=(), shortcut=()) for block in by_fx.blocks
    ]
    assert [plain(block.shortcut) for block in by_export.blocks] == [
        plain(block.shortcut) for block in by_fx.blocks
    ]


def plain(steps: tuple[Step, ...]) -> list[tuple[object, ...]]:
    """Leave out how a step was spelled: sizes are numbers in one graph and unknown in the other."""
    kept = [step for step in steps if step.kind != "reshape"]
    return [(s.kind, s.path, s.activation, s.gated, s.inside) for s in kept]


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_what_shapes_decide(device: str) -> None:
    with torch.device(device):
        network = Shapely()
    assert record(network).failures  # else nothing is tested here
    before = {name: id(tensor) for name, tensor in network.state_dict(keep_vars=True).items()}
    found = read_architecture(network)
    assert found.traced
    assert found.activations == {
        "stem": IDENTITY,
        "up": RELU,
        "down": IDENTITY,
        "head": IDENTITY,
    }
    assert found.normalizations == {"stem": "norm"}
    assert len(found.blocks) == 1
    assert found.blocks[0].scale == 0.5
    assert [step.path for step in found.blocks[0].branch] == ["up", "act", "down"]
    assert found.notes == (
        "torch.export followed Shapely with inputs of a guessed shape, 2×3×64×64 (--inputs gives it real "
        "ones), since torch.fx could not: the forward of Shapely could not be followed: "
        "its control flow depends on the input",
    )
    assert found.assumption == "the model was followed with inputs of a guessed shape, 2×3×64×64"
    # The network is as it was, and has values only where it had some.
    assert {name: id(tensor) for name, tensor in network.state_dict(keep_vars=True).items()} == before
    assert network.training
    assert {tensor.device.type for tensor in network.state_dict().values()} == {device}


def test_agrees_with_a_real_forward_pass() -> None:
    network = Shapely()
    found = read_architecture(network).activations
    seen = truth.followers(network, torch.randn(2, 3, 64, 64))
    assert seen == {"stem": "", "up": "ReLU", "down": "", "head": ""}  # F.elu has no hook
    assert found["up"] == RELU


class Overwriting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Linear(4, 4) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        x[:, 0] = self.b(x)[:, 1]  # what follows a is no longer the identity alone
        return self.c(torch.tanh(x))


def test_parts_that_are_overwritten() -> None:
    found = read_architecture(Overwriting())
    assert found.traced
    assert found.activations["c"] == IDENTITY
    # The values of a reach c through tanh, but not all of them, and b: nothing is claimed.
    assert "a" not in found.activations or "a" in found.ambiguous


class Counting(nn.Module):
    """Keeps a running mean of what `a` puts out, in a buffer and in use too."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
        self.register_buffer("mean", torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[0] == 0:
            return x
        x = self.a(x)
        self.get_buffer("mean").mul_(0.9).add_(0.1 * x.mean(0))
        return self.b(torch.relu(x))


def test_what_is_written_into_buffers_is_no_output() -> None:
    found = read_architecture(Counting())
    assert found.traced
    assert found.activations == {"a": RELU, "b": IDENTITY}
    assert not found.ambiguous


@dataclass(slots=True)
class Slots:
    result: Tensor | None


@pytest.mark.parametrize("empty", [False, True])
def test_outputs_in_slots_and_none_at_all(empty: bool) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Slots:
            if x.shape[0] == 0:
                return Slots(x)
            y = self.b(torch.relu(self.a(x)))
            return Slots(None if empty else y)

    found = read_architecture(Net(), batch=lambda: torch.zeros(3, 4))
    assert found.traced is not empty
    assert found.activations == ({} if empty else {"a": RELU, "b": IDENTITY})
    if empty:
        assert found.notes[-1].endswith("nothing that forward returns is a tensor made from its inputs")


def test_a_forward_that_leaves_the_program_is_no_more_than_a_failure() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part = nn.Sequential(nn.Linear(4, 4), nn.ReLU())

        def forward(self, x: Tensor) -> Tensor:
            sys.exit(0)

    found = read_architecture(nn.Sequential(Net(), nn.Linear(4, 4)))
    assert not found.traced
    assert found.activations["0.part.0"] == RELU
    assert any("SystemExit: 0" in note for note in found.notes)


def test_outputs_of_foreign_classes_and_shared_modules() -> None:
    class Output:
        def __init__(self, result: Tensor, hidden: list[Tensor]) -> None:
            self.result, self.hidden, self.itself = result, hidden, self

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(4, 4)
            self.again = self.a
            self.act = nn.GELU()
            self.lstm = nn.LSTM(4, 4, batch_first=True)
            self.head = nn.Linear(4, 2)

        def forward(self, x: Tensor, scale: float = 1.0) -> Any:
            size = len(x.shape)
            hidden = self.act(self.again(self.act(self.a(x))))
            y, (h, _) = self.lstm(hidden if size > 2 else hidden.unsqueeze(1))
            return Output(self.head(F.silu(y)), [h])

    found = read_architecture(Net(), batch=lambda: torch.zeros(3, 6, 4))
    assert found.traced
    assert found.activations["a"] == Activation("gelu")
    assert found.activations["again"] == Activation("gelu")
    assert found.activations["head"] == IDENTITY
    assert not found.assumption


def test_values_that_decide_are_said() -> None:
    found = read_architecture(nets.Undecided(), batch=lambda: torch.zeros(1, 3, 16, 16))
    assert not found.traced
    assert found.notes[-1] == (
        "torch.export could not follow Undecided either: with the given inputs, 1×3×16×16: "
        "its control flow depends on values"
    )


class Embedded(nn.Module):
    """Takes tokens, more than one kind of them, and carries no example."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(10, 4)
        self.kinds = nn.Embedding(2, 4)
        self.fc = nn.Linear(4, 4)

    def forward(self, ids: Tensor, kinds: Tensor, mask: Tensor | None = None) -> Tensor:
        batch, _ = ids.shape
        x = self.tokens(ids) + self.kinds(kinds)
        x = x if mask is None else x * mask
        return F.relu(self.fc(x)) if batch > 1 else x


class Carrying(Embedded):
    """Says itself what it takes."""

    @property
    def dummy_inputs(self) -> dict[str, Tensor]:
        return {"ids": torch.zeros(3, 5, dtype=torch.int64), "kinds": torch.zeros(3, 5, dtype=torch.int64)}


def test_examples() -> None:
    found = read_architecture(Embedded())
    assert found.activations["fc"] == RELU
    assert "2×8" in found.assumption
    found = read_architecture(Carrying())
    assert found.activations["fc"] == RELU
    assert not found.assumption
    assert found.notes[0].startswith("torch.export followed Carrying with its own dummy_inputs, since")
    sizes = [tuple(e.args[0].shape) for e in examples(nn.Sequential(nn.Flatten(), nn.Linear(784, 2)))]
    assert (2, 1, 28, 28) in sizes
    assert next(e.args[0].dtype for e in examples(nn.Linear(4, 2).double())) == torch.float64
    assert list(examples(nn.ReLU())) == []
    carrying = nn.Linear(4, 2)
    carrying.example_input_array = torch.tensor(3.0)  # one number, which has no length
    assert next(e.words for e in examples(carrying)) == "its own example_input_array"
    # Only what fits into memory is guessed, and only of sizes that are known.
    with torch.device("meta"):
        wide, endless, lazy = nn.Conv2d(4096, 1, 1), nn.Linear(10**13, 1), nn.LazyLinear(3)
    assert [tuple(e.args[0].shape) for e in examples(wide)] == [(2, 4096, n, n) for n in (32, 64, 28)]
    assert list(examples(endless)) == list(examples(lazy)) == []


MODULE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(6, 6)
        self.b = nn.Linear(6, 6)

    def forward(self, x):
        if x.shape[0] != 5:
            raise ValueError("takes five at a time")
        return self.b(torch.tanh(self.a(x)))
"""


def test_inputs_are_the_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shape that cannot be guessed: the user's own inputs show the way, and D is taken at them."""
    (tmp_path / "five_at_a_time.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    generator = torch.Generator().manual_seed(0)
    state = {f"{name}.weight": torch.randn(6, 6, generator=generator) for name in "ab"}
    state |= {f"{name}.bias": torch.randn(6, generator=generator) for name in "ab"}
    torch.save(state, "net.pt")
    np.save("x.npy", np.ones((5, 6), np.float32))
    asked: dict[str, Any] = {"model": "five_at_a_time:Net", "cache": False, "maps": ("weight", "chain")}

    blind = specinspect.inspect("net.pt", **asked)
    assert any(
        "torch.export could not follow Net either" in notice for notice in blind.checkpoint.assumptions
    )

    report = specinspect.inspect("net.pt", inputs="x.npy", patterns=1, **asked)
    assert any(
        "torch.export followed Net with the given inputs, 5×6" in notice
        for notice in report.checkpoint.assumptions
    )
    first = next(result for result in report if result.layer.name == "a")
    assert first.layer.activation.name == "tanh"
    assert first.layer.activation.source == "model"
    w, b = state["a.weight"].double().numpy(), state["a.bias"].double().numpy()
    d = 1 - np.tanh(w @ np.ones(6) + b) ** 2
    expected = np.linalg.svd(d[:, None] * w, compute_uv=False)
    assert first.maps["chain"].sigma_max == pytest.approx(expected[0], rel=1e-6)
