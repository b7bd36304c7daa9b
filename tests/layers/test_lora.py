from __future__ import annotations

from math import sqrt

import pytest

from specinspect.layers.model import Product
from tests.layers.build import Header, by_name, find, reasons

PEFT: dict[str, Header] = {
    "base_model.model.q.base_layer.weight": (16, 8),
    "base_model.model.q.lora_A.default.weight": (4, 8),
    "base_model.model.q.lora_B.default.weight": (16, 4),
}


@pytest.mark.parametrize(
    ("settings", "scale"),
    [
        ({"lora_alpha": 32}, 8.0),
        ({"lora_alpha": 32, "use_rslora": True}, 32 / sqrt(4)),
        ({"lora_alpha": 32, "alpha_pattern": {"model.q": 2}}, 0.5),
    ],
)
def test_peft_scale(settings: dict[str, object], scale: float) -> None:
    layers = by_name(find(PEFT, {"adapter_config": settings}))
    layer = layers["base_model.model.q.lora"]
    up, down = "base_model.model.q.lora_B.default.weight", "base_model.model.q.lora_A.default.weight"
    assert layer.weight == Product(up, down, scale)
    assert (layer.kind, layer.matrix_shape, layer.parameters) == ("lora", (16, 8), (up, down))
    assert layer.assumptions == ()
    assert layers["base_model.model.q.base_layer"].kind == "linear"


def test_without_alpha_the_scale_is_assumed() -> None:
    layer = by_name(find(PEFT))["base_model.model.q.lora"]
    assert layer.assumptions == ("adapter scale 1 assumed: no alpha stored",)


def test_several_adapters_and_plain_names() -> None:
    found = find(
        {"q.lora_A.weight": (4, 8), "q.lora_B.weight": (8, 4), "q.lora_A.french.weight": (2, 8),
         "q.lora_B.french.weight": (8, 2), "v.lora_A": (4, 8), "v.lora_B": (8, 4)}
    )  # fmt: skip
    assert [layer.name for layer in found.layers] == ["q.lora", "q.lora.french", "v.lora"]


def test_embedding_adapter() -> None:
    layer = find({"emb.lora_embedding_A.default": (4, 100), "emb.lora_embedding_B.default": (8, 4)}).layers[0]
    assert layer.matrix_shape == (8, 100)


def test_kohya_alpha_tensor_and_convolution() -> None:
    found = find(
        {"lora_unet_q.alpha": (),
         "lora_unet_q.lora_down.weight": (4, 8), "lora_unet_q.lora_up.weight": (16, 4),
         "lora_unet_c.lora_down.weight": (4, 8, 3, 3), "lora_unet_c.lora_up.weight": (16, 4, 1, 1)}
    )  # fmt: skip
    layers = by_name(found)
    assert layers["lora_unet_q.lora"].weight == Product(
        "lora_unet_q.lora_up.weight", "lora_unet_q.lora_down.weight", alpha="lora_unet_q.alpha"
    )
    assert "lora_unet_q.alpha" in layers["lora_unet_q.lora"].parameters
    conv = layers["lora_unet_c.lora"]
    assert (conv.kind, conv.shape, conv.matrix_shape) == ("lora", (16, 8, 3, 3), (16, 8))
    assert conv.conv is not None
    assert conv.conv.kernel == (3, 3)


def test_diffusers_names() -> None:
    found = find({"to_q_lora.down.weight": (4, 8), "to_q_lora.up.weight": (8, 4)})
    assert found.layers[0].name == "to_q.lora"


def test_what_does_not_fit_is_said() -> None:
    found = find(
        {**PEFT, "a.lora_A.weight": (4, 8), "b.lora_A.weight": (4, 8), "b.lora_B.weight": (8, 5),
         "base_model.model.q.lora_magnitude_vector.default.weight": (16,), "c.hada_w1_a": (4, 4)}
    )  # fmt: skip
    skipped = reasons(found)
    assert skipped["a.lora_A.weight"] == "low-rank factor of a without its partner"
    assert skipped["b.lora_A.weight"] == "low-rank factors do not multiply (8×5 and 4×8)"
    assert skipped["base_model.model.q.lora_magnitude_vector.default.weight"] == "DoRA magnitude: not applied"
    assert skipped["c.hada_w1_a"] == "adapter factor of a kind that is not recomposed"
    assert "DoRA magnitude not applied" in by_name(found)["base_model.model.q.lora"].assumptions
