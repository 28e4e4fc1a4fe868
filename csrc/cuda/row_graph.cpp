#include "cuda/row_graph.h"

#include <bit>
#include <utility>

namespace pysdk::cuda {

namespace {

// Nodes of `graph` behind `after` from what `enqueue` puts into the stream; returns the last of them.
template <typename F>
Nodes capture(const Wiring& wiring, Graph graph, const Nodes& after, F&& enqueue) {
  wiring.device->begin_capture(wiring.stream, graph, after);
  try {
    enqueue();
  } catch (...) {
    wiring.device->abandon_capture(wiring.stream);
    throw;
  }
  return wiring.device->end_capture(wiring.stream);
}

// The same for networks.
Nodes capture_networks(const Wiring& wiring, const DeviceNetworks& networks, std::uint32_t calls, Graph graph,
                       const Nodes& after) {
  wiring.device->begin_part(wiring.stream);
  try {
    capture_calls(wiring, networks, calls);
  } catch (...) {
    wiring.device->abandon_part(wiring.stream);
    throw;
  }
  return wiring.device->end_part(wiring.stream, graph, after);
}

// The networks, each in an IF node that the prepare kernel opens where the row at hand calls it.
Nodes branch(const Wiring& wiring, const DeviceNetworks& networks, Graph body, std::uint32_t used) {
  Device& device = *wiring.device;
  Branches branches;
  branches.used = used;
  branches.has_half = networks.conditional != nullptr;
  const auto condition_of = [&branches](std::uint32_t call) -> Condition& {
    return call == Branches::kFull ? branches.full : branches.half;
  };
  for (const std::uint32_t call : kCalls) {
    if (used & call) condition_of(call) = device.make_condition(body, false);
  }
  Nodes last =
      capture(wiring, body, {}, [&] { device.prepare(wiring.task, wiring.place, branches, wiring.stream); });
  for (const std::uint32_t call : kCalls) {
    if (!(used & call)) continue;
    const auto [node, inner] = device.add_conditional(body, Conditional::kIf, condition_of(call), last);
    capture_networks(wiring, networks, call, inner, {});
    last = {node};
  }
  return last;
}

}  // namespace

void enqueue_calls(const Wiring& wiring, const DeviceNetworks& networks, std::uint32_t calls) {
  for (const std::uint32_t call : kCalls) {
    if (calls & call) networks.of(call).enqueue(wiring.stream);
  }
}

void capture_calls(const Wiring& wiring, const DeviceNetworks& networks, std::uint32_t calls) {
  for (const std::uint32_t call : kCalls) {
    if (calls & call) networks.of(call).capture(wiring.stream);
  }
}

void enqueue_update(const Wiring& wiring, const Condition* loop) {
  Device& device = *wiring.device;
  if (wiring.dynamic) device.threshold(wiring.shape, wiring.task, wiring.place, wiring.stream);
  device.update(wiring.shape, wiring.task, wiring.place, wiring.stream);
  device.advance(wiring.task, wiring.place, wiring.mailbox, loop, wiring.stream);
}

OwnedGraph::OwnedGraph(std::shared_ptr<Device> device)
    : device_(std::move(device)), graph_(device_->make_graph()) {}

OwnedGraph::~OwnedGraph() {
  if (executable_ != nullptr) device_->release_executable(executable_);
  device_->release_graph(graph_);
}

std::unique_ptr<OwnedGraph> OwnedGraph::whole_chain(const Wiring& wiring, const DeviceNetworks& networks,
                                                    std::uint32_t kinds) {
  Device& device = *wiring.device;
  std::unique_ptr<OwnedGraph> result(new OwnedGraph(wiring.device));
  const Condition loop = device.make_condition(result->graph_, true);
  const Graph body = device.add_conditional(result->graph_, Conditional::kWhile, loop, {}).second;
  Nodes last;
  if (std::has_single_bit(kinds)) {  // every row makes the same calls
    const auto calls = static_cast<std::uint32_t>(std::countr_zero(kinds));
    last = capture_networks(wiring, networks, calls, body, {});
  } else {
    std::uint32_t used = 0;
    for (std::uint32_t calls = 0; calls < 4; ++calls) used |= (kinds >> calls & 1u) != 0 ? calls : 0u;
    last = branch(wiring, networks, body, used);
  }
  capture(wiring, body, last, [&] { enqueue_update(wiring, &loop); });
  result->executable_ = device.instantiate(result->graph_);
  return result;
}

std::unique_ptr<OwnedGraph> OwnedGraph::one_row(const Wiring& wiring, const DeviceNetworks& networks,
                                                std::uint32_t calls) {
  std::unique_ptr<OwnedGraph> result(new OwnedGraph(wiring.device));
  const Nodes last = capture_networks(wiring, networks, calls, result->graph_, {});
  capture(wiring, result->graph_, last, [&] { enqueue_update(wiring, nullptr); });
  result->executable_ = wiring.device->instantiate(result->graph_);
  return result;
}

}  // namespace pysdk::cuda
