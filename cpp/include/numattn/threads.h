// How many threads a call may use.
#pragma once

namespace numattn {

// The process-wide upper limit; 0 lifts it. Negative counts are refused (std::invalid_argument).
void set_num_threads(int count);

// What a call without a limit of its own would use here and now.
int get_num_threads();

// What bounds the number of threads; 0 where nothing is set.
struct ThreadLimits {
  int process;   // set_num_threads()
  int openmp;    // omp_get_max_threads(), omp_get_thread_limit()
  int affinity;  // processors this process may run on
  int cgroup;    // the CPU quota of the control group, rounded down, at least 1
  bool nested;   // inside somebody else's parallel region: 1 thread
};

ThreadLimits thread_limits();

// The least of `call` (0: none) and all limits, at least 1.
int thread_budget(int call);

// Threads for work that is worth `useful` of them; work for one does not ask for the limits.
int threads_for(int useful, int call);

}  // namespace numattn
