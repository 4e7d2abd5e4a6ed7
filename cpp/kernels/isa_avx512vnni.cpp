// Kernels for AVX-512 with AVX512-VNNI: those of AVX-512, and products of integers by its
// instructions.
#ifndef NUMATTN_VEC  // which lanes; tests have some in software
#define NUMATTN_VEC "vec/bytes.h"
#endif
#include NUMATTN_VEC

#include "integer_table.h"

namespace numattn {

const Kernels& kernels_avx512() noexcept;

const Kernels& kernels_avx512vnni() noexcept {
  static const Kernels table = with_integers<kernels_avx512>("avx512vnni");
  return table;
}

}  // namespace numattn
