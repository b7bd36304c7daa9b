"""The cells and sentences of a comparison; table and Markdown share them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from specinspect.comparison.order import kappa_change
from specinspect.report import kappas
from specinspect.report.json import assumptions
from specinspect.report.text import ABSENT, layer_name, middle, number, shape, size, visible
from specinspect.report.words import plural

if TYPE_CHECKING:
    from specinspect.comparison.model import Comparison, LayerComparison
    from specinspect.report.model import CheckpointSummary

KAPPAS = {"weight": "κ(W)", "chain": "κ(DW)", "skip": "κ(skip)", "skip_chain": "κ(skip·D)"}
"""Map → how its condition number is called."""
ROUNDING = 1e-12
"""Relative: changes of σmax and distances up to that are rounding of float64."""
SIX_DIGITS = 1e-6
"""Relative: changes of κ up to that are within the accuracy of σmin."""
NEARLY_ZERO = "~0"
_WHY = {
    "geometry_changed": "another stride, dilation, padding or grid",
    "not_computed": "beyond float64, or a solver that did not converge",
}


def headline(checkpoint: CheckpointSummary) -> str:
    """Return a checkpoint in one line: path, format, tensors, parameters, size."""
    parts = (
        visible(checkpoint.path),
        checkpoint.format,
        f"key {visible(checkpoint.key)}" if checkpoint.key else "",
        plural(checkpoint.tensors, "tensor"),
        plural(checkpoint.parameters, "parameter"),
        size(checkpoint.bytes),
    )
    return " · ".join(part for part in parts if part)


def verdict(comparison: Comparison) -> str:
    """Return the comparison in one line: how many layers differ, what is only on one side."""
    summary, others = comparison.summary, comparison.others
    if summary.verdict == "identical":
        rest = "" if others is None else f", {plural(others.identical, 'other tensor')}"
        return f"identical: {plural(summary.matched, 'layer')}{rest}, bit for bit the same"
    parts = [f"{plural(summary.matched, 'layer')} in both: {_shares(summary.changed, summary.identical)}"]
    parts += [
        f"{count} only in {side}"
        for side, count in (("A", summary.only_in_a), ("B", summary.only_in_b))
        if count
    ]
    if others is not None:
        changed = len(others.changed)
        alone = len(others.only_in_a) + len(others.only_in_b)
        parts.append(
            f"other tensors: {_shares(changed, others.identical)}"
            + (f", {alone} on one side only" if alone else "")
        )
    return " · ".join(parts)


def _shares(changed: int, identical: int) -> str:
    if not changed:
        return f"{identical} identical" if identical else "none"
    return f"{changed} changed" + (f", {identical} identical" if identical else "")


def change(layer: LayerComparison) -> str:
    """Return ‖W_A - W_B‖₂/‖W_A‖₂ as shown."""
    if (
        layer.difference.status in {"computed", "identical"}
        and layer.difference.relative_spectral_norm is None
    ):
        return "∞"  # A is zero, B is not
    return number(layer.difference.relative_spectral_norm)


def overlap(layer: LayerComparison) -> str:
    """Return the smaller overlap of the leading subspaces, as shown."""
    least = layer.overlap.least
    return ABSENT if least is None else f"{least:.3f}" if least < 0.9995 else "1"


def signed(value: float | None, beside: float = 0.0) -> str:
    """Return a change with its sign: +0.012, -3.1e6, 0; ~0 where it is rounding of the numbers beside it."""
    if value is None or value == 0:
        return number(value)
    if abs(value) <= ROUNDING * beside:
        return NEARLY_ZERO
    return f"{'+' if value > 0 else '-'}{number(abs(value))}"


def distance(layer: LayerComparison) -> str:
    """Return the relative spectral distance of the weights as shown."""
    value = layer.spectral_distance.get("weight")
    return NEARLY_ZERO if value and value <= ROUNDING else number(value)


def kappa_pair(layer: LayerComparison, name: str = "weight") -> tuple[str, str]:
    """Return κ of one map in A and in B, as a report shows it."""
    return kappas.shown(layer.a, name).text, kappas.shown(layer.b, name).text


def kappa_delta(layer: LayerComparison) -> str:
    """Return κ_B - κ_A of the weight, as shown."""
    a, b = layer.a.maps["weight"], layer.b.maps["weight"]
    delta = kappa_change(a, b).delta
    if delta and abs(delta) <= SIX_DIGITS * (a.condition_number or 0.0):
        return NEARLY_ZERO
    return signed(delta)


def sigma_delta(layer: LayerComparison) -> str:
    """Return the change of σmax of the weight, as shown."""
    before, after = layer.a.maps["weight"].sigma_max, layer.b.maps["weight"].sigma_max
    return ABSENT if before is None or after is None else signed(after - before, max(before, after))


def rank_delta(layer: LayerComparison) -> str:
    """Return the change of the numerical rank, as shown."""
    before, after = layer.a.maps["weight"].numerical_rank, layer.b.maps["weight"].numerical_rank
    return ABSENT if before is None or after is None else f"{after - before:+d}" if after != before else "0"


def remark(layer: LayerComparison) -> str:
    """Return what the numbers do not say: became infinite, another shape or dtype; '' for nothing."""
    a, b = layer.a.layer, layer.b.layer
    parts = []
    nonfinite = [side for side, r in (("A", layer.a), ("B", layer.b)) if r.maps["weight"].nonfinite]
    if nonfinite:
        parts.append(f"NaN or infinite entries in {' and '.join(nonfinite)}")
    if a.kind != b.kind:
        parts.append(f"{a.kind} → {b.kind}")
    if a.shape != b.shape:
        parts.append(f"{shape(a.shape)} → {shape(b.shape)}")
    elif layer.difference.status in _WHY:
        parts.append(_WHY[layer.difference.status])
    if layer.dtype_changed:
        parts.append(f"{a.dtype} → {b.dtype}")
    status = kappa_change(layer.a.maps["weight"], layer.b.maps["weight"]).status
    if status.startswith("became") and not nonfinite:
        parts.append(f"κ(W) became {status.removeprefix('became_')}")
    if not layer.identical and layer.difference.spectral_norm == 0:
        parts.append("equal values")
    return ", ".join(parts)


def remarks(comparison: Comparison) -> list[tuple[bool, str]]:
    """Return every remark once with the layers it is about: (alarming or not, sentence), worst first."""
    groups: dict[str, list[LayerComparison]] = {}
    for layer in comparison.layers:
        text = remark(layer)
        if text:
            groups.setdefault(text, []).append(layer)
    found = [
        (any(alarming(layer) for layer in group), f"{text}: {_names(group)}")
        for text, group in groups.items()
    ]
    return sorted(found, key=lambda pair: not pair[0])


def _names(layers: Sequence[LayerComparison]) -> str:
    few = ", ".join(full_name(layer) for layer in layers[:3])
    return few if len(layers) <= 3 else f"{few}, … ({len(layers)} layers)"


def alarming(layer: LayerComparison) -> bool:
    """Say whether a remark is one to look at first: NaN appeared, κ became infinite."""
    status = kappa_change(layer.a.maps["weight"], layer.b.maps["weight"]).status
    return status in {"became_nonfinite", "became_infinite"}


def full_name(layer: LayerComparison) -> str:
    """Return a layer's name as shown, that of A."""
    return layer_name(layer.name)


