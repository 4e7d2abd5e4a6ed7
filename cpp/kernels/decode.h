// Attention of few query rows over many keys: the head dimension lies in lanes, keys and values are
// streamed once for all rows of their head. Same definition and same state as attend.h, row by row:
//
//   score[row][key] = Σ_d query[row][d] · key[key][d],   output[row][d] = Σ_key weight[row][key] ·
//   value[key][d]
//
// Scores lie with keys contiguous, so masks and biases are read along their own rows.
#pragma once

#include "attend.h"

namespace numattn {
namespace {

constexpr int kDecodeRows = 8;

// Memory is the limit here, so it must never idle: while a tile's keys are multiplied its values
// are fetched, and while its values are added the next tile's keys.
struct FetchedRows {
  const char* data;
  std::int64_t stride;
  std::int64_t bytes;  // of a row; 0 where its elements lie apart
};

inline FetchedRows rows_to_fetch(const Matrix& matrix, std::int64_t first, std::int64_t width) {
  const std::int64_t item = dtype_size(matrix.dtype);
  return {matrix.data + first * matrix.row_stride, matrix.row_stride,
          matrix.column_stride == item ? width * item : 0};
}

// Keys whose products with `Rows` rows are accumulated side by side: enough independent chains to
// hide the latency of a fused multiply-add (4 cycles, up to 2 a cycle), few enough to stay in
// registers.
constexpr int keys_abreast(int rows) { return rows == 1 ? 8 : rows == 2 ? 4 : rows <= 4 ? 2 : 1; }

template <int Rows, int Keys, class Element>
inline void score_keys(const float* query, std::int64_t query_stride, const Element* key,
                       std::int64_t key_stride, std::int64_t head_dim, float* scores,
                       std::int64_t score_stride) {
  Vec sums[Keys][Rows];
#pragma GCC unroll 8
  for (int j = 0; j < Keys; ++j) {
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r) sums[j][r] = zero();
  }
  const auto add = [&](std::int64_t d, const auto& read) {
    Vec left[Keys];
#pragma GCC unroll 8
    for (int j = 0; j < Keys; ++j) left[j] = read(key + j * key_stride + d);
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r) {
      const Vec right = read(query + r * query_stride + d);
#pragma GCC unroll 8
      for (int j = 0; j < Keys; ++j) sums[j][r] = fma(left[j], right, sums[j][r]);
    }
  };
  std::int64_t d = 0;
  for (; d + Vec::kWidth <= head_dim; d += Vec::kWidth) {
    add(d, [](const auto* from) { return load(from); });
  }
  if (d < head_dim) {
    const int count = static_cast<int>(head_dim - d);
    add(d, [count](const auto* from) { return load_partial(from, count); });
  }
  static_assert(Keys * Rows <= 8, "more sums than are reduced at once");
  Vec all[8];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) all[i] = i < Keys * Rows ? sums[i / Rows % Keys][i % Rows] : zero();
  float totals[8];
  reduce_add(all, totals);
#pragma GCC unroll 8
  for (int i = 0; i < Keys * Rows; ++i) {
    scores[i % Rows * score_stride + i / Rows] = totals[i];
  }
}

template <int Rows, class Element>
inline void score_rows(const float* query, std::int64_t query_stride, ElementRows<Element> key,
                       std::int64_t key_count, std::int64_t head_dim, FetchedRows ahead,
                       float* scores, std::int64_t score_stride) {
  constexpr int kKeys = keys_abreast(Rows);
  std::int64_t j = 0;
  for (; j + kKeys <= key_count; j += kKeys) {
    for (int i = 0; i < kKeys; ++i) fetch_bytes(ahead.data + (j + i) * ahead.stride, ahead.bytes);
    score_keys<Rows, kKeys>(query, query_stride, key.data + j * key.stride, key.stride, head_dim,
                            scores + j, score_stride);
  }
  for (; j < key_count; ++j) {
    score_keys<Rows, 1>(query, query_stride, key.data + j * key.stride, key.stride, head_dim,
                        scores + j, score_stride);
  }
}

