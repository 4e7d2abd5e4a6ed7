// Tiles multiplied as pairs of bfloat16.
//
//   Parts = 1: bfloat16 elements, weights rounded to bfloat16.
//   Parts = 2: float32 elements and weights as sums of two bfloat16 (precision "high").
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

template <int Parts>
struct PairWorkspace : Workspace {
  std::uint16_t* key;         // copied where they cannot be read in place
  std::uint16_t* value;       // transposed
  std::uint16_t* low_weight;  // of weights in two parts
  float* product;             // of their sums, where the unit does not keep them apart

  PairWorkspace(Areas& areas, const TileFacts& facts, const WorkspaceNeeds& needs)
      : Workspace(areas, facts, needs, Parts * pair_depth(needs.head_dim) / 2),
        key(areas.take<std::uint16_t>(Parts * facts.key_block * copied_row(needs.head_dim))),
        value(areas.take<std::uint16_t>(Parts * facts.key_block * output_rows(needs.value_dim))),
        low_weight(areas.take<std::uint16_t>(Parts == 2 ? tile_scores(facts) : 0)),
        product(areas.take(kProductApart ? output_rows(needs.value_dim) * facts.lane_group : 0)) {}

  // In two parts a tile's sums are exact enough for the rounding of a long chain to show.
  static constexpr bool kProductApart = Parts == 2 && !kSumsApart;
};

// scale · log2 e in two factors. The queries take its sign and, where it is below 1, its power of
// two: exactly, so that nothing is rounded, and products do not overflow that the scale brings
// back. The rest, at least 0, is left to the scores.
struct ScoreFactor {
  float of_queries;
  float of_scores;

  explicit ScoreFactor(const ScoreRules& rules) {
    const float factor = __builtin_fabsf(rules.scale) * kLog2E;
    const float power = float_from_bits(bits_from_float(factor) & 0x7F800000u);
    const bool small = 0.0f < power && power < 1.0f;
    of_queries = rules.scale < 0.0f ? -1.0f : 1.0f;
    of_scores = factor;
    if (!small) return;
    of_queries *= power;
    of_scores /= power;
  }
};

// Whether the factor may wait until the exponent. Not if a step in between wants base-2 scores, nor
// where a factor of 0 would meet −inf.
template <int Parts>
inline bool factor_waits(const AttendBlock& block) {
  return Parts == 1 && !Transforms::any(block.rules, block.rows[0]) &&
         ScoreFactor(block.rules).of_scores > 0.0f;
}

