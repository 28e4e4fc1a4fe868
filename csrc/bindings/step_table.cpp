#include "chain/step_table.h"

#include <pybind11/stl.h>

#include <limits>
#include <memory>
#include <string>
#include <utility>

#include "base/float_state.h"
#include "bindings/arrays.h"
#include "bindings/bindings.h"

namespace pysdk {

namespace {

ClipKind clip_kind(const std::string& name) {
  if (name == "none") return ClipKind::kNone;
  if (name == "clamp") return ClipKind::kClamp;
  if (name == "dynamic") return ClipKind::kDynamic;
  throw py::value_error("clip is '" + name + "'; use 'none', 'clamp' or 'dynamic'");
}

std::shared_ptr<StepTable> make_table(const NdArray<float>& rows, const std::string& clip, double clip_limit,
                                      double clip_ratio, double clip_max, bool learned_variance,
                                      double init_scale) {
  const auto values = checked<float>("rows", rows, {-1, static_cast<py::ssize_t>(kStepColumns.size())});
  const auto* first = reinterpret_cast<const Row*>(values.data());
  StepTable table;
  table.rows.assign(first, first + values.shape(0));
  table.clip = clip_kind(clip);
  table.clip_limit = static_cast<float>(clip_limit);
  table.clip_ratio = clip_ratio;
  table.clip_max = static_cast<float>(clip_max);
  table.learned_variance = learned_variance;
  table.init_scale = static_cast<float>(init_scale);
  // pybind11 has no holder of const objects; what is bound below changes nothing
  return std::const_pointer_cast<StepTable>(checked_table(std::move(table)));
}

}  // namespace

void register_step_table(py::module_& module) {
  py::tuple columns(kStepColumns.size());
  for (std::size_t i = 0; i < kStepColumns.size(); ++i) columns[i] = py::str(kStepColumns[i]);
  module.attr("STEP_COLUMNS") = columns;

  py::class_<StepTable, std::shared_ptr<StepTable>>(module, "StepTable", py::is_final(),
                                                    "The rows of a chain and what all its images share: "
                                                    "checked when made, never changed, shared by chains.")
      .def(py::init(&make_table), py::call_guard<FloatState>(), py::arg("rows"), py::kw_only(),
           py::arg("clip") = "none", py::arg("clip_limit") = 1.0, py::arg("clip_ratio") = 0.995,
           py::arg("clip_max") = std::numeric_limits<double>::infinity(), py::arg("learned_variance") = false,
           py::arg("init_scale") = 1.0,
           R"doc(Check and copy a table.

Args:
    rows: float32 (K, len(STEP_COLUMNS)), from StepTable.float32().
    clip: 'none', 'clamp' to [-clip_limit, clip_limit] or 'dynamic' threshold.
    clip_limit: above 0.
    clip_ratio: quantile of the dynamic threshold, in (0, 1].
    clip_max: upper bound of the dynamic threshold, at least 1.
    learned_variance: the second half of the network's channels is v; needs out_channels = 2C.
    init_scale: the chain starts from init_scale * z_0.

Raises:
    TypeError: rows has another dtype.
    ValueError: a shape or value is one that no chain can run.)doc")
      .def("__len__", [](const StepTable& table) { return table.rows.size(); }, "Rows of the table.");
}

}  // namespace pysdk
