/*
 * Writes down all that a process does to the files of a directory, so that a test can tell what a disk may hold after a power cut at any
 * point: preloaded into the process (LD_PRELOAD), with POWERCUT_DIRECTORY and POWERCUT_LOG in its environment. What it
 * prints is written down too, in its place, since that is what it has promised by then.
 *
 * A record: operation, name length, data length (4 bytes), offset (8 bytes), all little-endian as this machine is, name, data.
 * Shared memory (-shm) and locks aren't for the disk and are left out.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { WRITE = 'W', TRUNCATE = 'T', SYNC = 'S', SYNC_DIRECTORY = 'D', UNLINK = 'U', PRINT = 'P' };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* The name within the directory of the file at `path`; none if it isn't in there, or isn't of interest. */
static const char *name_of(const char *path) {
    const char *directory = getenv("POWERCUT_DIRECTORY");
    if (directory == NULL || strncmp(path, directory, strlen(directory)) != 0) return NULL;
    const char *name = path + strlen(directory);
    if (*name == '\0') return name;
    size_t length = strlen(++name);
    if (length > 4 && strcmp(name + length - 4, "-shm") == 0) return NULL;
    if (strcmp(name, "bugle.lock") == 0) return NULL;
    return name;
}

static const char *name_of_open(int fd, char *buffer) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, buffer, PATH_MAX - 1);
    if (length < 0) return NULL;
    buffer[length] = '\0';
    return name_of(buffer);
}

static void note(char operation, const char *name, uint64_t offset, const void *data, size_t bytes) {
    static int log = -1;
    const char *path = getenv("POWERCUT_LOG");
    if (path == NULL) return;
    if (log < 0) log = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    uint8_t head[17] = {(uint8_t)operation};
    uint32_t lengths[2] = {(uint32_t)strlen(name), (uint32_t)bytes};
    memcpy(head + 1, lengths, 8);
    memcpy(head + 9, &offset, 8);
    struct iovec parts[3] = {{head, sizeof head}, {(void *)name, lengths[0]}, {(void *)data, bytes}};
    if (syscall(SYS_writev, log, parts, 3) < 0) abort();
}

#define REAL(name, type) ((type)dlsym(RTLD_NEXT, name))

ssize_t write(int fd, const void *data, size_t bytes) {
    char path[PATH_MAX];
    pthread_mutex_lock(&lock);
    const char *name = fd == 1 ? NULL : name_of_open(fd, path);
    off_t offset = name == NULL ? 0 : lseek(fd, 0, SEEK_CUR);
    /* What is printed is promised from before on: whoever reads it may act at once. */
    ssize_t written = syscall(SYS_write, fd, data, bytes);
    if (fd == 1) note(PRINT, "", 0, data, bytes);
    if (name != NULL && written > 0) note(WRITE, name, (uint64_t)offset, data, (size_t)written);
    pthread_mutex_unlock(&lock);
    return written;
}

ssize_t pwrite64(int fd, const void *data, size_t bytes, off64_t offset) {
    char path[PATH_MAX];
    pthread_mutex_lock(&lock);
    ssize_t written = syscall(SYS_pwrite64, fd, data, bytes, offset);
    const char *name = name_of_open(fd, path);
    if (name != NULL && written > 0) note(WRITE, name, (uint64_t)offset, data, (size_t)written);
    pthread_mutex_unlock(&lock);
    return written;
}

ssize_t pwrite(int fd, const void *data, size_t bytes, off_t offset) {
    return pwrite64(fd, data, bytes, offset);
}

int ftruncate64(int fd, off64_t size) {
    char path[PATH_MAX];
    pthread_mutex_lock(&lock);
    int done = (int)syscall(SYS_ftruncate, fd, size);
    const char *name = name_of_open(fd, path);
    if (name != NULL && done == 0) note(TRUNCATE, name, (uint64_t)size, "", 0);
    pthread_mutex_unlock(&lock);
    return done;
}

int ftruncate(int fd, off_t size) {
    return ftruncate64(fd, size);
}

static int synced(int fd, long call) {
    char path[PATH_MAX];
    pthread_mutex_lock(&lock);
    int done = (int)syscall(call, fd);
    const char *name = name_of_open(fd, path);
    if (name != NULL && done == 0) note(*name == '\0' ? SYNC_DIRECTORY : SYNC, name, 0, "", 0);
    pthread_mutex_unlock(&lock);
    return done;
}

int fsync(int fd) {
    return synced(fd, SYS_fsync);
}

int fdatasync(int fd) {
    return synced(fd, SYS_fdatasync);
}

int unlink(const char *path) {
    pthread_mutex_lock(&lock);
    int done = (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0);
    const char *name = name_of(path);
    if (name != NULL && done == 0) note(UNLINK, name, 0, "", 0);
    pthread_mutex_unlock(&lock);
    return done;
}
