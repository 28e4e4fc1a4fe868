#include <pybind11/stl.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "base/float_state.h"
#include "bindings/arrays.h"
#include "bindings/bindings.h"
#include "bindings/interrupts.h"
#include "bindings/program_values.h"
#include "engine/program.h"

namespace pysdk {

namespace {

using engine::Cost;
using engine::Network;

constexpr std::int64_t kMaxThreads = 256;
constexpr std::int64_t kMaxBatch = 1 << 20;

std::size_t check_threads(std::int64_t threads) {
  if (threads < 1 || threads > kMaxThreads) {
    throw py::value_error("threads is " + std::to_string(threads) + "; it must be between 1 and 256");
  }
  return static_cast<std::size_t>(threads);
}

// A program, and until it is packed the buffers its constants are in.
class BoundProgram {
 public:
  BoundProgram(std::shared_ptr<engine::Program> program, std::vector<py::buffer_info> views)
      : program_(std::move(program)), views_(std::move(views)) {}

  Cost cost(std::int64_t batch, std::int64_t threads) const {
    const std::size_t workers = check_threads(threads);
    if (batch < 1 || batch > kMaxBatch) throw py::value_error("the batch is empty or above 2^20");
    const py::gil_scoped_release release;
    return program_->cost(static_cast<std::size_t>(batch), workers);
  }
  void pack(std::int64_t threads) {
    const std::size_t workers = check_threads(threads);
    {
      const py::gil_scoped_release release;
      Watch watch{Interrupts()};
      program_->pack(workers, watch);
    }
    views_.clear();
  }
  const std::shared_ptr<engine::Program>& program() const { return program_; }

 private:
  std::shared_ptr<engine::Program> program_;
  std::vector<py::buffer_info> views_;
};

std::shared_ptr<BoundProgram> make_program(std::tuple<std::size_t, std::size_t, std::size_t> shape,
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
  return std::make_shared<BoundProgram>(std::move(program), std::move(views));
}

// A network on numpy arrays, which it keeps alive.
class BoundNetwork : public Denoiser {
 public:
  BoundNetwork(const BoundProgram& bound, const NdArray<float>& input, const NdArray<float>& time,
               const NdArray<std::int64_t>& labels, const NdArray<float>& output, std::int64_t threads) {
    const std::shared_ptr<engine::Program>& program = bound.program();
    const engine::Tensor &in = program->image_in(), &out = program->image_out();
    const auto size = [](std::size_t n) { return static_cast<py::ssize_t>(n); };
    input_ =
        in_place<float>("network_input", input, {-1, size(in.channels), size(in.height), size(in.width)});
    const py::ssize_t batch = input_.shape(0);
    time_ = in_place<float>("network_time", time, {1});
    labels_ = in_place<std::int64_t>("network_labels", labels, {batch});
    output_ = in_place<float>("network_output", output,
                              {batch, size(out.channels), size(out.height), size(out.width)});
    if (batch < 1 || batch > kMaxBatch) throw py::value_error("the batch is empty or above 2^20");
    const engine::Ports ports{input_.data(), time_.data(), labels_.data(), output_.mutable_data()};
    network_ =
        std::make_unique<Network>(program, static_cast<std::size_t>(batch), ports, check_threads(threads));
  }

  void enqueue(Watch& watch) override { network_->enqueue(watch); }
  void call() {
    const py::gil_scoped_release release;
    Watch watch{Interrupts()};
    network_->enqueue(watch);
  }
  std::vector<double> profile() {
    const py::gil_scoped_release release;
    Watch watch{Interrupts()};
    return network_->profile(watch);
  }
  std::size_t bytes() const { return network_->bytes(); }

 private:
  // The array itself, never a copy of it.
  template <typename T>
  static PlainArray<T> in_place(const char* name, const NdArray<T>& value,
                                const std::vector<py::ssize_t>& shape) {
    auto array = checked<T>(name, value, shape);
    if (!array.is(value))
      throw py::value_error(std::string(name) + " is not C-contiguous; it cannot be used in place");
    return array;
  }

