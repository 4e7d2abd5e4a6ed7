// Exact attention weights of a query block: weight[row][key] = exp(s − max s) / Σ exp(s − max s).
//
// The row that is being written holds the logits first, then their weights, so no other memory
// grows with the number of keys. Hidden keys get exactly 0.
#pragma once

#include "float_tiles.h"

namespace numattn {
namespace {

// Scores of the tile, transposed into the rows' outputs; hidden ones are −inf.
inline void write_scores(const AttendBlock& block, const LaneGroup& group, KeyRange keys,
                         FloatRows key, const FloatWorkspace& work) {
  // Without values: the keys stand in for what is fetched ahead.
  const auto multiply = [&] {
    multiply_keys(group, key, key, keys.count(), block, work.score);
    if (block.relative.distance_rows != nullptr) {
      add_relative_scores(block, group, keys, key, work);
    }
  };
  const ScoredTile tile = score_tile(block, group, keys, work, work.score, multiply);
  if (tile.excluded) return;
  if (tile.mask != nullptr) apply_mask(group, keys.count(), tile, work.score);
  for (int lane = 0; lane < group.row_count; lane += Vec::kWidth) {
    const auto score = [](Vec a) { return a; };
    write_rows(work.score, keys.count(), lane, group.row_count, score,
               [&](int i, std::int64_t j, Vec values, int count) {
                 float* row = reinterpret_cast<float*>(group.rows[lane + i].output);
                 store_partial(row + keys.begin + j, values, count);
               });
  }
}

inline void fill_row(float* row, std::int64_t begin, std::int64_t end, float value) {
  for (std::int64_t j = begin; j < end; ++j) row[j] = value;
}

// The row's logits from `j` on; lanes beyond the last key are hidden.
inline Vec load_logits(const float* row, std::int64_t j, std::int64_t key_count) {
  const int count = lanes_left(j, key_count);
  if (count == Vec::kWidth) return load(row + j);
  float logits[Vec::kWidth];
  for (int i = 0; i < Vec::kWidth; ++i) logits[i] = i < count ? row[j + i] : -kInfinity;
  return load(logits);
}

// Hidden keys get 0 outright: in a row with a NaN their share would be one as well.
inline void normalise_weights(const QueryRow& row, std::int64_t key_count) {
  float* weights = reinterpret_cast<float*>(row.output);
  const Vec hidden = broadcast(-kInfinity);
  Vec peaks = hidden;
  for (std::int64_t j = 0; j < key_count; j += Vec::kWidth) {
    peaks = max(load_logits(weights, j, key_count), peaks);
  }
  const float peak = reduce_max(peaks);
  const float sink2 = row.sink * kLog2E;
  const float highest = sink2 > peak ? sink2 : peak;
  const float top = highest == -kInfinity ? 0.0f : highest;
  double sum = std::exp2(static_cast<double>(sink2) - static_cast<double>(top));
  for (std::int64_t j = 0; j < key_count; j += Vec::kWidth) {
    const Vec weight = exp2(load_logits(weights, j, key_count) - broadcast(top));
    sum += static_cast<double>(reduce_add(weight));
  }
  const Vec inverse = broadcast(static_cast<float>(1.0 / sum));
  for (std::int64_t j = 0; j < key_count; j += Vec::kWidth) {
    const Vec logits = load_logits(weights, j, key_count);
    const Vec weight = exp2(logits - broadcast(top)) * inverse;
    const Vec shown = select(equal(logits, hidden), zero(), weight);
    store_partial(weights + j, shown, lanes_left(j, key_count));
  }
}

// The run of keys of a tile, from its first on, that rows of the group see without a gap. Rows may
// have been picked far apart, and what lies between their keys is not to be read.
inline KeyRange first_run(const LaneGroup& group, KeyRange tile) {
  KeyRange run{tile.begin, tile.begin};
  for (bool grown = true; grown;) {
    grown = false;
    for (int i = 0; i < group.row_count; ++i) {
      const KeyRange seen = seen_by(group.rows[i], tile);
      if (seen.empty() || seen.begin > run.end || seen.end <= run.end) continue;
      run.end = seen.end;
      grown = true;
    }
  }
  return run;
}

inline void begin_weights(const WeightsBlock& weights, const FloatWorkspace& work) {
  const AttendBlock& block = weights.scores;
  pack_queries(block, block.rows, block.row_count, work.query);
  add_query_biases(block, block.row_count, work.query, work.relative.position_query);
  for (int i = 0; i < block.row_count; ++i) {
    float* row = reinterpret_cast<float*>(block.rows[i].output);
    fill_row(row, 0, weights.key_count, -kInfinity);
  }
}

inline void weigh(const WeightsBlock& weights, const TileFacts& facts) {
  const AttendBlock& block = weights.scores;
  Areas areas(block.workspace);
  const FloatWorkspace work(areas, facts, block.needs);
  if (block.begin) begin_weights(weights, work);
  LaneGroup group(block.rows, block.row_count, work.query);
  KeyRange left = group.span.both(block.keys);
  for (;;) {
    const KeyRange tile = next_tile(group, block.grid, left);
    if (tile.empty()) break;
    const KeyRange keys = first_run(group, tile);
    left.begin = keys.end;
    group.look(keys);
    const FloatRows key = float_rows(block.key, keys, block.head_dim, work.key);
    write_scores(block, group, keys, key, work);
  }
  if (!block.end) return;
  for (int i = 0; i < block.row_count; ++i) normalise_weights(block.rows[i], weights.key_count);
}

}  // namespace
}  // namespace numattn
