"""Singular values in float64: the Gram matrix first, the small end again where squaring has cost its digits.

The eigenvalues of AᴴA are four to six times cheaper than a singular value decomposition, but come with an
absolute error of about eps·σ_max², so σ has a relative error of about eps·(σ_max/σ)²/2. Where that is not
enough, the same trick on R⁻¹ (A = QR) gives the small singular values instead, now with the error on the
large ones; each half is taken from where it is accurate. Of a large matrix with only a few such values these
are iterated with R⁻¹ alone. Beyond κ ≈ 1e10 a plain decomposition is used.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import sqrt
from typing import Protocol

import torch

EPS = torch.finfo(torch.float64).eps
SIX_DIGITS = 5e-7
"""Relative error of the smallest singular value that is still called good."""
INVERSE_LIMIT = 1e10
"""κ up to which R⁻¹ is trusted: its error, a few eps·κ, stays below 1e-5."""
SVD_MARGIN = 4.0
"""Backward error of QR, inverse and decomposition, in units of eps·σ_max·n^¼ (measured: below 1)."""

SMALLEST_BLOCK = 1 << 18
"""Entries: below this a block costs more in calls than in arithmetic."""

FEW_FROM = 512
"""Side from which a few small singular values are iterated; below it the whole of R⁻¹ is as cheap."""
FEW_SHARE = 64
"""The side over this is how many are a few."""
SETTLED = 1e-9
"""Relative change of σ in one iteration at which it stops."""
ITERATIONS = 40
"""With R⁻¹ and its adjoint, at most."""

GRAM, FEW, INVERSE, SVD = "gram", "gram + inverse iteration", "gram + inverse gram", "svd"


class Tall(Protocol):
    """A batch of matrices with at least as many rows as columns, read as often as needed."""

    def gram(self) -> torch.Tensor:
        """Return AᴴA, (batch, n, n)."""

    def factor(self, index: torch.Tensor) -> list[torch.Tensor]:
        """Return R of A = QR, (n, n), of each chosen member of the batch; the caller may overwrite them."""

    @property
    def size(self) -> torch.Tensor | None:
        """(batch,): norm of the terms that A was added up from; None where A itself was given."""


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Matrices that lie in memory, (batch, m, n), float64 or complex128; wide ones are turned."""

    matrices: torch.Tensor
    size: None = None

    def _tall(self) -> torch.Tensor:
        wide = self.matrices.shape[-2] < self.matrices.shape[-1]
        return self.matrices.mH if wide else self.matrices

    def gram(self) -> torch.Tensor:
        """Return AᴴA."""
        a = self._tall()
        return a.mH @ a

    def factor(self, index: torch.Tensor) -> list[torch.Tensor]:
        """Return R of A = QR."""
        return triangular_factors(self._tall()[index])


