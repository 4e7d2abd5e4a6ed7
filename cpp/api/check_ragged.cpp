// Attention over sequences that lie one after the other in memory.
#include "check.h"
#include "layout.h"

namespace numattn {
namespace {

void check_starts(const IntArray& starts, const char* name, std::int64_t total, const char* array) {
  if (starts.size < 1 || starts.data[0] != 0) {
    refuse(name, " must start at 0, not ", starts.size < 1 ? "be empty" : number(starts.data[0]));
  }
  for (std::int64_t i = 1; i < starts.size; ++i) {
    if (starts.data[i] >= starts.data[i - 1]) continue;
    refuse(name, " must not fall: ", number(starts.data[i - 1]), ", ", number(starts.data[i]),
           " at ", number(i));
  }
  if (starts.data[starts.size - 1] != total) {
    refuse(name, " must end at the ", number(total), " rows of ", array, ", not at ",
           number(starts.data[starts.size - 1]));
  }
}

void check_ranks(const AttentionParams& shared) {
  check_rank(shared.q, "q", 3, "(total, H, D)");
  check_rank(shared.k.data, "k", 3, "(total, H, D)");
  check_rank(shared.v.data, "v", 3, "(total, H, D)");
  if (shared.k.data.shape[0] != shared.v.data.shape[0]) {
    refuse("k and v must have the same number of rows, not shapes ", shape_text(shared.k.data),
           " and ", shape_text(shared.v.data));
  }
}

// A mask for each sequence, of its own queries and keys.
std::vector<RowBlocks> checked_masks(const RaggedParams& params, const AttentionCall& call) {
  if (!params.block_masks) return {};
  const std::vector<BlockLists>& masks = *params.block_masks;
  const auto count = static_cast<std::size_t>(call.part_count);
  if (masks.size() != count) {
    refuse("block_mask must have one mask per sequence (", number(call.part_count), "), not ",
           number(static_cast<std::int64_t>(masks.size())));
  }
  std::vector<RowBlocks> checked(count);
  for (std::size_t i = 0; i < count; ++i) {
    if (masks[i].starts == nullptr) continue;
    const std::int64_t* queries = call.query_starts.data() + i;
    const std::int64_t* keys = call.key_starts.data() + i;
    checked[i] = check_blocks(
        masks[i], {1, call.whole.query_heads, queries[1] - queries[0], keys[1] - keys[0]}, "Sk",
        static_cast<std::int64_t>(i));
  }
  return checked;
}

}  // namespace

AttentionCall check_ragged(const RaggedParams& params) {
  const AttentionParams& shared = params.shared;
  check_ranks(shared);
  AttentionCall call{};
  const IntArray queries = copied(params.query_starts, call.query_starts);
  const IntArray keys = copied(params.key_starts, call.key_starts);
  check_starts(queries, "cu_seqlens_q", shared.q.shape[0], "q");
  check_starts(keys, "cu_seqlens_k", shared.k.data.shape[0], "k");
  if (queries.size != keys.size) {
    refuse("cu_seqlens_q and cu_seqlens_k must name as many sequences, not ",
           number(queries.size - 1), " and ", number(keys.size - 1));
  }
  if (shared.score.mask || shared.score.bias || shared.score.kv_lens) {
    refuse("mask, bias and kv_lens have no meaning for sequences that lie one after the other");
  }
  constexpr TokenNames kNames{"k", "v"};
  check_floating(shared.k.data, kNames.k);  // integers would need scales
  check_floating(shared.v.data, kNames.v);
  check_operands(shared, kNames);
  call.parts = Parts::kSequences;
  call.part_count = queries.size - 1;
  call.layout = Layout::kBshd;
  call.rank = 3;
  call.num_threads = shared.num_threads;
  AttentionProblem& whole = call.whole;
  whole.precision = shared.precision;
  whole.q = in_bhsd(shared.q, Layout::kBshd);
  whole.k = in_bhsd(shared.k, Layout::kBshd);
  whole.v = in_bhsd(shared.v, Layout::kBshd);
  take_lengths(call, shared, kNames);
  whole.score = check_score(shared.score, {whole, call.part_count, "sequence", "the number of keys",
                                           "Sk", queries, keys});
  call.block_masks = checked_masks(params, call);
  check_output_size(whole);
  return call;
}

}  // namespace numattn
