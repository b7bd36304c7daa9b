"""The sentences that stand around the numbers; the table, Markdown and HTML share them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from specinspect.report.json import assumptions
from specinspect.report.text import integer, number, shape, size, visible

if TYPE_CHECKING:
    from specinspect.report.model import Finding, Report


def headline(report: Report) -> str:
    """Return the checkpoint in one line: path, format, tensors, parameters, size."""
    checkpoint = report.checkpoint
    files = f"{len(checkpoint.files)} files" if len(checkpoint.files) > 1 else ""
    parts = (
        visible(checkpoint.path),
        checkpoint.format,
        files,
        f"key {visible(checkpoint.key)}" if checkpoint.key else "",
        f"{integer(checkpoint.tensors)} tensors",
        f"{integer(checkpoint.parameters)} parameters",
        size(checkpoint.bytes),
    )
    return " · ".join(part for part in parts if part)


def coverage(report: Report) -> str:
    """Return how much was analysed: 'analysed 40 of 62 tensors · 21 layers · 0.41 s'."""
    summary = report.summary
    return (
        f"analysed {integer(summary.analysed_tensors)} of {integer(summary.tensors)} tensors · "
        f"{integer(summary.layers)} layers · {number(summary.seconds)} s"
    )


def plural(count: int, noun: str) -> str:
    """Return '1 layer', '3 layers'."""
    return f"{integer(count)} {noun}{'' if count == 1 else 's'}"


def finding_line(finding: Finding) -> str:
    """Return a finding on one line, without its severity."""
    message = visible(finding.message)
    layer = visible(finding.layer)
    return message if not layer or message.startswith(layer) else f"{layer}: {message}"


def findings_in_order(report: Report) -> list[Finding]:
    """Return the findings, errors before warnings, otherwise as they came."""
    return sorted(report.findings, key=lambda finding: finding.severity != "error")


def conventions(report: Report) -> list[str]:
    """Return what the numbers mean, as far as this report needs it."""
    spectra = [result.maps["weight"] for result in report.layers if "weight" in result.maps]
    statuses = Counter(spectrum.condition_number_status for spectrum in spectra)
    sentences = [
        "κ(W) = σmax/σmin over all min(m, n) singular values of the weight as stored, computed in float64; "
        "σ in units of the weight, κ and ranks dimensionless. "
        "stable rank = (Frobenius norm/σmax)²; rank counts the σ above what storage and method resolve."
    ]
    unresolved = [
        (statuses["below_storage_precision"], "below the rounding error that the stored dtype implies"),
        (statuses["below_computation_precision"], "below the accuracy of the method used"),
    ]
    reasons = [f"{text} ({plural(count, 'layer')})" for count, text in unresolved if count]
    if reasons:
        sentences.append(
            f"> x: κ is not resolved, since σmin is {', or '.join(reasons)}; "
            "it is at least about x = (σmax - floor)/(σmin + floor)."
        )
    if statuses["infinite"]:
        sentences.append("∞: σmin is exactly zero.")
    if statuses["nonfinite_weights"]:
        sentences.append("NaN: the weight has NaN or infinite entries, so it has no singular values.")
    grids = Counter(result.grid for result in report.layers if result.grid is not None)
    if grids:
        sides = ", ".join(shape(grid) for grid in sorted(grids))
        sentences.append(
            f"convolutions: the operator on a periodic grid of {sides} points, not the reshaped kernel; "
            f"{_strides(report)}."
        )
    return sentences


def _strides(report: Report) -> str:
    guessed = sum(
        "assumed" in (result.layer.conv.stride.source, result.layer.conv.dilation.source)
        for result in report.layers
        if result.layer.conv is not None
    )
    if not guessed:
        return "stride and dilation are known"
    return f"stride or dilation is not in the file and assumed for {plural(guessed, 'layer')}"


def assumed(report: Report) -> list[str]:
    """Return every assumption once with the number of layers it is made for; those on the file come first."""
    sentences = Counter(sentence for result in report.layers for sentence in assumptions(result))
    return [
        *map(visible, report.checkpoint.assumptions),
        *(f"{visible(sentence)} ({plural(count, 'layer')})" for sentence, count in sentences.most_common()),
    ]


_OWNED = (
    (re.compile(r"^bias of .+", re.DOTALL), "bias of a layer"),
    (re.compile(r"^(\w+ normalisation) after .+", re.DOTALL), r"\1 after a layer"),
    (re.compile(r"^([\w ]+) of ((?:\w+ )?normalisation) .+", re.DOTALL), r"\1 of \2"),
)


def _without_owner(reason: str) -> str:
    """Return a reason without the name of the layer that a tensor belongs to, so that equal ones meet."""
    for pattern, short in _OWNED:
        reason = pattern.sub(short, reason)
    return reason


def skipped(report: Report) -> list[str]:
    """Return every reason for skipping a tensor once, commonest first, with the first and last name."""
    names: dict[str, list[str]] = {}
    for item in report.skipped:
        names.setdefault(_without_owner(item.reason), []).append(item.name)
    ordered = sorted(names.items(), key=lambda pair: -len(pair[1]))
    return [
        f"{visible(reason)}: {_some(group)}"
        + (f" ({plural(len(group), 'tensor')})" if len(group) > 1 else "")
        for reason, group in ordered
    ]


def notes(report: Report) -> list[str]:
    """Return every note once, with the first and last of the layers it is about, in checkpoint order."""
    names: dict[str, list[str]] = {}
    for result in report.layers:
        for note in result.notes:
            names.setdefault(note, []).append(result.layer.name)
    return [
        f"{_some(group)}: {visible(note)}" + (f" ({plural(len(group), 'layer')})" if len(group) > 1 else "")
        for note, group in names.items()
    ]


def placeholders(report: Report) -> str:
    """Return what foreign objects were left unloaded, or nothing."""
    objects = report.checkpoint.placeholders
    if not objects:
        return ""
    return f"{plural(len(objects), 'foreign object')} not loaded: {_some(objects)}"


def _some(names: Sequence[str]) -> str:
    if len(names) == 1:
        return visible(names[0])
    between = ", " if len(names) == 2 else ", … "
    return f"{visible(names[0])}{between}{visible(names[-1])}"
