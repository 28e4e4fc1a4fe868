// attention: softmax(scale Q K^T) V per head, the pixels being the tokens; a residual added.
#include "engine/op.h"

namespace pysdk::engine {

namespace {

class Attention : public Op {
 public:
  Attention(Fields& fields, Loader& loader) {
    constexpr std::int64_t kMost = 1 << 20;
    shape_.heads = static_cast<std::size_t>(fields.integer("heads", 1, kMost));
    shape_.head_channels = static_cast<std::size_t>(fields.integer("head_channels", 1, kMost));
    const double scale = fields.number("scale");
    // Above zero also as a float: what fills the last block of keys is -infinity times scale.
    if (!(scale >= 1e-30 && scale <= 1e6)) fields.fail("scale", "is not a number between 1e-30 and 1e6");
    shape_.scale = static_cast<float>(scale);
    const Tensor& y = loader.write(fields, "out");
    if (y.shared || y.channels != shape_.heads * shape_.head_channels) {
      fields.fail("out", "has another shape than the result");
    }
    y_ = static_cast<std::size_t>(Loader::index(fields, "out"));
    shape_.tokens = y.pixels();
    shape_.out_step = padded(y.channels);
    q_ = read_operand(fields, loader, "q", y, shape_.q_step, shape_.q_head);
    k_ = read_operand(fields, loader, "k", y, shape_.k_step, shape_.k_head);
    v_ = read_operand(fields, loader, "v", y, shape_.v_step, shape_.v_head);
    if (fields.has("residual")) {
      residual_ = Loader::index(fields, "residual");
      const Tensor& residual = loader.read(fields, "residual", residual_);
      if (residual.shared || !residual.same_shape(y))
        fields.fail("residual", "has another shape than the result");
    }
  }

  std::size_t scratch_floats(std::size_t) const override { return shape_.scratch_floats(); }
  double multiplications(std::size_t batch) const override {
    return static_cast<double>(batch) * shape_.multiplications();
  }

  void run(const Frame& frame) const override {
    const AttentionData data{frame.tensor(q_.tensor) + q_.channel, frame.tensor(k_.tensor) + k_.channel,
                             frame.tensor(v_.tensor) + v_.channel,
                             residual_ < 0 ? nullptr : frame.tensor(static_cast<std::size_t>(residual_)),
                             frame.tensor(y_)};
    const std::size_t channels = shape_.heads * shape_.head_channels;
    if (channels != shape_.out_step) {  // the kernel writes whole heads, not what fills the last block
      for (std::size_t token = 0; token < frame.batch * shape_.tokens; ++token) {
        std::fill(data.y + token * shape_.out_step + channels, data.y + (token + 1) * shape_.out_step, 0.0f);
      }
    }
    frame.workers->run(frame.batch * shape_.heads * shape_.parts(), [&](std::size_t begin, std::size_t end,
                                                                        std::size_t worker) {
      kernels().attention(shape_, data, begin, end, frame.scratch_of(worker), frame.workers->lookout(worker));
    });
  }

 private:
  struct Operand {
    std::size_t tensor = 0, channel = 0;
  };

  Operand read_operand(Fields& fields, Loader& loader, const char* name, const Tensor& y, std::size_t& step,
                       std::size_t& head) const {
    const auto& at = fields.integers(name, 3, 3);
    const Tensor& tensor = loader.read(fields, name, at[0]);
    if (tensor.shared || tensor.height != y.height || tensor.width != y.width) {
      fields.fail(name, "has another size than the result");
    }
    const auto channels = static_cast<std::int64_t>(tensor.channels);
    fields.bounded(name, at[1], 0, channels - 1);
    fields.bounded(name, at[2], 0, channels);
    const auto last = at[1] + static_cast<std::int64_t>(shape_.heads - 1) * at[2] +
                      static_cast<std::int64_t>(shape_.head_channels);
    if (last > channels) fields.fail(name, "goes beyond the channels of its tensor");
    step = padded(tensor.channels);
    head = static_cast<std::size_t>(at[2]);
    return {static_cast<std::size_t>(at[0]), static_cast<std::size_t>(at[1])};
  }

  AttentionShape shape_{};
  Operand q_, k_, v_;
  std::int64_t residual_ = -1;
  std::size_t y_ = 0;
};

const Register attention("attention", make_op<Attention>);

}  // namespace

}  // namespace pysdk::engine
