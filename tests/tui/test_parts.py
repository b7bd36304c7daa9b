"""The parts of the app that need no screen."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.segment import Segment
from textual.color import Color

from specinspect.engine import Inspection, iter_layers, open_source, study_block, study_layer
from specinspect.errors import SettingsError
from specinspect.layers.blocks import Apply, Block, Shortcut
from specinspect.settings import Settings
from specinspect.tui.edits import rule_of, save
from specinspect.tui.events import PairDone
from specinspect.tui.export import free_name
from specinspect.tui.live import Rays, at_rho, between
from specinspect.tui.plain import AsciiFilter, one_for_one
from specinspect.tui.session import Session, guarantees
from specinspect.tui.tree import Tree
from specinspect.tui.work import EngineWork
from tests.tui.stub import inspection, spectrum_of


def test_opening_loads_neither_torch_nor_numpy_before_the_first_screen() -> None:
    code = (
        "import sys, specinspect.engine, specinspect.tui.app\n"
        "from specinspect.settings import Settings\n"
        "found = specinspect.engine.open_source('samples/resnet_tiny.safetensors', Settings())\n"
        "specinspect.tui.app.Inspector(found)\n"
        "print([name for name in ('torch', 'scipy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("pattern", [None, 1])
def test_a_study_agrees_with_numpy(pattern: int | None) -> None:
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(24, 24, generator=generator)
    opened = open_source({"fc.weight": weight, "fc.bias": torch.zeros(24)}, Settings(activation="relu"))
    (result,) = iter_layers({"fc.weight": weight}, maps=["weight"])
    study = study_layer(opened, opened.discovery.layers[0], result.maps["weight"])
    assert study is not None
    assert study.patterns == 8
    w = weight.double().numpy()
    if pattern is None:
        found = study.skip(0.5, -1.25)
        expected = 0.5 * np.eye(24) - 1.25 * w
    else:
        assert study._diagonals is not None
        d = study._diagonals[pattern].numpy()
        assert set(d) == {0.0, 1.0}
        found = study.skip_chain(0.5, -1.25, pattern)
        expected = 0.5 * np.eye(24) - 1.25 * d[:, None] * w
        chain = study.chain(pattern)
        truth = np.linalg.svd(d[:, None] * w, compute_uv=False)
        assert chain.singular_values == pytest.approx(truth, abs=1e-7)
        assert chain.condition_number_status == "infinite"
    assert found.singular_values == pytest.approx(np.linalg.svd(expected, compute_uv=False), abs=1e-9)
    curve = study.curve((0.0, 0.5, 2.0))
    assert curve is not None
    for beta, top, low in zip(curve.beta, curve.sigma_max, curve.sigma_min, strict=True):
        values = np.linalg.svd(np.eye(24) + beta * w, compute_uv=False)
        assert (top, low) == pytest.approx((values[0], values[-1]), rel=1e-6)


def _residual() -> tuple[Inspection, Block, np.ndarray]:
    """Return a residual block of two linear layers, and J."""
    rng = np.random.default_rng(3)
    up, down = rng.standard_normal((20, 6)), rng.standard_normal((6, 20)) / 20
    opened = open_source(
        {"a.weight": torch.from_numpy(up), "b.weight": torch.from_numpy(down)}, Settings(spectra=True)
    )
    shortcut = Shortcut("identity", "assumed")
    block = Block("res", "residual", (Apply("a"), Apply("b")), shortcut, "assumed")
    return replace(opened, blocks=(block,)), block, down @ up


def test_a_block_held_ready_agrees_with_numpy() -> None:
    opened, block, j = _residual()
    study = study_block(opened, block)
    assert study is not None
    for rho, beta in ((0.5, -1.25), (1.0, 0.3), (0.0, 2.0)):
        found = study.skip(rho, beta)
        assert found is not None
        truth = np.linalg.svd(rho * np.eye(6) + beta * j, compute_uv=False)
        assert found.singular_values == pytest.approx(truth, rel=1e-9)
    assert study_block(opened, replace(block, shortcut=Shortcut("none", "assumed"))) is None


def test_a_block_that_takes_too_long_is_not_held_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    opened, block, _ = _residual()
    monkeypatch.setattr("specinspect.engine.blocks.AFFORDABLE", 10.0)
    assert study_block(opened, block) is None


def test_all_maps_of_a_pair_agree_with_numpy_and_edits_hold_under_the_other_name(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    weights = {side: rng.standard_normal((7, 7)) for side in "ab"}
    for side, prefix in (("a", ""), ("b", "net.")):
        held = {f"{prefix}enc.fc.weight": weights[side], f"{prefix}enc.other.weight": np.eye(2)}
        torch.save({name: torch.from_numpy(value) for name, value in held.items()}, tmp_path / f"{side}.pt")
    settings = Settings(activation="relu", patterns=3)
    opened = open_source(str(tmp_path / "a.pt"), settings)
    work = EngineWork()
    second = work.second(opened, str(tmp_path / "b.pt"))
    index = [layer.name for layer in opened.discovery.layers].index("enc.fc")
    found = work.beside(opened, second, index, (0.5, -1.25), {}).run()
    assert isinstance(found, PairDone)
    assert found.scale == (0.5, -1.25)
    assert found.pair is not None
    for side, result in (("a", found.pair.a), ("b", found.pair.b)):
        truth = np.linalg.svd(0.5 * np.eye(7) - 1.25 * weights[side], compute_uv=False)
        assert result.maps["skip"].singular_values == pytest.approx(truth, rel=1e-7)
        assert result.maps["chain"].patterns is not None  # relu
    # the identity for D, on both sides: D·W is W
    edited = {"activation": "identity"}
    rules = (rule_of("enc.fc", edited),)
    told = work.told(opened, replace(settings, rules=rules))
    found = work.beside(told, second, index, (0.5, -1.25), edited).run()
    assert isinstance(found, PairDone)
    assert found.pair is not None
    for side, result in (("a", found.pair.a), ("b", found.pair.b)):
        truth = np.linalg.svd(weights[side], compute_uv=False)
        assert result.maps["chain"].patterns is None
        assert result.maps["chain"].singular_values == pytest.approx(truth, rel=1e-7)
    lost = work.beside(opened, replace(second, partners={}), index, (1.0, 1.0), {}).run()
    assert isinstance(lost, PairDone)
    assert (lost.pair, lost.reason) == (None, "the second checkpoint has no such layer")


def test_a_pair_has_the_assumed_activation_on_both_sides_as_numpy_has_it(tmp_path: Path) -> None:
    """No setting names the activation: ReLU is assumed, and D has zeros and ones on both sides."""
    rng = np.random.default_rng(6)
    weights = {side: rng.standard_normal((7, 7)) for side in "ab"}
    for side, weight in weights.items():
        held = {"first.weight": torch.from_numpy(weight), "last.weight": torch.eye(2, dtype=torch.float64)}
        torch.save(held, tmp_path / f"{side}.pt")
    opened = open_source(str(tmp_path / "a.pt"), Settings(patterns=1))
    work = EngineWork()
    second = work.second(opened, str(tmp_path / "b.pt"))
    weight_alone = second.tasks[0].run()
    assert isinstance(weight_alone, PairDone)
    assert weight_alone.pair is not None
    assert set(weight_alone.pair.b.maps) == {"weight"}
    edits: tuple[dict[str, str], ...] = ({}, {"skip": "identity"})
    for facts in edits:  # edited facts open the second checkpoint once more
        found = work.beside(opened, second, 0, (1.0, 1.0), facts).run()
        assert isinstance(found, PairDone)
        assert found.pair is not None
        for side, result in (("a", found.pair.a), ("b", found.pair.b)):
            assert result.layer.activation.name == "relu"
            chain = result.maps["chain"]
            every_d = [
                np.linalg.svd(np.array(d)[:, None] * weights[side], compute_uv=False)
                for d in itertools.product((0.0, 1.0), repeat=7)
                if 0 < sum(d) < 7
            ]
            wanted = chain.singular_values
            assert wanted is not None
            assert any(np.allclose(wanted, truth, rtol=0, atol=1e-6) for truth in every_d)


def test_interpolation_stays_within_what_weyl_allows() -> None:
    rng = np.random.default_rng(0)
    w = rng.standard_normal((12, 12))
    norm = np.linalg.svd(w, compute_uv=False)[0]

    def at(t: float) -> np.ndarray:
        return np.linalg.svd(np.eye(12) + t * w, compute_uv=False)

    rays = Rays()
    for t in (0.5, 1.0):
        rays.add(t, spectrum_of(at(t)))
    found = rays.at(2.0, 1.5)  # t = 0.75
    assert found is not None
    assert not found.exact
    assert found.spectrum is not None
    assert found.spectrum.singular_values is not None
    # each σ moves by at most |Δt|·‖W‖ from either end
    assert np.abs(found.spectrum.singular_values - 2 * at(0.75)).max() <= 2 * 0.25 * norm
    assert rays.at(2.0, 4.0) is None  # t = 2 is beyond what is known
    exact = rays.at(-3.0, -3.0)
    assert exact is not None
    assert exact.exact
    assert exact.sigma_max == pytest.approx(3 * at(1.0)[0])
    assert between(spectrum_of(at(1.0)), spectrum_of(at(1.0)[:5]), 0.5) is None


def test_a_curve_at_another_rho_is_that_of_the_scaled_map() -> None:
    rays = Rays()
    w = np.diag([1.0, -2.0, 0.25])
    for t in (0.0, 0.5, 1.0):
        rays.add(t, spectrum_of(np.linalg.svd(np.eye(3) + t * w, compute_uv=False)))
    curve = at_rho(rays.curve(), -2.0)
    assert curve is not None
    assert curve.beta == (-2.0, -1.0, 0.0)
    for beta, top in zip(curve.beta, curve.sigma_max, strict=True):
        assert top == pytest.approx(np.linalg.svd(-2 * np.eye(3) + beta * w, compute_uv=False)[0])


def test_guarantees_hold_along_the_curve() -> None:
    rng = np.random.default_rng(3)
    w = rng.standard_normal((16, 16)) * 0.1
    (result,) = iter_layers({"fc.weight": torch.from_numpy(w)})
    betas = (0.25, 0.5, 1.0)
    along, today = guarantees(result, 1.0, betas, 0.5)
    assert along.beta == betas
    for beta, bound in zip(along.beta, along.kappa, strict=True):
        values = np.linalg.svd(np.eye(16) + beta * w, compute_uv=False)
        assert bound is not None
        assert values[0] / values[-1] <= bound * (1 + 1e-9)
    assert today.kappa == (along.kappa[1],)


def test_tree_of_modules() -> None:
    tree = Tree(["enc.0.a.w", "enc.0.b", "enc.1.a.w", "enc.1.b", "head", "x" + ".y" * 5000])
    lines = tree.lines(())
    assert [(line.depth, line.label, line.index) for line in lines[:7]] == [
        (0, "enc", None),
        (1, "0", None),
        (2, "a.w", 0),
        (2, "b", 1),
        (1, "1", None),
        (2, "a.w", 2),
        (2, "b", 3),
    ]
    assert tree.repeated() == {"enc.0", "enc.1"}
    assert [line.label for line in tree.lines({"enc.0", "enc.1"})][:3] == ["enc", "0", "1"]
    assert [line.index for line in tree.lines((), {3}.__contains__)] == [None, None, 3]
    assert tree.groups["enc"].layers == 4


def test_stray_dots_make_no_empty_label() -> None:
    names = [".a", ".b", "..c.x", "..c.y", "m..p", "m..q", "m.", "...", "", "."]
    tree = Tree(names)
    lines = tree.lines(())
    assert all(line.label for line in lines if line.index != names.index(""))
    assert [(line.depth, line.label) for line in lines] == [
        (0, ".a"),
        (0, ".b"),
        (0, "..c"),
        (1, "x"),
        (1, "y"),
        (0, "m"),
        (1, ".p"),
        (1, ".q"),
        (0, "m."),
        (0, "..."),
        (0, ""),
        (0, "."),
    ]
    for line in lines:  # whatever the labels, each layer stands below its own modules
        if line.index is not None:
            above = [group.label for group in tree.above(line.index)]
            assert ".".join([*reversed(above), line.label]) == names[line.index]


def test_ascii_keeps_every_character_in_its_cell() -> None:
    assert one_for_one("κ(ρI+βW) ≈ 3×4 ▃▅█│─┐ ✗…") == "k(rI+bW) ~ 3x4 -+@|-+ X."
    assert one_for_one("漢a") == "??a"
    (segment,) = AsciiFilter().apply([Segment("σ▾")], Color(0, 0, 0))
    assert segment.text == "sv"


TOML = """# mine
beta = 0.5

