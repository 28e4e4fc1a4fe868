// The strict runtime itself: its rules are enforced, so that a chain that passes has kept them.
#include "rule_cases.h"

#include <memory>
#include <thread>

using namespace rules;

CASE(rules_of_memory) {
  require_death([] { cudaFree(new char[4]); }, "not what its allocator gave");
  require_death(
      [] {
        int* memory = device_memory<int>(4);
        cudaFree(memory);
        cudaFree(memory);
      },
      "freed before");
  require_death([] { *device_memory<volatile int>(4) = 1; }, "AddressSanitizer");
  require_death(
      [] {
        int* memory = device_memory<int>(4);
        act(new_stream(), [memory] { memory[4] = 1; });
        strict::run(*strict::runtime().streams.live().begin()->second, 9);
      },
      "AddressSanitizer");
  require_death(
      [] {
        const cudaStream_t stream = new_stream();
        int* memory = device_memory<int>(4);
        act(stream, [memory] { memory[0] = 1; });
        cudaFree(memory);
        cudaStreamSynchronize(stream);
      },
      "AddressSanitizer");
  require_death(
      [] {
        const cudaStream_t stream = new_stream();
        int* memory = device_memory<int>(4);
        auto host = std::make_unique<int[]>(4);
        cudaMemcpyAsync(host.get(), memory, 16, cudaMemcpyDeviceToHost, stream);
        host.reset();
        cudaStreamSynchronize(stream);
      },
      "AddressSanitizer");
  require_death(
      [] {
        cudaMemcpyAsync(device_memory<int>(4), device_memory<int>(4), 4, cudaMemcpyHostToDevice, nullptr);
      },
      "direction");
  int* memory = device_memory<int>(4);
  int host[8] = {};
  is(cudaMemcpyAsync(memory, host, 20, cudaMemcpyHostToDevice, nullptr), cudaErrorInvalidValue);
  is(cudaGetLastError(), cudaErrorInvalidValue);
  fine(cudaGetLastError());
  fine(cudaFree(memory));
  fine(cudaFree(nullptr));
}

CASE(rules_of_order) {
  const cudaStream_t stream = new_stream();
  int* memory = device_memory<int>(1);
  int host = 5, read = -1;
  fine(cudaMemset(memory, 0, 4));  // in the default stream, which this one does not wait for
  fine(cudaMemcpyAsync(memory, &host, 4, cudaMemcpyHostToDevice, stream));
  host = 6;
  fine(cudaMemcpyAsync(&read, memory, 4, cudaMemcpyDeviceToHost, stream));
  require(read == -1, "the copy did not wait");
  fine(cudaStreamSynchronize(stream));
  require(read == 5, "the copy was not staged");
  fine(cudaStreamSynchronize(nullptr));  // the memset comes last
  fine(cudaMemcpyAsync(&read, memory, 4, cudaMemcpyDeviceToHost, stream));
  is(cudaStreamQuery(stream), cudaSuccess);
  require(read == 0, "the default stream was waited for");
  for (int i = 0; i < 5; ++i) fine(cudaMemcpyAsync(&read, memory, 4, cudaMemcpyDeviceToHost, stream));
  is(cudaStreamQuery(stream), cudaErrorNotReady);
  is(cudaGetLastError(), cudaErrorNotReady);
  strict::runtime().machine.stages_pageable = false;
  fine(cudaMemcpyAsync(memory, &host, 4, cudaMemcpyHostToDevice, stream));
  host = 7;
  fine(cudaMemcpyAsync(&read, memory, 4, cudaMemcpyDeviceToHost, stream));
  fine(cudaStreamSynchronize(stream));
  require(read == 7, "pageable memory was read during the call");
  fine(cudaFree(memory));
  fine(cudaStreamDestroy(stream));
}

CASE(rules_of_devices) {
  const cudaStream_t stream = new_stream();
  fine(cudaSetDevice(1));
  is(act(stream, [] {}), cudaErrorInvalidResourceHandle);
  fine(cudaSetDevice(0));
  is(cudaSetDevice(2), cudaErrorInvalidDevice);
  is(act(stream, [] {}, 0, 1), cudaErrorInvalidConfiguration);
  is(act(stream, [] {}, 1, 1025), cudaErrorInvalidConfiguration);
  fine(cudaStreamDestroy(stream));
  require_death([stream] { cudaStreamSynchronize(stream); }, "no such stream, or no longer");
}

