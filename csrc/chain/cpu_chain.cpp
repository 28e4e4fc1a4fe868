#include "chain/cpu_chain.h"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <utility>

#include "base/busy.h"
#include "noise/philox.h"

namespace pysdk {

ChainBuffers::ChainBuffers(const ChainShape& shape)
    : input(shape.network_batch() * shape.image()),
      time(1),
      labels(shape.network_batch()),
      output(shape.network_batch() * shape.output()),
      gradient(shape.classifier ? shape.elements() : 0),
      x(shape.elements()),
      d1(shape.elements()) {}

CpuChain::CpuChain(const ChainShape& shape)
    : shape_((shape.validate(), shape)),
      buffers_(std::make_shared<ChainBuffers>(shape)),
      workers_(static_cast<std::size_t>(shape.threads), Spin::kNone) {}

void CpuChain::attach(Networks networks) {
  const Busy busy(busy_);
  check_attached(shape_, networks.conditional != nullptr, networks.classifier != nullptr);
  std::swap(networks_, networks);
}

void CpuChain::begin(Request request, Watch& watch) {
  const Busy busy(busy_);
  check_request(shape_, request);
  const StepTable& table = *request.table;  // which the chain owns from the swap on
  const std::size_t image = shape_.image();
  const std::size_t elements = shape_.elements();
  const auto uses = [&table](auto test) { return std::any_of(table.rows.begin(), table.rows.end(), test); };
  const bool draws = request.initial.empty();

  // Everything that can fail comes first.
  AlignedArray<float> d2(uses([](const Row& row) { return row.c2 != 0.0f; }) ? elements : 0);
  AlignedArray<float> y(uses([](const Row& row) { return row.g != 0.0f; }) ? elements : 0);
  AlignedArray<float> foreign(request.noise ? elements : 0);
  AlignedArray<float> foreign_known(request.noise && !request.known.empty() ? elements : 0);
  AlignedArray<float> scratch(table.clip == ClipKind::kDynamic ? 2 * image * workers_.count() : 0);
  if (request.noise && draws) request.noise(kInitial, foreign.data());

  std::swap(request_, request);
  d2_ = std::move(d2);
  y_ = std::move(y);
  foreign_noise_ = std::move(foreign);
  foreign_known_ = std::move(foreign_known);
  scratch_ = std::move(scratch);
  position_ = 0;
  length_ = static_cast<std::int64_t>(table.rows.size());

  const std::size_t batch = static_cast<std::size_t>(shape_.batch);
  std::int64_t* labels = buffers_->labels.data();
  std::fill_n(labels, shape_.network_batch(), request_.null_label);
  std::copy(request_.labels.begin(), request_.labels.end(), labels);
  std::fill_n(buffers_->d1.data(), elements, 0.0f);
  buffers_->time.data()[0] = table.rows[0].t;
  const float c_in = table.rows[0].c_in;
  for (std::size_t i = 0; i < batch; ++i) {
    if (watch.look()) {
      length_ = 0;
      watch.leave();
    }
    float* x = buffers_->x.data() + i * image;
    if (!draws) {
      std::copy_n(request_.initial.data() + i * image, image, x);
    } else if (request_.noise) {
      kernels().scale(foreign_noise_.data() + i * image, table.init_scale, image, x);
    } else {
      kernels().fill_normal({request_.seeds[i], request_.images[i], kInitial}, image, x);
      kernels().scale(x, table.init_scale, image, x);
    }
    float* input = buffers_->input.data() + i * image;
    kernels().scale(x, c_in, image, input);
    if (shape_.guided) std::copy_n(input, image, input + elements);
  }
}

void CpuChain::call_networks(const Row& row, Watch& watch) {
  if (row.skip != 0.0f) return;
  const bool half = row.unguided != 0.0f && networks_.conditional;
  (half ? networks_.conditional : networks_.denoiser)->enqueue(watch);
  if (row.grad != 0.0f) networks_.classifier->enqueue(watch);
}

std::int64_t CpuChain::advance(std::int64_t count, Watch& watch) {
  const Busy busy(busy_);
  check_advance(shape_, count, length_, networks_.denoiser != nullptr, networks_.classifier != nullptr);
  for (; count > 0 && position_ < length_; --count) {
    if (watch.look()) watch.leave();
    const std::size_t index = static_cast<std::size_t>(position_);
    const Row& row = request_.table->rows[index];
    buffers_->time.data()[0] = row.t;
    call_networks(row, watch);
    if (request_.noise && row.s != 0.0f) request_.noise(kFirstRow + position_, foreign_noise_.data());
    if (request_.noise && row.known_noise != 0.0f) {
      request_.noise(std::int64_t{kKnown} + position_, foreign_known_.data());
    }
    run_row(index, watch);
    ++position_;
  }
  watch.leave();  // stopped in an update that was done all the same
  return position_;
}

}  // namespace pysdk
