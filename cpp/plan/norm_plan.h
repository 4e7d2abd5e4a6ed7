// How a normalisation is cut into work items: some rows each.
#pragma once

#include <cstdint>

namespace numattn {

struct NormPlan {
  std::int64_t rows_per_item;
  std::int64_t items;
  int worthwhile_threads;
};

// width >= 1.
NormPlan plan_norm(std::int64_t rows, std::int64_t width);

}  // namespace numattn
