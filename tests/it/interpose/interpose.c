/*
 * Stands between the unmodified binary and the C library (LD_PRELOAD), so that tests decide at which write the process
 * dies, which writes the disk refuses, and what time it is. Controlled through a small file that the test shares with it
 * (see mod.rs, which must name the same words in the same order). Without that file it does nothing.
 *
 * A step is a call that changes a file below the folder INTERPOSE_DIR, or that sends bytes to a peer. Steps are numbered
 * from 1 in the order in which they begin.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

/* Kinds of calls; a mask of them says which fail. */
enum { WRITE = 1, SYNC = 2, CREATE = 4, TRUNCATE = 8, NAME = 16, SEND = 32, READ = 64 };

/* How the process dies at the step `kill_at`. */
enum { BEFORE = 0, AFTER = 1, TORN = 2, POWER = 3 };

struct control {
    uint64_t loaded;     /* processes that loaded this */
    uint64_t steps;      /* steps begun so far */
    uint64_t counts;     /* mask: which kinds of calls are steps; READ never is */
    uint64_t kill_at;    /* the step at which the process dies; 0: it lives */
    uint64_t kill_how;
    uint64_t killed;     /* processes that died by this */
    uint64_t fail_from;  /* the first step that may fail; 0: none fails */
    uint64_t fail_until; /* the last one; 0: no end */
    uint64_t fail_what;  /* mask: which kinds fail */
    uint64_t fail_with;  /* errno; 0: a short write */
    uint64_t failed;     /* calls that failed by this */
    int64_t wall;        /* nanoseconds by which the wall clock is ahead */
    int64_t monotonic;   /* nanoseconds by which the monotonic clocks are ahead */
    uint64_t looked;     /* looks at the wall clock */
    uint64_t lost;       /* writes that a loss of power undid */
    uint64_t seed;       /* which of the writes that were not synced a loss of power undoes; 0: all */
    char only[256];      /* only files with this in their path; empty: all */
};

static struct control *control;
static char dir[PATH_MAX];
static size_t dir_len;

static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_pwrite)(int, const void *, size_t, off64_t);
static ssize_t (*real_writev)(int, const struct iovec *, int);
static ssize_t (*real_read)(int, void *, size_t);
static ssize_t (*real_pread)(int, void *, size_t, off64_t);
static ssize_t (*real_send)(int, const void *, size_t, int);
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);
static int (*real_ftruncate)(int, off64_t);
static int (*real_open)(const char *, int, ...);
static int (*real_openat)(int, const char *, int, ...);
static int (*real_unlink)(const char *);
static int (*real_rename)(const char *, const char *);

__attribute__((constructor)) static void begin(void) {
    real_write = dlsym(RTLD_NEXT, "write");
    real_pwrite = dlsym(RTLD_NEXT, "pwrite64");
    real_writev = dlsym(RTLD_NEXT, "writev");
    real_read = dlsym(RTLD_NEXT, "read");
    real_pread = dlsym(RTLD_NEXT, "pread64");
    real_send = dlsym(RTLD_NEXT, "send");
    real_fsync = dlsym(RTLD_NEXT, "fsync");
    real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    real_ftruncate = dlsym(RTLD_NEXT, "ftruncate64");
    real_open = dlsym(RTLD_NEXT, "open64");
    real_openat = dlsym(RTLD_NEXT, "openat64");
    real_unlink = dlsym(RTLD_NEXT, "unlink");
    real_rename = dlsym(RTLD_NEXT, "rename");
    const char *path = getenv("INTERPOSE_CONTROL"), *below = getenv("INTERPOSE_DIR");
    if (!path || !below) return;
    int fd = real_open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) return;
    void *shared = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (shared == MAP_FAILED) return;
    dir_len = strlen(below);
    memcpy(dir, below, dir_len < PATH_MAX ? dir_len + 1 : 0);
    control = shared;
    __atomic_add_fetch(&control->loaded, 1, __ATOMIC_SEQ_CST);
}

