"""What panes ask of the app. A pane changes nothing itself: it posts one of these, and is shown anew."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from textual.message import Message

Field = Literal["activation", "skip", "stride", "grid"]


@dataclass
class FactEdited(Message):
    """A fact about a layer was edited; the value is checked for form, not against the layer's shape."""

    layer: str
    """Name of the layer."""
    field: Field
    value: str
    """As `specinspect.toml` has it: 'relu', 'leaky_relu:0.1'; 'identity', 'none'; '2', '2,1'; '16'."""


@dataclass
class ScaleChosen(Message):
    """ρ and β were set with the mouse or the keys of a pane."""

    rho: float
    beta: float


@dataclass
class ActivationChosen(Message):
    """Another activation is to make D of the selected layer."""

    name: str


@dataclass
class PatternChosen(Message):
    """Another sampled pattern is to be shown; None for the median over all."""

    pattern: int | None


@dataclass
class LayerChosen(Message):
    """A layer was picked inside a pane: the app selects it in the tree."""

    layer: str


@dataclass
class MapsWanted(Message):
    """All maps of the selected layer are to be compared with those of the second checkpoint, or no more."""

    on: bool


@dataclass
class BlockChosen(Message):
    """The whole block of the selected layer is to be shown, or the layer again."""

    on: bool
