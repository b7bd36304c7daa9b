"""A report made by hand: nothing is computed, so goldens do not depend on any LAPACK."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from specinspect.checkpoint.model import Skipped
from specinspect.layers.model import Activation, ConvGeometry, Fact, Layer, Normalization, Skip, Stored
from specinspect.report.model import (
    CheckpointSummary,
    Finding,
    LayerResult,
    Report,
    Summary,
    WorstConditionNumber,
)
from specinspect.spectra.model import Histogram, PatternStatistics, Range, Spectrum, Tau

COUNTS = (1, 0, 0, 2, 3, 5, 9, 14, 20, 31, 44, 60, 58, 30, 9, 2)
ESCAPES = "a\nb\x1b[31mred\u202e.weight\ud800"
FORMULA = "=cmd|' /C calc'!A0"
SCRIPT = "<script>alert(1)</script>"
MARKUP = "enc[/].weight[bold red]"
STRIDE = "stride and dilation are not in the file: 1 is assumed"


def histogram(low: float, high: float, counts: tuple[int, ...] = COUNTS, zeros: int = 0) -> Histogram:
    edges = low * (high / low) ** (np.arange(len(counts) + 1) / len(counts))
    return Histogram(tuple(float(f"{edge:.6g}") for edge in edges), counts, zeros)


def spectrum(sigma_max: float = 2.5, sigma_min: float = 0.0625, count: int = 288) -> Spectrum:
    return Spectrum(
        count=count,
        sigma_max=sigma_max,
        sigma_min=sigma_min,
        condition_number=sigma_max / sigma_min if sigma_min else None,
        condition_number_status="resolved" if sigma_min else "infinite",
        pseudo_condition_number=40.0,
        numerical_rank=count,
        stable_rank=17.25,
        effective_rank=31.5,
        frobenius_norm=10.375,
        storage_floor=2e-8,
        computation_floor=3e-15,
        method="eigvalsh of the Gram matrix, float64",
        device="cpu",
        histogram=histogram(sigma_min or 1e-3, sigma_max),
    )


def patterned(spec: Spectrum, active: float = 0.5) -> Spectrum:
    """Return a spectrum with statistics over 8 patterns; the median is its own."""

    def around(value: float | None) -> Range:
        return Range(None, None, None) if value is None else Range(value / 2, value, 2 * value)

    scalars = {
        name: around(getattr(spec, name))
        for name in ("sigma_max", "sigma_min", "condition_number", "pseudo_condition_number", "stable_rank")
    }
    return replace(
        spec, patterns=PatternStatistics(8, Range(active / 2, active, min(1.0, 2 * active)), scalars)
    )


def singular(pseudo: float = 12.5, low: float = 0.25) -> Spectrum:
    """Return D·W where ReLU zeroes rows: κ is infinite, that of the rest is not."""
    spec = spectrum(2.0, 0.0, 64)
    pseudo_spec = replace(spec, pseudo_condition_number=pseudo, numerical_rank=34)
    return patterned(replace(pseudo_spec, histogram=histogram(low, 2.0, zeros=30)))


def layer(
    name: str, shape: tuple[int, ...] = (64, 64), kind: str = "linear", dtype: str = "f32", **other: object
) -> Layer:
    tensor = f"{name}.weight"
    made = Layer(name, kind, (tensor,), shape, (shape[0], shape[1]), dtype, Stored(tensor))
    return replace(made, **other)  # type: ignore[arg-type]


def conv(
    name: str,
    shape: tuple[int, ...] = (64, 64, 3, 3),
    stride_source: str = "assumed",
    activation: str = "gelu",
    skip: str = "identity",
) -> LayerResult:
    ones = (1,) * (len(shape) - 2)
    geometry = ConvGeometry(
        kernel=shape[2:],
        stride=Fact(ones, stride_source),  # type: ignore[arg-type]
        dilation=Fact(ones, "assumed"),
        groups=Fact(1, "shape"),
        padding=Fact(ones, "model") if stride_source == "model" else None,
    )
    bn = Normalization("batch_norm", name.replace("conv", "bn"), "assumed")
    made = layer(
        name,
        shape,
        f"conv{len(ones)}d",
        conv=geometry,
        normalization=bn,
        assumptions=(STRIDE,),
        activation=Activation(activation, "config"),
        skip=Skip(skip, "assumed"),  # type: ignore[arg-type]
    )
    maps = {
        "weight": spectrum(3.125, 0.0125, 16384),
        "chain": patterned(spectrum(3.125, 0.01, 16384)),
        "skip": spectrum(4.0, 0.5, 16384),
        "skip_chain": patterned(spectrum(4.0, 0.25, 16384)),
    }
    return LayerResult(
        made,
        maps,
        0.25,
        (16,) * len(ones),
        tau=Tau(-1.5, 2.25) if skip == "identity" else None,
        assumptions=(STRIDE, "a grid of 16"),
    )


def linear(name: str, spec: Spectrum | None = None, **other: object) -> LayerResult:
    """Return a layer with ReLU after it and all four maps; those of a NaN are NaN."""
    chain = other.pop("chain", singular())
    made = layer(
        name,
        bias=f"{name}.bias",
        activation=Activation("relu", "assumed"),
        skip=Skip("identity", "assumed"),
    )
    weight = spec or spectrum()
    maps = {
        "weight": weight,
        "chain": chain,
        "skip": spectrum(3.5, 0.4375, 64),
        "skip_chain": patterned(spectrum(3.5, 0.875, 64)),
    }
    if weight.nonfinite:
        maps = dict.fromkeys(maps, weight)
    return LayerResult(made, maps, 0.125, **other)  # type: ignore[arg-type]


def head(name: str) -> LayerResult:
    """Return a layer that nothing follows: D·W is W."""
    weight = spectrum(1.0, 0.5, 10)
    maps = {"weight": weight, "chain": weight, "skip": spectrum(2.0, 1.0, 10)}
    skip = Skip("rectangular-identity", "assumed")
    return LayerResult(layer(name, (10, 64), skip=skip), maps, 0.125)


NONFINITE = Spectrum(
    count=64,
    sigma_max=None,
    sigma_min=None,
    condition_number=None,
    condition_number_status="nonfinite_weights",
    pseudo_condition_number=None,
    numerical_rank=None,
    stable_rank=None,
    effective_rank=None,
    frobenius_norm=None,
    storage_floor=None,
    computation_floor=None,
    method="none: the weight has NaN or infinite entries",
    device="cpu",
    histogram=None,
    nonfinite=3,
)


def unresolved() -> Spectrum:
    return replace(
        spectrum(2.0, 5e-3, 64),
        condition_number=None,
        condition_number_status="below_storage_precision",
        storage_floor=1e-2,
        numerical_rank=60,
    )


def dead() -> Spectrum:
    return replace(
        spectrum(2.0, 0.0, 64),
        numerical_rank=63,
        histogram=histogram(1e-1, 2.0, (0, 1, 0, 0, 2, 9, 21, 30), zeros=1),
    )


def report() -> Report:
    """Return a report with every kind of layer, every status, and names that mean harm."""
    embedding = layer("embed", (5000, 288), "embedding", "bf16")
    results = (
        LayerResult(embedding, {"weight": spectrum(91.25, 0.875)}, 0.5),
        conv("encoder.layers.0.conv1"),
        conv("encoder.layers.0.conv2", skip="average-pool"),
        linear("encoder.layers.0.attention.self.query"),
        linear("encoder.layers.0.attention.self.key", unresolved(), chain=singular(56.8, 1e-9)),
        conv("encoder.layers.1.conv1", stride_source="model"),
        conv("encoder.layers.1.conv2"),
        linear("encoder.layers.1.attention.self.query", spectrum(2.5, 2.4e-5, 64)),
        linear("encoder.layers.1.attention.self.key", NONFINITE, notes=("3 entries are NaN or infinite",)),
        linear(
            "encoder.layers.1.a_module_with_a_rather_long_name_of_its_own.output",
            dead(),
            chain=patterned(dead()),
            notes=("1 zero row",),
        ),
        linear(MARKUP),
        linear(ESCAPES),
        linear(FORMULA),
        head("head"),
        linear(f"{SCRIPT}|`x`", replace(spectrum(), singular_values=np.array([2.5, 0.5, 0.0625]))),
    )
    leaky = replace(results[-3].layer, activation=Activation("prelu", "model", 0.25, f"{FORMULA}.slopes"))
    results = (*results[:-3], replace(results[-3], layer=leaky), *results[-2:])
    checkpoint = CheckpointSummary(
        path="runs/model[/].pt",
        format="torch-zip",
        files=("runs/model[/].pt",),
        bytes=12_345_678,
        tensors=34,
        parameters=3_086_419,
        metadata={"format": "pt", SCRIPT: ESCAPES},
        key="state_dict",
        assumptions=("the weights are under 'state_dict', not 'ema'",),
        placeholders=("lightning.Trainer",),
    )
    return Report(
        checkpoint=checkpoint,
        settings={"grid": 16, "device": "cpu", "limit": float("inf"), "beta": 0.5, "rho": 1.0},
        layers=results,
        skipped=(
            Skipped("encoder.layers.0.bn1.weight", "normalisation scale"),
            Skipped("encoder.layers.0.bn2.weight", "normalisation scale"),
            Skipped("encoder.layers.1.bn1.weight", "normalisation scale"),
            Skipped("encoder.layers.0.bn1.num_batches_tracked", "dtype i64 is not a floating-point weight"),
        ),
        findings=(
            Finding("infinite", "warning", results[9].layer.name, "σmin is exactly zero (1 zero row)"),
            Finding(
                "nonfinite",
                "error",
                results[8].layer.name,
                "3 entries are NaN or infinite",
                3.0,
                float("nan"),
            ),
        ),
        summary=Summary(
            15, 30, 34, WorstConditionNumber(results[7].layer.name, "weight", 2.5 / 2.4e-5), 1, 3, 1.5
        ),
        version="0.1.0",
    )


def tall(blocks: int = 32) -> Report:
    """Return what a 7B Llama looks like: 7 layers in each of so many equal blocks."""
    parts = {
        "self_attn.q_proj": (4096, 4096),
        "self_attn.k_proj": (1024, 4096),
        "self_attn.v_proj": (1024, 4096),
        "self_attn.o_proj": (4096, 4096),
        "mlp.gate_proj": (11008, 4096),
        "mlp.up_proj": (11008, 4096),
        "mlp.down_proj": (4096, 11008),
    }
    results = [
        LayerResult(
            layer("model.embed_tokens", (32000, 4096), "embedding", "bf16"), {"weight": spectrum()}, 1.0
        )
    ]
    for block in range(blocks):
        for position, (name, shape) in enumerate(parts.items()):
            made = layer(f"model.layers.{block}.{name}", shape, dtype="bf16")
            found = spectrum(20.0, 0.5 / (1 + block * (position + 1)), min(shape))
            skip = spectrum(21.0, 1 / (1 + block), min(shape))
            maps = {"weight": found, "chain": patterned(skip) if name == "mlp.gate_proj" else found}
            results.append(LayerResult(made, {**maps, "skip": skip} if shape[0] == 4096 else maps, 0.5))
    results.append(LayerResult(layer("lm_head", (32000, 4096), dtype="bf16"), {"weight": spectrum()}, 1.0))
    base = report()
    worst = max(results, key=lambda result: result.maps["weight"].condition_number or 0)
    value = worst.maps["weight"].condition_number or 0
    return replace(
        base,
        layers=tuple(results),
        findings=(),
        skipped=(),
        summary=Summary(
            len(results),
            len(results),
            len(results) + 65,
            WorstConditionNumber(worst.layer.name, "weight", value),
            0,
            0,
            240,
        ),
    )
