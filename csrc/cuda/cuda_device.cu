// The device's calls on a GPU. The runtime is linked statically, and the driver is looked for when it is
// first used.
#include <cuda_runtime.h>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "cuda/calls.cuh"
#include "cuda/captures.cuh"
#include "cuda/device.h"
#include "cuda/rows/kernels.cuh"

namespace pysdk::cuda {

namespace {

unsigned blocks_of(std::uint64_t threads) {
  return static_cast<unsigned>((threads + kThreads - 1) / kThreads);
}

cudaStream_t raw(Stream stream) { return static_cast<cudaStream_t>(stream); }
Building& building(Graph graph) { return *static_cast<Building*>(graph); }

class CudaDevice final : public Device {
 public:
  explicit CudaDevice(int index) : index_(index) {
    const Current current(index_);
    cudaDeviceProp found{};
    check(cudaGetDeviceProperties(&found, index_), "cudaGetDeviceProperties");
    name_ = "cuda:" + std::to_string(index_) + ", " + found.name + ", sm_" + std::to_string(found.major) +
            std::to_string(found.minor);
    // A build without code for this GPU says so here and not in the middle of a chain.
    // Loading is lazy: without this a kernel's first launch, and its loading, would be inside a capture.
    cudaFuncAttributes attributes{};
    for (const void* kernel : all_kernels()) {
      check(cudaFuncGetAttributes(&attributes, kernel), (name_ + " cannot run this build").c_str());
    }
  }

  std::string name() const override { return name_; }
  int dlpack_type() const override { return 2; }
  int dlpack_index() const override { return index_; }

  Memory memory() override {
    const Current current(index_);
    Memory result{};
    check(cudaMemGetInfo(&result.free, &result.total), "cudaMemGetInfo");
    return result;
  }

  int make_current() override {
    int before = 0;
    check(cudaGetDevice(&before), "cudaGetDevice");
    if (before != index_) check(cudaSetDevice(index_), "cudaSetDevice");
    return before;
  }
  void restore_current(int before) noexcept override {
    if (before != index_) forgive(cudaSetDevice(before));
  }

  void* allocate(std::size_t bytes) override {
    const Current current(index_);
    void* result = nullptr;
    const cudaError_t error = cudaMalloc(&result, bytes);
    if (error == cudaErrorMemoryAllocation) {
      cudaGetLastError();
      const Memory now = memory();
      throw OutOfMemory(name_ + " has no room for " + std::to_string(bytes >> 20) +
                        " MiB: " + std::to_string(now.free >> 20) + " of " + std::to_string(now.total >> 20) +
                        " MiB are free; use a smaller batch_size");
    }
    check(error, "cudaMalloc");
    const cudaError_t cleared = cudaMemset(result, 0, bytes);
    // cudaMemset is ordered in the default stream, which ours do not wait for
    const cudaError_t waited = cleared == cudaSuccess ? cudaStreamSynchronize(nullptr) : cleared;
    if (waited != cudaSuccess) release(result);
    check(cleared, "cudaMemset");
    check(waited, "cudaStreamSynchronize");
    return result;
  }
  void release(void* memory) noexcept override {
    const Relaxed relaxed;
    forgive(cudaFree(memory));
  }

  void* allocate_pinned(std::size_t bytes) override {
    const Current current(index_);
    void* result = nullptr;
    check(cudaHostAlloc(&result, bytes, cudaHostAllocMapped | cudaHostAllocPortable), "cudaHostAlloc");
    std::fill_n(static_cast<char*>(result), bytes, char{0});
    return result;
  }
  void release_pinned(void* memory) noexcept override {
    const Relaxed relaxed;
    forgive(cudaFreeHost(memory));
  }

  void upload(void* to, const void* host, std::size_t bytes, Stream stream) override {
    transfer(to, host, bytes, cudaMemcpyHostToDevice, stream);
    synchronize(stream);  // pageable memory may be read later than in the call
  }
  void download(void* host, const void* from, std::size_t bytes, Stream stream) override {
    transfer(host, from, bytes, cudaMemcpyDeviceToHost, stream);
  }
  void copy(void* to, const void* from, std::size_t bytes, Stream stream) override {
    transfer(to, from, bytes, cudaMemcpyDeviceToDevice, stream);
  }

