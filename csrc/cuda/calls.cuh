// What all calls of the CUDA runtime have in common: errors, and the state of the calling thread. For
// cuda_device.cu alone.
#pragma once

#include <cuda_runtime.h>

#include <string>

#include "cuda/device.h"

namespace pysdk::cuda {

namespace {

// Throws with what was tried. The error is cleared, unless it is one that stays until the process ends.
void check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  cudaGetLastError();
  const std::string text =
      std::string(what) + ": " + cudaGetErrorString(error) + " (" + cudaGetErrorName(error) + ")";
  switch (error) {
    case cudaErrorMemoryAllocation:
      throw OutOfMemory(text);
    case cudaErrorStreamCaptureUnsupported:
    case cudaErrorStreamCaptureInvalidated:
    case cudaErrorStreamCaptureMerge:
    case cudaErrorStreamCaptureUnmatched:
    case cudaErrorStreamCaptureUnjoined:
    case cudaErrorStreamCaptureIsolation:
    case cudaErrorStreamCaptureImplicit:
    case cudaErrorStreamCaptureWrongThread:
    case cudaErrorCapturedEvent:
    case cudaErrorNotSupported:
    case cudaErrorCallRequiresNewerDriver:
      throw CaptureRefused(text);
    default:
      throw Error(text);
  }
}

// Building graphs: whatever the driver has against it, there is a path without; except for want of memory.
void refuse(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  try {
    check(error, what);
  } catch (const OutOfMemory&) {
    throw;
  } catch (const Error& refused) {
    throw CaptureRefused(refused.what());
  }
}

// For calls that nobody can be told of: their error would come out of the next launch.
void forgive(cudaError_t error) {
  if (error != cudaSuccess) cudaGetLastError();
}

// The calling thread's device, put back at the end: one process may use several.
class Current {
 public:
  explicit Current(int index) {
    check(cudaGetDevice(&before_), "cudaGetDevice");
    if (before_ != index) check(cudaSetDevice(index), "cudaSetDevice");
    changed_ = before_ != index;
  }
  Current(const Current&) = delete;
  ~Current() {
    if (changed_) forgive(cudaSetDevice(before_));
  }

 private:
  int before_ = 0;
  bool changed_ = false;
};

// Owners may be dropped at any moment, also by a garbage collector in the middle of a capture, which forbids
// this thread to free or wait for anything, even what has no part in it.
class Relaxed {
 public:
  Relaxed() : changed_(cudaThreadExchangeStreamCaptureMode(&mode_) == cudaSuccess) {
    if (!changed_) cudaGetLastError();
  }
  Relaxed(const Relaxed&) = delete;
  ~Relaxed() {
    if (changed_) forgive(cudaThreadExchangeStreamCaptureMode(&mode_));
  }

 private:
  cudaStreamCaptureMode mode_ = cudaStreamCaptureModeRelaxed;
  const bool changed_;
};

}  // namespace

}  // namespace pysdk::cuda
