// A network compiled to a list of ops, checked whole before anything runs: it comes from a file of strangers.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "chain/aligned_array.h"
#include "engine/denoiser.h"
#include "engine/op.h"
#include "engine/pages.h"

namespace pysdk::engine {

struct Bytes {
  const unsigned char* data;
  std::size_t size;
};

// A piece of a constant: `rows` x `columns` float32 at a byte offset of a source, stored as they are or
// transposed.
struct WeightPart {
  std::size_t source, offset, rows, columns;
  bool transposed;
};

// float32 of any shape, its parts stacked along the first dimension.
struct Weight {
  std::vector<std::size_t> shape;
  std::vector<WeightPart> parts;
};

struct OpRecord {
  std::string name;
  std::map<std::string, Value> fields;
};

class Program {
 public:
  // Checks everything and packs the constants. The sources are not needed afterwards.
  // Throws std::invalid_argument, naming the op and the field, and what the watch throws.
  Program(const Tensor& image_in, std::size_t out_channels, std::vector<Tensor> tensors,
          const std::vector<Weight>& weights, const std::vector<OpRecord>& ops,
          const std::vector<Bytes>& sources, std::size_t threads, Watch& watch);

  const Tensor& image_in() const { return image_in_; }
  const Tensor& image_out() const { return image_out_; }
  std::size_t weight_bytes() const { return packed_.size() * sizeof(float); }

 private:
  friend class Network;
  friend class ProgramLoader;

  struct Lifetime {
    std::size_t first = kNever, last = 0;  // ops that write it and read it last
  };
  static constexpr std::size_t kNever = static_cast<std::size_t>(-1);

  Tensor image_in_, image_out_;
  std::vector<Tensor> tensors_;
  std::vector<Lifetime> lifetimes_;
  std::vector<std::unique_ptr<Op>> ops_;
  Pages packed_;
};

// A program bound to its ports for batches of one size, with its own memory and threads. Large batches are
// run in parts: an image has the same bits in any, and maps of fewer images stay in the caches.
class Network : public Denoiser {
 public:
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
  std::size_t size(std::size_t tensor) const;  // floats of the largest part
  std::vector<std::size_t> plan(std::size_t* total) const;

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
