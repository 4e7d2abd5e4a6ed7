// Tiles of bfloat16 elements multiplied as pairs, weights rounded to bfloat16.
//
// Differences from float_tiles.h:
// - Queries are not scaled, which would round them anew: the factor enters with the exponent.
// - A row's shift follows its peak only when that has risen by more than kShiftSlack.
// - Values are transposed tile by tile, so that keys lie along the depth of the second product.
//
// Not kept: 2^x by a polynomial of degree 3, whose error is a tenth of a weight's rounding.
// Some 1.5 % faster on Zen 4, within the noise, but the lse of a row with few keys errs by 1e-4.
#pragma once

#include "attend.h"
#include "pairs.h"

namespace numattn {
namespace {

inline std::int64_t pair_depth(std::int64_t head_dim) { return round_up(head_dim, kDepthStep); }

// The keys and those beside them that complete the products' steps; these are not read, and have
// weight 0 and value 0.
inline KeyRange whole_steps(KeyRange keys) {
  return {keys.begin / kKeyStep * kKeyStep, round_up(keys.end, kKeyStep)};
}

struct PairWorkspace : Workspace {
  std::uint16_t* key;    // copied where they cannot be read in place
  std::uint16_t* value;  // transposed

  PairWorkspace(Areas& areas, const TileFacts& facts, const WorkspaceNeeds& needs)
      : Workspace(areas, facts, needs, pair_depth(needs.head_dim) / 2),
        key(areas.take<std::uint16_t>(facts.key_block * copied_row(needs.head_dim))),
        value(areas.take<std::uint16_t>(facts.key_block * output_rows(needs.value_dim))) {}
};

// Whether the factor may wait until the exponent. Not if a step in between wants base-2 scores, nor
// where a factor of 0 would meet −inf.
inline bool factor_waits(const AttendBlock& block) {
  return !Transforms::any(block.rules, block.rows[0]) && ScoreFactor(block.rules).of_scores > 0.0f;
}

// query[d / 2][lane] = (q[lane][d], q[lane][d + 1]), with the part of the factor that is theirs.
template <class Read>
inline void pack_query_pairs(const AttendBlock& block, const QueryRow* rows, int row_count,
                             const Read& read, std::uint16_t* packed) {
  const Vec factor = broadcast(ScoreFactor(block.rules).of_queries);
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
        store_pairs(packed + (d + j) / 2 * kPairLanes + 2 * lane,
                    round_to_pairs(square[j], square[j + 1]));
      }
    }
  }
}

// The tile's keys as rows of bfloat16: where they lie, or copied and padded with zeros.
inline PairRows key_rows(const AttendBlock& block, KeyRange keys, std::uint16_t* copy) {
  const Matrix& key = block.key.matrix;
  const KeyRange tile = whole_steps(keys);
  if (tile.count() == keys.count() && block.head_dim % kDepthStep == 0 &&
      block.key.pages == nullptr && reads_pairs_in_place(key)) {
    const char* from = key.data + tile.begin * key.row_stride;
    return {{reinterpret_cast<const std::uint16_t*>(from), 0}, key.row_stride / 2};
  }
  const std::int64_t stride = copied_row(block.head_dim);
  with_reader_of<BFloat16>(key.column_stride, [&](const auto& read) {
    for (std::int64_t j = tile.begin; j < tile.end; ++j) {
      const bool present = keys.begin <= j && j < keys.end;
      copy_pair_row<1>(present ? token_row(block.key, j) : nullptr, key.column_stride,
                       present ? block.head_dim : 0, stride, 0, read,
                       copy + (j - tile.begin) * stride);
    }
  });
  return {{copy, 0}, stride};
}

// A square of 2 · kWidth keys and as many elements that lie side by side. Two keys are joined
// element by element, and none becomes a float and a bfloat16 again: Zen 4, 12 heads of 64 × 64,
// 108 and 111 GFLOP/s. Returns whether all elements are ordinary.
inline bool transpose_square(const std::uint16_t* from, std::int64_t stride, std::int64_t key_block,
                             std::uint16_t* to) {
  bool ordinary = true;
  Vec first[Vec::kWidth];
  Vec last[Vec::kWidth];
#pragma GCC unroll 16
  for (int i = 0; i < Vec::kWidth; ++i) {
    const Pairs even = ordinary_or_zero(load_pairs(from + 2 * i * stride), ordinary);
    const Pairs odd = ordinary_or_zero(load_pairs(from + (2 * i + 1) * stride), ordinary);
    first[i] = as_lanes(join_first_halves(even, odd));
    last[i] = as_lanes(join_last_halves(even, odd));
  }
  transpose(first);
  transpose(last);
#pragma GCC unroll 16
  for (int i = 0; i < Vec::kWidth; ++i) {
    store_pairs(to + i * key_block, as_pairs(first[i]));
    store_pairs(to + (Vec::kWidth + i) * key_block, as_pairs(last[i]));
  }
  return ordinary;
}

