"""Spectra of a block: the branch J, and the branch beside its shortcut, ρA + βJ.

The Jacobian is that of the block at sampled inputs, which run through the whole branch: every diagonal in it
belongs to the same input. Convolutions act on a periodic grid. With one diagonal per channel, that of one
pixel, J falls apart into one small matrix per output frequency, strides included: a product of symbols at
each of the input frequencies that fold onto it (MATH R60, R61, R63).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, prod, sqrt
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from specinspect.errors import LayerError, SettingsError
from specinspect.layers.blocks import Apply, Block, Gate, Repeat
from specinspect.layers.model import Layer
from specinspect.maps.blocks import (
    Branch,
    Diagonal,
    Elementwise,
    Gated,
    Kernel,
    Matrix,
    Piece,
    Stage,
    Stored,
    alike_at_all_pixels,
    block_grid,
    build_branch,
    cotangent,
    dense_jacobian,
    keeps_grid,
    pieces,
    points,
    sample_inputs,
    shortcut_stages,
    tangent,
    to_device,
)
from specinspect.maps.build import Read
from specinspect.maps.fourier import frequencies
from specinspect.maps.patterns import probe_seed
from specinspect.spectra.activated import over_patterns
from specinspect.spectra.family import ExplicitShortcut, Family, RectangularIdentity, Shortcut
from specinspect.spectra.model import BlockResult, Spectrum
from specinspect.spectra.plan import Plan
from specinspect.spectra.rounding import MANTISSA_BITS, SMALLEST_EXPONENT
from specinspect.spectra.solve import EPS, Batch, Solution, hardest, singular_values
from specinspect.spectra.summary import summarise, unusable

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["BlockResult", "affordable_grid", "block_operations", "measure_block"]

DENSE_COLUMNS = 4096
"""Largest operator that is written out, in columns, where every pixel has its own diagonal."""
MOST_OPERATIONS = 1e12
"""Beyond this a block gets a smaller grid."""
LARGEST = 1e140
"""Product of the norms of a block's layers that can still be squared."""
WORK = 4e10
"""Floating-point operations that each end of a spectrum is worth where it must be iterated."""
REACHED = 1e-3
"""Relative residual of σ_min up to which an iterative solver is believed."""


def measure_block(
    block: Block,
    layers: Mapping[str, Layer],
    read: Read,
    *,
    available: frozenset[str],
    plan: Plan,
    rho: float = 1.0,
    beta: float = 1.0,
    patterns: int = 8,
    seed: int = 0,
    grid: int = 16,
    keep_values: bool = False,
    per_pixel: bool = False,
    zeros: bool = False,
    inputs: Tensor | None = None,
    entering: Tensor | None = None,
) -> BlockResult:
    """Measure a block.

    Args:
        block: what to measure.
        layers: name → layer, those of the block at least.
        read: name → tensor on the CPU.
        available: names that can be read, as `layers.blocks.block_tensors` lists them.
        plan: where to compute.
        rho: weight of the shortcut.
        beta: weight of the branch.
        patterns: how many sampled inputs.
        seed: of the inputs.
        grid: side of the periodic grid for convolutions.
        keep_values: keep all singular values.
        per_pixel: give every pixel its own diagonal: exact, but dense or, above 4096 columns, extremes only.
        zeros: convolutions have zeros around their grid instead of being periodic: as `per_pixel`, exact.
        inputs: (patterns, channels, *grid) to take instead of sampled ones.
        entering: (n, …, channels), or (n, channels, *grid): what comes into the block's first layer, behind
            the normalisation in front; `patterns` of them are taken, where they fit.

    Raises:
        LayerError: the tensors do not fit together.
    """
    branch, how, assumptions = _built(block, layers, read, available, grid, patterns, zeros, per_pixel)
    bad, note = _nonfinite((*branch.stages, *(branch.shortcut or ())))
    if bad:
        result = unusable(_count(branch), bad, plan.device)
        skip = None if block.shortcut.kind == "none" else result
        return BlockResult(block, result, skip, branch.grid or None, (), tuple(assumptions), (note,))
    at, sampled = _sampled(block, branch, inputs, entering, patterns, seed)
    assumptions += sampled
    exact = how != PERIODIC and bool(branch.grid)
    if branch.grid and branch.varies and "per pixel" not in how:
        assumptions.append("one diagonal per channel, that of one pixel")
        at = alike_at_all_pixels(at) if exact else at
    question = _Question(block, branch, rho, beta, plan, keep_values, how)
    notes: tuple[str, ...] = ()
    try:
        if not all(bool(x.isfinite().all()) for x in at):
            raise _TooLargeError
        if exact:
            chains, skips, notes = _per_pixel(question, at)
        else:
            chains, skips = _by_frequency(question, at)
    except _TooLargeError:
        notes = ("not measured: squares of its values leave float64",)
        return BlockResult(block, None, None, branch.grid or None, (), tuple(assumptions), notes)
    active = [_active_fraction(branch.stages, at, p) for p in range(len(at[0]))]
    chain = over_patterns(chains, active) if branch.varies else chains[0]
    skip = None
    if skips:
        skip = over_patterns(skips, active) if branch.varies else skips[0]
    heads = _heads(question) if block.heads is not None and block.heads.count > 1 else ()
    unique = tuple(dict.fromkeys(assumptions))
    return BlockResult(block, chain, skip, branch.grid or None, heads, unique, notes)


