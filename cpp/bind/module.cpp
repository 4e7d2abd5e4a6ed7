// The extension module numattn._core: registers, nothing else.
#include "interpreter.h"
#include "numpy_view.h"
#include "steps.h"

namespace bind = numattn::bind;
namespace py = pybind11;

// pybind11's entry point under another name.
PYBIND11_MODULE(_core_of_main, module, py::mod_gil_not_used(),
                py::multiple_interpreters::not_supported()) {
  // From Python 3.13 on, the entry point is called by the main interpreter whoever imports.
  if (!bind::in_main_interpreter()) throw py::import_error(bind::kMainInterpreterOnly);
  py::register_exception_translator([](std::exception_ptr pointer) {
    try {
      if (pointer) std::rethrow_exception(pointer);
    } catch (const numattn::DTypeError& error) {
      py::set_error(PyExc_TypeError, error.what());
    }
  });
  module.attr("__version__") = NUMATTN_VERSION;
  bind::bind_steps(module);
  bind::bind_attention(module);
  bind::bind_cache(module);
  bind::bind_linear(module);
  bind::bind_norm(module);
  bind::bind_rope(module);
  bind::bind_control(module);
  bind::bind_tensors(module);
  module.def("load_numpy", &bind::load_numpy);
}

// Asked first: in a sub-interpreter of Python 3.11 or older, pybind11's would take the lock of the
// main one, and wait for ever for its own thread to let it go.
extern "C" PYBIND11_EXPORT PyObject* PyInit__core() {
  if (bind::in_main_interpreter()) return PyInit__core_of_main();
  PyErr_SetString(PyExc_ImportError, bind::kMainInterpreterOnly);
  return nullptr;
}
