// numattn_rope: arguments in, the checked call run.
#include "numattn/rope.h"

#include "arguments.h"

namespace numattn::c {
namespace {

// What the structure had in version 0.1.0, the first one.
constexpr std::size_t kFirstSize = offsetof(numattn_rope_args, parallel_context) + sizeof(void*);

// (S) or (B, S), as many as there are; of another count an array that is refused by its shape.
PositionArray positions_of(const numattn_ints& numbers, const View& x, Layout layout) {
  const IntArray given = int_array(numbers, "positions");
  const auto axis = static_cast<std::size_t>(x.rank - (layout == Layout::kBhsd ? 2 : 3));
  const std::int64_t length = x.rank >= 3 ? x.shape[axis] : 0;
  PositionArray positions{given.data, 1, {given.size, 0}};
  if (x.rank == 4 && given.size != length && given.size == x.shape[0] * length) {
    positions = {given.data, 2, {x.shape[0], length}};
  }
  return positions;
}

}  // namespace
}  // namespace numattn::c

using namespace numattn::c;

extern "C" numattn_status numattn_rope(const numattn_rope_args* args) {
  return guarded([&] {
    const numattn_rope_args own = args_of(args, kFirstSize);
    numattn::RopeParams params;
    params.x = view_of(own.x, "x");
    params.cos = view_of(own.cos, "cos");
    params.sin = view_of(own.sin, "sin");
    params.output = view_of(own.out, "out");
    params.layout = numattn::parse_layout(layout_name(own.layout));
    if (own.positions.data != nullptr || own.positions.count != 0) {
      params.positions = positions_of(own.positions, params.x, params.layout);
    }
    params.interleaved = own.interleaved != 0;
    params.num_threads = own.num_threads;
    const OnCallersThreads on_threads(own.parallel, own.parallel_context, own.interrupt);
    const Interruptible interruptible(own.interrupt, own.interrupt_context);
    return finished_or_interrupted(numattn::run_rope(params, interruptible.check()));
  });
}
