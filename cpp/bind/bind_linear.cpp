// PackedLinear for the Python layer, which has made x two-dimensional.
#include <pybind11/stl.h>

#include "numattn/linear.h"
#include "numpy_view.h"

namespace numattn::bind {
namespace {

py::array run_linear(const PackedLinear& linear, const py::array& x, const std::string& activation,
                     const py::object& residual, const py::object& out, int num_threads) {
  PackedLinear::Call call;
  call.x = view_of(x, "x");
  call.activation = activation;
  call.residual = known_view(residual, "residual");
  call.num_threads = num_threads;
  const py::array output = output_or_new(out, x, {x.shape(0), linear.out_features()});
  call.output = output_view(output, "out");
  run_unlocked([&] { return linear.run(call, interrupted); });
  return output;
}

}  // namespace

void bind_linear(py::module_& module) {
  py::class_<PackedLinear>(module, "PackedLinear")
      .def(py::init([](const py::array& weight, const py::object& bias, const std::string& storage,
                       const std::string& precision) {
        return std::make_unique<PackedLinear>(view_of(weight, "weight"), known_view(bias, "bias"),
                                              parse_storage(storage), parse_precision(precision));
      }))
      .def("run", &run_linear)
      .def_property_readonly("in_features", &PackedLinear::in_features)
      .def_property_readonly("out_features", &PackedLinear::out_features);
}

}  // namespace numattn::bind
