// Picks among builds of the same kernels for several instruction sets. All give the same bits; only the speed
// differs.
#pragma once

#include <cstdlib>
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <string_view>

namespace pysdk {

// Whether this CPU runs code built for an instruction set: "avx512", "avx2" or "baseline".
inline bool cpu_runs([[maybe_unused]] std::string_view isa) {
#if defined(PYSDK_X86_KERNELS)
  if (isa == "avx512") {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  }
  if (isa == "avx2") return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
  return isa == "baseline";
}

// The first that runs here, or the one that the environment variable PYSDK_ISA names. Kernels has a member
// `isa`.
template <class Kernels>
const Kernels& choose_kernels(std::initializer_list<const Kernels*> best_first) {
  const char* wanted = std::getenv("PYSDK_ISA");
  const bool any = wanted == nullptr || *wanted == '\0';
  std::string known;
  for (const Kernels* candidate : best_first) {
    if (!cpu_runs(candidate->isa)) continue;
    if (any || wanted == std::string_view(candidate->isa)) return *candidate;
    known += known.empty() ? candidate->isa : std::string(", ") + candidate->isa;
  }
  throw std::runtime_error("PYSDK_ISA is '" + std::string(wanted) + "'; this machine and build have " +
                           known + "; unset it to use the best one");
}

}  // namespace pysdk
