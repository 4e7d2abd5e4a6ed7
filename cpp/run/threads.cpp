#include "numattn/threads.h"

#include <omp.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <fstream>
#include <initializer_list>
#include <stdexcept>
#include <string>

namespace numattn {
namespace {

std::atomic<int> process_limit{0};

// OpenMP's count of processors, not that of sched_getaffinity: where OpenMP binds threads
// (OMP_PROC_BIND, OMP_PLACES, GOMP_CPU_AFFINITY), it has bound the calling one to a single place.
int processor_count() {
  static const int in_places = [] {
    int count = 0;
    for (int i = 0; i < omp_get_num_places(); ++i) count += omp_get_place_num_procs(i);
    return count;
  }();
  const int available = omp_get_num_procs();
  return in_places > 0 ? std::min(available, in_places) : available;
}

int processors(double quota, double period) {
  return quota > 0 && period > 0 ? std::max(1, static_cast<int>(quota / period)) : 0;
}

// The quota of one control group (version 2: "max 100000" or "150000 100000").
int quota_of(const std::string& folder) {
  std::ifstream file(folder + "/cpu.max");
  std::string quota;
  double period = 0;
  if (!(file >> quota >> period) || quota == "max") return 0;
  return processors(std::strtod(quota.c_str(), nullptr), period);
}

// The least quota from this process's control group up to the root.
int version2_quota() {
  std::ifstream groups("/proc/self/cgroup");
  std::string line;
  int least = 0;
  while (std::getline(groups, line)) {
    if (line.rfind("0::", 0) != 0) continue;
    std::string path = line.substr(3);
    while (true) {
      const int quota = quota_of("/sys/fs/cgroup" + path);
      if (quota > 0) least = least == 0 ? quota : std::min(least, quota);
      const std::size_t slash = path.rfind('/');
      if (path.empty() || slash == std::string::npos) break;
      path.resize(slash);
    }
  }
  return least;
}

int version1_quota() {
  double quota = 0;
  double period = 0;
  std::ifstream("/sys/fs/cgroup/cpu/cpu.cfs_quota_us") >> quota;
  std::ifstream("/sys/fs/cgroup/cpu/cpu.cfs_period_us") >> period;
  return processors(quota, period);
}

// Read once: a quota that changes under a running process is left to the scheduler.
int cgroup_count() {
  static const int count = [] {
    const int quota = version2_quota();
    return quota > 0 ? quota : version1_quota();
  }();
  return count;
}

}  // namespace

void set_num_threads(int count) {
  if (count < 0) {
    throw std::invalid_argument("num_threads must be at least 1, or 0 for no limit, not " +
                                std::to_string(count));
  }
  process_limit.store(count);
}

ThreadLimits thread_limits() {
  return {process_limit.load(), std::min(omp_get_max_threads(), omp_get_thread_limit()),
          processor_count(), cgroup_count(), omp_in_parallel() != 0};
}

int thread_budget(int call) {
  if (call == 1 || omp_in_parallel() != 0) return 1;
  const ThreadLimits limits = thread_limits();
  int budget = limits.openmp;
  for (const int limit : {call, limits.process, limits.affinity, limits.cgroup}) {
    if (limit > 0) budget = std::min(budget, limit);
  }
  return std::max(budget, 1);
}

int threads_for(int useful, int call) {
  return useful <= 1 ? 1 : std::min(useful, thread_budget(call));
}

int get_num_threads() { return thread_budget(0); }

}  // namespace numattn
