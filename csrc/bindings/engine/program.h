// A program of the engine, as Python holds it, and what its callers ask it for.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bindings/interrupts.h"
#include "engine/program.h"

namespace pysdk {

namespace py = pybind11;

constexpr std::int64_t kMaxThreads = 256;
constexpr std::int64_t kMaxBatch = 1 << 20;

inline std::size_t check_threads(std::int64_t threads) {
  if (threads < 1 || threads > kMaxThreads) {
    throw py::value_error("threads is " + std::to_string(threads) + "; it must be between 1 and 256");
  }
  return static_cast<std::size_t>(threads);
}

inline void check_batch(std::int64_t batch) {
  if (batch < 1 || batch > kMaxBatch) throw py::value_error("the batch is empty or above 2^20");
}

// A program, and until it is packed the buffers its constants are in.
class PythonProgram {
 public:
  PythonProgram(std::shared_ptr<engine::Program> program, std::vector<py::buffer_info> views)
      : program_(std::move(program)), views_(std::move(views)) {}

  engine::Cost cost(std::int64_t batch, std::int64_t threads) const {
    const std::size_t workers = check_threads(threads);
    check_batch(batch);
    const py::gil_scoped_release release;
    return program_->cost(static_cast<std::size_t>(batch), workers);
  }
  void pack(std::int64_t threads) {
    const std::size_t workers = check_threads(threads);
    {
      const py::gil_scoped_release release;
      Watch watch{Interrupts()};
      program_->pack(workers, watch);
    }
    views_.clear();
  }
  const std::shared_ptr<engine::Program>& program() const { return program_; }

 private:
  std::shared_ptr<engine::Program> program_;
  std::vector<py::buffer_info> views_;
};

}  // namespace pysdk
