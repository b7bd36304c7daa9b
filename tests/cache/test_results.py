"""The cache behind the engine: the same report, and never one of something else."""

from __future__ import annotations

import errno
import json
import logging
import multiprocessing
import os
import pickle
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import specinspect
from specinspect import engine
from specinspect.cache import keys, results
from specinspect.cache.keys import Digests, digest
from specinspect.cache.store import Name, Store
from specinspect.checkpoint import TensorInfo, open_checkpoint
from specinspect.checkpoint.raw import stored_bytes
from specinspect.layers.rules import Rule
from specinspect.report.model import BlockResult, LayerResult, Report
from specinspect.settings import Settings
from specinspect.spectra.plan import Plan

SAMPLES = Path(__file__).parents[2] / "samples"
posix = pytest.mark.skipif(sys.platform == "win32", reason="permissions of POSIX")


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the layers and blocks that are computed from here on."""
    names: list[str] = []
    run_layers, measure_block = engine.layers._run_layers, engine.blocks._measure_block

    def layers(job: engine.Job) -> tuple[tuple[LayerResult, ...], bool]:
        names.extend(layer.name for layer in job.layers)
        return run_layers(job)

    def block(job: engine.BlockJob) -> BlockResult:
        names.append(job.block.name)
        return measure_block(job)

    monkeypatch.setattr(engine.layers, "_run_layers", layers)
    monkeypatch.setattr(engine.blocks, "_measure_block", block)
    return names


@pytest.fixture
def weights() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    return {
        "a.weight": draw(8, 8), "a.bias": draw(8), "b.weight": draw(8, 8), "b.bias": draw(8),
        "conv.weight": draw(4, 4, 3, 3), "bn.weight": draw(4), "bn.bias": draw(4),
        "bn.running_mean": draw(4), "bn.running_var": draw(4).abs() + 1,
        "bn.num_batches_tracked": torch.tensor(1),
    }  # fmt: skip


@pytest.fixture
def checkpoint(weights: dict[str, torch.Tensor], tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    save_file(weights, path)
    return path


def inspect(source: object, **settings: Any) -> Report:
    chosen: dict[str, Any] = {"cache": True, "device": "cpu", "activation": "relu", "grid": 6, "patterns": 2}
    return specinspect.inspect(source, **(chosen | settings))  # type: ignore[arg-type]


def without_times(report: Report) -> str:
    return re.sub(r'"seconds": [-+.e\d]+', '"seconds": 0', report.to_json())


@pytest.mark.parametrize(
    "sample", ["sick.pt", "resnet_tiny.safetensors", "transformer_tiny", "digits_residual.pt"]
)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"spectra": True, "curve": True},
        {
            "conv_operator": "padded",
            "conv_pattern": "pixel",
            "grid": 4,
            "patterns": 1,
            "layers": ("*conv1", "*0", "*out*", "nan", "*proj"),
        },
    ],
    ids=["plain", "spectra", "pixels"],
)
def test_a_cached_report_is_the_same_to_the_byte(
    sample: str, settings: dict[str, Any], computed: list[str]
) -> None:
    settings = {"grid": 8, **settings}
    expected = without_times(specinspect.inspect(str(SAMPLES / sample), device="cpu", **settings))
    cold = specinspect.inspect(str(SAMPLES / sample), device="cpu", cache=True, **settings)
    computed.clear()
    warm = specinspect.inspect(str(SAMPLES / sample), device="cpu", cache=True, **settings)
    assert computed == []
    assert without_times(warm) == without_times(cold)
    assert without_times(cold) == expected


def test_from_python_nothing_is_written_unasked(checkpoint: Path, cache_directory: Path) -> None:
    specinspect.inspect(checkpoint)
    assert not cache_directory.exists()
    inspect(checkpoint)
    assert cache_directory.exists()


@pytest.mark.parametrize(
    ("tensor", "recomputed"),
    [
        ("a.weight", {"a"}),
        ("a.bias", {"a"}),
        ("conv.weight", {"conv"}),
        ("bn.running_mean", {"conv"}),
        ("bn.weight", {"conv"}),
        ("bn.num_batches_tracked", set()),
    ],
)
def test_one_changed_byte_recomputes_its_layer_alone(
    tensor: str, recomputed: set[str], checkpoint: Path, weights: dict[str, torch.Tensor], computed: list[str]
) -> None:
    inspect(checkpoint, blocks=False)
    computed.clear()
    before = checkpoint.stat()
    changed = weights[tensor].view(-1).view(torch.uint8)
    changed[-1] ^= 1
    save_file(weights, checkpoint)
    os.utime(checkpoint, ns=(before.st_atime_ns, before.st_mtime_ns))  # size and date say nothing
    report = inspect(checkpoint, blocks=False)
    assert set(computed) == recomputed
    assert_same_numbers(report, inspect(checkpoint, blocks=False, cache=False))


def test_where_the_weights_lie_does_not_matter(checkpoint: Path, computed: list[str], tmp_path: Path) -> None:
    inspect(checkpoint)
    computed.clear()
    shutil.copy(checkpoint, tmp_path / "copy.safetensors")
    inspect(tmp_path / "copy.safetensors")
    assert computed == []
    torch.save(load_file(checkpoint), tmp_path / "other.pt")
    inspect(tmp_path / "other.pt")
    assert computed == []


def assert_same_numbers(report: Report, other: Report) -> None:
    """Compare up to the last digits, which depend on the layers of equal shape that are solved beside it."""

    def compare(mine: Any, theirs: Any, where: str) -> None:
        if isinstance(mine, dict):
            assert mine.keys() == theirs.keys(), where
            for key in mine.keys() - {"seconds"}:
                compare(mine[key], theirs[key], f"{where}.{key}")
        elif isinstance(mine, list):
            assert len(mine) == len(theirs), where
            for number, pair in enumerate(zip(mine, theirs, strict=True)):
                compare(*pair, f"{where}[{number}]")
        elif isinstance(mine, float):
            # Accuracies of a method are themselves only known to a factor.
            assert theirs == pytest.approx(mine, rel=3 if "computation_floor" in where else 1e-6), where
        else:
            assert mine == theirs, where

    compare(report.to_dict(), other.to_dict(), "")


CHANGES: list[tuple[dict[str, Any], set[str]]] = [
    ({"beta": 0.5}, {"a", "b", "conv"}),
    ({"rho": 0.5}, {"a", "b", "conv"}),
    ({"patterns": 3}, {"a", "b", "conv"}),
    ({"seed": 1}, {"a", "b", "conv"}),
    ({"maps": ("weight",)}, {"a", "b", "conv"}),
    ({"spectra": True}, {"a", "b", "conv"}),
    ({"curve": True}, {"a", "b", "conv"}),
    ({"activation": "gelu"}, {"a", "b", "conv"}),
    ({"delta": 0.5}, {"a", "b", "conv"}),
    ({"target_kappa": 5.0}, {"a", "b", "conv"}),
    ({"init": "kaiming"}, {"a", "b", "conv"}),
    ({"grid": 8}, {"conv"}),
    ({"conv_operator": "padded"}, {"conv"}),
    ({"rules": (Rule("b", activation="gelu"),)}, {"b"}),
    ({"rules": (Rule("conv", stride=2),)}, {"conv"}),
    ({"activation": "leaky_relu:0.1"}, {"a", "b", "conv"}),
    ({"jobs": 1, "layers": ("a", "b", "conv"), "exclude": ("x",), "blocks": False}, set()),
    ({"cache": True, "device": "auto"}, set()),
]


@pytest.mark.parametrize(("change", "recomputed"), CHANGES, ids=[str(change) for change, _ in CHANGES])
def test_a_setting_recomputes_what_it_decides(
    change: dict[str, Any], recomputed: set[str], checkpoint: Path, computed: list[str]
) -> None:
    inspect(checkpoint, blocks=False)
    computed.clear()
    report = inspect(checkpoint, **({"blocks": False} | change))
    assert set(computed) == recomputed
    computed.clear()
    again = inspect(checkpoint, **({"blocks": False} | change))
    assert computed == []
    assert without_times(again) == without_times(report)
    assert_same_numbers(report, inspect(checkpoint, **({"blocks": False} | change | {"cache": False})))


def test_every_setting_is_in_the_key_or_listed_as_without_effect() -> None:
    """A setting that others add is taken to decide something."""
    known = {name for name, _ in keys.deciding(Settings(), convolution=True)}
    assert known | keys._WITHOUT_EFFECT == {f.name for f in fields(Settings)}
    assert not known & keys._WITHOUT_EFFECT


def test_another_program_computes_anew(
    checkpoint: Path, computed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    inspect(checkpoint)
    monkeypatch.setattr(results, "program", lambda: "another version")
    computed.clear()
    inspect(checkpoint)
    assert {"a", "b", "conv"} <= set(computed)


def test_the_program_is_known_by_its_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "specinspect"
    shutil.copytree(Path(specinspect.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(keys, "__file__", str(package / "cache" / "keys.py"))
    original = keys.program.__wrapped__()
    assert original == keys.program.__wrapped__() == keys.program()
    with (package / "cli" / "report.py").open("a") as file:
        file.write("# no number depends on this room\n")
    assert keys.program.__wrapped__() == original
    with (package / "spectra" / "solve.py").open("a") as file:
        file.write("#\n")
    assert keys.program.__wrapped__() != original


def test_a_further_field_of_a_job_is_part_of_the_key(checkpoint: Path) -> None:
    inspection = engine.open_source(checkpoint, Settings(cache=True, device="cpu"))
    _, jobs, _ = engine.layer_jobs(inspection, Plan("cpu"))
    known = {"layers", "tensors", "settings", "plan", "inputs", "cache"}
    expected = {f.name: getattr(jobs[0], f.name) for f in fields(engine.Job) if f.name not in known}
    assert engine.requests.request_of_layer(jobs[0], jobs[0].layers[0]).context[2] == expected
    assert engine.requests._further(jobs[0], {"layers"}).keys() == {f.name for f in fields(engine.Job)} - {
        "layers"
    }


def test_the_users_inputs_are_known_by_their_content(
    checkpoint: Path, computed: list[str], tmp_path: Path
) -> None:
    values = torch.arange(24.0).reshape(3, 8)
    for name in ("one", "two"):
        save_file({"a": values}, tmp_path / f"{name}.safetensors")
    save_file({"a": values + 1}, tmp_path / "three.safetensors")
    for name, recomputed in (("one", {"a"}), ("two", set()), ("three", {"a"})):
        inspect(checkpoint, blocks=False)
        computed.clear()
        report = inspect(checkpoint, blocks=False, inputs=str(tmp_path / f"{name}.safetensors"))
        assert set(computed) == recomputed
        plain = inspect(checkpoint, blocks=False, inputs=str(tmp_path / f"{name}.safetensors"), cache=False)
        assert [r.maps["chain"].sigma_max for r in report] == pytest.approx(
            [r.maps["chain"].sigma_max for r in plain]
        )


def test_weights_in_memory(weights: dict[str, torch.Tensor], computed: list[str]) -> None:
    first = inspect(weights)
    computed.clear()
    assert without_times(inspect({name: t.clone() for name, t in weights.items()})) == without_times(first)
    assert computed == []
    weights["a.weight"][0, 0] += 1  # in place: nothing of it may be remembered
    changed = inspect(weights, blocks=False)
    assert set(computed) == {"a"}
    assert_same_numbers(changed, inspect(weights, blocks=False, cache=False))
    weights["b.weight"] = weights["b.weight"].T
    computed.clear()
    inspect(weights, blocks=False)
    assert set(computed) == {"b"}


@pytest.mark.parametrize("form", ["legacy", "npz"])
def test_other_formats_are_known_by_their_bytes(
    form: str, weights: dict[str, torch.Tensor], computed: list[str], tmp_path: Path
) -> None:
    def write() -> Path:
        if form == "npz":
            arrays: dict[str, Any] = {name: t.numpy() for name, t in weights.items()}
            np.savez_compressed(tmp_path / "x.npz", **arrays)
            return tmp_path / "x.npz"
        strided = {name: t.T if t.ndim == 2 else t for name, t in weights.items()}
        torch.save(strided, tmp_path / "x.pt", _use_new_zipfile_serialization=False)
        return tmp_path / "x.pt"

    first = inspect(write(), blocks=False)
    computed.clear()
    assert without_times(inspect(write(), blocks=False)) == without_times(first)
    assert computed == []
    weights["b.weight"][3, 3] += 1
    changed = inspect(write(), blocks=False)
    assert set(computed) == {"b"}
    assert_same_numbers(changed, inspect(write(), blocks=False, cache=False))


def entries(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file() and path.name != "CACHEDIR.TAG")


def test_a_damaged_or_forged_entry_is_computed_anew(
    checkpoint: Path, computed: list[str], cache_directory: Path
) -> None:
    expected = without_times(inspect(checkpoint))
    for damage in (
        lambda path: path.write_bytes(path.read_bytes()[:200]),
        lambda path: path.write_bytes(b""),
        lambda path: reseal(path, b"null"),
        lambda path: reseal(path, b"[" * 100_000),
        lambda path: reseal(path, b"\xff"),
        lambda path: reseal(path, re.sub(rb"[\d.]+", b'"x"', unsealed(path))),
        lambda path: reseal(path, json.dumps([*json.loads(unsealed(path)), 1]).encode()),
    ):
        found = entries(cache_directory)
        assert len(found) >= 3
        for path in found:
            damage(path)
        computed.clear()
        assert without_times(inspect(checkpoint)) == expected
        assert len(computed) == len(found)
    computed.clear()
    inspect(checkpoint)
    assert computed == []


def unsealed(path: Path) -> bytes:
    body = Store(str(path.parents[2]), 1 << 30).load(Name(*path.name.split("-")))
    assert body is not None
    return body


def reseal(path: Path, body: bytes) -> None:
    """Put other contents into an entry, with a checksum that is right."""
    Store(str(path.parents[2]), 1 << 30).save(Name(*path.name.split("-")), body)


def test_what_was_computed_from_changing_bytes_is_not_kept(
    checkpoint: Path, weights: dict[str, torch.Tensor], computed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is written over between the hash and the computation: the result is not that of the hash."""
    run_layers = engine.layers._run_layers

    def meanwhile(job: engine.Job) -> tuple[tuple[LayerResult, ...], bool]:
        weights["a.weight"] += 1
        save_file(weights, checkpoint)
        return run_layers(job)

    monkeypatch.setattr(engine.layers, "_run_layers", meanwhile)
    original = {name: tensor.clone() for name, tensor in weights.items()}
    inspect(checkpoint, blocks=False, layers=("a",))
    monkeypatch.setattr(engine.layers, "_run_layers", run_layers)
    save_file(original, checkpoint)
    expected = inspect(checkpoint, blocks=False, layers=("a",), cache=False)
    assert_same_numbers(inspect(checkpoint, blocks=False, layers=("a",)), expected)


