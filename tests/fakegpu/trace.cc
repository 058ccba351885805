// The trace of a process: a line for each call that a device would work for, or that the host would
// wait in.
#include "device.h"

#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#include <cstdlib>
#include <string>

void fake::trace(const char* what, const char* name) {
  static const int file = [] {
    const char* folder = std::getenv("FAKEGPU_DIR");
    if (std::getenv("FAKEGPU_TRACE") == nullptr || folder == nullptr) {
      return -1;
    }
    const auto path = std::string(folder) + "/trace." + std::to_string(::getpid());
    return ::open(path.c_str(), O_CREAT | O_WRONLY | O_APPEND | O_CLOEXEC, 0600);
  }();
  if (file >= 0) {
    char thread[16] = "";
    ::pthread_getname_np(::pthread_self(), thread, sizeof thread);
    const auto line = std::string(thread) + ": " + what + ' ' + name + '\n';
    // One call, so that lines of several threads do not mix.
    if (::write(file, line.data(), line.size()) < 0) {
      std::abort();
    }
  }
}
