// The extension module numattn._core: registers, nothing else.
#include "numpy_view.h"

PYBIND11_MODULE(_core, module, pybind11::mod_gil_not_used()) {
  namespace bind = numattn::bind;
  pybind11::register_exception_translator([](std::exception_ptr pointer) {
    try {
      if (pointer) std::rethrow_exception(pointer);
    } catch (const numattn::DTypeError& error) {
      pybind11::set_error(PyExc_TypeError, error.what());
    }
  });
  module.attr("__version__") = NUMATTN_VERSION;
  bind::bind_attention(module);
  bind::bind_linear(module);
  bind::bind_norm(module);
  bind::bind_rope(module);
  bind::bind_control(module);
}