// query[d / 2][lane] = (q[lane][d], q[lane][d + 1]), with the part of the factor that is theirs; in
// two parts with all of it, since nothing is lost there.
template <int Parts, class Read>
inline void pack_query_pairs(const AttendBlock& block, const QueryRow* rows, int row_count,
                             const Read& read, std::uint16_t* packed) {
  const Vec factor =
      broadcast(Parts == 1 ? ScoreFactor(block.rules).of_queries : block.rules.scale * kLog2E);
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

// The tile's keys as rows of bfloat16: where they lie, or copied and padded with zeros.
template <int Parts>
inline PairRows key_rows(const AttendBlock& block, KeyRange keys, std::int64_t key_block,
                         std::uint16_t* copy) {
  const Matrix& key = block.key.matrix;
  const KeyRange tile = whole_steps(keys);
  if (Parts == 1 && tile.count() == keys.count() && block.head_dim % kDepthStep == 0 &&
      block.key.pages == nullptr && reads_pairs_in_place(key)) {
    const char* from = key.data + tile.begin * key.row_stride;
    return {{reinterpret_cast<const std::uint16_t*>(from), 0}, key.row_stride / 2};
  }
  const std::int64_t stride = copied_row(block.head_dim);
  const std::int64_t part_stride = key_block * stride;
  with_reader(key.dtype, key.column_stride, [&](const auto& read) {
    for (std::int64_t j = tile.begin; j < tile.end; ++j) {
      const bool present = keys.begin <= j && j < keys.end;
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
inline bool transpose_values(const AttendBlock& block, KeyRange keys, std::int64_t key_block,
                             const Read& read, std::uint16_t* transposed) {
  const std::int64_t part_stride = output_rows(block.value_dim) * key_block;
  const KeyRange tile = whole_steps(keys);
  bool ordinary = true;
  const auto read_row = [&](std::int64_t j, std::int64_t d, int count) {
    if (j < keys.begin || j >= keys.end) return zero();
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

template <int Vectors>
inline void add_rows(std::int64_t rows, const float* added, float* output) {
  for (std::int64_t d = 0; d < rows; ++d) {
    for (int v = 0; v < Vectors; ++v) {
      const std::int64_t at = d * kLaneGroup + v * Vec::kWidth;
      store(output + at, load(output + at) + load(added + at));
    }
  }
}

// output += weight · value for the values that transpose_values() left out, where a row sees them:
// nothing that a row does not see changes a bit of its output.
template <int Parts>
inline void add_special_values(const AttendBlock& block, const LaneGroup& group, KeyRange seen,
                               std::int64_t tile_begin, const std::uint16_t* weights,
                               const std::uint16_t* low_weights, float* output) {
  const LaneSpans spans(group, seen);
  const Matrix& value = block.value.matrix;
  const auto weight_at = [](const std::uint16_t* pairs, std::int64_t j, int v) {
    const Pairs pair = load_pairs(pairs + j / 2 * kPairLanes + v * 2 * Vec::kWidth);
    return j % 2 == 0 ? even_of(pair) : odd_of(pair);
  };
  for (std::int64_t j = 0; j < seen.count(); ++j) {
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

template <int Parts>
class PairTiles {
 public:
  struct Tile {
    KeyRange keys;
    PairRows key;
    PairOperand value;  // transposed, rows of key_block elements
    bool special;       // whether there are values that add_special_values() is for
  };

  static constexpr float kShiftSlack = 8.0f;
  static constexpr int kWeightStep = 2;
  static constexpr float kFarShift = 0x1p22f;  // half a unit of it is a quarter

  PairTiles(const AttendBlock& block, const TileFacts& facts)
      : block_(block),
        key_block_(facts.key_block),
        areas_(block.workspace),
        work_(areas_, facts, block.needs),
        factor_(Parts == 1 ? ScoreFactor(block.rules).of_scores : 1.0f),
        waits_(factor_waits<Parts>(block)),
        late_factor_{} {}

  const Workspace& work() const { return work_; }
  std::int64_t row_floats() const { return Parts * pair_depth(block_.head_dim) / 2; }

  void pack(int first, int rows) {
    auto* query = reinterpret_cast<std::uint16_t*>(work_.query + first * row_floats());
    with_reader(block_.query_dtype, block_.query_column_stride, [&](const auto& read) {
      pack_query_pairs<Parts>(block_, block_.rows + first, rows, read, query);
    });
  }

  Tile prepare(KeyRange keys, std::int64_t end) {
    if (block_.fetch_ahead) fetch_next_tile(block_, keys, end);
    bool special = false;
    const Matrix& value = block_.value.matrix;
    with_reader(value.dtype, value.column_stride, [&](const auto& read) {
      special = transpose_values<Parts>(block_, keys, key_block_, read, work_.value);
    });
    return {keys,
            key_rows<Parts>(block_, keys, key_block_, work_.key),
            {work_.value, output_rows(block_.value_dim) * key_block_},
            special};
  }

  KeyRange multiplied(KeyRange keys) const { return whole_steps(keys); }

  template <int Vectors>
  void scores(const LaneGroup& group, const Tile& tile, KeyRange keys) {
    const KeyRange all = multiplied(keys);
    const std::int64_t depth = pair_depth(block_.head_dim);
    const PairOperand query{reinterpret_cast<const std::uint16_t*>(group.query),
                            depth * kLaneGroup};
    PairOperand key = tile.key.parts;
    key.data += offset_of(tile, all) * tile.key.stride;
    multiply_pairs<false, Vectors>(
        all.count(), product_of<Parts>(key, tile.key.stride, query, depth), work_.score);
    if (waits_ || Parts == 2) return;
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
  Vec weigh(std::int64_t j, int v, Vec shift) {
    const float* from = work_.score + j * kLaneGroup + v * Vec::kWidth;
    const Vec minus_shift = zero() - shift;
    const Vec even = exp2(fma(load(from), late_factor_[v], minus_shift));
    const Vec odd = exp2(fma(load(from + kLaneGroup), late_factor_[v], minus_shift));
    const SplitPairs<Parts> pairs(even, odd);
    const std::int64_t to = j / 2 * kPairLanes + v * 2 * Vec::kWidth;
    store_pairs(reinterpret_cast<std::uint16_t*>(work_.score) + to, pairs.part[0]);
    if (Parts == 2) store_pairs(work_.low_weight + to, pairs.part[Parts - 1]);
    return even + odd;
  }

  template <int Vectors>
  void add(const LaneGroup& group, const Tile& tile, KeyRange keys, const Rescaling<Vectors>& old,
           float* output) {
    const KeyRange all = multiplied(keys);
    const std::int64_t rows = output_rows(block_.value_dim);
    if (old.any) scale_output(rows, old.alpha, output);
    const auto* weights = reinterpret_cast<const std::uint16_t*>(work_.score);
    PairOperand value = tile.value;
    value.data += offset_of(tile, all);
    const PairOperand weight{weights, work_.low_weight - weights};
    const auto product = product_of<Parts>(value, key_block_, weight, all.count());
    if constexpr (PairWorkspace<Parts>::kProductApart) {
      multiply_pairs<false, Vectors>(rows, product, work_.product);
      add_rows<Vectors>(rows, work_.product, output);
    } else {
      multiply_pairs<true, Vectors>(rows, product, output);
    }
    if (!tile.special) return;
    add_special_values<Parts>(block_, group, keys, all.begin, weights, work_.low_weight, output);
  }

 private:
  static std::int64_t offset_of(const Tile& tile, KeyRange all) {
    return all.begin - whole_steps(tile.keys).begin;
  }

  const AttendBlock& block_;
  const std::int64_t key_block_;
  Areas areas_;
  PairWorkspace<Parts> work_;
  const PairUnit unit_;
  const float factor_;
  const bool waits_;
  Vec late_factor_[kTileVectors];  // what scores are multiplied by in the exponent
};

}  // namespace
}  // namespace numattn
