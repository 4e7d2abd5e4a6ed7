// Normalisations, for the Python layer that has made x two-dimensional, and activations, of one
// dimension.
#include "interpreter.h"
#include "numattn/activation.h"
#include "numattn/norm.h"
#include "numpy_view.h"
#include "steps.h"

namespace numattn::bind {
namespace {

// The normalisation without its output.
NormParams params_of(Norm kind, const py::array& x, const py::array& weight, const py::object& bias,
                     double epsilon, int num_threads) {
  NormParams params;
  params.kind = kind;
  params.x = view_of(x, "x");
  params.weight = view_of(weight, "weight");
  params.bias = known_view(bias, "bias");
  params.epsilon = epsilon;
  params.num_threads = num_threads;
  return params;
}

py::array norm(Norm kind, const py::array& x, const py::array& weight, const py::object& bias,
               double epsilon, const py::object& out, int num_threads) {
  NormParams params = params_of(kind, x, weight, bias, epsilon, num_threads);
  const py::array output = output_or_new(out, x, {x.shape(0), x.shape(1)});
  params.output = output_view(output, "out");
  run_unlocked([&] { return run_norm(params, interrupted); });
  return output;
}

py::array layer_norm(const py::array& x, const py::array& weight, const py::object& bias,
                     double epsilon, const py::object& out, int num_threads) {
  return norm(Norm::kLayer, x, weight, bias, epsilon, out, num_threads);
}

py::array rms_norm(const py::array& x, const py::array& weight, double epsilon,
                   const py::object& out, int num_threads) {
  return norm(Norm::kRms, x, weight, py::none(), epsilon, out, num_threads);
}

py::array add_norm(Norm kind, Steps& steps, const py::array& x, const py::array& weight,
                   const py::object& bias, double epsilon, const py::object& out) {
  NormParams params = params_of(kind, x, weight, bias, epsilon, steps.num_threads());
  const py::array output = output_or_new(out, x, {x.shape(0), x.shape(1)});
  params.output = output_view(output, "out");
  steps.add([params] { return run_norm(params, interrupted); }, {x, weight, bias, output});
  return output;
}

py::array add_layer_norm(Steps& steps, const py::array& x, const py::array& weight,
                         const py::object& bias, double epsilon, const py::object& out) {
  return add_norm(Norm::kLayer, steps, x, weight, bias, epsilon, out);
}

py::array add_rms_norm(Steps& steps, const py::array& x, const py::array& weight, double epsilon,
                       const py::object& out) {
  return add_norm(Norm::kRms, steps, x, weight, py::none(), epsilon, out);
}

void activate(const py::array& x, const std::string& activation, const py::array& out,
              int num_threads) {
  const ActivationParams params{view_of(x, "x"), output_view(out, "out"), activation, num_threads};
  run_unlocked([&] { return run_activation(params, interrupted); });
}

}  // namespace

void bind_norm(py::module_& module) {
  module.def("layer_norm", &layer_norm);
  module.def("rms_norm", &rms_norm);
  module.def("add_layer_norm", &add_layer_norm);
  module.def("add_rms_norm", &add_rms_norm);
  module.def("activate", &activate);
}

}  // namespace numattn::bind
