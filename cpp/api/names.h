// Choices that a caller makes by name, beside those of the public headers.
#pragma once

#include <string>

#include "kernels.h"

namespace numattn {

// "" is none; std::invalid_argument for a name that is not known.
Activation parse_activation(const std::string& name);

}  // namespace numattn
