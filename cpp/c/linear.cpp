// Packed projections.
#include "numattn/linear.h"

#include "arguments.h"

struct numattn_linear {
  numattn::PackedLinear packed;
};

namespace numattn::c {
namespace {

// What the structure had in version 0.1.0, the first one.
constexpr std::size_t kFirstSize = offsetof(numattn_linear_args, interrupt_context) + sizeof(void*);

View matrix_of(const numattn_tensor& tensor, const char* name) {
  const View view = view_of(tensor, name);
  if (view.rank != 2) {
    refuse(name, "must have 2 dimensions, not " + std::to_string(view.rank));
  }
  return view;
}

Storage storage_of(int32_t storage) {
  if (storage == NUMATTN_W8A8) return Storage::kW8A8;
  if (storage < 0 || storage >= kDTypeCount) {
    refuse("storage", "is the unknown dtype " + std::to_string(storage));
  }
  return parse_storage(dtype_name(static_cast<DType>(storage)));
}

std::string activation_name(int32_t activation) {
  static constexpr const char* kNames[] = {"", "relu", "gelu", "gelu_tanh", "silu"};
  return choice(activation, "activation", kNames);
}

}  // namespace
}  // namespace numattn::c

using namespace numattn::c;

extern "C" numattn_status numattn_linear_create(const numattn_tensor* weight,
                                                const numattn_tensor* bias, int32_t storage,
                                                int32_t precision, numattn_linear** linear) {
  return guarded([&] {
    if (linear == nullptr) refuse("linear", "must not be NULL");
    *linear = nullptr;
    if (weight == nullptr) refuse("weight", "must not be NULL");
    const numattn::View view = view_of(*weight, "weight");
    std::optional<numattn::View> numbers;
    if (bias != nullptr) numbers = optional_floats(*bias, "bias");
    *linear = new numattn_linear{
        {view, numbers, storage_of(storage), numattn::parse_precision(precision_name(precision))}};
    return numattn_status{NUMATTN_OK};
  });
}

extern "C" void numattn_linear_destroy(numattn_linear* linear) { delete linear; }

extern "C" numattn_status numattn_linear_run(const numattn_linear* linear,
                                             const numattn_linear_args* args) {
  return guarded([&] {
    if (linear == nullptr) refuse("linear", "must not be NULL");
    const numattn_linear_args own = args_of(args, kFirstSize);
    numattn::PackedLinear::Call call;
    call.x = matrix_of(own.x, "x");
    call.output = matrix_of(own.out, "out");
    call.factor = optional_view(own.factor, "factor");
    if (own.factor_layer != nullptr) call.factor_layer = &own.factor_layer->packed;
    call.residual = optional_view(own.residual, "residual");
    call.activation = activation_name(own.activation);
    call.num_threads = own.num_threads;
    const Interruptible interruptible(own.interrupt, own.interrupt_context);
    return finished_or_interrupted(linear->packed.run(call, interruptible.check()));
  });
}
