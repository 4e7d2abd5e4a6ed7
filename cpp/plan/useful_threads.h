// How many threads a call's work is worth.
#pragma once

#include <algorithm>
#include <cstdint>

namespace numattn {

// About what one core does in the time that waking another takes: multiplications and additions,
// or elements that are read, changed a little and written.
constexpr double kFlopsPerThread = 4e5;
constexpr double kElementsPerThread = 65536;

// At least 1, at most one per work item; more would cost more to wake than they save.
inline int threads_worth(double threads, std::int64_t items) {
  const double worth = std::min(threads, 65536.0);
  return static_cast<int>(std::max(1.0, std::min(worth, static_cast<double>(items))));
}

inline int useful_threads(double flops, std::int64_t items) {
  return threads_worth(flops / kFlopsPerThread, items);
}

// The work of elements waits for memory, so that a second thread pays earlier.
inline int useful_threads_for(std::int64_t elements, std::int64_t items) {
  return threads_worth(static_cast<double>(elements) / kElementsPerThread + 1.0, items);
}

}  // namespace numattn
