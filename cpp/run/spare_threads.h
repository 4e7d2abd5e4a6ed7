// How many more threads the system has to give. OpenMP ends the process where it can make none.
#pragma once

namespace numattn {

// At most `wanted`, which may be 0: found by starting them all and waiting until the system has
// them back. -1 where there is no memory for what OpenMP keeps of a team, however small.
int spare_threads(int wanted);

}  // namespace numattn
