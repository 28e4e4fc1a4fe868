// The arithmetic of one row, per element, on host and device. Equations in docs/architecture.md.
#pragma once

#include "noise/float32.h"

namespace pysdk {

enum class ClipKind { kNone, kClamp, kDynamic };

// A sum of coefficient * value runs left to right: zero coefficients are skipped, no terms make 0.
PYSDK_INLINE float first_term(float coefficient, float value) { return f32::mul(coefficient, value); }

PYSDK_INLINE float next_term(float sum, float coefficient, float value) {
  return f32::add(sum, f32::mul(coefficient, value));
}

// Classifier-free guidance: f_u + w * (f_c - f_u).
PYSDK_INLINE float guided(float conditional, float unconditional, float w) {
  return f32::add(unconditional, f32::mul(w, f32::sub(conditional, unconditional)));
}

// Clamp to [-limit, limit].
PYSDK_INLINE float clamp_clip(float r, float limit) { return f32::clamp(r, -limit, limit); }

// Dynamic thresholding (Saharia et al. 2022, Imagen): clamp to the image's threshold, then scale back to [-1,
// 1].
PYSDK_INLINE float dynamic_clip(float r, float threshold) {
  return f32::div(f32::clamp(r, -threshold, threshold), threshold);
}

// The threshold from the two order statistics of |r| around the quantile; NaN passes through.
PYSDK_INLINE float dynamic_threshold(float low, float high, float fraction, float max_threshold) {
  const float q = f32::add(low, f32::mul(fraction, f32::sub(high, low)));
  const float floored = q < 1.0f ? 1.0f : q;
  return floored > max_threshold ? max_threshold : floored;
}

// exp(0.5 * (l*log_beta + (1-l)*log_beta_tilde)) * z with l = (v+1) * 0.5 (Nichol & Dhariwal 2021, eq. 15).
PYSDK_INLINE float learned_noise(float v, float z, float log_beta, float log_beta_tilde) {
  const float l = f32::mul(f32::add(v, 1.0f), 0.5f);
  const float mixed = f32::add(f32::mul(l, log_beta), f32::mul(f32::sub(1.0f, l), log_beta_tilde));
  return f32::mul(f32::exp(f32::mul(0.5f, mixed)), z);
}

}  // namespace pysdk
