// A small fork-join pool: the caller works too, the others sleep on a condition variable between calls, so
// that the network's own threads have the cores to themselves.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace pysdk {

class Threads {
 public:
  // Work on the items [begin, end) as worker number `worker`; must not throw.
  using Work = std::function<void(std::size_t begin, std::size_t end, std::size_t worker)>;

  explicit Threads(std::size_t count) : count_(count) {}
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;

  ~Threads() {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
    }
    start_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

  std::size_t count() const { return count_; }

  // Splits `items` into one contiguous part per worker and returns when all are done; one caller at a time.
  void run(std::size_t items, const Work& work) {
    if (count_ == 1 || items < 2) {
      work(0, items, 0);
      return;
    }
    while (threads_.size() + 1 < count_) {  // started when first needed
      const std::size_t worker = threads_.size() + 1;
      threads_.emplace_back([this, worker, seen = round_]() mutable { serve(worker, seen); });
    }
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
    done_.wait(lock, [this] { return running_ == 0; });
  }

 private:
  void part(const Work& work, std::size_t items, std::size_t worker) const {
    const std::size_t begin = items * worker / count_;
    const std::size_t end = items * (worker + 1) / count_;
    if (begin < end) work(begin, end, worker);
  }

  void serve(std::size_t worker, std::size_t seen) {
    std::unique_lock lock(mutex_);
    for (;;) {
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
  std::vector<std::thread> threads_;
  std::mutex mutex_;
  std::condition_variable start_, done_;
  const Work* work_ = nullptr;
  std::size_t items_ = 0, running_ = 0, round_ = 0;
  bool stop_ = false;
};

}  // namespace pysdk
