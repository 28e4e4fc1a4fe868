// What a device chain gives back: snapshots, tensors, bytes.
#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

#include "cuda/cuda_chain.h"

namespace pysdk::cuda {

void CudaChain::read_snapshot(std::int64_t row, bool denoised, float* to) {
  const Busy busy(busy_);
  const std::int64_t every = task_.every;
  if (every == 0 || row < 1 || row > position() || (row % every != 0 && row != length_)) {
    throw std::invalid_argument("there is no snapshot of row " + std::to_string(row));
  }
  const std::int64_t number = (row + every - 1) / every;
  if ((launched_ + every - 1) / every - number >= task_.slots) {
    throw std::invalid_argument("the snapshot of row " + std::to_string(row) + " has been written over");
  }
  const std::size_t elements = shape_.elements();
  const std::size_t slot = static_cast<std::size_t>((number - 1) % task_.slots);
  const float* from = (denoised ? task_.ring_denoised : task_.ring_x) + slot * elements;
  device_->download(to, from, elements * sizeof(float), side_.get());
  device_->synchronize(side_.get());
}

void CudaChain::copy(const Block& from, std::size_t images, Block& to, std::size_t first) {
  const Busy busy(busy_);
  const std::size_t image = shape_.image() * sizeof(float);
  if ((first + images) * image > to.bytes() || images * image > from.bytes()) {
    throw std::invalid_argument("the images do not fit into the array");
  }
  device_->copy(to.as<char>() + first * image, from.data(), images * image, stream_.get());
  device_->synchronize(stream_.get());
}

std::int64_t CudaChain::bytes_of(std::size_t images, double low, double high, Block* to, std::size_t first) {
  const Busy busy(busy_);
  if (images > static_cast<std::size_t>(shape_.batch) ||
      (to != nullptr && (first + images) * shape_.image() > to->bytes())) {
    throw std::invalid_argument("the images do not fit into the array");
  }
  std::vector<std::uint32_t> broken(images);
  device_->upload(broken_->data(), broken.data(), images * sizeof(std::uint32_t), stream_.get());
  const std::uint64_t pixels = static_cast<std::uint64_t>(shape_.height * shape_.width);
  ByteTask task{};
  task.x = x_->as<float>();
  task.out = to == nullptr ? nullptr : to->as<std::uint8_t>() + first * shape_.image();
  task.broken = broken_->as<std::uint32_t>();
  task.pixels = pixels;
  task.channels = static_cast<std::uint32_t>(shape_.channels);
  task.total = images * pixels;
  task.low = static_cast<float>(low);
  task.high = static_cast<float>(high);
  task.scale = static_cast<float>(255.0 / (high - low));
  device_->bytes(task, stream_.get());
  device_->download(broken.data(), broken_->data(), images * sizeof(std::uint32_t), stream_.get());
  device_->synchronize(stream_.get());
  const auto found = std::find_if(broken.begin(), broken.end(), [](std::uint32_t flag) { return flag != 0; });
  return found == broken.end() ? -1 : found - broken.begin();
}

}  // namespace pysdk::cuda
