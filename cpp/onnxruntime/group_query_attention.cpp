// GroupQueryAttention of com.microsoft, as decoders for ONNX Runtime are written: new tokens are
// turned to their positions, stored behind those before them, and attend to all.
#include <algorithm>
#include <functional>

#include "heads.h"
#include "operators.h"
#include "present.h"

namespace numattn::onnxruntime {
namespace {

class GroupQueryAttention final : public Kernel {
 public:
  explicit GroupQueryAttention(const Info& info);
  void run(Context& context) const override;

 private:
  struct Step;

  Step step_of(Context& context) const;
  void turn(Context& context, const Step& step, const numattn_tensor& from,
            const numattn_tensor& to, const std::int64_t* positions) const;
  // Where keys and values are afterwards, past and new ones.
  numattn_tensor store(Context& context, const Step& step, std::size_t index,
                       const numattn_tensor& tokens) const;

  std::int64_t heads_, key_heads_, window_;
  float scale_, softcap_;
  bool causal_, rotary_, interleaved_, smooth_;
};

struct GroupQueryAttention::Step {
  numattn_tensor query, key, value;        // (B, H, S, D)
  std::int64_t total;                      // most tokens of any entry, the new ones among them
  std::vector<std::int64_t> totals, past;  // of each entry
  std::vector<std::int64_t> positions;     // (B, S), where they are turned
};

GroupQueryAttention::GroupQueryAttention(const Info& info)
    : heads_(info.integer("num_heads", 0)),
      key_heads_(info.integer("kv_num_heads", 0)),
      window_(info.integer("local_window_size", -1)),
      scale_(info.number("scale", 0)),
      softcap_(info.number("softcap", 0)),
      causal_(info.integer("causal", 1) != 0),
      rotary_(info.integer("do_rotary", 0) != 0),
      interleaved_(info.integer("rotary_interleaved", 0) != 0),
      smooth_(info.integer("smooth_softmax", 0) == 1) {
  info.refuse_output(3, "output_qk");
  info.refuse_integer("qk_output", 0);
  info.refuse_integer("kv_cache_bit_width", 0);
  info.refuse_integer("sliding_window_cache", 0);
  info.refuse_text("k_quant_type", "NONE");
  info.refuse_text("v_quant_type", "NONE");
  if (heads_ < 1 || key_heads_ < 1 || heads_ % key_heads_ != 0) {
    refuse("num_heads must be a multiple of kv_num_heads, not " + std::to_string(heads_) + " and " +
           std::to_string(key_heads_));
  }
  if (window_ != -1 && (window_ < 1 || !causal_)) {
    refuse("local_window_size must be -1, or at least 1 where causal is 1, not " +
           std::to_string(window_));
  }
  if (!(softcap_ >= 0)) {
    refuse("softcap must be 0 or positive, not " + std::to_string(softcap_));
  }
}

GroupQueryAttention::Step GroupQueryAttention::step_of(Context& context) const {
  const Array query = context.input(0), key = context.input(1), value = context.input(2);
  check_rank(query, 3, "query", "(B, S, H·D)");
  Step step;
  if (key.given()) {
    step.query = heads_of(query, heads_, "query");
    step.key = heads_of(key, key_heads_, "key");
    step.value = heads_of(value, key_heads_, "value");
    check_shape(key, {query.shape[0], query.shape[1], key_heads_ * step.query.shape[3]}, "key");
    check_shape(value, {query.shape[0], query.shape[1], key.shape[2]}, "value");
  } else {
    const std::int64_t width = heads_of(query, heads_ + 2 * key_heads_, "query").shape[3];
    step.query = some_heads(query, 0, heads_, width);
    step.key = some_heads(query, heads_, key_heads_, width);
    step.value = some_heads(query, heads_ + key_heads_, key_heads_, width);
  }
  const Array lengths = context.input(5), total = context.input(6);
  const std::int64_t batch = query.shape[0], length = query.shape[1];
  if (lengths.count() != batch || total.count() != 1) {
    refuse("seqlens_k and total_sequence_length must have a number for each entry, and one, not " +
           lengths.shape_text() + " and " + total.shape_text());
  }
  step.total = *static_cast<const std::int32_t*>(total.data);
  for (std::int64_t entry = 0; entry < batch; ++entry) {
    const std::int64_t own =
        std::int64_t{1} + static_cast<const std::int32_t*>(lengths.data)[entry];
    const bool prompt = length == step.total;
    step.totals.push_back(own);
    step.past.push_back(prompt ? 0 : own - length);
    if (own > step.total || step.past.back() < 0 || own < 0) {
      refuse("seqlens_k has " + std::to_string(own - 1) + ", which does not fit " +
             std::to_string(length) + " new tokens and total_sequence_length " +
             std::to_string(step.total));
    }
  }
  if (!rotary_) return step;
  const Array given = context.input(9);
  if (given.given()) check_shape(given, {batch, length}, "position_ids");
  const auto* ids = static_cast<const std::int64_t*>(given.data);
  for (std::int64_t i = 0; i < batch * length; ++i) {
    const std::int64_t counted = step.past[static_cast<std::size_t>(i / length)] + i % length;
    // Of a prompt the operator takes the first position alone.
    const bool prompt = length == step.total;
    step.positions.push_back(!given.given() ? counted : prompt ? ids[0] + i % length : ids[i]);
  }
  return step;
}

void GroupQueryAttention::turn(Context& context, const Step& step, const numattn_tensor& from,
                               const numattn_tensor& to, const std::int64_t* positions) const {
  numattn_rope_args args = context.rope_args();
  args.x = from;
  args.out = to;
  const Array cos = context.input(7), sin = context.input(8);
  check_rank(cos, 2, "cos_cache", "(max_sequence_length, pairs) where do_rotary is 1");
  check_rank(sin, 2, "sin_cache", "(max_sequence_length, pairs) where do_rotary is 1");
  args.cos = tensor_of(cos, "cos_cache");
  args.sin = tensor_of(sin, "sin_cache");
  args.positions = {positions, from.shape[0] * step.query.shape[2]};
  args.interleaved = interleaved_ ? 1 : 0;
  context.turn(args);
}

numattn_tensor GroupQueryAttention::store(Context& context, const Step& step, std::size_t index,
                                          const numattn_tensor& tokens) const {
  const bool keys = index == 0;
  const Array past = context.input(3 + index);
  const std::int64_t batch = tokens.shape[0], length = tokens.shape[2];
  const std::int64_t room = past.given() ? std::max(step.total, past.shape[2]) : step.total;
  const numattn_tensor present = place_of(context, 1 + index, tokens, room);
  const bool shared = past.given() && past.data == present.data;
  const auto one = [&](const numattn_tensor& place, const numattn_tensor& fresh, std::int64_t entry,
                       const numattn_tensor& before) {
    const std::int64_t first = step.past[static_cast<std::size_t>(entry)];
    if (!shared) {
      if (past.given()) copy(context, tokens_of(before, 0, first), tokens_of(place, 0, first));
      clear(context, tokens_of(place, first + length, room - first - length));
    }
    const numattn_tensor target = tokens_of(place, first, length);
    if (!keys || !rotary_) return copy(context, fresh, target);
    turn(context, step, fresh, target, step.positions.data() + entry * length);
  };
  const numattn_tensor before = past.given() ? tensor_of(past, "past") : numattn_tensor{};
  const auto& pasts = step.past;
  if (std::adjacent_find(pasts.begin(), pasts.end(), std::not_equal_to<>()) == pasts.end()) {
    if (batch > 0) one(present, tokens, 0, before);
  } else {
    for (std::int64_t entry = 0; entry < batch; ++entry) {
      one(entry_of(present, entry), entry_of(tokens, entry), entry, entry_of(before, entry));
    }
  }
  return present;
}

void GroupQueryAttention::run(Context& context) const {
  static constexpr const char* kRefused[] = {"k_scale", "v_scale", "q_norm_weight", "k_norm_weight",
                                             "query_seqlens"};
  for (std::size_t i = 0; i < std::size(kRefused); ++i) {
    if (context.input(12 + i).given()) refuse(std::string(kRefused[i]) + " is not implemented");
  }
  Step step = step_of(context);
  const std::int64_t before =
      past_length({context.input(3), context.input(4)}, {step.key, step.value});
  for (const std::int64_t past : step.past) {
    if (past > before) {
      refuse("seqlens_k says " + std::to_string(past) +
             " tokens before the new ones; past_key has " + std::to_string(before));
    }
  }
  numattn_attention_args args = context.attention_args();
  args.k = tokens_of(store(context, step, 0, step.key), 0, step.total);
  args.v = tokens_of(store(context, step, 1, step.value), 0, step.total);
  args.q = step.query;
  const std::int64_t batch = args.q.shape[0], length = args.q.shape[2], width = args.q.shape[3];
  if (rotary_) {
    const std::int64_t bytes = batch * heads_ * length * width * args.q.strides[3];
    args.q = new_heads(context.scratch(bytes), args.q.dtype, batch, heads_, length, width);
    turn(context, step, step.query, args.q, step.positions.data());
  }
  args.q_offset = {step.past.data(), batch};
  args.kv_lens = {step.totals.data(), batch};
  args.is_causal = causal_ ? 1 : 0;
  args.has_window = window_ != -1 ? 1 : 0;
  args.window_left = window_ - 1;  // the token itself is one of the window
  args.window_right = -1;
  args.has_scale = scale_ != 0 ? 1 : 0;
  args.scale = static_cast<double>(scale_);
  args.softcap = static_cast<double>(softcap_);
  if (const Array bias = context.input(10); bias.given()) {
    args.bias = tensor_of(bias, "attention_bias");
  }
  std::vector<float> sinks;
  if (const Array sink = context.input(11); sink.given()) {
    check_shape(sink, {heads_}, "head_sink");
    sinks = floats_of(sink, "head_sink");
  } else if (smooth_) {
    sinks.assign(static_cast<std::size_t>(heads_), 0.0f);
  }
  if (!sinks.empty()) args.sinks = numattn_contiguous(sinks.data(), NUMATTN_FLOAT32, 1, &heads_);
  const Array result = context.output(0, {batch, length, heads_ * width});
  args.out = heads_of(result, heads_, "output");
  context.attend(args);
}

constexpr Slot kInputs[] = {
    {Type::kElement, kRequired}, {Type::kElement, kOptional}, {Type::kElement, kOptional},
    {Type::kElement, kOptional}, {Type::kElement, kOptional}, {Type::kInt32, kRequired},
    {Type::kInt32, kRequired},   {Type::kElement, kOptional}, {Type::kElement, kOptional},
    {Type::kInt64, kOptional},   {Type::kElement, kOptional}, {Type::kElement, kOptional},
    {Type::kAny, kOptional},     {Type::kAny, kOptional},     {Type::kElement, kOptional},
    {Type::kElement, kOptional}, {Type::kInt32, kOptional}};

std::unique_ptr<Kernel> make(const Info& info) {
  return std::make_unique<GroupQueryAttention>(info);
}

}  // namespace

const Operator kGroupQueryAttention = operator_of("GroupQueryAttention", kInputs, kResults, make);

}  // namespace numattn::onnxruntime
