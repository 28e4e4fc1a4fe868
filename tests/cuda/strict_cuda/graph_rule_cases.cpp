// The strict runtime's rules of graphs, conditions and edges.
#include "rule_cases.h"

using namespace rules;

CASE(rules_of_graphs) {
  const cudaStream_t stream = new_stream();
  const cudaGraph_t graph = new_graph(), other = new_graph();
  const auto loop = new_condition(graph), once = new_condition(graph);
  is(add(other, conditional(loop, cudaGraphCondTypeWhile)), cudaErrorInvalidValue);  // of another graph
  auto wrong = conditional(loop, cudaGraphCondTypeWhile);
  wrong.conditional.size = 2;
  is(add(graph, wrong), cudaErrorInvalidValue);
  wrong = conditional(loop, cudaGraphCondTypeWhile);
  wrong.reserved0[0] = 1;
  is(add(graph, wrong), cudaErrorInvalidValue);
  cudaGraph_t body = nullptr, inner = nullptr;
  fine(add(graph, conditional(loop, cudaGraphCondTypeWhile), &body));
  is(add(graph, conditional(loop, cudaGraphCondTypeWhile)), cudaErrorInvalidValue);  // used already
  cudaGraphExec_t executable = nullptr;
  is(cudaGraphInstantiate(&executable, graph, 0), cudaErrorInvalidValue);  // `once` is not used
  fine(add(body, conditional(once, cudaGraphCondTypeIf), &inner));
  require_death([&] { cudaGraphDestroy(body); }, "the body of a conditional node is the node's");
  int rounds = 0, branches = 0;
  fine(begin_capture(stream, inner));
  fine(act(stream, [&] { ++branches; }));
  fine(end_capture(stream));
  fine(begin_capture(stream, body));
  fine(act(stream, [&] {
    ++rounds;
    strict::set_condition(loop, rounds % 3 != 0);
    strict::set_condition(once, rounds % 3 == 2);
  }));
  fine(end_capture(stream));
  require(rounds == 0, "a captured kernel ran");
  fine(cudaGraphInstantiate(&executable, graph, 0));
  cudaGraphExec_t second = nullptr;
  is(cudaGraphInstantiate(&second, graph, 0),
     cudaErrorInvalidValue);  // one at a time, with conditional nodes
  fine(begin_capture(stream, body));
  fine(act(stream, [&] { rounds += 100; }));  // what is instantiated does not see it
  fine(end_capture(stream));
  for (int i = 0; i < 2; ++i) fine(cudaGraphLaunch(executable, stream));
  require(rounds == 0, "a launch did not wait");
  require_death([&] { cudaGraphExecDestroy(executable); }, "destroyed while it runs");
  fine(cudaStreamSynchronize(stream));
  require(rounds == 6, "the loop made another number of rounds");  // its value is set at every launch
  require(branches > 0 && branches < 6, "the branch was never, or always, taken");
  fine(cudaSetDevice(1));
  is(cudaGraphLaunch(executable, stream), cudaErrorInvalidResourceHandle);
  fine(cudaSetDevice(0));
  fine(cudaGraphExecDestroy(executable));
  require_death([&] { cudaGraphLaunch(executable, stream); }, "no such executable graph");
  fine(cudaGraphDestroy(graph));
  require_death([&] { begin_capture(stream, body); }, "no such graph");  // it went with its node
  require_death(
      [&] {
        act(stream, [&] { strict::set_condition(loop, 1); });
        cudaStreamSynchronize(stream);
      },
      "outside a graph");
  require_death(
      [&] {
        cudaGraph_t endless = nullptr;
        add(other, conditional(new_condition(other), cudaGraphCondTypeWhile), &endless);
        begin_capture(stream, endless);
        act(stream, [] {});
        end_capture(stream);
        cudaGraphInstantiate(&executable, other, 0);
        cudaGraphLaunch(executable, stream);
        cudaStreamSynchronize(stream);
      },
      "does not end");
  fine(cudaGraphDestroy(other));
  fine(cudaStreamDestroy(stream));
}

