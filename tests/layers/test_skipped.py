from __future__ import annotations

from specinspect.checkpoint.model import Checkpoint
from specinspect.checkpoint.tensors import InMemory, TensorInfo
from specinspect.layers import discover
from tests.layers.build import Header, by_name, find, reasons

OK: dict[str, Header] = {"head.weight": (4, 4)}


def test_gptq_and_awq() -> None:
    found = find(
        {**OK, "q.qweight": ("i32", (8, 16)), "q.qzeros": ("i32", (1, 2)), "q.scales": ("f16", (1, 16)),
         "q.g_idx": ("i32", (64,)), "q.bias": ("f16", (16,)), "v.qweight": ("i32", (8, 2)),
         "v.scales": ("f16", (1, 16))}
    )  # fmt: skip
    assert [layer.name for layer in found.layers] == ["head"]
    skipped = reasons(found)
    assert {skipped[f"q.{x}"] for x in ("qweight", "qzeros", "scales", "g_idx")} == {
        "GPTQ packed weight of q: not unpacked"
    }
    assert skipped["q.bias"] == "bias of q"
    assert skipped["v.scales"] == "GPTQ or AWQ packed weight of v: not unpacked"


def test_bitsandbytes() -> None:
    found = find(
        {**OK, "q.weight": ("u8", (128, 1)), "q.weight.absmax": (4,), "q.weight.quant_map": (16,),
         "q.weight.quant_state.bitsandbytes__nf4": ("u8", (90,)),
         "p.weight": ("i8", (16, 16)), "p.SCB": (16,)}
    )  # fmt: skip
    skipped = reasons(found)
    four = "bitsandbytes 4-bit weight of q: not unpacked"
    assert {reason for name, reason in skipped.items() if name.startswith("q.")} == {four}
    assert skipped["p.SCB"] == "bitsandbytes 8-bit packed weight of p: not unpacked"


def test_float8_with_scales() -> None:
    found = find(
        {"a.weight": ("f8_e4m3", (8, 8)), "a.weight_scale": (), "a.input_scale": (),
         "b.weight": ("f8_e4m3", (256, 256)), "b.weight_scale_inv": (2, 2), "c.weight": ("f8_e5m2", (8, 8))}
    )  # fmt: skip
    layers = by_name(found)
    assert list(layers) == ["a", "c"]
    assert layers["a"].assumptions == (
        "stored factor weight_scale not applied: singular values are up to that factor",
    )
    assert layers["c"].assumptions == ()
    skipped = reasons(found)
    assert skipped["b.weight"] == "f8_e4m3 weight with one scale per block or channel: not rescaled"
    assert skipped["b.weight_scale_inv"] == "quantisation scale of b"


def test_other_packings() -> None:
    found = find(
        {**OK, "e.gate_blocks": ("u8", (2, 4, 2, 16)), "e.gate_scales": ("u8", (2, 4, 2)),
         "h.W_q": ("u8", (8, 8)), "h.scale": (64, 1), "h.zero": (64, 1), "c.weight_packed": ("i32", (8, 1)),
         "c.weight_scale": (8, 1), "c.weight_shape": ("i64", (2,)), "w.weight_fake_quant.scale": (1,)}
    )  # fmt: skip
    skipped = reasons(found)
    assert [layer.name for layer in found.layers] == ["head"]
    assert skipped["e.gate_blocks"] == "MXFP4 packed weight e.gate: not unpacked"
    assert skipped["h.scale"] == "HQQ packed weight of h: not unpacked"
    assert skipped["c.weight_scale"] == "compressed-tensors packed weight of c: not unpacked"
    assert skipped["w.weight_fake_quant.scale"] == "quantisation observer"


def test_dtypes_scalars_and_empty() -> None:
    found = find(
        {**OK, "a": ("i64", (3, 3)), "b": ("bool", (3, 3)), "c": ("c64", (3, 3)), "d": (0, 4), "e": (),
         "f": (7,), "rotary_emb.inv_freq": (8,), "logit_scale": (), "bn.num_batches_tracked": ("i64", ()),
         "mel_basis": (80, 513), "attn_mask": (64, 49, 49), "mixer.A_log": (16, 8)}
    )  # fmt: skip
    assert reasons(found) == {
        "a": "integers (i64)",
        "b": "mask",
        "c": "complex (c64)",
        "d": "no elements (0×4)",
        "e": "scalar",
        "f": "vector",
        "rotary_emb.inv_freq": "rotary frequencies",
        "logit_scale": "scalar",
        "bn.num_batches_tracked": "counter of batch normalisation",
        "mel_basis": "fixed filter bank",
        "attn_mask": "mask",
        "mixer.A_log": "state-space parameter",
    }


def test_tied_tensors_count_once() -> None:
    storage = InMemory(object())  # type: ignore[arg-type]
    infos = {name: TensorInfo(name, "f32", (50, 8), storage) for name in ("wte.weight", "lm_head.weight")}
    found = discover(Checkpoint("x", "memory", (), 0, infos))
    assert [layer.name for layer in found.layers] == ["wte"]
    assert reasons(found) == {"lm_head.weight": "same storage as wte.weight"}
