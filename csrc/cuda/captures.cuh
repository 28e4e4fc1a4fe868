// Graphs that are being built, and which of them are lost. For cuda_device.cu alone.
#pragma once

#include <cuda_runtime.h>

#include <map>
#include <memory>
#include <mutex>
#include <type_traits>
#include <vector>

#include "cuda/calls.cuh"

namespace pysdk::cuda {

namespace {

// What a Graph handle points to. A capture that fails takes the graph with it that it went into, and drivers
// crash when what is around that graph is destroyed (NVIDIA/cuda-python issue 2918). So nothing of a lost
// graph is touched again, which leaks a few kilobytes. Networks, whose captures may well fail, are captured
// apart; these captures hold our own kernels alone.
struct Building {
  cudaGraph_t graph = nullptr;
  Building* around = nullptr;  // what encloses the body of a conditional node
  std::vector<std::unique_ptr<Building>> bodies;
  bool lost = false;

  void lose() {
    for (Building* each = this; each != nullptr; each = each->around) each->lost = true;
  }
};

// What was captured apart, until it was copied into another graph.
struct DestroyGraph {
  void operator()(cudaGraph_t graph) const { forgive(cudaGraphDestroy(graph)); }
};
using OwnedPart = std::unique_ptr<std::remove_pointer_t<cudaGraph_t>, DestroyGraph>;

// What each stream is captured into.
class Captures {
 public:
  cudaError_t begin(cudaStream_t stream, Building& into, const std::vector<cudaGraphNode_t>& after) {
    const cudaError_t error = cudaStreamBeginCaptureToGraph(stream, into.graph, after.data(), nullptr,
                                                            after.size(), cudaStreamCaptureModeThreadLocal);
    const std::lock_guard lock(mutex_);
    if (error == cudaSuccess) into_[stream] = &into;
    return error;
  }

  cudaError_t end(cudaStream_t stream) {
    cudaGraph_t graph = nullptr;  // the one given to begin
    const cudaError_t error = cudaStreamEndCapture(stream, &graph);
    const std::lock_guard lock(mutex_);
    const auto found = into_.find(stream);
    if (found == into_.end()) return error;
    if (error != cudaSuccess) found->second->lose();
    into_.erase(found);
    return error;
  }

 private:
  std::mutex mutex_;
  std::map<cudaStream_t, Building*> into_;
};

}  // namespace

}  // namespace pysdk::cuda
