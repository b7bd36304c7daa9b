"""The sample that sets bounds beside simulated layers."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest

SAMPLE = Path(__file__).parents[2] / "samples" / "riedi_bounds.py"
riedi_bounds = runpy.run_path(str(SAMPLE))  # a script, not a module
compute, render = riedi_bounds["compute"], riedi_bounds["render"]


def test_the_pictures_say_what_theory_says() -> None:
    over_n, over_c = compute(widths=(8, 16, 48), scales=(0.1, 0.3, 0.6), width=24, count=12)
    for found in (over_n, over_c):
        assert found.simulated.shape == (2, 3, 12)
        rigorous, every, asymptotic, _, numerical, exact = found.bounds.values()
        assert (found.simulated[0] <= rigorous[:, None]).all()  # 36 layers at δ = 0.01, and it is loose
        assert (rigorous <= every).all()
        assert (asymptotic <= rigorous).all()
        assert (exact <= numerical).all()
    # Bounds close in on their limits as layers grow, and simulated layers on the exact one.
    rigorous, *_, exact = over_n.bounds.values()
    assert (np.diff(rigorous) < 0).all()
    medians = np.median(over_n.simulated, (0, 2))
    assert medians[-1] == pytest.approx(exact[-1], rel=0.08)
    assert np.isinf(next(iter(over_c.bounds.values()))[-1])  # c = 0.6 at n = 24: nothing is guaranteed


def test_it_fits_the_terminal() -> None:
    studies = compute(widths=(8, 16), scales=(0.1, 0.6), width=8, count=3)
    text = render(studies)
    assert all(len(line) <= 80 for line in text.splitlines())
    for letter in "#abcdef":
        assert letter in text
    assert render(studies, ascii_only=True).isascii()
