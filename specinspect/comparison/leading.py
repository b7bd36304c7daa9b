"""The leading singular vectors of one dense weight, and the norm of a difference."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from specinspect.spectra.solve import EPS, Streamed

SMALL = 256
"""Columns up to which a full decomposition is the simplest and fast enough."""
OVERSAMPLING = 8
STEPS = 4
CYCLES = 60
_WANTED = 1e-6
"""Angle between the subspace found and the true one, by the residual over the gap (Davis and Kahan 1970)."""
_ACCEPTED = 1e-4


def right_vectors(matrix: Streamed, values: Sequence[float]) -> torch.Tensor:
    """Return the leading right singular vectors of a tall matrix (of a wide one: left), (n, k).

    Args:
        matrix: m × n in either orientation; n is the smaller side.
        values: σ_1 … σ_{k+1} of the scaled matrix, descending, with σ_k > σ_{k+1}.
    """
    n, k = min(matrix.matrix.shape), len(values) - 1
    squares = torch.tensor(values, dtype=torch.float64).square()
    gap, reachable = float(squares[k - 1] - squares[k]), 8 * EPS * n**0.5 * float(squares[0])
    if n > SMALL and reachable <= _ACCEPTED * gap:
        tolerance = max(_WANTED * gap, reachable)
        found = leading(matrix.gram()[0], k, tolerance)
        # A vector that the random start missed would show as a value that is not among the known ones.
        if found is not None and bool(((found[0].cpu() - squares[:k]).abs() <= gap / 2).all()):
            return found[1]
    (r,) = matrix.factor(torch.tensor([0]))
    return torch.linalg.svd(r, full_matrices=False).Vh[:k].mT


def largest(gram: torch.Tensor) -> float:
    """Return the largest eigenvalue of a positive semidefinite matrix, to about nine digits."""
    n = len(gram)
    if n > SMALL:
        tolerance = max(1e-9 * float(torch.linalg.vector_norm(gram)) / n**0.5, 1e-300)
        found = leading(gram, 1, tolerance)
        if found is not None:
            return float(found[0][0])
    return float(torch.linalg.eigvalsh(gram)[-1].clamp_min(0))


def leading(
    gram: torch.Tensor, k: int, tolerance: float, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Return the k largest eigenvalues (descending) and their vectors (n, k) of a symmetric matrix.

    By a block Krylov space that is restarted from its best vectors (Musco and Musco 2015); None where the
    residuals ‖Gv - λv‖ do not come below the tolerance.
    """
    n = len(gram)
    block = min(k + OVERSAMPLING, n)
    generator = torch.Generator().manual_seed(seed)
    q = torch.randn(n, block, generator=generator, dtype=torch.float64).to(gram.device)
    for _ in range(CYCLES):
        blocks = [torch.linalg.qr(q).Q]
        for _ in range(min(STEPS, n // block - 1)):
            blocks.append(torch.linalg.qr(gram @ blocks[-1]).Q)
        # One decomposition of all: where the matrix has a low rank, later blocks repeat the earlier ones.
        basis = torch.linalg.qr(torch.cat(blocks, 1)).Q
        image = gram @ basis
        values, vectors = torch.linalg.eigh(basis.mT @ image)
        best = vectors[:, -block:].flip(1)
        values, q, image = values.flip(0)[:block], basis @ best, image @ best
        residuals = torch.linalg.vector_norm(image[:, :k] - q[:, :k] * values[:k], dim=0)
        if float(residuals.max()) <= tolerance:
            return values[:k], q[:, :k]
    return None
