// The parts of a program as Python has them. They come from a file of strangers, so every value is converted
// by hand: pybind11 would take None for false, and an error would show all arguments but not name the one
// meant.
#pragma once

#include <pybind11/pybind11.h>

#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "engine/program.h"

namespace pysdk {

namespace py = pybind11;

// Lists that are annotated with what is in them and checked by the functions below.
class TensorList : public py::list {
  PYBIND11_OBJECT_DEFAULT(TensorList, py::list, PyList_Check)
};
class WeightList : public py::list {
  PYBIND11_OBJECT_DEFAULT(WeightList, py::list, PyList_Check)
};
class OpList : public py::list {
  PYBIND11_OBJECT_DEFAULT(OpList, py::list, PyList_Check)
};

[[noreturn]] inline void refuse_value(const std::string& what) { throw std::invalid_argument(what); }

// Of an int alone: neither a bool nor what converts to an int.
inline std::int64_t whole_number(py::handle value, const std::string& what) {
  if (!PyLong_Check(value.ptr()) || PyBool_Check(value.ptr())) refuse_value(what + " is not a whole number");
  int overflow = 0;
  const long long number = PyLong_AsLongLongAndOverflow(value.ptr(), &overflow);
  if (overflow != 0) refuse_value(what + " is a number beyond 64 bits");
  return number;
}

inline std::size_t size_number(py::handle value, const std::string& what) {
  const std::int64_t number = whole_number(value, what);
  if (number < 0) refuse_value(what + " is " + std::to_string(number) + ", expected a size");
  return static_cast<std::size_t>(number);
}

inline bool truth(py::handle value, const std::string& what) {
  if (!PyBool_Check(value.ptr())) refuse_value(what + " is not true or false");
  return value.is(py::handle(Py_True));
}

inline std::string text_of(py::handle value, const std::string& what) {
  if (!PyUnicode_Check(value.ptr())) refuse_value(what + " is not a text");
  Py_ssize_t size = 0;
  const char* bytes = PyUnicode_AsUTF8AndSize(value.ptr(), &size);
  if (bytes == nullptr) {  // lone surrogates
    PyErr_Clear();
    refuse_value(what + " is not a text of Unicode");
  }
  return std::string(bytes, static_cast<std::size_t>(size));
}

// The items of a list or tuple; any number of them if `count` is 0.
inline std::vector<py::object> items_of(py::handle value, const std::string& what, std::size_t count = 0) {
  if (!PyList_Check(value.ptr()) && !PyTuple_Check(value.ptr())) refuse_value(what + " is not a list");
  const auto sequence = py::reinterpret_borrow<py::sequence>(value);
  std::vector<py::object> items(sequence.begin(), sequence.end());
  if (count != 0 && items.size() != count) {
    refuse_value(what + " has " + std::to_string(items.size()) + " entries, expected " +
                 std::to_string(count));
  }
  return items;
}

// (channels, height, width, shared) each
inline std::vector<engine::Tensor> tensors_of(const TensorList& list) {
  std::vector<engine::Tensor> tensors;
  for (const py::handle item : list) {
    const std::string name = "tensor " + std::to_string(tensors.size());
    const auto values = items_of(item, name, 4);
    tensors.push_back({size_number(values[0], name + ": channels"), size_number(values[1], name + ": height"),
                       size_number(values[2], name + ": width"), truth(values[3], name + ": shared")});
  }
  return tensors;
}

// (shape, parts) each, a part being (source, offset, rows, columns, transposed)
inline std::vector<engine::Weight> weights_of(const WeightList& list) {
  std::vector<engine::Weight> weights;
  for (const py::handle item : list) {
    const std::string name = "weight " + std::to_string(weights.size());
    const auto values = items_of(item, name, 2);
    engine::Weight weight;
    for (const py::object& size : items_of(values[0], name + ": shape"))
      weight.shape.push_back(size_number(size, name + ": shape"));
    for (const py::object& part : items_of(values[1], name + ": parts")) {
      const auto fields = items_of(part, name + ": a part", 5);
      weight.parts.push_back(
          {size_number(fields[0], name + ": source"), size_number(fields[1], name + ": offset"),
           size_number(fields[2], name + ": rows"), size_number(fields[3], name + ": columns"),
           truth(fields[4], name + ": transposed")});
    }
    weights.push_back(std::move(weight));
  }
  return weights;
}

inline engine::Value value_of(py::handle value, const std::string& what) {
  if (PyBool_Check(value.ptr())) return truth(value, what);
  if (PyLong_Check(value.ptr())) return whole_number(value, what);
  if (PyFloat_Check(value.ptr())) return PyFloat_AS_DOUBLE(value.ptr());
  if (PyUnicode_Check(value.ptr())) return text_of(value, what);
  std::vector<std::int64_t> numbers;
  for (const py::object& item : items_of(value, what + " is neither a number nor a text and"))
    numbers.push_back(whole_number(item, what + " has an entry that"));
  return numbers;
}

// The fields of each by name; its own name is the field `op`.
inline std::vector<engine::OpRecord> ops_of(const OpList& list) {
  std::vector<engine::OpRecord> records;
  for (const py::handle item : list) {
    const std::string number = "op " + std::to_string(records.size());
    if (!PyDict_Check(item.ptr())) refuse_value(number + " is not a dict");
    const auto fields = py::reinterpret_borrow<py::dict>(item);
    if (!fields.contains("op")) refuse_value(number + ": op is missing");
    engine::OpRecord record{text_of(fields["op"], number + ": op"), {}};
    for (const auto& [key, value] : fields) {
      const std::string field = text_of(key, number + ": the name of a field");
      if (field == "op") continue;
      record.fields.emplace(field, value_of(value, number + " '" + record.name + "': " + field));
    }
    records.push_back(std::move(record));
  }
  return records;
}

}  // namespace pysdk

namespace pybind11::detail {

template <>
struct handle_type_name<pysdk::TensorList> {
  static constexpr auto name = const_name("list[tuple[int, int, int, bool]]");
};
template <>
struct handle_type_name<pysdk::WeightList> {
  static constexpr auto name = const_name(
      "list[tuple[collections.abc.Sequence[int], "
      "list[tuple[int, int, int, int, bool]]]]");
};
template <>
struct handle_type_name<pysdk::OpList> {
  static constexpr auto name = const_name("list[dict[str, typing.Any]]");
};

}  // namespace pybind11::detail
