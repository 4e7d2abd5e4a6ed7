#include "attention_plan.h"

#include <algorithm>

#include "divide_up.h"

namespace numattn {
namespace {

// Keys per split, rounded to key blocks: enough that combining the states is nothing. Only key
// heads with so few rows are split: others have blocks enough to share. 128 are the query heads of
// DeepSeek-V3's one key head in a step of decoding, all that there is to share.
constexpr std::int64_t kSplitKeys = 1152;
constexpr std::int64_t kMostSplitRows = 128;

// Keys per visit at head dimension 128, rounded to key blocks: 96 rows · 4,608 keys · 512 flops
// take some 10 ms on the slowest kernels, well inside the 0.2 s in which an interrupt must be seen.
constexpr std::int64_t kVisitKeys = 4608;

// Where keys and values are packed: all of a head's at once while they stay in a second-level cache
// of 2 MiB beside all else, else so many keys, and no more bytes of them, as a part that the rows
// of a block go through one after the other. Measured on Granite Rapids, S16384 D64 causal: all at
// once 854 GFLOP/s, 1,024 keys 1,232 to 1,260, 512 keys 1,173.
constexpr std::int64_t kPackedBytes = std::int64_t{1} << 20;
constexpr std::int64_t kPackedPartKeys = 1024;
constexpr std::int64_t kPackedPartBytes = kPackedBytes / 2;
constexpr std::int64_t kFewestPackedKeys = 256;

// Rows of such a block at most; between two parts its output stays in the second-level cache too.
constexpr std::int64_t kMostPackedRows = 1024;
constexpr std::int64_t kFewestPackedRows = 96;
constexpr std::int64_t kOutputBytes = std::int64_t{1} << 19;

// The unit's operands are whole in so many elements.
std::int64_t packed_width(std::int64_t width) { return divide_up(width, 32) * 32; }

std::int64_t packed_visit(const TileFacts& facts, const AttentionShape& shape) {
  const std::int64_t key_bytes =
      (packed_width(shape.head_dim) + packed_width(shape.value_dim)) * facts.packed_bytes;
  const std::int64_t all = divide_up(std::max<std::int64_t>(shape.keys, 1), facts.key_block);
  if (all <= kPackedBytes / key_bytes / facts.key_block) return all * facts.key_block;
  const std::int64_t keys = std::min(kPackedPartKeys, kPackedPartBytes / key_bytes);
  return std::max(keys, kFewestPackedKeys) / kFewestPackedKeys * kFewestPackedKeys;
}

std::int64_t most_packed_rows(const TileFacts& facts, const AttentionShape& shape) {
  const std::int64_t rows = kOutputBytes / (packed_width(shape.value_dim) * 4);
  return std::clamp(rows / facts.lane_group * facts.lane_group, kFewestPackedRows, kMostPackedRows);
}

AttentionPlan cut(const AttendKernel& kernel, const AttentionShape& shape,
                  std::int64_t rows_per_head, std::int64_t block_rows, bool splits, bool lists) {
  const TileFacts& facts = kernel.facts;
  AttentionPlan plan{};
  plan.kernel = &kernel;
  plan.rows_per_head = rows_per_head;
  plan.most_rows = facts.packed_bytes > 0 ? most_packed_rows(facts, shape) : block_rows;
  plan.block_rows = std::min(block_rows, plan.most_rows);
  plan.blocks = divide_up(rows_per_head, plan.block_rows);
  plan.key_block = lists ? std::min<std::int64_t>(facts.key_block, kMaskBlock) : facts.key_block;
  plan.split_keys = shape.keys;
  plan.splits = 1;
  if (splits) {
    plan.split_keys = divide_up(kSplitKeys, plan.key_block) * plan.key_block;
    plan.splits = divide_up(shape.keys, plan.split_keys);
  }
  const std::int64_t wide = std::max<std::int64_t>({shape.head_dim, shape.value_dim, 32});
  plan.visit_keys = divide_up(kVisitKeys * 128, wide * plan.key_block) * plan.key_block;
  if (facts.packed_bytes > 0) plan.visit_keys = packed_visit(facts, shape);
  plan.heads_per_item = 1;
  plan.items = shape.batch * shape.row_heads * plan.blocks * plan.splits;
  return plan;
}

}  // namespace

bool may_split(const AttentionShape& shape) {
  return shape.group() * shape.queries <= kMostSplitRows && shape.keys >= 2 * kSplitKeys;
}

void AttentionPlan::join(std::int64_t kv_heads, std::int64_t shares) {
  if (joins_heads) {
    std::int64_t heads = std::min<std::int64_t>({kv_heads, shares, kMostJoinedHeads});
    while (kv_heads % heads != 0) --heads;
    heads_per_item = heads;
    items /= heads;
  }
  const std::int64_t joined = std::min({most_rows / block_rows, shares, blocks});
  if (joined <= 1) return;
  items /= blocks;
  block_rows *= joined;
  blocks = divide_up(rows_per_head, block_rows);
  items *= blocks;
  size_workspace();
}

void AttentionPlan::size_workspace() {
  const int lane_group = kernel->facts.lane_group;
  needs.row_capacity =
      static_cast<int>(divide_up(std::min(block_rows, rows_per_head), lane_group) * lane_group);
  workspace_floats =
      std::max(kernel->workspace(kernel->facts, needs), combine_workspace(needs.value_dim));
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
  AttentionPlan plan =
      cut(kernel, shape, rows_per_head, copies ? facts.copied_rows : facts.block_rows,
          may_split(shape), needs.blocks);
  plan.needs = {0,
                shape.head_dim,
                shape.value_dim,
                needs.tile,
                std::min(plan.visit_keys, shape.keys),
                plan.visit_keys >= shape.keys,
                plan.split_keys > facts.fold_keys};
  plan.size_workspace();
  if (plan.splits > 1) {
    const std::int64_t rows = shape.batch * shape.row_heads * plan.rows_per_head;
    plan.partial_floats = rows * plan.splits * (shape.value_dim + 2);
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
  AttentionPlan plan = cut(attend, shape, shape.group() * rows, block_rows, false, needs.blocks);
  plan.needs = {facts.lane_group, shape.head_dim, 0, needs.tile};
  plan.workspace_floats = attend.workspace(facts, plan.needs);
  plan.flops = 2.0 * static_cast<double>(shape.batch * shape.query_heads) *
               static_cast<double>(rows) * static_cast<double>(shape.keys) *
               static_cast<double>(shape.head_dim);
  return plan;
}

}  // namespace numattn
