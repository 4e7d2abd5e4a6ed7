// Plans: every row of every head and every key is covered once, and the memory is what it says.
#include "attention_plan.h"

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

constexpr Kernel kernel_of(int lane_group, int key_block, int vector_width) {
  return {
      {"attend",
       {lane_group, key_block, 96, 192, vector_width},
       numattn::floats_of<FloatWorkspace>,
       nullptr},
      {"decode", {8, key_block, 8, 8, vector_width}, numattn::floats_of<FloatWorkspace>, nullptr}};
}

constexpr Kernel kWide = kernel_of(48, 64, 16);
constexpr Kernel kNarrow = kernel_of(8, 96, 4);
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
  expect(plan.splits == 1 || plan.blocks <= 1, "splits of several blocks");
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

void memory_grows_with_threads_not_with_length() {
  const AttentionShape shortish{1, 8, 8, 1024, 1024, 64, 64};
  const AttentionShape longer{1, 8, 8, 1 << 20, 1 << 20, 64, 64};
  const AttentionPlan small = plan_of(kWide, shortish);
  const AttentionPlan large = plan_of(kWide, longer);
  expect(small.scratch_bytes(4) == large.scratch_bytes(4), "scratch grows with the length");
  expect(small.scratch_bytes(4) == 4 * small.thread_bytes(), "threads share scratch");
  expect(small.thread_bytes() < 256 * 1024, "%ld bytes a thread", as_long(small.thread_bytes()));
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
  memory_grows_with_threads_not_with_length();
  needs_take_memory();
  relative_terms_choose_kernel_and_rows();
  return report();
}
