// An op of a program. Each file in ops/ registers ops by name: a new op is a new file, or a class in one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/workers.h"
#include "engine/fields.h"
#include "engine/kernels.h"

namespace pysdk::engine {

struct Tensor {
  std::size_t channels, height, width;
  bool shared;  // one for the whole batch: it depends on the timestep alone

  std::size_t pixels() const { return height * width; }
  std::size_t floats() const { return pixels() * padded(channels); }  // of one image
  bool is_vector() const { return pixels() == 1; }
  bool same_shape(const Tensor& other) const {
    return channels == other.channels && height == other.height && width == other.width;
  }
};

// The network's side of a chain, (batch, channels, height, width) each.
struct Ports {
  const float* input;
  const float* time;           // one value
  const std::int64_t* labels;  // one per image
  float* output;
};

// What reading and writing a float costs, in multiplications.
constexpr std::size_t kCopyCost = 4;

// One run of a program.
struct Frame {
  std::size_t batch;
  Ports ports;
  Workers* workers;
  float* const* tensors;
  float* scratch;  // the workers', one after the other
  std::size_t scratch_step;
  double* common;  // the op's

  float* tensor(std::size_t index) const { return tensors[index]; }
  float* scratch_of(std::size_t worker) const { return scratch + worker * scratch_step; }
};

class Op {
 public:
  virtual ~Op() = default;
  // Constants in the form the kernels want: called once, with 64-byte aligned memory of packed_floats().
  virtual std::size_t packed_floats() const { return 0; }
  // May be left early: see Workers.
  virtual void pack(float*, Workers&) {}
  // Floats that it keeps beside them once packed, and those it needs only meanwhile.
  virtual std::size_t kept_floats() const { return 0; }
  virtual std::size_t packing_floats(std::size_t) const { return 0; }
  // Memory for a run: each worker's, and what all share.
  virtual std::size_t scratch_floats(std::size_t) const { return 0; }
  virtual std::size_t common_doubles(std::size_t) const { return 0; }
  // In a run for so many images: those in its matrix products, as the kernels compute them.
  virtual double multiplications(std::size_t) const { return 0; }
  virtual void run(const Frame&) const = 0;
};

// A float32 constant that lies within its sources, as was checked; they must still be there when it is read.
struct Constant {
  struct Piece {
    const unsigned char* data;
    std::size_t rows, columns;
    bool transposed;
  };
  std::vector<std::size_t> shape;
  std::vector<Piece> pieces;

  std::size_t floats() const;
  // Stops early when the lookout says so.
  std::vector<float> read(Lookout* lookout = nullptr) const;
};

// What an op is made from. Tensors are read after they are written, and written once.
class Loader {
 public:
  virtual ~Loader() = default;
  virtual const Tensor& read(Fields&, const char* name, std::int64_t index) = 0;
  virtual const Tensor& write(Fields&, const char* name, std::int64_t index) = 0;
  // A constant of this shape, 0 standing for any size. Large ones are read when they are packed, one at a
  // time.
  virtual Constant constant(Fields&, const char* name, const std::vector<std::size_t>& shape) = 0;
  // The network's own input and output, per image.
  virtual const Tensor& image_in() const = 0;
  virtual const Tensor& image_out() const = 0;

  const Tensor& read(Fields& fields, const char* name) { return read(fields, name, index(fields, name)); }
  const Tensor& write(Fields& fields, const char* name) { return write(fields, name, index(fields, name)); }
  // A tensor's index; use it after read or write has accepted it.
  static std::int64_t index(Fields& fields, const char* name) { return fields.integer(name, 0, INT32_MAX); }
};

using MakeOp = std::unique_ptr<Op> (*)(Fields&, Loader&);

inline std::map<std::string, MakeOp>& registry() {
  static std::map<std::string, MakeOp> ops;
  return ops;
}

struct Register {
  Register(const char* name, MakeOp make) { registry().emplace(name, make); }
};

// make_op<T> for ops whose constructor takes (Fields&, Loader&).
template <class T>
std::unique_ptr<Op> make_op(Fields& fields, Loader& loader) {
  return std::make_unique<T>(fields, loader);
}

}  // namespace pysdk::engine
