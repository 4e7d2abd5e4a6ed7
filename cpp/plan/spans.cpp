#include "spans.h"

#include <algorithm>
#include <limits>

namespace numattn {

std::int64_t saturating_add(std::int64_t a, std::int64_t b) {
  std::int64_t sum = 0;
  if (!__builtin_add_overflow(a, b, &sum)) return sum;
  return b > 0 ? std::numeric_limits<std::int64_t>::max()
               : std::numeric_limits<std::int64_t>::min();
}

KeyRange key_head(const SpanRules& rules, std::int64_t position, std::int64_t key_count) {
  std::int64_t end = std::min(rules.sink_tokens, key_count);
  if (rules.causal) end = std::min(end, saturating_add(position, 1));
  return end > 0 ? KeyRange{0, end} : KeyRange{0, 0};
}

KeyRange key_span(const SpanRules& rules, std::int64_t position, std::int64_t key_count) {
  std::int64_t begin = 0;
  std::int64_t end = key_count;
  if (rules.causal) end = std::min(end, saturating_add(position, 1));
  if (rules.window_left >= 0) begin = std::max(begin, saturating_add(position, -rules.window_left));
  if (rules.window_right >= 0) {
    end = std::min(end, saturating_add(saturating_add(position, rules.window_right), 1));
  }
  return begin < end ? KeyRange{begin, end} : KeyRange{0, 0};
}

}  // namespace numattn
