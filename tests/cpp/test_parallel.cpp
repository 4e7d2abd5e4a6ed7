// A loop on more threads than the machine has, and on fewer than asked for where the system has no
// more to give.
#include "parallel.h"

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <initializer_list>
#include <thread>
#include <vector>

#include "expect.h"
#include "spare_threads.h"

#ifdef __linux__
#include <sys/resource.h>

#include <fstream>
#endif

namespace {

constexpr std::int64_t kItems = 1000;

// Runs a loop and returns how many threads took part; `least` of them have to be there at once.
int participants(int threads, int least) {
  std::vector<std::atomic<int>> runs(kItems);
  std::vector<std::atomic<bool>> seen(static_cast<std::size_t>(threads));
  std::atomic<int> present{0};
  const auto item = [&](std::int64_t index, numattn::Worker& worker) {
    if (!seen[static_cast<std::size_t>(worker.index())].exchange(true)) ++present;
    while (present < least) std::this_thread::yield();
    ++runs[static_cast<std::size_t>(index)];
  };
  const auto outcome = numattn::parallel_for(kItems, threads, nullptr, item);
  expect(outcome == numattn::Outcome::kFinished, "%d threads: finished", threads);
  const auto once = [](const std::atomic<int>& count) { return count == 1; };
  expect(std::all_of(runs.begin(), runs.end(), once), "%d threads: each item once", threads);
  return present;
}

void expect_all(int threads) {
  const int found = participants(threads, threads);
  expect(found == threads, "%d threads wanted, %d found", threads, found);
}

#ifdef __linux__
// Limits the address space to what is in use and `more` bytes.
void leave(rlim_t more) {
  std::ifstream file("/proc/self/statm");
  rlim_t pages = 0;
  file >> pages;
  rlimit limit{};
  getrlimit(RLIMIT_AS, &limit);
  limit.rlim_cur = more == RLIM_INFINITY ? limit.rlim_max : pages * 4096 + more;
  setrlimit(RLIMIT_AS, &limit);
}

// Called with OMP_STACKSIZE=8M.
void without_room_for_stacks() {
  constexpr rlim_t kMiB = 1 << 20;
  expect_all(5);
  expect_all(2);
  for (const int stacks : {0, 2}) {
    leave(static_cast<rlim_t>(stacks) * 8 * kMiB + kMiB);
    // Some more, since the C library keeps up to five stacks of threads that have ended.
    const int spare = numattn::spare_threads(20);
    expect(spare >= stacks && spare < 20, "%d threads of 20 with room for %d", spare, stacks);
    const int found = participants(20, 2 + stacks);
    expect(found < 20, "%d threads in a loop, with room for %d more", found, stacks);
    expect_all(2);
  }
  leave(RLIM_INFINITY);
  expect(numattn::spare_threads(20) == 20, "the limit is lifted");
  expect_all(20);
}
#endif

}  // namespace

int main() {
  expect(numattn::spare_threads(0) == 0, "none wanted");
  for (const int threads : {1, 2, 7, 3, 3, 12, 1, 12, 2}) expect_all(threads);
#ifdef __linux__
  without_room_for_stacks();
#endif
  return report();
}
