"""Which converters there are, and how skl2onnx comes to know them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from tritium.client import InputError

from ._ops import Ops

GROUP = "tritium.sklearn_converters"


@dataclass(frozen=True, kw_only=True)
class Converter:
    """How an estimator becomes a graph.

    Attributes:
        estimator: the dotted name under which its class can be imported, such as
            ``sklearn.kernel_approximation.RBFSampler``; nothing is imported for it.
        convert: from the fitted estimator, the name of its input and `Ops` to the names of its outputs, in the order
            that `export_sklearn` tells for its kind, such as label and probabilities. The input has the shape (rows,
            features) and is float64, unless it is text. Labels are what the estimator's `predict` gives; a class's
            number becomes its label by `Ops.labels`. Outputs may be float64.
            None leaves it to skl2onnx.
        transform: for what both predicts and transforms, how it transforms as a step inside a Pipeline.
        refusal: instead of both, why there can be no graph, and what to use.
    """

    estimator: str
    convert: Callable[[Any, str, Ops], str | Sequence[str]] | None = None
    transform: Callable[[Any, str, Ops], str] | None = None
    refusal: str = ""

    def __post_init__(self) -> None:
        """Refuse what could never be found.

        Raises:
            InputError: the estimator is no dotted name, or there is no function, or a refusal beside one.
        """
        parts = self.estimator.split(".") if isinstance(self.estimator, str) else []
        if len(parts) < 2 or not all(part.isidentifier() for part in parts):
            raise InputError(
                "The 'estimator' parameter of Converter must be a dotted name, such as 'package.module.Class', got "
                f"{self.estimator!r} instead"
            )
        functions = [function for function in (self.convert, self.transform) if function is not None]
        if bool(functions) == bool(self.refusal) or not all(map(callable, functions)):
            raise InputError(
                f"The Converter of {self.estimator} must have a function in 'convert' or 'transform', or a 'refusal'"
            )

    def loaded_class(self) -> type | None:
        """The class, if its module was imported: otherwise nobody has such an estimator."""
        module, _, name = self.estimator.rpartition(".")
        # Not by getattr: scikit-learn refuses to name what is experimental until it was asked for.
        return vars(sys.modules[module]).get(name) if module in sys.modules else None


@dataclass
class Registry:
    """Converters by estimator, and the entry points that could not be loaded, with the reason."""

    converters: dict[str, Converter] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)

    def add(self, converter: Converter, package: str) -> None:
        """Add a converter that a package brings.

        Raises:
            InputError: it is none, or there is one for that estimator.
        """
        if not isinstance(converter, Converter):
            raise InputError(f"An entry point of {GROUP} must be a Converter or a list of them, got {converter!r}")
        if converter.estimator in self.converters:
            raise InputError(f"{package} registers a converter of {converter.estimator}, which has one already")
        self.converters[converter.estimator] = converter

    def load(self, points: Iterable[EntryPoint]) -> Registry:
        """Add all that entry points bring; what is wrong with one of them must not stop the others."""
        for point in points:
            package = point.dist.name if point.dist else point.value
            try:
                found = point.load()
                for converter in found if isinstance(found, list | tuple) else [found]:
                    self.add(converter, package)
            except Exception as exc:
                self.broken.append(f"the entry point {point.name!r} of the package {package}: {exc}")
        return self


@cache
def registry() -> Registry:
    """All converters that are installed; ours come first, so that nobody takes their place by chance."""
    points = entry_points(group=GROUP)
    return Registry().load(sorted(points, key=lambda point: (not point.value.startswith("tritium."), point.name)))
