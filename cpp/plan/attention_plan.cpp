#include "attention_plan.h"

#include <algorithm>

#include "divide_up.h"

namespace numattn {
namespace {

// Keys per split, rounded to key blocks: enough that combining the states is nothing. Only key
// heads with so few rows are split: others have blocks enough to share.
constexpr std::int64_t kSplitKeys = 1152;
constexpr std::int64_t kMostSplitRows = 96;

// Keys per visit at head dimension 128, rounded to key blocks: 96 rows · 4,608 keys · 512 flops
// take some 10 ms on the slowest kernels, well inside the 0.2 s in which an interrupt must be seen.
constexpr std::int64_t kVisitKeys = 4608;

AttentionPlan cut(const AttendKernel& kernel, const AttentionShape& shape,
                  std::int64_t rows_per_head, std::int64_t block_rows, bool splits) {
  const TileFacts& facts = kernel.facts;
  AttentionPlan plan{};
  plan.kernel = &kernel;
  plan.rows_per_head = rows_per_head;
  plan.block_rows = block_rows;
  plan.blocks = divide_up(rows_per_head, plan.block_rows);
  plan.key_block = facts.key_block;
  plan.split_keys = shape.keys;
  plan.splits = 1;
  if (splits) {
    plan.split_keys = divide_up(kSplitKeys, facts.key_block) * facts.key_block;
    plan.splits = divide_up(shape.keys, plan.split_keys);
  }
  const std::int64_t wide = std::max<std::int64_t>({shape.head_dim, shape.value_dim, 32});
  plan.visit_keys = divide_up(kVisitKeys * 128, wide * facts.key_block) * facts.key_block;
  plan.heads_per_item = 1;
  plan.items = shape.batch * shape.row_heads * plan.blocks * plan.splits;
  return plan;
}

}  // namespace

bool may_split(const AttentionShape& shape) {
  return shape.group() * shape.queries <= kMostSplitRows && shape.keys >= 2 * kSplitKeys;
}

void AttentionPlan::join_heads(std::int64_t kv_heads, std::int64_t shares) {
  if (!joins_heads) return;
  std::int64_t heads = std::min<std::int64_t>({kv_heads, shares, kMostJoinedHeads});
  while (kv_heads % heads != 0) --heads;
  heads_per_item = heads;
  items /= heads;
}

std::int64_t AttentionPlan::head_bytes() const {
  const std::int64_t rows = block_rows * static_cast<std::int64_t>(sizeof(QueryRow));
  const std::int64_t block = sizeof(AttendBlock) + sizeof(PartialState);
  return (block + rows + 63) / 64 * 64 + workspace_floats * 4;
}

std::int64_t AttentionPlan::scratch_bytes(int threads) const {
  return threads * thread_bytes() + partial_bytes();
}

AttentionPlan plan_attention(const AttendKernel& attend, const AttendKernel& decode,
                             const AttentionShape& shape, const PlanNeeds& needs) {
  const std::int64_t rows_per_head = shape.group() * shape.queries;
  const bool few = rows_per_head <= decode.facts.block_rows && !needs.tile.relative;
  const AttendKernel& kernel = few ? decode : attend;
  const TileFacts& facts = kernel.facts;
  const bool copies = needs.tile.key_copy || needs.tile.value_copy;
  AttentionPlan plan = cut(kernel, shape, rows_per_head,
                           copies ? facts.copied_rows : facts.block_rows, may_split(shape));
  const int capacity = static_cast<int>(
      divide_up(std::min(plan.block_rows, rows_per_head), facts.lane_group) * facts.lane_group);
  plan.needs = {capacity, shape.head_dim, shape.value_dim, needs.tile};
  plan.workspace_floats =
      std::max(kernel.workspace(facts, plan.needs), padded_floats(shape.value_dim));
  if (plan.splits > 1) {
    plan.partial_floats = plan.items * plan.rows_per_head * (shape.value_dim + 2);
  }
  plan.joins_heads = &kernel == &decode && needs.heads_inside && shape.row_heads > 1;
  plan.flops = 2.0 * static_cast<double>(shape.batch * shape.query_heads) *
               static_cast<double>(shape.queries) * static_cast<double>(shape.keys) *
               static_cast<double>(shape.head_dim + shape.value_dim);
  return plan;
}

AttentionPlan plan_weights(const AttendKernel& attend, const AttentionShape& shape,
                           std::int64_t rows, const PlanNeeds& needs) {
  const TileFacts& facts = attend.facts;
  const std::int64_t block_rows = needs.lone_rows ? 1 : facts.lane_group;
  AttentionPlan plan = cut(attend, shape, shape.group() * rows, block_rows, false);
  plan.needs = {facts.lane_group, shape.head_dim, 0, needs.tile};
  plan.workspace_floats = attend.workspace(facts, plan.needs);
  plan.flops = 2.0 * static_cast<double>(shape.batch * shape.query_heads) *
               static_cast<double>(rows) * static_cast<double>(shape.keys) *
               static_cast<double>(shape.head_dim);
  return plan;
}

}  // namespace numattn
