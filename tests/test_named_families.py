"""What names say of the well-known families, against what their modules do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from specinspect.architecture import read_architecture
from specinspect.architecture.norms import identify_norm
from specinspect.checkpoint import from_module, from_state_dict
from specinspect.layers import Layer, apply_facts, discover, with_architecture
from specinspect.layers.blocks import (
    Activate,
    Block,
    BlockDiscovery,
    Factor,
    Normalize,
    block_tensors,
    discover_blocks,
)
from specinspect.layers.blocks.model import Apply
from specinspect.maps.blocks import Branch, build_branch
from tests.layers.families import CONVNEXTS, RESNETS, InOrder, Mlp, RootMeanSquare, Scaled, randomise
from tests.test_jacobians import block_of, check, sample

State = Mapping[str, Tensor]


def state_of(model: nn.Module, *, ordered: bool = True) -> State:
    state = {name: t for name, t in model.state_dict().items() if "num_batches" not in name}
    # safetensors sorts the names.
    return state if ordered else dict(sorted(state.items()))


def named(
    state: State, config: Mapping[str, Any] | None = None
) -> tuple[dict[str, Layer], BlockDiscovery, Callable[[Block, int], Branch]]:
    """Return layers and blocks by names alone, and a function that builds a block."""
    checkpoint = replace(from_state_dict(state), config=config or {})
    layers = {layer.name: layer for layer in apply_facts(discover(checkpoint), checkpoint).layers}
    found = discover_blocks(tuple(layers.values()), config=config, tensors=checkpoint.tensors)

    def build(block: Block, grid: int) -> Branch:
        needed = block_tensors(block, layers, checkpoint.tensors)
        return build_branch(block, layers, lambda n: checkpoint.read(n).detach(), frozenset(needed), grid)

    return layers, found, build


def traced_blocks(model: nn.Module) -> tuple[Block, ...]:
    architecture = read_architecture(model)
    checkpoint = with_architecture(from_module(model), architecture)
    layers = apply_facts(discover(checkpoint), checkpoint, architecture=architecture).layers
    return discover_blocks(layers, architecture=architecture, tensors=checkpoint.tensors).blocks


def without_sources(factors: tuple[Factor, ...]) -> list[object]:
    """What a branch does, whoever told it."""
    found: list[object] = []
    for factor in factors:
        if isinstance(factor, Normalize):
            found.append((factor.norm.kind, factor.norm.name, factor.norm.eps, factor.gain_only))
        elif isinstance(factor, Activate):
            found.append(factor.activation.name)
        else:
            found.append(factor.layer if isinstance(factor, Apply) else factor)
    return found


FAMILIES = {**{f"convnext {name}": make for name, make in CONVNEXTS.items()}, **RESNETS}


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_activations_strides_and_norms(family: str, ordered: bool) -> None:
    model = FAMILIES[family]().eval()
    layers, _, _ = named(state_of(model, ordered=ordered))
    traced = read_architecture(model)
    assert traced.traced
    modules = dict(model.named_modules())
    assert set(layers) == {n for n, m in modules.items() if isinstance(m, nn.Conv2d | nn.Linear)}
    for name, layer in layers.items():
        module = modules[name]
        norm = traced.normalizations.get(name)
        batch = norm if norm is not None and isinstance(modules[norm], nn.BatchNorm2d) else None
        # What follows DenseNet's concatenations is several things.
        if family != "densenet" or name == "features.conv0":
            assert layer.activation.name == traced.activations[name].name, name
            assert batch is None or (layer.normalization and layer.normalization.name == batch), name
        if isinstance(module, nn.Conv2d):
            assert layer.conv is not None
            assert layer.conv.stride.value == module.stride, name
            assert layer.conv.stride.source == "assumed"
            assert layer.conv.groups.value == module.groups
            if max(module.stride) > 1:
                assert any(sentence.startswith("stride ") for sentence in layer.assumptions)


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "densenet"])
def test_blocks_are_those_of_the_model(family: str, ordered: bool) -> None:
    model = FAMILIES[family]().eval()
    _, found, _ = named(state_of(model, ordered=ordered))
    assert not found.notes
    theirs = {block.layers: block for block in traced_blocks(model)}
    assert [block.layers for block in found.blocks] == list(theirs)
    for block in found.blocks:
        other = theirs[block.layers]
        assert without_sources(block.factors) == without_sources(other.factors)
        assert without_sources(block.shortcut.factors) == without_sources(other.shortcut.factors)
        assert block.shortcut.kind == other.shortcut.kind
        assert (block.after and block.after.name) == (other.after and other.after.name)
        assert block.source == "assumed"


@pytest.mark.parametrize("family", CONVNEXTS)
def test_convnext_blocks_have_the_jacobian_of_the_module(family: str) -> None:
    model = randomise(CONVNEXTS[family]())
    _, found, build = named(state_of(model))
    assert len(found.blocks) in {3, 4}
    block = found.blocks[0]
    module = model.get_submodule(block.name)
    assert any("ε = 1e-06" in sentence for sentence in block.assumptions)

    def whole(x: Tensor) -> Tensor:
        return module(x[None])[0]

    check(build(block, 7), sample(4, 7, 7), lambda x: whole(x) - x, whole)


@pytest.mark.parametrize("bottleneck", [False, True])
@pytest.mark.parametrize("place", [0, 2])
def test_transformers_resnet_blocks_have_the_jacobian_of_the_module(bottleneck: bool, place: int) -> None:
    model = randomise(RESNETS[f"transformers {'bottleneck' if bottleneck else 'basic'}"]())
    _, found, build = named(state_of(model))
    block = found.blocks[place]
    module: Any = model.get_submodule(block.name)
    assert any(s.startswith("stride 2 of") for s in block.assumptions) == (place == 2)

    def inner(x: Tensor) -> Tensor:
        return module.layer(x[None])[0]

    branch = build(block, 4)
    x = sample(branch.channels, 4, 4)
    check(branch, x, inner, lambda x: inner(x) + module.shortcut(x[None])[0])


def test_without_layer_scale() -> None:
    model = randomise(CONVNEXTS["facebook"]())
    state = {name: t for name, t in state_of(model).items() if not name.endswith("gamma")}
    _, found, build = named(state)
    block = found.blocks[0]
    module: Any = model.get_submodule(block.name)
    module.gamma.data.fill_(1.0)
    check(build(block, 7), sample(4, 7, 7), lambda x: module(x[None])[0] - x, lambda x: module(x[None])[0])


def test_global_response_normalisation_makes_no_block_and_says_so() -> None:
    state = dict(state_of(CONVNEXTS["facebook"]()))
    for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
        for leaf in ("gamma", "beta"):
            state[f"stages.{i}.{j}.grn.{leaf}"] = torch.ones(1, 1, 1, 12)
    _, found, _ = named(state)
    assert not found.blocks
    (note,) = found.notes
    assert note == (
        "no block 'stages.0.0' and 3 more: the global response normalisation stages.0.0.grn has no map here"
    )


SCALES = ("ls2.gamma", "ls_2.gamma", "ls2", "gamma_2", "lambda_2", "layer_scale2.lambda1", "layer_scale_2")


class VisionBlock(nn.Module):
    """A transformer block with a layer scale on each branch."""

    def __init__(self, scale: str) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(8), nn.LayerNorm(8)
        self.attn = InOrder(qkv=nn.Linear(8, 24), proj=nn.Linear(8, 8))
        self.mlp = Mlp(8)
        for number in ("1", "2"):
            path, _, leaf = scale.replace("2", number, 1).rpartition(".")
            if path:
                self.add_module(path, Scaled(leaf))
            else:
                self.register_parameter(leaf, nn.Parameter(torch.ones(8)))

    def scale(self, name: str) -> Tensor:
        return self.get_parameter(name)


@pytest.mark.parametrize("scale", SCALES)
def test_layer_scale_is_folded_into_both_branches(scale: str) -> None:
    net = VisionBlock(scale)
    model = randomise(nn.ModuleDict({"blocks": nn.ModuleList([net])}))
    _, found, build = named(state_of(model), {"num_attention_heads": 2})
    blocks = {block.kind: block for block in found.blocks}
    assert set(blocks) == {"mlp", "attention-vo"}

    def mlp(x: Tensor) -> Tensor:
        return net.scale(scale) * net.mlp(x * net.norm2.weight + net.norm2.bias)

    check(build(blocks["mlp"], 1), sample(8), mlp, lambda x: x + mlp(x))

    def attention(x: Tensor) -> Tensor:
        value = net.attn.get_submodule("qkv")(x * net.norm1.weight + net.norm1.bias)[16:]
        return net.scale(scale.replace("2", "1", 1)) * net.attn.get_submodule("proj")(value)

    check(build(blocks["attention-vo"], 1), sample(8), attention, lambda x: x + attention(x))


class Pair(nn.Module):
    """x + γ·fc2(gelu(fc1(norm(x)))), the norm under any name."""

    def __init__(self, norm: str, *, first: bool = True, last: bool = False, scale: bool = False) -> None:
        super().__init__()
        if first:
            self.add_module(norm, nn.LayerNorm(8))
        self.fc1, self.fc2 = nn.Linear(8, 12), nn.Linear(12, 8)
        if last:
            self.add_module(norm, nn.LayerNorm(8))
        if scale:
            self.gamma = nn.Parameter(torch.ones(8))


def only(model: nn.Module, *, ordered: bool = True) -> tuple[Block, Callable[[Block, int], Branch]]:
    # Nothing in a sorted file tells what comes first.
    _, found, build = named(state_of(model, ordered=ordered))
    (block,) = found.blocks
    return block, build


def test_a_scale_in_a_module_with_one_branch() -> None:
    net: Any = Pair("norm2", scale=True)
    model = randomise(nn.Sequential(nn.Linear(8, 8), net))
    block, build = only(model)
    assert "scaled by 1.gamma at its end, by that name" in block.assumptions

    def inner(x: Tensor) -> Tensor:
        x = x * net.norm2.weight + net.norm2.bias
        return net.gamma * net.fc2(F.gelu(net.fc1(x)))

    # By name this is no GELU network; its ReLU is assumed and said.
    def relu(x: Tensor) -> Tensor:
        x = x * net.norm2.weight + net.norm2.bias
        return net.gamma * net.fc2(F.relu(net.fc1(x)))

    names = [f.activation.name for f in block.factors if isinstance(f, Activate)]
    right = {"relu": relu, "gelu": inner}[names[0]]
    check(build(block, 1), sample(8), right, lambda x: x + right(x))


def test_a_scale_beside_two_branches_is_left_out_and_said() -> None:
    net = VisionBlock("ls2.gamma")
    del net.ls1, net.ls2
    net.gamma = nn.Parameter(torch.ones(8))
    model = nn.ModuleDict({"blocks": nn.ModuleList([net])})
    _, found, _ = named(state_of(model))
    for block in found.blocks:
        assert any(
            s == "blocks.0.gamma left out: nothing tells which branch it scales" for s in block.assumptions
        )


@pytest.mark.parametrize("word", ["ln", "norm", "layer_norm"])
def test_a_norm_of_any_name_by_its_place_in_the_file(word: str) -> None:
    net = Pair(word)
    block, build = only(randomise(nn.Sequential(nn.Linear(8, 8), net)))
    norm: Any = net.get_submodule(word)
    assert f"1.{word} taken to stand in front of it: as in the file" in block.assumptions
    name = next(f.activation.name for f in block.factors if isinstance(f, Activate))
    act: Any = {"relu": F.relu, "gelu": F.gelu}[name]

    def inner(x: Tensor) -> Tensor:
        return net.fc2(act(net.fc1(x * norm.weight + norm.bias)))

    check(build(block, 1), sample(8), inner, lambda x: x + inner(x))

    behind, _ = only(nn.Sequential(nn.Linear(8, 8), Pair(word, first=False, last=True)))
    assert f"1.{word} taken to follow the sum: as in the file" in behind.assumptions
    assert not any(isinstance(factor, Normalize) for factor in behind.factors)

    unknown, _ = only(nn.Sequential(nn.Linear(8, 8), Pair(word)), ordered=False)
    assert not any(isinstance(factor, Normalize) for factor in unknown.factors)
    assert any(s.startswith(f"gain of 1.{word} left out: nothing tells") for s in unknown.assumptions)


class Gated(nn.Module):
    """x + down(silu(gate(norm(x)))·up(norm(x)))."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.ln = norm
        self.mlp = nn.ModuleDict(
            {
                "gate_proj": nn.Linear(8, 12, bias=False),
                "up_proj": nn.Linear(8, 12, bias=False),
                "down_proj": nn.Linear(12, 8, bias=False),
            }
        )

    def inner(self, x: Tensor) -> Tensor:
        gate, up, down = self.mlp.values()
        return down(F.silu(gate(x)) * up(x))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(self.ln(x))