/* Whether a path is one of those that matter. */
static int ours_path(const char *path) {
    if (!control || !path || strncmp(path, dir, dir_len) != 0 || path[dir_len] != '/') return 0;
    return !control->only[0] || strstr(path, control->only);
}

static int ours(int fd) {
    char link[64], path[PATH_MAX];
    if (!control) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return ours_path(path);
}

/* A connection to a peer, which is on loopback, and not a local socket or a pipe. */
static int is_peer(int fd) {
    struct sockaddr_storage address;
    socklen_t length = sizeof address;
    return control && (control->counts & SEND) && getpeername(fd, (struct sockaddr *)&address, &length) == 0 &&
           address.ss_family == AF_INET;
}

/* Writes that are not synced yet, so that a loss of power can undo them. */
struct undo {
    struct undo *before;
    dev_t device;
    ino_t inode;
    int fd;
    off64_t size, at;
    ssize_t length;
    char old[];
};
static struct undo *undos;
static pthread_mutex_t undos_lock = PTHREAD_MUTEX_INITIALIZER;

static void remember(int fd, off64_t at, size_t length) {
    struct stat64 stat;
    if (!control->kill_at || control->kill_how != POWER || fstat64(fd, &stat) != 0) return;
    struct undo *undo = malloc(sizeof *undo + length);
    if (!undo) abort();
    pthread_mutex_lock(&undos_lock);
    int known = -1;
    for (struct undo *other = undos; other; other = other->before)
        if (other->device == stat.st_dev && other->inode == stat.st_ino) known = other->fd;
    *undo = (struct undo){undos, stat.st_dev, stat.st_ino, known < 0 ? dup(fd) : known, stat.st_size, at, 0};
    if (length > 0) {
        ssize_t held = real_pread(fd, undo->old, length, at);
        undo->length = held > 0 ? held : 0;
    }
    undos = undo;
    pthread_mutex_unlock(&undos_lock);
}

static void forget(int fd) {
    struct stat64 stat;
    if (fstat64(fd, &stat) != 0) return;
    pthread_mutex_lock(&undos_lock);
    for (struct undo **link = &undos; *link;) {
        struct undo *undo = *link;
        if (undo->device == stat.st_dev && undo->inode == stat.st_ino) {
            *link = undo->before;
            free(undo);
        } else {
            link = &undo->before;
        }
    }
    pthread_mutex_unlock(&undos_lock);
}

static void lose_power(void) {
    uint64_t state = control->seed;
    pthread_mutex_lock(&undos_lock);
    for (struct undo *undo = undos; undo; undo = undo->before) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        if (control->seed && state >> 63) continue;
        if (undo->length > 0) real_pwrite(undo->fd, undo->old, (size_t)undo->length, undo->at);
        real_ftruncate(undo->fd, undo->size);
        control->lost++;
    }
}

static void die(void) {
    static int dying;
    if (__atomic_exchange_n(&dying, 1, __ATOMIC_SEQ_CST) == 0) {
        __atomic_add_fetch(&control->killed, 1, __ATOMIC_SEQ_CST);
        if (control->kill_how == POWER) lose_power();
        kill(getpid(), SIGKILL);
    }
    for (;;) pause();
}

/* Begins a step, and dies where that is due before it. Returns its number; 0 for a call that is none. */
static uint64_t step(int kind) {
    if (!(control->counts & (uint64_t)kind)) return 0;
    uint64_t number = __atomic_add_fetch(&control->steps, 1, __ATOMIC_SEQ_CST);
    uint64_t at = control->kill_at;
    /* Whoever comes later, in another thread, comes after the end. */
    if (at && (number > at || (number == at && control->kill_how != AFTER && control->kill_how != TORN))) die();
    return number;
}

static void after(uint64_t number) {
    if (number && number == control->kill_at) die();
}

