// One row over the whole batch: split into blocks of images, shared among threads.
#include <algorithm>
#include <cmath>
#include <limits>

#include "chain/cpu_chain.h"
#include "noise/philox.h"

namespace pysdk {

namespace {

// A fork and join costs 4 to 15 us (2 to 4 threads, measured); from this many elements on, the cheapest row
// without noise (0.4 ns an element) saves as much when it is split in two.
constexpr std::size_t kParallelElements = 32 * 1024;

constexpr std::size_t kElementCost = 8;  // of an update, in multiplications of a network

}  // namespace

RowTask CpuChain::image_task(std::size_t index, std::size_t image) const {
  const StepTable& table = *request_.table;
  const std::size_t size = shape_.image();
  const std::size_t offset = image * size;
  const bool last = index + 1 == table.rows.size();
  const auto at = [offset](const AlignedArray<float>& array) {
    return array.size() == 0 ? nullptr : array.data() + offset;
  };
  RowTask task{};
  task.row = table.rows[index];
  task.next_c_in = last ? 0.0f : table.rows[index + 1].c_in;
  task.clip = table.clip;
  task.clip_limit = table.clip_limit;
  task.learned_variance = table.learned_variance && task.row.skip == 0.0f;
  task.key = {request_.seeds[image], request_.images[image], static_cast<std::uint32_t>(kFirstRow + index)};
  task.f = buffers_->output.data() + image * shape_.output();
  if (shape_.guided && task.row.unguided == 0.0f) {
    task.f_uncond = task.f + static_cast<std::size_t>(shape_.batch) * shape_.output();
    task.guidance = request_.guidance[image];
  }
  if (task.learned_variance) task.v = task.f + size;
  if (task.row.grad != 0.0f) {
    task.gradient = at(buffers_->gradient);
    task.classifier_scale = request_.classifier_scale[image];
  }
  if (keeps_known(task.row)) {
    task.known = request_.known.data() + offset;
    task.keep = request_.keep.data() + offset;
    task.known_key = {request_.seeds[image], request_.images[image],
                      static_cast<std::uint32_t>(kKnown + index)};
    task.known_noise = at(foreign_known_);
  }
  task.noise = at(foreign_noise_);
  task.x = at(buffers_->x);
  task.d1 = at(buffers_->d1);
  task.d2 = at(d2_);
  task.y = at(y_);
  if (!last) {
    task.input = at(buffers_->input);
    if (shape_.guided) task.input_uncond = task.input + shape_.elements();
  }
  return task;
}

// Leaves r of the image in this worker's scratch, points task.raw at it and returns the image's dynamic
// threshold.
float CpuChain::image_threshold(RowTask& task, std::size_t worker) {
  const std::size_t size = shape_.image();
  float* raw = scratch_.data() + worker * 2 * size;
  float* magnitude = raw + size;
  for (std::size_t first = 0; first < size; first += kBlock) {
    kernels().estimate(task, first, std::min(kBlock, size - first), raw + first);
  }
  task.raw = raw;
  bool has_nan = false;
  for (std::size_t i = 0; i < size; ++i) {
    magnitude[i] = std::fabs(raw[i]);
    has_nan |= std::isnan(raw[i]);
  }
  if (has_nan) return std::numeric_limits<float>::quiet_NaN();

  // Two neighbouring order statistics, without sorting the rest.
  const double position = request_.table->clip_ratio * static_cast<double>(size - 1);
  const double floor = std::floor(position);
  const std::size_t low = static_cast<std::size_t>(floor);
  float* const end = magnitude + size;
  std::nth_element(magnitude, magnitude + low, end);
  const float below = magnitude[low];
  const float above = low + 1 < size ? *std::min_element(magnitude + low + 1, end) : below;
  return dynamic_threshold(below, above, static_cast<float>(position - floor), request_.table->clip_max);
}

void CpuChain::run_row(std::size_t index, Watch& watch) {
  const std::size_t size = shape_.image();
  const std::size_t batch = static_cast<std::size_t>(shape_.batch);
  // A dynamic threshold is one number of the whole image, so there a part of the work is an image, else a
  // block.
  const bool by_image =
      request_.table->clip == ClipKind::kDynamic && request_.table->rows[index].skip == 0.0f;
  const std::size_t blocks = by_image ? 1 : (size + kBlock - 1) / kBlock;
  const bool is_long = batch * size >= kLongUpdate;
  const auto work = [&](std::size_t begin, std::size_t end, std::size_t worker) {
    Lookout& lookout = workers_.lookout(worker);
    for (std::size_t item = begin; item < end; ++item) {
      if (is_long && lookout.leave((by_image ? size : kBlock) * kElementCost)) return;
      RowTask task = image_task(index, item / blocks);
      if (by_image) task.threshold = image_threshold(task, worker);
      const std::size_t start = item % blocks * kBlock;
      const std::size_t stop = by_image ? size : std::min(start + kBlock, size);
      for (std::size_t first = start; first < stop; first += kBlock) {
        kernels().update(task, first, std::min(kBlock, stop - first));
      }
    }
  };
  workers_.watch(&watch);
  if (batch * size < kParallelElements) {
    work(0, batch * blocks, 0);
  } else {
    workers_.run(batch * blocks, work);
  }
  if (!is_long || !watch.stopped()) return;
  length_ = 0;  // x is neither that before the row nor that after it
  watch.leave();
}

}  // namespace pysdk
