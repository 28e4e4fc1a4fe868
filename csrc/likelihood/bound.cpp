#include "likelihood/bound.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>
#include <utility>

#include "base/busy.h"
#include "chain/kernels.h"
#include "likelihood/gaussian.h"
#include "noise/philox.h"

namespace pysdk {

namespace {

void require_length(const char* name, std::size_t length, std::size_t expected) {
  if (length != expected) {
    throw std::invalid_argument(std::string(name) + " has " + std::to_string(length) +
                                " values; the bound needs " + std::to_string(expected));
  }
}

}  // namespace

VariationalBound::VariationalBound(const ChainShape& shape)
    : shape_((shape.validate(), shape)),
      buffers_(std::make_shared<ChainBuffers>(shape)),
      workers_(static_cast<std::size_t>(shape.threads), Spin::kNone) {
  if (shape.guided) throw std::invalid_argument("a bound is not guided; make it with guided=False");
}

std::size_t VariationalBound::most_bytes(const ChainShape& shape, std::size_t rows) {
  const std::size_t batch = static_cast<std::size_t>(shape.batch);
  const std::size_t buffers = 3 * shape.elements() + batch * shape.output();  // input, x_0, d1, output
  const std::size_t per_image = sizeof(std::uint64_t) * 2 + sizeof(std::int64_t);
  const std::size_t request = shape.elements() + batch * per_image + rows * sizeof(BoundRow);
  const std::size_t results = 2 * batch * rows * sizeof(double);
  // where one is begun, the one before it is still there, and results are copied
  return buffers * sizeof(float) + batch * sizeof(std::int64_t) + 2 * request + 2 * results;
}

void VariationalBound::attach(std::shared_ptr<Denoiser> denoiser) {
  const Busy busy(busy_);
  denoiser_.swap(denoiser);
}

void VariationalBound::check(const BoundRequest& request) const {
  if (request.rows.empty()) throw std::invalid_argument("rows is empty; a bound needs at least one row");
  for (std::size_t i = 0; i < request.rows.size(); ++i) {
    const BoundRow& row = request.rows[i];
#define PYSDK_FINITE(name)                                                                        \
  if (!std::isfinite(row.name)) {                                                                 \
    throw std::invalid_argument("row " + std::to_string(i) + ", column " #name " is not finite"); \
  }
    PYSDK_BOUND_COLUMNS(PYSDK_FINITE)
#undef PYSDK_FINITE
    if (!(row.t >= 0.0 && row.t < static_cast<double>(kForwardDraws) && row.t == std::floor(row.t))) {
      throw std::invalid_argument("row " + std::to_string(i) + ", column t is " + std::to_string(row.t) +
                                  "; it must be a whole number below 2^24");
    }
  }
  const std::size_t batch = static_cast<std::size_t>(shape_.batch);
  require_length("pixels", request.pixels.size(), shape_.elements());
  require_length("seeds", request.seeds.size(), batch);
  require_length("images", request.images.size(), batch);
  if (!request.labels.empty()) require_length("labels", request.labels.size(), batch);
  if (request.learned_variance && shape_.out_channels != 2 * shape_.channels) {
    throw std::invalid_argument("learned_variance needs out_channels=" + std::to_string(2 * shape_.channels) +
                                "; the bound was made with " + std::to_string(shape_.out_channels));
  }
  if (!(request.clip_limit > 0.0)) throw std::invalid_argument("clip_limit must be above 0");
  if (!(std::isfinite(request.value_low) && std::isfinite(request.value_high) &&
        request.value_low < request.value_high)) {
    throw std::invalid_argument("value_low and value_high must be finite, the first below the second");
  }
}

void VariationalBound::begin(BoundRequest request) {
  const Busy busy(busy_);
  check(request);
  const std::size_t results = static_cast<std::size_t>(shape_.batch) * request.rows.size();
  std::vector<double> terms(results), errors(results);

  std::swap(request_, request);
  terms_.swap(terms);
  errors_.swap(errors);
  position_ = 0;
  length_ = static_cast<std::int64_t>(request_.rows.size());
  const double step = (request_.value_high - request_.value_low) / 255.0;
  for (std::size_t level = 0; level < values_.size(); ++level) {
    values_[level] = request_.value_low + static_cast<double>(level) * step;
  }
  float* x0 = buffers_->x.data();
  for (std::size_t i = 0; i < request_.pixels.size(); ++i) {
    x0[i] = static_cast<float>(values_[request_.pixels[i]]);
  }
  std::copy(request_.labels.begin(), request_.labels.end(), buffers_->labels.data());
}

template <class Work>
void VariationalBound::each_image(Watch& watch, const Work& work) {
  constexpr std::size_t kElementCost = 64;  // in multiplications of a network: logarithms in float64
  workers_.watch(&watch);
  workers_.run(static_cast<std::size_t>(shape_.batch), shape_.image() * kElementCost,
               [&](std::size_t begin, std::size_t end, std::size_t) {
                 for (std::size_t i = begin; i < end; ++i) work(i);
               });
  watch.leave();
}

std::int64_t VariationalBound::advance(std::int64_t count, Watch& watch) {
  const Busy busy(busy_);
  if (count < 0) throw std::invalid_argument("count is " + std::to_string(count) + "; it must be 0 or more");
  if (length_ == 0) throw std::runtime_error("the bound has no rows; call begin first");
  if (!denoiser_) throw std::runtime_error("the bound has no denoiser; call attach first");
  for (; count > 0 && position_ < length_; --count) {
    if (watch.look()) watch.leave();
    const std::size_t index = static_cast<std::size_t>(position_);
    const BoundRow& row = request_.rows[index];
    each_image(watch, [&](std::size_t i) { diffuse(row, i); });
    buffers_->time.data()[0] = static_cast<float>(row.t);
    denoiser_->enqueue(watch);
    each_image(watch, [&](std::size_t i) { reduce(row, index, i); });
    ++position_;
  }
  return position_;
}

std::vector<double> VariationalBound::terms() {
  const Busy busy(busy_);
  return terms_;
}

std::vector<double> VariationalBound::errors() {
  const Busy busy(busy_);
  return errors_;
}

// The network's input: x_t in float32, one rounding per operation.
void VariationalBound::diffuse(const BoundRow& row, std::size_t image) {
  const std::size_t size = shape_.image();
  const float signal = static_cast<float>(row.signal), noise = static_cast<float>(row.noise);
  const float* x0 = buffers_->x.data() + image * size;
  float* xt = buffers_->input.data() + image * size;
  kernels().fill_normal(
      {request_.seeds[image], request_.images[image], kForward + static_cast<std::uint32_t>(row.t)}, size,
      xt);
  for (std::size_t i = 0; i < size; ++i) xt[i] = f32::add(f32::mul(signal, x0[i]), f32::mul(noise, xt[i]));
}

// One term of one image in float64. The sum runs over the elements in their order, whatever the batch and
// threads.
void VariationalBound::reduce(const BoundRow& row, std::size_t index, std::size_t image) {
  const std::size_t size = shape_.image();
  const std::uint8_t* pixels = request_.pixels.data() + image * size;
  const float* xt = buffers_->input.data() + image * size;
  const float* f = buffers_->output.data() + image * shape_.output();
  const float* v = f + size;
  const double limit = request_.clip_limit;
  const double half = 0.5 * (values_[1] - values_[0]);
  const bool learned = request_.learned_variance;
  const bool decoder = row.decoder != 0.0;
  double term = 0.0, error = 0.0;
  for (std::size_t i = 0; i < size; ++i) {
    const double x0 = values_[pixels[i]];
    const double raw = row.p * static_cast<double>(xt[i]) + row.q * static_cast<double>(f[i]);
    const double denoised = raw < -limit ? -limit : (raw > limit ? limit : raw);  // NaN passes through
    const double share = learned ? 0.5 * (static_cast<double>(v[i]) + 1.0) : 1.0;
    const double log_variance = learned ? share * row.log_high + (1.0 - share) * row.log_low : row.log_high;
    error += (x0 - denoised) * (x0 - denoised);
    if (decoder) {
      term += discretised_nll(x0, denoised, std::exp(-0.5 * log_variance), half, pixels[i] == 0,
                              pixels[i] == 255);
    } else {
      const double distance =
          row.from_x0 * (x0 - denoised);  // between the two means: their parts from x_t are equal
      term += normal_kl(distance * distance, row.log_posterior, log_variance);
    }
  }
  const std::size_t at = image * static_cast<std::size_t>(length_.load()) + index;
  terms_[at] = term;
  errors_[at] = error;
}

}  // namespace pysdk
