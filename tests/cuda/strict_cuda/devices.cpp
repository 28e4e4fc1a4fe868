// Devices, the current one, errors, and what every call has in common.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "runtime.h"

namespace strict {

namespace {

thread_local int current = 0;
thread_local cudaError_t last_error = cudaSuccess;

std::string take_failure(const std::string& name, cudaError_t& error) {
  auto& failures = runtime().failures;
  const auto found = failures.find(name);
  if (found == failures.end() || found->second.nth == 0 || --found->second.nth > 0) return {};
  error = found->second.error;
  if (found->second.sticky) runtime().sticky = error;
  return name;
}

}  // namespace

void violation(const std::string& what) {
  std::fprintf(stderr, "undefined on a device: %s\n", what.c_str());
  std::fflush(stderr);
  std::abort();
}

Runtime& runtime() {
  static Runtime* only = new Runtime;  // outlives every static
  return *only;
}

int current_device() { return current; }

cudaError_t remember(cudaError_t error) {
  if (error != cudaSuccess) last_error = error;
  return error;
}

cudaError_t call(const char* name, unsigned kind, const std::function<cudaError_t()>& body) {
  Runtime& all = runtime();
  const std::lock_guard lock(all.mutex);
  all.log.push_back(name);
  if (!(kind & kNoDevice)) {
    if (all.machine.driver == 0) return remember(cudaErrorInsufficientDriver);
    if (all.machine.devices == 0) return remember(cudaErrorNoDevice);
  }
  cudaError_t asked = cudaSuccess;
  take_failure(name, asked);
  if (all.sticky != cudaSuccess) asked = all.sticky;
  if (asked != cudaSuccess && !(kind & kAlways)) return remember(asked);
  if ((kind & kUnsafe) && capturing_here()) {
    invalidate_captures();
    return remember(cudaErrorStreamCaptureUnsupported);
  }
  all.asked = asked;
  const cudaError_t result = body();
  return remember(asked != cudaSuccess ? asked : result);
}

void fail(const std::string& name, int nth, cudaError_t error, bool sticky) {
  const std::lock_guard lock(runtime().mutex);
  runtime().failures[name] = {nth, error, sticky};
}

bool failed(const std::string& name) {
  const std::lock_guard lock(runtime().mutex);
  return runtime().failures.at(name).nth == 0;
}

std::vector<std::string> taken_log() {
  const std::lock_guard lock(runtime().mutex);
  return std::exchange(runtime().log, {});
}

std::vector<std::string> leaks() {
  Runtime& all = runtime();
  const std::lock_guard lock(all.mutex);
  run_destroyed();
  std::vector<std::string> result;
  const auto say = [&](std::size_t count, const char* what) {
    if (count > 0) result.push_back(std::to_string(count) + " " + what);
  };
  const auto pinned = static_cast<std::size_t>(
      std::count_if(all.blocks.begin(), all.blocks.end(), [](const auto& b) { return b.second.pinned; }));
  say(all.blocks.size() - pinned, "device blocks");
  say(pinned, "pinned blocks");
  say(all.streams.live().size(), "streams");
  const auto& graphs = all.graphs.live();
  say(static_cast<std::size_t>(std::count_if(
          graphs.begin(), graphs.end(),
          [](const auto& entry) { return entry.second->owner == nullptr && !entry.second->broken; })),
      "graphs");
  say(all.executables.live().size(), "executables");
  say(static_cast<std::size_t>(current), "as the current device");
  return result;
}

}  // namespace strict

using strict::call;
using strict::runtime;

extern "C" {

cudaError_t cudaGetDeviceCount(int* count) {
  return call("cudaGetDeviceCount", strict::kPlain, [&] {
    *count = runtime().machine.devices;
    return cudaSuccess;
  });
}

cudaError_t cudaGetDevice(int* device) {
  return call("cudaGetDevice", strict::kPlain, [&] {
    *device = strict::current;
    return cudaSuccess;
  });
}

cudaError_t cudaSetDevice(int device) {
  return call("cudaSetDevice", strict::kPlain, [&] {
    if (device < 0 || device >= runtime().machine.devices) return cudaErrorInvalidDevice;
    strict::current = device;
    return cudaSuccess;
  });
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  return call("cudaGetDeviceProperties", strict::kPlain, [&] {
    if (device < 0 || device >= runtime().machine.devices) return cudaErrorInvalidDevice;
    *properties = {};
    std::snprintf(properties->name, sizeof properties->name, "Strict %d", device);
    properties->major = 9;
    properties->minor = device;
    return cudaSuccess;
  });
}

cudaError_t cudaDriverGetVersion(int* version) {
  return call("cudaDriverGetVersion", strict::kNoDevice, [&] {
    *version = runtime().machine.driver;
    return cudaSuccess;
  });
}

cudaError_t cudaRuntimeGetVersion(int* version) {
  return call("cudaRuntimeGetVersion", strict::kNoDevice, [&] {
    *version = CUDART_VERSION;
    return cudaSuccess;
  });
}

// Errors that stay until the process ends cannot be cleared.
cudaError_t cudaGetLastError() {
  const std::lock_guard lock(runtime().mutex);
  if (runtime().sticky != cudaSuccess) return runtime().sticky;
  return std::exchange(strict::last_error, cudaSuccess);
}

const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
#define NAMED(name) \
  case name:        \
    return #name;
    NAMED(cudaErrorMemoryAllocation)
    NAMED(cudaErrorIllegalAddress)
    NAMED(cudaErrorInvalidValue)
    NAMED(cudaErrorInvalidResourceHandle)
    NAMED(cudaErrorNoDevice)
    NAMED(cudaErrorInsufficientDriver)
    NAMED(cudaErrorNotSupported)
    NAMED(cudaErrorNoKernelImageForDevice)
    NAMED(cudaErrorStreamCaptureUnsupported)
    NAMED(cudaErrorStreamCaptureInvalidated)
    NAMED(cudaErrorLaunchOutOfResources)
    NAMED(cudaErrorUnknown)
#undef NAMED
    default:
      return "another error";
  }
}

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaErrorNoDevice:
      return "no CUDA-capable device is detected";
    case cudaErrorNoKernelImageForDevice:
      return "no kernel image is available for execution on the device";
    default:
      return "an error of the strict runtime";
  }
}

}  // extern "C"
