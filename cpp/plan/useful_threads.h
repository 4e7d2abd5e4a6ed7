// How many threads a call's work is worth.
#pragma once

#include <algorithm>
#include <cstdint>

namespace numattn {

// About what one core does in the time that waking another takes.
constexpr double kFlopsPerThread = 4e5;

// At least 1, at most one per work item; more would cost more to wake than they save.
inline int useful_threads(double flops, std::int64_t items) {
  const double worth = std::min(flops / kFlopsPerThread, 65536.0);
  return static_cast<int>(std::max(1.0, std::min(worth, static_cast<double>(items))));
}

}  // namespace numattn
