"""The reference models by name, and building them no more often than needed."""

from __future__ import annotations

import ast
import difflib
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
_PACKAGES = ("mlxtend", "numpy", "onnx", "onnxscript", "palmerpenguins", "pandas", "scikit-learn", "skl2onnx", "torch")


@dataclass(frozen=True)
class ZooModel:
    """A reference model: one script of this package, of the same name."""

    name: str
    summary: str
    data: str
    path: str


_SKLEARN, _TORCH, _JOINED = "scikit-learn → ONNX", "torch → ONNX", "scikit-learn + torch → ONNX"
_DIGITS, _REVIEWS, _CANCER, _RATINGS = "MNIST", "movie reviews", "breast cancer", "MovieLens"
MODELS = {
    model.name: model
    for model in (
        ZooModel("digits_cnn", "convolutional network, 10 classes", _DIGITS, _TORCH),
        ZooModel("digits_mlp", "perceptron 784-128-10, 10 classes", _DIGITS, "torch → TorchScript"),
        ZooModel("digits_svm", "scaler + SVM with calibrated probabilities", _DIGITS, _SKLEARN),
        ZooModel("pca_mlp", "PCA to 100 + perceptron 100-64-32-10", _DIGITS, _JOINED),
        ZooModel("rff_mlp", "1000 random Fourier features + perceptron 1000-64-64-10", _DIGITS, _JOINED),
        ZooModel("cancer_tree", "imputer + scaler + decision tree", _CANCER, _SKLEARN),
        ZooModel("tiny_sigmoid", "perceptron 2-4-2-1, sigmoid", _CANCER, _TORCH),
        ZooModel("linear_sigmoid", "logistic regression 2-1, sigmoid", _CANCER, _TORCH),
        ZooModel("diabetes_autoencoder", "autoencoder 10-20-10 with an anomaly score", "diabetes", _TORCH),
        ZooModel("mixed_pipeline", "numbers and strings + gradient boosting, 3 species", "penguins", _SKLEARN),
        ZooModel("review_score", "TF-IDF 1000 + perceptron 1000-100-1, text in", _REVIEWS, _JOINED),
        ZooModel("sentiment_rnn", "embedding + tanh RNN, text in, 2 classes", _REVIEWS, _TORCH),
        ZooModel("sentiment_lstm", "embedding + LSTM 128, text in, 2 classes", _REVIEWS, _TORCH),
        ZooModel("sentiment_transformer", "2 encoder layers, text in, 2 classes", _REVIEWS, _TORCH),
        ZooModel("movie_recommender", "matrix factorisation: user and movie in, rating out", _RATINGS, _TORCH),
        ZooModel("movie_topk", "the same factorisation: user in, ten best movies out", _RATINGS, _TORCH),
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
            close = difflib.get_close_matches(name, MODELS, n=1)
            hint = f"Did you mean {close[0]!r}? " if close else ""
            raise InputError(f"There is no reference model {name!r}. {hint}There are {', '.join(MODELS)}")


def _recipe(name: str) -> str:
    """A checksum of what decides over a model: its script, what that imports of the exporters, and the packages."""
    digest = hashlib.sha256()
    sources = _imported(Path(__file__).with_name(f"{name}.py"), set())
    converters = Path(__file__).parents[1] / "converters"
    if any(source.is_relative_to(converters) for source in sources):
        # These are found by their entry points, and imported by nobody.
        sources |= set(converters.glob("*.py"))
    for source in sorted(sources):
        digest.update(source.read_bytes())
    for package in _PACKAGES:
        try:
            digest.update(f"{package}=={package_version(package)}\n".encode())
        except PackageNotFoundError as exc:
            raise MissingExtraError(package, "zoo") from exc
    return digest.hexdigest()


def _imported(source: Path, seen: set[Path]) -> set[Path]:
    """A module's file, and those of all that it imports from its own package, and what they import."""
    if source in seen or source == Path(__file__) or not source.is_file():
        return seen
    seen.add(source)
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            package = source.parents[node.level - 1]
            folder = package.joinpath(*(node.module or "").split("."))
            names = [folder / alias.name for alias in node.names]
            for module in (folder, *names):
                for file in (module.with_suffix(".py"), module / "__init__.py"):
                    _imported(file, seen)
    return seen
