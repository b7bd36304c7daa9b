"""The whole way from a source to a report, against what the torch modules themselves would use."""

from __future__ import annotations

import json
import math
import pickle
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils import parametrizations

import specinspect
from specinspect import engine
from specinspect.engine import Progress
from specinspect.errors import LayerError, ResourceError, SettingsError
from specinspect.layers.rules import Rule
from specinspect.report.model import LayerResult, Report
from specinspect.settings import Settings


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def layer(report: Report, name: str) -> LayerResult:
    return next(result for result in report if result.layer.name == name)


def assert_spectrum(result: LayerResult, matrix: Any) -> None:
    """Compare with numpy's float64 decomposition of the matrix that the module would apply."""
    truth = np.linalg.svd(matrix.detach().double().numpy(), compute_uv=False)
    values = result.maps["weight"].singular_values
    assert values is not None
    assert values.shape == truth.shape
    assert np.abs(values - truth).max() <= 1e-7 * truth[0]


def inspect(source: object, **settings: object) -> Report:
    return specinspect.inspect(source, spectra=True, device="cpu", **settings)  # type: ignore[arg-type]


def test_linear_and_embedding() -> None:
    module: Any = nn.ModuleDict({"emb": nn.Embedding(50, 12), "fc": nn.Linear(12, 7)})
    for source in (module, module.state_dict()):
        report = inspect(source)
        assert [r.layer.name for r in report] == ["emb", "fc"]
        assert [r.layer.kind for r in report] == ["embedding", "linear"]
        assert [r.layer.matrix_shape for r in report] == [(12, 50), (7, 12)]
        assert_spectrum(layer(report, "emb"), module["emb"].weight)
        assert_spectrum(layer(report, "fc"), module["fc"].weight)


@pytest.mark.parametrize(
    ("make", "mode"),
    [(nn.LSTM, "ifgo"), (nn.GRU, "rzn"), (nn.RNN, None)],
)
def test_each_gate_of_a_recurrent_layer_is_its_own_map(make: Any, mode: str | None) -> None:
    module: Any = nn.ModuleDict({"rnn": make(5, 6, num_layers=2, bidirectional=True)})
    report = inspect(module.state_dict())
    gates = len(mode or "x")
    assert len(report.layers) == 2 * 2 * 2 * gates
    for name, weight in module["rnn"].named_parameters():
        if name.startswith("weight"):
            for number, block in enumerate(weight.chunk(gates)):
                suffix = f".{mode[number]}" if mode else ""
                assert_spectrum(layer(report, f"rnn.{name}{suffix}"), block)


def test_packed_attention_is_split() -> None:
    module: Any = nn.ModuleDict({"attn": nn.MultiheadAttention(8, 2)})
    report = inspect(module.state_dict())
    packed = module["attn"].in_proj_weight
    for part, block in zip("qkv", packed.chunk(3), strict=True):
        result = next(r for r in report if r.layer.name.endswith(f".{part}"))
        assert_spectrum(result, block)
    assert_spectrum(layer(report, "attn.out_proj"), module["attn"].out_proj.weight)


def test_gpt2_convolution_is_a_transposed_linear_layer() -> None:
    state = {
        "h.0.attn.c_attn.weight": torch.randn(8, 24),
        "h.0.attn.c_attn.bias": torch.randn(24),
        "h.0.mlp.c_fc.weight": torch.randn(8, 32),
        "h.0.mlp.c_fc.bias": torch.randn(32),
    }
    report = inspect(state)
    for number, part in enumerate("qkv"):
        block = state["h.0.attn.c_attn.weight"].T[8 * number : 8 * (number + 1)]
        result = layer(report, f"h.0.attn.c_attn.{part}")
        assert_spectrum(result, block)
    assert layer(report, "h.0.mlp.c_fc").layer.matrix_shape == (32, 8)


def test_weight_and_spectral_norm_are_recomposed() -> None:
    with pytest.warns(FutureWarning):
        old_weight_norm = nn.utils.weight_norm(nn.Linear(6, 5))
    old_spectral_norm = nn.utils.spectral_norm(nn.Linear(6, 5))
    modules: Any = nn.ModuleDict(
        {
            "a": old_weight_norm,
            "b": old_spectral_norm,
            "c": parametrizations.weight_norm(nn.Linear(6, 5)),
            "d": parametrizations.spectral_norm(nn.Linear(6, 5)),
            "e": parametrizations.weight_norm(nn.Linear(6, 5), dim=1),
        }
    )
    for module in modules.values():
        if hasattr(module, "weight_g"):
            module.weight_g.data.mul_(torch.rand(5, 1) + 0.5)
        module(torch.randn(3, 6))  # a power iteration: u and v move
    modules.eval()
    for module in modules.values():
        module(torch.randn(3, 6))  # old style: weight is recomputed by the hook
    report = inspect(modules.state_dict())
    assert [r.layer.name for r in report] == list("abcde")
    for name, module in modules.items():
        assert_spectrum(layer(report, name), module.weight)


