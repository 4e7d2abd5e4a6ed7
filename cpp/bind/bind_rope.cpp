// apply_rope for the Python layer, which has made positions contiguous int64.
#include <pybind11/stl.h>

#include "interpreter.h"
#include "numattn/rope.h"
#include "numpy_view.h"
#include "steps.h"

namespace numattn::bind {
namespace {

std::optional<PositionArray> position_array(const py::object& object) {
  const std::optional<IntArray> numbers = int_array(object);
  if (!numbers) return std::nullopt;
  const auto array = py::reinterpret_borrow<py::array>(object);
  PositionArray positions;
  positions.data = numbers->data;
  positions.rank = static_cast<int>(array.ndim());
  for (int axis = 0; axis < positions.rank && axis < 2; ++axis) {
    positions.shape[static_cast<std::size_t>(axis)] = array.shape(axis);
  }
  return positions;
}

// The call without its output.
RopeParams params_of(const py::array& x, const py::array& cos, const py::array& sin,
                     const py::object& positions, bool interleaved, const std::string& layout,
                     int num_threads) {
  RopeParams params;
  params.x = view_of(x, "x");
  params.cos = view_of(cos, "cos");
  params.sin = view_of(sin, "sin");
  params.positions = position_array(positions);
  params.interleaved = interleaved;
  params.layout = parse_layout(layout);
  params.num_threads = num_threads;
  return params;
}

py::array apply_rope(const py::array& x, const py::array& cos, const py::array& sin,
                     const py::object& positions, bool interleaved, const std::string& layout,
                     const py::object& out, int num_threads) {
  RopeParams params = params_of(x, cos, sin, positions, interleaved, layout, num_threads);
  const py::array output = output_or_new(out, x, {x.shape(), x.shape() + x.ndim()});
  params.output = output_view(output, "out");
  run_unlocked([&] { return run_rope(params, interrupted); });
  return output;
}

void add_rope(Steps& steps, const py::array& x, const py::array& cos, const py::array& sin,
              const py::object& positions, bool interleaved, const std::string& layout,
              const py::array& out) {
  RopeParams params = params_of(x, cos, sin, positions, interleaved, layout, steps.num_threads());
  params.output = output_view(out, "out");
  steps.add([params] { return run_rope(params, interrupted); }, {x, cos, sin, positions, out});
}

}  // namespace

void bind_rope(py::module_& module) {
  module.def("apply_rope", &apply_rope);
  module.def("add_rope", &add_rope);
}

}  // namespace numattn::bind
