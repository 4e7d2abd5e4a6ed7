// The OpenMP runtime that the process has, found while it runs. Linked to one of its own (a wheel
// brings a copy along), the library would have a second pool of threads beside PyTorch's: the two
// wait actively on the same processors, neither knows of `omp_set_num_threads` of the other, and
// only one of them would be dissolved before a fork.
#pragma once

namespace numattn {

// The functions of a runtime, by OpenMP's names; GCC's entry to a region, which LLVM's and Intel's
// runtimes have too.
struct OpenMPRuntime {
  void (*parallel)(void (*body)(void*), void* argument, unsigned threads, unsigned flags);
  int (*get_thread_num)();
  int (*get_num_threads)();
  int (*get_max_threads)();
  int (*get_thread_limit)();
  int (*get_num_procs)();
  int (*get_num_places)();
  int (*get_place_num_procs)(int place);
  int (*in_parallel)();
  int (*pause_resource_all)(int kind);
};

// The one that other libraries of the process have brought, or else the system's; null where there
// is none. While that is so, or it bears a name that no other library can ask for, it is looked for
// again when more libraries have been loaded.
const OpenMPRuntime* openmp_runtime();

// The one found last, which is not looked for again.
const OpenMPRuntime* openmp_runtime_in_use();

}  // namespace numattn
