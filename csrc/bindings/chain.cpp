#include <pybind11/functional.h>
#include <pybind11/stl.h>
#include <pybind11/typing.h>

#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "bindings/arrays.h"
#include "bindings/begin.h"
#include "bindings/bindings.h"
#include "bindings/chain_parts.h"
#include "chain/cpu_chain.h"

namespace pysdk {

namespace {

class BoundChain {
 public:
  explicit BoundChain(const ChainShape& shape) : chain_(shape) {}

  void attach(const AnyNetwork& denoiser, const std::optional<AnyNetwork>& conditional,
              const std::optional<AnyNetwork>& classifier) {
    std::vector<std::shared_ptr<PythonDenoiser>> next;
    const auto take = [&next](const std::optional<AnyNetwork>& network) -> std::shared_ptr<Denoiser> {
      if (!network) return nullptr;
      Attached taken(*network);
      if (taken.python) next.push_back(taken.python);
      return taken.denoiser;
    };
    chain_.attach({take(denoiser), take(conditional), take(classifier)});
    networks_ = std::move(next);
  }

  void begin(Request request, std::shared_ptr<PythonNoise> noise) {
    {
      const py::gil_scoped_release release;
      Watch watch{Interrupts()};
      chain_.begin(std::move(request), watch);
    }
    noise_ = std::move(noise);
  }

  std::int64_t advance(std::int64_t count, const OptionalStop& stop) {
    const py::gil_scoped_release release;
    Watch watch{Interrupts(stop)};
    return chain_.advance(count, watch);
  }

  std::int64_t position() const { return chain_.position(); }
  std::int64_t length() const { return chain_.length(); }
  const ChainShape& shape() const { return chain_.shape(); }

  py::array_t<float> network_input() const {
    return view(buffers().input, network_shape(shape().channels), true);
  }
  py::array_t<float> network_time() const { return view(buffers().time, {1}, true); }
  py::array_t<std::int64_t> network_labels() const {
    return view(buffers().labels, {static_cast<py::ssize_t>(shape().network_batch())}, true);
  }
  py::array_t<float> network_output() const {
    return view(buffers().output, network_shape(shape().out_channels), true);
  }
  py::array_t<float> classifier_gradient() const {
    if (!shape().classifier)
      throw py::value_error("the chain has no classifier; make it with classifier=True");
    return view(buffers().gradient, state_shape(), true);
  }
  py::array_t<float> x() const { return view(buffers().x, state_shape(), false); }
  py::array_t<float> denoised() const { return view(buffers().d1, state_shape(), false); }

  // The garbage collector's view: a denoiser usually refers to its chain, so they form a cycle.
  int traverse(visitproc visit, void* arg) const {
    for (const auto& network : networks_) Py_VISIT(network->callable());
    if (noise_) Py_VISIT(noise_->callable());
    return 0;
  }
  // Only called when nothing else refers to the chain.
  void clear() {
    chain_.attach({});
    chain_.forget_noise();
    networks_.clear();
    noise_.reset();
  }

 private:
  const ChainBuffers& buffers() const { return *chain_.buffers(); }

  std::vector<py::ssize_t> network_shape(std::int64_t channels) const {
    return {static_cast<py::ssize_t>(shape().network_batch()), static_cast<py::ssize_t>(channels),
            static_cast<py::ssize_t>(shape().height), static_cast<py::ssize_t>(shape().width)};
  }
  std::vector<py::ssize_t> state_shape() const {
    return {static_cast<py::ssize_t>(shape().batch), static_cast<py::ssize_t>(shape().channels),
            static_cast<py::ssize_t>(shape().height), static_cast<py::ssize_t>(shape().width)};
  }

  template <typename T>
  py::array_t<T> view(const AlignedArray<T>& array, const std::vector<py::ssize_t>& shape,
                      bool writeable) const {
    return buffer_view(chain_.buffers(), array, shape, writeable);
  }