def test_adapter_is_the_product_of_its_factors() -> None:
    state = {
        "q.lora_A.weight": torch.randn(2, 10),
        "q.lora_B.weight": torch.randn(6, 2),
    }
    report = inspect(state)
    assert_spectrum(report.layers[0], state["q.lora_B.weight"] @ state["q.lora_A.weight"])
    assert report.layers[0].layer.kind == "lora"
    assert report.layers[0].maps["weight"].condition_number_status == "infinite"


def test_scaled_adapters_read_their_scale() -> None:
    state = {
        "unet.lora_down.weight": torch.randn(4, 10),
        "unet.lora_up.weight": torch.randn(6, 4),
        "unet.alpha": torch.tensor(2.0),
        "conv.lora_down.weight": torch.randn(2, 3, 3, 3),
        "conv.lora_up.weight": torch.randn(5, 2, 1, 1),
        "conv.alpha": torch.tensor(1.0),
    }
    report = inspect(state, grid=4)
    linear, conv = report.layers
    assert_spectrum(linear, 0.5 * state["unet.lora_up.weight"] @ state["unet.lora_down.weight"])
    kernel = 0.5 * torch.einsum(
        "or,rikl->oikl", state["conv.lora_up.weight"][:, :, 0, 0], state["conv.lora_down.weight"]
    )
    direct = inspect({"conv.weight": kernel}, grid=4).layers[0]
    assert conv.maps["weight"].sigma_max == pytest.approx(direct.maps["weight"].sigma_max, rel=1e-6)


def test_module_facts_decide_the_geometry() -> None:
    from tests.spectra.test_convolution import dense_operator

    module: Any = nn.Sequential(
        nn.Conv2d(4, 6, 3, stride=2, groups=2),
        nn.ReLU(),
        nn.Conv1d(3, 3, 3, dilation=2),
        nn.ConvTranspose2d(3, 2, 3),
    )
    report = inspect(module, grid=8)
    strided, dilated, transposed = report.layers
    for result, grid in ((strided, (8, 8)), (dilated, (8,))):
        conv = module[int(result.layer.name)]
        kernel = conv.weight.detach().double()
        truth = np.linalg.svd(
            dense_operator(kernel, grid, conv.stride, conv.dilation, conv.groups), compute_uv=False
        )
        values = result.maps["weight"].singular_values
        assert values is not None
        assert np.abs(values - truth).max() <= 1e-7 * truth[0]
        assert result.layer.conv is not None
        assert result.layer.conv.stride.source == "model"
    assert transposed.layer.kind == "conv_transpose2d"
    assert transposed.layer.matrix_shape == (2, 3)


def test_one_bad_layer_leaves_the_others_alone() -> None:
    state = {"a.weight": torch.eye(4), "b.weight": torch.eye(4), "c.weight": torch.zeros(4, 4)}
    state["b.weight"][1, 2] = math.nan
    report = inspect(state)
    assert [r.maps["weight"].condition_number_status for r in report] == [
        "resolved",
        "nonfinite_weights",
        "infinite",
    ]
    assert [(f.rule, f.layer) for f in report.findings] == [("nonfinite_weights", "b"), ("zero_matrix", "c")]
    assert report.summary.nonfinite == 1
    assert report.summary.worst_condition_number is not None
    assert report.summary.worst_condition_number.layer == "a"


def test_every_tensor_is_accounted_for() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    report = inspect(module)
    used = {name for r in report for name in r.layer.parameters}
    skipped = {s.name for s in report.skipped}
    assert used | skipped == set(module.state_dict())
    assert not used & skipped
    assert (report.summary.analysed_tensors, report.summary.tensors) == (2, 9)


@settings(max_examples=25, deadline=None)
@given(
    shapes=st.lists(st.tuples(st.integers(1, 12), st.integers(1, 12)), min_size=1, max_size=12),
    jobs=st.integers(1, 3),
)
def test_results_keep_checkpoint_order_whatever_finishes_first(
    shapes: list[tuple[int, int]], jobs: int
) -> None:
    state = {f"layer{i}.weight": torch.randn(shape) for i, shape in enumerate(shapes)}
    report = inspect(state, jobs=jobs)
    assert [r.layer.name for r in report] == [f"layer{i}" for i in range(len(shapes))]
    for result, weight in zip(report, state.values(), strict=True):
        assert_spectrum(result, weight)


