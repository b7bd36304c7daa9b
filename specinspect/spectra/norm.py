"""The spectral norm without the rest of the spectrum, and what a pass over the entries tells by itself.

A block Krylov iteration on AᴴA (Golub and Underwood 1977; Musco and Musco 2015) from a random block. What it
returns is a Ritz value, ‖Av‖ of a unit vector v, so it is never above σmax but for rounding. It stops once
the error of σmax² is below a relative 2e-7 by the residual r of its Ritz pair: some eigenvalue lies within r,
and within r²/gap (Kato and Temple) with the gap to the second Ritz value for that to the second eigenvalue.
That it is the largest one rests on the random start: after q blocks of products σmax² falls short by a
relative ε with a probability of at most 1.648·√n·exp(-√ε(2q-1)), which holds even for a start of a single
vector and whatever the gaps (Kuczyński and Woźniakowski 1992).
"""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite, prod, sqrt

import torch

from specinspect.maps.fourier import fourier_blocks
from specinspect.maps.model import ConvolutionMap, DenseMap, LinearMap, LowRankMap
from specinspect.spectra.compute import (
    Measured,
    channel_notes,
    measure,
    zero_channels,
    zero_lines,
    zero_notes,
)
from specinspect.spectra.model import Spectrum
from specinspect.spectra.plan import Plan
from specinspect.spectra.rounding import SCANNED, Scan, exact_dtype, scan
from specinspect.spectra.solve import Streamed, row_blocks, tall
from specinspect.spectra.summary import harmless_scale, unusable

DIRECT = 128
"""Columns up to which all eigenvalues of AᴴA come as fast as the largest."""
TALL = 8
"""Rows per column from which on AᴴA is formed, a block of rows at a time: no float64 copy of an embedding."""
BLOCK = 4
FIRST_CHECK, NEXT_CHECK = 5, 1.3
STEPS = 64
"""Blocks after which the full solver takes over: random matrices of 4096 columns settle before."""
SETTLED = 2e-7
"""Error of σmax², relative to it, at which the iteration stops."""
SEED = 0


def measure_part(linear: LinearMap, plan: Plan, *, norm: bool) -> Measured:
    """Return what the entries of a map tell, and with `norm` σmax, ‖·‖_F and the stable rank too.

    κ, σmin and ranks are None, and the status of κ is 'not_computed'.
    """
    if isinstance(linear, LowRankMap):  # small factors: no cheaper way
        return measure([linear], plan, keep_values=False)[0]
    if isinstance(linear, ConvolutionMap):
        return _convolution(linear, plan, norm)
    return _dense(linear, plan, norm)


def _dense(dense: DenseMap, plan: Plan, norm: bool) -> Measured:
    matrix = dense.matrix
    blocks = row_blocks(matrix, SCANNED, 1.0, "cpu", exact_dtype(matrix.dtype))
    found = scan(blocks, matrix.shape[1], dense.dtype, floors=False)
    count = dense.count
    if found.nonfinite:
        spectrum = unusable(count, found.nonfinite, plan.device)
        return Measured(spectrum, (found.describe_nonfinite(),), zero_lines(found))
    sigma = frobenius = None
    method = "entries"
    if norm and found.largest > 0:
        scale = harmless_scale(found.largest)
        upright = tall(matrix)
        if upright.shape[0] >= TALL * upright.shape[1] or upright.shape[1] <= DIRECT:
            gram = Streamed(matrix, scale, plan.device).gram()
            frobenius = sqrt(float(gram[0].trace())) / scale
            sigma = sqrt(float(_largest_of_gram(gram)[0])) / scale
        else:
            full = upright.to(plan.device).to(torch.float64)
            full = full * scale if scale != 1.0 else full
            frobenius = float(torch.linalg.vector_norm(full)) / scale
            squares, settled = _iterated(full[None])
            if not bool(settled.all()):
                del full  # the matrix in float64 and its Gram matrix are not needed together
                gram = Streamed(matrix, scale, plan.device).gram()
                squares = torch.linalg.eigvalsh(gram)[:, -1].clamp_min(0).cpu()
            sigma = sqrt(float(squares[0])) / scale
        method = "block Krylov, float64"
    spectrum = _partial(count, found, plan, sigma, frobenius, method)
    return Measured(spectrum, zero_notes(found), zero_lines(found))


def _convolution(convolution: ConvolutionMap, plan: Plan, norm: bool) -> Measured:
    kernel = convolution.kernel.to(plan.device).to(torch.float64)
    groups, out, inn = kernel.shape[:3]
    places = prod(convolution.coarse)
    count = convolution.count
    columns = inn * prod(kernel.shape[3:])
    found = scan(iter([kernel.reshape(groups * out, columns)]), columns, convolution.dtype, floors=False)
    live = (kernel != 0).flatten(3).any(-1)
    if found.nonfinite:
        spectrum = unusable(count, found.nonfinite, plan.device)
        return Measured(spectrum, (found.describe_nonfinite(),), zero_channels(live))
    sigma = frobenius = None
    method = "entries"
    if norm and found.largest > 0:
        scale = harmless_scale(found.largest)
        kernel = kernel * scale if scale != 1.0 else kernel
        # Every output of the periodic operator reads all taps.
        frobenius = float(torch.linalg.vector_norm(kernel)) * sqrt(places) / scale
        limit = plan.block_bytes(8 * kernel.numel())
        batches = fourier_blocks(convolution, kernel, limit)
        sigma = max(float(largest_singular_values(batch.blocks).amax()) for batch in batches) / scale
        method = "Fourier blocks, block Krylov, float64"
    spectrum = _partial(count, found, plan, sigma, frobenius, method)
    return Measured(spectrum, channel_notes(live), zero_channels(live))


