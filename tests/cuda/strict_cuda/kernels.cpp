// Kernels by the names they are registered with, run on the CPU: the text of kernels.cuh itself, but for the
// selection of a threshold, whose threads wait for each other.
#include <cuda_runtime.h>
#include <cxxabi.h>

#include <algorithm>
#include <cstdlib>
#include <tuple>
#include <type_traits>

#include "runtime.h"

namespace strict {

namespace {

struct Here {
  dim3 thread, block;
};
Here here;  // under the runtime's lock

}  // namespace

}  // namespace strict

#define threadIdx strict::here.thread
#define blockIdx strict::here.block
#define cudaGraphSetConditional strict::set_condition
#ifndef __launch_bounds__
#define __launch_bounds__(threads)
#endif
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-parameter"
#pragma GCC diagnostic ignored "-Wunused-function"
#include "cuda/rows/kernels.cuh"
#pragma GCC diagnostic pop
#undef threadIdx
#undef blockIdx
#undef cudaGraphSetConditional

namespace strict {

namespace {

using namespace pysdk::cuda;

// All tensors of a task must be memory that the device can read.
void check(const Task& task, int device) {
  const auto one = [&](const auto* tensor, std::size_t count) {
    if (tensor != nullptr && !inside(tensor, count * sizeof *tensor, device)) {
      violation("a kernel reads or writes memory that is not its device's");
    }
  };
  const std::size_t all = task.batch * task.image, network = (task.guided ? 2 : 1) * std::size_t{task.batch};
  one(task.rows, static_cast<std::size_t>(task.length));
  for (const auto* words : {task.seeds, task.images}) one(words, task.batch);
  one(task.guidance, task.batch);
  for (const float* tensor : {task.initial, task.known, task.noise, task.known_noise}) one(tensor, all);
  for (const float* tensor : {task.x, task.d1, task.d2, task.y, task.raw}) one(tensor, all);
  one(task.keep, all);
  one(task.input, network * task.image);
  one(task.output_tensor, network * task.output);
  one(task.time, 1);
  one(task.threshold, task.batch);
  for (const float* ring : {task.ring_x, task.ring_denoised})
    one(ring, all * static_cast<std::size_t>(task.slots));
}

template <typename T>
void check(T* address, int device) {
  if (address == nullptr || !inside(const_cast<const std::remove_const_t<T>*>(address), sizeof(T), device)) {
    violation("a kernel was given an address that is not its device's");
  }
  if constexpr (std::is_same_v<std::remove_const_t<T>, Task>) check(*address, device);
}
void check(const ByteTask& task, int device) {
  const bool fits = inside(task.x, task.total * task.channels * sizeof(float), device) &&
                    (task.out == nullptr || inside(task.out, task.total * task.channels, device)) &&
                    inside(task.broken, task.total / task.pixels * sizeof(std::uint32_t), device);
  if (!fits) violation("a kernel reads or writes memory that is not its device's");
}
void check(const Branches&, int) {}
void check(cudaGraphConditionalHandle, int) {}

// Threads one after the other, the last one first.
void for_each_block(const Grid& grid, const std::function<void()>& block) {
  for (unsigned i = grid.blocks.x; i-- > 0;) {
    here.block = dim3(i, 0, 0);
    block();
  }
}

void for_each_thread(const Grid& grid, const std::function<void()>& thread) {
  for_each_block(grid, [&] {
    for (unsigned i = grid.threads.x; i-- > 0;) {
      here.thread = dim3(i, 0, 0);
      thread();
    }
  });
}

template <typename... A>
Bind bind(void (*kernel)(A...)) {
  return [kernel](void** arguments, int device) -> Bound {
    return [&]<std::size_t... i>(std::index_sequence<i...>) -> Bound {
      // copied now: the launch's arguments are the caller's locals
      return
          [kernel, device, values = std::tuple<A...>(*static_cast<A*>(arguments[i])...)](const Grid& grid) {
            std::apply([device](const auto&... value) { (check(value, device), ...); }, values);
            for_each_thread(grid, [&] { std::apply(kernel, values); });
          };
    }(std::index_sequence_for<A...>());
  };
}

// The threads of a block between two barriers, the last one first.
struct Threads {
  std::uint32_t count;
  template <typename F>
  void each(F&& f) {
    for (std::uint32_t i = count; i-- > 0;) f(i, count);
  }
  void add(std::uint32_t& to, std::uint32_t value) { to += value; }
  void least(std::uint32_t& to, std::uint32_t value) { to = std::min(to, value); }
};

Bind threshold() {
  return [](void** arguments, int device) -> Bound {
    const Task* task = *static_cast<const Task**>(arguments[0]);
    const Place* place = *static_cast<const Place**>(arguments[1]);
    return [task, place, device](const Grid& grid) {
      check(task, device);
      check(place, device);
      for_each_block(grid, [&] {
        Threads block{grid.threads.x};
        Selection selection;
        std::fill_n(reinterpret_cast<unsigned char*>(&selection), sizeof selection,
                    static_cast<unsigned char>(0xa5));
        select_threshold(block, selection, *task, static_cast<std::uint32_t>(place->position), here.block.x);
      });
    };
  };
}

struct Kernel {
  std::string name;
  Bind bind;
  unsigned max_threads;  // its launch bound
};

// By address, as they are launched.
std::map<const void*, Kernel>& kernels() {
  static auto* only = new std::map<const void*, Kernel>;
  return *only;
}

bool registered_all = false;

// By name and types; nvcc does not tell the runtime launch bounds, which lie in the code of the device.
const std::map<std::string, Kernel>& bodies() {
  static const std::map<std::string, Kernel> only{
      {"start_kernel(pysdk::cuda::Task const*)", {"start", bind(start_kernel), kThreads}},
      {"update_kernel(pysdk::cuda::Task const*, pysdk::cuda::Place const*)",
       {"update", bind(update_kernel), kThreads}},
      {"threshold_kernel(pysdk::cuda::Task const*, pysdk::cuda::Place const*)",
       {"threshold", threshold(), kSelectThreads}},
      {"prepare_kernel(pysdk::cuda::Task const*, pysdk::cuda::Place const*, pysdk::cuda::Branches)",
       {"prepare", bind(prepare_kernel), 1024}},
      {"advance_kernel(pysdk::cuda::Task const*, pysdk::cuda::Place*, pysdk::cuda::Mailbox*)",
       {"advance", bind(advance_kernel), 1024}},
      {"advance_loop_kernel(pysdk::cuda::Task const*, pysdk::cuda::Place*, pysdk::cuda::Mailbox*, unsigned "
       "long long)",
       {"advance_loop", bind(advance_loop_kernel), 1024}},
      {"bytes_kernel(pysdk::cuda::ByteTask)", {"bytes", bind(bytes_kernel), kThreads}},
  };
  return only;
}

// Without namespaces, with the types of its parameters.
std::string demangled(const char* name) {
  int status = 0;
  const std::unique_ptr<char, void (*)(void*)> text(abi::__cxa_demangle(name, nullptr, nullptr, &status),
                                                    std::free);
  const std::string all = status == 0 ? text.get() : name;
  return all.substr(all.rfind("::", all.find("_kernel(")) + 2);
}

struct Configuration {
  dim3 blocks, threads;
  std::size_t shared;
  cudaStream_t stream;
};
thread_local std::vector<Configuration> configurations;

cudaError_t launch(const void* function, dim3 blocks, dim3 threads, void** arguments, std::size_t shared,
                   cudaStream_t stream) {
  const auto found = kernels().find(function);
  if (found == kernels().end() || !runtime().machine.has_code) return cudaErrorInvalidDeviceFunction;
  const Kernel& kernel = found->second;
  if (blocks.y != 1 || blocks.z != 1 || threads.y != 1 || threads.z != 1 || shared != 0) {
    violation("grids of more than one dimension, and dynamic shared memory, are not modelled");
  }
  if (blocks.x == 0 || blocks.x > 0x7fffffffu || threads.x == 0 || threads.x > 1024) {
    return cudaErrorInvalidConfiguration;
  }
  if (threads.x > kernel.max_threads) return cudaErrorLaunchOutOfResources;
  Stream& queue = *stream_of(stream, "a kernel launch");
  if (queue.device != current_device()) return cudaErrorInvalidResourceHandle;
  const Grid grid{blocks, threads};
  return enqueue(queue, kernel.name, [grid, bound = kernel.bind(arguments, queue.device)] { bound(grid); });
}

}  // namespace

void define_kernel(const void* function, const std::string& name, Bind made) {
  kernels()[function] = {name, made, 1024};
}

}  // namespace strict

