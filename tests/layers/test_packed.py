from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from tests.layers.build import Header, by_name, find, headers, reasons, weight


def test_multihead_attention_thirds_are_torchs_own() -> None:
    torch.manual_seed(0)
    module = torch.nn.MultiheadAttention(8, 1, bias=False, batch_first=True)
    state = module.state_dict()
    found = by_name(find(headers(module)))
    assert found["in_proj.q"].assumptions == ()
    x = torch.randn(1, 5, 8)
    q, k, v = (x @ weight(found[f"in_proj.{part}"], state).T for part in "qkv")
    ours = F.scaled_dot_product_attention(q, k, v) @ weight(found["out_proj"], state).T
    torch.testing.assert_close(ours, module(x, x, x, need_weights=False)[0])


@pytest.mark.parametrize("name", ["attn.qkv", "attn.Wqkv", "to_qkv", "W_pack", "attention.in_proj"])
def test_thirds(name: str) -> None:
    found = by_name(find({f"{name}.weight": (24, 8), f"{name}.bias": (24,)}))
    assert found[f"{name}.k"].matrix_shape == (8, 8)
    assert found[f"{name}.k"].assumptions == ("query, key and value taken as equal thirds of the rows",)


def test_mambas_in_proj_is_one_map() -> None:
    assert find({"mixer.in_proj.weight": (24, 8)}).layers[0].name == "mixer.in_proj"


def test_llama_grouped_query_attention_is_stored_apart() -> None:
    shapes: dict[str, Header] = {
        "q_proj": (8, 8), "k_proj": (4, 8), "v_proj": (4, 8), "o_proj": (8, 8),
    }  # fmt: skip
    found = find({f"model.layers.0.self_attn.{name}.weight": shape for name, shape in shapes.items()})
    assert [layer.matrix_shape for layer in found.layers] == [(8, 8), (4, 8), (4, 8), (8, 8)]
    assert all(not layer.assumptions for layer in found.layers)


def test_phi3_fused() -> None:
    config = {"model_type": "phi3", "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 16}
    found = find(
        {"self_attn.qkv_proj.weight": (32, 16), "mlp.gate_up_proj.weight": (40, 16),
         "mlp.down_proj.weight": (16, 20)},
        config,
    )  # fmt: skip
    layers = by_name(found)
    assert [layers[f"self_attn.qkv_proj.{p}"].matrix_shape for p in "qkv"] == [(16, 16), (8, 16), (8, 16)]
    assert layers["self_attn.qkv_proj.v"].assumptions == (
        "rows taken as queries, keys, values (4 heads, 2 key-value heads in the config)",
    )
    assert layers["mlp.gate_up_proj.up"].matrix_shape == (20, 16)
    assert layers["mlp.gate_up_proj.up"].assumptions == (
        "first half of the rows taken as gate, second as up",
    )


@pytest.mark.parametrize("model", ["gpt_neox", "bloom", ""])
def test_rows_interleaved_by_head(model: str) -> None:
    heads, size, hidden = 3, 4, 12
    name = "attention.query_key_value"
    packed = torch.randn(3 * hidden, hidden)
    config = {"num_attention_heads": heads, "hidden_size": hidden} | ({"model_type": model} if model else {})
    found = by_name(find({f"{name}.weight": (3 * hidden, hidden)}, config))
    truth = packed.reshape(heads, 3, size, hidden)
    for i, part in enumerate("qkv"):
        ours = weight(found[f"{name}.{part}"], {f"{name}.weight": packed})
        torch.testing.assert_close(ours, truth[:, i].reshape(hidden, hidden))


def test_falcon_multi_query() -> None:
    config = {"model_type": "falcon", "num_attention_heads": 4, "hidden_size": 16, "multi_query": True}
    found = by_name(find({"query_key_value.weight": (24, 16)}, config))
    assert [found[f"query_key_value.{p}"].matrix_shape for p in "qkv"] == [(16, 16), (4, 16), (4, 16)]


def test_internlm2_groups_queries_with_their_key() -> None:
    config = {"model_type": "internlm2", "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 8}
    packed = torch.randn(16, 8)
    found = by_name(find({"wqkv.weight": (16, 8)}, config))
    truth = packed.reshape(2, 4, 2, 8)
    state = {"wqkv.weight": packed}
    torch.testing.assert_close(weight(found["wqkv.q"], state), truth[:, :2].reshape(8, 8))
    torch.testing.assert_close(weight(found["wqkv.v"], state), truth[:, 3].reshape(4, 8))


@pytest.mark.parametrize(
    ("name", "shape", "config"),
    [
        ("query_key_value", (36, 12), {}),
        ("qkv_proj", (32, 16), {}),
        ("qkv_proj", (48, 16), {"model_type": "codegen"}),
        ("query_key_value", (36, 12), {"num_attention_heads": 5, "hidden_size": 12}),
    ],
)
def test_unknown_layouts_stay_whole_and_say_so(
    name: str, shape: tuple[int, int], config: dict[str, object]
) -> None:
    layer = find({f"{name}.weight": shape, f"{name}.bias": (shape[0],)}, config).layers[0]
    assert layer.name == name
    assert layer.matrix_shape == shape
    assert layer.bias == f"{name}.bias"
    assert layer.assumptions == ("query, key and value not separated: their layout is not known",)


def test_vit() -> None:
    found = find(
        {"cls_token": (1, 1, 12), "pos_embed": (1, 5, 12), "patch_embed.proj.weight": (12, 3, 4, 4),
         "patch_embed.proj.bias": (12,), "blocks.0.norm1.weight": (12,), "blocks.0.norm1.bias": (12,),
         "blocks.0.attn.qkv.weight": (36, 12), "blocks.0.attn.qkv.bias": (36,),
         "blocks.0.attn.proj.weight": (12, 12), "blocks.0.attn.proj.bias": (12,),
         "blocks.0.norm2.weight": (12,), "blocks.0.norm2.bias": (12,), "blocks.0.mlp.fc1.weight": (48, 12),
         "blocks.0.mlp.fc1.bias": (48,), "norm.weight": (12,), "norm.bias": (12,)}
    )  # fmt: skip
    assert [layer.kind for layer in found.layers] == ["conv2d"] + ["linear"] * 5
    assert all(layer.normalization is None for layer in found.layers)
    assert reasons(found)["blocks.0.attn.qkv.bias"] == "bias of blocks.0.attn.qkv"
    assert reasons(found)["blocks.0.norm1.weight"] == "gain of layer normalisation blocks.0.norm1"
