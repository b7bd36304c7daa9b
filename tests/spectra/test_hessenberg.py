"""The Hessenberg form and the triangular factors of its shifts against numpy and scipy."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch

from specinspect.spectra.hessenberg import PANEL, ShiftedHessenberg, hessenberg

SIZES = [1, 2, 3, 5, PANEL - 1, PANEL, PANEL + 1, PANEL + 2, PANEL + 3, 2 * PANEL + 7]


def random(n: int, complex_: bool) -> torch.Tensor:
    return torch.randn(
        n, n, generator=torch.Generator().manual_seed(n), dtype=torch.cdouble if complex_ else torch.double
    )


@pytest.mark.parametrize("complex_", [False, True])
@pytest.mark.parametrize("n", SIZES)
def test_it_is_unitarily_similar(n: int, complex_: bool) -> None:
    m = random(n, complex_)
    kept = m.clone()
    h = hessenberg(m)
    assert torch.equal(m, kept)
    assert float(h.tril(-2).abs().sum()) == 0
    truth = np.abs(np.diagonal(scipy.linalg.hessenberg(m.numpy()), -1))
    assert np.abs(h.diagonal(-1).numpy()) == pytest.approx(truth, rel=1e-8)  # unique up to phases
    for shift in (0.0, 1.0, -2.5):
        here, there = (np.linalg.svd(x.numpy() + shift * np.eye(n), compute_uv=False) for x in (h, m))
        assert here == pytest.approx(there, abs=1e-13 * max(1.0, there[0]))


@pytest.mark.parametrize(
    "m",
    [
        torch.zeros(40, 40),
        torch.eye(40),
        torch.ones(40, 40),
        torch.eye(40).roll(1, 0),
        torch.ones(40, 40).triu(),
    ],
    ids=["zero", "identity", "ones", "shift", "triangular"],
)
@pytest.mark.parametrize("scale", [1.0, 1e-150, 1e150])
def test_columns_that_vanish_and_extreme_scales(m: torch.Tensor, scale: float) -> None:
    m = m.double() * scale
    h = hessenberg(m)
    assert float(h.tril(-2).abs().sum()) == 0
    truth = np.linalg.svd(m.numpy(), compute_uv=False)
    assert np.linalg.svd(h.numpy(), compute_uv=False) == pytest.approx(
        truth, abs=1e-13 * max(truth[0], scale)
    )


@pytest.mark.parametrize("complex_", [False, True])
@pytest.mark.parametrize("n", SIZES)
def test_products_and_factors(n: int, complex_: bool) -> None:
    m = random(n, complex_)
    h = hessenberg(m)
    shifted = ShiftedHessenberg(h)
    x = random(n, complex_)[:3]
    assert shifted.times(x).numpy() == pytest.approx((x @ h.mT).numpy(), abs=1e-12)
    assert shifted.adjoint_times(x).numpy() == pytest.approx((x @ h.conj()).numpy(), abs=1e-12)
    for rho, beta in ((1.0, 0.3), (-0.7, 2.0), (1.0, 0.0)):
        r = shifted.triangular_factor(rho, beta).triu()
        truth = np.linalg.svd(rho * np.eye(n) + beta * m.numpy(), compute_uv=False)
        assert np.linalg.svd(r.numpy(), compute_uv=False) == pytest.approx(truth, abs=1e-13 * truth[0])
