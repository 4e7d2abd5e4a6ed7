// Which keys structure lets a query row see: one interval, and some of the first keys. The sole
// such logic, but for intervals and lists of blocks that the caller gives, with which these are
// intersected.
//
//   causal          j <= position
//   window (l, r)   position − l <= j <= position + r, a side of −1 unbounded
//   lengths         j < key_count
//   sink_tokens n   j < n, whatever the window
#pragma once

#include <cstdint>

#include "kernels.h"

#include "numattn/score.h"

namespace numattn {

// Sums that stop at the ends of 64 bits: no key lies there, so what is beyond means the same.
std::int64_t saturating_add(std::int64_t a, std::int64_t b);

// The first keys that the row at `position` sees whatever the window; (0, 0) for none.
KeyRange key_head(const SpanRules& rules, std::int64_t position, std::int64_t key_count);

// Keys [begin, end) within [0, key_count) that the row at `position` sees; (0, 0) for none.
KeyRange key_span(const SpanRules& rules, std::int64_t position, std::int64_t key_count);

}  // namespace numattn
