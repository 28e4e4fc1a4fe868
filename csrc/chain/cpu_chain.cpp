#include "chain/cpu_chain.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>
#include <utility>

#include "chain/busy.h"
#include "noise/philox.h"

namespace pysdk {

namespace {

constexpr std::int64_t kMaxDimension = 1 << 20;
constexpr std::int64_t kMaxThreads = 256;
constexpr std::int64_t kMaxElements = std::int64_t{1}
                                      << 33;  // of one buffer: 32 GiB; also keeps element/4 in 32 bits

void require_range(const char* name, std::int64_t value, std::int64_t high) {
  if (value < 1 || value > high) {
    throw std::invalid_argument(std::string(name) + " is " + std::to_string(value) +
                                "; it must be between 1 and " + std::to_string(high));
  }
}

void require_length(const char* name, std::size_t length, std::int64_t expected) {
  if (length != static_cast<std::size_t>(expected)) {
    throw std::invalid_argument(std::string(name) + " has " + std::to_string(length) +
                                " values; the chain needs " + std::to_string(expected) +
                                ", one per image of its batch");
  }
}

void check_classifier(const ChainShape& shape, const Program& program) {
  const bool used =
      std::any_of(program.rows.begin(), program.rows.end(), [](const Row& row) { return row.grad != 0.0f; });
  if (used && !shape.classifier) {
    throw std::invalid_argument(
        "the column grad is used but the chain has no classifier; make it with "
        "classifier=True");
  }
  if (shape.classifier && program.classifier_scale.empty()) {
    throw std::invalid_argument("classifier_scale is None; a chain with a classifier needs one per image");
  }
  if (!shape.classifier && !program.classifier_scale.empty()) {
    throw std::invalid_argument(
        "classifier_scale is given but the chain has no classifier; make it with classifier=True");
  }
  if (shape.classifier) require_length("classifier_scale", program.classifier_scale.size(), shape.batch);
  for (const float scale : program.classifier_scale) {
    if (!std::isfinite(scale)) {
      throw std::invalid_argument("classifier_scale holds NaN or infinity; every scale must be finite");
    }
  }
}

void check_known(const ChainShape& shape, const Program& program) {
  const bool used = std::any_of(program.rows.begin(), program.rows.end(), keeps_known);
  if (program.known.empty() != program.keep.empty()) {
    throw std::invalid_argument("known and keep belong together; one of them is None");
  }
  if (used == program.known.empty()) {
    throw std::invalid_argument(used
                                    ? "the columns known and known_noise are used but known and keep are None"
                                    : "known and keep are given but no row of the table uses them");
  }
  if (used && (program.known.size() != shape.elements() || program.keep.size() != shape.elements())) {
    throw std::invalid_argument("known and keep must have the shape of the chain's x");
  }
}

}  // namespace

void ChainShape::validate() const {
  require_range("batch", batch, kMaxDimension);
  require_range("channels", channels, kMaxDimension);
  require_range("height", height, kMaxDimension);
  require_range("width", width, kMaxDimension);
  require_range("threads", threads, kMaxThreads);
  if (out_channels != channels && out_channels != 2 * channels) {
    throw std::invalid_argument("out_channels is " + std::to_string(out_channels) + "; for " +
                                std::to_string(channels) +
                                " channels it must be the same, or twice that with learned " + "variance");
  }
  std::int64_t total = guided ? 2 * batch : batch;
  for (const std::int64_t factor : {out_channels, height, width}) {  // each step stays below 2^33 * 2^21
    total *= factor;
    if (total > kMaxElements) {
      throw std::invalid_argument(
          "the network output would have more than 2^33 elements; use a smaller batch or shape");
    }
  }
}

ChainBuffers::ChainBuffers(const ChainShape& shape)
    : input(shape.network_batch() * shape.image()),
      time(1),
      labels(shape.network_batch()),
      output(shape.network_batch() * shape.output()),
      gradient(shape.classifier ? shape.elements() : 0),
      x(shape.elements()),
      d1(shape.elements()) {}

CpuChain::CpuChain(const ChainShape& shape)
    : shape_((shape.validate(), shape)),
      buffers_(std::make_shared<ChainBuffers>(shape)),
      threads_(static_cast<std::size_t>(shape.threads)) {}

void CpuChain::attach(Networks networks) {
  const Busy busy(busy_);
  if (networks.conditional && !shape_.guided) {
    throw std::invalid_argument("conditional is given but the chain is not guided; make it with guided=True");
  }
  if (networks.classifier && !shape_.classifier) {
    throw std::invalid_argument("classifier is given but the chain has none; make it with classifier=True");
  }
  std::swap(networks_, networks);
}

void CpuChain::check(const Program& program) const {
  if (program.rows.empty()) throw std::invalid_argument("rows is empty; a chain needs at least one row");
  if (program.rows.size() > kMaxRows) {
    throw std::invalid_argument("rows has more than 2^24 rows; draw numbers end there");
  }
  validate_rows(program.rows, program.learned_variance);
  require_length("seeds", program.seeds.size(), shape_.batch);
  require_length("images", program.images.size(), shape_.batch);
  if (!program.labels.empty()) require_length("labels", program.labels.size(), shape_.batch);
  if (shape_.guided) {
    if (program.labels.empty())
      throw std::invalid_argument("labels is None; a guided chain needs one per image");
    if (program.guidance.empty())
      throw std::invalid_argument("guidance is None; a guided chain needs one per image");
    require_length("guidance", program.guidance.size(), shape_.batch);
  } else if (!program.guidance.empty()) {
    throw std::invalid_argument("guidance is given but the chain is not guided; make it with guided=True");
  }
  for (const float w : program.guidance) {
    if (!std::isfinite(w))
      throw std::invalid_argument("guidance holds NaN or infinity; every weight must be finite");
  }
  check_classifier(shape_, program);
  check_known(shape_, program);
  if (program.learned_variance && shape_.out_channels != 2 * shape_.channels) {
    throw std::invalid_argument("learned_variance needs out_channels=" + std::to_string(2 * shape_.channels) +
                                "; the chain was made with " + std::to_string(shape_.out_channels));
  }
  if (!std::isfinite(program.init_scale))
    throw std::invalid_argument("init_scale is not a finite float32 number");
  if (!(program.clip_limit > 0.0f && std::isfinite(program.clip_limit))) {
    throw std::invalid_argument("clip_limit must be a finite number above 0");
  }
  if (!(program.clip_ratio > 0.0 && program.clip_ratio <= 1.0)) {
    throw std::invalid_argument("clip_ratio must lie in (0, 1]");
  }
  if (!(program.clip_max >= 1.0f)) throw std::invalid_argument("clip_max must be at least 1");
}

void CpuChain::begin(Program program) {
  const Busy busy(busy_);
  check(program);
  const std::size_t image = shape_.image();
  const std::size_t elements = shape_.elements();
  const auto uses = [&program](auto test) {
    return std::any_of(program.rows.begin(), program.rows.end(), test);
  };
  const bool draws = program.initial.empty();

  // Everything that can fail comes first.
  AlignedArray<float> d2(uses([](const Row& row) { return row.c2 != 0.0f; }) ? elements : 0);
  AlignedArray<float> y(uses([](const Row& row) { return row.g != 0.0f; }) ? elements : 0);
  AlignedArray<float> foreign(program.noise ? elements : 0);
  AlignedArray<float> foreign_known(program.noise && !program.known.empty() ? elements : 0);
  AlignedArray<float> scratch(program.clip == ClipKind::kDynamic ? 2 * image * threads_.count() : 0);
  if (program.noise && draws) program.noise(kInitial, foreign.data());

  std::swap(program_, program);
  d2_ = std::move(d2);
  y_ = std::move(y);
  foreign_noise_ = std::move(foreign);
  foreign_known_ = std::move(foreign_known);
  scratch_ = std::move(scratch);
  position_ = 0;
  length_ = static_cast<std::int64_t>(program_.rows.size());

  const std::size_t batch = static_cast<std::size_t>(shape_.batch);
  std::int64_t* labels = buffers_->labels.data();
  std::fill_n(labels, shape_.network_batch(), program_.null_label);
  std::copy(program_.labels.begin(), program_.labels.end(), labels);
  std::fill_n(buffers_->d1.data(), elements, 0.0f);
  buffers_->time.data()[0] = program_.rows[0].t;
  const float c_in = program_.rows[0].c_in;
  for (std::size_t i = 0; i < batch; ++i) {
    float* x = buffers_->x.data() + i * image;
    if (!draws) {
      std::copy_n(program_.initial.data() + i * image, image, x);
    } else if (program_.noise) {
      kernels().scale(foreign_noise_.data() + i * image, program_.init_scale, image, x);
    } else {
      kernels().fill_normal({program_.seeds[i], program_.images[i], kInitial}, image, x);
      kernels().scale(x, program_.init_scale, image, x);
    }
    float* input = buffers_->input.data() + i * image;
    kernels().scale(x, c_in, image, input);
    if (shape_.guided) std::copy_n(input, image, input + elements);
  }
}

void CpuChain::call_networks(const Row& row) {
  if (row.skip != 0.0f) return;
  const bool half = row.unguided != 0.0f && networks_.conditional;
  (half ? networks_.conditional : networks_.denoiser)->enqueue();
  if (row.grad != 0.0f) networks_.classifier->enqueue();
}

std::int64_t CpuChain::advance(std::int64_t count, const std::function<void()>& poll) {
  const Busy busy(busy_);
  if (count < 0) throw std::invalid_argument("count is " + std::to_string(count) + "; it must be 0 or more");
  if (length_ == 0) throw std::runtime_error("the chain has no rows; call begin first");
  if (!networks_.denoiser) throw std::runtime_error("the chain has no denoiser; call attach first");
  if (shape_.classifier && !networks_.classifier) {
    throw std::runtime_error("the chain has no classifier; give one to attach");
  }
  for (; count > 0 && position_ < length_; --count) {
    poll();
    const std::size_t index = static_cast<std::size_t>(position_);
    const Row& row = program_.rows[index];
    buffers_->time.data()[0] = row.t;
    call_networks(row);
    if (program_.noise && row.s != 0.0f) program_.noise(kFirstRow + position_, foreign_noise_.data());
    if (program_.noise && row.known_noise != 0.0f) {
      program_.noise(std::int64_t{kKnown} + position_, foreign_known_.data());
    }
    run_row(index);
    ++position_;
  }
  return position_;
}

}  // namespace pysdk
