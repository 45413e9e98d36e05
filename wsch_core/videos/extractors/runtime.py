"""The extractor's network by ONNX Runtime, which on a CPU is several times as fast as torch."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor, nn

from .efficientnet import SIDE, EfficientNetLite0, Layer

OPERATORS = 17  # version of ONNX's operators
FORMAT = 8  # and of its files, the one that came with them


def can_run() -> bool:
    """Whether ONNX Runtime, and ONNX to write what it reads, are installed."""
    return all(find_spec(name) is not None for name in ("onnx", "onnxruntime"))


class OnnxRuntime(nn.Module):
    """Pictures (n, 3, 224, 224) float32 on the CPU -> (n, 1280), as the network in torch, to rounding."""

    def __init__(self, network: EfficientNetLite0):
        super().__init__()
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # videos are decoded meanwhile
        self.session = onnxruntime.InferenceSession(_graph(network), options, providers=["CPUExecutionProvider"])

    def forward(self, pictures: Tensor) -> Tensor:
        (features,) = self.session.run(None, {"pictures": pictures.contiguous().numpy()})
        return torch.from_numpy(features)


def _graph(network: EfficientNetLite0) -> bytes:
    """The network as an ONNX model."""
    from onnx import TensorProto, helper, numpy_helper

    limits = {"lowest": np.float32(0), "highest": np.float32(6)}
    stored = [numpy_helper.from_array(np.asarray(value), name) for name, value in limits.items()]
    nodes = []

    def add(kind: str, *inputs: str, **attributes) -> str:
        nodes.append(helper.make_node(kind, inputs, [f"{kind}{len(nodes)}"], **attributes))
        return nodes[-1].output[0]

    def add_layer(layer: Layer, pictures: str) -> str:
        names = [f"{part}{len(nodes)}" for part in ("weight", "bias")]
        values = (layer.weight, layer.bias)
        stored.extend(
            numpy_helper.from_array(value.numpy(force=True), name) for value, name in zip(values, names, strict=True)
        )
        before, after = layer.padding
        out = add(
            "Conv",
            pictures,
            *names,
            pads=[before, before, after, after],
            strides=[layer.stride] * 2,
            group=layer.groups,
        )
        return add("Clip", out, *limits) if layer.clipped else out

    out = "pictures"
    for block in network.blocks:
        into = out
        for layer in block:
            out = add_layer(layer, out)
        if block.adds:
            out = add("Add", into, out)
    features = add("ReduceMean", out, axes=[2, 3], keepdims=0)
    shapes = [("pictures", ["n", 3, SIDE, SIDE]), (features, ["n", len(network.blocks[-1][0].bias)])]
    taken, given = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes)
    graph = helper.make_graph(nodes, "efficientnet-lite0", [taken], [given], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPERATORS)], ir_version=FORMAT)
    return model.SerializeToString()