// A lost capture takes its graph with it, and what is around that must be left alone.
CASE(rules_of_lost_captures) {
  const cudaStream_t stream = new_stream();
  const cudaGraph_t plain = new_graph(), graph = new_graph();
  const auto lose = [stream](cudaGraph_t into) {
    fine(begin_capture(stream, into));
    is(cudaStreamQuery(stream), cudaErrorStreamCaptureUnsupported);
    is(end_capture(stream), cudaErrorStreamCaptureInvalidated);
  };
  lose(plain);
  require_death([&] { cudaGraphDestroy(plain); }, "no such graph");
  cudaGraph_t body = nullptr;
  fine(add(graph, conditional(new_condition(graph), cudaGraphCondTypeWhile), &body));
  lose(body);
  require_death([&] { cudaGraphDestroy(graph); }, "lost with a capture");
  require_death([&] { begin_capture(stream, body); }, "no such graph");
  fine(cudaStreamDestroy(stream));
}

// A capture of its own is handed over, and copied into what it becomes a child of.
CASE(rules_of_child_graphs) {
  const cudaStream_t stream = new_stream();
  const cudaGraph_t graph = new_graph();
  std::string ran;
  cudaGraph_t body = nullptr, part = nullptr;
  const auto loop = new_condition(graph);
  fine(add(graph, conditional(loop, cudaGraphCondTypeWhile), &body));
  fine(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  is(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), cudaErrorIllegalState);
  for (const char part_name : {'1', '2'}) fine(act(stream, [&ran, part_name] { ran += part_name; }));
  fine(cudaStreamEndCapture(stream, &part));
  std::size_t count = 0;
  fine(cudaGraphGetNodes(part, nullptr, &count));
  require(count == 2, "nodes are miscounted");
  cudaGraphNode_t child = nullptr;
  is(cudaGraphAddChildGraphNode(&child, part, nullptr, 0, part), cudaErrorInvalidValue);
  is(cudaGraphAddChildGraphNode(&child, body, nullptr, 0, graph), cudaErrorNotSupported);  // has conditions
  fine(cudaGraphAddChildGraphNode(&child, body, nullptr, 0, part));
  fine(cudaGraphDestroy(part));
  require_death([&] { cudaGraphDestroy(part); }, "no such graph");
  fine(cudaStreamBeginCaptureToGraph(stream, body, &child, nullptr, 1, cudaStreamCaptureModeThreadLocal));
  fine(act(stream, [&] { strict::set_condition(loop, (ran += '3').size() < 6); }));
  fine(end_capture(stream));
  cudaGraphExec_t executable = nullptr;
  fine(cudaGraphInstantiate(&executable, graph, 0));
  fine(cudaGraphLaunch(executable, stream));
  fine(cudaStreamSynchronize(stream));
  require(ran == "123123", ran);
  fine(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));  // lost: there is no graph
  is(cudaStreamQuery(stream), cudaErrorStreamCaptureUnsupported);
  is(cudaStreamEndCapture(stream, &part), cudaErrorStreamCaptureInvalidated);
  require(part == nullptr, "a lost capture gave a graph");
  fine(cudaGraphExecDestroy(executable));
  fine(cudaGraphDestroy(graph));
  fine(cudaStreamDestroy(stream));
}

// Nodes without an edge between them run in any order; the runtime takes the one that nobody expects.
CASE(rules_of_dependencies) {
  const cudaStream_t stream = new_stream();
  const cudaGraph_t graph = new_graph();
  std::string ran;
  for (const char* name : {"a", "b"}) {  // both captured behind nothing
    fine(begin_capture(stream, graph));
    for (const char part : {'1', '2'}) fine(act(stream, [&ran, name, part] { ran = ran + name + part; }));
    fine(end_capture(stream));
  }
  cudaGraphExec_t executable = nullptr;
  fine(cudaGraphInstantiate(&executable, graph, 0));
  fine(cudaGraphLaunch(executable, stream));
  fine(cudaStreamSynchronize(stream));
  require(ran == "b1b2a1a2", ran);
  fine(cudaGraphExecDestroy(executable));
  fine(cudaGraphDestroy(graph));
  fine(cudaStreamDestroy(stream));
}
