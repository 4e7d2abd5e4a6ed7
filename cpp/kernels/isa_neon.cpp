// Kernels for NEON, which every 64-bit ARM processor has.
#include "vec/neon.h"

#include "table.h"

namespace numattn {

const Kernels& kernels_neon() noexcept {
  static constexpr Kernels table = make_kernels("neon");
  return table;
}

}  // namespace numattn
