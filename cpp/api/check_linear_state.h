// Rules about a packed layer that is read again, and about parts of one.
#pragma once

#include <cstdint>

#include "kernels.h"

#include "numattn/linear.h"

namespace numattn {

// As LinearState has it.
const char* panel_format_name(PanelFormat format);

// Of the elements of a panel.
DType panel_dtype(PanelFormat format);

// The format that a state names; everything else in the state fits it.
PanelFormat check_linear_state(const LinearState& state);

void check_linear_part(const PackedLinear& linear, std::int64_t begin, std::int64_t end);

}  // namespace numattn
