"""Make the sample checkpoints in this directory: seeded, on one thread, in a few seconds.

    pip install torch safetensors scikit-learn
    python samples/make_samples.py

The same versions of torch and scikit-learn give the same bytes. scikit-learn is needed only here, for its
handwritten digits (1,797 images of 8×8 pixels with values from 0 to 16).
"""

# The modules below only spell out forward passes: a docstring on each would say nothing.
# ruff: noqa: D102

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

HERE = Path(__file__).resolve().parent
SEED = 0

# Every layer of sick.pt is U·diag(s)·Vᵀ, so its spectrum is known before it is measured.
SICK_WIDTH = 32
HEALTHY_SPECTRUM = (2.0, 0.5)  # largest and smallest, evenly spaced on a log axis: κ = 4
DEAD_ROW = 7  # of dead_row: the other 31 rows have HEALTHY_SPECTRUM, then one σ is exactly 0: κ = ∞
RANK = 20  # of rank_deficient: 20 values of HEALTHY_SPECTRUM, then 12 that are 0 but for float32 rounding
NEARLY_SINGULAR = 1e-5  # last σ of nearly_singular; the other 31 run from 2 to 0.5: κ = 2e5
NAN_ENTRY = (3, 5)  # of nan


class Digits(NamedTuple):
    """Images as rows of 64 pixels, and their labels, split into a training and a test part."""

    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor


def load_digits() -> Digits:
    """Return scikit-learn's digits scaled to zero mean and unit variance over all pixels."""
    from sklearn.datasets import load_digits as sklearn_digits

    data = sklearn_digits()
    images = torch.tensor(data.data, dtype=torch.float32)
    labels = torch.tensor(data.target)
    images = (images - images.mean()) / images.std()
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(SEED))
    images, labels = images[order], labels[order]
    return Digits(images[:1400], labels[:1400], images[1400:], labels[1400:])


def train(
    model: nn.Module,
    inputs: Tensor,
    *,
    loss: Callable[[Tensor], Tensor],
    steps: int,
    rate: float,
    batch: int = 64,
) -> None:
    """Run Adam; `loss` maps the indices of a batch to its loss."""
    generator = torch.Generator().manual_seed(SEED)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    model.train()
    for _ in range(steps):
        indices = torch.randint(len(inputs), (batch,), generator=generator)
        optimizer.zero_grad()
        torch.autograd.backward(loss(indices))
        optimizer.step()
    model.eval()


def accuracy(model: nn.Module, digits: Digits) -> float:
    """Return the share of test images whose label is found."""
    with torch.no_grad():
        return float((model(digits.test).argmax(1) == digits.test_labels).float().mean())


def train_classifier(model: nn.Module, digits: Digits, steps: int, rate: float) -> float:
    """Train on the digits and return the test accuracy."""

    def loss(indices: Tensor) -> Tensor:
        return F.cross_entropy(model(digits.train[indices]), digits.train_labels[indices])

    train(model, digits.train, loss=loss, steps=steps, rate=rate)
    return accuracy(model, digits)


class Mlp(nn.Module):
    """Eight hidden layers of width 64: x → relu(Wx+b), or its residual twin x → x + relu(Wx+b)."""

    def __init__(self, *, residual: bool) -> None:
        super().__init__()
        self.residual = residual
        self.hidden = nn.ModuleList(nn.Linear(64, 64) for _ in range(8))
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.hidden:
            y = F.relu(layer(x))
            x = x + y if self.residual else y
        return F.linear(x, self.head.weight, self.head.bias)


class BasicBlock(nn.Module):
    """Two 3×3 convolutions with batch norm, and a strided 1×1 shortcut where the shape changes."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = (
            nn.Sequential(nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels))
            if stride != 1 or channels_in != channels
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        return F.relu(shortcut + self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))


class ResNet(nn.Module):
    """A ResNet of three stages for 8×8 images, with torchvision's names."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(BasicBlock(16, 16, 1), BasicBlock(16, 16, 1))
        self.layer2 = nn.Sequential(BasicBlock(16, 24, 2), BasicBlock(24, 24, 1))
        self.layer3 = nn.Sequential(BasicBlock(24, 32, 2), BasicBlock(32, 32, 1))
        self.fc = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x.view(-1, 1, 8, 8))))
        x = self.layer3(self.layer2(self.layer1(x))).mean((2, 3))
        return F.linear(x, self.fc.weight, self.fc.bias)


