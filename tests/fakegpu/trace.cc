// What tests and the fake tell each other through files. The trace of a process: a line for each
// call that a device would work for, or that the host would wait in, or that is recorded.
#include "device.h"

#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#include <cstdlib>
#include <string>

std::string fake::folder() {
  const char* chosen = std::getenv("FAKEGPU_DIR");
  return chosen == nullptr ? "/dev/shm" : chosen;
}

bool fake::is_told(const std::string& name) {
  return ::access((folder() + "/" + name).c_str(), F_OK) == 0;
}

static thread_local bool untraced = false;

fake::Untraced::Untraced() {
  untraced = true;
}

fake::Untraced::~Untraced() {
  untraced = false;
}

void fake::trace(const char* what, const char* name) {
  if (untraced) {
    return;
  }
  if (is_recording()) {
    record();
    what = "record";
  }
  static const int file = [] {
    if (std::getenv("FAKEGPU_TRACE") == nullptr) {
      return -1;
    }
    const auto path = folder() + "/trace." + std::to_string(::getpid());
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
