// Memory of devices and pinned memory, and copies. Blocks come from the allocator of the address sanitizer,
// which sees kernels that leave them; between kernels it holds device memory closed, so that it sees the host
// in there too.
#include <sanitizer/asan_interface.h>

#include <cstdlib>
#include <cstring>

#include "runtime.h"

namespace strict {

namespace {

int device_runs = 0;

void open_blocks(bool open) {
  for (const auto& [address, block] : runtime().blocks) {
    if (block.pinned) continue;
    void* memory = reinterpret_cast<void*>(address);
    if (open) {
      ASAN_UNPOISON_MEMORY_REGION(memory, block.bytes);
    } else {
      ASAN_POISON_MEMORY_REGION(memory, block.bytes);
    }
  }
}

void* make_block(std::size_t bytes, bool pinned) {
  const std::size_t rounded = (bytes + 255) / 256 * 256;
  void* memory = std::aligned_alloc(256, rounded);
  std::memset(memory, 0xa5, rounded);  // "the memory is not cleared"
  ASAN_POISON_MEMORY_REGION(static_cast<char*>(memory) + bytes, rounded - bytes);
  if (!pinned && device_runs == 0) ASAN_POISON_MEMORY_REGION(memory, bytes);
  runtime().blocks[reinterpret_cast<std::uintptr_t>(memory)] = {bytes, current_device(), pinned};
  return memory;
}

cudaError_t free_block(void* memory, bool pinned, const char* name) {
  if (memory == nullptr) return cudaSuccess;
  auto& blocks = runtime().blocks;
  const auto found = blocks.find(reinterpret_cast<std::uintptr_t>(memory));
  if (found == blocks.end() || found->second.pinned != pinned) {
    violation(std::string(name) + ": not what its allocator gave, or freed before");
  }
  if (!pinned) runtime().used[found->second.device] -= found->second.bytes;
  ASAN_UNPOISON_MEMORY_REGION(memory, (found->second.bytes + 255) / 256 * 256);
  blocks.erase(found);
  std::free(memory);  // without waiting: it "may perform implicit synchronization"
  return cudaSuccess;
}

// A copy's two sides must be what `kind` says, and within their blocks.
cudaError_t check_copy(const void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
  const auto check = [&](const void* side, bool on_device) {
    const Block* block = block_at(side);
    if ((block != nullptr && !block->pinned) != on_device) {
      violation("cudaMemcpyAsync: a pointer does not match the direction of the copy");
    }
    if (block == nullptr) return cudaSuccess;
    const auto end = reinterpret_cast<std::uintptr_t>(side) + bytes;
    const auto last = block_at(reinterpret_cast<const void*>(end - 1));
    return last == block ? cudaSuccess : cudaErrorInvalidValue;
  };
  const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  if (const cudaError_t error = check(to, to_device)) return error;
  if (const cudaError_t error = check(from, from_device)) return error;
  const auto *a = static_cast<const char*>(to), *b = static_cast<const char*>(from);
  if (a < b + bytes && b < a + bytes) violation("cudaMemcpyAsync: the memory areas overlap");
  if (to_device && from_device && block_at(to)->device != block_at(from)->device) {
    violation("cudaMemcpyAsync: copies between devices are not modelled");
  }
  return cudaSuccess;
}

}  // namespace

DeviceRuns::DeviceRuns() {
  if (device_runs++ == 0) open_blocks(true);
}

DeviceRuns::~DeviceRuns() {
  if (--device_runs == 0) open_blocks(false);
}

Block* block_at(const void* address) {
  const auto at = reinterpret_cast<std::uintptr_t>(address);
  auto& blocks = runtime().blocks;
  auto after = blocks.upper_bound(at);
  if (after == blocks.begin()) return nullptr;
  --after;
  return at < after->first + after->second.bytes ? &after->second : nullptr;
}

bool inside(const void* address, std::size_t bytes, int device) {
  const Block* block = block_at(address);
  if (block == nullptr || (!block->pinned && block->device != device)) return false;
  return bytes == 0 || block_at(static_cast<const char*>(address) + bytes - 1) == block;
}

}  // namespace strict

using strict::call;
using strict::runtime;

extern "C" {

cudaError_t cudaMalloc(void** memory, std::size_t bytes) {
  return call("cudaMalloc", strict::kUnsafe, [&] {
    std::size_t& used = runtime().used[strict::current_device()];
    if (bytes > runtime().machine.memory - used) return cudaErrorMemoryAllocation;
    *memory = bytes == 0 ? nullptr : strict::make_block(bytes, false);
    used += bytes;
    return cudaSuccess;
  });
}

cudaError_t cudaFree(void* memory) {
  return call("cudaFree", strict::kUnsafe | strict::kAlways,
              [&] { return strict::free_block(memory, false, "cudaFree"); });
}

// Kernels of every device may use it only if it is mapped and portable.
cudaError_t cudaHostAlloc(void** memory, std::size_t bytes, unsigned flags) {
  return call("cudaHostAlloc", strict::kUnsafe, [&] {
    if (flags != (cudaHostAllocMapped | cudaHostAllocPortable))
      strict::violation("cudaHostAlloc: flags not modelled");
    *memory = strict::make_block(bytes, true);
    return cudaSuccess;
  });
}

cudaError_t cudaFreeHost(void* memory) {
  return call("cudaFreeHost", strict::kUnsafe | strict::kAlways,
              [&] { return strict::free_block(memory, true, "cudaFreeHost"); });
}

cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
  return call("cudaMemGetInfo", strict::kPlain, [&] {
    *total = runtime().machine.memory;
    *free = *total - runtime().used[strict::current_device()];
    return cudaSuccess;
  });
}

// Asynchronous, in the default stream of the current device.
cudaError_t cudaMemset(void* memory, int value, std::size_t bytes) {
  return call("cudaMemset", strict::kUnsafe, [&] {
    if (!strict::inside(memory, bytes, strict::current_device())) return cudaErrorInvalidValue;
    return strict::enqueue(*strict::stream_of(nullptr, "cudaMemset"), "memset",
                           [=] { std::memset(memory, value, bytes); });
  });
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  return call("cudaMemcpyAsync", strict::kPlain, [&] {
    strict::Stream& queue = *strict::stream_of(stream, "cudaMemcpyAsync");
    if (bytes == 0) return cudaSuccess;
    if (const cudaError_t error = strict::check_copy(to, from, bytes, kind)) return error;
    const bool pageable = (kind == cudaMemcpyHostToDevice && strict::block_at(from) == nullptr) ||
                          (kind == cudaMemcpyDeviceToHost && strict::block_at(to) == nullptr);
    if (pageable && queue.capture == cudaStreamCaptureStatusActive) {
      strict::violation("cudaMemcpyAsync: captured, with pageable memory that must outlive the graph");
    }
    if (pageable && kind == cudaMemcpyHostToDevice && runtime().machine.stages_pageable) {
      const auto* bytes_now = static_cast<const char*>(from);
      return strict::enqueue(queue, "copy", [to, staged = std::vector<char>(bytes_now, bytes_now + bytes)] {
        std::memcpy(to, staged.data(), staged.size());
      });
    }
    return strict::enqueue(queue, "copy", [=] { std::memcpy(to, from, bytes); });
  });
}

}  // extern "C"
