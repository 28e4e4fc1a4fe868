// What module.cpp registers, one function per binding file.
#pragma once

#include <pybind11/pybind11.h>

namespace pysdk {

void register_chain(pybind11::module_& module);
void register_cuda(pybind11::module_& module);
void register_devices(pybind11::module_& module);
void register_likelihood(pybind11::module_& module);
void register_network(pybind11::module_& module);
void register_denoisers(pybind11::module_& module);
void register_numerics(pybind11::module_& module);
void register_program(pybind11::module_& module);
void register_step_table(pybind11::module_& module);
void register_stop(pybind11::module_& module);

}  // namespace pysdk
