from __future__ import annotations

import torch
from torch import nn

from specinspect.checkpoint.model import ModuleFacts
from specinspect.layers.model import Normalization
from tests.layers.build import Header, batch_norm, by_name, find, headers, reasons


def norms(tensors: dict[str, Header]) -> dict[str, str | None]:
    found = find(tensors)
    return {layer.name: norm.name if (norm := layer.normalization) else None for layer in found.layers}


def test_bert_post_norm() -> None:
    tensors: dict[str, Header] = {
        "attention.output.dense.weight": (8, 8), "attention.output.LayerNorm.weight": (8,),
        "attention.output.LayerNorm.bias": (8,), "intermediate.dense.weight": (32, 8),
        "output.dense.weight": (8, 32), "output.LayerNorm.weight": (8,), "output.LayerNorm.bias": (8,),
    }  # fmt: skip
    assert norms(tensors) == {
        "attention.output.dense": "attention.output.LayerNorm",
        "intermediate.dense": None,
        "output.dense": "output.LayerNorm",
    }


def test_llama_pre_norm_is_not_attached() -> None:
    tensors: dict[str, Header] = {
        "l.0.input_layernorm.weight": (8,), "l.0.self_attn.o_proj.weight": (8, 8),
        "l.0.post_attention_layernorm.weight": (8,), "l.0.mlp.down_proj.weight": (8, 24), "norm.weight": (8,),
    }  # fmt: skip
    found = find(tensors)
    assert all(layer.normalization is None for layer in found.layers)
    assert reasons(found)["norm.weight"] == "gain of RMS normalisation norm"


def test_sequential_and_nested_names() -> None:
    with torch.device("meta"):
        net = nn.ModuleDict(
            {
                "s": nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 8)),
                "b": nn.ModuleDict({"conv": nn.Conv2d(3, 8, 3), "norm": nn.BatchNorm2d(8)}),
                "g": nn.ModuleDict({"conv1": nn.Conv2d(3, 8, 3), "gn1": nn.GroupNorm(2, 8)}),
            }
        )
    found = by_name(find(headers(net)))
    assert found["s.0"].normalization == Normalization("layer_norm", "s.1", "assumed")
    assert found["s.3"].normalization is None
    assert found["b.conv"].normalization == Normalization("batch_norm", "b.norm", "assumed")
    assert found["g.conv1"].normalization == Normalization("group_norm", "g.gn1", "assumed")


def test_preactivation_blocks() -> None:
    tensors: dict[str, Header] = {}
    for i, (width, out) in enumerate(((16, 32), (32, 32))):
        tensors |= batch_norm(f"b.{i}.bn1", width)
        tensors[f"b.{i}.conv1.weight"] = (out, width, 3, 3)
        tensors |= batch_norm(f"b.{i}.bn2", out)
        tensors[f"b.{i}.conv2.weight"] = (out, out, 3, 3)
    expected = {"b.0.conv1": "b.0.bn2", "b.0.conv2": None, "b.1.conv1": "b.1.bn2", "b.1.conv2": None}
    assert norms(tensors) == expected
    assert set(norms({name: tensors[name] for name in sorted(tensors)}).values()) == {None}


def test_the_module_type_decides_the_kind() -> None:
    tensors: dict[str, Header] = {"0.weight": (8, 4), "1.weight": (8,), "1.bias": (8,)}
    group = find(tensors, modules={"1": ModuleFacts("GroupNorm", {})}).layers[0]
    assert group.normalization == Normalization("group_norm", "1", "assumed")
    assert find(tensors, modules={"1": ModuleFacts("PReLU", {})}).layers[0].normalization is None