  PlainArray<float> input_, time_, output_;
  PlainArray<std::int64_t> labels_;
  std::unique_ptr<Network> network_;
};

}  // namespace

void register_engine(py::module_& module) {
  py::class_<Cost>(module, "Cost", py::is_final(), "What a program takes of a machine.")
      .def_readonly(
          "multiplications", &Cost::multiplications,
          "Of all matrix products of one step for the batch, as they are made: Winograd's are fewer.")
      .def_readonly("moved", &Cost::moved, "Floats that the ops of one step for the batch read and write.")
      .def_readonly("weights", &Cost::weights, "Bytes of the packed weights.")
      .def_readonly("loading", &Cost::loading, "Bytes more while they are packed.")
      .def_readonly("network", &Cost::network,
                    "Bytes of a network for the batch: activations and work space.");
  py::class_<BoundProgram, std::shared_ptr<BoundProgram>>(
      module, "Program", py::is_final(),
      "A network compiled to ops for the CPU engine; checked whole when it is made.\n\n"
      "Nothing large is allocated before `pack`, which comes before the first network.\n"
      "Several networks, on several threads, may be bound to one program; they share its weights.")
      .def(
          py::init(&make_program), py::call_guard<FloatState>(), py::kw_only(), py::arg("shape"),
          py::arg("out_channels"), py::arg("tensors"), py::arg("weights"), py::arg("ops"), py::arg("sources"),
          "Check a program.\n\n"
          "Args:\n"
          "    shape: (C, H, W) of an image.\n"
          "    out_channels: of the output.\n"
          "    tensors: (channels, height, width, shared) each.\n"
          "    weights: (shape, parts) each, a part being (source, byte offset, rows, columns, transposed).\n"
          "    ops: the fields of each by name, its own name being `op`.\n"
          "    sources: buffers of bytes that hold the weights; kept until they are packed.\n\n"
          "Raises:\n"
          "    ValueError: the program is not one; the message names the op and the field.")
      .def("cost", &BoundProgram::cost, py::kw_only(), py::arg("batch"), py::arg("threads") = 1,
           "What it takes to run on so many images, computed from its structure alone.\n\n"
           "Raises:\n"
           "    ValueError: the batch is too large for any machine.")
      .def("pack", &BoundProgram::pack, py::call_guard<FloatState>(), py::kw_only(), py::arg("threads") = 1,
           "Read the weights and pack them; once.\n\n"
           "Raises:\n"
           "    MemoryError: they do not fit in memory.")
      .def_property_readonly(
          "weight_bytes", [](const BoundProgram& bound) { return bound.program()->weight_bytes(); },
          "Bytes of the packed weights, 0 before they are.");
  py::class_<BoundNetwork, Denoiser, std::shared_ptr<BoundNetwork>>(
      module, "Network", py::is_final(), "A program on the buffers of a chain, with its own threads.")
      .def(py::init<const BoundProgram&, const NdArray<float>&, const NdArray<float>&,
                    const NdArray<std::int64_t>&, const NdArray<float>&, std::int64_t>(),
           py::call_guard<FloatState>(), py::arg("program"), py::kw_only(), py::arg("network_input"),
           py::arg("network_time"), py::arg("network_labels"), py::arg("network_output"),
           py::arg("threads") = 1,
           "Bind a packed program to arrays, which are used in place.\n\n"
           "Args:\n"
           "    network_input: float32 (NB, C, H, W), read.\n"
           "    network_time: float32 (1,), read.\n"
           "    network_labels: int64 (NB,), read if the network takes labels.\n"
           "    network_output: float32 (NB, out_channels, H, W), filled.\n"
           "    threads: that compute; they do not change a bit of the result.")
      .def("__call__", &BoundNetwork::call, py::call_guard<FloatState>(),
           "Run the network once.\n\nRaises:\n    RuntimeError: it is running already.")
      .def("profile", &BoundNetwork::profile, py::call_guard<FloatState>(),
           "Run the network once and return the seconds of each op.")
      .def_property_readonly("bytes", &BoundNetwork::bytes, "Bytes of activations and work space.");
}

}  // namespace pysdk
