"""Layers against rules. Pure: what a rule looks at is in the layer's result, or the rule says it is not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from specinspect.gate.baseline import BaselineLayer
from specinspect.gate.kappa import check_kappa
from specinspect.gate.policy import Active, Policy, make_policy, thresholds_of
from specinspect.gate.problem import NOT_COMPUTED, Problem, Skip, exceeds, limit_text
from specinspect.gate.verdict import Case
from specinspect.layers.names import matches
from specinspect.report.assemble import negative_text, nonfinite_text
from specinspect.report.model import Finding
from specinspect.report.structure import full_rank
from specinspect.report.text import number, shape
from specinspect.spectra.model import FAILED

if TYPE_CHECKING:
    from specinspect.report.model import BadTensor, LayerResult, Report
    from specinspect.spectra.model import Spectrum


def check(report: Report, **thresholds: Any) -> tuple[Finding, ...]:
    """Hold a report against limits.

    Args:
        report: of `inspect`.
        **thresholds: the fields of `Thresholds`: max_kappa=1e4, select=("SI3",), and so on.

    Returns:
        The findings, layer by layer; `severity` 'error' for those that fail a check.

    Raises:
        SettingsError: an unknown threshold or rule, or a limit that makes no sense.
    """
    policy = make_policy(thresholds_of(thresholds))
    found = [case.finding for case in check_layers(report.layers, policy)]
    found += [case.finding for case in check_tensors(report.bad_tensors, policy)]
    found += [case.finding for case in check_vanished(report, policy)]
    return tuple(finding for finding in found if finding is not None)


def check_layers(results: Iterable[LayerResult], policy: Policy) -> Iterator[Case]:
    """Yield one case per layer and rule."""
    baseline = policy.thresholds.baseline
    for result in results:
        name = result.layer.name
        known = None if baseline is None else baseline.layers.get(name)
        for active in policy.rules:
            if active.rule.code in {
                "SI305",
                "SI405",
            }:  # of tensors in no layer, and layers that are not there
                continue
            limit = policy.limit(active.rule, name)
            if active.rule.threshold is not None and limit is None:
                outcome: Problem | Skip | None = Skip("no limit for this layer")
            else:
                outcome = _evaluate(active, _Question(result, policy, limit, known))
            yield _case(name, active, outcome, limit)


def check_tensors(tensors: Iterable[BadTensor], policy: Policy) -> Iterator[Case]:
    """Yield a case for every rule that a tensor in no layer breaks."""
    for tensor in tensors:
        problems = {
            "SI301": (tensor.nan + tensor.infinite, nonfinite_text(tensor)),
            "SI305": (tensor.negative, negative_text(tensor)),
        }
        for active in policy.rules:
            bad, text = problems.get(active.rule.code, (0, ""))
            if bad:
                yield _case(tensor.name, active, Problem(text, float(bad), 0.0), None)


def check_vanished(report: Report, policy: Policy) -> Iterator[Case]:
    """Yield a case for every layer of the baseline that the report does not have and should."""
    settings = report.settings
    include, exclude = settings.get("layers") or (), settings.get("exclude") or ()
    yield from vanished((result.layer.name for result in report.layers), policy, include, exclude)


def vanished(
    names: Iterable[str], policy: Policy, include: Iterable[str], exclude: Iterable[str]
) -> Iterator[Case]:
    """Yield a case for every layer of the baseline that is not among the names, but matches the globs."""
    active = next((active for active in policy.rules if active.rule.code == "SI405"), None)
    baseline = policy.thresholds.baseline
    if active is None or baseline is None:
        return
    present, include, exclude = set(names), tuple(include), tuple(exclude)
    for name, layer in baseline.layers.items():
        wanted = (not include or matches(name, include)) and not matches(name, exclude)
        if name not in present and wanted:
            text = f"not in the checkpoint; the baseline has it, {layer.kind} {shape(layer.shape)}"
            yield _case(name, active, Problem(text), None)


def _case(layer: str, active: Active, outcome: Problem | Skip | None, limit: float | None) -> Case:
    if outcome is None:
        return Case(layer, active.rule, "passed")
    if isinstance(outcome, Skip):
        return Case(layer, active.rule, "skipped", why=outcome.why)
    severity = "error" if outcome.unknown else "warning" if outcome.doubt else active.severity
    limit = outcome.limit if outcome.limit is not None else limit
    finding = Finding(active.rule.code, severity, layer, outcome.message, outcome.value, limit)
    return Case(layer, active.rule, "failed" if severity == "error" else "warned", finding)


@dataclass(frozen=True, slots=True)
class _Question:
    """What an evaluator is given."""

    result: LayerResult
    policy: Policy
    limit: float | None
    baseline: BaselineLayer | None

    @property
    def weight(self) -> Spectrum | None:
        return self.result.maps.get("weight")

    @property
    def bar(self) -> float:
        """The limit, of rules that have one."""
        if self.limit is None:
            raise ValueError("a rule without a limit has no bar")
        return self.limit


_Answer = Problem | Skip | None


def _evaluate(active: Active, question: _Question) -> _Answer:
    """Settle what NaN or infinite weights mean for a rule, then let it look."""
    code, spectrum = active.rule.code, question.weight
    stored_only = code.startswith(("SI30", "SI5")) or code in {"SI404", "SI406"}
    if not stored_only and spectrum is not None and spectrum.nonfinite:
        if question.policy.thresholds.allow_nonfinite:
            return Skip("its weight has NaN or infinite entries, which are allowed")
        if active.rule.threshold is None or any(
            other.rule.code == "SI301" for other in question.policy.rules
        ):
            return Skip("its weight has NaN or infinite entries: see SI301")
        bar = "" if question.limit is None else f", {limit_text(question.limit)}"
        return Problem(f"not a number: {spectrum.nonfinite:,} NaN or infinite entries{bar}")
    answer = _RULES[code](question)
    if answer is NOT_COMPUTED and spectrum is not None and spectrum.condition_number_status in FAILED:
        bar = "" if question.limit is None else f", {limit_text(question.limit)}"
        return Problem(f"not known: {'; '.join(question.result.notes)}{bar}", unknown=True)
    return answer


def _max_kappa(q: _Question) -> _Answer:
    return check_kappa(q.result, "weight", q.bar)


def _max_chain_kappa(q: _Question) -> _Answer:
    return check_kappa(q.result, "chain", q.bar)


def _max_skip_kappa(q: _Question) -> _Answer:
    return check_kappa(q.result, "skip", q.bar)


def _unresolved(q: _Question) -> _Answer:
    from specinspect.gate.kappa import unresolved

    return NOT_COMPUTED if q.weight is None else unresolved(q.result, q.weight)


def _guaranteed(q: _Question) -> _Answer:
    if "skip" not in q.result.maps:
        return Skip("no skip map for this layer")
    bounds = [bound for bound in q.result.bounds if bound.id == "r4.best" and bound.of == "skip"]
    if not bounds:
        return Problem(f"no bound r4.best was computed, {limit_text(q.bar)}")
    bound = bounds[0]
    if bound.verdict != "holds" or bound.bound is None:
        verdict = bound.verdict.replace("_", " ")
        return Problem(f"r4.best is {verdict}, {limit_text(q.bar)}: {bound.why}")
    if exceeds(bound.bound, q.bar):
        return Problem(
            f"guaranteed is only κ(skip) <= {number(bound.bound)}, {limit_text(q.bar)}", bound.bound
        )
    return None


def _max_sigma(q: _Question) -> _Answer:
    if q.weight is None or q.weight.sigma_max is None:
        return NOT_COMPUTED
    value = q.weight.sigma_max
    return Problem(f"σmax = {number(value)}, {limit_text(q.bar)}", value) if exceeds(value, q.bar) else None


def _min_stable_rank(q: _Question) -> _Answer:
    if q.weight is None or q.weight.sigma_max is None:
        return NOT_COMPUTED
    value = q.weight.stable_rank
    if value is None:
        return Problem(f"a zero matrix has no stable rank, {limit_text(q.bar)}")
    if exceeds(q.bar, value):
        return Problem(f"stable rank {number(value)}, {limit_text(q.bar)}", value)
    return None


def _rank_deficient(q: _Question) -> _Answer:
    spectrum = q.weight
    if spectrum is None or spectrum.numerical_rank is None:
        return NOT_COMPUTED
    if q.result.layer.kind == "lora":
        return Skip("low rank is what an adapter is for")
    if spectrum.sigma_max == 0:
        return Skip("every entry is zero: see SI302")
    zeros = q.result.zeros
    explained = spectrum.histogram.zeros if zeros is not None and any(zeros) and spectrum.histogram else 0
    full = full_rank(q.result.layer, spectrum.count)
    missing = full - spectrum.numerical_rank - explained
    structural = (
        full == spectrum.count
        and spectrum.condition_number_status == "infinite"
        and not (zeros and any(zeros))
    )
    # A healthy square matrix has a few singular values below the rounding error of a 16-bit dtype.
    if missing > (0 if structural else max(2, full // 50)):
        rank = float(spectrum.numerical_rank)
        why = "; ".join(q.result.notes) if structural else ""
        why = why or f"the rest is within the rounding error of {q.result.layer.dtype}"
        text = f"numerical rank {spectrum.numerical_rank:,} of {full:,}: {why}"
        return Problem(text, rank, float(full))
    return None


def _nonfinite(q: _Question) -> _Answer:
    if q.weight is None:
        return NOT_COMPUTED
    if not q.weight.nonfinite:
        return None
    notes = "; ".join(note for note in q.result.notes if "NaN" in note)
    return Problem(notes or f"{q.weight.nonfinite:,} NaN or infinite entries", float(q.weight.nonfinite), 0.0)


def _zero_matrix(q: _Question) -> _Answer:
    if q.weight is None:
        return NOT_COMPUTED
    return Problem("every entry is zero") if q.weight.sigma_max == 0 else None


def _dead(q: _Question, axis: int, dense: str, channels: str) -> _Answer:
    if q.weight is None or q.result.zeros is None:
        return Skip("low rank by construction") if q.result.layer.kind == "lora" else NOT_COMPUTED
    layer, dead = q.result.layer, q.result.zeros[axis]
    if q.weight.sigma_max == 0:
        return Skip("every entry is zero: see SI302")
    allowed = 1 if axis == 1 and layer.kind == "embedding" else 0
    if dead <= allowed:
        return None
    what = dense if layer.conv is None else channels
    text = f"{dead:,} of {_total(q.result, axis):,} {what} {'is' if dead == 1 else 'are'} zero"
    return Problem(text, float(dead), float(allowed))


def _total(result: LayerResult, axis: int) -> int:
    return result.layer.matrix_shape[axis]


def _dead_rows(q: _Question) -> _Answer:
    return _dead(q, 0, "rows", "output channels")


def _dead_columns(q: _Question) -> _Answer:
    return _dead(q, 1, "columns", "input channels")


def _kappa_growth(q: _Question) -> _Answer:
    from specinspect.gate.kappa import kappa_growth

    if _uncomparable(q):
        return _uncomparable(q)
    assert q.baseline is not None
    return kappa_growth(q.result, q.baseline, q.bar)


def _sigma_growth(q: _Question) -> _Answer:
    if _uncomparable(q):
        return _uncomparable(q)
    assert q.baseline is not None
    if q.weight is None or q.weight.sigma_max is None:
        return NOT_COMPUTED
    before, now = q.baseline.sigma_max, q.weight.sigma_max
    if before is None:
        return Skip("no σmax in the baseline")
    if exceeds(now, q.bar * before):
        grown = f"{number(now / before)} times" if before else "from zero"
        return Problem(
            f"σmax has grown from {number(before)} to {number(now)}, {grown}, {limit_text(q.bar)}",
            now / before if before else None,
        )
    return None


def _rank_loss(q: _Question) -> _Answer:
    if _uncomparable(q):
        return _uncomparable(q)
    assert q.baseline is not None
    if q.weight is None or q.weight.numerical_rank is None:
        return NOT_COMPUTED
    before, now = q.baseline.numerical_rank, q.weight.numerical_rank
    if not before:
        return Skip("no rank in the baseline")
    lost = 1 - now / before
    if exceeds(lost, q.bar):
        return Problem(f"rank {now:,}, in the baseline {before:,}: {lost:.1%} lost, limit {q.bar:.4g}", lost)
    return None


def _uncomparable(q: _Question) -> Skip | None:
    if q.baseline is None:
        return Skip("not in the baseline")
    return Skip("its shape has changed: see SI406") if _reshaped(q) else None


def _reshaped(q: _Question) -> bool:
    if q.baseline is None:
        return False
    layer, known = q.result.layer, q.baseline
    return (tuple(layer.shape), layer.kind) != (known.shape, known.kind) or bool(_changed(q.result, known))


def _changed(result: LayerResult, known: BaselineLayer) -> list[str]:
    """Return what of a convolution's geometry differs from the baseline's: the operator is then another."""
    conv, before = result.layer.conv, known.geometry
    if conv is None or before is None:
        return []
    now = {
        "stride": list(conv.stride.value),
        "dilation": list(conv.dilation.value),
        "groups": conv.groups.value,
    }
    if result.maps:  # headers alone know no grid
        now["grid"] = None if result.grid is None else list(result.grid)
        now["convention"] = "zero-padded" if result.boundary == "zeros" else "circular"
    return [
        f"{name} {now[name]}, in the baseline {before[name]}" for name in now if now[name] != before[name]
    ]


def _appeared(q: _Question) -> _Answer:
    return Problem("not in the baseline") if q.baseline is None else None


def _shape_changed(q: _Question) -> _Answer:
    if q.baseline is None:
        return Skip("not in the baseline")
    if not _reshaped(q):
        return None
    layer, known = q.result.layer, q.baseline
    if (tuple(layer.shape), layer.kind) == (known.shape, known.kind):
        return Problem("; ".join(_changed(q.result, known)))
    return Problem(f"{layer.kind} {shape(layer.shape)}, in the baseline {known.kind} {shape(known.shape)}")


def _bound_violated(q: _Question) -> _Answer:
    if not q.result.bounds:
        return Skip("no bounds were computed")
    wrong = [b for b in q.result.bounds if b.verdict == "violated" and b.probability is None]
    if not wrong:
        return None
    text = "; ".join(f"{bound.id} of {bound.of}: {bound.why}" for bound in wrong)
    return Problem(text, wrong[0].value, wrong[0].bound)


_RULES: Mapping[str, Callable[[_Question], _Answer]] = {
    "SI101": _max_kappa,
    "SI102": _max_chain_kappa,
    "SI103": _max_skip_kappa,
    "SI104": _unresolved,
    "SI105": _guaranteed,
    "SI201": _max_sigma,
    "SI202": _min_stable_rank,
    "SI203": _rank_deficient,
    "SI301": _nonfinite,
    "SI302": _zero_matrix,
    "SI303": _dead_rows,
    "SI304": _dead_columns,
    "SI401": _kappa_growth,
    "SI402": _sigma_growth,
    "SI403": _rank_loss,
    "SI404": _appeared,
    "SI406": _shape_changed,
    "SI501": _bound_violated,
}
"""Code → what looks at one layer; SI405 looks at those that are not there."""
