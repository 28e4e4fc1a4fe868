#include <pybind11/stl.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include "bindings/arrays.h"
#include "bindings/bindings.h"
#include "bindings/chain_parts.h"
#include "likelihood/bound.h"

namespace pysdk {

namespace {

class BoundBound {
 public:
  explicit BoundBound(const ChainShape& shape) : bound_(shape) {}

  void attach(const AnyNetwork& denoiser) {
    Attached next(denoiser);
    bound_.attach(std::move(next.denoiser));
    denoiser_ = std::move(next.python);
  }

  void begin(const NdArray<double>& rows, const NdArray<std::uint8_t>& pixels,
             const NdArray<std::uint64_t>& seeds, const NdArray<std::uint64_t>& images, bool learned_variance,
             double clip_limit, double value_low, double value_high,
             const std::optional<NdArray<std::int64_t>>& labels) {
    const auto batch = static_cast<py::ssize_t>(shape().batch);
    const auto columns = static_cast<py::ssize_t>(kBoundColumns.size());
    BoundRequest request;
    const auto table = checked<double>("rows", rows, {-1, columns});
    const auto* first = reinterpret_cast<const BoundRow*>(table.data());
    request.rows.assign(first, first + table.shape(0));
    request.learned_variance = learned_variance;
    request.clip_limit = clip_limit;
    request.value_low = value_low;
    request.value_high = value_high;
    request.pixels = checked_values<std::uint8_t>("pixels", pixels, sizes(batch, shape().channels));
    request.seeds = checked_values<std::uint64_t>("seeds", seeds, {batch});
    request.images = checked_values<std::uint64_t>("images", images, {batch});
    if (labels) request.labels = checked_values<std::int64_t>("labels", *labels, {batch});
    const py::gil_scoped_release release;
    bound_.begin(std::move(request));
  }

  std::int64_t advance(std::int64_t count, const OptionalStop& stop) {
    const py::gil_scoped_release release;
    Watch watch{Interrupts(stop)};
    return bound_.advance(count, watch);
  }

  std::int64_t position() const { return bound_.position(); }
  std::int64_t length() const { return bound_.length(); }
  py::array_t<double> terms() { return copy(bound_.terms()); }
  py::array_t<double> errors() { return copy(bound_.errors()); }

  py::array_t<float> network_input() const {
    return buffer_view(bound_.buffers(), bound_.buffers()->input, sizes(shape().batch, shape().channels),
                       true);
  }
  py::array_t<float> network_time() const {
    return buffer_view(bound_.buffers(), bound_.buffers()->time, {1}, true);
  }
  py::array_t<std::int64_t> network_labels() const {
    return buffer_view(bound_.buffers(), bound_.buffers()->labels, {static_cast<py::ssize_t>(shape().batch)},
                       true);
  }
  py::array_t<float> network_output() const {
    return buffer_view(bound_.buffers(), bound_.buffers()->output, sizes(shape().batch, shape().out_channels),
                       true);
  }

  int traverse(visitproc visit, void* arg) const {
    if (denoiser_) Py_VISIT(denoiser_->callable());
    return 0;
  }
  void clear() {
    bound_.attach(nullptr);
    denoiser_.reset();
  }

 private:
  const ChainShape& shape() const { return bound_.shape(); }
  std::vector<py::ssize_t> sizes(std::int64_t batch, std::int64_t channels) const {
    return {static_cast<py::ssize_t>(batch), static_cast<py::ssize_t>(channels),
            static_cast<py::ssize_t>(shape().height), static_cast<py::ssize_t>(shape().width)};
  }
  py::array_t<double> copy(const std::vector<double>& values) const {
    return py::array_t<double>({static_cast<py::ssize_t>(shape().batch), static_cast<py::ssize_t>(length())},
                               values.data());
  }

