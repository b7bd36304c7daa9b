"""The sentences that stand around the numbers; the table, Markdown and HTML share them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from specinspect.layers.model import PROJECTIONS
from specinspect.report import kappas
from specinspect.report.block_rows import some_guarantee, some_partial
from specinspect.report.bound_rows import about_guarantees
from specinspect.report.json import assumptions
from specinspect.report.text import integer, number, shape, size, visible

if TYPE_CHECKING:
    from specinspect.report.model import Finding, LayerResult, Report


def headline(report: Report) -> str:
    """Return the checkpoint in one line: path, format, tensors, parameters, size."""
    checkpoint = report.checkpoint
    files = f"{len(checkpoint.files)} files" if len(checkpoint.files) > 1 else ""
    parts = (
        visible(checkpoint.path),
        checkpoint.format,
        files,
        f"key {visible(checkpoint.key)}" if checkpoint.key else "",
        plural(checkpoint.tensors, "tensor"),
        plural(checkpoint.parameters, "parameter"),
        size(checkpoint.bytes),
    )
    return " · ".join(part for part in parts if part)


def coverage(report: Report) -> str:
    """Return how much was analysed: 'analysed 40 of 62 tensors · 21 layers · 0.41 s'."""
    summary = report.summary
    return (
        f"analysed {integer(summary.analysed_tensors)} of {plural(summary.tensors, 'tensor')} · "
        f"{plural(summary.layers, 'layer')} · {number(summary.seconds)} s"
    )


def plural(count: int, noun: str) -> str:
    """Return '1 layer', '3 layers'."""
    return f"{integer(count)} {noun}{'' if count == 1 else 's'}"


def finding_line(finding: Finding) -> str:
    """Return a finding on one line, without its severity."""
    message = visible(finding.message)
    layer = visible(finding.layer)
    return f"{layer}: {message}" if layer else message


def findings_in_order(report: Report) -> list[Finding]:
    """Return the findings, errors before warnings, otherwise as they came."""
    return sorted(report.findings, key=lambda finding: finding.severity != "error")


def conventions(report: Report, hidden: Collection[str] = ()) -> list[str]:
    """Return what the numbers mean, as far as this report needs it.

    Args:
        report: what is shown.
        hidden: keys of columns that are not shown and need no explanation.
    """
    results = [result for result in report.layers if "weight" in result.maps]
    ranks = {
        "stable_rank": "stable rank = (Frobenius norm/σmax)²",
        "rank": "rank: how many σ storage and method resolve",
    }
    definitions = [
        "κ(W) = σmax/σmin over all min(m, n) singular values of the weight as stored, in float64",
        *(text for key, text in ranks.items() if key not in hidden),
    ]
    sentences = ["; ".join(definitions) + "."]
    maps = [name for name in kappas.present(report) if name not in hidden]
    cells = [kappas.shown(result, name) for result in results for name in ("weight", *maps)]
    if "chain" in maps:
        chain = _chain(report, [r for r in results if "chain" in r.maps])
        sentences += [chain] if chain else []
    if "skip" in maps:
        sentences.append(_skip(report, [r for r in results if "skip" in r.maps]))
    guarantees = about_guarantees(report.layers) if "proven" not in hidden else ""
    sentences += [guarantees] if guarantees else []
    if report.blocks:
        sentences.append(_blocks(report))
    unresolved = _unresolved(results, ("weight", *maps))
    if unresolved:
        sentences.append(unresolved)
    texts = {cell.text for cell in cells}
    marks = {
        "∞": "∞: σmin is exactly zero.",
        "NaN": "NaN: the weight has NaN or infinite entries.",
        "?": "?: could not be computed, see the findings.",
    }
    if texts & set(marks):
        sentences.append(" ".join(meaning for mark, meaning in marks.items() if mark in texts))
    grids = Counter(result.grid for result in report.layers if result.grid is not None)
    padded = any(result.boundary == "zeros" for result in report.layers)
    if grids and padded:
        sentences.append("convolutions: the operator with its zero padding, on inputs of the grid's size.")
    elif grids:
        sides = ", ".join(shape(grid) for grid in sorted(grids))
        sentences.append(
            f"convolutions: the operator on a periodic {sides} grid, not the reshaped kernel; "
            "beside zero padding σmin and κ can be off by any factor."
        )
    return sentences


def _blocks(report: Report) -> str:
    kinds = {result.block.source for result in report.blocks}
    found = " found by their names," if kinds == {"assumed"} else ""
    proven, starred = some_guarantee(report.blocks), some_partial(report.blocks)
    return (
        f"blocks:{found} J is the branch with its activations inside (D at {_whose(report)} inputs, "
        "medians), A the shortcut beside it"
        + ("; x*: of the rank that it has by construction." if starred else ".")
        + (" proven ≤: what theory guarantees of κ(A+J) at all of these inputs." if proven else "")
    )


def _whose(report: Report) -> str:
    """Say at which inputs the activations inside of blocks are taken."""
    sampled = [result for result in report.blocks if result.chain is not None and result.chain.patterns]
    drawn = {any("standard normal" in sentence for sentence in result.assumptions) for result in sampled}
    return {frozenset({False}): "given", frozenset({False, True}): "given or random"}.get(
        frozenset(drawn), "random"
    )


def _chain(report: Report, results: Sequence[LayerResult]) -> str:
    sampled = [p for result in results if (p := result.maps["chain"].patterns) is not None]
    texts = [kappas.shown(result, "chain").text for result in results]
    parts = []
    if sampled:
        most = max(pattern.n for pattern in sampled)
        folded = any(
            result.layer.normalization is not None
            and result.layer.normalization.kind == "batch_norm"
            and result.maps["chain"].patterns is not None
            for result in results
        )
        what = "activation and any batch norm before it" if folded else "activation"
        whose = "given" if report.settings.get("inputs") else "random"
        times = f", median over {most} {whose} inputs" if most > 1 else ""
        parts.append(f"D is the derivative of the {what}{times}")
    if kappas.SAME in texts:
        parts.append(f"{kappas.SAME}: D is the identity")
    if any(text.endswith(kappas.PARTIAL) for text in texts):
        cut = any(_cut(text) for text in texts)
        below, whole = (" and σ lost in rounding", "∞ or unknown") if cut else ("", "∞")
        parts.append(f"x{kappas.PARTIAL}: without the rows that D zeroes{below}, with which it is {whole}")
    return f"{kappas.HEADERS['chain']}: {'; '.join(parts)}." if parts else ""


def _cut(text: str) -> bool:
    return text.startswith(">") and text.endswith(kappas.PARTIAL)


def _skip(report: Report, results: Sequence[LayerResult]) -> str:
    rho, beta = (_factor(report.settings.get(name, 1.0)) for name in ("rho", "beta"))
    kinds = Counter(result.layer.skip.kind for result in results)
    parts = [f"{kappas.HEADERS['skip']}: of {rho}I + {beta}W"]
    if kinds["rectangular-identity"]:
        parts.append(f"I is rectangular like W ({plural(kinds['rectangular-identity'], 'layer')})")
    if kinds["average-pool"]:
        subject = "" if kinds["rectangular-identity"] else "I is "
        parts.append(f"{subject}the average pool where W strides ({plural(kinds['average-pool'], 'layer')})")
    own = sum(kinds[kind] for kind in PROJECTIONS)
    if own:
        parts.append(f"the network's own shortcut stands for I in {plural(own, 'layer')}")
    if all(result.layer.skip.source == "assumed" for result in results):
        parts.append("as if every layer had a skip around it")
    return ", ".join(parts) + "."


def _factor(value: float) -> str:
    return "" if value == 1 else f"{value:g} "


def _unresolved(results: Sequence[LayerResult], maps: Sequence[str]) -> str:
    """Return why some κ are shown as a bound, with the number of layers per reason."""
    counts = Counter(
        status
        for result in results
        for status in {
            result.maps[name].condition_number_status
            for name in maps
            if name in result.maps and kappas.shown(result, name).level == 1
        }
    )
    reasons = [
        (counts["below_storage_precision"], "the rounding error of the stored dtype"),
        (counts["below_computation_precision"], "the accuracy of the method"),
    ]
    named = [f"{text} ({plural(count, 'layer')})" for count, text in reasons if count]
    if not named:
        return ""
    return f"> x: not resolved, σmin is below {' or '.join(named)}; κ is about x or more."


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
