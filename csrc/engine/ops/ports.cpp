// input, output: between the chain's (batch, C, H, W) and the engine's maps. embedding: a row of a table per
// label. timestep: sines of the timestep.
#include <cmath>
#include <stdexcept>
#include <string>

#include "engine/op.h"
#include "engine/ops/sine.h"

namespace pysdk::engine {

namespace {

class Input : public Op {
 public:
  Input(Fields& fields, Loader& loader) : shape_(loader.write(fields, "out")) {
    if (shape_.shared || !shape_.same_shape(loader.image_in()))
      fields.fail("out", "is not of the image's shape");
    out_ = static_cast<std::size_t>(Loader::index(fields, "out"));
  }

  void run(const Frame& frame) const override {
    const std::size_t pixels = shape_.pixels(), step = padded(shape_.channels);
    frame.workers->run(frame.batch * shape_.height, shape_.width * step * kCopyCost,
                       [&](std::size_t begin, std::size_t end, std::size_t) {
                         for (std::size_t row = begin; row < end; ++row) {
                           const std::size_t image = row / shape_.height,
                                             first = row % shape_.height * shape_.width;
                           const float* from = frame.ports.input + image * shape_.channels * pixels + first;
                           float* to = frame.tensor(out_) + (image * pixels + first) * step;
                           for (std::size_t x = 0; x < shape_.width; ++x, to += step) {
                             for (std::size_t c = 0; c < shape_.channels; ++c) to[c] = from[c * pixels + x];
                             std::fill(to + shape_.channels, to + step, 0.0f);
                           }
                         }
                       });
  }

 private:
  Tensor shape_;
  std::size_t out_ = 0;
};

class Output : public Op {
 public:
  Output(Fields& fields, Loader& loader) : shape_(loader.read(fields, "x")) {
    if (shape_.shared || !shape_.same_shape(loader.image_out()))
      fields.fail("x", "is not of the output's shape");
    x_ = static_cast<std::size_t>(Loader::index(fields, "x"));
  }

  void run(const Frame& frame) const override {
    const std::size_t pixels = shape_.pixels(), step = padded(shape_.channels);
    frame.workers->run(frame.batch * shape_.height, shape_.width * step * kCopyCost,
                       [&](std::size_t begin, std::size_t end, std::size_t) {
                         for (std::size_t row = begin; row < end; ++row) {
                           const std::size_t image = row / shape_.height,
                                             first = row % shape_.height * shape_.width;
                           const float* from = frame.tensor(x_) + (image * pixels + first) * step;
                           float* to = frame.ports.output + image * shape_.channels * pixels + first;
                           for (std::size_t c = 0; c < shape_.channels; ++c) {
                             for (std::size_t x = 0; x < shape_.width; ++x)
                               to[c * pixels + x] = from[x * step + c];
                           }
                         }
                       });
  }

 private:
  Tensor shape_;
  std::size_t x_ = 0;
};

class Embedding : public Op {
 public:
  Embedding(Fields& fields, Loader& loader) : shape_(loader.write(fields, "out")) {
    if (shape_.shared || !shape_.is_vector()) fields.fail("out", "is not a vector per image");
    out_ = static_cast<std::size_t>(Loader::index(fields, "out"));
    table_weight_ = loader.constant(fields, "table", {0, shape_.channels});
    table_floats_ = table_weight_.floats();
    rows_ = static_cast<std::int64_t>(table_weight_.shape[0]);
  }

  std::size_t kept_floats() const override { return table_floats_; }
  void pack(float*, Workers&) override {
    table_ = table_weight_.read();
    table_weight_ = {};
  }

  void run(const Frame& frame) const override {
    for (std::size_t image = 0; image < frame.batch; ++image) {
      const std::int64_t label = frame.ports.labels[image];
      if (label < 0 || label >= rows_) {
        throw std::out_of_range("label " + std::to_string(label) + " of image " + std::to_string(image) +
                                " is not between 0 and " + std::to_string(rows_ - 1));
      }
      float* to = frame.tensor(out_) + image * shape_.floats();
      const float* from = table_.data() + static_cast<std::size_t>(label) * shape_.channels;
      std::fill(std::copy_n(from, shape_.channels, to), to + shape_.floats(), 0.0f);
    }
  }

 private:
  Tensor shape_;
  Constant table_weight_;  // until it is packed
  std::size_t table_floats_ = 0;
  std::vector<float> table_;
  std::int64_t rows_ = 0;
  std::size_t out_ = 0;
};

class Timestep : public Op {
 public:
  Timestep(Fields& fields, Loader& loader) : shape_(loader.write(fields, "out")) {
    if (!shape_.shared || !shape_.is_vector()) fields.fail("out", "is not a shared vector");
    out_ = static_cast<std::size_t>(Loader::index(fields, "out"));
    frequencies_ = loader.constant(fields, "frequencies", {shape_.channels}).read();
    quarter_turns_ = loader.constant(fields, "quarter_turns", {shape_.channels}).read();
    scale_ = fields.number("scale");
    if (!(std::fabs(scale_) <= 1e30)) fields.fail("scale", "is not a number between -1e30 and 1e30");
    for (const float turns : quarter_turns_) {
      if (turns != 0.0f && turns != 1.0f) fields.fail("quarter_turns", "has a value that is neither 0 nor 1");
    }
  }

  std::size_t kept_floats() const override { return 2 * shape_.channels; }

  void run(const Frame& frame) const override {
    float* to = frame.tensor(out_);
    std::fill_n(to, shape_.floats(), 0.0f);
    const double t = static_cast<double>(frame.ports.time[0]) * scale_;
    for (std::size_t c = 0; c < shape_.channels; ++c) {
      to[c] = static_cast<float>(sine(t * static_cast<double>(frequencies_[c]), quarter_turns_[c] != 0.0f));
    }
  }

 private:
  Tensor shape_;
  std::vector<float> frequencies_, quarter_turns_;
  double scale_ = 1;
  std::size_t out_ = 0;
};

const Register input("input", make_op<Input>);
const Register output("output", make_op<Output>);
const Register embedding("embedding", make_op<Embedding>);
const Register timestep("timestep", make_op<Timestep>);

}  // namespace

}  // namespace pysdk::engine
