"""Residual blocks: their branches, shortcuts and names."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from specinspect.architecture import Activation, Architecture, Gated, ResidualBlock, Step, read_architecture
from tests.architecture import nets

RELU = Activation("relu")


def kinds(steps: tuple[Step, ...]) -> list[str]:
    return [step.path or step.detail if step.kind != "activation" else f"({word(step)})" for step in steps]


def word(step: Step) -> str:
    return step.activation.name if step.activation else ""


def by_name(architecture: Architecture) -> dict[str, ResidualBlock]:
    return {block.name: block for block in architecture.blocks}


def test_residual_mlp() -> None:
    found = read_architecture(nets.ResidualMLP())
    leaky = Step("activation", "", Activation("leaky_relu", 0.1), "leaky_relu")
    assert found.blocks == tuple(
        ResidualBlock(f"layers.{i}", (Step("layer", f"layers.{i}", detail="Linear"), leaky), (), None, 0.5)
        for i in range(3)
    )


def test_basic_blocks() -> None:
    found = by_name(read_architecture(nets.ResNet()))
    assert list(found) == ["layer1.0", "layer1.1", "layer2.0", "layer2.1"]
    for name, block in found.items():
        assert kinds(block.branch) == [
            f"{name}.conv1",
            f"{name}.bn1",
            "(relu)",
            f"{name}.conv2",
            f"{name}.bn2",
        ]
        assert [step.kind for step in block.branch] == ["layer", "norm", "activation", "layer", "norm"]
        assert block.after == RELU
        assert block.scale == 1.0
    assert found["layer1.0"].shortcut == found["layer1.1"].shortcut == ()
    assert kinds(found["layer2.0"].shortcut) == ["layer2.0.downsample.0", "layer2.0.downsample.1"]


def test_bottlenecks() -> None:
    found = by_name(read_architecture(nets.ResNet(nets.Bottleneck, 4)))
    block = found["layer2.0"]
    assert [step.kind for step in block.branch] == 2 * ["layer", "norm", "activation"] + ["layer", "norm"]
    assert [step.kind for step in block.shortcut] == ["pool", "layer", "norm"]
    assert block.shortcut[0].detail.startswith("AvgPool2d(kernel_size=2, stride=2, padding=0")
    assert found["layer2.1"].shortcut == ()


@pytest.mark.parametrize(
    ("network", "example"),
    [
        (nets.ResNet(), torch.randn(2, 3, 8, 8)),
        (nets.ResNet(nets.Bottleneck, 4), torch.randn(2, 3, 8, 8)),
        (nets.PreActivationResNet(), torch.randn(2, 3, 8, 8)),
    ],
    ids=["basic", "bottleneck", "pre-activation"],
)
def test_blocks_compute_what_the_network_computes(network: nn.Module, example: Tensor) -> None:
    """Running a block's steps by hand gives the output of the module that it names."""
    network.eval()
    blocks = by_name(read_architecture(network))
    seen: dict[str, tuple[Tensor, Tensor]] = {}
    for name in blocks:
        network.get_submodule(name).register_forward_hook(
            lambda _, args, output, name=name: seen.update({name: (args[0], output)})
        )
    with torch.no_grad():
        network(example)
        for name, block in blocks.items():
            x, expected = seen[name]
            if name == "blocks.1":  # this block starts behind its first norm and activation
                x = F.relu(network.get_submodule("blocks.1.bn1")(x))
            y = block.scale * run(network, block.branch, x) + run(network, block.shortcut, x)
            torch.testing.assert_close(F.relu(y) if block.after == RELU else y, expected)


def run(network: nn.Module, steps: tuple[Step, ...], x: Tensor) -> Tensor:
    for step in steps:
        x = F.relu(x) if step.activation == RELU else network.get_submodule(step.path)(x)
    return x


