// The kernels: the bodies of row.h, threshold.h and images.h, spread over a grid. For cuda_device.cu alone.
#pragma once

#include <cuda_runtime.h>

#include <array>

#include "cuda/device.h"
#include "cuda/rows/images.h"
#include "cuda/rows/row.h"
#include "cuda/rows/threshold.h"

namespace pysdk::cuda {

namespace {

constexpr unsigned kThreads = 256;
constexpr unsigned kSelectThreads = 1024;

__global__ void __launch_bounds__(kThreads) start_kernel(const Task* task) {
  const std::uint32_t number = blockIdx.x * kThreads + threadIdx.x;
  if (number < task->batch * task->groups) start_group(*task, number);
}

__global__ void __launch_bounds__(kThreads) update_kernel(const Task* task, const Place* place) {
  const std::uint32_t number = blockIdx.x * kThreads + threadIdx.x;
  if (number < task->batch * task->groups) {
    update_group(*task, static_cast<std::uint32_t>(place->position), number);
  }
}

// One block's threads; see threshold.h. Host passes see its members too, and never call them.
struct CudaBlock {
  template <typename F>
  __host__ __device__ void each(F&& f) {
#if defined(__CUDA_ARCH__)
    f(threadIdx.x, blockDim.x);
    __syncthreads();
#endif
  }
  __host__ __device__ void add(std::uint32_t& to, std::uint32_t value) {
#if defined(__CUDA_ARCH__)
    atomicAdd(&to, value);
#endif
  }
  __host__ __device__ void least(std::uint32_t& to, std::uint32_t value) {
#if defined(__CUDA_ARCH__)
    atomicMin(&to, value);
#endif
  }
};

__global__ void __launch_bounds__(kSelectThreads) threshold_kernel(const Task* task, const Place* place) {
  __shared__ Selection selection;
  CudaBlock block;
  select_threshold(block, selection, *task, static_cast<std::uint32_t>(place->position), blockIdx.x);
}

__global__ void prepare_kernel(const Task* task, const Place* place, Branches branches) {
  const std::uint32_t calls = calls_of(task->rows[place->position], branches.has_half);
  const std::uint32_t used = branches.used;
  if (used & Branches::kFull) cudaGraphSetConditional(branches.full, (calls & Branches::kFull) != 0);
  if (used & Branches::kHalf) cudaGraphSetConditional(branches.half, (calls & Branches::kHalf) != 0);
}

__global__ void advance_kernel(const Task* task, Place* place, Mailbox* mailbox) {
  advance_row(*task, *place, *mailbox);
}

// One thread, as only one may set a condition.
__global__ void advance_loop_kernel(const Task* task, Place* place, Mailbox* mailbox,
                                    cudaGraphConditionalHandle loop) {
  cudaGraphSetConditional(loop, advance_row(*task, *place, *mailbox));
}

__global__ void __launch_bounds__(kThreads) bytes_kernel(ByteTask task) {
  const std::uint64_t number = std::uint64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (number < task.total) bytes_of_pixel(task, number);
}

inline std::array<const void*, 7> all_kernels() {
  return {reinterpret_cast<const void*>(start_kernel),     reinterpret_cast<const void*>(update_kernel),
          reinterpret_cast<const void*>(threshold_kernel), reinterpret_cast<const void*>(prepare_kernel),
          reinterpret_cast<const void*>(advance_kernel),   reinterpret_cast<const void*>(advance_loop_kernel),
          reinterpret_cast<const void*>(bytes_kernel)};
}

}  // namespace

}  // namespace pysdk::cuda
