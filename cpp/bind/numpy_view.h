// NumPy arrays as Views.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <optional>
#include <string>
#include <vector>

#include "numattn/attention.h"
#include "numattn/view.h"

namespace numattn::bind {

namespace py = pybind11;

// Imports what pybind11 would import at the first array, which may be a daemon thread's while the
// interpreter ends: pybind11 does not survive that.
void load_numpy();

// The element type of an array; DTypeError that names the argument and the mend for any other.
DType dtype_of(const py::array& array, const std::string& name);

// Lists and scalars become arrays; arrays stay as they are.
py::array as_array(const py::object& object);

// An array as a View; `array` must outlive it.
View view_of(const py::array& array, const std::string& name);
// The same for a result's array, whose wrong element type is a wrong value.
View output_view(const py::array& array, const std::string& name);
std::optional<View> optional_view(const py::object& object, const std::string& name,
                                  py::array& owner);

// The same for an object that the Python layer has made an array, or None.
std::optional<View> known_view(const py::object& object, const char* name);

// Contiguous float32 without a copy; the Python layer has seen to that.
std::optional<FloatArray> float_array(const py::object& object);
std::optional<IntArray> int_array(const py::object& object);
// Tables of int64 with two axes, likewise; None is none.
WideChannels wide_channels(const py::object& object);
PageTable page_table(const py::object& object);

// `out`, or a new array of that shape and the model's dtype where it is None.
py::array output_or_new(const py::object& out, const py::array& model,
                        const std::vector<std::int64_t>& shape);
py::array empty_float32(const std::vector<std::int64_t>& shape);

// A new array that begins on a cache line: NumPy's own begin 16 bytes behind one as often as not,
// and a kernel that reads or writes whole lines then touches each of them twice. Its memory is an
// array of NumPy's all the same, so that whoever counts that sees it.
py::array empty_array(const py::dtype& dtype, const std::vector<std::int64_t>& shape);

void bind_attention(py::module_& module);
void bind_cache(py::module_& module);
void bind_linear(py::module_& module);
void bind_norm(py::module_& module);
void bind_rope(py::module_& module);
void bind_control(py::module_& module);
void bind_tensors(py::module_& module);

}  // namespace numattn::bind
