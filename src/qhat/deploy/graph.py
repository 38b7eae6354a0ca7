"""Writes a policy's operations as one ONNX graph, node by node."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from qhat import runtime
from qhat.axes.actions import Actions
from qhat.axes.joint_actions import JointActions
from qhat.axes.operations import Op
from qhat.deploy import kept
from qhat.engine.described import Exported

OPSET, IR = 17, 8
"""Versions of 2022, which onnxruntime 1.12 and later read."""


class _Graph:
    """Collects nodes and constants; `x` is the name of the last output."""

    def __init__(self, tensors: Mapping[str, np.ndarray]) -> None:
        self.tensors = tensors
        self.nodes: list[Any] = []
        self.constants: dict[str, np.ndarray] = {}
        self.x, self.width = "observation", 0
        self.rows = 1
        """Number of rows for each example: one per fraction."""
        self.image = False
        """Whether `x` holds images, channels first."""

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Add a node; its output is the new `x`."""
        from onnx import helper

        self.x = f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, [*inputs], [self.x], **attributes))
        return self.x

    def call(self, name: str) -> None:
        """Rename the last output."""
        self.nodes[-1].output[0] = self.x = name

    def constant(self, name: str, value: Any, dtype: Any = None) -> str:
        self.constants[name] = np.asarray(value, dtype)
        return name

    def tensor(self, name: str) -> str:
        return self.constant(name, self.tensors[name])

    def shape(self, *sizes: int) -> str:
        return self.constant(
            "shape_" + "_".join(str(size).replace("-", "m") for size in sizes), sizes, np.int64
        )


def build(
    exported: Exported,
    shape: tuple[int, ...],
    dtype: str,
    actions: Actions,
    masked: bool,
    metadata: Mapping[str, str],
) -> Any:
    """Return the ONNX model of a policy.

    Args:
        shape: shape of one observation, as the caller gives it.
        dtype: of observations.
        masked: whether a mask of legal actions is an input.
        metadata: properties of the model.
    """
    from onnx import TensorProto, checker, helper, numpy_helper

    graph, batch = _Graph(exported.tensors), "batch"
    outputs, ops = [], list(exported.ops)
    parts = ops[0]["inputs"] if ops[0]["op"] == "parts" else None
    whole = [{"name": "observation", "dtype": dtype, "shape": shape}]
    inputs = [_value(one["name"], one["dtype"], batch, *one["shape"]) for one in parts or whole]
    keeps, keeper = runtime.kept_by(ops)
    if keeps:
        kind, sizes = (dtype, keeper["shape"]) if keeps == "frames" else ("float32", [keeper["units"]])
        inputs += [_value(keeps, kind, batch, *sizes), _value("start", "bool", batch)]
        outputs.append(_value(f"{keeps}_next", kind, batch, *sizes))
    if keeps == "frames":
        kept.stack(graph, ops.pop(0), dtype)
    if dtype != "float32" and parts is None:
        graph.node("Cast", graph.x, to=TensorProto.FLOAT)
    for op in ops:
        WRITERS[op["op"]](graph, op)
    factors = (actions.factors, actions.width) if exported.joint is None else (1, actions.joint)
    discrete = not actions.vector
    if exported.ops[-1]["op"] == "atoms" or not discrete:
        graph.node("Reshape", graph.x, graph.shape(-1, *(factors[1:] if discrete else factors)))
    if actions.exists is not None and exported.joint is None:
        there = graph.constant("exists", actions.exists, bool)
        graph.node("Where", there, graph.x, graph.constant("never", -np.inf, np.float32))
    graph.call("q_values")
    if masked:
        sides = factors[1:] if discrete else (actions.factors, actions.width)
        inputs.append(_value("mask", "bool", batch, *sides))
        q = graph.x
        legal = "mask" if exported.joint is None else _joint_mask(graph, actions, exported.joint)
        graph.node("Where", legal, q, graph.constant("never", -np.inf, np.float32))
    _action(graph, actions, exported.joint)
    outputs = [
        _value("q_values", "float32", batch, *(factors[1:] if discrete else factors)),
        _value(
            "action",
            actions.dtype,
            batch,
            *actions.shape,
        ),
        *outputs,
    ]
    constants = [numpy_helper.from_array(value, name) for name, value in graph.constants.items()]
    made = helper.make_graph(graph.nodes, metadata["name"], inputs, outputs, constants)
    model = helper.make_model(
        made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR, producer_name="qhat"
    )
    helper.set_model_props(model, dict(metadata))
    checker.check_model(model, full_check=True)
    return model


def _value(name: str, dtype: str, *shape: int | str) -> Any:
    from onnx import helper

    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), [*shape])


