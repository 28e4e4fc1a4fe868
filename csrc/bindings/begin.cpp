#include "bindings/begin.h"

#include "chain/step_table.h"

namespace pysdk {

namespace {

ClipKind clip_kind(const std::string& name) {
  if (name == "none") return ClipKind::kNone;
  if (name == "clamp") return ClipKind::kClamp;
  if (name == "dynamic") return ClipKind::kDynamic;
  throw py::value_error("clip is '" + name + "'; use 'none', 'clamp' or 'dynamic'");
}

}  // namespace

std::pair<Program, std::shared_ptr<PythonNoise>> make_program(
    const ChainShape& shape, const NdArray<float>& rows, const std::string& clip, double clip_limit,
    double clip_ratio, double clip_max, bool learned_variance, double init_scale,
    const NdArray<std::uint64_t>& seeds, const NdArray<std::uint64_t>& images,
    const std::optional<NdArray<std::int64_t>>& labels, std::int64_t null_label,
    const std::optional<NdArray<float>>& guidance, const std::optional<NdArray<float>>& classifier_scale,
    const std::optional<NdArray<float>>& initial, const std::optional<NdArray<float>>& known,
    const std::optional<NdArray<std::uint8_t>>& keep, const std::optional<Noise>& noise) {
  const auto batch = static_cast<py::ssize_t>(shape.batch);
  const std::vector<py::ssize_t> state_shape{batch, static_cast<py::ssize_t>(shape.channels),
                                             static_cast<py::ssize_t>(shape.height),
                                             static_cast<py::ssize_t>(shape.width)};
  Program program;
  const auto table = checked<float>("rows", rows, {-1, static_cast<py::ssize_t>(kStepColumns.size())});
  const auto* first = reinterpret_cast<const Row*>(table.data());
  program.rows.assign(first, first + table.shape(0));
  program.clip = clip_kind(clip);
  program.clip_limit = static_cast<float>(clip_limit);
  program.clip_ratio = clip_ratio;
  program.clip_max = static_cast<float>(clip_max);
  program.learned_variance = learned_variance;
  program.init_scale = static_cast<float>(init_scale);
  program.seeds = checked_values<std::uint64_t>("seeds", seeds, {batch});
  program.images = checked_values<std::uint64_t>("images", images, {batch});
  if (labels) program.labels = checked_values<std::int64_t>("labels", *labels, {batch});
  program.null_label = null_label;
  if (guidance) program.guidance = checked_values<float>("guidance", *guidance, {batch});
  if (classifier_scale) {
    program.classifier_scale = checked_values<float>("classifier_scale", *classifier_scale, {batch});
  }
  if (initial) program.initial = checked_values<float>("initial", *initial, state_shape);
  if (known) program.known = checked_values<float>("known", *known, state_shape);
  if (keep) program.keep = checked_values<std::uint8_t>("keep", *keep, state_shape);
  std::shared_ptr<PythonNoise> next;
  if (noise) {
    next = std::make_shared<PythonNoise>(*noise, state_shape);
    program.noise = [next](std::int64_t draw, float* out) { (*next)(draw, out); };
  }
  return {std::move(program), std::move(next)};
}

}  // namespace pysdk
