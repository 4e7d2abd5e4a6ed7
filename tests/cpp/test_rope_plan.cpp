// Items of a rotary embedding: every head of every position in exactly one.
#include "rope_plan.h"

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <vector>

#include "expect.h"

using numattn::plan_rope;
using numattn::RopePlan;
using numattn::RopeShape;

namespace {

void covers_all_once(const RopeShape& shape) {
  const RopePlan plan = plan_rope(shape);
  const std::int64_t total = shape.batch * shape.heads * shape.positions;
  std::vector<int> seen(static_cast<std::size_t>(total), 0);
  for (std::int64_t item = 0; item < plan.items; ++item) {
    const RopePlan::Place place = plan.place_of(item);
    const std::int64_t heads = std::min(shape.heads, place.head + plan.heads);
    const std::int64_t positions = std::min(shape.positions, place.position + plan.positions);
    for (std::int64_t head = place.head; head < heads; ++head) {
      for (std::int64_t position = place.position; position < positions; ++position) {
        const std::int64_t row = (place.batch * shape.heads + head) * shape.positions + position;
        if (row >= 0 && row < total) ++seen[static_cast<std::size_t>(row)];
      }
    }
  }
  expect(std::count(seen.begin(), seen.end(), 1) == total,
         "batch %ld heads %ld positions %ld width %ld: each row once",
         static_cast<long>(shape.batch), static_cast<long>(shape.heads),
         static_cast<long>(shape.positions), static_cast<long>(shape.width));
  expect(plan.worthwhile_threads >= 1 && plan.worthwhile_threads <= plan.items,
         "threads have items");
}

}  // namespace

int main() {
  for (const std::int64_t batch : {1, 3}) {
    for (const std::int64_t heads : {1, 7, 32, 300}) {
      for (const std::int64_t positions : {1, 31, 257}) {
        for (const std::int64_t width : {1, 6, 128, 20000}) {
          for (const bool inside : {false, true}) {
            covers_all_once({batch, heads, positions, width, inside});
          }
        }
      }
    }
  }
  // Heads that lie apart are read in longer stretches.
  expect(plan_rope({1, 32, 2048, 128, false}).positions == 32, "4,096 elements of a head");
  expect(plan_rope({1, 32, 2048, 128, true}).positions == 4, "16,384 elements of all heads");
  return report();
}
