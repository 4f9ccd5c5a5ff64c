"""TorchScript files, read without torch: loading one would already run what it says."""

from __future__ import annotations

import ast
import pickletools
import re
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from .._errors import ArtifactError

_MOST_SOURCE_BYTES = 16 * 2**20
# Where the names lie that a TorchScript file's own pickles have.
_MODULES = re.compile(r"__torch__(\..*)?|torch|torch\._utils|torch\.jit\._pickle|collections")


@dataclass(frozen=True)
class TorchScriptFile:
    """What a TorchScript file says of itself.

    Attributes:
        arguments: what `forward` takes; None if its source cannot be read.
        required: how many of them have no default.
        returns: the type that `forward` returns, as its source has it; empty if that is not known.
        foreign: names in its pickles that no TorchScript file has, such as ``os.system``.
    """

    arguments: Sequence[str] | None
    required: int
    returns: str
    foreign: Sequence[str] = ()


def read_torchscript(path: Path) -> TorchScriptFile:
    """Read a TorchScript file.

    Raises:
        ArtifactError: it is none.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            # TorchScript packs nothing: what unpacks to much more than it is was made to fill a memory.
            unpacked_bytes = sum(member.file_size for member in archive.infolist())
            if unpacked_bytes > _MOST_SOURCE_BYTES + 2 * path.stat().st_size:
                raise ArtifactError(f"it is no TorchScript file: it unpacks to {unpacked_bytes} bytes")
            return _read(archive)
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, NotImplementedError, RuntimeError) as exc:
        kind = "a pickle" if is_pickle(path) else "no TorchScript file"
        raise ArtifactError(f"it is {kind} ({exc})") from exc


def is_pickle(path: Path) -> bool:
    """Whether a file is a pickle, or an archive around one that torch.save wrote; it is not unpickled."""
    if zipfile.is_zipfile(path):
        try:
            with zipfile.ZipFile(path) as archive:
                parts = {PurePosixPath(name).name for name in archive.namelist()}
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
            return False
        return "data.pkl" in parts and "constants.pkl" not in parts
    with path.open("rb") as file:
        start = file.read(2)
    # From protocol 2 on a pickle starts with its protocol.
    return len(start) == 2 and start[0] == 0x80 and 2 <= start[1] <= 5


def _read(archive: zipfile.ZipFile) -> TorchScriptFile:
    if broken := archive.testzip():
        raise ArtifactError(f"its member {broken!r} is damaged")
    names = archive.namelist()
    roots = {PurePosixPath(name).parts[0] for name in names if name}
    if len(roots) != 1:
        raise ArtifactError("it is no TorchScript file: its members must lie in one folder")
    (root,) = roots
    for member in ("data.pkl", "constants.pkl"):
        if f"{root}/{member}" not in names:
            raise ArtifactError(
                f"it is no TorchScript file: it has no {member}, as what torch.save writes of weights or of a module"
            )
    found = [_globals(archive.read(name)) for name in (f"{root}/data.pkl", f"{root}/constants.pkl")]
    foreign = [f"{module}.{name}" for pairs in found for module, name in pairs if not _MODULES.fullmatch(module)]
    forward = _forward(archive, root, found[0])
    if forward is None:
        return TorchScriptFile(None, 0, "", foreign)
    arguments = [argument.arg for argument in forward.args.args[1:]]
    returns = ast.unparse(forward.returns) if forward.returns is not None else ""
    return TorchScriptFile(arguments, len(arguments) - len(forward.args.defaults), returns, foreign)


def _globals(pickled: bytes) -> list[tuple[str, str]]:
    """The classes and functions that a pickle names, in order; nothing is imported."""
    try:
        return list(_named(pickled))
    except Exception as exc:  # pickletools raises whatever it meets
        raise ArtifactError(f"it is no TorchScript file: its data.pkl cannot be read ({exc})") from exc


def _named(pickled: bytes) -> Iterator[tuple[str, str]]:
    strings: list[str] = []
    for operation, argument, _ in pickletools.genops(pickled):
        if operation.name in ("GLOBAL", "INST"):
            module, _, name = str(argument).rpartition(" ")
            yield module, name
        elif operation.name == "STACK_GLOBAL":
            yield strings[-2], strings[-1]
        elif isinstance(argument, str):
            strings.append(argument)


def _forward(archive: zipfile.ZipFile, root: str, named: Sequence[tuple[str, str]]) -> ast.FunctionDef | None:
    """The source of the module's `forward`: TorchScript's code has Python's syntax."""
    if not named:
        return None
    module, name = named[0]
    place = f"{root}/code/{module.replace('.', '/')}.py"
    try:
        if archive.getinfo(place).file_size > _MOST_SOURCE_BYTES:
            return None
        tree = ast.parse(archive.read(place))
    except (KeyError, SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    methods = [
        method
        for owner in tree.body
        if isinstance(owner, ast.ClassDef) and owner.name == name
        for method in owner.body
        if isinstance(method, ast.FunctionDef) and method.name == "forward"
    ]
    return methods[0] if methods else None
