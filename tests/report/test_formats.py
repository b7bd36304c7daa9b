"""One golden per format, and what must hold of any report."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from specinspect.errors import SpecinspectError
from specinspect.report import FORMATS
from specinspect.report.json import to_dict, to_json
from specinspect.report.markdown import code, escape
from specinspect.report.rows import COLUMNS
from specinspect.report.schema import schema_text
from tests.report import canned

GOLDENS = Path(__file__).parent / "goldens"
SUFFIX = {"json": "json", "csv": "csv", "markdown": "md", "html": "html"}


def check_golden(name: str, text: str) -> None:
    """Compare with a golden file; UPDATE_GOLDENS=1 writes it instead."""
    path = GOLDENS / name
    if os.environ.get("UPDATE_GOLDENS") == "1":
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="")
    assert text == path.read_bytes().decode("utf-8")


@pytest.fixture
def validator() -> Any:
    schema = json.loads(schema_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("name", FORMATS)
def test_golden(name: str) -> None:
    text = FORMATS[name](canned.report())
    text.encode("utf-8")
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", text)
    check_golden(f"report.{SUFFIX[name]}", text)


def test_importing_the_renderers_is_cheap() -> None:
    source = (
        "import sys, specinspect.report as r; assert set(r.FORMATS) == {'json', 'csv', 'markdown', 'html'}; "
        "print({'torch', 'rich', 'pandas', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


# JSON


def test_json_reads_back_to_the_dict_and_is_valid(validator: Any) -> None:
    data = json.loads(to_json(canned.report()))
    assert data == to_dict(canned.report()) == canned.report().to_dict()
    validator.validate(data)
    assert [layer["name"] for layer in data["layers"]] == [r.layer.name for r in canned.report()]
    assert data["layers"][11]["name"] == canned.ESCAPES
    assert data["layers"][-1]["maps"]["weight"]["singular_values"] == [2.5, 0.5, 0.0625]
    assert "singular_values" not in data["layers"][0]["maps"]["weight"]
    assert "convolution" in data["layers"][1]
    assert "convolution" not in data["layers"][0]


def test_json_has_the_facts_behind_the_maps() -> None:
    layers = {layer["name"]: layer for layer in to_dict(canned.report())["layers"]}
    assert layers["embed"]["activation"] == {"name": "identity", "slope": None, "source": "assumed"}
    assert layers["embed"]["skip"] == {"kind": "none", "source": "assumed"}
    assert set(layers["embed"]["maps"]) == {"weight"}
    prelu = layers[canned.FORMULA]["activation"]
    assert prelu == {
        "name": "prelu",
        "slope": 0.25,
        "source": "model",
        "parameter": f"{canned.FORMULA}.slopes",
    }
    assert layers["encoder.layers.1.conv1"]["tau"] == {"min": -1.5, "max": 2.25}
    assert "tau" not in layers["encoder.layers.0.conv2"]
    known, unknown = (layers[f"encoder.layers.{i}.conv1"]["convolution"] for i in (1, 0))
    assert (known["padding"], known["sources"]["padding"]) == ([1, 1], "model")
    assert (unknown["padding"], unknown["sources"]["padding"]) == (None, None)


def test_json_says_how_maps_vary_over_patterns() -> None:
    maps = to_dict(canned.report())["layers"][3]["maps"]
    assert list(maps) == ["weight", "chain", "skip", "skip_chain"]
    assert "patterns" not in maps["weight"]
    assert "patterns" not in maps["skip"]
    patterns = maps["chain"]["patterns"]
    assert (patterns["n"], patterns["active_fraction"]) == (8, 0.5)
    assert (patterns["active_fraction_min"], patterns["active_fraction_max"]) == (0.25, 1.0)
    assert patterns["median"]["pseudo_condition_number"] == maps["chain"]["pseudo_condition_number"]
    assert patterns["max"]["condition_number"] is None
    assert [patterns[end]["sigma_max"] for end in ("min", "median", "max")] == [1.0, 2.0, 4.0]


def test_json_of_no_layers(validator: Any) -> None:
    empty = replace(canned.report(), layers=(), skipped=(), findings=())
    empty = replace(empty, summary=replace(empty.summary, worst_condition_number=None))
    validator.validate(json.loads(to_json(empty)))


def test_json_has_no_token_for_what_is_not_finite() -> None:
    wild = replace(
        canned.spectrum(),
        sigma_max=math.inf,
        stable_rank=math.nan,
        singular_values=np.array([np.inf, np.nan]),
    )
    report = replace(
        canned.report(), layers=(canned.linear("wild", wild),), settings={"x": (np.float32("nan"), 1)}
    )

    def refuse(token: str) -> None:
        raise AssertionError(token)

    data = json.loads(to_json(report), parse_constant=refuse)
    assert data["layers"][0]["maps"]["weight"]["sigma_max"] is None
    assert data["layers"][0]["maps"]["weight"]["singular_values"] == [None, None]
    assert data["settings"] == {"x": [None, 1]}


def _without(*path: Any) -> Callable[[Any], None]:
    def change(data: Any) -> None:
        for key in path[:-1]:
            data = data[key]
        del data[path[-1]]

    return change


def _with(value: Any, *path: Any) -> Callable[[Any], None]:
    def change(data: Any) -> None:
        for key in path[:-1]:
            data = data[key]
        data[path[-1]] = value

    return change


WEIGHT = ("layers", 0, "maps", "weight")


@pytest.mark.parametrize(
    "change",
    [
        _without("schema_version"),
        _with("2", "schema_version"),
        _without("checkpoint", "key"),
        _without("summary", "nonfinite"),
        _with(3, "layers", 0, "name"),
        _with([1, 2, 3], "layers", 0, "matrix_shape"),
        _without("layers", 1, "convolution", "sources", "stride"),
        _with("guess", "layers", 1, "convolution", "sources", "stride"),
        _without(*WEIGHT, "storage_floor"),
        _with("fine", *WEIGHT, "condition_number_status"),
        _with(None, *WEIGHT, "condition_number"),
        _with("infinite", *WEIGHT, "condition_number_status"),
        _with(-1.0, *WEIGHT, "sigma_min"),
        _with("1.0", *WEIGHT, "sigma_max"),
        _without(*WEIGHT, "histogram", "zeros"),
        _with("many", "layers", 3, "maps", "chain", "patterns", "n"),
        _with(2.0, "layers", 3, "maps", "chain", "patterns", "active_fraction"),
        _with("8.0", "layers", 3, "maps", "chain", "patterns", "max", "sigma_max"),
        _with("guess", "layers", 1, "activation", "source"),
        _without("layers", 1, "skip", "kind"),
        _without("layers", 1, "tau", "max"),
        _without("skipped", 0, "reason"),
        _with("fatal", "findings", 0, "severity"),
    ],
)
def test_schema_refuses(validator: Any, change: Callable[[Any], None]) -> None:
    data = to_dict(canned.report())
    change(data)
    with pytest.raises(jsonschema.ValidationError):
        validator.validate(data)


def test_schema_lets_the_report_grow(validator: Any) -> None:
    data = to_dict(canned.report())
    data["network"] = {}
    data["layers"][0]["bounds"] = []
    data["layers"][0]["maps"]["chain"] = {**data["layers"][0]["maps"]["weight"], "patterns": {}}
    validator.validate(data)


def test_json_of_many_layers_is_fast() -> None:
    spectrum = replace(canned.spectrum(), singular_values=np.linspace(1, 2, 1024)[::-1])
    report = replace(canned.report(), layers=tuple(canned.linear(f"l.{i}", spectrum) for i in range(500)))
    start = time.process_time()
    text = to_json(report)
    mine = time.process_time() - start
    data = json.loads(text)
    start = time.process_time()
    json.dumps(data)
    assert mine < 10 * (time.process_time() - start)


# CSV, data frame


def test_csv_keeps_every_digit_and_runs_no_formula() -> None:
    rows = list(csv.DictReader(io.StringIO(FORMATS["csv"](canned.report()))))
    results = canned.report().layers
    assert [(row["name"], row["map"]) for row in rows if row["name"] == "embed"] == [("embed", "weight")]
    expected = [spectrum for result in results for spectrum in result.maps.values()]
    for row, spectrum in zip(rows, expected, strict=True):
        for field in ("sigma_max", "sigma_min", "condition_number", "storage_floor"):
            value = getattr(spectrum, field)
            assert row[field] == ("" if value is None else repr(value))
        assert not row["name"].startswith(("=", "+", "-", "@"))
        sampled = spectrum.patterns
        assert row["patterns"] == ("" if sampled is None else "8")
        assert row["active_fraction"] == ("" if sampled is None else repr(sampled.active_fraction.median))
    named = {row["name"]: row for row in rows}
    assert named["'" + canned.FORMULA]["activation"] == "prelu:0.25"
    assert named["encoder.layers.0.conv2"]["skip"] == "average-pool"


def test_frame() -> None:
    pytest.importorskip("pandas")
    frame = canned.report().to_frame()
    assert tuple(frame.columns) == COLUMNS
    assert frame["sigma_max"][0] == 91.25
    assert frame["condition_number"][frame["map"] == "weight"].isna().sum() == 3


def test_frame_without_pandas_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(SpecinspectError, match=r"pip install 'specinspect\[frame\]'"):
        canned.report().to_frame()


# Markdown


def test_markdown_rows_have_one_cell_per_header() -> None:
    lines = [line for line in FORMATS["markdown"](canned.report()).splitlines() if line.startswith("|")]
    assert len(lines) == 2 + len(canned.report().layers)
    assert {len(re.split(r"(?<!\\)\|", line)) for line in lines} == {13}
    alone = replace(canned.report(), layers=canned.report().layers[:1])
    assert "κ(skip)" not in FORMATS["markdown"](alone)
    assert "κ(skip)" not in FORMATS["html"](alone)


def test_markdown_escapes() -> None:
    assert escape("<b>*x*</b> [a](b)") == r"&lt;b&gt;\*x\*&lt;/b&gt; \[a\](b)"
    assert escape("@team #12 https://x.y") == "@<!-- -->team #<!-- -->12 https:<!-- -->//x.y"
    assert escape("1. x") == r"1\. x"
    assert escape("- x") == r"\- x"
    assert code("a`b|c") == r"`` a`b\|c ``"


# HTML


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes.update(name for name, _ in attrs)


def test_html_loads_nothing_and_runs_nothing() -> None:
    parser = _Tags()
    parser.feed(FORMATS["html"](canned.report()))
    assert not parser.tags & {"script", "link", "img", "iframe", "object", "embed", "base", "form"}
    assert not {
        name for name in parser.attributes if name.startswith("on") or name in ("src", "href", "style")
    }
