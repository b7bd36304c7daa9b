"""For GitLab, Jenkins and the rest: JUnit XML, one suite per checkpoint, one test case per layer and rule.

Follows the schema of Jenkins' xunit plugin (junit-10.xsd). A warning is a passed case whose message stands in
system-out; a checkpoint that could not be checked is a case with an error.
"""

from __future__ import annotations

from xml.etree import ElementTree

from specinspect.gate.verdict import Case, Checked, Verdict
from specinspect.report.text import layer_name, visible


def render(verdict: Verdict) -> str:
    """Return the verdict as JUnit XML."""
    root = ElementTree.Element("testsuites", {"name": "specinspect", **_totals(verdict.checkpoints)})
    for number, checked in enumerate(verdict.checkpoints):
        root.append(_suite(checked, number))
    ElementTree.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ElementTree.tostring(root, encoding="unicode")}\n'


def _totals(checkpoints: tuple[Checked, ...]) -> dict[str, str]:
    cases = [case for checked in checkpoints for case in checked.cases]
    unread = sum(checked.error is not None for checked in checkpoints)
    return {
        "tests": str(len(cases) + unread),
        "failures": str(sum(case.outcome == "failed" for case in cases)),
        "errors": str(unread),
        "time": f"{sum(checked.seconds for checked in checkpoints):.3f}",
    }


def _suite(checked: Checked, number: int) -> ElementTree.Element:
    totals = _totals((checked,))
    skipped = str(sum(case.outcome == "skipped" for case in checked.cases))
    suite = ElementTree.Element(
        "testsuite",
        {"name": visible(checked.path), "id": str(number), "skipped": skipped, **totals},
    )
    if checked.error is not None:
        case = ElementTree.SubElement(suite, "testcase", classname=visible(checked.path), name="open")
        error = ElementTree.SubElement(case, "error", message=visible(checked.error), type="specinspect")
        error.text = visible(checked.error)
    for item in checked.cases:
        suite.append(_case(item, checked.path))
    return suite


def _case(case: Case, path: str) -> ElementTree.Element:
    name = f"{case.rule.code} {case.rule.name} {layer_name(case.layer)}"
    element = ElementTree.Element("testcase", classname=visible(path), name=name)
    if case.outcome == "skipped":
        ElementTree.SubElement(element, "skipped", message=visible(case.why))
    elif case.finding is not None:
        message = visible(case.finding.message)
        text = f"{layer_name(case.layer)}: {message}\n{case.rule.summary}. {case.rule.fix}"
        if case.outcome == "failed":
            failure = ElementTree.SubElement(element, "failure", message=message, type=case.rule.code)
            failure.text = text
        else:
            ElementTree.SubElement(element, "system-out").text = f"warning: {text}"
    return element
