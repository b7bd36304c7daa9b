"""Names, numbers and small pictures as text. What a file says is untrusted until `visible` has seen it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from specinspect.spectra.model import Spectrum

BARS = "▁▂▃▄▅▆▇█"
ASCII_BARS = ".:-=+*#@"
ABSENT = "–"

_ASCII = str.maketrans(
    {
        "κ": "kappa",
        "σ": "sigma",
        "ρ": "rho",
        "β": "beta",
        "×": "x",
        "∞": "inf",
        "–": "-",
        "…": "...",
        "·": "-",
        "≥": ">=",
        "◀": "<",
        "→": "->",
        "²": "^2",
        "³": "^3",
        "≤": "<=",
        "≠": "!=",
        "≈": "~=",
        "±": "+-",
        "−": "-",
        "√": "sqrt ",
        "½": "1/2",
        "¼": "1/4",
        "τ": "tau",
        "δ": "delta",
        "η": "eta",
        "ε": "eps",
        "λ": "lambda",
        "μ": "mu",
        "ν": "nu",
        "γ": "gamma",
        "φ": "phi",
        "ω": "omega",
        "π": "pi",
        "Σ": "sum ",
        "Π": "prod ",
        "‖": "||",
        "ᵀ": "^T",
        "ᴴ": "^H",
        "⟨": "<",
        "⟩": ">",
        "⊗": "(x)",
        "∈": "in",
        "∪": "union",
        "′": "'",
        "″": "''",
        "₊": "+",
        "⁻": "^-",
        "¹": "1",
        "ᵢ": "_i",
        "ⱼ": "_j",
        "₀": "0",
        "₁": "1",
        "₂": "2",
        "Δ": "d",
        "‑": "-",
        "“": '"',
        "”": '"',
        "’": "'",
        **dict(zip(BARS, ASCII_BARS, strict=True)),
    }
)


def visible(name: str) -> str:
    r"""Return the text with every character that does not print written as an escape, on one line.

    Control and escape characters, line breaks, bidirectional overrides, zero-width characters, lone
    surrogates and private-use characters become `\x1b`, `\n`, `\u202e` and so on.
    """
    if name.isprintable():
        return name
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in name
    )


def layer_name(name: str) -> str:
    """Return a layer's name as shown; the weight of a bare module has none."""
    return visible(name) or "(root)"


def ascii_only(text: str) -> str:
    """Return the text in ASCII: our own symbols spelled out, anything else as an escape."""
    text = text.replace("σm", "s_m")
    return text.translate(_ASCII).encode("ascii", "backslashreplace").decode("ascii")


def number(value: float | None, digits: int = 3) -> str:
    """Return a value with so many significant digits: 0.0123, 41.2, 123, 1.23e4."""
    if value is None or math.isnan(value):
        return ABSENT
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if value == 0:
        return "0"
    text = f"{value:.{digits - 1}e}"  # rounds first: 999.7 is 1.00e3, never 1000
    exponent = int(text.partition("e")[2])
    if -3 < exponent < 3:
        return f"{float(text):.{max(digits - 1 - exponent, 0)}f}"
    return f"{text.partition('e')[0]}e{exponent}"


def integer(value: int) -> str:
    """Return a count with thousands separated: 1,234,567."""
    return f"{value:,}"


def shape(sizes: Sequence[int]) -> str:
    """Return 64×64×3×3; a scalar is 'scalar'."""
    return "×".join(map(str, sizes)) if sizes else "scalar"


def size(count: int) -> str:
    """Return bytes in decimal units: 90.9 MB."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{count} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def kappa_bound(spectrum: Spectrum) -> float | None:
    """Return what κ of an unresolved spectrum is at least, as far as the floors are known.

    By Weyl's inequality a perturbation of spectral norm f moves every singular value by at most f, so
    κ ≥ (σmax - f) / (σmin + f). The storage floor is an estimate, so this is one too.
    """
    if spectrum.sigma_max is None:
        return None
    floor = spectrum.computation_floor or 0.0
    if spectrum.sigma_min is None:  # iterated, and out of reach: the floor is what it is at most
        bound = spectrum.sigma_max / floor if floor > 0 else math.inf
        return bound if 1 < bound < math.inf else None
    if spectrum.condition_number_status == "below_storage_precision":
        floor += spectrum.storage_floor or 0.0
    below = spectrum.sigma_min + floor
    bound = (spectrum.sigma_max - floor) / below if below > 0 else math.inf
    return bound if 1 < bound < math.inf else None


def kappa(spectrum: Spectrum) -> str:
    """Return κ as shown to people: 41.2, '> 3.1e6' where unresolved, ∞, NaN.

    The bound has two digits and is rounded down, so that it stays one.
    """
    match spectrum.condition_number_status:
        case "resolved":
            return number(spectrum.condition_number)
        case "infinite":
            return "∞"
        case "nonfinite_weights":
            return "NaN"
        case "beyond_float64" | "not_converged":
            return "?"
    bound = kappa_bound(spectrum)
    return "> 1" if bound is None else at_least(bound)


def at_least(bound: float) -> str:
    """Return '> 3.1e6': two digits, rounded down."""
    step = 10.0 ** (math.floor(math.log10(bound)) - 1)
    return f"> {number(math.floor(bound / step * (1 + 1e-12)) * step, 2)}"


def rank(spectrum: Spectrum) -> str:
    """Return 'full', or the numerical rank out of all singular values: 20/32."""
    if spectrum.numerical_rank is None:
        return ABSENT
    if spectrum.numerical_rank == spectrum.count:
        return "full"
    return f"{spectrum.numerical_rank}/{spectrum.count}"


def resample(counts: Sequence[int], cells: int) -> list[int]:
    """Return the counts summed into at most so many neighbouring cells."""
    bins = len(counts)
    cells = min(cells, bins)
    return [sum(counts[bins * i // cells : bins * (i + 1) // cells]) for i in range(cells)]


def sparkline(values: Sequence[float | None], low: float, high: float, *, plain: bool = False) -> str:
    """Return one bar per value, evenly spaced from low to high; None is blank, nothing else is."""
    bars = ASCII_BARS if plain else BARS
    last = len(bars) - 1
    scale = last / (high - low) if high > low else 0.0
    return "".join(
        " " if value is None else bars[round(min(max(value - low, 0.0) * scale, last))] for value in values
    )


def spectrum_bars(spectrum: Spectrum, cells: int, *, plain: bool = False) -> str:
    """Return the histogram as a sparkline with logarithmic heights: a lone smallest σ stays visible."""
    if spectrum.histogram is None or not spectrum.histogram.counts:
        return ""
    counts = resample(spectrum.histogram.counts, cells)
    heights = [math.log1p(count) if count else None for count in counts]
    return sparkline(heights, 0.0, math.log1p(max(counts)), plain=plain)


def middle(name: str, width: int, ellipsis: str = "…") -> str:
    """Return the name in at most so many characters; what is left out is its middle."""
    if len(name) <= width:
        return name
    keep = width - len(ellipsis)
    if keep < 2:
        return name[: max(width, 0)]
    tail = (keep + 1) // 2
    return name[: keep - tail] + ellipsis + name[-tail:]
