#include <pybind11/functional.h>
#include <pybind11/stl.h>
#include <pybind11/typing.h>

#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bindings/arrays.h"
#include "bindings/begin.h"
#include "bindings/bindings.h"
#include "bindings/chain_parts.h"
#include "bindings/device/device_array.h"
#include "bindings/device/device_network.h"
#include "cuda/cuda_chain.h"

namespace pysdk {

namespace {

cuda::CudaChain::Way way_of(const std::string& path) {
  using cuda::Path;
  if (path == "auto") return {Path::kWhile, false};
  if (path == "while") return {Path::kWhile, true};
  if (path == "step") return {Path::kStep, true};
  if (path == "plain") return {Path::kPlain, true};
  throw py::value_error("path is '" + path + "'; use 'auto', 'while', 'step' or 'plain'");
}

class BoundCudaChain {
 public:
  BoundCudaChain(std::shared_ptr<cuda::Device> device, const ChainShape& shape, const std::string& path)
      : way_(way_of(path)), chain_(std::move(device), shape) {}

  const ChainShape& shape() const { return chain_.shape(); }
  cuda::CudaChain& chain() { return chain_; }

  void attach(const Enqueue& denoiser, const OptionalEnqueue& conditional) {
    std::vector<std::shared_ptr<PythonDeviceDenoiser>> next;
    const auto wrap = [&](const OptionalEnqueue& callable) -> std::shared_ptr<DeviceDenoiser> {
      if (!callable) return nullptr;
      return next.emplace_back(std::make_shared<PythonDeviceDenoiser>(chain_.device(), *callable));
    };
    chain_.attach({wrap(denoiser), wrap(conditional)});
    networks_ = std::move(next);
  }

  void keep_snapshots(std::int32_t every, std::int32_t slots) {
    every_ = every;
    slots_ = slots;
  }

  void begin(Request request, std::shared_ptr<PythonNoise> noise) {
    {
      const py::gil_scoped_release release;
      chain_.begin(std::move(request), way_, every_, slots_);
    }
    noise_ = std::move(noise);
  }

  void launch(std::int64_t count, const OptionalStop& stop) {
    const py::gil_scoped_release release;
    chain_.launch(count, Interrupts(stop));
  }
  std::int64_t wait(std::int64_t row, double seconds, const OptionalStop& stop) {
    const py::gil_scoped_release release;
    return chain_.wait(row, seconds, Interrupts(stop));
  }
  std::int64_t advance(std::int64_t count, const OptionalStop& stop) {
    const py::gil_scoped_release release;
    return chain_.advance(count, Interrupts(stop));
  }

  py::array_t<float> snapshot(std::int64_t row, bool denoised) {
    py::array_t<float> result(state_shape());
    float* to = result.mutable_data();
    const py::gil_scoped_release release;
    chain_.read_snapshot(row, denoised, to);
    return result;
  }

  void copy_x(const DeviceArray& to, std::int64_t first, std::int64_t images) {
    require(to, "float32", first, images);
    const py::gil_scoped_release release;
    chain_.copy(*chain_.x(), static_cast<std::size_t>(images), *to.block(), static_cast<std::size_t>(first));
  }

  std::optional<std::int64_t> bytes(const std::optional<DeviceArray>& to, std::int64_t first,
                                    std::int64_t images, std::pair<double, double> value_range) {
    if (to) require(*to, "uint8", first, images);
    if (images < 0) throw py::value_error("images is negative");
    const py::gil_scoped_release release;
    const std::int64_t broken =
        chain_.bytes_of(static_cast<std::size_t>(images), value_range.first, value_range.second,
                        to ? to->block().get() : nullptr, static_cast<std::size_t>(first));
    return broken < 0 ? std::nullopt : std::optional(broken);
  }

  DeviceArray network_input() const { return {chain_.input(), network_shape(shape().channels), kFloat32}; }
  DeviceArray network_time() const { return {chain_.time(), {1}, kFloat32}; }
  DeviceArray network_labels() const { return {chain_.labels(), {network_batch()}, kInt64}; }
  DeviceArray network_output() const {
    return {chain_.output(), network_shape(shape().out_channels), kFloat32};
  }
  DeviceArray x() const { return {chain_.x(), state_shape(), kFloat32}; }
  DeviceArray denoised() const { return {chain_.d1(), state_shape(), kFloat32}; }

