#include "norm_plan.h"

#include <algorithm>

#include "divide_up.h"
#include "useful_threads.h"

namespace numattn {
namespace {

// Elements of a work item: ten microseconds or so.
constexpr std::int64_t kItemElements = 16384;

}  // namespace

NormPlan plan_norm(std::int64_t rows, std::int64_t width) {
  NormPlan plan{};
  plan.rows_per_item = std::max<std::int64_t>(1, kItemElements / width);
  plan.items = divide_up(rows, plan.rows_per_item);
  plan.worthwhile_threads = useful_threads_for(rows * width, plan.items);
  return plan;
}

}  // namespace numattn
