// What a row consists of, enqueued, and captured into graphs: of a whole chain, or of one row.
#pragma once

#include <array>
#include <cstdint>
#include <memory>

#include "cuda/device.h"
#include "cuda/device_denoiser.h"

namespace pysdk::cuda {

// As Networks of the CPU chain, which alone has a classifier.
struct DeviceNetworks {
  std::shared_ptr<DeviceDenoiser> denoiser, conditional;

  // That of a bit of Branches.
  DeviceDenoiser& of(std::uint32_t call) const { return call == Branches::kFull ? *denoiser : *conditional; }
};

constexpr std::array<std::uint32_t, 2> kCalls{Branches::kFull, Branches::kHalf};

// What the graphs of a chain have in common. Nothing here depends on a request's numbers.
struct Wiring {
  std::shared_ptr<Device> device;
  Stream stream;
  Task shape;  // sizes alone
  const Task* task;
  Place* place;
  Mailbox* mailbox;
  bool dynamic;  // rows begin with their threshold
};

// The networks that a row calls, in order.
void enqueue_calls(const Wiring& wiring, const DeviceNetworks& networks, std::uint32_t calls);
void capture_calls(const Wiring& wiring, const DeviceNetworks& networks, std::uint32_t calls);
// What follows them. `loop`, if not null, is set to whether the chain goes on.
void enqueue_update(const Wiring& wiring, const Condition* loop);

// An instantiated graph.
class OwnedGraph {
 public:
  // All rows in one launch: a WHILE node whose body is a row. `kinds` has bit c for every set of calls c that
  // a row of the table makes; with more than one, each network sits in an IF node of its own. Throws
  // CaptureRefused.
  static std::unique_ptr<OwnedGraph> whole_chain(const Wiring& wiring, const DeviceNetworks& networks,
                                                 std::uint32_t kinds);
  // One row that makes these calls. Throws CaptureRefused.
  static std::unique_ptr<OwnedGraph> one_row(const Wiring& wiring, const DeviceNetworks& networks,
                                             std::uint32_t calls);

  OwnedGraph(const OwnedGraph&) = delete;
  ~OwnedGraph();
  void launch(Stream stream) const { device_->launch(executable_, stream); }

 private:
  explicit OwnedGraph(std::shared_ptr<Device> device);

  const std::shared_ptr<Device> device_;
  Graph graph_ = nullptr;
  Executable executable_ = nullptr;
};

}  // namespace pysdk::cuda
