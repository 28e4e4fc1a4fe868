// The step table: what a solver makes and a chain runs. Its columns are named here, once; Python reads them
// as _native.STEP_COLUMNS.
#pragma once

#include <array>
#include <limits>
#include <memory>
#include <vector>

#include "chain/step.h"

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

// Whether a row replaces the known region.
inline bool keeps_known(const Row& row) { return row.known != 0.0f || row.known_noise != 0.0f; }

// Everything that is the same for all images of a chain.
struct StepTable {
  std::vector<Row> rows;
  ClipKind clip = ClipKind::kNone;
  float clip_limit = 1.0f;
  double clip_ratio = 0.995;
  float clip_max = std::numeric_limits<float>::infinity();
  bool learned_variance = false;
  float init_scale = 1.0f;  // the chain starts from init_scale * z_0
};

// A table that was checked, once, and is shared by the chains that run it.
using SharedTable = std::shared_ptr<const StepTable>;

// Throws std::invalid_argument unless a chain can run the table: every coefficient is finite, every flag 0 or
// 1, rows that skip the network use no estimate of it, and the clip and the scale are in range.
SharedTable checked_table(StepTable table);

}  // namespace pysdk
