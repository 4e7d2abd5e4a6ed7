// How one projection is cut into work items: row blocks times groups of panels.
#pragma once

#include <cstdint>

#include "kernels.h"

namespace numattn {

struct GemmPlan {
  std::int64_t block_rows;  // rows of an item, which stay in the second-level cache
  std::int64_t row_blocks;
  std::int64_t panels;  // of all output features
  std::int64_t panels_per_item;
  std::int64_t panel_groups;
  std::int64_t items;
};

// Panels of a weight with so many output features.
std::int64_t panel_count(std::int64_t features);

// Threads that a projection is worth, however it is cut.
int gemm_threads(std::int64_t rows, std::int64_t features, std::int64_t depth, PanelFormat format);

// The more rows and the more panels in an item, the less often either is read again, so that they
// are cut for as many threads as there are. No result depends on it.
// `copies`: the rows of an item are copied, which should be worth while.
GemmPlan plan_gemm(std::int64_t rows, std::int64_t features, std::int64_t depth, bool copies,
                   int threads);

// The same for kernels whose panels pass strips of rows (GemmKernel::in_strips).
GemmPlan plan_strips(std::int64_t rows, std::int64_t features, std::int64_t depth,
                     PanelFormat format, bool copies, int threads);

// The same for items of two products, of which the first one's results, of so many bytes each, are
// the second one's factor: until then they are to stay in the cache.
GemmPlan with_factor_tiles(GemmPlan plan, std::int64_t rows, std::int64_t item_size);

}  // namespace numattn
