// What a caller passes: every rule about shapes, types and ranges, once. The files check_<noun>.cpp
// are the only ones of this folder that throw.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>

#include "check_view.h"
#include "kernels.h"

#include "numattn/attention.h"
#include "numattn/linear.h"
#include "numattn/norm.h"
#include "numattn/rope.h"

namespace numattn {

// What keys and values are called in messages: "k", "k_pages".
struct TokenNames {
  const char *k, *v;
};

// Types and sizes of q, keys and values, and the scales of the latter.
void check_operands(const AttentionParams& params, const TokenNames& names);

// Types of the role kScaled have scales and may have wide channels, others have none.
void check_scales(const AttentionParams& params, const TokenNames& names);

// Takes the lengths of the call's problem from its views, which must fit one another, but for batch
// sizes.
void take_lengths(AttentionCall& call, const AttentionParams& params, const TokenNames& names);

// Takes the wide channels of the keys, which must fit the problem's heads.
void take_wide(AttentionCall& call, const WideChannels& wide);

// The array of results must fit 64 bits.
void check_output_size(const AttentionProblem& problem);

// What the arguments of a score must fit beside a problem's lengths.
struct ScoreFit {
  const AttentionProblem& problem;
  std::int64_t entries;                   // of which each may have its own
  const char* entry;                      // and what they are: "batch entry"
  const char* keys;                       // what the problem's keys are: "the number of keys"
  const char* keys_axis;                  // "Sk"
  IntArray query_starts{}, key_starts{};  // of sequences, which count their keys each from 0
};

Score check_score(const ScoreParams& params, const ScoreFit& fit);
// Lists for (batch entries or 1, query heads or 1, queries, keys); those of a sequence, or of all.
RowBlocks check_blocks(const BlockLists& lists, const std::array<std::int64_t, 4>& target,
                       const char* keys_axis, std::optional<std::int64_t> sequence = {});
void check_relative(const RelativeTerms& terms, const AttentionProblem& problem);

void check_linear_weight(const View& weight, const std::optional<View>& bias);
void check_linear_call(const PackedLinear& linear, const PackedLinear::Call& call);
void check_norm(const NormParams& params);
void check_rope(const RopeParams& params);

}  // namespace numattn
