#include <pybind11/pybind11.h>

#include "bindings/bindings.h"

PYBIND11_MODULE(_native, module) {
  module.doc() = "The native half of pysdk: the reverse chain, its step table and the CPU engine.";
  pysdk::register_numerics(module);
  pysdk::register_stop(module);
  pysdk::register_denoisers(module);
  pysdk::register_step_table(module);
  pysdk::register_chain(module);
  pysdk::register_cuda(module);
  pysdk::register_likelihood(module);
  pysdk::register_program(module);
  pysdk::register_network(module);
}
