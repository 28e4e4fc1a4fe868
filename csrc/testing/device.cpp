#include "cuda/device.h"

#include <pybind11/functional.h>
#include <pybind11/stl.h>
#include <pybind11/typing.h>

#include <cstdint>
#include <memory>
#include <string>

#include "testing/simulated_device.h"
#include "testing/testing.h"

namespace pysdk {

namespace py = pybind11;

namespace {

using Work = py::typing::Callable<py::object()>;

// A Python function that its owner keeps alive: a graph that did would hide it from the garbage collector.
class Borrowed {
 public:
  explicit Borrowed(const Work& function)
      : function_(new py::weakref(py::handle(function), py::handle()), [](py::weakref* held) {
          const py::gil_scoped_acquire gil;  // graphs may be dropped by a thread without it
          delete held;
        }) {}

  void operator()() const {
    const py::gil_scoped_acquire gil;
    const py::object function = (*function_)();
    if (function.is_none()) throw cuda::Error("a captured function is gone; keep it as long as its graph");
    function();
  }

 private:
  std::shared_ptr<py::weakref> function_;
};

}  // namespace

void register_simulated_device(py::module_& module) {
  using cuda::Device;
  using cuda::SimulatedDevice;
  py::class_<SimulatedDevice, Device, std::shared_ptr<SimulatedDevice>>(
      module, "SimulatedDevice", py::is_final(),
      R"doc(A device on host memory, for tests where there is no GPU.

It runs the real kernels' bodies, graphs, loops and branches on the CPU, one after the other; only
the driver's calls are imitated. It shows nothing of a real device's speed or of what a driver accepts.)doc")
      .def(py::init<std::size_t>(), py::arg("memory") = std::size_t{1} << 30, "Make one with `memory` bytes.")
      .def(
          "call",
          [](SimulatedDevice& self, std::uintptr_t stream, const std::string& name, const Work& work) {
            self.call(reinterpret_cast<cuda::Stream>(stream), name, Borrowed(work));
          },
          py::arg("stream"), py::arg("name"), py::arg("work"),
          "Enqueue a function, which a capture records as it does a kernel. Its owner keeps it as long as "
          "the graph.")
      .def(
          "fail",
          [](SimulatedDevice& self, const std::string& call, int nth, const std::string& how) {
            self.fail(call, nth,
                      how == "memory"    ? SimulatedDevice::Failure::kOutOfMemory
                      : how == "refused" ? SimulatedDevice::Failure::kRefused
                                         : SimulatedDevice::Failure::kError);
          },
          py::arg("call"), py::kw_only(), py::arg("nth") = 1, py::arg("how") = "error",
          "Let the nth next call of this name fail: how is 'error', 'memory' or 'refused'.")
      .def_property_readonly("is_current", &SimulatedDevice::current, "Whether it is the current device.")
      .def_property_readonly("log", &SimulatedDevice::log,
                             "Names of the calls so far, '> ' before those captured.")
      .def("clear_log", &SimulatedDevice::clear_log, "Forget the calls so far.")
      .def_property_readonly("live", &SimulatedDevice::live,
                             "Allocations, streams, graphs and executables that were not released.");
}

}  // namespace pysdk