  Stream make_stream() override {
    const Current current(index_);
    cudaStream_t result = nullptr;
    check(cudaStreamCreateWithFlags(&result, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
    return result;
  }
  void release_stream(Stream stream) noexcept override { forgive(cudaStreamDestroy(raw(stream))); }
  void synchronize(Stream stream) override {
    const Relaxed relaxed;
    check(cudaStreamSynchronize(raw(stream)), "the device failed while it ran the chain");
  }
  bool finished(Stream stream) override {
    const cudaError_t state = cudaStreamQuery(raw(stream));
    if (state == cudaErrorNotReady) {
      cudaGetLastError();
      return false;
    }
    check(state, "the device failed while it ran the chain");
    return true;
  }

  Graph make_graph() override {
    auto result = std::make_unique<Building>();
    check(cudaGraphCreate(&result->graph, 0), "cudaGraphCreate");
    return result.release();
  }
  void release_graph(Graph graph) noexcept override {
    const std::unique_ptr<Building> found(&building(graph));
    if (!found->lost) forgive(cudaGraphDestroy(found->graph));
  }

  Condition make_condition(Graph graph, bool initial) override {
    const Current current(index_);
    cudaGraphConditionalHandle result = 0;
    refuse(cudaGraphConditionalHandleCreate(&result, building(graph).graph, initial ? 1u : 0u,
                                            cudaGraphCondAssignDefault),
           "cudaGraphConditionalHandleCreate");
    return result;
  }

  std::pair<Node, Graph> add_conditional(Graph graph, Conditional kind, Condition condition,
                                         const Nodes& after) override {
    const Current current(index_);
    cudaGraphNodeParams parameters{};
    parameters.type = cudaGraphNodeTypeConditional;
    parameters.conditional.handle = condition;
    parameters.conditional.type = kind == Conditional::kWhile ? cudaGraphCondTypeWhile : cudaGraphCondTypeIf;
    parameters.conditional.size = 1;
    const std::vector<cudaGraphNode_t> nodes = raw_nodes(after);
    Building& around = building(graph);
    auto body = std::make_unique<Building>();
    cudaGraphNode_t node = nullptr;
    refuse(cudaGraphAddNode(&node, around.graph, nodes.data(), nullptr, nodes.size(), &parameters),
           "cudaGraphAddNode");
    body->graph = parameters.conditional.phGraph_out[0];
    body->around = &around;
    return {node, around.bodies.emplace_back(std::move(body)).get()};
  }

  void begin_capture(Stream stream, Graph graph, const Nodes& after) override {
    refuse(captures_.begin(raw(stream), building(graph), raw_nodes(after)), "cudaStreamBeginCaptureToGraph");
  }

  Nodes end_capture(Stream stream) override {
    cudaStreamCaptureStatus state{};
    const cudaGraphNode_t* last = nullptr;
    std::size_t count = 0;
    Nodes result;
    const cudaError_t found =
        cudaStreamGetCaptureInfo(raw(stream), &state, nullptr, nullptr, &last, nullptr, &count);
    if (found == cudaSuccess && state == cudaStreamCaptureStatusActive) result.assign(last, last + count);
    refuse(captures_.end(raw(stream)), "cudaStreamEndCapture");
    refuse(found, "cudaStreamGetCaptureInfo");
    return result;
  }
  void abandon_capture(Stream stream) noexcept override { forgive(captures_.end(raw(stream))); }

  void begin_part(Stream stream) override {
    refuse(cudaStreamBeginCapture(raw(stream), cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
  }
  Nodes end_part(Stream stream, Graph graph, const Nodes& after) override {
    cudaGraph_t part = nullptr;
    refuse(cudaStreamEndCapture(raw(stream), &part), "cudaStreamEndCapture");
    const OwnedPart owned(part);  // the node will have a copy
    const Current current(index_);
    std::size_t count = 0;
    refuse(cudaGraphGetNodes(part, nullptr, &count), "cudaGraphGetNodes");
    if (count == 0) return after;
    const std::vector<cudaGraphNode_t> before = raw_nodes(after);
    cudaGraphNode_t node = nullptr;
    refuse(cudaGraphAddChildGraphNode(&node, building(graph).graph, before.data(), before.size(), part),
           "cudaGraphAddChildGraphNode");
    return {node};
  }
  void abandon_part(Stream stream) noexcept override {
    cudaGraph_t part = nullptr;
    forgive(cudaStreamEndCapture(raw(stream), &part));
    const OwnedPart owned(part);
  }

  Executable instantiate(Graph graph) override {
    const Current current(index_);
    cudaGraphExec_t result = nullptr;
    refuse(cudaGraphInstantiate(&result, building(graph).graph, 0), "cudaGraphInstantiate");
    return result;
  }
  void release_executable(Executable executable) noexcept override {
    forgive(cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(executable)));
  }
  void launch(Executable executable, Stream stream) override {
    const Current current(index_);
    check(cudaGraphLaunch(static_cast<cudaGraphExec_t>(executable), raw(stream)), "cudaGraphLaunch");
  }

  void start(const Task& shape, const Task* task, Stream stream) override {
    const Current current(index_);
    start_kernel<<<blocks_of(std::uint64_t{shape.batch} * shape.groups), kThreads, 0, raw(stream)>>>(task);
    launched();
  }
  void prepare(const Task* task, const Place* place, const Branches& branches, Stream stream) override {
    const Current current(index_);
    prepare_kernel<<<1, 1, 0, raw(stream)>>>(task, place, branches);
    launched();
  }
  void threshold(const Task& shape, const Task* task, const Place* place, Stream stream) override {
    const Current current(index_);
    threshold_kernel<<<shape.batch, kSelectThreads, 0, raw(stream)>>>(task, place);
    launched();
  }
  void update(const Task& shape, const Task* task, const Place* place, Stream stream) override {
    const Current current(index_);
    update_kernel<<<blocks_of(std::uint64_t{shape.batch} * shape.groups), kThreads, 0, raw(stream)>>>(task,
                                                                                                      place);
    launched();
  }
  void advance(const Task* task, Place* place, Mailbox* mailbox, const Condition* loop,
               Stream stream) override {
    const Current current(index_);
    if (loop == nullptr) {
      advance_kernel<<<1, 1, 0, raw(stream)>>>(task, place, mailbox);
    } else {
      advance_loop_kernel<<<1, 1, 0, raw(stream)>>>(task, place, mailbox, *loop);
    }
    launched();
  }
  void bytes(const ByteTask& task, Stream stream) override {
    const Current current(index_);
    if (task.total == 0) return;
    bytes_kernel<<<blocks_of(task.total), kThreads, 0, raw(stream)>>>(task);
    launched();
  }

 private:
  static void launched() { check(cudaGetLastError(), "a kernel could not be launched"); }

  static std::vector<cudaGraphNode_t> raw_nodes(const Nodes& nodes) {
    std::vector<cudaGraphNode_t> result;
    for (const Node node : nodes) result.push_back(static_cast<cudaGraphNode_t>(node));
    return result;
  }

  void transfer(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind, Stream stream) {
    const Current current(index_);
    check(cudaMemcpyAsync(to, from, bytes, kind, raw(stream)), "cudaMemcpyAsync");
  }

  const int index_;
  std::string name_;
  Captures captures_;
};

}  // namespace

std::shared_ptr<Device> open_device(int index) {
  const Status now = status();
  if (now.devices == 0) throw Error("cuda:" + std::to_string(index) + " cannot be used: " + now.text);
  if (index < 0 || index >= now.devices) {
    throw Error("there is no cuda:" + std::to_string(index) +
                "; this machine has cuda:0 to cuda:" + std::to_string(now.devices - 1));
  }
  return std::make_shared<CudaDevice>(index);
}

}  // namespace pysdk::cuda
