"""Values go through the codec and come back with every bit."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from specinspect.bounds.model import BoundCheck
from specinspect.cache.codec import MismatchError, codec
from specinspect.report.model import BlockResult, LayerResult
from specinspect.spectra.model import (
    Histogram,
    PaddingBounds,
    PatternStatistics,
    Range,
    SkipCurve,
    Spectrum,
    Tau,
)
from tests.report import canned

FLOATS = st.floats(allow_nan=True, allow_infinity=True, allow_subnormal=True)
MAYBE = st.none() | FLOATS
TEXT = st.text(st.characters())  # lone surrogates too
RANGES = st.builds(Range, MAYBE, MAYBE, MAYBE)
FLOAT_TUPLES = st.lists(FLOATS, max_size=5).map(tuple)
SPECTRA = st.builds(
    Spectrum,
    count=st.integers(),
    sigma_max=MAYBE,
    sigma_min=MAYBE,
    condition_number=MAYBE,
    condition_number_status=st.sampled_from(["resolved", "infinite", "nonfinite_weights"]),
    pseudo_condition_number=MAYBE,
    numerical_rank=st.none() | st.integers(),
    stable_rank=MAYBE,
    effective_rank=MAYBE,
    frobenius_norm=MAYBE,
    storage_floor=MAYBE,
    computation_floor=MAYBE,
    method=TEXT,
    device=TEXT,
    histogram=st.none()
    | st.builds(Histogram, FLOAT_TUPLES, st.lists(st.integers()).map(tuple), st.integers()),
    nonfinite=st.integers(),
    singular_values=st.none() | st.lists(FLOATS, max_size=20).map(lambda v: np.array(v, dtype=np.float64)),
    patterns=st.none()
    | st.builds(PatternStatistics, st.integers(), RANGES, st.dictionaries(TEXT, RANGES, max_size=3)),
)
CHECKS = st.builds(
    BoundCheck,
    id=TEXT,
    of=TEXT,
    verdict=st.sampled_from(["holds", "violated", "vacuous", "not_applicable"]),
    value=MAYBE,
    bound=MAYBE,
    slack=MAYBE,
    probability=MAYBE,
    why=TEXT,
    assumptions=st.lists(TEXT, max_size=2).map(tuple),
)
LAYERS = st.builds(
    LayerResult,
    layer=st.just(canned.report().layers[0].layer),
    maps=st.dictionaries(TEXT, SPECTRA, max_size=2),
    seconds=FLOATS,
    grid=st.none() | st.lists(st.integers(), max_size=3).map(tuple),
    tau=st.none() | st.builds(Tau, FLOATS, FLOATS),
    boundary=st.none() | TEXT,
    padding_bounds=st.none() | st.builds(PaddingBounds, frobenius_norm=MAYBE, enlarged_reason=TEXT),
    skip_curve=st.none() | st.builds(SkipCurve, FLOAT_TUPLES, FLOAT_TUPLES, FLOAT_TUPLES, FLOAT_TUPLES),
    notes=st.lists(TEXT, max_size=2).map(tuple),
    bounds=st.lists(CHECKS, max_size=2).map(tuple),
)


def through(hint: Any, value: Any) -> Any:
    """Write a value as bytes and read it back."""
    known = codec(hint)
    return known.decode(json.loads(json.dumps(known.encode(value)).encode("ascii")))


def bits(value: Any) -> Any:
    """Return something that is equal only for values of the same types and bits."""
    if isinstance(value, np.ndarray):
        return ("array", value.dtype.str, value.shape, value.tobytes())
    if isinstance(value, float):
        return ("float", "nan" if math.isnan(value) else struct.pack("<d", value))
    if isinstance(value, list | tuple):
        return (type(value).__name__, [bits(item) for item in value])
    if isinstance(value, Mapping):
        return ("mapping", [(key, bits(item)) for key, item in value.items()])
    if is_dataclass(value):
        return (type(value), [(f.name, bits(getattr(value, f.name))) for f in fields(value)])
    return (type(value), value)


@given(SPECTRA)
def test_spectra_keep_every_bit(spectrum: Spectrum) -> None:
    assert bits(through(Spectrum, spectrum)) == bits(spectrum)


@given(LAYERS)
def test_results_keep_every_bit_and_their_layer_is_put_back(result: LayerResult) -> None:
    known = codec(LayerResult, ("layer",))
    data = json.loads(json.dumps(known.encode(result)))
    assert bits(known.decode(data, layer=result.layer)) == bits(result)


def test_every_kind_of_result_has_a_codec() -> None:
    """Fails where a field of a new type was added that the codec does not know."""
    assert "sigma_max" in codec(LayerResult, ("layer",)).shape
    assert "heads" in codec(BlockResult, ("block",)).shape


@dataclass(frozen=True)
class Inner:
    text: str = ""


@dataclass(frozen=True, eq=False)
class Everything:
    pair: tuple[int, float]
    either: Inner | tuple[int, ...] | None
    names: list[str]
    scalar: int | str | None
    word: Literal["a", "b"]
    table: Mapping[str, tuple[Inner, ...]]
    counts: NDArray[np.int64]
    matrix: NDArray[np.float64] | None = None
    later: tuple[float, ...] = field(default=())


VALUES = (
    Everything((1, -0.0), Inner("x"), ["y"], 3, "a", {"k": (Inner(),)}, np.arange(3)),
    Everything((0, 5e-324), (1, 2), [], "3", "b", {}, np.zeros((0, 2), np.int64), np.eye(2, 3)),
    Everything((0, 1), None, [], None, "b", {}, np.arange(1), np.array(-0.0), (math.inf, math.nan)),
)


@pytest.mark.parametrize("value", VALUES)
def test_fields_of_new_types(value: Everything) -> None:
    assert bits(through(Everything, value)) == bits(value)


def test_an_array_that_is_not_contiguous_or_not_writable() -> None:
    matrix = np.arange(6.0).reshape(2, 3).T
    back = through(Everything, Everything((0, 1), None, [], None, "b", {}, np.arange(1), matrix))
    assert np.array_equal(back.matrix, matrix)
    back.matrix[0, 0] = 7  # a computed one may be written to


@pytest.mark.parametrize(
    "wrong",
    [
        {"pair": [1, 2.0]},
        {"pair": (1.0, 2.0)},
        {"pair": (True, 2.0)},
        {"names": ("x",)},
        {"word": "c"},
        {"either": "x"},
        {"table": {1: ()}},
        {"counts": np.zeros(2)},
        {"matrix": np.zeros(2, np.float32)},
        {"matrix": [1.0]},
    ],
)
def test_a_value_that_is_not_what_its_hint_says_is_refused(wrong: dict[str, Any]) -> None:
    value = Everything(**{f.name: getattr(VALUES[0], f.name) for f in fields(Everything)} | wrong)
    with pytest.raises(MismatchError):
        codec(Everything).encode(value)


@pytest.mark.parametrize("number", range(len(fields(Everything))))
@pytest.mark.parametrize("forged", [None, True, 1, 1.5, "x", [], [1], {}, {"x": 1}, [[1], "!"], [7, 1]])
def test_forged_data_is_never_decoded_into_another_type(number: int, forged: object) -> None:
    known = codec(Everything)
    data = known.encode(VALUES[1])
    data[number] = forged
    try:
        value = known.decode(data)
    except Exception:  # refused: any error does, the cache takes them all for damage
        return
    assert known.encode(value)[number] == forged  # it was one of the right type after all


def test_missing_and_further_fields_are_refused() -> None:
    data = codec(Everything).encode(VALUES[0])
    for wrong in (data[:-1], [*data, 1], dict(enumerate(data)), None):
        with pytest.raises((TypeError, ValueError)):
            codec(Everything).decode(wrong)


@pytest.mark.parametrize("hint", [object, Any, bytes, dict[int, str], set[int], complex, Inner | object])
def test_types_that_cannot_be_kept_are_said(hint: Any) -> None:
    with pytest.raises(MismatchError):
        codec(hint)
