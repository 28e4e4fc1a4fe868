// A CUDA runtime for tests on host memory. It has the calls that cuda_device.cu makes, runs the kernels'
// bodies on the CPU, and is as strict as the documentation allows: what it calls an error returns that error,
// and what would be undefined on a device ends the program with a sentence. It is our reading of the
// documentation, not a driver.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace strict {

// What would be undefined on a device.
[[noreturn]] void violation(const std::string& what);

// When work in streams runs: as late as possible, at once, or here and there. All are allowed.
enum class Schedule { kLate, kEager, kRandom };

struct Machine {
  int driver = 13000;  // 0: none
  int devices = 2;
  std::size_t memory = std::size_t{64} << 20;  // of each device
  bool has_code = true;                        // this build has kernels for the devices
  bool conditional_nodes = true;               // the driver knows them
  // cudaMemcpyAsync "might be synchronous" for pageable memory: whether it is read during the call
  bool stages_pageable = true;
  Schedule schedule = Schedule::kLate;
};

struct Block {
  std::size_t bytes;
  int device;
  bool pinned;
};

struct Graph;
struct Program;

struct Condition {
  Graph* graph;
  unsigned initial;
  bool assigns;  // at every launch
  int device;
  bool used = false;  // by a node
};

struct Node {
  std::string name;
  Graph* graph;
  std::vector<Node*> after;
  int device;
  std::function<void()> work;  // of a kernel or a copy
  cudaGraphConditionalHandle condition = 0;
  cudaGraphConditionalNodeType kind{};
  std::unique_ptr<Graph> body;        // or, of a child graph, its copy
  cudaGraph_t body_handle = nullptr;  // phGraph_out points here
};

struct Graph {
  std::vector<std::unique_ptr<Node>> nodes;
  Node* owner = nullptr;  // of a body
  int captures = 0;       // into it, now
  int executables = 0;
  bool broken = false;  // a body was lost with its capture: drivers crash on whatever is done to this graph
};

// A graph as it was when it was instantiated, in an order that its edges allow.
struct Program {
  struct Item {
    std::string name;
    std::function<void()> work;
    cudaGraphConditionalHandle condition;
    bool loops;
    std::shared_ptr<Program> body;
  };
  std::vector<Item> items;
};

struct Value {
  unsigned value, initial;
  bool assigns;
  int device;
};

struct Executable {
  std::shared_ptr<Program> program;
  std::map<cudaGraphConditionalHandle, Value> values;
  Graph* graph;
  bool conditional = false;
  int pending = 0;  // launches that are not over
};

struct Stream {
  explicit Stream(int on) : device(on) {}

  const int device;
  std::deque<std::function<bool()>> queue;  // true when they are over
  cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
  Graph* into = nullptr;
  std::thread::id thread;  // that began the capture
  cudaStreamCaptureMode mode{};
  std::vector<Node*> last;                          // what the next node of the capture depends on
  std::unique_ptr<cudaGraphNode_t[]> dependencies;  // what GetCaptureInfo gave out
};

// Objects by handles that are never used twice, so that a stale one is always known.
template <typename T>
class Registry {
 public:
  explicit Registry(const char* what, std::uintptr_t first) : what_(what), next_(first) {}

  void* add(T* object) {
    next_ += 16;
    live_[next_] = object;
    return reinterpret_cast<void*>(next_);
  }
  T* get(const void* handle, const char* call) const {
    const auto found = live_.find(reinterpret_cast<std::uintptr_t>(handle));
    if (found == live_.end()) violation(std::string(call) + ": no such " + what_ + ", or no longer");
    return found->second;
  }
  void* handle_of(const T* object) const {
    for (const auto& [handle, known] : live_) {
      if (known == object) return reinterpret_cast<void*>(handle);
    }
    return nullptr;
  }
  void remove(const void* handle) { live_.erase(reinterpret_cast<std::uintptr_t>(handle)); }
  const std::map<std::uintptr_t, T*>& live() const { return live_; }

