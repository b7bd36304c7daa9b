from __future__ import annotations

from typing import Any

import pytest

from specinspect.errors import SettingsError
from specinspect.layers import Layer, Rule, apply_facts, discover, unmatched_rules
from specinspect.layers.model import Fact, Skip
from tests.layers.build import Header, batch_norm, by_name, check_invariant, checkpoint, reasons

TENSORS: dict[str, Header] = {
    "enc.conv1.weight": (8, 4, 3, 3), "enc.conv1.bias": (8,), **batch_norm("enc.bn1", 8),
    "enc.conv2.weight": (8, 8, 3, 3), "enc.conv3.weight": (8, 8, 5), "up.weight": (8, 8, 2, 2),
    "emb.weight": (10, 4), "q_proj.lora_A.weight": (2, 8), "q_proj.lora_B.weight": (8, 2),
    "fc.weight": (2, 8), "sq.weight": (8, 8),
}  # fmt: skip


def ruled(*rules: Rule, tensors: dict[str, Header] = TENSORS) -> dict[str, Layer]:
    source = checkpoint(tensors)
    found = apply_facts(discover(source), source, rules=rules)
    check_invariant(source, found)
    return by_name(found)


def test_the_last_matching_rule_counts_for_each_fact() -> None:
    layers = ruled(
        Rule("enc.*", activation="tanh", stride=2, grid=8),
        Rule("enc.conv1", stride=(1, 2), padding="same", dilation=2),
        Rule("*1", padding=(0, 3), groups=2),
        Rule("*", grid=32, activation="elu"),
        Rule("enc.conv2", activation="leaky_relu:0.1"),
    )
    conv = layers["enc.conv1"].conv
    assert conv is not None
    assert (conv.stride, conv.dilation) == (Fact((1, 2), "config"), Fact((2, 2), "config"))
    assert (conv.padding, conv.groups) == (Fact((0, 3), "config"), Fact(2, "config"))
    assert layers["enc.conv1"].matrix_shape == (8, 8)
    assert layers["enc.conv1"].assumptions == ()
    assert layers["enc.conv1"].bias == "enc.conv1.bias"
    assert layers["enc.conv1"].skip == Skip("average-pool", "assumed")
    assert layers["enc.conv2"].skip == Skip("average-pool", "assumed")
    after = layers["enc.conv2"].activation
    assert (after.name, after.slope, after.source) == ("leaky_relu", 0.1, "config")
    assert (layers["fc"].activation.name, layers["fc"].activation.slope) == ("elu", 1.0)
    assert (layers["enc.conv1"].grid, layers["fc"].grid) == (32, None)


@pytest.mark.parametrize(
    ("padding", "dilation", "low"), [("same", 1, (2,)), ("same", 3, (6,)), ("valid", 1, (0,)), (4, 2, (4,))]
)
def test_padding(padding: Any, dilation: int, low: tuple[int, ...]) -> None:
    conv = ruled(Rule("enc.conv3", padding=padding, dilation=dilation))["enc.conv3"].conv
    assert conv is not None
    assert conv.padding == Fact(low, "config")


def test_groups_take_the_place_of_inferred_ones() -> None:
    tensors: dict[str, Header] = {"dw.weight": (8, 1, 3, 3), "pw.weight": (8, 8, 1, 1)}
    assert any(note.startswith("groups 8 inferred") for note in ruled(tensors=tensors)["dw"].assumptions)
    layer = ruled(Rule("dw", groups=4), tensors=tensors)["dw"]
    assert layer.matrix_shape == (8, 4)
    assert not any("groups" in note for note in layer.assumptions)
    assert layer.skip == Skip("none", "assumed")