[rules."enc.*"]   # all of them
activation = "gelu"
max-kappa = 1e6

[rules."enc.0"]
activation = "tanh" # by hand
# kept
[check]
max-kappa = 1e4
"""


def test_saving_keeps_the_rest_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "specinspect.toml"
    path.write_text(TOML, encoding="utf-8")
    path.chmod(0o640)
    save({"enc.0": {"activation": "relu", "stride": "2,1"}, 'a"\\\n[x]': {"grid": "8"}}, str(path))
    text = path.read_text(encoding="utf-8")
    for line in ("# mine", '[rules."enc.*"]   # all of them', "# kept", "max-kappa = 1e4"):
        assert line in text
    saved = tomllib.loads(text)
    assert saved["rules"]["enc.0"] == {"activation": "relu", "stride": [2, 1]}
    assert saved["rules"]['a"\\\n[x]'] == {"grid": 8}
    assert saved["rules"]["enc.*"] == {"activation": "gelu", "max-kappa": 1e6}
    assert path.stat().st_mode & 0o777 == 0o640
    assert [p.name for p in tmp_path.iterdir()] == ["specinspect.toml"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('rules = {"enc.0" = {activation = "tanh"}}\n', "layout is not understood"),
        ('[rules."enc.0"]\nactivation = "tanh"\n[rules."enc.*"]\nactivation = "gelu"\n', "would win over"),
        ("beta = ", "not readable as TOML"),
    ],
)
def test_saving_refuses_what_it_would_break(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "specinspect.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError, match=message):
        save({"enc.0": {"activation": "relu"}}, str(path))
    assert path.read_text(encoding="utf-8") == text


def test_saving_into_pyproject(tmp_path: Path) -> None:
    path = tmp_path / "pyproject.toml"
    path.write_bytes(b'[project]\r\nname = "x"\r\n[tool.specinspect]\r\nbeta = 2.0\r\n[tool.other]\r\na = 1')
    save({"enc.0": {"skip": "none"}}, str(path))
    assert tomllib.loads(path.read_text(encoding="utf-8")) == {
        "project": {"name": "x"},
        "tool": {
            "specinspect": {"beta": 2.0, "rules": {"enc.0": {"skip": "none"}}},
            "other": {"a": 1},
        },
    }
    assert b"\r\n" in path.read_bytes()


def test_edited_values_are_checked() -> None:
    assert rule_of("fc", {"stride": "2, 1", "grid": "8"}).stride == (2, 1)
    with pytest.raises(SettingsError, match="whole numbers"):
        rule_of("fc", {"stride": "two"})
    with pytest.raises(SettingsError, match="nothing was edited"):
        save({"fc": {}}, None)


def test_a_report_that_is_not_complete_says_so() -> None:
    (result,) = iter_layers({"fc.weight": torch.eye(4)})
    twice = [result, replace(result, layer=replace(result.layer, name="late"))]
    session = Session(inspection(twice))
    session.rows[0] = replace(session.rows[0], state="done", result=result)
    report = session.report(device="cpu", notices=(), seconds=1.0)
    assert [layer.layer.name for layer in report] == ["fc"]
    assert "1 of 2 layers are missing" in report.checkpoint.assumptions[-1]
    assert json.loads(report.to_json())["settings"]["spectra"] is False


def test_file_names_from_hostile_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert re.fullmatch(r"[\w.-]+\.json", free_name("../a b\x1b/c", ".json"))
    Path("m.json").touch()
    assert free_name("m", ".json") == "m-2.json"


def test_a_comment_behind_a_value_outlives_an_edit(tmp_path: Path) -> None:
    path = tmp_path / "specinspect.toml"
    path.write_text('[rules.fc]\n# why\nactivation = "gelu"   # as in the paper, eq. #3\n')
    save({"fc": {"activation": "tanh", "skip": "none"}}, str(path))
    text = path.read_text()
    assert 'activation = "tanh"   # as in the paper, eq. #3\n' in text
    assert "# why\n" in text
    assert tomllib.loads(text) == {"rules": {"fc": {"activation": "tanh", "skip": "none"}}}
