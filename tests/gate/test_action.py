"""The GitHub Action's shell steps, run as GitHub runs them, and the hooks of pre-commit."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ACTION = (ROOT / "action.yml").read_text(encoding="utf-8")
SICK = str(ROOT / "samples" / "sick.pt")
HEALTHY = str(ROOT / "samples" / "digits_residual.pt")


def step(name: str) -> tuple[str, dict[str, str]]:
    """Return the script of a step and its environment: variable → expression."""
    text = ACTION[ACTION.index(f"- name: {name}\n") :]
    script = re.search(r"\n      run: \|\n((?:        .*\n|\n)+)", text)
    environment = re.search(r"\n      env:\n((?:        .*\n)+)", text)
    assert script is not None
    assert environment is not None
    return textwrap.dedent(script[1]), dict(re.findall(r"(\w+): \$\{\{ (.+?) \}\}", environment[1]))


def shim(folder: Path, name: str, command: str) -> None:
    path = folder / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
    path.chmod(0o755)


def shell(folder: Path, name: str, **values: str) -> subprocess.CompletedProcess[str]:
    """Run a step with the flags of GitHub's `shell: bash`; `values` are the action's inputs."""
    script, environment = step(name)
    variables = {variable: values.pop(key.split(".")[-1], "") for variable, key in environment.items()}
    assert not values
    (folder / "step.sh").write_text(script)
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(folder / "step.sh")],
        cwd=folder,
        env={
            **os.environ,
            **variables,
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "GITHUB_STEP_SUMMARY": str(folder / "summary.md"),
            "GITHUB_OUTPUT": str(folder / "output"),
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shim(tmp_path, "specinspect", f"{sys.executable} -m specinspect")
    (tmp_path / "summary.md").write_text("before\n")
    return tmp_path


def test_a_failing_check_fails_the_step_and_fills_the_summary(folder: Path) -> None:
    done = shell(
        folder,
        "Check",
        checkpoints=f"{SICK}\n{HEALTHY}\n",
        options="--max-kappa 1e5\n--ignore SI3,SI2 --layers *_singular\n--layers hidden.*\n",
        sarif="out.sarif",
        junit="out.xml",
    )
    assert done.returncode == 1, done.stderr
    assert done.stdout.count("::error file=") == 1
    assert done.stdout.splitlines()[-1] == "failed: 1 error in 9 layers of 2 checkpoints with 1 rule"
    summary = (folder / "summary.md").read_text()
    assert summary.startswith("before\n### ❌ specinspect check: failed")
    assert "| error | SI101 max-kappa | nearly\\_singular |" in summary
    assert (folder / "output").read_text() == "exit-code=1\n"
    assert (folder / "out.sarif").exists()
    assert (folder / "out.xml").exists()


def test_a_passing_check_passes(folder: Path) -> None:
    done = shell(folder, "Check", checkpoints=HEALTHY)
    assert (done.returncode, done.stderr) == (0, "")
    assert "✅" in (folder / "summary.md").read_text()


@pytest.mark.parametrize(
    ("checkpoints", "options"), [("nowhere.pt", ""), (HEALTHY, "--max-kapa 3"), ("", ""), ("--exit-zero", "")]
)
def test_what_cannot_be_checked_is_2(checkpoints: str, options: str, folder: Path) -> None:
    done = shell(folder, "Check", checkpoints=checkpoints, options=options)
    assert done.returncode == 2
    assert (folder / "output").read_text() == "exit-code=2\n"


def test_nothing_in_an_input_is_run(folder: Path) -> None:
    evil = f"{folder}/$(touch pwned)`touch pwned`; touch pwned *"
    done = shell(folder, "Check", checkpoints=evil, options="; touch pwned && $(touch pwned)", sarif="")
    assert done.returncode == 2
    assert not (folder / "pwned").exists()
    assert "${{" not in "".join(step(name)[0] for name in ("Install specinspect", "Check"))


def test_the_install_step_takes_this_version_with_pinned_dependencies(folder: Path) -> None:
    shim(folder, "python", "printf '%s\\n'")
    done = shell(folder, "Install specinspect", action_path="/a path", **{"pip-options": "--index-url there"})
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        *("-m", "pip", "install", "--quiet", "--index-url", "there"),
        *("-c", "/a path/.ci/constraints.txt", "/a path"),
    ]


def test_other_actions_are_pinned_by_commit() -> None:
    used = re.findall(r"uses: (\S+)", ACTION)
    assert used
    assert all(re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", name) for name in used)


def test_every_hook_of_pre_commit_checks_checkpoints() -> None:
    hooks = (ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8")
    assert set(re.findall(r"entry: (.+)", hooks)) == {"specinspect check"}
    for pattern in re.findall(r"files: (.+)", hooks):
        assert re.search(pattern, "runs/model.safetensors")
        assert not re.search(pattern, "README.md")