PERIODIC = "a diagonal per channel"
"""How a block is measured that falls apart into Fourier blocks."""


def _built(
    block: Block,
    layers: Mapping[str, Layer],
    read: Read,
    available: frozenset[str],
    asked: int,
    patterns: int,
    zeros: bool,
    per_pixel: bool,
) -> tuple[Branch, str, list[str]]:
    """Return the block ready to be run, how it is measured, and what was assumed."""
    grid = affordable_grid(block, layers, asked, patterns)
    branch = build_branch(block, layers, read, available, grid, zeros=zeros)
    how = f"{'zero-padded, ' if zeros else ''}a diagonal per {'pixel' if per_pixel else 'channel'}"
    assumptions = [*block.assumptions, *branch.assumptions]
    if zeros and not keeps_grid(branch):
        branch, how = build_branch(block, layers, read, available, grid), PERIODIC
        assumptions.append("measured on a periodic grid: with its own zeros it does not keep the grid's size")
    if branch.grid:
        text = "×".join(map(str, branch.grid))
        smaller = f", smaller than {asked} to bound the work" if grid < asked else ""
        lead = f"{text} grid with zeros around it" if how.startswith("zero") else f"periodic {text} grid"
        assumptions.append(f"{lead}: the input size is not stored in the checkpoint{smaller}")
    return branch, how, assumptions


def _sampled(
    block: Block, branch: Branch, inputs: Tensor | None, entering: Tensor | None, patterns: int, seed: int
) -> tuple[list[Tensor], list[str]]:
    """Return what comes into each stage at the inputs given, or at random ones, and what was assumed."""
    assumptions = []
    if entering is not None and branch.varies:
        at, why = _from_first_layer(block, branch, entering, patterns, seed)
        if at is not None:
            return at, []
        assumptions.append(why)
    if inputs is None:
        inputs = sample_inputs(branch, block.name, patterns if branch.varies else 1, seed)
        if branch.varies:
            assumptions.append("activations sampled at standard normal inputs of the block")
    elif tuple(inputs.shape[1:]) != (branch.channels, *branch.grid):
        expected = "×".join(map(str, (branch.channels, *branch.grid)))
        raise LayerError(f"{block.name}: expected inputs of {expected}, got {tuple(inputs.shape[1:])}")
    return points(branch.stages, inputs.to(torch.float64)), assumptions


def _from_first_layer(
    block: Block, branch: Branch, entering: Tensor, patterns: int, seed: int
) -> tuple[list[Tensor] | None, str]:
    """Return what comes into each stage, given what comes into the first layer, or None and why not."""
    lead = next(i for i, factor in enumerate(block.factors) if isinstance(factor, Apply | Gate))
    if any(stage.varies for stage in branch.stages[:lead]):
        return None, "the inputs given are those of its first layer, not of the activation in front of it"
    x = entering.to(torch.float64)
    if branch.grid and tuple(x.shape[1:]) != (branch.channels, *branch.grid):
        sides = "×".join(map(str, x.shape[2:]))
        return None, f"the inputs given have sides {sides}, not those of its grid"
    if not branch.grid:
        x = x.reshape(-1, x.shape[-1])
    if x.shape[1] != branch.channels or not len(x):
        raise SettingsError(
            f"--inputs: block {block.name!r}: expected an array of shape (n, {branch.channels}), "
            f"got {tuple(entering.shape)}"
        )
    if not bool(x.isfinite().all()):
        raise SettingsError(f"--inputs: block {block.name!r}: NaN or infinite values in the inputs")
    generator = torch.Generator().manual_seed(probe_seed(seed, block.name))
    x = x[torch.randperm(len(x), generator=generator)[:patterns]]
    # The derivatives of what stands in front of the layer are the same at every input.
    before = [torch.zeros(len(x), branch.channels, *branch.grid, dtype=torch.float64)] * lead
    return [*before, *points(branch.stages[lead:], x)], ""


class _TooLargeError(Exception):
    """The product of the norms is too large to be squared."""


@dataclass(frozen=True, slots=True, eq=False)
class _Question:
    block: Block
    branch: Branch
    rho: float
    beta: float
    plan: Plan
    keep_values: bool
    how: str = "a diagonal per pixel"

    @property
    def with_skip(self) -> bool:
        return self.block.shortcut.kind != "none"


