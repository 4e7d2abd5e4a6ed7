// PackedLinear for the Python layer, which has made x two-dimensional.
#include <pybind11/stl.h>

#include "interpreter.h"
#include "numattn/linear.h"
#include "numpy_view.h"
#include "steps.h"

namespace numattn::bind {
namespace {

// The call without its output.
PackedLinear::Call call_of(const py::array& x, const std::string& activation,
                           const py::object& factor, const py::object& residual, int num_threads) {
  PackedLinear::Call call;
  call.x = view_of(x, "x");
  call.activation = activation;
  if (!factor.is_none() && py::isinstance<PackedLinear>(factor)) {
    call.factor_layer = &py::cast<const PackedLinear&>(factor);
  } else {
    call.factor = known_view(factor, "factor");
  }
  call.residual = known_view(residual, "residual");
  call.num_threads = num_threads;
  return call;
}

py::array run_linear(const PackedLinear& linear, const py::array& x, const std::string& activation,
                     const py::object& factor, const py::object& residual, const py::object& out,
                     int num_threads) {
  PackedLinear::Call call = call_of(x, activation, factor, residual, num_threads);
  const py::array output = output_or_new(out, x, {x.shape(0), linear.out_features()});
  call.output = output_view(output, "out");
  run_unlocked([&] { return linear.run(call, interrupted); });
  return output;
}

py::array add_linear(const py::object& self, Steps& steps, const py::array& x,
                     const std::string& activation, const py::object& factor,
                     const py::object& residual, const py::object& out) {
  const auto& linear = py::cast<const PackedLinear&>(self);
  PackedLinear::Call call = call_of(x, activation, factor, residual, steps.num_threads());
  const py::array output = output_or_new(out, x, {x.shape(0), linear.out_features()});
  call.output = output_view(output, "out");
  steps.add([&linear, call] { return linear.run(call, interrupted); },
            {self, x, factor, residual, output});
  return output;
}

// A layer's memory as an array that keeps the layer and cannot be written to; bfloat16, which NumPy
// itself does not know and no buffer can hold, as integers.
py::array array_of(const View& view, const py::object& linear) {
  const py::dtype dtype = view.dtype == DType::kFloat32 ? py::dtype::of<float>()
                          : view.dtype == DType::kInt8  ? py::dtype::of<std::int8_t>()
                                                        : py::dtype::of<std::uint16_t>();
  const std::vector<py::ssize_t> shape(view.shape.begin(), view.shape.begin() + view.rank);
  py::array array(dtype, shape, static_cast<const char*>(view.data), linear);
  array.attr("setflags")(py::arg("write") = false);
  return array;
}

// The reverse.
View view_of_state(const py::array& array, const char* name) {
  if (!py::isinstance<py::array_t<std::uint16_t>>(array)) return view_of(array, name);
  View view = view_of(py::array(array).view("float16"), name);
  view.dtype = DType::kBFloat16;
  return view;
}

// How pickle makes the layer again.
py::tuple reduce(const py::object& linear) {
  const LinearState state = py::cast<const PackedLinear&>(linear).state();
  const py::object bias = state.bias ? py::object(array_of(*state.bias, linear)) : py::none();
  const py::tuple arguments =
      py::make_tuple(state.version, state.format, state.out_features, state.in_features,
                     array_of(state.panels, linear), bias);
  return py::make_tuple(py::type::of(linear), arguments);
}

PackedLinear linear_of(int version, const std::string& format, std::int64_t out_features,
                       std::int64_t in_features, const py::array& panels,
                       const std::optional<py::array>& bias) {
  LinearState state{version, format, out_features, in_features, view_of_state(panels, "panels"),
                    {}};
  if (bias) state.bias = view_of_state(*bias, "bias");
  return PackedLinear(state);
}

// A layer of panels that the Python layer has made (numattn/_groups.py).
PackedLinear linear_of_panels(const std::string& format, std::int64_t out_features,
                              std::int64_t in_features, const py::array& panels,
                              const std::optional<py::array>& bias) {
  return linear_of(kLinearStateVersion, format, out_features, in_features, panels, bias);
}

}  // namespace

void bind_linear(py::module_& module) {
  py::class_<PackedLinear>(module, "PackedLinear")
      .def(py::init([](const py::array& weight, const py::object& bias, const std::string& storage,
                       const std::string& precision) {
        return std::make_unique<PackedLinear>(view_of(weight, "weight"), known_view(bias, "bias"),
                                              parse_storage(storage), parse_precision(precision));
      }))
      .def(py::init(&linear_of))
      .def_static("of_panels", &linear_of_panels)
      .def("__reduce__", &reduce)
      .def("__deepcopy__", [](const py::object& linear, const py::object&) { return linear; })
      .def("part", &PackedLinear::part)
      .def("run", &run_linear)
      .def("add_to", &add_linear)
      .def_property_readonly("in_features", &PackedLinear::in_features)
      .def_property_readonly("out_features", &PackedLinear::out_features);
}

}  // namespace numattn::bind
