// Float32 arithmetic under the contract of docs/architecture.md: every operation rounds on its own, on host
// and device. PYSDK_INLINE marks functions that both compile, PYSDK_METHOD those of a class.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define PYSDK_INLINE static __host__ __device__ __forceinline__
#define PYSDK_METHOD __host__ __device__ __forceinline__
#else
#include <cmath>
#include <cstring>
// Internal linkage: the CPU kernels are compiled once per instruction set and must not share inline
// functions.
#define PYSDK_INLINE static inline __attribute__((always_inline, unused))
#define PYSDK_METHOD inline __attribute__((always_inline))
#endif

namespace pysdk::f32 {

#if defined(__CUDA_ARCH__)
PYSDK_INLINE float mul(float a, float b) { return __fmul_rn(a, b); }
PYSDK_INLINE float add(float a, float b) { return __fadd_rn(a, b); }
PYSDK_INLINE float sub(float a, float b) { return __fsub_rn(a, b); }
PYSDK_INLINE float div(float a, float b) { return __fdiv_rn(a, b); }
PYSDK_INLINE float sqrt(float a) { return __fsqrt_rn(a); }
PYSDK_INLINE float from_int(std::int32_t a) { return __int2float_rn(a); }
PYSDK_INLINE float from_uint(std::uint32_t a) { return __uint2float_rn(a); }
PYSDK_INLINE std::int32_t round_to_int(float a) { return __float2int_rn(a); }
PYSDK_INLINE std::uint32_t bits(float a) { return __float_as_uint(a); }
PYSDK_INLINE float from_bits(std::uint32_t a) { return __uint_as_float(a); }
#else
PYSDK_INLINE float mul(float a, float b) { return a * b; }
PYSDK_INLINE float add(float a, float b) { return a + b; }
PYSDK_INLINE float sub(float a, float b) { return a - b; }
PYSDK_INLINE float div(float a, float b) { return a / b; }
PYSDK_INLINE float sqrt(float a) { return ::sqrtf(a); }
PYSDK_INLINE float from_int(std::int32_t a) { return static_cast<float>(a); }
PYSDK_INLINE float from_uint(std::uint32_t a) { return static_cast<float>(a); }
PYSDK_INLINE std::int32_t round_to_int(float a) { return static_cast<std::int32_t>(__builtin_rintf(a)); }
PYSDK_INLINE std::uint32_t bits(float a) {
  std::uint32_t result;
  __builtin_memcpy(&result, &a, sizeof result);
  return result;
}
PYSDK_INLINE float from_bits(std::uint32_t a) {
  float result;
  __builtin_memcpy(&result, &a, sizeof result);
  return result;
}
#endif

// NaN passes through, unlike with fmin and fmax.
PYSDK_INLINE float clamp(float v, float lo, float hi) { return v < lo ? lo : (v > hi ? hi : v); }

// ln 2 in two parts; the first has 15 significant bits, so its product with an exponent is exact.
constexpr float kLn2High = 0x1.62e4p-1f;
constexpr float kLn2Low = 0x1.7f7d1cp-20f;

// Coefficients below are minimax fits on the interval stated (Lawson-weighted least squares, then rounded to
// float32).

// Natural logarithm of a positive, normal, finite x.
// x = 2^e * (1 + f), 1 + f in [sqrt(1/2), sqrt(2)); log(1 + f) = f - f^2/2 + f^3 P(f).
PYSDK_INLINE float log(float x) {
  constexpr std::uint32_t kSqrtHalf = 0x3f3504f3u;
  const std::uint32_t shifted = bits(x) - kSqrtHalf;
  const float e = from_int(static_cast<std::int32_t>(shifted) >> 23);
  const float f = sub(from_bits((shifted & 0x007fffffu) + kSqrtHalf), 1.0f);
  float p = -0x1.41ee0ap-4f;
  p = add(mul(p, f), 0x1.07d0f0p-3f);
  p = add(mul(p, f), -0x1.0ce07cp-3f);
  p = add(mul(p, f), 0x1.226e4ap-3f);
  p = add(mul(p, f), -0x1.54788ap-3f);
  p = add(mul(p, f), 0x1.99a596p-3f);
  p = add(mul(p, f), -0x1.000220p-2f);
  p = add(mul(p, f), 0x1.55554ap-2f);
  const float f2 = mul(f, f);
  float y = mul(mul(f2, f), p);
  y = add(y, mul(e, kLn2Low));
  y = sub(y, mul(0.5f, f2));
  y = add(y, f);
  return add(y, mul(e, kLn2High));
}

// sin(f * pi/2) for f in [-1/2, 1/2]: f * S(f^2).
PYSDK_INLINE float sin_quarter(float f) {
  const float g = mul(f, f);
  float p = -0x1.2d9bb8p-8f;
  p = add(mul(p, g), 0x1.465ec6p-4f);
  p = add(mul(p, g), -0x1.4abbbap-1f);
  p = add(mul(p, g), 0x1.921fb6p+0f);
  return mul(p, f);
}

// cos(f * pi/2) for f in [-1/2, 1/2]: 1 + f^2 * C(f^2).
PYSDK_INLINE float cos_quarter(float f) {
  const float g = mul(f, f);
  float p = 0x1.db650ep-11f;
  p = add(mul(p, g), -0x1.55cb98p-6f);
  p = add(mul(p, g), 0x1.03c1eap-2f);
  p = add(mul(p, g), -0x1.3bd3ccp+0f);
  return add(mul(p, g), 1.0f);
}

// e^x, saturating at x = -87 and x = 88 so that no result is subnormal or infinite; NaN stays NaN.
// x = n ln 2 + r, |r| <= ln(2)/2; e^r = 1 + r + r^2 Q(r).
PYSDK_INLINE float exp(float x) {
  constexpr float kRound = 0x1.8p+23f;  // adding it leaves round(n) in the low bits of the mantissa
  const float v = clamp(x, -87.0f, 88.0f);
  const float shifted = add(mul(v, 0x1.715476p+0f), kRound);
  const float n = sub(shifted, kRound);
  const float r = sub(sub(v, mul(n, kLn2High)), mul(n, kLn2Low));
  float q = 0x1.6db4e8p-10f;
  q = add(mul(q, r), 0x1.123bdep-7f);
  q = add(mul(q, r), 0x1.55545ep-5f);
  q = add(mul(q, r), 0x1.55548ep-3f);
  q = add(mul(q, r), 0.5f);
  const float y = add(add(mul(mul(q, r), r), r), 1.0f);
  return mul(y, from_bits((bits(shifted) << 23) + 0x3f800000u));
}

}  // namespace pysdk::f32
