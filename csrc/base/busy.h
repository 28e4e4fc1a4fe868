// Held while a method runs; a second one at the same time is an error of the caller, not a race.
#pragma once

#include <atomic>
#include <stdexcept>

namespace pysdk {

class Busy {
 public:
  explicit Busy(std::atomic<bool>& flag) : flag_(flag) {
    if (flag_.exchange(true)) {
      throw std::runtime_error(
          "the chain is already running: attach, begin and advance cannot be called from its denoiser or "
          "noise, nor "
          "from a second thread; use one chain per thread");
    }
  }
  Busy(const Busy&) = delete;
  ~Busy() { flag_ = false; }

 private:
  std::atomic<bool>& flag_;
};

}  // namespace pysdk
