// Runs a checked attention call: plan, scratch, one work item per (batch, key head, query block,
// split).
#include "numattn/attention.h"

#include <algorithm>
#include <optional>
#include <vector>

#include "attention_item.h"
#include "layout.h"
#include "numattn/threads.h"
#include "scratch.h"
#include "select.h"

namespace numattn {
namespace {

// The work of parts together.
struct Totals {
  std::int64_t items = 0;
  std::int64_t rows = 0;  // combined from splits
  std::int64_t thread_bytes = 0;
  std::int64_t partial_floats = 0;
  double flops = 0.0;

  void add(const AttentionProblem& problem, const AttentionPlan& plan) {
    if (plan.items == 0) return;
    items += plan.items;
    if (plan.splits > 1) rows += problem.batch * problem.row_heads() * plan.rows_per_head;
    thread_bytes = std::max(thread_bytes, plan.thread_bytes());
    partial_floats += plan.partial_floats;
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

// The runs of all parts of a call. Of each part no more is kept than where its work starts; its run
// is made anew for each item, which takes a fraction of a microsecond. A lone part's is kept.
class Runs {
 public:
  Runs(const AttentionCall& call, const Results& results)
      : call_(call), results_(results), kernels_(current_kernels()) {
    Totals apart;
    if (call.part_count == 1) {
      lone_.emplace(call, results, 0, kernels_, nullptr);
      lone_->plan = plan_of(kernels_, lone_->problem);
      apart.add(lone_->problem, lone_->plan);
    } else {
      for (std::int64_t part = 0; part < call.part_count; ++part) {
        const AttentionProblem problem = problem_of(call, part);
        apart.add(problem, plan_of(kernels_, problem));
      }
    }
    if (apart.items == 0) return;
    threads_ = apart.threads(call.num_threads);
    shares_ = apart.shares(threads_);
    lone_ ? add_lone() : add_parts();
  }

  const Totals& all() const { return all_; }
  int threads() const { return threads_; }
  std::int64_t bytes() const {
    return order_offset() + (is_ordered() ? all_.items * kItemBytes : 0);
  }

  void use(char* memory) {
    memory_ = memory;
    if (lone_) give_memory(*lone_, 0);
    if (is_ordered()) order_items();
  }

  // Calls visit(run, its item) for item `index` of all parts.
  template <class Visit>
  void at_item(std::int64_t index, const Visit& visit) const {
    at(&Start::item, is_ordered() ? order()[index].item : index, visit);
  }
  // Calls visit(run, its row) for row `index` of all that are combined from splits.
  template <class Visit>
  void at_row(std::int64_t index, const Visit& visit) const {
    at(&Start::row, index, visit);
  }

 private:
  // Where a part's work starts, in that of all parts.
  struct Start {
    std::int64_t item, row, partial_floats;
  };

  // Items with the most listed blocks come first: a row that sees all keys among others that see
  // few takes as long as many of their items, and should not be left for the end.
  struct Listed {
    std::int64_t blocks, item;
  };
  static constexpr std::int64_t kItemBytes = sizeof(Listed);
  bool is_ordered() const {
    return lone_ && lone_->problem.score.block_mask.lists.starts != nullptr && all_.items > 1;
  }
  std::int64_t order_offset() const {
    return partials_offset() + padded_floats(all_.partial_floats) * 4;
  }
  Listed* order() const { return reinterpret_cast<Listed*>(memory_ + order_offset()); }
  void order_items() {
    for (std::int64_t item = 0; item < all_.items; ++item) {
      order()[item] = {listed_blocks(*lone_, item), item};
    }
    std::sort(order(), order() + all_.items, [](const Listed& a, const Listed& b) {
      return a.blocks != b.blocks ? a.blocks > b.blocks : a.item < b.item;
    });
  }

  void add_lone() {
    lone_->plan.join(lone_->problem.kv_heads, shares_);
    all_.add(lone_->problem, lone_->plan);
  }
  void add_parts() {
    starts_.reserve(static_cast<std::size_t>(call_.part_count));
    for (std::int64_t part = 0; part < call_.part_count; ++part) {
      const AttentionProblem problem = problem_of(call_, part);
      starts_.push_back({all_.items, all_.rows, all_.partial_floats});
      all_.add(problem, planned(problem));
    }
  }
  AttentionPlan planned(const AttentionProblem& problem) const {
    AttentionPlan plan = plan_of(kernels_, problem);
    plan.join(problem.kv_heads, shares_);
    return plan;
  }

  std::int64_t partials_offset() const { return threads_ * all_.thread_bytes; }
  void give_memory(Run& run, std::int64_t partial_floats) const {
    run.memory = memory_;
    run.thread_bytes = all_.thread_bytes;
    run.partials = reinterpret_cast<float*>(memory_ + partials_offset()) + partial_floats;
  }

  template <class Visit>
  void at(std::int64_t Start::*first, std::int64_t index, const Visit& visit) const {
    if (lone_) {
      visit(*lone_, index);
      return;
    }
    const auto after = std::upper_bound(
        starts_.begin(), starts_.end(), index,
        [first](std::int64_t wanted, const Start& start) { return wanted < start.*first; });
    const Start& start = *(after - 1);
    Run run(call_, results_, &start - starts_.data(), kernels_, nullptr);
    run.plan = planned(run.problem);
    give_memory(run, start.partial_floats);
    visit(run, index - start.*first);
  }

  const AttentionCall& call_;
  const Results& results_;
  const Kernels& kernels_;
  std::optional<Run> lone_;
  std::vector<Start> starts_;  // without a lone part
  Totals all_;
  int threads_ = 1;
  std::int64_t shares_ = 1;
  char* memory_ = nullptr;
};

}  // namespace

bool run_attention(const AttentionCall& call, const View& output, float* lse, Interrupt interrupt) {
  const Results results{in_bhsd(output, call.layout), lse};
  Runs runs(call, results);
  if (runs.all().items == 0) return true;
  const Scratch scratch(runs.bytes());
  runs.use(scratch.data());
  const auto attend_one = [&runs](std::int64_t index, Worker& worker) {
    runs.at_item(index, [&](const Run& run, std::int64_t item) { attend_item(run, item, worker); });
  };
  if (parallel_for(runs.all().items, runs.threads(), interrupt, attend_one) ==
      Outcome::kInterrupted) {
    return false;
  }
  if (runs.all().rows == 0) return true;
  const auto combine_one = [&runs](std::int64_t index, Worker& worker) {
    runs.at_row(index, [&](const Run& run, std::int64_t row) { combine_row(run, row, worker); });
  };
  return parallel_for(runs.all().rows, runs.threads(), interrupt, combine_one) ==
         Outcome::kFinished;
}

bool run_attention_weights(const AttentionCall& call, const std::optional<IntArray>& picked,
                           float* weights, Interrupt interrupt) {
  const Kernels& kernels = current_kernels();
  const Results none{};
  Run run(call, none, 0, kernels, picked ? &*picked : nullptr);
  const AttentionProblem& problem = run.problem;
  PlanNeeds needs = needs_of(problem);
  needs.tile.value_copy = false;
  needs.lone_rows = needs.tile.relative && picked.has_value();
  const std::int64_t row_count = picked ? picked->size : problem.queries;
  const AttentionPlan& plan = run.plan =
      plan_weights(kernels.attend, shape_of(problem), row_count, needs);
  if (plan.items == 0 || problem.keys == 0) return true;
  const int threads = threads_for(plan.worthwhile_threads(), call.num_threads);
  const Scratch scratch(plan.scratch_bytes(threads));
  run.memory = scratch.data();
  run.thread_bytes = plan.thread_bytes();
  const auto item = [&](std::int64_t index, Worker& worker) {
    weigh_item(run, index, row_count, weights, worker);
  };
  return parallel_for(plan.items, threads, interrupt, item) == Outcome::kFinished;
}

AttentionReport report_attention(const AttentionCall& call) {
  const Kernels& kernels = current_kernels();
  const AttentionPlan plan = plan_of(kernels, call.whole);
  const Results none{};
  const Runs runs(call, none);
  return {plan.kernel->name, kernels.isa,     std::min(plan.block_rows, plan.rows_per_head),
          plan.key_block,    plan.split_keys, plan.splits > 1,
          runs.all().items,  runs.threads(),  runs.all().items == 0 ? 0 : runs.bytes(),
          runs.all().flops};
}

}  // namespace numattn
