#include "gemm_plan.h"

#include <algorithm>

namespace numattn {
namespace {

// Multiplications per item that make handing it out cheap, some tens of microseconds.
constexpr double kFlopsPerItem = 2e6;
constexpr double kFlopsPerThread = 4e5;

}  // namespace

int GemmPlan::useful_threads() const {
  const double most = std::max(1.0, flops / kFlopsPerThread);
  return static_cast<int>(std::min({most, static_cast<double>(std::max<std::int64_t>(items, 1)), 65536.0}));
}

GemmPlan plan_gemm(std::int64_t rows, std::int64_t features,
                   std::int64_t depth, bool copies_rows) {
  GemmPlan plan{};
  plan.rows = rows;
  plan.row_blocks = (rows + kGemmRows - 1) / kGemmRows;
  plan.panels = (features + kPanelColumns - 1) / kPanelColumns;
  const double panel_flops = 2.0 * static_cast<double>(std::min<std::int64_t>(rows, kGemmRows)) *
                             kPanelColumns * static_cast<double>(std::max<std::int64_t>(depth, 1));
  plan.panels_per_item = std::clamp<std::int64_t>(
      static_cast<std::int64_t>(kFlopsPerItem / std::max(panel_flops, 1.0)), 1,
      std::max<std::int64_t>(plan.panels, 1));
  plan.panel_groups = (plan.panels + plan.panels_per_item - 1) / plan.panels_per_item;
  plan.items = plan.row_blocks * plan.panel_groups;
  plan.workspace_floats = gemm_workspace(depth, copies_rows);
  plan.flops = 2.0 * static_cast<double>(rows) * static_cast<double>(features) * static_cast<double>(depth);
  return plan;
}

}  // namespace numattn
