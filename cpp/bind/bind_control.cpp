// Instruction sets, threads and memory.
#include <pybind11/stl.h>

#include "numattn/extent.h"
#include "numattn/isa.h"
#include "numattn/threads.h"
#include "numpy_view.h"

namespace numattn::bind {
namespace {

Extent extent_of(const py::array& array) {
  return numattn::extent_of(array.data(), array.ndim(), array.shape(), array.strides(),
                            array.itemsize());
}

// Arguments that hold no array.
bool is_plain(PyObject* value) {
  return value == Py_None || PyBool_Check(value) || PyLong_CheckExact(value) ||
         PyFloat_CheckExact(value) || PyUnicode_CheckExact(value) || PyTuple_CheckExact(value);
}

bool is_apart(const Extent& out, PyObject* value) {
  if (is_plain(value)) return true;
  if (py::isinstance<py::array>(value)) {
    return !out.meets(extent_of(py::reinterpret_borrow<py::array>(value)));
  }
  if (!PyTuple_Check(value)) return false;
  // Named fields, as those of a Score.
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(value); ++i) {
    if (!is_apart(out, PyTuple_GET_ITEM(value, i))) return false;
  }
  return true;
}

// Whether a result's memory lies apart from all that a call reads, told quickly: by the ends of
// each array's memory, as numpy.may_share_memory does. False also where that does not tell. Inputs
// named in `may_be` may be `out` itself.
bool lies_apart(const py::object& out, const py::object& inputs, const py::object& may_be) {
  if (!py::isinstance<py::array>(out) || !PyDict_CheckExact(inputs.ptr())) return false;
  const Extent memory = extent_of(py::reinterpret_borrow<py::array>(out));
  PyObject* name = nullptr;
  PyObject* value = nullptr;
  for (Py_ssize_t at = 0; PyDict_Next(inputs.ptr(), &at, &name, &value) != 0;) {
    if (value == out.ptr() && PySequence_Contains(may_be.ptr(), name) == 1) continue;
    if (!is_apart(memory, value)) return false;
  }
  return true;
}

}  // namespace

void bind_control(py::module_& module) {
  module.def("available_isas", &available_isas);
  module.def("current_isa", &current_isa);
  module.def("use_isa", &use_isa);
  module.def("cpu_features", &cpu_features);
  module.def("set_num_threads", &set_num_threads);
  module.def("get_num_threads", &get_num_threads);
  module.def("empty", &empty_array);
  module.def("lies_apart", &lies_apart);
  module.def("thread_limits", [] {
    const ThreadLimits limits = thread_limits();
    py::dict result;
    result["process"] = limits.process;
    result["openmp"] = limits.openmp;
    result["affinity"] = limits.affinity;
    result["cgroup"] = limits.cgroup;
    result["nested"] = static_cast<int>(limits.nested);
    return result;
  });
}

}  // namespace numattn::bind
