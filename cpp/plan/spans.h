// Which keys structure lets a query row see: always one interval. The sole such logic.
//
//   causal          j <= position
//   window (l, r)   position − l <= j <= position + r, a side of −1 unbounded
//   lengths         j < key_count
#pragma once

#include <cstdint>

namespace numattn {

struct SpanRules {
  bool causal = false;
  std::int64_t window_left = -1;
  std::int64_t window_right = -1;
};

struct KeySpan {
  std::int64_t begin;
  std::int64_t end;

  bool empty() const { return begin >= end; }
};

// No array has so many keys: farther positions and wider windows mean the same as these, and sums
// of two of them fit 64 bits.
constexpr std::int64_t kFarthest = std::int64_t{1} << 61;

// offset + query, limited to ±kFarthest.
std::int64_t row_position(std::int64_t offset, std::int64_t query);

// Keys [begin, end) within [0, key_count) that the row at `position` sees; (0, 0) for none.
KeySpan key_span(const SpanRules& rules, std::int64_t position, std::int64_t key_count);

}  // namespace numattn