def shorten(name: str, width: int, ellipsis: str = "…") -> str:
    """Return a dotted name in so many cells: leading components lose all but their first letter or digits.

    The numbers of blocks and the last component tell layers apart, so they go last.
    """
    parts = name.split(".")
    for index, part in enumerate(parts[:-1]):
        if len(".".join(parts)) <= width:
            break
        parts[index] = part if part.isdigit() else part[:1]
    return middle(".".join(parts), width, ellipsis)


def legend(comparison: Comparison, hidden: Collection[str] = ()) -> list[str]:
    """Return what the numbers mean; `hidden` are the keys of columns that are not shown."""
    sentences = [
        "changes are B minus A. ‖B-A‖: ‖W_B-W_A‖₂/‖W_A‖₂, largest first; but before the rest what has NaN, "
        "changed its shape, or whose κ became infinite, unresolved or resolved."
    ]
    if "distance" not in hidden:
        sentences.append("distance: ‖σ_A-σ_B‖₂/‖σ_A‖₂ of the sorted singular values.")
    if "update_rank" not in hidden:
        sentences.append("update rank: stable rank of W_B-W_A.")
    if "overlap" not in hidden:
        sentences += _overlap_legend(comparison)
    moved = [layer for layer in comparison.layers if not layer.identical]
    shown = {text for layer in moved for name in KAPPAS for text in kappa_pair(layer, name)}
    if any(text.startswith(">") for text in shown):
        sentences.append(
            "> x: σmin is below the rounding error of the stored dtype or of the method; κ is about x or "
            "more."
        )
    if any(text.endswith(kappas.PARTIAL) for text in shown):
        sentences.append(f"x{kappas.PARTIAL}: without the rows that D zeroes.")
    if kappas.SAME in shown:
        sentences.append(f"{kappas.SAME}: D is the identity.")
    cells = {cell(layer) for layer in moved for cell in (distance, sigma_delta, kappa_delta)}
    if NEARLY_ZERO in cells:
        sentences.append(f"{NEARLY_ZERO}: within the accuracy of the computation.")
    return sentences


