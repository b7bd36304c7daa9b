"""Order and tidying of tensor names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from specinspect.checkpoint.text import quote

_WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
_DIGITS = re.compile(r"([0-9]+)")


def natural_key(name: str) -> list[str | tuple[int, str]]:
    """Return a sort key that compares runs of digits as numbers: layers.2 before layers.10."""
    parts: list[str | tuple[int, str]] = []
    for index, part in enumerate(_DIGITS.split(name)):
        # (length, digits) orders like the number without ever building a huge int.
        digits = part.lstrip("0")
        parts.append((len(digits), digits) if index % 2 else part)
    return parts


def strip_wrappers(names: Iterable[str]) -> tuple[Mapping[str, str], tuple[str, ...]]:
    """Remove what wrappers put into tensor names.

    `_orig_mod.` (torch.compile) and `_fsdp_wrapped_module.` go wherever they stand; `module.` (DataParallel,
    DDP) goes only where every name starts with it, as it is also an ordinary attribute name.

    Returns:
        Original name → name to use, and a sentence about the prefixes that were removed. When two names would
        become one, all names stay as they are.
    """
    originals = list(names)
    current = {name: name for name in originals}
    removed: list[str] = []
    for wrapper in _WRAPPERS:
        shorter = {name: _drop_component(now, wrapper) for name, now in current.items()}
        if shorter != current:
            removed.append(f"{wrapper}.")
            current = shorter
    while current and all(now.startswith("module.") and now != "module." for now in current.values()):
        current = {name: now.removeprefix("module.") for name, now in current.items()}
        removed.append("module.")
    if not removed:
        return current, ()
    which = " and ".join(dict.fromkeys(quote(prefix) for prefix in removed))
    if len(set(current.values())) != len(current) or not all(current.values()):
        sentence = (
            f"the wrapper prefix {which} was kept in the names: without it two tensors would share a name"
        )
        return {name: name for name in originals}, (sentence,)
    return current, (f"the wrapper prefix {which} was removed from the names",)


def strip_module_path(path: str, renamed: Mapping[str, str]) -> str:
    """Return a module path with the same prefixes removed that `strip_wrappers` removed from tensor names."""
    if all(old == new for old, new in renamed.items()):
        return path
    parts = [part for part in path.split(".") if part not in _WRAPPERS]
    depth = min((_leading_modules(old) - _leading_modules(new) for old, new in renamed.items()), default=0)
    while depth > 0 and parts and parts[0] == "module":
        parts.pop(0)
        depth -= 1
    return ".".join(parts)


def _leading_modules(name: str) -> int:
    count = 0
    for part in name.split("."):
        if part == "module":
            count += 1
        elif part not in _WRAPPERS:
            break
    return count


def _drop_component(name: str, component: str) -> str:
    if component not in name:
        return name
    return ".".join(part for part in name.split(".") if part != component)
