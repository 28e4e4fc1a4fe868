#include "base/workers.h"

#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>

#include "base/float_state.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace pysdk {

namespace {

constexpr int kBriefSpins = 2000;  // about 50 us

void pause() {
#if defined(__x86_64__)
  _mm_pause();
#endif
}

}  // namespace

class Workers::Team {
 public:
  Team(std::size_t count, int spins) : spins_(spins), taken_(count) {
    threads_.reserve(count - 1);
    try {
      for (std::size_t worker = 1; worker < count; ++worker) {
        threads_.emplace_back([this, worker] { serve(worker); });
      }
    } catch (const std::system_error& error) {  // those that did start must not outlive the team
      const std::size_t started = threads_.size() + 1;
      stop();
      throw std::runtime_error("the system starts no more than " + std::to_string(started) + " of " +
                               std::to_string(count) + " threads: " + error.what());
    }
  }
  ~Team() { stop(); }

  void run(std::size_t parts, std::size_t items, Watch* watch, const void* work, Call call) {
    items_ = items;
    work_ = work;
    call_ = call;
    done_.store(0, std::memory_order_relaxed);
    start_round(parts);
    help(0, round_.load(std::memory_order_relaxed));
    for (int spin = 0; spin < spins_; ++spin) {
      if (done_.load(std::memory_order_acquire) == parts) return;
      pause();
    }
    wait(parts, watch);
  }

 private:
  // Sleeps until all parts are done, and looks meanwhile.
  void wait(std::size_t parts, Watch* watch) {
    std::unique_lock lock(mutex_);
    waiting_ = true;
    while (!finished_.wait_for(lock, kLookInterval, [&] { return done_ == parts; })) {
      if (watch == nullptr) continue;
      lock.unlock();
      watch->look();
      lock.lock();
    }
    waiting_ = false;
  }

  void stop() {
    stop_ = true;
    start_round(0);
    for (std::thread& thread : threads_) thread.join();
  }

  // A round is its number and, in the low 16 bits, its parts: one value, so that they are read together.
  void start_round(std::size_t parts) {
    const std::uint64_t number = (round_.load(std::memory_order_relaxed) >> 16) + 1;
    round_.store(number << 16 | parts, std::memory_order_release);
    rounds_.fetch_add(1, std::memory_order_release);
    rounds_.notify_all();
  }

  // Runs the worker's own part, then those that nobody has begun: a thread that is not given a processor
  // holds up nobody. Who comes too late finds nothing to take, whatever round it is by then.
  void help(std::size_t worker, std::uint64_t round) {
    const std::size_t parts = round & 0xffff;
    for (std::size_t i = 0; i < parts; ++i) {
      const std::size_t part = (worker + i) % parts;
      std::uint64_t taken = taken_[part].load(std::memory_order_relaxed);
      if (taken >= round || !taken_[part].compare_exchange_strong(taken, round, std::memory_order_acq_rel)) {
        continue;
      }
      call_(work_, items_ * part / parts, items_ * (part + 1) / parts, worker);
      if (done_.fetch_add(1) + 1 == parts && waiting_) {  // one order for both: see wait
        {
          const std::lock_guard lock(mutex_);
        }
        finished_.notify_one();
      }
    }
  }

  void serve(std::size_t worker) {
    const FloatState standard;
    for (std::uint32_t seen = 0;;) {
      std::uint32_t now = seen;
      for (int spin = 0; spin < spins_ && now == seen; ++spin) {
        pause();
        now = rounds_.load(std::memory_order_acquire);
      }
      while (now == seen) {
        rounds_.wait(seen, std::memory_order_acquire);
        now = rounds_.load(std::memory_order_acquire);
      }
      seen = now;
      if (stop_) return;
      help(worker, round_.load(std::memory_order_acquire));
    }
  }

  const int spins_;
  std::vector<std::atomic<std::uint64_t>> taken_;  // per part, the round it was last begun in
  std::vector<std::thread> threads_;
  std::atomic<std::uint64_t> round_{0};
  std::atomic<std::uint32_t> rounds_{0};  // what sleeping threads wait for
  std::atomic<std::uint32_t> done_{0};    // parts of the round
  std::atomic<bool> stop_{false}, waiting_{false};
  std::mutex mutex_;  // guards the caller's sleep
  std::condition_variable finished_;
  std::size_t items_ = 0;  // in the round, published by it
  const void* work_ = nullptr;
  Call call_ = nullptr;
};

Workers::Workers(std::size_t count, Spin spin) : count_(count), spin_(spin), lookouts_(count) {}

Workers::~Workers() { leave_parents_team(); }

void Workers::watch(Watch* watch) {
  watch_ = watch;
  for (std::size_t worker = 0; worker < count_; ++worker) lookouts_[worker].begin(watch, worker == 0);
}

void Workers::run(std::size_t parts, std::size_t items, const void* work, Call call) {
  leave_parents_team();
  if (team_ == nullptr) {
    team_ = std::make_unique<Team>(count_, spin_ == Spin::kBriefly ? kBriefSpins : 0);
    process_ = getpid();
  }
  team_->run(parts, items, watch_, work, call);
}

// A fork has none of its parent's threads: there is nobody to stop, and a lock may be held forever.
void Workers::leave_parents_team() {
  if (team_ != nullptr && process_ != getpid()) static_cast<void>(team_.release());
}

}  // namespace pysdk
