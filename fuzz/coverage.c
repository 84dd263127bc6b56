/* Coverage of C and C++ that GCC compiled with -fsanitize-coverage=trace-pc, in the form that libFuzzer reads: one counter for each
   place, found by a hash of its address. */

#include <stdint.h>

#define COUNTERS (1u << 16)

__attribute__((section("__libfuzzer_extra_counters"), used)) static uint8_t counters[COUNTERS];

void __sanitizer_cov_trace_pc(void) {
    uintptr_t place = (uintptr_t)__builtin_return_address(0);
    counters[((place >> 1) ^ (place >> 17)) % COUNTERS]++;
}