def _joint_mask(graph: _Graph, actions: Actions, joint: JointActions) -> str:
    """Return which joint actions have only legal choices."""
    from onnx import TensorProto

    graph.node("Cast", "mask", to=TensorProto.FLOAT)
    graph.node("Reshape", graph.x, graph.shape(-1, actions.factors * actions.width))
    places = joint.table + np.arange(actions.factors) * actions.width
    graph.node("Gather", graph.x, graph.constant("joint_choices", places, np.int64), axis=1)
    graph.node("ReduceMin", graph.x, axes=[2], keepdims=0)
    graph.node("Reshape", graph.x, graph.shape(-1, 1, len(joint.table)))
    return graph.node("Cast", graph.x, to=TensorProto.BOOL)


def _action(graph: _Graph, actions: Actions, joint: JointActions | None) -> None:
    """Choose, and convert the choice to an action of the environment."""
    from onnx import helper

    graph.node("ArgMax", graph.x, axis=-1, keepdims=0)
    if joint is not None:
        graph.node("Gather", graph.constant("joint_actions", joint.table, np.int64), graph.x)
        graph.node("Reshape", graph.x, graph.shape(-1, actions.factors))
    given = (actions.factors,) if actions.vector else ()
    if actions.commands is not None:
        first = np.arange(actions.factors) * actions.width
        place = graph.node("Add", graph.x, graph.constant("first", first, np.int64))
        graph.node("Gather", graph.constant("commands", actions.table.reshape(-1)), place)
    elif any(actions.start):
        lowest = np.asarray(actions.start).reshape(given)
        graph.node("Add", graph.x, graph.constant("lowest", lowest, np.int64))
    if actions.commands is None and actions.dtype != "int64":
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(actions.dtype))
        graph.node("Cast", graph.x, to=kind)
    if actions.shape != given:
        graph.node("Reshape", graph.x, graph.shape(-1, *actions.shape))
    graph.call("action")


def _normalise(graph: _Graph, op: Op) -> None:
    graph.node("Sub", graph.x, graph.tensor(op["mean"]))
    graph.node("Div", graph.x, graph.tensor(op["deviation"]))
    limits = [
        graph.constant(name, sign * op["limit"], np.float32) for name, sign in (("least", -1), ("most", 1))
    ]
    graph.node("Clip", graph.x, *limits)


def _image(graph: _Graph, op: Op) -> None:
    """Convert pictures to ONNX's order, channels first."""
    graph.image = True
    graph.node("Transpose", graph.x, perm=[0, *(axis + 1 for axis in op["axes"])])
    graph.node("Reshape", graph.x, graph.shape(-1, *op["shape"]))
    graph.node("Transpose", graph.x, perm=[0, 3, 1, 2])
    if op.get("subtract"):
        graph.node("Sub", graph.x, graph.constant(f"black_{op['subtract']}", op["subtract"], np.float32))
    if op["divide"] != 1.0:
        graph.node("Div", graph.x, graph.constant(f"white_{op['divide']}", op["divide"], np.float32))


def _convolution(graph: _Graph, op: Op) -> None:
    weight = graph.tensors[op["weight"]]
    turned = graph.constant(op["weight"], np.ascontiguousarray(weight.transpose(3, 2, 0, 1)))
    side, stride = len(weight) // 2 if op.get("same", True) else 0, op.get("stride", 1)
    bias = graph.tensor(op["bias"])
    graph.node("Conv", graph.x, turned, bias, strides=[stride] * 2, pads=[side] * 4)


def _residual(graph: _Graph, op: Op) -> None:
    x = graph.x
    for name in ("first", "second"):
        graph.node("Relu", graph.x)
        _convolution(graph, op[name])
    graph.node("Add", x, graph.x)


def _shortcut(graph: _Graph, op: Op) -> None:
    x = graph.x
    for step in op["network"]:
        WRITERS[step["op"]](graph, step)
    graph.node("Add", x, graph.x)


def _blend(graph: _Graph, op: Op) -> None:
    x = graph.x
    for step in op["network"]:
        WRITERS[step["op"]](graph, step)
    graph.node("Sub", graph.x, x)
    graph.node("Mul", graph.x, graph.tensor(op["share"]))
    graph.node("Add", x, graph.x)


def _unit(graph: _Graph, op: Op) -> None:
    if "append" in op:
        # ONNX's padding takes one number; of every row it is the same.
        pads = graph.constant("one_behind", [0, 0, 0, 1], np.int64)
        graph.node("Pad", graph.x, pads, graph.constant("behind", op["append"], np.float32))
    x = graph.x
    graph.node("Mul", x, x)
    graph.node("ReduceSum", graph.x, graph.constant("last", [1], np.int64), keepdims=1)
    graph.node("Add", graph.x, graph.constant(f"shortest_{op['epsilon']}", op["epsilon"], np.float32))
    graph.node("Sqrt", graph.x)
    graph.node("Div", x, graph.x)
    if op["length"] != 1.0:
        graph.node("Mul", graph.x, graph.constant(f"length_{op['length']}", op["length"], np.float32))


