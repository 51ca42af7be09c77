/*
 * A disk that does as it is told: preloaded into a process (LD_PRELOAD), it looks into the file FAULTY_DISK at each write and sync of a
 * file under FAULTY_DIRECTORY. "full": writes fail with ENOSPC. "broken": syncs fail with EIO, after what was written. "stuck": syncs
 * wait until the file says something else. Anything else: the disk is fine.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static int is_faulty(int fd) {
    char link[64], path[PATH_MAX];
    const char *directory = getenv("FAULTY_DIRECTORY");
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (directory == NULL || length < 0) return 0;
    path[length] = '\0';
    return strncmp(path, directory, strlen(directory)) == 0;
}

static int is_told(const char *what) {
    char text[16] = "";
    const char *path = getenv("FAULTY_DISK");
    if (path == NULL) return 0;
    int file = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return 0;
    syscall(SYS_read, file, text, sizeof text - 1);
    syscall(SYS_close, file);
    return strcmp(text, what) == 0;
}

static int is_full(int fd) {
    if (!is_faulty(fd) || !is_told("full")) return 0;
    errno = ENOSPC;
    return 1;
}

ssize_t write(int fd, const void *data, size_t bytes) {
    return is_full(fd) ? -1 : syscall(SYS_write, fd, data, bytes);
}

ssize_t pwrite64(int fd, const void *data, size_t bytes, off64_t offset) {
    return is_full(fd) ? -1 : syscall(SYS_pwrite64, fd, data, bytes, offset);
}

ssize_t pwrite(int fd, const void *data, size_t bytes, off_t offset) {
    return pwrite64(fd, data, bytes, offset);
}

static int synced(int fd, long call) {
    if (is_faulty(fd)) {
        while (is_told("stuck")) usleep(5000);
        if (is_told("broken")) {
            errno = EIO;
            return -1;
        }
    }
    return (int)syscall(call, fd);
}

int fsync(int fd) {
    return synced(fd, SYS_fsync);
}

int fdatasync(int fd) {
    return synced(fd, SYS_fdatasync);
}
