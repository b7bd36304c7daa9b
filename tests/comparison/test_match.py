"""Which layers are paired, and that it is said when names had to be changed for it."""

from __future__ import annotations

import numpy as np
import pytest

from specinspect.comparison.match import match
from specinspect.comparison.model import Prefixes
from specinspect.errors import LayerError, SettingsError
from specinspect.layers.model import Layer, Stored
from tests.comparison.truth import Matrix, compared


def layers(*names: str, shape: tuple[int, int] = (4, 4)) -> list[Layer]:
    return [
        Layer(name, "linear", (f"{name}.weight",), shape, shape, "f32", Stored(f"{name}.weight"))
        for name in names
    ]


def names(a: list[Layer], b: list[Layer]) -> tuple[list[tuple[str, str]], Prefixes | None]:
    found = match(a, b)
    assert len(found.pairs) + len(found.only_in_a) == len(a)
    assert len(found.pairs) + len(found.only_in_b) == len(b)
    return [(x.name, y.name) for x, y in found.pairs], found.prefixes


def test_equal_names_in_any_order() -> None:
    assert names(layers("a", "b", "c"), layers("c", "x", "a")) == ([("a", "a"), ("c", "c")], None)


@pytest.mark.parametrize("prefix", ["module.", "model.", "_orig_mod.", "a.b.c."])
def test_a_prefix_on_either_side(prefix: str) -> None:
    plain, long = ["enc.0.q", "enc.1.q", "fc"], [f"{prefix}{n}" for n in ("enc.0.q", "enc.1.q", "fc")]
    both = list(zip(plain, long, strict=True))
    assert names(layers(*plain), layers(*long)) == (both, Prefixes("", prefix))
    assert names(layers(*long), layers(*plain)) == ([(y, x) for x, y in both], Prefixes(prefix, ""))


def test_a_prefix_on_each_side() -> None:
    a, b = layers("model.enc.0.q", "model.enc.1.q"), layers("net.enc.0.q", "net.enc.1.q", "head")
    pairs, prefixes = names(a, b)
    assert pairs == [("model.enc.0.q", "net.enc.0.q"), ("model.enc.1.q", "net.enc.1.q")]
    assert prefixes == Prefixes("model.", "net.")


def test_other_blocks_are_not_the_same_block_renamed() -> None:
    a = layers("x.0.q", "x.0.k", "x.1.q", "x.1.k", "fc")
    b = layers("x.1.q", "x.1.k", "x.2.q", "x.2.k", "fc")
    assert names(a, b) == ([("x.1.q", "x.1.q"), ("x.1.k", "x.1.k"), ("fc", "fc")], None)


def test_two_equally_good_prefixes_are_none() -> None:
    assert names(layers("0", "1"), layers("enc.0", "enc.1", "dec.0", "dec.1")) == ([], None)


def test_equal_tails_of_other_shapes_do_not_vote() -> None:
    assert names(layers("fc"), layers("model.fc", shape=(4, 5))) == ([], None)


def test_a_thousand_layers_are_matched_quickly() -> None:
    tails = [f"layers.{i}.{n}" for i in range(300) for n in ("q", "k", "v", "o")]
    pairs, prefixes = names(layers(*tails), layers(*(f"model.{t}" for t in tails)))
    assert len(pairs) == 1200
    assert prefixes == Prefixes("", "model.")


EYE: Matrix = np.eye(4)


def test_permuted_order_changes_nothing() -> None:
    a = {f"l{i}.weight": np.diag(np.arange(1.0, 5.0) + i) for i in range(3)}
    b = {name: a[name] for name in reversed(a)}
    found = compared(a, b)
    assert found.summary.verdict == "identical"
    assert [layer.name for layer in found.layers] == ["l0", "l1", "l2"]


def test_no_common_layer_is_an_error() -> None:
    with pytest.raises(LayerError, match="no layer in common"):
        compared({"a.weight": EYE}, {"b.weight": np.eye(5)})


def test_selection_goes_by_either_name() -> None:
    a = {"q.weight": EYE, "k.weight": 2 * EYE}
    b = {f"bert.{name}": value for name, value in a.items()}
    for glob in ("q", "bert.q"):
        found = compared(a, b, layers=(glob,))
        assert [(layer.name, layer.b.layer.name) for layer in found.layers] == [("q", "bert.q")]
        assert found.others is None
    assert [la.name for la in compared(a, b, exclude=("bert.q",)).layers] == ["k"]
    with pytest.raises(LayerError, match="no layer left"):
        compared(a, b, layers=("nothing",))


