"""The ends of a converted graph: inputs as requests have them, outputs as we promise them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ._errors import ConversionError
from ._export import Array
from ._sklearn_rows import Rows

if TYPE_CHECKING:
    from onnx import ModelProto


def lead_inputs(model: ModelProto, rows: Rows) -> None:
    """Lead a model's inputs to the variables that the converter saw: split, joined or cast."""
    from onnx import helper

    graph = model.graph
    nodes: list[Any] = []

    def add(operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    sources = {}
    for name in rows.inputs:
        members = [] if name in rows.variables else rows.columns.get(name, [])
        if members:
            outputs = [f"{member}_of_{name}" for member in members]
            nodes.append(helper.make_node("Split", [name], outputs, axis=1, num_outputs=len(members)))
        sources.update(dict(zip(members, outputs, strict=True)) if members else {name: name})
    # skl2onnx takes out of names what it does not like, and inputs that nothing uses stay.
    written = dict(zip(rows.variables, (item.name for item in graph.input), strict=True))
    renamed = {written[name]: name for name in rows.variables}
    for name, array in rows.variables.items():
        dtype = _dtype(array)
        if name not in sources:
            order = [str(column) for column in rows.given.columns]
            floats = [add("Cast", [sources[column]], f"{column}_as_{name}", to=dtype) for column in order]
            renamed[written[name]] = add("Concat", floats, f"{name}_joined", axis=1)
        elif name in rows.inputs and _dtype(rows.inputs[name]) != dtype:
            renamed[written[name]] = add("Cast", [name], f"{name}_as_number", to=dtype)
        elif sources[name] != name:
            renamed[written[name]] = add("Cast", [sources[name]], f"{sources[name]}_as_seen", to=dtype)
    _rename(graph, renamed)
    nodes.extend(graph.node)
    del graph.node[:]
    graph.node.extend(nodes)
    del graph.input[:]
    graph.input.extend(
        helper.make_tensor_value_info(name, _dtype(array), [None, *array.shape[1:]])
        for name, array in rows.inputs.items()
    )


def finish_outputs(model: ModelProto, expected: Mapping[str, Array], estimator: str) -> None:
    """Give a graph's outputs the names, dtypes and shapes that were promised.

    Raises:
        ConversionError: the graph has fewer outputs.
    """
    from onnx import helper

    graph = model.graph
    for node in graph.node:
        if node.op_type == "StringNormalizer" and not any(item.name == "locale" for item in node.attribute):
            # Its default is American English, which most servers have not installed; this one every glibc has.
            node.attribute.append(helper.make_attribute("locale", "C.UTF-8"))
    there = [(output.name, _declared(output)) for output in graph.output if output.type.HasField("tensor_type")]
    several = len(there) < len(expected) and len(there) == 2 and len(there[1][1]) == 3
    if len(there) < len(expected) and not several:
        raise ConversionError(
            f"The converter of {estimator} writes {[output.name for output in graph.output]}, and {list(expected)} are "
            "needed; write a converter of your own for it (tritium.exporters.converters)"
        )
    made = [name for node in graph.node for name in node.output if name]
    inner = {name: f"tritium_{place}" for place, name in enumerate(made)}
    _rename(graph, inner)
    del graph.output[:]
    for place, (name, array) in enumerate(expected.items()):
        source, declared = there[min(place, 1) if several else place]
        target = place - 1 if several and place else None
        # What skl2onnx declares of classifiers with a yes or no for each target is half of what it writes.
        flags = place > 0 and next(iter(expected.values())).ndim == 2
        _add_output(graph, inner.get(source, source), declared, name, array, target, flags)


def _add_output(
    graph: Any, source: str, declared: Sequence[int], name: str, array: Array, target: int | None, flags: bool
) -> None:
    """Lead what the converter wrote to an output as it was promised.

    Args:
        graph: gets the nodes and the output.
        source: what the converter wrote.
        declared: its shape, with 0 where it is free.
        name: the output's.
        array: as the estimator answers.
        target: which target's part of it is meant, where it has one for each.
        flags: whether it may be wider than declared.
    """
    from onnx import TensorProto, helper

    dtype = _dtype(array)

    def integers(values: Sequence[int]) -> str:
        constant = f"{name}_constant_{len(graph.node)}_{len(graph.initializer)}"
        graph.initializer.append(helper.make_tensor(constant, TensorProto.INT64, [len(values)], values))
        return constant

    def add(operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        output = output or f"{name}_{operator.lower()}"
        graph.node.append(helper.make_node(operator, list(inputs), [output], **attributes))
        return output

    if target is not None:
        source = add("Gather", source, integers([target]), axis=0)
    elif array.ndim == len(declared) == 3 and declared[0] == array.shape[1]:
        source = add("Transpose", source, perm=[1, 0, 2])
    width = declared[-1] if declared else 0
    if width > array.shape[-1] and target is not None:
        # The targets with fewer classes are padded.
        source = add("Slice", source, integers([0]), integers([array.shape[-1]]), integers([2]))
    elif array.ndim == len(declared) == 2 and (width != array.shape[1] or flags):
        # Both sides of a decision, where scikit-learn has one: the last is the one for the class.
        source = add("Slice", source, integers([-array.shape[1]]), integers([2**31]), integers([1]))
    if dtype != TensorProto.STRING:
        source = add("Cast", source, to=dtype)
    add("Reshape", source, integers([-1, *array.shape[1:]]), output=name)
    graph.output.append(helper.make_tensor_value_info(name, dtype, [None, *array.shape[1:]]))


def _declared(output: Any) -> list[int]:
    return [int(dim.dim_value) for dim in output.type.tensor_type.shape.dim]


def _dtype(array: Array) -> int:
    """The element type in ONNX."""
    from onnx import TensorProto

    types = {"f": TensorProto.FLOAT, "i": TensorProto.INT64, "b": TensorProto.BOOL, "O": TensorProto.STRING}
    return int(types[array.dtype.kind])


def _rename(graph: Any, names: Mapping[str, str]) -> None:
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _rename(attribute.g, names)
