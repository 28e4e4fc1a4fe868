#include "testing/simulated_device.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "cuda/rows/row.h"
#include "cuda/rows/threshold.h"

namespace pysdk::cuda {

namespace {

constexpr std::size_t kAlignment = 256;  // cudaMalloc's

// A block of threads that run one after the other, backwards, so that nothing can depend on their order.
struct HostBlock {
  static constexpr std::uint32_t kThreads = 37;
  template <typename F>
  void each(F&& f) {
    for (std::uint32_t thread = kThreads; thread-- > 0;) f(thread, kThreads);
  }
  void add(std::uint32_t& to, std::uint32_t value) { to += value; }
  void least(std::uint32_t& to, std::uint32_t value) { to = std::min(to, value); }
};

// Every thread of a grid, likewise.
template <typename F>
void for_each_thread(std::uint64_t count, F&& f) {
  for (std::uint64_t i = count; i-- > 0;) f(i);
}

}  // namespace

SimulatedDevice::~SimulatedDevice() {
  for (const auto& [memory, bytes] : blocks_) std::free(memory);
}

void SimulatedDevice::entered(const std::string& name) {
  log_.push_back((captures_ > 0 ? "> " : "") + name);
  const auto found = failures_.find(name);
  if (found == failures_.end() || --found->second.first > 0) return;
  const Failure failure = found->second.second;
  failures_.erase(found);
  const std::string text = name + ": failure asked for by the test";
  if (failure == Failure::kOutOfMemory) throw OutOfMemory(text);
  if (failure == Failure::kRefused) throw CaptureRefused(text);
  throw Error(text);
}

void SimulatedDevice::not_in_capture(const std::string& name) {
  if (captures_ == 0) return;
  for (SimulatedStream* stream : capturing_) stream->invalid = true;
  throw CaptureRefused(name + " is not allowed while a stream is captured");
}

void SimulatedDevice::enqueue(Stream stream, const std::string& name, std::function<void()> work) {
  entered(name);
  SimulatedGraph* graph = static_cast<SimulatedStream*>(stream)->capturing;
  if (graph == nullptr) {
    work();
  } else {
    graph->items.push_back(std::make_unique<Item>(Item{std::move(work)}));
  }
}

void SimulatedDevice::call(Stream stream, std::string name, std::function<void()> work) {
  enqueue(stream, name, std::move(work));
}

void* SimulatedDevice::allocate(std::size_t bytes) {
  entered("allocate");
  not_in_capture("allocate");
  if (bytes > total_ - used_) {
    throw OutOfMemory(name() + " has no room for " + std::to_string(bytes) +
                      " bytes; use a smaller batch_size");
  }
  const std::size_t rounded = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  void* memory = std::aligned_alloc(kAlignment, std::max(rounded, kAlignment));
  if (memory == nullptr) throw OutOfMemory(name() + " has no room for " + std::to_string(bytes) + " bytes");
  std::memset(memory, 0, rounded);
  blocks_[memory] = bytes;
  used_ += bytes;
  return memory;
}

void SimulatedDevice::release(void* memory) noexcept {
  used_ -= blocks_[memory];
  blocks_.erase(memory);
  std::free(memory);
}

void* SimulatedDevice::allocate_pinned(std::size_t bytes) {
  entered("allocate_pinned");
  void* memory = std::calloc(bytes, 1);
  if (memory == nullptr) throw OutOfMemory("the host has no room for pinned memory");
  ++pinned_;
  return memory;
}

void SimulatedDevice::release_pinned(void* memory) noexcept {
  --pinned_;
  std::free(memory);
}

void SimulatedDevice::upload(void* to, const void* host, std::size_t bytes, Stream) {
  entered("upload");
  not_in_capture("upload");
  std::memcpy(to, host, bytes);
}

void SimulatedDevice::download(void* host, const void* from, std::size_t bytes, Stream) {
  entered("download");
  not_in_capture("download");
  std::memcpy(host, from, bytes);
}

void SimulatedDevice::copy(void* to, const void* from, std::size_t bytes, Stream stream) {
  enqueue(stream, "copy", [=] { std::memcpy(to, from, bytes); });
}

Stream SimulatedDevice::make_stream() {
  entered("make_stream");
  ++streams_;
  return new SimulatedStream();
}

void SimulatedDevice::release_stream(Stream stream) noexcept {
  --streams_;
  delete static_cast<SimulatedStream*>(stream);
}

void SimulatedDevice::synchronize(Stream) {
  entered("synchronize");
  not_in_capture("synchronize");
}

bool SimulatedDevice::finished(Stream) {
  not_in_capture("finished");
  return true;
}

void SimulatedDevice::start(const Task& shape, const Task* task, Stream stream) {
  enqueue(stream, "start", [task, count = shape.batch * shape.groups] {
    for_each_thread(count, [&](std::uint64_t i) { start_group(*task, static_cast<std::uint32_t>(i)); });
  });
}

void SimulatedDevice::prepare(const Task* task, const Place* place, const Branches& branches, Stream stream) {
  enqueue(stream, "prepare", [this, task, place, branches] {
    const std::uint32_t calls = calls_of(task->rows[place->position], branches.has_half);
    const auto set = [&](std::uint32_t call, Condition condition) {
      if (branches.used & call) conditions_.at(condition).value = (calls & call) != 0;
    };
    set(Branches::kFull, branches.full);
    set(Branches::kHalf, branches.half);
  });
}

void SimulatedDevice::threshold(const Task& shape, const Task* task, const Place* place, Stream stream) {
  enqueue(stream, "threshold", [task, place, batch = shape.batch] {
    for_each_thread(batch, [&](std::uint64_t image) {
      HostBlock block;
      Selection selection;
      select_threshold(block, selection, *task, static_cast<std::uint32_t>(place->position),
                       static_cast<std::uint32_t>(image));
    });
  });
}

void SimulatedDevice::update(const Task& shape, const Task* task, const Place* place, Stream stream) {
  enqueue(stream, "update", [task, place, count = shape.batch * shape.groups] {
    const auto position = static_cast<std::uint32_t>(place->position);
    for_each_thread(count,
                    [&](std::uint64_t i) { update_group(*task, position, static_cast<std::uint32_t>(i)); });
  });
}

void SimulatedDevice::advance(const Task* task, Place* place, Mailbox* mailbox, const Condition* loop,
                              Stream stream) {
  const Condition condition = loop == nullptr ? 0 : *loop;
  enqueue(stream, "advance", [this, task, place, mailbox, condition] {
    const bool goes_on = advance_row(*task, *place, *mailbox);
    if (condition != 0) conditions_.at(condition).value = goes_on;
  });
}

void SimulatedDevice::bytes(const ByteTask& task, Stream stream) {
  enqueue(stream, "bytes",
          [task] { for_each_thread(task.total, [&](std::uint64_t i) { bytes_of_pixel(task, i); }); });
}

}  // namespace pysdk::cuda
