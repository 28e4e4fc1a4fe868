// silu, add, scale: element by element, including channels that only fill a block.
#include <cmath>

#include "engine/op.h"

namespace pysdk::engine {

namespace {

constexpr std::size_t kChunk = 4096;  // floats in an item of work
constexpr std::size_t kCost = 8;      // multiplications that a float costs

std::size_t count(const Tensor& tensor, std::size_t batch) { return tensor.shared ? 1 : batch; }

// function(begin, end) over all floats of a tensor
template <class Function>
void for_chunks(const Frame& frame, std::size_t floats, const Function& function) {
  frame.workers->run((floats + kChunk - 1) / kChunk, kChunk * kCost,
                     [&](std::size_t begin, std::size_t end, std::size_t) {
                       function(begin * kChunk, std::min(end * kChunk, floats));
                     });
}

class Silu : public Op {
 public:
  Silu(Fields& fields, Loader& loader) : shape_(loader.read(fields, "x")) {
    x_ = static_cast<std::size_t>(Loader::index(fields, "x"));
    const Tensor& y = loader.write(fields, "out");
    if (!y.same_shape(shape_) || y.shared != shape_.shared) fields.fail("out", "has another shape than x");
    y_ = static_cast<std::size_t>(Loader::index(fields, "out"));
  }
  void run(const Frame& frame) const override {
    const float* x = frame.tensor(x_);
    float* y = frame.tensor(y_);
    for_chunks(frame, count(shape_, frame.batch) * shape_.floats(), [&](std::size_t begin, std::size_t end) {
      kernels().silu(x + begin, end - begin, y + begin);
    });
  }

 private:
  Tensor shape_;
  std::size_t x_ = 0, y_ = 0;
};

class Scale : public Op {
 public:
  Scale(Fields& fields, Loader& loader) : shape_(loader.read(fields, "x")) {
    x_ = static_cast<std::size_t>(Loader::index(fields, "x"));
    const double factor = fields.number("factor");
    if (!(std::fabs(factor) <= 1e30)) fields.fail("factor", "is not a number between -1e30 and 1e30");
    factor_ = static_cast<float>(factor);
    const Tensor& y = loader.write(fields, "out");
    if (!y.same_shape(shape_) || y.shared != shape_.shared) fields.fail("out", "has another shape than x");
    y_ = static_cast<std::size_t>(Loader::index(fields, "out"));
  }
  void run(const Frame& frame) const override {
    const float* x = frame.tensor(x_);
    float* y = frame.tensor(y_);
    for_chunks(frame, count(shape_, frame.batch) * shape_.floats(), [&](std::size_t begin, std::size_t end) {
      for (std::size_t i = begin; i < end; ++i) y[i] = x[i] * factor_;
    });
  }

 private:
  Tensor shape_;
  float factor_ = 1;
  std::size_t x_ = 0, y_ = 0;
};

class Add : public Op {
 public:
  Add(Fields& fields, Loader& loader) : a_(loader.read(fields, "a")), b_(loader.read(fields, "b")) {
    a_index_ = static_cast<std::size_t>(Loader::index(fields, "a"));
    b_index_ = static_cast<std::size_t>(Loader::index(fields, "b"));
    if (!b_.same_shape(a_) && !(b_.is_vector() && b_.channels == a_.channels)) {
      fields.fail("b", "has neither the shape of a nor is it a vector of as many channels");
    }
    const Tensor& y = loader.write(fields, "out");
    if (!y.same_shape(a_) || y.shared != (a_.shared && b_.shared))
      fields.fail("out", "has another shape than the sum");
    y_ = static_cast<std::size_t>(Loader::index(fields, "out"));
    out_shared_ = y.shared;
  }
  void run(const Frame& frame) const override {
    const std::size_t step = padded(a_.channels), pixels = a_.pixels();
    const std::size_t images = out_shared_ ? 1 : frame.batch;
    frame.workers->run(images * pixels, step * kCost, [&](std::size_t begin, std::size_t end, std::size_t) {
      for (std::size_t row = begin; row < end; ++row) {
        const std::size_t image = row / pixels, pixel = row % pixels;
        const float* a = frame.tensor(a_index_) + ((a_.shared ? 0 : image * pixels) + pixel) * step;
        const float* b = frame.tensor(b_index_) +
                         ((b_.shared ? 0 : image * b_.pixels()) + (b_.is_vector() ? 0 : pixel)) * step;
        float* y = frame.tensor(y_) + row * step;
        for (std::size_t c = 0; c < step; ++c) y[c] = a[c] + b[c];
      }
    });
  }

 private:
  Tensor a_, b_;
  bool out_shared_ = false;
  std::size_t a_index_ = 0, b_index_ = 0, y_ = 0;
};

const Register silu("silu", make_op<Silu>);
const Register scale("scale", make_op<Scale>);
const Register add("add", make_op<Add>);

}  // namespace

}  // namespace pysdk::engine
