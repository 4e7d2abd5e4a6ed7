#include "attention_operands.h"

#include <cmath>
#include <cstdlib>
#include <initializer_list>

namespace numattn {
namespace {

// The (position, element) matrix of one batch entry and head.
Matrix matrix_of(const View& view, std::int64_t batch, std::int64_t head) {
  const char* data =
      static_cast<const char*>(view.data) + batch * view.strides[0] + head * view.strides[1];
  return {data, view.dtype, view.strides[2], view.strides[3]};
}

const char* element(const View& view, std::int64_t batch, std::int64_t head, std::int64_t query) {
  return static_cast<const char*>(view.data) + batch * view.strides[0] + head * view.strides[1] +
         query * view.strides[2];
}

// Whether the kernel reads every head's tokens where they lie (all heads share strides and
// alignment of the first one only if the outer strides keep it).
bool in_place(const StoredTokens& tokens, const AttentionProblem& problem) {
  if (tokens.data.strides[0] % 4 != 0 || tokens.data.strides[1] % 4 != 0) return false;
  return reads_in_place(rows_of(tokens, problem, 0, 0));
}

void keep(QueryRow& row, KeyRange keys) {
  for (KeyRange* part : {&row.span, &row.head}) {
    const KeyRange kept = part->both(keys);
    *part = kept.empty() ? KeyRange{0, 0} : kept;
  }
}

void list_blocks(const RowBlocks& mask, std::int64_t batch, std::int64_t head, std::int64_t query,
                 QueryRow& row) {
  static_assert(sizeof(ListedBlock) == 2 * sizeof(std::int32_t), "entries are pairs");
  const std::int64_t* start = mask.lists.starts + mask.place(batch, head, query / kMaskBlock);
  row.block_count = start[1] - start[0];
  if (row.block_count == 0) {
    keep(row, {0, 0});
    return;
  }
  row.blocks = reinterpret_cast<const ListedBlock*>(mask.lists.entries) + start[0];
  row.words = mask.lists.words + query % kMaskBlock;
  keep(row,
       {row.blocks[0].key * kMaskBlock, (row.blocks[row.block_count - 1].key + 1) * kMaskBlock});
}

}  // namespace

AttentionShape shape_of(const AttentionProblem& problem) {
  return {problem.batch, problem.query_heads, problem.row_heads(), problem.queries,
          problem.keys,  problem.head_dim,    problem.value_dim};
}

TokenRows rows_of(const StoredTokens& tokens, const AttentionProblem& problem, std::int64_t batch,
                  std::int64_t kv_head) {
  TokenRows rows{};
  rows.matrix = matrix_of(tokens.data, batch, kv_head);
  rows.pages = problem.pages;
  rows.page_rows = problem.page_rows;
  rows.page_stride = tokens.page_stride;
  if (tokens.scale) {
    const Matrix scales = matrix_of(*tokens.scale, batch, kv_head);
    rows.scales = scales.data;
    rows.scale_row_stride = scales.row_stride;
    rows.scale_page_stride = tokens.scale_page_stride;
  }
  rows.wide_count = tokens.wide.count;
  rows.wide_channels = tokens.wide.channels.data + kv_head * tokens.wide.count;
  return rows;
}

PlanNeeds needs_of(const AttentionProblem& problem) {
  // Not kept: to join heads also where pages have theirs apart, as PagedKVCache does. As fast in
  // float32, up to 14 % slower in bfloat16 (Zen 4).
  const auto heads_inside = [](const StoredTokens& tokens) {
    return std::abs(tokens.data.strides[1]) < std::abs(tokens.data.strides[2]);
  };
  return {{problem.score.mask.has_value(), problem.score.bias.has_value(),
           !in_place(problem.k, problem), !in_place(problem.v, problem),
           problem.score.relative.has_value(), problem.k.wide.count},
          problem.score.block_mask.lists.starts != nullptr,
          heads_inside(problem.k) && heads_inside(problem.v)};
}

AttentionPlan plan_of(const Kernels& kernels, const AttentionProblem& problem) {
  const DType dtype = problem.k.data.dtype;
  const AttendKernel& attend = problem.score.relative      ? kernels.attend
                               : dtype == DType::kBFloat16 ? kernels.attend_bfloat16
                               : problem.precision == Precision::kHigh && dtype == DType::kFloat32
                                   ? kernels.attend_high
                                   : kernels.attend;
  return plan_attention(attend, kernels.decode, shape_of(problem), needs_of(problem));
}

ScoreRules rules_of(const Score& score) {
  return {score.scale,
          score.softcap,
          score.skip_level,
          score.alibi_slopes.data != nullptr,
          score.bias ? score.bias->dtype : DType::kFloat32,
          score.mask ? score.mask->strides[3] : 0,
          score.bias ? score.bias->strides[3] : 0};
}

void RowMaker::make(std::int64_t batch, std::int64_t head, std::int64_t query,
                    QueryRow& row) const {
  const Score& score = problem_.score;
  // Field by field: a whole row of zeros GCC writes by an instruction that takes as long as the
  // rest.
  row.query = element(problem_.q, batch, head, query);
  row.output = nullptr;
  row.lse = nullptr;
  row.mask = score.mask ? element(*score.mask, batch, head, query) : nullptr;
  row.bias = score.bias ? element(*score.bias, batch, head, query) : nullptr;
  row.blocks = nullptr;
  row.block_count = 0;
  row.words = nullptr;
  const std::int64_t* offset = score.q_offset.of(batch);
  row.position = saturating_add(offset == nullptr ? 0 : *offset, query);
  const std::int64_t* length = score.kv_lens.of(batch);
  const std::int64_t key_count = length == nullptr ? problem_.keys : *length;
  row.span = key_span(score.spans, row.position, key_count);
  row.head = key_head(score.spans, row.position, key_count);
  if (score.key_spans.begin != nullptr) {
    const std::int64_t at = score.key_spans.place(batch, head, query);
    keep(row, {score.key_spans.begin[at], score.key_spans.end[at]});
  }
  if (score.block_mask.lists.starts != nullptr)
    list_blocks(score.block_mask, batch, head, query, row);
  const float* slopes = score.alibi_slopes.of(batch);
  row.alibi_slope = slopes == nullptr ? 0.0f : slopes[head];
  row.sink = score.sinks == nullptr ? -INFINITY : score.sinks[head];
}

}  // namespace numattn
