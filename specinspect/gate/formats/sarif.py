"""For code scanning: SARIF 2.1.0 (OASIS, 2020), the checkpoint as location, the layer inside it."""

from __future__ import annotations

import hashlib
import json
from typing import Any
from urllib.parse import quote

from specinspect.gate.rules import Rule
from specinspect.gate.verdict import Case, Verdict
from specinspect.report.plain import plain
from specinspect.report.text import layer_name, visible

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


def render(verdict: Verdict) -> str:
    """Return the verdict as a SARIF log in ASCII."""
    return json.dumps(to_dict(verdict), indent=2, ensure_ascii=True, allow_nan=False) + "\n"


def to_dict(verdict: Verdict) -> dict[str, Any]:
    """Return the SARIF log as plain Python data."""
    index = {rule.code: number for number, rule in enumerate(verdict.rules)}
    unread = [checked for checked in verdict.checkpoints if checked.error is not None]
    driver = {
        "name": "specinspect",
        "version": verdict.version,
        "rules": [_rule(rule) for rule in verdict.rules],
    }
    notifications = [
        {
            "level": "error",
            "message": {"text": visible(checked.error or "")},
            "locations": [{"physicalLocation": _file(checked.path)}],
        }
        for checked in unread
    ]
    invocation = {
        "executionSuccessful": not unread,
        "exitCode": verdict.exit_code,
        "toolExecutionNotifications": notifications,
    }
    results = [
        _result(case, checked.path, index[case.rule.code])
        for checked in verdict.checkpoints
        for case in checked.cases
        if case.finding is not None
    ]
    run = {
        "tool": {"driver": driver},
        "invocations": [invocation],
        "artifacts": [{"location": {"uri": _uri(checked.path)}} for checked in verdict.checkpoints],
        "columnKind": "unicodeCodePoints",
        "results": results,
    }
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _rule(rule: Rule) -> dict[str, Any]:
    return {
        "id": rule.code,
        "name": "".join(part.capitalize() for part in rule.name.split("-")),
        "shortDescription": {"text": _sentence(rule.summary)},
        "fullDescription": {"text": rule.explanation},
        "help": {
            "text": f"{rule.explanation}\n\n{rule.fix}",
            "markdown": f"{rule.explanation}\n\n**What to do:** {rule.fix}",
        },
        "defaultConfiguration": {"level": rule.severity, "enabled": rule.default},
    }


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _result(case: Case, path: str, index: int) -> dict[str, Any]:
    finding = case.finding
    assert finding is not None
    name = layer_name(case.layer)
    identity = hashlib.sha256(
        "\0".join((path, case.rule.code, case.layer)).encode("utf-8", "backslashreplace")
    )
    return {
        "ruleId": case.rule.code,
        "ruleIndex": index,
        "level": "error" if case.outcome == "failed" else "warning",
        "message": {"text": f"{name}: {visible(finding.message)}"},
        "locations": [
            {
                "physicalLocation": _file(path),
                "logicalLocations": [{"fullyQualifiedName": name, "kind": "module"}],
            }
        ],
        # The same problem in the next run, whatever its value then.
        "partialFingerprints": {"layerAndRule/v1": identity.hexdigest()},
        "properties": {"value": plain(finding.value), "limit": plain(finding.limit)},
    }


def _file(path: str) -> dict[str, Any]:
    return {"artifactLocation": {"uri": _uri(path)}}


def _uri(path: str) -> str:
    """Return a path as a URI reference: relative ones stay so, and nothing in them is markup or a scheme."""
    path = path.replace("\\", "/")
    try:
        data = path.encode("utf-8", "surrogateescape")  # the bytes of a file name that is no UTF-8
    except UnicodeEncodeError:
        data = path.encode("utf-8", "backslashreplace")
    text = quote(data, safe="/~")
    return f"file://{text}" if text.startswith("/") else text
