/* Refuses calls that change what lies below one folder: the n-th, or all from the n-th on. Preloaded, so
   that it stands under Python's own files, shutil and SQLite alike. A write that is refused has put half
   of its bytes there before, as a full disk does. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static char folder[4096];
static int armed, at, number, lasting, calls;

void fault_arm(const char *below, int nth, int error, int from_there_on) {
    snprintf(folder, sizeof folder, "%s/", below);
    at = nth, number = error, lasting = from_there_on, calls = 0, armed = 1;
}

int fault_disarm(void) {
    armed = 0;
    return calls;
}

static int refuse(const char *path) {
    if (!armed || strncmp(path, folder, strlen(folder)) != 0) return 0;
    calls++;
    if (calls == at || (lasting && calls > at)) {
        errno = number;
        return 1;
    }
    return 0;
}

static int of_fd(int fd) {
    char link[64], path[4096];
    if (!armed) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, sizeof path - 2);
    if (size < 0) return 0;
    path[size] = 0;
    return refuse(path);
}

static int of_name(int at_fd, const char *name) {
    char link[64], path[4096], whole[8300];
    if (!armed) return 0;
    if (name[0] == '/') return refuse(name);
    snprintf(link, sizeof link, at_fd == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", at_fd);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size < 0) return 0;
    path[size] = 0;
    snprintf(whole, sizeof whole, "%s/%s", path, name);
    return refuse(whole);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define CHANGES (O_CREAT | O_TRUNC)

#define OPEN(name)                                                                              \
    int name(const char *path, int flags, ...) {                                                \
        va_list more;                                                                           \
        va_start(more, flags);                                                                  \
        mode_t mode = va_arg(more, mode_t);                                                     \
        va_end(more);                                                                           \
        return (flags & CHANGES) && of_name(AT_FDCWD, path) ? -1 : REAL(name)(path, flags, mode); \
    }
OPEN(open)
OPEN(open64)

#define CALL(type, name, test, declared, given)                                                 \
    type name declared { return test ? -1 : REAL(name) given; }
CALL(int, mkdir, of_name(AT_FDCWD, path), (const char *path, mode_t mode), (path, mode))
CALL(int, rename, of_name(AT_FDCWD, to), (const char *from, const char *to), (from, to))
CALL(int, link, of_name(AT_FDCWD, to), (const char *from, const char *to), (from, to))
CALL(int, symlink, of_name(AT_FDCWD, to), (const char *from, const char *to), (from, to))
CALL(int, linkat, of_name(b, to), (int a, const char *from, int b, const char *to, int flags),
     (a, from, b, to, flags))
CALL(int, renameat, of_name(b, to), (int a, const char *from, int b, const char *to), (a, from, b, to))
CALL(int, unlink, number != ENOSPC && of_name(AT_FDCWD, path), (const char *path), (path))
CALL(int, unlinkat, number != ENOSPC && of_name(fd, path), (int fd, const char *path, int flags),
     (fd, path, flags))
CALL(int, rmdir, number != ENOSPC && of_name(AT_FDCWD, path), (const char *path), (path))
CALL(int, fsync, of_fd(fd), (int fd), (fd))
CALL(int, fdatasync, of_fd(fd), (int fd), (fd))
CALL(int, futimens, of_fd(fd), (int fd, const struct timespec times[2]), (fd, times))
CALL(int, ftruncate64, number != ENOSPC && of_fd(fd), (int fd, off64_t size), (fd, size))

ssize_t write(int fd, const void *data, size_t size) {
    if (!of_fd(fd)) return REAL(write)(fd, data, size);
    int error = errno;
    if (error == ENOSPC && size > 1 && REAL(write)(fd, data, size / 2) < 0) return -1;
    errno = error;
    return -1;
}

#define PWRITE(name, offset_t)                                                                  \
    ssize_t name(int fd, const void *data, size_t size, offset_t where) {                       \
        if (!of_fd(fd)) return REAL(name)(fd, data, size, where);                               \
        int error = errno;                                                                      \
        if (error == ENOSPC && size > 1 && REAL(name)(fd, data, size / 2, where) < 0) return -1; \
        errno = error;                                                                          \
        return -1;                                                                              \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)
