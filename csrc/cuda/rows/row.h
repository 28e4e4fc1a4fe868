// One row of the table on the device, per group of four elements: the bodies of the kernels, host + device.
// The arithmetic is that of chain/kernels.cpp, and so are the bits.
#pragma once

#include "cuda/rows/quad.h"
#include "noise/philox.h"

namespace pysdk::cuda {

// Foreign noise, or that of a draw.
PYSDK_INLINE Quad noise_of(const Task& task, const Group& group, const float* foreign, std::uint32_t draw) {
  if (foreign != nullptr) return load(foreign + group.image * task.image + group.first, group);
  return normals({task.seeds[group.image], task.images[group.image], draw}, group.index);
}

PYSDK_INLINE void store_input(const Task& task, const Group& group, float c_in, const Quad& x) {
  const std::uint64_t at = group.image * task.image + group.first;
  const Quad input = scaled(c_in, x);
  store(task.input + at, input, group);
  if (task.guided) store(task.input + task.batch * task.image + at, input, group);
}

// x and the first network input; clears the estimates.
PYSDK_INLINE void start_group(const Task& task, std::uint32_t number) {
  const Group group = group_at(task, number);
  const std::uint64_t at = group.image * task.image + group.first;
  const Quad x = task.initial != nullptr
                     ? load(task.initial + at, group)
                     : scaled(task.init_scale, noise_of(task, group, task.noise, kInitial));
  store(task.x + at, x, group);
  store(task.d1 + at, Quad{}, group);
  if (task.d2 != nullptr) store(task.d2 + at, Quad{}, group);
  if (task.y != nullptr) store(task.y + at, Quad{}, group);
  store_input(task, group, task.rows[0].c_in, x);
  if (number == 0) task.time[0] = task.rows[0].t;
}

// r of a row that calls the network.
PYSDK_INLINE Quad estimate_group(const Task& task, const Row& row, const Group& group, const Quad& x) {
  const float* f = task.output_tensor + group.image * task.output + group.first;
  QuadSum sum;
  sum.add(row.p, x);
  if (row.q != 0.0f) {
    const bool is_guided = task.guided && row.unguided == 0.0f;
    const float w = is_guided ? task.guidance[group.image] : 1.0f;
    const float* f_uncond = f + task.batch * task.output;
    if (w == 1.0f) {  // the chain without guidance
      sum.add(row.q, load(f, group));
    } else if (w == 0.0f) {
      sum.add(row.q, load(f_uncond, group));
    } else {
      Quad blended = load(f, group);
      const Quad uncond = load(f_uncond, group);
      for (int i = 0; i < 4; ++i) blended.v[i] = guided(blended.v[i], uncond.v[i], w);
      sum.add(row.q, blended);
    }
  }
  return sum.total;
}

PYSDK_INLINE Quad clip_group(const Task& task, const Group& group, Quad r) {
  if (task.clip == ClipKind::kClamp) {
    for (int i = 0; i < 4; ++i) r.v[i] = clamp_clip(r.v[i], task.clip_limit);
  } else if (task.clip == ClipKind::kDynamic) {
    const float threshold = task.threshold[group.image];
    for (int i = 0; i < 4; ++i) r.v[i] = dynamic_clip(r.v[i], threshold);
  }
  return r;
}

// Where the mask says so, next = known * image + known_noise * z.
PYSDK_INLINE void keep_group(const Task& task, const Row& row, const Group& group, std::uint32_t position,
                             Quad& next) {
  if (row.known == 0.0f && row.known_noise == 0.0f) return;
  const std::uint64_t at = group.image * task.image + group.first;
  QuadSum sum;
  sum.add(row.known, task.known + at, group);
  if (row.known_noise != 0.0f) {
    sum.add(row.known_noise, noise_of(task, group, task.known_noise, kKnown + position));
  }
  for (std::int32_t i = 0; i < group.count; ++i) {
    if (task.keep[at + i] != 0) next.v[i] = sum.total.v[i];
  }
}

PYSDK_INLINE void snapshot_group(const Task& task, std::uint64_t at, const Group& group,
                                 std::uint32_t position, const Quad& x, const Quad& denoised) {
  if (task.every == 0) return;
  const std::int32_t done = static_cast<std::int32_t>(position) + 1;
  if (done % task.every != 0 && done != task.length) return;
  const std::uint64_t slot = ((done + task.every - 1) / task.every - 1) % task.slots;
  const std::uint64_t to = slot * task.batch * task.image + at;
  store(task.ring_x + to, x, group);
  store(task.ring_denoised + to, denoised, group);
}

// The whole row: estimate, clip, combination, noise, known region, and the next network input.
PYSDK_INLINE void update_group(const Task& task, std::uint32_t position, std::uint32_t number) {
  const Group group = group_at(task, number);
  const std::uint64_t at = group.image * task.image + group.first;
  const Row& row = task.rows[position];
  const bool estimates = row.skip == 0.0f;
  const Quad x = load(task.x + at, group);
  const Quad d1 = load(task.d1 + at, group);
  Quad r{}, denoised = d1;
  if (estimates) {
    r = task.clip == ClipKind::kDynamic ? load(task.raw + at, group) : estimate_group(task, row, group, x);
    denoised = clip_group(task, group, r);
  }
  QuadSum sum;
  sum.add(row.a, x);
  sum.add(row.b, denoised);
  sum.add(row.h, r);
  sum.add(row.c1, d1);
  if (task.d2 != nullptr) sum.add(row.c2, task.d2 + at, group);
  if (task.y != nullptr) sum.add(row.g, task.y + at, group);
  if (row.s != 0.0f) {
    Quad z = noise_of(task, group, task.noise, kFirstRow + position);
    if (task.learned_variance && estimates) {
      const Quad v = load(task.output_tensor + group.image * task.output + task.image + group.first, group);
      for (int i = 0; i < 4; ++i) z.v[i] = learned_noise(v.v[i], z.v[i], row.log_beta, row.log_beta_tilde);
    }
    sum.add(row.s, z);
  }
  Quad next = sum.total;
  keep_group(task, row, group, position, next);

  if (task.y != nullptr && row.save != 0.0f) store(task.y + at, x, group);
  if (task.d2 != nullptr && estimates) store(task.d2 + at, d1, group);
  if (estimates) store(task.d1 + at, denoised, group);
  store(task.x + at, next, group);
  snapshot_group(task, at, group, position, next, denoised);
  const std::int32_t done = static_cast<std::int32_t>(position) + 1;
  if (done < task.length) store_input(task, group, task.rows[done].c_in, next);
}

// After a row: counts it, sets the next time, tells the host. Returns whether the loop goes on. One thread.
PYSDK_INLINE bool advance_row(const Task& task, Place& place, Mailbox& mailbox) {
  const std::int32_t position = ++place.position;
  if (position < task.length) task.time[0] = task.rows[position].t;
  mailbox.position = position;
  return position < place.until && !(position % kStopEvery == 0 && mailbox.stop != 0);
}

}  // namespace pysdk::cuda
