#include "gemm_plan.h"

#include <algorithm>

#include "divide_up.h"
#include "useful_threads.h"

namespace numattn {
namespace {

// x's part of the second-level cache (1 to 2 MiB where it matters): the rows of an item stay there
// while panels stream past. Measured on Zen 4, 2048 × 384 → 1536: blocks of 64 rows 91 GFLOP/s.
constexpr std::int64_t kRowBytes = 384 * 1024;
constexpr std::int64_t kMostRows = 512;

// Work per item: some 0.3 ms on one core, so that items are cheap to hand out and even to share.
constexpr double kFlopsPerItem = 3e7;

// Fewer rows take as long as so many: weights come from memory at some 20 GB/s, four bytes for two
// operations of a row, of which a core does 100 billion in a second.
constexpr std::int64_t kRowsOfReading = 20;

// A core computes 100 billion in a second, or reads so many bytes of weights: 20 GB/s from the last
// cache level, from memory half of it.
constexpr double kFlopsPerByte = 5.0;

// Copying a row costs as much as some tens of output features do: such items take more panels, and
// the fewest of them where threads are to be kept busy. Measured on Zen 4, 2048 × 384 → 1536 of
// float32 by bfloat16 weights, and by int8 ones: 8 panels 210 and 196 GFLOP/s, 16 216 and 206, 32
// 220 and 210.
constexpr std::int64_t kPanelsPerCopy = 32;
constexpr std::int64_t kFewestPanelsPerCopy = 8;

// Rows of an item in strips at most: each block of weights is read from afar once for so many.
// Where they are copied, the copies stay in the second-level cache or near it.
constexpr std::int64_t kMostStripRows = 2048;
constexpr std::int64_t kStripCopyBytes = 2 * 1024 * 1024;

// And at least, where threads are to be kept busy.
constexpr std::int64_t kFewestStripRows = 128;

// Work per item at most, some 10 ms of a core: an interrupt is noticed between items.
constexpr double kMostStripFlops = 1e10;

// Items of a thread, so that one that is held up leaves its last ones to others.
constexpr std::int64_t kItemsPerThread = 3;

// Results that an item keeps for its second product. Fewer of them wait nearer, but then rows are
// copied more often: on Zen 4, 2048 × 384 → 1536 twice, of the speed of two calls, 512 KiB 0.987
// by bfloat16 weights and 0.968 by int8 ones, 1 MiB 1.005 and 0.996, 2 MiB 1.009 and 1.007.
constexpr std::int64_t kFactorBytes = 2 * 1024 * 1024;

double flops_of(std::int64_t rows, std::int64_t features, std::int64_t depth) {
  return 2.0 * static_cast<double>(rows) * static_cast<double>(features) *
         static_cast<double>(depth);
}

// The fewest equal blocks of at most `most`, each whole steps.
std::int64_t equal_blocks(std::int64_t count, std::int64_t most, std::int64_t step) {
  const std::int64_t blocks = std::max<std::int64_t>(divide_up(count, most), 1);
  return std::max<std::int64_t>(divide_up(divide_up(count, blocks), step), 1) * step;
}

std::int64_t items_wanted(int threads) { return threads > 1 ? kItemsPerThread * threads : 1; }

}  // namespace

std::int64_t panel_count(std::int64_t features) { return divide_up(features, kPanelColumns); }

int gemm_threads(std::int64_t rows, std::int64_t features, std::int64_t depth, PanelFormat format) {
  const double weights = static_cast<double>(panel_count(features) * panel_bytes(format, depth));
  return useful_threads(std::max(flops_of(rows, features, depth), weights * kFlopsPerByte),
                        divide_up(rows, kGemmStripRows) * divide_up(panel_count(features), 2));
}

GemmPlan plan_gemm(std::int64_t rows, std::int64_t features, std::int64_t depth, bool copies,
                   int threads) {
  GemmPlan plan{};
  const std::int64_t fitting = kRowBytes / (4 * std::max<std::int64_t>(depth, 1));
  plan.block_rows = std::clamp<std::int64_t>(fitting / kGemmRows * kGemmRows, kGemmRows, kMostRows);
  plan.row_blocks = divide_up(rows, plan.block_rows);
  plan.panels = panel_count(features);
  const double panel_flops = flops_of(std::max(std::min(rows, plan.block_rows), kRowsOfReading),
                                      kPanelColumns, std::max<std::int64_t>(depth, 1));
  plan.panels_per_item = std::clamp<std::int64_t>(
      static_cast<std::int64_t>(kFlopsPerItem / std::max(panel_flops, 1.0)), 1,
      std::max<std::int64_t>(plan.panels, 1));
  if (copies && rows > kGemmRows) {
    plan.panels_per_item =
        std::clamp<std::int64_t>(plan.panels, 1, std::max(plan.panels_per_item, kPanelsPerCopy));
  }
  // A text of 16 words is one item of a small model's projections: no thread is to be idle, and
  // beyond that items are to be worth their copies.
  const auto panels_for = [&](std::int64_t items) {
    return std::max<std::int64_t>(divide_up(plan.panels, divide_up(items, plan.row_blocks)), 1);
  };
  if (threads > 1) {
    const std::int64_t shared = panels_for(threads);
    const std::int64_t least = copies ? std::min(kFewestPanelsPerCopy, shared) : 1;
    plan.panels_per_item =
        std::min(plan.panels_per_item, std::max(panels_for(items_wanted(threads)), least));
  }
  plan.panel_groups = divide_up(plan.panels, plan.panels_per_item);
  plan.items = plan.row_blocks * plan.panel_groups;
  return plan;
}

GemmPlan plan_strips(std::int64_t rows, std::int64_t features, std::int64_t depth,
                     PanelFormat format, bool copies, int threads) {
  GemmPlan plan{};
  plan.panels = panel_count(features);
  const std::int64_t wanted = items_wanted(threads);

  std::int64_t most_rows = kMostStripRows;
  if (copies) {
    const std::int64_t item = format == PanelFormat::kW8A8 ? 1 : 2;
    const std::int64_t fitting = kStripCopyBytes / (item * std::max<std::int64_t>(depth, 1));
    most_rows = std::clamp(fitting / kGemmStripRows * kGemmStripRows, kFewestStripRows, most_rows);
  }
  plan.block_rows = equal_blocks(rows, most_rows, kGemmStripRows);
  plan.row_blocks = divide_up(rows, plan.block_rows);

  // First between blocks of columns, which costs copied rows alone; then between rows, as long as
  // weights are used often; last within a block of columns.
  const std::int64_t block_panels = strip_panels(format, depth, features);
  const std::int64_t column_blocks =
      std::max<std::int64_t>(divide_up(plan.panels, block_panels), 1);
  const double block_flops = flops_of(plan.block_rows, block_panels * kPanelColumns, depth);
  const std::int64_t at_most = std::clamp<std::int64_t>(
      static_cast<std::int64_t>(kMostStripFlops / std::max(block_flops, 1.0)), 1, column_blocks);
  const std::int64_t groups = std::clamp(divide_up(wanted, plan.row_blocks),
                                         divide_up(column_blocks, at_most), column_blocks);
  plan.panels_per_item = divide_up(column_blocks, groups) * block_panels;
  plan.panel_groups = divide_up(plan.panels, plan.panels_per_item);
  if (plan.row_blocks * plan.panel_groups < wanted) {
    const std::int64_t needed = divide_up(wanted, plan.panel_groups);
    const std::int64_t fewer = std::max(divide_up(rows, needed), kFewestStripRows);
    plan.block_rows = std::min(plan.block_rows, equal_blocks(rows, fewer, kGemmStripRows));
    plan.row_blocks = divide_up(rows, plan.block_rows);
  }
  if (plan.row_blocks * plan.panel_groups < wanted) {
    const std::int64_t needed = divide_up(wanted, plan.row_blocks);
    plan.panels_per_item = std::min(plan.panels_per_item,
                                    equal_blocks(plan.panels, divide_up(plan.panels, needed), 2));
    plan.panel_groups = divide_up(plan.panels, plan.panels_per_item);
  }
  plan.items = plan.row_blocks * plan.panel_groups;
  return plan;
}

GemmPlan with_factor_tiles(GemmPlan plan, std::int64_t rows, std::int64_t item_size) {
  plan.block_rows = std::min(plan.block_rows, kMostRows);
  plan.row_blocks = divide_up(rows, plan.block_rows);
  const std::int64_t panel = std::min(rows, plan.block_rows) * kPanelColumns * item_size;
  // Strips take pairs of panels.
  const std::int64_t fitting = kFactorBytes / panel / 2 * 2;
  plan.panels_per_item = std::min(plan.panels_per_item, std::max<std::int64_t>(fitting, 2));
  plan.panel_groups = divide_up(plan.panels, plan.panels_per_item);
  plan.items = plan.row_blocks * plan.panel_groups;
  return plan;
}

}  // namespace numattn
