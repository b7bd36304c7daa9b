"""Numbers that papers print, and what they say of networks, through the whole tool."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch

from specinspect import inspect
from specinspect.report.model import LayerResult
from specinspect.spectra.model import Spectrum
from specinspect.spectra.summary import histogram

SAMPLES = Path(__file__).parent.parent / "samples"
riedi_toy = runpy.run_path(str(SAMPLES / "riedi_toy.py"))  # a script, not a module
compute, mean, render = (riedi_toy[name] for name in ("compute", "mean", "render"))


def values_of(spectrum: Spectrum) -> np.ndarray:
    assert spectrum.singular_values is not None
    return spectrum.singular_values


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_figure_1_of_macdonald_and_others(seed: int) -> None:
    """A is 500×500 with entries uniform in ±1/√500, so c = 1/√3 (MATH R34).

    Limits as n → ∞: σ(A) in [0, 2c] = [0, 1.155], σ(A+I) in [0.289, 1.886] (MATH R23). The edges of a finite
    matrix fluctuate by about n^{-2/3} = 0.016 of the spectrum's width, and lie inside the limits by about as
    much: 0.03 allows for twice that. Means average 500 values that repel each other and fluctuate by about
    1/n = 0.002; 0.005 also covers the O(1/n) bias.
    """
    generator = torch.Generator().manual_seed(seed)
    a = (2 * torch.rand(500, 500, generator=generator, dtype=torch.float64) - 1) / 500**0.5
    layer = inspect({"layer.weight": a}, rho=1.0, beta=1.0, spectra=True).layers[0]
    weight, skip = values_of(layer.maps["weight"]), values_of(layer.maps["skip"])
    assert weight.mean() == pytest.approx(0.490, abs=0.005)
    assert weight[0] == pytest.approx(1.155, abs=0.03)
    assert weight[-1] < 0.01  # the hard edge: about 1/n
    assert skip.mean() == pytest.approx(1.084, abs=0.005)
    assert skip[0] == pytest.approx(1.886, abs=0.03)
    assert skip[-1] == pytest.approx(0.289, abs=0.03)
    assert sum(histogram(skip).counts) == 500


def hidden_layers(name: str) -> list[LayerResult]:
    report = inspect(SAMPLES / name, layers=["hidden.*"], rho=1.0, beta=1.0)
    assert len(report.layers) == 8
    return list(report.layers)


def kappa(layer: LayerResult, name: str) -> float:
    found = layer.maps[name].condition_number
    assert found is not None
    return found


def test_the_report_tells_a_chain_from_its_residual_twin() -> None:
    """The twins are x → relu(Wx+b) and x → x + relu(Wx+b): ρ = β = 1 is the residual one's own.

    By its weights alone the residual network looks no better, and without its skip it would be singular
    (ReLU removes rows of D·W: κ = ∞). What it applies is I+D·W, whose κ stays below 10 in every layer while
    that of W is 90 at least; the chain's own map has no such bound, since no skip held its training back from
    eigenvalues of W near -1.
    """
    chain, residual = hidden_layers("digits_chain.pt"), hidden_layers("digits_residual.pt")
    for layer in residual:
        assert kappa(layer, "skip") < kappa(layer, "weight") / 10
        assert kappa(layer, "skip_chain") < kappa(layer, "weight") / 15
        assert kappa(layer, "skip") < 10
        assert kappa(layer, "skip_chain") < 10
    for layer in chain + residual:
        assert layer.maps["chain"].condition_number_status == "infinite"
        assert kappa(layer, "weight") > 90
    # What each network applies, from layer to layer: D·W, singular, against I + D·W.
    applied = [kappa(layer, "skip_chain") for layer in residual]
    bare = [kappa(layer, "weight") for layer in chain]
    assert max(applied) < min(bare) / 20
    # Trained with the skip, the same map is better than the chain's weights with a skip put on afterwards.
    for name in ("skip", "skip_chain"):
        assert np.median([kappa(x, name) for x in residual]) < np.median([kappa(x, name) for x in chain])


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_singular_values_grow_and_eccentricity_falls_in_the_toy_network_of_riedi_and_others(
    seed: int,
) -> None:
    """A statement on means: a single layer may come close to singular at some ρ, since D·W may have an
    eigenvalue -ρ (MATH R5b).
    """
    toy = compute(seed)
    smallest, largest = mean(toy.values)[:, 1], mean(toy.values)[:, 0]
    assert np.all(np.diff(smallest[::5]) > 0)  # ρ = 0, ¼, ½, ¾, 1
    assert largest[-1] > 5 * largest[0]
    layers = mean(toy.layers.reshape(-1, len(toy.rho)))
    for eccentricity in (mean(toy.eccentricity), layers):
        assert eccentricity[-1] < eccentricity[0] / 2
        assert np.corrcoef(toy.rho, np.log(eccentricity))[0, 1] < -0.8


@pytest.mark.parametrize("ascii_only", [False, True])
def test_the_toy_networks_picture_fits_a_terminal(ascii_only: bool) -> None:
    picture = render(compute(), ascii_only=ascii_only)
    assert max(map(len, picture.splitlines())) <= 80
    assert picture.isascii() == ascii_only


def test_the_commands_of_the_samples_tell_the_chain_from_its_twin() -> None:
    """As samples/README.md has it: infinite, of what ReLU leaves 6.5 to 9.5, against 3.6 to 4.4."""
    reports = {
        residual: inspect(
            str(SAMPLES / f"digits_{'residual' if residual else 'chain'}.pt"),
            model="samples.make_samples:Mlp",
            model_args=json.dumps({"residual": residual}),
        )
        for residual in (False, True)
    }
    assert not reports[False].blocks
    chain = [result.maps["chain"] for result in reports[False] if result.layer.name != "head"]
    assert {spectrum.condition_number_status for spectrum in chain} == {"infinite"}
    left = [spectrum.pseudo_condition_number or 0.0 for spectrum in chain]
    assert (round(min(left), 1), round(max(left), 1)) == (6.5, 9.5)
    twin = [block.skip.condition_number or 0.0 for block in reports[True].blocks if block.skip is not None]
    assert len(twin) == 8
    assert (round(min(twin), 1), round(max(twin), 1)) == (3.6, 4.4)
