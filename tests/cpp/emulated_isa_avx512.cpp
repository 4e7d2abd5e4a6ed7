// Stands in for cpp/kernels/isa_avx512.cpp where NUMATTN_EMULATE_AVX512 is on.
#include "emulated_avx512.h"

#include "table.h"

namespace numattn {

const Kernels& kernels_avx512() noexcept {
  static constexpr Kernels table = make_kernels("avx512");
  return table;
}

}  // namespace numattn
