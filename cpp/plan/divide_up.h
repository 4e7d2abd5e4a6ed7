// Division that rounds up: how many blocks hold so much.
#pragma once

#include <cstdint>

namespace numattn {

inline std::int64_t divide_up(std::int64_t a, std::int64_t b) { return a / b + (a % b != 0); }

}  // namespace numattn
