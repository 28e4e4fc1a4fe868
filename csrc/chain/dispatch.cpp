// Picks the kernels once per process. Every set gives the same bits; only the speed differs.
#include <cstdlib>
#include <stdexcept>
#include <string>

#include "chain/kernels.h"

namespace pysdk {

namespace baseline {
extern const Kernels kernels;
}

#if defined(PYSDK_X86_KERNELS)
namespace avx2 {
extern const Kernels kernels;
}
namespace avx512 {
extern const Kernels kernels;
}
#endif

namespace {

bool runs_here(const Kernels& kernels) {
#if defined(PYSDK_X86_KERNELS)
  if (&kernels == &avx512::kernels) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  }
  if (&kernels == &avx2::kernels) return __builtin_cpu_supports("avx2");
#endif
  return &kernels == &baseline::kernels;
}

const Kernels& choose() {
  const Kernels* const all[] = {
#if defined(PYSDK_X86_KERNELS)
      &avx512::kernels,
      &avx2::kernels,
#endif
      &baseline::kernels,
  };
  const char* wanted = std::getenv("PYSDK_ISA");
  if (wanted == nullptr || *wanted == '\0') {
    for (const Kernels* candidate : all) {
      if (runs_here(*candidate)) return *candidate;
    }
  }
  std::string known;
  for (const Kernels* candidate : all) {
    if (!runs_here(*candidate)) continue;
    if (wanted == std::string(candidate->isa)) return *candidate;
    known += known.empty() ? candidate->isa : std::string(", ") + candidate->isa;
  }
  throw std::runtime_error("PYSDK_ISA is '" + std::string(wanted) + "'; this machine and build have " +
                           known + "; unset it to use the best one");
}

}  // namespace

const Kernels& kernels() {
  static const Kernels& chosen = choose();
  return chosen;
}

}  // namespace pysdk
