#include "bindings/engine/program.h"

#include <pybind11/stl.h>

#include <tuple>

#include "base/float_state.h"
#include "bindings/bindings.h"
#include "bindings/engine/program_values.h"

namespace pysdk {

namespace {

std::shared_ptr<PythonProgram> make_program(std::tuple<std::size_t, std::size_t, std::size_t> shape,
                                            std::size_t out_channels, const TensorList& tensors,
                                            const WeightList& weights, const OpList& ops,
                                            const std::vector<py::buffer>& sources) {
  std::vector<engine::Tensor> shapes = tensors_of(tensors);
  const std::vector<engine::Weight> constants = weights_of(weights);
  const std::vector<engine::OpRecord> records = ops_of(ops);
  std::vector<py::buffer_info> views;
  std::vector<engine::Bytes> bytes;
  for (const py::buffer& source : sources) {
    views.push_back(source.request());
    if (views.back().itemsize != 1 || views.back().ndim != 1 ||
        (views.back().size > 1 && views.back().strides[0] != 1)) {
      throw py::value_error("a source is not a contiguous buffer of bytes");
    }
    bytes.push_back(
        {static_cast<const unsigned char*>(views.back().ptr), static_cast<std::size_t>(views.back().size)});
  }
  const auto [channels, height, width] = shape;
  const engine::Tensor image{channels, height, width, false};
  std::shared_ptr<engine::Program> program;
  {
    const py::gil_scoped_release release;
    Watch watch{Interrupts()};
    program = std::make_shared<engine::Program>(image, out_channels, std::move(shapes), constants, records,
                                                bytes, watch);
  }
  return std::make_shared<PythonProgram>(std::move(program), std::move(views));
}

}  // namespace

void register_program(py::module_& module) {
  py::class_<engine::Cost>(module, "Cost", py::is_final(), "What a program takes of a machine.")
      .def_readonly(
          "multiplications", &engine::Cost::multiplications,
          "Of all matrix products of one step for the batch, as they are made: Winograd's are fewer.")
      .def_readonly("moved", &engine::Cost::moved,
                    "Floats that the ops of one step for the batch read and write.")
      .def_readonly("weights", &engine::Cost::weights, "Bytes of the packed weights.")
      .def_readonly("loading", &engine::Cost::loading, "Bytes more while they are packed.")
      .def_readonly("network", &engine::Cost::network,
                    "Bytes of a network for the batch: activations and work space.");
  py::class_<PythonProgram, std::shared_ptr<PythonProgram>>(
      module, "Program", py::is_final(),
      R"doc(A network compiled to ops for the CPU engine; checked whole when it is made.

Nothing large is allocated before `pack`, which comes before the first network.
Several networks, on several threads, may be bound to one program; they share its weights.)doc")
      .def(py::init(&make_program), py::call_guard<FloatState>(), py::kw_only(), py::arg("shape"),
           py::arg("out_channels"), py::arg("tensors"), py::arg("weights"), py::arg("ops"),
           py::arg("sources"),
           R"doc(Check a program.

Args:
    shape: (C, H, W) of an image.
    out_channels: the output's.
    tensors: (channels, height, width, shared) each.
    weights: (shape, parts) each, a part being (source, byte offset, rows, columns, transposed).
    ops: the fields of each by name, its own name being `op`.
    sources: buffers of bytes that hold the weights; kept until they are packed.

Raises:
    ValueError: the program is not one; the message names the op and the field.)doc")
      .def("cost", &PythonProgram::cost, py::kw_only(), py::arg("batch"), py::arg("threads") = 1,
           R"doc(What it takes to run on so many images, computed from its structure alone.

Raises:
    ValueError: the batch is too large for any machine.)doc")
      .def("pack", &PythonProgram::pack, py::call_guard<FloatState>(), py::kw_only(), py::arg("threads") = 1,
           R"doc(Read the weights and pack them; once.

Raises:
    MemoryError: they do not fit in memory.)doc")
      .def_property_readonly(
          "weight_bytes", [](const PythonProgram& bound) { return bound.program()->weight_bytes(); },
          "Bytes of the packed weights, 0 before they are.");
}

}  // namespace pysdk
