"""One reduction for every ρI+βM: W = QHQᴴ with H upper Hessenberg gives ρI+βW = Q(ρI+βH)Qᴴ.

H and the shift keep their form, so that the triangular factor of each ρI+βH takes n² operations where an LU
factorisation of ρI+βW takes n³ (Golub and Van Loan, Matrix Computations, 7.4 and 6.5).
"""

from __future__ import annotations

from itertools import pairwise

import torch

PANEL = 48
"""Columns that are reduced before the rest of the matrix is brought up to date."""
ROWS = 24
"""Rows through which another one is carried at once."""
PARTS = 8
"""Block rows of a product that skips zeros."""


def hessenberg(matrix: torch.Tensor) -> torch.Tensor:
    """Return H of M = QHQᴴ, Q unitary: zero below the first subdiagonal.

    Householder reflections in panels, as LAPACK's gehrd, which scipy offers only with Python's lock held for
    the whole of its n³ operations. Backward stable: H belongs to a matrix within a few eps·√n·‖M‖ of M.

    Args:
        matrix: (n, n) float64 or complex128; left alone.
    """
    a = matrix.clone(memory_format=torch.contiguous_format)
    n = len(a)
    for start in range(0, n - 2, PANEL):
        end = min(start + PANEL, n - 2)
        _reduce_panel(a, start, end)
    return a


def _reduce_panel(a: torch.Tensor, start: int, end: int) -> None:
    """Reduce the columns start to end, with Q = I - VTVᴴ of their reflections, and apply QᴴAQ to the rest."""
    below, width = start + 1, end - start
    panel = a[:, start:end].mT.contiguous()
    v = a.new_zeros(width, len(a) - below)  # its rows are the reflections
    y = torch.zeros_like(v)  # its columns are those of AVT below the panel's first row
    t = a.new_zeros(width, width)
    for j in range(width):
        low = panel[j, below:]
        earlier, conjugate = v[:j], v[:j].conj()
        if j:
            low.addmv_(y[:j].mT, conjugate[:, j - 1], alpha=-1)
            low.addmv_(earlier.mT, t[:j, :j].mH.mv(conjugate.mv(low)), alpha=-1)
        column = low[j:]
        first, norm = column[0].item(), torch.linalg.vector_norm(column).item()
        if norm == 0:  # zero, or with squares too small for float64
            column.zero_()
            continue
        size = abs(first)
        image = -norm * (first / size) if size else -norm
        # ‖x - image·e₁‖² = 2·norm·(norm + size); one root at a time, since the product may leave float64.
        length = (2 * norm) ** 0.5 * (norm + size) ** 0.5
        reflection = torch.mul(column, 1 / length, out=v[j, j:])
        reflection[0] = (first - image) / length
        column.zero_()
        column[0] = image
        torch.mv(a[below:, below + j :], reflection, out=y[j])
        if j:
            overlap = conjugate[:, j:].mv(reflection)
            y[j].addmv_(y[:j].mT, overlap, alpha=-1)
            t[:j, j] = t[:j, :j].mv(overlap) * -2
        y[j] *= 2
        t[j, j] = 2
    top = a[:below, below:] @ v.mT @ t
    right = v.conj()
    reduced = panel.mT
    reduced[:below, 1:] -= top @ right[:, : width - 1]
    a[:, start:end] = reduced
    # Added in place: a product of its own would be one more pass over memory, which is what takes the time.
    a[:below, end:].addmm_(top, right[:, width - 1 :], alpha=-1)
    rest = a[below:, end:]
    rest.addmm_(y.mT, right[:, width - 1 :], alpha=-1)
    rest.addmm_(v.mT, t.mH @ (right @ rest), alpha=-1)


class ShiftedHessenberg:
    """ρI+βH for any ρ and β."""

    def __init__(self, h: torch.Tensor) -> None:
        """Take H, (n, n) upper Hessenberg."""
        n = len(h)
        self._size = n
        steps = [n * i // PARTS for i in range(PARTS + 1)]
        self._parts = [
            (a, b, max(a - 1, 0), h[a:b, max(a - 1, 0) :].contiguous()) for a, b in pairwise(steps) if b > a
        ]
        conjugate = [(a, b, left, part.conj().resolve_conj()) for a, b, left, part in self._parts]
        self._adjoint = conjugate if h.is_complex() else self._parts
        self._h = h
        self._work = torch.empty_like(h)

    def sum(self, rho: float, beta: float) -> torch.Tensor:
        """Return ρI+βH."""
        result = self._h * beta
        result.diagonal().add_(rho)
        return result

    def times(self, x: torch.Tensor) -> torch.Tensor:
        """Return Hx for each row x of (count, n)."""
        return torch.cat([x[:, left:] @ part.mT for _, _, left, part in self._parts], 1)

    def adjoint_times(self, y: torch.Tensor) -> torch.Tensor:
        """Return Hᴴy for each row y of (count, n)."""
        result = torch.zeros_like(y)
        for a, b, left, part in self._adjoint:
            result[:, left:].addmm_(y[:, a:b], part)
        return result

    def triangular_factor(self, rho: float, beta: float) -> torch.Tensor:
        """Return R of ρI+βH = QR in the upper triangle of an (n, n) matrix, which the next call overwrites.

        The rows 2 to n are a triangle already. The first is carried down through it, a few rows at a time.
        """
        n, result, carried = self._size, self._work, self._h[:1] * beta
        torch.mul(self._h[1:], beta, out=result[:-1])
        result.diagonal(1).add_(rho)
        carried[0, 0] += rho
        for start in range(0, n, ROWS):
            end = min(start + ROWS, n)
            rows = torch.cat([result[start : min(end, n - 1), start:], carried])
            q, _ = torch.linalg.qr(rows[:, : end - start], mode="complete")
            rows = q.mH @ rows
            result[start:end, start:] = rows[: end - start]
            carried = rows[end - start :, end - start :]
        return result
