// Kernels for NEON with BF16: those of NEON, and bfloat16 products by BFMMLA.
#include "vec/neonbf16.h"

#include "square_pair_tile.h"

#include "pair_table.h"

namespace numattn {

const Kernels& kernels_neon() noexcept;

const Kernels& kernels_neonbf16() noexcept {
  static const Kernels table = with_pairs<kernels_neon>("neonbf16");
  return table;
}

}  // namespace numattn
