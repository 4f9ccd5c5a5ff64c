"""What converters write graphs with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from onnx import ModelProto

Array = NDArray[Any]
# A tensor: the name of one in the graph, or a constant.
Tensor = str | float | Array
_ML_OPS = {"ArrayFeatureExtractor", "LabelEncoder", "Normalizer", "TreeEnsembleRegressor"}


class Ops:
    """ONNX's operators as methods: ``ops.MatMul(x, weights)`` adds a node and returns the name of its output.

    Arguments are names of tensors or constants; numbers become float64, whole numbers int64, as Python has them.
    Keywords are the operator's attributes.

    Args:
        container: skl2onnx's container of the graph.
        names: gives a name that the graph does not have.
        opset: of ONNX's own operators.
        model_of: converts an estimator whose input is called ``x``, and tells which outputs it has.
    """

    def __init__(
        self,
        container: Any,
        names: Callable[[str], str],
        opset: int,
        model_of: Callable[[Any], ModelProto],
    ) -> None:
        self._container = container
        self._names = names
        self.opset = opset
        self._model_of = model_of

    def __getattr__(self, operator: str) -> Callable[..., str]:
        """The operator of that name; its only output's name is returned."""
        if not operator[:1].isupper():
            raise AttributeError(operator)

        def add(*inputs: Tensor, **attributes: Any) -> str:
            return self.several(operator, 1, *inputs, **attributes)[0]

        return add

    def several(self, operator: str, outputs: int, *inputs: Tensor, **attributes: Any) -> list[str]:
        """An operator with several outputs."""
        from onnx import defs

        domain = "ai.onnx.ml" if operator in _ML_OPS else ""
        version = 1 if domain else defs.get_schema(operator, self.opset, domain).since_version
        names = [self._names(f"{operator.lower()}_out") for _ in range(outputs)]
        self._container.add_node(
            operator,
            [self._tensor(item) for item in inputs],
            names,
            op_domain=domain,
            op_version=version,
            name=self._names(operator),
            **attributes,
        )
        return names

    def double(self, tensor: Tensor) -> str:
        """As float64."""
        return self.Cast(tensor, to=11)

    def single(self, tensor: Tensor) -> str:
        """As float32."""
        return self.Cast(tensor, to=1)

    def integer(self, tensor: Tensor) -> str:
        """As int64; a boolean becomes 0 or 1."""
        return self.Cast(tensor, to=7)

    def columns(self, tensor: Tensor, places: Sequence[int] | Array) -> str:
        """Some columns of a matrix."""
        return self.Gather(tensor, np.asarray(places, dtype=np.int64), axis=1)

    def sum(self, tensor: Tensor, axis: int = 1, *, keepdims: bool = True) -> str:
        """The sum along an axis."""
        return self.ReduceSum(tensor, np.array([axis]), keepdims=int(keepdims))

    def argmax(self, tensor: Tensor) -> str:
        """The place of each row's largest value, of shape (rows,)."""
        return self.ArgMax(tensor, axis=1, keepdims=0)

    def labels(self, places: str, classes: Array) -> str:
        """The classes at places."""
        classes = np.asarray(classes)
        if classes.dtype.kind in "biuf":
            return self.Gather(classes.astype(np.int64), places)
        return self.Gather(np.array([str(item) for item in classes], dtype=object), places)

    def answers(self, estimator: Any, x: str) -> dict[str, str]:
        """The outputs of a fitted estimator inside this one, by name, as `export_sklearn` has them."""
        return self.include(self._model_of(estimator), self.single(x))

    def include(self, model: ModelProto, x: str) -> dict[str, str]:
        """Put a whole model with one input into the graph: its outputs, by their names in that model."""
        from onnx import version_converter

        versions = {opset.domain: opset.version for opset in model.opset_import}
        if versions.get("", self.opset) != self.opset:
            model = version_converter.convert_version(model, self.opset)
            versions[""] = self.opset
        renamed: dict[str, str] = {model.graph.input[0].name: x, "": ""}
        for initializer in model.graph.initializer:
            renamed[initializer.name] = self._names(f"part_{initializer.name}")
            constant = type(initializer)()
            constant.CopyFrom(initializer)
            constant.name = renamed[initializer.name]
            self._container.initializers.append(constant)
        for node in model.graph.node:
            copy = type(node)()
            copy.CopyFrom(node)
            for output in node.output:
                renamed.setdefault(output, self._names(f"part_{output}"))
            copy.name = self._names(node.name or node.op_type)
            copy.input[:] = [renamed[item] for item in node.input]
            copy.output[:] = [renamed[item] for item in node.output]
            self._container.nodes.append(copy)
            self._container.node_domain_version_pair_sets.add((node.domain, versions[node.domain]))
        return {output.name: renamed[output.name] for output in model.graph.output}

    def _tensor(self, value: Tensor) -> str:
        if isinstance(value, str):
            return value
        from onnx import numpy_helper

        array = np.asarray(value)
        if array.dtype.kind == "f" and array.dtype != np.float32:
            array = array.astype(np.float64)
        name = self._names("constant")
        self._container.initializers.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name
