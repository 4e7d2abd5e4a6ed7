// Runs a checked attention call: plan, scratch, one work item per (batch, key head, query block,
// split).
#include "numattn/attention.h"

#include <algorithm>
#include <cmath>

#include "attention_plan.h"
#include "check.h"
#include "numattn/threads.h"
#include "parallel.h"
#include "scratch.h"
#include "select.h"
#include "spans.h"

namespace numattn {
namespace {

AttentionShape shape_of(const AttentionProblem& problem) {
  return {problem.batch, problem.query_heads, problem.kv_heads, problem.queries,
          problem.keys,  problem.head_dim,    problem.value_dim};
}

// The (position, element) matrix of one batch entry and head.
Matrix matrix_of(const View& view, std::int64_t batch, std::int64_t head) {
  const char* data =
      static_cast<const char*>(view.data) + batch * view.strides[0] + head * view.strides[1];
  return {data, view.dtype, view.strides[2], view.strides[3]};
}

// Whether the kernel reads every head's matrix where it lies (all heads share strides and alignment
// of the first one only if the outer strides keep it).
bool in_place(const View& view) {
  if (view.strides[0] % 4 != 0 || view.strides[1] % 4 != 0) return false;
  return reads_in_place(matrix_of(view, 0, 0));
}

TileNeeds needs_of(const AttentionProblem& problem) {
  const AttentionParams& params = problem.params;
  return {params.mask.has_value(), params.bias.has_value(), !in_place(params.k),
          !in_place(params.v)};
}

AttentionPlan plan_of(const Kernels& kernels, const AttentionProblem& problem) {
  const DType dtype = problem.params.q.dtype;
  const AttendKernel& attend =
      dtype == DType::kBFloat16 ? kernels.attend_bfloat16
      : problem.params.precision == Precision::kHigh && dtype == DType::kFloat32
          ? kernels.attend_high
          : kernels.attend;
  return plan_attention(attend, kernels.decode, shape_of(problem), needs_of(problem));
}

ScoreRules rules_of(const AttentionProblem& problem) {
  const AttentionParams& params = problem.params;
  return {problem.scale,
          static_cast<float>(params.softcap.value_or(0.0)),
          params.alibi_slopes.has_value(),
          params.bias ? params.bias->dtype : DType::kFloat32,
          params.mask ? params.mask->strides[3] : 0,
          params.bias ? params.bias->strides[3] : 0};
}

const char* element(const View& view, std::int64_t batch, std::int64_t head, std::int64_t query) {
  return static_cast<const char*>(view.data) + batch * view.strides[0] + head * view.strides[1] +
         query * view.strides[2];
}

// Makes the rows of one query block: row r of a key head is position r / group of its query head
// r % group, so that a block's rows are neighbours in position and their spans overlap.
class RowMaker {
 public:
  RowMaker(const AttentionProblem& problem, const IntArray* picked)
      : problem_(problem), picked_(picked) {
    const AttentionParams& params = problem.params;
    spans_ = {params.is_causal, params.window_left, params.window_right};
  }

  // Calls visit(index, head, query) for rows [first, last) of a key head.
  template <class Visit>
  void each(std::int64_t kv_head, std::int64_t first, std::int64_t last, const Visit& visit) const {
    const std::int64_t group = problem_.query_heads / problem_.kv_heads;
    std::int64_t in_group = first % group;
    std::int64_t row = first / group;
    for (std::int64_t index = first; index < last; ++index) {
      visit(index, kv_head * group + in_group, picked_ == nullptr ? row : picked_->data[row]);
      if (++in_group == group) {
        in_group = 0;
        ++row;
      }
    }
  }

  QueryRow make(std::int64_t batch, std::int64_t head, std::int64_t query) const {
    const AttentionParams& params = problem_.params;
    QueryRow row{};
    row.query = element(params.q, batch, head, query);
    if (params.mask) row.mask = element(*params.mask, batch, head, query);
    if (params.bias) row.bias = element(*params.bias, batch, head, query);
    row.position = saturating_add(offset(batch), query);
    const std::int64_t keys = params.kv_lens ? params.kv_lens->data[batch] : problem_.keys;
    const KeySpan span = key_span(spans_, row.position, keys);
    row.key_begin = span.begin;
    row.key_end = span.end;
    if (const auto& slopes = params.alibi_slopes) {
      row.alibi_slope = slopes->data[(slopes->rank == 2 ? batch * problem_.query_heads : 0) + head];
    }
    row.sink = params.sinks ? params.sinks->data[head] : -INFINITY;
    return row;
  }

 private:
  std::int64_t offset(std::int64_t batch) const {
    const IntArray& offsets = problem_.params.q_offset;
    return offsets.size == 0 ? 0 : offsets.data[offsets.size == 1 ? 0 : batch];
  }

  const AttentionProblem& problem_;
  const IntArray* picked_;
  SpanRules spans_;
};

// Everything a call's work items share.
struct Run {
  const AttentionProblem& problem;
  const Kernels& kernels;
  const AttentionPlan& plan;
  RowMaker rows;
  View output;  // canonical order
  float* lse;   // null when not wanted
  int threads;
  Scratch scratch;
  float* partials;

