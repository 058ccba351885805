/* Preloaded into a process, delays each fsync and fdatasync by the milliseconds in the file that
 * SYNC_DELAY_FILE names, as a slow disk does. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static void delay(void)
{
    const char *path = getenv("SYNC_DELAY_FILE");
    FILE *file = path ? fopen(path, "r") : NULL;
    long milliseconds = 0;

    if (file == NULL)
        return;
    if (fscanf(file, "%ld", &milliseconds) == 1 && milliseconds > 0) {
        struct timespec time = { milliseconds / 1000, milliseconds % 1000 * 1000000 };
        nanosleep(&time, NULL);
    }
    fclose(file);
}

int fsync(int file)
{
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fsync");

    delay();
    return real(file);
}

int fdatasync(int file)
{
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");

    delay();
    return real(file);
}