  VariationalBound bound_;
  std::shared_ptr<PythonDenoiser> denoiser_;
};

}  // namespace

void register_likelihood(py::module_& module) {
  py::tuple columns(kBoundColumns.size());
  for (std::size_t i = 0; i < kBoundColumns.size(); ++i) columns[i] = py::str(kBoundColumns[i]);
  module.attr("BOUND_COLUMNS") = columns;

  py::class_<BoundBound>(module, "Bound", py::custom_type_setup(collect_garbage<BoundBound>), py::is_final(),
                         R"doc(Terms of the variational bound of one batch of images on the CPU.

A bound belongs to one thread at a time; a call while another is running raises RuntimeError.)doc")
      .def(py::init([](std::int64_t batch, const std::vector<std::int64_t>& shape,
                       std::optional<std::int64_t> out_channels, std::int64_t threads) {
             return std::make_unique<BoundBound>(
                 make_shape(batch, shape, out_channels, false, false, threads));
           }),
           py::kw_only(), py::arg("batch"), py::arg("shape"), py::arg("out_channels") = py::none(),
           py::arg("threads") = 1,
           R"doc(Allocate a bound.

Args:
    batch: images per batch.
    shape: (C, H, W) of one image.
    out_channels: the network's, C or 2C; C when None.
    threads: for everything but the network.

Raises:
    ValueError: a size is out of range.
    MemoryError: the buffers do not fit in memory.)doc")
      .def_static(
          "most_bytes",
          [](std::int64_t batch, const std::vector<std::int64_t>& shape,
             std::optional<std::int64_t> out_channels, std::int64_t threads, std::int64_t rows) {
            const ChainShape made = make_shape(batch, shape, out_channels, false, false, threads);
            made.validate();
            return VariationalBound::most_bytes(made,
                                                static_cast<std::size_t>(std::max<std::int64_t>(rows, 0)));
          },
          py::kw_only(), py::arg("batch"), py::arg("shape"), py::arg("out_channels") = py::none(),
          py::arg("threads") = 1, py::arg("rows"),
          R"doc(Bytes of such a bound with so many rows, whatever it is begun with.

Raises:
    ValueError: a size is out of range.)doc")
      .def(
          "attach", &BoundBound::attach, py::arg("denoiser"),
          R"doc(Set the network: a Denoiser, or a callable without arguments, that reads network_input, network_time and
network_labels and fills network_output. Its result is ignored.)doc")
      .def("begin", &BoundBound::begin, py::call_guard<FloatState>(), py::arg("rows"), py::kw_only(),
           py::arg("pixels"), py::arg("seeds"), py::arg("images"), py::arg("learned_variance") = false,
           py::arg("clip_limit"), py::arg("value_low") = -1.0, py::arg("value_high") = 1.0,
           py::arg("labels") = py::none(),
           R"doc(Start from the first row; on an error the previous request stays as it was.

Row, in float64 but for x_t: x_t = signal x_0 + noise z with z of draw 0xF0000000 + t;
D = clamp(p x_t + q f); log variance = log_high, or with learned variance
l log_high + (1 - l) log_low, l = (v + 1) / 2. The term is
KL(N(from_x0 x_0, exp(log_posterior)) || N(from_x0 D, exp(log variance))), or with decoder = 1
-log of the mass of N(D, exp(log variance)) in the bin of x_0.

Args:
    rows: float64 (K, len(BOUND_COLUMNS)).
    pixels: uint8 (batch, C, H, W).
    seeds: uint64 (batch,).
    images: uint64 (batch,), indices in the galleries of their seeds.
    learned_variance: the second half of the network's channels is v; needs out_channels = 2C.
    clip_limit: for D, above 0; infinity for none.
    value_low, value_high: what the levels 0 and 255 are to the network.
    labels: int64 (batch,).

Raises:
    TypeError: an array has another dtype.
    ValueError: a shape or value does not fit.
    RuntimeError: the bound is running.)doc")
      .def("advance", &BoundBound::advance, py::call_guard<FloatState>(), py::arg("count"),
           py::arg("stop") = py::none(),
           R"doc(Run up to `count` rows and return the number of rows done so far.

The GIL is released except in the denoiser. When the denoiser or a signal handler raises, the
exception comes out here and the failed row may be run again.

Raises:
    StoppedError: `stop` was asked for, or its time is up.
    RuntimeError: no denoiser, no rows, or the bound is running already.)doc")
      .def_property_readonly("position", &BoundBound::position, "Rows done so far.")
      .def_property_readonly("length", &BoundBound::length, "Rows of the request; 0 before begin.")
      .def_property_readonly(
          "terms", &BoundBound::terms,
          "float64 (batch, K), nats summed over an image's elements, a copy; 0 in rows not done.")
      .def_property_readonly("errors", &BoundBound::errors,
                             "float64 (batch, K), sum of (x_0 - D)^2, a copy; 0 in rows not done.")
      .def_property_readonly("network_input", &BoundBound::network_input,
                             "float32 (batch, C, H, W), x_t; memory of the bound, the same for its life.")
      .def_property_readonly("network_time", &BoundBound::network_time, "float32 (1,), t of the row.")
      .def_property_readonly("network_labels", &BoundBound::network_labels, "int64 (batch,).")
      .def_property_readonly("network_output", &BoundBound::network_output,
                             "float32 (batch, out_channels, H, W), to be filled by the denoiser.");
}

}  // namespace pysdk
