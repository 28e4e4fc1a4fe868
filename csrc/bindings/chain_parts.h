// What every chain that Python drives shares: its network behind a callable, its buffers as arrays, Ctrl-C.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/typing.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/float_state.h"
#include "bindings/interrupts.h"
#include "chain/cpu_chain.h"
#include "chain/denoiser.h"

namespace pysdk {

namespace py = pybind11;

using Denoise = py::typing::Callable<py::object()>;

// A network behind a Python callable: takes the GIL for its own call, where signals are checked too.
class PythonDenoiser : public Denoiser {
 public:
  explicit PythonDenoiser(py::object callable) : callable_(std::move(callable)) {}
  void enqueue(Watch&) override {
    const py::gil_scoped_acquire gil;
    check_signals();
    const FloatState standard;  // whatever the callable does to it
    callable_();
  }
  PyObject* callable() const { return callable_.ptr(); }

 private:
  py::object callable_;
};

// What a chain takes for a network.
using AnyNetwork = py::typing::Union<Denoiser, Denoise>;

// A network that was handed to a chain: a Denoiser runs natively as it is, a callable is called.
struct Attached {
  std::shared_ptr<Denoiser> denoiser;
  std::shared_ptr<PythonDenoiser> python;  // the same, if it is a callable

  explicit Attached(const py::object& network) {
    if (py::isinstance<Denoiser>(network)) {
      denoiser = network.cast<std::shared_ptr<Denoiser>>();
    } else if (PyCallable_Check(network.ptr())) {
      denoiser = python = std::make_shared<PythonDenoiser>(network);
    } else {
      const std::string type = py::str(py::type::of(network).attr("__name__"));
      throw py::type_error("a network is a " + type +
                           "; a Denoiser or a callable without arguments is needed");
    }
  }
};

inline ChainShape make_shape(std::int64_t batch, const std::vector<std::int64_t>& shape,
                             std::optional<std::int64_t> out_channels, bool guided, bool classifier,
                             std::int64_t threads) {
  if (shape.size() != 3) {
    throw py::value_error("shape has " + std::to_string(shape.size()) +
                          " sizes; (channels, height, width) is needed");
  }
  return {batch, shape[0], shape[1], shape[2], out_channels.value_or(shape[0]), guided, classifier, threads};
}

// A view owns a share of the buffers, not of the chain: numpy arrays are invisible to the garbage collector.
template <typename T>
py::array_t<T> buffer_view(const std::shared_ptr<ChainBuffers>& buffers, const AlignedArray<T>& array,
                           const std::vector<py::ssize_t>& shape, bool writeable) {
  auto share = std::make_unique<std::shared_ptr<ChainBuffers>>(buffers);
  const py::capsule owner(share.get(),
                          [](void* p) { delete static_cast<std::shared_ptr<ChainBuffers>*>(p); });
  share.release();
  py::array_t<T> result(shape, array.data(), owner);
  if (!writeable) result.attr("setflags")(py::arg("write") = false);
  return result;
}

// Makes a class with `traverse` and `clear` known to the garbage collector.
template <typename T>
void collect_garbage(PyHeapTypeObject* heap_type) {
  PyTypeObject* type = &heap_type->ht_type;
  type->tp_flags |= Py_TPFLAGS_HAVE_GC;
  type->tp_traverse = [](PyObject* self, visitproc visit, void* arg) -> int {
    Py_VISIT(Py_TYPE(self));
    if (!py::detail::is_holder_constructed(self)) return 0;
    return py::cast<T&>(py::handle(self)).traverse(visit, arg);
  };
  type->tp_clear = [](PyObject* self) -> int {
    if (py::detail::is_holder_constructed(self)) py::cast<T&>(py::handle(self)).clear();
    return 0;
  };
}

}  // namespace pysdk
