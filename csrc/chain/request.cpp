#include "chain/request.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

namespace pysdk {

namespace {

bool used_by_any(const Request& request, bool (*uses)(const Row&)) {
  return std::any_of(request.table->rows.begin(), request.table->rows.end(), uses);
}

void require_finite(const char* name, const std::vector<float>& values) {
  if (!std::all_of(values.begin(), values.end(), [](float value) { return std::isfinite(value); })) {
    throw std::invalid_argument(std::string(name) + " holds NaN or infinity; every value must be finite");
  }
}

void check_guidance(const ChainShape& shape, const Request& request) {
  if (shape.guided && request.labels.empty()) {
    throw std::invalid_argument("labels is None; a guided chain needs one per image");
  }
  if (shape.guided && request.guidance.empty()) {
    throw std::invalid_argument("guidance is None; a guided chain needs one per image");
  }
  if (!shape.guided && !request.guidance.empty()) {
    throw std::invalid_argument("guidance is given but the chain is not guided; make it with guided=True");
  }
  require_finite("guidance", request.guidance);
}

void check_classifier(const ChainShape& shape, const Request& request) {
  if (!shape.classifier && used_by_any(request, [](const Row& row) { return row.grad != 0.0f; })) {
    throw std::invalid_argument(
        "the column grad is used but the chain has no classifier; make it with classifier=True");
  }
  if (shape.classifier && request.classifier_scale.empty()) {
    throw std::invalid_argument("classifier_scale is None; a chain with a classifier needs one per image");
  }
  if (!shape.classifier && !request.classifier_scale.empty()) {
    throw std::invalid_argument(
        "classifier_scale is given but the chain has no classifier; make it with classifier=True");
  }
  require_finite("classifier_scale", request.classifier_scale);
}

void check_known(const Request& request) {
  const bool used = used_by_any(request, keeps_known);
  if (request.known.empty() != request.keep.empty()) {
    throw std::invalid_argument("known and keep belong together; one of them is None");
  }
  if (used == request.known.empty()) {
    throw std::invalid_argument(used
                                    ? "the columns known and known_noise are used but known and keep are None"
                                    : "known and keep are given but no row of the table uses them");
  }
}

}  // namespace

void check_request(const ChainShape& shape, const Request& request) {
  check_guidance(shape, request);
  check_classifier(shape, request);
  check_known(request);
  if (request.table->learned_variance && shape.out_channels != 2 * shape.channels) {
    throw std::invalid_argument("learned_variance needs out_channels=" + std::to_string(2 * shape.channels) +
                                "; the chain was made with " + std::to_string(shape.out_channels));
  }
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
