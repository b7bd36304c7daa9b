"""JSON from untrusted files: an object, without duplicate keys, whatever its depth."""

from __future__ import annotations

import json
from typing import Any

from specinspect.checkpoint.text import quote
from specinspect.errors import CheckpointError


def parse_object(data: bytes, where: str, what: str) -> dict[str, Any]:
    """Return the JSON object in `data`.

    Args:
        data: UTF-8 bytes, with or without a byte order mark.
        where: path for messages.
        what: what the object is, for messages ("a safetensors header").

    Raises:
        CheckpointError: not UTF-8, not JSON, not an object, a key given twice, or nested too deep.
    """
    problem = f"{quote(where)}: expected {what} (a JSON object)"
    hint = "the file is damaged or truncated: fetch or save it again"
    try:
        value = json.loads(data.decode("utf-8-sig"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except UnicodeDecodeError:
        raise CheckpointError(f"{problem}, found bytes that are not UTF-8", hint) from None
    except RecursionError:
        raise CheckpointError(f"{problem}, found JSON nested too deep", hint) from None
    except ValueError as error:
        raise CheckpointError(f"{problem}, found invalid JSON: {error}", hint) from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{problem}, found a JSON {type(value).__name__}", hint)
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                msg = f"the key {quote(key)} twice"
                raise ValueError(msg)
            seen.add(key)
    return result


def _no_constant(token: str) -> Any:
    msg = f"the token {token}"
    raise ValueError(msg)
