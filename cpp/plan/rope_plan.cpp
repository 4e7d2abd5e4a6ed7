#include "rope_plan.h"

#include <algorithm>

#include "divide_up.h"
#include "useful_threads.h"

namespace numattn {
namespace {

// Elements of a work item: some ten microseconds from memory.
constexpr std::int64_t kItemElements = 16384;

// Successive elements of a head in a work item, where heads lie apart: from stretch to stretch the
// processor's fetching ahead starts anew. Zen 4, 32 heads of 128, 2048 positions, stretches of 512,
// 1024, 4096, 16384 elements: 6.4, 5.4, 4.1, 3.7 ms; heads side by side 2.2 ms.
constexpr std::int64_t kStretch = 4096;

// How many of `length` things, each so many elements, an item takes.
std::int64_t fitting(std::int64_t length, std::int64_t elements) {
  return std::clamp<std::int64_t>(kItemElements / elements, 1, length);
}

}  // namespace

RopePlan plan_rope(const RopeShape& shape) {
  RopePlan plan{};
  plan.heads = fitting(shape.heads, shape.width);
  plan.positions = fitting(shape.positions, shape.width * plan.heads);
  if (!shape.heads_inside) {
    plan.positions = std::max(plan.positions, std::min(shape.positions, kStretch / shape.width));
  }
  plan.head_blocks = divide_up(shape.heads, plan.heads);
  plan.position_blocks = divide_up(shape.positions, plan.positions);
  plan.items = shape.batch * plan.head_blocks * plan.position_blocks;
  plan.worthwhile_threads =
      useful_threads_for(shape.batch * shape.heads * shape.positions * shape.width, plan.items);
  return plan;
}

RopePlan::Place RopePlan::place_of(std::int64_t item) const {
  return {item / (head_blocks * position_blocks), item % head_blocks * heads,
          item / head_blocks % position_blocks * positions};
}

}  // namespace numattn
