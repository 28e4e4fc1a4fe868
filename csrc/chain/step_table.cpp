#include "chain/step_table.h"

#include <cmath>
#include <cstddef>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <utility>

#include "noise/philox.h"

namespace pysdk {

namespace {

[[noreturn]] void refuse(std::size_t row, const char* column, float value, const std::string& expected) {
  char text[32];
  std::snprintf(text, sizeof text, "%g", static_cast<double>(value));
  throw std::invalid_argument("row " + std::to_string(row) + ", column " + column + " is " + text +
                              "; it must be " + expected);
}

void require_flag(std::size_t row, const char* column, float value, const char* when = "") {
  if (value != 0.0f && value != 1.0f) refuse(row, column, value, std::string("0 or 1") + when);
}

void check_row(std::size_t number, const Row& row, bool learned_variance) {
#define PYSDK_FINITE(name) \
  if (!std::isfinite(row.name)) refuse(number, #name, row.name, "finite as float32");
  PYSDK_STEP_COLUMNS(PYSDK_FINITE)
#undef PYSDK_FINITE
  require_flag(number, "save", row.save);
  require_flag(number, "skip", row.skip);
  require_flag(number, "unguided", row.unguided);
  if (row.skip == 0.0f) {
    if (learned_variance) require_flag(number, "s", row.s, " with learned variance");
    return;
  }
#define PYSDK_NO_ESTIMATE(name) \
  if (row.name != 0.0f) refuse(number, #name, row.name, "0 where skip is 1, as no estimate is made there");
  PYSDK_NO_ESTIMATE(p)
  PYSDK_NO_ESTIMATE(q)
  PYSDK_NO_ESTIMATE(b)
  PYSDK_NO_ESTIMATE(h)
  PYSDK_NO_ESTIMATE(grad)
#undef PYSDK_NO_ESTIMATE
}

}  // namespace

SharedTable checked_table(StepTable table) {
  if (table.rows.empty() || table.rows.size() > kMaxRows) {
    throw std::invalid_argument("the table has " + std::to_string(table.rows.size()) +
                                " rows; a chain has 1 to " + std::to_string(kMaxRows));
  }
  for (std::size_t i = 0; i < table.rows.size(); ++i) check_row(i, table.rows[i], table.learned_variance);
  if (!(table.clip_limit > 0.0f && std::isfinite(table.clip_limit))) {
    throw std::invalid_argument("clip_limit must be a finite number above 0");
  }
  if (!(table.clip_ratio > 0.0 && table.clip_ratio <= 1.0)) {
    throw std::invalid_argument("clip_ratio must lie in (0, 1]");
  }
  if (!(table.clip_max >= 1.0f)) throw std::invalid_argument("clip_max must be at least 1");
  if (!std::isfinite(table.init_scale)) throw std::invalid_argument("init_scale is not finite as float32");
  return std::make_shared<const StepTable>(std::move(table));
}

}  // namespace pysdk
