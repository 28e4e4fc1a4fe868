// What stands in for cuda_device.cu in a build without a CUDA compiler.
#include "cuda/device.h"

namespace pysdk::cuda {

Status status() {
  return {false, 0,
          "this pysdk was built without a CUDA compiler; install nvcc and build it again with PYSDK_CUDA=ON"};
}

std::shared_ptr<Device> open_device(int) { throw Error(status().text); }

}  // namespace pysdk::cuda
