"""Networks for tests: random U-Nets as checkpoints, and ONNX files of one multiplication that need no lowering."""

from pathlib import Path
from typing import Any

import numpy as np

from pysdk.plan.manifest import DefaultsInfo, EngineInfo, Manifest, ModelInfo, ScheduleInfo
from pysdk.plan.writer import write_plan

TOY_SHAPE = (1, 2, 2)


def one_thread() -> None:
    """torch on one thread, for the same numbers and speed anywhere."""
    import torch

    torch.set_num_threads(1)


def save_random_unet(folder: Path, *, timesteps: int = 1000, schedule: str = "linear", **changes: Any) -> Path:
    """A checkpoint of an 8x8 U-Net whose weights are all random: fresh ones end in zeros and return nothing else."""
    import torch

    from pysdk.training.checkpoint import ModelConfig, save_model
    from pysdk.training.unet import UNet, UNetConfig

    one_thread()
    prediction_type = changes.pop("prediction_type", "epsilon")
    small = {"image_shape": (1, 8, 8), "model_channels": 8, "channel_mult": (1, 2), "num_res_blocks": 1}
    config = UNetConfig(**{**small, "attention_levels": (1,), "head_channels": 8, "norm_groups": 4, **changes})
    network = UNet(config)
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        # gains of the norms included: with gains of 1 a chain of 50 steps amplifies the last bit to another image
        torch.nn.init.normal_(parameter, std=0.15, generator=generator)
    save_model(
        folder, ModelConfig("tiny", config, schedule, {"timesteps": timesteps}, prediction_type), network.state_dict()
    )
    return folder


def multiplication(
    factor: float, *, classes: bool = False, shape: tuple[int, int, int] = TOY_SHAPE, output: str = "output"
) -> bytes:
    """An ONNX network that returns factor * x, or (factor + label) * x for 3 classes and a null label."""
    from onnx import TensorProto, checker, helper

    batch = ("batch", *shape)
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, batch),
        helper.make_tensor_value_info("t", TensorProto.FLOAT, (1,)),
    ]
    constants = [helper.make_tensor("table", TensorProto.FLOAT, (4, 1, 1, 1), [factor + label for label in range(4)])]
    if classes:
        inputs.append(helper.make_tensor_value_info("label", TensorProto.INT64, ("batch",)))
    else:
        constants.append(helper.make_tensor("label", TensorProto.INT64, (1,), [0]))
    nodes = [
        helper.make_node("Gather", ["table", "label"], ["factor"]),
        helper.make_node("Mul", ["x", "factor"], [output]),
    ]
    outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, batch)]
    graph = helper.make_graph(nodes, "multiplication", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    checker.check_model(model)
    return bytes(model.SerializeToString())


def toy_engine(**changes: Any) -> EngineInfo:
    """The engine of a toy plan, changed in some fields."""
    plain = {"kind": "onnxruntime", "member": "network.onnx", "precision": "float32", "batch_size": 4}
    return EngineInfo(**{**plain, "batch_invariant": True, **changes})


def write_toy_plan(
    path: Path,
    network: bytes | None = None,
    *,
    engines: tuple[EngineInfo, ...] = (toy_engine(),),
    defaults: DefaultsInfo | None = None,
    **model: Any,
) -> Path:
    """A plan of x / 2 as predicted noise: 1x2x2 images, 10 timesteps; keywords change the model."""
    info = ModelInfo(**{"name": "toy", "shape": TOY_SHAPE, "out_channels": 1, **model})
    manifest = Manifest(
        pysdk_version="0.1.0",
        model=info,
        schedule=ScheduleInfo(name="linear", betas=tuple(np.linspace(1e-3, 0.2, 10).tolist())),
        defaults=DefaultsInfo() if defaults is None else defaults,
        engines=engines,
    )
    network = multiplication(0.5, classes=info.num_classes is not None) if network is None else network
    write_plan(path, manifest, {"network.onnx": network})
    return path
