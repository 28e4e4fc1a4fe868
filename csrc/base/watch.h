// Leaving long work before its end. The thread that called looks at what may stop it, now and then; its
// workers look at a flag, each after so much work.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <utility>

namespace pysdk {

// Multiplications, or what takes as long, between two looks: half a millisecond to some tens of them.
constexpr std::size_t kLookCost = std::size_t{1} << 24;
// How long the calling thread waits for others without looking.
constexpr std::chrono::milliseconds kLookInterval{20};

// A wish of any thread that work ends early, or a time at which it does.
class Stop {
 public:
  using Clock = std::chrono::steady_clock;

  Stop() = default;
  explicit Stop(Clock::time_point deadline) : deadline_(deadline) {}

  void ask() { asked_.store(true, std::memory_order_relaxed); }
  bool asked() const { return asked_.load(std::memory_order_relaxed); }
  bool late() const { return deadline_ && Clock::now() >= *deadline_; }

 private:
  std::atomic<bool> asked_{false};
  const std::optional<Clock::time_point> deadline_;
};

// One call that may be left early; `look` and `leave` belong to the thread that made it.
class Watch {
 public:
  // Throws what the call is to throw when it is to be left.
  using Check = std::function<void()>;

  Watch() = default;  // never left
  explicit Watch(Check check) : check_(std::move(check)) {}
  Watch(const Watch&) = delete;

  // Whether the call is being left: for any of its threads.
  bool stopped() const { return stopped_.load(std::memory_order_relaxed); }
  // The same after a check.
  bool look() {
    if (stopped() || !check_) return stopped();
    try {
      check_();
    } catch (...) {
      reason_ = std::current_exception();
      stopped_.store(true, std::memory_order_relaxed);
    }
    return stopped();
  }
  // Throws the reason if the call is being left, which no worker may be busy with any more.
  void leave() const {
    if (stopped()) std::rethrow_exception(reason_);
  }

 private:
  const Check check_;
  std::exception_ptr reason_;
  std::atomic<bool> stopped_{false};
};

// The looks of one worker; worker 0 is the thread that called.
class alignas(64) Lookout {
 public:
  void begin(Watch* watch, bool calling) {
    watch_ = watch;
    calling_ = calling;
  }
  // Whether to leave before work of this cost.
  [[gnu::always_inline]] bool leave(std::size_t cost) {
    spent_ += cost;
    return spent_ >= kLookCost && look();
  }

 private:
  bool look();  // not inline: kernels of several instruction sets call it

  Watch* watch_ = nullptr;
  std::size_t spent_ = 0;
  bool calling_ = false;
};

}  // namespace pysdk