VOCABULARY = 27  # 17 grey levels, 10 labels
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "head_dim": 16,
    "hidden_act": "silu",
    "hidden_size": 64,
    "initializer_range": 0.02,
    "intermediate_size": 128,
    "max_position_embeddings": 128,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-05,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "vocab_size": VOCABULARY,
}
HIDDEN, MLP_WIDTH, HEADS, KV_HEADS, HEAD_DIM, BLOCKS = 64, 128, 4, 2, 16, 3


class RmsNorm(nn.Module):
    """x / rms(x), scaled per channel."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(HIDDEN))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5)


def rotate(x: Tensor) -> Tensor:
    """Apply rotary position embeddings to (batch, heads, length, head_dim)."""
    half = HEAD_DIM // 2
    frequencies = 10000.0 ** (-torch.arange(half) / half)
    angles = torch.arange(x.shape[2])[:, None] * frequencies
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin()], -1)


class Attention(nn.Module):
    """Causal attention in which two query heads share one key and value head."""

    def __init__(self) -> None:
        super().__init__()
        self.q_proj = nn.Linear(HIDDEN, HEADS * HEAD_DIM, bias=False)
        self.k_proj = nn.Linear(HIDDEN, KV_HEADS * HEAD_DIM, bias=False)
        self.v_proj = nn.Linear(HIDDEN, KV_HEADS * HEAD_DIM, bias=False)
        self.o_proj = nn.Linear(HEADS * HEAD_DIM, HIDDEN, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape

        def heads(y: Tensor, count: int) -> Tensor:
            return y.view(batch, length, count, HEAD_DIM).transpose(1, 2)

        query = rotate(heads(self.q_proj(x), HEADS))
        key = rotate(heads(self.k_proj(x), KV_HEADS)).repeat_interleave(HEADS // KV_HEADS, 1)
        value = heads(self.v_proj(x), KV_HEADS).repeat_interleave(HEADS // KV_HEADS, 1)
        scores = query @ key.transpose(2, 3) / HEAD_DIM**0.5
        mask = torch.ones(length, length, dtype=torch.bool).triu(1)
        mixed = scores.masked_fill(mask, -torch.inf).softmax(-1) @ value
        return F.linear(mixed.transpose(1, 2).reshape(batch, length, -1), self.o_proj.weight)


class GatedMlp(nn.Module):
    """down(silu(gate(x)) · up(x))."""

    def __init__(self) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(HIDDEN, MLP_WIDTH, bias=False)
        self.up_proj = nn.Linear(HIDDEN, MLP_WIDTH, bias=False)
        self.down_proj = nn.Linear(MLP_WIDTH, HIDDEN, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(F.silu(self.gate_proj(x)) * self.up_proj(x), self.down_proj.weight)


class DecoderBlock(nn.Module):
    """Attention and MLP, each behind a norm and inside a skip."""

    def __init__(self) -> None:
        super().__init__()
        self.self_attn = Attention()
        self.mlp = GatedMlp()
        self.input_layernorm = RmsNorm()
        self.post_attention_layernorm = RmsNorm()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x))
        branch: Tensor = self.mlp(self.post_attention_layernorm(x))
        return x + branch


class Decoder(nn.Module):
    """What Hugging Face names `model` in a Llama checkpoint."""

    def __init__(self) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(VOCABULARY, HIDDEN)
        self.layers = nn.ModuleList(DecoderBlock() for _ in range(BLOCKS))
        self.norm = RmsNorm()

    def forward(self, tokens: Tensor) -> Tensor:
        x = F.embedding(tokens, self.embed_tokens.weight)
        for layer in self.layers:
            x = layer(x)
        return F.rms_norm(x, (HIDDEN,), self.norm.weight, 1e-5)


class Llama(nn.Module):
    """A Llama of three blocks that reads a digit pixel by pixel and then names it."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Decoder()
        self.lm_head = nn.Linear(HIDDEN, VOCABULARY, bias=False)
        for parameter in self.parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        return F.linear(self.model(tokens), self.lm_head.weight)


def make_mlps(digits: Digits) -> None:
    """Write digits_chain.pt and digits_residual.pt: the same widths, names and training."""
    for name, residual in (("digits_chain", False), ("digits_residual", True)):
        torch.manual_seed(SEED)
        model = Mlp(residual=residual)
        score = train_classifier(model, digits, steps=1500, rate=1e-3)
        torch.save(model.state_dict(), HERE / f"{name}.pt")
        print(f"{name}: test accuracy {score:.3f}")


