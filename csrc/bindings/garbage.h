// Lets the garbage collector see through a bound class with `traverse(visit, arg)` and `clear()`.
#pragma once

#include <pybind11/pybind11.h>

namespace pysdk {

namespace py = pybind11;

template <typename Bound>
void collect_garbage(PyHeapTypeObject* heap_type) {
  PyTypeObject* type = &heap_type->ht_type;
  type->tp_flags |= Py_TPFLAGS_HAVE_GC;
  type->tp_traverse = [](PyObject* self, visitproc visit, void* arg) -> int {
    Py_VISIT(Py_TYPE(self));
    if (!py::detail::is_holder_constructed(self)) return 0;
    return py::cast<Bound&>(py::handle(self)).traverse(visit, arg);
  };
  type->tp_clear = [](PyObject* self) -> int {
    if (py::detail::is_holder_constructed(self)) py::cast<Bound&>(py::handle(self)).clear();
    return 0;
  };
}

}  // namespace pysdk
