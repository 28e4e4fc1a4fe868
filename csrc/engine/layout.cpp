#include "engine/layout.h"

#include <algorithm>

#include "base/guard.h"

namespace pysdk::engine {

Layout lay_out(const std::vector<std::size_t>& sizes, const std::vector<Lifetime>& lifetimes) {
  Layout layout{std::vector<std::size_t>(sizes.size(), 0), 0};
  std::vector<std::size_t>& offsets = layout.offsets;
  std::vector<std::size_t> order, placed;
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    if (lifetimes[i].first != kNever) order.push_back(i);
  }
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return sizes[a] > sizes[b]; });
  for (const std::size_t i : order) {
    std::size_t at = 0;
    for (const std::size_t other : placed) {  // by offset
      const bool apart =
          lifetimes[other].last < lifetimes[i].first || lifetimes[i].last < lifetimes[other].first;
      if (apart && kGuard == 0) continue;  // between guards every tensor has a place of its own
      if (offsets[other] >= at + sizes[i] + kGuard) break;
      at = std::max(at, offsets[other] + sizes[other] + kGuard);
    }
    offsets[i] = at;
    layout.floats = std::max(layout.floats, at + sizes[i] + kGuard);
    placed.insert(std::upper_bound(placed.begin(), placed.end(), i,
                                   [&](std::size_t a, std::size_t b) { return offsets[a] < offsets[b]; }),
                  i);
  }
  return layout;
}

}  // namespace pysdk::engine
