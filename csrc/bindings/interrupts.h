// What stops a call of Python: signals, and a Stop.
#pragma once

#include <pybind11/pybind11.h>

#include <chrono>
#include <memory>
#include <optional>
#include <stdexcept>

#include "base/float_state.h"
#include "base/watch.h"

namespace pysdk {

namespace py = pybind11;

inline void check_signals() {
  const FloatState standard;  // whatever a handler of Python does to it
  if (PyErr_CheckSignals() != 0) throw py::error_already_set();
}

// What a call raises that was left because of its Stop.
class Stopped : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

using OptionalStop = std::optional<std::shared_ptr<Stop>>;

// What a call of Python watches: its Stop at every look, and signals now and then, since that takes the GIL.
class Interrupts {
 public:
  explicit Interrupts(const OptionalStop& stop = std::nullopt) : stop_(stop.value_or(nullptr)) {}

  void operator()() {
    if (stop_ && stop_->asked()) throw Stopped("it was asked to stop");
    if (stop_ && stop_->late()) throw Stopped("its time is up");
    const auto now = std::chrono::steady_clock::now();
    if (now - last_ < std::chrono::milliseconds(50)) return;
    last_ = now;
    const py::gil_scoped_acquire gil;
    check_signals();
  }

 private:
  std::shared_ptr<Stop> stop_;
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

}  // namespace pysdk
