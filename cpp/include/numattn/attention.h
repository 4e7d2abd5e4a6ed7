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
#include "numattn/tokens.h"
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

// Arguments as the caller gave them; data == nullptr or size == 0 is "not given".
struct AttentionParams {
  View q;
  StoredTokens k, v;  // scales without the last axis
  ScoreParams score;
  Layout layout = Layout::kBhsd;
  Precision precision = Precision::kHighest;
  int num_threads = 0;  // 0 is no limit
};

// Sequences that lie one after the other: sequence i has the queries [query_starts[i],
// query_starts[i + 1]) of q (total, heads, head_dim), and its keys and values by key_starts.
struct RaggedParams {
  AttentionParams
      shared;  // q, k, v of rank 3 in layout bshd; no array over (query, key) or lengths
  IntArray query_starts, key_starts;
  std::optional<std::vector<BlockLists>> block_masks;  // of each; without starts: has none
};

// Keys and values in pages: k and v of `shared` are the pools (pages, page rows, heads, width),
// their scales (pages, page rows, heads); its kv_lens says how many tokens each entry has.
struct PagedParams {
  AttentionParams shared;
  PageTable table;
  std::optional<std::int64_t> keys;  // that lengths, intervals and masks fit; none: the pages' rows
};

// One problem in canonical form: views of rank 4, (batch, head, position, element).
struct AttentionProblem {
  View q;
  StoredTokens k, v;                    // scales with an element axis of length 1
  const std::int64_t* pages = nullptr;  // token j is in page pages[j / page_rows]; null: no pages
  std::int64_t page_rows = 0;
  Score score;
  Precision precision;
  std::int64_t batch, query_heads, kv_heads, queries, keys, head_dim, value_dim;

  // Heads whose rows are computed together: key heads, of which all query heads read the keys; or
  // query heads, so that neighbouring rows are neighbours in position.
  std::int64_t row_heads() const { return score.relative ? query_heads : kv_heads; }
};

// kEntries: batch entries of which each has a number of keys of its own, where that decides how
// they are split.
enum class Parts { kOne, kSequences, kEntries, kPagedEntries };

// A checked call: one problem, or one for each of its parts, which are sequences or batch entries.
// A part's problem is made when it is computed, since there may be a million of them; what its size
// follows from is a copy, so that no other thread of the caller's can change it meanwhile.
struct AttentionCall {
  AttentionProblem whole;  // the problem; of a call in parts, what they share
  Parts parts = Parts::kOne;
  std::int64_t part_count = 1;
  std::vector<std::int64_t> query_starts, key_starts;  // kSequences: where each begins in `whole`
  std::vector<std::int64_t> token_counts;              // kEntries, kPagedEntries: keys of each
  std::vector<RowBlocks> block_masks;                  // kSequences: of each, if any has one
  PageTable table;                                     // kPagedEntries: the pages of each
  std::vector<std::int64_t> wide_channels;
  Layout layout = Layout::kBhsd;  // of the caller's arrays, as is their rank
  int rank = 4;
  int num_threads = 0;
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

// The watershed: before it everything is a caller's, behind it nothing is. These throw DTypeError
// or std::invalid_argument that name the argument and what it is; what they return fits together,
// and is looked at no more.
AttentionCall check_attention(const AttentionParams& params);
AttentionCall check_ragged(const RaggedParams& params);
AttentionCall check_paged(const PagedParams& params);
// For weights, which need no values: v of the params is not looked at.
AttentionCall check_weights(const AttentionParams& params);

// Shapes of results, in the caller's layout and rank.
std::vector<std::int64_t> output_shape(const AttentionCall& call);
std::vector<std::int64_t> lse_shape(const AttentionCall& call);
// Of the weights of `row_count` query rows; std::invalid_argument where that exceeds 64 bits.
std::vector<std::int64_t> weights_shape(const AttentionCall& call, std::int64_t row_count);

// An output that the caller gave.
void check_attention_output(const AttentionCall& call, const View& output);

// Computes all parts with the same threads; lse contiguous of lse_shape(), null when not wanted.
// False: interrupted, and the outputs are unspecified. Throws std::bad_alloc before anything is
// written.
bool run_attention(const AttentionCall& call, const View& output, float* lse, Interrupt interrupt);

// Weights of the rows named, each in [0, queries), or of all: contiguous float32 of
// weights_shape().
bool run_attention_weights(const AttentionCall& call, const std::optional<IntArray>& rows,
                           float* weights, Interrupt interrupt);

AttentionReport report_attention(const AttentionCall& call);

}  // namespace numattn
