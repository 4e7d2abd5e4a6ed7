// Attention over arrays: check → run, with a plan to look at.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "numattn/score.h"
#include "numattn/small_array.h"
#include "numattn/view.h"

namespace numattn {

// A wrong element type; every other bad argument is a std::invalid_argument.
struct DTypeError : std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};

enum class Layout { kBhsd, kBshd };

// kHigh allows float32 products as three products of bfloat16 where that is faster: each factor is
// split into two bfloat16, and the product of the two low parts is left out.
enum class Precision { kHighest, kHigh };

// Which pages of a pool hold the tokens of one batch entry. The views of keys, values and scales
// are then those of page 0, and their pages lie so many bytes apart.
struct PageTable {
  const std::int64_t* pages = nullptr;  // token j is in page pages[j / page_rows]; null: no pages
  std::int64_t page_rows = 0;
  std::int64_t key_stride = 0, value_stride = 0, key_scale_stride = 0, value_scale_stride = 0;
};

// Arguments as the caller gave them; data == nullptr or size == 0 is "not given".
struct AttentionParams {
  View q, k, v;
  std::optional<View> k_scale, v_scale;  // of int8 keys and values: without their last axis
  PageTable pages;
  ScoreParams score;
  Layout layout = Layout::kBhsd;
  Precision precision = Precision::kHighest;
  int num_threads = 0;  // 0 is no limit
};

// A checked call in canonical form: rank 4, (batch, head, position, element), broadcast strides 0.
struct AttentionProblem {
  AttentionParams params;
  std::int64_t batch, query_heads, kv_heads, queries, keys, head_dim, value_dim;
  float scale;
  std::array<std::int64_t, 4> output_shape;  // in the caller's layout and rank
  int rank;

  // Heads whose rows are computed together: key heads, of which all query heads read the keys; or
  // query heads, so that neighbouring rows are neighbours in position.
  std::int64_t row_heads() const { return params.score.relative ? query_heads : kv_heads; }
};

// What a call does and takes; na.plan.
struct AttentionReport {
  const char* kernel;
  const char* isa;
  std::int64_t query_block;
  std::int64_t key_block;
  std::int64_t split_keys;
  bool is_split;
  std::int64_t work_items;
  int threads;
  std::int64_t scratch_bytes;
  double flops;
};

// "bhsd" or "bshd"; std::invalid_argument for any other name.
Layout parse_layout(const std::string& name);

// "highest" or "high"; std::invalid_argument for any other name.
Precision parse_precision(const std::string& name);

// A C-contiguous array of that shape without memory: enough for a report.
View contiguous_view(const std::vector<std::int64_t>& shape, DType dtype, const char* name);

// Returning true stops a running call.
using Interrupt = bool (*)();

// Throws DTypeError or std::invalid_argument that name the argument and what it is. v without data
// and rank 0 is allowed for weights, which need none.
AttentionProblem check_attention(const AttentionParams& params);
void check_attention_output(const AttentionProblem& problem, const View& output);

// A problem and where its results go.
struct AttentionPart {
  const AttentionProblem* problem;
  View output;  // in the problem's layout and rank
  float* lse;   // null when not wanted; element (batch, head, query) lies at
                // lse + batch · lse_batch_stride + head · lse_head_stride + query
  std::int64_t lse_batch_stride, lse_head_stride;
};

// Computes all parts with the same threads. False: interrupted, and the outputs are unspecified.
// Throws std::bad_alloc before anything is written.
bool run_attention(const AttentionPart* parts, std::int64_t part_count, int num_threads,
                   Interrupt interrupt);

// Attention of sequences that lie one after the other: sequence i has the queries [query_starts[i],
// query_starts[i + 1]) of q (total, heads, head_dim), and likewise its keys and values.
struct RaggedParams {
  AttentionParams shared;  // q, k, v of rank 3 in layout bshd; no mask, bias or lengths
  IntArray query_starts, key_starts;
};

// The parts' problems, checked: one per sequence. Throws as check_attention().
std::vector<AttentionProblem> check_ragged(const RaggedParams& params);
void check_ragged_output(const RaggedParams& params, const View& output);

// Attention over keys and values in pages: k and v of `shared` are the pools (pages, page rows,
// heads, width), their scales likewise; its kv_lens says how many tokens each entry has.
struct PagedParams {
  AttentionParams shared;
  IntArray block_table;  // (batch, table_columns)
  std::int64_t table_rows, table_columns;
};

// The parts' problems, checked: one per batch entry. Throws as check_attention().
std::vector<AttentionProblem> check_paged(const PagedParams& params);
void check_paged_output(const PagedParams& params, const View& output);

// The shape of the weights of `row_count` query rows: (batch, query_heads, row_count, keys).
std::array<std::int64_t, 4> weights_shape(const AttentionProblem& problem, std::int64_t row_count);

// Weights of the rows named, each in [0, queries), or of all: contiguous float32 of
// weights_shape().
bool run_attention_weights(const AttentionProblem& problem, const std::optional<IntArray>& rows,
                           float* weights, Interrupt interrupt);

AttentionReport report_attention(const AttentionProblem& problem);

}  // namespace numattn
