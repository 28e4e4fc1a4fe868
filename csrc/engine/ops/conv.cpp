// conv: 2-D convolution of one map, or of two as one (1x1 only), after nearest upsampling; time embedding and
// residual added. linear: the same for vectors.
#include "engine/op.h"

namespace pysdk::engine {

namespace {

constexpr std::int64_t kMaxKernel = 31;

class Conv : public Op {
 public:
  // conv
  Conv(Fields& fields, Loader& loader) {
    const auto& inputs = fields.integers("x", 1, kMaxInputs);
    const Tensor& first = read_inputs(fields, loader, inputs);
    if (first.shared) fields.fail("x", "is shared, expected a map per image");
    shape_.upsample = fields.integer("upsample", 1, 2) == 2 ? 1 : 0;
    shape_.stride = static_cast<std::size_t>(fields.integer("stride", 1, 2));
    const auto pads = fields.integers("pads", 4, 4);
    for (const std::int64_t pad : pads) fields.bounded("pads", pad, 0, kMaxKernel - 1);

    weight_ = loader.constant(fields, "weight", {0, in_channels(), 0, 0});
    const std::vector<std::size_t>& found = weight_.shape;
    shape_.out_channels = found[0];
    shape_.kernel_height = static_cast<std::size_t>(
        fields.bounded("weight", static_cast<std::int64_t>(found[2]), 1, kMaxKernel));
    shape_.kernel_width = static_cast<std::size_t>(
        fields.bounded("weight", static_cast<std::int64_t>(found[3]), 1, kMaxKernel));
    if (shape_.inputs > 1 && shape_.taps() != 1)
      fields.fail("x", "has two tensors, which only a 1x1 kernel takes");
    shape_.pad_top = pads[0];
    shape_.pad_left = pads[1];
    shape_.out_height = out_size(fields, shape_.in_height, shape_.kernel_height, pads[0] + pads[2]);
    shape_.out_width = out_size(fields, shape_.in_width, shape_.kernel_width, pads[1] + pads[3]);
    choose_tactic(fields);
    read_bias(fields, loader);
    if (fields.has("embedding")) {
      const auto& at = fields.integers("embedding", 2, 2);
      const Tensor& embedding = loader.read(fields, "embedding", at[0]);
      fields.bounded(
          "embedding", at[1], 0,
          static_cast<std::int64_t>(embedding.channels) - static_cast<std::int64_t>(shape_.out_channels));
      if (!embedding.is_vector()) fields.fail("embedding", "is a map, expected a vector");
      embedding_ = at[0];
      embedding_channel_ = static_cast<std::size_t>(at[1]);
      embedding_step_ = embedding.shared ? 0 : embedding.floats();
    }
    if (fields.has("residual")) {
      residual_ = Loader::index(fields, "residual");
      const Tensor& residual = loader.read(fields, "residual", residual_);
      if (residual.shared || residual.channels != shape_.out_channels ||
          residual.height != shape_.out_height || residual.width != shape_.out_width) {
        fields.fail("residual", "has another shape than the result");
      }
    }
    write_output(fields, loader, false);
  }

  // linear
  static std::unique_ptr<Op> linear(Fields& fields, Loader& loader) {
    std::unique_ptr<Conv> op(new Conv);
    const Tensor& x = op->read_inputs(fields, loader, {Loader::index(fields, "x")});
    if (!x.is_vector()) fields.fail("x", "is a map, expected a vector");
    op->weight_ = loader.constant(fields, "weight", {0, x.channels});
    op->shape_.out_channels = op->weight_.shape[0];
    op->shape_.kernel_height = op->shape_.kernel_width = op->shape_.stride = 1;
    op->shape_.out_height = op->shape_.out_width = 1;
    op->shared_ = x.shared;
    op->read_bias(fields, loader);
    op->write_output(fields, loader, x.shared);
    return op;
  }

  std::size_t packed_floats() const override { return shape_.packed_floats(); }

  std::size_t kept_floats() const override { return padded(shape_.out_channels); }
  std::size_t packing_floats(std::size_t workers) const override {
    return weight_floats_ + shape_.packing_floats() * workers;
  }

  void pack(float* packed, Workers& workers) override {
    if (!bias_weight_.shape.empty()) bias_ = bias_weight_.read();
    bias_.resize(padded(shape_.out_channels), 0.0f);
    bias_weight_ = {};
    const std::vector<float> weight = weight_.read(&workers.lookout(0));
    const std::size_t step = shape_.packing_floats();
    std::vector<float> scratch(step * workers.count());  // here, because workers must not throw
    const std::size_t cost = shape_.depth_blocks() * kLanes * kLanes * shape_.taps() * kCopyCost;
    workers.run(shape_.panels(), cost, [&](std::size_t begin, std::size_t end, std::size_t worker) {
      kernels().conv_pack(shape_, weight.data(), begin, end, packed, scratch.data() + worker * step);
    });
    packed_ = packed;
    weight_ = {};
  }

  double multiplications(std::size_t batch) const override { return shape_.multiplications(images(batch)); }
  std::size_t scratch_floats(std::size_t batch) const override {
    return shape_.scratch_floats(images(batch));
  }
  // channel bias of every image, a pixel of zeros
  std::size_t common_doubles(std::size_t batch) const override {
    return (bias_count(images(batch)) * padded(shape_.out_channels) + padded(in_channels()) + 1) / 2;
  }

