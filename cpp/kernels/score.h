// Scores of one lane group against one tile of keys, and what they go through to become logits:
//
//   s₂[key][lane] = log2 e · (softcap(scale · q·k) + bias + alibi),   −inf where hidden
//
// Query rows lie in lanes: every step is vertical, and keys are read where they lie. The factor
// scale · log2 e is folded into the queries, so the softmax runs in base 2 throughout.
#pragma once

#include <cstdint>

#include "exp.h"
#include "kernels.h"
#include "matrix.h"
#include "relative_workspace.h"
#include "row_products.h"
#include "tokens.h"

namespace numattn {
namespace {

// Rows of a lane group's output: whole tiles of every kernel.
inline std::int64_t output_rows(std::int64_t value_dim) { return padded_floats(value_dim); }

constexpr float kLargest = 3.4028234663852886e38f;

// A lane group of a block: up to kLaneGroup query rows, their queries transposed in the workspace.
struct LaneGroup {
  const QueryRow* rows;
  int row_count;
  int vectors;              // registers that hold row_count lanes
  std::int64_t span_begin;  // union of the rows' spans
  std::int64_t span_end;
  std::int64_t shared_begin;  // intersection of the rows' spans
  std::int64_t shared_end;
  bool shared_mask;  // all rows read the same mask elements
  bool shared_bias;
  const float* query;  // [head_dim][kLaneGroup]
};

inline LaneGroup lane_group(const QueryRow* rows, int row_count, const float* query) {
  LaneGroup group{rows,      row_count, (row_count + Vec::kWidth - 1) / Vec::kWidth,
                  INT64_MAX, INT64_MIN, INT64_MIN,
                  INT64_MAX, true,      true,
                  query};
  for (int i = 0; i < row_count; ++i) {
    const QueryRow& row = rows[i];
    group.shared_mask &= row.mask == rows[0].mask;
    group.shared_bias &= row.bias == rows[0].bias;
    group.shared_begin = row.key_begin > group.shared_begin ? row.key_begin : group.shared_begin;
    group.shared_end = row.key_end < group.shared_end ? row.key_end : group.shared_end;
    if (row.key_begin >= row.key_end) continue;
    group.span_begin = row.key_begin < group.span_begin ? row.key_begin : group.span_begin;
    group.span_end = row.key_end > group.span_end ? row.key_end : group.span_end;
  }
  if (group.span_begin > group.span_end) group.span_begin = group.span_end = 0;
  return group;
}

// query[d][lane] = scale · log2 e · q[lane][d]; lanes without a row are 0.
template <class Read>
inline void pack_queries(const AttendBlock& block, const QueryRow* rows, int row_count,
                         const Read& read, float* packed) {
  const Vec factor = broadcast(block.rules.scale * kLog2E);
  const std::int64_t item = block.query_column_stride;
  for (int lane = 0; lane < kLaneGroup; lane += Vec::kWidth) {
    if (lane >= row_count) break;
    for (int i = lane + Vec::kWidth; i < lane + 2 * Vec::kWidth && i < row_count; ++i) {
      fetch_bytes(rows[i].query, block.head_dim * item);  // of the next square
    }
    for (std::int64_t d = 0; d < block.head_dim; d += Vec::kWidth) {
      const int columns = lanes_left(d, block.head_dim);
      Vec square[Vec::kWidth];
      for (int i = 0; i < Vec::kWidth; ++i) {
        square[i] = lane + i < row_count ? read(rows[lane + i].query + d * item, columns) : zero();
      }
      transpose(square);
      for (int j = 0; j < columns; ++j)
        store(packed + (d + j) * kLaneGroup + lane, square[j] * factor);
    }
  }
}

// Not inlined, like other steps that are long and run once for a block or a tile.
__attribute__((noinline)) void pack_queries(const AttendBlock& block, const QueryRow* rows,
                                            int row_count, float* packed) {
  with_reader(block.query_dtype, block.query_column_stride,
              [&](const auto& read) { pack_queries(block, rows, row_count, read, packed); });
}

// How much of a dense operand's tile excludes its key.
enum class Excluded { kNone, kSome, kAll };

// Bits of the mask: tile[v · mask_stride + key] holds the lanes of vector v, 1 where the row may
// attend the key.
using MaskBits = std::uint16_t;
constexpr int kMaskKeys = 64;  // keys whose bits are gathered at a time: a cache line of each row

// Bit j set where the row may attend key first + j, j < count.
inline std::uint64_t mask_row(const char* row, std::int64_t first, std::int64_t stride, int count) {
  const char* from = row + first * stride;
  if (stride == 1) return nonzero_bits(reinterpret_cast<const std::uint8_t*>(from), count);
  std::uint64_t bits = 0;
  for (int j = 0; j < count; ++j) bits |= static_cast<std::uint64_t>(from[j * stride] != 0) << j;
  return bits;
}

__attribute__((noinline)) Excluded gather_mask(const LaneGroup& group, KeyTile keys,
                                               std::int64_t stride, std::int64_t mask_stride,
                                               MaskBits* tile) {
  std::uint64_t allowed = 0;
  std::uint64_t refused = 0;
  for (int i = 0; stride == 1 && i < group.row_count; ++i) {  // the next tile's part of each row
    fetch_bytes(group.rows[i].mask + keys.begin + keys.count, keys.count);
  }
  for (std::int64_t j = 0; j < keys.count; j += kMaskKeys) {
    const int count = keys.count - j < kMaskKeys ? static_cast<int>(keys.count - j) : kMaskKeys;
    const std::uint64_t present = ~std::uint64_t{0} >> (kMaskKeys - count);
    for (int v = 0; v < group.vectors; ++v) {
      std::uint64_t bits[Vec::kWidth];
      for (int i = 0; i < Vec::kWidth; ++i) {
        const int lane = v * Vec::kWidth + i;
        const int row = lane < group.row_count ? lane : group.row_count - 1;
        bits[i] = i > 0 && group.shared_mask
                      ? bits[0]
                      : mask_row(group.rows[row].mask, keys.begin + j, stride, count);
        allowed |= bits[i];
        refused |= ~bits[i] & present;
      }
      transpose_bits(bits, tile + v * mask_stride + j);
    }
  }
  return allowed == 0 ? Excluded::kAll : refused == 0 ? Excluded::kNone : Excluded::kSome;
}

// tile[key][lane] of the bias; a bias that all rows share fills tile[key] instead. False: all of it
// is −inf. Lanes beyond the last row repeat it, so that they do not blur the answer.
inline bool gather_bias(const LaneGroup& group, KeyTile keys, const ScoreRules& rules,
                        float* tile) {
  const Vec excluding = broadcast(-kInfinity);
  Vec others = zero();
  const auto row_vector = [&](int row, std::int64_t j, int count) {
    const char* from = group.rows[row].bias + (keys.begin + j) * rules.bias_key_stride;
    const Vec values = read_elements(from, rules.bias_dtype, rules.bias_key_stride, count);
    const Mask present = mask_from_bits(static_cast<std::uint16_t>((1u << count) - 1u));
    const Vec other = select(equal(values, excluding), zero(), broadcast(1.0f));
    others = others + select(present, other, zero());
    return values;
  };
  const int lanes = group.shared_bias ? 1 : group.vectors * Vec::kWidth;
  for (int lane = 0; lane < lanes; lane += Vec::kWidth) {
    for (std::int64_t j = 0; j < keys.count; j += Vec::kWidth) {
      const int count = lanes_left(j, keys.count);
      if (group.shared_bias) {
        store_partial(tile + j, row_vector(0, j, count), count);
        continue;
      }
      Vec square[Vec::kWidth];
      for (int i = 0; i < Vec::kWidth; ++i) {
        const int row = lane + i < group.row_count ? lane + i : group.row_count - 1;
        square[i] = row_vector(row, j, count);
      }
      transpose(square);
      for (int k = 0; k < count; ++k) store(tile + (j + k) * kLaneGroup + lane, square[k]);
    }
  }
  return reduce_add(others) > 0.0f;
}

// Base-2 form of a natural bias. A finite one stays finite: the huge negative numbers that stand
// for "masked" in many models must weigh a row evenly when all of it is masked.
inline Vec bias_in_base2(Vec bias) {
  const Vec scaled = bias * broadcast(kLog2E);
  const Vec limited = min(broadcast(kLargest), max(broadcast(-kLargest), scaled));
  const Mask finite = less(abs(bias), broadcast(kInfinity));
  return select(finite, limited, scaled);
}

// The steps from a raw base-2 score to a logit, shared by every kernel.
inline Vec softcapped(Vec score, Vec cap) { return cap * tanh(score / cap); }

// An excluded key stays excluded whatever its score, a NaN included.
inline Vec biased(Vec score, Vec bias) {
  const Vec excluded = broadcast(-kInfinity);
  return select(equal(bias, excluded), excluded, score + bias_in_base2(bias));
}
inline Vec masked(Vec score, Vec allowed) {
  return select(equal(allowed, zero()), broadcast(-kInfinity), score);
}
// negative_slope = −slope · log2 e
inline Vec with_alibi(Vec score, Vec negative_slope, Vec distance) {
  return fma(negative_slope, abs(distance), score);
}

// scores[key][lane] = query · key for the tile. While keys multiply, the next ones and the values
// of these are fetched.
inline void multiply_keys(const LaneGroup& group, FloatRows key, FloatRows value,
                          std::int64_t key_count, const AttendBlock& block, float* scores) {
  multiply_each(group.vectors, {key, key_count, block.head_dim, group.query, kLaneGroup, scores,
                                kLaneGroup, block.fetch_ahead, value, block.value_dim});
}

// Calls change(key, vector, score) on every vector of the tile and stores what it returns.
template <class Change>
inline void change_scores(const LaneGroup& group, std::int64_t key_count, float* scores,
                          const Change& change) {
  for (std::int64_t j = 0; j < key_count; ++j) {
    for (int v = 0; v < group.vectors; ++v) {
      float* at = scores + j * kLaneGroup + v * Vec::kWidth;
      store(at, change(j, v, load(at)));
    }
  }
}

inline void apply_softcap(const LaneGroup& group, std::int64_t key_count, float softcap,
                          float* scores) {
  const Vec cap = broadcast(softcap * kLog2E);
  change_scores(group, key_count, scores,
                [=](std::int64_t, int, Vec score) { return softcapped(score, cap); });
}

inline void apply_bias(const LaneGroup& group, std::int64_t key_count, const float* tile,
                       float* scores) {
  const bool shared = group.shared_bias;
  change_scores(group, key_count, scores, [=](std::int64_t j, int v, Vec score) {
    const Vec bias = shared ? broadcast(tile[j]) : load(tile + j * kLaneGroup + v * Vec::kWidth);
    return biased(score, bias);
  });
}

// In double, since positions may lie at the ends of 64 bits.
inline float relative_position(std::int64_t position, std::int64_t key) {
  return static_cast<float>(static_cast<double>(position) - static_cast<double>(key));
}

// score −= slope · |position − key|
__attribute__((noinline)) void apply_alibi(const LaneGroup& group, KeyTile keys, float* scores) {
  float position[kLaneGroup] = {};
  float slope[kLaneGroup] = {};
  for (int i = 0; i < group.row_count; ++i) {
    position[i] = relative_position(group.rows[i].position, keys.begin);
    slope[i] = group.rows[i].alibi_slope * -kLog2E;
  }
  change_scores(group, keys.count, scores, [&](std::int64_t j, int v, Vec score) {
    const Vec distance = load(position + v * Vec::kWidth) - broadcast(static_cast<float>(j));
    return with_alibi(score, load(slope + v * Vec::kWidth), distance);
  });
}

// The rows' spans relative to a tile, as floats: exact, since they are limited to the tile.
struct LaneSpans {
  float begin[kLaneGroup];
  float end[kLaneGroup];

