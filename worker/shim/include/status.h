// Turns C++ exceptions into Status values, so that none leaves the C interface.
#pragma once

#include "status_abi.h"

#include <c10/util/Exception.h>

#include <cstring>
#include <exception>

namespace shim {

inline Status status(int32_t kind, const char* message) {
  return Status{kind, ::strdup(message)};
}

// Runs `body` and reports what it throws. The backtrace that c10 appends to its
// messages is left out: it names frames of libtorch, which do not help a user.
template <typename Body>
Status guarded(Body&& body) noexcept {
  try {
    body();
    return Status{kOk, nullptr};
  } catch (const c10::Error& error) {
    return status(kFailed, error.what_without_backtrace());
  } catch (const std::exception& error) {
    return status(kFailed, error.what());
  } catch (...) {
    return status(kFailed, "an exception of unknown type");
  }
}

// For destructors: what they throw is ignored, because no caller could handle it.
template <typename Body>
void swallowed(Body&& body) noexcept {
  try {
    body();
  } catch (...) {
  }
}

} // namespace shim
