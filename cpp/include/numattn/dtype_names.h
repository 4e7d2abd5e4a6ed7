// Element types in messages.
#pragma once

#include <string>

#include "numattn/dtype.h"

namespace numattn {

// "float32, float16 or bfloat16"
std::string dtype_names(Role role);

}  // namespace numattn
