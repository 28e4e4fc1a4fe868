#include "chain/program.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

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

std::size_t ChainShape::most_bytes(std::size_t rows) const {
  // x, two estimates, a saved sample, foreign noise of both kinds, initial and known
  const std::size_t arrays = 8 + (classifier ? 1 : 0);
  const std::size_t threshold = 2 * image() * static_cast<std::size_t>(threads);
  const std::size_t floats = network_batch() * (image() + output()) + arrays * elements() + threshold;
  const std::size_t keep = elements();
  const std::size_t per_image = 4 * sizeof(std::uint64_t);  // seed, index, label, scales
  return floats * sizeof(float) + keep + network_batch() * per_image + rows * sizeof(Row);
}

void check_program(const ChainShape& shape, const Program& program) {
  if (program.rows.empty()) throw std::invalid_argument("rows is empty; a chain needs at least one row");
  if (program.rows.size() > kMaxRows) {
    throw std::invalid_argument("rows has more than 2^24 rows; draw numbers end there");
  }
  validate_rows(program.rows, program.learned_variance);
  require_length("seeds", program.seeds.size(), shape.batch);
  require_length("images", program.images.size(), shape.batch);
  if (!program.labels.empty()) require_length("labels", program.labels.size(), shape.batch);
  if (shape.guided) {
    if (program.labels.empty())
      throw std::invalid_argument("labels is None; a guided chain needs one per image");
    if (program.guidance.empty())
      throw std::invalid_argument("guidance is None; a guided chain needs one per image");
    require_length("guidance", program.guidance.size(), shape.batch);
  } else if (!program.guidance.empty()) {
    throw std::invalid_argument("guidance is given but the chain is not guided; make it with guided=True");
  }
  for (const float w : program.guidance) {
    if (!std::isfinite(w))
      throw std::invalid_argument("guidance holds NaN or infinity; every weight must be finite");
  }
  check_classifier(shape, program);
  check_known(shape, program);
  if (program.learned_variance && shape.out_channels != 2 * shape.channels) {
    throw std::invalid_argument("learned_variance needs out_channels=" + std::to_string(2 * shape.channels) +
                                "; the chain was made with " + std::to_string(shape.out_channels));
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

void check_attached(const ChainShape& shape, bool conditional, bool classifier) {
  if (conditional && !shape.guided) {
    throw std::invalid_argument("conditional is given but the chain is not guided; make it with guided=True");
  }
  if (classifier && !shape.classifier) {
    throw std::invalid_argument("classifier is given but the chain has none; make it with classifier=True");
  }
}

void check_advance(const ChainShape& shape, std::int64_t count, std::int64_t length, bool denoiser,
                   bool classifier) {
  if (count < 0) throw std::invalid_argument("count is " + std::to_string(count) + "; it must be 0 or more");
  if (length == 0) throw std::runtime_error("the chain has no rows; call begin first");
  if (!denoiser) throw std::runtime_error("the chain has no denoiser; call attach first");
  if (shape.classifier && !classifier) {
    throw std::runtime_error("the chain has no classifier; give one to attach");
  }
}

}  // namespace pysdk
