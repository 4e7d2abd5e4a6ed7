// What a rotary embedding is given: shapes, types and positions.
#pragma once

#include "numattn/rope.h"

namespace numattn {

void check_rope(const RopeParams& params);

}  // namespace numattn
