"""The manifest: where a version comes from, how good it is, and what its files are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from ._compare import Difference, Tolerance
from ._errors import ManifestError

MANIFEST_NAME = "manifest.json"
GOLDEN_NAME = "golden.npz"
SIGNATURE_NAME = "signature.json"
# What a manifest does not name: itself, and the signature, which is made of it.
UNNAMED = frozenset({MANIFEST_NAME, SIGNATURE_NAME})
# TF32 keeps ten bits of the mantissa.
_GPU_TOLERANCE = Tolerance(atol=1e-3)
_MEND = "Publish the version again; `tritium rollback` serves one before it meanwhile"


@dataclass(frozen=True)
class Manifest:
    """Provenance of one version.

    Attributes:
        model: the model's name.
        source: what made it, such as ``tritium.exporters.zoo.digits_cnn``.
        created: when, in UTC, as ISO 8601.
        frameworks: versions of the packages that made it.
        data: what it was trained on: a name, numbers of rows, a checksum.
        metrics: what it reached on held-out data.
        parity: what was measured between framework and artifact on the held-out rows, by output: ``agreement``, and
            ``max_abs`` and ``max_rel`` for floats, as in `Difference`.
        tolerance: what an answer may differ from a golden one on a CPU: at publishing, and when it is served.
        gpu_tolerance: the same where the model runs on a GPU, which computes with TF32 and in another order.
        rows: how many held-out rows that were.
        baselines: what the simplest guess reaches by the same metrics, such as the majority class or the mean.
        training: how it was trained: optimizer, seed, learning curves.
        recipe: a checksum of all that went in; the same recipe need not be built twice.
        opset: ONNX opset of the artifact, if it is ONNX.
        files: sha256 of every other file of the version but the signature, by name.
    """

    model: str
    source: str
    created: str
    frameworks: Mapping[str, str]
    data: Mapping[str, Any]
    metrics: Mapping[str, float]
    parity: Mapping[str, Mapping[str, float]]
    tolerance: Tolerance
    gpu_tolerance: Tolerance = _GPU_TOLERANCE
    rows: int = 0
    baselines: Mapping[str, float] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    recipe: str = ""
    opset: int | None = None
    files: Mapping[str, str] = field(default_factory=dict)

    def tolerance_on(self, config: Mapping[str, Any]) -> Tolerance:
        """What a server's answers may differ; `config` is the model's, as the server has it in use."""
        kinds = {group.get("kind") for group in config.get("instance_group", ())}
        return self.gpu_tolerance if "KIND_GPU" in kinds else self.tolerance

    def differences(self) -> list[Difference]:
        """The parity, as it was measured on the held-out rows."""
        found: Any = self.parity
        return [Difference(output=name, ok=True, **figures) for name, figures in found.items()]

    def parity_text(self) -> str:
        """As in ``label: agreement 100.0%, probabilities: max |Δ| 1.2e-07 (relative 3.1e-06)``."""
        return ", ".join(map(str, self.differences()))

    def with_files(self, folder: Path) -> Manifest:
        """The same manifest naming every file in a folder but itself and the signature.

        Raises:
            ManifestError: something in it is a link, which could lead anywhere.
        """
        links = [path for path in folder.rglob("*") if path.is_symlink()]
        if links:
            raise ManifestError(f"{links[0]} is a link; a version holds its own files only")
        names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        return replace(self, files={name: file_sha256(folder / name) for name in names if name not in UNNAMED})

    def save(self, folder: Path) -> None:
        """Write it into a version's folder."""
        text = json.dumps(asdict(self), indent=2, sort_keys=True) + "\n"
        (folder / MANIFEST_NAME).write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Manifest:
        """Read it from a version's folder.

        Raises:
            ManifestError: it is missing, or is no manifest.
        """
        path = folder / MANIFEST_NAME
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(content, dict):
                raise TypeError("it must be an object")
            for key in {"tolerance", "gpu_tolerance"} & content.keys():
                content[key] = Tolerance(**content[key])
            manifest = cls(**content)
            if not isinstance(manifest.files, dict):
                raise TypeError("files must be an object")
            manifest.differences()
            for tolerance in (manifest.tolerance, manifest.gpu_tolerance):
                if not all(isinstance(number, int | float) for number in asdict(tolerance).values()):
                    raise TypeError("a tolerance must be numbers")
            return manifest
        except OSError as exc:
            raise ManifestError(f"{path} cannot be read: {exc.strerror}") from exc
        except (ValueError, TypeError, KeyError, AttributeError) as exc:
            known = ", ".join(item.name for item in fields(cls))
            raise ManifestError(f"{path} is no manifest ({exc}); it needs the keys {known}") from exc

    def check_files(self, folder: Path) -> None:
        """Compare a version's folder with what the manifest says is in it.

        Raises:
            ManifestError: a file was changed, added or removed.
        """
        present = self.with_files(folder).files
        for name in sorted(present.keys() | self.files.keys()):
            if name not in present:
                raise ManifestError(f"{folder / name} is missing, and the manifest names it. {_MEND}")
            if name not in self.files:
                raise ManifestError(f"{folder / name} is not in the manifest. {_MEND}")
            self._check_sha256(folder / name, present[name], name)

    def check_file(self, folder: Path, name: str) -> None:
        """Compare one file with what the manifest says of it.

        Raises:
            ManifestError: it was changed.
        """
        self._check_sha256(folder / name, file_sha256(folder / name), name)

    def _check_sha256(self, path: Path, found: str, name: str) -> None:
        if found != self.files.get(name):
            raise ManifestError(f"{path} was changed: its sha256 is not the manifest's. {_MEND}")


def file_sha256(path: Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