  const char* path() const {
    switch (chain_.path()) {
      case cuda::Path::kWhile:
        return "while";
      case cuda::Path::kStep:
        return "step";
      default:
        return "plain";
    }
  }

  int traverse(visitproc visit, void* arg) const {
    for (const auto& network : networks_) Py_VISIT(network->callable());
    if (noise_) Py_VISIT(noise_->callable());
    return 0;
  }
  void clear() {
    try {
      chain_.attach({});
    } catch (const cuda::Error&) {  // the device is lost; Python's collector takes no exception
    }
    chain_.forget_noise();
    networks_.clear();
    noise_.reset();
  }

 private:
  std::int64_t network_batch() const { return static_cast<std::int64_t>(shape().network_batch()); }
  std::vector<std::int64_t> network_shape(std::int64_t channels) const {
    return {network_batch(), channels, shape().height, shape().width};
  }
  std::vector<std::int64_t> state_shape() const {
    return {shape().batch, shape().channels, shape().height, shape().width};
  }
  // copy and bytes_of check the sizes
  void require(const DeviceArray& to, const std::string& dtype, std::int64_t first,
               std::int64_t images) const {
    if (to.dtype() != dtype) throw py::type_error("the array is " + to.dtype() + "; " + dtype + " is needed");
    if (first < 0 || images < 0) throw py::value_error("first and images must be 0 or more");
    if (&to.block()->device() != &chain_.device()) throw py::value_error("the array is on another device");
  }

