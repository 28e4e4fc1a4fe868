// Numpy arrays as arguments: never converted silently, every mismatch named.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstddef>
#include <cstdint>
#include <new>
#include <optional>
#include <string>
#include <vector>

namespace pysdk {

namespace py = pybind11;

// An argument that is annotated as NDArray[T] and checked by `checked`.
template <typename T>
class NdArray : public py::object {
  PYBIND11_OBJECT_DEFAULT(NdArray, object, any)
 private:
  static bool any(PyObject*) { return true; }
};

// C-contiguous and aligned, so that data() is a plain C array.
template <typename T>
using PlainArray = py::array_t<T, int{py::array::c_style} | int{py::detail::npy_api::NPY_ARRAY_ALIGNED_}>;

inline std::string shape_text(const std::vector<py::ssize_t>& shape) {
  std::string text = "(";
  for (std::size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + (shape.size() == 1 ? ",)" : ")");
}

// The array behind `value`, of dtype T and `shape` (-1: any size). TypeError or ValueError
// if it is not.
template <typename T>
PlainArray<T> checked(const char* name, py::handle value, const std::vector<py::ssize_t>& shape) {
  const std::string dtype = py::str(py::dtype::of<T>().attr("name"));
  if (!py::isinstance<py::array>(value)) {
    const std::string type = py::str(py::type::of(value).attr("__name__"));
    throw py::type_error(std::string(name) + " is a " + type + "; a numpy array of " + dtype + " is needed");
  }
  const auto array = py::reinterpret_borrow<py::array>(value);
  if (!py::isinstance<py::array_t<T>>(value)) {
    throw py::type_error(std::string(name) + " has dtype " + std::string(py::str(array.dtype())) +
                         "; convert it with .astype(numpy." + dtype + ")");
  }
  bool fits = array.ndim() == static_cast<py::ssize_t>(shape.size());
  for (std::size_t i = 0; fits && i < shape.size(); ++i) {
    fits = shape[i] < 0 || array.shape(static_cast<py::ssize_t>(i)) == shape[i];
  }
  if (!fits) {
    const std::vector<py::ssize_t> got(array.shape(), array.shape() + array.ndim());
    throw py::value_error(std::string(name) + " has shape " + shape_text(got) + "; " + shape_text(shape) +
                          " is needed" + (shape.empty() || shape[0] >= 0 ? "" : ", where -1 is any size"));
  }
  auto result = PlainArray<T>::ensure(array);  // copies other layouts
  if (!result) throw std::bad_alloc();
  return result;
}

template <typename T>
std::vector<T> checked_values(const char* name, py::handle value, const std::vector<py::ssize_t>& shape) {
  const auto array = checked<T>(name, value, shape);
  return std::vector<T>(array.data(), array.data() + array.size());
}

// The same of an argument that may be None, which is empty.
template <typename T>
std::vector<T> checked_values(const char* name, const std::optional<NdArray<T>>& value,
                              const std::vector<py::ssize_t>& shape) {
  return value ? checked_values<T>(name, py::handle(*value), shape) : std::vector<T>();
}

}  // namespace pysdk

namespace pybind11::detail {

template <typename T>
struct handle_type_name<pysdk::NdArray<T>> {
  static constexpr auto name =
      const_name("numpy.typing.NDArray[") + npy_format_descriptor<T>::name + const_name("]");
};

}  // namespace pybind11::detail
