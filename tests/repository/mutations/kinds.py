"""Mutations by number: what a slip of the hand, a bad merge or a bad disk makes of a good model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import onnx
from google.protobuf.descriptor import FieldDescriptor

from tritium.repository import config_text, read_config

from .subjects import Subject

_NUMBERS = (-(2**31), -1, 0, 1, 2, 3, 7, 64, 1000)
_LONG_NUMBERS = (*_NUMBERS, -(2**63), 2**31, 2**62)
_TEXTS = (
    "",
    "x",
    "0",
    "true",
    "labels.txt",
    "../x",
    "größe",
    "x y",
    "text",
    "features",
    "onnxruntime",
    "ensemble",
    "GPU",
)
# What these number is really made: processes, memory, runs.
_FEW = {"count": (-1, 0, 1, 2, 3), "batch_size": (0, 1, 2, 64), "max_candidate_sequences": (-1, 0, 1, 4)}
_NEVER = ("secondary_devices",)


@dataclass(frozen=True)
class Mutation:
    """What was done to a copy of a good model.

    Attributes:
        kind: what was mutated, and how.
        detail: what exactly.
    """

    number: int
    subject: Subject
    kind: str
    detail: str

    @property
    def name(self) -> str:
        """The mutated model's name."""
        return f"mutant_{self.number}"

    def __str__(self) -> str:
        """As in ``mutation 7 of 'words' (config, field: dims of input …)``."""
        return f"mutation {self.number} of {self.subject.name!r} ({self.kind}: {self.detail})"


def make(number: int, seed: int, subjects: Sequence[Subject], repository: Path) -> Mutation:
    """Write the mutant of that number into a repository."""
    rng = Random(f"mutation {seed} {number}")
    # A TorchScript model takes a process that imports torch: seconds, where the others take milliseconds.
    weights = [1 if subject.config.backend == "pytorch" else 4 for subject in subjects]
    subject = rng.choices(subjects, weights)[0]
    folder = repository / f"mutant_{number}"
    shutil.copytree(subject.folder, folder)
    _rename(folder)
    kind = rng.choice(_ORDER)
    return Mutation(number, subject, kind, _KINDS[kind](rng, folder))


def _rename(folder: Path) -> None:
    """The copy is a whole model under its own name."""
    config = read_config(folder / "config.pbtxt")
    config.name = folder.name
    (folder / "config.pbtxt").write_text(config_text(config), encoding="utf-8")
    path = folder / "1/manifest.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(content | {"model": folder.name}, indent=2), encoding="utf-8")


def _field(rng: Random, folder: Path) -> str:
    """One field of the config, wherever it is, gets an odd value, goes, or comes a second time."""
    path = folder / "config.pbtxt"
    config = read_config(path)
    place, message = rng.choice(list(_messages(config, "")))
    fields = [field for field in message.DESCRIPTOR.fields if field.name not in _NEVER]
    present = [field for field, _ in message.ListFields() if field.name not in _NEVER]
    field = rng.choice(rng.choice((fields, present or fields)))
    what = _change(rng, message, field)
    path.write_bytes(config_text(config).encode("utf-8", "surrogatepass"))
    return f"{place}{field.name} {what}"


def _messages(message: Any, place: str) -> list[tuple[str, Any]]:
    found = [(place, message)]
    for field, value in message.ListFields():
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            continue
        for part in value if _repeated(field) else [value]:
            found += _messages(part, f"{place}{field.name}.")
    return found


def _change(rng: Random, message: Any, field: FieldDescriptor) -> str:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return _change_map(rng, getattr(message, field.name))
    if not _repeated(field):
        if field.message_type is not None:
            if message.HasField(field.name) and rng.random() < 0.5:
                message.ClearField(field.name)
                return "left out"
            getattr(message, field.name).SetInParent()
            return "empty"
        value = _odd(rng, field)
        setattr(message, field.name, value)
        return f"= {str(value)[:20]!r}"
    values = getattr(message, field.name)
    how = rng.choice(("add", "remove", "double", "change") if len(values) else ("add",))
    place = rng.randrange(len(values)) if len(values) else 0
    if how == "add":
        values.add() if field.message_type is not None else values.append(_odd(rng, field))
    elif how == "double":
        values.append(values[place])
    elif how == "change" and field.message_type is None:
        values[place] = _odd(rng, field)
    else:
        how = "remove"
        del values[place]
    return how


