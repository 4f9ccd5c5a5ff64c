"""The reference models by name, and building them no more often than needed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version
from pathlib import Path

from tritium.client import InputError, MissingExtraError, TritiumError
from tritium.repository import Manifest, Repository

Progress = Callable[[str], None]
_PACKAGES = ("mlxtend", "numpy", "onnx", "onnxscript", "scikit-learn", "skl2onnx", "torch")


@dataclass(frozen=True)
class ZooModel:
    """A reference model: one script of this package, of the same name."""

    name: str
    summary: str
    data: str
    path: str


MODELS = {
    model.name: model
    for model in (
        ZooModel("digits_cnn", "convolutional network, 10 classes", "MNIST", "torch → ONNX"),
        ZooModel("digits_mlp", "perceptron 784-128-10, 10 classes", "MNIST", "torch → TorchScript"),
        ZooModel("digits_svm", "scaler + SVM with calibrated probabilities", "MNIST", "scikit-learn → ONNX"),
    )
}


@dataclass(frozen=True)
class Built:
    """A reference model in a repository.

    Attributes:
        fresh: whether it was built now, or was there already.
    """

    model: ZooModel
    version: int
    manifest: Manifest
    fresh: bool


def build(name: str, repository: Repository, *, force: bool = False, progress: Progress) -> Built:
    """Train, verify and publish a reference model, unless its latest version was made by the same recipe.

    Args:
        name: one of MODELS.
        repository: where to publish.
        force: build it anew in any case.
        progress: called with lines for people.

    Raises:
        InputError: there is no such model.
        MissingExtraError: a package that it is made with is not installed.
        ExportError: the export failed; nothing was published.
        PublishError: publishing failed; nothing has changed.
    """
    check_names([name])
    recipe = _recipe(name)
    current = built(name, repository)
    if current is not None and current.manifest.recipe == recipe and not force:
        return current
    export = import_module(f"{__package__}.{name}").export
    published = export(repository, recipe, progress)
    return Built(MODELS[name], published.version, Manifest.load(published.folder), fresh=True)


def built(name: str, repository: Repository) -> Built | None:
    """The latest version of a reference model, if it is there and whole."""
    try:
        folder = repository.version_folder(name)
        manifest = Manifest.load(folder)
        manifest.check_files(folder)
        repository.config(name)
    except TritiumError:
        return None
    return Built(MODELS[name], int(folder.name), manifest, fresh=False)


def check_names(names: Sequence[str]) -> None:
    """Refuse a name that is no reference model.

    Raises:
        InputError: there is no such model; the message lists those there are.
    """
    for name in names:
        if name not in MODELS:
            raise InputError(f"There is no reference model {name!r}; there are {', '.join(MODELS)}")


def _recipe(name: str) -> str:
    """A checksum of what decides over a model: its script, its data, training, conversion, and the packages."""
    zoo = Path(__file__).parent
    digest = hashlib.sha256()
    for source in (zoo / f"{name}.py", zoo / "_digits.py", zoo.parent / "_training.py", zoo.parent / "_convert.py"):
        digest.update(source.read_bytes())
    for package in _PACKAGES:
        try:
            digest.update(f"{package}=={package_version(package)}\n".encode())
        except PackageNotFoundError as exc:
            raise MissingExtraError(package, "zoo") from exc
    return digest.hexdigest()
