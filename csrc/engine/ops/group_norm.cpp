// group_norm: of one map, or of two as one; with scale and shift from the time embedding; with SiLU.
#include <cmath>

#include "engine/op.h"

namespace pysdk::engine {

namespace {

class GroupNorm : public Op {
 public:
  GroupNorm(Fields& fields, Loader& loader) {
    const auto& inputs = fields.integers("x", 1, kMaxInputs);
    shape_.inputs = inputs.size();
    const Tensor& first = loader.read(fields, "x", inputs[0]);
    if (first.shared) fields.fail("x", "is shared, expected a map per image");
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      const Tensor& x = loader.read(fields, "x", inputs[i]);
      if (x.height != first.height || x.width != first.width || x.shared) {
        fields.fail("x", "has tensors of different sizes");
      }
      shape_.in_channels[i] = x.channels;
      x_[i] = static_cast<std::size_t>(inputs[i]);
    }
    shape_.pixels = first.pixels();
    const auto channels = static_cast<std::int64_t>(shape_.channels());
    shape_.groups = static_cast<std::size_t>(fields.integer("groups", 1, channels));
    if (shape_.channels() % shape_.groups != 0) {
      fields.fail("groups", "is " + std::to_string(shape_.groups) + ", which does not divide " +
                                std::to_string(channels) + " channels");
    }
    const double epsilon = fields.number("epsilon");
    if (!(epsilon >= 0 && epsilon <= 1)) fields.fail("epsilon", "is not between 0 and 1");
    shape_.epsilon = static_cast<float>(epsilon);
    shape_.silu = fields.flag("silu");
    gamma_weight_ = loader.constant(fields, "gamma", {shape_.channels()});
    beta_weight_ = loader.constant(fields, "beta", {shape_.channels()});
    if (fields.has("scale") != fields.has("shift")) fields.fail("scale", "and shift come together");
    if (fields.has("scale")) {
      scale_ = read_embedding(fields, loader, "scale");
      shift_ = read_embedding(fields, loader, "shift");
    }
    const Tensor& y = loader.write(fields, "out");
    if (y.shared || y.channels != shape_.channels() || y.height != first.height || y.width != first.width) {
      fields.fail("out", "has another shape than the result");
    }
    y_ = static_cast<std::size_t>(Loader::index(fields, "out"));
  }

  std::size_t kept_floats() const override { return 2 * shape_.channels(); }
  void pack(float*, Workers&) override {
    gamma_ = gamma_weight_.read();
    beta_ = beta_weight_.read();
    gamma_weight_ = beta_weight_ = {};
  }

  std::size_t scratch_floats(std::size_t) const override { return 3 * padded(shape_.channels()); }
  std::size_t common_doubles(std::size_t batch) const override {
    return batch * shape_.slabs() * shape_.sums_step();
  }

  void run(const Frame& frame) const override {
    NormData data{};
    for (std::size_t input = 0; input < shape_.inputs; ++input) data.x[input] = frame.tensor(x_[input]);
    data.gamma = gamma_.data();
    data.beta = beta_.data();
    if (scale_.tensor >= 0) {
      data.scale = frame.tensor(static_cast<std::size_t>(scale_.tensor)) + scale_.channel;
      data.shift = frame.tensor(static_cast<std::size_t>(shift_.tensor)) + shift_.channel;
      data.scale_step = scale_.step;
      data.shift_step = shift_.step;
    }
    data.sums = frame.common;
    data.y = frame.tensor(y_);

    const std::size_t slabs = shape_.slabs();
    if (frame.batch >=
        frame.workers->count()) {  // an image at a time: it is still in the cache when it is read again
      frame.workers->run(frame.batch, [&](std::size_t begin, std::size_t end, std::size_t worker) {
        for (std::size_t image = begin; image < end; ++image) {
          Lookout& lookout = frame.workers->lookout(worker);
          kernels().norm_sums(shape_, data, image * slabs, (image + 1) * slabs, lookout);
          kernels().norm_apply(shape_, data, image * slabs, (image + 1) * slabs, frame.scratch_of(worker),
                               lookout);
        }
      });
      return;
    }
    frame.workers->run(frame.batch * slabs, [&](std::size_t begin, std::size_t end, std::size_t worker) {
      kernels().norm_sums(shape_, data, begin, end, frame.workers->lookout(worker));
    });
    frame.workers->run(frame.batch * slabs, [&](std::size_t begin, std::size_t end, std::size_t worker) {
      kernels().norm_apply(shape_, data, begin, end, frame.scratch_of(worker),
                           frame.workers->lookout(worker));
    });
  }

 private:
  struct Embedding {
    std::int64_t tensor = -1;
    std::size_t channel = 0, step = 0;
  };

  Embedding read_embedding(Fields& fields, Loader& loader, const char* name) const {
    const auto& at = fields.integers(name, 2, 2);
    const Tensor& tensor = loader.read(fields, name, at[0]);
    if (!tensor.is_vector()) fields.fail(name, "is a map, expected a vector");
    fields.bounded(name, at[1], 0,
                   static_cast<std::int64_t>(tensor.channels) - static_cast<std::int64_t>(shape_.channels()));
    return {at[0], static_cast<std::size_t>(at[1]), tensor.shared ? 0 : tensor.floats()};
  }

  NormShape shape_{};
  Constant gamma_weight_, beta_weight_;  // until they are packed
  std::vector<float> gamma_, beta_;
  std::size_t x_[kMaxInputs] = {}, y_ = 0;
  Embedding scale_, shift_;
};

const Register group_norm("group_norm", make_op<GroupNorm>);

}  // namespace

}  // namespace pysdk::engine
