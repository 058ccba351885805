// Keeps freed memory in the process.
#include "abi.h"

#include <cstdlib>
#ifdef __GLIBC__
#include <malloc.h>
#endif

void kernels_keep_freed_memory() {
#ifdef __GLIBC__
  mallopt(M_MMAP_MAX, 0);
  // Never: any other number is one of bytes, and an int.
  mallopt(M_TRIM_THRESHOLD, -1);
  // What is cut off an aligned block merges with its neighbours at once: a hole would
  // not fit the same request again otherwise.
  mallopt(M_MXFAST, 0);
  // The other arenas, one for each thread, give memory back whatever the threshold.
  mallopt(M_ARENA_MAX, 1);
#endif
}
