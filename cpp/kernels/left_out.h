// Tiles of keys that are left out (skip_below): a row's state must be there, and in it a score so
// large that each of the tile's has a weight below 2^level beside it. That holds for all rows that
// share the tile's products, or the tile is not left out; so what is left out follows from which
// rows these are, the tile, and nothing else.
//
// Rows that do not see the tile do not object. A NaN is below nothing: its tile is visited.
#pragma once

#include "score.h"

namespace numattn {
namespace {

// `peak` is the largest of a row's scores of the tile, `before` of those before it.
inline bool is_below(float peak, float before, float level) {
  return peak == -kInfinity || peak < before + level;
}

// Rows in lanes: scores[key][lane], whose `peaks` pass over NaN.
__attribute__((noinline)) inline bool is_left_out(const LaneGroup& group, std::int64_t key_count,
                                                  const float* scores, const Vec* peaks,
                                                  const float* before, float level) {
  float lanes[kLaneGroup] = {};
  for (int v = 0; v < group.vectors; ++v) store(lanes + v * Vec::kWidth, peaks[v]);
  for (int i = 0; i < group.row_count; ++i) {
    if (!is_below(lanes[i], before[i], level)) return false;
  }
  for (int v = 0; v < group.vectors; ++v) {
    Vec number = broadcast(1.0f);
    for (std::int64_t j = 0; j < key_count; ++j) {
      const Vec score = load(scores + j * kLaneGroup + v * Vec::kWidth);
      number = select(equal(score, score), number, zero());
    }
    store(lanes + v * Vec::kWidth, number);
  }
  for (int i = 0; i < group.row_count; ++i) {
    if (lanes[i] == 0.0f) return false;
  }
  return true;
}

// One row, keys in lanes, −inf behind the last.
inline bool is_left_out(std::int64_t key_count, const float* scores, float before, float level) {
  const Vec bound = broadcast(before + level > -kLargest ? before + level : -kLargest);
  Vec visited = zero();
  for (std::int64_t j = 0; j < key_count; j += Vec::kWidth) {
    visited = visited + select(less(load(scores + j), bound), zero(), broadcast(1.0f));
  }
  return reduce_add(visited) == 0.0f;
}

}  // namespace
}  // namespace numattn
