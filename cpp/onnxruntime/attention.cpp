// Attention of ai.onnx, opsets 23 to 25. What it means is what opset 25 says; words of the operator
// for those of numattn.h:
//
//   q_offset = past_sequence_length, or nonpad_kv_seqlen − q_sequence_length, or 0
//   kv_lens  = nonpad_kv_seqlen        window = (left_window_size, right_window_size)
//   mask     = boolean attn_mask       bias   = attn_mask of numbers
//
// The attribute opset, which is ours, says which it was: in 23 a mask of one column is for all
// keys.
#include <algorithm>

#include "heads.h"
#include "operators.h"
#include "present.h"

namespace numattn::onnxruntime {
namespace {

class Attention final : public Kernel {
 public:
  explicit Attention(const Info& info)
      : causal_(info.integer("is_causal", 0) != 0),
        query_heads_(info.integer("q_num_heads", 0)),
        key_heads_(info.integer("kv_num_heads", 0)),
        left_(info.integer("left_window_size", -1)),
        right_(info.integer("right_window_size", -1)),
        opset_(info.integer("opset", 25)),
        scale_(info.number("scale", 0)),
        softcap_(info.number("softcap", 0)),
        has_scale_(info.has_number("scale")) {
    info.refuse_output(3, "qk_matmul_output");
    const std::int64_t precision = info.integer("softmax_precision", kFloat);
    const std::int64_t known[] = {kFloat, kFloat16, kDouble, kBFloat16};
    if (std::find(std::begin(known), std::end(known), precision) == std::end(known)) {
      refuse("softmax_precision must be 1, 10, 11 or 16, not " + std::to_string(precision));
    }
    if (!(softcap_ >= 0)) {
      refuse("softcap must be 0 or positive, not " + std::to_string(softcap_));
    }
    if (left_ < -1 || right_ < -1) {
      refuse("left_window_size and right_window_size must be -1 or more, not " +
             std::to_string(left_) + " and " + std::to_string(right_));
    }
  }

  void run(Context& context) const override;

 private:
  // Float64 asks for more than is computed, and gets what float32 gives.
  static constexpr std::int64_t kDouble = 11;

  // How many keys the mask speaks of; others are excluded.
  std::int64_t add_mask(const Array& mask, std::int64_t length, numattn_attention_args& args) const;

  bool causal_;
  std::int64_t query_heads_, key_heads_, left_, right_, opset_;
  float scale_, softcap_;
  bool has_scale_;
};

std::int64_t Attention::add_mask(const Array& mask, std::int64_t length,
                                 numattn_attention_args& args) const {
  if (!mask.given()) return length;
  (mask.type == kBool ? args.mask : args.bias) = tensor_of(mask, "attn_mask");
  if (mask.rank == 0) return length;
  const std::int64_t columns = mask.shape[static_cast<std::size_t>(mask.rank - 1)];
  if (columns == 1 && opset_ < 24) return length;  // there it can only stand for all keys
  for (std::int64_t i = 0; i < args.kv_lens.count; ++i) {
    if (args.kv_lens.data[i] > columns) {
      refuse("attn_mask " + mask.shape_text() + " has fewer columns than nonpad_kv_seqlen says, " +
             std::to_string(args.kv_lens.data[i]));
    }
  }
  return std::min(columns, length);
}

void Attention::run(Context& context) const {
  const Array query = context.input(0), key = context.input(1), value = context.input(2);
  if (key.rank != query.rank || value.rank != query.rank) {
    refuse("Q " + query.shape_text() + ", K " + key.shape_text() + " and V " + value.shape_text() +
           " differ in dimensions");
  }
  numattn_attention_args args = context.attention_args();
  args.q = heads_of(query, query_heads_, "Q");
  const Presents presents =
      join_past(context, {heads_of(key, key_heads_, "K"), heads_of(value, key_heads_, "V")},
                {context.input(4), context.input(5)});
  const std::int64_t batch = args.q.shape[0], queries = args.q.shape[2];
  const std::int64_t length = presents.key.shape[2];

  const Array lengths = context.input(6);
  std::vector<std::int64_t> offsets(1, presents.past);
  if (lengths.given()) {
    if (context.input(4).given()) {
      refuse("nonpad_kv_seqlen cannot be given together with past_key and past_value");
    }
    check_shape(lengths, {batch}, "nonpad_kv_seqlen");
    args.kv_lens = {static_cast<const std::int64_t*>(lengths.data), batch};
    offsets.assign(args.kv_lens.data, args.kv_lens.data + batch);
    for (std::int64_t& offset : offsets) offset -= queries;
  }
  args.q_offset = {offsets.data(), static_cast<std::int64_t>(offsets.size())};
  const std::int64_t visible = add_mask(context.input(3), length, args);
  args.k = tokens_of(presents.key, 0, visible);
  args.v = tokens_of(presents.value, 0, visible);
  args.is_causal = causal_ ? 1 : 0;
  args.has_window = left_ != -1 || right_ != -1 ? 1 : 0;
  args.window_left = left_;
  args.window_right = right_;
  args.has_scale = has_scale_ ? 1 : 0;
  args.scale = static_cast<double>(scale_);
  args.softcap = static_cast<double>(softcap_);

  const std::int64_t heads = args.q.shape[1], width = args.v.shape[3];
  const Array result = query.rank == 3 ? context.output(0, {batch, queries, heads * width})
                                       : context.output(0, {batch, heads, queries, width});
  args.out = heads_of(result, query.rank == 3 ? query_heads_ : 0, "Y");
  context.attend(args);
}

constexpr Slot kInputs[] = {{Type::kElement, kRequired}, {Type::kElement, kRequired},
                            {Type::kElement, kRequired}, {Type::kAny, kOptional},
                            {Type::kElement, kOptional}, {Type::kElement, kOptional},
                            {Type::kInt64, kOptional}};

std::unique_ptr<Kernel> make(const Info& info) { return std::make_unique<Attention>(info); }

}  // namespace

const Operator kAttention = operator_of("Attention", kInputs, kResults, make);

}  // namespace numattn::onnxruntime