  void run(const Frame& frame) const override {
    const std::size_t batch = images(frame.batch);
    auto* const bias = reinterpret_cast<float*>(frame.common);
    const std::size_t step = padded(shape_.out_channels);
    for (std::size_t image = 0; image < bias_count(batch); ++image) {
      float* out = std::copy(bias_.begin(), bias_.end(), bias + image * step) - step;
      if (embedding_ < 0) continue;
      const float* embedding =
          frame.tensor(static_cast<std::size_t>(embedding_)) + image * embedding_step_ + embedding_channel_;
      for (std::size_t c = 0; c < shape_.out_channels; ++c) out[c] += embedding[c];
    }
    float* const zeros = bias + bias_count(batch) * step;
    std::fill_n(zeros, padded(in_channels()), 0.0f);

    ConvData data{};
    for (std::size_t input = 0; input < shape_.inputs; ++input) data.x[input] = frame.tensor(x_[input]);
    data.packed = packed_;
    data.zeros = zeros;
    data.bias = bias;
    data.bias_step = bias_count(batch) > 1 ? step : 0;
    data.residual = residual_ < 0 ? nullptr : frame.tensor(static_cast<std::size_t>(residual_));
    data.y = frame.tensor(y_);
    data.batch = batch;
    frame.workers->run(
        shape_.items(batch).count(), [&](std::size_t begin, std::size_t end, std::size_t worker) {
          kernels().conv(shape_, data, begin, end, frame.scratch_of(worker), frame.workers->lookout(worker));
        });
  }

 private:
  Conv() = default;

  std::size_t images(std::size_t batch) const { return shared_ ? 1 : batch; }
  std::size_t bias_count(std::size_t batch) const {
    return embedding_ >= 0 && embedding_step_ != 0 ? batch : 1;
  }

  std::size_t in_channels() const {
    return shape_.in_channels[0] + (shape_.inputs == 2 ? shape_.in_channels[1] : 0);
  }

  const Tensor& read_inputs(Fields& fields, Loader& loader, const std::vector<std::int64_t>& inputs) {
    shape_.inputs = inputs.size();
    const Tensor& first = loader.read(fields, "x", inputs[0]);
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      const Tensor& x = loader.read(fields, "x", inputs[i]);
      if (x.height != first.height || x.width != first.width || x.shared != first.shared) {
        fields.fail("x", "has tensors of different sizes");
      }
      shape_.in_channels[i] = x.channels;
      x_[i] = static_cast<std::size_t>(inputs[i]);
    }
    shape_.in_height = first.height;
    shape_.in_width = first.width;
    return first;
  }

  std::size_t out_size(Fields& fields, std::size_t in, std::size_t kernel, std::int64_t pads) const {
    const auto available =
        static_cast<std::int64_t>(in << shape_.upsample) + pads - static_cast<std::int64_t>(kernel);
    if (available < 0) fields.fail("weight", "is larger than the padded map");
    return static_cast<std::size_t>(available) / shape_.stride + 1;
  }

  void choose_tactic(Fields& fields) {
    const std::string& tactic = fields.text("tactic");
    if (tactic == "direct") return;
    if (tactic != "winograd2" && tactic != "winograd4") {
      fields.fail("tactic", "is '" + tactic + "', expected direct, winograd2 or winograd4");
    }
    if (shape_.kernel_height != 3 || shape_.kernel_width != 3 || shape_.stride != 1) {
      fields.fail("tactic", "is '" + tactic + "', which needs a 3x3 kernel and stride 1");
    }
    shape_.tile = tactic == "winograd2" ? 2 : 4;
    shape_.tiles_high = (shape_.out_height + shape_.tile - 1) / shape_.tile;
    shape_.tiles_wide = (shape_.out_width + shape_.tile - 1) / shape_.tile;
  }

  void read_bias(Fields& fields, Loader& loader) {
    if (fields.has("bias")) bias_weight_ = loader.constant(fields, "bias", {shape_.out_channels});
    weight_floats_ = weight_.floats();
  }

  void write_output(Fields& fields, Loader& loader, bool shared) {
    const Tensor& y = loader.write(fields, "out");
    if (y.shared != shared || y.channels != shape_.out_channels || y.height != shape_.out_height ||
        y.width != shape_.out_width) {
      fields.fail("out", "has another shape than the result");
    }
    y_ = static_cast<std::size_t>(Loader::index(fields, "out"));
  }

  ConvShape shape_{};
  Constant weight_, bias_weight_;  // until they are packed
  std::size_t weight_floats_ = 0;
  std::vector<float> bias_;
  const float* packed_ = nullptr;
  std::size_t x_[kMaxInputs] = {}, y_ = 0;
  std::int64_t residual_ = -1, embedding_ = -1;
  std::size_t embedding_channel_ = 0, embedding_step_ = 0;
  bool shared_ = false;
};

const Register conv("conv", make_op<Conv>);
const Register linear("linear", Conv::linear);

}  // namespace

}  // namespace pysdk::engine
