// A network compiled to a list of ops, checked whole before anything runs: its file comes from strangers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/pages.h"
#include "base/watch.h"
#include "engine/layout.h"
#include "engine/op.h"

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

// What a program takes from a machine, known before it takes any.
struct Cost {
  // For one step of the batch: multiplications in all matrix products as they are computed, with padding and
  // in Winograd's form, and floats that ops read and write.
  double multiplications, moved;
  std::size_t weights;  // bytes of the packed weights and other constants
  std::size_t loading;  // more bytes while they are packed
  std::size_t network;  // bytes for a network at that batch: activations and work space
};

class Program {
 public:
  // Checks everything. Allocates little: constants are read when they are packed.
  // Throws std::invalid_argument, naming the op and the field, and what the watch throws.
  Program(const Tensor& image_in, std::size_t out_channels, std::vector<Tensor> tensors,
          const std::vector<Weight>& weights, const std::vector<OpRecord>& ops,
          const std::vector<Bytes>& sources, Watch& watch);

  // Throws std::invalid_argument when the batch is too large for any machine.
  Cost cost(std::size_t batch, std::size_t threads) const;

  // Reads and packs the constants, once, before a network is made. The sources are not needed afterwards.
  // Throws what the watch throws; the program is then of no use.
  void pack(std::size_t threads, Watch& watch);
  bool packed() const { return is_packed_; }

  const Tensor& image_in() const { return image_in_; }
  const Tensor& image_out() const { return image_out_; }
  std::size_t weight_bytes() const { return packed_.size() * sizeof(float); }

 private:
  friend class Network;
  friend class ProgramLoader;

  // The memory of a network, in floats and doubles.
  struct Needs {
    std::size_t least, most;  // images in a part
    Layout arena;
    std::size_t scratch, common;  // for one worker, for all
  };
  Needs needs(std::size_t batch, std::size_t threads) const;
  std::size_t parts(std::size_t batch) const;
  std::size_t size(std::size_t tensor, std::size_t images) const {
    return tensors_[tensor].floats() * (tensors_[tensor].shared ? 1 : images);
  }
  std::size_t packed_floats() const;

  Tensor image_in_, image_out_;
  std::vector<Tensor> tensors_;
  std::vector<Lifetime> lifetimes_;
  std::vector<std::unique_ptr<Op>> ops_;
  double moved_ = 0, moved_once_ = 0;  // floats for an image, and for the batch
  bool is_packed_ = false;
  Pages packed_;
};

}  // namespace pysdk::engine
