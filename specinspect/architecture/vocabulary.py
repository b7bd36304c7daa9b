"""The spellings of torch: which functions, methods and modules do what to data."""

from __future__ import annotations

from torch import fx, nn
from torch._ops import OpOverload

PASS_MODULES = (
    nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout,
    nn.FeatureAlphaDropout,
)  # fmt: skip
LINEAR_MODULES = frozenset(
    f"torch.nn.modules.{name}" for name in ("padding", "upsampling", "pixelshuffle", "fold", "channelshuffle")
)
"""Files of torch whose modules are fixed linear maps."""
LAYER_MODULES = (nn.Linear, nn.modules.conv._ConvNd, nn.Embedding, nn.EmbeddingBag)
PASS = frozenset({
    "dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout", "contiguous",
    "clone", "detach", "alias", "_to_copy", "to", "float", "half", "double", "bfloat16", "type", "type_as",
    "cuda", "cpu", "requires_grad", "stochastic_depth", "drop_path", "positive", "checkpoint", "identity",
})  # fmt: skip
PARTS = frozenset({"chunk", "split", "unbind", "tensor_split", "hsplit", "vsplit", "split_with_sizes"})
RESHAPE = frozenset({
    "view", "reshape", "flatten", "unflatten", "permute", "transpose", "swapaxes", "swapdims", "movedim",
    "moveaxis", "squeeze", "unsqueeze", "t", "T", "mT", "rearrange", "view_as", "reshape_as", "_unsafe_view",
})  # fmt: skip
LINEAR = frozenset({
    "pad", "interpolate", "upsample", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "roll", "flip",
    "masked_fill", "index_select", "select", "slice", "narrow", "getitem", "unfold", "fold", "expand",
    "expand_as", "repeat", "repeat_interleave", "sum", "tril", "triu", "gather", "setitem",
})  # fmt: skip
PLAIN = frozenset({
    "size", "dim", "numel", "ndimension", "get_device", "is_floating_point", "is_contiguous", "stride", "len",
    "_assert", "_assert_is_none", "zeros_like", "ones_like", "empty_like", "full_like", "rand_like",
    "randn_like", "new_zeros", "new_ones", "new_empty", "new_full", "new_tensor", "isinstance",
    "element_size", "_assert_tensor_metadata", "_assert_scalar", "sym_size",
})  # fmt: skip
"""What gives no data: sizes, and tensors that take nothing but their size from another."""
ATTRIBUTES = frozenset({"data", "T", "mT", "H", "mH", "real"})
"""Attributes of a tensor that are data; all others (shape, dtype, device) are not."""
VIEWS = RESHAPE | {"contiguous", "to", "type_as", "float", "expand", "expand_as", "getitem"}
LAYERS = frozenset({
    "linear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d",
    "embedding", "embedding_bag", "matmul", "mm", "bmm", "addmm", "einsum", "tensordot", "baddbmm",
})  # fmt: skip
PRODUCTS = frozenset({"matmul", "mm", "bmm", "baddbmm", "einsum"})
NORMS = frozenset({
    "batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm",
    "_native_batch_norm_legit_no_training",
})  # fmt: skip
POOLS = frozenset({
    "mean",
    *(f"{kind}_pool{n}d" for kind in ("avg", "max", "adaptive_avg", "adaptive_max", "lp") for n in (1, 2, 3)),
})  # fmt: skip
ADD = frozenset({"add", "sub", "subtract", "isub", "iadd"})
MUL = frozenset({"mul", "multiply", "imul", "div", "divide", "truediv", "true_divide", "itruediv"})
POOL_PARAMETERS = ("kernel_size", "stride", "padding", "output_size", "ceil_mode", "count_include_pad")


def call_name(node: fx.Node) -> str:
    """Return the name of a called function or method, without the underscore of in-place ones.

    Exported graphs call overloads (aten.add_.Tensor), which go by the name of what they overload.
    """
    if isinstance(node.target, OpOverload):
        return node.target._schema.name.rpartition("::")[2].rstrip("_")
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
    if node.op == "call_function" and name == "getattr" and len(node.args) > 1:
        name = str(node.args[1])
    stripped = name.rstrip("_")
    return name if name.startswith("__") or not stripped else stripped
