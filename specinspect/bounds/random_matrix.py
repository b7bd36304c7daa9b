"""What random weights do: the formulas of MATH E, free of layers and verdicts.

W has independent entries of standard deviation s; for a square one c = s·√n. All functions take floats or
arrays that broadcast. A skip of weight ρ beside β·W is covered by c → |β/ρ|·c and values times |ρ|.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from specinspect.bounds.tracy_widom import upper_quantile

Array = NDArray[np.float64]
Real = float | Array


def tau_tracy_widom(n: Real, c: Real, delta: float) -> Array:
    """Return what τmax(W) exceeds with probability δ as n → ∞ (MATH R16; n×n)."""
    n, c = np.asarray(n, float), np.asarray(c, float)
    return np.asarray(2 * np.sqrt(2) * c * (1 + upper_quantile(delta) * n ** (-2 / 3) / 2))


def tau_gaussian(n: Real, c: Real, delta: float) -> Array:
    """Return T with P(τmax(DW) > T) <= δ for Gaussian n×n W, every n, any fixed |D| <= 1 (MATH R17)."""
    n, c = np.asarray(n, float), np.asarray(c, float)
    return np.asarray(2 * np.sqrt(2) * c * (1 + np.sqrt(np.log(1 / delta) / n)))


def pattern_constant(low: Real, high: Real) -> Array:
    """Return a of MATH R18 for diagonals with entries in [low, high], within [-1, 1].

    √2 for D = I, 1.51136 for ReLU, 1.80921 for [-1, 1].
    """
    d1, d2 = np.asarray(low, float), np.asarray(high, float)
    s = np.sqrt(4 + (d1 + d2) ** 2)
    q = (d1 + d2) / s
    spread = np.abs(d1 - d2) * s * (2 / np.pi) * (np.sqrt(1 - q**2) + q * np.arcsin(q))
    return np.asarray(np.sqrt(0.5 * (2 + d1**2 + d2**2 + spread)))


def tau_all_patterns(n: Real, c: Real, delta: float, low: float, high: float) -> Array:
    """Return T with P(sup over all D of τmax(DW) > T) <= δ, D with entries in [low, high] (MATH R18).

    Where |D| exceeds 1 both are scaled by its largest entry: τ is linear in D.
    """
    n, c = np.asarray(n, float), np.asarray(c, float)
    size = max(abs(low), abs(high))
    scale = max(size, 1.0)
    a = pattern_constant(low / scale, high / scale)
    return np.asarray(scale * 2 * c * (a + min(size, 1.0) * np.sqrt(2 * np.log(1 / delta) / n)))


def largest(m: Real, n: Real, std: Real, delta: float) -> Array:
    """Return S with P(σ_1 > S) <= δ for Gaussian m×n (Davidson-Szarek, MATH R19)."""
    m, n = np.asarray(m, float), np.asarray(n, float)
    return np.asarray(np.asarray(std, float) * (np.sqrt(m) + np.sqrt(n) + np.sqrt(2 * np.log(1 / delta))))


def smallest(m: Real, n: Real, std: Real, delta: float) -> Array:
    """Return s with P(σ_min < s) <= δ for Gaussian m×n; not positive says nothing (MATH R19)."""
    m, n = np.asarray(m, float), np.asarray(n, float)
    edge = np.abs(np.sqrt(m) - np.sqrt(n))
    return np.asarray(np.asarray(std, float) * (edge - np.sqrt(2 * np.log(1 / delta))))


def johnstone(m: Real, n: Real, std: Real, delta: float) -> Array:
    """Return what σ_1 exceeds with probability δ as m, n → ∞ (MATH R20)."""
    m, n = np.sqrt(np.maximum(np.asarray(m, float) - 1, 0.5)), np.sqrt(np.asarray(n, float))
    centre, spread = (m + n) ** 2, (m + n) * (1 / m + 1 / n) ** (1 / 3)
    return np.asarray(
        np.asarray(std, float) * np.sqrt(np.maximum(centre + spread * upper_quantile(delta), 0))
    )


def kappa_skip(tau: Real, sigma: Real) -> Array:
    """Return √(1+S²+T)/(1-T/2), which bounds κ(I+M) where ±τ(M) <= T and σ_1(M) <= S; inf from T = 2 on.

    MATH R21; for T >= 0.
    """
    tau, sigma = np.asarray(tau, float), np.asarray(sigma, float)
    below = np.maximum(1 - tau / 2, 0)
    with np.errstate(divide="ignore"):
        return np.asarray(np.sqrt(1 + sigma**2 + tau) / below)


def limit_121(c: Real) -> Array:
    """Return √((1+4c²+2√2c)/(1-2√2c)), inf from c = 1/(2√2) on (MATH R22, (121))."""
    c = np.asarray(c, float)
    with np.errstate(divide="ignore"):
        return np.asarray(np.sqrt((1 + 4 * c**2 + 2**1.5 * c) / np.maximum(1 - 2**1.5 * c, 0)))


def limit_122(c: Real) -> Array:
    """Return (1+2c)/√(1-2√2c), inf from c = 1/(2√2) on (MATH R22, (122))."""
    c = np.asarray(c, float)
    with np.errstate(divide="ignore"):
        return np.asarray((1 + 2 * c) / np.sqrt(np.maximum(1 - 2**1.5 * c, 0)))


def limit_nr(c: Real) -> Array:
    """Return √(1+4c²+2√2c)/(1-√2c), inf from c = 1/√2 on (MATH R22, ours)."""
    c = np.asarray(c, float)
    return kappa_skip(2**1.5 * c, 2 * c)


def limit_extremes(c: Real) -> tuple[Array, Array]:
    """Return where σ_1 and σ_n of I + W tend to as n → ∞ (MATH R23); σ_n → 0 from c = 1 on."""
    c = np.asarray(c, float)
    v = np.clip(c, 1e-8, 1e70) ** 2
    root = np.sqrt(v * v + 8 * v)
    # (4-v-R)/(4(1-v)), written so that v = 1 is no exception and a large v loses no digits.
    inner = 4 / (4 + 8 * v / (root + v))
    with np.errstate(divide="ignore", invalid="ignore"):
        outer = (4 - v + root) / (4 * (1 - v))
        low = np.where(v < 1, 1 / outer**2 - v / (outer * (outer - 1)), 0.0)
    high = 1 / inner**2 - v / (inner * (inner - 1))
    return np.where(c > 1e70, 2 * c, np.sqrt(high)), np.sqrt(np.maximum(low, 0))


def limit_kappa(c: Real) -> Array:
    """Return where κ(I + W) tends to as n → ∞, inf from c = 1 on (MATH R23)."""
    high, low = limit_extremes(c)
    with np.errstate(divide="ignore"):
        return np.asarray(high / low)


def edelman(n: Real, kappa: Real) -> Array:
    """Return P(κ(W) <= K) for Gaussian n×n W, as n → ∞ and good from n = 32 on (MATH R24, Edelman)."""
    n, k = np.asarray(n, float), np.asarray(kappa, float)
    return np.asarray(np.exp(-2 * n / k - 2 * n**2 / k**2))


def two_pattern_excess(n: int, c: float, zeros: tuple[int, int], delta: float) -> float:
    """Return what Y + Z of MATH R25 exceeds with probability at most 2δ, for Gaussian n×n W.

    Args:
        n: width.
        c: s·√n.
        zeros: r0 and r1, the zeros of D0 and D1 in N = (D1·W + I)·D0.
        delta: of each of the two events.
    """
    r0, r1 = zeros
    entries = n * (r0 + r1) - r0 * r1
    t = np.log(1 / delta)
    cross = 2 * c * np.sqrt(2 * r0 * t / n)
    return float(cross + c**2 / n * (entries + 2 * np.sqrt(entries * t) + 2 * t))
