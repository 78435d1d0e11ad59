/* Counts what a process changes below a folder, and makes call number k fail or kill the process.
 *
 *   gcc -shared -fPIC -O1 -o shim.so shim.c -ldl;  LD_PRELOAD=./shim.so …;  shim_arm(kind, k, folder) through ctypes
 *
 * Calls count in the order they start, from 1, in all threads. Counted are those of libc that write, make, rename, link
 * or delete a file, or make it durable; a library that enters the kernel by itself is not seen.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { COUNT, KILL, ENOSPC_ON, EIO_ON, ENOSPC_ONCE, EIO_ONCE };
enum { TAKES_SPACE = 1, ANY = 0 };  /* a full disk still deletes, cuts and syncs */

static int armed, kind;
static long wanted, calls;
static char folder[PATH_MAX];
static size_t folder_length;

void shim_arm(int how, long k, const char *below) {
    snprintf(folder, sizeof folder, "%s", below);
    folder_length = strlen(folder);
    kind = how;
    wanted = k;
    __atomic_store_n(&calls, 0, __ATOMIC_SEQ_CST);
    __atomic_store_n(&armed, 1, __ATOMIC_SEQ_CST);
}

long shim_count(void) { return __atomic_load_n(&calls, __ATOMIC_SEQ_CST); }

static int is_below(const char *path) {
    return strncmp(path, folder, folder_length) == 0 && (path[folder_length] == '/' || path[folder_length] == 0);
}

static int fd_is_below(int fd) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return is_below(path);
}

static int path_is_below(int at, const char *path) {
    if (path[0] == '/') return is_below(path);
    if (at != AT_FDCWD) return fd_is_below(at);
    char cwd[PATH_MAX];
    return getcwd(cwd, sizeof cwd) && is_below(cwd);
}

/* Count a call; 1 if it has to fail, with errno set. */
static int fails(int takes_space) {
    long number = __atomic_add_fetch(&calls, 1, __ATOMIC_SEQ_CST);
    if (kind == KILL && number == wanted) raise(SIGKILL);
    int once = kind == ENOSPC_ONCE || kind == EIO_ONCE, on = kind == ENOSPC_ON || kind == EIO_ON;
    if (!(once && number == wanted) && !(on && number >= wanted)) return 0;
    if ((kind == ENOSPC_ON || kind == ENOSPC_ONCE) && !takes_space) return 0;
    errno = kind == EIO_ON || kind == EIO_ONCE ? EIO : ENOSPC;
    return 1;
}

#define REAL(name) static __typeof__(&name) real; if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)
#define ON(condition) (__atomic_load_n(&armed, __ATOMIC_RELAXED) && (condition))

ssize_t write(int fd, const void *data, size_t size) {
    REAL(write);
    return ON(fd_is_below(fd)) && fails(TAKES_SPACE) ? -1 : real(fd, data, size);
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
    REAL(pwrite);
    return ON(fd_is_below(fd)) && fails(TAKES_SPACE) ? -1 : real(fd, data, size, at);
}
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    REAL(pwrite64);
    return ON(fd_is_below(fd)) && fails(TAKES_SPACE) ? -1 : real(fd, data, size, at);
}
ssize_t writev(int fd, const struct iovec *parts, int count) {
    REAL(writev);
    return ON(fd_is_below(fd)) && fails(TAKES_SPACE) ? -1 : real(fd, parts, count);
}
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at) {
    REAL(pwritev);
    return ON(fd_is_below(fd)) && fails(TAKES_SPACE) ? -1 : real(fd, parts, count, at);
}
ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t at) {
    REAL(pwritev64);
    return ON(fd_is_below(fd)) && fails(TAKES_SPACE) ? -1 : real(fd, parts, count, at);
}
ssize_t copy_file_range(int in, off64_t *from, int out, off64_t *to, size_t size, unsigned flags) {
    REAL(copy_file_range);
    return ON(fd_is_below(out)) && fails(TAKES_SPACE) ? -1 : real(in, from, out, to, size, flags);
}
int fsync(int fd) {
    REAL(fsync);
    return ON(fd_is_below(fd)) && fails(ANY) ? -1 : real(fd);
}
int fdatasync(int fd) {
    REAL(fdatasync);
    return ON(fd_is_below(fd)) && fails(ANY) ? -1 : real(fd);
}
int ftruncate(int fd, off_t size) {
    REAL(ftruncate);
    return ON(fd_is_below(fd)) && fails(ANY) ? -1 : real(fd, size);
}
int ftruncate64(int fd, off64_t size) {
    REAL(ftruncate64);
    return ON(fd_is_below(fd)) && fails(ANY) ? -1 : real(fd, size);
}
int rename(const char *from, const char *to) {
    REAL(rename);
    return ON(path_is_below(AT_FDCWD, to)) && fails(ANY) ? -1 : real(from, to);
}
int renameat(int from_at, const char *from, int at, const char *to) {
    REAL(renameat);
    return ON(path_is_below(at, to)) && fails(ANY) ? -1 : real(from_at, from, at, to);
}
int renameat2(int from_at, const char *from, int at, const char *to, unsigned flags) {
    REAL(renameat2);
    return ON(path_is_below(at, to)) && fails(ANY) ? -1 : real(from_at, from, at, to, flags);
}
int link(const char *from, const char *to) {
    REAL(link);
    return ON(path_is_below(AT_FDCWD, to)) && fails(TAKES_SPACE) ? -1 : real(from, to);
}
int linkat(int from_at, const char *from, int at, const char *to, int flags) {
    REAL(linkat);
    return ON(path_is_below(at, to)) && fails(TAKES_SPACE) ? -1 : real(from_at, from, at, to, flags);
}
int unlink(const char *path) {
    REAL(unlink);
    return ON(path_is_below(AT_FDCWD, path)) && fails(ANY) ? -1 : real(path);
}
int unlinkat(int at, const char *path, int flags) {
    REAL(unlinkat);
    return ON(path_is_below(at, path)) && fails(ANY) ? -1 : real(at, path, flags);
}
int rmdir(const char *path) {
    REAL(rmdir);
    return ON(path_is_below(AT_FDCWD, path)) && fails(ANY) ? -1 : real(path);
}
int mkdir(const char *path, mode_t mode) {
    REAL(mkdir);
    return ON(path_is_below(AT_FDCWD, path)) && fails(TAKES_SPACE) ? -1 : real(path, mode);
}
int mkdirat(int at, const char *path, mode_t mode) {
    REAL(mkdirat);
    return ON(path_is_below(at, path)) && fails(TAKES_SPACE) ? -1 : real(at, path, mode);
}

/* Opening takes space only where it makes a file. */
#define OPENS(at, path) (ON((flags & O_CREAT) && path_is_below(at, path)) && fails(faccessat(at, path, F_OK, 0) != 0))
#define MODE mode_t mode = 0; \
    if ((flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE) { va_list rest; va_start(rest, flags); mode = va_arg(rest, mode_t); va_end(rest); }

int open(const char *path, int flags, ...) {
    REAL(open); MODE
    return OPENS(AT_FDCWD, path) ? -1 : real(path, flags, mode);
}
int open64(const char *path, int flags, ...) {
    REAL(open64); MODE
    return OPENS(AT_FDCWD, path) ? -1 : real(path, flags, mode);
}
int openat(int at, const char *path, int flags, ...) {
    REAL(openat); MODE
    return OPENS(at, path) ? -1 : real(at, path, flags, mode);
}
int openat64(int at, const char *path, int flags, ...) {
    REAL(openat64); MODE
    return OPENS(at, path) ? -1 : real(at, path, flags, mode);
}
