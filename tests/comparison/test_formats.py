"""One golden per format, and what must hold of any comparison."""

from __future__ import annotations

import io
import json
import os
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console

from specinspect.comparison.json import to_dict, to_json
from specinspect.comparison.markdown import to_markdown
from specinspect.comparison.model import Comparison
from specinspect.comparison.table import print_table, render
from specinspect.comparison.words import shorten, signed
from tests.comparison import canned
from tests.comparison.truth import compared

GOLDENS = Path(__file__).parent / "goldens"
SCHEMA = json.loads(files("specinspect.comparison").joinpath("schema.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    return canned.comparison()


def check_golden(name: str, text: str) -> None:
    """Compare with a golden file; UPDATE_GOLDENS=1 writes it instead."""
    path = GOLDENS / name
    if os.environ.get("UPDATE_GOLDENS") == "1":
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="")
    assert text == path.read_bytes().decode("utf-8")


def rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return float(f"{value:.3g}") if isinstance(value, float) else value


def table(comparison: Comparison, width: int, encoding: str = "utf-8", top: int | None = None) -> str:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, newline="")
    console = Console(file=stream, width=width, markup=False, highlight=False, emoji=False)
    console.print(render(comparison, top=top))
    stream.flush()
    return raw.getvalue().decode(encoding)


@pytest.mark.parametrize("width", [80, 120])
def test_table(width: int, comparison: Comparison) -> None:
    text = table(comparison, width)
    assert max(map(cell_len, text.splitlines())) <= width
    check_golden(f"table-{width}.txt", text)


def test_table_in_ascii(comparison: Comparison) -> None:
    text = table(comparison, 80, "ascii")
    assert text.isascii()
    assert "\\u" not in text
    assert max(map(len, text.splitlines())) <= 80
    check_golden("table-80-ascii.txt", text)


def test_markdown(comparison: Comparison) -> None:
    check_golden("comparison.md", to_markdown(comparison))


def test_json(comparison: Comparison) -> None:
    text = to_json(comparison)
    data = json.loads(text, parse_constant=pytest.fail)
    assert text.isascii()
    assert data == to_dict(comparison) == comparison.to_dict()
    assert comparison.to_json() == text
    for layer in data["layers"]:
        for side in ("a", "b"):  # spectra have goldens of their own
            layer[side]["maps"] = sorted(layer[side]["maps"])
    check_golden("comparison.json", json.dumps(rounded(data), indent=1) + "\n")


def test_json_fits_its_schema(comparison: Comparison) -> None:
    validator = jsonschema.Draft202012Validator(SCHEMA)
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    validator.validate(to_dict(comparison))
    identical = compared({"a.weight": np.eye(3)}, {"a.weight": np.eye(3)}, layers=("a",))
    validator.validate(to_dict(identical))
    assert not validator.is_valid({**to_dict(comparison), "extra": 1})
    damaged = to_dict(comparison)
    del damaged["layers"][0]["difference"]["status"]
    assert not validator.is_valid(damaged)


def test_json_says_what_happened(comparison: Comparison) -> None:
    data = to_dict(comparison)
    layers = {layer["name"]: layer for layer in data["layers"]}
    assert [layer["name"] for layer in data["layers"]][:3] == ["nan", "shape", "dead"]
    assert layers["same"]["identical"] is True
    assert layers["same"]["difference"]["spectral_norm"] == 0.0
    assert layers["grown"]["difference"]["spectral_norm"] == 8.0
    assert layers["grown"]["difference"]["relative_spectral_norm"] == 1.0
    assert layers["grown"]["changes"]["weight"]["sigma_max"] == 8.0
    assert layers["grown"]["changes"]["weight"]["condition_number"] == {
        "status": "resolved",
        "delta": 128.0,
        "ratio": 2.0,
    }
    assert layers["dead"]["changes"]["weight"]["condition_number"]["status"] == "became_infinite"
    assert layers["dead"]["changes"]["weight"]["numerical_rank"] == -1
    assert layers["nan"]["changes"]["weight"]["sigma_max"] is None
    assert layers["nan"]["difference"]["status"] == "nonfinite_weights"
    assert layers["conv"]["difference"]["spectral_norm"] == 0.5
    assert layers["conv"]["overlap"]["status"] == "convolution"
    assert layers[canned.HOSTILE]["overlap"]["left"] == pytest.approx(1.0)
    assert data["changed_shape"] == [{"name": "shape", "a": [8, 8], "b": [8, 12]}]
    assert data["changed_dtype"] == [{"name": "cast", "a": "f32", "b": "bf16"}]
    assert [layer["name"] for layer in data["only_in_a"]] == ["old"]
    assert [layer["name"] for layer in data["only_in_b"]] == ["net.head"]
    assert data["other_tensors"]["changed"] == ["conv.bias"]
    assert data["prefixes"] == {"a": "", "b": "net."}
    assert data["summary"]["most_moved"] == "nan"


@pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
def test_hostile_names_stay_on_their_line(width: int, comparison: Comparison) -> None:
    for text in (table(comparison, width), to_markdown(comparison)):
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", text)
    assert max(map(cell_len, table(comparison, width).splitlines())) <= width
    assert "@user" not in re.sub(r"`[^\n]*`", "", to_markdown(comparison))


def test_kappas_of_activated_maps_read_as_in_a_report() -> None:
    rng = np.random.default_rng(0)
    a, b = ({"fc.weight": rng.standard_normal((12, 12))} for _ in range(2))
    found = compared(a, b, maps=("chain", "skip"), activation="relu")
    text = table(found, 120)
    assert found.layers[0].a.maps["chain"].condition_number_status == "infinite"
    header = text[: text.index("─")]
    assert "κ(DW)" in header
    assert "κ(skip)" in header
    assert "∞" not in text
    assert "x*: without the rows that D zeroes." in text
    assert r"\*" in to_markdown(found)
    assert "=: D is the identity." in table(compared(a, b, maps=("chain",), activation="identity"), 120)


def test_a_column_that_says_nothing_is_left_out() -> None:
    kernel = np.random.default_rng(0).standard_normal((3, 3, 3, 3))
    text = table(compared({"c.weight": kernel}, {"c.weight": 2 * kernel}, grid=4), 120)
    assert "overlap" not in text[: text.index("─")]
    assert "no overlap where a convolution's singular vectors" in text


def test_top_folds_the_rest(comparison: Comparison) -> None:
    text = table(comparison, 100, top=2)
    body = text[text.index("─") : text.index("numbers")]
    assert "nan" in body
    assert "grown" not in body
    assert "and 5 more that moved less" in text
    markdown = to_markdown(comparison, top=2)
    assert markdown.index("`nan`") < markdown.index("<details>") < markdown.index("`grown`")


def test_identical_checkpoints_say_so_and_no_more() -> None:
    state = {"a.weight": np.eye(3), "a.bias": np.ones(3)}
    found = compared(state, {name: value.copy() for name, value in state.items()})
    for text in (table(found, 80), to_markdown(found)):
        assert "identical: 1 layer, 1 other tensor, bit for bit the same" in text
        assert "‖" not in text


def test_a_pipe_gets_no_colour(comparison: Comparison, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    buffer = io.StringIO()
    print_table(comparison, buffer)
    assert "\x1b" not in buffer.getvalue()
    assert max(map(cell_len, buffer.getvalue().splitlines())) <= 100


def test_markdown_stays_short_enough_for_a_comment() -> None:
    a = {f"layers.{i}.weight": np.eye(2) for i in range(500)}
    b = {name: 2 * value for name, value in a.items()}
    text = to_markdown(compared(a, b))
    assert len(text) < 65_536  # what GitHub takes
    assert "and 290 more layers" in text


@pytest.mark.parametrize(
    ("name", "width", "expected"),
    [
        ("encoder.layer.4.attention.self.query", 40, "encoder.layer.4.attention.self.query"),
        ("encoder.layer.4.attention.self.query", 31, "e.layer.4.attention.self.query"),
        ("encoder.layer.11.attention.self.query", 20, "e.l.11.a.self.query"),
        ("encoder.layer.11.query", 8, "e.l…uery"),
        ("query", 3, "q…y"),
        ("", 3, ""),
    ],
)
def test_shortened_names_keep_what_tells_them_apart(name: str, width: int, expected: str) -> None:
    assert shorten(name, width) == expected


def test_signs() -> None:
    assert [signed(value) for value in (None, 0.0, 1.5, -0.25)] == ["–", "0", "+1.50", "-0.250"]
    assert signed(1e-14, beside=1.0) == "~0"
    assert signed(1e-14, beside=1e-13) == "+1.00e-14"
