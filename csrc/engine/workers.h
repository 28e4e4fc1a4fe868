// A fork-join pool for work that comes every few microseconds: workers spin for a moment after a round before
// they sleep, the caller works too. One caller at a time; work must not throw. What takes long can be left
// early: the caller watches, also while it waits for the others.
#pragma once

#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "base/float_state.h"
#include "base/watch.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace pysdk::engine {

class Workers {
 public:
  explicit Workers(std::size_t count) : count_(count), lookouts_(count) {}
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;
  ~Workers() {
    // The threads of a parent process do not exist in its fork: there is nobody to stop.
    if (team_ != nullptr && process_ != getpid()) team_.release();
  }

  std::size_t count() const { return count_; }

  // Who watches the work from now on; null: nobody.
  void watch(Watch* watch) {
    watch_ = watch;
    for (std::size_t worker = 0; worker < count_; ++worker) lookouts_[worker].begin(watch, worker == 0);
  }
  Lookout& lookout(std::size_t worker) { return lookouts_[worker]; }

  // work(begin, end, worker) for contiguous parts of [0, items); returns when all are done.
  template <class Work>
  void run(std::size_t items, const Work& work) {
    const std::size_t parts = items < count_ ? items : count_;
    if (parts == 0) return;
    if (parts == 1) return work(std::size_t{0}, items, std::size_t{0});
    team().run(parts, items, watch_, &work,
               [](const void* function, std::size_t begin, std::size_t end, std::size_t worker) {
                 (*static_cast<const Work*>(function))(begin, end, worker);
               });
  }

  // The same in pieces, after each of which it may be left; an item costs as much as so many multiplications.
  template <class Work>
  void run(std::size_t items, std::size_t cost, const Work& work) {
    const std::size_t piece = kLookCost / (cost + 1) + 1;
    run(items, [&](std::size_t begin, std::size_t end, std::size_t worker) {
      for (std::size_t next; begin < end; begin = next) {
        next = end - begin > piece ? begin + piece : end;
        if (lookout(worker).leave((next - begin) * cost)) return;
        work(begin, next, worker);
      }
    });
  }

 private:
  using Call = void (*)(const void* work, std::size_t begin, std::size_t end, std::size_t worker);

  class Team {
   public:
    explicit Team(std::size_t count) : taken_(count) {
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
      for (int spin = 0; spin < kSpins; ++spin) {
        if (done_.load(std::memory_order_acquire) == parts) return;
        pause();
      }
      wait(parts, watch);
    }

   private:
    // About 50 us, several times what it takes to wake a sleeping thread.
    static constexpr int kSpins = 2000;

    static void pause() {
#if defined(__x86_64__)
      _mm_pause();
#endif
    }

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
        if (taken >= round ||
            !taken_[part].compare_exchange_strong(taken, round, std::memory_order_acq_rel)) {
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
        for (int spin = 0; spin < kSpins && now == seen; ++spin) {
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

    std::vector<std::atomic<std::uint64_t>> taken_;  // per part, the round it was last begun in
    std::vector<std::thread> threads_;
    std::atomic<std::uint64_t> round_{0};
    std::atomic<std::uint32_t> rounds_{0};  // what sleeping threads wait for
    std::atomic<std::uint32_t> done_{0};    // parts of the round
    std::atomic<bool> stop_{false}, waiting_{false};
    std::mutex mutex_;  // of the caller's sleep
    std::condition_variable finished_;
    std::size_t items_ = 0;  // of the round, published by it
    const void* work_ = nullptr;
    Call call_ = nullptr;
  };

  Team& team() {
    if (team_ != nullptr && process_ != getpid()) team_.release();  // see the destructor
    if (team_ == nullptr) {
      team_ = std::make_unique<Team>(count_);
      process_ = getpid();
    }
    return *team_;
  }

  const std::size_t count_;
  std::vector<Lookout> lookouts_;
  Watch* watch_ = nullptr;
  std::unique_ptr<Team> team_;
  pid_t process_ = 0;
};

}  // namespace pysdk::engine
