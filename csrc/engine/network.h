// A program that runs.
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>
#include <vector>

#include "base/aligned_array.h"
#include "base/pages.h"
#include "base/workers.h"
#include "chain/denoiser.h"
#include "engine/program.h"

namespace pysdk::engine {

// A program bound to its ports for batches of one size, with its own memory and threads. Large batches are
// run in parts: an image has the same bits in any, and maps of fewer images stay in the caches.
class Network : public Denoiser {
 public:
  // The program must be packed.
  Network(std::shared_ptr<const Program> program, std::size_t batch, const Ports& ports, std::size_t threads);

  // Throws std::runtime_error when it is already running.
  void enqueue(Watch& watch) override { run(watch, nullptr); }
  // The seconds each op took in this run.
  std::vector<double> profile(Watch& watch);
  std::size_t bytes() const { return (arena_.size() + scratch_.size()) * sizeof(float) + common_.size() * 8; }

 private:
  void run(Watch& watch, std::vector<double>* seconds);
  std::size_t first_image(std::size_t part) const { return batch_ * part / parts_; }
  Frame part_of_frame(std::size_t part) const;

  const std::shared_ptr<const Program> program_;
  const std::size_t batch_, parts_;
  Workers workers_;
  Pages arena_, scratch_;
  AlignedArray<double> common_;
  std::vector<float*> tensors_;
  Frame frame_;
  std::atomic<bool> busy_{false};
};

}  // namespace pysdk::engine
