// Projection plans: every row block meets every panel once.
#include "gemm_plan.h"

#include <initializer_list>

#include "expect.h"

int main() {
  for (const std::int64_t rows : {1, 7, 63, 64, 65, 2048}) {
    for (const std::int64_t features : {1, 47, 48, 49, 384, 1536}) {
      for (const std::int64_t depth : {1, 64, 4096}) {
        const numattn::GemmPlan plan = numattn::plan_gemm(rows, features, depth, true);
        expect(plan.row_blocks * plan.block_rows >= rows, "rows left over");
        expect((plan.row_blocks - 1) * plan.block_rows < rows, "an empty row block");
        expect(plan.panels * numattn::kPanelColumns >= features, "features left over");
        expect(plan.panels_per_item >= 1, "an item without panels");
        expect(plan.panel_groups * plan.panels_per_item >= plan.panels, "panels left over");
        expect((plan.panel_groups - 1) * plan.panels_per_item < plan.panels, "an empty group");
        expect(plan.items == plan.row_blocks * plan.panel_groups, "items");
      }
    }
  }
  return report();
}
