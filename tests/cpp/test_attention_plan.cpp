// Plans: every row of every head and every key is covered once, and the memory is what it says.
#include "attention_plan.h"

#include <algorithm>
#include <initializer_list>

#include "areas.h"
#include "expect.h"

using numattn::AttentionPlan;
using numattn::AttentionShape;
using numattn::FloatWorkspace;
using numattn::PlanNeeds;

namespace {

struct Kernel {
  numattn::AttendKernel attend, decode;
};

constexpr std::int64_t kFoldKeys = 4608;

constexpr Kernel kernel_of(int lane_group, int key_block, int vector_width) {
  return {
      {"attend",
       {lane_group, key_block, 96, 192, vector_width, 0, kFoldKeys},
       numattn::floats_of<FloatWorkspace>,
       nullptr},
      {"decode", {8, key_block, 8, 8, vector_width}, numattn::floats_of<FloatWorkspace>, nullptr}};
}

constexpr Kernel kWide = kernel_of(48, 64, 16);
constexpr Kernel kNarrow = kernel_of(8, 96, 4);
// Keys and values are packed, for up to 256 rows or, where blocks are joined, more.
constexpr Kernel kPacked = {
    {"attend", {32, 64, 256, 256, 16, 2}, numattn::floats_of<FloatWorkspace>, nullptr},
    kWide.decode};
constexpr PlanNeeds kNothing{{false, false, false, false, false, 0}};
constexpr PlanNeeds kRelative{{false, false, false, false, true, 0}};

AttentionPlan plan_of(const Kernel& kernels, const AttentionShape& shape,
                      const PlanNeeds& needs = kNothing) {
  return numattn::plan_attention(kernels.attend, kernels.decode, shape, needs);
}

long as_long(std::int64_t value) { return static_cast<long>(value); }

void covers_everything(const Kernel& kernels, const AttentionShape& shape) {
  const AttentionPlan plan = plan_of(kernels, shape);
  expect(plan.blocks * plan.block_rows >= plan.rows_per_head, "rows beyond the blocks: %ld of %ld",
         as_long(plan.blocks * plan.block_rows), as_long(plan.rows_per_head));
  expect((plan.blocks - 1) * plan.block_rows < plan.rows_per_head || plan.rows_per_head == 0,
         "an empty block for %ld rows", as_long(plan.rows_per_head));
  expect(plan.splits * plan.split_keys >= shape.keys, "keys beyond the splits: %ld of %ld",
         as_long(plan.splits * plan.split_keys), as_long(shape.keys));
  expect(plan.splits == 1 || (plan.splits - 1) * plan.split_keys < shape.keys, "an empty split");
  expect(plan.splits == 1 || plan.split_keys % plan.key_block == 0, "a split inside a key tile");
  const std::int64_t states = shape.batch * shape.row_heads * plan.splits * plan.rows_per_head;
  expect(plan.partial_floats == (plan.splits == 1 ? 0 : states * (shape.value_dim + 2)),
         "%ld floats of partial states", as_long(plan.partial_floats));
  expect(plan.visit_keys % plan.key_block == 0, "a visit that ends inside a key tile");
  expect(
      plan.items * plan.heads_per_item == shape.batch * shape.row_heads * plan.blocks * plan.splits,
      "items");
  expect((plan.kernel == &kernels.decode) == (plan.rows_per_head <= 8), "kernel of %ld rows",
         as_long(plan.rows_per_head));
}

// What rounding depends on must not depend on the batch.
void ignores_the_batch(const Kernel& kernels, AttentionShape shape) {
  const AttentionPlan one = plan_of(kernels, shape);
  shape.batch = 37;
  const AttentionPlan many = plan_of(kernels, shape);
  expect(one.kernel == many.kernel && one.key_block == many.key_block &&
             one.split_keys == many.split_keys && one.splits == many.splits,
         "the plan of one entry changes with the batch");
}

// Blocks that are joined for want of other work: what they are cut into changes no bit.
void joins_blocks(const AttentionShape& shape) {
  for (const std::int64_t shares : {1, 2, 3, 1000}) {
    const AttentionPlan apart = plan_of(kPacked, shape);
    AttentionPlan plan = apart;
    plan.join(shape.row_heads, shares);
    expect(plan.blocks * plan.block_rows >= plan.rows_per_head, "rows beyond the joined blocks");
    expect((plan.blocks - 1) * plan.block_rows < plan.rows_per_head || plan.rows_per_head == 0,
           "an empty block for %ld rows", as_long(plan.rows_per_head));
    expect(plan.items == shape.batch * shape.row_heads * plan.blocks * plan.splits, "joined items");
    expect(plan.block_rows <= std::max(apart.block_rows, plan.most_rows), "a block of %ld rows",
           as_long(plan.block_rows));
    expect(plan.block_rows / apart.block_rows <= shares, "%ld blocks in one, of %ld shares",
           as_long(plan.block_rows / apart.block_rows), as_long(shares));
    expect(plan.workspace_floats >= apart.workspace_floats, "less memory for more rows");
    expect(plan.key_block == apart.key_block && plan.visit_keys == apart.visit_keys &&
               plan.split_keys == apart.split_keys,
           "what decides bits changes with the shares");
  }
}

// All keys of a head at once as long as they stay in the cache, then parts.
void packs_what_the_cache_takes() {
  const auto visit_of = [](std::int64_t keys, std::int64_t width) {
    return plan_of(kPacked, {1, 8, 8, 1000, keys, width, width}).visit_keys;
  };
  expect(visit_of(100, 64) == 128 && visit_of(4096, 64) == 4096, "short heads in parts");
  expect(visit_of(4097, 64) == 1024 && visit_of(1 << 20, 128) == 1024, "parts of 1,024 keys");
  expect(visit_of(1 << 20, 256) == 512 && visit_of(1 << 20, 4096) == 256, "wide heads' parts");
  const AttentionPlan wide = plan_of(kPacked, {1, 1, 1, 5000, 5000, 4096, 4096});
  expect(wide.block_rows == 96, "%ld rows of 4,096 elements", as_long(wide.block_rows));
}

void memory_grows_with_threads_not_with_length() {
  const AttentionShape shortish{1, 8, 8, 8192, 8192, 64, 64};
  const AttentionShape longer{1, 8, 8, 1 << 20, 1 << 20, 64, 64};
  const AttentionPlan small = plan_of(kWide, shortish);
  const AttentionPlan large = plan_of(kWide, longer);
  expect(small.scratch_bytes(4) == large.scratch_bytes(4), "scratch grows with the length");
  expect(small.scratch_bytes(4) == 4 * small.thread_bytes(), "threads share scratch");
  expect(small.thread_bytes() < 256 * 1024, "%ld bytes a thread", as_long(small.thread_bytes()));
}

// A block of more keys than a state takes has a total beside it; one of fewer has not, nor has one
// whose keys are split.
void long_blocks_have_a_total() {
  const auto needs = [](std::int64_t queries, std::int64_t keys) {
    return plan_of(kWide, {1, 8, 8, queries, keys, 64, 64}).needs;
  };
  expect(!needs(1000, kFoldKeys).folds, "a total of as many keys as a state takes");
  expect(needs(1000, kFoldKeys + 1).folds, "no total of more keys than a state takes");
  expect(!needs(8, 1 << 20).folds && !needs(96, 1 << 20).folds, "a total of split keys");
  const auto floats = [](std::int64_t keys) {
    return plan_of(kWide, {1, 8, 8, 1000, keys, 64, 64}).workspace_floats;
  };
  expect(floats(kFoldKeys + 1) - floats(kFoldKeys) == 2 * 96 * 64 + 3 * 96 + 16,
         "%ld floats of a total", as_long(floats(kFoldKeys + 1) - floats(kFoldKeys)));
}

void needs_take_memory() {
  const AttentionShape shape{2, 4, 4, 200, 200, 64, 64};
  const std::int64_t plain = plan_of(kWide, shape).workspace_floats;
  for (const numattn::TileNeeds tile : {numattn::TileNeeds{true, false, false, false, false, 0},
                                        {false, true, false, false, false, 0},
                                        {false, false, true, false, false, 0},
                                        {false, false, false, true, false, 0},
                                        {false, false, false, false, true, 0},
                                        {false, false, false, false, false, 16}}) {
    const std::int64_t more = plan_of(kWide, shape, {tile}).workspace_floats;
    expect(more > plain, "a tile without memory: %ld floats, %ld plain", as_long(more),
           as_long(plain));
  }
}

// `decode` knows no terms by distance; rows picked at random are no neighbours.
void relative_terms_choose_kernel_and_rows() {
  const AttentionShape shape{2, 4, 4, 3, 200, 64, 64};
  expect(plan_of(kWide, shape).kernel == &kWide.decode, "few rows are not decoded");
  expect(plan_of(kWide, shape, kRelative).kernel == &kWide.attend, "few rows with distances");
  PlanNeeds needs = kRelative;
  const AttentionPlan whole = numattn::plan_weights(kWide.attend, shape, 100, needs);
  needs.lone_rows = true;
  const AttentionPlan lone = numattn::plan_weights(kWide.attend, shape, 100, needs);
  expect(whole.block_rows == kWide.attend.facts.lane_group, "rows of a block: %ld",
         as_long(whole.block_rows));
  expect(lone.block_rows == 1 && lone.items == 2 * 4 * 100, "%ld items", as_long(lone.items));
}

}  // namespace

int main() {
  for (const Kernel& kernels : {kWide, kNarrow}) {
    for (const std::int64_t queries : {0, 1, 2, 8, 9, 95, 96, 97, 1000}) {
      for (const std::int64_t keys : {0, 1, 63, 64, 65, 2047, 2048, 3071, 3072, 5000}) {
        for (const std::int64_t kv_heads : {1, 2, 8}) {
          const AttentionShape shape{3, 8, kv_heads, queries, keys, 64, 32};
          covers_everything(kernels, shape);
          ignores_the_batch(kernels, shape);
        }
      }
    }
  }
  for (const std::int64_t queries : {0, 9, 96, 255, 256, 257, 1000, 5000}) {
    for (const std::int64_t kv_heads : {1, 8})
      joins_blocks({3, 8, kv_heads, queries, 3000, 64, 32});
  }
  packs_what_the_cache_takes();
  memory_grows_with_threads_not_with_length();
  long_blocks_have_a_total();
  needs_take_memory();
  relative_terms_choose_kernel_and_rows();
  return report();
}
