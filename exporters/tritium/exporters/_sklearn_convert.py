"""From a fitted estimator to ONNX: skl2onnx with the registered converters, and outputs as we promise them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from tritium.client import InputError, MissingExtraError

from ._errors import ConversionError
from ._export import Array
from ._sklearn_graph import finish_outputs
from ._sklearn_outputs import answers, kind_of, quiet
from ._sklearn_rows import parts
from .converters import Converter, Ops
from .converters._registry import registry
from .converters._trees import follow_missing

if TYPE_CHECKING:
    from onnx import ModelProto

# The newest of ONNX-ML's opsets in which skl2onnx writes.
_ML_OPSET = 3


def convert(estimator: Any, variables: Mapping[str, Array], expected: Mapping[str, Array], opset: int) -> ModelProto:
    """Convert an estimator.

    Args:
        estimator: fitted.
        variables: rows as the converter sees them, by name.
        expected: what the estimator answers to some rows, by output, in the order of its kind: the graph gets these
            names, dtypes and shapes.
        opset: of ONNX's own operators.

    Raises:
        ConversionError: neither skl2onnx nor a registered converter takes the estimator.
    """
    from skl2onnx import to_onnx

    _register()
    estimator = _unwrapped(estimator)
    for part in parts(estimator):
        if type(part).__name__ == "SimpleImputer" and part.add_indicator and part.indicator_.features_.size:
            raise ConversionError(
                "A SimpleImputer with add_indicator=True has no graph; use make_union(SimpleImputer(), "
                "MissingIndicator()) of one without it, which gives the same columns"
            )
    name = type(estimator).__name__
    types = [(key, _tensor_type(array)([None, *array.shape[1:]])) for key, array in variables.items()]
    try:
        with quiet():
            model: ModelProto = to_onnx(
                estimator,
                initial_types=types,
                options={**_token_options(estimator), **_options(estimator)},
                target_opset={"": opset, "ai.onnx.ml": _ML_OPSET},
            )
    except (ConversionError, MissingExtraError):
        raise
    except Exception as exc:
        broken = "".join(f"\nA converter could not be loaded, {reason}" for reason in registry().broken)
        raise ConversionError(
            f"This {name} cannot be converted: {_reason(exc)}. docs/sklearn.md lists what can; write a converter "
            f"for what cannot (tritium.exporters.converters), or leave that step out{broken}"
        ) from exc
    finish_outputs(model, expected, name)
    return model


def convert_part(opset: int, estimator: Any) -> ModelProto:
    """Convert an estimator that is part of another one; its input is called ``x``."""
    rows = _row_of_ones(estimator, getattr(estimator, "n_features_in_", 1))
    return convert(estimator, {"x": rows}, answers(estimator, rows), opset)


def _options(estimator: Any) -> dict[int, dict[str, bool]]:
    """Probabilities as one array: skl2onnx makes a list of dictionaries of them unless it is told not to."""
    from skl2onnx._supported_operators import sklearn_operator_name_map
    from skl2onnx.common._registration import get_converter

    alias = None if hasattr(estimator, "steps") else sklearn_operator_name_map.get(type(estimator))
    allowed = get_converter(alias).get_allowed_options() if alias and alias.startswith(("Sk", "Tritium")) else None
    if not allowed or "zipmap" not in allowed:
        return {}
    # Without it the sign of the two-class decision is the other one.
    raw = (
        {"raw_scores": True}
        if type(estimator).__name__ in ("NuSVC", "SVC") and not hasattr(estimator, "predict_proba")
        else {}
    )
    return {id(estimator): {"zipmap": False, **raw}}


def _token_options(estimator: Any) -> dict[int, dict[str, str]]:
    """Words of any script, as Python's regular expressions have them; skl2onnx knows those of English."""
    from sklearn.feature_extraction.text import CountVectorizer

    vectorizers = [part for part in parts(estimator) if isinstance(part, CountVectorizer)]
    return {
        id(part): {"tokenexp": _TOKENS[part.token_pattern]}
        for part in vectorizers
        if part.analyzer == "word" and part.tokenizer is None and part.token_pattern in _TOKENS
    }


# By the pattern that scikit-learn has by default or in its documentation, the same for ONNX Runtime.
_TOKENS = {
    r"(?u)\b\w\w+\b": r"[\p{L}\p{N}_]{2,}",
    r"(?u)\b\w+\b": r"[\p{L}\p{N}_]+",
    r"\b\w+\b": r"[\p{L}\p{N}_]+",
    r"\w+": r"[\p{L}\p{N}_]+",
}


def _unwrapped(estimator: Any) -> Any:
    """What a search found: it answers in the search's stead."""
    while type(estimator).__name__ in _SEARCHES and hasattr(estimator, _SEARCHES[type(estimator).__name__]):
        estimator = getattr(estimator, _SEARCHES[type(estimator).__name__])
    return estimator


