// Ctrl-C in long native work.
#pragma once

#include <pybind11/pybind11.h>

#include <chrono>

namespace pysdk {

namespace py = pybind11;

inline void check_signals() {
  if (PyErr_CheckSignals() != 0) throw py::error_already_set();
}

// Polls signals now and then, for denoisers that never take the GIL.
class SignalTimer {
 public:
  void operator()() {
    const auto now = std::chrono::steady_clock::now();
    if (now - last_ < std::chrono::milliseconds(50)) return;
    last_ = now;
    const py::gil_scoped_acquire gil;
    check_signals();
  }

 private:
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

}  // namespace pysdk
