// Blocked attention whose two products take pairs of bfloat16: the definition, the blocks and the
// state are those of attend.h.
//
//   Parts = 1: bfloat16 elements, weights rounded to bfloat16.
//   Parts = 2: float32 elements and weights as sums of two bfloat16 (precision "high").
//
// Differences from attend.h:
// - Queries are not scaled, which would round them anew: the factor enters with the exponent.
// - A row's shift follows its peak only when that has risen by more than kShiftSlack. Weights then
//   reach up to 2^kShiftSlack instead of 1, and most tiles leave the output's scale alone.
// - Values are transposed tile by tile, so that keys lie along the depth of the second product.
//
// Not kept: 2^x by a polynomial of degree 3, whose error is a tenth of a weight's rounding.
// Some 1.5 % faster on Zen 4, within the noise, but the lse of a row with few keys errs by 1e-4.
#pragma once

#include "attend.h"
#include "pairs.h"

namespace numattn {
namespace {

constexpr float kShiftSlack = 8.0f;

inline std::int64_t pair_depth(std::int64_t head_dim) { return round_up(head_dim, kDepthStep); }

template <int Parts>
inline AttendWorkspace pair_workspace(const TileFacts& facts, const WorkspaceNeeds& needs) {
  AttendWorkspace at{};
  AreaTaker area;
  const std::int64_t rows = needs.row_capacity;
  const std::int64_t tile = static_cast<std::int64_t>(facts.lane_group) * facts.key_block;
  const auto take_pairs = [&area](std::int64_t elements) {
    return area.take(Parts * elements / 2);
  };
  at.query = take_pairs(rows * pair_depth(needs.head_dim));
  at.output = area.take(rows * output_rows(needs.value_dim));
  at.peak = area.take(rows);
  at.sum = area.take(rows);
  at.score = area.take(tile);
  at.mask = area.take(needs.mask ? mask_tile_floats(facts) : 0);
  at.bias = area.take(needs.bias ? tile : 0);
  at.key = take_pairs(facts.key_block * copied_row(needs.head_dim));
  at.value = take_pairs(facts.key_block * output_rows(needs.value_dim));
  at.low_weight = area.take(Parts == 2 ? tile / 2 : 0);
  at.total = area.next;
  return at;
}

struct PairWorkspace {
  Workspace floats;  // its key and value are not used
  std::uint16_t* key;
  std::uint16_t* value;
  std::uint16_t* low_weight;
};

template <int Parts>
inline PairWorkspace pair_workspace_of(const AttendBlock& block, const TileFacts& facts) {
  const AttendWorkspace at = pair_workspace<Parts>(
      facts, {padded_rows(block), block.head_dim, block.value_dim, block.rows[0].mask != nullptr,
              block.rows[0].bias != nullptr, true, true});
  float* base = block.workspace;
  const auto pairs_at = [base](std::int64_t floats) {
    return reinterpret_cast<std::uint16_t*>(base + floats);
  };
  return {{base + at.query, base + at.output, base + at.peak, base + at.sum, base + at.score,
           base + at.mask, padded_mask_keys(facts), base + at.bias, nullptr, nullptr},
          pairs_at(at.key),
          pairs_at(at.value),
          pairs_at(at.low_weight)};
}

// What a raw product must still be multiplied by, at least 0: the sign is in the queries.
inline float score_factor(const ScoreRules& rules) { return __builtin_fabsf(rules.scale) * kLog2E; }

// Whether the factor may wait until the exponent. Not if a step in between wants base-2 scores, nor
// where a factor of 0 would meet −inf.
template <int Parts>
inline bool factor_waits(const ScoreRules& rules, bool has_bias) {
  return Parts == 1 && rules.softcap == 0.0f && !has_bias && !rules.alibi &&
         score_factor(rules) > 0.0f;
}

// query[d / 2][lane] = (q[lane][d], q[lane][d + 1]), with the scale's sign; in two parts with all
// of the factor, since nothing is lost there.
template <int Parts, class Read>
inline void pack_query_pairs(const AttendBlock& block, const QueryRow* rows, int row_count,
                             const Read& read, std::uint16_t* packed) {
  const float sign = block.rules.scale < 0.0f ? -1.0f : 1.0f;
  const Vec factor = broadcast(Parts == 1 ? sign : block.rules.scale * kLog2E);
  const std::int64_t item = block.query_column_stride;
  const std::int64_t depth = pair_depth(block.head_dim);
  for (int lane = 0; lane < row_count; lane += Vec::kWidth) {
    for (std::int64_t d = 0; d < depth; d += Vec::kWidth) {
      const int columns = d < block.head_dim ? lanes_left(d, block.head_dim) : 0;
      Vec square[Vec::kWidth];
      for (int i = 0; i < Vec::kWidth; ++i) {
        square[i] = lane + i < row_count && columns > 0
                        ? read(rows[lane + i].query + d * item, columns) * factor
                        : zero();
      }
      transpose(square);
      for (int j = 0; j < Vec::kWidth && d + j < depth; j += 2) {
        const SplitPairs<Parts> pairs(square[j], square[j + 1]);
        std::uint16_t* to = packed + (d + j) / 2 * kPairLanes + 2 * lane;
        for (int p = 0; p < Parts; ++p) store_pairs(to + p * depth * kLaneGroup, pairs.part[p]);
      }
    }
  }
}

template <int Parts>
inline void begin_pairs(const AttendBlock& block, const PairWorkspace& work) {
  const std::int64_t row_pairs = pair_depth(block.head_dim) * Parts;
  for (int first = 0; first < block.row_count; first += kLaneGroup) {
    const int rows = block.row_count - first < kLaneGroup ? block.row_count - first : kLaneGroup;
    std::uint16_t* query = reinterpret_cast<std::uint16_t*>(work.floats.query) + first * row_pairs;
    with_reader(block.query_dtype, block.query_column_stride, [&](const auto& read) {
      pack_query_pairs<Parts>(block, block.rows + first, rows, read, query);
    });
    for (int i = 0; i < kLaneGroup; ++i) {
      work.floats.peak[first + i] = -kInfinity;
      work.floats.sum[first + i] = 0.0f;
    }
    clear_output(block, work.floats, first);
  }
}

// A tile of keys as the products see it: [begin, end), whole key steps, of which only [read_begin,
// read_end) are read. The others have weight 0 and value 0.
struct PairTile {
  std::int64_t begin, end;
  std::int64_t read_begin, read_end;

