// The floating-point state of a thread that our bits are promised for: rounding to nearest, subnormal numbers
// as they are, no traps. What a caller or a library set instead comes back at the end of the scope.
#pragma once

#include <cstdint>

#if defined(__SSE__) || defined(__x86_64__)
#include <xmmintrin.h>
#elif !defined(__aarch64__)
#include <cfenv>
#endif

namespace pysdk {

class FloatState {
 public:
  FloatState() { enter(); }
  ~FloatState() { leave(); }
  FloatState(const FloatState&) = delete;
  FloatState& operator=(const FloatState&) = delete;

 private:
#if defined(__SSE__) || defined(__x86_64__)
  // as processes start: every exception masked, no flush-to-zero, no denormals-are-zero
  static constexpr unsigned kStandard = 0x1f80;

  void enter() {
    before_ = _mm_getcsr();
    _mm_setcsr(kStandard);
  }
  void leave() { _mm_setcsr(before_); }

  unsigned before_ = 0;
#elif defined(__aarch64__)
  void enter() {
    asm volatile("mrs %0, fpcr" : "=r"(before_));
    asm volatile("msr fpcr, %0" : : "r"(std::uint64_t{0}) : "memory");
  }
  void leave() { asm volatile("msr fpcr, %0" : : "r"(before_) : "memory"); }

  std::uint64_t before_ = 0;
#else  // what C can say: no word on subnormal numbers
  void enter() {
    std::feholdexcept(&before_);
    std::fesetround(FE_TONEAREST);
  }
  void leave() { std::fesetenv(&before_); }

  std::fenv_t before_{};
#endif
};

}  // namespace pysdk
