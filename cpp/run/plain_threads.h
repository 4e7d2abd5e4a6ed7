// Threads for one loop alone, where the process has no OpenMP.
#pragma once

namespace numattn {

// part(argument, index) for every index below `threads`, 0 on the calling thread; for fewer where
// the system has no more to give.
void run_on_plain_threads(int threads, void (*part)(const void* argument, int index),
                          const void* argument);

}  // namespace numattn
