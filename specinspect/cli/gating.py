"""What `check` does: options to a policy, each checkpoint to its cases, the verdict to its formats."""

from __future__ import annotations

import glob
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from specinspect._version import __version__
from specinspect.cli.options import comma_separated, options_of
from specinspect.cli.output import check_not_input, check_writable, files_read, write_text
from specinspect.cli.speech import say
from specinspect.config import Config
from specinspect.errors import SettingsError, SpecinspectError
from specinspect.gate.baseline import read_baseline
from specinspect.gate.check import check_layers, check_tensors, vanished
from specinspect.gate.policy import Effort, Policy, Thresholds, make_policy
from specinspect.gate.verdict import Case, Checked, Verdict
from specinspect.settings import Settings

if TYPE_CHECKING:
    from specinspect.engine import Inspection
    from specinspect.report.model import Report

TOLD = 3
"""Errors of single checkpoints that stderr tells; the formats have all."""
_LIMITS = tuple(item.name for item in fields(Thresholds) if item.name.startswith(("max_", "min_")))


@dataclass(frozen=True, slots=True)
class Target:
    """A format, and the file it goes to; None is stdout."""

    form: str
    output: str | None


@dataclass(frozen=True, slots=True)
class Plan:
    """All that `check` was asked for, before anything is opened."""

    settings: Settings
    policy: Policy
    effort: Effort
    targets: tuple[Target, ...]
    write_baseline: str | None
    fail_fast: bool
    exit_zero: bool
    files: tuple[str | None, ...]
    """Read beside the checkpoints."""


def run_check(context: typer.Context) -> int:
    """Check what the options say and return the exit code: 0, 1 or 2.

    Raises:
        SpecinspectError: nothing can be checked at all (options, configuration, baseline).
    """
    given = context.params
    plan, notices = _plan(context)
    paths = _expand(given["checkpoints"])
    if plan.write_baseline is not None and len(paths) != 1:
        raise SettingsError(f"--write-baseline: expected one checkpoint, got {len(paths)}")
    for sentence in notices:
        say(sentence)
    checked: list[Checked] = []
    stopped = False
    for path in paths:
        one = _check_one(path, plan)
        checked.append(one)
        if plan.fail_fast and one.failed:
            stopped = one.looked_at < one.layers or len(checked) < len(paths)
            break
    rules = tuple(active.rule for active in plan.policy.rules)
    verdict = Verdict(tuple(checked), rules, __version__, plan.exit_zero, stopped)
    errors = [one.error for one in checked if one.error is not None]
    if errors:
        say(_in_one_line(errors, len(paths)))
    _write(verdict, plan.targets, told=len(errors) <= TOLD)
    return verdict.exit_code


def _in_one_line(errors: Sequence[str], checkpoints: int) -> str:
    """Return why some checkpoints could not be checked: an exit code 2 is one line, however many they are."""
    if len(errors) == 1:
        return errors[0]
    more = f"; and {len(errors) - TOLD:,} more" if len(errors) > TOLD else ""
    return f"{len(errors):,} of {checkpoints:,} checkpoints not checked: {'; '.join(errors[:TOLD])}{more}"


def _plan(context: typer.Context) -> tuple[Plan, tuple[str, ...]]:
    given = context.params
    chosen, config, notices = options_of(context)
    # A bad limit is said before a baseline is read, and both before any checkpoint.
    thresholds = _thresholds(context, config)
    policy = make_policy(thresholds)
    fail_fast, exit_zero = given["fail_fast"], _flag(context, config, "exit_zero")
    write_baseline = check_writable(given["write_baseline"], "--write-baseline")
    if write_baseline is not None and fail_fast:
        raise SettingsError("--fail-fast and --write-baseline contradict each other", "give one of them")
    effort = policy.effort()
    if write_baseline is not None and effort.quantities != "spectrum":
        effort = Effort("spectrum", effort.maps, effort.bounds)
    chosen |= {
        "maps": effort.maps,
        "bounds": effort.bounds,
        "blocks": False,
        "compose": (),
        "curve": False,
        "spectra": bool(chosen["spectra"]) and write_baseline is not None,
    }
    chosen["quantities"] = "entries" if effort.quantities == "none" else effort.quantities
    settings = Settings(**chosen, rules=config.rules)
    targets = parse_targets(given["formats"] or (), given["output"])
    if write_baseline is not None and os.path.realpath(write_baseline) in outputs_of(targets):
        raise SettingsError("--write-baseline: a format would go to the same file", "name another file")
    files = (settings.inputs, config.path, None if thresholds.baseline is None else thresholds.baseline.path)
    return Plan(settings, policy, effort, targets, write_baseline, fail_fast, exit_zero, files), notices


def _thresholds(context: typer.Context, config: Config) -> Thresholds:
    """Return the limits: those of the command line before those of [check]."""
    given = context.params
    values: dict[str, Any] = {
        name: config.check.get(name) if given[name] is None else given[name] for name in _LIMITS
    }
    for name in ("select", "ignore"):
        texts = given[name] if given[name] is not None else config.check.get(name, ())
        values[name] = comma_separated(texts)
    values["allow_nonfinite"] = _flag(context, config, "allow_nonfinite")
    values["per_layer"] = config.limits
    path = given["baseline"]
    if path is None and "baseline" in config.check:
        # As written beside the configuration file, wherever the command runs.
        path = str(Path(config.path or "").parent / config.check["baseline"])
    Thresholds(**values)
    if path is not None:
        values["baseline"] = read_baseline(path)
    return Thresholds(**values)