// transposed[d][j] = value[tile.begin + j][d]; rows beyond the value dimension and keys that are
// not read are 0. So are values that are infinite, NaN or very small, which the unit would spread
// to rows that do not see them, or lose. Returns whether there are any: add_special_values() is for
// those.
template <class Read>
inline bool transpose_values(const AttendBlock& block, KeyRange keys, std::int64_t key_block,
                             const Read& read, std::uint16_t* transposed) {
  const KeyRange tile = whole_steps(keys);
  bool ordinary = true;
  const auto read_row = [&](std::int64_t j, std::int64_t d, int count) {
    if (j < keys.begin || j >= keys.end) return zero();
    const char* from = token_row(block.value, j) + d * block.value.matrix.column_stride;
    const Vec elements = read(from, count);
    ordinary &= all_ordinary(elements);
    return ordinary_or_zero(elements);
  };
  constexpr std::int64_t kSide = 2 * Vec::kWidth;
  const Matrix& value = block.value.matrix;
  const bool in_place = block.value.pages == nullptr && reads_pairs_in_place(value);
  for (std::int64_t j = tile.begin; j < tile.end; j += kSide) {
    std::int64_t d = 0;
    if (in_place && keys.begin <= j && j + kSide <= keys.end) {
      const auto* from = reinterpret_cast<const std::uint16_t*>(value.data + j * value.row_stride);
      for (; d + kSide <= block.value_dim; d += kSide) {
        ordinary &= transpose_square(from + d, value.row_stride / 2, key_block,
                                     transposed + d * key_block + j - tile.begin);
      }
    }
    for (; d < block.value_dim; d += Vec::kWidth) {
      const int count = lanes_left(d, block.value_dim);
      Vec square[Vec::kWidth];
      for (int i = 0; i < Vec::kWidth; ++i) {
        square[i] = as_lanes(
            round_to_pairs(read_row(j + 2 * i, d, count), read_row(j + 2 * i + 1, d, count)));
      }
      transpose(square);
      std::uint16_t* to = transposed + d * key_block + j - tile.begin;
      for (int i = 0; i < Vec::kWidth; ++i) store_pairs(to + i * key_block, as_pairs(square[i]));
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

// output += weight · value for the values that transpose_values() left out, where a row sees them:
// nothing that a row does not see changes a bit of its output.
inline void add_special_values(const AttendBlock& block, const LaneGroup& group, KeyRange seen,
                               std::int64_t tile_begin, const std::uint16_t* weights,
                               float* output) {
  const LaneSpans spans(group, seen);
  const Matrix& value = block.value.matrix;
  const auto weight_at = [weights](std::int64_t j, int v) {
    const Pairs pair = load_pairs(weights + j / 2 * kPairLanes + v * 2 * Vec::kWidth);
    return j % 2 == 0 ? even_of(pair) : odd_of(pair);
  };
  for (std::int64_t j = 0; j < seen.count(); ++j) {
    const std::int64_t row = seen.begin + j - tile_begin;
    for (std::int64_t d = 0; d < block.value_dim; ++d) {
      const float element = read_element(
          token_row(block.value, seen.begin + j) + d * value.column_stride, value.dtype);
      if (is_ordinary(element)) continue;
      for (int v = 0; v < group.vectors; ++v) {
        const Vec weight = weight_at(row, v);
        float* at = output + d * kLaneGroup + v * Vec::kWidth;
        const Vec sum = load(at);
        store(at, select(spans.visible(j, v), fma(broadcast(element), weight, sum), sum));
      }
    }
  }
}

// Asks for the keys and values of the tile after this one.
inline void fetch_next_tile(const AttendBlock& block, KeyRange tile, std::int64_t end) {
  const std::int64_t next = tile.end + tile.count();
  const auto fetch = [&](const TokenRows& tokens, std::int64_t width) {
    const Matrix& matrix = tokens.matrix;
    if (matrix.column_stride != dtype_size(matrix.dtype)) return;
    for (std::int64_t j = tile.end; j < next && j < end; ++j) {
      fetch_bytes(token_row(tokens, j), width * matrix.column_stride);
    }
  };
  fetch(block.key, block.head_dim);
  fetch(block.value, block.value_dim);
}

class PairTiles {
 public:
  struct Tile {
    KeyRange keys;
    PairRows key;
    const std::uint16_t* value;  // transposed, rows of key_block elements
    bool special;                // whether there are values that add_special_values() is for
  };

  static constexpr float kShiftSlack = 8.0f;
  static constexpr int kWeightStep = 2;
  static constexpr float kFarShift = 0x1p22f;  // half a unit of it is a quarter

  PairTiles(const AttendBlock& block, const TileFacts& facts)
      : block_(block),
        key_block_(facts.key_block),
        areas_(block.workspace),
        work_(areas_, facts, block.needs),
        factor_(ScoreFactor(block.rules).of_scores),
        waits_(factor_waits(block)),
        late_factor_{} {}

  const Workspace& work() const { return work_; }
  std::int64_t row_floats() const { return pair_depth(block_.head_dim) / 2; }

  void pack(int first, int rows) {
    auto* query = reinterpret_cast<std::uint16_t*>(work_.query + first * row_floats());
    with_reader_of<BFloat16>(block_.query_column_stride, [&](const auto& read) {
      pack_query_pairs(block_, block_.rows + first, rows, read, query);
    });
  }

  Tile prepare(KeyRange keys, std::int64_t end) {
    if (block_.fetch_ahead) fetch_next_tile(block_, keys, end);
    bool special = false;
    const Matrix& value = block_.value.matrix;
    with_reader_of<BFloat16>(value.column_stride, [&](const auto& read) {
      special = transpose_values(block_, keys, key_block_, read, work_.value);
    });
    return {keys, key_rows(block_, keys, work_.key), work_.value, special};
  }

  KeyRange multiplied(KeyRange keys) const { return whole_steps(keys); }

  template <int Vectors>
  void scores(const LaneGroup& group, const Tile& tile, KeyRange keys) {
    const KeyRange all = multiplied(keys);
    const std::int64_t depth = pair_depth(block_.head_dim);
    const PairOperand query{reinterpret_cast<const std::uint16_t*>(group.query), 0};
    PairOperand key = tile.key.parts;
    key.data += offset_of(tile, all) * tile.key.stride;
    NoRowsAhead none;
    multiply_pairs<false, Vectors>(all.count(), product_of<1>(key, tile.key.stride, query, depth),
                                   work_.score, none);
    if (waits_) return;
    const Vec factor = broadcast(factor_);
    change_scores(group, keys.count(), work_.score + (keys.begin - all.begin) * kLaneGroup,
                  [=](std::int64_t, int, Vec score) { return score * factor; });
  }

  Vec in_base2(Vec score) const { return waits_ ? score * broadcast(factor_) : score; }

  // The exponent factor · s − shift is rounded once, while the shift is a rounded product: of the
  // largest score that leaves half a unit of the shift, which all weights of the row share and its
  // sum takes out again. Beyond kFarShift it could be whole powers of two, up to more than a float
  // holds; there the factor is multiplied in first, so that the largest score has exactly weight 1.
  void settle(int v, Vec shift, std::int64_t key_count) {
    const Vec factor = broadcast(waits_ ? factor_ : 1.0f);
    late_factor_[v] = factor;
    const Mask far = less(broadcast(kFarShift), abs(shift));
    if (!waits_ || !any(far)) return;
    late_factor_[v] = select(far, broadcast(1.0f), factor);
    for (std::int64_t j = 0; j < key_count; ++j) {
      float* at = work_.score + j * kLaneGroup + v * Vec::kWidth;
      const Vec score = load(at);
      store(at, select(far, score * factor, score));
    }
  }

  // Row j / 2 of the weights is written when rows j and j + 1 of the scores have been read, and is
  // no longer than one of them.
  __attribute__((always_inline)) Vec weigh(std::int64_t j, int v, Vec shift) {
    const float* from = work_.score + j * kLaneGroup + v * Vec::kWidth;
    const Vec minus_shift = zero() - shift;
    const Vec even = exp2(fma(load(from), late_factor_[v], minus_shift));
    const Vec odd = exp2(fma(load(from + kLaneGroup), late_factor_[v], minus_shift));
    const std::int64_t to = j / 2 * kPairLanes + v * 2 * Vec::kWidth;
    store_pairs(reinterpret_cast<std::uint16_t*>(work_.score) + to, round_to_pairs(even, odd));
    return even + odd;
  }

  template <int Vectors>
  void add(const LaneGroup& group, const Tile& tile, KeyRange keys, const Rescaling<Vectors>& old,
           float* output) {
    const KeyRange all = multiplied(keys);
    const std::int64_t rows = output_rows(block_.value_dim);
    if (old.any) scale_output(rows, old.alpha, output);
    const auto* weights = reinterpret_cast<const std::uint16_t*>(work_.score);
    const PairOperand value{tile.value + offset_of(tile, all), 0};
    NoRowsAhead none;
    multiply_pairs<true, Vectors>(rows, product_of<1>(value, key_block_, {weights, 0}, all.count()),
                                  output, none);
    if (!tile.special) return;
    add_special_values(block_, group, keys, all.begin, weights, output);
  }

 private:
  static std::int64_t offset_of(const Tile& tile, KeyRange all) {
    return all.begin - whole_steps(tile.keys).begin;
  }

  const AttendBlock& block_;
  const std::int64_t key_block_;
  Areas areas_;
  PairWorkspace work_;
  const PairUnit unit_;
  const float factor_;
  const bool waits_;
  Vec late_factor_[kTileVectors];  // what scores are multiplied by in the exponent
};

}  // namespace
}  // namespace numattn