  const cuda::CudaChain::Way way_;
  std::int32_t every_ = 0, slots_ = 0;
  cuda::CudaChain chain_;
  std::vector<std::shared_ptr<PythonDeviceDenoiser>> networks_;
  std::shared_ptr<PythonNoise> noise_;
};

}  // namespace

void register_cuda(py::module_& module) {
  const auto base = py::register_exception<cuda::Error>(module, "CudaError", PyExc_RuntimeError);
  py::register_exception<cuda::CaptureRefused>(module, "CaptureError", base);
  py::register_exception<cuda::OutOfMemory>(module, "CudaMemoryError", PyExc_MemoryError);
  register_device_array(module);
  register_devices(module);

  const auto forever = std::numeric_limits<double>::infinity();
  py::class_<BoundCudaChain> type(
      module, "CudaChain", py::custom_type_setup(collect_garbage<BoundCudaChain>), py::is_final(),
      R"doc(The reverse chain on a device; see `Chain`, whose arithmetic and bits it has.

Networks get the handle of the CUDA stream to enqueue themselves in. A chain belongs to one thread at
a time; a call while another is running raises RuntimeError.)doc");
  type.def(py::init([](std::shared_ptr<cuda::Device> device, std::int64_t batch,
                       const std::vector<std::int64_t>& shape, std::optional<std::int64_t> out_channels,
                       bool guided, const std::string& path) {
             return std::make_unique<BoundCudaChain>(
                 std::move(device), make_shape(batch, shape, out_channels, guided, false, 1), path);
           }),
           py::arg("device"), py::kw_only(), py::arg("batch"), py::arg("shape"),
           py::arg("out_channels") = py::none(), py::arg("guided") = false, py::arg("path") = "auto",
           R"doc(Allocate a chain.

Args:
    device: from `cuda_device`, or a `SimulatedDevice`.
    batch, shape, out_channels, guided: as for `Chain`.
    path: 'while' for one launch per chain, 'step' for one per row, 'plain' for plain calls; 'auto' takes
        the first of these that the driver and the networks allow, any other is taken or an error.

Raises:
    ValueError: a size is out of range, or there is no such path.
    MemoryError: the device has no room for the buffers.
    CudaError: the device failed.)doc")
      .def(
          "attach", &BoundCudaChain::attach, py::arg("denoiser"), py::kw_only(),
          py::arg("conditional") = py::none(),
          R"doc(Set the networks, as for `Chain`: callables with the handle of a CUDA stream, in which they enqueue
one run; the chain's device is the current one meanwhile. While the stream is captured they may do
nothing else. A result of False is a failure.

Raises:
    ValueError: the chain is not guided.
    RuntimeError: the chain is running.)doc")
      .def(
          "keep_snapshots", &BoundCudaChain::keep_snapshots, py::arg("every"), py::arg("slots"),
          R"doc(From the next begin on, keep x and D after every `every` rows and the last, the newest `slots` of
them; 0 and 0 for none.)doc")
      .def("launch", &BoundCudaChain::launch, py::call_guard<FloatState>(), py::arg("count"),
           py::arg("stop") = py::none(),
           R"doc(Enqueue up to `count` rows. On the path 'while' this is one launch and returns at once.

Raises:
    RuntimeError: no denoiser, no rows, or the chain is running already.
    CaptureError: the path asked for cannot be taken.
    CudaError: the device failed; no row is passed over in silence.)doc")
      .def(
          "wait", &BoundCudaChain::wait, py::call_guard<FloatState>(), py::arg("row"),
          py::arg("seconds") = forever, py::arg("stop") = py::none(),
          R"doc(Wait until `row` rows are done, all that were launched, or the time is over; return the rows done.

KeyboardInterrupt, or another exception of a signal, and `stop`, which raises StoppedError,
stop the chain within 16 rows.)doc")
      .def("advance", &BoundCudaChain::advance, py::call_guard<FloatState>(), py::arg("count"),
           py::arg("stop") = py::none(),
           "Launch up to `count` rows, wait for them, and return the number of rows done so far.")
      .def(
          "snapshot", &BoundCudaChain::snapshot, py::arg("row"), py::kw_only(), py::arg("denoised") = false,
          R"doc(Return x, or D, after `row` rows: float32 (batch, C, H, W), on the host. The chain may be running.

Raises:
    ValueError: there is no such snapshot, or a newer one took its place.)doc")
      .def("copy_x", &BoundCudaChain::copy_x, py::call_guard<FloatState>(), py::arg("to"), py::kw_only(),
           py::arg("first") = 0, py::arg("images"),
           "Copy the first `images` of x to images `first`, ... of a float32 array on the same device.")
      .def("bytes", &BoundCudaChain::bytes, py::call_guard<FloatState>(), py::arg("to"), py::kw_only(),
           py::arg("first") = 0, py::arg("images"), py::arg("value_range") = std::pair(-1.0, 1.0),
           R"doc(Convert the first `images` of x to bytes, as `pysdk.images.to_uint8`, on the device.

Args:
    to: uint8 (N, H, W, C), filled from image `first` on; None only looks for broken images.
    images: how many.
    value_range: (low, high), what becomes 0 and 255.

Returns:
    The first image that holds NaN or infinity, or None.)doc")
      .def_property_readonly("path", &BoundCudaChain::path,
                             "Path of the last launch: 'while', 'step' or 'plain'.")
      .def_property_readonly(
          "why", [](BoundCudaChain& self) { return self.chain().why(); },
          "Why not the path before it; empty if it is the best one, or the one asked for.")
      .def_property_readonly(
          "memory", [](BoundCudaChain& self) { return self.chain().bytes(); },
          "Bytes of device memory in use, without the networks'.")
      .def_property_readonly(
          "stream",
          [](BoundCudaChain& self) { return reinterpret_cast<std::uintptr_t>(self.chain().stream()); },
          "Handle of the CUDA stream.")
      .def_property_readonly(
          "position", [](BoundCudaChain& self) { return self.chain().position(); },
          "Rows done so far, also while the chain runs.")
      .def_property_readonly(
          "length", [](BoundCudaChain& self) { return self.chain().length(); },
          "Rows of the table; 0 before begin.")
      .def_property_readonly("network_input", &BoundCudaChain::network_input,
                             "float32 (NB, C, H, W), c_in * x; memory of the chain, the same for its life.")
      .def_property_readonly("network_time", &BoundCudaChain::network_time, "float32 (1,), t of the row.")
      .def_property_readonly("network_labels", &BoundCudaChain::network_labels, "int64 (NB,).")
      .def_property_readonly("network_output", &BoundCudaChain::network_output,
                             "float32 (NB, out_channels, H, W), to be filled by the denoiser.")
      .def_property_readonly("x", &BoundCudaChain::x, "float32 (batch, C, H, W), the current sample.")
      .def_property_readonly("denoised", &BoundCudaChain::denoised,
                             "float32 (batch, C, H, W), D of the last row.");
  def_begin<BoundCudaChain>(type);
}

}  // namespace pysdk