def test_groups_of_a_transposed_convolution() -> None:
    tensors: dict[str, Header] = {"deconv.weight": (8, 4, 2, 2), "deconv.bias": (8,), "fc.weight": (2, 8)}
    layer = ruled(Rule("deconv", groups=2), tensors=tensors)["deconv"]
    assert (layer.matrix_shape, layer.bias) == ((8, 8), "deconv.bias")
    with pytest.raises(SettingsError, match="groups 4 give layer 'deconv' 16 outputs, its bias has 8"):
        ruled(Rule("deconv", groups=4), tensors=tensors)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (
            Rule("enc.*", stride=(1, 2)),
            "rule 'enc.*': stride: expected one number or 1 for layer 'enc.conv3'",
        ),
        (Rule("enc.conv1", dilation=(1,)), "dilation: expected one number or 2 for layer 'enc.conv1'"),
        (Rule("enc.conv1", padding=(1, 1, 1)), "padding: expected one number or 2 for layer 'enc.conv1'"),
        (Rule("fc", stride=1), "rule 'fc': stride set for layer 'fc', which is linear"),
        (Rule("emb", padding=1), "padding set for layer 'emb', which is embedding"),
        (Rule("fc", groups=2, grid=4), "groups set for layer 'fc', which is linear"),
        (Rule("enc.conv1", groups=3), "groups 3 do not divide the 8 channels of layer 'enc.conv1' (8×4×3×3)"),
        (Rule("fc", skip="identity"), "skip 'identity' does not fit layer 'fc': linear 2×8 is not square"),
        (Rule("sq", skip="average-pool"), "linear 8×8 has no stride"),
        (Rule("enc.conv2", stride=2, skip="identity"), "conv2d 8×8 has a stride"),
        (Rule("emb", skip="rectangular-identity"), "embedding 4×10 has no skip map"),
        (Rule("up", stride=2, skip="average-pool"), "conv_transpose2d 8×8 has no skip map"),
    ],
)
def test_rules_that_do_not_fit(rule: Rule, message: str) -> None:
    with pytest.raises(SettingsError) as error:
        ruled(rule)
    assert error.value.message.startswith(f"rule {rule.glob!r}: ")
    assert message in error.value.message


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"activation": "rellu"}, "rule 'a': unknown activation 'rellu'"),
        ({"activation": "relu:1"}, "rule 'a': activation 'relu' takes no slope, got '1'"),
        ({"skip": "pool"}, "rule 'a': unknown skip 'pool'"),
        ({"stride": (1, 0)}, "rule 'a': stride: expected whole numbers of at least 1, got (1, 0)"),
        (
            {"padding": -1},
            "rule 'a': padding: expected whole numbers of at least 0, 'same' or 'valid', got -1",
        ),
        ({"groups": True}, "rule 'a': groups: expected a whole number of at least 1, got True"),
        ({"grid": 0}, "rule 'a': grid: expected a whole number of at least 1, got 0"),
    ],
)
def test_values_that_make_no_sense(facts: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError) as error:
        Rule("a", **facts)
    assert error.value.message == message


def test_rules_that_match_nothing_are_told() -> None:
    layers = tuple(ruled().values())
    rules = (
        Rule("enc.*", activation="relu"),
        Rule("enc.conv9", grid=4),
        Rule("fc", grid=4),
        Rule("zzzzzz", grid=4),
        Rule("*", grid=4),
    )
    assert unmatched_rules(layers, rules) == (
        f"rule 'enc.conv9' matches none of {len(layers)} layers; did you mean 'enc.conv3'?",
        "rule 'fc' sets a grid but matches no convolution",
        f"rule 'zzzzzz' matches none of {len(layers)} layers",
    )
    assert unmatched_rules(layers, ()) == ()


def test_skips_by_rule_and_reasons_stay() -> None:
    layers = ruled(
        Rule("*", skip="none"), Rule("fc", skip="rectangular-identity"), Rule("sq", skip="identity")
    )
    assert {layer.skip.source for layer in layers.values()} == {"config"}
    assert [layers[name].skip.kind for name in ("emb", "fc", "sq")] == [
        "none",
        "rectangular-identity",
        "identity",
    ]
    source = checkpoint(TENSORS)
    found = apply_facts(discover(source), source)
    assert reasons(found) == reasons(discover(source))