def _change_map(rng: Random, entries: Any) -> str:
    if len(entries) and rng.random() < 0.3:
        del entries[rng.choice(sorted(entries))]
        return "remove"
    key = rng.choice(sorted(entries)) if len(entries) and rng.random() < 0.5 else rng.choice(_TEXTS[1:])
    try:
        entry = entries[key]
    except TypeError:  # a map of numbers
        entry = entries[key := rng.choice((0, 1, 7))]
    if hasattr(entry, "string_value"):
        entry.string_value = rng.choice((*_TEXTS, "1", "-1", "2.5", "1e3"))
    elif not hasattr(entry, "ListFields"):
        entries[key] = rng.choice(_TEXTS)
    return f"[{key!r}]"


def _repeated(field: FieldDescriptor) -> bool:
    return bool(field.is_repeated)


def _odd(rng: Random, field: FieldDescriptor) -> Any:
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING:
            return rng.choice(_TEXTS) if field.type == FieldDescriptor.TYPE_STRING else rng.randbytes(4)
        case FieldDescriptor.CPPTYPE_BOOL:
            return rng.random() < 0.5
        case FieldDescriptor.CPPTYPE_ENUM:
            return rng.choice([value.number for value in (field.enum_type.values if field.enum_type else ())])
        case FieldDescriptor.CPPTYPE_FLOAT | FieldDescriptor.CPPTYPE_DOUBLE:
            return rng.choice((-1.0, 0.0, 1.5, float("nan")))
    numbers = _FEW.get(field.name, _LONG_NUMBERS if "64" in _type(field) else _NUMBERS)
    return rng.choice([number for number in numbers if number >= 0 or "U" not in _type(field)])


def _type(field: FieldDescriptor) -> str:
    return {
        FieldDescriptor.CPPTYPE_INT32: "INT32",
        FieldDescriptor.CPPTYPE_INT64: "INT64",
        FieldDescriptor.CPPTYPE_UINT32: "UINT32",
        FieldDescriptor.CPPTYPE_UINT64: "UINT64",
    }[field.cpp_type]


def _lines(rng: Random, folder: Path) -> str:
    """Lines of the config go, come twice or change places, as after a bad merge."""
    path = folder / "config.pbtxt"
    lines = path.read_text(encoding="utf-8").splitlines()
    place, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    how = rng.choice(("removed", "doubled", "exchanged", "cut"))
    detail = f"line {place + 1} {lines[place].strip()!r} {how}"
    if how == "removed":
        del lines[place]
    elif how == "doubled":
        lines.insert(place, lines[place])
    elif how == "exchanged":
        lines[place], lines[other] = lines[other], lines[place]
    else:
        del lines[place:]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return detail


def _typo(rng: Random, folder: Path) -> str:
    """One character of the config is another, is missing or comes twice."""
    path = folder / "config.pbtxt"
    text = path.read_text(encoding="utf-8")
    place = rng.randrange(len(text))
    how = rng.choice(("another", "missing", "twice"))
    new = {"another": rng.choice("aZ09 _.:{}[]\"'-#\n"), "missing": "", "twice": text[place] * 2}[how]
    path.write_text(text[:place] + new + text[place + 1 :], encoding="utf-8")
    line = text.count("\n", 0, place) + 1
    return f"{text[place]!r} of line {line} {how} {new!r}"


