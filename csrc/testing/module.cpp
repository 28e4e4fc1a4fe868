#include <pybind11/pybind11.h>

#include "testing/testing.h"

PYBIND11_MODULE(_testing, module) {
  module.doc() = "What only tests use of the native half: a simulated device, and the noise by itself.";
  pybind11::module_::import("pysdk._native");  // has the types that this one's derive from
  pysdk::register_noise(module);
  pysdk::register_simulated_device(module);
}
