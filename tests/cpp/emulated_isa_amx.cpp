// Stands in for cpp/kernels/isa_amx.cpp where NUMATTN_EMULATE_AVX512 is on.
#include "emulated_avx512.h"

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
