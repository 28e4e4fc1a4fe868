// Streams, which run what was put into them as late as they may, and their capture into graphs.
#include <algorithm>
#include <limits>

#include "runtime.h"

namespace strict {

namespace {

constexpr std::int64_t kAll = std::numeric_limits<std::int64_t>::max();
constexpr std::int64_t kStepsPerQuery = 3;

std::uint32_t random_below(std::uint32_t bound) {
  std::uint32_t& state = runtime().random;
  state = state * 1664525u + 1013904223u;
  return (state >> 16) % bound;
}

// What a call in any stream may cause, or leave to a later one.
void after_enqueue(Stream& stream) {
  switch (runtime().machine.schedule) {
    case Schedule::kLate:
      return;
    case Schedule::kEager:
      run(stream, kAll);
      return;
    case Schedule::kRandom:
      for (const auto& [handle, other] : runtime().streams.live()) {
        if (random_below(2) == 0) run(*other, random_below(4));
      }
      if (random_below(4) == 0) run_destroyed();
  }
}

// The error with which a call that asks about a stream, or waits for it, ends while it is captured.
cudaError_t check_not_captured(Stream& stream) {
  if (stream.capture == cudaStreamCaptureStatusNone) return cudaSuccess;
  if (stream.capture == cudaStreamCaptureStatusInvalidated) return cudaErrorStreamCaptureInvalidated;
  stream.capture = cudaStreamCaptureStatusInvalidated;
  return cudaErrorStreamCaptureUnsupported;
}

thread_local cudaStreamCaptureMode thread_mode = cudaStreamCaptureModeGlobal;

// Captures of other threads matter to those that are global; there are none here.
bool forbids(const Stream& stream) {
  return stream.capture != cudaStreamCaptureStatusNone && stream.mode != cudaStreamCaptureModeRelaxed &&
         stream.thread == std::this_thread::get_id() && thread_mode != cudaStreamCaptureModeRelaxed;
}

cudaError_t state_of_device() { return runtime().sticky; }

void begin_capture(Stream& stream, Graph& into, cudaStreamCaptureMode mode, std::vector<Node*> last) {
  ++into.captures;
  stream.into = &into;
  stream.capture = cudaStreamCaptureStatusActive;
  stream.thread = std::this_thread::get_id();
  stream.mode = mode;
  stream.last = std::move(last);
}

}  // namespace

Stream* stream_of(cudaStream_t stream, const char* call) {
  if (stream == cudaStreamLegacy || stream == cudaStreamPerThread)
    violation("default streams by name are not modelled");
  if (stream != nullptr) return runtime().streams.get(stream, call);
  return &runtime().legacy.try_emplace(current_device(), Stream(current_device())).first->second;
}

bool capturing_here() {
  const auto& live = runtime().streams.live();
  return std::any_of(live.begin(), live.end(), [](const auto& entry) { return forbids(*entry.second); });
}

void invalidate_captures() {
  for (const auto& [handle, stream] : runtime().streams.live()) {
    if (forbids(*stream)) stream->capture = cudaStreamCaptureStatusInvalidated;
  }
}

cudaError_t enqueue(Stream& stream, const std::string& name, std::function<void()> work) {
  stream.dependencies.reset();  // valid until the next call on the stream
  if (stream.capture == cudaStreamCaptureStatusInvalidated) return cudaErrorStreamCaptureInvalidated;
  if (stream.capture == cudaStreamCaptureStatusActive) {
    runtime().log.push_back("> " + name);
    auto& node = stream.into->nodes.emplace_back(std::make_unique<Node>());
    node->name = name;
    node->graph = stream.into;
    node->after = stream.last;
    node->device = stream.device;
    node->work = std::move(work);
    runtime().nodes.add(node.get());
    stream.last = {node.get()};
    return cudaSuccess;
  }
  return enqueue_steps(stream, [name, work = std::move(work)] {
    runtime().log.push_back("run " + name);
    work();
    return true;
  });
}

cudaError_t enqueue_steps(Stream& stream, std::function<bool()> step) {
  if (stream.capture != cudaStreamCaptureStatusNone)
    violation("a launch into a captured stream is not modelled");
  stream.queue.push_back(std::move(step));
  after_enqueue(stream);
  return cudaSuccess;
}

bool run(Stream& stream, std::int64_t steps) {
  Runtime& all = runtime();
  const DeviceRuns open;
  for (; steps > 0 && !stream.queue.empty(); --steps) {
    const auto asked = all.failures.find("run");
    if (asked != all.failures.end() && asked->second.nth > 0 && --asked->second.nth == 0) {
      all.sticky = asked->second.error;
    }
    if (all.sticky != cudaSuccess) {  // nothing runs any more
      stream.queue.clear();
      break;
    }
    if (stream.queue.front()()) stream.queue.pop_front();
  }
  return stream.queue.empty();
}

void run_destroyed() {
  for (const auto& stream : runtime().destroyed) run(*stream, kAll);
  runtime().destroyed.clear();
}

}  // namespace strict

using strict::call;
using strict::runtime;
using strict::Stream;

extern "C" {

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  return call("cudaStreamCreateWithFlags", strict::kUnsafe, [&] {
    if (flags != cudaStreamNonBlocking)
      strict::violation("streams that wait for the default stream are not modelled");
    *stream = static_cast<cudaStream_t>(runtime().streams.add(new Stream(strict::current_device())));
    return cudaSuccess;
  });
}

