"""The format of a file, from its bytes; the extension is never asked."""

from __future__ import annotations

from specinspect.checkpoint.files import file_size, open_regular
from specinspect.checkpoint.text import quote
from specinspect.errors import CheckpointError

HEAD = 512
_LEGACY_PROTOCOL_0 = b"L119547037146038801333356L\n"
_EXPECTED = "expected safetensors, a torch file (zip or legacy), TorchScript, .pt2, .npz or *.index.json"
_CONVERT = "convert it to safetensors first"

_FOREIGN = (
    (b"GGUF", "a GGUF file", _CONVERT),
    (b"ggml", "a GGML file", _CONVERT),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file (Keras)", _CONVERT),
    (b"\x93NUMPY", "a single .npy array", "save it with numpy.savez"),
    (b"\x1f\x8b", "a gzip archive", "unpack it and give what is inside"),
    (b"BZh", "a bzip2 archive", "unpack it and give what is inside"),
    (b"\xfd7zXZ\x00", "an xz archive", "unpack it and give what is inside"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive", "unpack it and give what is inside"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it and give what is inside"),
    (
        b"version https://git-lfs.github.com/spec",
        "a git-lfs pointer, not the file itself",
        "run git lfs pull",
    ),
    (b"PK\x05\x06", "an empty zip archive", "fetch or save it again"),
    (b"\x7fELF", "a program", "give a checkpoint"),
)


def detect(path: str) -> str:
    """Return 'safetensors', 'zip', 'legacy' or 'json'.

    Raises:
        CheckpointError: empty, or a format that is not read here, which is named.
    """
    with open_regular(path) as file:
        size = file_size(file)
        head = file.read(HEAD)
        if size > 8:
            file.seek(-8, 2)
        tail = file.read(8)
    if not head:
        raise CheckpointError(f"{quote(path)}: {_EXPECTED}, found an empty file", "fetch or save it again")
    if head.startswith((b"PK\x03\x04", b"PK\x06\x06")):
        return "zip"
    if (head[0] == 0x80 and len(head) > 1 and 2 <= head[1] <= 5) or head.startswith(_LEGACY_PROTOCOL_0):
        return "legacy"
    if head[8:9] == b"{" and not _is_text(head[:8]):
        return "safetensors"
    if head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{") and _is_text(head):
        return "json"
    found, hint = _foreign(head, tail)
    raise CheckpointError(f"{quote(path)}: {_EXPECTED}, found {found}", hint)


def _foreign(head: bytes, tail: bytes) -> tuple[str, str]:
    for magic, found, hint in _FOREIGN:
        if head.startswith(magic):
            return found, hint
    if head[257:262] == b"ustar":
        if head.startswith((b"storages\x00", b"sys_info\x00", b"tensors\x00", b"pickle\x00")):
            return "a tar-format torch file (before torch 0.1.10)", "load it with torch and save it again"
        return "a tar archive", "unpack it and give what is inside"
    if head[4:8] == b"TFL3":
        return "a TensorFlow Lite model", _CONVERT
    if tail == b"\x57\xfb\x80\x8b\x24\x75\x47\xdb":
        return "the index of a TensorFlow checkpoint", _CONVERT
    if head[:1] == b"\x08" and (b"pytorch" in head[:64] or b"onnx" in head or b"\x12" in head[2:4]):
        return "what looks like an ONNX or TensorFlow graph (protobuf)", _CONVERT
    if _is_text(head):
        start = head.lstrip().lower()
        if start.startswith((b"<!doctype", b"<html", b"<?xml")):
            return "a web page", "the download was answered with a page: fetch the file again"
        return "text", "check the path"
    return f"unknown bytes that start with {head[:8].hex(' ')}", "fetch or save it again"


def _is_text(data: bytes) -> bool:
    """Whether bytes read as text; a character that is cut at the end is no objection."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(data) - 3:
            return False
        text = data[: error.start].decode("utf-8")
    return bool(text) and all(
        char.isprintable() or char in "\t\n\r\f" for char in text.removeprefix("\ufeff")
    )
