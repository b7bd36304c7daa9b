"""Attention's value-output product, head by head."""

from __future__ import annotations

from math import sqrt

import torch

from specinspect.layers.blocks import Apply, Gate
from specinspect.maps.blocks import (
    pieces,
    points,
    to_device,
)
from specinspect.spectra.blocks.frequency import triangle
from specinspect.spectra.blocks.gather import Values
from specinspect.spectra.blocks.product import Chunk, multiply
from specinspect.spectra.blocks.question import BlockQuestion
from specinspect.spectra.blocks.rounding import entry_error, spectral_norms
from specinspect.spectra.model import Spectrum
from specinspect.spectra.solve import EPS, Batch, Solution, singular_values


def head_spectra(question: BlockQuestion) -> tuple[Spectrum, ...]:
    """Return W_O·W_V of every head, from the rows and columns that belong to it."""
    heads = question.block.heads
    stages = question.branch.stages
    layered = [i for i, f in enumerate(question.block.factors) if isinstance(f, Apply)]
    plain = all(not isinstance(f, Gate) for f in question.block.factors)
    if heads is None or len(layered) != 2 or not plain or question.branch.grid:
        return ()
    x = torch.zeros(1, question.branch.channels, dtype=torch.float64)
    at = points(stages, x)
    found = [to_device(piece, question.plan.device) for piece in pieces(question.branch, at, 0)]
    parts = [
        multiply(part, Chunk(None, torch.ones(1, dtype=torch.int64)), {})
        for part in (found[: layered[0] + 1], found[layered[1] :])
    ]
    values, outputs = parts[0].right(len(parts[0].matrices))[0], parts[1].left(0)[0]
    size, share = heads.size, heads.count // heads.key_values
    v = values.reshape(heads.key_values, size, -1).repeat_interleave(share, 0)
    u = outputs.reshape(len(outputs), heads.count, size).transpose(0, 1)
    solution = singular_values(Batch(triangle(u) @ triangle(v.mH).mH))
    count = min(u.shape[1], v.shape[2])
    norms = spectral_norms(u) * spectral_norms(v)
    errors = [entry_error(stages[i].stored[0]) for i in layered]
    spread = sqrt(size) + sqrt(count)
    result = []
    for h in range(heads.count):
        one = Solution(solution.values[h : h + 1], solution.floor[h : h + 1], solution.method)
        gathered = Values()
        gathered.add(one, torch.ones(1, dtype=torch.int64), min(size, count))
        storage = spread * (
            errors[0] * float(spectral_norms(u[h : h + 1])) * parts[0].peaks[0]
            + errors[1] * float(spectral_norms(v[h : h + 1]))
        )
        result.append(
            gathered.spectrum(question, count, storage, 4 * EPS * float(norms[h]), "low-rank factors")
        )
    return tuple(result)
