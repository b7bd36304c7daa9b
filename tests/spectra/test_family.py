"""D·W, ρA+βW and ρA+β·D·W against matrices that are written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from specinspect.spectra.family import Family, RectangularIdentity
from tests.spectra.matrices import with_spectrum


@settings(max_examples=150, deadline=None)
@given(
    rows=st.integers(1, 12),
    columns=st.integers(1, 12),
    rho=st.floats(-2, 2),
    beta=st.floats(-2, 2),
    slope=st.sampled_from([0.0, 0.1, -1.0, 1.0, 2.5]),
    complex_=st.booleans(),
    explicit=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_all_maps_agree_with_dense_matrices(
    rows: int, columns: int, rho: float, beta: float, slope: float, complex_: bool, explicit: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    assume(rho != 0 or beta != 0)
    batch = rng.standard_normal((3, rows, columns))
    if complex_:
        batch = batch + 1j * rng.standard_normal(batch.shape)
    shortcut = np.broadcast_to(np.eye(rows, columns), batch.shape).astype(batch.dtype)
    d = np.where(rng.random(rows) < 0.5, slope, 1.0)
    given_shortcut = torch.from_numpy(shortcut.copy()) if explicit else RectangularIdentity()
    family = Family.of(torch.from_numpy(batch), given_shortcut)
    diagonal = torch.from_numpy(d)

    def truth(matrices: np.ndarray) -> np.ndarray:
        return np.linalg.svd(matrices, compute_uv=False)

    size = abs(rho) + (abs(beta) * 2.5 + 1) * truth(batch).max()
    for found, dense in (
        (family.weight, batch),
        (family.skip(rho, beta), rho * shortcut + beta * batch),
        (family.skip(rho, beta, diagonal), rho * shortcut + beta * d[:, None] * batch),
    ):
        assert np.abs(found.values.numpy() - truth(dense)).max() <= 1e-7 * size
    chain = family.chain(diagonal)
    dense_chain = truth(d[:, None] * batch)
    if chain is None:
        assert not dense_chain.any()
        return
    values = chain.values.numpy()
    assert values.shape[1] == min(np.count_nonzero(d), columns)
    assert np.abs(values - dense_chain[:, : values.shape[1]]).max() <= 1e-7 * size
    assert np.abs(dense_chain[:, values.shape[1] :]).max(initial=0) <= 1e-12 * size


@pytest.mark.parametrize("gap", [1e-2, 1e-5, 1e-7])
def test_a_skip_that_nearly_cancels_keeps_its_digits(gap: float) -> None:
    """W = -I + a small map: the skip takes the large part away, and what is left is known."""
    rest = with_spectrum(np.geomspace(gap, gap / 100, 20), 20, 20)
    weight = torch.from_numpy(rest - np.eye(20))
    found = Family.of(weight[None], RectangularIdentity()).skip(1.0, 1.0)
    truth = np.linalg.svd(np.eye(20) + weight.numpy(), compute_uv=False)
    assert np.abs(found.values[0].numpy() - truth).max() <= 1e-9 * truth[0]
    assert abs(found.values[0, -1].item() - gap / 100) <= float(found.floor[0])


def test_a_skip_of_an_ill_conditioned_matrix() -> None:
    truth = np.r_[np.linspace(3, 2, 29), 1e-6]
    symmetric = with_spectrum(truth, 30, 30)
    weight = torch.from_numpy(symmetric - 0.5 * np.eye(30))
    found = Family.of(weight[None], RectangularIdentity()).skip(0.5, 1.0)
    assert found.values[0, -1].item() == pytest.approx(1e-6, rel=1e-6)
