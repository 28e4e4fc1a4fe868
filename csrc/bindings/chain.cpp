#include <pybind11/functional.h>
#include <pybind11/stl.h>
#include <pybind11/typing.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "bindings/arrays.h"
#include "bindings/bindings.h"
#include "bindings/chain_parts.h"
#include "chain/cpu_chain.h"

namespace pysdk {

namespace {

using Noise = py::typing::Callable<NdArray<float>(py::int_)>;

// Foreign noise behind a Python callable.
class PythonNoise {
 public:
  PythonNoise(py::object callable, std::vector<py::ssize_t> shape)
      : callable_(std::move(callable)), shape_(std::move(shape)) {}
  void operator()(std::int64_t draw, float* out) const {
    const py::gil_scoped_acquire gil;
    const auto array = checked<float>("the array returned by noise", callable_(draw), shape_);
    std::copy_n(array.data(), array.size(), out);
  }
  PyObject* callable() const { return callable_.ptr(); }

 private:
  py::object callable_;
  std::vector<py::ssize_t> shape_;
};

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

  void begin(const NdArray<float>& rows, const std::string& clip, float clip_limit, double clip_ratio,
             float clip_max, bool learned_variance, float init_scale, const NdArray<std::uint64_t>& seeds,
             const NdArray<std::uint64_t>& images, const std::optional<NdArray<std::int64_t>>& labels,
             std::int64_t null_label, const std::optional<NdArray<float>>& guidance,
             const std::optional<NdArray<float>>& classifier_scale,
             const std::optional<NdArray<float>>& initial, const std::optional<NdArray<float>>& known,
             const std::optional<NdArray<std::uint8_t>>& keep, const std::optional<Noise>& noise) {
    const auto batch = static_cast<py::ssize_t>(chain_.shape().batch);
    Program program;
    const auto table = checked<float>("rows", rows, {-1, static_cast<py::ssize_t>(kStepColumns.size())});
    const auto* first = reinterpret_cast<const Row*>(table.data());
    program.rows.assign(first, first + table.shape(0));
    program.clip = clip_kind(clip);
    program.clip_limit = clip_limit;
    program.clip_ratio = clip_ratio;
    program.clip_max = clip_max;
    program.learned_variance = learned_variance;
    program.init_scale = init_scale;
    program.seeds = checked_values<std::uint64_t>("seeds", seeds, {batch});
    program.images = checked_values<std::uint64_t>("images", images, {batch});
    if (labels) program.labels = checked_values<std::int64_t>("labels", *labels, {batch});
    program.null_label = null_label;
    if (guidance) program.guidance = checked_values<float>("guidance", *guidance, {batch});
    if (classifier_scale) {
      program.classifier_scale = checked_values<float>("classifier_scale", *classifier_scale, {batch});
    }
    if (initial) program.initial = checked_values<float>("initial", *initial, state_shape());
    if (known) program.known = checked_values<float>("known", *known, state_shape());
    if (keep) program.keep = checked_values<std::uint8_t>("keep", *keep, state_shape());
    std::shared_ptr<PythonNoise> next;
    if (noise) {
      next = std::make_shared<PythonNoise>(*noise, state_shape());
      program.noise = [next](std::int64_t draw, float* out) { (*next)(draw, out); };
    }
    {
      const py::gil_scoped_release release;
      chain_.begin(std::move(program));
    }
    noise_ = std::move(next);
  }

