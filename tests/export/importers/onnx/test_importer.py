"""ONNX files of all forms as plans, and the ones that cannot be."""

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from pysdk import Sampler
from pysdk.errors import CheckpointError, ExportError, OptionError
from pysdk.export.build import build
from pysdk.export.importers import load_network
from pysdk.export.lowering.surgery import all_tensors

FORM = {"prediction_type": "epsilon", "schedule": "linear", "timesteps": "20"}
SIZE = 6
TABLE = [0.0, 0.1, 0.2, 0.3]

FLOAT, HALF, INT32, INT64 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT32, TensorProto.INT64


def graph(
    *,
    layout: str = "nchw",
    kind: int = FLOAT,
    time: tuple[int, tuple[Any, ...]] = (FLOAT, ("batch",)),
    label: int | None = None,
    batch: Any = "batch",
    channels: int = 3,
    outputs: int = 1,
    names: tuple[str, str, str, str] = ("sample", "timestep", "class_labels", "noise_pred"),
    operator: str = "Mul",
) -> onnx.ModelProto:
    """noise = x * t / 100 (+ table[label]), its first pixel's first channel doubled so that axes cannot be confused.

    With `outputs` 2 the channels are repeated, as for a learned variance.
    """
    x, t, y, out = names
    shape = (batch, channels, SIZE, SIZE) if layout == "nchw" else (batch, SIZE, SIZE, channels)
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    mark = np.ones((channels, SIZE, SIZE))
    mark[0, 0, 1] = 2
    mark = mark if layout == "nchw" else mark.transpose(1, 2, 0)
    constants = {
        "per_image": np.array([-1, 1, 1, 1]),
        "hundredth": np.array([0.01], dtype),
        "mark": mark.astype(dtype),
        "table": np.reshape(TABLE, (4, 1, 1, 1)).astype(dtype),
    }
    nodes = [
        helper.make_node("Cast", [t], ["t_float"], to=kind),
        helper.make_node("Reshape", ["t_float", "per_image"], ["t_image"]),
        helper.make_node("Mul", ["t_image", "hundredth"], ["factor"]),
        helper.make_node("Mul", [x, "mark"], ["marked"]),
        helper.make_node(operator, ["marked", "factor"], ["scaled"]),
    ]
    inputs = [helper.make_tensor_value_info(x, kind, shape), helper.make_tensor_value_info(t, *time)]
    last = "scaled"
    if label is not None:
        inputs.append(helper.make_tensor_value_info(y, label, ("batch",)))
        nodes += [
            helper.make_node("Gather", ["table", y], ["offset"]),
            helper.make_node("Add", ["scaled", "offset"], ["moved"]),
        ]
        last = "moved"
    nodes.append(helper.make_node("Concat", [last] * outputs, [out], axis=1 if layout == "nchw" else 3))
    result = helper.make_tensor_value_info(out, kind, ("batch", None, None, None))
    used = {name for node in nodes for name in node.input}
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items() if name in used]
    return helper.make_model(
        helper.make_graph(nodes, "denoiser", inputs, [result], tensors),
        opset_imports=[helper.make_opsetid("", 15)],
        ir_version=8,
    )


@pytest.fixture
def save(tmp_path):
    def save(model: onnx.ModelProto) -> str:
        onnx.save_model(model, str(tmp_path / "denoiser.onnx"))
        return str(tmp_path / "denoiser.onnx")

    return save