def _count(branch: Branch) -> int:
    """Return the number of singular values of the block's maps."""
    return min(branch.channels * prod(branch.grid), branch.outputs * prod(branch.coarse))


def _active_fraction(stages: Sequence[Stage], at: Sequence[Tensor], pattern: int) -> float:
    """Return the share of units that all activations of a branch let through, at all pixels."""
    found = []
    for stage, x in zip(stages, at, strict=True):
        one = x[pattern : pattern + 1]
        if isinstance(stage, Elementwise):
            found.append(stage.derivative(one).flatten())
        elif isinstance(stage, Gated):
            found.append(stage.activation.derivative(stage.gate.run(one)).flatten())
    if not found:
        return 1.0
    d = torch.cat(found)
    smooth = not bool(((d == 0) | (d == 1)).all())
    return float(((d.abs() > 0.5) if smooth else (d != 0)).to(torch.float64).mean())


# What the stored dtype leaves open


def _nonfinite(stages: Sequence[Stage]) -> tuple[int, str]:
    """Return how many entries of the block are NaN or infinite, and a sentence."""
    weights = sum(int((~s.entries.isfinite()).sum()) for stage in stages for s in stage.stored)
    others = 0
    inner = [s for stage in stages if isinstance(stage, Gated) for s in (stage.gate, stage.up)]
    for stage in (*stages, *inner):
        for name in ("bias", "scale", "shift", "gain", "slope"):
            vector = getattr(stage, name, None)
            if isinstance(vector, torch.Tensor):
                others += int((~vector.isfinite()).sum())
    where = "weights" if weights else "biases or normalisations"
    return weights + others, f"{weights + others:,} NaN or infinite entries in its {where}"


def _entry_error(stored: Stored) -> float:
    """Return the standard deviation of the rounding error of an entry: rms(ulp)/√12 (MATH R19's model)."""
    if stored.dtype not in MANTISSA_BITS:
        return 0.0
    wide = stored.entries.dtype == torch.float64
    magnitude = stored.entries.to(torch.float64 if wide else torch.float32).abs()
    exponent = torch.frexp(magnitude).exponent.to(torch.float64) - 1
    ulp = exponent.clamp_min(SMALLEST_EXPONENT[stored.dtype]).exp2() * (magnitude != 0)
    peak = float(ulp.max()) if ulp.numel() else 0.0
    if peak == 0:
        return 0.0
    return float((ulp / peak).square().mean().sqrt()) * peak * 2.0 ** -MANTISSA_BITS[stored.dtype] / sqrt(12)


def _piece_error(stage: Stage, x: Tensor) -> float:
    """Return the standard deviation of the error of an entry of a stage's matrix or symbol."""
    errors = [_entry_error(stored) for stored in stage.stored]
    if not errors:
        return 0.0
    if isinstance(stage, Gated):
        on_up, on_gate = stage.factors(x)
        return sqrt(
            errors[1] ** 2 * float(on_up.square().mean()) + errors[0] ** 2 * float(on_gate.square().mean())
        )
    kernel = getattr(stage, "kernel", None)
    taps = prod(kernel.kernel.shape[3:]) / prod(kernel.stride) if isinstance(kernel, Kernel) else 1.0
    return errors[0] * sqrt(taps)


def _norms(batch: Tensor) -> Tensor:
    """Return estimates of the spectral norms of a batch of matrices, by the power method."""
    peak = float(batch.abs().amax()) if batch.numel() else 0.0
    if peak == 0:
        return torch.zeros(len(batch), dtype=torch.float64)
    batch = batch / peak  # whatever the scale, squares then stay within float64
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(batch.shape[-1], 1, generator=generator, dtype=torch.float64).to(batch)
    v = v.expand(len(batch), -1, -1)
    for _ in range(8):
        v = batch.mH @ (batch @ v)
        v = v / torch.linalg.vector_norm(v, dim=1, keepdim=True).clamp_min(1e-300)
    return torch.linalg.vector_norm(batch @ v, dim=(1, 2)) * peak


# The product at some frequencies


@dataclass(frozen=True, slots=True, eq=False)
class _Chunk:
    """Some output frequencies and, for each, the input frequencies that fold onto it."""

    turns: Tensor | None
    """(frequencies, aliases, axes): phase from one input pixel to the next; None without a grid."""
    multiplicity: Tensor

    @property
    def size(self) -> int:
        return len(self.multiplicity)

    @property
    def aliases(self) -> int:
        return 1 if self.turns is None else self.turns.shape[1]


