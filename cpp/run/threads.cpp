#include "numattn/threads.h"

#ifdef __linux__
#include <sched.h>
#endif

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <fstream>
#include <initializer_list>
#include <limits>
#include <stdexcept>
#include <string>
#include <thread>

#include "openmp_runtime.h"

namespace numattn {
namespace {

std::atomic<int> process_limit{0};

// The places of an OpenMP runtime, which do not change; 0 where it has none.
int processors_in_places(const OpenMPRuntime& openmp) {
  int count = 0;
  for (int i = 0; i < openmp.get_num_places(); ++i) count += openmp.get_place_num_procs(i);
  return count;
}

int processors_of_the_system() {
#ifdef __linux__
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) return CPU_COUNT(&allowed);
#endif
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

// OpenMP's count of processors, not that of sched_getaffinity: where OpenMP binds threads
// (OMP_PROC_BIND, OMP_PLACES, GOMP_CPU_AFFINITY), it has bound the calling one to a single place.
int processor_count(const OpenMPRuntime* openmp) {
  if (openmp == nullptr) return processors_of_the_system();
  const int in_places = processors_in_places(*openmp);
  const int available = openmp->get_num_procs();
  return in_places > 0 ? std::min(available, in_places) : available;
}

// The number at the beginning of a variable of the environment, 0 where there is none.
int number_of(const char* name) {
  const char* text = std::getenv(name);
  const long number = text == nullptr ? 0 : std::strtol(text, nullptr, 10);
  return static_cast<int>(std::clamp(number, 0L, long{std::numeric_limits<int>::max()}));
}

// What OpenMP allows; where there is none, what it would be told by the environment.
int openmp_limit(const OpenMPRuntime* openmp) {
  if (openmp != nullptr) return std::min(openmp->get_max_threads(), openmp->get_thread_limit());
  int limit = processors_of_the_system();
  for (const char* name : {"OMP_NUM_THREADS", "OMP_THREAD_LIMIT"}) {
    if (number_of(name) > 0) limit = std::min(limit, number_of(name));
  }
  return limit;
}

bool in_region(const OpenMPRuntime* openmp) {
  return openmp != nullptr && openmp->in_parallel() != 0;
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
  const OpenMPRuntime* openmp = openmp_runtime();
  return {process_limit.load(), openmp_limit(openmp), processor_count(openmp), cgroup_count(),
          in_region(openmp)};
}

int thread_budget(int call) {
  if (call == 1) return 1;
  const ThreadLimits limits = thread_limits();
  if (limits.nested) return 1;
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