// "In case the device is still doing work in the stream the function will return immediately"
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  return call("cudaStreamDestroy", strict::kAlways, [&] {
    if (stream == nullptr) return cudaErrorInvalidResourceHandle;
    Stream* found = runtime().streams.get(stream, "cudaStreamDestroy");
    if (found->capture != cudaStreamCaptureStatusNone)
      strict::violation("a stream is destroyed while it is captured");
    runtime().streams.remove(stream);
    runtime().destroyed.emplace_back(found);
    return cudaSuccess;
  });
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  return call("cudaStreamSynchronize", strict::kAlways, [&] {
    Stream& found = *strict::stream_of(stream, "cudaStreamSynchronize");
    if (const cudaError_t error = strict::check_not_captured(found)) return error;
    if (strict::capturing_here()) {  // another stream of this thread
      strict::invalidate_captures();
      return cudaErrorStreamCaptureUnsupported;
    }
    strict::run(found, strict::kAll);
    return strict::state_of_device();
  });
}

cudaError_t cudaStreamQuery(cudaStream_t stream) {
  return call("cudaStreamQuery", strict::kPlain, [&] {
    Stream& found = *strict::stream_of(stream, "cudaStreamQuery");
    if (const cudaError_t error = strict::check_not_captured(found)) return error;
    if (strict::capturing_here()) {
      strict::invalidate_captures();
      return cudaErrorStreamCaptureUnsupported;
    }
    const bool over = strict::run(found, strict::kStepsPerQuery);
    if (const cudaError_t error = strict::state_of_device()) return error;
    return over ? cudaSuccess : cudaErrorNotReady;
  });
}

cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
  return call("cudaThreadExchangeStreamCaptureMode", strict::kPlain, [&] {
    std::swap(*mode, strict::thread_mode);
    return cudaSuccess;
  });
}

cudaError_t cudaStreamBeginCaptureToGraph(cudaStream_t stream, cudaGraph_t graph,
                                          const cudaGraphNode_t* after, const cudaGraphEdgeData* edges,
                                          std::size_t count, cudaStreamCaptureMode mode) {
  return call("cudaStreamBeginCaptureToGraph", strict::kPlain, [&] {
    if (stream == nullptr) return cudaErrorStreamCaptureUnsupported;
    Stream& found = *strict::stream_of(stream, "cudaStreamBeginCaptureToGraph");
    if (found.capture != cudaStreamCaptureStatusNone) return cudaErrorIllegalState;
    strict::Graph* into = strict::graph_of(graph, "cudaStreamBeginCaptureToGraph");
    if (edges != nullptr) strict::violation("edge data is not modelled");
    if (mode == cudaStreamCaptureModeGlobal) strict::violation("global captures are not modelled");
    std::vector<strict::Node*> last;
    if (!strict::after_of(into, after, count, "cudaStreamBeginCaptureToGraph", last))
      return cudaErrorInvalidValue;
    strict::begin_capture(found, *into, mode, std::move(last));
    return cudaSuccess;
  });
}

// Into a graph of its own, which cudaStreamEndCapture hands over.
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  return call("cudaStreamBeginCapture", strict::kPlain, [&] {
    if (stream == nullptr) return cudaErrorStreamCaptureUnsupported;
    Stream& found = *strict::stream_of(stream, "cudaStreamBeginCapture");
    if (found.capture != cudaStreamCaptureStatusNone) return cudaErrorIllegalState;
    if (mode == cudaStreamCaptureModeGlobal) strict::violation("global captures are not modelled");
    auto* into = new strict::Graph;
    runtime().graphs.add(into);
    strict::begin_capture(found, *into, mode, {});
    return cudaSuccess;
  });
}

cudaError_t cudaStreamGetCaptureInfo(cudaStream_t stream, cudaStreamCaptureStatus* status,
                                     unsigned long long* id, cudaGraph_t* graph, const cudaGraphNode_t** last,
                                     const cudaGraphEdgeData** edges, std::size_t* count) {
  return call("cudaStreamGetCaptureInfo", strict::kPlain, [&] {
    Stream& found = *strict::stream_of(stream, "cudaStreamGetCaptureInfo");
    if (id != nullptr || graph != nullptr || edges != nullptr)
      strict::violation("capture ids are not modelled");
    *status = found.capture;
    if (found.capture != cudaStreamCaptureStatusActive) return cudaSuccess;
    found.dependencies = std::make_unique<cudaGraphNode_t[]>(found.last.size());
    for (std::size_t i = 0; i < found.last.size(); ++i) {
      found.dependencies[i] = static_cast<cudaGraphNode_t>(runtime().nodes.handle_of(found.last[i]));
    }
    if (last != nullptr) *last = found.dependencies.get();
    if (count != nullptr) *count = found.last.size();
    return cudaSuccess;
  });
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  return call("cudaStreamEndCapture", strict::kAlways, [&] {
    Stream& found = *strict::stream_of(stream, "cudaStreamEndCapture");
    if (found.capture == cudaStreamCaptureStatusNone) return cudaErrorIllegalState;
    if (found.mode != cudaStreamCaptureModeRelaxed && found.thread != std::this_thread::get_id()) {
      return cudaErrorStreamCaptureWrongThread;
    }
    const bool whole = found.capture == cudaStreamCaptureStatusActive && runtime().asked == cudaSuccess;
    *graph = whole ? static_cast<cudaGraph_t>(runtime().graphs.handle_of(found.into)) : nullptr;
    --found.into->captures;
    if (!whole) strict::lose(found.into);
    found.into = nullptr;
    found.capture = cudaStreamCaptureStatusNone;
    found.last.clear();
    found.dependencies.reset();
    return whole ? cudaSuccess : cudaErrorStreamCaptureInvalidated;
  });
}

}  // extern "C"
