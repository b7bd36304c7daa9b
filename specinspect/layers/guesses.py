"""Which activation follows a layer, as far as its name and config.json tell."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from specinspect.layers.context import Context
from specinspect.layers.model import Activation, Layer
from specinspect.layers.names import join, split_name
from specinspect.layers.strides import makes_patches
from specinspect.layers.vocabulary import SLOPES, usable

Known = tuple[Activation, str]
"""An activation, and a sentence where it is a guess."""

NOTHING = "no activation assumed after it"
NOT_STORED = "activations are not stored"
_LABELS = {
    "relu": "ReLU", "relu6": "ReLU6", "gelu": "GELU", "gelu_tanh": "GELU (tanh form)", "silu": "SiLU",
    "quick_gelu": "quick GELU",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Role:
    """What layers of one name do in the families that use it."""

    usual: str
    """The activation after it; identity where none follows."""
    own: bool = False
    """Whether config.json has no say in it."""
    key: str = ""
    """Its own key in config.json."""


def _role(usual: str, pattern: str, needs: str = "", **more: Any) -> tuple[re.Pattern[str], str, Role]:
    return re.compile(rf"(?:.*\.)?(?:{pattern})", re.DOTALL), needs, Role(usual, **more)


_HALVES = "(?:gate_up_proj|gate_up|w12|up_gate_proj)"
_ROLES = (
    # BERT and its kin, ViT as transformers spells it, wav2vec 2.0
    _role("gelu", r"intermediate(?:\.dense|_dense)"),
    _role("identity", r"output(?:\.dense|_dense)"),
    _role("tanh", r"pooler\.dense|classifier\.dense", own=True),
    _role("relu", r"pre_classifier", own=True),
    _role("gelu", r"predictions\.transform\.dense|lm_head\.dense|vocab_transform"),
    _role("gelu", r"ffn\.lin1"),
    _role("identity", r"ffn\.lin2"),
    _role("gelu_tanh", r"albert_layers\.[0-9]+\.ffn"),
    _role("identity", r"ffn_output|embedding_hidden_mapping_in|embeddings_project"),
    _role("gelu", r"feature_extractor\.conv_layers\.[0-9]+\.conv", key="feat_extract_activation"),
    # GPT-2, CLIP, GPT-J, GPT-NeoX, BLOOM, Falcon
    _role("quick_gelu", r"resblocks\.[0-9]+\.mlp\.c_fc"),
    _role("gelu_tanh", r"c_fc"),
    _role("identity", r"c_proj"),
    _role("gelu", r"dense_h_to_4h"),
    _role("identity", r"dense_4h_to_h"),
    _role("gelu_tanh", r"fc_in", "block"),
    _role("identity", r"fc_out", "block"),
    # Llama, Mistral, Qwen, Gemma; T5
    _role("silu", rf"gate_proj|{_HALVES}\.gate"),
    _role("identity", rf"down_proj|{_HALVES}\.up"),
    _role("identity", r"up_proj", "gate_proj"),
    _role("relu", r"up_proj", "down_proj"),
    _role("silu", r"w1", "w2 w3"),
    _role("identity", r"w[23]", "w1 w2 w3"),
    _role("gelu_tanh", r"wi_0"),
    _role("relu", r"wi"),
    _role("identity", r"wi_1|wo"),
    # ViT as timm and torchvision spell it; OPT, BART, Phi; torch's own encoder layers
    _role("gelu", r"[0-9]+\.mlp\.fc1"),
    _role("identity", r"[0-9]+\.mlp\.fc2"),
    _role("gelu", r"fc1|mlp\.(?:0|linear_1)", "block"),
    _role("identity", r"fc2|mlp\.(?:[23]|linear_2)", "block"),
    _role("relu", r"linear1", "self_attn"),
    _role("identity", r"linear2", "self_attn"),
    _role("identity", r"patch_embed\w*(?:\..*)?|conv_proj|visual\.conv1"),
    # ConvNeXt, MobileNet, DenseNet, Inception-ResNet; transformers' ResNet
    _role("gelu", r"pwconv1"),
    _role("identity", r"pwconv2|conv_pwl"),
    _role("identity", r"dwconv", "pwconv1"),
    _role("identity", r"conv_dw", "mlp.fc1"),
    _role("gelu", r"features\.[0-9]+\.[0-9]+\.block\.3", "0 2 5"),
    _role("identity", r"features\.[0-9]+\.[0-9]+\.block\.[05]", "0 2 3 5"),
    _role("relu6", r"features\.[0-9]+\.conv\.[01]\.0"),
    _role("identity", r"features\.[0-9]+\.conv\.[0-9]+", "0.0"),
    _role("identity", r"denselayer[0-9]+\.conv2|transition[0-9]+\.conv"),
    _role("identity", r"conv2d", "branch0.conv"),
    _role("relu", r"embedder\.convolution"),
)  # fmt: skip
"""Usual activation, pattern of the end of the lower-case name, and what must stand beside it: modules of the
same parent, or 'block', an attention nearby. The first that fits counts."""

_LEVELS = 5
"""How far up a name attention is looked for."""
_ATTENTION = re.compile(r"(?:attn|attention)")
_PROJECTION = re.compile(
    r"(?:[qkvo]|[qkvo]_?proj|out_?proj|[qkvo]_lin|out_lin|query|key|value|to_(?:q|k|v|qkv|out|kv)|w[qkv]|qkv|"
    r"(?:fused_)?qkv_proj|[qk]v?_(?:up|down|a|b)_proj|kv_a_proj_with_mqa)"
)
_SHORTCUT = re.compile(r"(?:.*\.)?(?:downsampl(?:e|ing_layer)|shortcut)(?:\.[^.]+){0,2}", re.DOTALL)
_HEAD = re.compile(
    r"(?:.*\.)?(?:head|heads\.head|head\.fc|lm_head|logits|classifier|last_linear|score|qa_outputs|"
    r"seq_relationship)|fc",
    re.DOTALL,
)
_BLOCK = re.compile(r"(?:layer|stage|block|group|res)s?_?[0-9]*")
_RESIDUAL = re.compile(r"(?P<before>(?:.*\.)?(?:conv|layer\.))(?P<number>[0-9])(?P<after>(?:\.convolution)?)")

_KEYS = (
    "hidden_activation", "hidden_act", "activation_function", "dense_act_fn", "ff_activation", "activation",
    "act_fn", "afn", "mlp_hidden_act", "feed_forward_proj",
)  # fmt: skip
_FIXED = {"bloom": "gelu_tanh", "mpt": "gelu", "falcon": "gelu", "refinedweb": "gelu"}
"""Models whose config.json need not say what they always use."""
_TANH_FORM = frozenset({"gemma", "openai-gpt"})
"""Models that say gelu and mean its tanh form."""


class Guesses:
    """Answers for all layers of one checkpoint."""

    def __init__(self, context: Context, layers: tuple[Layer, ...]) -> None:
        """Look through the names once."""
        self._context = context
        self._paths: set[str] = set()
        self._blocks: set[str] = set()
        for path in context.module_paths:
            parts = path.lower().split(".")
            # Names may be made to be long: only their ends are looked at.
            near = range(max(1, len(parts) - _LEVELS), len(parts))
            self._paths |= {path.lower(), *(".".join(parts[:end]) for end in near)}
            self._blocks |= {".".join(parts[:i]) for i in near if _ATTENTION.search(parts[i])}
        hidden = [layer for layer in layers if layer.kind == "linear" or layer.conv is not None]
        plain = [layer.name for layer in hidden if layer.kind != "lora"]
        self._last = plain[-1] if plain else ""
        self._heads: dict[str, int] = {}
        for name in plain:
            parent, place = split_name(name.lower())
            if _HEAD.fullmatch(parent) and place.isdigit():
                self._heads[parent] = max(int(place), self._heads.get(parent, 0))

    def configured(self, layer: Layer) -> Known | None:
        """Return what config.json says follows a layer, None where it says nothing about it."""
        name = layer.name.lower()
        if layer.kind in {"lora", "recurrent"}:
            return None
        role = self._find(name)
        spelling = self._spelling(name, role.key if role else "")
        if not spelling:
            return None
        if layer.kind == "embedding" or (role is not None and role.usual == "identity"):
            return Activation("identity", "config"), ""
        if role is None:
            return None
        return usable(role.usual if role.own else spelling, "config")

    def named(self, layer: Layer) -> Known | None:
        """Return what usually follows a layer of this name, None where the name is no family's."""
        if layer.kind in {"lora", "recurrent", "embedding"}:
            return None
        role = Role("identity") if makes_patches(layer) else self._find(layer.name.lower())
        if role is None:
            return None
        if role.usual == "identity":
            why = ": an addition follows, by its name" if self._adds(layer.name.lower()) else ""
            return Activation("identity", "assumed"), NOTHING + why
        label = _LABELS.get(role.usual, role.usual)
        sentence = f"{label} assumed after it by its name: {NOT_STORED}"
        return Activation(role.usual, "assumed", SLOPES.get(role.usual)), sentence

    def default(self, layer: Layer) -> Known:
        """Return what is assumed where nothing is known."""
        name = layer.name.lower()
        transformer = bool(self._blocks) or bool(self._spelling(name, ""))
        hidden = layer.kind not in {"lora", "recurrent", "embedding"}
        # In a transformer every layer with an activation has a name that tells; what is left are projections.
        plain = transformer and layer.kind == "linear"
        if not hidden or plain or layer.name == self._last or self._ends(name):
            return Activation("identity", "assumed"), NOTHING
        return Activation("relu", "assumed"), f"ReLU assumed after it: {NOT_STORED}"

    def _ends(self, name: str) -> bool:
        """Say whether a layer is a network's head, or the last in a list that is called so."""
        parent, place = split_name(name)
        return _HEAD.fullmatch(name) is not None or (
            place.isdigit() and self._heads.get(parent) == int(place)
        )

    def _find(self, name: str) -> Role | None:
        if self._projects(name) or _SHORTCUT.fullmatch(name):
            return Role("identity")
        number = self._residual(name)
        if number:
            return Role("identity" if number == "last" else "relu")
        parent = split_name(name)[0]
        for needs, role in _matching(name):
            if needs == "block":
                if parent in self._blocks or split_name(parent)[0] in self._blocks:
                    return role
            elif all(join(parent, other) in self._paths for other in needs.split()):
                return role
        return None

    def _projects(self, name: str) -> bool:
        """Say whether a layer is a projection of an attention block."""
        *above, last = name.split(".")
        if _PROJECTION.fullmatch(last):
            return True
        return not last.startswith("fc") and any(_ATTENTION.search(part) for part in [*above[-3:], last])

    def _adds(self, name: str) -> bool:
        return self._residual(name) == "last"

    def _residual(self, name: str) -> str:
        """Return 'last' or 'inner' for a convolution of a residual block as ResNets call them, else ''."""
        match = _RESIDUAL.fullmatch(name)
        if match is None:
            return ""
        block = match["before"].rpartition(".")[0]
        if match["after"]:
            listed = True
        else:
            parent, last = split_name(block)
            listed = last.isdigit() and _BLOCK.fullmatch(split_name(parent)[1]) is not None
        first, number = (0, int(match["number"])) if match["after"] else (1, int(match["number"]))
        if not listed or not self._member(match, first) or not self._member(match, first + 1):
            return ""
        return "inner" if self._member(match, number + 1) else "last"

    def _member(self, match: re.Match[str], number: int) -> bool:
        return f"{match['before']}{number}{match['after']}" in self._paths

    def _spelling(self, name: str, key: str) -> str:
        """Return the activation in config.json that counts for a layer, '' without one."""
        for config in self._configs(name):
            found = _spelled(config, key)
            if found:
                return found
        return ""

    def _configs(self, name: str) -> Iterator[Mapping[str, Any]]:
        whole = self._context.config
        part = "vision_config" if "vision" in name or "visual" in name else "text_config"
        inner = whole.get(part)
        if isinstance(inner, Mapping):
            yield inner
        yield whole


@lru_cache(maxsize=4096)
def _matching(name: str) -> tuple[tuple[str, Role], ...]:
    return tuple((needs, role) for pattern, needs, role in _ROLES if pattern.fullmatch(name))


def _spelled(config: Mapping[str, Any], key: str) -> str:
    kind = config.get("model_type")
    model = kind.lower() if isinstance(kind, str) else ""
    for name in (key,) if key else _KEYS:
        value = config.get(name)
        if isinstance(value, str) and value.strip():
            spelling = value.strip().lower()
            gated = spelling.startswith("gated-")
            spelling = spelling.removeprefix("gated-")
            # T5 with gated-gelu, the first Gemma and the first GPT use the tanh form under the plain name.
            tanh = gated or (model in _TANH_FORM and name != "hidden_activation")
            return "gelu_tanh" if spelling == "gelu" and tanh else spelling
    return "" if key else _FIXED.get(model, "")
