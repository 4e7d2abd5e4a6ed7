#include "parallel.h"

#include <omp.h>
#include <pthread.h>

#include <mutex>

namespace numattn {
namespace {

// An interrupt is to be seen within 0.2 s; asking costs taking the interpreter's lock.
constexpr std::chrono::milliseconds kAskEvery{20};

// A child forked after a parallel region would wait for the parent's pool for ever (libgomp): the
// pool is dissolved before the fork, and both sides make a new one when they need it.
void dissolve_pool() { omp_pause_resource_all(omp_pause_soft); }

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
  if (threads <= 1 || count <= 1) {
    work(0);
  } else {
    install_fork_handler();
#pragma omp parallel num_threads(threads)
    work(omp_get_thread_num());
  }
  return stop.load() ? Outcome::kInterrupted : Outcome::kFinished;
}

}  // namespace detail
}  // namespace numattn