  CpuChain chain_;
  std::vector<std::shared_ptr<PythonDenoiser>> networks_;
  std::shared_ptr<PythonNoise> noise_;
};

}  // namespace

void register_chain(py::module_& module) {
  py::class_<BoundChain> type(
      module, "Chain", py::custom_type_setup(collect_garbage<BoundChain>), py::is_final(),
      R"doc(The reverse chain on the CPU: rows of a step table over one batch of images.

NB = 2 * batch when guided (conditional half first), else batch. A chain belongs to one
thread at a time; a call while another is running raises RuntimeError.)doc");
  type.def(py::init([](std::int64_t batch, const std::vector<std::int64_t>& shape,
                       std::optional<std::int64_t> out_channels, bool guided, bool classifier,
                       std::int64_t threads) {
             return std::make_unique<BoundChain>(
                 make_shape(batch, shape, out_channels, guided, classifier, threads));
           }),
           py::kw_only(), py::arg("batch"), py::arg("shape"), py::arg("out_channels") = py::none(),
           py::arg("guided") = false, py::arg("classifier") = false, py::arg("threads") = 1,
           R"doc(Allocate a chain.

Args:
    batch: images per batch.
    shape: (C, H, W) of one image.
    out_channels: the network's, C or 2C; C when None.
    guided: classifier-free guidance, the network runs on 2 * batch images.
    classifier: rows may use the gradient of a classifier.
    threads: for the update; used from 32768 elements per batch on.

Raises:
    ValueError: a size is out of range.
    MemoryError: the buffers do not fit in memory.)doc")
      .def_static(
          "most_bytes",
          [](std::int64_t batch, const std::vector<std::int64_t>& shape,
             std::optional<std::int64_t> out_channels, bool guided, bool classifier, std::int64_t threads,
             std::int64_t rows) {
            const ChainShape made = make_shape(batch, shape, out_channels, guided, classifier, threads);
            made.validate();
            return made.most_bytes(static_cast<std::size_t>(std::max<std::int64_t>(rows, 0)));
          },
          py::kw_only(), py::arg("batch"), py::arg("shape"), py::arg("out_channels") = py::none(),
          py::arg("guided") = false, py::arg("classifier") = false, py::arg("threads") = 1, py::arg("rows"),
          R"doc(Bytes of such a chain with a table of so many rows, whatever it is begun with.

Raises:
    ValueError: a size is out of range.)doc")
      .def("attach", &BoundChain::attach, py::arg("denoiser"), py::kw_only(),
           py::arg("conditional") = py::none(), py::arg("classifier") = py::none(),
           R"doc(Set the networks: Denoisers, or callables without arguments whose results are ignored.

Args:
    denoiser: reads network_input, network_time and network_labels and fills network_output.
    conditional: the same for the first `batch` images only, the conditional half; called in
        unguided rows of a guided chain, where the denoiser is called without it.
    classifier: reads the conditional half too and fills classifier_gradient; called in rows
        with a grad column.

Raises:
    ValueError: the chain is not guided, or was made without a classifier.
    RuntimeError: the chain is running.)doc")
      .def("advance", &BoundChain::advance, py::call_guard<FloatState>(), py::arg("count"),
           py::arg("stop") = py::none(),
           R"doc(Run up to `count` rows and return the number of rows done so far.

The GIL is released except in the denoiser. When the denoiser, the noise or a signal handler raises, the
exception comes out here, the rows before stay done and the failed row may be run again; only of a
batch of 2^26 elements or more a row may be left halfway, and then the chain needs a new begin.

Raises:
    StoppedError: `stop` was asked for, or its time is up.
    RuntimeError: no denoiser, no rows, or the chain is running already.)doc")
      .def_property_readonly("position", &BoundChain::position, "Rows done so far.")
      .def_property_readonly("length", &BoundChain::length, "Rows of the table; 0 before begin.")
      .def_property_readonly("network_input", &BoundChain::network_input,
                             "float32 (NB, C, H, W), c_in * x; memory of the chain, the same for its life.")
      .def_property_readonly("network_time", &BoundChain::network_time, "float32 (1,), t of the row.")
      .def_property_readonly("network_labels", &BoundChain::network_labels, "int64 (NB,).")
      .def_property_readonly("network_output", &BoundChain::network_output,
                             "float32 (NB, out_channels, H, W), to be filled by the denoiser.")
      .def_property_readonly(
          "classifier_gradient", &BoundChain::classifier_gradient,
          "float32 (batch, C, H, W), to be filled by the classifier. ValueError without one.")
      .def_property_readonly("x", &BoundChain::x,
                             "float32 (batch, C, H, W), read-only view of the current sample.")
      .def_property_readonly("denoised", &BoundChain::denoised,
                             "float32 (batch, C, H, W), read-only view of D of the last row.");
  def_begin<BoundChain>(type);
}

}  // namespace pysdk
