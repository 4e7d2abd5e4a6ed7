// Projection plans: every row block meets every panel once.
#include "gemm_plan.h"

#include <algorithm>
#include <initializer_list>

#include "expect.h"

namespace {

void covers(const numattn::GemmPlan& plan, std::int64_t rows, std::int64_t features) {
  expect(plan.row_blocks * plan.block_rows >= rows, "rows left over");
  expect((plan.row_blocks - 1) * plan.block_rows < rows, "an empty row block");
  expect(plan.panels * numattn::kPanelColumns >= features, "features left over");
  expect(plan.panels_per_item >= 1, "an item without panels");
  expect(plan.panel_groups * plan.panels_per_item >= plan.panels, "panels left over");
  expect((plan.panel_groups - 1) * plan.panels_per_item < plan.panels, "an empty group");
  expect(plan.items == plan.row_blocks * plan.panel_groups, "items");
}

// Two products to an item: what the first one makes stays in the cache.
void factors(const numattn::GemmPlan& plan, std::int64_t rows, std::int64_t features) {
  for (const std::int64_t item_size : {2, 4}) {
    const numattn::GemmPlan both = numattn::with_factor_tiles(plan, rows, item_size);
    covers(both, rows, features);
    expect(both.block_rows % numattn::kGemmStripRows == 0 || both.block_rows == plan.block_rows,
           "part of a strip");
    expect(both.panels_per_item % 2 == 0 || both.panels_per_item == plan.panels_per_item,
           "half a pair of panels");
    const std::int64_t bytes =
        std::min(rows, both.block_rows) * both.panels_per_item * numattn::kPanelColumns * item_size;
    expect(bytes <= 2 * 1024 * 1024, "%d bytes of a factor", static_cast<int>(bytes));
  }
}

// Strips are whole, weights of an item stay in the second cache level block by block, an item is
// done before an interrupt is waited for, and threads have items where there is work for them.
void strips_of(numattn::PanelFormat format, std::int64_t rows, std::int64_t features,
               std::int64_t depth, bool copies, int threads) {
  const numattn::GemmPlan plan =
      numattn::plan_strips(rows, features, depth, format, copies, threads);
  covers(plan, rows, features);
  factors(plan, rows, features);
  expect(plan.block_rows % numattn::kGemmStripRows == 0, "part of a strip");
  expect(plan.panels_per_item % 2 == 0, "half a pair of panels");
  const std::int64_t panels = numattn::strip_panels(format, depth, features);
  const std::int64_t bytes = panels * numattn::panel_bytes(format, depth);
  expect(bytes <= 768 * 1024 || panels == 2, "more weights than the cache holds");
  const double flops = 2.0 * static_cast<double>(plan.block_rows) * 48.0 *
                       static_cast<double>(plan.panels_per_item * depth);
  expect(flops <= 2e10 || plan.panels_per_item == panels, "an item of %g", flops);
  const double of_all = 2.0 * static_cast<double>(rows * features * depth);
  if (threads == 1 && rows <= 2048 && !copies && of_all < 1e9) {
    expect(plan.items == 1, "%d items for one thread", static_cast<int>(plan.items));
  }
  const std::int64_t most = (rows + 127) / 128 * ((plan.panels + 1) / 2);
  expect(plan.items >= threads || plan.items * 4 >= most, "%d items of %d for %d threads",
         static_cast<int>(plan.items), static_cast<int>(most), threads);
}

void strips() {
  for (const std::int64_t rows : {5, 32, 33, 64, 1000, 2048, 100000}) {
    for (const std::int64_t features : {1, 48, 49, 96, 384, 1536, 50000}) {
      for (const std::int64_t depth : {1, 64, 384, 4096}) {
        for (const int threads : {1, 2, 16, 200}) {
          for (const bool copies : {false, true}) {
            strips_of(numattn::PanelFormat::kBFloat16, rows, features, depth, copies, threads);
          }
          strips_of(numattn::PanelFormat::kW8A8, rows, features, depth, true, threads);
        }
      }
    }
  }
}

// Several threads read a weight from memory faster than one, and a short text does not leave any of
// them idle; one thread is given few items.
void few_rows() {
  for (const std::int64_t rows : {1, 4}) {
    const numattn::GemmPlan plan = numattn::plan_gemm(rows, 2048, 2048, true, 1);
    covers(plan, rows, 2048);
    expect(plan.items >= 4, "%d items of a weight of 16 MiB", static_cast<int>(plan.items));
    const numattn::GemmPlan small = numattn::plan_gemm(rows, 384, 384, true, 1);
    expect(small.items == 1, "%d items of a weight in the cache", static_cast<int>(small.items));
    const auto threads = [&](std::int64_t features, numattn::PanelFormat format) {
      return numattn::gemm_threads(rows, features, 384, format);
    };
    expect(threads(48, numattn::PanelFormat::kFloat32) == 1, "several threads for one panel");
    expect(threads(384, numattn::PanelFormat::kFloat32) > 1, "one thread to read 600 KB");
    expect(threads(192, numattn::PanelFormat::kInt8) == 1, "several threads to read 75 KB");
  }
  for (const bool copies : {false, true}) {
    for (const std::int64_t features : {384, 1152, 1536}) {
      for (const int threads : {2, 4}) {
        const numattn::GemmPlan plan = numattn::plan_gemm(16, features, 384, copies, threads);
        covers(plan, 16, features);
        expect(numattn::gemm_threads(16, features, 384, numattn::PanelFormat::kInt8) >= threads,
               "too few threads");
        expect(plan.items >= threads, "%d items for %d threads", static_cast<int>(plan.items),
               threads);
        if (copies && plan.items > threads) {
          expect(plan.panels_per_item >= 8, "copies for %d panels",
                 static_cast<int>(plan.panels_per_item));
        }
      }
    }
  }
}

}  // namespace

int main() {
  strips();
  few_rows();
  for (const std::int64_t rows : {1, 7, 63, 64, 65, 2048}) {
    for (const std::int64_t features : {1, 47, 48, 49, 384, 1536}) {
      for (const std::int64_t depth : {1, 64, 4096}) {
        for (const int threads : {1, 2, 16, 200}) {
          for (const bool copies : {false, true}) {
            const numattn::GemmPlan plan =
                numattn::plan_gemm(rows, features, depth, copies, threads);
            covers(plan, rows, features);
            factors(plan, rows, features);
          }
        }
      }
    }
  }
  return report();
}