_SEARCHES = {
    "FrozenEstimator": "estimator",
    "GridSearchCV": "best_estimator_",
    "HalvingGridSearchCV": "best_estimator_",
    "HalvingRandomSearchCV": "best_estimator_",
    "RandomizedSearchCV": "best_estimator_",
}


def _register() -> None:
    """Make the converters of all classes that were imported known to skl2onnx."""
    from skl2onnx import update_registered_converter
    from skl2onnx._parse import update_registered_parser
    from skl2onnx.common._registration import get_converter, register_converter, register_shape_calculator
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import FeatureUnion, Pipeline

    for composite, parser in (
        (_Step, _parse_step),
        (ColumnTransformer, _parse_columns),
        (FeatureUnion, _parse_union),
        (Pipeline, _parse_pipeline),
    ):
        update_registered_parser(composite, parser)
    for converter in registry().converters.values():
        estimator_class = converter.loaded_class()
        if estimator_class is None or estimator_class in _REGISTERED:
            continue
        if not converter.transform or converter.convert:
            update_registered_converter(
                estimator_class,
                f"Tritium {converter.estimator}",
                _shapes,
                partial(_write, converter.convert),
                overwrite=True,
                parser=_parse,
                options={"zipmap": [True, False], "nocl": [True, False], "raw_scores": [True, False]},
            )
        if converter.transform:
            register_converter(_step_alias(estimator_class), partial(_write, converter.transform), overwrite=True)
            register_shape_calculator(_step_alias(estimator_class), _shape_of_step, overwrite=True)
        _REGISTERED[estimator_class] = converter
    for alias in _TREES:
        written = get_converter(alias)
        if written not in _FOLLOWING:
            following = partial(_write_trees, written)
            options = written.get_allowed_options()
            register_converter(alias, following, overwrite=True, options=options)
            _FOLLOWING.append(get_converter(alias))


# skl2onnx's names of what it writes trees for that take missing values.
_TREES = (
    "SklearnDecisionTreeClassifier",
    "SklearnDecisionTreeRegressor",
    "SklearnExtraTreeClassifier",
    "SklearnExtraTreeRegressor",
    "SklearnExtraTreesClassifier",
    "SklearnExtraTreesRegressor",
    "SklearnIsolationForest",
    "SklearnRandomForestClassifier",
    "SklearnRandomForestRegressor",
)
_FOLLOWING: list[Any] = []
# By class; skl2onnx keeps its own register for the whole process.
_REGISTERED: dict[type, Converter] = {}


def _step_alias(estimator_class: type) -> str:
    return f"Tritium step {estimator_class.__module__}.{estimator_class.__name__}"


class _Step:
    """What both predicts and transforms, where it is to transform; skl2onnx would let it predict."""

    def __init__(self, estimator: Any) -> None:
        self.estimator = estimator


def _as_step(estimator: Any) -> Any:
    estimator = _unwrapped(estimator)
    if isinstance(estimator, str | _Step) or kind_of(estimator)[0] == "transformer":
        return estimator
    converter = _REGISTERED.get(type(estimator))
    if not converter or not converter.transform:
        raise ConversionError(
            f"{type(estimator).__name__} also predicts, and how it transforms as a step has no converter; put it last, "
            "or write a converter with a transform (tritium.exporters.converters)"
        )
    return _Step(estimator)


def _parse_step(scope: Any, model: _Step, inputs: Any, custom_parsers: Any = None) -> Any:  # noqa: ARG001
    operator = scope.declare_local_operator(_step_alias(type(model.estimator)), model.estimator)
    operator.inputs.extend(inputs)
    operator.outputs.append(scope.declare_local_variable("transformed", _tensor_type(np.zeros(1, "f"))()))
    return operator.outputs


def _parse_pipeline(scope: Any, model: Any, inputs: Any, custom_parsers: Any = None) -> Any:
    from skl2onnx._parse import _parse_sklearn

    steps = [step for _, step in model.steps if step not in (None, "passthrough")]
    for step in [*map(_as_step, steps[:-1]), *map(_unwrapped, steps[-1:])]:
        for key, options in _options(step).items():
            scope.add_options(key, options)
        inputs = _parse_sklearn(scope, step, inputs, custom_parsers=custom_parsers)
    return inputs


def _parse_union(scope: Any, model: Any, inputs: Any, custom_parsers: Any = None) -> Any:
    from skl2onnx._parse import _parse_sklearn_feature_union

    union = copy(model)
    union.transformer_list = [(name, _as_step(step)) for name, step in model.transformer_list if step != "drop"]
    return _parse_sklearn_feature_union(scope, union, inputs, custom_parsers)


def _parse_columns(scope: Any, model: Any, inputs: Any, custom_parsers: Any = None) -> Any:
    from skl2onnx._parse import _parse_sklearn_column_transformer

    columns = copy(model)
    columns.transformers_ = [(name, _as_step(step), places) for name, step, places in model.transformers_]
    return _parse_sklearn_column_transformer(scope, columns, inputs, custom_parsers)


