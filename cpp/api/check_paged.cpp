// Attention over keys and values in pages: checks, and one problem for each batch entry.
#include <algorithm>
#include <string>

#include "check.h"
#include "check_view.h"
#include "numattn/attention.h"

namespace numattn {
namespace {

void check_pools(const AttentionParams& shared) {
  const View& q = shared.q;
  const View& k = shared.k;
  const View& v = shared.v;
  check_rank(q, "q", 4, shared.layout == Layout::kBhsd ? "(B, H, S, D)" : "(B, S, H, D)");
  check_rank(k, "k_pages", 4, "(P, page, Hkv, D)");
  check_rank(v, "v_pages", 4, "(P, page, Hkv, Dv)");
  check_bytes(k, "k_pages");
  check_bytes(v, "v_pages");
  if (!std::equal(k.shape.begin(), k.shape.begin() + 3, v.shape.begin())) {
    refuse("k_pages and v_pages must have the same pages, rows and heads, not shapes ",
           shape_text(k), " and ", shape_text(v));
  }
  if (k.shape[1] < 1) {
    refuse("a page must have at least one row: k_pages has shape ", shape_text(k));
  }
  check_scales(shared);
}

void check_table(const PagedParams& params) {
  const AttentionParams& shared = params.shared;
  const std::int64_t batch = shared.q.shape[0];
  if (params.table_rows != batch) {
    refuse("block_table must have one row per batch entry (", number(batch), "), not ",
           number(params.table_rows));
  }
  const IntArray& lengths = *shared.score.kv_lens;
  if (lengths.size != batch) {
    refuse("kv_lens must have one length per batch entry (", number(batch), "), not ",
           number(lengths.size));
  }
  const std::int64_t page_rows = shared.k.shape[1];
  const std::int64_t room = checked_product(params.table_columns, page_rows, "block_table");
  for (std::int64_t b = 0; b < batch; ++b) {
    const std::int64_t length = lengths.data[b];
    if (length < 0 || length > room) {
      refuse("kv_lens[", number(b), "] = ", number(length), " is not between 0 and the ",
             number(room), " tokens that ", number(params.table_columns), " pages of ",
             number(page_rows), " hold");
    }
    const std::int64_t used = length / page_rows + (length % page_rows != 0);
    for (std::int64_t i = 0; i < used; ++i) {
      const std::int64_t page = params.block_table.data[b * params.table_columns + i];
      if (page >= 0 && page < shared.k.shape[0]) continue;
      refuse("block_table[", number(b), ", ", number(i), "] = ", number(page),
             " is no page: there are ", number(shared.k.shape[0]));
    }
  }
}

// Per-entry arguments must fit the whole call, before they are cut.
void check_per_entry(const AttentionParams& shared) {
  const std::int64_t batch = shared.q.shape[0];
  if (shared.score.q_offset.size > 1 && shared.score.q_offset.size != batch) {
    refuse("q_offset must be one number or have one per batch entry (", number(batch), "), not ",
           number(shared.score.q_offset.size));
  }
  const auto& slopes = shared.score.alibi_slopes;
  if (slopes && slopes->rank == 2 && slopes->shape[0] != batch) {
    refuse("alibi_slopes must have shape (Hq,) or (B, Hq) with B = ", number(batch), ", not (",
           number(slopes->shape[0]), ", ", number(slopes->shape[1]), ")");
  }
}

View entry_of(const View& view, std::int64_t batch) {
  View entry = view;
  entry.data = static_cast<char*>(view.data) + batch * view.strides[0];
  entry.shape[0] = 1;
  return entry;
}

// A pool as the keys of one entry: the rows of page 0 stand for all, (1, length, heads, width) in
// the layout of q. Scales are one axis shorter.
View tokens_of(const View& pool, std::int64_t length, Layout layout) {
  View tokens = pool;
  tokens.shape[0] = 1;
  tokens.shape[1] = length;
  tokens.strides[0] = 0;
  if (layout == Layout::kBhsd) {
    std::swap(tokens.shape[1], tokens.shape[2]);
    std::swap(tokens.strides[1], tokens.strides[2]);
  }
  return tokens;
}

// A mask or bias of the whole call, of which the entry sees its own part and its own keys.
View scores_of(const View& view, const char* name, const PagedParams& params, std::int64_t batch,
               std::int64_t length) {
  const View& q = params.shared.q;
  const std::int64_t room = params.table_columns * params.shared.k.shape[1];
  const auto axis_from_end = [&view](int axis) {
    return static_cast<std::size_t>(view.rank - 1 - axis);
  };
  View part = view;
  if (view.rank >= 1 && view.shape[axis_from_end(0)] != 1) {
    if (view.shape[axis_from_end(0)] != room) {
      refuse(name, " of shape ", shape_text(view), " does not broadcast to the ", number(room),
             " tokens that ", number(params.table_columns), " pages of ",
             number(params.shared.k.shape[1]), " hold");
    }
    part.shape[axis_from_end(0)] = length;
  }
  if (view.rank == 4 && view.shape[0] != 1) {
    if (view.shape[0] != q.shape[0]) {
      refuse(name, " of shape ", shape_text(view), " does not broadcast to ", number(q.shape[0]),
             " batch entries");
    }
    part = entry_of(part, batch);
  }
  return part;
}

AttentionProblem problem_of(const PagedParams& params, std::int64_t batch) {
  const AttentionParams& shared = params.shared;
  const std::int64_t length = shared.score.kv_lens->data[batch];
  AttentionParams own = shared;
  own.q = entry_of(shared.q, batch);
  own.k = tokens_of(shared.k, length, shared.layout);
  own.v = tokens_of(shared.v, length, shared.layout);
  own.pages = {params.block_table.data + batch * params.table_columns,
               shared.k.shape[1],
               shared.k.strides[0],
               shared.v.strides[0],
               0,
               0};
  if (shared.k_scale) {
    own.k_scale = tokens_of(*shared.k_scale, length, shared.layout);
    own.v_scale = tokens_of(*shared.v_scale, length, shared.layout);
    own.pages.key_scale_stride = shared.k_scale->strides[0];
    own.pages.value_scale_stride = shared.v_scale->strides[0];
  }
  own.score.kv_lens.reset();
  if (shared.score.q_offset.size > 1) own.score.q_offset = {shared.score.q_offset.data + batch, 1};
  if (own.score.alibi_slopes && own.score.alibi_slopes->rank == 2) {
    const std::int64_t heads = own.score.alibi_slopes->shape[1];
    own.score.alibi_slopes->data += batch * heads;
    own.score.alibi_slopes->rank = 1;
    own.score.alibi_slopes->shape = {heads, 0};
  }
  if (shared.score.mask)
    own.score.mask = scores_of(*shared.score.mask, "mask", params, batch, length);
  if (shared.score.bias)
    own.score.bias = scores_of(*shared.score.bias, "bias", params, batch, length);
  return check_attention(own);
}

}  // namespace

std::vector<AttentionProblem> check_paged(const PagedParams& params) {
  check_pools(params.shared);
  check_table(params);
  check_per_entry(params.shared);
  std::vector<AttentionProblem> problems;
  problems.reserve(static_cast<std::size_t>(params.table_rows));
  for (std::int64_t b = 0; b < params.table_rows; ++b) problems.push_back(problem_of(params, b));
  return problems;
}

void check_paged_output(const PagedParams& params, const View& output) {
  std::array<std::int64_t, 4> shape = params.shared.q.shape;
  shape[3] = params.shared.v.shape[3];
  check_output(output, shape, 4, params.shared.q.dtype, "q");
}

}  // namespace numattn
