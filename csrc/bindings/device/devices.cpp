#include <pybind11/stl.h>

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

namespace pysdk {

namespace {

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
          R"doc(Return a new array of zeros, 'float32' or 'uint8'.

Raises:
    ValueError: another dtype, or a size is out of range.
    MemoryError: the device has no room for it.)doc");

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
             R"doc(Return a device by its number.

Raises:
    CudaError: there is none, or this build has no code for it.)doc");
}

}  // namespace pysdk
