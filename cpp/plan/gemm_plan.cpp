#include "gemm_plan.h"

#include <algorithm>

#include "divide_up.h"

namespace numattn {
namespace {

// x's part of the second-level cache (1 to 2 MiB where it matters): the rows of an item stay there
// while panels stream past. Measured on Zen 4, 2048 × 384 → 1536: blocks of 64 rows 91 GFLOP/s.
constexpr std::int64_t kRowBytes = 384 * 1024;
constexpr std::int64_t kMostRows = 512;

// Work per item: some 0.3 ms on one core, so that items are cheap to hand out and even to share.
constexpr double kFlopsPerItem = 3e7;

// Copying a row costs as much as some tens of output features do: such items take more panels.
constexpr std::int64_t kPanelsPerCopy = 8;

}  // namespace

std::int64_t panel_count(std::int64_t features) { return divide_up(features, kPanelColumns); }

GemmPlan plan_gemm(std::int64_t rows, std::int64_t features, std::int64_t depth, bool copies) {
  GemmPlan plan{};
  const std::int64_t fitting = kRowBytes / (4 * std::max<std::int64_t>(depth, 1));
  plan.block_rows = std::clamp<std::int64_t>(fitting / kGemmRows * kGemmRows, kGemmRows, kMostRows);
  plan.row_blocks = divide_up(rows, plan.block_rows);
  plan.panels = panel_count(features);
  const double panel_flops = 2.0 * static_cast<double>(std::min(rows, plan.block_rows)) *
                             kPanelColumns * static_cast<double>(std::max<std::int64_t>(depth, 1));
  plan.panels_per_item = std::clamp<std::int64_t>(
      static_cast<std::int64_t>(kFlopsPerItem / std::max(panel_flops, 1.0)), 1,
      std::max<std::int64_t>(plan.panels, 1));
  if (copies && rows > kGemmRows) {
    plan.panels_per_item =
        std::clamp<std::int64_t>(plan.panels, 1, std::max(plan.panels_per_item, kPanelsPerCopy));
  }
  plan.panel_groups = divide_up(plan.panels, plan.panels_per_item);
  plan.items = plan.row_blocks * plan.panel_groups;
  plan.flops =
      2.0 * static_cast<double>(rows) * static_cast<double>(features) * static_cast<double>(depth);
  return plan;
}

}  // namespace numattn
