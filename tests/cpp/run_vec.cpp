// Runs test_vec.cpp where the processor has its instructions; built without them.
#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include "numattn/isa.h"

namespace numattn {
int compare_vec();
}

int main() {
  constexpr int kSkipped = 77;  // as tests/cpp/CMakeLists.txt tells ctest
  const std::vector<std::string> available = numattn::available_isas();
  if (std::find(available.begin(), available.end(), NUMATTN_ISA) == available.end()) {
    std::puts("this processor does not have " NUMATTN_ISA);
    return kSkipped;
  }
  return numattn::compare_vec();
}