def test_pre_activation() -> None:
    found = by_name(read_architecture(nets.PreActivationResNet()))
    assert list(found) == ["blocks.0", "blocks.1", "blocks.2"]
    assert [step.kind for step in found["blocks.0"].branch] == 2 * ["norm", "activation", "layer"]
    assert found["blocks.0"].after is None
    # Where the shortcut starts behind the first norm and activation, so does the block.
    assert [step.kind for step in found["blocks.1"].branch] == ["layer", "norm", "activation", "layer"]
    assert kinds(found["blocks.1"].shortcut) == ["blocks.1.shortcut"]


def test_concatenation_is_no_residual_block() -> None:
    found = read_architecture(nets.DenseNet())
    assert found.blocks == ()
    assert found.activations["convs.2"] == Activation("identity")
    assert "convs.0" not in found.activations  # read by several norms, each over more than this layer


def test_pre_norm_transformer() -> None:
    found = by_name(read_architecture(nn.Sequential(nets.PreNormBlock(), nets.PreNormBlock())))
    assert list(found) == ["0.attn", "0.mlp", "1.attn", "1.mlp"]
    assert kinds(found["1.mlp"].branch) == ["1.norm2", "1.mlp.0", "(gelu)", "1.mlp.3"]
    norm, attention, *reshapes, projection = found["0.attn"].branch
    assert (norm.kind, norm.path) == ("norm", "0.norm1")
    assert (attention.kind, attention.detail, attention.inside) == ("other", "attention", 3 * ("0.attn.qkv",))
    assert {step.kind for step in reshapes} == {"reshape"}
    assert (projection.kind, projection.path) == ("layer", "0.attn.proj")


def test_post_norm_transformer() -> None:
    found = read_architecture(nn.Sequential(nets.PostNormBlock(), nn.Linear(8, 2)))
    attention, mlp = found.blocks
    assert attention.name == "0.attention"
    assert attention.branch == (
        Step(
            "other", "0.attention", detail="MultiheadAttention",
            inside=("0.attention.in_proj", "0.attention.out_proj"),
        ),
    )  # fmt: skip
    assert (attention.norm, mlp.norm) == ("0.norm1", "0.norm2")
    assert mlp.name == "0.up..down"
    assert kinds(mlp.branch) == ["0.up", "(relu)", "0.down"]
    assert found.activations["0.attention.out_proj"].name == "identity"


@pytest.mark.parametrize("norm_first", [False, True])
def test_torch_encoder_and_decoder_layers(norm_first: bool) -> None:
    encoder = nn.TransformerEncoderLayer(8, 2, 16, activation="gelu", norm_first=norm_first)
    found = read_architecture(encoder)
    assert found.traced
    assert found.activations["linear1"] == Activation("gelu")
    assert [block.name for block in found.blocks] == ["self_attn", "linear1..linear2"]
    decoder = read_architecture(nn.TransformerDecoderLayer(8, 2, 16, norm_first=norm_first))
    assert [block.name for block in decoder.blocks] == ["self_attn", "multihead_attn", "linear1..linear2"]
    assert all(block.shortcut == () for block in decoder.blocks)


def test_llama_block() -> None:
    found = by_name(read_architecture(nn.Sequential(nets.LlamaBlock(), nets.LlamaBlock())))
    assert list(found) == ["0.self_attn", "0.mlp", "1.self_attn", "1.mlp"]
    attention = found["1.self_attn"].branch[1]
    assert attention.inside == tuple(f"1.self_attn.{name}_proj" for name in "qkv")
    norm, gate, down = found["0.mlp"].branch
    assert norm == Step("norm", "0.post_attention_layernorm", detail="RMSNorm")
    assert gate.gated == Gated("0.mlp.gate_proj", Activation("silu"), "0.mlp.up_proj")
    assert down.path == "0.mlp.down_proj"


class Skip(nn.Module):
    """x + f(x) for whatever f does with two layers."""

    def __init__(self, function: Callable[..., Tensor], outputs: int = 4) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, outputs), nn.Linear(4, 4)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def twice(x: Tensor) -> Tensor:
    return x + F.relu(x)


def only(function: Callable[..., Tensor], outputs: int = 4) -> ResidualBlock:
    (block,) = read_architecture(Skip(function, outputs)).blocks
    return block


