"""Functions of numpy and scipy as graphs, and the way back from what a transformer did."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .._errors import ConversionError
from ._ops import Ops


def _operator(name: str) -> Callable[[Ops, str], str]:
    if name in _ONLY_SINGLE:
        return lambda ops, x: ops.double(getattr(ops, name)(ops.single(x)))
    return lambda ops, x: getattr(ops, name)(x)


# What ONNX Runtime has only in float32.
_ONLY_SINGLE = {"Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Cosh", "Sinh", "Tan"}


FUNCTIONS: Mapping[str, Callable[[Ops, str], str]] = {
    **{
        name: _operator(operator)
        for name, operator in {
            "absolute": "Abs",
            "arccos": "Acos",
            "arccosh": "Acosh",
            "arcsin": "Asin",
            "arcsinh": "Asinh",
            "arctan": "Atan",
            "arctanh": "Atanh",
            "ceil": "Ceil",
            "cos": "Cos",
            "cosh": "Cosh",
            "exp": "Exp",
            "expit": "Sigmoid",
            "fabs": "Abs",
            "floor": "Floor",
            "log": "Log",
            "negative": "Neg",
            "reciprocal": "Reciprocal",
            "rint": "Round",
            "sign": "Sign",
            "sin": "Sin",
            "sinh": "Sinh",
            "sqrt": "Sqrt",
            "tan": "Tan",
            "tanh": "Tanh",
        }.items()
    },
    "cbrt": lambda ops, x: ops.Mul(ops.Sign(x), ops.Pow(ops.Abs(x), 1 / 3)),
    "deg2rad": lambda ops, x: ops.Mul(x, np.pi / 180),
    "exp2": lambda ops, x: ops.Exp(ops.Mul(x, np.log(2))),
    "expm1": lambda ops, x: ops.Sub(ops.Exp(x), 1.0),
    "log10": lambda ops, x: ops.Div(ops.Log(x), np.log(10)),
    "log1p": lambda ops, x: ops.Log(ops.Add(x, 1.0)),
    "log2": lambda ops, x: ops.Div(ops.Log(x), np.log(2)),
    "logit": lambda ops, x: ops.Log(ops.Div(x, ops.Sub(1.0, x))),
    "rad2deg": lambda ops, x: ops.Mul(x, 180 / np.pi),
    "square": lambda ops, x: ops.Mul(x, x),
}


def apply(ops: Ops, function: Any, x: str, arguments: Mapping[str, Any] | None = None) -> str:
    """A function of one array, element by element; None is the identity.

    Raises:
        ConversionError: it is none of those that have a graph.
    """
    if function is None:
        return x
    name = getattr(function, "__name__", repr(function))
    known = isinstance(function, np.ufunc) and name in FUNCTIONS
    if not known or arguments:
        raise ConversionError(
            f"The function {name!r} has no graph; use a function of numpy or scipy.special without arguments, one of "
            f"{sorted(FUNCTIONS)}, or write a converter for a transformer of your own"
        )
    return FUNCTIONS[name](ops, x)


def invert(ops: Ops, transformer: Any, y: str) -> str:
    """What a fitted transformer's `inverse_transform` does.

    Raises:
        ConversionError: there is no graph for that transformer's.
    """
    kind = type(transformer).__name__
    if kind not in _INVERSES:
        raise ConversionError(f"The inverse of {kind} has no graph; use one of {sorted(_INVERSES)}, or a function")
    return _INVERSES[kind](ops, transformer, y)


def _unscale(scale: Any, offset: Any) -> Callable[[Ops, Any, str], str]:
    def inverse(ops: Ops, transformer: Any, y: str) -> str:
        scales, offsets = scale(transformer), offset(transformer)
        y = y if scales is None else ops.Mul(y, np.asarray(scales, dtype=np.float64))
        return y if offsets is None else ops.Add(y, np.asarray(offsets, dtype=np.float64))

    return inverse


def _unbound(ops: Ops, transformer: Any, y: str) -> str:
    return ops.Div(ops.Sub(y, transformer.min_.astype(np.float64)), transformer.scale_.astype(np.float64))


def _unpower(ops: Ops, transformer: Any, y: str) -> str:
    if transformer.standardize:
        y = _INVERSES["StandardScaler"](ops, transformer._scaler, y)
    parts = [_unpower_one(ops, transformer.method, power, y, i) for i, power in enumerate(transformer.lambdas_)]
    return ops.Concat(*parts, axis=1)


def _unpower_one(ops: Ops, method: str, power: float, y: str, column: int) -> str:
    y = ops.columns(y, [column])
    if method == "box-cox":
        return ops.Exp(y) if power == 0 else ops.Pow(ops.Add(ops.Mul(y, power), 1.0), 1 / power)
    # Both halves are worked out for all rows, each on values that it can take.
    above, below = ops.Max(y, 0.0), ops.Min(y, 0.0)
    if abs(power) < np.spacing(1.0):
        upper = ops.Sub(ops.Exp(above), 1.0)
    else:
        upper = ops.Sub(ops.Pow(ops.Add(ops.Mul(above, power), 1.0), 1 / power), 1.0)
    if abs(power - 2) > np.spacing(1.0):
        lower = ops.Sub(1.0, ops.Pow(ops.Add(ops.Mul(below, power - 2), 1.0), 1 / (2 - power)))
    else:
        lower = ops.Sub(1.0, ops.Exp(ops.Neg(below)))
    return ops.Where(ops.GreaterOrEqual(y, 0.0), upper, lower)


_INVERSES: Mapping[str, Callable[[Ops, Any, str], str]] = {
    "FunctionTransformer": lambda ops, item, y: apply(ops, item.inverse_func, y, item.inv_kw_args),
    "MaxAbsScaler": _unscale(lambda item: item.scale_, lambda _: None),
    "MinMaxScaler": _unbound,
    "PowerTransformer": _unpower,
    "RobustScaler": _unscale(lambda item: item.scale_, lambda item: item.center_),
    "StandardScaler": _unscale(
        lambda item: item.scale_, lambda item: item.mean_ if getattr(item, "with_mean", True) else None
    ),
}
