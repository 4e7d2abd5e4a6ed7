// Long sums. A state that takes tile after tile errs with their number: by 1.4e-4 after 2^20 keys
// of equal weights on AVX2. So keys are cut into chunks of TileFacts::fold_keys, and before a key
// of the next chunk is seen the state is folded into a total, kept as two floats a sum (two_sum.h),
// and begins anew:
//
//   total' = total · 2^(m − m') + state,   state' = 0
//
// with the peaks m, m' at the last fold and at this one.
//
// Chunks begin at absolute multiples, and a fold of a row that has seen nothing since the last one
// changes nothing. So a row's result is the same in whatever block it stands.
//
// Not done for each tile: that would be 48 times the work, for an error of one tile's sums where
// those of a chunk err by less than twice as much.
#pragma once

#include "results.h"
#include "two_sum.h"

namespace numattn {
namespace {

// Keys after which a block's state is folded into its total: so few that the state's additions err
// less than those within a tile, and so many that most calls have no more, and that a fold, three
// passes over the output, is nothing beside their products. Few rows are split long before.
constexpr std::int64_t kFoldKeys = 4608;

// Calls call(place of a vector of output, vector of its group) for all of a group's.
template <class Call>
inline void each_output(const AttendBlock& block, int first, const Call& call) {
  const std::int64_t rows = output_rows(block.value_dim);
  for (std::int64_t d = 0; d < rows; ++d) {
    for (int v = 0; v < kTileVectors; ++v) {
      call(first * rows + d * kLaneGroup + v * Vec::kWidth, v);
    }
  }
}

__attribute__((noinline)) void begin_total(const AttendBlock& block, const Workspace& work) {
  const Total& total = work.total;
  *total.chunk = -1;
  for (int first = 0; first < block.row_count; first += kLaneGroup) {
    for (int i = first; i < first + kLaneGroup; i += Vec::kWidth) {
      store(total.peak + i, broadcast(-kInfinity));
      store(total.sum + i, zero());
      store(total.sum_rest + i, zero());
    }
    each_output(block, first, [&](std::int64_t at, int) {
      store(total.output + at, zero());
      store(total.output_rest + at, zero());
    });
  }
}

__attribute__((noinline)) void fold_state(const AttendBlock& block, const Workspace& work) {
  const Total& total = work.total;
  const auto fold = [](float* state, float* high, float* low, Vec alpha) {
    Vec sum = load(high) * alpha;
    Vec rest = load(low) * alpha;
    add_term(load(state), sum, rest);
    store(high, sum);
    store(low, rest);
    store(state, zero());
  };
  for (int first = 0; first < block.row_count; first += kLaneGroup) {
    Vec alpha[kTileVectors];
    for (int v = 0; v < kTileVectors; ++v) {
      const int at = first + v * Vec::kWidth;
      const Vec now = load(work.peak + at);
      // As in update_softmax(): while a row has seen no key its shift is 0.
      const Vec shift = select(equal(now, broadcast(-kInfinity)), zero(), now);
      alpha[v] = exp2(load(total.peak + at) - shift);
      store(total.peak + at, now);
      fold(work.sum + at, total.sum + at, total.sum_rest + at, alpha[v]);
    }
    each_output(block, first, [&](std::int64_t at, int v) {
      fold(work.output + at, total.output + at, total.output_rest + at, alpha[v]);
    });
  }
}

// The keys that come next are of this chunk.
inline void enter_chunk(const AttendBlock& block, const Workspace& work, std::int64_t chunk) {
  if (*work.total.chunk == chunk) return;
  if (*work.total.chunk >= 0) fold_state(block, work);
  *work.total.chunk = chunk;
}

// The whole sums become the state's.
__attribute__((noinline)) void end_total(const AttendBlock& block, const Workspace& work) {
  fold_state(block, work);
  const Total& total = work.total;
  for (int first = 0; first < block.row_count; first += kLaneGroup) {
    for (int i = first; i < first + kLaneGroup; i += Vec::kWidth) {
      store(work.sum + i, sum_of(load(total.sum + i), load(total.sum_rest + i)));
    }
    each_output(block, first, [&](std::int64_t at, int) {
      store(work.output + at, sum_of(load(total.output + at), load(total.output_rest + at)));
    });
  }
}

}  // namespace
}  // namespace numattn
