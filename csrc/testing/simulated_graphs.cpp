// Graphs of the simulated device: lists of work, conditions, loops and branches.
#include <memory>
#include <utility>

#include "testing/simulated_device.h"

namespace pysdk::cuda {

Graph SimulatedDevice::make_graph() {
  entered("make_graph");
  auto graph = std::make_unique<SimulatedGraph>();
  const Graph handle = graph.get();
  graphs_.emplace(handle, std::move(graph));
  return handle;
}

void SimulatedDevice::forget(const SimulatedGraph& graph) {
  if (graph.destroyed) log_.emplace_back("graph destroyed twice");  // where a driver crashes
  for (const Condition condition : graph.conditions) conditions_.erase(condition);
  for (const auto& body : graph.bodies) forget(*body);
}

void SimulatedDevice::release_graph(Graph graph) noexcept {
  forget(*graphs_.at(graph));
  graphs_.erase(graph);
}

Condition SimulatedDevice::make_condition(Graph graph, bool initial) {
  entered("make_condition");
  auto* owner = static_cast<SimulatedGraph*>(graph);
  conditions_[next_condition_] = {initial, initial, owner};
  owner->conditions.push_back(next_condition_);
  return next_condition_++;
}

std::pair<Node, Graph> SimulatedDevice::add_conditional(Graph graph, Conditional kind, Condition condition,
                                                        const Nodes& after) {
  entered(kind == Conditional::kWhile ? "add_while" : "add_if");
  auto* owner = static_cast<SimulatedGraph*>(graph);
  if (conditions_.at(condition).graph != owner) throw Error("the condition belongs to another graph");
  const Nodes last = owner->items.empty() ? Nodes{} : Nodes{owner->items.back().get()};
  if (after != last) throw Error("a node must follow the last one of its graph");
  auto* body = owner->bodies.emplace_back(std::make_unique<SimulatedGraph>()).get();
  auto* item = owner->items.emplace_back(std::make_unique<Item>(Item{{}, kind, condition, body})).get();
  return {item, body};
}

void SimulatedDevice::begin_capture(Stream stream, Graph graph, const Nodes& after) {
  entered("begin_capture");
  auto* into = static_cast<SimulatedGraph*>(graph);
  const Nodes last = into->items.empty() ? Nodes{} : Nodes{into->items.back().get()};
  if (after != last) throw Error("a capture must follow the last node of its graph");
  auto* captured = static_cast<SimulatedStream*>(stream);
  if (captured->capturing != nullptr) throw Error("the stream is being captured already");
  captured->capturing = into;
  capturing_.push_back(captured);
  ++captures_;
}

void SimulatedDevice::stop_capturing(SimulatedStream& stream) noexcept {
  if (stream.invalid) stream.capturing->destroyed = true;
  stream.invalid = false;
  stream.capturing = nullptr;
  std::erase(capturing_, &stream);
  --captures_;
}

Nodes SimulatedDevice::end_capture(Stream stream) {
  const bool invalid = static_cast<SimulatedStream*>(stream)->invalid;
  abandon_capture(stream);
  if (invalid) throw CaptureRefused("the capture is invalid");
  entered("end_capture");
  return last_;
}

void SimulatedDevice::abandon_capture(Stream stream) noexcept {
  auto* captured = static_cast<SimulatedStream*>(stream);
  const auto& items = captured->capturing->items;
  last_ = items.empty() ? Nodes{} : Nodes{items.back().get()};
  stop_capturing(*captured);
}

void SimulatedDevice::begin_part(Stream stream) {
  entered("begin_capture");
  auto* captured = static_cast<SimulatedStream*>(stream);
  captured->part = std::make_unique<SimulatedGraph>();
  captured->capturing = captured->part.get();
  capturing_.push_back(captured);
  ++captures_;
}

Nodes SimulatedDevice::end_part(Stream stream, Graph graph, const Nodes& after) {
  auto* captured = static_cast<SimulatedStream*>(stream);
  const std::unique_ptr<SimulatedGraph> part = std::move(captured->part);
  const bool invalid = captured->invalid;
  stop_capturing(*captured);
  entered("end_capture");
  if (invalid) throw CaptureRefused("the capture is invalid");
  auto& items = static_cast<SimulatedGraph*>(graph)->items;
  const Nodes last = items.empty() ? Nodes{} : Nodes{items.back().get()};
  if (after != last) throw Error("a node must follow the last one of its graph");
  for (auto& item : part->items) items.push_back(std::move(item));
  return items.empty() ? Nodes{} : Nodes{items.back().get()};
}

void SimulatedDevice::abandon_part(Stream stream) noexcept {
  auto* captured = static_cast<SimulatedStream*>(stream);
  stop_capturing(*captured);
  captured->part.reset();
}

Executable SimulatedDevice::instantiate(Graph graph) {
  entered("instantiate");
  ++executables_;
  return graph;
}

void SimulatedDevice::release_executable(Executable) noexcept { --executables_; }

void SimulatedDevice::launch(Executable executable, Stream) {
  entered("launch");
  not_in_capture("launch");
  const auto& graph = *static_cast<SimulatedGraph*>(executable);
  reset_conditions(graph);
  run(graph);
}

void SimulatedDevice::reset_conditions(const SimulatedGraph& graph) {
  for (const Condition condition : graph.conditions) {
    State& state = conditions_.at(condition);
    state.value = state.initial;
  }
  for (const auto& body : graph.bodies) reset_conditions(*body);
}

void SimulatedDevice::run(const SimulatedGraph& graph) {
  for (const auto& item : graph.items) {
    if (item->body == nullptr) {
      item->work();
    } else if (item->kind == Conditional::kIf) {
      if (conditions_.at(item->condition).value) run(*item->body);
    } else {
      while (conditions_.at(item->condition).value) run(*item->body);
    }
  }
}

}  // namespace pysdk::cuda
