#include "parallel.h"

#include <omp.h>
#include <pthread.h>

#include <algorithm>
#include <mutex>

#include "spare_threads.h"

namespace numattn {
namespace {

// An interrupt is to be seen within 0.2 s; asking costs taking the interpreter's lock.
constexpr std::chrono::milliseconds kAskEvery{20};

// The threads of the calling thread's last region, itself among them. libgomp has just these ready:
// after a smaller region it ends the others.
thread_local int ready_threads = 1;

// As many of `threads` as a region can have.
int obtainable_threads(int threads) {
  if (threads == ready_threads) return threads;
  const int spare = spare_threads(std::max(threads - ready_threads, 0));
  return spare < 0 ? 1 : std::min(threads, ready_threads + spare);
}

// A child forked after a parallel region would wait for the parent's pool for ever (libgomp): the
// pool is dissolved before the fork, and both sides make a new one when they need it.
void dissolve_pool() {
  omp_pause_resource_all(omp_pause_soft);
  ready_threads = 1;
}

void install_fork_handler() {
  static std::once_flag once;
  std::call_once(once, [] { pthread_atfork(dissolve_pool, nullptr, nullptr); });
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
  const int team = threads <= 1 || count <= 1 ? 1 : obtainable_threads(threads);
  if (team == 1) {
    work(0);
  } else {
    install_fork_handler();
#pragma omp parallel num_threads(team)
    {
      const int index = omp_get_thread_num();
      if (index == 0) ready_threads = omp_get_num_threads();
      work(index);
    }
  }
  return stop.load() ? Outcome::kInterrupted : Outcome::kFinished;
}

}  // namespace detail
}  // namespace numattn
