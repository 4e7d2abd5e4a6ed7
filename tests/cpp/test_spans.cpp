// Spans against the definition of each rule, key by key.
#include "spans.h"

#include <cstdint>
#include <initializer_list>
#include <limits>

#include "expect.h"

using numattn::key_head;
using numattn::key_span;
using numattn::KeyRange;
using numattn::SpanRules;

namespace {

bool sees(const SpanRules& rules, std::int64_t position, std::int64_t key) {
  if (rules.causal && key > position) return false;
  if (key < rules.sink_tokens) return true;
  if (rules.window_left >= 0 && key < position - rules.window_left) return false;
  if (rules.window_right >= 0 && key > position + rules.window_right) return false;
  return true;
}

void compare(const SpanRules& rules, std::int64_t position, std::int64_t key_count) {
  const KeyRange span = key_span(rules, position, key_count);
  const KeyRange head = key_head(rules, position, key_count);
  for (std::int64_t key = -3; key < key_count + 3; ++key) {
    const bool wanted = key >= 0 && key < key_count && sees(rules, position, key);
    const bool got = (key >= span.begin && key < span.end) || (key >= head.begin && key < head.end);
    expect(wanted == got, "causal %d window (%ld, %ld) sinks %ld position %ld of %ld keys: key %ld",
           static_cast<int>(rules.causal), static_cast<long>(rules.window_left),
           static_cast<long>(rules.window_right), static_cast<long>(rules.sink_tokens),
           static_cast<long>(position), static_cast<long>(key_count), static_cast<long>(key));
  }
}

void extremes_do_not_wrap() {
  const std::int64_t most = std::numeric_limits<std::int64_t>::max();
  const std::int64_t least = std::numeric_limits<std::int64_t>::min();
  const std::int64_t far = numattn::saturating_add(most, 1000);
  const std::int64_t before = numattn::saturating_add(least, -1);
  expect(key_span({true, -1, -1}, far, 10).end == 10, "a far row sees all keys before it");
  expect(key_span({true, -1, -1}, before, 10).empty(), "a row before all keys sees none");
  expect(key_span({false, 5, -1}, far, 10).empty(), "a far window is empty");
  const std::int64_t half = std::int64_t{1} << 61;
  expect(key_span({false, half, half}, 2 * half, 10).empty(), "a window that ends before the row");
  expect(key_span({false, most, most}, far, 10).begin == 0, "an endless window is unbounded");
  expect(key_span({false, most, most}, 3, 10).end == 10, "on both sides");
}

}  // namespace

int main() {
  for (const bool causal : {false, true}) {
    for (std::int64_t left = -1; left < 6; ++left) {
      for (std::int64_t right = -1; right < 6; ++right) {
        for (std::int64_t position = -8; position < 16; ++position) {
          for (const std::int64_t key_count : {0, 1, 2, 7}) {
            for (const std::int64_t sinks : {0, 1, 3, 9}) {
              compare({causal, left, right, sinks}, position, key_count);
            }
          }
        }
      }
    }
  }
  extremes_do_not_wrap();
  return report();
}
