// The AMX tile unit.
#pragma once

namespace numattn {

// Whether the processor has it, for bfloat16, and the operating system lets this process use it,
// which is asked for here.
bool tiles_usable();

}  // namespace numattn
