"""Which tensors beside the layers are looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from specinspect.layers import discover, select
from specinspect.layers.outside import Outside, outside
from tests.layers.build import Header, checkpoint

NET: dict[str, Header] = {
    "conv1.weight": (8, 3, 3, 3),
    "bn1.weight": (8,),
    "bn1.bias": (8,),
    "bn1.running_mean": (8,),
    "bn1.running_var": (8,),
    "bn1.num_batches_tracked": ("i64", ()),
    "encoder.in_norm.weight": (8,),
    "encoder.fc.weight": (8, 8),
    "encoder.fc.bias": (8,),
    "encoder.attn_mask": (8, 8),
    "encoder.act_observer.min_val": (1,),
    "token_scale": (8,),
}


def names(include: Sequence[str] = (), exclude: Sequence[str] = ()) -> list[str]:
    return [item.info.name for item in items(include, exclude)]


def items(include: Sequence[str] = (), exclude: Sequence[str] = ()) -> list[Outside]:
    source = checkpoint(NET)
    found = discover(source)
    chosen = select(found, include, exclude) if include or exclude else found
    return list(outside(found.layers, chosen, source.tensors, include, exclude))


def test_without_a_choice_everything_that_is_floating_point_and_no_weight() -> None:
    assert names() == [
        name for name in NET if name not in {"conv1.weight", "encoder.fc.weight", "bn1.num_batches_tracked"}
    ]


def test_a_bias_and_a_normalisation_go_with_their_layer() -> None:
    assert names(include=["conv1"]) == ["bn1.weight", "bn1.bias", "bn1.running_mean", "bn1.running_var"]
    assert names(include=["encoder.fc"]) == ["encoder.fc.bias"]
    assert not any(name.startswith("bn1") for name in names(exclude=["conv1"]))


def test_what_belongs_to_no_layer_goes_by_its_name() -> None:
    inside = {
        "encoder.in_norm.weight",
        "encoder.fc.bias",
        "encoder.attn_mask",
        "encoder.act_observer.min_val",
    }
    assert set(names(include=["encoder.*"])) == inside
    assert inside.isdisjoint(names(exclude=["encoder.*"]))
    assert "token_scale" in names(exclude=["encoder.*"])
    assert "token_scale" not in names(include=["encoder.*"])


def test_masks_and_observers_may_be_infinite_and_variances_not_negative() -> None:
    found = items()
    assert [i.info.name for i in found if i.infinite] == ["encoder.attn_mask", "encoder.act_observer.min_val"]
    assert [i.info.name for i in found if i.variance] == ["bn1.running_var"]


def test_tied_tensors_are_looked_at_once() -> None:
    source = checkpoint({"fc.weight": (4, 4), "a": (4,), "b": (4,)})
    tensors = dict(source.tensors)
    tensors["b"] = replace(tensors["a"], name="b")
    tensors["c"] = replace(tensors["fc.weight"], name="c")
    source = replace(source, tensors=tensors)
    found = discover(source)
    assert [i.info.name for i in outside(found.layers, found, tensors, (), ())] == ["a"]
