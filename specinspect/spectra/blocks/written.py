"""The Jacobian of a branch as a matrix, at one sampled input after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from specinspect.maps.blocks import Affine, Elementwise, Stage, dense_jacobian

if TYPE_CHECKING:
    from torch import Tensor


class Jacobians:
    """Writes a branch out; parts that do not depend on the input are written out once."""

    def __init__(self, stages: Sequence[Stage]) -> None:
        self.stages = stages
        self._known: dict[tuple[int, int], Tensor] = {}

    def whole(self, at: Sequence[Tensor]) -> Tensor:
        """Return J, (rows, columns), where `at` holds what comes into each stage, (1, …) each."""
        return self._part(0, len(self.stages), at)

    def factors(self, at: Sequence[Tensor], shape: tuple[int, int]) -> tuple[Tensor, Tensor] | None:
        """Return U (rows, r) and V (r, columns) with J = UV and r below both; None without a narrow place.

        At a narrow place only r units let anything through: an activation is zero at the others, or the
        layer has fewer. J then has at most the rank r by construction.

        Args:
            at: what comes into each stage, (1, …) each.
            shape: (rows, columns).
        """
        counts = self.passing(at)
        place = min(range(len(counts)), key=counts.__getitem__, default=None)
        if place is None or counts[place] >= min(shape):
            return None
        stage = self.stages[place]
        left = self._part(place + 1, len(self.stages), at)
        if isinstance(stage, Elementwise):
            d = stage.derivative(at[place]).flatten()
            right = self._part(0, place, at)
            passing = (d != 0) & (right != 0).any(1) & (left != 0).any(0)
            return left[:, passing], d[passing, None] * right[passing]
        right = self._part(0, place + 1, at)
        passing = (right != 0).any(1) & (left != 0).any(0)
        return left[:, passing], right[passing]

    def passing(self, at: Sequence[Tensor]) -> list[int]:
        """Return how many units behind each stage but the last can be reached; J has at most their rank."""
        return [self._passing(place, at) for place in range(len(self.stages) - 1)]

    def _passing(self, place: int, at: Sequence[Tensor]) -> int:
        """Return how many units behind a stage can be reached."""
        stage, units = self.stages[place], at[place + 1].numel()
        if isinstance(stage, Elementwise):
            return int((stage.derivative(at[place]) != 0).sum())
        if isinstance(stage, Affine):
            scale = stage.scale.expand(stage.channels)
            return units // stage.channels * int((scale != 0).sum())
        return units

    def _part(self, start: int, stop: int, at: Sequence[Tensor]) -> Tensor:
        """Return the Jacobian of some stages in a row."""
        if (start, stop) in self._known:
            return self._known[start, stop]
        matrix = dense_jacobian(self.stages[start:stop], at[start][0], at[start:stop])
        if not any(stage.varies for stage in self.stages[start:stop]):
            self._known[start, stop] = matrix
        return matrix
