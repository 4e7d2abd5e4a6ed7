// Blocked attention with an online softmax, query rows in lanes.
//
// Definition, for one query row with logits s over the keys it sees:
//
//   peak = max s,   p = exp(s − peak),   o = Σ p·v / Σ p,   lse = peak + log Σ p
//
// The keys are visited in tiles. With m, l, O the state before a tile and m' = max(m, tile's peak):
//
//   α = exp(m − m'),   l' = α·l + Σ p,   O' = α·O + Σ p·v,   p = exp(s − m')
//
// A tile's sums start from zero and are then added to the state, so that rounding grows with the
// square root of a tile's keys and of the number of tiles, not of all keys.
//
// Not kept: rescaling O only where the peak rose. The factor α enters with the addition that the
// tile needs anyway, one fused multiply-add per element, so there is no pass to save.
#pragma once

#include <cmath>

#include "relative.h"
#include "score.h"

namespace numattn {
namespace {

// The output of the lane group whose first row is `first`: [value element][lane].
inline float* output_of(const AttendBlock& block, const Workspace& work, std::int64_t first) {
  return work.output + first * output_rows(block.value_dim);
}

inline void clear_output(const AttendBlock& block, const Workspace& work, std::int64_t first) {
  float* output = output_of(block, work, first);
  const std::int64_t count = output_rows(block.value_dim) * kLaneGroup;
  for (std::int64_t i = 0; i < count; i += Vec::kWidth) store(output + i, zero());
}

inline void begin_state(const AttendBlock& block, const Workspace& work) {
  for (int first = 0; first < block.row_count; first += kLaneGroup) {
    const int rows = block.row_count - first < kLaneGroup ? block.row_count - first : kLaneGroup;
    const std::int64_t at = first * block.head_dim;
    pack_queries(block, block.rows + first, rows, work.query + at);
    add_query_biases(block, rows, work.query + at, work.relative.position_query + at);
    for (int i = 0; i < kLaneGroup; ++i) {
      work.peak[first + i] = -kInfinity;
      work.sum[first + i] = 0.0f;
    }
    clear_output(block, work, first);
  }
}

// One vector of rows: scores become weights exp2(s − m'), the state's peak and sum move on, and the
// factor α of the old state is returned.
template <int Vectors>
inline void update_softmax(const ScoredTile& tile, std::int64_t key_count, float* scores,
                           float* peak, float* sum, Vec (&alpha)[Vectors]) {
  Vec tile_peak[Vectors];
  for (int v = 0; v < Vectors; ++v) tile_peak[v] = load(peak + v * Vec::kWidth);
  find_peaks(tile, key_count, scores, tile_peak);
  Vec shift[Vectors];
  Vec total[Vectors];
  for (int v = 0; v < Vectors; ++v) {
    // While a row has seen no key its peak is −inf; shifting by 0 keeps −inf − −inf from being NaN.
    shift[v] = select(equal(tile_peak[v], broadcast(-kInfinity)), zero(), tile_peak[v]);
    alpha[v] = exp2(load(peak + v * Vec::kWidth) - shift[v]);
    total[v] = zero();
    store(peak + v * Vec::kWidth, tile_peak[v]);
  }
  for (std::int64_t j = 0; j < key_count; ++j) {
    for (int v = 0; v < Vectors; ++v) {
      float* at = scores + j * kLaneGroup + v * Vec::kWidth;
      const Vec weight = exp2(load(at) - shift[v]);
      store(at, weight);
      total[v] = total[v] + weight;
    }
  }
  for (int v = 0; v < Vectors; ++v) {
    store(sum + v * Vec::kWidth, fma(load(sum + v * Vec::kWidth), alpha[v], total[v]));
  }
}

// output[d][lane] = α · output[d][lane] + Σ_j value[j][d] · weight[j][lane]
template <int Vectors>
inline void add_values(FloatRows value, std::int64_t key_count, std::int64_t value_dim,
                       const float* weights, const Vec (&alpha)[Vectors], float* output) {
  for (std::int64_t d = 0; d < value_dim; d += kTileRows) {
    const int rows = value_dim - d < kTileRows ? static_cast<int>(value_dim - d) : kTileRows;
    float* to = output + d * kLaneGroup;
    const auto finish = [to, &alpha](int m, int v, Vec sum) {
      float* at = to + m * kLaneGroup + v * Vec::kWidth;
      store(at, fma(load(at), alpha[v], sum));
    };
    multiply_rows<Vectors>(
        rows, TileOperands<float>{key_count, value.data + d, 1, value.stride, weights, kLaneGroup},
        finish);
  }
}

// The same for a tile that holds an infinity or a NaN among its values while some rows do not see
// all of its keys: a product with weight 0 would carry it to rows that must not know of it.
// seen.visible(j, v) says which lanes of vector v see value j.
template <class Seen>
__attribute__((noinline)) void add_visible_values(FloatRows value, std::int64_t key_count,
                                                  std::int64_t value_dim, const float* weights,
                                                  const Vec* alpha, const Seen& seen, int vectors,
                                                  float* output) {
  for (int v = 0; v < vectors; ++v) {
    for (std::int64_t d = 0; d < value_dim; ++d) {
      float* at = output + d * kLaneGroup + v * Vec::kWidth;
      Vec sum = zero();
      for (std::int64_t j = 0; j < key_count; ++j) {
        const Vec weight = load(weights + j * kLaneGroup + v * Vec::kWidth);
        const Vec added = fma(broadcast(value.data[j * value.stride + d]), weight, sum);
        sum = select(seen.visible(j, v), added, sum);
      }
      store(at, fma(load(at), alpha[v], sum));
    }
  }
}

// output[d][lane] += Σ_j value_table[row(δ)][d] · weight[j][lane], after the values were added.
template <int Vectors>
__attribute__((noinline)) void add_relative_values(const AttendBlock& block, const LaneGroup& group,
                                                   KeyTile keys, const Workspace& work,
                                                   float* output) {
  const TileSlots slots = weighed_slots(group, keys, work);
  const std::int64_t width = block.value_dim;
  const FloatRows rows = slot_rows(block.relative.value_table, width, slots, work.relative.table);
  Vec kept[Vectors];
  for (int v = 0; v < Vectors; ++v) kept[v] = broadcast(1.0f);
  if (has_nonfinite(rows, slots.count, width)) {
    const LaneSlots seen(group, keys, slots);
    add_visible_values(rows, slots.count, width, work.relative.slot, kept, seen, Vectors, output);
  } else {
    add_values(rows, slots.count, width, work.relative.slot, kept, output);
  }
}

template <int Vectors>
inline void attend_tile(const AttendBlock& block, const LaneGroup& group, KeyTile keys,
                        FloatRows key, FloatRows value, const Workspace& work, std::int64_t first) {
  const bool relative = block.relative.distance_rows != nullptr;
  const auto multiply = [&] {
    multiply_keys(group, key, value, keys.count, block, work.score);
    if (relative) add_relative_scores(block, group, keys, key, work);
  };
  const ScoredTile tile = score_tile(block, group, keys, work, multiply);
  if (tile.excluded) return;
  Vec alpha[Vectors];
  update_softmax<Vectors>(tile, keys.count, work.score, work.peak + first, work.sum + first, alpha);
  float* output = output_of(block, work, first);
  if (!wholly_visible(group, keys) && has_nonfinite(value, keys.count, block.value_dim)) {
    add_visible_values(value, keys.count, block.value_dim, work.score, alpha,
                       LaneSpans(group, keys), Vectors, output);
  } else {
    add_values<Vectors>(value, keys.count, block.value_dim, work.score, alpha, output);
  }
  if (relative && block.relative.value_table != nullptr) {
    add_relative_values<Vectors>(block, group, keys, work, output);
  }
}

// Tiles end at multiples of the key block, wherever a block's keys begin: a row's sums are then the
// same whichever rows stand beside it.
inline std::int64_t key_tile_end(std::int64_t begin, std::int64_t end, const TileFacts& facts) {
  const std::int64_t next = (begin / facts.key_block + 1) * facts.key_block;
  return next < end ? next : end;
}

// The lane groups of a block, and the keys that any of them sees in this visit.
struct LaneGroups {
  LaneGroup groups[kMostLaneGroups];
  int count = 0;
  std::int64_t begin;
  std::int64_t end;

