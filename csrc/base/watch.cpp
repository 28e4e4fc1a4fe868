#include "base/watch.h"

namespace pysdk {

bool Lookout::look() {
  spent_ = 0;
  if (watch_ == nullptr) return false;
  return calling_ ? watch_->look() : watch_->stopped();
}

}  // namespace pysdk
