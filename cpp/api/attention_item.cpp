#include "attention_item.h"

#include <algorithm>

#include "relative_block.h"

namespace numattn {
namespace {

// Where a work item stands; its first head.
struct Place {
  std::int64_t batch, row_head, block, split;
};

// Later blocks first: under a causal mask they are the longest, and should not be left for the end.
Place place_of(const AttentionPlan& plan, std::int64_t row_heads, std::int64_t index) {
  Place place{};
  place.split = index % plan.splits;
  index /= plan.splits;
  place.block = plan.blocks - 1 - index % plan.blocks;
  index /= plan.blocks;
  const std::int64_t heads = plan.heads_per_item;
  place.row_head = index % (row_heads / heads) * heads;
  place.batch = index / (row_heads / heads);
  return place;
}

// Partial states lie split by split: (item of block 0.., split) → rows_per_head rows.
PartialState partial_of(const Run& run, const Place& place) {
  const std::int64_t rows = run.plan.rows_per_head;
  const std::int64_t head = place.batch * run.problem.row_heads() + place.row_head;
  const std::int64_t at = (head * run.plan.splits + place.split) * rows;
  const std::int64_t total = run.problem.batch * run.problem.row_heads() * run.plan.splits * rows;
  const std::int64_t first = place.block * run.plan.block_rows;
  float* peaks = run.partials + total * run.problem.value_dim;
  return {run.partials + (at + first) * run.problem.value_dim, peaks + at + first,
          peaks + total + at + first};
}

void set_outputs(const Run& run, std::int64_t batch, std::int64_t head, std::int64_t query,
                 QueryRow& row) {
  const View& output = run.part.output;
  row.output = static_cast<char*>(output.data) + batch * output.strides[0] +
               head * output.strides[1] + query * output.strides[2];
  if (run.part.lse != nullptr) {
    row.lse =
        run.part.lse + batch * run.part.lse_batch_stride + head * run.part.lse_head_stride + query;
  }
}

AttendBlock block_of(const Run& run, const Place& place, const QueryRow* rows, int row_count,
                     float* workspace) {
  const AttentionProblem& problem = run.problem;
  AttendBlock block{};
  block.rows = rows;
  block.row_count = row_count;
  block.head_dim = problem.head_dim;
  block.value_dim = problem.value_dim;
  block.query_dtype = problem.q.dtype;
  block.query_column_stride = problem.q.strides[3];
  block.output_dtype = run.part.output.dtype;
  const std::int64_t kv_head = place.row_head * problem.kv_heads / problem.row_heads();
  block.key = rows_of(problem.k, problem, place.batch, kv_head);
  block.value = rows_of(problem.v, problem, place.batch, kv_head);
  block.rules = rules_of(problem.score);
  block.grid = {run.plan.key_block, problem.score.spans.sink_tokens};
  // With terms by distance a row head is a query head.
  block.relative = relative_block(problem.score, place.row_head);
  block.workspace = workspace;
  block.needs = run.plan.needs;
  return block;
}

// No key that a row of the item sees lies between `from` and this one.
std::int64_t next_key(const Run& run, const Worker& worker, std::int64_t from) {
  std::int64_t first = INT64_MAX;
  for (std::int64_t turn = 0; turn < run.plan.heads_per_item; ++turn) {
    const AttendBlock& block = *run.head_memory(worker.index(), turn).block;
    for (int r = 0; r < block.row_count && first > from; ++r) {
      first = std::min(first, block.rows[r].next(from));
    }
  }
  return first;
}

// Visits keys in stretches, between which an interrupt is noticed. visit(block) computes the first
// head's block, and those joined to it.
template <class Visit>
void visit_keys(const Run& run, KeyRange keys, Worker& worker, const Visit& visit) {
  const std::int64_t stretch = run.plan.visit_keys;
  std::int64_t from = keys.begin;
  bool is_last = false;
  do {
    const std::int64_t to = std::min(keys.end, (from / stretch + 1) * stretch);
    is_last = to >= keys.end;
    for (std::int64_t turn = 0; turn < run.plan.heads_per_item; ++turn) {
      AttendBlock& block = *run.head_memory(worker.index(), turn).block;
      block.begin = from == keys.begin;
      block.keys = {from, to};
      block.end = is_last;
    }
    visit(*run.head_memory(worker.index(), 0).block);
    // Stretches that no row sees are passed over; the last key is seen.
    from = is_last ? to : std::min(next_key(run, worker, to), keys.end - 1);
  } while (!is_last && !worker.stopped());
}

// What the first tile of all keys shows of the rows' scores, to a split that begins behind it: it
// could leave out nothing before it had seen as large ones itself (skip_below). What is kept of it
// are the peaks.
template <class Visit>
void look_at_first_tile(const Run& run, const Worker& worker, const Visit& visit) {
  for (std::int64_t turn = 0; turn < run.plan.heads_per_item; ++turn) {
    AttendBlock& block = *run.head_memory(worker.index(), turn).block;
    block.begin = true;
    block.keys = {0, run.plan.key_block};
    block.end = false;
  }
  visit(*run.head_memory(worker.index(), 0).block);
  for (std::int64_t turn = 0; turn < run.plan.heads_per_item; ++turn) {
    run.head_memory(worker.index(), turn).block->keeps_peaks = true;
  }
}

// Prepares one head of the item: its rows and its block. Returns the keys that any row sees, of the
// item's split.
KeyRange begin_head(const Run& run, const Place& place, const HeadMemory& memory) {
  const AttentionPlan& plan = run.plan;
  const std::int64_t first = place.block * plan.block_rows;
  const int row_count = static_cast<int>(std::min(plan.block_rows, plan.rows_per_head - first));
  KeyRange keys{0, 0};
  run.rows.each(place.row_head, first, first + row_count,
                [&](std::int64_t index, std::int64_t head, std::int64_t query) {
                  QueryRow& row = memory.rows[index - first];
                  run.rows.make(place.batch, head, query, row);
                  if (plan.splits == 1) set_outputs(run, place.batch, head, query, row);
                  keys = keys.hull(row.keys());
                });
  *memory.block = block_of(run, place, memory.rows, row_count, memory.workspace);
  memory.block->fetch_ahead = place.block == plan.blocks - 1;
  if (plan.splits > 1) {
    *memory.partial = partial_of(run, place);
    memory.block->partial = memory.partial;
    keys = keys.both({place.split * plan.split_keys, (place.split + 1) * plan.split_keys});
  }
  return keys.empty() ? KeyRange{0, 0} : keys;
}

}  // namespace

std::int64_t listed_blocks(const Run& run, std::int64_t index) {
  const AttentionPlan& plan = run.plan;
  const RowBlocks& mask = run.problem.score.block_mask;
  const Place place = place_of(plan, run.problem.row_heads(), index);
  const std::int64_t group = run.problem.query_heads / run.problem.row_heads();
  const std::int64_t first = place.block * plan.block_rows;
  const std::int64_t last = std::min(first + plan.block_rows, plan.rows_per_head) - 1;
  std::int64_t count = 0;
  for (std::int64_t head = 0; head < plan.heads_per_item * group; ++head) {
    for (std::int64_t block = first / group / kMaskBlock; block <= last / group / kMaskBlock;
         ++block) {
      const std::int64_t* start =
          mask.lists.starts + mask.place(place.batch, place.row_head * group + head, block);
      count += start[1] - start[0];
    }
  }
  return count;
}

void attend_item(const Run& run, std::int64_t index, Worker& worker) {
  const AttentionPlan& plan = run.plan;
  const AttentionProblem& problem = run.problem;
  const int heads = static_cast<int>(plan.heads_per_item);
  Place place = place_of(plan, problem.row_heads(), index);
  KeyRange keys{0, 0};
  for (int turn = 0; turn < heads; ++turn, ++place.row_head) {
    keys = keys.hull(begin_head(run, place, run.head_memory(worker.index(), turn)));
  }
  const JoinedHeads joined{heads, plan.head_bytes(), problem.k.data.strides[1],
                           problem.v.data.strides[1]};
  for (int turn = 0; turn < heads; ++turn) {
    run.head_memory(worker.index(), turn).block->heads = joined;
  }
  const auto visit = [&](const AttendBlock& block) { plan.kernel->attend(block); };
  const bool leaves_out = problem.score.skip_level < 0.0f && plan.kernel->facts.packed_bytes == 0;
  if (leaves_out && place.split > 0) look_at_first_tile(run, worker, visit);
  visit_keys(run, keys, worker, visit);
}

void combine_row(const Run& run, std::int64_t index, Worker& worker) {
  const AttentionPlan& plan = run.plan;
  const std::int64_t head = index / plan.rows_per_head;
  const std::int64_t in_head = index % plan.rows_per_head;
  const Place place{head / run.problem.row_heads(), head % run.problem.row_heads(),
                    in_head / plan.block_rows, 0};
  QueryRow row{};
  run.rows.each(place.row_head, in_head, in_head + 1,
                [&](std::int64_t, std::int64_t query_head, std::int64_t query) {
                  run.rows.make(place.batch, query_head, query, row);
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
  combined.output_dtype = run.part.output.dtype;
  combined.output = row.output;
  combined.lse = row.lse;
  combined.sink = row.sink;
  combined.workspace = run.head_memory(worker.index(), 0).workspace;
  run.kernels.combine(combined);
}

void weigh_item(const Run& run, std::int64_t index, std::int64_t row_count, float* weights,
                Worker& worker) {
  const AttentionPlan& plan = run.plan;
  const AttentionProblem& problem = run.problem;
  const std::int64_t group = problem.query_heads / problem.row_heads();
  const Place place = place_of(plan, problem.row_heads(), index);
  const std::int64_t first = place.block * plan.block_rows;
  const int block_rows = static_cast<int>(std::min(plan.block_rows, plan.rows_per_head - first));
  const HeadMemory memory = run.head_memory(worker.index(), 0);
  run.rows.each(place.row_head, first, first + block_rows,
                [&](std::int64_t at, std::int64_t head, std::int64_t query) {
                  const std::int64_t row =
                      (place.batch * problem.query_heads + head) * row_count + at / group;
                  QueryRow& made = memory.rows[at - first];
                  run.rows.make(place.batch, head, query, made);
                  made.output = reinterpret_cast<char*>(weights + row * problem.keys);
                });
  *memory.block = block_of(run, place, memory.rows, block_rows, memory.workspace);
  visit_keys(run, {0, problem.keys}, worker,
             [&](const AttendBlock& block) { run.kernels.weights({block, problem.keys}); });
}

}  // namespace numattn
