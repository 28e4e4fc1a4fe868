// Owners of what a device hands out.
#pragma once

#include <cstddef>
#include <memory>
#include <utility>

#include "cuda/device.h"

namespace pysdk::cuda {

// Zeroed device memory; views of it share it, and it keeps its device.
class Block {
 public:
  Block(std::shared_ptr<Device> device, std::size_t bytes)
      : device_(std::move(device)), bytes_(bytes), data_(device_->allocate(bytes)) {}
  Block(const Block&) = delete;
  ~Block() { device_->release(data_); }

  template <typename T>
  T* as() const {
    return static_cast<T*>(data_);
  }
  void* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }
  Device& device() const { return *device_; }
  const std::shared_ptr<Device>& share_device() const { return device_; }

 private:
  const std::shared_ptr<Device> device_;
  const std::size_t bytes_;
  void* const data_;
};

// Makes `block` hold at least `bytes`; what was in it is lost when it has to grow.
inline void reserve(std::shared_ptr<Block>& block, const std::shared_ptr<Device>& device, std::size_t bytes) {
  if (bytes == 0 || (block && block->bytes() >= bytes)) return;
  block.reset();  // first, so that the two are never held at once
  block = std::make_shared<Block>(device, bytes);
}

class OwnedStream {
 public:
  explicit OwnedStream(std::shared_ptr<Device> device)
      : device_(std::move(device)), stream_(device_->make_stream()) {}
  OwnedStream(const OwnedStream&) = delete;
  ~OwnedStream() { device_->release_stream(stream_); }
  Stream get() const { return stream_; }

 private:
  const std::shared_ptr<Device> device_;
  const Stream stream_;
};

class OwnedMailbox {
 public:
  explicit OwnedMailbox(std::shared_ptr<Device> device)
      : device_(std::move(device)), memory_(device_->allocate_pinned(sizeof(Mailbox))) {}
  OwnedMailbox(const OwnedMailbox&) = delete;
  ~OwnedMailbox() { device_->release_pinned(memory_); }
  Mailbox* get() const { return static_cast<Mailbox*>(memory_); }

 private:
  const std::shared_ptr<Device> device_;
  void* const memory_;
};

}  // namespace pysdk::cuda
