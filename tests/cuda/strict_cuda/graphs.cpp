// Graphs and their conditional nodes.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>

#include "runtime.h"

namespace strict {

namespace {

void forget(const Graph& graph);

void forget(const Node& node) {
  runtime().nodes.remove(runtime().nodes.handle_of(&node));
  if (!node.body) return;
  forget(*node.body);
  runtime().graphs.remove(node.body_handle);
}

void forget(const Graph& graph) {
  if (graph.captures > 0) violation("a graph is destroyed while a stream is captured into it");
  for (const auto& node : graph.nodes) forget(*node);
  std::erase_if(runtime().conditions, [&](const auto& entry) { return entry.second.graph == &graph; });
}

bool contains(const Graph* graph, const Graph* inner) {
  for (; inner != nullptr; inner = inner->owner == nullptr ? nullptr : inner->owner->graph) {
    if (inner == graph) return true;
  }
  return false;
}

// Bytes of the parameters that a conditional node does not use must be 0.
bool unused_are_zero(const cudaGraphNodeParams& given) {
  std::array<unsigned char, sizeof given> bytes;
  std::memcpy(bytes.data(), &given, sizeof given);
  const auto clear = [&](std::size_t first, std::size_t count) {
    std::memset(bytes.data() + first, 0, count);
  };
  clear(offsetof(cudaGraphNodeParams, type), sizeof given.type);
  clear(offsetof(cudaGraphNodeParams, conditional), sizeof given.conditional);
  return std::all_of(bytes.begin(), bytes.end(), [](unsigned char byte) { return byte == 0; });
}

// "The graph cannot be cloned" if it has conditional nodes.
std::unique_ptr<Graph> copy_of(const Graph& graph) {
  auto result = std::make_unique<Graph>();
  std::map<const Node*, Node*> made;
  for (const auto& node : graph.nodes) {
    if (node->body) return nullptr;
    auto& copy = result->nodes.emplace_back(std::make_unique<Node>());
    copy->name = node->name;
    copy->graph = result.get();
    copy->device = node->device;
    copy->work = node->work;
    for (Node* before : node->after) copy->after.push_back(made.at(before));
    made[node.get()] = copy.get();
    runtime().nodes.add(copy.get());
  }
  return result;
}

}  // namespace

Graph* graph_of(cudaGraph_t graph, const char* call) {
  Graph* found = runtime().graphs.get(graph, call);
  if (found->broken) violation(std::string(call) + ": part of the graph was lost with a capture");
  return found;
}

bool after_of(Graph* graph, const cudaGraphNode_t* after, std::size_t count, const char* call,
              std::vector<Node*>& result) {
  for (std::size_t i = 0; i < count; ++i) {
    Node* before = runtime().nodes.get(after[i], call);
    if (before->graph != graph || std::count(result.begin(), result.end(), before) > 0) return false;
    result.push_back(before);
  }
  return true;
}

void lose(Graph* graph) {
  forget(*graph);
  runtime().graphs.remove(runtime().graphs.handle_of(graph));
  if (graph->owner == nullptr) {
    delete graph;
    return;
  }
  for (Graph* each = graph->owner->graph; each != nullptr;
       each = each->owner == nullptr ? nullptr : each->owner->graph) {
    each->broken = true;
  }
}

}  // namespace strict

using strict::call;
using strict::Graph;
using strict::runtime;

