// How one attention call is cut into work items, and the memory it takes: pure arithmetic.
//
// What shapes the result's rounding (the kernel, key tiles, key splits) follows from the shapes of
// one batch entry and the ISA alone. Query blocks do not: tiles of keys lie at multiples of the key
// block, so a row's sums are the same in whatever block it stands.
#pragma once

#include <cstdint>

#include "kernels.h"
#include "useful_threads.h"

namespace numattn {

struct AttentionShape {
  std::int64_t batch;
  std::int64_t query_heads;
  std::int64_t row_heads;  // heads whose rows are computed together: AttentionProblem::row_heads()
  std::int64_t queries;
  std::int64_t keys;
  std::int64_t head_dim;
  std::int64_t value_dim;

  std::int64_t group() const { return query_heads / row_heads; }
};

// Whether there are so few query rows, and keys enough, that keys are split.
bool may_split(const AttentionShape& shape);

// What shapes a plan besides.
struct PlanNeeds {
  TileNeeds tile;
  bool blocks = false;        // lists of key blocks, which tiles do not exceed
  bool heads_inside = false;  // a token's heads lie nearer to one another than a head's tokens
  bool lone_rows = false;  // weights of rows that are no neighbours in position, where that matters
};

struct AttentionPlan {
  const AttendKernel* kernel;
  std::int64_t rows_per_head;  // query rows that read one key head
  std::int64_t block_rows;     // of them, at most so many per query block
  std::int64_t blocks;         // query blocks per key head
  std::int64_t most_rows;      // of a block that takes the place of several
  std::int64_t key_block;
  std::int64_t split_keys;  // keys per split; `keys` when not split
  std::int64_t splits;
  std::int64_t visit_keys;      // keys between two looks at a pending interrupt
  bool joins_heads;             // whether it is better to compute a token's heads together
  std::int64_t heads_per_item;  // key heads that an item computes together
  std::int64_t items;    // work items: batch · row_heads / heads_per_item · blocks · splits
  WorkspaceNeeds needs;  // of every block
  std::int64_t workspace_floats;  // per thread, inside a kernel
  std::int64_t partial_floats;    // of all partial states together
  double flops;                   // multiplications and additions over visible pairs, at most

  // Makes items longer where that is better, as far as there are `shares` times as many as are
  // needed. Where the heads of a token lie side by side, one head's part of it is a short piece,
  // after which the processor fetches the next head's in vain: decoding from memory so took twice
  // the time. Then items take several heads. And where a block's keys are packed, more rows use
  // what was packed.
  void join(std::int64_t kv_heads, std::int64_t shares);

  // Everything a call of so many threads allocates.
  std::int64_t scratch_bytes(int threads) const;
  std::int64_t thread_bytes() const { return heads_per_item * head_bytes(); }
  std::int64_t head_bytes() const;  // of a thread, for one of the heads of its item
  std::int64_t partial_bytes() const { return partial_floats * 4; }
  int worthwhile_threads() const { return useful_threads(flops, items); }

  // As `needs` says, of blocks of block_rows.
  void size_workspace();
};

// `attend` computes whole blocks of rows, `decode` key heads with few rows. The plan refers to the
// one that it chose.
AttentionPlan plan_attention(const AttendKernel& attend, const AttendKernel& decode,
                             const AttentionShape& shape, const PlanNeeds& needs);

// The plan of attention_weights over `rows` query rows of each head.
AttentionPlan plan_weights(const AttendKernel& attend, const AttentionShape& shape,
                           std::int64_t rows, const PlanNeeds& needs);

}  // namespace numattn
