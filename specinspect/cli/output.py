"""Where a report goes: stdout, or a file that is replaced only once it is complete."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

from specinspect.errors import SettingsError

if TYPE_CHECKING:
    from specinspect.report.model import Report


def check_writable(output: str | None, option: str = "-o") -> str | None:
    """Refuse an output file that cannot be written, before anything is computed; '-' is stdout.

    Raises:
        SettingsError: no such directory, or no permission.
    """
    if output is None or output == "-":
        return None
    if not output:
        raise SettingsError(f"{option}: expected a file name, got nothing", "- is stdout")
    path = Path(output)
    if path.is_dir():
        raise SettingsError(f"{option}: expected a file, found the directory {output!r}", "name a file in it")
    if not path.absolute().parent.is_dir():
        raise SettingsError(f"{option}: no such directory: {str(path.parent)!r}", "make it first")
    target = path if path.exists() else path.absolute().parent
    if not os.access(target, os.W_OK):
        raise SettingsError(f"{option}: no permission to write {output!r}", "name another file")
    return output


def files_read(checkpoint: str, shards: Sequence[str], *others: str | None) -> tuple[str, ...]:
    """Return every file that a run reads: the weights, what lies beside them, inputs, configuration."""
    folders = {Path(file).parent for file in shards}
    beside = [str(folder / name) for folder in folders for name in ("config.json", "adapter_config.json")]
    indexes = [str(path) for folder in folders for path in folder.glob("*.index.json")]
    named = [other for other in others if other is not None]
    return (checkpoint, *shards, *beside, *indexes, *named)


def check_not_input(output: str | None, files: Sequence[str]) -> None:
    """Refuse to write over what is being read.

    Raises:
        SettingsError: the output file is one of the inputs.
    """
    if output is None or not Path(output).exists():
        return
    for file in files:
        if Path(file).exists() and Path(output).samefile(file):
            raise SettingsError(f"{output!r} is read by this very run", "name another file")


def write_report(report: Report, form: str, output: str | None, *, bounds: bool = False) -> None:
    """Render a report and write it to a file or to stdout; `bounds` adds them to the table."""
    if form == "table":
        from specinspect.report.table import print_table

        write_table(lambda file: print_table(report, file, bounds=bounds), output)
        return
    from specinspect.report import FORMATS

    text = FORMATS[form](report)
    write_text(text if text.endswith("\n") else text + "\n", output)


def write_text(text: str, output: str | None) -> None:
    """Write UTF-8 to a file, whole or not at all, or to stdout."""
    if output is None:
        _stdout(text)
    else:
        _replace(output, text)


def write_table(draw: Callable[[IO[str]], None], output: str | None) -> None:
    """Let something that prints for people print to stdout, or to a file."""
    if output is None:
        draw(sys.stdout)
        return
    import io

    buffer = io.StringIO()
    draw(buffer)
    _replace(output, buffer.getvalue())


def _stdout(text: str) -> None:
    """Write UTF-8 whatever the locale says: these formats are data, and declare it."""
    sys.stdout.flush()
    sys.stdout.buffer.write(text.encode("utf-8"))


def _replace(output: str, text: str) -> None:
    """Write a file whole or not at all; a link's target is replaced, not the link."""
    path = Path(output)
    try:
        # Devices, pipes and the streams under /dev and /proc are written to, never renamed over.
        special = path.exists() and not path.is_file()
        if special or path.absolute().parts[:2] in {("/", "dev"), ("/", "proc")}:
            path.write_text(text, encoding="utf-8")
            return
        path = Path(os.path.realpath(path))
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            Path(name).chmod(_mode(path))
            Path(name).replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(name).unlink()
            raise
    except OSError as error:
        raise SettingsError(f"cannot write {output!r}: {error.strerror or error}") from error


def _mode(path: Path) -> int:
    """Return the permissions of a file, or those that a new one would get."""
    if path.exists():
        return stat.S_IMODE(path.stat().st_mode)
    umask = os.umask(0)
    os.umask(umask)
    return 0o666 & ~umask
