// Kernels for AMX-BF16: those of AVX-512, and bfloat16 products in the tile unit.
#include "vec/bfloat16.h"

#include "pair_keys.h"
#include "table.h"

#include "amx_tile.h"
#include "int8_tiles.h"

#include "pipeline_table.h"

#include "amx_gemm.h"

namespace numattn {

const Kernels& kernels_amx() {
  static constexpr Kernels table =
      with_strips(with_pipeline(make_kernels<kShortDecodeKeyBlock, PairKeys>("amx")));
  return table;
}

}  // namespace numattn