def _partial(
    count: int, found: Scan, plan: Plan, sigma: float | None, frobenius: float | None, method: str
) -> Spectrum:
    if found.largest == 0:
        sigma = frobenius = 0.0
    if sigma is not None and not isfinite(sigma):
        raise OverflowError("a singular value beyond float64")
    known = sigma is not None and frobenius is not None and sigma > 0
    return Spectrum(
        count=count,
        sigma_max=sigma,
        sigma_min=None,
        condition_number=None,
        condition_number_status="not_computed",
        pseudo_condition_number=None,
        numerical_rank=None,
        stable_rank=(frobenius / sigma) ** 2 if known else None,  # type: ignore[operator]
        effective_rank=None,
        frobenius_norm=frobenius,
        storage_floor=None,
        computation_floor=None,
        method=method,
        device=plan.device,
        histogram=None,
    )


def largest_singular_values(matrices: torch.Tensor) -> torch.Tensor:
    """Return σmax of each matrix of a batch.

    Args:
        matrices: (batch, m, n), finite, float64 or complex128, of a size whose squares are representable.

    Returns:
        (batch,) float64; from below, see the module on how far to trust it.
    """
    a = matrices if matrices.shape[-2] >= matrices.shape[-1] else matrices.mH
    if a.shape[-1] <= DIRECT:
        return _largest_of_gram(a.mH @ a).sqrt()
    values, settled = _iterated(a)
    if not bool(settled.all()):
        rest = a[~settled] if bool(settled.any()) else a
        values[~settled] = torch.linalg.eigvalsh(rest.mH @ rest)[:, -1].cpu()
    return values.sqrt()


def _iterated(a: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return σmax² of each matrix of a batch (batch, m, n), m >= n > DIRECT, and which have settled."""
    return _krylov(lambda v: (v @ a.mT) @ a.conj(), a)


def _largest_of_gram(gram: torch.Tensor) -> torch.Tensor:
    """Return the largest eigenvalue of each positive semidefinite matrix of a batch."""
    if gram.shape[-1] > DIRECT:
        values, settled = _krylov(lambda v: v @ gram.mT, gram)
        if bool(settled.all()):
            return values
    return torch.linalg.eigvalsh(gram)[:, -1].clamp_min(0).cpu()


def _krylov(
    apply: Callable[[torch.Tensor], torch.Tensor], like: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the largest eigenvalue of a batch of positive semidefinite operators, and which have settled.

    Args:
        apply: vectors as rows, (batch, BLOCK, n) → the operators times these vectors: products run through
            the matrix along its own rows, several times as fast.
        like: (batch, …, n): dtype, device and sizes.
    """
    batch, n = like.shape[0], like.shape[-1]
    steps = min(STEPS, n // BLOCK - 1)
    generator = torch.Generator().manual_seed(SEED)
    start = torch.randn(batch, n, BLOCK, generator=generator, dtype=like.dtype).to(like.device)
    basis = torch.empty(batch, BLOCK * (steps + 1), n, dtype=like.dtype, device=like.device)
    projected = torch.zeros(batch, BLOCK * steps, BLOCK * steps, dtype=like.dtype, device=like.device)
    basis[:, :BLOCK] = torch.linalg.qr(start).Q.mT
    values, settled = torch.zeros(batch, dtype=torch.float64), torch.zeros(batch, dtype=torch.bool)
    check = FIRST_CHECK
    for step in range(1, steps + 1):
        old, new = BLOCK * (step - 1), BLOCK * step
        w = apply(basis[:, old:new])
        known = basis[:, :new]
        along = known.conj() @ w.mT
        w = w - along.mT @ known
        again = known.conj() @ w.mT  # a second time: what the first leaves out is rounding, and it grows
        w = w - again.mT @ known
        projected[:, :new, old:new] = along + again
        projected[:, old:new, :new] = (along + again).mH
        v, beside = torch.linalg.qr(w.mT)
        lone = beside.diagonal(dim1=-2, dim2=-1).abs().amin(-1) <= 1e-10 * projected.abs().amax((-2, -1))
        if bool(lone.any()):  # an invariant space: what completes the block must be orthogonal to it too
            for _ in range(2):
                v = torch.linalg.qr(v - known.mT @ (known.conj() @ v)).Q
            beside = v.mH @ w.mT
        basis[:, new : new + BLOCK] = v.mT
        if step < check and step < steps:
            continue
        check = int(step * NEXT_CHECK) + 1
        ritz, vectors = torch.linalg.eigh(projected[:, :new, :new])
        top, second = ritz[:, -1], ritz[:, -2]
        residual = torch.linalg.vector_norm((beside @ vectors[:, old:, -1:])[..., 0], dim=-1)
        # Kato and Temple: the error of a Ritz value is at most its residual, and at most residual²/gap.
        error = torch.minimum(residual, residual.square() / (top - second).clamp_min(1e-300))
        values, settled = top.clamp_min(0).cpu(), (error <= SETTLED * top).cpu()
        if bool(settled.all()):
            break
    return values, settled
