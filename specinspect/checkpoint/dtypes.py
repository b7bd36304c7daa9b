"""The names that torch, safetensors, numpy and torch.export give to the dtypes of `ITEMSIZE`."""

from __future__ import annotations

from collections.abc import Mapping

TORCH: Mapping[str, str] = {
    "float64": "f64", "double": "f64", "float32": "f32", "float": "f32", "float16": "f16", "half": "f16",
    "bfloat16": "bf16", "float8_e4m3fn": "f8_e4m3", "float8_e5m2": "f8_e5m2",
    "int64": "i64", "long": "i64", "int32": "i32", "int": "i32", "int16": "i16", "short": "i16", "int8": "i8",
    "uint64": "u64", "uint32": "u32", "uint16": "u16", "uint8": "u8", "bool": "bool",
    "complex64": "c64", "cfloat": "c64", "complex128": "c128", "cdouble": "c128",
}  # fmt: skip
"""Attribute of torch → short name."""

TO_TORCH: Mapping[str, str] = {
    "f64": "float64", "f32": "float32", "f16": "float16", "bf16": "bfloat16",
    "f8_e4m3": "float8_e4m3fn", "f8_e5m2": "float8_e5m2",
    "i64": "int64", "i32": "int32", "i16": "int16", "i8": "int8",
    "u64": "uint64", "u32": "uint32", "u16": "uint16", "u8": "uint8", "bool": "bool",
    "c64": "complex64", "c128": "complex128",
}  # fmt: skip
"""Short name → attribute of torch."""

TORCH_STORAGES: Mapping[str, str] = {
    "DoubleStorage": "f64", "FloatStorage": "f32", "HalfStorage": "f16", "BFloat16Storage": "bf16",
    "LongStorage": "i64", "IntStorage": "i32", "ShortStorage": "i16", "CharStorage": "i8",
    "ByteStorage": "u8", "BoolStorage": "bool", "ComplexFloatStorage": "c64", "ComplexDoubleStorage": "c128",
    "UntypedStorage": "u8",
}  # fmt: skip
"""Storage class of torch → short name of its elements."""

QUANTISED_STORAGES: Mapping[str, int] = {
    "QInt8Storage": 1, "QUInt8Storage": 1, "QInt32Storage": 4, "QUInt4x2Storage": 1, "QUInt2x4Storage": 1,
}  # fmt: skip
"""Storage class of quantised tensors → bytes per element, which legacy files need to find the next one."""

SAFETENSORS: Mapping[str, str] = {
    "F64": "f64", "F32": "f32", "F16": "f16", "BF16": "bf16", "F8_E4M3": "f8_e4m3", "F8_E5M2": "f8_e5m2",
    "I64": "i64", "I32": "i32", "I16": "i16", "I8": "i8",
    "U64": "u64", "U32": "u32", "U16": "u16", "U8": "u8", "BOOL": "bool", "C64": "c64",
}  # fmt: skip
"""Header name → short name."""

NUMPY: Mapping[str, str] = {
    "f8": "f64", "f4": "f32", "f2": "f16", "i8": "i64", "i4": "i32", "i2": "i16", "i1": "i8",
    "u8": "u64", "u4": "u32", "u2": "u16", "u1": "u8", "b1": "bool", "c8": "c64", "c16": "c128",
}  # fmt: skip
"""Kind and size of an array-interface type string → short name."""

TORCH_EXPORT: Mapping[int, str] = {
    1: "u8", 2: "i8", 3: "i16", 4: "i32", 5: "i64", 6: "f16", 7: "f32", 8: "f64", 10: "c64", 11: "c128",
    12: "bool", 13: "bf16", 28: "u16", 29: "f8_e4m3", 30: "f8_e5m2", 34: "u32", 35: "u64",
}  # fmt: skip
"""ScalarType number of torch.export's schema → short name."""