def refusal(source: str, error: type[Exception], options: dict[str, str] = FORM) -> str:
    with pytest.raises(error) as caught:
        load_network(source, options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def expected(x: np.ndarray, t: float, label: np.ndarray | None) -> np.ndarray:
    mark = np.ones(x.shape[1:], np.float32)
    mark[0, 0, 1] = 2
    y = x * mark * np.float32(t * 0.01)
    return y if label is None else y + np.array(TABLE, np.float32)[label][:, None, None, None]


# The same network in every form.


@pytest.mark.parametrize(
    ("form", "options", "tolerance"),
    [
        ({}, {}, 1e-6),
        ({"time": (INT64, ())}, {}, 1e-6),
        ({"time": (INT32, (1,))}, {}, 1e-6),
        ({"layout": "nhwc"}, {}, 1e-6),
        ({"layout": "nhwc", "time": (INT64, ())}, {"layout": "nhwc"}, 1e-6),
        ({"kind": HALF, "time": (HALF, ("batch",))}, {}, 1e-2),
        ({"label": INT64}, {"num_classes": "3", "null_label": "3"}, 1e-6),
        ({"label": INT32, "time": (INT64, ("batch",))}, {"num_classes": "3"}, 1e-6),
        ({"outputs": 2}, {"variance_type": "learned_range"}, 1e-6),
        ({"names": ("x", "t", "label", "output")}, {}, 1e-6),
        ({"names": ("output", "x", "t", "label")}, {"t_name": "x"}, 1e-6),
        ({"names": ("a", "b", "c", "d"), "label": INT64}, {"num_classes": "3", "x_name": "a"}, 1e-6),
        (
            {"names": ("a", "b", "c", "d"), "label": INT64, "time": (INT64, ("batch",))},
            {"num_classes": "3", "label_name": "c", "output_name": "d", "t_shape": "batch"},
            1e-6,
        ),
    ],
)
def test_outputs(save, form, options, tolerance):
    network = load_network(save(graph(**form)), {**FORM, **options})
    assert network.model.shape == (3, SIZE, SIZE)
    session = onnxruntime.InferenceSession(network.onnx.graph, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    for batch in (1, 2, 5):
        x = rng.standard_normal((batch, 3, SIZE, SIZE)).astype(np.float32)
        label = rng.integers(3, size=batch) if "label" in form else None
        feed = {"x": x, "t": np.array([13.0], np.float32)} | ({} if label is None else {"label": label})
        (y,) = session.run(["output"], feed)
        assert y.dtype == np.float32
        for part in np.split(y, form.get("outputs", 1), axis=1):
            np.testing.assert_allclose(part, expected(x, 13, label), rtol=tolerance, atol=tolerance)


def test_a_built_plan(save, tmp_path):
    source = save(graph(label=INT64, layout="nhwc"))
    options = {**FORM, "num_classes": "3", "null_label": "3", "name": "toy", "clip_sample": "true"}
    manifest = build(source, tmp_path / "toy.plan", importer_options=options, steps=5, guidance_scale=2.0, batch_size=4)
    assert (manifest.model.name, manifest.model.num_classes, manifest.model.null_label) == ("toy", 3, 3)
    assert manifest.engines[0].max_abs_error is None
    assert "not compared" in manifest.engines[0].notes
    with Sampler(tmp_path / "toy.plan", threads=1) as sampler:
        images = sampler.sample(5, output="float32", progress=False)
        alone = sampler.sample(1, start=4, output="float32", progress=False)
    assert images.shape == (5, 3, SIZE, SIZE)
    assert np.isfinite(images).all()
    np.testing.assert_array_equal(images[4:], alone)


def test_whole_timesteps_have_nothing_between(save, tmp_path):
    build(save(graph(time=(INT64, ("batch",)))), tmp_path / "whole.plan", importer_options=FORM)
    with Sampler(tmp_path / "whole.plan", threads=1) as sampler:
        assert sampler.plan.manifest.model.whole_timesteps
        sampler.sample(1, solver="euler", steps=4)
        with pytest.raises(OptionError, match=r"visits timestep 6\.\d+, but .* takes whole ones; use sigmas="):
            sampler.sample(1, solver="euler", steps=4, sigmas="karras")


def test_weights_beside_the_file(tmp_path):
    source = tmp_path / "denoiser.onnx"
    onnx.save_model(graph(), str(source), save_as_external_data=True, location="weights.data", size_threshold=0)
    assert (tmp_path / "weights.data").stat().st_size > 0
    network = load_network(str(source), FORM)
    graph_kept = onnx.load_from_string(network.onnx.graph)
    assert not any(tensor.data_location == TensorProto.EXTERNAL for tensor in all_tensors(graph_kept))
    (tmp_path / "weights.data").unlink()
    assert "'weights.data', which is not beside it" in refusal(str(source), CheckpointError)


def test_betas_from_a_file(save, tmp_path):
    betas = np.linspace(1e-3, 0.1, 7)
    np.save(tmp_path / "betas.npy", betas)
    options = {"prediction_type": "sample", "betas": str(tmp_path / "betas.npy")}
    network = load_network(save(graph()), options)
    assert network.schedule.betas == tuple(betas)
    np.savez(tmp_path / "betas.npz", betas=betas)
    both = {**FORM, "betas": "betas.npy"}
    assert "either --schedule" in refusal(save(graph()), OptionError, both)
    archive = {**options, "betas": str(tmp_path / "betas.npz")}
    assert "does not begin as an array does" in refusal(save(graph()), OptionError, archive)
    missing = {**options, "betas": str(tmp_path / "none.npy")}
    assert "There is no file" in refusal(save(graph()), OptionError, missing)


# What is refused.


@pytest.mark.parametrize(
    ("form", "options", "reason"),
    [
        ({}, {"prediction_type": "score"}, "--prediction_type is 'score', expected one of epsilon, sample"),
        ({}, {"colour": "red"}, "an ONNX file takes no option --colour"),
        ({}, {"s": "0.008"}, "an ONNX file takes no option --s;"),  # linear has none
        ({}, {"beta_start": "small"}, "--beta_start is 'small', expected a number"),
        (
            {},
            {"preconditioning": "edm"},
            "--prediction_type is given with --preconditioning edm, whose networks are told",
        ),
        ({}, {"preconditioning": "vp"}, "--preconditioning is 'vp', expected one of none, edm, denoiser"),
        ({}, {"sigma_data": "0.5"}, "an ONNX file takes no option --sigma_data"),
        ({}, {"value_range": "0,1"}, "--value_range is 0,1; only -1,1 can be sampled"),
        ({}, {"shape": "3,8"}, "--shape is '3,8', expected C,H,W"),
        ({}, {"shape": "3,8,8"}, "--shape is (3, 8, 8), but the network has (3, 6, 6)"),
        ({}, {"x_name": "image"}, "--x_name is 'image', but the network's inputs are ['sample', 'timestep']"),
        ({}, {"output_name": "y"}, "--output_name is 'y', but the network's outputs are ['noise_pred']"),
        ({}, {"null_label": "3"}, "--null_label is given without --num_classes"),
        ({}, {"label_name": "timestep"}, "--label_name is given without --num_classes"),
        ({"label": INT64}, {"num_classes": "3", "null_label": "5"}, "--null_label is 5, expected 0 to 3"),
        ({}, {"num_classes": "3"}, "the network has 0 inputs that could be the label"),
        ({"label": INT64}, {}, "the network has an input 'class_labels': say --num_classes"),
        ({"outputs": 2}, {}, "--variance_type is fixed_small, but the network returns 6 channels"),
        ({}, {"variance_type": "learned_range"}, "--variance_type is learned_range, but the network returns 3"),
        ({"channels": SIZE}, {}, "either layout; say --layout"),
        (
            {"label": INT64, "time": (INT64, ("batch",)), "names": ("a", "b", "c", "d")},
            {"num_classes": "3"},
            "the network has 2 inputs that could be the label: ['b', 'c']; say --label_name",
        ),
    ],
)
def test_options_refused(save, form, options, reason):
    assert reason in refusal(save(graph(**form)), OptionError, {**FORM, **options})


@pytest.mark.parametrize("missing", ["prediction_type", "schedule"])
def test_options_that_must_be_said(save, missing):
    options = {name: value for name, value in FORM.items() if name != missing}
    options.pop("timesteps")
    assert f"--{missing}" in refusal(save(graph()), OptionError, options)


@pytest.mark.parametrize(
    ("form", "options", "reason"),
    [
        ({"batch": 1}, {}, "has a fixed batch of 1; export it with a dynamic batch axis"),
        ({"time": (FLOAT, ("batch", 1))}, {}, "has shape ['batch', 1], expected a scalar, (1,) or (batch,)"),
        ({"label": INT64, "names": ("x", "t", "mask", "o")}, {}, "the network needs ['mask'], which a chain does not"),
        ({"operator": "Div"}, {}, "returns NaN or infinity at t = 0 on random input"),
        ({"label": INT64}, {"num_classes": "9"}, "fails on a batch of 1 images"),
    ],
)
def test_graphs_refused(save, form, options, reason):
    assert reason in refusal(save(graph(**form)), CheckpointError, {**FORM, **options})


def test_images_that_depend_on_their_neighbours(save):
    model = graph()
    mean = helper.make_node("ReduceMean", ["scaled"], ["mean"], axes=[0], keepdims=1)
    last = model.graph.node.pop()
    mixed = helper.make_node("Sub", ["scaled", "mean"], list(last.output))
    model.graph.node.extend([mean, mixed])
    assert "comes out differently when others are in its batch" in refusal(save(model), CheckpointError)


def test_an_old_opset(save):
    model = graph()
    model.opset_import[0].version = 7
    assert "has opset 7, expected 8 or newer" in refusal(save(model), CheckpointError)


@pytest.mark.parametrize("location", ["../secret.data", "/etc/hostname", "folder/weights.data", "link.data"])
def test_weights_elsewhere(save, tmp_path, location):
    (tmp_path / "real.bin").write_bytes(bytes(16))
    (tmp_path / "link.data").symlink_to(tmp_path / "real.bin")
    model = graph()
    tensor = model.graph.initializer[1]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    source = tmp_path / "denoiser.onnx"
    source.write_bytes(model.SerializeToString())
    assert f"keeps weights in {location!r}; only files beside it are read" in refusal(str(source), CheckpointError)


@pytest.mark.parametrize(
    ("contents", "reason"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "is a Git LFS pointer"),
        (b"", "is empty or cannot be read"),
        (b"PK\x03\x04 no protobuf", "is not an ONNX file"),
        (b"\x08\x08", "is not a valid ONNX model"),
    ],
)
def test_files_that_are_no_onnx(tmp_path, contents, reason):
    path = tmp_path / "a.onnx"
    path.write_bytes(contents)
    assert reason in refusal(str(path), CheckpointError)


# TensorRT.


def test_a_tensorrt_engine(tmp_path):
    for name in ("model.engine", "model.plan", "model.bin"):
        path = tmp_path / name
        path.write_bytes(b"ftrt" + bytes(64))
        message = refusal(str(path), CheckpointError, {})
        assert "is a serialized engine of TensorRT: TensorRT is needed to read it" in message
        assert "build from the ONNX file it was made of" in message


def test_files_named_like_an_engine(tmp_path):
    path = tmp_path / "model.engine"
    path.write_bytes(b"something else")
    assert "does not begin like one" in refusal(str(path), CheckpointError, {})


def test_the_command_names_the_step(save, tmp_path):
    with pytest.raises(ExportError, match="load the checkpoint: --value_range is 0,1"):
        build(save(graph()), tmp_path / "x.plan", importer_options={**FORM, "value_range": "0,1"})
