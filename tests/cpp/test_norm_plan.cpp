// Items of a normalisation: every row in one, none too much.
#include "norm_plan.h"

#include <cstdint>
#include <initializer_list>

#include "expect.h"

int main() {
  for (const std::int64_t rows : {1, 2, 63, 64, 65, 1000}) {
    for (const std::int64_t width : {1, 5, 256, 16384, 16385, 1000000}) {
      const numattn::NormPlan plan = numattn::plan_norm(rows, width);
      const auto r = static_cast<long>(rows), w = static_cast<long>(width);
      expect(plan.rows_per_item >= 1, "%ld rows of %ld: an item has a row", r, w);
      expect(plan.items * plan.rows_per_item >= rows, "%ld rows of %ld: all are in an item", r, w);
      expect((plan.items - 1) * plan.rows_per_item < rows, "%ld rows of %ld: no item is empty", r,
             w);
      expect(plan.rows_per_item == 1 || plan.rows_per_item * width <= 16384,
             "%ld rows of %ld: an item is small", r, w);
      expect(plan.worthwhile_threads >= 1 && plan.worthwhile_threads <= plan.items,
             "%ld rows of %ld: threads have items", r, w);
    }
  }
  expect(numattn::plan_norm(1 << 20, 1024).worthwhile_threads > 64, "much work, many threads");
  expect(numattn::plan_norm(8, 1024).worthwhile_threads == 1, "little work, one thread");
  return report();
}