def test_tensors_in_no_layer_count_too() -> None:
    a = {"fc.weight": EYE, "fc.bias": np.zeros(4), "ln.weight": np.ones(4), "old.bias": np.ones(2)}
    b = {"fc.weight": EYE, "fc.bias": np.ones(4), "ln.weight": np.ones(4)}
    found = compared(a, b)
    assert found.summary.identical == 1
    assert found.summary.verdict == "different"
    assert (found.others.identical, found.others.changed) == (1, ("fc.bias",))
    assert (found.others.only_in_a, found.others.only_in_b) == (("old.bias",), ())
    prefixed = compared(a, {f"m.{name}": value for name, value in a.items()})
    assert prefixed.prefixes == Prefixes("", "m.")
    assert prefixed.summary.verdict == "identical"


def test_a_weight_that_is_tied_on_one_side_only() -> None:
    import torch

    tied = torch.eye(4)
    a = {"embed.weight": tied, "head.weight": tied}
    b = {"embed.weight": tied.clone(), "head.weight": 2 * tied}
    for one, other in ((a, b), (b, a)):
        found = compared(one, other)
        assert found.others.changed == ("head.weight",)
        assert found.others.only_in_a == found.others.only_in_b == ()
        assert found.summary.verdict == "different"


def test_the_order_is_that_of_movement() -> None:
    infinite = np.diag([1.0, 1, 1, 0])
    nan = EYE.copy()
    nan[0, 1] = np.nan
    names_ = ("same", "little", "much", "dead", "shape", "nan")
    a = {f"{name}.weight": EYE.copy() for name in names_}
    b = {
        "same.weight": EYE,
        "little.weight": 1.5 * EYE,
        "much.weight": 9.0 * EYE,
        "dead.weight": infinite,
        "shape.weight": np.eye(4, 5),
        "nan.weight": nan,
    }
    assert [la.name for la in compared(a, b).layers] == ["nan", "shape", "dead", "much", "little", "same"]


def test_unused_settings_are_said() -> None:
    found = compared({"a.weight": EYE}, {"a.weight": EYE}, curve=True, conv_operator="padded")
    assert "compare does not use curve, conv_operator" in found.notices
    with pytest.raises(SettingsError, match="unknown setting"):
        compared({"a.weight": EYE}, {"a.weight": EYE}, gird=3)


def test_chain_and_skip_on_request() -> None:
    rng = np.random.default_rng(0)
    a = {"fc1.weight": rng.standard_normal((8, 8)), "fc1.bias": rng.standard_normal(8)}
    same = compared(a, {f"m.{n}": v.copy() for n, v in a.items()}, maps=("chain", "skip"), activation="relu")
    (layer,) = same.layers
    assert set(layer.a.maps) == {"weight", "chain", "skip"}
    assert layer.spectral_distance == {"weight": 0.0, "skip": 0.0}
    for name in layer.a.maps:  # the same random inputs on both sides, whatever the prefix
        assert layer.a.maps[name].sigma_max == layer.b.maps[name].sigma_max
    other = compared(a, {**a, "fc1.bias": -a["fc1.bias"]}, maps=("chain",), activation="relu")
    (layer,) = other.layers
    assert layer.identical
    assert layer.a.maps["chain"].frobenius_norm != layer.b.maps["chain"].frobenius_norm


def test_both_sides_see_the_same_random_inputs() -> None:
    rng = np.random.default_rng(0)
    a = {"fc1.weight": rng.standard_normal((8, 8)), "fc1.bias": rng.standard_normal(8)}
    doubled = {f"m.{name}": 2 * value for name, value in a.items()}  # the same signs, hence the same D
    (layer,) = compared(a, doubled, maps=("chain",), activation="relu").layers
    one, other = layer.a.maps["chain"], layer.b.maps["chain"]
    assert other.frobenius_norm == pytest.approx(2 * one.frobenius_norm, rel=1e-12)
    assert other.patterns.active_fraction == one.patterns.active_fraction


def test_singular_values_only_on_request() -> None:
    a, b = {"a.weight": EYE}, {"a.weight": 2 * EYE}
    assert compared(a, b).layers[0].a.maps["weight"].singular_values is None
    kept = compared(a, b, spectra=True).layers[0]
    assert kept.b.maps["weight"].singular_values.tolist() == [2.0] * 4


def test_public_names() -> None:
    import specinspect
    from specinspect.comparison.run import compare

    assert specinspect.compare is compare
    assert specinspect.Comparison.__name__ == "Comparison"
