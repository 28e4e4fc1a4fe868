#include <pybind11/functional.h>
#include <pybind11/stl.h>
#include <pybind11/typing.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "bindings/bindings.h"
#include "bindings/device/device_array.h"
#include "cuda/device.h"
#include "testing/simulated_device.h"

namespace pysdk {

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

// A device as the current one while a `with` block lasts.
class DeviceScope {
 public:
  explicit DeviceScope(std::shared_ptr<cuda::Device> device) : device_(std::move(device)) {}
  void enter() { scope_.emplace(*device_); }
  void leave() { scope_.reset(); }

 private:
  const std::shared_ptr<cuda::Device> device_;
  std::optional<cuda::CurrentDevice> scope_;
};

}  // namespace

void register_devices(py::module_& module) {
  using cuda::Device;
  using cuda::SimulatedDevice;
  py::class_<DeviceScope>(module, "DeviceScope", "What `Device.current` returns, for `with`, once.")
      .def("__enter__", &DeviceScope::enter)
      .def("__exit__",
           [](DeviceScope& self, const py::object&, const py::object&, const py::object&) { self.leave(); });
  py::class_<Device, std::shared_ptr<Device>>(module, "Device",
                                              "A device that chains run on; see `cuda_device`.")
      .def_property_readonly("name", &Device::name, "Number, product and architecture.")
      .def_property_readonly(
          "memory", [](Device& self) { return std::pair(self.memory().free, self.memory().total); },
          "Bytes free, and bytes in all.")
      .def(
          "current",
          [](std::shared_ptr<Device> self) { return std::make_unique<DeviceScope>(std::move(self)); },
          "Return a `with` block in which this is the calling thread's device, on which libraries allocate.")
      .def(
          "empty",
          [](const std::shared_ptr<Device>& self, std::vector<std::int64_t> shape, const std::string& dtype) {
            return DeviceArray::empty(self, std::move(shape), dtype);
          },
          py::arg("shape"), py::arg("dtype"),
          "Return a new array of zeros, 'float32' or 'uint8'.\n\n"
          "Raises:\n"
          "    ValueError: another dtype, or a size is out of range.\n"
          "    MemoryError: the device has no room for it.");

  py::class_<SimulatedDevice, Device, std::shared_ptr<SimulatedDevice>>(
      module, "SimulatedDevice", py::is_final(),
      "A device on host memory, for tests where there is no GPU.\n\n"
      "It runs the real kernels' bodies, graphs, loops and branches on the CPU, one after the other; only\n"
      "the driver's calls are imitated. It shows nothing of a real device's speed or of what a driver "
      "accepts.")
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

  module.def(
      "cuda_status",
      [] {
        const cuda::Status now = cuda::status();
        return std::tuple(now.built, now.devices, now.text);
      },
      "Return whether this build has CUDA, the number of devices, and a line that says why there are none or "
      "what "
      "there is.");
  module.def("cuda_device", &cuda::open_device, py::arg("index"),
             "Return a device by its number.\n\n"
             "Raises:\n"
             "    CudaError: there is none, or this build has no code for it.");
}

}  // namespace pysdk
