// Compiled once per instruction set with PYSDK_ISA defined; everything but `kernels` has internal linkage.
#include "chain/kernels.h"

#include <cstring>

#include "noise/normal.h"

namespace pysdk {
namespace {

// coefficient * value terms summed block-wise; the compiler vectorises each loop.
class BlockSum {
 public:
  BlockSum(float* out, std::size_t count) : out_(out), count_(count) {}

  void add(float coefficient, const float* __restrict value) {
    if (coefficient == 0.0f) return;
    float* __restrict out = out_;
    if (empty_) {
      for (std::size_t i = 0; i < count_; ++i) out[i] = first_term(coefficient, value[i]);
    } else {
      for (std::size_t i = 0; i < count_; ++i) out[i] = next_term(out[i], coefficient, value[i]);
    }
    empty_ = false;
  }

  void finish() {
    if (empty_) std::memset(out_, 0, count_ * sizeof(float));
  }

 private:
  float* out_;
  std::size_t count_;
  bool empty_ = true;
};

void scale(const float* in, float c, std::size_t count, float* out) {
  BlockSum sum(out, count);
  sum.add(c, in);
  sum.finish();
}

void fill_normal(NoiseKey key, std::size_t count, float* out) {
  const std::size_t whole = count / kNormalLanes * kNormalLanes;
  fill_normal_padded(key, 0, whole, out);
  if (whole == count) return;
  float tail[kNormalLanes];
  fill_normal_padded(key, whole, count - whole, tail);
  std::memcpy(out + whole, tail, (count - whole) * sizeof(float));
}

void estimate(const RowTask& task, std::size_t first, std::size_t count, float* r) {
  const float* f = task.f + first;
  float blended[kBlock];
  if (task.f_uncond != nullptr && task.guidance == 0.0f) {
    f = task.f_uncond + first;
  } else if (task.f_uncond != nullptr && task.guidance != 1.0f) {  // w = 1 is the chain without guidance
    const float* uncond = task.f_uncond + first;
    for (std::size_t i = 0; i < count; ++i) blended[i] = guided(f[i], uncond[i], task.guidance);
    f = blended;
  }
  BlockSum sum(r, count);
  sum.add(task.row.p, task.x + first);
  sum.add(task.row.q, f);
  if (task.gradient != nullptr && task.classifier_scale != 0.0f) {  // scale 0 is the chain without classifier
    const float* gradient = task.gradient + first;
    for (std::size_t i = 0; i < count; ++i) blended[i] = f32::mul(task.classifier_scale, gradient[i]);
    sum.add(task.row.grad, blended);
  }
  sum.finish();
}

// D = clip(r); returns where D lies.
const float* clip(const RowTask& task, const float* __restrict r, std::size_t count, float* __restrict out) {
  switch (task.clip) {
    case ClipKind::kClamp:
      for (std::size_t i = 0; i < count; ++i) out[i] = clamp_clip(r[i], task.clip_limit);
      return out;
    case ClipKind::kDynamic:
      for (std::size_t i = 0; i < count; ++i) out[i] = dynamic_clip(r[i], task.threshold);
      return out;
    case ClipKind::kNone:
      break;
  }
  return r;
}

void add_noise(const RowTask& task, std::size_t first, std::size_t count, BlockSum& sum) {
  if (task.row.s == 0.0f) return;
  float z[kBlock];
  const float* noise = task.noise != nullptr ? task.noise + first : z;
  if (task.noise == nullptr) fill_normal_padded(task.key, first, count, z);
  if (task.learned_variance) {
    const float* v = task.v + first;
    for (std::size_t i = 0; i < count; ++i) {
      z[i] = learned_noise(v[i], noise[i], task.row.log_beta, task.row.log_beta_tilde);
    }
    noise = z;
  }
  sum.add(task.row.s, noise);
}

// Where the mask says so, next = known * image + known_noise * z (Lugmayr et al. 2022, eq. 8a and 8c).
void keep_known(const RowTask& task, std::size_t first, std::size_t count, float* __restrict next) {
  if (task.known == nullptr) return;
  float z[kBlock];
  float noised[kBlock];
  const float* noise = task.known_noise != nullptr ? task.known_noise + first : z;
  if (task.row.known_noise != 0.0f && task.known_noise == nullptr) {
    fill_normal_padded(task.known_key, first, count, z);
  }
  BlockSum sum(noised, count);
  sum.add(task.row.known, task.known + first);
  sum.add(task.row.known_noise, noise);
  sum.finish();
  const std::uint8_t* __restrict keep = task.keep + first;
  for (std::size_t i = 0; i < count; ++i) next[i] = keep[i] != 0 ? noised[i] : next[i];
}

void update(const RowTask& task, std::size_t first, std::size_t count) {
  const Row& row = task.row;
  const bool estimates = row.skip == 0.0f;
  float* x = task.x + first;
  float* d1 = task.d1 + first;
  float r[kBlock];
  float clipped[kBlock];
  float next[kBlock];
  const float* raw = task.raw != nullptr ? task.raw + first : r;
  const float* d = nullptr;  // b and h are 0 where there is no estimate
  if (estimates) {
    if (task.raw == nullptr) estimate(task, first, count, r);
    d = clip(task, raw, count, clipped);
  }

  BlockSum sum(next, count);
  sum.add(row.a, x);
  sum.add(row.b, d);
  sum.add(row.h, raw);
  sum.add(row.c1, d1);
  if (task.d2 != nullptr) sum.add(row.c2, task.d2 + first);
  if (task.y != nullptr) sum.add(row.g, task.y + first);
  add_noise(task, first, count, sum);
  sum.finish();
  keep_known(task, first, count, next);

  const std::size_t bytes = count * sizeof(float);
  if (task.y != nullptr && row.save != 0.0f) std::memcpy(task.y + first, x, bytes);
  if (estimates && task.d2 != nullptr) std::memcpy(task.d2 + first, d1, bytes);
  if (estimates) std::memcpy(d1, d, bytes);
  std::memcpy(x, next, bytes);
  if (task.input != nullptr) scale(next, task.next_c_in, count, task.input + first);
  if (task.input_uncond != nullptr) scale(next, task.next_c_in, count, task.input_uncond + first);
}

void exp_all(const float* in, std::size_t count, float* out) {
  for (std::size_t i = 0; i < count; ++i) out[i] = f32::exp(in[i]);
}

}  // namespace

namespace PYSDK_ISA {
extern const Kernels kernels;
const Kernels kernels{fill_normal, scale, estimate, update, exp_all};
}  // namespace PYSDK_ISA

}  // namespace pysdk
