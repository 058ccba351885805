// What every function that can fail returns, as src/lib.rs declares it.
#pragma once

#include <cstdint>

enum StatusKind : int32_t {
  kOk = 0,
  // A library failed; the message is that of the library. Kinds from 2 on belong to each shim.
  kFailed = 1,
};

struct Status {
  int32_t kind;
  // NULL when kind is kOk; otherwise from strdup, and freed by the caller.
  char* message;
};
