#include "team.h"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <limits>
#include <mutex>

#include "numattn/threads.h"
#include "spare_threads.h"

namespace numattn {
namespace {

// Loops for which a share is kept after the last meeting, and threads that a region had no work
// for: a forward pass of a model with six layers has some 40 loops. Loops of 8 threads and of 5 in
// turn take 91 µs each so, and 225 µs where threads end and are made anew (two cores of Zen 3).
constexpr int kLoopsKept = 128;

constexpr int kNoShare = std::numeric_limits<int>::max();

std::atomic<int> loops_at_work{0};

struct OfThread {
  int at_work = 0;  // loops: an interrupt's handler may call while it is asked for
  int share = kNoShare;
  int loops_alone = 0;                    // since another call was met
  const OpenMPRuntime* openmp = nullptr;  // of the last region
  int ready = 1;                          // threads of the last region
  int smaller_regions = 0;
  int most_of_smaller = 1;  // threads that any of these had work for
};

thread_local OfThread own;

// A child forked after a parallel region would wait for the parent's pool for ever (libgomp): the
// pool is dissolved before the fork, and both sides make a new one when they need it.
void before_fork() {
  constexpr int kSoft = 1;  // omp_pause_soft
  const OpenMPRuntime* openmp = openmp_runtime_in_use();
  if (openmp != nullptr) openmp->pause_resource_all(kSoft);
  own.ready = 1;
}

// The child has none of the other threads.
void in_child() { loops_at_work.store(own.at_work); }

void install_fork_handlers() {
  static std::once_flag once;
  std::call_once(once, [] { pthread_atfork(before_fork, nullptr, in_child); });
}

int divided_up(int number, int parts) { return (number + parts - 1) / parts; }

}  // namespace

AtWork::AtWork() {
  install_fork_handlers();
  ++own.at_work;
  others_ = loops_at_work.fetch_add(1, std::memory_order_relaxed);
}

AtWork::~AtWork() {
  loops_at_work.fetch_sub(1, std::memory_order_relaxed);
  --own.at_work;
}

int AtWork::share(int threads) const {
  if (threads <= 1) return 1;
  if (others_ > 0) {
    own.share = divided_up(thread_budget(0), others_ + 1);
    own.loops_alone = 0;
  } else if (own.share != kNoShare && ++own.loops_alone >= kLoopsKept) {
    own.share = kNoShare;
  }
  return std::min(threads, own.share);
}

int region_threads(const OpenMPRuntime& openmp, int workers) {
  if (own.openmp != &openmp) {  // another than before has none of this thread's
    own.openmp = &openmp;
    own.ready = 1;
  }
  if (workers < own.ready) {
    own.most_of_smaller = std::max(own.most_of_smaller, workers);
    if (++own.smaller_regions < kLoopsKept) return own.ready;
    workers = own.most_of_smaller;
  }
  own.smaller_regions = 0;
  own.most_of_smaller = 1;
  if (workers <= own.ready) return workers;
  const int spare = spare_threads(workers - own.ready);
  return spare < 0 ? 1 : std::min(workers, own.ready + spare);
}

void had_region_threads(int threads) { own.ready = threads; }

}  // namespace numattn
