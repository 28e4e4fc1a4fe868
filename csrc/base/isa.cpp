#include "base/isa.h"

#include <cstdlib>
#include <stdexcept>
#include <string>
#include <string_view>

namespace pysdk {

namespace {

#define PYSDK_QUOTE(isa) #isa,
constexpr std::array kNames{PYSDK_ISAS(PYSDK_QUOTE)};
#undef PYSDK_QUOTE

bool cpu_runs([[maybe_unused]] std::string_view isa) {
#if defined(PYSDK_X86_KERNELS)
  if (isa == "avx512") {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  }
  if (isa == "avx2") return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
  return isa == "baseline";
}

std::size_t choose() {
  const char* wanted = std::getenv("PYSDK_ISA");
  const bool any = wanted == nullptr || *wanted == '\0';
  std::string known;
  for (std::size_t place = 0; place < kNames.size(); ++place) {
    if (!cpu_runs(kNames[place])) continue;
    if (any || wanted == std::string_view(kNames[place])) return place;
    known += (known.empty() ? "" : ", ") + std::string(kNames[place]);
  }
  throw std::runtime_error("PYSDK_ISA is '" + std::string(wanted) + "'; this machine and build have " +
                           known + "; unset it to use the best one");
}

}  // namespace

std::size_t isa_place() {
  static const std::size_t place = choose();
  return place;
}

const char* isa_name() { return kNames[isa_place()]; }

}  // namespace pysdk
