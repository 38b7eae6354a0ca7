"""What a graph keeps between two calls: a stack of frames, or the state of a memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qhat.axes.operations import Op

if TYPE_CHECKING:
    from qhat.deploy.graph import _Graph


def stack(graph: _Graph, op: Op, dtype: str) -> None:
    """Append the newest frame to the previous frames, or start a new stack."""
    from onnx import TensorProto, helper

    whole = op["shape"]
    frame = graph.node("Reshape", graph.x, graph.shape(-1, whole[0] // op["count"], *whole[1:]))
    old = whole[0] - whole[0] // op["count"]
    ends = [graph.constant(name, [value], np.int64) for name, value in
            (("begin", whole[0] - old), ("end", whole[0]), ("axis", 1))]  # fmt: skip
    kept, wide = graph.node("Slice", "frames", *ends), dtype
    if dtype == "bool" or (op["fill"] != "repeat" and dtype not in ("float32", "int32", "int64")):
        # onnxruntime has no Where and Mul for narrower numbers.
        wide = "int32"
        frame, kept = (graph.node("Cast", part, to=TensorProto.INT32) for part in (frame, kept))
    if op["fill"] == "repeat":
        fresh = graph.node("Concat", *[frame] * (op["count"] - 1), axis=1)
    else:
        fresh = graph.node("Mul", kept, graph.constant("none", 0, wide))
    begins = graph.node("Reshape", "start", graph.shape(-1, *[1] * len(whole)))
    graph.node("Concat", graph.node("Where", begins, fresh, kept), frame, axis=1)
    if wide != dtype:
        graph.node("Cast", graph.x, to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
    graph.call("frames_next")


def memory(graph: _Graph, op: Op) -> None:
    """Compute the state after an observation from that before it, which is 0 at a start."""
    M, gated = op["units"], op["op"] == "gru"
    row = graph.node("Gemm", graph.x, *(graph.tensor(op[key]) for key in ("weight", "bias")), transB=1)
    begins = graph.node("Reshape", "start", graph.shape(-1, 1))
    before = graph.node("Where", begins, graph.constant("empty", 0, np.float32), "memory")
    names = ["stays", *(["resets"] if gated else []), "new"]
    split = graph.constant("units", [M] * len(names), np.int64)
    parts = _parts(graph, row, names, split)
    if gated:
        graph.node("Gemm", before, graph.tensor(op["recurrent"]), transB=1)
        back = _parts(graph, graph.x, names, split)
        opened = graph.node("Sigmoid", graph.node("Add", parts["resets"], back["resets"]))
        graph.node("Add", back["new"], graph.tensor(op["recurrent_bias"]))
        graph.node("Mul", opened, graph.x)
        parts["new"] = graph.node("Tanh", graph.node("Add", parts["new"], graph.x))
        parts["stays"] = graph.node("Add", parts["stays"], back["stays"])
    stays = graph.node("Sigmoid", parts["stays"])
    kept = graph.node("Mul", stays, before)
    graph.node("Sub", graph.constant("whole", 1, np.float32), stays)
    graph.node("Mul", graph.x, parts["new"])
    graph.node("Add", kept, graph.x)
    graph.call("memory_next")


def _parts(graph: _Graph, x: str, names: list[str], sizes: str) -> dict[str, str]:
    """Split the columns of `x`."""
    from onnx import helper

    made = {name: f"{name}_{len(graph.nodes)}" for name in names}
    graph.nodes.append(helper.make_node("Split", [x, sizes], list(made.values()), axis=1))
    return made
