// Whether this machine has devices, and why not.
#include <cuda_runtime.h>

#include <string>

#include "cuda/device.h"

namespace pysdk::cuda {

namespace {

std::string version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

}  // namespace

Status status() {
  int driver = 0, runtime = 0, count = 0;
  cudaRuntimeGetVersion(&runtime);
  cudaDriverGetVersion(&driver);
  const std::string built = "built with CUDA " + version_text(runtime);
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess || count == 0) {
    cudaGetLastError();
    const std::string reason = driver == 0 ? "no NVIDIA driver is installed (libcuda.so.1 was not found)"
                               : error != cudaSuccess ? cudaGetErrorString(error)
                                                      : "the driver shows no device";
    return {true, 0, built + ", but there is no device: " + reason};
  }
  return {true, count,
          built + ", driver for CUDA " + version_text(driver) + ", devices: " + std::to_string(count)};
}

}  // namespace pysdk::cuda