def test_one_layer_makes_gate_and_values() -> None:
    def fused(net: Skip, x: Tensor) -> Tensor:
        values, gate = net.a(x).chunk(2, dim=-1)
        return x + net.b(values * F.gelu(gate))

    block = only(fused, 8)
    assert block.branch[0].gated == Gated("a", Activation("gelu"), "a", half=1)
    assert kinds(block.branch) == ["mul", "b"]
    block = only(lambda net, x: x + net.b(F.glu(net.a(x))), 8)
    assert block.branch[0].gated == Gated("a", Activation("sigmoid"), "a", half=1)


def test_layer_scale() -> None:
    (block,) = read_architecture(nets.ConvNeXtBlock()).blocks
    assert block.shortcut == ()
    assert [step.kind for step in block.branch] == [
        "layer", "reshape", "norm", "layer", "activation", "layer", "scale", "reshape",
    ]  # fmt: skip
    assert block.branch[6] == Step("scale", "gamma")


@pytest.mark.parametrize(
    ("function", "branch", "shortcut", "scale"),
    [
        (lambda n, x: x - n.a(x), ["a"], [], -1.0),
        (lambda n, x: torch.add(x, n.a(x), alpha=0.25), ["a"], [], 0.25),
        (lambda n, x: n.a(x).mul(0.1).add(x), ["a"], [], 0.1),
        (lambda n, x: n.a(x) / 4 + x, ["a"], [], 0.25),
        (lambda n, x: 0.5 * x + n.a(x), ["a"], ["0.5"], 1.0),
        (lambda n, x: n.a(x) - x, ["a"], ["-1.0"], 1.0),
        (lambda n, x: x + n.b(0.5 * n.a(x)), ["a", "0.5", "b"], [], 1.0),
        (lambda n, x: x + F.dropout(n.a(x), 0.1, n.training), ["a"], [], 1.0),
        (lambda n, x: n.a(x) + n.b(F.relu(n.b(x))), ["b", "(relu)", "b"], ["a"], 1.0),
        (lambda n, x: sum([x, n.a(x)]), ["a"], [], 1.0),
        (lambda n, x: x + n.b(torch.cat([n.a(x), x], 1)[:, :4]), ["cat", "getitem", "b"], [], 1.0),
        (lambda n, x: x + n.a(x) * torch.sigmoid(n.b(x).mean(1, keepdim=True)), ["mul"], [], 1.0),
        (lambda n, x: x + n.b(twice(n.a(x))), ["a", "add", "b"], [], 1.0),
        (lambda n, x: x + n.a(x) + n.b(F.relu(x)), ["sum"], [], 1.0),
        (lambda n, x: x + (n.a(x) + n.b(F.relu(x))), ["sum"], [], 1.0),
    ],
)
def test_forms_of_addition(
    function: Callable[..., Tensor], branch: list[str], shortcut: list[str], scale: float
) -> None:
    block = only(function)
    assert kinds(block.branch) == branch
    assert kinds(block.shortcut) == shortcut
    assert block.scale == pytest.approx(scale)


@pytest.mark.parametrize(
    "function",
    [
        lambda n, x: n.a(x) + 1,
        lambda n, x: x + F.relu(x),
        lambda n, x: F.relu(n.a(x)) + F.relu(n.b(x)),
        lambda n, x: n.a(x) + n.a.bias,
        lambda n, x: torch.cat([x, n.a(x)]),
        lambda n, x: x * n.a(x),
    ],
)
def test_what_is_no_residual_block(function: Callable[..., Tensor]) -> None:
    assert read_architecture(Skip(function)).blocks == ()


def test_split_shortcut_is_not_the_identity() -> None:
    def coupling(net: Skip, x: Tensor) -> Tensor:
        first, second = x.chunk(2, 0)
        return first + net.a(second)

    block = only(coupling)
    assert kinds(block.branch) == ["part[1]", "a"]
    assert kinds(block.shortcut) == ["part[0]"]