@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_a_norm_that_its_class_does_not_give_away_is_known_by_its_values(offset: float) -> None:
    net = Gated(RootMeanSquare(8, offset))
    model = randomise(nn.Sequential(nn.Linear(8, 8), net))
    architecture = read_architecture(model)
    assert not architecture.notes
    assert architecture.activations["0"].name == "identity"
    assert architecture.normalizations["0"] == "1.ln"
    found, branch = block_of(model, "1")
    assert found.source == "model"
    gain = net.ln.get_parameter("weight") + offset
    check(branch, sample(8), lambda x: net.inner(gain * x), lambda x: x + net.inner(gain * x))
    # By names alone the same block, but for what is added to the gain.
    block, build = only(model)
    plain = net.ln.get_parameter("weight")
    check(build(block, 1), sample(8), lambda x: net.inner(plain * x), lambda x: x + net.inner(plain * x))


class Inside(nn.Module):
    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.first, self.ln, self.second = nn.Linear(8, 8), norm, nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.relu(self.ln(self.first(x))))


class ByHand(nn.Module):
    """Layer normalisation written out, with an ε that is no attribute."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma, self.beta = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        x = x - x.mean(-1, keepdim=True)
        return self.gamma * x / (x.square().mean(-1, keepdim=True) + 0.02).sqrt() + self.beta


@pytest.mark.parametrize(
    "make", [lambda: RootMeanSquare(8, 1.0, 0.05), lambda: ByHand(8), lambda: nn.RMSNorm(8)]
)
def test_a_norm_inside_a_branch_has_its_own_jacobian(make: Callable[[], nn.Module]) -> None:
    model = randomise(nn.Sequential(nn.Linear(8, 8), Inside(make()), nn.Linear(8, 8)))
    _, branch = block_of(model, "1")
    inside = model.get_submodule("1")
    check(branch, sample(8), lambda x: inside(x) - x, inside)


class UnbiasedDeviation(ByHand):
    def forward(self, x: Tensor) -> Tensor:
        return self.gamma * (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-6) + self.beta


class OnlyAffine(ByHand):
    def forward(self, x: Tensor) -> Tensor:
        return self.gamma * x + self.beta


@pytest.mark.parametrize("kind", [UnbiasedDeviation, OnlyAffine])
def test_what_computes_something_else_is_no_norm(kind: type[ByHand]) -> None:
    assert identify_norm(kind(8)) is None


def test_the_mean_square_of_an_output_is_no_activation() -> None:
    class WrittenOut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.before, self.mlp = nn.Linear(8, 8), Mlp(8)

        def forward(self, x: Tensor) -> Tensor:
            x = self.before(x)
            return x + self.mlp(x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))

    architecture = read_architecture(WrittenOut())
    assert architecture.activations["before"].name == "identity"
    assert not any("differs between its uses" in note for note in architecture.notes)


@pytest.mark.parametrize("gated", [False, True])
def test_an_activation_that_is_not_known_leaves_out_the_block_and_says_so(gated: bool) -> None:
    model: nn.Module = nn.ModuleDict({"layers": nn.ModuleList([VisionBlock("ls2") for _ in range(2)])})
    if gated:
        model = nn.ModuleDict({"layers": nn.ModuleList([Gated(nn.RMSNorm(8)) for _ in range(2)])})
    name = "layers.0.mlp"
    _, known, _ = named(state_of(model), {"hidden_act": "gelu"})
    assert name in {block.name for block in known.blocks}
    _, found, _ = named(state_of(model), {"hidden_act": "wavelet"})
    assert name not in {block.name for block in found.blocks}
    assert found.notes == (
        f"no block '{name}' and 1 more: the derivative of wavelet, the activation inside, is not known here",
    )


class OwnMlp(nn.Module):
    """As Gemma 2 and OLMo 2 have it: a normalisation in front of and one behind the MLP."""

    def __init__(self, *, first: bool) -> None:
        super().__init__()
        if first:
            self.pre_feedforward_layernorm = RootMeanSquare(8, 1.0, 1e-5)
        self.post_attention_layernorm = RootMeanSquare(8, 1.0, 1e-5)
        self.post_feedforward_layernorm = RootMeanSquare(8, 1.0, 1e-5)
        self.mlp = Gated(nn.Identity()).mlp

    def inner(self, x: Tensor) -> Tensor:
        gate, up, down = self.mlp.values()
        return self.post_feedforward_layernorm(down(F.gelu(gate(x), approximate="tanh") * up(x)))


@pytest.mark.parametrize("first", [True, False])
def test_a_normalisation_at_the_end_of_the_branch(first: bool) -> None:
    net = OwnMlp(first=first)
    model = randomise(nn.ModuleDict({"layers": nn.ModuleList([net])}))
    config = {"model_type": "gemma2", "hidden_activation": "gelu_pytorch_tanh", "rms_norm_eps": 1e-5}
    _, found, build = named(state_of(model, ordered=False), config)
    (block,) = found.blocks
    gain = net.pre_feedforward_layernorm.weight + 1 if first else torch.ones(8)
    check(build(block, 1), sample(8), lambda x: net.inner(gain * x), lambda x: x + net.inner(gain * x))


def test_a_normalisation_of_the_hidden_units() -> None:
    net: Any = VisionBlock("ls2")
    net.mlp.norm = nn.LayerNorm(12)
    model = randomise(nn.ModuleDict({"blocks": nn.ModuleList([net])}))
    _, found, build = named(state_of(model))
    block = next(block for block in found.blocks if block.kind == "mlp")
    assert "ε = 1e-05 of blocks.0.mlp.norm assumed: not stored in the checkpoint" in block.assumptions

    def inner(x: Tensor) -> Tensor:
        x = x * net.norm2.weight + net.norm2.bias
        return net.scale("ls2") * net.mlp.fc2(net.mlp.norm(net.mlp.act(net.mlp.fc1(x))))

    check(build(block, 1), sample(8), inner, lambda x: x + inner(x))


def test_more_layers_inside_an_mlp_make_no_block_and_that_is_said() -> None:
    net = VisionBlock("ls2")
    net.mlp.dwconv = nn.Conv2d(12, 12, 3, padding=1, groups=12)  # PVT, between the two
    _, found, _ = named(state_of(nn.ModuleDict({"blocks": nn.ModuleList([net])})))
    assert all(block.kind != "mlp" for block in found.blocks)
    assert found.notes == ("no block 'blocks.0.mlp': blocks.0.mlp.dwconv stands inside it, too",)


@pytest.mark.parametrize(("layer", "first"), [("layers.0", "norm1"), ("h.0", "self_attn_layer_norm")])
def test_norms_that_may_stand_before_or_after_are_named(layer: str, first: str) -> None:
    """torch's encoder layers normalise after the sum unless told otherwise; BART after, OPT before."""
    torch_layer = first == "norm1"
    one, two = ("linear1", "linear2") if torch_layer else ("fc1", "fc2")
    last = "norm2" if torch_layer else "final_layer_norm"
    state = {f"{layer}.{name}.{leaf}": torch.ones(8) for name in (first, last) for leaf in ("weight", "bias")}
    state |= {f"{layer}.{one}.weight": torch.randn(12, 8), f"{layer}.{two}.weight": torch.randn(8, 12)}
    state[f"{layer}.self_attn.q_proj.weight"] = torch.randn(8, 8)
    _, found, _ = named(state)
    block = next(block for block in found.blocks if block.kind == "mlp")
    assert not any(isinstance(factor, Normalize) for factor in block.factors)
    both = f"{layer}.{first} and {layer}.{last}"
    assert any(sentence.startswith((both, f"gain of {both} left out")) for sentence in block.assumptions)


