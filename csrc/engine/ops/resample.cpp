// pool: the mean of 2x2 pixels. upsample: every pixel four times. concat: maps behind each other by channel.
#include "engine/op.h"

namespace pysdk::engine {

namespace {

class Pool : public Op {
 public:
  Pool(Fields& fields, Loader& loader) : x_(loader.read(fields, "x")), y_(loader.write(fields, "out")) {
    x_index_ = static_cast<std::size_t>(Loader::index(fields, "x"));
    y_index_ = static_cast<std::size_t>(Loader::index(fields, "out"));
    if (x_.shared || y_.shared || y_.channels != x_.channels || y_.height != x_.height / 2 ||
        y_.width != x_.width / 2) {
      fields.fail("out", "has another shape than the result");
    }
  }
  void run(const Frame& frame) const override {
    const std::size_t step = padded(x_.channels), line = x_.width * step;
    frame.workers->run(
        frame.batch * y_.height, y_.width * step * kCopyCost,
        [&](std::size_t begin, std::size_t end, std::size_t) {
          for (std::size_t row = begin; row < end; ++row) {
            const std::size_t image = row / y_.height, y = row % y_.height;
            const float* from = frame.tensor(x_index_) + image * x_.floats() + 2 * y * line;
            float* to = frame.tensor(y_index_) + image * y_.floats() + y * y_.width * step;
            for (std::size_t x = 0; x < y_.width; ++x, from += 2 * step, to += step) {
              for (std::size_t c = 0; c < step; ++c) {
                to[c] = ((from[c] + from[step + c]) + (from[line + c] + from[line + step + c])) * 0.25f;
              }
            }
          }
        });
  }

 private:
  Tensor x_, y_;
  std::size_t x_index_ = 0, y_index_ = 0;
};

class Upsample : public Op {
 public:
  Upsample(Fields& fields, Loader& loader) : x_(loader.read(fields, "x")), y_(loader.write(fields, "out")) {
    x_index_ = static_cast<std::size_t>(Loader::index(fields, "x"));
    y_index_ = static_cast<std::size_t>(Loader::index(fields, "out"));
    if (x_.shared || y_.shared || y_.channels != x_.channels || y_.height != 2 * x_.height ||
        y_.width != 2 * x_.width) {
      fields.fail("out", "has another shape than the result");
    }
  }
  void run(const Frame& frame) const override {
    const std::size_t step = padded(x_.channels);
    frame.workers->run(frame.batch * y_.height, y_.width * step * kCopyCost,
                       [&](std::size_t begin, std::size_t end, std::size_t) {
                         for (std::size_t row = begin; row < end; ++row) {
                           const std::size_t image = row / y_.height, y = row % y_.height;
                           const float* from =
                               frame.tensor(x_index_) + image * x_.floats() + y / 2 * x_.width * step;
                           float* to = frame.tensor(y_index_) + image * y_.floats() + y * y_.width * step;
                           for (std::size_t x = 0; x < y_.width; ++x)
                             std::copy_n(from + x / 2 * step, step, to + x * step);
                         }
                       });
  }

 private:
  Tensor x_, y_;
  std::size_t x_index_ = 0, y_index_ = 0;
};

class Concat : public Op {
 public:
  Concat(Fields& fields, Loader& loader) {
    std::size_t channels = 0;
    for (const std::int64_t index : fields.integers("x", 1, 16)) {
      inputs_.push_back({loader.read(fields, "x", index), static_cast<std::size_t>(index)});
      channels += inputs_.back().tensor.channels;
    }
    y_ = loader.write(fields, "out");
    y_index_ = static_cast<std::size_t>(Loader::index(fields, "out"));
    for (const Input& input : inputs_) {
      if (input.tensor.height != y_.height || input.tensor.width != y_.width ||
          input.tensor.shared != y_.shared) {
        fields.fail("x", "has a tensor of another size than the result");
      }
    }
    if (channels != y_.channels) fields.fail("out", "has another number of channels than its inputs");
  }
  void run(const Frame& frame) const override {
    const std::size_t pixels = (y_.shared ? 1 : frame.batch) * y_.pixels(), step = padded(y_.channels);
    frame.workers->run(pixels, step * kCopyCost, [&](std::size_t begin, std::size_t end, std::size_t) {
      for (std::size_t pixel = begin; pixel < end; ++pixel) {
        float* to = frame.tensor(y_index_) + pixel * step;
        float* const stop = to + step;
        for (const Input& input : inputs_) {
          const float* from = frame.tensor(input.index) + pixel * padded(input.tensor.channels);
          to = std::copy_n(from, input.tensor.channels, to);
        }
        std::fill(to, stop, 0.0f);
      }
    });
  }

 private:
  struct Input {
    Tensor tensor;
    std::size_t index;
  };
  std::vector<Input> inputs_;
  Tensor y_{};
  std::size_t y_index_ = 0;
};

const Register pool("pool", make_op<Pool>);
const Register upsample("upsample", make_op<Upsample>);
const Register concat("concat", make_op<Concat>);

}  // namespace

}  // namespace pysdk::engine
