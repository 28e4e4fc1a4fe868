#include "cuda/cuda_chain.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <thread>
#include <type_traits>
#include <utility>

#include "noise/philox.h"

namespace pysdk::cuda {

namespace {

constexpr std::int64_t kRunAhead =
    64;  // rows enqueued before the first of them is done, on the plainer paths

std::shared_ptr<Block> floats(const std::shared_ptr<Device>& device, std::size_t count) {
  return std::make_shared<Block>(device, count * sizeof(float));
}

}  // namespace

CudaChain::CudaChain(std::shared_ptr<Device> device, const ChainShape& shape)
    : shape_((shape.validate(), shape)),
      device_(std::move(device)),
      stream_(device_),
      side_(device_),
      mailbox_(device_),
      input_(floats(device_, shape.network_batch() * shape.image())),
      time_(floats(device_, 1)),
      labels_(std::make_shared<Block>(device_, shape.network_batch() * sizeof(std::int64_t))),
      output_(floats(device_, shape.network_batch() * shape.output())),
      x_(floats(device_, shape.elements())),
      d1_(floats(device_, shape.elements())),
      state_(std::make_shared<Block>(device_, sizeof(State))),
      broken_(
          std::make_shared<Block>(device_, static_cast<std::size_t>(shape.batch) * sizeof(std::uint32_t))),
      task_(task_of(shape)) {}

CudaChain::~CudaChain() {
  try {
    stop_now();
  } catch (const Error&) {  // the device is lost, and its memory with it
  }
}

std::size_t CudaChain::bytes() const {
  std::size_t total = 0;
  for (const auto* block :
       {&input_, &time_, &labels_, &output_, &x_, &d1_, &state_, &arrays_, &initial_, &known_, &keep_,
        &noise_, &known_noise_, &d2_, &y_, &raw_, &threshold_, &ring_, &broken_}) {
    if (*block) total += (*block)->bytes();
  }
  return total;
}

void CudaChain::attach(DeviceNetworks networks) {
  const Busy busy(busy_);
  check_attached(shape_, networks.conditional != nullptr, false);
  stop_now();
  graphs_.clear();
  warmed_ = 0;
  refused_ = {};
  std::swap(networks_, networks);
}

Wiring CudaChain::wiring() const {
  return {device_,
          stream_.get(),
          task_,
          &state_->as<State>()->task,
          &state_->as<State>()->place,
          mailbox_.get(),
          request_.table->clip == ClipKind::kDynamic};
}

std::uint32_t CudaChain::calls(std::int64_t row) const {
  return calls_of(request_.table->rows[static_cast<std::size_t>(row)], networks_.conditional != nullptr);
}

std::uint32_t CudaChain::kinds() const {
  std::uint32_t result = 0;
  for (std::int64_t row = 0; row < length_; ++row) result |= 1u << calls(row);
  return result;
}

// Each network of these calls runs once outside a capture first: what it loads and allocates lazily is there
// then.
void CudaChain::warm_up(std::uint32_t calls) {
  if (warmed_by_ != std::this_thread::get_id()) warmed_ = 0;
  warmed_by_ = std::this_thread::get_id();
  if ((calls & ~warmed_) == 0) return;
  enqueue_calls(wiring(), networks_, calls & ~warmed_);
  device_->synchronize(stream_.get());
  warmed_ |= calls;
}

template <typename Make>
OwnedGraph& CudaChain::cached(std::uint32_t key, Make&& make) {
  const auto found =
      std::find_if(graphs_.begin(), graphs_.end(), [key](const Cached& c) { return c.key == key; });
  if (found != graphs_.end()) {
    graphs_.splice(graphs_.begin(), graphs_, found);
  } else {
    graphs_.push_front({key, make()});
    if (graphs_.size() > kMaxGraphs) graphs_.pop_back();
  }
  return *graphs_.front().graph;
}

OwnedGraph& CudaChain::whole_chain_graph() {
  const std::uint32_t present = kinds();
  const Wiring wires = wiring();
  return cached(present | (wires.dynamic ? 1u << 8 : 0u) | 1u << 9, [&] {
    for (std::uint32_t calls = 1; calls < 8; ++calls) {
      if (present >> calls & 1u) warm_up(calls);
    }
    return OwnedGraph::whole_chain(wires, networks_, present);
  });
}

OwnedGraph& CudaChain::row_graph(std::uint32_t calls) {
  const Wiring wires = wiring();
  return cached(calls | (wires.dynamic ? 1u << 8 : 0u), [&] {
    warm_up(calls);
    return OwnedGraph::one_row(wires, networks_, calls);
  });
}

// The best path that is allowed and not refused. What was refused stays so until other networks are attached.
void CudaChain::choose_path() {
  why_.clear();
  path_ = way_.path;
  if (request_.noise && path_ == Path::kWhile) {
    why_ = "noise is given by a function, which is called on the host before each row";
    path_ = Path::kStep;
  }
  for (; path_ != Path::kPlain; path_ = path_ == Path::kWhile ? Path::kStep : Path::kPlain) {
    std::string& refused = refused_[path_ == Path::kWhile ? 0 : 1];
    if (refused.empty() || way_.forced) {
      try {
        if (path_ == Path::kWhile) {
          whole_chain_graph();
        } else {
          for (std::uint32_t calls = 0, present = kinds(); calls < 8; ++calls) {
            if (present >> calls & 1u) row_graph(calls);
          }
        }
        return;
      } catch (const CaptureRefused& error) {
        if (way_.forced) throw;
        refused = error.what();
      }
    }
    why_ += (why_.empty() ? "" : "; ") + refused;
  }
}

void CudaChain::set_until(std::int64_t until) {
  if (until == until_) return;
  const auto value = static_cast<std::int32_t>(until);
  until_ = -1;
  device_->upload(&state_->as<State>()->place.until, &value, sizeof value, stream_.get());
  until_ = until;
}

// Ends a loop that runs, after the row it is in or a few more, and waits for the device.
void CudaChain::stop_now() {
  mailbox_.get()->stop = 1;
  device_->synchronize(stream_.get());
  mailbox_.get()->stop = 0;
  launched_ = mailbox_.get()->position;
}

void CudaChain::launch(std::int64_t count, const Poll& poll) {
  const Busy busy(busy_);
  check_advance(shape_, count, length_, networks_.denoiser != nullptr, false);
  const std::int64_t until = launched_ + std::min(count, length_ - launched_);
  if (until == launched_) return;
  choose_path();
  if (path_ != Path::kWhile) {
    run_rows(until, poll);
    return;
  }
  OwnedGraph& graph = whole_chain_graph();
  set_until(until);
  graph.launch(stream_.get());
  launched_ = until;
}

void CudaChain::run_rows(std::int64_t until, const Poll& poll) {
  try {
    for (; launched_ < until; ++launched_) {
      poll();
      while (launched_ - position() > kRunAhead && !device_->finished(stream_.get())) poll();
      feed_noise(launched_);
      const std::uint32_t made = calls(launched_);
      if (path_ == Path::kStep) {
        row_graph(made).launch(stream_.get());
      } else {
        enqueue_calls(wiring(), networks_, made);
        enqueue_update(wiring(), nullptr);
      }
    }
  } catch (...) {
    stop_now();
    throw;
  }
}

void CudaChain::feed_noise(std::int64_t row) {
  if (!request_.noise) return;
  const Row& c = request_.table->rows[static_cast<std::size_t>(row)];
  const auto feed = [this](std::int64_t draw, const Block& to) {
    request_.noise(draw, host_noise_.data());
    device_->upload(to.data(), host_noise_.data(), host_noise_.size() * sizeof(float), stream_.get());
  };
  if (c.s != 0.0f) feed(kFirstRow + row, *noise_);
  if (c.known_noise != 0.0f) feed(std::int64_t{kKnown} + row, *known_noise_);
}

std::int64_t CudaChain::wait(std::int64_t row, double seconds, const Poll& poll) {
  const Busy busy(busy_);
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  const std::int64_t target = std::min(row, launched_), first = position();
  // all that was launched: not only counted but over, so that every byte is written
  const auto done = [&] {
    if (target < launched_ && position() >= target) return true;
    return device_->finished(stream_.get());
  };
  try {
    while (!done()) {
      poll();
      const std::chrono::duration<double> waited = Clock::now() - start;
      if (waited.count() > seconds) break;
      // sleeping oversleeps: not when the end is near, as far as the rows so far tell
      const double left = waited.count() * static_cast<double>(target - position()) /
                          static_cast<double>(std::max<std::int64_t>(position() - first, 1));
      if (waited > std::chrono::milliseconds(2) && left > 0.5e-3) {
        std::this_thread::sleep_for(std::chrono::microseconds(50));
      } else {
        std::this_thread::yield();
      }
    }
  } catch (...) {
    stop_now();
    throw;
  }
  if (position() < target && device_->finished(stream_.get())) {
    throw Error("the device stopped after row " + std::to_string(position()) + " of " +
                std::to_string(target));
  }
  return position();
}

std::int64_t CudaChain::advance(std::int64_t count, const Poll& poll) {
  launch(count, poll);
  return wait(length_, std::numeric_limits<double>::infinity(), poll);
}

}  // namespace pysdk::cuda