def make_resnet(digits: Digits) -> None:
    """Write resnet_tiny.safetensors."""
    torch.manual_seed(SEED)
    model = ResNet()
    score = train_classifier(model, digits, steps=200, rate=3e-3)
    save_file(model.state_dict(), HERE / "resnet_tiny.safetensors", metadata={"format": "pt"})
    print(f"resnet_tiny: test accuracy {score:.3f}")


def make_transformer(digits: Digits) -> None:
    """Write transformer_tiny/: config, two bfloat16 shards and their index."""
    torch.manual_seed(SEED)
    model = Llama()

    def sentences(images: Tensor, labels: Tensor) -> Tensor:
        low, high = digits.train.min(), digits.train.max()
        pixels = ((images - low) / (high - low) * 16).round().long()
        return torch.cat([pixels, 17 + labels[:, None]], 1)

    train_tokens = sentences(digits.train, digits.train_labels)
    test_tokens = sentences(digits.test, digits.test_labels)

    def loss(indices: Tensor) -> Tensor:
        tokens = train_tokens[indices]
        logits = model(tokens[:, :-1])
        pixels = F.cross_entropy(logits.transpose(1, 2), tokens[:, 1:])
        label = F.cross_entropy(logits[:, -1], tokens[:, -1])
        return pixels + label

    train(model, train_tokens, loss=loss, steps=400, rate=3e-3, batch=32)
    with torch.no_grad():
        named = model(test_tokens[:, :-1])[:, -1].argmax(1)
    print(f"transformer_tiny: test accuracy {float((named == test_tokens[:, -1]).float().mean()):.3f}")

    folder = HERE / "transformer_tiny"
    folder.mkdir(exist_ok=True)
    weights = {name: value.to(torch.bfloat16).contiguous() for name, value in model.state_dict().items()}
    shards: tuple[dict[str, Tensor], dict[str, Tensor]] = ({}, {})
    for name, value in weights.items():
        first = name.startswith(("model.embed_tokens", "model.layers.0.", "model.layers.1.self_attn"))
        shards[0 if first else 1][name] = value
    weight_map = {}
    for number, shard in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file(shard, folder / file, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(shard, file))
    total = sum(value.nbytes for value in weights.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")


def make_sick() -> None:
    """Write sick.pt: healthy layers, and one layer for each illness."""
    generator = torch.Generator().manual_seed(SEED)
    n = SICK_WIDTH

    def orthonormal(rows: int, columns: int) -> Tensor:
        gaussian = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
        q: Tensor = torch.linalg.qr(gaussian)[0]
        return q

    def weight(out: int, into: int, spectrum: Tensor) -> Tensor:
        k = len(spectrum)
        return orthonormal(out, k) @ torch.diag(spectrum) @ orthonormal(into, k).T

    def healthy(k: int) -> Tensor:
        high, low = HEALTHY_SPECTRUM
        return high * (low / high) ** (torch.arange(k, dtype=torch.float64) / (k - 1))

    dead = weight(n - 1, n, healthy(n - 1))
    dead = torch.cat([dead[:DEAD_ROW], torch.zeros(1, n, dtype=torch.float64), dead[DEAD_ROW:]])
    poisoned = weight(n, n, healthy(n))
    poisoned[NAN_ENTRY] = torch.nan
    weights = {
        "healthy_in": weight(n, 64, healthy(n)),
        "nan": poisoned,
        "dead_row": dead,
        "rank_deficient": weight(n, n, healthy(RANK)),
        "nearly_singular": weight(
            n, n, torch.cat([healthy(n - 1), torch.tensor([NEARLY_SINGULAR], dtype=torch.float64)])
        ),
        "healthy_out": weight(10, n, healthy(10)),
    }
    state: dict[str, Tensor] = {}
    for name, value in weights.items():
        state[f"{name}.weight"] = value.float()
        state[f"{name}.bias"] = torch.zeros(len(value))
    torch.save(state, HERE / "sick.pt")


def main() -> int:
    """Write every sample."""
    # One thread: the order of additions, and so the last bit, must not depend on the machine's cores.
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(mode=True)
    digits = load_digits()
    make_mlps(digits)
    make_resnet(digits)
    make_transformer(digits)
    make_sick()
    return 0


if __name__ == "__main__":
    sys.exit(main())
