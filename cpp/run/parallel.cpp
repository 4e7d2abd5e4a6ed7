#include "parallel.h"

#include <omp.h>

#include "team.h"

namespace numattn {
namespace {

// An interrupt is to be seen within 0.2 s; asking costs taking the interpreter's lock.
constexpr std::chrono::milliseconds kAskEvery{20};

}  // namespace

bool Worker::stopped() {
  if (stop_.load(std::memory_order_relaxed)) return true;
  if (index_ != 0 || check_ == nullptr) return false;
  const auto now = std::chrono::steady_clock::now();
  if (now - asked_ < kAskEvery) return false;
  asked_ = now;
  if (!check_()) return false;
  stop_.store(true, std::memory_order_relaxed);
  return true;
}

namespace detail {

Outcome run_items(std::int64_t count, int threads, InterruptCheck check, Item item,
                  const void* body) {
  std::atomic<bool> stop{false};
  std::atomic<std::int64_t> next{0};
  const auto work = [&](int index) {
    Worker worker(index, check, stop);
    while (!worker.stopped()) {
      const std::int64_t mine = next.fetch_add(1, std::memory_order_relaxed);
      if (mine >= count) break;
      item(body, mine, worker);
    }
  };
  const AtWork at_work;
  const int workers = count <= 1 ? 1 : at_work.share(threads);
  const int region = workers == 1 ? 1 : region_threads(workers);
  if (region == 1) {
    work(0);
  } else {
#pragma omp parallel num_threads(region)
    {
      const int index = omp_get_thread_num();
      if (index == 0) had_region_threads(omp_get_num_threads());
      if (index < workers) work(index);
    }
  }
  return stop.load() ? Outcome::kInterrupted : Outcome::kFinished;
}

}  // namespace detail
}  // namespace numattn
