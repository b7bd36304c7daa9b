"""R63 to R65, and R1 to R9 on convolutions, against dense circular and zero-padded matrices."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from specinspect.bounds import activation, convolution, skip
from specinspect.bounds.model import BoundCheck
from specinspect.maps import ConvolutionMap
from specinspect.spectra.activated import Question, measure_maps
from specinspect.spectra.compute import measure
from specinspect.spectra.model import Spectrum
from specinspect.spectra.padded import measure_padded
from specinspect.spectra.padding import padding_bounds
from specinspect.spectra.plan import Plan
from specinspect.spectra.quantities import LayerQuantities
from tests.bounds.families import Array, values
from tests.spectra.test_activated import dense_convolution, diagonals
from tests.spectra.test_padded import convolution as layer_of
from tests.spectra.test_padded import matrix_of

CPU = Plan("cpu")


def kernels(channels: int, size: int, rng: np.random.Generator) -> dict[str, Array]:
    """Return kernels (c, c, size) of every kind."""
    shape = (channels, channels, size)
    gauss = rng.standard_normal(shape) / np.sqrt(channels * size)
    delta = np.zeros(shape)
    delta[:, :, size // 2] = np.eye(channels)
    shift = np.zeros(shape)
    shift[:, :, 0] = np.eye(channels)
    odd = gauss - gauss[:, :, ::-1].transpose(1, 0, 2)  # a skew operator
    return {
        "gaussian": gauss,
        "small": 0.05 * gauss,
        "large": 9 * gauss,
        "minus identity": -delta + 1e-6 * gauss,
        "identity": delta,
        "shift": shift,
        "all equal": np.full(shape, 0.2),
        "skew": odd,
        "zero": np.zeros(shape),
        "rank one": np.einsum("i,j,k->ijk", *(rng.standard_normal(n) for n in shape)),
        "taps 0, 1, 2": np.eye(channels)[:, :, None] * np.arange(size),
    }


def gather(layer: ConvolutionMap, d: Array | None, rho: float, beta: float) -> LayerQuantities:
    weight = measure([layer], CPU, keep_values=True)[0].spectrum
    question = Question(rho, beta, "identity", None if d is None else diagonals(d))
    found = measure_maps(layer, weight, question, CPU, keep_values=False, quantities=True).quantities
    assert found is not None
    return replace(found, kind="conv1d")


def test_frequency_by_frequency_against_the_dense_circular_matrix() -> None:
    rng = np.random.default_rng(0)
    compared: Counter[str] = Counter()
    for channels, size, n in ((1, 3, 6), (2, 3, 5), (3, 1, 4), (2, 5, 8)):
        for rho, beta in ((1.0, 1.0), (1.0, 0.3), (-1.0, 0.5), (0.5, -2.0)):
            for name, kernel in kernels(channels, size, rng).items():
                tensor = torch.from_numpy(kernel)
                d = rng.choice([0.0, 1.0], (2, channels))
                q = gather(layer_of(tensor, (n,)), d, rho, beta)
                dense = dense_convolution(tensor, (n,), 1, size // 2)
                truth = values(rho * np.eye(len(dense)) + beta * dense)
                for check in (*skip.checks(q), *activation.checks(q)):
                    assert check.verdict != "violated", (name, rho, beta, check)
                    compared[check.id] += check.verdict == "holds"
                    if check.of != "skip" or check.bound is None:
                        continue
                    if check.id == "r63" or check.id.startswith("r4"):
                        # The guarantee is one for the whole operator.
                        if truth[-1] > 1e-6 * truth[0]:
                            room = 1e-9 * (rho**2 + (beta * values(dense)[0]) ** 2) / truth[-1] ** 2
                            assert truth[0] / truth[-1] <= check.bound * (1 + 1e-6 + room)
                    elif check.id.startswith("r3.upper"):
                        assert truth[0] <= check.bound * (1 + 1e-9) + 1e-9
                    elif check.id.startswith("r3.lower"):
                        assert truth[-1] >= check.bound * (1 - 1e-9) - 1e-6 * max(1, truth[0])
    assert {"r1", "r1p", "r2", "r5", "r6", "r7", "r8", "r9", "r63"} <= {k for k, n in compared.items() if n}
    assert compared["r63"] >= 100


def test_r63_over_many_kernels() -> None:
    """κ from the worst frequency, a thousand times, and never looser than the global bound."""
    rng = np.random.default_rng(1)
    count = 0
    for _ in range(1100):
        channels, n = int(rng.integers(1, 4)), int(rng.integers(3, 7))
        kernel = rng.standard_normal((channels, channels, 3)) * rng.choice([0.02, 0.1, 0.2])
        tensor = torch.from_numpy(kernel)
        q = gather(layer_of(tensor, (n,)), None, 1.0, float(rng.choice([1.0, 0.5, -1.0])))
        found = {c.id: c for c in skip.checks(q) if c.of == "skip"}
        if found["r63"].verdict == "vacuous":
            continue
        dense = q.beta * dense_convolution(tensor, (n,), 1, 1)
        bound = found["r63"].bound
        assert bound is not None
        assert np.linalg.cond(np.eye(len(dense)) + dense) <= bound * (1 + 1e-6)
        whole = found["r4.best"].bound
        assert whole is None or bound <= whole * (1 + 1e-9)
        count += 1
    assert count >= 1000


def test_r63_finds_a_forged_block() -> None:
    kernel = torch.from_numpy(0.1 * np.random.default_rng(2).standard_normal((2, 2, 3)))
    q = gather(layer_of(kernel, (6,)), np.ones((1, 2)), 1.0, 1.0)
    assert q.skip is not None
    for factor in (3.0, 0.01):
        forged = q.skip.copy()
        forged[2] *= factor
        found = {c.id: c for c in skip.checks(replace(q, skip=forged)) if c.of == "skip"}
        assert found["r63"].verdict == "violated"


def padded_checks(
    kernel: Array, n: int, rho: float, beta: float, boundary: str, dims: int = 1, stride: int = 1
) -> dict[tuple[str, str], BoundCheck]:
    layer = layer_of(torch.from_numpy(kernel), (n,) * dims, stride=stride)
    bounds = padding_bounds(layer, CPU, rho=rho, beta=beta)
    if boundary == "zeros":
        shortcut = "identity" if kernel.shape[0] == kernel.shape[1] and stride == 1 else "none"
        maps: dict[str, Spectrum] = measure_padded(layer, CPU, shortcut=shortcut, rho=rho, beta=beta)
    else:
        maps = {"weight": measure([layer], CPU, keep_values=False)[0].spectrum}
    return {(c.id, c.of): c for c in convolution.checks(bounds, maps, boundary)}


def test_zero_padding_over_many_kernels() -> None:
    """R64 and R65 on the layer's own spectrum, against the matrix that torch's convolution has."""
    rng = np.random.default_rng(3)
    compared: Counter[tuple[str, str]] = Counter()
    for round_ in range(39):
        for channels, size, n in ((1, 3, 6), (2, 3, 5), (2, 5, 8)):
            for name, kernel in kernels(channels, size, rng).items():
                rho, beta = ((1.0, 1.0), (1.0, 0.2), (-1.0, 0.3))[round_ % 3]
                found = padded_checks(kernel, n, rho, beta, "zeros")
                dense = matrix_of(layer_of(torch.from_numpy(kernel), (n,)))
                s = values(dense)
                tolerance = 1e-7 * max(s[0], 1e-12)
                for key, check in found.items():
                    assert check.verdict != "violated", (name, check)
                    compared[key] += check.verdict == "holds"
                r65 = found["r65", "weight"]
                assert r65.value == pytest.approx(s[0], abs=tolerance)
                assert r65.bound is not None
                assert s[0] <= r65.bound + tolerance
                beside = found["r65", "skip"]
                if beside.bound is not None:
                    truth = values(rho * np.eye(len(dense)) + beta * dense)
                    assert truth[0] / truth[-1] <= beside.bound * (1 + 1e-6)
    assert min(compared["r64", "weight"], compared["r65", "weight"]) >= 1000
    assert compared["r65", "skip"] >= 1000


def test_what_the_periodic_grid_alone_says() -> None:
    """Nothing of the padded layer is computed: what is compared is said, and what is only guaranteed."""
    kernel = 0.05 * np.random.default_rng(4).standard_normal((3, 3, 3))
    found = padded_checks(kernel, 8, 1.0, 1.0, "circular")
    truth = values(np.eye(24) + matrix_of(layer_of(torch.from_numpy(kernel), (8,))))
    beside = found["r65", "skip"]
    assert (beside.verdict, beside.value) == ("holds", None)
    assert beside.bound is not None
    assert truth[0] / truth[-1] <= beside.bound
    assert "--conv-operator padded" in beside.why
    assert found["r64", "weight"].value is not None
    assert "lower bound of σmax(T)" in found["r65", "weight"].why
    vacuous = padded_checks(20 * kernel, 8, 1.0, 1.0, "circular")["r65", "skip"]
    assert (vacuous.verdict, vacuous.bound) == ("vacuous", None)
    rectangular = padded_checks(np.ones((2, 3, 3)), 8, 1.0, 1.0, "circular")
    assert rectangular["r65", "skip"].why == "not square: only σmax is bounded"
    strided = padded_checks(np.ones((2, 2, 3)), 8, 1.0, 1.0, "circular", stride=2)
    assert strided["r64", "weight"].why == "strided"
    assert strided["r65", "weight"].verdict == "holds"
    assert padded_checks(kernel, 8, 0.0, 1.0, "circular")["r65", "skip"].why == "needs ρ ≠ 0"


def test_a_periodic_sigma_min_says_nothing_of_zero_padding() -> None:
    """MATH R64: taps (0, 1, 2): 1 on the periodic grid, about 2^-n with zeros around."""
    kernel = torch.arange(3, dtype=torch.float64)[None, None]
    n = 20
    assert values(dense_convolution(kernel, (n,), 1, 1))[-1] == pytest.approx(1)
    assert values(matrix_of(layer_of(kernel, (n,))))[-1] < 2.0 ** -(n - 2)


def test_forged_padding_is_found() -> None:
    kernel = 0.1 * np.random.default_rng(5).standard_normal((2, 2, 3))
    layer = layer_of(torch.from_numpy(kernel), (8,))
    bounds = padding_bounds(layer, CPU)
    true = measure_padded(layer, CPU, shortcut="identity")

    def verdicts(**changes: Any) -> dict[tuple[str, str], str]:
        maps = {name: replace(spectrum, **changes) for name, spectrum in true.items()}
        return {(c.id, c.of): c.verdict for c in convolution.checks(bounds, maps, "zeros")}

    assert set(verdicts().values()) == {"holds"}
    top, low, norm = (getattr(true["weight"], f) for f in ("sigma_max", "sigma_min", "frobenius_norm"))
    assert set(verdicts(sigma_max=3.0, sigma_min=0.5).values()) == {"violated"}
    assert verdicts(frobenius_norm=norm * 1.001)["r64", "weight"] == "violated"
    assert verdicts(sigma_min=top)["r64", "weight"] == "violated"
    assert verdicts(sigma_max=1.2, sigma_min=0.01)["r65", "skip"] == "violated"
    assert verdicts(sigma_min=low)["r64", "weight"] == "holds"
    periodic = {"weight": replace(true["weight"], frobenius_norm=norm * 2)}
    found = {(c.id, c.of): c.verdict for c in convolution.checks(bounds, periodic, "circular")}
    assert found["r64", "weight"] == "violated"


def test_no_numbers_no_verdicts() -> None:
    layer = layer_of(torch.full((1, 1, 3), torch.nan, dtype=torch.float64), (4,))
    weight = measure([layer], CPU, keep_values=False)[0].spectrum
    found = convolution.checks(padding_bounds(layer, CPU), {"weight": weight}, "circular")
    assert {c.verdict for c in found} == {"not_applicable"}
    assert all("NaN" in c.why for c in found)