def test_embeddings_are_no_residual_block() -> None:
    class Embeddings(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.word, self.kind, self.place = nn.Embedding(9, 4), nn.Embedding(2, 4), nn.Embedding(7, 4)
            self.norm = nn.LayerNorm(4)

        def forward(self, ids: Tensor) -> Tensor:
            places = torch.arange(ids.shape[1])
            return self.norm(self.word(ids) + self.kind(torch.zeros_like(ids)) + self.place(places))

    found = read_architecture(Embeddings())
    assert found.blocks == ()
    assert found.traced


def test_nested_blocks() -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nets.ResidualMLP(2, 4)

        def forward(self, x: Tensor) -> Tensor:
            return F.relu(x + self.inner.layers[0](x) + 0.5 * x)

    class Long(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(4, 4)
            self.body = nn.Sequential(Residual(), Residual())

        def forward(self, x: Tensor) -> Tensor:
            return x + self.body(self.head(x))

    found = by_name(read_architecture(Long()))
    assert list(found) == ["body.0", "body.1", "head..body.1.layer"]
    assert found["body.0"].branch == (Step("layer", "body.0.layer", detail="Linear"),)
    outer = found["head..body.1.layer"]
    assert [step.detail for step in outer.branch] == ["Linear", "add", "add"]
    assert outer.branch[2].inside == ("body.1.layer",)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layer(x)


def test_block_applied_twice_is_listed_once() -> None:
    block = Residual()
    found = read_architecture(nn.Sequential(block, nn.ReLU(), block, nn.ReLU()))
    assert [item.name for item in found.blocks] == ["0"]
    assert found.notes == ("the residual block 0 is applied 2 times and listed once",)


def test_adapter_is_no_residual_block() -> None:
    class LoRALinear(nn.Linear):
        def __init__(self) -> None:
            super().__init__(4, 4)
            self.lora_a, self.lora_b = nn.Linear(4, 1, bias=False), nn.Linear(1, 4, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + self.lora_b(self.lora_a(x))

    found = read_architecture(nn.Sequential(LoRALinear(), nn.ReLU()))
    assert found.blocks == ()
    assert found.activations == {"0": RELU}


def test_blocks_of_a_network_that_cannot_be_followed() -> None:
    found = read_architecture(nets.Undecided())
    assert not found.traced
    assert found.notes[0] == (
        "the forward of Undecided could not be followed: its control flow depends on the input"
    )
    assert found.notes[1].startswith("torch.export could not follow Undecided either: ")
    assert found.notes[1].endswith(": its control flow depends on values")
    assert [block.name for block in found.blocks] == ["blocks.0", "blocks.1"]
    assert found.activations["blocks.0.conv1"] == RELU
    assert "stem" not in found.activations  # followed by what could not be seen


def test_part_that_cannot_be_followed() -> None:
    class Gate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Linear(4, 6), nn.Linear(6, 4)

        def forward(self, x: Tensor) -> Tensor:
            if x.sum() > 3:
                raise ValueError(x.shape)
            return self.down(F.relu(self.up(x)))

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Linear(4, 4)
            self.gates = nn.ModuleList([Gate(), Gate()])

        def forward(self, x: Tensor) -> Tensor:
            x = F.relu(self.stem(x))
            for gate in self.gates:
                x = x + gate(x)
            return x

    found = read_architecture(Net())
    assert not found.traced
    assert len(found.notes) == 2
    assert "Gate (gates.0" in found.notes[0]
    assert found.activations["stem"] == RELU
    assert [block.name for block in found.blocks] == ["gates.0", "gates.1"]
    assert found.blocks[0].branch == (
        Step("other", "gates.0", detail="Gate", inside=("gates.0.up", "gates.0.down")),
    )


def test_optional_arguments() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(4, 4)

        def forward(
            self, ids: Tensor | None = None, embeds: Tensor | None = None, scale: float = 2.0
        ) -> Tensor:
            if (ids is None) == (embeds is None):
                raise ValueError("give one of them")
            x = self.a(ids if embeds is None else embeds)
            return x if scale > 1 else F.relu(x)

    found = read_architecture(Net())
    assert found.traced
    assert found.activations == {"a": Activation("identity")}