def _bits(rng: Random, folder: Path) -> str:
    """A few bits of a file of the version are others."""
    path = rng.choice(sorted((folder / "1").iterdir()))
    data = bytearray(path.read_bytes())
    for _ in range(rng.choice((1, 1, 8))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
    return path.name


def _cut(rng: Random, folder: Path) -> str:
    """A file of the version ends early, or is empty."""
    path = rng.choice(sorted((folder / "1").iterdir()))
    data = path.read_bytes()
    path.write_bytes(data[: rng.choice((0, rng.randrange(len(data))))])
    return path.name


def _graph(rng: Random, folder: Path) -> str:
    """The model file is another whole graph, as by another export; nobody wrote a manifest for it."""
    _forget(folder)
    path = folder / "1/model.onnx"
    if not path.is_file():
        return _swapped(rng, folder)
    model = onnx.ModelProto.FromString(path.read_bytes())
    graph = model.graph
    value = rng.choice([*graph.input, *graph.output])
    dims = value.type.tensor_type.shape.dim
    how = rng.choice(("type", "length", "axis more", "axis less", "name", "operator", "opset", "node less", "batch 1"))
    if how == "type":
        value.type.tensor_type.elem_type = rng.choice((1, 6, 7, 8, 10, 11, 16))
    elif how == "length" and dims:
        rng.choice(dims).dim_value = rng.choice((1, 2, 5))
    elif how == "axis more":
        dims.add(dim_value=1)
    elif how == "axis less" and dims:
        del dims[-1]
    elif how == "name":
        value.name = rng.choice(("x", "input", value.name.upper()))
    elif how == "operator":
        rng.choice(graph.node).op_type = rng.choice(("Relu", "Identity", "Nothing", "Cast"))
    elif how == "opset":
        model.opset_import[0].version = rng.choice((1, 7, 99))
    elif how == "node less":
        del graph.node[rng.randrange(len(graph.node))]
    else:
        for tensor in [*graph.input, *graph.output]:
            if tensor.type.tensor_type.shape.dim:
                tensor.type.tensor_type.shape.dim[0].dim_value = 1
    path.write_bytes(model.SerializeToString())
    return f"{how} of {value.name}" if how in ("type", "length", "axis more", "axis less", "name") else how


def _swapped(rng: Random, folder: Path) -> str:
    """The model file is another kind of file; nobody wrote a manifest for it."""
    _forget(folder)
    path = next(file for file in (folder / "1").iterdir() if file.name.startswith("model."))
    content = rng.choice((b"", b"PK\x03\x04", b"\x80\x04N.", json.dumps({}).encode(), rng.randbytes(500)))
    path.write_bytes(content)
    return f"{content[:8]!r}"


def _damaged(rng: Random, folder: Path) -> str:
    """Bits of the model file are others, or it ends early; nobody wrote a manifest for it."""
    _forget(folder)
    (path,) = (file for file in (folder / "1").iterdir() if file.name.startswith("model."))
    data = bytearray(path.read_bytes())
    if rng.random() < 0.3:
        del data[rng.randrange(len(data)) :]
    else:
        for _ in range(rng.choice((1, 1, 8))):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
    return path.name


def _forget(folder: Path) -> None:
    for name in ("manifest.json", "golden.npz"):
        (folder / "1" / name).unlink(missing_ok=True)


def _folders(rng: Random, folder: Path) -> str:
    """Folders and files are called otherwise, go, or come twice."""
    how = rng.choice(("01", "0", "v1", "1.0", "-1", "empty 2", "file 2", "copy 01", "less"))
    if how.startswith("empty"):
        (folder / "2").mkdir()
    elif how.startswith("file"):
        (folder / "2").touch()
    elif how.startswith("copy"):
        shutil.copytree(folder / "1", folder / "01")
    elif how == "less":
        path = rng.choice([path for path in sorted(folder.rglob("*")) if path.is_file()])
        path.unlink()
        return f"without {path.relative_to(folder)}"
    else:
        (folder / "1").rename(folder / how)
    return how


def _manifest(rng: Random, folder: Path) -> str:
    """A key of the manifest has another value, or goes."""
    path = folder / "1/manifest.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    inside = rng.choice([content, *(value for value in content.values() if isinstance(value, dict) and value)])
    key = rng.choice(sorted(inside))
    how = rng.choice(("left out", "another"))
    if how == "left out":
        del inside[key]
    else:
        inside[key] = rng.choice((None, 0, -1, 1e30, "x", [], {}, True, "0" * 64))
    path.write_text(json.dumps(content), encoding="utf-8")
    return f"{key} {how}" + (f" {inside[key]!r}" if how == "another" else "")


_KINDS: Mapping[str, Callable[[Random, Path], str]] = {
    "config, field": _field,
    "config, lines": _lines,
    "config, typo": _typo,
    "version, bits": _bits,
    "version, cut": _cut,
    "model file, another graph": _graph,
    "model file, damaged": _damaged,
    "model file, another kind": _swapped,
    "folders": _folders,
    "manifest": _manifest,
}
_ORDER = (
    *["config, field"] * 5,
    *["config, lines"] * 2,
    *["config, typo"] * 2,
    *["model file, another graph"] * 2,
    *_KINDS,
)
