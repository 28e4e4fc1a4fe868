// A fork-join pool: splits work among threads, the caller being one of them. One caller at a time; work must
// not throw. What takes long can be left early: the caller watches, also while it waits for the others.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <memory>
#include <vector>

#include "base/watch.h"

namespace pysdk {

// What threads do before they sleep: nothing, or look for work for some 50 us, several times what it takes to
// wake one. That is for work that comes every few microseconds; elsewhere it takes processors from others'
// threads.
enum class Spin { kNone, kBriefly };

class Workers {
 public:
  Workers(std::size_t count, Spin spin);
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;
  ~Workers();

  std::size_t count() const { return count_; }

  // Who watches the work from now on; null: nobody.
  void watch(Watch* watch);
  Lookout& lookout(std::size_t worker) { return lookouts_[worker]; }

  // work(begin, end, worker) for contiguous parts of [0, items); returns when all are done. The threads are
  // started by the first call that needs them, in a forked child once more. Throws std::runtime_error if that
  // fails.
  template <class Work>
  void run(std::size_t items, const Work& work) {
    const std::size_t parts = items < count_ ? items : count_;
    if (parts == 0) return;
    if (parts == 1) return work(std::size_t{0}, items, std::size_t{0});
    run(parts, items, &work,
        [](const void* function, std::size_t begin, std::size_t end, std::size_t worker) {
          (*static_cast<const Work*>(function))(begin, end, worker);
        });
  }

  // The same in pieces, after each of which it may be left; an item costs as much as so many multiplications.
  template <class Work>
  void run(std::size_t items, std::size_t cost, const Work& work) {
    const std::size_t piece = kLookCost / (cost + 1) + 1;
    run(items, [&](std::size_t begin, std::size_t end, std::size_t worker) {
      for (std::size_t next; begin < end; begin = next) {
        next = end - begin > piece ? begin + piece : end;
        if (lookout(worker).leave((next - begin) * cost)) return;
        work(begin, next, worker);
      }
    });
  }

 private:
  using Call = void (*)(const void* work, std::size_t begin, std::size_t end, std::size_t worker);
  class Team;

  void run(std::size_t parts, std::size_t items, const void* work, Call call);
  void leave_parents_team();

  const std::size_t count_;
  const Spin spin_;
  std::vector<Lookout> lookouts_;
  Watch* watch_ = nullptr;
  std::unique_ptr<Team> team_;
  pid_t process_ = 0;  // that started the team
};

}  // namespace pysdk
