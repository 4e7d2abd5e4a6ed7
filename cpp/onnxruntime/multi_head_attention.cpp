// MultiHeadAttention of com.microsoft, as onnxruntime.transformers' optimizer writes it. Where
// ONNX Runtime adds mask_filter_value to the scores of padding, keys are excluded here: the same
// but for a row that may attend nothing, which is 0.
#include <algorithm>

#include "heads.h"
#include "operators.h"
#include "present.h"

namespace numattn::onnxruntime {
namespace {

// A term from here on leaves a weight of 0 in float32 beside any score below 800.
constexpr float kExcluding = -1000.0f;

class MultiHeadAttention final : public Kernel {
 public:
  explicit MultiHeadAttention(const Info& info)
      : heads_(info.integer("num_heads", 0)),
        causal_(info.integer("unidirectional", 0) != 0),
        scale_(info.number("scale", 0)) {
    info.refuse_output(3, "qk");
    if (heads_ < 1) refuse("num_heads must be at least 1, not " + std::to_string(heads_));
    const float filter = info.number("mask_filter_value", -10000.0f);
    if (!(filter <= kExcluding)) {
      refuse("mask_filter_value must be -1000 or less, not " + std::to_string(filter));
    }
  }

  void run(Context& context) const override;

 private:
  // (B, S, H·D) with its part of the bias, which begins at `terms`.
  Array with_bias(Context& context, const Array& x, const char* terms) const;

  std::int64_t heads_;
  bool causal_;
  float scale_;
};

Array MultiHeadAttention::with_bias(Context& context, const Array& x, const char* terms) const {
  Array sum = x;
  sum.data = context.scratch(x.count() * element_size(x));
  add_bias(context, x, terms, sum.data);
  return sum;
}

// The number of keys at the beginning of a row that are kept; -1 where others are, too.
std::int64_t kept(const std::int32_t* row, std::int64_t length) {
  const auto* end = std::find(row, row + length, 0);
  const bool alone = std::all_of(end, row + length, [](std::int32_t keep) { return keep == 0; });
  return alone ? end - row : -1;
}

// key_padding_mask as lengths where that is what it says, so that padding is not read; as a mask
// elsewhere.
void add_padding(Context& context, const Array& mask, std::int64_t length,
                 std::vector<std::int64_t>& lengths, numattn_attention_args& args) {
  const std::int64_t batch = args.q.shape[0], queries = args.q.shape[2];
  const auto* numbers = static_cast<const std::int32_t*>(mask.data);
  if (mask.rank == 1) {
    check_shape(mask, {batch}, "key_padding_mask");
    lengths.assign(numbers, numbers + batch);
  } else {
    if (mask.rank == 2) check_shape(mask, {batch, length}, "key_padding_mask");
    if (mask.rank != 2) check_shape(mask, {batch, queries, length}, "key_padding_mask");
    for (std::int64_t entry = 0; mask.rank == 2 && entry < batch; ++entry) {
      lengths.push_back(kept(numbers + entry * length, length));
    }
    if (lengths.empty() || *std::min_element(lengths.begin(), lengths.end()) < 0) {
      lengths.clear();
      auto* bools = static_cast<char*>(context.scratch(mask.count()));
      std::transform(numbers, numbers + mask.count(), bools,
                     [](std::int32_t keep) { return keep != 0 ? char{1} : char{0}; });
      const std::int64_t shape[] = {batch, 1, mask.rank == 2 ? 1 : queries, length};
      args.mask = numattn_contiguous(bools, NUMATTN_BOOL, 4, shape);
    }
  }
  if (!lengths.empty()) args.kv_lens = {lengths.data(), batch};
}

void MultiHeadAttention::run(Context& context) const {
  Array query = context.input(0), key = context.input(1), value = context.input(2);
  check_rank(query, 3, "query", "(B, S, H·D): packed projections are not implemented");
  if (!key.given() || !value.given()) {
    refuse("key and value must be given: packed projections are not implemented");
  }
  if (context.input(8).given() || context.input(9).given()) {
    refuse("past_sequence_length and cache_indirection are not implemented");
  }
  if (const Array bias = context.input(3); bias.given()) {
    check_rank(key, 3, "key beside a bias", "(B, S, H·D)");
    check_rank(value, 3, "value beside a bias", "(B, S, H·D)");
    check_shape(bias, {query.shape[2] + key.shape[2] + value.shape[2]}, "bias");
    const auto* terms = static_cast<const char*>(bias.data);
    const std::int64_t size = element_size(query);
    const std::int64_t queries = query.shape[2] * size, keys = key.shape[2] * size;
    query = with_bias(context, query, terms);
    key = with_bias(context, key, terms + queries);
    value = with_bias(context, value, terms + queries + keys);
  }
  numattn_attention_args args = context.attention_args();
  args.q = heads_of(query, heads_, "query");
  const Presents presents =
      join_past(context, {heads_of(key, heads_, "key"), heads_of(value, heads_, "value")},
                {context.input(6), context.input(7)});
  args.k = presents.key;
  args.v = presents.value;
  args.q_offset = {&presents.past, 1};
  args.is_causal = causal_ ? 1 : 0;
  args.has_scale = scale_ != 0 ? 1 : 0;
  args.scale = static_cast<double>(scale_);
  std::vector<std::int64_t> lengths;
  if (const Array mask = context.input(4); mask.given()) {
    add_padding(context, mask, presents.key.shape[2], lengths, args);
  }
  if (const Array bias = context.input(5); bias.given()) {
    args.bias = tensor_of(bias, "attention_bias");
  }
  const Array result =
      context.output(0, {query.shape[0], query.shape[1], heads_ * args.v.shape[3]});
  args.out = heads_of(result, heads_, "output");
  context.attend(args);
}

constexpr Slot kInputs[] = {{Type::kElement, kRequired}, {Type::kElement, kOptional},
                            {Type::kElement, kOptional}, {Type::kElement, kOptional},
                            {Type::kInt32, kOptional},   {Type::kElement, kOptional},
                            {Type::kElement, kOptional}, {Type::kElement, kOptional},
                            {Type::kInt32, kOptional},   {Type::kInt32, kOptional}};

std::unique_ptr<Kernel> make(const Info& info) {
  return std::make_unique<MultiHeadAttention>(info);
}

}  // namespace

const Operator kMultiHeadAttention = operator_of("MultiHeadAttention", kInputs, kResults, make);

}  // namespace numattn::onnxruntime