/* Whether a call fails now. */
static int fails(int kind, uint64_t number) {
    uint64_t from = control->fail_from, until = control->fail_until;
    if (!from || !(control->fail_what & (uint64_t)kind)) return 0;
    if (!number) number = control->steps;
    if (number < from || (until && number > until)) return 0;
    __atomic_add_fetch(&control->failed, 1, __ATOMIC_SEQ_CST);
    errno = (int)control->fail_with;
    return 1;
}

static int torn(uint64_t number) { return number && number == control->kill_at && control->kill_how == TORN; }

static ssize_t put(int fd, const void *bytes, size_t count, off64_t at, int positioned) {
    uint64_t number = step(WRITE);
    size_t half = count / 2;
    if (fails(WRITE, number)) {
        if (control->fail_with || half == 0) {
            if (!control->fail_with) errno = ENOSPC;
            return -1;
        }
        return positioned ? real_pwrite(fd, bytes, half, at) : real_write(fd, bytes, half);
    }
    remember(fd, positioned ? at : lseek64(fd, 0, SEEK_CUR), count);
    if (torn(number)) count = half;
    ssize_t result = positioned ? real_pwrite(fd, bytes, count, at) : real_write(fd, bytes, count);
    after(number);
    return result;
}

EXPORT ssize_t write(int fd, const void *bytes, size_t count) {
    if (ours(fd)) return put(fd, bytes, count, 0, 0);
    if (!is_peer(fd)) return real_write(fd, bytes, count);
    uint64_t number = step(SEND);
    ssize_t result = real_write(fd, bytes, torn(number) ? count / 2 : count);
    after(number);
    return result;
}

EXPORT ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t at) {
    return ours(fd) ? put(fd, bytes, count, at, 1) : real_pwrite(fd, bytes, count, at);
}

EXPORT ssize_t pwrite(int fd, const void *bytes, size_t count, off_t at) { return pwrite64(fd, bytes, count, at); }

EXPORT ssize_t send(int fd, const void *bytes, size_t count, int flags) {
    if (!is_peer(fd)) return real_send(fd, bytes, count, flags);
    uint64_t number = step(SEND);
    ssize_t result = real_send(fd, bytes, torn(number) ? count / 2 : count, flags);
    after(number);
    return result;
}

EXPORT ssize_t writev(int fd, const struct iovec *parts, int count) {
    if (!is_peer(fd)) return real_writev(fd, parts, count);
    uint64_t number = step(SEND);
    ssize_t result = real_writev(fd, parts, count);
    after(number);
    return result;
}

EXPORT ssize_t read(int fd, void *bytes, size_t count) {
    if (control && (control->fail_what & READ) && ours(fd) && fails(READ, 0)) return -1;
    return real_read(fd, bytes, count);
}

EXPORT ssize_t pread64(int fd, void *bytes, size_t count, off64_t at) {
    if (control && (control->fail_what & READ) && ours(fd) && fails(READ, 0)) return -1;
    return real_pread(fd, bytes, count, at);
}

EXPORT ssize_t pread(int fd, void *bytes, size_t count, off_t at) { return pread64(fd, bytes, count, at); }

EXPORT int fsync(int fd) {
    if (!ours(fd)) return real_fsync(fd);
    uint64_t number = step(SYNC);
    if (fails(SYNC, number)) return -1;
    int result = real_fsync(fd);
    if (result == 0) forget(fd);
    after(number);
    return result;
}

EXPORT int fdatasync(int fd) {
    if (!ours(fd)) return real_fdatasync(fd);
    uint64_t number = step(SYNC);
    if (fails(SYNC, number)) return -1;
    int result = real_fdatasync(fd);
    if (result == 0) forget(fd);
    after(number);
    return result;
}

EXPORT int ftruncate64(int fd, off64_t size) {
    if (!ours(fd)) return real_ftruncate(fd, size);
    uint64_t number = step(TRUNCATE);
    struct stat64 stat;
    /* What only makes a file shorter needs no room. */
    int grows = fstat64(fd, &stat) == 0 && size > stat.st_size;
    if ((grows || control->fail_with != ENOSPC) && fails(TRUNCATE, number)) return -1;
    off64_t kept = grows ? stat.st_size : size;
    remember(fd, kept, grows ? 0 : (size_t)(stat.st_size - size));
    int result = real_ftruncate(fd, size);
    after(number);
    return result;
}