// One row's raw scores become logits in place: the steps of score_tile(), keys in lanes.
inline void finish_scores(const QueryRow& row, const ScoreRules& rules, KeyTile keys,
                          float* scores) {
  const Vec excluded = broadcast(-kInfinity);
  const Vec cap = broadcast(rules.softcap * kLog2E);
  const Vec slope = broadcast(row.alibi_slope * -kLog2E);
  float ramp[Vec::kWidth];
  for (int i = 0; i < Vec::kWidth; ++i) ramp[i] = static_cast<float>(i);
  const auto limited = [&keys](std::int64_t key) {
    const std::int64_t relative = key - keys.begin;
    return broadcast(static_cast<float>(relative < 0            ? 0
                                        : relative > keys.count ? keys.count
                                                                : relative));
  };
  const Vec begin = limited(row.key_begin);
  const Vec end = limited(row.key_end);
  const Vec position = broadcast(relative_position(row.position, keys.begin));
  for (std::int64_t j = 0; j < keys.count; j += Vec::kWidth) {
    const int count = lanes_left(j, keys.count);
    const Vec key = load(ramp) + broadcast(static_cast<float>(j));
    Vec score = load(scores + j);
    if (rules.softcap > 0.0f) score = softcapped(score, cap);
    if (row.bias != nullptr) {
      const char* from = row.bias + (keys.begin + j) * rules.bias_key_stride;
      const Vec bias = read_elements(from, rules.bias_dtype, rules.bias_key_stride, count);
      score = biased(score, bias);
    }
    if (rules.alibi) score = with_alibi(score, slope, position - key);
    if (row.mask != nullptr) {
      const char* from = row.mask + (keys.begin + j) * rules.mask_key_stride;
      const Vec allowed = read_elements(from, DType::kBool, rules.mask_key_stride, count);
      score = masked(score, allowed);
    }
    store(scores + j, select(less_equal(begin, key) & less(key, end), score, excluded));
  }
}

// The row's scores become weights; its peak and sum move on; returns the old state's factor α.
inline float update_row(std::int64_t key_count, float* scores, float* peak, float* sum) {
  Vec peaks = broadcast(*peak);
  for (std::int64_t j = 0; j < key_count; j += Vec::kWidth) peaks = max(load(scores + j), peaks);
  const float top = reduce_max(peaks);
  const float shift = top == -kInfinity ? 0.0f : top;
  Vec total = zero();
  for (std::int64_t j = 0; j < key_count; j += Vec::kWidth) {
    const Vec weight = exp2(load(scores + j) - broadcast(shift));
    store(scores + j, weight);
    total = total + weight;
  }
  float alpha[Vec::kWidth];
  store(alpha, exp2(broadcast(*peak - shift)));
  *peak = top;
  *sum = *sum * alpha[0] + reduce_add(total);
  return alpha[0];
}

// output[r][d] = alpha[r] · output[r][d] + Σ_j weights[r][j] · value[j][d]
template <int Vectors, class Element>
inline void add_value_rows(const AttendBlock& block, ElementRows<Element> value,
                           std::int64_t key_count, FetchedRows next_keys, const float* weights,
                           std::int64_t weight_stride, const float* alpha, float* output,
                           std::int64_t output_stride) {
  constexpr int kColumns = Vectors * Vec::kWidth;
  constexpr int kBytes = kColumns * static_cast<int>(sizeof(Element));
  constexpr int kLines = kBytes < kLineBytes ? 1 : kBytes / kLineBytes;
  const auto finish_at = [&](std::int64_t d) {
    return [=](int r, int v, Vec sum) {
      float* at = output + r * output_stride + d + v * Vec::kWidth;
      store(at, fma(load(at), broadcast(alpha[r]), sum));
    };
  };
  std::int64_t d = 0;
  for (; d + kColumns <= block.value_dim; d += kColumns) {
    const Ahead<kLines> ahead{next_keys.data + d * static_cast<std::int64_t>(sizeof(Element)),
                              next_keys.stride};
    multiply_rows<Vectors>(
        block.row_count,
        TileOperands<Element>{key_count, weights, weight_stride, 1, value.data + d, value.stride},
        finish_at(d), Vec::kWidth, ahead);
  }
  for (; d < block.value_dim; d += Vec::kWidth) {
    multiply_rows<1, true>(
        block.row_count,
        TileOperands<Element>{key_count, weights, weight_stride, 1, value.data + d, value.stride},
        finish_at(d), lanes_left(d, block.value_dim));
  }
}

