"""A plan of 28x28 images of ten classes that draws something at once."""

from pathlib import Path

import pytest
from kit.tiny_networks import write_toy_plan


@pytest.fixture(scope="session")
def garments_plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from onnx import TensorProto, helper

    shape = ("batch", 1, 28, 28)
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, shape),
        helper.make_tensor_value_info("t", TensorProto.FLOAT, (1,)),
        helper.make_tensor_value_info("label", TensorProto.INT64, ("batch",)),
    ]
    scale = helper.make_tensor("scale", TensorProto.FLOAT, (), [0.5])
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "scale"], ["output"])],
        "half",
        inputs,
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, shape)],
        [scale],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    path = tmp_path_factory.mktemp("garments") / "engine.plan"
    return write_toy_plan(path, model.SerializeToString(), shape=(1, 28, 28), num_classes=10)
