// Runs a checked attention call: plan, scratch, one work item per (batch, key head, query block,
// split).
#include "numattn/attention.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <vector>

#include "attention_plan.h"
#include "check.h"
#include "numattn/threads.h"
#include "parallel.h"
#include "relative_block.h"
#include "scratch.h"
#include "select.h"
#include "spans.h"

namespace numattn {
namespace {

AttentionShape shape_of(const AttentionProblem& problem) {
  return {problem.batch, problem.query_heads, problem.row_heads(), problem.queries,
          problem.keys,  problem.head_dim,    problem.value_dim};
}

// The (position, element) matrix of one batch entry and head.
Matrix matrix_of(const View& view, std::int64_t batch, std::int64_t head) {
  const char* data =
      static_cast<const char*>(view.data) + batch * view.strides[0] + head * view.strides[1];
  return {data, view.dtype, view.strides[2], view.strides[3]};
}

TokenRows tokens_of(const View& view, const std::optional<View>& scale, const PageTable& pages,
                    std::int64_t page_stride, std::int64_t scale_stride, std::int64_t batch,
                    std::int64_t head) {
  TokenRows tokens{};
  tokens.matrix = matrix_of(view, batch, head);
  tokens.pages = pages.pages;
  tokens.page_rows = pages.page_rows;
  tokens.page_stride = page_stride;
  if (scale) {
    const Matrix scales = matrix_of(*scale, batch, head);
    tokens.scales = scales.data;
    tokens.scale_row_stride = scales.row_stride;
    tokens.scale_page_stride = scale_stride;
  }
  return tokens;
}

TokenRows keys_of(const AttentionParams& params, std::int64_t batch, std::int64_t head) {
  return tokens_of(params.k, params.k_scale, params.pages, params.pages.key_stride,
                   params.pages.key_scale_stride, batch, head);
}

TokenRows values_of(const AttentionParams& params, std::int64_t batch, std::int64_t head) {
  return tokens_of(params.v, params.v_scale, params.pages, params.pages.value_stride,
                   params.pages.value_scale_stride, batch, head);
}

// Whether the kernel reads every head's tokens where they lie (all heads share strides and
// alignment of the first one only if the outer strides keep it).
bool in_place(const View& view, const TokenRows& first) {
  if (view.strides[0] % 4 != 0 || view.strides[1] % 4 != 0) return false;
  return reads_in_place(first);
}

TileNeeds needs_of(const AttentionProblem& problem) {
  const AttentionParams& params = problem.params;
  const auto heads_inside = [](const View& view) {
    return std::abs(view.strides[1]) < std::abs(view.strides[2]);
  };
  return {params.mask.has_value(),
          params.bias.has_value(),
          !in_place(params.k, keys_of(params, 0, 0)),
          !in_place(params.v, values_of(params, 0, 0)),
          heads_inside(params.k) && heads_inside(params.v),
          params.relative.has_value()};
}

AttentionPlan plan_of(const Kernels& kernels, const AttentionProblem& problem) {
  const DType dtype = problem.params.k.dtype;
  const AttendKernel& attend =
      problem.params.relative     ? kernels.attend
      : dtype == DType::kBFloat16 ? kernels.attend_bfloat16
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
// r % group, so that a block's rows are neighbours in position and their spans overlap. Here and
// below a key head is one of row_heads().
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
    const std::int64_t group = problem_.query_heads / problem_.row_heads();
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

// What a thread keeps for one head of its work item.
struct HeadMemory {
  AttendBlock* block;
  PartialState* partial;
  QueryRow* rows;
  float* workspace;
};

// What the work items of one part share. All parts of a call share its threads and their memory.
struct Run {
  const AttentionPart& part;
  const AttentionProblem& problem;
  const Kernels& kernels;
  AttentionPlan plan;
  RowMaker rows;
  View output;              // canonical order
  std::int64_t first_item;  // among the items of all parts
  std::int64_t first_row;   // among the rows of all parts that are combined from splits
  char* memory = nullptr;   // the threads' blocks, `thread_bytes` apart
  std::int64_t thread_bytes = 0;
  float* partials = nullptr;

  Run(const AttentionPart& of, const Kernels& with, AttentionPlan planned, const IntArray* picked,
      std::int64_t item, std::int64_t row)
      : part(of),
        problem(*of.problem),
        kernels(with),
        plan(planned),
        rows(problem, picked),
        output(in_bhsd(of.output, problem.params.layout)),
        first_item(item),
        first_row(row) {}

  // Of one of the heads of the thread's item: the block, where its partial results go, its rows,
  // and its workspace.
  HeadMemory head_memory(int thread, std::int64_t turn) const {
    char* from = memory + thread * thread_bytes + turn * plan.head_bytes();
    char* rows = from + sizeof(AttendBlock) + sizeof(PartialState);
    return {reinterpret_cast<AttendBlock*>(from),
            reinterpret_cast<PartialState*>(from + sizeof(AttendBlock)),
            reinterpret_cast<QueryRow*>(rows),
            reinterpret_cast<float*>(from + plan.head_bytes() - plan.workspace_floats * 4)};
  }
  std::int64_t combined_rows() const {
    return plan.splits == 1 ? 0 : problem.batch * problem.row_heads() * plan.rows_per_head;
  }
};

// Where a work item stands; its first head.
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
  const std::int64_t heads = plan.heads_per_item;
  place.kv_head = index % (kv_heads / heads) * heads;
  place.batch = index / (kv_heads / heads);
  return place;
}

// Partial states lie split by split: (item of block 0.., split) → rows_per_head rows.
PartialState partial_of(const Run& run, const Place& place) {
  const std::int64_t rows = run.plan.rows_per_head;
  const std::int64_t head = place.batch * run.problem.row_heads() + place.kv_head;
  const std::int64_t at = (head * run.plan.splits + place.split) * rows;
  const std::int64_t total = run.problem.batch * run.problem.row_heads() * run.plan.splits * rows;
  const std::int64_t first = place.block * run.plan.block_rows;
  float* peaks = run.partials + total * run.problem.value_dim;
  return {run.partials + (at + first) * run.problem.value_dim, peaks + at + first,
          peaks + total + at + first};
}

void set_outputs(const Run& run, std::int64_t batch, std::int64_t head, std::int64_t query,
                 QueryRow& row) {
  row.output = static_cast<char*>(run.output.data) + batch * run.output.strides[0] +
               head * run.output.strides[1] + query * run.output.strides[2];
  if (run.part.lse != nullptr) {
    row.lse =
        run.part.lse + batch * run.part.lse_batch_stride + head * run.part.lse_head_stride + query;
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
  const std::int64_t kv_head = place.kv_head * run.problem.kv_heads / run.problem.row_heads();
  block.key = keys_of(params, place.batch, kv_head);
  block.value = values_of(params, place.batch, kv_head);
  block.rules = rules_of(run.problem);
  block.relative = relative_block(run.problem, place.kv_head);
  block.workspace = workspace;
  return block;
}

// Visits keys in stretches, between which an interrupt is noticed. visit(block) computes a block's
// range of keys; several blocks take turns.
template <class Visit>
void visit_keys(const Run& run, std::int64_t stretch, KeySpan keys, Worker& worker,
                const Visit& visit) {
  std::int64_t from = keys.begin;
  bool is_last = false;
  do {
    const std::int64_t to = std::min(keys.end, (from / stretch + 1) * stretch);
    is_last = to >= keys.end;
    for (std::int64_t turn = 0; turn < run.plan.heads_per_item; ++turn) {
      AttendBlock& block = *run.head_memory(worker.index(), turn).block;
      block.begin = from == keys.begin;
      block.key_begin = from;
      block.key_end = to;
      block.end = is_last;
      visit(block);
    }
    from = to;
  } while (!is_last && !worker.stopped());
}

// Prepares one head of the item: its rows and its block. Returns the keys that any row sees, of the
// item's split.
KeySpan begin_head(const Run& run, const Place& place, const HeadMemory& memory) {
  const AttentionPlan& plan = run.plan;
  const std::int64_t first = place.block * plan.block_rows;
  const int row_count = static_cast<int>(std::min(plan.block_rows, plan.rows_per_head - first));
  KeySpan keys{INT64_MAX, 0};
  run.rows.each(place.kv_head, first, first + row_count,
                [&](std::int64_t index, std::int64_t head, std::int64_t query) {
                  QueryRow& row = memory.rows[index - first];
                  row = run.rows.make(place.batch, head, query);
                  if (plan.splits == 1) set_outputs(run, place.batch, head, query, row);
                  if (row.key_begin >= row.key_end) return;
                  keys.begin = std::min(keys.begin, row.key_begin);
                  keys.end = std::max(keys.end, row.key_end);
                });
  *memory.block = block_of(run, place, memory.rows, row_count, memory.workspace);
  memory.block->fetch_ahead = place.block == plan.blocks - 1;
  if (plan.splits > 1) {
    *memory.partial = partial_of(run, place);
    memory.block->partial = memory.partial;
    keys.begin = std::max(keys.begin, place.split * plan.split_keys);
    keys.end = std::min(keys.end, (place.split + 1) * plan.split_keys);
  }
  return keys.empty() ? KeySpan{0, 0} : keys;
}

void attend_item(const Run& run, std::int64_t index, Worker& worker) {
  const AttentionPlan& plan = run.plan;
  const AttentionParams& params = run.problem.params;
  const int heads = static_cast<int>(plan.heads_per_item);
  Place place = place_of(plan, run.problem.row_heads(), index);
  KeySpan keys{};
  for (int turn = 0; turn < heads; ++turn, ++place.kv_head) {
    const HeadMemory memory = run.head_memory(worker.index(), turn);
    keys = begin_head(run, place, memory);  // the same for every head
    memory.block->heads = {turn, heads, params.k.strides[1], params.v.strides[1], keys.end};
  }
  visit_keys(run, heads == 1 ? plan.visit_keys : plan.key_block, keys, worker,
             [&](AttendBlock& block) { plan.kernel->attend(block); });
}

void combine_row(const Run& run, std::int64_t index, Worker& worker) {
  const AttentionPlan& plan = run.plan;
  const std::int64_t head = index / plan.rows_per_head;
  const std::int64_t in_head = index % plan.rows_per_head;
  const Place place{head / run.problem.row_heads(), head % run.problem.row_heads(),
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
  combined.workspace = run.head_memory(worker.index(), 0).workspace;
  run.kernels.combine(combined);
}

}  // namespace

namespace {

// The run, of runs in the order of their first items (or rows), that holds the index.
const Run& run_of(const std::vector<Run>& runs, std::int64_t Run::*first, std::int64_t index) {
  const auto after = std::upper_bound(
      runs.begin(), runs.end(), index,
      [first](std::int64_t wanted, const Run& run) { return wanted < run.*first; });
  return *(after - 1);
}

struct Totals {
  std::int64_t items = 0;
  std::int64_t rows = 0;  // combined from splits
  std::int64_t thread_bytes = 0;
  std::int64_t partial_bytes = 0;
  double flops = 0.0;

  void add(const AttentionPlan& plan) {
    items += plan.items;
    flops += plan.flops;
  }
  int threads(int limit) const { return threads_for(useful_threads(flops, items), limit); }

  // How many of so many items a thread may take at once without another's going idle.
  std::int64_t shares(int threads) const {
    return threads == 1 ? items : std::max<std::int64_t>(items / (kItemsPerThread * threads), 1);
  }

 private:
  static constexpr std::int64_t kItemsPerThread = 4;
};

}  // namespace

bool run_attention(const AttentionPart* parts, std::int64_t part_count, int num_threads,
                   Interrupt interrupt) {
  const Kernels& kernels = current_kernels();
  std::vector<AttentionPlan> plans;
  plans.reserve(static_cast<std::size_t>(part_count));
  Totals apart;
  for (std::int64_t i = 0; i < part_count; ++i) {
    plans.push_back(plan_of(kernels, *parts[i].problem));
    apart.add(plans.back());
  }
  if (apart.items == 0) return true;
  const int threads = apart.threads(num_threads);
  const std::int64_t shares = apart.shares(threads);
  std::vector<Run> runs;
  runs.reserve(plans.size());
  Totals all;
  for (std::int64_t i = 0; i < part_count; ++i) {
    AttentionPlan& plan = plans[static_cast<std::size_t>(i)];
    if (plan.items == 0) continue;
    plan.join_heads(parts[i].problem->row_heads(), shares);
    runs.emplace_back(parts[i], kernels, plan, nullptr, all.items, all.rows);
    all.add(plan);
    all.rows += runs.back().combined_rows();
    all.thread_bytes = std::max(all.thread_bytes, plan.thread_bytes());
    all.partial_bytes += plan.partial_bytes();
  }
  const Scratch scratch(threads * all.thread_bytes + all.partial_bytes);
  char* partials = scratch.data() + threads * all.thread_bytes;
  for (Run& run : runs) {
    run.memory = scratch.data();
    run.thread_bytes = all.thread_bytes;
    run.partials = reinterpret_cast<float*>(partials);
    partials += run.plan.partial_bytes();
  }
  const auto attend_one = [&runs](std::int64_t index, Worker& worker) {
    const Run& run = run_of(runs, &Run::first_item, index);
    attend_item(run, index - run.first_item, worker);
  };
  if (parallel_for(all.items, threads, interrupt, attend_one) == Outcome::kInterrupted)
    return false;
  if (all.rows == 0) return true;
  const auto combine_one = [&runs](std::int64_t index, Worker& worker) {
    const Run& run = run_of(runs, &Run::first_row, index);
    combine_row(run, index - run.first_row, worker);
  };
  return parallel_for(all.rows, threads, interrupt, combine_one) == Outcome::kFinished;
}

bool run_attention_weights(const AttentionProblem& problem, const std::optional<IntArray>& picked,
                           float* weights, Interrupt interrupt) {
  const Kernels& kernels = current_kernels();
  TileNeeds needs = needs_of(problem);
  needs.value_copy = false;
  needs.lone_rows = needs.relative && picked.has_value();
  const std::int64_t row_count = picked ? picked->size : problem.queries;
  const AttentionPlan plan = plan_weights(kernels.attend, shape_of(problem), row_count, needs);
  if (plan.items == 0 || problem.keys == 0) return true;
  const int threads = threads_for(plan.worthwhile_threads(), problem.params.num_threads);
  const Scratch scratch(plan.scratch_bytes(threads));
  const AttentionPart part{&problem, problem.params.q, nullptr, 0, 0};
  Run run(part, kernels, plan, picked ? &*picked : nullptr, 0, 0);
  run.memory = scratch.data();
  run.thread_bytes = plan.thread_bytes();
  const std::int64_t group = problem.query_heads / problem.row_heads();
  const auto item = [&](std::int64_t index, Worker& worker) {
    const Place place = place_of(plan, problem.row_heads(), index);
    const std::int64_t first = place.block * plan.block_rows;
    const int block_rows = static_cast<int>(std::min(plan.block_rows, plan.rows_per_head - first));
    const HeadMemory memory = run.head_memory(worker.index(), 0);
    run.rows.each(place.kv_head, first, first + block_rows,
                  [&](std::int64_t index, std::int64_t head, std::int64_t query) {
                    const std::int64_t row =
                        (place.batch * problem.query_heads + head) * row_count + index / group;
                    memory.rows[index - first] = run.rows.make(place.batch, head, query);
                    memory.rows[index - first].output =
                        reinterpret_cast<char*>(weights + row * problem.keys);
                  });
    *memory.block = block_of(run, place, memory.rows, block_rows, memory.workspace);
    visit_keys(run, plan.visit_keys, {0, problem.keys}, worker,
               [&](const AttendBlock& block) { kernels.weights({block, problem.keys}); });
  };
  return parallel_for(plan.items, threads, interrupt, item) == Outcome::kFinished;
}

AttentionReport report_attention(const AttentionProblem& problem) {
  const Kernels& kernels = current_kernels();
  AttentionPlan plan = plan_of(kernels, problem);
  Totals apart;
  apart.add(plan);
  const int threads = apart.threads(problem.params.num_threads);
  plan.join_heads(problem.row_heads(), apart.shares(threads));
  return {plan.kernel->name, kernels.isa,     std::min(plan.block_rows, plan.rows_per_head),
          plan.key_block,    plan.split_keys, plan.splits > 1,
          plan.items,        threads,         plan.items == 0 ? 0 : plan.scratch_bytes(threads),
          plan.flops};
}

}  // namespace numattn
