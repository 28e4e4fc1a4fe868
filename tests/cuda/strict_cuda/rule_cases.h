// Plain CUDA calls for the cases that show what the strict runtime forbids.
#pragma once

#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <string>
#include <vector>

#include "cases.h"

namespace rules {

template <typename F>
void require_death(F&& act, const std::string& text) {
  std::array<int, 2> ends{};
  require(pipe(ends.data()) == 0, "no pipe");
  const pid_t child = fork();
  if (child == 0) {
    dup2(ends[1], STDERR_FILENO);
    act();
    std::_Exit(0);
  }
  close(ends[1]);
  std::string said;
  std::array<char, 4096> part{};
  for (ssize_t got; (got = read(ends[0], part.data(), part.size())) > 0;) said.append(part.data(), got);
  close(ends[0]);
  int state = 0;
  waitpid(child, &state, 0);
  require(!(WIFEXITED(state) && WEXITSTATUS(state) == 0), "it was allowed; expected: " + text);
  require(said.find(text) != std::string::npos, "expected: " + text + "; it said: " + said.substr(0, 300));
}

inline void is(cudaError_t got, cudaError_t wanted) {
  require(got == wanted, "error " + std::to_string(got) + " instead of " + std::to_string(wanted));
}
inline void fine(cudaError_t got) { is(got, cudaSuccess); }

template <typename T>
T* device_memory(std::size_t count) {
  void* memory = nullptr;
  fine(cudaMalloc(&memory, count * sizeof(T)));
  return static_cast<T*>(memory);
}
inline cudaStream_t new_stream() {
  cudaStream_t stream = nullptr;
  fine(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  return stream;
}
inline cudaGraph_t new_graph() {
  cudaGraph_t graph = nullptr;
  fine(cudaGraphCreate(&graph, 0));
  return graph;
}
inline cudaGraphConditionalHandle new_condition(cudaGraph_t graph, unsigned initial = 1) {
  cudaGraphConditionalHandle handle = 0;
  fine(cudaGraphConditionalHandleCreate(&handle, graph, initial, cudaGraphCondAssignDefault));
  return handle;
}
inline cudaGraphNodeParams conditional(cudaGraphConditionalHandle handle, cudaGraphConditionalNodeType type) {
  cudaGraphNodeParams parameters{};
  parameters.type = cudaGraphNodeTypeConditional;
  parameters.conditional.handle = handle;
  parameters.conditional.type = type;
  parameters.conditional.size = 1;
  return parameters;
}
inline cudaError_t add(cudaGraph_t graph, cudaGraphNodeParams parameters, cudaGraph_t* body = nullptr,
                       const std::vector<cudaGraphNode_t>& after = {}) {
  cudaGraphNode_t node = nullptr;
  const cudaError_t error = cudaGraphAddNode(&node, graph, after.data(), nullptr, after.size(), &parameters);
  if (error == cudaSuccess && body != nullptr) *body = parameters.conditional.phGraph_out[0];
  return error;
}
inline cudaError_t begin_capture(cudaStream_t stream, cudaGraph_t graph,
                                 const std::vector<cudaGraphNode_t>& after = {}) {
  return cudaStreamBeginCaptureToGraph(stream, graph, after.data(), nullptr, after.size(),
                                       cudaStreamCaptureModeThreadLocal);
}
inline cudaError_t end_capture(cudaStream_t stream) {
  cudaGraph_t graph = nullptr;
  return cudaStreamEndCapture(stream, &graph);
}

// A kernel that does what it is told, by the address of a function.
using Action = std::function<void()>;
inline void act_kernel() {}
inline const bool act_defined =
    (strict::define_kernel(reinterpret_cast<const void*>(act_kernel), "act",
                           [](void** arguments, int) -> strict::Bound {
                             return [action = **static_cast<Action**>(arguments[0])](const strict::Grid&) {
                               action();
                             };
                           }),
     true);
inline cudaError_t act(cudaStream_t stream, const Action& action, unsigned blocks = 1, unsigned threads = 1) {
  const Action* address = &action;
  void* arguments[] = {&address};
  return cudaLaunchKernel(reinterpret_cast<const void*>(act_kernel), dim3(blocks), dim3(threads), arguments,
                          0, stream);
}

}  // namespace rules
