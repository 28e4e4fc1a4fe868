// `begin`, the same for a chain on every device: a table, and what differs from image to image.
#pragma once

#include <pybind11/functional.h>
#include <pybind11/stl.h>
#include <pybind11/typing.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "base/float_state.h"
#include "bindings/arrays.h"
#include "chain/request.h"

namespace pysdk {

using Noise = py::typing::Callable<NdArray<float>(py::int_)>;

// Foreign noise behind a Python callable; chains show it to the garbage collector.
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

template <typename T>
using Optional = std::optional<NdArray<T>>;

template <typename Bound, typename Type>
void def_begin(Type& type) {
  type.def(
      "begin",
      [](Bound& self, const std::shared_ptr<StepTable>& table, const NdArray<std::uint64_t>& seeds,
         const NdArray<std::uint64_t>& images, const Optional<std::int64_t>& labels, std::int64_t null_label,
         const Optional<float>& guidance, const Optional<float>& classifier_scale,
         const Optional<float>& initial, const Optional<float>& known, const Optional<std::uint8_t>& keep,
         const std::optional<Noise>& noise) {
        const ChainShape& shape = self.shape();
        const std::vector<py::ssize_t> one{static_cast<py::ssize_t>(shape.batch)};
        const std::vector<py::ssize_t> state{one[0], static_cast<py::ssize_t>(shape.channels),
                                             static_cast<py::ssize_t>(shape.height),
                                             static_cast<py::ssize_t>(shape.width)};
        Request request;
        request.table = table;
        request.seeds = checked_values<std::uint64_t>("seeds", seeds, one);
        request.images = checked_values<std::uint64_t>("images", images, one);
        request.labels = checked_values("labels", labels, one);
        request.null_label = null_label;
        request.guidance = checked_values("guidance", guidance, one);
        request.classifier_scale = checked_values("classifier_scale", classifier_scale, one);
        request.initial = checked_values("initial", initial, state);
        request.known = checked_values("known", known, state);
        request.keep = checked_values("keep", keep, state);
        std::shared_ptr<PythonNoise> foreign;
        if (noise) {
          foreign = std::make_shared<PythonNoise>(*noise, state);
          request.noise = [foreign](std::int64_t draw, float* out) { (*foreign)(draw, out); };
        }
        self.begin(std::move(request), std::move(foreign));
      },
      py::call_guard<FloatState>(), py::arg("table").none(false), py::kw_only(), py::arg("seeds"),
      py::arg("images"), py::arg("labels") = py::none(), py::arg("null_label") = -1,
      py::arg("guidance") = py::none(), py::arg("classifier_scale") = py::none(),
      py::arg("initial") = py::none(), py::arg("known") = py::none(), py::arg("keep") = py::none(),
      py::arg("noise") = py::none(),
      R"doc(Start a chain from its first row; on an error the previous one stays as it was.

Args:
    table: the rows, and what all images share.
    seeds: uint64 (batch,).
    images: uint64 (batch,), indices in the galleries of their seeds.
    labels: int64 (batch,); None means null_label for all.
    null_label: label of the unconditional half.
    guidance: float32 (batch,), weights w; needed if and only if the chain is guided.
    classifier_scale: float32 (batch,), needed if and only if the chain has a classifier.
    initial: float32 (batch, C, H, W), x to start from instead of init_scale * z_0.
    known: float32 (batch, C, H, W), the image that rows with known columns keep.
    keep: uint8 (batch, C, H, W), not 0 where they keep it; given together with known.
    noise: called with the draw number (0: x_T, k + 1: row k, 2^31 + k: the known region in row k),
        returns float32 (batch, C, H, W) to use instead of Philox.

Raises:
    TypeError: an array has another dtype.
    ValueError: a shape or value does not fit.
    RuntimeError: the chain is running.)doc");
}

}  // namespace pysdk
