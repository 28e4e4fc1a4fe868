// A network of a device chain behind a Python callable.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/typing.h>

#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "bindings/chain_parts.h"
#include "cuda/device.h"
#include "cuda/device_denoiser.h"

namespace pysdk {

namespace py = pybind11;

using Enqueue = py::typing::Callable<py::object(py::int_)>;
using OptionalEnqueue = std::optional<Enqueue>;

// While it lives nothing is collected: a destructor that frees device memory would end the capture of its
// thread, and torch ends the process if a memory pool dies while another is in use.
class CollectionPaused {
 public:
  CollectionPaused() : was_(PyGC_Disable() != 0) {}
  CollectionPaused(const CollectionPaused&) = delete;
  ~CollectionPaused() {
    if (was_) PyGC_Enable();
  }

 private:
  const bool was_;
};

// A network behind a Python callable that gets the stream's handle; False from it is a failure.
class PythonDeviceDenoiser : public DeviceDenoiser {
 public:
  PythonDeviceDenoiser(cuda::Device& device, py::object callable)
      : device_(device), callable_(std::move(callable)) {}

  void enqueue(void* stream) override {
    const py::gil_scoped_acquire gil;
    check_signals();
    const CollectionPaused paused;
    const cuda::CurrentDevice current(device_);
    const FloatState standard;  // whatever the callable does to it
    const py::object result = callable_(reinterpret_cast<std::uintptr_t>(stream));
    if (result.ptr() == Py_False)
      throw cuda::Error("the network could not be enqueued: its call returned False");
  }

  // It ran before, so what goes wrong here is the capture's doing.
  void capture(void* stream) override {
    const py::gil_scoped_acquire gil;
    try {
      enqueue(stream);
    } catch (py::error_already_set& error) {
      if (!error.matches(PyExc_Exception)) throw;  // Ctrl-C
      const std::string text = py::str(error.value());
      throw cuda::CaptureRefused("the network cannot be captured: " + text.substr(0, text.find('\n')));
    }
  }

  PyObject* callable() const { return callable_.ptr(); }

 private:
  cuda::Device& device_;  // the chain's, which has this network
  py::object callable_;
};

}  // namespace pysdk
