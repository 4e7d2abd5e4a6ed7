// A failed expectation is counted and printed with its values; main() returns the count.
#pragma once

#include <cstdio>
#include <cstdlib>

inline int failures = 0;
inline int expectations = 0;

template <class... Values>
void expect(bool holds, const char* format, Values... values) {
  ++expectations;
  if (holds) return;
  ++failures;
  std::printf("failed: ");
  if constexpr (sizeof...(values) == 0) {
    std::fputs(format, stdout);
  } else {
    std::printf(format, values...);
  }
  std::printf("\n");
}

inline int report() {
  std::printf("%d expectations, %d failures\n", expectations, failures);
  return failures == 0 && expectations > 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
