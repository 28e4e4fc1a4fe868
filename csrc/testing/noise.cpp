// The noise and e^x by themselves, from the same objects as the chain's.
#include <pybind11/stl.h>

#include <algorithm>

#include "base/float_state.h"
#include "bindings/arrays.h"
#include "bindings/interrupts.h"
#include "chain/kernels.h"
#include "noise/philox.h"
#include "testing/testing.h"

namespace pysdk {

namespace {

constexpr std::int64_t kMaxElements = std::int64_t{1} << 33;

py::array_t<std::uint32_t> bind_philox(std::uint64_t seed, const NdArray<std::uint32_t>& counters) {
  const auto in = checked<std::uint32_t>("counters", counters, {-1, 4});
  py::array_t<std::uint32_t> out({in.shape(0), py::ssize_t{4}});
  for (py::ssize_t i = 0; i < in.shape(0); ++i) {
    const std::uint32_t* c = in.data(i, 0);
    const Words words = philox({c[0], c[1], c[2], c[3]}, seed);
    std::uint32_t* to = out.mutable_data(i, 0);
    to[0] = words.w0, to[1] = words.w1, to[2] = words.w2, to[3] = words.w3;
  }
  return out;
}

py::array_t<float> bind_normal(std::uint64_t seed, const NdArray<std::uint64_t>& images, std::uint32_t draw,
                               const std::vector<std::int64_t>& shape) {
  const auto indices = checked<std::uint64_t>("images", images, {-1});
  std::vector<py::ssize_t> full{indices.shape(0)};
  std::int64_t total = std::max<std::int64_t>(indices.shape(0), 1);
  for (const std::int64_t size : shape) {
    if (size < 0) throw py::value_error("shape holds " + std::to_string(size) + "; sizes are 0 or more");
    if (size > kMaxElements || (total *= std::max<std::int64_t>(size, 1)) > kMaxElements) {
      throw py::value_error("shape is too large; the result would have more than 2^33 elements");
    }
    full.push_back(static_cast<py::ssize_t>(size));
  }
  py::array_t<float> out(full);
  float* to = out.mutable_data();
  const std::uint64_t* image = indices.data();
  const py::ssize_t n = indices.shape(0);
  const std::size_t count = n == 0 ? 0 : static_cast<std::size_t>(out.size() / n);
  const py::gil_scoped_release release;
  Watch watch{Interrupts()};
  for (py::ssize_t i = 0; i < n; ++i) {
    if (watch.look()) watch.leave();
    kernels().fill_normal({seed, image[i], draw}, count, to + i * count);
  }
  return out;
}

py::array_t<float> bind_exp(const NdArray<float>& x) {
  const auto in = checked<float>("x", x, {-1});
  py::array_t<float> out(in.size());
  kernels().exp(in.data(), static_cast<std::size_t>(in.size()), out.mutable_data());
  return out;
}

}  // namespace

void register_noise(py::module_& module) {
  module.def("philox", &bind_philox, py::arg("seed"), py::arg("counters"),
             R"doc(Return Philox4x32-10 of each counter under the key `seed`.

Args:
    seed: 64-bit key, low word first.
    counters: uint32 (n, 4).

Returns:
    uint32 (n, 4).)doc");
  module.def("normal", &bind_normal, py::call_guard<FloatState>(), py::arg("seed"), py::arg("images"),
             py::arg("draw"), py::arg("shape"),
             R"doc(Return the standard normals of some images of a seed's gallery in one draw.

Args:
    seed: 64-bit seed.
    images: uint64 (n,), indices in the gallery.
    draw: 0 for x_T, k + 1 for row k.
    shape: that of one image, usually (C, H, W).

Returns:
    float32 (n, *shape).)doc");
  module.def("exp", &bind_exp, py::call_guard<FloatState>(), py::arg("x"),
             R"doc(Return e^x as in learned variance: saturates below -87 and above 88.

Args:
    x: float32 (n,).

Returns:
    float32 (n,).)doc");
}

}  // namespace pysdk
