// Asking for cache lines before they are read. Fetching never faults.
#pragma once

#include <cstdint>

namespace numattn {
namespace {

constexpr int kLineBytes = 64;

// Not kept: asking for every other line and leaving the rest to the processor. Decode from memory
// then took twice the time on Zen 4.
//
// Fetching into the first level holds up the loads beside it: decode of four rows on Zen 4 read 10
// GB/s so and 16.5 GB/s, the speed of memory, this way.
constexpr int kIntoSecondLevel = 2;
constexpr int kIntoFirstLevel = 3;

template <int Lines, int Level = kIntoSecondLevel>
inline void fetch_lines(const void* from) {
#pragma GCC unroll 8
  for (int line = 0; line < Lines; ++line)
    __builtin_prefetch(static_cast<const char*>(from) + line * kLineBytes, 0, Level);
}

// Memory that a later step will read, fetched while this one computes: at step k of the depth
// `Lines` cache lines from `data` + k · stride. Fetching never faults.
template <int Lines>
struct Ahead {
  const char* data = nullptr;
  std::int64_t stride = 0;

  void fetch(std::int64_t k) const { fetch_lines<Lines>(data + k * stride); }
};

using NothingAhead = Ahead<0>;

// A panel of weights that a single tile reads is fetched so far ahead of it, from so many rows on:
// before, the processor foresees it as well or better, since weights are all that takes time. Zen
// 4, weights that the second cache level does not hold, GFLOP/s without and with it:
//
//   rows                          4          5          6          7          8
//   bfloat16, 384 → 1536          89,  87   110, 161   119, 167   129, 175   141, 186
//             2048 → 2048         97,  74   133, 102   146, 138              136, 197
//   float32, 384 → 1536                                68,  70    73,  81    86,  93
//            2048 → 2048                               58,  62    73,  89    72, 101
constexpr std::int64_t kBytesAhead = 16384;
constexpr std::int64_t kLeastRowsToFetch = 6;

// What the first of `tiles` tiles fetches that read a panel of so many bytes, `step` at a time: its
// share of what follows the panel in memory, or, by itself, of the panel. The next one's begins
// where it ends.
template <class Fetch>
inline Fetch share_of_panel(const void* panel, std::int64_t bytes, std::int64_t step,
                            std::int64_t tiles) {
  return {static_cast<const char*>(panel) + (tiles == 1 ? kBytesAhead : bytes), step / tiles};
}

inline void fetch_bytes(const void* data, std::int64_t bytes) {
  const char* from = static_cast<const char*>(data);
  for (std::int64_t at = 0; at < bytes; at += kLineBytes)
    __builtin_prefetch(from + at, 0, kIntoSecondLevel);
}

}  // namespace
}  // namespace numattn
