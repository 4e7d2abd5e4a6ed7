// A checked call of attention, run for Python.
#pragma once

#include "numattn/cache.h"
#include "numpy_view.h"

namespace numattn::bind {

// Computes the call's output, and with it the lse if that is wanted; q is whose dtype a new array
// gets. First, where there is something to append, that.
py::object run_call(const AttentionCall& call, const py::array& q, const py::object& out,
                    bool return_lse, const Append* append = nullptr);

}  // namespace numattn::bind
