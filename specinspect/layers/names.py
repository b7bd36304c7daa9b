"""What a name says: module paths, their last component, and the words that families of layers use."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase

_NUMBERED = re.compile(r"(.*?)([0-9]{1,9})", re.DOTALL)
_DIGITS = re.compile(r"[0-9]+")
_NORM = re.compile(r"(?:^|_)(?:[a-z]*norm|ln|bn|gn)[0-9]*(?:_.*)?$")
_EMBEDDING = re.compile(
    r"(?:^|_)(?:embed|embeds|embedding|embeddings|emb|embd)"
    r"(?:_(?:in|tokens|positions|table|layer))?[0-9]*$"
)
_EMBEDDING_NAMES = frozenset({"wte", "wpe", "shared", "relative_attention_bias", "tokens_embed"})
_DEPTHWISE = re.compile(r"(?:^|[._])(?:dw|dwconv|conv_?dw|depth_?wise\w*)(?:[._0-9]|$)")
_TRANSPOSED = re.compile(
    r"(?:^|[._])(?:deconv|conv_?trans(?:pose|[0-9._]|$)|conv_?t(?:r|[0-9._]|$)|t_?conv|trans(?:posed?)?_?conv)"
)
_UPSAMPLING = re.compile(r"(?:^|[._])(?:ups?|up_?conv|up_?sampl)(?:[._0-9]|er|ers|ing|e|es|$)")


def split_name(name: str) -> tuple[str, str]:
    """Return (module path, leaf): 'fc.weight' → ('fc', 'weight'); a bare name has an empty path."""
    module, _, leaf = name.rpartition(".")
    return module, leaf


def join(module: str, leaf: str) -> str:
    """Undo `split_name`."""
    return f"{module}.{leaf}" if module else leaf


def layer_name(name: str) -> str:
    """Return the module path of a `.weight`, any other tensor's own name."""
    module, leaf = split_name(name)
    return module if leaf == "weight" and module else name


def matches(name: str, globs: Iterable[str]) -> bool:
    """Say whether a layer's name is, or matches, one of the globs."""
    return any(name == glob or fnmatchcase(name, glob) for glob in globs)


def numbered(component: str) -> tuple[str, int] | None:
    """Split a trailing number off: 'conv2' → ('conv', 2), '3' → ('', 3), 'conv' → None."""
    match = _NUMBERED.fullmatch(component)
    return (match[1], int(match[2])) if match else None


def sort_key(name: str) -> str:
    """Return a key under which an alphabetical listing is sorted, whether or not it counted digits."""
    return _DIGITS.sub(lambda digits: digits[0].zfill(9), name)


def is_norm(module: str) -> bool:
    """Say whether the last component is how normalisations are called."""
    return _NORM.search(split_name(module)[1].lower()) is not None


def is_embedding(path: str) -> bool:
    """Say whether the last component (before a list index) is how embeddings are called."""
    parent, last = split_name(path)
    if last.isdigit():
        last = split_name(parent)[1]
    last = last.lower()
    return last in _EMBEDDING_NAMES or _EMBEDDING.search(last) is not None


def is_depthwise(module: str) -> bool:
    """Say whether the name calls a convolution depthwise."""
    return _DEPTHWISE.search(_nearest(module)) is not None


def is_transposed(module: str) -> bool:
    """Say whether the name calls a convolution transposed."""
    return _TRANSPOSED.search(_nearest(module)) is not None


def is_upsampling(module: str) -> bool:
    """Say whether the name speaks of upsampling, which a transposed convolution may do."""
    return _UPSAMPLING.search(_nearest(module)) is not None


def _nearest(module: str) -> str:
    """The last two components: further up a name speaks of blocks, not of layers."""
    return ".".join(module.rsplit(".", 2)[-2:]).lower()


def dimensions(shape: tuple[int, ...]) -> str:
    """Write a shape as 8×64×64."""
    return "×".join(map(str, shape))


def listed(words: list[str]) -> str:
    """Write a list as 'a, b and c'."""
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))