 private:
  const char* const what_;
  std::uintptr_t next_;
  std::map<std::uintptr_t, T*> live_;
};

struct Failure {
  int nth;
  cudaError_t error;
  bool sticky;
};

struct Runtime {
  std::recursive_mutex mutex;
  Machine machine;
  std::map<std::uintptr_t, Block> blocks;  // by address, of devices and pinned
  std::map<int, std::size_t> used;
  Registry<Stream> streams{"stream", 0x10000};
  Registry<Graph> graphs{"graph", 0x20000000};
  Registry<Node> nodes{"node", 0x30000000};
  Registry<Executable> executables{"executable graph", 0x40000000};
  std::map<cudaGraphConditionalHandle, Condition> conditions;
  cudaGraphConditionalHandle next_condition = 0x5000;
  std::map<int, Stream> legacy;                    // each device's default stream
  std::vector<std::unique_ptr<Stream>> destroyed;  // while they had work, which is still done
  std::map<std::string, Failure> failures;
  cudaError_t sticky = cudaSuccess;
  cudaError_t asked = cudaSuccess;  // for by the test, of the call that is made
  std::vector<std::string> log;
  Executable* running = nullptr;  // whose kernel runs, and which conditions it has set
  std::vector<cudaGraphConditionalHandle> set;
  std::uint32_t random = 1;
};

Runtime& runtime();

// What every entry point does first and last: the lock, the log, failures asked for, the last error. Calls
// that a capture in this thread forbids are `unsafe`. `always`: even if an error was asked for, the call has
// its effect.
enum Kind : unsigned { kPlain = 0, kUnsafe = 1, kAlways = 2, kNoDevice = 4 };
cudaError_t call(const char* name, unsigned kind, const std::function<cudaError_t()>& body);
cudaError_t remember(cudaError_t error);

int current_device();
Stream* stream_of(cudaStream_t stream, const char* call);
// Into the stream's queue, or into the graph that it is captured into.
cudaError_t enqueue(Stream& stream, const std::string& name, std::function<void()> work);
cudaError_t enqueue_steps(Stream& stream, std::function<bool()> step);
// Captures of this thread that forbid unsafe calls: neither they nor the thread are relaxed.
void invalidate_captures();
bool capturing_here();
Block* block_at(const void* address);
bool inside(const void* address, std::size_t bytes, int device);  // of a live block of this device

// Device memory may be touched while one of these lives.
class DeviceRuns {
 public:
  DeviceRuns();
  DeviceRuns(const DeviceRuns&) = delete;
  ~DeviceRuns();
};

Graph* graph_of(cudaGraph_t graph, const char* call);
// What a new node of `graph` comes after, into `result`; false unless these are nodes of it, each once.
bool after_of(Graph* graph, const cudaGraphNode_t* after, std::size_t count, const char* call,
              std::vector<Node*>& result);
// "The graph is transferred or destroyed at cudaStreamEndCapture": it is destroyed if the capture was lost,
// and drivers do so to the body of a conditional node as well.
void lose(Graph* graph);

// Runs work of a stream: at most `steps` of it. True when nothing is left.
bool run(Stream& stream, std::int64_t steps);
void run_destroyed();

// A kernel: its body for a grid, after its arguments were copied.
struct Grid {
  dim3 blocks, threads;
};
using Bound = std::function<void(const Grid&)>;
using Bind = std::function<Bound(void** arguments, int device)>;
// Under the name and types that __cudaRegisterFunction will give, or by hand with a function's address.
void define_kernel(const void* function, const std::string& name, Bind bind);
void set_condition(cudaGraphConditionalHandle handle, unsigned value);  // cudaGraphSetConditional

// ---- for tests

// The nth next call of this entry point fails. "run" is the nth piece of work on a device.
void fail(const std::string& name, int nth, cudaError_t error, bool sticky = false);
bool failed(const std::string& name);  // whether it has happened
std::vector<std::string> leaks();      // what is left at the end
std::vector<std::string>
taken_log();  // entry points called and, after "run ", work done, since the last time

}  // namespace strict
