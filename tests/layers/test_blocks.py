"""Blocks found from names and by hand; those of traced networks are tested with their Jacobians."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from typing import Any

import pytest
from torch import nn

from specinspect.architecture import read_architecture
from specinspect.checkpoint import from_module
from specinspect.errors import LayerError
from specinspect.layers import apply_facts, discover, with_architecture
from specinspect.layers.blocks import (
    Activate,
    Apply,
    Block,
    Gate,
    Heads,
    Normalize,
    Repeat,
    block_tensors,
    compose,
    discover_blocks,
    find_blocks,
)
from specinspect.layers.model import Layer
from tests.architecture import nets
from tests.layers.build import Header, batch_norm, checkpoint


def layers_of(tensors: Mapping[str, Header], config: Mapping[str, Any] | None = None) -> tuple[Layer, ...]:
    source = checkpoint(tensors, config)
    return apply_facts(discover(source), source).layers


def blocks_of(tensors: Mapping[str, Header], config: Mapping[str, Any] | None = None) -> dict[str, Block]:
    source = checkpoint(tensors, config)
    found = find_blocks(layers_of(tensors, config), config=config, tensors=source.tensors)
    assert pickle.loads(pickle.dumps(found)) == found
    assert all(block.source == "assumed" for block in found)
    return {block.name: block for block in found}


def conv(path: str, out: int, inn: int, size: int) -> dict[str, Header]:
    return {f"{path}.weight": (out, inn, size, size)}


def linear(path: str, out: int, inn: int) -> dict[str, Header]:
    return {f"{path}.weight": (out, inn), f"{path}.bias": ("f32", (out,))}


def resnet18() -> dict[str, Header]:
    tensors = conv("conv1", 64, 3, 7) | batch_norm("bn1", 64)
    width = 64
    for stage, out in enumerate((64, 128, 256, 512), 1):
        for number in range(2):
            path = f"layer{stage}.{number}"
            tensors |= conv(f"{path}.conv1", out, width, 3) | batch_norm(f"{path}.bn1", out)
            tensors |= conv(f"{path}.conv2", out, out, 3) | batch_norm(f"{path}.bn2", out)
            if width != out:
                tensors |= conv(f"{path}.downsample.0", out, width, 1)
                tensors |= batch_norm(f"{path}.downsample.1", out)
            width = out
    return tensors | linear("fc", 1000, 512)


def test_resnet18() -> None:
    found = blocks_of(resnet18())
    assert list(found) == [f"layer{stage}.{number}" for stage in range(1, 5) for number in range(2)]
    plain, strided = found["layer1.1"], found["layer3.0"]
    assert [type(f) for f in plain.factors] == [Apply, Normalize, Activate, Apply, Normalize]
    assert plain.layers == ("layer1.1.conv1", "layer1.1.conv2")
    assert (plain.shortcut.kind, plain.shortcut.source) == ("identity", "assumed")
    assert plain.after is not None
    assert plain.after.name == "relu"
    assert strided.factors[0] == Apply("layer3.0.conv1", stride=2)
    assert strided.shortcut.kind == "layers"
    assert strided.shortcut.factors[0] == Apply("layer3.0.downsample.0", stride=2)
    assert strided.shortcut_layers == ("layer3.0.downsample.0",)
    assert any("stride 2" in sentence for sentence in strided.assumptions)
    needed = block_tensors(strided, by_name(layers_of(resnet18())), checkpoint(resnet18()).tensors)
    assert set(needed) == {
        name for name in resnet18() if name.startswith("layer3.0.") and "num_batches" not in name
    }


def by_name(layers: tuple[Layer, ...]) -> dict[str, Layer]:
    return {layer.name: layer for layer in layers}


def test_bottleneck() -> None:
    tensors = conv("layer2.0.conv1", 64, 256, 1) | batch_norm("layer2.0.bn1", 64)
    tensors |= conv("layer2.0.conv2", 64, 64, 3) | batch_norm("layer2.0.bn2", 64)
    tensors |= conv("layer2.0.conv3", 512, 64, 1) | batch_norm("layer2.0.bn3", 512)
    tensors |= conv("layer2.0.downsample.0", 512, 256, 1) | batch_norm("layer2.0.downsample.1", 512)
    (block,) = blocks_of(tensors).values()
    applied = [f for f in block.factors if isinstance(f, Apply)]
    assert [f.stride for f in applied] == [None, 2, None]  # torchvision strides in the middle


def pair(path: str, width: int, out: int, *, first: bool) -> dict[str, Header]:
    """Two convolutions with batch norms before or after them, in the order of the data."""
    tensors: dict[str, Header] = {}
    for number, (inn, to) in enumerate(((width, out), (out, out)), 1):
        norm, layer = (
            batch_norm(f"{path}.bn{number}", inn if first else to),
            conv(f"{path}.conv{number}", to, inn, 3),
        )
        tensors |= norm | layer if first else layer | norm
    return tensors


@pytest.mark.parametrize("first", [False, True])
def test_the_order_in_the_file_tells_where_the_norms_are(first: bool) -> None:
    tensors = pair("b.0", 8, 8, first=first) | pair("b.1", 8, 8, first=first)
    found = blocks_of(tensors)
    assert list(found) == ["b.0", "b.1"]
    kinds = [type(factor) for factor in found["b.0"].factors]
    expected = [Apply, Normalize, Activate, Apply, Normalize]
    assert kinds == ([Normalize, Activate, Apply, Normalize, Activate, Apply] if first else expected)


@pytest.mark.parametrize("first", [False, True])
def test_one_block_whose_width_changes_tells_for_all(first: bool) -> None:
    tensors = (
        pair("b.0", 8, 8, first=first) | pair("b.1", 8, 12, first=first) | conv("b.1.downsample.0", 12, 8, 1)
    )
    found = blocks_of({name: tensors[name] for name in sorted(tensors)})
    assert list(found) == ["b.0", "b.1"]
    assert isinstance(found["b.0"].factors[0], Normalize if first else Apply)


@pytest.mark.parametrize("first", [False, True])
def test_where_nothing_tells_there_is_no_block_but_a_note(first: bool) -> None:
    tensors = pair("b.0", 8, 8, first=first) | pair("b.1", 8, 8, first=first)
    source = checkpoint({name: tensors[name] for name in sorted(tensors)})
    found = discover_blocks(apply_facts(discover(source), source).layers, tensors=source.tensors)
    assert not found.blocks
    (note,) = found.notes
    assert "'b.0' and 1 more" in note
    assert "--model" in note


def test_widths_that_contradict_each_other_make_no_block() -> None:
    tensors = pair("b.0", 8, 12, first=True) | conv("b.0.downsample.0", 12, 8, 1)
    tensors |= pair("b.1", 12, 16, first=False) | conv("b.1.downsample.0", 16, 12, 1)
    tensors |= pair("b.2", 16, 16, first=False)
    found = blocks_of(tensors)
    assert "b.2" not in found


def test_a_shortcut_that_may_begin_anywhere_makes_no_block() -> None:
    tensors = (
        pair("b.0", 8, 12, first=True) | conv("b.0.shortcut.0", 12, 8, 1) | pair("b.1", 12, 12, first=True)
    )
    assert list(blocks_of(tensors)) == ["b.1"]


def test_squeeze_and_excitation_is_no_plain_block() -> None:
    tensors = resnet18() | {"layer1.0.se.fc1.weight": (4, 64, 1, 1), "layer1.0.se.fc2.weight": (64, 4, 1, 1)}
    assert "layer1.0" not in blocks_of(tensors)
    assert "layer1.1" in blocks_of(tensors)


def minilm() -> dict[str, Header]:
    path, tensors = "encoder.layer.0", dict[str, Header]()
    for part in ("query", "key", "value"):
        tensors |= linear(f"{path}.attention.self.{part}", 384, 384)
    tensors |= linear(f"{path}.attention.output.dense", 384, 384)
    for name in ("attention.output", "output"):
        tensors |= {f"{path}.{name}.LayerNorm.{leaf}": ("f32", (384,)) for leaf in ("weight", "bias")}
    return (
        tensors | linear(f"{path}.intermediate.dense", 1536, 384) | linear(f"{path}.output.dense", 384, 1536)
    )


def test_minilm() -> None:
    config = {"model_type": "bert", "hidden_act": "gelu", "num_attention_heads": 12}
    found = blocks_of(minilm(), config)
    assert {name: block.kind for name, block in found.items()} == {
        "encoder.layer.0.attention": "attention-vo",
        "encoder.layer.0": "mlp",
    }
    mlp, attention = found["encoder.layer.0"], found["encoder.layer.0.attention"]
    assert mlp.layers == ("encoder.layer.0.intermediate.dense", "encoder.layer.0.output.dense")
    assert [type(f) for f in mlp.factors] == [Apply, Activate, Apply]  # normalised after the sum
    assert attention.heads == Heads(12, 12, 32, "config")
    assert not any("assumed" in sentence for sentence in mlp.assumptions)
    assert blocks_of(minilm())["encoder.layer.0.attention"].heads is None


def llama(prefix: str = "model.layers.0") -> dict[str, Header]:
    tensors: dict[str, Header] = {}
    for name, out, inn in (
        ("self_attn.q_proj", 64, 64), ("self_attn.k_proj", 16, 64), ("self_attn.v_proj", 16, 64),
        ("self_attn.o_proj", 64, 64), ("mlp.gate_proj", 160, 64), ("mlp.up_proj", 160, 64),
        ("mlp.down_proj", 64, 160),
    ):  # fmt: skip
        tensors[f"{prefix}.{name}.weight"] = (out, inn)
    for name in ("input_layernorm", "post_attention_layernorm"):
        tensors[f"{prefix}.{name}.weight"] = ("f32", (64,))
    return tensors


def test_llama() -> None:
    config = {"model_type": "llama", "hidden_act": "silu", "num_attention_heads": 8, "num_key_value_heads": 2}
    found = blocks_of(llama(), config)
    attention, mlp = found["model.layers.0.self_attn"], found["model.layers.0.mlp"]
    assert [type(f) for f in mlp.factors] == [Normalize, Gate, Apply]
    gate, norm = mlp.factors[1], mlp.factors[0]
    assert isinstance(gate, Gate)
    assert gate.activation.name == "silu"
    assert gate.gate.layer.endswith("gate_proj")
    assert isinstance(norm, Normalize)
    assert norm.gain_only
    assert norm.norm.name == "model.layers.0.post_attention_layernorm"
    assert attention.factors[2] == Repeat(4, 8)
    assert attention.heads == Heads(8, 2, 8, "config")
    assert any("left out" in sentence for sentence in mlp.assumptions)
    # Without a config the heads do not fit together: no block rather than a wrong one.
    assert "model.layers.0.self_attn" not in blocks_of(llama())


def test_gemma_stores_its_gain_less_one() -> None:
    config = {"model_type": "gemma", "num_attention_heads": 8}
    mlp = blocks_of(llama(), config)["model.layers.0.mlp"]
    assert isinstance(mlp.factors[0], Normalize)
    assert mlp.factors[0].offset == 1.0


def test_gpt2() -> None:
    tensors: dict[str, Header] = {
        "h.0.attn.c_attn.weight": (64, 192), "h.0.attn.c_proj.weight": (64, 64),
        "h.0.mlp.c_fc.weight": (64, 256), "h.0.mlp.c_proj.weight": (256, 64),
    }  # fmt: skip
    for name in ("ln_1", "ln_2"):
        tensors |= {f"h.0.{name}.{leaf}": ("f32", (64,)) for leaf in ("weight", "bias")}
    found = blocks_of(tensors, {"model_type": "gpt2", "n_head": 4})
    assert found["h.0.attn"].layers == ("h.0.attn.c_attn.v", "h.0.attn.c_proj")
    assert found["h.0.mlp"].layers == ("h.0.mlp.c_fc", "h.0.mlp.c_proj")
    for name, norm in (("attn", "h.0.ln_1"), ("mlp", "h.0.ln_2")):
        first = found[f"h.0.{name}"].factors[0]
        assert isinstance(first, Normalize)
        assert first.norm.name == norm


def test_values_of_cross_attention_come_from_elsewhere() -> None:
    tensors = linear("layers.0.encoder_attn.v_proj", 8, 8) | linear("layers.0.encoder_attn.out_proj", 8, 8)
    assert blocks_of(tensors) == {}


def test_a_plain_network_has_no_blocks() -> None:
    assert blocks_of(linear("fc1", 120, 400) | linear("fc2", 84, 120) | linear("fc3", 10, 84)) == {}


def test_names_do_not_contradict_a_model_that_was_followed() -> None:
    class Plain(nn.Module):
        """Named like a block, but without a skip."""

        def __init__(self) -> None:
            super().__init__()
            self.layer1 = nn.Sequential(nets.BasicBlock(8, 8))

        def forward(self, x: Any) -> Any:
            block = self.layer1[0]
            return block.bn2(block.conv2(block.relu(block.bn1(block.conv1(x)))))  # type: ignore[operator]

    model = Plain()
    source = from_module(model)
    bare = find_blocks(apply_facts(discover(source), source).layers, tensors=source.tensors)
    assert [block.name for block in bare] == ["layer1.0"]
    architecture = read_architecture(model)
    source = with_architecture(source, architecture)
    layers = apply_facts(discover(source), source, architecture=architecture).layers
    assert find_blocks(layers, architecture=architecture, tensors=source.tensors) == ()


def test_a_step_that_is_not_understood_is_named() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Any) -> Any:
            return x + self.b(self.a(x).softmax(-1))

    architecture = read_architecture(Odd())
    source = with_architecture(from_module(Odd()), architecture)
    layers = apply_facts(discover(source), source, architecture=architecture).layers
    found = discover_blocks(layers, architecture=architecture, tensors=source.tensors)
    assert found.blocks == ()
    (skipped,) = found.skipped
    assert "softmax" in skipped.reason


def test_compose() -> None:
    layers = layers_of(resnet18())
    block = compose("layer1.0.conv1:layer1.0.conv2", layers)
    assert block.kind == "composed"
    assert block.layers == ("layer1.0.conv1", "layer1.0.conv2")
    assert block.shortcut.kind == "identity"
    assert any("assumed" in sentence for sentence in block.assumptions)
    wide = compose("layer2.0.conv1:layer2.0.conv2", layers)
    assert wide.shortcut.kind == "none"  # of stride 2, by its name, and wider


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("layer1.0.conv1:layer1.0.conv3", r"'layer1\.0\.conv3'.*did you mean '"),
        ("layer1.0.conv1:layer3.0.conv2", "reads the 64 outputs of layer1.0.conv1, got .* reads 256"),
        ("layer1.0.conv1", "joined by ':'"),
        ("layer1.0.conv1::layer1.0.conv2", "joined by ':'"),
    ],
)
def test_compose_errors(text: str, message: str) -> None:
    with pytest.raises(LayerError, match=message) as caught:
        compose(text, layers_of(resnet18()))
    assert "--compose" in str(caught.value)


def test_compose_refuses_what_has_no_map() -> None:
    tensors: dict[str, Header] = {"up.deconv.weight": (8, 4, 2, 2), "up.deconv.bias": ("f32", (4,))}
    tensors |= conv("up.conv", 8, 8, 3)
    with pytest.raises(LayerError, match="transposed convolution"):
        compose("up.conv:up.deconv", layers_of(tensors))