def _flag(context: typer.Context, config: Config, name: str) -> bool:
    return bool(context.params[name] or config.check.get(name, False))


def parse_targets(texts: Sequence[str], output: str | None) -> tuple[Target, ...]:
    """Read `--format NAME[:FILE]` and `-o FILE`.

    Raises:
        SettingsError: an unknown format, two for stdout, or a file that cannot be written.
    """
    from specinspect.gate.formats import FORMATS

    targets = []
    for text in texts or ("text",):
        name, colon, file = text.partition(":")
        if name not in FORMATS:
            close = get_close_matches(name, FORMATS, n=1)
            hint = f"did you mean {close[0]!r}?" if close else "as NAME, or NAME:FILE"
            raise SettingsError(f"--format: expected one of {', '.join(FORMATS)}, got {name!r}", hint)
        if colon and not file:
            raise SettingsError(f"--format: expected a file name after {text!r}")
        targets.append(Target(name, check_writable(file, "--format") if colon else None))
    bare = [number for number, target in enumerate(targets) if target.output is None]
    if output is not None:
        output = check_writable(output)
        if not bare:
            if len(texts):
                raise SettingsError("-o: every --format has a file of its own", "leave one out")
        elif len(bare) == 1:
            targets[bare[0]] = Target(targets[bare[0]].form, output)
    if len(bare) > 1:
        names = " and ".join(targets[number].form for number in bare)
        raise SettingsError(f"--format: {names} would both go to stdout", "give one a file: NAME:FILE")
    named = outputs_of(targets)
    if len(set(named)) < len(named):
        raise SettingsError("--format: two formats would go to the same file", "name another file")
    return tuple(targets)


def outputs_of(targets: Sequence[Target]) -> list[str]:
    """Return the files that are written, however they were spelled."""
    return [os.path.realpath(target.output) for target in targets if target.output is not None]


def _expand(arguments: Sequence[str]) -> tuple[str, ...]:
    """Return the checkpoints; globs that the shell left alone are opened here.

    Raises:
        SettingsError: a glob that matches nothing.
    """
    paths: list[str] = []
    for argument in arguments:
        if Path(argument).exists() or not glob.has_magic(argument):
            paths.append(argument)
            continue
        found = sorted(glob.glob(argument, recursive=True))  # noqa: PTH207  (keeps the path as it was given)
        if not found:
            raise SettingsError(f"no checkpoint matches {argument!r}", "check the path")
        paths += found
    return tuple(dict.fromkeys(paths))


def _check_one(path: str, plan: Plan) -> Checked:
    """Check one checkpoint; what is wrong with it alone is its error."""
    from specinspect import engine

    start = time.perf_counter()
    try:
        inspection = engine.open_source(path, plan.settings)
        outputs = [*(target.output for target in plan.targets)]
        read = files_read(path, inspection.checkpoint.files, *plan.files)
        for output in outputs:
            check_not_input(output, read)
        check_not_input(plan.write_baseline, files_read(path, inspection.checkpoint.files))
        for sentence in inspection.notices:
            say(sentence)
        cases, looked_at, report = _cases(inspection, plan)
    except SettingsError:
        raise
    except SpecinspectError as error:
        return Checked(path, error=str(error))
    layers = len(inspection.discovery.layers)
    checked = Checked(path, tuple(cases), layers, looked_at, time.perf_counter() - start)
    if plan.write_baseline is not None and report is not None and not checked.failed:
        write_text(report.to_json(), plan.write_baseline)
    return checked


def _cases(inspection: Inspection, plan: Plan) -> tuple[list[Case], int, Report | None]:
    """Return the cases of a checkpoint, how many layers were looked at, and the report that was computed."""
    from specinspect import engine
    from specinspect.cli.progress import progress
    from specinspect.report.model import LayerResult

    layers, policy = inspection.discovery.layers, plan.policy
    names = [layer.name for layer in layers]
    missing = list(vanished(names, policy, plan.settings.layers, plan.settings.exclude))
    if plan.effort.quantities == "none":
        results = [LayerResult(layer, {}, 0.0) for layer in layers]
        return [*check_layers(results, policy), *missing], len(layers), None
    with progress(len(layers)) as advance:
        if not plan.fail_fast:
            report = engine.report(inspection, progress=advance)
            beside = check_tensors(report.bad_tensors, policy)
            return [*check_layers(report.layers, policy), *beside, *missing], len(layers), report
        found: dict[str, list[Case]] = {}
        missing = [*check_tensors(engine.bad_tensors(inspection), policy), *missing]
        for result in () if _failed(missing) else engine.iter_results(inspection, progress=advance):
            found[result.layer.name] = list(check_layers([result], policy))
            if _failed(found[result.layer.name]):
                break
    cases = [case for name in names for case in found.get(name, ())]
    return [*cases, *missing], len(found), None


def _failed(cases: Sequence[Case]) -> bool:
    return any(case.outcome == "failed" for case in cases)


def _write(verdict: Verdict, targets: Sequence[Target], *, told: bool) -> None:
    """Write every format; `told` says that all errors are on stderr already."""
    from specinspect.gate.formats import FORMATS

    nothing = told and all(checked.error is not None for checked in verdict.checkpoints)
    for target in targets:
        if not (nothing and target.form == "text" and target.output is None):
            write_text(FORMATS[target.form](verdict), target.output)