// The same where a value is infinite or NaN and not every row sees every key: see attend.h.
template <class Element>
inline void add_visible_value_rows(const AttendBlock& block, KeyTile keys,
                                   ElementRows<Element> value, const float* weights,
                                   std::int64_t weight_stride, const float* alpha, float* output,
                                   std::int64_t output_stride) {
  for (int r = 0; r < block.row_count; ++r) {
    const QueryRow& row = block.rows[r];
    for (std::int64_t d = 0; d < block.value_dim; ++d) {
      float sum = 0.0f;
      for (std::int64_t j = 0; j < keys.count; ++j) {
        const std::int64_t key = keys.begin + j;
        if (key < row.key_begin || key >= row.key_end) continue;
        sum += weights[r * weight_stride + j] * to_float(value.data[j * value.stride + d]);
      }
      float* at = output + r * output_stride + d;
      *at = *at * alpha[r] + sum;
    }
  }
}

// value_rows() gives the tile's values when they are wanted: a copy of them may replace the keys in
// the cache only then.
template <class Element, class ValueRows>
inline void decode_tile(const AttendBlock& block, KeyTile keys, ElementRows<Element> key,
                        const ValueRows& value_rows, bool all_visible, const TileFacts& facts,
                        const Workspace& work) {
  const std::int64_t query_stride = padded_floats(block.head_dim);
  const std::int64_t output_stride = padded_floats(block.value_dim);
  const std::int64_t score_stride = padded_floats(facts.key_block);
  const FetchedRows values = rows_to_fetch(block.value, keys.begin, block.value_dim);
  with_count(block.row_count, [&](auto rows) {
    score_rows<decltype(rows)::value>(work.query, query_stride, key, keys.count, block.head_dim,
                                      values, work.score, score_stride);
  });
  float alpha[kDecodeRows];
  for (int r = 0; r < block.row_count; ++r) {
    float* scores = work.score + r * score_stride;
    finish_scores(block.rows[r], block.rules, keys, scores);
    alpha[r] = update_row(keys.count, scores, work.peak + r, work.sum + r);
  }
  const ElementRows<Element> value = value_rows();
  if (!all_visible && has_nonfinite(value, keys.count, block.value_dim)) {
    add_visible_value_rows(block, keys, value, work.score, score_stride, alpha, work.output,
                           output_stride);
    return;
  }
  const FetchedRows next = rows_to_fetch(block.key, keys.begin + keys.count, block.head_dim);
  if (block.row_count <= 4) {
    add_value_rows<4>(block, value, keys.count, next, work.score, score_stride, alpha, work.output,
                      output_stride);
  } else {
    add_value_rows<2>(block, value, keys.count, next, work.score, score_stride, alpha, work.output,
                      output_stride);
  }
}

inline void begin_decode(const AttendBlock& block, const Workspace& work) {
  const std::int64_t query_stride = padded_floats(block.head_dim);
  const std::int64_t output_stride = padded_floats(block.value_dim);
  const Vec factor = broadcast(block.rules.scale * kLog2E);
  for (int r = 0; r < block.row_count; ++r) {
    float* query = work.query + r * query_stride;
    with_reader(block.query_dtype, block.query_column_stride, [&](const auto& read) {
      copy_row(block.rows[r].query, block.query_column_stride, block.head_dim, read, query);
    });
    for (std::int64_t d = 0; d < block.head_dim; d += Vec::kWidth) {
      const int count = lanes_left(d, block.head_dim);
      store_partial(query + d, load_partial(query + d, count) * factor, count);
    }
    for (std::int64_t d = 0; d < output_stride; d += Vec::kWidth) {
      store(work.output + r * output_stride + d, zero());
    }
    work.peak[r] = -kInfinity;
    work.sum[r] = 0.0f;
  }
}