def _overlap_legend(comparison: Comparison) -> list[str]:
    found = [layer.overlap for layer in comparison.layers]
    ks = {o.k for o in found if o.status == "computed" and o.k is not None}
    sentences = []
    if ks:
        count = max(ks) if len(ks) == 1 else f"up to {max(ks)}"
        sentences.append(
            f"overlap: of the spaces that {count} leading singular vectors span, 1 the same, 0 orthogonal; "
            "the smaller of left and right."
        )
    statuses: Counter[str] = Counter(o.status for o in found)
    for status, why in (
        ("no_gap", "σ_k and σ_k+1 are closer than rounding resolves"),
        ("convolution", "a convolution's singular vectors are waves in degenerate pairs"),
    ):
        if statuses[status]:
            sentences.append(f"no overlap where {why} ({plural(statuses[status], 'layer')}).")
    return sentences


def sections(comparison: Comparison) -> dict[str, list[str]]:
    """Return the lists under the numbers: title → lines."""
    others = comparison.others
    found: dict[str, list[str]] = {
        "only in A": [_unmatched(layer.name, layer.shape) for layer in comparison.only_in_a],
        "only in B": [_unmatched(layer.name, layer.shape) for layer in comparison.only_in_b],
    }
    if others is not None:
        found["other"] = [
            *_some("changed", others.changed),
            *_some("only in A", others.only_in_a),
            *_some("only in B", others.only_in_b),
        ]
    found["notes"] = _notes(comparison)
    found["assumed"] = _assumed(comparison)
    return {title: lines for title, lines in found.items() if lines}


def _unmatched(name: str, sizes: Sequence[int]) -> str:
    return f"{layer_name(name)} ({shape(sizes)})"


def _some(what: str, names: Sequence[str]) -> list[str]:
    if not names:
        return []
    few = ", ".join(visible(name) for name in names[:3])
    return [f"{plural(len(names), 'tensor')} {what}: {few}{', …' if len(names) > 3 else ''}"]


def _notes(comparison: Comparison) -> list[str]:
    lines = []
    if comparison.prefixes is not None:
        parts = [
            f"{prefix!r} in {side}"
            for side, prefix in (("A", comparison.prefixes.a), ("B", comparison.prefixes.b))
            if prefix
        ]
        lines.append(visible(f"names match without the prefix {' and '.join(parts)}"))
    lines += map(visible, comparison.notices)
    for layer in comparison.layers:
        both = layer.identical or layer.a.notes == layer.b.notes
        sides = [("both", layer.a.notes)] if both else [("A", layer.a.notes), ("B", layer.b.notes)]
        lines += [
            f"{layer_name(layer.name)}, in {side}: {visible(note)}" for side, notes in sides for note in notes
        ]
    return lines


def _assumed(comparison: Comparison) -> list[str]:
    files = Counter[str]()
    for side, checkpoint in (("A", comparison.a), ("B", comparison.b)):
        for sentence in checkpoint.assumptions:
            files[f"{side}: {visible(sentence)}"] += 1
    layers = Counter(
        sentence
        for layer in comparison.layers
        for sentence in dict.fromkeys((*assumptions(layer.a), *assumptions(layer.b)))
    )
    return [*files, *(f"{visible(text)} ({plural(count, 'layer')})" for text, count in layers.most_common())]