def test_iter_layers_streams_and_tells_its_progress() -> None:
    state = {f"layer{i}.weight": torch.randn(4 + i, 80) for i in range(5)}
    seen: list[Progress] = []
    results = list(specinspect.iter_layers(state, progress=seen.append, jobs=1))
    assert {r.layer.name for r in results} == {f"layer{i}" for i in range(5)}
    assert [p.done for p in seen] == sorted(p.done for p in seen)
    assert seen[-1].done == 5
    assert seen[-1].fraction == pytest.approx(1.0)


def test_any_executor_will_do() -> None:
    state = {"a.weight": torch.randn(5, 5), "b.weight": torch.randn(3, 5)}
    with ThreadPoolExecutor(1) as pool:
        report = inspect(state, executor=pool)
    assert len(report.layers) == 2


def test_a_job_is_plain_data(tmp_path: Path) -> None:
    """Everything a worker is given survives pickling, so that jobs can go to other processes."""
    from specinspect.engine import Job, open_source, run_job
    from specinspect.settings import Settings
    from specinspect.spectra.plan import Plan

    weight = torch.randn(6, 4)
    torch.save({"a.weight": weight}, tmp_path / "model.pt")
    opened = open_source(tmp_path / "model.pt", Settings())
    tensors = dict(opened.checkpoint.tensors)
    job = Job(opened.discovery.layers, tensors, Settings(spectra=True), plan=Plan("cpu"))
    (result,) = pickle.loads(pickle.dumps(run_job(pickle.loads(pickle.dumps(job)))))
    assert_spectrum(result, weight)


def test_selection() -> None:
    state = {f"{name}.weight": torch.eye(2) for name in ("enc.a", "enc.b", "dec.a")}
    assert [r.layer.name for r in inspect(state, layers=["enc.*"])] == ["enc.a", "enc.b"]
    assert [r.layer.name for r in inspect(state, layers=["*.a"], exclude=["dec*"])] == ["enc.a"]
    with pytest.raises(LayerError):
        inspect(state, layers=["nothing"])


def test_bad_settings_are_refused() -> None:
    state = {"a.weight": torch.eye(2)}
    with pytest.raises(SettingsError, match="unknown setting 'gird'"):
        specinspect.inspect(state, gird=3)
    with pytest.raises(SettingsError, match="--grid"):
        specinspect.inspect(state, grid=0)
    with pytest.raises(SettingsError, match="--device"):
        specinspect.inspect(state, device="tpu")
    with pytest.raises(SettingsError, match="expected a path"):
        specinspect.inspect(3)  # type: ignore[arg-type]
    if not torch.cuda.is_available():
        with pytest.raises(ResourceError, match="found 0"):
            specinspect.inspect(state, device="cuda:7")


def test_a_device_without_float64_falls_back_and_says_so() -> None:
    report = specinspect.inspect({"a.weight": torch.eye(2)}, device="mps")
    assert report.layers[0].maps["weight"].device == "cpu"
    assert any("float64" in sentence for sentence in report.checkpoint.assumptions)