def _chunks(branch: Branch, bytes_each: int, plan: Plan) -> Iterator[_Chunk]:
    if not branch.grid:
        yield _Chunk(None, torch.ones(1, dtype=torch.int64))
        return
    chosen = frequencies(branch.coarse)
    ratio = [n // m for n, m in zip(branch.grid, branch.coarse, strict=True)]
    shifts = torch.tensor(list(itertools.product(*map(range, ratio)))) * torch.tensor(branch.coarse)
    size = max(1, plan.block_bytes(bytes_each) // (4 * bytes_each))
    for start in range(0, len(chosen), size):
        part = chosen[start : start + size]
        nu = torch.tensor([omega for omega, _ in part])
        turns = (nu[:, None] + shifts[None]).to(torch.float64) / torch.tensor(branch.grid)
        yield _Chunk(turns, torch.tensor([count for _, count in part]))


@dataclass(frozen=True, slots=True, eq=False)
class _Product:
    """Matrices whose product is the Jacobian at each frequency of a chunk."""

    matrices: list[Tensor]
    """In the order of the data: (frequencies·aliases, out, in) up to `fold`, (frequencies or 1, …) after."""
    fold: int
    """How many of them act before the last stride."""
    size: int
    aliases: int
    alive: list[Tensor]
    """Channels that are not exactly zero between the matrices, and at both ends."""
    aliases_at: list[int]
    """Input frequencies that are still apart there."""
    read: list[int]
    """Most that a strided convolution can pass on, since it skips pixels."""
    stage: list[int]
    """Which stage each matrix comes from."""
    peaks: list[float]
    """Largest diagonal entry that was put on each."""

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in) of the product."""
        return self.matrices[-1].shape[-2], self.matrices[0].shape[-1] * self.aliases

    def rank(self) -> int:
        """Return the largest rank that exact zeros and narrow places leave."""
        places = zip(self.alive, self.aliases_at, strict=True)
        return min([int(alive.sum()) * count for alive, count in places] + self.read)

    def right(self, stop: int) -> Tensor:
        """Return the product of the first `stop` matrices, at least `fold` of them, aliases side by side."""
        value = self.matrices[0]
        if self.fold:
            value = value.expand(self.size * self.aliases, -1, -1)
        for index in range(1, stop + 1):
            if index == self.fold:
                _, rows, columns = value.shape
                value = value.reshape(self.size, self.aliases, rows, columns).transpose(1, 2).flatten(2)
            if index < stop:
                value = self.matrices[index] @ value
        return value.expand(self.size, -1, -1)

    def left(self, start: int) -> Tensor:
        """Return the product of the matrices from `start` on, at least one of them after `fold`."""
        value = self.matrices[-1]
        for matrix in reversed(self.matrices[start:-1]):
            value = value @ matrix
        return value.expand(self.size, -1, -1)

    def narrowest(self) -> int | None:
        """Return the place after the last stride with the fewest channels, if they limit the rank."""
        places = range(self.fold, len(self.alive))
        best = min(places, key=lambda place: int(self.alive[place].sum()))
        return best if int(self.alive[best].sum()) < min(self.shape) else None


def _product(found: Sequence[Piece], chunk: _Chunk, symbols: dict[int, Tensor]) -> _Product:
    """Multiply diagonals into their neighbours and turn convolutions into their symbols.

    Args:
        found: the derivative of every stage.
        chunk: the frequencies.
        symbols: stage → symbol, kept between patterns.
    """
    linear = [i for i, piece in enumerate(found) if not isinstance(piece, Diagonal)]
    strided = [i for i in linear if isinstance(p := found[i], Kernel) and max(p.stride) > 1]
    last = strided[-1] if strided and chunk.aliases > 1 else -1
    axes = 1 if chunk.turns is None else chunk.turns.shape[-1]
    passed = torch.ones(axes, dtype=torch.float64)
    left = chunk.aliases
    matrices: list[Tensor] = []
    alive: list[Tensor] = []
    aliases_at: list[int] = []
    peaks: list[float] = []
    read: list[int] = []
    before: Tensor | None = None
    for i, piece in enumerate(found):
        if isinstance(piece, Diagonal):
            d = piece.values
            if matrices:
                matrices[-1] = d[:, None] * matrices[-1]
                alive[-1] = alive[-1] & (d != 0)
                peaks[-1] *= float(d.abs().max())
            else:
                before = d if before is None else before * d
            continue
        if isinstance(piece, Matrix):
            matrix, support = piece.matrix[None], piece.matrix != 0
        else:
            if i not in symbols:
                symbols[i] = _symbol(piece, chunk, passed, apart=i <= last)
            passed = passed * torch.tensor(piece.stride)
            left //= prod(piece.stride)
            matrix, support = symbols[i], _support(piece)
            seen = prod(map(min, piece.kernel.shape[3:], piece.stride))
            read.append(int(support.any(0).sum()) * seen * left)
        peak = 1.0
        if before is not None:
            matrix, support = matrix * before, support & (before != 0)
            peak, before = float(before.abs().max()), None
        if matrices:
            alive[-1] = alive[-1] & support.any(0)
        else:
            alive.append(support.any(0))
            aliases_at.append(chunk.aliases)
        matrices.append(matrix)
        alive.append(support.any(1))
        aliases_at.append(left)
        peaks.append(peak)
    fold = sum(1 for i in linear if i <= last)
    if any(matrix.is_complex() for matrix in matrices):
        matrices = [matrix.to(torch.complex128) for matrix in matrices]
    return _Product(matrices, fold, chunk.size, chunk.aliases, alive, aliases_at, read, linear, peaks)


def _symbol(kernel: Kernel, chunk: _Chunk, passed: Tensor, *, apart: bool) -> Tensor:
    """Return a convolution's symbols, at all input frequencies or once for those that fold together.

    `passed` is the product of the strides before it, per axis.
    """
    if chunk.turns is None:
        raise AssertionError("a convolution needs a grid")
    turns = (chunk.turns if apart else chunk.turns[:, :1]).flatten(0, 1) * passed
    return kernel.symbol(turns.to(kernel.kernel.device))


def _support(piece: Kernel) -> Tensor:
    """Return which outputs read which inputs, (out, in)."""
    used = (piece.kernel != 0).flatten(3).any(-1)
    groups, out, inn = used.shape
    whole = used.new_zeros(groups, out, groups, inn)
    index = torch.arange(groups, device=used.device)
    whole[index, :, index, :] = used
    return whole.reshape(groups * out, groups * inn)


# With the same diagonal at every pixel


@dataclass(slots=True)
class _Values:
    """Singular values of one map, gathered chunk by chunk."""

    values: list[NDArray[np.float64]] = field(default_factory=list)
    methods: list[str] = field(default_factory=list)
    lowest: float = inf
    floor: float = 0.0

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

    def spectrum(
        self, question: _Question, count: int, storage: float, computation: float, lead: str
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
class _Floors:
    """What rounding does to a product, from the first chunk of the first pattern."""

    storage: float = 0.0
    computation: float = 0.0

    @classmethod
    def of(cls, product: _Product, stages: Sequence[Stage], at: Sequence[Tensor], pattern: int) -> _Floors:
        """Add up what each factor's rounding can do: ‖up‖·‖error‖·‖lo‖, in norms of the single factors."""
        norms = [float(_norms(matrix).max()) for matrix in product.matrices]
        whole = prod(norms)
        if not whole < LARGEST:
            raise _TooLargeError
        out, inn = product.shape
        storage = 0.0
        for place, index in enumerate(product.stage):
            rows, columns = product.matrices[place].shape[-2:]
            spread = sqrt(min(out, rows)) + sqrt(min(inn, columns))
            others = whole / norms[place] if norms[place] else 0.0
            error = _piece_error(stages[index], at[index][pattern : pattern + 1])
            storage += error * product.peaks[place] * spread * others
        return cls(storage, 4 * EPS * whole)


def _by_frequency(question: _Question, at: Sequence[Tensor]) -> tuple[list[Spectrum], list[Spectrum]]:
    """Return chain and skip for every pattern."""
    branch, plan = question.branch, question.plan
    n = len(at[0])
    found = [[to_device(piece, plan.device) for piece in pieces(branch, at, p)] for p in range(n)]
    beside: list[Piece] = []
    if branch.shortcut is not None:
        zero = torch.zeros(1, branch.channels, *branch.grid, dtype=torch.float64)
        still = points(branch.shortcut, zero)
        pixel = Branch(branch.shortcut, None, branch.channels, branch.outputs, branch.grid, branch.coarse)
        beside = [to_device(piece, plan.device) for piece in pieces(pixel, still, 0)]
    chains, skips = [_Values() for _ in range(n)], [_Values() for _ in range(n)]
    floors: _Floors | None = None
    shortcut_floors = _Floors()
    for chunk in _chunks(branch, _bytes_each(found[0], beside, branch), plan):
        symbols: dict[int, Tensor] = {}
        shortcut: _Beside | RectangularIdentity | None = RectangularIdentity() if question.with_skip else None
        if beside:
            side = _product(beside, chunk, {})
            shortcut = _Beside.of(side)
            if floors is None and branch.shortcut is not None:
                shortcut_floors = _Floors.of(side, branch.shortcut, still, 0)
        for p in range(n):
            product = _product(found[p], chunk, symbols)
            if floors is None:
                floors = _Floors.of(product, branch.stages, at, p)
            _solve(question, product, shortcut, chunk.multiplicity, chains[p], skips[p])
    floors = floors or _Floors()
    count = _count(branch)
    lead = "Fourier blocks of the product" if branch.grid else "product"
    rho, beta = abs(question.rho), abs(question.beta)
    both = [
        beta * own + rho * other
        for own, other in (
            (floors.storage, shortcut_floors.storage),
            (floors.computation, shortcut_floors.computation),
        )
    ]
    return (
        [v.spectrum(question, count, floors.storage, floors.computation, lead) for v in chains],
        [v.spectrum(question, count, both[0], both[1], lead) for v in skips] if question.with_skip else [],
    )


def _bytes_each(found: Sequence[Piece], beside: Sequence[Piece], branch: Branch) -> int:
    """Return the bytes of all symbols at one output frequency."""
    entries = 0
    for piece in (*found, *beside):
        if isinstance(piece, Kernel):
            groups, out, inn = piece.kernel.shape[:3]
            entries += groups * groups * out * inn
        elif isinstance(piece, Matrix):
            entries += piece.matrix.numel()
    ratio = prod(branch.grid) // max(1, prod(branch.coarse)) if branch.grid else 1
    return 16 * max(1, entries * ratio)


@dataclass(slots=True, eq=False)
class _Beside:
    """A shortcut that is written out."""

    matrices: Tensor
    """(frequencies, out, in)."""
    rank: int
    """At most, by its exact zeros and narrow places."""
    _factors: tuple[Tensor, Tensor] | None = None

    @classmethod
    def of(cls, product: _Product) -> _Beside:
        return cls(product.right(len(product.matrices)), min(product.rank(), *product.shape))

    def factors(self) -> tuple[Tensor, Tensor]:
        """Return A as (out × rank) times (rank × in)."""
        if self._factors is None:
            u, s, vh = torch.linalg.svd(self.matrices, full_matrices=False)
            self._factors = u[..., : self.rank] * s[:, None, : self.rank], vh[:, : self.rank]
        return self._factors


def _solve(
    question: _Question,
    product: _Product,
    shortcut: _Beside | RectangularIdentity | None,
    multiplicity: Tensor,
    chain: _Values,
    skip: _Values,
) -> None:
    """Solve one pattern at the frequencies of one chunk.

    Where a narrow place limits the rank to r, J = UV with r columns in U: its singular values are those of
    R_U·R_Vᴴ, and beside an identity all but 2r values are |ρ|, since ρI + βJ leaves the span of U and Vᴴ
    and its complement to themselves. Beside a shortcut of low rank, such as a strided 1×1 convolution that
    skips pixels, the factors of both stand side by side.
    """
    rank, place = product.rank(), product.narrowest()
    last = len(product.matrices)
    rows, columns = product.shape
    rho, beta = question.rho, question.beta
    weight: Solution | None = None
    if place is None:
        j = product.right(last)
        u = v = None
    else:
        alive = product.alive[place]
        identity = torch.eye(len(alive), dtype=product.matrices[0].dtype, device=alive.device)
        u = (product.left(place) if place < last else identity[None])[..., alive]
        v = (product.right(place) if place > 0 else identity[None])[:, alive]
        u, v = u.expand(product.size, -1, -1), v.expand(product.size, -1, -1)
        j = u @ v if 0 < place < last else product.right(last)
        if rank:
            core = v if place == last else u if place == 0 else _triangle(u) @ _triangle(v.mH).mH
            weight = singular_values(Batch(core))
            chain.add(weight, multiplicity, rank)
    if not question.with_skip and place is not None:
        return
    r = 0 if u is None else u.shape[-1]
    if (
        u is not None
        and v is not None
        and isinstance(shortcut, RectangularIdentity)
        and 2 * r < columns == rows
    ):
        q = torch.linalg.qr(torch.cat([u, v.mH], -1)).Q
        inner = beta * (q.mH @ u) @ (v @ q)
        inner.diagonal(dim1=-2, dim2=-1).add_(rho)
        solution = (
            singular_values(Batch(inner))
            if r
            else Solution(torch.zeros(product.size, 0), torch.zeros(product.size), "gram")
        )
        skip.add(solution, multiplicity, 2 * r, (abs(rho), rows - 2 * r))
        return
    together = min(rows, columns)
    if isinstance(shortcut, _Beside):
        together = min(together, shortcut.rank + rank)
        if u is not None and v is not None and shortcut.rank + r < min(rows, columns):
            left, right = shortcut.factors()
            whole = _triangle(torch.cat([beta * u, rho * left], -1))
            solution = singular_values(Batch(whole @ _triangle(torch.cat([v, right], -2).mH).mH))
            skip.add(solution, multiplicity, together)
            return
    family = _family(j, shortcut.matrices if isinstance(shortcut, _Beside) else shortcut, weight)
    if place is None:
        chain.add(family.weight, multiplicity, rank)
    if question.with_skip:
        skip.add(family.skip(rho, beta), multiplicity, together)


def _triangle(matrices: Tensor) -> Tensor:
    return torch.linalg.qr(matrices, mode="r").R


def _family(j: Tensor, shortcut: Tensor | RectangularIdentity | None, weight: Solution | None) -> Family:
    """Form what chain and skip share, without solving what is solved already."""
    if weight is None:
        return Family.of(j, shortcut)
    turned = j.shape[-2] < j.shape[-1]
    m = j.mH if turned else j
    a: Shortcut | None = None
    if isinstance(shortcut, torch.Tensor):
        a = ExplicitShortcut(shortcut.mH if turned else shortcut)
    elif shortcut is not None:
        a = shortcut
    return Family(m, a, turned, m.mH @ m, None if a is None else a.cross(m), weight)


def affordable_grid(block: Block, layers: Mapping[str, Layer], grid: int, patterns: int) -> int:
    """Return the side of the grid, halved until the work is bounded."""
    while grid > 1 and block_operations(block, layers, grid, patterns) > MOST_OPERATIONS:
        smaller = grid // 2
        if block_grid(block, layers, smaller) == block_grid(block, layers, grid):
            break
        grid = smaller
    return grid


def block_operations(block: Block, layers: Mapping[str, Layer], grid: int, patterns: int) -> float:
    """Estimate the floating-point operations that a block takes."""
    chosen = [layers[name] for name in block.layers]
    inputs, outputs = chosen[0].matrix_shape[1], chosen[-1].matrix_shape[0]
    sides = block_grid(block, layers, grid)
    ratio = 1
    for layer in chosen:
        ratio *= prod(layer.conv.stride.value) if layer.conv is not None else 1
    ratio = max(
        ratio, *(f.stride ** len(sides) for f in block.factors if isinstance(f, Apply) and f.stride), 1
    )
    frequencies_ = max(1, prod(sides) // ratio // 2) if sides else 1
    width = min(outputs, inputs * ratio)
    narrow = min([width, *(layer.matrix_shape[0] for layer in chosen)])
    skip = min(2 * narrow, width) if block.shortcut.kind == "identity" else width
    solve = narrow**3 + (skip**3 if block.shortcut.kind != "none" else 0)
    multiply = ratio * sum(prod(layer.matrix_shape) for layer in chosen) * min(inputs, narrow)
    each = (40 if sides else 10) * solve + (8 if sides else 2) * multiply
    varies = any(not isinstance(f, Apply | Repeat) for f in block.factors)
    return float(each) * frequencies_ * (patterns if varies else 1)


# Heads


def _heads(question: _Question) -> tuple[Spectrum, ...]:
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
        _product(part, _Chunk(None, torch.ones(1, dtype=torch.int64)), {})
        for part in (found[: layered[0] + 1], found[layered[1] :])
    ]
    values, outputs = parts[0].right(len(parts[0].matrices))[0], parts[1].left(0)[0]
    size, share = heads.size, heads.count // heads.key_values
    v = values.reshape(heads.key_values, size, -1).repeat_interleave(share, 0)
    u = outputs.reshape(len(outputs), heads.count, size).transpose(0, 1)
    solution = singular_values(Batch(_triangle(u) @ _triangle(v.mH).mH))
    count = min(u.shape[1], v.shape[2])
    norms = _norms(u) * _norms(v)
    errors = [_entry_error(stages[i].stored[0]) for i in layered]
    spread = sqrt(size) + sqrt(count)
    result = []
    for h in range(heads.count):
        one = Solution(solution.values[h : h + 1], solution.floor[h : h + 1], solution.method)
        gathered = _Values()
        gathered.add(one, torch.ones(1, dtype=torch.int64), min(size, count))
        storage = spread * (
            errors[0] * float(_norms(u[h : h + 1])) * parts[0].peaks[0]
            + errors[1] * float(_norms(v[h : h + 1]))
        )
        result.append(
            gathered.spectrum(question, count, storage, 4 * EPS * float(norms[h]), "low-rank factors")
        )
    return tuple(result)


# With a diagonal of its own at every pixel


def _per_pixel(
    question: _Question, at: Sequence[Tensor]
) -> tuple[list[Spectrum], list[Spectrum], tuple[str, ...]]:
    """Return chain and skip for every pattern: dense where the operator is small, else its extremes."""
    branch = question.branch
    beside = shortcut_stages(branch)
    columns = branch.channels * prod(branch.grid)
    chains: list[Spectrum] = []
    skips: list[Spectrum] = []
    notes: dict[str, None] = {}
    for p in range(len(at[0])):
        here = [x[p : p + 1] for x in at]
        floors = _pixel_floors(question, at, p)
        if columns <= DENSE_COLUMNS:
            j = dense_jacobian(branch.stages, here[0][0], here)
            a = dense_jacobian(beside, here[0][0])
            family = Family.of(j[None], a[None] if question.with_skip else None)
            for found, solution, scale in (
                (chains, family.weight, 1.0),
                (
                    skips,
                    family.skip(question.rho, question.beta) if question.with_skip else None,
                    abs(question.beta),
                ),
            ):
                if solution is None:
                    continue
                values = _Values()
                values.add(solution, torch.ones(1, dtype=torch.int64), min(j.shape))
                found.append(
                    values.spectrum(
                        question,
                        min(j.shape),
                        floors.storage * scale,
                        floors.computation,
                        f"dense, {question.how}",
                    )
                )
            continue
        side = points(beside, here[0])
        out = branch.outputs * prod(branch.coarse)
        chain, why = _extremes(
            *_operators(branch, here, beside, side, 0.0, 1.0), (out, columns), question, floors
        )
        chains.append(chain)
        notes.update(dict.fromkeys(why))
        if question.with_skip:
            skip, why = _extremes(
                *_operators(branch, here, beside, side, question.rho, question.beta),
                (out, columns),
                question,
                floors,
            )
            skips.append(skip)
            notes.update(dict.fromkeys(why))
    return chains, skips, tuple(notes)


def _pixel_floors(question: _Question, at: Sequence[Tensor], pattern: int) -> _Floors:
    """Return the floors at the frequency zero, with the first pixel's diagonals."""
    axes = len(question.branch.grid)
    ratio = prod(question.branch.grid) // prod(question.branch.coarse)
    turns = torch.zeros(1, ratio, axes, dtype=torch.float64)
    chunk = _Chunk(turns, torch.ones(1, dtype=torch.int64))
    product = _product(pieces(question.branch, at, pattern), chunk, {})
    return _Floors.of(product, question.branch.stages, at, pattern)


Operator = Callable[["NDArray[np.float64]"], "NDArray[np.float64]"]


def _operators(
    branch: Branch,
    at: Sequence[Tensor],
    beside: Sequence[Stage],
    side: Sequence[Tensor],
    rho: float,
    beta: float,
) -> tuple[Operator, Operator]:
    """Return x ↦ (ρA + βJ)x and its adjoint on flat vectors."""

    def forward(x: NDArray[np.float64]) -> NDArray[np.float64]:
        v = torch.from_numpy(np.ascontiguousarray(x)).reshape(1, branch.channels, *branch.grid)
        total = beta * tangent(branch.stages, at, v)
        if rho:
            total = total + rho * tangent(beside, side, v)
        return total.flatten().numpy()

    def backward(y: NDArray[np.float64]) -> NDArray[np.float64]:
        w = torch.from_numpy(np.ascontiguousarray(y)).reshape(1, branch.outputs, *branch.coarse)
        total = beta * cotangent(branch.stages, at, w)
        if rho:
            total = total + rho * cotangent(beside, side, w)
        return total.flatten().numpy()

    return forward, backward


def _restarts(question: _Question) -> int:
    """Return how often the iteration may start over, twenty products each: what is cheap may take longer."""
    pixels = prod(question.branch.grid)
    each = 4.0 * pixels * sum(s.entries.numel() for stage in question.branch.stages for s in stage.stored)
    return int(min(max(WORK / (20 * each), 5), 60))


def _extremes(
    forward: Operator, backward: Operator, shape: tuple[int, int], question: _Question, floors: _Floors
) -> tuple[Spectrum, tuple[str, ...]]:
    """Return the largest singular value and the smallest, and why not where that is out of reach."""
    from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

    wide = shape[0] < shape[1]
    first, second = (backward, forward) if wide else (forward, backward)
    n = min(shape)
    start = np.random.default_rng(0).standard_normal(n)

    def square(x: NDArray[np.float64]) -> NDArray[np.float64]:
        return second(first(x.ravel()))

    gram = LinearOperator((n, n), matvec=square, dtype=np.float64)
    found: dict[str, tuple[float, float]] = {}
    most = _restarts(question)
    for which, tries in (("LA", most), ("SA", most)):
        try:
            values, vectors = eigsh(gram, k=1, which=which, v0=start, tol=1e-8, maxiter=tries, ncv=min(n, 40))
        except ArpackNoConvergence as error:
            values, vectors = error.eigenvalues, error.eigenvectors
        if len(values):
            vector = vectors[:, 0]
            residual = float(np.linalg.norm(square(vector) - values[0] * vector))
            sigma = sqrt(max(float(values[0]), 0.0))
            found[which] = sigma, residual / sigma if sigma else sqrt(residual)
    top, top_floor = found.get("LA", (None, inf))
    low, low_floor = found.get("SA", (None, inf))
    reached = low is not None and low_floor <= REACHED * low and low > floors.computation
    notes: tuple[str, ...] = ()
    if not reached:
        notes = ("smallest singular value out of reach of the iterative solver: no condition number",)
    return (
        Spectrum(
            count=n,
            sigma_max=top,
            sigma_min=low if reached else None,
            condition_number=top / low if reached and top is not None and low is not None else None,
            condition_number_status="resolved"
            if reached and top is not None
            else "below_computation_precision",
            pseudo_condition_number=None,
            numerical_rank=None,
            stable_rank=None,
            effective_rank=None,
            frobenius_norm=None,
            storage_floor=floors.storage,
            computation_floor=max(floors.computation, low_floor if reached else top_floor),
            method=f"extremes by Lanczos, {question.how}, float64",
            device="cpu",
            histogram=None,
        ),
        notes,
    )
