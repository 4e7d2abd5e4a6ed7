// Runs a checked attention call: plan, scratch, one work item per (batch, key head, query block,
// split).
#include "numattn/attention.h"

#include <algorithm>
#include <vector>

#include "attention_item.h"
#include "numattn/threads.h"
#include "scratch.h"
#include "select.h"

namespace numattn {
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
    plan.join_heads(parts[i].problem->kv_heads, shares);
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
  PlanNeeds needs = needs_of(problem);
  needs.tile.value_copy = false;
  needs.lone_rows = needs.tile.relative && picked.has_value();
  const std::int64_t row_count = picked ? picked->size : problem.queries;
  const AttentionPlan plan = plan_weights(kernels.attend, shape_of(problem), row_count, needs);
  if (plan.items == 0 || problem.keys == 0) return true;
  const int threads = threads_for(plan.worthwhile_threads(), problem.params.num_threads);
  const Scratch scratch(plan.scratch_bytes(threads));
  const AttentionPart part{&problem, problem.params.q, nullptr, 0, 0};
  Run run(part, kernels, plan, picked ? &*picked : nullptr, 0, 0);
  run.memory = scratch.data();
  run.thread_bytes = plan.thread_bytes();
  const auto item = [&](std::int64_t index, Worker& worker) {
    weigh_item(run, index, row_count, weights, worker);
  };
  return parallel_for(plan.items, threads, interrupt, item) == Outcome::kFinished;
}

AttentionReport report_attention(const AttentionProblem& problem) {
  const Kernels& kernels = current_kernels();
  AttentionPlan plan = plan_of(kernels, problem);
  Totals apart;
  apart.add(plan);
  const int threads = apart.threads(problem.params.num_threads);
  plan.join_heads(problem.kv_heads, apart.shares(threads));
  return {plan.kernel->name, kernels.isa,     std::min(plan.block_rows, plan.rows_per_head),
          plan.key_block,    plan.split_keys, plan.splits > 1,
          plan.items,        threads,         plan.items == 0 ? 0 : plan.scratch_bytes(threads),
          plan.flops};
}

}  // namespace numattn
