// The arguments of `begin`, the same for a chain on every device.
#pragma once

#include <pybind11/functional.h>
#include <pybind11/stl.h>
#include <pybind11/typing.h>

#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/float_state.h"
#include "bindings/arrays.h"
#include "chain/program.h"

namespace pysdk {

using Noise = py::typing::Callable<NdArray<float>(py::int_)>;

// Foreign noise behind a Python callable.
class PythonNoise {
 public:
  PythonNoise(py::object callable, std::vector<py::ssize_t> shape)
      : callable_(std::move(callable)), shape_(std::move(shape)) {}
  void operator()(std::int64_t draw, float* out) const {
    const py::gil_scoped_acquire gil;
    const FloatState standard;  // whatever the callable does to it
    const auto array = checked<float>("the array returned by noise", callable_(draw), shape_);
    std::copy_n(array.data(), array.size(), out);
  }
  PyObject* callable() const { return callable_.ptr(); }

 private:
  py::object callable_;
  std::vector<py::ssize_t> shape_;
};

// A program, and its foreign noise for owners that must show it to the garbage collector. TypeError or
// ValueError.
std::pair<Program, std::shared_ptr<PythonNoise>> make_program(
    const ChainShape& shape, const NdArray<float>& rows, const std::string& clip, double clip_limit,
    double clip_ratio, double clip_max, bool learned_variance, double init_scale,
    const NdArray<std::uint64_t>& seeds, const NdArray<std::uint64_t>& images,
    const std::optional<NdArray<std::int64_t>>& labels, std::int64_t null_label,
    const std::optional<NdArray<float>>& guidance, const std::optional<NdArray<float>>& classifier_scale,
    const std::optional<NdArray<float>>& initial, const std::optional<NdArray<float>>& known,
    const std::optional<NdArray<std::uint8_t>>& keep, const std::optional<Noise>& noise);

template <typename Bound, typename Type>
void def_begin(Type& type) {
  type.def(
      "begin",
      [](Bound& self, const NdArray<float>& rows, const std::string& clip, double clip_limit,
         double clip_ratio, double clip_max, bool learned_variance, double init_scale,
         const NdArray<std::uint64_t>& seeds, const NdArray<std::uint64_t>& images,
         const std::optional<NdArray<std::int64_t>>& labels, std::int64_t null_label,
         const std::optional<NdArray<float>>& guidance, const std::optional<NdArray<float>>& classifier_scale,
         const std::optional<NdArray<float>>& initial, const std::optional<NdArray<float>>& known,
         const std::optional<NdArray<std::uint8_t>>& keep, const std::optional<Noise>& noise) {
        auto [program, foreign] = make_program(
            self.shape(), rows, clip, clip_limit, clip_ratio, clip_max, learned_variance, init_scale, seeds,
            images, labels, null_label, guidance, classifier_scale, initial, known, keep, noise);
        self.begin(std::move(program), std::move(foreign));
      },
      py::call_guard<FloatState>(), py::arg("rows"), py::kw_only(), py::arg("clip") = "none",
      py::arg("clip_limit") = 1.0, py::arg("clip_ratio") = 0.995,
      py::arg("clip_max") = std::numeric_limits<double>::infinity(), py::arg("learned_variance") = false,
      py::arg("init_scale") = 1.0, py::arg("seeds"), py::arg("images"), py::arg("labels") = py::none(),
      py::arg("null_label") = -1, py::arg("guidance") = py::none(), py::arg("classifier_scale") = py::none(),
      py::arg("initial") = py::none(), py::arg("known") = py::none(), py::arg("keep") = py::none(),
      py::arg("noise") = py::none(),
      "Start a chain from its first row; on an error the previous one stays as it was.\n\n"
      "Args:\n"
      "    rows: float32 (K, len(STEP_COLUMNS)), from StepTable.float32().\n"
      "    clip: 'none', 'clamp' to [-clip_limit, clip_limit] or 'dynamic' threshold.\n"
      "    clip_limit: above 0.\n"
      "    clip_ratio: quantile of the dynamic threshold, in (0, 1].\n"
      "    clip_max: upper bound of the dynamic threshold, at least 1.\n"
      "    learned_variance: the second half of the network's channels is v; needs out_channels = 2C.\n"
      "    init_scale: the chain starts from init_scale * z_0.\n"
      "    seeds: uint64 (batch,).\n"
      "    images: uint64 (batch,), indices in the galleries of their seeds.\n"
      "    labels: int64 (batch,); None means null_label for all.\n"
      "    null_label: label of the unconditional half.\n"
      "    guidance: float32 (batch,), weights w; needed if and only if the chain is guided.\n"
      "    classifier_scale: float32 (batch,), needed if and only if the chain has a classifier.\n"
      "    initial: float32 (batch, C, H, W), x to start from instead of init_scale * z_0.\n"
      "    known: float32 (batch, C, H, W), the image that rows with known columns keep.\n"
      "    keep: uint8 (batch, C, H, W), not 0 where they keep it; given together with known.\n"
      "    noise: called with the draw number (0: x_T, k + 1: row k, 2^31 + k: the known region in row "
      "k),\n"
      "        returns float32 (batch, C, H, W) to use instead of Philox.\n\n"
      "Raises:\n"
      "    TypeError: an array has another dtype.\n"
      "    ValueError: a shape or value does not fit.\n"
      "    RuntimeError: the chain is running.");
}

}  // namespace pysdk