using strict::call;
using strict::runtime;

extern "C" {

void** __cudaRegisterFatBinary(void* binary) {
  static void* handle = nullptr;
  handle = binary;
  return &handle;
}

void __cudaRegisterFatBinaryEnd(void**) { strict::registered_all = true; }
void __cudaUnregisterFatBinary(void**) {}

// Of modules with managed variables; unoptimised host code names it.
char __cudaInitModule(void**) { strict::violation("managed variables are not modelled"); }

void __cudaRegisterFunction(void**, const char* host, char*, const char* name, int, uint3*, uint3*, dim3*,
                            dim3*, int*) {
  const std::string whole = strict::demangled(name);
  const auto body = strict::bodies().find(whole);
  if (body == strict::bodies().end()) strict::violation("there is no body for the kernel " + whole);
  strict::kernels()[host] = body->second;
}

unsigned __cudaPushCallConfiguration(dim3 blocks, dim3 threads, std::size_t shared, CUstream_st* stream) {
  strict::configurations.push_back({blocks, threads, shared, stream});
  return 0;
}

cudaError_t __cudaPopCallConfiguration(dim3* blocks, dim3* threads, std::size_t* shared, void* stream) {
  if (strict::configurations.empty()) return cudaErrorMissingConfiguration;
  const auto [b, t, s, queue] = strict::configurations.back();
  strict::configurations.pop_back();
  *blocks = b, *threads = t, *shared = s, *static_cast<cudaStream_t*>(stream) = queue;
  return cudaSuccess;
}

cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* function) {
  if (!strict::registered_all) strict::violation("a kernel is looked up before all are registered");
  *kernel = static_cast<cudaKernel_t>(const_cast<void*>(function));
  return cudaSuccess;
}

cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 blocks, dim3 threads, void** arguments,
                               std::size_t shared, cudaStream_t stream) {
  return cudaLaunchKernel(kernel, blocks, threads, arguments, shared, stream);
}

cudaError_t cudaLaunchKernel(const void* function, dim3 blocks, dim3 threads, void** arguments,
                             std::size_t shared, cudaStream_t stream) {
  return call("cudaLaunchKernel", strict::kPlain,
              [&] { return strict::launch(function, blocks, threads, arguments, shared, stream); });
}

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void* function) {
  return call("cudaFuncGetAttributes", strict::kPlain, [&] {
    if (strict::kernels().count(function) == 0) return cudaErrorInvalidDeviceFunction;
    if (!runtime().machine.has_code) return cudaErrorNoKernelImageForDevice;
    *attributes = {};
    attributes->maxThreadsPerBlock = static_cast<int>(strict::kernels().at(function).max_threads);
    return cudaSuccess;
  });
}

}  // extern "C"
