// Attention over keys and values in pages.
#include <algorithm>
#include <string>

#include "check.h"
#include "layout.h"

namespace numattn {
namespace {

constexpr TokenNames kNames{"k_pages", "v_pages"};

void check_pools(const AttentionParams& shared) {
  const View& k = shared.k.data;
  const View& v = shared.v.data;
  check_rank(shared.q, "q", 4, shared.layout == Layout::kBhsd ? "(B, H, S, D)" : "(B, S, H, D)");
  check_rank(k, kNames.k, 4, "(P, page, Hkv, D)");
  check_rank(v, kNames.v, 4, "(P, page, Hkv, Dv)");
  check_operands(shared, kNames);
  if (!std::equal(k.shape.begin(), k.shape.begin() + 3, v.shape.begin())) {
    refuse("k_pages and v_pages must have the same pages, rows and heads, not shapes ",
           shape_text(k), " and ", shape_text(v));
  }
  if (k.shape[1] < 1) {
    refuse("a page must have at least one row: k_pages has shape ", shape_text(k));
  }
}

// The pages that each entry's tokens take.
void check_table(const PagedParams& params, const AttentionProblem& whole,
                 const IntArray& lengths) {
  for (std::int64_t b = 0; b < whole.batch; ++b) {
    const std::int64_t length = lengths.data[b];
    const std::int64_t used = length / whole.page_rows + (length % whole.page_rows != 0);
    for (std::int64_t i = 0; i < used; ++i) {
      const std::int64_t page = params.table.pages[b * params.table.columns + i];
      const std::int64_t count = params.shared.k.data.shape[0];
      if (page >= 0 && page < count) continue;
      refuse("block_table[", number(b), ", ", number(i), "] = ", number(page),
             " is no page: there are ", number(count));
    }
  }
}

}  // namespace

AttentionCall check_paged(const PagedParams& params) {
  const AttentionParams& shared = params.shared;
  check_pools(shared);
  AttentionCall call{};
  call.parts = Parts::kPagedEntries;
  call.table = params.table;
  call.layout = shared.layout;
  call.num_threads = shared.num_threads;
  AttentionProblem& whole = call.whole;
  whole.precision = shared.precision;
  whole.page_rows = shared.k.data.shape[1];
  const std::int64_t room = checked_product(params.table.columns, whole.page_rows, "block_table");
  whole.q = in_bhsd(shared.q, shared.layout);
  const std::int64_t keys = std::min(params.keys.value_or(room), room);
  whole.k = pages_in_bhsd(shared.k, keys);
  whole.v = pages_in_bhsd(shared.v, keys);
  take_lengths(call, shared, kNames);
  call.part_count = whole.batch;
  if (params.table.rows != whole.batch) {
    refuse("block_table must have one row per batch entry (", number(whole.batch), "), not ",
           number(params.table.rows));
  }
  if (!shared.score.kv_lens) refuse("kv_lens must say how many tokens each batch entry has");
  ScoreParams score = shared.score;
  score.kv_lens = copied(*shared.score.kv_lens, call.token_counts);
  whole.score = check_score(
      score, params.keys ? ScoreFit{whole, whole.batch, "batch entry", "the number of keys", "Sk"}
                         : ScoreFit{whole, whole.batch, "batch entry",
                                    "the number of tokens in its pages", "n · page"});
  whole.score.kv_lens = {};  // each part's number of keys
  check_table(params, whole, *score.kv_lens);
  check_output_size(whole);
  return call;
}

}  // namespace numattn
