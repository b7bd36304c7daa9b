"""Every picture as text, in Unicode and in ASCII; `UPDATE_GOLDENS=1` rewrites them."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Protocol

import pytest

from specinspect.plots.bars import log_histogram, mirror_histogram
from specinspect.plots.canvas import Canvas
from specinspect.plots.curves import Curve, depth_plot, kappa_curve
from specinspect.plots.series import Line
from specinspect.plots.small import progress_bar, slack_bar
from specinspect.plots.spectrum import sorted_spectrum
from specinspect.plots.theme import styles
from tests.plots.samples import chain, skip

GOLDENS = Path(__file__).parent / "goldens"
LINES = (
    Line(1e-3, "storage floor", "floor"),
    Line(2.2, "random bulk to", "bulk"),
    Line(1e-15, "computation floor", "floor"),
)
BETA = tuple(i / 16 for i in range(33))
KAPPA = (
    Curve("κ(ρI+βW)", "skip", tuple(None if 20 < i < 23 else 1 + 30 * abs(i / 16 - 1) for i in range(33))),
    Curve("guaranteed", "bound", tuple((16 + i) / (16 - i) if i < 16 else None for i in range(33))),
)
DEPTH = (
    Curve("chain", "chain", tuple(math.inf if i == 7 else 100 * 1.5 ** (i % 9) for i in range(30))),
    Curve("skip", "skip", tuple(math.nan if i == 9 else 3 + i / 10 for i in range(30))),
)


class Draw(Protocol):
    """Draws a picture of a size."""

    def __call__(self, w: int, h: int, *, plain: bool) -> Canvas: ...


PICTURES: dict[str, Draw] = {
    "mirror": lambda w, h, *, plain: mirror_histogram(chain(), skip(), w, h, lines=LINES, plain=plain),
    "histogram": lambda w, h, *, plain: log_histogram(chain(), w, h, lines=LINES, plain=plain),
    "sorted": lambda w, h, *, plain: sorted_spectrum((chain(), skip()), w, h, lines=LINES, plain=plain),
    "kappa": lambda w, h, *, plain: kappa_curve(BETA, KAPPA, w, h, cursor=1.0, plain=plain),
    "depth": lambda w, h, *, plain: depth_plot(DEPTH, w, h, plain=plain),
}


def golden(name: str, text: str) -> None:
    path = GOLDENS / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDENS") == "1":
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("plain", [False, True], ids=["unicode", "ascii"])
@pytest.mark.parametrize("name", PICTURES)
def test_pictures(name: str, plain: bool) -> None:
    sizes = ((20, 4), (78, 16), (150, 20))
    pictures = [PICTURES[name](width, height, plain=plain) for width, height in sizes]
    text = "\n\n".join("\n".join(line.rstrip() for line in picture.lines()) for picture in pictures) + "\n"
    golden(f"{name}-{'ascii' if plain else 'unicode'}", text)


def test_small_pictures() -> None:
    rows = [
        f"{slack_bar(s, 12)} {slack_bar(s, 12, plain=True)} slack {s}" for s in (0, 0.05, 0.5, 1, 3, -0.2)
    ]
    rows += [f"{progress_bar(f, 12)} {progress_bar(f, 12, plain=True)} {f}" for f in (0, 0.5, 0.999, 1)]
    golden("small", "\n".join(rows) + "\n")


@pytest.mark.parametrize("slack", [None, math.nan, math.inf, -math.inf, 0.0, -1e-12])
@pytest.mark.parametrize("width", [0, 1, 7])
def test_a_slack_bar_takes_anything(slack: float | None, width: int) -> None:
    bar = str(slack_bar(slack, width))
    assert len(bar) == width
    if slack is not None and slack < 0 and width:
        assert bar.endswith("!")


@pytest.mark.parametrize("dark", [True, False])
def test_every_style_has_a_look_and_no_character_is_lost(dark: bool) -> None:
    look = styles(dark=dark)
    for draw in PICTURES.values():
        picture = draw(78, 16, plain=False)
        assert {cell.style for row in picture.rows for cell in row} - {""} <= set(look)
        assert picture.to_text(dark=dark).plain == str(picture)


def test_the_two_curves_can_be_told_apart_without_colours() -> None:
    text = str(PICTURES["kappa"](78, 16, plain=False))
    assert "⣀⣀ κ(ρI+βW)" in text
    assert "⣀  guaranteed" in text