  char* thread_memory(int thread) const { return scratch.data() + thread * plan.thread_bytes(); }
  QueryRow* thread_rows(int thread) const {
    return reinterpret_cast<QueryRow*>(thread_memory(thread));
  }
  float* thread_workspace(int thread) const {
    return reinterpret_cast<float*>(thread_memory(thread) + plan.thread_bytes() -
                                    plan.workspace_floats * 4);
  }
};

// Where a work item stands.
struct Place {
  std::int64_t batch, kv_head, block, split;
};

// Later blocks first: under a causal mask they are the longest, and should not be left for the end.
Place place_of(const AttentionPlan& plan, std::int64_t kv_heads, std::int64_t index) {
  Place place{};
  place.split = index % plan.splits;
  index /= plan.splits;
  place.block = plan.blocks - 1 - index % plan.blocks;
  index /= plan.blocks;
  place.kv_head = index % kv_heads;
  place.batch = index / kv_heads;
  return place;
}

// Partial states lie split by split: (item of block 0.., split) → rows_per_head rows.
PartialState partial_of(const Run& run, const Place& place) {
  const std::int64_t rows = run.plan.rows_per_head;
  const std::int64_t head = place.batch * run.problem.kv_heads + place.kv_head;
  const std::int64_t at = (head * run.plan.splits + place.split) * rows;
  const std::int64_t total = run.problem.batch * run.problem.kv_heads * run.plan.splits * rows;
  const std::int64_t first = place.block * run.plan.block_rows;
  float* peaks = run.partials + total * run.problem.value_dim;
  return {run.partials + (at + first) * run.problem.value_dim, peaks + at + first,
          peaks + total + at + first};
}

void set_outputs(const Run& run, std::int64_t batch, std::int64_t head, std::int64_t query,
                 QueryRow& row) {
  row.output = static_cast<char*>(run.output.data) + batch * run.output.strides[0] +
               head * run.output.strides[1] + query * run.output.strides[2];
  if (run.lse != nullptr) {
    row.lse = run.lse + (batch * run.problem.query_heads + head) * run.problem.queries + query;
  }
}

AttendBlock block_of(const Run& run, const Place& place, const QueryRow* rows, int row_count,
                     float* workspace) {
  const AttentionParams& params = run.problem.params;
  AttendBlock block{};
  block.rows = rows;
  block.row_count = row_count;
  block.head_dim = run.problem.head_dim;
  block.value_dim = run.problem.value_dim;
  block.query_dtype = params.q.dtype;
  block.query_column_stride = params.q.strides[3];
  block.output_dtype = run.output.dtype;
  block.key = matrix_of(params.k, place.batch, place.kv_head);
  block.value = matrix_of(params.v, place.batch, place.kv_head);
  block.rules = rules_of(run.problem);
  block.workspace = workspace;
  return block;
}

// Visits the item's keys in stretches, between which an interrupt is noticed. visit() computes the
// block's range of keys.
template <class Visit>
void visit_keys(const Run& run, AttendBlock& block, KeySpan keys, Worker& worker,
                const Visit& visit) {
  const std::int64_t stretch = run.plan.visit_keys;
  block.begin = true;
  std::int64_t from = keys.begin;
  do {
    block.key_begin = from;
    block.key_end = std::min(keys.end, (from / stretch + 1) * stretch);
    block.end = block.key_end >= keys.end;
    visit();
    block.begin = false;
    from = block.key_end;
  } while (!block.end && !worker.stopped());
}

void attend_item(const Run& run, std::int64_t index, Worker& worker) {
  const AttentionPlan& plan = run.plan;
  const Place place = place_of(plan, run.problem.kv_heads, index);
  const std::int64_t first = place.block * plan.block_rows;
  const int row_count = static_cast<int>(std::min(plan.block_rows, plan.rows_per_head - first));
  QueryRow* rows = run.thread_rows(worker.index());
  KeySpan keys{INT64_MAX, 0};
  run.rows.each(place.kv_head, first, first + row_count,
                [&](std::int64_t index, std::int64_t head, std::int64_t query) {
                  QueryRow& row = rows[index - first];
                  row = run.rows.make(place.batch, head, query);
                  if (plan.splits == 1) set_outputs(run, place.batch, head, query, row);
                  if (row.key_begin >= row.key_end) return;
                  keys.begin = std::min(keys.begin, row.key_begin);
                  keys.end = std::max(keys.end, row.key_end);
                });
  AttendBlock block = block_of(run, place, rows, row_count, run.thread_workspace(worker.index()));
  block.fetch_ahead = place.block == plan.blocks - 1;
  PartialState partial{};
  if (plan.splits > 1) {
    partial = partial_of(run, place);
    block.partial = &partial;
    keys.begin = std::max(keys.begin, place.split * plan.split_keys);
    keys.end = std::min(keys.end, (place.split + 1) * plan.split_keys);
  }
  if (keys.empty()) keys = {0, 0};
  visit_keys(run, block, keys, worker, [&] { plan.kernel->attend(block); });
}

void combine_row(const Run& run, std::int64_t index, Worker& worker) {
  const AttentionPlan& plan = run.plan;
  const std::int64_t head = index / plan.rows_per_head;
  const std::int64_t in_head = index % plan.rows_per_head;
  const Place place{head / run.problem.kv_heads, head % run.problem.kv_heads,
                    in_head / plan.block_rows, 0};
  QueryRow row{};
  run.rows.each(place.kv_head, in_head, in_head + 1,
                [&](std::int64_t, std::int64_t query_head, std::int64_t query) {
                  row = run.rows.make(place.batch, query_head, query);
                  set_outputs(run, place.batch, query_head, query, row);
                });
  const PartialState partial = partial_of(run, place);
  const std::int64_t within = in_head % plan.block_rows;
  CombineRow combined{};
  combined.outputs = partial.output + within * run.problem.value_dim;
  combined.peaks = partial.peak + within;
  combined.sums = partial.sum + within;
  combined.output_stride = plan.rows_per_head * run.problem.value_dim;
  combined.peak_stride = plan.rows_per_head;
  combined.split_count = static_cast<int>(plan.splits);
  combined.value_dim = run.problem.value_dim;
  combined.output_dtype = run.output.dtype;
  combined.output = row.output;
  combined.lse = row.lse;
  combined.sink = row.sink;
  combined.workspace = run.thread_workspace(worker.index());
  run.kernels.combine(combined);
}

}  // namespace

bool run_attention(const AttentionProblem& problem, const View& output, float* lse,
                   Interrupt interrupt) {
  const Kernels& kernels = current_kernels();
  const AttentionPlan plan = plan_of(kernels, problem);
  if (plan.items == 0) return true;
  const int threads = threads_for(plan.worthwhile_threads(), problem.params.num_threads);
  Run run{problem,
          kernels,
          plan,
          RowMaker(problem, nullptr),
          in_bhsd(output, problem.params.layout),
          lse,
          threads,
          Scratch(plan.scratch_bytes(threads)),
          nullptr};
  run.partials = reinterpret_cast<float*>(run.thread_memory(threads));
  const Outcome outcome =
      parallel_for(plan.items, threads, interrupt,
                   [&run](std::int64_t index, Worker& worker) { attend_item(run, index, worker); });
  if (outcome == Outcome::kInterrupted || plan.splits == 1) return outcome == Outcome::kFinished;
  return parallel_for(problem.batch * problem.kv_heads * plan.rows_per_head, threads, interrupt,
                      [&run](std::int64_t index, Worker& worker) {
                        combine_row(run, index, worker);
                      }) == Outcome::kFinished;
}

bool run_attention_weights(const AttentionProblem& problem, const std::optional<IntArray>& picked,
                           float* weights, Interrupt interrupt) {
  const Kernels& kernels = current_kernels();
  TileNeeds needs = needs_of(problem);
  needs.value_copy = false;
  const std::int64_t row_count = picked ? picked->size : problem.queries;
  const AttentionPlan plan = plan_weights(kernels.attend, shape_of(problem), row_count, needs);
  if (plan.items == 0 || problem.keys == 0) return true;
  const int threads = threads_for(plan.worthwhile_threads(), problem.params.num_threads);
  const Run run{problem, kernels, plan,    RowMaker(problem, picked ? &*picked : nullptr),
                View{},  nullptr, threads, Scratch(plan.scratch_bytes(threads)),
                nullptr};
  const std::int64_t group = problem.query_heads / problem.kv_heads;
  const auto item = [&](std::int64_t index, Worker& worker) {
    const Place place = place_of(plan, problem.kv_heads, index);
    const std::int64_t first = place.block * plan.block_rows;
    const int block_rows = static_cast<int>(std::min(plan.block_rows, plan.rows_per_head - first));
    QueryRow* rows = run.thread_rows(worker.index());
    run.rows.each(place.kv_head, first, first + block_rows,
                  [&](std::int64_t index, std::int64_t head, std::int64_t query) {
                    const std::int64_t row =
                        (place.batch * problem.query_heads + head) * row_count + index / group;
                    rows[index - first] = run.rows.make(place.batch, head, query);
                    rows[index - first].output =
                        reinterpret_cast<char*>(weights + row * problem.keys);
                  });
    WeightsBlock block{block_of(run, place, rows, block_rows, run.thread_workspace(worker.index())),
                       problem.keys};
    visit_keys(run, block.scores, {0, problem.keys}, worker, [&] { kernels.weights(block); });
  };
  return parallel_for(plan.items, threads, interrupt, item) == Outcome::kFinished;
}

AttentionReport report_attention(const AttentionProblem& problem) {
  const Kernels& kernels = current_kernels();
  const AttentionPlan plan = plan_of(kernels, problem);
  const int threads = threads_for(plan.worthwhile_threads(), problem.params.num_threads);
  return {plan.kernel->name, kernels.isa,     std::min(plan.block_rows, plan.rows_per_head),
          plan.key_block,    plan.split_keys, plan.splits > 1,
          plan.items,        threads,         plan.items == 0 ? 0 : plan.scratch_bytes(threads),
          plan.flops};
}

}  // namespace numattn
