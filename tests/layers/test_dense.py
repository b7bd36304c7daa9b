from __future__ import annotations

from specinspect.checkpoint.model import ModuleFacts
from specinspect.layers.model import Stored
from tests.layers.build import by_name, find, reasons


def test_mlp_with_biases() -> None:
    found = find({"0.weight": (16, 4), "0.bias": (16,), "2.weight": (3, 16), "2.bias": (3,)})
    assert [layer.name for layer in found.layers] == ["0", "2"]
    first = found.layers[0]
    assert (first.kind, first.matrix_shape, first.bias) == ("linear", (16, 4), "0.bias")
    assert first.weight == Stored("0.weight")
    assert first.assumptions == ()
    assert reasons(found) == {"0.bias": "bias of 0", "2.bias": "bias of 2"}


def test_raw_names_take_their_orientation_from_the_bias() -> None:
    found = by_name(find({"W1": (784, 128), "b1": (128,), "W2": (128, 10), "b2": (10,), "V": (3, 3)}))
    assert found["W1"].weight == Stored("W1", transpose=True)
    assert found["W1"].matrix_shape == (128, 784)
    assert found["W1"].bias == "b1"
    assert found["W1"].assumptions == ()
    assert found["V"].assumptions == ("taken as a linear map (out, in): it is no module's weight",)


def test_embeddings_by_name_and_by_type() -> None:
    names = ["wte", "model.embed_tokens", "emb.0", "shared", "h.relative_attention_bias", "tok_embeddings"]
    found = by_name(find({f"{name}.weight": (100, 8) for name in names}))
    for name in names:
        layer = found[name]
        assert (layer.kind, layer.matrix_shape, layer.shape) == ("embedding", (8, 100), (100, 8))
        assert layer.weight == Stored(f"{name}.weight", transpose=True)
        assert layer.assumptions == ("taken as an embedding by its name",)
    typed = find({"table.weight": (100, 8)}, modules={"table": ModuleFacts("Embedding", {})}).layers[0]
    assert (typed.kind, typed.assumptions) == ("embedding", ())


def test_what_only_sounds_like_an_embedding_is_linear() -> None:
    found = find(
        {"time_embed.0.weight": (32, 8), "time_embed.0.bias": (32,), "embed_out.weight": (100, 8),
         "embed.weight": (100, 8), "patch_embed.proj.weight": (8, 12)},
        modules={"embed": ModuleFacts("Linear", {})},
    )  # fmt: skip
    assert {layer.kind for layer in found.layers} == {"linear"}


def test_keras_kernels_are_in_out() -> None:
    layer = find({"dense.kernel": (4, 16)}).layers[0]
    assert (layer.name, layer.matrix_shape) == ("dense.kernel", (16, 4))
    assert layer.assumptions == ("taken as stored (in, out), as kernels are in Keras and Flax",)
    skipped = reasons(find({"dense.kernel": (4, 16), "conv.kernel": (3, 3, 8, 16)}))
    assert skipped["conv.kernel"] == "kernel in channels-last layout (3×3×8×16): not analysed"


def test_position_tables_and_tokens_are_no_maps() -> None:
    found = find(
        {"pos_embed": (1, 197, 192), "cls_token": (1, 1, 192), "query_tokens": (1, 32, 192),
         "head.weight": (10, 192), "attn.relative_position_bias_table": (169, 3), "gain": (1, 192)}
    )  # fmt: skip
    assert [layer.name for layer in found.layers] == ["head"]
    assert reasons(found) == {
        "pos_embed": "position table, not a linear map",
        "cls_token": "learned token, not a linear map",
        "query_tokens": "learned token, not a linear map",
        "attn.relative_position_bias_table": "relative position table",
        "gain": "vector stored as 1×192",
    }


def test_gpt2_conv1d_orientation() -> None:
    tensors = {"wte.weight": (50, 8)}
    for leaf, shape, bias in (
        ("attn.c_attn", (8, 24), 24), ("attn.c_proj", (8, 8), 8), ("mlp.c_fc", (8, 32), 32),
        ("mlp.c_proj", (32, 8), 8)
    ):  # fmt: skip
        tensors[f"h.0.{leaf}.weight"] = shape
        tensors[f"h.0.{leaf}.bias"] = (bias,)  # type: ignore[assignment]
    tensors["h.0.attn.bias"] = (1, 1, 10, 10)  # type: ignore[assignment]
    found = find(tensors, {"model_type": "gpt2", "n_head": 2, "n_embd": 8})
    layers = by_name(found)
    for part, start in (("q", 0), ("k", 8), ("v", 16)):
        layer = layers[f"h.0.attn.c_attn.{part}"]
        assert layer.weight == Stored("h.0.attn.c_attn.weight", transpose=True, rows=((start, start + 8),))
        assert layer.matrix_shape == (8, 8)
    assert layers["h.0.mlp.c_fc"].matrix_shape == (32, 8)
    assert layers["h.0.mlp.c_fc"].assumptions == ()
    square = layers["h.0.attn.c_proj"]
    assert square.weight == Stored("h.0.attn.c_proj.weight", transpose=True)
    assert square.assumptions == ("taken as stored (in, out), like the layers beside it",)
    assert square.bias == "h.0.attn.c_proj.bias"
    assert reasons(found)["h.0.attn.bias"] == "mask or bias table, not a linear map"
    assert reasons(found)["h.0.attn.c_attn.bias"] == "bias of h.0.attn.c_attn"


def test_nanogpt_uses_the_same_names_for_out_in() -> None:
    layers = by_name(find({"h.0.attn.c_attn.weight": (24, 8), "h.0.attn.c_proj.weight": (8, 8)}))
    assert layers["h.0.attn.c_attn.q"].weight == Stored("h.0.attn.c_attn.weight", rows=((0, 8),))
    assert layers["h.0.attn.c_proj"].weight == Stored("h.0.attn.c_proj.weight")


def test_only_the_name_decides() -> None:
    alone = find({"h.0.attn.c_proj.weight": (8, 8)}).layers[0]
    assert alone.assumptions == ("taken as stored (in, out) by its name, as in GPT-2",)
