"""One golden per format, the schemas, and layer names that mean harm."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import jsonschema
import pytest
import xmlschema

from specinspect.gate.baseline import parse_baseline
from specinspect.gate.check import check_layers, check_vanished
from specinspect.gate.formats import FORMATS
from specinspect.gate.policy import make_policy, thresholds_of
from specinspect.gate.verdict import Checked, Verdict
from specinspect.report.model import LayerResult
from specinspect.report.schema import schema_text
from tests.report import canned

HERE = Path(__file__).parent
SUFFIX = {
    "text": "txt",
    "json": "json",
    "github": "github.txt",
    "junit": "xml",
    "sarif": "sarif",
    "markdown": "md",
}
HOSTILE: Mapping[str, str] = {
    "rich": "enc[/].w[bold red]x[/bold red]",
    "html": "<script>alert(1)</script><img src=x onerror=alert(1)>&lt;&amp;",
    "cdata": "a]]>b<![CDATA[c]]>&",
    "percent": "100%%0A%0D%3A::error::pwned",
    "command": "x\n::error file=a,title=b::injected\r\n::set-output name=a::b",
    "ansi": "\x1b[2J\x1b[31mred\x07\x9b31m",
    "null": "a\x00b\x0b\x0c\ufffe",
    "bidi": "\u202egnp.tset\u200b\u2066",
    "surrogate": "a\ud800b",
    "markdown": "|a|b|\n|---|---|\n# h\n[link](javascript:alert(1)) `code` *b* @someone https://evil.example",
    "formula": "=cmd|' /C calc'!A0",
    "empty": "",
    "quotes": '"a\'b" onload="x"',
    "long": "n" * 5000,
}


def sick(name: str) -> LayerResult:
    return replace(canned.linear(name, canned.dead()), zeros=(1, 0), notes=("1 of 64 rows is zero",))


def verdict() -> Verdict:
    """Return what every rule has to say, on two checkpoints and one that cannot be read."""
    results = list(canned.report().layers)
    results[0] = replace(results[0], zeros=(0, 2))
    results[9] = replace(results[9], zeros=(1, 0))
    grown = replace(canned.report(), layers=(*results[:-2], canned.linear("gone")))
    smaller = {
        **grown.to_dict(),
        "layers": [
            {**layer, "maps": {"weight": {**layer["maps"]["weight"], "sigma_max": 0.5}}}
            if layer["name"] == "embed"
            else layer
            for layer in grown.to_dict()["layers"]
        ],
    }
    policy = make_policy(
        thresholds_of(
            {"max_kappa": 1e4, "max_skip_kappa": 20.0, "max_sigma": 50.0, "baseline": parse_baseline(smaller)}
        )
    )
    report = replace(canned.report(), layers=tuple(results))
    cases = (*check_layers(report.layers, policy), *check_vanished(report, policy))
    healthy = (canned.linear("fc"), canned.head("head"))
    fine = make_policy(thresholds_of({"max_kappa": 1e4}))
    return Verdict(
        (
            Checked("runs/model[/].pt", cases, len(results), len(results), 1.25),
            Checked("runs/fine.pt", tuple(check_layers(healthy, fine)), 2, 2, 0.5),
            Checked("runs/<b>&,:%.pt", error="expected a checkpoint, found\na text\x1b[0m ::error::x"),
        ),
        tuple(active.rule for active in policy.rules),
        "0.1.0",
    )


def hostile(name: str) -> Verdict:
    policy = make_policy(thresholds_of({"max_kappa": 10.0}))
    cases = tuple(check_layers([sick(name)], policy))
    assert {case.outcome for case in cases} >= {"failed", "warned", "skipped"}
    rules = tuple(active.rule for active in policy.rules)
    return Verdict((Checked(name or "x", cases, 1, 1), Checked("y", error=name or "x")), rules, "0.1.0")


@pytest.mark.parametrize("form", FORMATS)
def test_golden(form: str) -> None:
    text = FORMATS[form](verdict())
    path = HERE / "goldens" / f"check.{SUFFIX[form]}"
    if os.environ.get("UPDATE_GOLDENS") == "1":
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="")
    assert text == path.read_bytes().decode("utf-8")


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", HOSTILE)
def test_no_control_character_in_any_format(form: str, name: str) -> None:
    text = FORMATS[form](hostile(HOSTILE[name]))
    assert (
        re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u200b\ud800-\udfff]", text) is None
    )
    assert text.endswith("\n")
    text.encode("utf-8")


def test_many_layers_with_one_ill_are_told_as_one() -> None:
    names = [f"zero.{i}" for i in range(6)]
    results = [canned.linear(name, canned.dead()) for name in names]
    results = [replace(result, zeros=(1, 0), notes=("1 of 64 rows is zero",)) for result in results]
    lone = replace(canned.linear("lone", canned.dead()), zeros=(2, 0), notes=("2 of 64 rows are zero",))

    policy = make_policy(thresholds_of({"select": ("SI303",)}))

    def rendered(count: int, form: str) -> str:
        mixed = (*results[:2], lone, *results[2:count])
        checked = Checked("x", tuple(check_layers(mixed, policy)), len(mixed), len(mixed))
        return FORMATS[form](Verdict((checked,), tuple(active.rule for active in policy.rules), "1"))

    told = [row.split()[0] for row in rendered(5, "text").splitlines() if "of 64 rows" in row]
    assert told == ["zero.0", "zero.1", "lone", "zero.2", "zero.3", "zero.4"]
    many = rendered(6, "text")
    assert (
        "    6 layers  1 of 64 rows is zero\n      zero.0\n      zero.1\n      zero.2\n      … and 3 more"
        in many
    )
    assert "    lone      2 of 64 rows are zero\n" in many
    assert "6 errors" not in many
    assert "failed: 7 errors" in many
    for form in SUFFIX.keys() - {"text"}:
        assert all(name in rendered(6, form) for name in names), form


def test_text_ends_in_the_verdict() -> None:
    assert FORMATS["text"](verdict()).splitlines()[-1].startswith("could not check everything: 1 of 3")
    last = FORMATS["text"](hostile("x\nfailed: 0 errors")).splitlines()[-1]
    assert last == (
        "could not check everything: 1 of 2 checkpoints not checked, "
        "1 error, 1 warning in 1 layer of 1 checkpoint with 6 rules"
    )


def test_a_limit_that_no_layer_could_be_held_to_is_said() -> None:
    policy = make_policy(thresholds_of({"max_skip_kappa": 3.0}))
    embedding = LayerResult(canned.layer("e", kind="embedding"), {"weight": canned.spectrum()}, 0.0)
    rules = tuple(active.rule for active in policy.rules)
    made = Verdict((Checked("a.pt", tuple(check_layers([embedding], policy)), 1, 1),), rules, "0.1.0")
    note = "SI103 max-skip-kappa was applied to no layer: no skip map for this layer"
    for form in FORMATS.keys() - {"junit", "sarif"}:
        assert note in FORMATS[form](made).replace("\\", "")
    assert FORMATS["junit"](made).count("<skipped") == 4


# GitHub

COMMAND = re.compile(r"::(error|warning|notice) (?:file=[^:,\n]*,)?title=[^:,\n]+::[^\r\n]+")


@pytest.mark.parametrize("name", HOSTILE)
def test_workflow_commands_stay_one_each(name: str) -> None:
    *commands, last = FORMATS["github"](hostile(HOSTILE[name])).splitlines()
    assert len(commands) == 3
    assert all(COMMAND.fullmatch(line) for line in commands)
    assert not last.startswith("::")


def test_workflow_commands_decode_to_what_was_said() -> None:
    line = FORMATS["github"](hostile("100%,a:b")).splitlines()[0]
    properties, _, data = line.removeprefix("::error ").partition("::")
    file = dict(item.split("=", 1) for item in properties.split(","))["file"]

    def decoded(text: str) -> str:
        for code, char in (("%0A", "\n"), ("%0D", "\r"), ("%3A", ":"), ("%2C", ","), ("%25", "%")):
            text = text.replace(code, char)
        return text

    assert decoded(file) == "100%,a:b"
    assert decoded(data).startswith("100%,a:b: κ(W) = ∞")


# JUnit

SCHEMA = xmlschema.XMLSchema(HERE / "data" / "junit.xsd")


@pytest.mark.parametrize("name", HOSTILE)
def test_junit_is_valid_and_keeps_names(name: str) -> None:
    text = FORMATS["junit"](hostile(HOSTILE[name]))
    SCHEMA.validate(text)
    root = ElementTree.fromstring(text)
    assert len(root.findall(".//failure")) == 1
    assert len(root.findall(".//system-out")) == 1
    assert len(root.findall(".//error")) == 1
    if name in {"rich", "html", "cdata", "percent", "quotes"}:
        cases = [case.get("name") for case in root.iter("testcase")]
        assert f"SI101 max-kappa {HOSTILE[name]}" in cases


def test_junit_has_a_case_for_every_layer_and_rule() -> None:
    made = verdict()
    text = FORMATS["junit"](made)
    SCHEMA.validate(text)
    root = ElementTree.fromstring(text)
    cases = [case for checked in made.checkpoints for case in checked.cases]
    assert len(list(root.iter("testcase"))) == len(cases) + 1 == int(root.attrib["tests"])
    for suite in root.iter("testsuite"):
        assert int(suite.attrib["tests"]) == len(suite.findall("testcase"))
        assert int(suite.attrib["failures"]) == len(suite.findall("testcase/failure"))
        assert int(suite.attrib["errors"]) == len(suite.findall("testcase/error"))
        assert int(suite.attrib["skipped"]) == len(suite.findall("testcase/skipped"))
        names = [case.attrib["name"] for case in suite]
        assert len(set(names)) == len(names)


def test_the_junit_schema_can_fail() -> None:
    text = FORMATS["junit"](verdict())
    for wrong in (text.replace("testcase", "case"), re.sub(r'tests="\d+"', "", text, count=1)):
        assert not SCHEMA.is_valid(wrong)


# SARIF

SARIF = json.loads((HERE / "data" / "sarif-2.1.0-subset.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def sarif() -> jsonschema.Draft202012Validator:
    jsonschema.Draft202012Validator.check_schema(SARIF)
    return jsonschema.Draft202012Validator(SARIF)


@pytest.mark.parametrize("name", HOSTILE)
def test_sarif_is_valid_and_keeps_names(name: str, sarif: jsonschema.Draft202012Validator) -> None:
    data = json.loads(FORMATS["sarif"](hostile(HOSTILE[name])))
    sarif.validate(data)
    (run,) = data["runs"]
    assert len(run["results"]) == 2
    rules = run["tool"]["driver"]["rules"]
    assert all(rules[r["ruleIndex"]]["id"] == r["ruleId"] for r in run["results"])
    assert run["invocations"][0]["executionSuccessful"] is False
    (logical,) = run["results"][0]["locations"][0]["logicalLocations"]
    if name in {"rich", "html", "cdata", "percent", "quotes", "formula"}:
        assert logical["fullyQualifiedName"] == HOSTILE[name]


def test_sarif_of_every_rule_has_help(sarif: jsonschema.Draft202012Validator) -> None:
    data = json.loads(FORMATS["sarif"](verdict()))
    sarif.validate(data)
    for rule in data["runs"][0]["tool"]["driver"]["rules"]:
        assert rule["help"]["text"]
        assert rule["help"]["markdown"]
    fingerprints = [r["partialFingerprints"]["layerAndRule/v1"] for r in data["runs"][0]["results"]]
    assert len(set(fingerprints)) == len(fingerprints)


def test_the_sarif_schema_can_fail(sarif: jsonschema.Draft202012Validator) -> None:
    data = json.loads(FORMATS["sarif"](verdict()))
    del data["runs"][0]["results"][0]["message"]
    assert not sarif.is_valid(data)


@pytest.mark.parametrize(
    ("path", "uri"),
    [
        ("runs/a b.pt", "runs/a%20b.pt"),
        ("javascript:alert(1)", "javascript%3Aalert%281%29"),
        ("/abs/x.pt", "file:///abs/x.pt"),
        ("a\\b%.pt", "a/b%25.pt"),
        ("\udcff.pt", "%FF.pt"),
    ],
)
def test_paths_as_uris(path: str, uri: str) -> None:
    made = replace(verdict(), checkpoints=(Checked(path),))
    artifacts = json.loads(FORMATS["sarif"](made))["runs"][0]["artifacts"]
    assert artifacts == [{"location": {"uri": uri}}]


# Markdown


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.seen.append(tag)


@pytest.mark.parametrize("name", HOSTILE)
def test_markdown_tables_keep_their_shape(name: str) -> None:
    text = FORMATS["markdown"](hostile(HOSTILE[name]))
    parser = Tags()
    parser.feed(text)
    assert parser.seen == []
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 4
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {5}


# JSON


@pytest.fixture(scope="module")
def schema() -> jsonschema.Draft202012Validator:
    found = json.loads(schema_text("specinspect.gate"))
    jsonschema.Draft202012Validator.check_schema(found)
    return jsonschema.Draft202012Validator(found)


@pytest.mark.parametrize("name", HOSTILE)
def test_json_is_valid_and_keeps_names(name: str, schema: jsonschema.Draft202012Validator) -> None:
    data = json.loads(FORMATS["json"](hostile(HOSTILE[name])))
    schema.validate(data)
    assert {finding["layer"] for finding in data["checkpoints"][0]["findings"]} == {HOSTILE[name]}


def test_the_schema_names_every_member(schema: jsonschema.Draft202012Validator) -> None:
    data = json.loads(FORMATS["json"](verdict()))
    schema.validate(data)
    assert set(data) == set(schema.schema["properties"])
    checkpoint = schema.schema["properties"]["checkpoints"]["items"]["properties"]
    assert set(data["checkpoints"][0]) == set(checkpoint)
    assert set(data["checkpoints"][0]["findings"][0]) == set(checkpoint["findings"]["items"]["properties"])
    data["checkpoints"][0]["findings"][0]["value"] = "high"
    assert not schema.is_valid(data)


def test_json_counts_and_lists() -> None:
    data = json.loads(FORMATS["json"](verdict()))
    assert (data["verdict"], data["exit_code"]) == ("error", 2)
    assert [c["verdict"] for c in data["checkpoints"]] == ["failed", "passed", "error"]
    first = data["checkpoints"][0]
    errors = [f for f in first["findings"] if f["severity"] == "error"]
    assert first["cases"]["failed"] == len(errors)
    assert data["summary"]["failed"] == len(errors)
    assert data["summary"]["layers"] == 17