def test_out_of_device_memory_falls_back_to_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    from specinspect.spectra import compute
    from specinspect.spectra.plan import Plan

    real = compute.measure

    def measure(maps: object, plan: Plan, **kwargs: object) -> object:
        if plan.device != "cpu":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(maps, plan, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(compute, "measure", measure)
    monkeypatch.setattr("specinspect.engine.run.choose_plan", lambda device: Plan("cuda:0"))
    monkeypatch.setattr(Plan, "batch_bytes", lambda self: 1 << 20)
    report = specinspect.inspect({"a.weight": torch.eye(2)})
    assert report.layers[0].maps["weight"].device == "cpu"
    assert report.layers[0].notes == ("computed on the CPU: cuda:0 ran out of memory",)


def test_too_little_memory_is_said_before_anything_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("specinspect.engine.jobs.available_memory", lambda: 1000)
    with pytest.raises(ResourceError, match=r"layer 'a' \(64×64\) needs about"):
        specinspect.inspect({"a.weight": torch.eye(64)}, device="cpu")


def test_the_threads_of_the_caller_come_back() -> None:
    before = torch.get_num_threads()
    inspect({"a.weight": torch.eye(2)})
    assert torch.get_num_threads() == before


def test_json_has_no_nan(tmp_path: Path) -> None:
    state = {"a.weight": torch.full((2, 2), math.inf), "b.weight": torch.zeros(2, 2)}
    torch.save(state, tmp_path / "m.pt")

    def refuse(token: str) -> None:
        raise AssertionError(token)

    data = json.loads(specinspect.inspect(tmp_path / "m.pt").to_json(), parse_constant=refuse)
    assert data["layers"][0]["maps"]["weight"]["sigma_max"] is None
    assert data["layers"][0]["maps"]["weight"]["condition_number_status"] == "nonfinite_weights"


def test_unreadable_tensors_are_counted_and_named() -> None:
    state = {"a.weight": torch.eye(3), "b.weight": torch.empty(3, 3, device="meta")}
    report = inspect(state)
    assert (report.summary.analysed_tensors, report.summary.tensors) == (1, 2)
    assert [s.name for s in report.skipped] == ["b.weight"]
    with pytest.raises(LayerError, match="1 tensor: on the meta device"):
        inspect({"b.weight": torch.empty(3, 3, device="meta")})


def test_colliding_keys_lose_nothing_silently(tmp_path: Path) -> None:
    torch.save({1: torch.eye(3), "1": torch.eye(4)}, tmp_path / "m.pt")
    report = inspect(tmp_path / "m.pt")
    assert report.summary.tensors == 2
    assert [s.reason for s in report.skipped] == ["another tensor has the same name"]


def test_views_of_one_storage_count_once(tmp_path: Path) -> None:
    weight = torch.randn(4, 6)
    torch.save({"a.weight": weight, "b.weight": weight.T}, tmp_path / "m.pt")
    for source in (tmp_path / "m.pt", {"a.weight": weight, "b.weight": weight.T}):
        assert inspect(source).checkpoint.parameters == 24


def test_the_convolution_of_a_state_space_block_is_depthwise() -> None:
    state = {
        "mixer.A_log": torch.randn(16, 4),
        "mixer.conv1d.weight": torch.randn(16, 1, 4),
        "mixer.conv1d.bias": torch.randn(16),
        "mixer.in_proj.weight": torch.randn(32, 8),
    }
    conv = layer(inspect(state), "mixer.conv1d").layer.conv
    assert conv is not None
    assert conv.groups.value == 16


@pytest.mark.parametrize("scale", [1e-100, 1e100, 1e160])
def test_adapters_at_extreme_scales(scale: float) -> None:
    b, a = torch.randn(6, 2, dtype=torch.float64), torch.randn(2, 8, dtype=torch.float64)
    found = inspect({"q.lora_A.weight": a * scale, "q.lora_B.weight": b * 1e-100}).layers[0].maps["weight"]
    truth = np.linalg.svd((b @ a).numpy(), compute_uv=False)
    assert found.pseudo_condition_number == pytest.approx(truth[0] / truth[1], rel=1e-9)
    assert found.sigma_max == pytest.approx(truth[0] * scale * 1e-100)


@pytest.mark.parametrize(
    "bad", [{"grid": "x"}, {"grid": 2.5}, {"exclude": 5}, {"device": torch.device("cpu")}, {"jobs": True}]
)
def test_settings_of_the_wrong_type(bad: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match="expected"):
        specinspect.inspect({"a.weight": torch.eye(2)}, **bad)


def test_a_grid_that_is_too_fine_is_refused() -> None:
    with pytest.raises(ResourceError, match="too fine"):
        inspect({"c.weight": torch.randn(2, 2, 3, 3)}, grid=2000)


def test_the_curve_along_beta_on_request() -> None:
    weight = torch.randn(12, 12, dtype=torch.float64)
    assert inspect({"a.weight": weight}).layers[0].skip_curve is None
    curve = inspect({"a.weight": weight}, curve=True, rho=0.5).layers[0].skip_curve
    assert curve is not None
    assert (len(curve.beta), curve.beta[0], curve.beta[-1]) == (33, 0.0, 2.0)
    for beta, high, low in zip(curve.beta, curve.sigma_max, curve.sigma_min, strict=True):
        truth = np.linalg.svd(0.5 * np.eye(12) + beta * weight.numpy(), compute_uv=False)
        assert (high, low) == (pytest.approx(truth[0], rel=1e-6), pytest.approx(truth[-1], rel=1e-6))


def test_blocks_and_composed_chains() -> None:
    state = {
        "layers.0.mlp.gate_proj.weight": torch.randn(12, 6),
        "layers.0.mlp.up_proj.weight": torch.randn(12, 6),
        "layers.0.mlp.down_proj.weight": torch.randn(6, 12),
        "a.weight": torch.randn(5, 4),
        "b.weight": torch.randn(4, 5),
    }
    report = inspect(state, compose=["a:b"], activation="identity")
    assert [(b.block.name, b.block.kind) for b in report.blocks][-1][1] == "composed"
    composed = report.blocks[-1]
    truth = np.linalg.svd((state["b.weight"] @ state["a.weight"]).double().numpy(), compute_uv=False)
    assert composed.chain is not None
    assert composed.chain.singular_values is not None
    assert np.abs(composed.chain.singular_values - truth).max() <= 1e-7 * truth[0]
    assert "blocks" in report.to_dict()
    assert inspect(state, blocks=False).blocks == ()
    with pytest.raises(LayerError):
        inspect(state, compose=["a:nothing"])
    with pytest.raises(LayerError):
        inspect(state, compose=["a:a"])


def test_a_zero_padded_convolution() -> None:
    kernel = torch.randn(3, 3, 3, 3, dtype=torch.float64)
    report = inspect({"c.weight": kernel}, grid=5, conv_operator="padded", activation="identity")
    images = torch.eye(75, dtype=torch.float64).reshape(-1, 3, 5, 5)
    dense = torch.nn.functional.conv2d(images, kernel, padding=1).flatten(1).T
    result = report.layers[0]
    assert_spectrum(result, dense)
    assert result.boundary == "zeros"
    skip = result.maps["skip"].singular_values
    assert skip is not None
    truth = np.linalg.svd(np.eye(75) + dense.numpy(), compute_uv=False)
    assert np.abs(skip - truth).max() <= 1e-7 * truth[0]


def test_what_the_periodic_grid_says_of_the_padded_layer() -> None:
    kernel = torch.randn(3, 3, 3, 3, dtype=torch.float64)
    result = inspect({"c.weight": kernel}, grid=5, activation="identity").layers[0]
    images = torch.eye(75, dtype=torch.float64).reshape(-1, 3, 5, 5)
    dense = torch.nn.functional.conv2d(images, kernel, padding=1).flatten(1).T.numpy()
    bounds = result.padding_bounds
    assert bounds is not None
    top = np.linalg.norm(dense, 2)
    assert bounds.sigma_max_upper is not None
    assert top <= bounds.sigma_max_upper * (1 + 1e-9)
    assert bounds.tau_min is not None
    assert np.linalg.eigvalsh(dense + dense.T)[0] >= bounds.tau_min - 1e-9
    assert result.boundary == "circular"
    assert "padding_bounds" in inspect({"c.weight": kernel}, grid=5).to_dict()["layers"][0]


class OneConvolution(nn.Module):
    def __init__(self, **geometry: Any) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, **geometry)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.conv(x))


