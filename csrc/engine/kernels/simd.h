// Sixteen float lanes under one name on every instruction set: one AVX-512 register, two of AVX2, or an array
// that the compiler spreads over what it has. Every operation rounds once per lane, so all builds give the
// same bits.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "engine/kernels.h"

#if defined(__AVX512F__) || (defined(__AVX2__) && defined(__FMA__))
#include <immintrin.h>
#endif

// Each instruction set's build has its own copy of everything below.
namespace pysdk::engine::PYSDK_ISA {

#if defined(__AVX512F__)

using Floats = __m512;

inline Floats load(const float* p) { return _mm512_loadu_ps(p); }
inline void store(float* p, Floats x) { _mm512_storeu_ps(p, x); }
inline Floats all(float x) { return _mm512_set1_ps(x); }
inline Floats add(Floats a, Floats b) { return _mm512_add_ps(a, b); }
inline Floats sub(Floats a, Floats b) { return _mm512_sub_ps(a, b); }
inline Floats mul(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
inline Floats div(Floats a, Floats b) { return _mm512_div_ps(a, b); }
inline Floats fma(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }    // a b + c
inline Floats fnma(Floats a, Floats b, Floats c) { return _mm512_fnmadd_ps(a, b, c); }  // c - a b
inline Floats min(Floats a, Floats b) { return _mm512_min_ps(a, b); }                   // b if either is NaN
inline Floats max(Floats a, Floats b) { return _mm512_max_ps(a, b); }
inline Floats round(Floats x) {
  return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
// 2^x for whole x in [-126, 127], infinity for 128
inline Floats exp2_whole(Floats x) {
  return _mm512_castsi512_ps(
      _mm512_slli_epi32(_mm512_add_epi32(_mm512_cvtps_epi32(x), _mm512_set1_epi32(127)), 23));
}
// keeps a loaded value in its register; g++ would otherwise read it again for every use
inline void pin(Floats& x) { asm("" : "+v"(x)); }

#elif defined(__AVX2__) && defined(__FMA__)

struct Floats {
  __m256 a, b;
};

inline Floats load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline void store(float* p, Floats x) {
  _mm256_storeu_ps(p, x.a);
  _mm256_storeu_ps(p + 8, x.b);
}
inline Floats all(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
inline Floats add(Floats x, Floats y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
inline Floats sub(Floats x, Floats y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
inline Floats mul(Floats x, Floats y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
inline Floats div(Floats x, Floats y) { return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }
inline Floats fma(Floats x, Floats y, Floats z) {
  return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
}
inline Floats fnma(Floats x, Floats y, Floats z) {
  return {_mm256_fnmadd_ps(x.a, y.a, z.a), _mm256_fnmadd_ps(x.b, y.b, z.b)};
}
inline Floats min(Floats x, Floats y) { return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)}; }
inline Floats max(Floats x, Floats y) { return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }
inline Floats round(Floats x) {
  constexpr int kMode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return {_mm256_round_ps(x.a, kMode), _mm256_round_ps(x.b, kMode)};
}
inline Floats exp2_whole(Floats x) {
  const auto half = [](__m256 v) {
    return _mm256_castsi256_ps(
        _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(v), _mm256_set1_epi32(127)), 23));
  };
  return {half(x.a), half(x.b)};
}
inline void pin(Floats& x) { asm("" : "+x"(x.a), "+x"(x.b)); }

#else

struct Floats {
  float lane[kLanes];
};

template <class Function>
inline Floats each(Function function) {
  Floats out;
  for (std::size_t i = 0; i < kLanes; ++i) out.lane[i] = function(i);
  return out;
}
inline Floats load(const float* p) {
  Floats out;
  std::memcpy(out.lane, p, sizeof out.lane);
  return out;
}
inline void store(float* p, const Floats& x) { std::memcpy(p, x.lane, sizeof x.lane); }
inline Floats all(float x) {
  return each([=](std::size_t) { return x; });
}
inline Floats add(const Floats& x, const Floats& y) {
  return each([&](std::size_t i) { return x.lane[i] + y.lane[i]; });
}
inline Floats sub(const Floats& x, const Floats& y) {
  return each([&](std::size_t i) { return x.lane[i] - y.lane[i]; });
}
inline Floats mul(const Floats& x, const Floats& y) {
  return each([&](std::size_t i) { return x.lane[i] * y.lane[i]; });
}
inline Floats div(const Floats& x, const Floats& y) {
  return each([&](std::size_t i) { return x.lane[i] / y.lane[i]; });
}
inline Floats fma(const Floats& x, const Floats& y, const Floats& z) {
  return each([&](std::size_t i) { return std::fma(x.lane[i], y.lane[i], z.lane[i]); });
}
inline Floats fnma(const Floats& x, const Floats& y, const Floats& z) {
  return each([&](std::size_t i) { return std::fma(-x.lane[i], y.lane[i], z.lane[i]); });
}
inline Floats min(const Floats& x, const Floats& y) {
  return each([&](std::size_t i) { return x.lane[i] < y.lane[i] ? x.lane[i] : y.lane[i]; });
}
inline Floats max(const Floats& x, const Floats& y) {
  return each([&](std::size_t i) { return x.lane[i] > y.lane[i] ? x.lane[i] : y.lane[i]; });
}
inline Floats round(const Floats& x) {
  return each([&](std::size_t i) { return std::nearbyint(x.lane[i]); });
}
inline Floats exp2_whole(const Floats& x) {
  return each([&](std::size_t i) {
    const std::uint32_t bits = static_cast<std::uint32_t>(static_cast<std::int32_t>(x.lane[i]) + 127) << 23;
    float out;
    std::memcpy(&out, &bits, sizeof out);
    return out;
  });
}
inline void pin(Floats&) {}

#endif

inline Floats zero() { return all(0.0f); }

}  // namespace pysdk::engine::PYSDK_ISA
