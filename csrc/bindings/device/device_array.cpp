#include "bindings/device/device_array.h"

#include <pybind11/stl.h>
#include <pybind11/typing.h>

#include <limits>

namespace pysdk {

namespace {

using Sizes = py::typing::Tuple<py::int_, py::ellipsis>;

// What a capsule holds: the structure, the shape it points to, and a share of the memory.
template <typename Structure>
struct Export {
  Structure structure{};
  std::vector<std::int64_t> shape;
  std::shared_ptr<cuda::Block> block;
};

// A capsule of this name that gives up the export unless a consumer took it, which renames the capsule.
template <typename Structure>
py::capsule make_capsule(const char* name, std::unique_ptr<Export<Structure>> made) {
  made->structure.context = made.get();
  made->structure.deleter = [](Structure* structure) {
    delete static_cast<Export<Structure>*>(structure->context);
  };
  PyObject* raw = PyCapsule_New(&made->structure, name, [](PyObject* capsule) {
    const char* found = PyCapsule_GetName(capsule);
    for (const char* unused : {"dltensor", "dltensor_versioned"}) {
      if (found == nullptr || std::string(found) != unused) continue;
      auto* structure = static_cast<Structure*>(PyCapsule_GetPointer(capsule, unused));
      structure->deleter(structure);
      return;
    }
  });
  if (raw == nullptr) throw py::error_already_set();
  made.release();
  return py::reinterpret_steal<py::capsule>(raw);
}

template <typename Structure>
std::unique_ptr<Export<Structure>> make_export(const DeviceArray& array, dlpack::DataType type) {
  auto made = std::make_unique<Export<Structure>>();
  made->shape = array.shape();
  made->block = array.block();
  const cuda::Device& device = array.block()->device();
  made->structure.tensor = {array.block()->data(),
                            {device.dlpack_type(), device.dlpack_index()},
                            static_cast<std::int32_t>(made->shape.size()),
                            type,
                            made->shape.data(),
                            nullptr,
                            0};
  return made;
}

std::size_t elements_of(const std::vector<std::int64_t>& shape) {
  std::size_t total = 1;
  for (const std::int64_t size : shape) {
    if (size < 0 || static_cast<std::size_t>(size) > (std::size_t{1} << 40) / (total == 0 ? 1 : total)) {
      throw py::value_error("the shape of an array has a negative size or more than 2^40 elements");
    }
    total *= static_cast<std::size_t>(size);
  }
  return total;
}

}  // namespace

DeviceArray DeviceArray::empty(const std::shared_ptr<cuda::Device>& device, std::vector<std::int64_t> shape,
                               const std::string& dtype) {
  if (dtype != "float32" && dtype != "uint8") {
    throw py::value_error("dtype is '" + dtype + "'; use 'float32' or 'uint8'");
  }
  const dlpack::DataType type = dtype == "float32" ? kFloat32 : kUint8;
  const std::size_t bytes = elements_of(shape) * type.bits / 8;
  return {std::make_shared<cuda::Block>(device, bytes == 0 ? 1 : bytes), std::move(shape), type};
}

std::string DeviceArray::dtype() const {
  return (type_.code == 2 ? "float" : type_.code == 1 ? "uint" : "int") + std::to_string(type_.bits);
}

std::size_t DeviceArray::bytes() const { return elements_of(shape_) * type_.bits / 8; }

DeviceArray DeviceArray::head(std::int64_t count) const {
  if (shape_.empty() || count < 0 || count > shape_[0]) {
    throw py::value_error("count is " + std::to_string(count) + "; the array has fewer items");
  }
  std::vector<std::int64_t> shape = shape_;
  shape[0] = count;
  return {block_, std::move(shape), type_};
}

py::array DeviceArray::numpy() const {
  py::array result(py::dtype(dtype()), std::vector<py::ssize_t>(shape_.begin(), shape_.end()));
  void* to = result.mutable_data();
  const py::gil_scoped_release release;
  const cuda::OwnedStream stream(block_->share_device());
  block_->device().download(to, block_->data(), bytes(), stream.get());
  block_->device().synchronize(stream.get());
  return result;
}

std::pair<int, int> DeviceArray::dlpack_device() const {
  return {block_->device().dlpack_type(), block_->device().dlpack_index()};
}

py::capsule DeviceArray::dlpack(const std::optional<std::pair<int, int>>& max_version) const {
  if (!max_version || max_version->first < 1) {
    return make_capsule("dltensor", make_export<dlpack::Managed>(*this, type_));
  }
  auto made = make_export<dlpack::ManagedVersioned>(*this, type_);
  made->structure.major = 1;
  return make_capsule("dltensor_versioned", std::move(made));
}

void register_device_array(py::module_& module) {
  py::class_<DeviceArray>(
      module, "DeviceArray", py::is_final(),
      R"doc(An array in device memory, C-contiguous; `torch.from_dlpack` and others see it without a copy.

It shares its memory with whoever made it and keeps it alive.)doc")
      .def_property_readonly(
          "shape", [](const DeviceArray& self) { return Sizes(py::tuple(py::cast(self.shape()))); }, "Sizes.")
      .def_property_readonly("dtype", &DeviceArray::dtype, "Name of the numpy dtype.")
      .def_property_readonly("pointer", &DeviceArray::pointer, "Address on the device.")
      .def("__len__", [](const DeviceArray& self) { return self.shape().empty() ? 0 : self.shape()[0]; })
      .def("head", &DeviceArray::head, py::arg("count"),
           "Return a view of the first `count` items. ValueError if there are not as many.")
      .def("numpy", &DeviceArray::numpy, "Return a copy on the host, a numpy array.")
      .def("__dlpack_device__", &DeviceArray::dlpack_device)
      .def(
          "__dlpack__",
          [](const DeviceArray& self, const py::object&,
             const std::optional<std::pair<int, int>>& max_version,
             const std::optional<std::pair<int, int>>& dl_device, std::optional<bool> copy) {
            if ((dl_device && *dl_device != self.dlpack_device()) || copy.value_or(false)) {
              throw py::buffer_error(
                  "a device array is exported where it lies and without a copy; use numpy()");
            }
            return self.dlpack(max_version);
          },
          py::kw_only(), py::arg("stream") = py::none(), py::arg("max_version") = py::none(),
          py::arg("dl_device") = py::none(), py::arg("copy") = py::none(),
          "Return a DLPack capsule. What the array holds is complete, so no stream has to wait for it.");
}

}  // namespace pysdk
