from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specinspect.config import Config, load_config
from specinspect.errors import SettingsError
from specinspect.layers.rules import Rule

KNOWN = {
    "beta": float, "rho": float, "activation": str, "patterns": int, "layers": list, "exclude": list,
    "spectra": bool, "no_cache": bool, "grid": int,
}  # fmt: skip

EVERYTHING = """
beta = 2
activation = "leaky_relu:0.1"
layers = ["encoder.*", "head"]
exclude = "*.bias"
no-cache = true

[rules."encoder.*"]
activation = "gelu"
max-kappa = 1e6

[rules."encoder.0.conv"]
skip = "average-pool"
stride = 2
padding = [1, 0]
dilation = [1, 1]
groups = 4
grid = 8

[rules."head"]
min_stable_rank = 2

[check]
max-kappa = 1e4
max_sigma = 10
allow-nonfinite = true
baseline = "old.json"
"""


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_everything(tmp_path: Path) -> None:
    path = write(tmp_path / "any.toml", EVERYTHING)
    assert load_config(KNOWN, path) == Config(
        str(path),
        {
            "beta": 2.0,
            "activation": "leaky_relu:0.1",
            "layers": ("encoder.*", "head"),
            "exclude": ("*.bias",),
            "no_cache": True,
        },
        (
            Rule("encoder.*", activation="gelu"),
            Rule(
                "encoder.0.conv",
                skip="average-pool",
                stride=2,
                padding=(1, 0),
                dilation=(1, 1),
                groups=4,
                grid=8,
            ),
        ),
        {"max_kappa": 1e4, "max_sigma": 10.0, "allow_nonfinite": True, "baseline": "old.json"},
        (("encoder.*", {"max_kappa": 1e6}), ("head", {"min_stable_rank": 2.0})),
    )


def test_the_nearest_file_counts(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    outer = write(tmp_path / "pyproject.toml", "[tool.specinspect]\nbeta = 1\n")
    assert load_config(KNOWN, start=inner).path == str(outer)
    # One without the table is passed by, even a damaged one; the word alone is no table.
    write(inner / "pyproject.toml", "[tool.ruff\n")
    assert load_config(KNOWN, start=inner).path == str(outer)
    write(inner / "pyproject.toml", '[project]\ndependencies = ["specinspect"]\n')
    assert load_config(KNOWN, start=inner).path == str(outer)
    own = write(inner.parent / "specinspect.toml", "beta = 3\n")
    write(inner.parent / "pyproject.toml", "[tool.specinspect]\nbeta = 2\n")
    found = load_config(KNOWN, start=inner)
    assert (found.path, found.settings) == (str(own), {"beta": 3.0})


def test_the_working_directory_is_where_the_search_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "specinspect.toml", "")
    (tmp_path / "deep").mkdir()
    monkeypatch.chdir(tmp_path / "deep")
    assert load_config(KNOWN).path == str(tmp_path / "specinspect.toml")


