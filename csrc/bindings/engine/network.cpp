#include "engine/network.h"

#include <pybind11/stl.h>

#include <memory>
#include <string>
#include <vector>

#include "base/float_state.h"
#include "bindings/arrays.h"
#include "bindings/bindings.h"
#include "bindings/engine/program.h"
#include "bindings/interrupts.h"

namespace pysdk {

namespace {

// A network on numpy arrays, which it keeps alive.
class BoundNetwork : public Denoiser {
 public:
  BoundNetwork(const PythonProgram& bound, const NdArray<float>& input, const NdArray<float>& time,
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
    check_batch(batch);
    const engine::Ports ports{input_.data(), time_.data(), labels_.data(), output_.mutable_data()};
    network_ = std::make_unique<engine::Network>(program, static_cast<std::size_t>(batch), ports,
                                                 check_threads(threads));
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
  std::unique_ptr<engine::Network> network_;
};

}  // namespace

void register_network(py::module_& module) {
  py::class_<BoundNetwork, Denoiser, std::shared_ptr<BoundNetwork>>(
      module, "Network", py::is_final(), "A program on the buffers of a chain, with its own threads.")
      .def(py::init<const PythonProgram&, const NdArray<float>&, const NdArray<float>&,
                    const NdArray<std::int64_t>&, const NdArray<float>&, std::int64_t>(),
           py::call_guard<FloatState>(), py::arg("program"), py::kw_only(), py::arg("network_input"),
           py::arg("network_time"), py::arg("network_labels"), py::arg("network_output"),
           py::arg("threads") = 1,
           R"doc(Bind a packed program to arrays, which are used in place.

Args:
    network_input: float32 (NB, C, H, W), read.
    network_time: float32 (1,), read.
    network_labels: int64 (NB,), read if the network takes labels.
    network_output: float32 (NB, out_channels, H, W), filled.
    threads: that compute; they do not change a bit of the result.)doc")
      .def("__call__", &BoundNetwork::call, py::call_guard<FloatState>(),
           R"doc(Run the network once.

Raises:
    RuntimeError: it is running already.)doc")
      .def("profile", &BoundNetwork::profile, py::call_guard<FloatState>(),
           "Run the network once and return the seconds of each op.")
      .def_property_readonly("bytes", &BoundNetwork::bytes, "Bytes of activations and work space.");
}

}  // namespace pysdk