  PairTile(std::int64_t from, std::int64_t to)
      : begin(from / kKeyStep * kKeyStep),
        end(round_up(to, kKeyStep)),
        read_begin(from),
        read_end(to) {}
};

// The tile's keys as rows of bfloat16: where they lie, or copied and padded with zeros.
template <int Parts>
inline PairRows key_rows(const AttendBlock& block, const PairTile& tile, std::int64_t key_block,
                         std::uint16_t* copy) {
  const Matrix& key = block.key.matrix;
  if (Parts == 1 && tile.begin == tile.read_begin && tile.end == tile.read_end &&
      block.head_dim % kDepthStep == 0 && block.key.pages == nullptr && reads_pairs_in_place(key)) {
    const char* from = key.data + tile.begin * key.row_stride;
    return {{reinterpret_cast<const std::uint16_t*>(from), 0}, key.row_stride / 2};
  }
  const std::int64_t stride = copied_row(block.head_dim);
  const std::int64_t part_stride = key_block * stride;
  with_reader(key.dtype, key.column_stride, [&](const auto& read) {
    for (std::int64_t j = tile.begin; j < tile.end; ++j) {
      const bool present = tile.read_begin <= j && j < tile.read_end;
      copy_pair_row<Parts>(present ? token_row(block.key, j) : nullptr, key.column_stride,
                           present ? block.head_dim : 0, stride, part_stride, read,
                           copy + (j - tile.begin) * stride);
    }
  });
  return {{copy, part_stride}, stride};
}

// transposed[d][j] = value[tile.begin + j][d]; rows beyond the value dimension and keys that are
// not read are 0. So are values that are infinite, NaN or subnormal, which the unit would spread to
// rows that do not see them, or lose. Returns whether there are any: add_special_values() is for
// those.
template <int Parts, class Read>
inline bool transpose_values(const AttendBlock& block, const PairTile& tile, std::int64_t key_block,
                             const Read& read, std::uint16_t* transposed) {
  const std::int64_t part_stride = output_rows(block.value_dim) * key_block;
  bool ordinary = true;
  const auto read_row = [&](std::int64_t j, std::int64_t d, int count) {
    if (j < tile.read_begin || j >= tile.read_end) return zero();
    const char* from = token_row(block.value, j) + d * block.value.matrix.column_stride;
    const Vec elements = read(from, count);
    ordinary &= all_ordinary(elements);
    return ordinary_or_zero(elements);
  };
  for (std::int64_t d = 0; d < block.value_dim; d += Vec::kWidth) {
    const int count = lanes_left(d, block.value_dim);
    for (std::int64_t j = tile.begin; j < tile.end; j += 2 * Vec::kWidth) {
      Vec square[Parts][Vec::kWidth];
      for (int i = 0; i < Vec::kWidth; ++i) {
        const SplitPairs<Parts> pairs(read_row(j + 2 * i, d, count),
                                      read_row(j + 2 * i + 1, d, count));
        for (int p = 0; p < Parts; ++p) square[p][i] = as_lanes(pairs.part[p]);
      }
      for (int p = 0; p < Parts; ++p) {
        transpose(square[p]);
        std::uint16_t* to = transposed + p * part_stride + d * key_block + j - tile.begin;
        for (int i = 0; i < Vec::kWidth; ++i)
          store_pairs(to + i * key_block, as_pairs(square[p][i]));
      }
    }
  }
  return !ordinary;
}

template <int Vectors>
inline void scale_output(std::int64_t rows, const Vec (&alpha)[Vectors], float* output) {
  for (std::int64_t d = 0; d < rows; ++d) {
    for (int v = 0; v < Vectors; ++v) {
      float* at = output + d * kLaneGroup + v * Vec::kWidth;
      store(at, load(at) * alpha[v]);
    }
  }
}

// The tile's scores, of which the largest are given, become pairs of weights 2^(factor · s −
// shift), in place; shift, sum and the output's scale move on. Row j / 2 of the weights is written
// when row j and j + 1 of the scores have been read, and is no longer than one of them.
template <int Parts, int Vectors>
inline void update_pairs(std::int64_t key_count, float factor, Vec (&peak)[Vectors],
                         const Workspace& work, std::int64_t first, std::int64_t rows,
                         float* output, std::uint16_t* low_weight) {
  float* scores = work.score;
  const Vec factors = broadcast(factor);
  Vec minus_shift[Vectors];
  Vec alpha[Vectors];
  Vec total[Vectors];
  bool risen = false;
  for (int v = 0; v < Vectors; ++v) {
    float* shift = work.peak + first + v * Vec::kWidth;
    const Vec old = load(shift);
    peak[v] = peak[v] * factors;
    const Mask above = less(old + broadcast(kShiftSlack), peak[v]);
    const Vec now = select(above, peak[v], old);
    risen |= any(above);
    store(shift, now);
    // While a row has seen no key its shift is −inf; 0 keeps −inf − −inf from being NaN.
    const Vec used = select(equal(now, broadcast(-kInfinity)), zero(), now);
    minus_shift[v] = zero() - used;
    alpha[v] = exp2(old - used);
    total[v] = zero();
  }
  if (risen) scale_output(rows, alpha, output);
  for (std::int64_t j = 0; j < key_count; j += 2) {
    for (int v = 0; v < Vectors; ++v) {
      const float* from = scores + j * kLaneGroup + v * Vec::kWidth;
      const Vec even = exp2(fma(load(from), factors, minus_shift[v]));
      const Vec odd = exp2(fma(load(from + kLaneGroup), factors, minus_shift[v]));
      total[v] = total[v] + (even + odd);
      const SplitPairs<Parts> pairs(even, odd);
      const std::int64_t to = j / 2 * kPairLanes + v * 2 * Vec::kWidth;
      store_pairs(reinterpret_cast<std::uint16_t*>(scores) + to, pairs.part[0]);
      if (Parts == 2) store_pairs(low_weight + to, pairs.part[Parts - 1]);
    }
  }
  for (int v = 0; v < Vectors; ++v) {
    float* sum = work.sum + first + v * Vec::kWidth;
    store(sum, fma(load(sum), alpha[v], total[v]));
  }
}

// output += weight · value for the values that transpose_values() left out, where a row sees them:
// nothing that a row does not see changes a bit of its output.
template <int Parts>
inline void add_special_values(const AttendBlock& block, const LaneGroup& group, KeyTile seen,
                               std::int64_t tile_begin, const std::uint16_t* weights,
                               const std::uint16_t* low_weights, float* output) {
  const LaneSpans spans(group, seen);
  const Matrix& value = block.value.matrix;
  const auto weight_at = [](const std::uint16_t* pairs, std::int64_t j, int v) {
    const Pairs pair = load_pairs(pairs + j / 2 * kPairLanes + v * 2 * Vec::kWidth);
    return j % 2 == 0 ? even_of(pair) : odd_of(pair);
  };
  for (std::int64_t j = 0; j < seen.count; ++j) {
    const std::int64_t row = seen.begin + j - tile_begin;
    for (std::int64_t d = 0; d < block.value_dim; ++d) {
      const float element = read_element(
          token_row(block.value, seen.begin + j) + d * value.column_stride, value.dtype);
      if (is_ordinary(element)) continue;
      for (int v = 0; v < group.vectors; ++v) {
        Vec weight = weight_at(weights, row, v);
        if (Parts == 2) weight = weight + weight_at(low_weights, row, v);
        float* at = output + d * kLaneGroup + v * Vec::kWidth;
        const Vec sum = load(at);
        store(at, select(spans.visible(j, v), fma(broadcast(element), weight, sum), sum));
      }
    }
  }
}

// The block's tile that all lane groups share.
struct PreparedTile {
  PairTile keys;
  PairRows key;
  PairOperand value;  // transposed, rows of key_block elements
  bool special;
};

template <int Parts, int Vectors>
inline void attend_pair_tile(const AttendBlock& block, const LaneGroup& group, KeyTile seen,
                             const PreparedTile& tile, const TileFacts& facts,
                             const PairWorkspace& work, std::int64_t first) {
  const PairTile part(seen.begin, seen.begin + seen.count);
  const std::int64_t offset = part.begin - tile.keys.begin;
  const std::int64_t key_count = part.end - part.begin;
  const std::int64_t depth = pair_depth(block.head_dim);
  const bool waits = factor_waits<Parts>(block.rules, group.rows[0].bias != nullptr);
  const float factor = Parts == 1 ? score_factor(block.rules) : 1.0f;
  const PairOperand query{reinterpret_cast<const std::uint16_t*>(group.query), depth * kLaneGroup};
  PairOperand key = tile.key.parts;
  key.data += offset * tile.key.stride;
  Workspace seen_part = work.floats;
  seen_part.score += (seen.begin - part.begin) * kLaneGroup;
  const auto multiply = [&] {
    multiply_pairs<false, Vectors>(key_count, product_of<Parts>(key, tile.key.stride, query, depth),
                                   work.floats.score);
    if (waits || Parts == 2) return;
    change_scores(group, seen.count, seen_part.score,
                  [=](std::int64_t, int, Vec score) { return score * broadcast(factor); });
  };
  const ScoredTile scored = score_tile(block, group, seen, seen_part, multiply);
  if (scored.excluded) return;
  Vec peak[Vectors];
  for (int v = 0; v < Vectors; ++v) peak[v] = broadcast(-kInfinity);
  find_peaks(scored, seen.count, seen_part.score, peak);
  const auto hide = [&](std::int64_t from, std::int64_t to) {
    change_scores(group, to - from, work.floats.score + (from - part.begin) * kLaneGroup,
                  [](std::int64_t, int, Vec) { return broadcast(-kInfinity); });
  };
  hide(part.begin, seen.begin);
  hide(seen.begin + seen.count, part.end);

  float* output = output_of(block, work.floats, first);
  const std::int64_t rows = output_rows(block.value_dim);
  update_pairs<Parts>(key_count, waits ? factor : 1.0f, peak, work.floats, first, rows, output,
                      work.low_weight);
  const auto* weights = reinterpret_cast<const std::uint16_t*>(work.floats.score);
  PairOperand value = tile.value;
  value.data += offset;
  const PairOperand weight{weights, work.low_weight - weights};
  multiply_pairs<true, Vectors>(rows, product_of<Parts>(value, facts.key_block, weight, key_count),
                                output);
  if (!tile.special) return;
  add_special_values<Parts>(block, group, seen, part.begin, weights, work.low_weight, output);
}

// Asks for the keys and values of the tile after this one.
inline void fetch_next_tile(const AttendBlock& block, const PairTile& tile, std::int64_t end) {
  const std::int64_t next = tile.read_end + (tile.read_end - tile.read_begin);
  const auto fetch = [&](const TokenRows& tokens, std::int64_t width) {
    const Matrix& matrix = tokens.matrix;
    if (matrix.column_stride != dtype_size(matrix.dtype)) return;
    for (std::int64_t j = tile.read_end; j < next && j < end; ++j) {
      fetch_bytes(token_row(tokens, j), width * matrix.column_stride);
    }
  };
  fetch(block.key, block.head_dim);
  fetch(block.value, block.value_dim);
}

template <int Parts>
inline void attend_pair_keys(const AttendBlock& block, const TileFacts& facts,
                             const PairWorkspace& work) {
  const PairUnit unit;
  const std::int64_t row_floats = pair_depth(block.head_dim) * Parts / 2;
  const LaneGroups in(block, work.floats.query, row_floats);
  for (std::int64_t j = in.begin; j < in.end;) {
    const std::int64_t tile_end = key_tile_end(j, in.end, facts);
    const PairTile keys(j, tile_end);
    if (block.fetch_ahead) fetch_next_tile(block, keys, in.end);
    bool special = false;
    const Matrix& value = block.value.matrix;
    with_reader(value.dtype, value.column_stride, [&](const auto& read) {
      special = transpose_values<Parts>(block, keys, facts.key_block, read, work.value);
    });
    const PreparedTile tile{keys,
                            key_rows<Parts>(block, keys, facts.key_block, work.key),
                            {work.value, output_rows(block.value_dim) * facts.key_block},
                            special};
    for (int g = 0; g < in.count; ++g) {
      const LaneGroup& group = in.groups[g];
      const KeyTile seen = in.seen(g, j, tile_end);
      if (seen.count <= 0) continue;
      const std::int64_t first = static_cast<std::int64_t>(g) * kLaneGroup;
      switch (group.vectors) {
        case 1: attend_pair_tile<Parts, 1>(block, group, seen, tile, facts, work, first); break;
        case 2: attend_pair_tile<Parts, 2>(block, group, seen, tile, facts, work, first); break;
        default: attend_pair_tile<Parts, 3>(block, group, seen, tile, facts, work, first);
      }
    }
    j = tile_end;
  }
}

template <int Parts>
inline void attend_pairs(const AttendBlock& block, const TileFacts& facts) {
  const PairWorkspace work = pair_workspace_of<Parts>(block, facts);
  if (block.begin) begin_pairs<Parts>(block, work);
  attend_pair_keys<Parts>(block, facts, work);
  if (block.end) write_block(block, work.floats);
}

}  // namespace
}  // namespace numattn