  LaneSpans(const LaneGroup& group, KeyTile keys) : begin{}, end{} {
    const auto limited = [&keys](std::int64_t key) {
      const std::int64_t relative = key - keys.begin;
      return static_cast<float>(relative < 0 ? 0 : relative > keys.count ? keys.count : relative);
    };
    for (int i = 0; i < group.row_count; ++i) {
      begin[i] = limited(group.rows[i].key_begin);
      end[i] = limited(group.rows[i].key_end);
    }
  }
  Mask visible(std::int64_t j, int v) const {
    const Vec key = broadcast(static_cast<float>(j));
    return less_equal(load(begin + v * Vec::kWidth), key) & less(key, load(end + v * Vec::kWidth));
  }
};

inline void apply_spans(const LaneGroup& group, KeyTile keys, float* scores) {
  const LaneSpans spans(group, keys);
  const Vec excluded = broadcast(-kInfinity);
  change_scores(group, keys.count, scores, [&](std::int64_t j, int v, Vec score) {
    return select(spans.visible(j, v), score, excluded);
  });
}

// Areas of the workspace.
struct Workspace {
  float* query;
  float* output;
  float* peak;
  float* sum;
  float* score;
  float* mask;
  std::int64_t mask_stride;  // keys from the bits of one vector to those of the next
  float* bias;
  float* key;
  float* value;
  RelativeWorkspace relative{};
};

inline WorkspaceNeeds workspace_needs(const AttendBlock& block, int row_capacity,
                                      std::int64_t value_dim) {
  return {row_capacity,
          block.head_dim,
          value_dim,
          block.rows[0].mask != nullptr,
          block.rows[0].bias != nullptr,
          !reads_in_place(block.key),
          value_dim > 0 && !reads_in_place(block.value),
          block.relative.distance_rows != nullptr};
}

inline Workspace workspace_of(const AttendBlock& block, const TileFacts& facts, int row_capacity,
                              std::int64_t value_dim) {
  const AttendWorkspace at =
      attend_workspace(facts, workspace_needs(block, row_capacity, value_dim));
  float* base = block.workspace;
  return {base + at.query,
          base + at.output,
          base + at.peak,
          base + at.sum,
          base + at.score,
          base + at.mask,
          padded_mask_keys(facts),
          base + at.bias,
          base + at.key,
          base + at.value,
          relative_workspace(at, facts, base)};
}

// Whether every row of the group sees every key of the tile.
inline bool wholly_visible(const LaneGroup& group, KeyTile keys) {
  return group.shared_begin <= keys.begin && keys.begin + keys.count <= group.shared_end;
}

// What score_tile() left to do.
struct ScoredTile {
  bool excluded;         // a mask or bias excludes all of it, and no score was written
  const MaskBits* mask;  // still to be applied; null for none
  std::int64_t mask_stride;
};

// Base-2 logits of the tile into work.score, from what multiply() writes there; nothing of the keys
// is read where all of them are excluded. The mask is left to the pass that looks for the peaks.
template <class Multiply>
inline ScoredTile score_tile(const AttendBlock& block, const LaneGroup& group, KeyTile keys,
                             const Workspace& work, const Multiply& multiply) {
  const ScoreRules& rules = block.rules;
  Excluded mask = Excluded::kNone;
  MaskBits* mask_tile = reinterpret_cast<MaskBits*>(work.mask);
  if (group.rows[0].mask != nullptr) {
    mask = gather_mask(group, keys, rules.mask_key_stride, work.mask_stride, mask_tile);
    if (mask == Excluded::kAll) return {true, nullptr, 0};
  }
  const bool has_bias = group.rows[0].bias != nullptr;
  if (has_bias && !gather_bias(group, keys, rules, work.bias)) return {true, nullptr, 0};
  multiply();
  if (rules.softcap > 0.0f) apply_softcap(group, keys.count, rules.softcap, work.score);
  if (has_bias) apply_bias(group, keys.count, work.bias, work.score);
  if (rules.alibi) apply_alibi(group, keys, work.score);
  if (!wholly_visible(group, keys)) apply_spans(group, keys, work.score);
  return {false, mask == Excluded::kSome ? mask_tile : nullptr, work.mask_stride};
}

// peak[v] = max(peak[v], the tile's scores), after the mask has been applied to them.
template <int Vectors>
inline void find_peaks(const ScoredTile& tile, std::int64_t key_count, float* scores,
                       Vec (&peak)[Vectors]) {
  if (tile.mask == nullptr) {
    for (std::int64_t j = 0; j < key_count; ++j) {
      for (int v = 0; v < Vectors; ++v) {
        peak[v] = max(load(scores + j * kLaneGroup + v * Vec::kWidth), peak[v]);
      }
    }
    return;
  }
  const Vec excluded = broadcast(-kInfinity);
  for (std::int64_t j = 0; j < key_count; ++j) {
    for (int v = 0; v < Vectors; ++v) {
      float* at = scores + j * kLaneGroup + v * Vec::kWidth;
      const Mask allowed = mask_from_bits(tile.mask[v * tile.mask_stride + j]);
      const Vec score = select(allowed, load(at), excluded);
      store(at, score);
      peak[v] = max(score, peak[v]);
    }
  }
}

// The same without the peaks.
inline void apply_mask(const LaneGroup& group, std::int64_t key_count, const ScoredTile& tile,
                       float* scores) {
  const Vec excluded = broadcast(-kInfinity);
  change_scores(group, key_count, scores, [=](std::int64_t j, int v, Vec score) {
    return select(mask_from_bits(tile.mask[v * tile.mask_stride + j]), score, excluded);
  });
}

}  // namespace
}  // namespace numattn
