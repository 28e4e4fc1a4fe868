// Handing a request to the device.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <functional>
#include <stdexcept>
#include <type_traits>
#include <utility>
#include <vector>

#include "cuda/cuda_chain.h"
#include "noise/philox.h"

namespace pysdk::cuda {

namespace {

// Small arrays behind each other, for one upload.
class Arrays {
 public:
  // `pointer` will have the array's address on the device, null for an empty one.
  template <typename Value>
  void add(const Value*& pointer, const std::vector<Value>& values) {
    pointer = nullptr;
    if (values.empty()) return;
    const std::size_t at = (bytes_.size() + kAlignment - 1) / kAlignment * kAlignment;
    bytes_.resize(at + values.size() * sizeof(Value));
    std::memcpy(bytes_.data() + at, values.data(), values.size() * sizeof(Value));
    places_.push_back(
        [&pointer, at](const std::byte* base) { pointer = reinterpret_cast<const Value*>(base + at); });
  }
  const std::vector<std::byte>& bytes() const { return bytes_; }
  // Where they were uploaded to.
  void place(const std::byte* base) const {
    for (const auto& set : places_) set(base);
  }

 private:
  static constexpr std::size_t kAlignment = 16;
  std::vector<std::byte> bytes_;
  std::vector<std::function<void(const std::byte*)>> places_;
};

}  // namespace

Task task_of(const ChainShape& shape) {
  Task task{};
  task.batch = static_cast<std::uint32_t>(shape.batch);
  task.image = shape.image();
  task.groups = static_cast<std::uint32_t>((task.image + 3) / 4);
  task.output = shape.output();
  task.guided = shape.guided;
  task.whole_groups = task.image % 4 == 0;  // outputs are one or two images, so they are aligned as well
  return task;
}

void CudaChain::begin(Request request, Way way, std::int32_t every, std::int32_t slots) {
  const Busy busy(busy_);
  check_request(shape_, request);
  if (request.noise && way.forced && way.path == Path::kWhile) {
    throw std::invalid_argument(
        "path is 'while', but noise is given by a function, which is called on the host before each row; use "
        "'step'");
  }
  if (request.table->clip == ClipKind::kDynamic && shape_.image() >= std::uint64_t{1} << 32) {
    throw std::invalid_argument("images of 2^32 elements or more have no dynamic threshold on the device");
  }
  if (every < 0 || slots < 0 || (every > 0) != (slots > 0)) {
    throw std::invalid_argument("snapshots need both every and slots above 0; 0 and 0 for none");
  }
  std::vector<float> noise(request.noise ? shape_.elements() : 0);
  if (request.noise && request.initial.empty()) request.noise(kInitial, noise.data());

  stop_now();
  length_ = launched_ = 0;  // until all is in place there is no chain
  std::swap(request_, request);
  host_noise_ = std::move(noise);
  way_ = way;
  task_ = task_of(shape_);
  task_.every = every;
  task_.slots = slots;
  upload_request();
  mailbox_.get()->position = 0;
  device_->start(task_, &state_->as<State>()->task, stream_.get());
  device_->synchronize(stream_.get());  // x may be looked at from another stream now
  length_ = task_.length;
}

void CudaChain::upload_request() {
  const std::size_t elements = shape_.elements() * sizeof(float);
  const auto put = [this](std::shared_ptr<Block>& block, const auto& values) {
    using Value = typename std::decay_t<decltype(values)>::value_type;
    if (values.empty()) return static_cast<Value*>(nullptr);
    reserve(block, device_, values.size() * sizeof(Value));
    device_->upload(block->data(), values.data(), values.size() * sizeof(Value), stream_.get());
    return block->as<Value>();
  };
  const auto room = [this](std::shared_ptr<Block>& block, std::size_t bytes, bool needed) {
    if (!needed) return static_cast<float*>(nullptr);
    reserve(block, device_, bytes);
    return block->as<float>();
  };
  const StepTable& table = *request_.table;
  const auto uses = [&table](auto test) { return std::any_of(table.rows.begin(), table.rows.end(), test); };

  std::vector<std::int64_t> labels(shape_.network_batch(), request_.null_label);
  std::copy(request_.labels.begin(), request_.labels.end(), labels.begin());
  put(labels_, labels);

  const double position = table.clip_ratio * static_cast<double>(shape_.image() - 1);
  const double floor = std::floor(position);
  const bool dynamic = table.clip == ClipKind::kDynamic;
  task_.length = static_cast<std::int32_t>(table.rows.size());
  task_.clip = table.clip;
  task_.clip_limit = table.clip_limit;
  task_.clip_max = table.clip_max;
  task_.rank = dynamic ? static_cast<std::uint32_t>(floor) : 0;
  task_.fraction = static_cast<float>(position - floor);
  task_.init_scale = table.init_scale;
  task_.learned_variance = table.learned_variance;
  Arrays arrays;
  arrays.add(task_.rows, table.rows);
  arrays.add(task_.seeds, request_.seeds);
  arrays.add(task_.images, request_.images);
  arrays.add(task_.guidance, request_.guidance);
  arrays.place(put(arrays_, arrays.bytes()));
  task_.initial = put(initial_, request_.initial);
  task_.known = put(known_, request_.known);
  task_.keep = put(keep_, request_.keep);
  task_.noise = room(noise_, elements, request_.noise != nullptr);
  task_.known_noise = room(known_noise_, elements, request_.noise && !request_.known.empty());
  task_.d2 = room(d2_, elements, uses([](const Row& row) { return row.c2 != 0.0f; }));
  task_.y = room(y_, elements, uses([](const Row& row) { return row.g != 0.0f; }));
  task_.raw = room(raw_, elements, dynamic);
  task_.threshold = room(threshold_, static_cast<std::size_t>(shape_.batch) * sizeof(float), dynamic);
  const auto slots = static_cast<std::size_t>(task_.slots);
  task_.ring_x = room(ring_, 2 * slots * elements, slots > 0);
  task_.ring_denoised = slots > 0 ? task_.ring_x + slots * shape_.elements() : nullptr;
  task_.input = input_->as<float>();
  task_.time = time_->as<float>();
  task_.output_tensor = output_->as<float>();
  task_.x = x_->as<float>();
  task_.d1 = d1_->as<float>();
  if (request_.noise) put(noise_, host_noise_);

  until_ = -1;
  const State state{task_, {0, task_.length}};
  device_->upload(state_->data(), &state, sizeof state, stream_.get());
  until_ = task_.length;
  // the request's arrays are only needed here from now on
  for (auto* values : {&request_.initial, &request_.known}) std::vector<float>().swap(*values);
  std::vector<std::uint8_t>().swap(request_.keep);
}

}  // namespace pysdk::cuda
