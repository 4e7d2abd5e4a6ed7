// The one parallel loop: over work items, on OpenMP's threads, and it can be stopped.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

namespace numattn {

// Asked now and then by the calling thread; true stops the loop.
using InterruptCheck = bool (*)();

enum class Outcome { kFinished, kInterrupted };

// One thread's hold on a running loop.
class Worker {
 public:
  Worker(int index, InterruptCheck check, std::atomic<bool>& stop)
      : index_(index), check_(check), stop_(stop) {}

  int index() const { return index_; }

  // Whether to give up; cheap enough to be asked every few microseconds. Long items must ask.
  bool stopped();

 private:
  int index_;
  InterruptCheck check_;
  std::atomic<bool>& stop_;
  std::chrono::steady_clock::time_point asked_ = std::chrono::steady_clock::now();
};

namespace detail {

using Item = void (*)(const void* body, std::int64_t index, Worker& worker);
Outcome run_items(std::int64_t count, int threads, InterruptCheck check, Item item,
                  const void* body);

}  // namespace detail

// body(index, worker) for every index in [0, count), on at most `threads` threads, in no fixed
// order. The body must not throw. kInterrupted: some items were not run, or not to their end.
template <class Body>
Outcome parallel_for(std::int64_t count, int threads, InterruptCheck check, const Body& body) {
  const auto item = [](const void* erased, std::int64_t index, Worker& worker) {
    (*static_cast<const Body*>(erased))(index, worker);
  };
  return detail::run_items(count, threads, check, item, &body);
}

}  // namespace numattn
