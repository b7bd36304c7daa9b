"""A block as JSON: an entry of the report's `blocks`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from specinspect.report.plain import bound_to_dict, plain, spectrum_to_dict

if TYPE_CHECKING:
    from specinspect.layers.model import Activation
    from specinspect.report.model import BlockResult


def block_to_dict(result: BlockResult) -> dict[str, Any]:
    """Return a block's result as plain Python data: no NaN, no infinity, only types that JSON has.

    Keys: name, kind, layers, source, shortcut {kind, source, layers}, after, grid, maps {chain, skip}, norm
    (‖J‖), heads (spectra of W_O·W_V per attention head), bounds, assumptions, notes.
    """
    block = result.block
    maps = {"chain": result.chain, "skip": result.skip}
    return {
        "name": block.name,
        "kind": block.kind,
        "layers": list(block.layers),
        "source": block.source,
        "shortcut": {
            "kind": block.shortcut.kind,
            "source": block.shortcut.source,
            "layers": list(block.shortcut_layers),
        },
        "after": _activation(block.after),
        "grid": None if result.grid is None else list(result.grid),
        "maps": {name: spectrum_to_dict(spectrum) for name, spectrum in maps.items() if spectrum is not None},
        "norm": plain(result.norm),
        "heads": [spectrum_to_dict(spectrum) for spectrum in result.heads],
        "bounds": [bound_to_dict(check) for check in result.bounds],
        "assumptions": list(result.assumptions),
        "notes": list(result.notes),
    }


def _activation(activation: Activation | None) -> dict[str, Any] | None:
    if activation is None:
        return None
    return {"name": activation.name, "slope": plain(activation.slope), "source": activation.source}
