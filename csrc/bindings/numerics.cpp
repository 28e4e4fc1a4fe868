#include "base/numerics.h"

#include <pybind11/pybind11.h>

#include <memory>
#include <vector>

#include "base/float_state.h"
#include "base/isa.h"
#include "bindings/bindings.h"

namespace pysdk {

namespace {

namespace py = pybind11;

// FloatState for a block of Python; blocks may nest.
class BoundFloatState {
 public:
  void enter() { entered_.emplace_back(std::make_unique<FloatState>()); }
  void exit(const py::object&, const py::object&, const py::object&) {
    if (entered_.empty()) throw py::value_error("the block was not entered");
    entered_.pop_back();
  }

 private:
  std::vector<std::unique_ptr<FloatState>> entered_;
};

}  // namespace

void register_numerics(py::module_& module) {
  module.attr("NUMERICS_VERSION") = kNumericsVersion;
  module.def("isa", &isa_name,
             R"doc(Return the instruction set of the kernels in use: 'avx512', 'avx2' or 'baseline'.

The environment variable PYSDK_ISA forces one; all of them give the same bits.)doc");
  py::class_<BoundFloatState>(
      module, "FloatState", py::is_final(),
      R"doc(In its `with` block this thread rounds to nearest, keeps subnormal numbers and traps nothing.

What was set before comes back at the end. Every function of this module that computes does so by itself.)doc")
      .def(py::init<>())
      .def("__enter__", &BoundFloatState::enter)
      .def("__exit__", &BoundFloatState::exit, py::arg("kind"), py::arg("error"), py::arg("trace"));
}

}  // namespace pysdk
