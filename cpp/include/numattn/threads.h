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

// Threads of the program around the library: run(host, count, part, argument) runs part(argument,
// index) for every index below `count`, in any order, at once as far as it can, and returns when
// all have ended.
struct HostThreads {
  void (*run)(void* host, int count, void (*part)(const void* argument, int index),
              const void* argument);
  void* host;
};

// For as long as this lives, the loops that its thread starts run on those; they cannot be
// interrupted. Null leaves them as they are.
class OnHostThreads {
 public:
  explicit OnHostThreads(const HostThreads* threads) noexcept;
  ~OnHostThreads();
  OnHostThreads(const OnHostThreads&) = delete;
  OnHostThreads& operator=(const OnHostThreads&) = delete;

 private:
  const HostThreads* outer_;
};

// Those of the calling thread; null where it has none.
const HostThreads* host_threads();

}  // namespace numattn
