"""What is a layer: from names, shapes and known facts to `Layer`s, each with where its facts come from."""

from specinspect.layers.discover import Discovery, discover, select
from specinspect.layers.facts import apply_facts, with_architecture
from specinspect.layers.model import Layer
from specinspect.layers.rules import Rule, unmatched_rules

__all__ = [
    "Discovery",
    "Layer",
    "Rule",
    "apply_facts",
    "discover",
    "select",
    "unmatched_rules",
    "with_architecture",
]
