// How a rotary embedding is cut into work items: blocks of heads and positions.
#pragma once

#include <cstdint>

namespace numattn {

struct RopeShape {
  std::int64_t batch, heads, positions, width;  // each at least 1
  bool heads_inside;  // the heads of a position lie nearer to one another than its rows
};

struct RopePlan {
  std::int64_t heads, positions;  // of an item, at most
  std::int64_t head_blocks, position_blocks;
  std::int64_t items;
  int worthwhile_threads;

  struct Place {
    std::int64_t batch, head, position;  // the item's first
  };
  // Successive items share their positions, and with them rows of the tables.
  Place place_of(std::int64_t item) const;
};

RopePlan plan_rope(const RopeShape& shape);

}  // namespace numattn