@dataclass(frozen=True, slots=True, eq=False)
class Streamed:
    """One matrix of any stored dtype, taken to float64 a block of rows at a time.

    Peak memory is one block beside the n × n result, however tall the matrix.
    """

    matrix: torch.Tensor
    """(m, n) or its transpose, on the CPU, memory-mapped or not."""
    scale: float
    """A power of two that multiplies every entry, so that squares neither overflow nor vanish."""
    device: str
    size: None = None

    def gram(self) -> torch.Tensor:
        """Return AᵀA as a batch of one."""
        n = min(self.matrix.shape)
        total = torch.zeros(n, n, dtype=torch.float64, device=self.device)
        for block in row_blocks(tall(self.matrix), n // 4, self.scale, self.device):
            total.addmm_(block.T, block)
        return total[None]

    def factor(self, index: torch.Tensor) -> list[torch.Tensor]:
        """Return R of A = QR: at once where A is nearly square, else block by block."""
        m, n = max(self.matrix.shape), min(self.matrix.shape)
        r = torch.zeros(0, n, dtype=torch.float64, device=self.device)
        for block in row_blocks(tall(self.matrix), m if m <= 2 * n else n, self.scale, self.device):
            stacked = torch.cat([r, block]) if len(r) else block
            del block
            (r,) = triangular_factors(stacked[None])
            del stacked
        return [r]


def triangular_factors(matrices: torch.Tensor) -> list[torch.Tensor]:
    """Return R of A = QR for each member of a batch (batch, m, n).

    From geqrf, whose result is cut in place: torch.linalg.qr holds one more copy of the matrix.
    """
    packed, _ = torch.geqrf(matrices)
    return list(packed[:, : matrices.shape[-1]].triu_().unbind())


def tall(matrix: torch.Tensor) -> torch.Tensor:
    """Return the matrix, turned if it has more columns than rows: its singular values stay the same."""
    return matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T


def row_blocks(
    matrix: torch.Tensor, rows: int, scale: float, device: str, dtype: torch.dtype = torch.float64
) -> Iterator[torch.Tensor]:
    """Yield the rows of an (m, n) matrix in order, as blocks of `dtype` times `scale`.

    A block has `rows` rows, or more where that would be only a few entries.
    """
    rows = max(rows, 1, SMALLEST_BLOCK // matrix.shape[1])
    for start in range(0, matrix.shape[0], rows):
        block = matrix[start : start + rows].to(device).to(dtype)
        yield block * scale if scale != 1.0 else block


@dataclass(frozen=True, slots=True, eq=False)
class Solution:
    """Singular values of a batch of matrices."""

    values: torch.Tensor
    """(batch, min(m, n)) float64 on the CPU, descending."""
    floor: torch.Tensor
    """(batch,): absolute error to expect of the smallest value."""
    method: str

    def scaled(self, factor: float) -> Solution:
        """Return the solution for the matrices times a positive number."""
        return Solution(self.values * factor, self.floor * factor, self.method)


def singular_values(matrices: Tall) -> Solution:
    """Return all min(m, n) singular values of each matrix of a batch.

    Errors: within 1e-7·σ_max everywhere, and six digits of σ_min where σ_min/σ_max ≥ 1e-6 (tested against
    constructed spectra and numpy). Entries must be finite and of a size whose squares are representable.
    """
    gram = matrices.gram()
    n = gram.shape[-1]
    values = torch.linalg.eigvalsh(gram).clamp_min(0).sqrt().flip(-1).cpu()
    del gram
    top, low = values[:, 0], values[:, -1]
    # What rounding goes by: σ_max, or more where large terms cancelled in a sum.
    size = top if matrices.size is None else torch.maximum(top, matrices.size)
    floor = torch.where(low > 0, sqrt(n) * EPS * size.square() / (2 * low), size)
    weak = (floor > SIX_DIGITS * low).nonzero().flatten()
    if len(weak) == 0:
        return Solution(values, floor, GRAM)

    refined, method = _from_factors(matrices, weak, values[weak], size[weak])
    values[weak] = refined
    floor[weak] = SVD_MARGIN * EPS * n**0.25 * size[weak]
    return Solution(values, floor, method)


def _from_factors(
    matrices: Tall, weak: torch.Tensor, coarse: torch.Tensor, size: torch.Tensor
) -> tuple[torch.Tensor, str]:
    """Return better singular values of some members of a batch, and the method of the hardest.

    `coarse` holds the values from the Gram matrix, of which the large half is kept, unless terms of a larger
    `size` cancelled in it.
    """
    result, methods = coarse.clone(), []
    factors = matrices.factor(weak)
    for i in range(len(weak)):  # one n × n at a time: memory stays that of one matrix
        diagonal = factors[0].diagonal().abs()
        # |r_ii| bounds σ_min from above, so a tiny one already says that R⁻¹ is of no use.
        hopeless = bool(diagonal.amin() * INVERSE_LIMIT <= diagonal.amax()) or bool(
            size[i] > 8 * coarse[i, 0]
        )
        combined = None if hopeless else _iterate_few(factors[0], coarse[i], float(size[i]))
        if combined is not None:
            methods.append(FEW)
            factors.pop(0)
        elif not hopeless:
            combined = _combine(factors, coarse[i])
            methods.append(INVERSE)
            if combined is None:
                factors.insert(0, matrices.factor(weak[i : i + 1])[0])
        if combined is None:
            methods.append(SVD)
            combined = torch.linalg.svdvals(factors.pop(0)).cpu()
        result[i] = combined
    return result, hardest(methods)


def _iterate_few(r: torch.Tensor, coarse: torch.Tensor, size: float) -> torch.Tensor | None:
    """Return all singular values of R, the few that the Gram matrix has not enough digits of by iteration.

    Subspace iteration with (RᴴR)⁻¹, whose eigenvalues 1/σ² come out with the errors of R⁻¹ and not of its
    square. None where they are too many or do not settle, and where what was found is not within the errors
    of `coarse`: then one may have been missed.
    """
    n = len(r)
    error = sqrt(n) * EPS * size * size  # of a coarse σ²
    count = int((coarse.square() * 2 * SIX_DIGITS < error).sum())
    if n < FEW_FROM or not 0 < count <= n // FEW_SHARE:
        return None
    generator = torch.Generator().manual_seed(0)
    width = count + max(8, count // 2)
    x = torch.randn(n, width, generator=generator, dtype=torch.float64).to(r)
    found = torch.zeros(0)
    for _ in range(ITERATIONS):
        x = torch.linalg.qr(x).Q
        y = torch.linalg.solve_triangular(r.mH, x, upper=False)
        before, found = found, torch.linalg.svdvals(y)[:count].cpu()  # 1/σ, descending
        if not bool(found.isfinite().all()):
            return None
        rounding = 8 * EPS * float(coarse[0]) * float(found[0])  # of 1/σ_min, relative: about eps·κ
        if len(before) and bool(((found - before).abs() <= max(SETTLED, rounding) * found).all()):
            break
        x = torch.linalg.solve_triangular(r, y, upper=True)
    else:
        return None
    small = found.reciprocal().flip(0)
    if not float(coarse[0]) <= INVERSE_LIMIT * float(small[-1]):
        return None
    if bool(((small.square() - coarse[-count:].square()).abs() > 8 * error).any()):
        return None
    return torch.cat([coarse[:-count], small]).sort(descending=True).values


def _combine(factors: list[torch.Tensor], coarse: torch.Tensor) -> torch.Tensor | None:
    """Return large values from the Gram matrix and small ones from that of R⁻¹; None where κ is too large.

    The first of `factors` is taken out and let go of as soon as it is inverted: it may be the largest layer.
    """
    r = factors.pop(0)
    inverse = torch.eye(len(r), dtype=r.dtype, device=r.device)
    inverse = torch.linalg.solve_triangular(r, inverse, upper=True, out=inverse)
    del r
    inverse_gram = inverse @ inverse.mH
    del inverse
    if not bool(inverse_gram.sum().isfinite()):
        return None
    reciprocal = torch.linalg.eigvalsh(inverse_gram).cpu()  # 1/σ², ascending
    del inverse_gram
    top, low = float(coarse[0]), float(reciprocal[-1].clamp_min(0).rsqrt())
    if not top <= INVERSE_LIMIT * low:
        return None
    small = reciprocal.clamp_min(0).rsqrt()
    merged = torch.where(coarse > sqrt(top * low), coarse, small)
    return merged.sort(descending=True).values


def hardest(methods: Iterable[str]) -> str:
    """Return the method of the worst-conditioned among several matrices."""
    return max(methods, key=(GRAM, FEW, INVERSE, SVD).index, default=GRAM)


def extreme_values(matrices: torch.Tensor, rank: int) -> tuple[float, float]:
    """Return what all min(m, n) singular values of some matrices are at least and at most.

    Args:
        matrices: (batch, m, n).
        rank: each has at most this.
    """
    wide = matrices.shape[-2] < matrices.shape[-1]
    gram = matrices @ matrices.mH if wide else matrices.mH @ matrices
    squares = torch.linalg.eigvalsh(gram)
    high = float(squares[:, -1].max())
    low = float(squares[:, 0].min()) - gram.shape[-1] * EPS * high  # rounding must not raise it
    return sqrt(low) if rank >= gram.shape[-1] and low > 0 else 0.0, sqrt(max(high, 0.0))