def _pool(graph: _Graph, op: Op) -> None:
    graph.node("MaxPool", graph.x, kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER")


def _adaptive_max(graph: _Graph, op: Op) -> None:
    for axis, key in ((2, "rows"), (3, "columns")):
        name = f"windows_{key}_{len(graph.nodes)}"
        graph.node("Gather", graph.x, graph.constant(name, op[key], np.int64), axis=axis)
        graph.node("ReduceMax", graph.x, axes=[axis + 1], keepdims=0)


def _mean_pixels(graph: _Graph, op: Op) -> None:
    graph.node("ReduceMean", graph.x, axes=[2, 3], keepdims=0)
    graph.image = False


def _relu(graph: _Graph, op: Op) -> None:
    graph.node("Relu", graph.x)


def _flatten(graph: _Graph, op: Op) -> None:
    if graph.image:
        graph.node("Transpose", graph.x, perm=[0, 2, 3, 1])
        graph.image = False
    graph.node("Flatten", graph.x, axis=1)


def _parts(graph: _Graph, op: Op) -> None:
    """Run the network of every part of an observation, and concatenate the results."""
    found = []
    for part in op["inputs"]:
        graph.x = part["name"]
        if part["dtype"] != "float32":
            graph.node("Cast", graph.x, to=1)
        for step in part["network"]:
            WRITERS[step["op"]](graph, step)
        found.append(graph.x)
    graph.node("Concat", *found, axis=1)


def _dense(graph: _Graph, op: Op) -> None:
    graph.node("Gemm", graph.x, *(graph.tensor(op[key]) for key in ("weight", "bias")), transB=1)
    graph.width = len(graph.tensors[op["weight"]])


def _layer_norm(graph: _Graph, op: Op) -> None:
    scale, offset = (graph.tensor(op[key]) for key in ("scale", "offset"))
    groups, width = op["groups"], graph.tensors[op["scale"]].size
    if groups == 1:
        graph.node("LayerNormalization", graph.x, scale, offset, axis=-1, epsilon=op["epsilon"])
        return
    part = width // groups
    graph.node("Reshape", graph.x, graph.shape(-1, groups, part))
    ones = graph.constant(f"ones_{part}", np.ones(part), np.float32)
    graph.node("LayerNormalization", graph.x, ones, axis=-1, epsilon=op["epsilon"])
    graph.node("Reshape", graph.x, graph.shape(-1, width))
    graph.node("Mul", graph.x, scale)
    graph.node("Add", graph.x, offset)


def _fractions(graph: _Graph, op: Op) -> None:
    table = graph.tensors[op["table"]]
    graph.node("Reshape", graph.x, graph.shape(-1, 1, table.shape[1]))
    graph.node("Mul", graph.x, graph.tensor(op["table"]))
    # The next layers take every row as a separate example.
    graph.node("Reshape", graph.x, graph.shape(-1, table.shape[1]))
    graph.rows, graph.width = table.shape


def _mean_fractions(graph: _Graph, op: Op) -> None:
    graph.node("Reshape", graph.x, graph.shape(-1, graph.rows, graph.width))
    graph.node("ReduceMean", graph.x, axes=[1], keepdims=0)


def _atoms(graph: _Graph, op: Op) -> None:
    values = graph.tensors[op["values"]]
    graph.node("Reshape", graph.x, graph.shape(0, -1, values.size))
    graph.node("Softmax", graph.x, axis=-1)
    graph.node("MatMul", graph.x, graph.tensor(op["values"]))


def _support(graph: _Graph, op: Op) -> None:
    """Close every choice whose logit is too far below its factor's largest."""
    factors = op["factors"]
    graph.node("Reshape", graph.x, graph.shape(-1, factors, graph.width // (2 * factors), 2))
    both, parts = graph.x, []
    for part in range(2):
        parts.append(graph.node("Gather", both, graph.constant(f"part_{part}", part, np.int64), axis=3))
    q, logits = parts
    graph.node("ReduceMax", logits, axes=[2], keepdims=1)
    graph.node("Sub", graph.x, graph.constant("gap", op["gap"], np.float32))
    graph.node("Greater", logits, graph.x)
    graph.node("Where", graph.x, q, graph.constant("closed", op["closed"], np.float32))
    graph.node("Flatten", graph.x, axis=1)


WRITERS = {
    "normalise": _normalise, "image": _image, "convolution": _convolution, "residual": _residual,
    "pool": _pool, "relu": _relu, "flatten": _flatten, "dense": _dense, "layer_norm": _layer_norm,
    "parts": _parts, "fractions": _fractions, "mean_fractions": _mean_fractions, "atoms": _atoms,
    "adaptive_max": _adaptive_max, "mean_pixels": _mean_pixels, "shortcut": _shortcut,
    "blend": _blend, "unit": _unit, "support": _support, **dict.fromkeys(runtime.CELLS, kept.memory),
}  # fmt: skip
