// How the C library deals with memory that was freed.
#include "abi.h"

#include <climits>
#include <cstdlib>
#ifdef __GLIBC__
#include <malloc.h>
#endif

void c10d_keep_freed_memory() {
#ifdef __GLIBC__
  mallopt(M_MMAP_MAX, 0);
  mallopt(M_TRIM_THRESHOLD, INT_MAX);
  // The other arenas, one for each thread, give memory back whatever the threshold.
  mallopt(M_ARENA_MAX, 1);
#endif
}
