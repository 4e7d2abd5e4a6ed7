#include "parallel.h"

#include "numattn/threads.h"
#include "openmp_runtime.h"
#include "plain_threads.h"
#include "team.h"

namespace numattn {
namespace {

// An interrupt is to be seen within 0.2 s; asking costs taking the interpreter's lock.
constexpr std::chrono::milliseconds kAskEvery{20};

// Runs work(index) for every index below `workers`, or below fewer, on as many threads.
template <class Work>
void run_on_threads(int workers, const Work& work) {
  const auto part = [](const void* erased, int index) {
    (*static_cast<const Work*>(erased))(index);
  };
  if (const HostThreads* host = host_threads()) return host->run(host->host, workers, part, &work);
  const OpenMPRuntime* openmp = openmp_runtime();
  if (openmp == nullptr) return run_on_plain_threads(workers, part, &work);
  struct Region {
    const OpenMPRuntime& openmp;
    const Work& work;
    int workers;
  };
  Region region{*openmp, work, workers};
  const int threads = region_threads(*openmp, workers);
  if (threads == 1) return work(0);
  const auto body = [](void* erased) {
    const Region& mine = *static_cast<const Region*>(erased);
    const int index = mine.openmp.get_thread_num();
    if (index == 0) had_region_threads(mine.openmp.get_num_threads());
    if (index < mine.workers) mine.work(index);
  };
  openmp->parallel(body, &region, static_cast<unsigned>(threads), 0);
}

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
  if (workers == 1) {
    work(0);
  } else {
    run_on_threads(workers, work);
  }
  return stop.load() ? Outcome::kInterrupted : Outcome::kFinished;
}

}  // namespace detail
}  // namespace numattn