  // The queries of the group whose first row is `first` lie at query + first · row_floats.
  LaneGroups(const AttendBlock& block, const float* query, std::int64_t row_floats)
      : begin(block.key_end), end(block.key_begin) {
    for (int first = 0; first < block.row_count; first += kLaneGroup) {
      const int rows = block.row_count - first < kLaneGroup ? block.row_count - first : kLaneGroup;
      LaneGroup& group = groups[count++];
      group = lane_group(block.rows + first, rows, query + first * row_floats);
      group.span_begin = group.span_begin > block.key_begin ? group.span_begin : block.key_begin;
      group.span_end = group.span_end < block.key_end ? group.span_end : block.key_end;
      if (group.span_begin >= group.span_end) continue;
      begin = group.span_begin < begin ? group.span_begin : begin;
      end = group.span_end > end ? group.span_end : end;
    }
  }

  // The part of keys [begin, end) that group g sees; empty where count <= 0.
  KeyTile seen(int g, std::int64_t tile_begin, std::int64_t tile_end) const {
    const LaneGroup& group = groups[g];
    const std::int64_t from = group.span_begin > tile_begin ? group.span_begin : tile_begin;
    const std::int64_t to = group.span_end < tile_end ? group.span_end : tile_end;
    return {from, to - from};
  }
};

inline void attend_keys(const AttendBlock& block, const TileFacts& facts, const Workspace& work) {
  const LaneGroups in(block, work.query, block.head_dim);
  for (std::int64_t j = in.begin; j < in.end;) {
    const std::int64_t tile_end = key_tile_end(j, in.end, facts);
    const KeyTile tile{j, tile_end - j};
    const FloatRows key = float_rows(block.key, tile, block.head_dim, work.key);
    const FloatRows value = float_rows(block.value, tile, block.value_dim, work.value);
    for (int g = 0; g < in.count; ++g) {
      const LaneGroup& group = in.groups[g];
      const KeyTile keys = in.seen(g, j, tile_end);
      if (keys.count <= 0) continue;
      const std::int64_t from = keys.begin;
      const FloatRows key_part{key.data + (from - j) * key.stride, key.stride};
      const FloatRows value_part{value.data + (from - j) * value.stride, value.stride};
      const std::int64_t first = static_cast<std::int64_t>(g) * kLaneGroup;
      switch (group.vectors) {
        case 1: attend_tile<1>(block, group, keys, key_part, value_part, work, first); break;
        case 2: attend_tile<2>(block, group, keys, key_part, value_part, work, first); break;
        default: attend_tile<kTileVectors>(block, group, keys, key_part, value_part, work, first);
      }
    }
    j = tile_end;
  }
}

// What a row's state becomes: o = O · factor and the natural lse. A sink is one more logit.
struct RowResult {
  float factor;
  float lse;
};

// A row that saw nothing has sum 0; any other has sum >= 1, or NaN, which must come through.
inline RowResult finish_row(float peak, float sum, float sink, bool wants_lse) {
  if (sum == 0.0f) return {0.0f, sink};
  float top = peak;
  float weight = 1.0f;
  float total = sum;
  if (sink != -kInfinity) {
    const float sink2 = sink * kLog2E;
    top = sink2 > peak ? sink2 : peak;
    weight = std::exp2(peak - top);
    total = sum * weight + std::exp2(sink2 - top);
  }
  if (!wants_lse) return {weight / total, 0.0f};
  const double lse = (static_cast<double>(top) + std::log2(static_cast<double>(total))) * kLn2;
  return {weight / total, static_cast<float>(lse)};
}

// Rows [lane, lane + kWidth) of a group: write(row, d, values, count) gets output[d][lane] ·
// factor.
template <class Write>
inline void write_rows(const float* output, std::int64_t value_dim, int lane, int row_count,
                       Vec factor, const Write& write) {
  for (std::int64_t d = 0; d < value_dim; d += Vec::kWidth) {
    const int count = lanes_left(d, value_dim);
    Vec square[Vec::kWidth];
    for (int i = 0; i < Vec::kWidth; ++i) {
      square[i] = i < count ? load(output + (d + i) * kLaneGroup + lane) * factor : zero();
    }
    transpose(square);
    for (int i = 0; i < Vec::kWidth && lane + i < row_count; ++i) write(i, d, square[i], count);
  }
}

inline void write_partial(const AttendBlock& block, const Workspace& work, int first, int rows) {
  const PartialState& partial = *block.partial;
  for (int lane = 0; lane < rows; lane += Vec::kWidth) {
    write_rows(output_of(block, work, first), block.value_dim, lane, rows, broadcast(1.0f),
               [&](int i, std::int64_t d, Vec values, int count) {
                 const std::int64_t row = first + lane + i;
                 store_partial(partial.output + row * block.value_dim + d, values, count);
               });
  }
  for (int i = first; i < first + rows; ++i) {
    partial.peak[i] = work.peak[i];
    partial.sum[i] = work.sum[i];
  }
}

inline void write_results(const AttendBlock& block, const Workspace& work, int first, int rows) {
  const std::int64_t item = dtype_size(block.output_dtype);
  for (int lane = 0; lane < rows; lane += Vec::kWidth) {
    for (int i = lane + Vec::kWidth; i < lane + 2 * Vec::kWidth && i < rows; ++i) {
      fetch_bytes(block.rows[first + i].output, block.value_dim * item);
    }
    float factor[Vec::kWidth] = {};
    bool seen[Vec::kWidth] = {};
    for (int i = 0; i < Vec::kWidth && lane + i < rows; ++i) {
      const int at = first + lane + i;
      const QueryRow& row = block.rows[at];
      const RowResult result =
          finish_row(work.peak[at], work.sum[at], row.sink, row.lse != nullptr);
      factor[i] = result.factor;
      seen[i] = work.sum[at] != 0.0f;
      if (row.lse != nullptr) *row.lse = result.lse;
    }
    write_rows(output_of(block, work, first), block.value_dim, lane, rows, load(factor),
               [&](int i, std::int64_t d, Vec values, int count) {
                 char* to = block.rows[first + lane + i].output + d * item;
                 write_elements(to, block.output_dtype, seen[i] ? values : zero(), count);
               });
  }
}

inline int padded_rows(const AttendBlock& block) {
  return (block.row_count + kLaneGroup - 1) / kLaneGroup * kLaneGroup;
}

inline void write_block(const AttendBlock& block, const Workspace& work) {
  for (int first = 0; first < block.row_count; first += kLaneGroup) {
    const int rows = block.row_count - first < kLaneGroup ? block.row_count - first : kLaneGroup;
    if (block.partial != nullptr) {
      write_partial(block, work, first, rows);
    } else {
      write_results(block, work, first, rows);
    }
  }
}

inline void attend(const AttendBlock& block, const TileFacts& facts) {
  const Workspace work = workspace_of(block, facts, padded_rows(block), block.value_dim);
  if (block.begin) begin_state(block, work);
  attend_keys(block, facts, work);
  if (block.end) write_block(block, work);
}

}  // namespace
}  // namespace numattn