inline void end_decode(const AttendBlock& block, const Workspace& work) {
  const std::int64_t output_stride = padded_floats(block.value_dim);
  const std::int64_t item = dtype_size(block.output_dtype);
  for (int r = 0; r < block.row_count; ++r) {
    const QueryRow& row = block.rows[r];
    const float* output = work.output + r * output_stride;
    const bool partial = block.partial != nullptr;
    const RowResult result = finish_row(work.peak[r], work.sum[r], row.sink, row.lse != nullptr);
    const float factor = partial ? 1.0f : result.factor;
    const bool seen = work.sum[r] != 0.0f;
    for (std::int64_t d = 0; d < block.value_dim; d += Vec::kWidth) {
      const int count = lanes_left(d, block.value_dim);
      const Vec values = seen ? load(output + d) * broadcast(factor) : zero();
      if (partial) {
        store_partial(block.partial->output + r * block.value_dim + d, values, count);
      } else {
        write_elements(row.output + d * item, block.output_dtype, values, count);
      }
    }
    if (partial) {
      block.partial->peak[r] = work.peak[r];
      block.partial->sum[r] = work.sum[r];
    } else if (row.lse != nullptr) {
      *row.lse = result.lse;
    }
  }
}

// Tiles whose keys and values lie as rows of Element are read in place, others as float32 copies.
template <class Element>
inline void decode_element_tile(const AttendBlock& block, KeyTile keys, bool all_visible,
                                const TileFacts& facts, const Workspace& work) {
  const auto value_rows = [&] { return rows_in_place<Element>(block.value, keys.begin); };
  decode_tile(block, keys, rows_in_place<Element>(block.key, keys.begin), value_rows, all_visible,
              facts, work);
}

inline void decode_copied_tile(const AttendBlock& block, KeyTile keys, bool all_visible,
                               const TileFacts& facts, const Workspace& work) {
  const auto value_rows = [&] {
    return float_rows(block.value, keys.begin, keys.count, block.value_dim, work.value);
  };
  const FloatRows key = float_rows(block.key, keys.begin, keys.count, block.head_dim, work.key);
  decode_tile(block, keys, key, value_rows, all_visible, facts, work);
}

template <class Element>
inline bool reads_elements(const AttendBlock& block, DType dtype) {
  return lies_in_rows<Element>(block.key, dtype) && lies_in_rows<Element>(block.value, dtype);
}

inline void decode(const AttendBlock& block, const TileFacts& facts) {
  const Workspace work = workspace_of(block, facts, kDecodeRows, block.value_dim);
  if (block.begin) begin_decode(block, work);
  const auto decode_one =
      reads_elements<BFloat16>(block, DType::kBFloat16) ? decode_element_tile<BFloat16>
      : reads_elements<Float16>(block, DType::kFloat16) ? decode_element_tile<Float16>
                                                        : decode_copied_tile;
  const LaneGroup rows = lane_group(block.rows, block.row_count, work.query);
  const std::int64_t begin = rows.span_begin > block.key_begin ? rows.span_begin : block.key_begin;
  const std::int64_t end = rows.span_end < block.key_end ? rows.span_end : block.key_end;
  for (std::int64_t j = begin; j < end;) {
    const std::int64_t tile_end = key_tile_end(j, end, facts);
    const KeyTile keys{j, tile_end - j};
    decode_one(block, keys, wholly_visible(rows, keys), facts, work);
    j = tile_end;
  }
  if (block.end) end_decode(block, work);
}

}  // namespace
}  // namespace numattn