@pytest.mark.parametrize("padding", [0, 1, 3])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_padding_beside_which_no_identity_fits_is_said(padding: int, stride: int) -> None:
    """Torch's own outputs say whether there is one for every stride of the input."""
    module = OneConvolution(padding=padding, stride=stride)
    places = module.conv(torch.zeros(1, 2, 6, 6)).shape[2:]
    fits = places == (6 // stride, 6 // stride)
    (padded,) = specinspect.inspect(module, grid=6, conv_operator="padded")
    assert (
        "6×6 grid with zeros around it: the input size is not stored in the checkpoint" in padded.assumptions
    )
    size = "×".join(map(str, places))
    note = f"no skip map: with its own zeros 6×6 places become {size}, beside which no identity fits"
    assert (note in padded.notes) == ("skip" not in padded.maps) == (not fits)
    (periodic,) = specinspect.inspect(module, grid=6)
    assert "skip" in periodic.maps
    told = [sentence for sentence in periodic.assumptions if "does not keep the size" in sentence]
    aligned = f"with a padding of {padding}×{padding} it does not keep the size of images: "
    assert told == ([] if fits else [aligned + "the skip map joins their corners"])


def test_a_skip_beside_groups_that_are_not_square_is_said_to_be_missing() -> None:
    module = nn.Conv2d(4, 8, 3, padding=1, groups=2)
    rules = (Rule("*", skip="rectangular-identity"),)
    (found,) = specinspect.inspect(module, grid=4, conv_operator="padded", rules=rules)
    assert "skip" not in found.maps
    assert "no skip map: its groups have other numbers of inputs than of outputs" in found.notes


def test_a_smallest_singular_value_out_of_reach_is_said() -> None:
    weight = torch.randn(2, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    state = {"conv.weight": weight}
    (found,) = specinspect.inspect(state, grid=50, conv_operator="padded", maps=("weight",))
    spectrum = found.maps["weight"]
    assert spectrum.sigma_min is None
    (note,) = [note for note in found.notes if "out of reach" in note]
    bound = f"weight (at most {spectrum.computation_floor:.1e})"
    assert (
        note
        == f"smallest singular value of {bound} out of reach of the iterative solver: no condition number"
    )


def test_other_borders_than_zeros_are_said_beside_zeros() -> None:
    module = OneConvolution(padding=1, padding_mode="reflect")
    (found,) = specinspect.inspect(module, grid=6, conv_operator="padded")
    assert "padded by reflect in the network, by zeros here" in found.assumptions


@pytest.mark.parametrize("pattern", ["channel", "pixel"])
def test_no_study_takes_a_periodic_layer_for_one_with_zeros_around_it(pattern: str) -> None:
    state = {"a.weight": torch.randn(3, 3, 3, 3), "b.weight": torch.randn(3, 3)}
    chosen = Settings(conv_operator="padded", conv_pattern=pattern, grid=4, activation="relu")
    inspection = engine.open_source(state, chosen)
    first, second = engine.report(inspection)
    assert engine.study_layer(inspection, first.layer, first.maps["weight"]) is None
    assert engine.study_layer(inspection, second.layer, second.maps["weight"]) is not None


def test_a_pattern_for_every_pixel() -> None:
    kernel = torch.randn(2, 2, 3, 3, dtype=torch.float64)
    state = {"c.weight": kernel, "last.weight": torch.randn(2, 2)}
    report = inspect(state, grid=4, conv_operator="padded", conv_pattern="pixel", patterns=3)
    chain = report.layers[0].maps["chain"]
    assert chain.patterns is not None
    assert chain.patterns.n == 3
    assert 0.1 < (chain.patterns.active_fraction.median or 0) < 0.9
    with pytest.raises(SettingsError, match="no Fourier blocks"):
        inspect(state, conv_pattern="pixel")


def test_a_told_prelu_uses_the_stored_slopes() -> None:
    state = {
        "conv1.weight": torch.randn(4, 3, 3, 3),
        "prelu1.weight": torch.rand(4),
        "conv2.weight": torch.randn(4, 4, 3, 3),
    }
    found = inspect(state, activation="prelu", grid=4).layers
    assert found[0].layer.activation.parameter == "prelu1.weight"
    assert any("0.25" in sentence for sentence in found[1].assumptions)
    assert not any("0.25" in sentence for sentence in found[0].assumptions)


def test_a_block_on_a_smaller_grid_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("specinspect.spectra.blocks.cost.MOST_OPERATIONS", 1e5)
    state = {"a.weight": torch.randn(4, 4, 3, 3), "b.weight": torch.randn(4, 4, 3, 3)}
    block = inspect(state, compose=["a:b"], grid=16).blocks[-1]
    assert block.grid is not None
    assert block.grid[0] < 16
    assert any("16" in sentence and "grid" in sentence for sentence in block.assumptions)


def test_a_composed_chain_keeps_its_activations_beside_weights_alone() -> None:
    state = {"a.weight": torch.randn(5, 5), "b.weight": torch.randn(5, 5), "c.weight": torch.randn(5, 5)}
    alone = inspect(state, compose=["a:b"], maps=("weight",)).blocks[-1]
    beside = inspect(state, compose=["a:b"]).blocks[-1]
    assert alone.chain is not None
    assert beside.chain is not None
    assert alone.chain.sigma_max == beside.chain.sigma_max


def test_a_skip_map_alone_samples_no_pattern(monkeypatch: pytest.MonkeyPatch) -> None:
    state = {"fc.weight": torch.randn(6, 6, generator=torch.Generator().manual_seed(3))}
    (whole,) = specinspect.inspect(state)

    def never(*_: object, **__: object) -> None:
        raise AssertionError("a pattern")

    monkeypatch.setattr("specinspect.engine.layers.activated", never)
    (alone,) = specinspect.inspect(state, maps=("weight", "skip"))
    assert set(alone.maps) == {"weight", "skip"}
    assert alone.maps["skip"].condition_number == whole.maps["skip"].condition_number
    assert alone.tau == whole.tau


HUGE = 1.7e308


@pytest.mark.parametrize(
    "options", [{}, {"maps": ("weight",)}, {"maps": ("weight",), "quantities": "sigma_max"}]
)
def test_singular_values_beyond_float64_cost_no_other_layer_its_numbers(options: dict[str, Any]) -> None:
    small = torch.randn(3, 3, dtype=torch.float64)
    state = {"w.weight": torch.full((3, 3), HUGE, dtype=torch.float64), "v.weight": small}  # σmax = 3·1.7e308
    report = specinspect.inspect(state, **options)
    bad, good = report.layers
    names = {"weight"} if "maps" in options else {"weight", "chain", "skip", "skip_chain"}
    assert set(bad.maps) == names
    for spectrum in bad.maps.values():
        assert (spectrum.condition_number_status, spectrum.sigma_max, spectrum.count) == (
            "beyond_float64",
            None,
            3,
        )
    truth = np.linalg.svd(small.numpy(), compute_uv=False)[0]
    assert good.maps["weight"].sigma_max == pytest.approx(truth, rel=1e-6)
    assert [(f.rule, f.severity, f.layer) for f in report.findings] == [("beyond_float64", "error", "w")]
    assert "beyond 1.8e308" in report.findings[0].message
    json.loads(report.to_json(), parse_constant=pytest.fail)


def test_singular_values_that_float64_can_hold_are_given_whatever_their_sum() -> None:
    values = np.array([1.7e308, 1.6e308, 1e307])
    (only,) = specinspect.inspect({"w.weight": torch.from_numpy(np.diag(values))}, maps=("weight",))
    spectrum = only.maps["weight"]
    assert (spectrum.sigma_max, spectrum.sigma_min) == pytest.approx((1.7e308, 1e307), rel=1e-12)
    assert spectrum.condition_number == pytest.approx(17, rel=1e-12)
    p = values / 1e308 / (values / 1e308).sum()
    assert spectrum.effective_rank == pytest.approx(math.exp(-(p * np.log(p)).sum()))
    assert spectrum.histogram is not None
    assert sum(spectrum.histogram.counts) == 3
    assert math.isfinite(spectrum.histogram.edges[-1])


def test_a_skip_map_beyond_float64_leaves_the_weight_its_numbers() -> None:
    state = {"w.weight": torch.full((3, 3), 1e300, dtype=torch.float64)}
    (only,) = specinspect.inspect(state, beta=1e50)
    assert only.maps["weight"].sigma_max == pytest.approx(3e300)
    assert only.maps["skip"].condition_number_status == "beyond_float64"


@pytest.mark.parametrize("alone", [True, False])
def test_a_solver_that_fails_costs_no_other_layer_its_numbers(
    alone: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    solve = torch.linalg.eigvalsh

    def failing(matrices: torch.Tensor) -> torch.Tensor:
        if bool((matrices.abs().amax((-1, -2)) > 1e6).any()):
            raise torch.linalg.LinAlgError("linalg.eigh: did not converge")  # type: ignore[attr-defined]
        return solve(matrices)

    monkeypatch.setattr(torch.linalg, "eigvalsh", failing)
    shape = (4, 5) if alone else (3, 3)
    state = {"bad.weight": 1e6 * torch.randn(3, 3), "good.weight": torch.randn(shape)}
    report = specinspect.inspect(state)
    bad, good = report.layers
    assert {s.condition_number_status for s in bad.maps.values()} == {"not_converged"}
    assert "did not converge" in bad.notes[-1]
    assert good.maps["weight"].sigma_max == pytest.approx(
        np.linalg.svd(state["good.weight"].numpy())[1][0], rel=1e-6
    )
    assert {f.rule for f in report.findings} == {"not_converged"}


def test_every_format_tells_a_failed_layer(tmp_path: Path) -> None:
    from specinspect.cli.app import run

    path = tmp_path / "x.safetensors"
    save_file({"w.weight": torch.full((3, 3), HUGE, dtype=torch.float64), "v.weight": torch.eye(3)}, path)
    for form in ("table", "json", "csv", "markdown", "html"):
        assert run(["report", str(path), "--format", form, "-o", str(tmp_path / "out"), "--curve"]) == 0
        text = (tmp_path / "out").read_text(encoding="utf-8")
        assert "1.8e308" in text or form == "csv"
        assert ("beyond_float64" in text) == (form in {"json", "csv"})
    assert run(["compare", str(path), str(path)]) == 0


def test_a_long_run_says_so_before_it_begins() -> None:
    from specinspect.engine import open_source
    from specinspect.settings import Settings

    state = {"a.weight": torch.ones(16, 16, 3, 3), "b.weight": torch.ones(16, 16, 3, 3)}
    state |= {"wide.weight": torch.ones(64, 64, 3, 3), "fc.weight": torch.ones(4, 4)}

    def said(**settings: Any) -> list[str]:
        notices = open_source(state, Settings(**settings)).notices
        return [sentence for sentence in notices if "--conv-operator" in sentence]

    # 16·16² = 4096 columns twice; 64·16² are more, of which only the extremes are iterated.
    assert said(conv_operator="padded") == [
        "--conv-operator padded: 2 layers are dense matrices of 2,048 to 4,096 columns, which takes minutes; "
        "a smaller --grid is quicker, and so are fewer --layers or --patterns"
    ]
    assert "1 layer is a dense matrix of" in said(conv_operator="padded", exclude=["a"])[0]
    assert said(conv_operator="padded", grid=8, exclude=["wide"]) == []
    assert said(conv_operator="circular") == []
    assert said(conv_operator="padded", grid=4000) == []  # too fine: the layer itself says so


def test_blocks_tell_their_progress() -> None:
    state = {f"hidden.{i}.weight": torch.eye(4) for i in range(3)}
    seen: list[Progress] = []
    compose = ["hidden.0:hidden.1", "hidden.1:hidden.2"]
    inspect(state, progress=seen.append, jobs=1, compose=compose)
    of_blocks = [p for p in seen if p.blocks]
    assert [(p.done, p.blocks) for p in of_blocks] == [(0, 2), (1, 2), (2, 2)]
    assert of_blocks[-1].fraction == pytest.approx(1.0)
    assert seen.index(of_blocks[0]) == len(seen) - 3


def test_what_would_be_quicker_goes_by_the_estimated_work() -> None:
    from specinspect.engine import open_source
    from specinspect.engine.effort import quicker
    from specinspect.settings import Settings

    def said(state: dict[str, torch.Tensor], **settings: Any) -> str:
        chosen = Settings(**settings)
        return quicker(open_source(state, chosen).discovery.layers, chosen)

    wide = {f"layer4.{i}.conv{j}.weight": torch.ones(32, 32, 3, 3) for i in range(2) for j in (1, 2)}
    assert said(wide) == (
        "--maps weight is some 12 times quicker, --patterns 2 is some 2 times quicker, "
        "--grid 8 is some 4 times quicker"
    )
    assert said(wide, maps=("weight",)) == "--grid 8 is some 4 times quicker"
    assert said({"token_embedding.weight": torch.ones(64, 8)}) == ""


def test_operators_of_the_same_size_go_side_by_side_where_memory_allows() -> None:
    from specinspect.engine import room_beside
    from specinspect.schedule import FREE_BYTES, Cost, run
    from specinspect.settings import Settings
    from specinspect.spectra.plan import available_memory

    assert room_beside(Settings()) == FREE_BYTES
    free = available_memory()
    assert room_beside(Settings(conv_operator="padded")) >= (free or 0) // 8
    costs = [Cost(FREE_BYTES, 1.0)] * 3

    def threads(_: int) -> int:
        return torch.get_num_threads()

    for room, expected in ((FREE_BYTES, 2), (2 * FREE_BYTES, 1)):
        found = run(range(3), costs, threads, workers=2, room=room)
        assert [count for _, count in found] == [expected] * 3


@pytest.mark.parametrize(("inputs", "outputs", "groups"), [(4, 2, 1), (3, 3, 1), (4, 2, 2)])
def test_d_of_a_transposed_convolution_stands_behind_it(inputs: int, outputs: int, groups: int) -> None:
    """D has an entry for each output; on the periodic grid none is given rather than one of the inputs."""
    torch.manual_seed(0)
    layer = torch.nn.ConvTranspose2d(inputs, outputs, 3, stride=2, padding=1, output_padding=1, groups=groups)
    norm = torch.nn.BatchNorm2d(outputs)
    torch.nn.init.uniform_(norm.weight, 0.2, 3.0)
    model = torch.nn.Sequential(layer, norm, Magnitude(), torch.nn.Conv2d(outputs, 1, 1)).eval()
    asked: dict[str, Any] = {"grid": 6, "patterns": 1, "cache": False, "spectra": True}
    for how in ("circular", "padded"):
        first = specinspect.inspect(model, conv_operator=how, **asked).layers[0]
        assert {"chain", "skip_chain"}.isdisjoint(first.maps)
        assert any("behind a transposed convolution" in note for note in first.notes)
    first = specinspect.inspect(model, conv_operator="padded", conv_pattern="pixel", **asked).layers[0]
    images = torch.eye(inputs * 9, dtype=torch.float64).reshape(-1, inputs, 3, 3)
    model, layer.bias = model.double(), None
    with torch.no_grad():
        # |z| has slopes of ±1, which change no singular value: what is left of D is the norm's scale.
        matrix = model[1](model[0](images)).sub(model[1](model[0](images * 0))).flatten(1).T.numpy()
    truth = np.linalg.svd(matrix, compute_uv=False)
    found = first.maps["chain"].singular_values
    assert found is not None
    assert np.abs(found - truth).max() <= 1e-7 * truth[0]


class Magnitude(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.abs()


@pytest.mark.parametrize("kernel", [2, 3, 4])
def test_same_padding_of_an_even_kernel_with_its_zeros(kernel: int) -> None:
    """Torch puts the odd zero on the high side; from the model, and from a rule."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(kernel)
        conv = torch.nn.Conv2d(2, 2, kernel, padding="same", bias=False)
    basis = torch.eye(2 * 36).reshape(-1, 2, 6, 6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that an even kernel needs a copy of its input
        written = conv(basis).detach().double().flatten(1).T.numpy()
    truth = np.linalg.svd(written, compute_uv=False)
    rules = (Rule("conv", padding="same"),)
    sources: tuple[tuple[Any, dict[str, Any]], ...]
    sources = ((torch.nn.Sequential(), {}), ({"conv.weight": conv.weight.detach()}, {"rules": rules}))
    sources[0][0].add_module("conv", conv)
    for source, more in sources:
        report = inspect(
            source,
            conv_operator="padded",
            grid=6,
            maps=("weight", "skip"),
            blocks=False,
            **more,
        )
        (layer,) = report
        assert layer.maps["weight"].singular_values == pytest.approx(truth, abs=1e-6)
        assert "skip" in layer.maps
        assert not any("places become" in sentence for sentence in layer.assumptions)
