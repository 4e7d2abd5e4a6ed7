#include "spans.h"

#include <algorithm>

namespace numattn {

std::int64_t row_position(std::int64_t offset, std::int64_t query) {
  return std::clamp(std::clamp(offset, -kFarthest, kFarthest) + query, -kFarthest, kFarthest);
}

KeySpan key_span(const SpanRules& rules, std::int64_t position, std::int64_t key_count) {
  std::int64_t begin = 0;
  std::int64_t end = key_count;
  if (rules.causal) end = std::min(end, position + 1);
  if (rules.window_left >= 0)
    begin = std::max(begin, position - std::min(rules.window_left, kFarthest));
  if (rules.window_right >= 0)
    end = std::min(end, position + std::min(rules.window_right, kFarthest) + 1);
  return begin < end ? KeySpan{begin, end} : KeySpan{0, 0};
}

}  // namespace numattn
