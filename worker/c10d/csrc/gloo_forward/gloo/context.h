// Forward declarations of the gloo types that ProcessGroupGloo.hpp names. The
// libtorch wheel holds gloo's code but not its headers; c10d keeps only pointers
// to these types, so names, and the members called here, are all that is needed.
// No layout may be declared in this folder: the real one lives in libtorch_cpu.
#pragma once

#include <chrono>
#include <exception>
#include <memory>
#include <string>

namespace gloo {
namespace transport {

class Device;
class Pair;
class UnboundBuffer;

namespace tcp {

// The connection to one peer. It derives from transport::Pair as its first base.
class Pair {
 public:
  // Fails what is pending on this connection, and what is started on it later,
  // and closes its socket. Thread-safe; does nothing the second time.
  std::exception_ptr signalExceptionExternal(const std::string& message);
};

} // namespace tcp
} // namespace transport

class Context {
 public:
  std::unique_ptr<transport::Pair>& getPair(int rank);
  void setTimeout(std::chrono::milliseconds timeout);
};

} // namespace gloo