CASE(rules_of_captures) {
  const cudaStream_t stream = new_stream();
  cudaGraph_t graph = new_graph();
  const auto forbidden = [&](cudaError_t first, const char* what) {
    require(first == cudaErrorStreamCaptureUnsupported, what);
    is(act(stream, [] {}), cudaErrorStreamCaptureInvalidated);
    is(cudaStreamSynchronize(stream), cudaErrorStreamCaptureInvalidated);
    cudaGraph_t got = graph;
    is(cudaStreamEndCapture(stream, &got), cudaErrorStreamCaptureInvalidated);
    require(got == nullptr, "a lost capture gave a graph");
    fine(cudaStreamSynchronize(stream));
    graph = new_graph();  // the other went with the capture
  };
  void* memory = nullptr;
  fine(begin_capture(stream, graph));
  forbidden(cudaMalloc(&memory, 4), "cudaMalloc");
  fine(begin_capture(stream, graph));
  forbidden(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
  fine(begin_capture(stream, graph));
  forbidden(cudaStreamQuery(stream), "cudaStreamQuery");
  fine(begin_capture(stream, graph));
  std::thread([] {  // another thread may
    int* other = device_memory<int>(4);
    fine(cudaFree(other));
  })
      .join();
  is(begin_capture(stream, graph), cudaErrorIllegalState);
  cudaError_t elsewhere = cudaSuccess;
  std::thread([&] { elsewhere = end_capture(stream); }).join();
  is(elsewhere, cudaErrorStreamCaptureWrongThread);
  cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
  fine(cudaThreadExchangeStreamCaptureMode(&mode));
  require(mode == cudaStreamCaptureModeGlobal, "another mode at first");
  fine(cudaFree(device_memory<int>(4)));  // this thread asked for it
  fine(cudaThreadExchangeStreamCaptureMode(&mode));
  fine(act(stream, [] {}));
  cudaStreamCaptureStatus state{};
  const cudaGraphNode_t* last = nullptr;
  std::size_t count = 0;
  fine(cudaStreamGetCaptureInfo(stream, &state, nullptr, nullptr, &last, nullptr, &count));
  require(state == cudaStreamCaptureStatusActive && count == 1, "the capture has no last node");
  const cudaGraphNode_t node = last[0];
  require_death(
      [&] {
        act(stream, [] {});
        require(last[0] != nullptr, "none");
      },
      "AddressSanitizer");
  require_death([&] { cudaGraphDestroy(graph); }, "while a stream is captured into it");
  require_death([&] { cudaStreamDestroy(stream); }, "while it is captured");
  fine(end_capture(stream));
  is(end_capture(stream), cudaErrorIllegalState);
  const cudaGraph_t other = new_graph();
  is(begin_capture(stream, other, {node}), cudaErrorInvalidValue);
  is(begin_capture(stream, graph, {node, node}), cudaErrorInvalidValue);
  is(cudaStreamBeginCaptureToGraph(nullptr, graph, nullptr, nullptr, 0, cudaStreamCaptureModeThreadLocal),
     cudaErrorStreamCaptureUnsupported);
  fine(cudaGraphDestroy(other));
  fine(cudaGraphDestroy(graph));
  require_death([&] { begin_capture(stream, graph); }, "no such graph");
  fine(cudaStreamDestroy(stream));
}

// What kernels are given must lie in memory that their device sees, and so must all that it points to.
CASE(rules_of_kernels) {
  using namespace pysdk::cuda;
  const auto runs = [](int on, const std::function<void(Task&)>& spoil, bool on_host) {
    const auto device = open_device(on);
    Made made = make_chain(device, Features{});
    begin(made, Path::kPlain, 1);
    Task task = task_of(made.chain->shape());
    std::vector<float> host(64);
    task.x = host.data();
    Block memory(device, sizeof task);
    const OwnedStream stream(device);
    spoil(task);
    device->upload(memory.data(), &task, sizeof task, stream.get());
    device->start(task, on_host ? &task : memory.as<Task>(), stream.get());
    device->synchronize(stream.get());
  };
  require_death([&] { runs(0, [](Task&) {}, true); }, "an address that is not its device's");
  require_death([&] { runs(0, [](Task&) {}, false); }, "memory that is not its device's");
  const Block elsewhere(open_device(1), 4096);
  require_death([&] { runs(0, [&](Task& task) { task.x = elsewhere.as<float>(); }, false); },
                "memory that is not its device's");
}

CASE(rules_of_leaks) {
  void* memory = nullptr;
  fine(cudaMalloc(&memory, 4));
  const cudaStream_t stream = new_stream();
  require(strict::leaks() == std::vector<std::string>{"1 device blocks", "1 streams"}, "a leak was not seen");
  fine(cudaFree(memory));
  fine(cudaStreamDestroy(stream));
}
