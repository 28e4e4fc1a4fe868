// The calls that the device chain makes, and nothing else of CUDA: cuda_device.cu makes them on a GPU,
// simulated_device.cpp on host memory, which is how the chain is tested where there is no GPU.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "cuda/rows/images.h"
#include "cuda/rows/task.h"

// Thrown and derived from in one extension, caught and used in another: one type to both, also where hidden
// types are each its own.
#define PYSDK_SHARED [[gnu::visibility("default")]]

namespace pysdk::cuda {

// Handles of the runtime, seen from outside.
using Stream = void*;
using Graph = void*;
using Executable = void*;  // an instantiated graph
using Node = void*;
using Nodes = std::vector<Node>;
using Condition = std::uint64_t;

class PYSDK_SHARED Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

class PYSDK_SHARED OutOfMemory : public Error {
 public:
  using Error::Error;
};

// Something cannot be part of a graph: a driver without conditional nodes, a call that may not be captured.
// The chain then takes a plainer path.
class PYSDK_SHARED CaptureRefused : public Error {
 public:
  using Error::Error;
};

enum class Conditional { kIf, kWhile };

// The conditions a prepare kernel sets from the row at hand; `used` has a bit for each.
struct Branches {
  static constexpr std::uint32_t kFull = 1, kHalf = 2;
  std::uint32_t used = 0;
  bool has_half = false;  // unguided rows call the conditional half alone
  Condition full = 0, half = 0;
};

// Which networks a row calls, as bits of Branches.
PYSDK_INLINE std::uint32_t calls_of(const Row& row, bool has_half) {
  if (row.skip != 0.0f) return 0;
  return row.unguided != 0.0f && has_half ? Branches::kHalf : Branches::kFull;
}

struct Memory {
  std::size_t free, total;
};

class PYSDK_SHARED Device {
 public:
  virtual ~Device() = default;

  virtual std::string name() const = 0;  // "cuda:0, NVIDIA H100 80GB HBM3, sm_90"
  virtual int dlpack_type() const = 0;   // kDLCUDA = 2, kDLCPU = 1
  virtual int dlpack_index() const = 0;
  virtual Memory memory() = 0;
  // Makes this the calling thread's device and returns what restore_current takes; see CurrentDevice.
  virtual int make_current() = 0;
  virtual void restore_current(int before) noexcept = 0;

  // All calls throw Error or one of its kinds, unless they are noexcept. Allocations are zeroed. What is
  // released may be so at any moment, also while this thread captures.
  virtual void* allocate(std::size_t bytes) = 0;
  virtual void release(void* memory) noexcept = 0;
  virtual void* allocate_pinned(std::size_t bytes) = 0;  // host memory at the same address on the device
  virtual void release_pinned(void* memory) noexcept = 0;
  // `host` may be changed, or read, when the call returns (upload) or the stream is synchronised (download).
  virtual void upload(void* to, const void* host, std::size_t bytes, Stream stream) = 0;
  virtual void download(void* host, const void* from, std::size_t bytes, Stream stream) = 0;
  virtual void copy(void* to, const void* from, std::size_t bytes, Stream stream) = 0;

  virtual Stream make_stream() = 0;
  virtual void release_stream(Stream stream) noexcept = 0;
  virtual void synchronize(Stream stream) = 0;
  virtual bool finished(Stream stream) = 0;

  virtual Graph make_graph() = 0;
  virtual void release_graph(Graph graph) noexcept = 0;
  virtual Condition make_condition(Graph graph, bool initial) = 0;
  // A conditional node after `after`, and its empty body.
  virtual std::pair<Node, Graph> add_conditional(Graph graph, Conditional kind, Condition condition,
                                                 const Nodes& after) = 0;
  // Until end_capture, what is enqueued in the stream becomes nodes of `graph` behind `after`.
  virtual void begin_capture(Stream stream, Graph graph, const Nodes& after) = 0;
  virtual Nodes end_capture(Stream stream) = 0;  // the last nodes
  virtual void abandon_capture(Stream stream) noexcept = 0;
  // The same for networks, which may make a call that is forbidden in a capture: they are captured into a
  // graph of their own, which becomes one node of `graph`, or none if nothing was enqueued. A capture that is
  // made invalid takes its graph with it, so that must not be one with nodes of ours. Our kernels are
  // captured in place: nothing says that a child graph may set its parent's condition.
  virtual void begin_part(Stream stream) = 0;
  virtual Nodes end_part(Stream stream, Graph graph, const Nodes& after) = 0;
  virtual void abandon_part(Stream stream) noexcept = 0;
  virtual Executable instantiate(Graph graph) = 0;
  virtual void release_executable(Executable executable) noexcept = 0;
  virtual void launch(Executable executable, Stream stream) = 0;

  // Kernels; the launch geometry comes from `shape`, which must agree with the task in device memory.
  virtual void start(const Task& shape, const Task* task, Stream stream) = 0;
  virtual void prepare(const Task* task, const Place* place, const Branches& branches, Stream stream) = 0;
  virtual void threshold(const Task& shape, const Task* task, const Place* place, Stream stream) = 0;
  virtual void update(const Task& shape, const Task* task, const Place* place, Stream stream) = 0;
  // Sets `loop`, if it is not null, to whether the loop goes on.
  virtual void advance(const Task* task, Place* place, Mailbox* mailbox, const Condition* loop,
                       Stream stream) = 0;
  virtual void bytes(const ByteTask& task, Stream stream) = 0;
};

// A device as the calling thread's own, on which libraries allocate and launch; the one before comes back.
class CurrentDevice {
 public:
  explicit CurrentDevice(Device& device) : device_(device), before_(device.make_current()) {}
  CurrentDevice(const CurrentDevice&) = delete;
  ~CurrentDevice() { device_.restore_current(before_); }

 private:
  Device& device_;
  const int before_;
};

// Whether this build and machine can do anything here, in one line for people.
struct Status {
  bool built;        // with a CUDA compiler
  int devices;       // that the driver shows
  std::string text;  // why there is none, or their names and the versions
};
Status status();

// Throws Error with the reason when there is no such device.
std::shared_ptr<Device> open_device(int index);

}  // namespace pysdk::cuda
