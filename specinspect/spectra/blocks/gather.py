"""Singular values and floors of one map, gathered a batch of frequencies at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf, prod, sqrt
from typing import TYPE_CHECKING

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray

from specinspect.maps.blocks import Stage
from specinspect.spectra.model import Spectrum
from specinspect.spectra.solve import EPS, Solution, hardest
from specinspect.spectra.summary import summarise

if TYPE_CHECKING:
    from torch import Tensor
from specinspect.spectra.blocks.product import Product
from specinspect.spectra.blocks.question import LARGEST, BlockQuestion, TooLargeError
from specinspect.spectra.blocks.rounding import piece_error, spectral_norms


@dataclass(slots=True)
class Values:
    """Singular values of one map, gathered chunk by chunk."""

    values: list[NDArray[np.float64]] = field(default_factory=list)
    methods: list[str] = field(default_factory=list)
    lowest: float = inf
    floor: float = 0.0
    rows: list[NDArray[np.float64]] | None = None
    """Where wanted, one row per frequency; (frequencies, count) each, in no order, without its zeros."""

    def add(
        self, solution: Solution, multiplicity: Tensor, rank: int, more: tuple[float, int] = (0.0, 0)
    ) -> None:
        """Take the `rank` largest of each member, and `more`: (value, how many of it per member)."""
        values = solution.values[:, :rank]
        self.methods.append(solution.method)
        if values.numel():
            member = int(values[:, -1].argmin())
            if float(values[member, -1]) < self.lowest:
                self.lowest, self.floor = float(values[member, -1]), float(solution.floor[member])
            self.values.append(values.repeat_interleave(multiplicity, 0).flatten().numpy())
        value, count = more
        if count:
            self.values.append(np.full(count * int(multiplicity.sum()), value))
        if self.rows is not None:
            self.rows.append(F.pad(values, (0, count), value=value).numpy() if count else values.numpy())

    def add_none(self, multiplicity: Tensor) -> None:
        """Take a map that is exactly zero."""
        if self.rows is not None:
            self.rows.append(np.zeros((len(multiplicity), 0)))

    def by_frequency(self, count: int) -> NDArray[np.float64]:
        """Return (frequencies, count), descending, exact zeros put back."""
        parts = self.rows or ()
        rows = np.zeros((sum(map(len, parts)), count))
        start = 0
        for part in parts:
            rows[start : start + len(part), : part.shape[1]] = part
            start += len(part)
        return -np.sort(-rows, 1)

    def spectrum(
        self, question: BlockQuestion, count: int, storage: float, computation: float, lead: str
    ) -> Spectrum:
        """Summarise; what is missing of `count` values is exactly zero."""
        values = np.sort(np.concatenate(self.values))[::-1] if self.values else np.zeros(0)
        zeros = count - len(values)
        method = f"{lead}, {hardest(self.methods)}, float64" if self.values else "exact"
        return summarise(
            np.concatenate([values, np.zeros(zeros)]),
            structural_zeros=zeros,
            storage_floor=storage,
            computation_floor=max(self.floor, computation),
            method=method,
            device=question.plan.device,
            keep_values=question.keep_values,
        )


@dataclass(slots=True)
class Floors:
    """What rounding does to a product, from the first chunk of the first pattern."""

    storage: float = 0.0
    computation: float = 0.0

    @classmethod
    def of(cls, product: Product, stages: Sequence[Stage], at: Sequence[Tensor], pattern: int) -> Floors:
        """Add up what each factor's rounding can do: ‖up‖·‖error‖·‖lo‖, in norms of the single factors."""
        norms = [float(spectral_norms(matrix).max()) for matrix in product.matrices]
        whole = prod(norms)
        if not whole < LARGEST:
            raise TooLargeError
        out, inn = product.shape
        storage = 0.0
        for place, index in enumerate(product.stage):
            rows, columns = product.matrices[place].shape[-2:]
            spread = sqrt(min(out, rows)) + sqrt(min(inn, columns))
            others = whole / norms[place] if norms[place] else 0.0
            error = piece_error(stages[index], at[index][pattern : pattern + 1])
            storage += error * product.peaks[place] * spread * others
        return cls(storage, 4 * EPS * whole)
