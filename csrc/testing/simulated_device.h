// A device on host memory, for tests where there is no GPU: the kernels' bodies, the order of nodes, loops
// and branches are the real ones, run one after the other on the CPU. Only the calls of the driver are
// imitated, with those of its rules that the chain relies on: what may not happen during a capture, whose
// graph a condition belongs to, when conditions are reset. It says nothing about speed, about work that
// overlaps, or about what a driver accepts.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "cuda/device.h"

namespace pysdk::cuda {

class SimulatedDevice final : public Device {
 public:
  explicit SimulatedDevice(std::size_t memory) : total_(memory) {}
  ~SimulatedDevice() override;

  // Work of a test's own in a stream, recorded when the stream is being captured.
  void call(Stream stream, std::string name, std::function<void()> work);
  // The `nth` next call of this name throws: Error, OutOfMemory, or CaptureRefused.
  enum class Failure { kError, kOutOfMemory, kRefused };
  void fail(const std::string& name, int nth, Failure failure) { failures_[name] = {nth, failure}; }
  // Names of the calls so far, indented by "> " inside a capture; and a way to forget them.
  const std::vector<std::string>& log() const { return log_; }
  void clear_log() { log_.clear(); }
  std::size_t live() const { return blocks_.size() + pinned_ + streams_ + graphs_.size() + executables_; }

  std::string name() const override { return "simulated device"; }
  int dlpack_type() const override { return 1; }
  int dlpack_index() const override { return 0; }
  Memory memory() override { return {total_ - used_, total_}; }
  int make_current() override { return current_++; }
  void restore_current(int before) noexcept override { current_ = before; }
  bool current() const { return current_ > 0; }
  void* allocate(std::size_t bytes) override;
  void release(void* memory) noexcept override;
  void* allocate_pinned(std::size_t bytes) override;
  void release_pinned(void* memory) noexcept override;
  void upload(void* to, const void* host, std::size_t bytes, Stream stream) override;
  void download(void* host, const void* from, std::size_t bytes, Stream stream) override;
  void copy(void* to, const void* from, std::size_t bytes, Stream stream) override;
  Stream make_stream() override;
  void release_stream(Stream stream) noexcept override;
  void synchronize(Stream stream) override;
  bool finished(Stream stream) override;
  Graph make_graph() override;
  void release_graph(Graph graph) noexcept override;
  Condition make_condition(Graph graph, bool initial) override;
  std::pair<Node, Graph> add_conditional(Graph graph, Conditional kind, Condition condition,
                                         const Nodes& after) override;
  void begin_capture(Stream stream, Graph graph, const Nodes& after) override;
  Nodes end_capture(Stream stream) override;
  void abandon_capture(Stream stream) noexcept override;
  void begin_part(Stream stream) override;
  Nodes end_part(Stream stream, Graph graph, const Nodes& after) override;
  void abandon_part(Stream stream) noexcept override;
  Executable instantiate(Graph graph) override;
  void release_executable(Executable executable) noexcept override;
  void launch(Executable executable, Stream stream) override;
  void start(const Task& shape, const Task* task, Stream stream) override;
  void prepare(const Task* task, const Place* place, const Branches& branches, Stream stream) override;
  void threshold(const Task& shape, const Task* task, const Place* place, Stream stream) override;
  void update(const Task& shape, const Task* task, const Place* place, Stream stream) override;
  void advance(const Task* task, Place* place, Mailbox* mailbox, const Condition* loop,
               Stream stream) override;
  void bytes(const ByteTask& task, Stream stream) override;

 private:
  struct SimulatedGraph;
  struct Item {  // a node
    std::function<void()> work;
    Conditional kind{};
    Condition condition = 0;
    SimulatedGraph* body = nullptr;  // what a conditional node runs
  };
  struct SimulatedGraph {
    std::vector<std::unique_ptr<Item>> items;  // in the order in which they run
    std::vector<std::unique_ptr<SimulatedGraph>> bodies;
    std::vector<Condition> conditions;
    bool destroyed = false;  // by the driver, at the end of a capture that a forbidden call made invalid
  };
  struct SimulatedStream {
    SimulatedGraph* capturing = nullptr;
    std::unique_ptr<SimulatedGraph> part;
    bool invalid = false;
  };
  struct State {
    bool value, initial;
    const SimulatedGraph* graph;
  };

  void entered(const std::string& name);
  void not_in_capture(const std::string& name);
  void enqueue(Stream stream, const std::string& name, std::function<void()> work);
  void run(const SimulatedGraph& graph);
  void reset_conditions(const SimulatedGraph& graph);
  void forget(const SimulatedGraph& graph);
  void stop_capturing(SimulatedStream& stream) noexcept;

  const std::size_t total_;
  std::size_t used_ = 0, pinned_ = 0, streams_ = 0, executables_ = 0;
  int captures_ = 0, current_ = 0;
  std::vector<SimulatedStream*> capturing_;
  Nodes last_;  // those of the last finished capture
  std::unordered_map<void*, std::size_t> blocks_;
  std::unordered_map<Graph, std::unique_ptr<SimulatedGraph>> graphs_;
  std::unordered_map<Condition, State> conditions_;
  Condition next_condition_ = 1;
  std::map<std::string, std::pair<int, Failure>> failures_;
  std::vector<std::string> log_;
};

}  // namespace pysdk::cuda
