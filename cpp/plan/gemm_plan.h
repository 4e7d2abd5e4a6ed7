// How one projection is cut into work items: row blocks times groups of panels.
#pragma once

#include <cstdint>

#include "kernels.h"
#include "useful_threads.h"

namespace numattn {

struct GemmPlan {
  std::int64_t block_rows;  // rows of an item, which stay in the second-level cache
  std::int64_t row_blocks;
  std::int64_t panels;  // of all output features
  std::int64_t panels_per_item;
  std::int64_t panel_groups;
  std::int64_t items;
  std::int64_t workspace_floats;
  double flops;

  int worthwhile_threads() const { return useful_threads(flops, items); }
};

GemmPlan plan_gemm(std::int64_t rows, std::int64_t features, std::int64_t depth, bool copies_rows);

}  // namespace numattn