def test_digests_of_a_file_are_remembered_only_while_it_stands_still(checkpoint: Path) -> None:
    tensors = open_checkpoint(checkpoint).tensors
    reads: list[object] = []

    def counting(info: TensorInfo) -> Iterator[memoryview]:
        reads.append(info)
        return stored_bytes(info)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keys, "stored_bytes", counting)
        digests = Digests()
        first = [digests.of(tensors["a.weight"]) for _ in range(3)]
        assert len(reads) == 3  # written just now: a further change might not show
        patch.setattr(keys, "_SETTLED", -(10**12))
        assert [digests.of(tensors["a.weight"]) for _ in range(3)] == first
        assert len(reads) == 4
        data = bytearray(checkpoint.read_bytes())
        data[-1] ^= 1
        data[len(data) // 2] ^= 1
        checkpoint.write_bytes(data)
        digests.of(tensors["a.weight"])
        assert len(reads) == 5
        assert len(first[0]) == 64


def test_a_process_pool_shares_the_cache(checkpoint: Path, computed: list[str]) -> None:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        report = inspect(checkpoint, executor=pool)
    assert computed == []  # elsewhere
    assert without_times(inspect(checkpoint)) == without_times(report)
    assert computed == []
    assert pickle.loads(pickle.dumps(Digests())) is not None


@posix
@pytest.mark.skipif(sys.platform != "win32" and os.geteuid() == 0, reason="root writes anywhere")
def test_a_directory_without_permission(
    checkpoint: Path, cache_directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache_directory.mkdir(mode=0o500)
    assert len(inspect(checkpoint).layers) == 3
    assert len(caplog.records) == 1


@pytest.mark.parametrize("kind", ["file", "full", "open", "folder"])
@posix
def test_without_a_usable_cache_it_is_said_once_and_computed(
    kind: str,
    checkpoint: Path,
    cache_directory: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = without_times(inspect(checkpoint, cache=False))
    if kind == "file":
        cache_directory.write_text("a file")
    elif kind == "open":
        cache_directory.mkdir()
        cache_directory.chmod(0o777)
    elif kind == "folder":
        cache_directory.mkdir()
        (cache_directory / "results").write_text("a file")
    else:

        def full(*_args: object, **_kwargs: object) -> tuple[int, str]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(tempfile, "mkstemp", full)
    results._said.clear()
    with caplog.at_level(logging.WARNING):
        assert without_times(inspect(checkpoint)) == expected
        assert without_times(inspect(checkpoint)) == expected
    assert len(caplog.records) == 1, caplog.text
    assert "specinspect: " in caplog.text
    assert "cache" in caplog.text or "kept" in caplog.text


def test_keys_tell_different_values_apart() -> None:
    values: list[Any] = [
        None, True, False, 0, 1, 0.0, -0.0, 1.0, "", "1", "None", (), ("",), ("a", "b"), ("ab",),
        (("a",), "b"), ("a", ("b",)), {}, {"a": "b"}, {"a": ("b",)}, {"ab": ""}, "\ud800", float("inf"),
        5e-324, "t0:", -1, 10, Rule("a"), Rule("b"), Rule("a", grid=3), Settings(), Settings(beta=2.0),
    ]  # fmt: skip
    assert len({digest(value) for value in values}) == len(values)
    assert digest([1, "a"]) == digest((1, "a"))
    for unknown in (object(), b"bytes", {1, 2}, np.zeros(2), Rule):
        with pytest.raises(TypeError):
            digest(unknown)