extern "C" {

cudaError_t cudaGraphCreate(cudaGraph_t* graph, unsigned flags) {
  return call("cudaGraphCreate", strict::kPlain, [&] {
    if (flags != 0) return cudaErrorInvalidValue;
    *graph = static_cast<cudaGraph_t>(runtime().graphs.add(new Graph));
    return cudaSuccess;
  });
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  return call("cudaGraphDestroy", strict::kAlways, [&] {
    const std::unique_ptr<Graph> found(strict::graph_of(graph, "cudaGraphDestroy"));
    if (found->owner != nullptr)
      strict::violation("cudaGraphDestroy: the body of a conditional node is the node's");
    strict::forget(*found);
    runtime().graphs.remove(graph);
    for (const auto& [handle, executable] : runtime().executables.live()) {
      if (executable->graph == found.get()) executable->graph = nullptr;
    }
    return cudaSuccess;
  });
}

cudaError_t cudaGraphConditionalHandleCreate(cudaGraphConditionalHandle* handle, cudaGraph_t graph,
                                             unsigned initial, unsigned flags) {
  return call("cudaGraphConditionalHandleCreate", strict::kPlain, [&] {
    if (!runtime().machine.conditional_nodes) return cudaErrorNotSupported;
    Graph* found = strict::graph_of(graph, "cudaGraphConditionalHandleCreate");
    if (flags > cudaGraphCondAssignDefault) return cudaErrorInvalidValue;
    *handle = ++runtime().next_condition;
    runtime().conditions[*handle] = {found, initial, flags == cudaGraphCondAssignDefault,
                                     strict::current_device()};
    return cudaSuccess;
  });
}

cudaError_t cudaGraphAddNode(cudaGraphNode_t* node, cudaGraph_t graph, const cudaGraphNode_t* after,
                             const cudaGraphEdgeData* edges, std::size_t count,
                             cudaGraphNodeParams* parameters) {
  return call("cudaGraphAddNode", strict::kPlain, [&] {
    Graph* found = strict::graph_of(graph, "cudaGraphAddNode");
    if (edges != nullptr) strict::violation("edge data is not modelled");
    if (parameters->type != cudaGraphNodeTypeConditional)
      strict::violation("only conditional nodes are modelled");
    if (!runtime().machine.conditional_nodes) return cudaErrorNotSupported;
    auto& given = parameters->conditional;
    if (!strict::unused_are_zero(*parameters) || given.size != 1 || given.phGraph_out != nullptr ||
        (given.type != cudaGraphCondTypeIf && given.type != cudaGraphCondTypeWhile)) {
      return cudaErrorInvalidValue;
    }
    const auto condition = runtime().conditions.find(given.handle);
    if (condition == runtime().conditions.end() || condition->second.used ||
        !strict::contains(condition->second.graph, found)) {
      return cudaErrorInvalidValue;
    }
    if (condition->second.device != strict::current_device()) {
      strict::violation("a condition and its node belong to two devices");
    }
    auto made = std::make_unique<strict::Node>();
    if (!strict::after_of(found, after, count, "cudaGraphAddNode", made->after)) return cudaErrorInvalidValue;
    made->name = given.type == cudaGraphCondTypeWhile ? "while" : "if";
    made->graph = found;
    made->device = strict::current_device();
    made->condition = given.handle;
    made->kind = given.type;
    made->body = std::make_unique<Graph>();
    made->body->owner = made.get();
    made->body_handle = static_cast<cudaGraph_t>(runtime().graphs.add(made->body.get()));
    given.phGraph_out = &made->body_handle;
    condition->second.used = true;
    runtime().log.push_back("> " + made->name);
    *node = static_cast<cudaGraphNode_t>(runtime().nodes.add(made.get()));
    found->nodes.push_back(std::move(made));
    return cudaSuccess;
  });
}

cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t* nodes, std::size_t* count) {
  return call("cudaGraphGetNodes", strict::kPlain, [&] {
    if (nodes != nullptr) strict::violation("nodes of graphs are only counted");
    *count = strict::graph_of(graph, "cudaGraphGetNodes")->nodes.size();
    return cudaSuccess;
  });
}

// The child is copied, and runs in the place of the node.
cudaError_t cudaGraphAddChildGraphNode(cudaGraphNode_t* node, cudaGraph_t graph, const cudaGraphNode_t* after,
                                       std::size_t count, cudaGraph_t child) {
  return call("cudaGraphAddChildGraphNode", strict::kPlain, [&] {
    Graph* found = strict::graph_of(graph, "cudaGraphAddChildGraphNode");
    const Graph* given = strict::graph_of(child, "cudaGraphAddChildGraphNode");
    if (given->captures > 0) strict::violation("a graph is copied while a stream is captured into it");
    auto made = std::make_unique<strict::Node>();
    if (given == found || !strict::after_of(found, after, count, "cudaGraphAddChildGraphNode", made->after)) {
      return cudaErrorInvalidValue;
    }
    made->body = strict::copy_of(*given);
    if (!made->body) return cudaErrorNotSupported;
    made->name = "child";
    made->graph = found;
    made->device = given->nodes.empty() ? strict::current_device() : given->nodes.front()->device;
    made->body->owner = made.get();
    made->body_handle = static_cast<cudaGraph_t>(runtime().graphs.add(made->body.get()));
    *node = static_cast<cudaGraphNode_t>(runtime().nodes.add(made.get()));
    found->nodes.push_back(std::move(made));
    return cudaSuccess;
  });
}

}  // extern "C"
