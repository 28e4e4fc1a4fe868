// The columns of a step table, named once; Python reads them as _native.STEP_COLUMNS.
#pragma once

#include <array>
#include <cmath>
#include <cstddef>
#include <stdexcept>
#include <string>
#include <vector>

// clang-format off
#define PYSDK_STEP_COLUMNS(X) \
  X(t) X(c_in) X(p) X(q) X(a) X(b) X(h) X(c1) X(c2) X(g) X(s) X(log_beta) X(log_beta_tilde) X(save) \
  X(skip) X(unguided) X(grad) X(known) X(known_noise)
// clang-format on

namespace pysdk {

struct Row {
#define PYSDK_FIELD(name) float name;
  PYSDK_STEP_COLUMNS(PYSDK_FIELD)
#undef PYSDK_FIELD
};

constexpr std::array kStepColumns{
#define PYSDK_NAME(name) #name,
    PYSDK_STEP_COLUMNS(PYSDK_NAME)
#undef PYSDK_NAME
};

static_assert(sizeof(Row) == kStepColumns.size() * sizeof(float), "a Row is one line of the float32 table");

namespace detail {

inline void require_flag(std::size_t row, const char* column, float value, const char* when) {
  if (value != 0.0f && value != 1.0f) {
    throw std::invalid_argument("row " + std::to_string(row) + ", column " + column + " is " +
                                std::to_string(value) + "; it must be 0 or 1" + when);
  }
}

inline void require_no_estimate(std::size_t row, const char* column, float value) {
  if (value != 0.0f) {
    throw std::invalid_argument("row " + std::to_string(row) + ", column " + column + " is " +
                                std::to_string(value) +
                                "; it must be 0 where skip is 1, as no estimate is made there");
  }
}

}  // namespace detail

// Throws std::invalid_argument unless every coefficient is finite, every flag is 0 or 1 and rows that skip
// the network use no estimate of it.
inline void validate_rows(const std::vector<Row>& rows, bool learned_variance) {
  for (std::size_t i = 0; i < rows.size(); ++i) {
#define PYSDK_FINITE(name)                                                                       \
  if (!std::isfinite(rows[i].name)) {                                                            \
    throw std::invalid_argument("row " + std::to_string(i) + ", column " #name " is " +          \
                                std::to_string(rows[i].name) + "; coefficients must be finite"); \
  }
    PYSDK_STEP_COLUMNS(PYSDK_FINITE)
#undef PYSDK_FINITE
    detail::require_flag(i, "save", rows[i].save, "");
    detail::require_flag(i, "skip", rows[i].skip, "");
    detail::require_flag(i, "unguided", rows[i].unguided, "");
    if (rows[i].skip != 0.0f) {
#define PYSDK_NO_ESTIMATE(name) detail::require_no_estimate(i, #name, rows[i].name);
      PYSDK_NO_ESTIMATE(p)
      PYSDK_NO_ESTIMATE(q)
      PYSDK_NO_ESTIMATE(b)
      PYSDK_NO_ESTIMATE(h)
      PYSDK_NO_ESTIMATE(grad)
#undef PYSDK_NO_ESTIMATE
    } else if (learned_variance) {
      detail::require_flag(i, "s", rows[i].s, " with learned variance");
    }
  }
}

}  // namespace pysdk
