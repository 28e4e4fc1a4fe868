// What graphs become when they are instantiated, and how that runs.
#include <algorithm>

#include "runtime.h"

namespace strict {

namespace {

constexpr int kMaxRounds = 1 << 14;  // of a loop: it would never end

// Nodes in an order that the edges allow; of those that may come next, the last that was made: whoever relies
// on the order in which nodes were made, and not on edges, sees it.
std::vector<Node*> ordered(const Graph& graph) {
  std::vector<Node*> result;
  std::vector<Node*> left;
  for (const auto& node : graph.nodes) left.push_back(node.get());
  while (!left.empty()) {
    const auto ready = std::find_if(left.rbegin(), left.rend(), [&](const Node* node) {
      return std::all_of(node->after.begin(), node->after.end(), [&](Node* before) {
        return std::find(result.begin(), result.end(), before) != result.end();
      });
    });
    result.push_back(*ready);
    left.erase(std::next(ready).base());
  }
  return result;
}

// Everything under a conditional node belongs to one device.
void check_device(const Graph& graph, int device) {
  for (const auto& node : graph.nodes) {
    if (node->device != device) violation("nodes of several devices are in the body of a conditional node");
    if (node->body) check_device(*node->body, device);
  }
}

std::shared_ptr<Program> program_of(const Graph& graph, Executable& executable) {
  auto result = std::make_shared<Program>();
  for (const auto& [handle, condition] : runtime().conditions) {
    if (condition.graph == &graph) {
      executable.values[handle] = {0xdead, condition.initial, condition.assigns, condition.device};
    }
  }
  for (const Node* node : ordered(graph)) {
    if (node->body && node->condition == 0) {  // a child graph
      const auto child = program_of(*node->body, executable);
      result->items.insert(result->items.end(), child->items.begin(), child->items.end());
      continue;
    }
    Program::Item item{node->name, node->work, node->condition, node->kind == cudaGraphCondTypeWhile,
                       nullptr};
    if (node->body) {
      executable.conditional = true;
      check_device(*node->body, node->device);
      item.body = program_of(*node->body, executable);
    }
    result->items.push_back(std::move(item));
  }
  return result;
}

// Whether every condition that was made is that of a node.
bool all_used(const Graph& graph) {
  for (const auto& [handle, condition] : runtime().conditions) {
    if (condition.graph == &graph && !condition.used) return false;
  }
  return std::all_of(graph.nodes.begin(), graph.nodes.end(),
                     [](const auto& node) { return !node->body || all_used(*node->body); });
}

bool any_capture(const Graph& graph) {
  return graph.captures > 0 || std::any_of(graph.nodes.begin(), graph.nodes.end(), [](const auto& node) {
           return node->body && any_capture(*node->body);
         });
}

// One launch: a node per step.
class Launch {
 public:
  explicit Launch(Executable* executable) : executable_(executable) {}

  bool step() {
    if (frames_.empty()) begin();
    while (!frames_.empty() && frames_.back().next == frames_.back().program->items.size()) end_round();
    if (frames_.empty()) return over();
    Frame& frame = frames_.back();
    const Program::Item& item = frame.program->items[frame.next++];
    if (item.body) {
      if (value(item) != 0) frames_.push_back({item.body.get(), 0, 0, &item});
    } else {
      runtime().log.push_back("run " + item.name);
      runtime().running = executable_;
      runtime().set.clear();
      item.work();
      runtime().running = nullptr;
    }
    while (!frames_.empty() && frames_.back().next == frames_.back().program->items.size()) end_round();
    return frames_.empty() && over();
  }

 private:
  struct Frame {
    const Program* program;
    std::size_t next;
    int rounds;
    const Program::Item* owner;
  };

  void begin() {
    for (auto& [handle, state] : executable_->values) {
      if (state.assigns) state.value = state.initial;
    }
    frames_.push_back({executable_->program.get(), 0, 0, nullptr});
  }
  bool over() {
    --executable_->pending;
    return true;
  }
  unsigned value(const Program::Item& item) const { return executable_->values.at(item.condition).value; }
  void end_round() {
    Frame& frame = frames_.back();
    if (frame.owner != nullptr && frame.owner->loops && value(*frame.owner) != 0) {
      if (++frame.rounds > kMaxRounds || frame.program->items.empty())
        violation("a loop in a graph does not end");
      frame.next = 0;
    } else {
      frames_.pop_back();
    }
  }

  Executable* const executable_;
  std::vector<Frame> frames_;
};

}  // namespace

void set_condition(cudaGraphConditionalHandle handle, unsigned value) {
  Executable* executable = runtime().running;
  if (executable == nullptr) violation("cudaGraphSetConditional outside a graph");
  const auto found = executable->values.find(handle);
  if (found == executable->values.end())
    violation("cudaGraphSetConditional: the condition belongs to another graph");
  auto& set = runtime().set;
  if (std::find(set.begin(), set.end(), handle) != set.end())
    violation("two threads set a condition at once");
  set.push_back(handle);
  found->second.value = value;
}

}  // namespace strict

using strict::call;
using strict::Graph;
using strict::runtime;

extern "C" {

// "Only one instantiation of the graph may exist at any point in time", with conditional nodes.
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long flags) {
  return call("cudaGraphInstantiate", strict::kUnsafe, [&] {
    Graph* found = strict::graph_of(graph, "cudaGraphInstantiate");
    if (flags != 0 || found->owner != nullptr || !strict::all_used(*found)) return cudaErrorInvalidValue;
    if (strict::any_capture(*found))
      strict::violation("a graph is instantiated while a stream is captured into it");
    auto made = std::make_unique<strict::Executable>();
    made->graph = found;
    made->program = strict::program_of(*found, *made);
    if (made->conditional && found->executables > 0) return cudaErrorInvalidValue;
    ++found->executables;
    *executable = static_cast<cudaGraphExec_t>(runtime().executables.add(made.release()));
    return cudaSuccess;
  });
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  return call("cudaGraphExecDestroy", strict::kAlways, [&] {
    const std::unique_ptr<strict::Executable> found(
        runtime().executables.get(executable, "cudaGraphExecDestroy"));
    if (found->pending > 0 && runtime().sticky == cudaSuccess)
      strict::violation("a graph is destroyed while it runs");
    if (found->graph != nullptr) --found->graph->executables;
    runtime().executables.remove(executable);
    return cudaSuccess;
  });
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  return call("cudaGraphLaunch", strict::kPlain, [&] {
    strict::Executable* found = runtime().executables.get(executable, "cudaGraphLaunch");
    strict::Stream& queue = *strict::stream_of(stream, "cudaGraphLaunch");
    if (queue.device != strict::current_device()) return cudaErrorInvalidResourceHandle;
    ++found->pending;
    return strict::enqueue_steps(
        queue, [launch = std::make_shared<strict::Launch>(found)] { return launch->step(); });
  });
}

}  // extern "C"
