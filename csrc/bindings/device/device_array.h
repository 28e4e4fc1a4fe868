// An array in device memory, as Python sees it: shape, dtype and DLPack, and a copy to numpy.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bindings/device/dlpack.h"
#include "cuda/rows/blocks.h"

namespace pysdk {

namespace py = pybind11;

// A view of a Block in C order. What a chain writes to is complete when Python gets to see it, so that a
// consumer's stream has nothing to wait for.
class DeviceArray {
 public:
  DeviceArray(std::shared_ptr<cuda::Block> block, std::vector<std::int64_t> shape, dlpack::DataType type)
      : block_(std::move(block)), shape_(std::move(shape)), type_(type) {}
  static DeviceArray empty(const std::shared_ptr<cuda::Device>& device, std::vector<std::int64_t> shape,
                           const std::string& dtype);

  const std::vector<std::int64_t>& shape() const { return shape_; }
  std::string dtype() const;
  std::uintptr_t pointer() const { return reinterpret_cast<std::uintptr_t>(block_->data()); }
  const std::shared_ptr<cuda::Block>& block() const { return block_; }
  std::size_t bytes() const;
  DeviceArray head(std::int64_t count) const;
  py::array numpy() const;
  std::pair<int, int> dlpack_device() const;
  py::capsule dlpack(const std::optional<std::pair<int, int>>& max_version) const;

 private:
  std::shared_ptr<cuda::Block> block_;
  std::vector<std::int64_t> shape_;
  dlpack::DataType type_;
};

constexpr dlpack::DataType kFloat32{2, 32, 1}, kInt64{0, 64, 1}, kUint8{1, 8, 1};

void register_device_array(py::module_& module);

}  // namespace pysdk