  std::int64_t advance(std::int64_t count) {
    const py::gil_scoped_release release;
    return chain_.advance(count, SignalTimer());
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
  static ClipKind clip_kind(const std::string& name) {
    if (name == "none") return ClipKind::kNone;
    if (name == "clamp") return ClipKind::kClamp;
    if (name == "dynamic") return ClipKind::kDynamic;
    throw py::value_error("clip is '" + name + "'; use 'none', 'clamp' or 'dynamic'");
  }

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
  py::tuple columns(kStepColumns.size());
  for (std::size_t i = 0; i < kStepColumns.size(); ++i) columns[i] = py::str(kStepColumns[i]);
  module.attr("STEP_COLUMNS") = columns;

  py::class_<Denoiser, std::shared_ptr<Denoiser>>(module, "Denoiser",
                                                  "A network that a chain runs natively.");
  py::class_<BoundChain>(
      module, "Chain", py::custom_type_setup(collect_garbage<BoundChain>), py::is_final(),
      "The reverse chain on the CPU: rows of a step table over one batch of images.\n\n"
      "NB = 2 * batch when guided (conditional half first), else batch. A chain belongs to one\n"
      "thread at a time; a call while another is running raises RuntimeError.")
      .def(py::init([](std::int64_t batch, const std::vector<std::int64_t>& shape,
                       std::optional<std::int64_t> out_channels, bool guided, bool classifier,
                       std::int64_t threads) {
             return std::make_unique<BoundChain>(
                 make_shape(batch, shape, out_channels, guided, classifier, threads));
           }),
           py::kw_only(), py::arg("batch") = 16, py::arg("shape"), py::arg("out_channels") = py::none(),
           py::arg("guided") = false, py::arg("classifier") = false, py::arg("threads") = 1,
           "Allocate a chain.\n\n"
           "Args:\n"
           "    batch: images per batch.\n"
           "    shape: (C, H, W) of one image.\n"
           "    out_channels: of the network, C or 2C; C when None.\n"
           "    guided: classifier-free guidance, the network runs on 2 * batch images.\n"
           "    classifier: rows may use the gradient of a classifier.\n"
           "    threads: of the update; used from 32768 elements per batch on.\n\n"
           "Raises:\n"
           "    ValueError: a size is out of range.\n"
           "    MemoryError: the buffers do not fit in memory.")
      .def("attach", &BoundChain::attach, py::arg("denoiser"), py::kw_only(),
           py::arg("conditional") = py::none(), py::arg("classifier") = py::none(),
           "Set the networks: Denoisers, or callables without arguments whose results are ignored.\n\n"
           "Args:\n"
           "    denoiser: reads network_input, network_time and network_labels and fills network_output.\n"
           "    conditional: the same for the first `batch` images only, the conditional half; called in\n"
           "        unguided rows of a guided chain, where the denoiser is called without it.\n"
           "    classifier: reads the conditional half too and fills classifier_gradient; called in rows\n"
           "        with a grad column.\n\n"
           "Raises:\n"
           "    ValueError: the chain is not guided, or was made without a classifier.\n"
           "    RuntimeError: the chain is running.")
      .def("begin", &BoundChain::begin, py::arg("rows"), py::kw_only(), py::arg("clip") = "none",
           py::arg("clip_limit") = 1.0f, py::arg("clip_ratio") = 0.995,
           py::arg("clip_max") = std::numeric_limits<float>::infinity(), py::arg("learned_variance") = false,
           py::arg("init_scale") = 1.0f, py::arg("seeds"), py::arg("images"), py::arg("labels") = py::none(),
           py::arg("null_label") = -1, py::arg("guidance") = py::none(),
           py::arg("classifier_scale") = py::none(), py::arg("initial") = py::none(),
           py::arg("known") = py::none(), py::arg("keep") = py::none(), py::arg("noise") = py::none(),
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
           "    RuntimeError: the chain is running.")
      .def("advance", &BoundChain::advance, py::arg("count"),
           "Run up to `count` rows and return the number of rows done so far.\n\n"
           "The GIL is released except in the denoiser. When the denoiser, the noise or a signal handler "
           "raises, the\n"
           "exception comes out here, the rows before stay done and the failed row may be run again.\n\n"
           "Raises:\n"
           "    RuntimeError: no denoiser, no rows, or the chain is running already.")
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
}

}  // namespace pysdk
