// The table of kernels in force.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels.h"

namespace numattn {

// The table in force. A call takes it once, so that a change beside it cannot split a call.
const Kernels& current_kernels();

// The rows of isa.inc whose requirements `features` meets, slowest first (tests fake the features).
std::vector<std::string> isas_for(std::uint32_t features);

}  // namespace numattn
