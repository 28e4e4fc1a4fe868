// What module.cpp registers.
#pragma once

#include <pybind11/pybind11.h>

namespace pysdk {

void register_noise(pybind11::module_& module);
void register_simulated_device(pybind11::module_& module);

}  // namespace pysdk
