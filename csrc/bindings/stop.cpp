#include <pybind11/stl.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>
#include <optional>
#include <string>

#include "bindings/bindings.h"
#include "bindings/interrupts.h"

namespace pysdk {

namespace {

std::shared_ptr<Stop> make_stop(std::optional<double> seconds) {
  if (!seconds) return std::make_shared<Stop>();
  if (!(*seconds > 0.0 && std::isfinite(*seconds))) {
    throw py::value_error("seconds is " + std::to_string(*seconds) + "; it must be above 0 and finite");
  }
  // a century is forever, and fits
  const std::chrono::duration<double> left(std::min(*seconds, 100.0 * 365 * 86400));
  return std::make_shared<Stop>(Stop::Clock::now() + std::chrono::duration_cast<Stop::Clock::duration>(left));
}

}  // namespace

void register_stop(py::module_& module) {
  py::register_exception<Stopped>(module, "StoppedError", PyExc_RuntimeError).attr("__doc__") =
      "A call was left early because of its Stop.";
  py::class_<Stop, std::shared_ptr<Stop>>(
      module, "Stop", py::is_final(),
      "A wish that calls end early, of any thread, and a time at which they do.")
      .def(py::init(&make_stop), py::arg("seconds") = py::none(),
           R"doc(Count from now.

Args:
    seconds: after which calls end; never when None.

Raises:
    ValueError: seconds is not a finite number above 0.)doc")
      .def("ask", &Stop::ask, "Let the calls that have it raise StoppedError soon, and later ones at once.")
      .def_property_readonly("asked", &Stop::asked, "Whether `ask` was called.")
      .def_property_readonly("late", &Stop::late, "Whether the time is up.");
}

}  // namespace pysdk