@pytest.mark.parametrize("t5", [True, False])
def test_a_single_norm_beside_both_branches(t5: bool) -> None:
    """T5 lists the norm in front last; in GPT-J, attention and MLP read the output of the same one."""
    if t5:
        state = {
            "block.0.layer.1.DenseReluDense.wi.weight": torch.randn(12, 8),
            "block.0.layer.1.DenseReluDense.wo.weight": torch.randn(8, 12),
            "block.0.layer.1.layer_norm.weight": torch.rand(8),
        }
    else:
        state = {
            "h.0.ln_1.weight": torch.rand(8),
            "h.0.ln_1.bias": torch.rand(8),
            "h.0.attn.out_proj.weight": torch.randn(8, 8),
            "h.0.mlp.fc_in.weight": torch.randn(12, 8),
            "h.0.mlp.fc_out.weight": torch.randn(8, 12),
        }
    _, found, build = named({name: t.double() for name, t in state.items()}, {"hidden_act": "relu"})
    (block,) = [block for block in found.blocks if block.kind == "mlp"]
    names = (
        ["layer_norm", "DenseReluDense.wi", "DenseReluDense.wo"]
        if t5
        else ["ln_1", "mlp.fc_in", "mlp.fc_out"]
    )
    lead = "block.0.layer.1" if t5 else "h.0"
    gain, one, two = (state[f"{lead}.{name}.weight"].double() for name in names)
    shift = torch.zeros(8) if t5 else state["h.0.ln_1.bias"].double()

    def inner(x: Tensor) -> Tensor:
        return two @ F.relu(one @ (gain * x + shift))

    check(build(block, 1), sample(8), inner, lambda x: x + inner(x))


def test_an_adapter_inside_an_mlp_is_no_further_layer() -> None:
    state = dict(state_of(nn.ModuleDict({"blocks": nn.ModuleList([VisionBlock("ls2")])})))
    state |= {
        "blocks.0.mlp.fc1.lora_A.weight": torch.randn(2, 8),
        "blocks.0.mlp.fc1.lora_B.weight": torch.randn(12, 2),
    }
    layers, found, _ = named(state)
    assert "lora" in {layer.kind for layer in layers.values()}
    assert "blocks.0.mlp" in {block.name for block in found.blocks}
