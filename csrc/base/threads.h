// A small fork-join pool: the caller works too, the others sleep on a condition variable between calls, so
// that the network's own threads have the cores to themselves.
#pragma once

#if defined(__unix__) || defined(__APPLE__)
#include <unistd.h>
#endif

#include <condition_variable>
#include <cstddef>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "base/float_state.h"
#include "base/watch.h"

namespace pysdk {

// Which process this is: a forked child has none of its parent's threads.
inline long process_id() {
#if defined(__unix__) || defined(__APPLE__)
  return static_cast<long>(getpid());
#else
  return 0;
#endif
}

class Threads {
 public:
  // Work on the items [begin, end) as worker number `worker`; must not throw.
  using Work = std::function<void(std::size_t begin, std::size_t end, std::size_t worker)>;

  explicit Threads(std::size_t count) : count_(count) {}
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;
  ~Threads() { abandon_if_forked(); }

  std::size_t count() const { return count_; }

  // Splits `items` into one contiguous part per worker and returns when all are done; one caller at a time.
  // The caller goes on watching while it waits for the others.
  void run(std::size_t items, Watch& watch, const Work& work) {
    if (count_ == 1 || items < 2) {
      work(0, items, 0);
      return;
    }
    abandon_if_forked();
    if (!pool_) pool_ = std::make_unique<Pool>(count_);  // started when first needed
    pool_->run(items, watch, work);
  }

 private:
  class Pool {
   public:
    explicit Pool(std::size_t count) : count_(count) {
      try {
        for (std::size_t worker = 1; worker < count; ++worker) {
          threads_.emplace_back([this, worker] { serve(worker); });
        }
      } catch (...) {  // the system has no thread left: join those that began
        stop();
        throw;
      }
    }

    ~Pool() { stop(); }

    long process() const { return process_; }

    void run(std::size_t items, Watch& watch, const Work& work) {
      {
        const std::lock_guard lock(mutex_);
        work_ = &work;
        items_ = items;
        running_ = threads_.size();
        ++round_;
      }
      start_.notify_all();
      part(work, items, 0);
      std::unique_lock lock(mutex_);
      while (!done_.wait_for(lock, kLookInterval, [this] { return running_ == 0; })) {
        lock.unlock();
        watch.look();
        lock.lock();
      }
    }

   private:
    void stop() {
      {
        const std::lock_guard lock(mutex_);
        stop_ = true;
      }
      start_.notify_all();
      for (std::thread& thread : threads_) thread.join();
    }

    void part(const Work& work, std::size_t items, std::size_t worker) const {
      const std::size_t begin = items * worker / count_;
      const std::size_t end = items * (worker + 1) / count_;
      if (begin < end) work(begin, end, worker);
    }

    void serve(std::size_t worker) {
      const FloatState standard;
      std::unique_lock lock(mutex_);
      for (std::size_t seen = 0;;) {
        start_.wait(lock, [&] { return stop_ || round_ != seen; });
        if (stop_) return;
        seen = round_;
        const Work& work = *work_;
        const std::size_t items = items_;
        lock.unlock();
        part(work, items, worker);
        lock.lock();
        if (--running_ == 0) done_.notify_one();
      }
    }

    const std::size_t count_;
    const long process_ = process_id();
    std::mutex mutex_;
    std::condition_variable start_, done_;
    const Work* work_ = nullptr;
    std::size_t items_ = 0, running_ = 0, round_ = 0;
    bool stop_ = false;
    std::vector<std::thread> threads_;
  };

  // In a forked child the parent's pool is memory without threads, its mutex perhaps held for ever: neither
  // to be used nor to be destroyed, so it is left behind.
  void abandon_if_forked() {
    if (pool_ && pool_->process() != process_id()) static_cast<void>(pool_.release());
  }

  const std::size_t count_;
  std::unique_ptr<Pool> pool_;
};

}  // namespace pysdk
