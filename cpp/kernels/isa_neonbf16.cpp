// Kernels for NEON with BF16: those of NEON, and bfloat16 products by BFMMLA.
#include "vec/neonbf16.h"

#include "table.h"

#include "square_pair_tile.h"

#include "pair_table.h"

namespace numattn {

const Kernels& kernels_neonbf16() {
  static constexpr Kernels table = with_pairs(make_kernels("neonbf16"));
  return table;
}

}  // namespace numattn
