// A loop on more threads than the machine has, on fewer than asked for where the system has no more
// to give, and on its share beside other loops.
#include "parallel.h"

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <initializer_list>
#include <thread>
#include <vector>

#include "expect.h"
#include "numattn/threads.h"
#include "spare_threads.h"

#ifdef __linux__
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <fstream>
#include <mutex>
#include <set>
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

// Beside a loop at work, and for a while after it.
void beside_another() {
  const int budget = numattn::thread_budget(0);
  const int share = (budget + 1) / 2;
  std::atomic<bool> begun{false}, enough{false};
  std::thread other([&] {
    numattn::parallel_for(1, 1, nullptr, [&](std::int64_t, numattn::Worker&) {
      begun = true;
      while (!enough) std::this_thread::yield();
    });
  });
  while (!begun) std::this_thread::yield();
  for (int again = 0; again < 3; ++again) {
    const int found = participants(budget, share);
    expect(found == share, "%d threads of %d beside another loop", found, budget);
  }
  enough = true;
  other.join();
  int loops = 1;
  while (participants(budget, 1) <= share && loops < 10000) ++loops;
  expect(budget == share || (loops > 10 && loops < 10000), "its share for %d loops", loops);
  expect_all(budget);
}

#ifdef __linux__
// The system's numbers of all threads that had an item in loops of these sizes.
std::size_t threads_ever(std::initializer_list<int> sizes, int repeats) {
  std::mutex mutex;
  std::set<long> ids;
  for (int repeat = 0; repeat < repeats; ++repeat) {
    for (const int size : sizes) {
      std::atomic<int> present{0};
      std::vector<std::atomic<bool>> seen(static_cast<std::size_t>(size));
      numattn::parallel_for(kItems, size, nullptr, [&](std::int64_t, numattn::Worker& worker) {
        if (seen[static_cast<std::size_t>(worker.index())].exchange(true)) return;
        {
          const std::lock_guard<std::mutex> locked(mutex);
          ids.insert(syscall(SYS_gettid));
        }
        ++present;
        while (present < size) std::this_thread::yield();
      });
    }
  }
  return ids.size();
}

void sizes_in_turn() {
  const std::size_t ever = threads_ever({9, 4, 9, 6, 2}, 20);
  expect(ever == 9, "%zu threads for loops of 9, 4, 6 and 2 in turn", ever);
}

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

// An emulator of another processor, whose own memory it would be, leaves it unlimited.
bool limits_memory() {
  constexpr std::size_t kBytes = std::size_t{64} << 20;
  leave(1 << 20);
  void* memory = mmap(nullptr, kBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  leave(RLIM_INFINITY);
  if (memory != MAP_FAILED) munmap(memory, kBytes);
  return memory == MAP_FAILED;
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
  beside_another();
#ifdef __linux__
  sizes_in_turn();
  if (limits_memory()) {
    without_room_for_stacks();
  } else {
    std::puts("no limit of memory here: what a loop does without room was left out");
  }
#endif
  return report();
}