EXPORT int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }

static int make(int at, const char *path, int flags, mode_t mode) {
    int creates = (flags & O_CREAT) && access(path, F_OK) != 0;
    int writes = (flags & O_ACCMODE) != O_RDONLY;
    uint64_t number = 0;
    if (ours_path(path)) {
        if (creates || (flags & O_TRUNC)) number = step(CREATE);
        /* A file system that is read-only refuses to open for writing, too. */
        int refused = creates || (writes && control->fail_with == EROFS);
        if (refused && fails(CREATE, number)) return -1;
    }
    int fd = at == AT_FDCWD ? real_open(path, flags, mode) : real_openat(at, path, flags, mode);
    after(number);
    return fd;
}

static mode_t mode_of(int flags, va_list arguments) {
    return (flags & (O_CREAT | O_TMPFILE)) ? (mode_t)va_arg(arguments, int) : 0;
}

#define OPENS(name)                                             \
    EXPORT int name(const char *path, int flags, ...) {         \
        va_list arguments;                                      \
        va_start(arguments, flags);                             \
        mode_t mode = mode_of(flags, arguments);                \
        va_end(arguments);                                      \
        return make(AT_FDCWD, path, flags, mode);               \
    }
OPENS(open)
OPENS(open64)

#define OPENS_AT(name)                                          \
    EXPORT int name(int at, const char *path, int flags, ...) { \
        va_list arguments;                                      \
        va_start(arguments, flags);                             \
        mode_t mode = mode_of(flags, arguments);                \
        va_end(arguments);                                      \
        return make(at, path, flags, mode);                     \
    }
OPENS_AT(openat)
OPENS_AT(openat64)

EXPORT int unlink(const char *path) {
    if (!ours_path(path)) return real_unlink(path);
    uint64_t number = step(NAME);
    /* Taking a file away needs no room. */
    if (control->fail_with != ENOSPC && fails(NAME, number)) return -1;
    int result = real_unlink(path);
    after(number);
    return result;
}

EXPORT int rename(const char *from, const char *to) {
    if (!ours_path(to)) return real_rename(from, to);
    uint64_t number = step(NAME);
    if (fails(NAME, number)) return -1;
    int result = real_rename(from, to);
    after(number);
    return result;
}

static void shift(struct timespec *time, int64_t by) {
    int64_t nanos = time->tv_nsec + by % 1000000000;
    int64_t carry = nanos < 0 ? -1 : nanos >= 1000000000 ? 1 : 0;
    time->tv_sec += by / 1000000000 + carry;
    time->tv_nsec = nanos - carry * 1000000000;
}

EXPORT int clock_gettime(clockid_t clock, struct timespec *time) {
    int result = (int)syscall(SYS_clock_gettime, clock, time);
    if (result != 0 || !control) return result;
    switch (clock) {
    case CLOCK_REALTIME:
    case CLOCK_REALTIME_COARSE:
        __atomic_add_fetch(&control->looked, 1, __ATOMIC_RELAXED);
        shift(time, control->wall);
        break;
    case CLOCK_MONOTONIC:
    case CLOCK_MONOTONIC_COARSE:
    case CLOCK_MONOTONIC_RAW:
    case CLOCK_BOOTTIME:
        shift(time, control->monotonic);
        break;
    default:
        break;
    }
    return 0;
}

EXPORT int gettimeofday(struct timeval *time, void *zone) {
    (void)zone;
    struct timespec now;
    int result = clock_gettime(CLOCK_REALTIME, &now);
    time->tv_sec = now.tv_sec;
    time->tv_usec = now.tv_nsec / 1000;
    return result;
}

EXPORT time_t time(time_t *into) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (into) *into = now.tv_sec;
    return now.tv_sec;
}
