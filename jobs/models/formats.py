"""What kind of model a set of files is, and whether reading it may run code (pickle).

Decided from names, the first bytes of each file and, of a zip archive, the names of its members: enough
to refuse what says that it is a pickle, under any name. It does not replace a scanner: a pickle that is
compressed or in the text protocol is found by its name alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

Kind = Literal[
    "onnx", "torch-export", "safetensors", "skops", "mlflow", "python", "pickle", "files"
]

HEAD = 512
"""Bytes of a file that are looked at."""
_PICKLE_NAMES = frozenset(
    (".pkl", ".pickle", ".p", ".joblib", ".dill", ".cloudpickle", ".pt", ".pth", ".ckpt")
)
_TORCH_BIN = "pytorch_model"
_ZIP = b"PK\x03\x04"
_NUMPY = b"\x93NUMPY"
_BY_SUFFIX: dict[str, Kind] = {
    ".onnx": "onnx",
    ".pt2": "torch-export",
    ".safetensors": "safetensors",
    ".skops": "skops",
}
_ORDER: tuple[Kind, ...] = ("onnx", "torch-export", "skops", "safetensors")


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen of one file: its first `HEAD` bytes, and its members when it is a zip archive."""

    path: str
    head: bytes
    members: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Format:
    """`main` is the file to load; `pickles` says of each file that holds a pickle why it is one."""

    kind: Kind
    main: str | None
    pickles: tuple[tuple[str, str], ...] = ()


def classify(files: Sequence[Look]) -> Format:
    """The format of a model that consists of these files."""
    pickles = tuple((file.path, why) for file in files if (why := _why_pickle(file)) is not None)
    paths = {file.path for file in files}
    if "MLmodel" in paths:
        return Format("mlflow", "MLmodel", pickles)
    for kind in _ORDER:
        found = [path for path in sorted(paths, key=_depth) if _kind_of(path) == kind]
        if found:
            return Format(kind, found[0], pickles)
    if "predictor.py" in paths:
        return Format("python", "predictor.py", pickles)
    if pickles:
        return Format("pickle", pickles[0][0], pickles)
    return Format("files", min(paths, key=_depth) if len(paths) == 1 else None, pickles)


def _depth(path: str) -> tuple[int, str]:
    return path.count("/"), path


def _kind_of(path: str) -> Kind | None:
    return _BY_SUFFIX.get(PurePosixPath(path).suffix.lower())


def _why_pickle(file: Look) -> str | None:
    """Why reading this file unpickles something; None when nothing says that it does."""
    name = PurePosixPath(file.path)
    suffix = name.suffix.lower()
    if suffix == ".skops":  # holds what it lists, and loads nothing that is not on a list of types
        return None
    if suffix == ".pt2":
        # torch.export.load calls torch.load(weights_only=False) for any part that the archive says is a
        # pickle, and for sample inputs that do not load without (torch 2.13, export/pt2_archive).
        return "PyTorch unpickles what a .pt2 archive says is a pickle"
    if file.head.startswith(_ZIP):
        for member in file.members:
            if member.endswith(".pkl"):
                return f"its member {member} is a pickle"
    elif len(file.head) > 1 and file.head[0] == 0x80 and 2 <= file.head[1] <= 5:
        return f"it begins as pickle protocol {file.head[1]} does"
    elif file.head.startswith(_NUMPY) and b"'|O'" in file.head:
        return "it is a NumPy array of objects, which are pickled"
    if suffix in _PICKLE_NAMES:
        return f"{suffix} files are pickles"
    if suffix == ".bin" and name.stem.startswith(_TORCH_BIN):
        return "PyTorch writes it with pickle"
    return None