def _shape_of_step(operator: Any) -> None:
    rows = _ones(operator.raw_operator, operator.inputs)
    with quiet():
        operator.outputs[0].type = _tensor_type(rows)([None, operator.raw_operator.transform(rows).shape[1]])


def _parse(scope: Any, model: Any, inputs: Any, custom_parsers: Any = None) -> Any:  # noqa: ARG001
    from skl2onnx._supported_operators import sklearn_operator_name_map

    if reason := _REGISTERED[type(model)].refusal:
        raise ConversionError(f"{type(model).__name__} has no graph: {reason}")
    operator = scope.declare_local_operator(sklearn_operator_name_map[type(model)], model)
    operator.inputs.extend(inputs)
    for name, array in _probed(model, inputs).items():
        operator.outputs.append(scope.declare_local_variable(name, _tensor_type(array)()))
    return operator.outputs


def _shapes(operator: Any) -> None:
    probed = _probed(operator.raw_operator, operator.inputs)
    for output, array in zip(operator.outputs, probed.values(), strict=False):
        output.type = _tensor_type(array)([None, *array.shape[1:]])


def _probed(estimator: Any, inputs: Any) -> dict[str, Array]:
    """What an estimator answers to a row of ones: how wide its outputs are, and of which dtype."""
    rows = _ones(estimator, inputs)
    try:
        return answers(estimator, rows)
    except InputError:
        # It does not take such a row; what matters to the steps behind it is then for the gate to find.
        label = np.asarray(getattr(estimator, "classes_", [0]))[:1]
        label = label.astype(object if label.dtype.kind in "OU" else np.int64)
        return {name: label if name == "label" else np.ones((1, 1), "f") for name in kind_of(estimator)[1]}


def _ones(estimator: Any, inputs: Any) -> Array:
    """A row that an estimator answers, which tells how wide its outputs are."""
    width = getattr(estimator, "n_features_in_", None) or inputs[0].type.shape[-1] or 1
    texts = [type(variable.type).__name__ == "StringTensorType" for variable in inputs]
    if any(texts) and not all(texts):
        raise ConversionError(
            f"{type(estimator).__name__} takes text and numbers at once; put a ColumnTransformer before it that makes "
            "numbers of the text, such as with an OrdinalEncoder"
        )
    if all(texts):
        return np.full((1, width), "", dtype=object)
    return _row_of_ones(estimator, width)


def _row_of_ones(estimator: Any, width: int) -> Array:
    """In the float that an estimator takes: some take only the one that they were fitted on."""
    rows = np.ones((1, width))
    try:
        answers(estimator, rows)
    except InputError:
        return rows.astype(np.float32)
    return rows


def _write(convert: Callable[..., str | Sequence[str]] | None, scope: Any, operator: Any, container: Any) -> None:
    opset = container.target_opset
    ops = Ops(container, scope.get_unique_variable_name, opset, partial(convert_part, opset))
    names = [variable.full_name for variable in operator.inputs]
    if all(type(variable.type).__name__ == "StringTensorType" for variable in operator.inputs):
        x = names[0] if len(names) == 1 else ops.Concat(*names, axis=1)
    else:
        x = ops.double(names[0]) if len(names) == 1 else ops.Concat(*map(ops.double, names), axis=1)
    written = convert(operator.raw_operator, x, ops) if convert else []
    for name, variable in zip([written] if isinstance(written, str) else written, operator.outputs, strict=False):
        dtype = {"Int64TensorType": 7, "StringTensorType": 0}.get(type(variable.type).__name__, 1)
        container.add_node(
            "Cast" if dtype else "Identity",
            [name],
            [variable.full_name],
            op_version=13,
            name=scope.get_unique_operator_name("Result"),
            **({"to": dtype} if dtype else {}),
        )


def _write_trees(written: Callable[..., None], scope: Any, operator: Any, container: Any) -> None:
    """As skl2onnx does, which sends every missing value to the right."""
    before = len(container.nodes)
    written(scope, operator, container)
    follow_missing(container.nodes[before:], operator.raw_operator)


def _tensor_type(array: Array) -> Any:
    from skl2onnx.common import data_types

    kinds = {
        "f": data_types.FloatTensorType,
        "i": data_types.Int64TensorType,
        "O": data_types.StringTensorType,
    }
    return kinds[array.dtype.kind]


def _reason(exc: Exception) -> str:
    """The first line of what skl2onnx says, in plain words where it means that it does not know a class."""
    if unknown := re.match(r"Unable to find a shape calculator for type '<class '([^']+)'>'", str(exc)):
        return f"there is no converter for {unknown[1]}"
    return next(iter(str(exc).strip().splitlines()), type(exc).__name__).rstrip(".")
