"""What can be taken out of the app: the report, a layer's spectrum, the picture on the screen."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from specinspect.errors import SettingsError
from specinspect.report.text import visible

if TYPE_CHECKING:
    from textual.screen import Screen

    from specinspect.report.model import LayerResult
    from specinspect.tui.view import PaneView

FORMS = {".json": "report", ".csv": "spectrum", ".svg": "screen", ".txt": "screen as text"}
"""Suffix → what is written."""


def write_new(path: str, make: Callable[[str], str]) -> Path:
    """Write a file that does not exist yet; its suffix says what.

    Args:
        path: where.
        make: suffix → text.

    Raises:
        SettingsError: another suffix, the file is there already, or it cannot be written.
    """
    target = Path(path.strip()).expanduser()
    if target.suffix not in FORMS:
        known = ", ".join(FORMS)
        raise SettingsError(f"{visible(target.name) or 'no name'}: expected a name ending in {known}")
    if target.exists():
        raise SettingsError(f"{visible(str(target))} is there already", "choose another name")
    text = make(target.suffix)
    try:
        # 'x' also refuses a file that has appeared since.
        with target.open("x", encoding="utf-8", newline="") as file:
            file.write(text)
    except FileExistsError:
        raise SettingsError(f"{visible(str(target))} is there already", "choose another name") from None
    except OSError as error:
        raise SettingsError(f"cannot write {visible(str(target))}: {error.strerror or error}") from error
    return target


def spectrum_csv(result: LayerResult, view: PaneView) -> str:
    """Return all singular values of a layer's maps as CSV: one row per value, descending.

    A map at today's ρ and β is taken where it is known exactly, else at those of the run; both stand beside
    every value.

    Raises:
        SettingsError: no singular values were kept.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(("layer", "map", "rho", "beta", "index", "singular_value"))
    rows = 0
    for name, measured in result.maps.items():
        found = view.live.get(name)
        chosen, rho, beta = measured, view.run_rho, view.run_beta
        if found is not None and found.exact and found.spectrum is not None:
            chosen, rho, beta = found.spectrum, view.rho, view.beta
        if chosen.singular_values is None:
            continue
        scale = (f"{rho:g}", f"{beta:g}") if name.startswith("skip") else ("", "")
        for index, value in enumerate(chosen.singular_values.tolist(), 1):
            writer.writerow((_cell(result.layer.name), name, *scale, index, repr(value)))
            rows += 1
    if not rows:
        raise SettingsError("no singular values are known of this layer", "wait until it is computed")
    return buffer.getvalue()


def _cell(name: str) -> str:
    """Return a name that no spreadsheet takes for a formula."""
    text = visible(name)
    return f"'{text}" if text[:1] in {"=", "+", "-", "@"} else text


def free_name(stem: str, suffix: str) -> str:
    """Return a name in the working directory that is not taken."""
    stem = (
        "".join(c if c.isalnum() or c in "._-" else "_" for c in visible(stem))[:80].strip(".")
        or "specinspect"
    )
    candidate, number = f"{stem}{suffix}", 1
    while Path(candidate).exists():
        number += 1
        candidate = f"{stem}-{number}{suffix}"
    return candidate


def screen_text(screen: Screen[object]) -> str:
    """Return what is on the screen as lines of text."""
    strips = screen._compositor.render_strips()  # what export_screenshot does, less the colours
    return "\n".join(strip.text.rstrip() for strip in strips) + "\n"