def test_an_empty_table_counts(tmp_path: Path) -> None:
    path = write(tmp_path / "pyproject.toml", "[tool.specinspect]\n")
    assert load_config(KNOWN, path) == Config(str(path))


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("betta = 1", "unknown key 'betta'", "did you mean 'beta'?"),
        ("nocache = true", "unknown key 'nocache'", "did you mean 'no-cache'?"),
        ("zzz = 1", "unknown key 'zzz'", "known are activation, beta, check, exclude, grid, layers"),
        ("[check]\nmax-kapa = 1", "unknown key 'max-kapa' in [check]", "did you mean 'max-kappa'?"),
        (
            '[rules."a"]\nactivations = "relu"',
            "unknown key 'activations' in [rules.'a']",
            "did you mean 'activation'?",
        ),
        ("[tool.specinspect]\nbeta = 1", "unknown key 'tool'", "only in pyproject.toml"),
        ("beta = 'x'", "beta: expected a finite number, found a string ('x')", ""),
        ("beta = true", "beta: expected a finite number, found a boolean (true)", ""),
        ("beta = nan", "beta: expected a finite number, found a number (nan)", ""),
        ("beta = inf", "beta: expected a finite number, found a number (inf)", ""),
        ("patterns = 1.5", "patterns: expected a whole number, found a number (1.5)", ""),
        ("patterns = true", "patterns: expected a whole number, found a boolean (true)", ""),
        ("activation = 1", "activation: expected a string, found a whole number (1)", ""),
        ("activation = 1979-05-27", "activation: expected a string, found a date or time", ""),
        ("spectra = 1", "spectra: expected true or false, found a whole number (1)", ""),
        ("layers = ['a', 1]", "layers: expected a list of strings, found a list", ""),
        ("[[layers]]\na = 1", "layers: expected a list of strings, found a list", ""),
        ("check = 1", "check: expected a table, found a whole number (1)", ""),
        ("rules = []", "rules: expected a table, found a list", ""),
        ("[rules]\na = 1", "rules.'a': expected a table such as", ""),
        ("[rules.a.b]\nskip = 'none'", "rules.'a' holds tables", "put the glob in quotes"),
        ('[rules."a"]\nactivation = 1', "rules.'a'.activation: expected a string, found a whole number", ""),
        ('[rules."a"]\nactivation = "rellu"', "rule 'a': unknown activation 'rellu'", "did you mean relu?"),
        ('[rules."a"]\nskip = "identiy"', "rule 'a': unknown skip 'identiy'", "did you mean identity?"),
        ('[rules."a"]\nstride = 0', "rule 'a': stride: expected whole numbers of at least 1, got 0", ""),
        ('[rules."a"]\nstride = []', "rule 'a': stride: expected whole numbers of at least 1, got ()", ""),
        ('[rules."a"]\npadding = "some"', "rule 'a': padding: expected whole numbers of at least 0", ""),
        ('[rules."a"]\ngroups = [1]', "rule 'a': groups: expected a whole number of at least 1", ""),
        ('[rules."a"]\ngrid = 1.5', "rules.'a'.grid: expected a number, a list of numbers or a string", ""),
        (f'[rules."a"]\ngroups = 0x{"f" * 5000}', "found a whole number (of more than 63 bits)", ""),
        (f"activation = 0x{'f' * 5000}", "found a whole number (of more than 63 bits)", ""),
        (f"beta = 0x{'f' * 5000}", "found a whole number (of more than 63 bits)", ""),
        ("no-cache = true\nno_cache = true", "no_cache is given twice", ""),
        ("beta = = 1", "not readable as TOML: Invalid value (at line 1, column 8)", ""),
        ("beta = 1\nbeta = 2", "not readable as TOML: Cannot overwrite a value", ""),
        ("a = " + "[" * 20_000, "not readable as TOML", ""),
    ],
)
def test_errors(tmp_path: Path, text: str, message: str, hint: str) -> None:
    path = write(tmp_path / "x.toml", text)
    with pytest.raises(SettingsError) as error:
        load_config(KNOWN, path)
    assert error.value.message.startswith(f"{path}: ")
    assert message in error.value.message
    assert hint in error.value.hint
    assert "\n" not in str(error.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"cannot read configuration .*No such file"):
        load_config(KNOWN, tmp_path / "none.toml")
    with pytest.raises(SettingsError, match=r"cannot read configuration .*directory"):
        load_config(KNOWN, tmp_path)
    (tmp_path / "x.toml").write_bytes(b"beta = 1\na = '\xff'\n")
    with pytest.raises(SettingsError, match=r"not UTF-8 \(at line 2\)"):
        load_config(KNOWN, tmp_path / "x.toml")
    with pytest.raises(SettingsError, match=r"expected a table \[tool.specinspect\], found none"):
        load_config(KNOWN, write(tmp_path / "pyproject.toml", "[tool.ruff]\n"))
    with pytest.raises(SettingsError, match=r"tool.specinspect: expected a table, found a whole number"):
        load_config(KNOWN, write(tmp_path / "pyproject.toml", "[tool]\nspecinspect = 1\n"))
    with pytest.raises(SettingsError, match="at line 2"):
        load_config(KNOWN, start=write(tmp_path / "pyproject.toml", "[tool.specinspect]\nbeta = \n").parent)


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet=[*'abrulescheck.[]"=1\n{}', "é", "\0"], max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder) / "x.toml", text)
        with contextlib.suppress(SettingsError):
            load_config(KNOWN, path)
