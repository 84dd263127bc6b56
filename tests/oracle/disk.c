/* Preloaded into a daemon by the oracle. Files below ORACLE_DISK are on a disk that keeps only what was synced: each sync of a file or
 * folder copies what it holds to ORACLE_IMAGE, from which the oracle makes what a power loss would leave. The calls that change something
 * there, or those that read, can fail (ORACLE_FAIL=FIRST:ERRNO, ORACLE_FAIL_READS alike, until there is a file `healed` in the image), and syncs
 * can be forgotten (ORACLE_FORGET: where, and whether of files or folders). The file `shared` in the image is mapped: three numbers, the changes and
 * reads of this run so far, and the seconds that the wall clock is wrong by, which the oracle may change at any time. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static char disk[512], image[512], forget[256];
static long fail_first, fail_errno, fail_read_first, fail_read_errno;
static char forgotten_kind;
static struct { atomic_long changes, reads, clock; } alone, *shared = &alone;
static pthread_mutex_t copying = PTHREAD_MUTEX_INITIALIZER;

__attribute__((constructor)) static void start(void) {
  const char *text;
  if ((text = getenv("ORACLE_DISK"))) snprintf(disk, sizeof disk, "%s/", text);
  if ((text = getenv("ORACLE_IMAGE"))) snprintf(image, sizeof image, "%s", text);
  /* "file:/spool/" or "folder:/results/" */
  if ((text = getenv("ORACLE_FORGET")) && strchr(text, ':')) {
    forgotten_kind = text[1];
    snprintf(forget, sizeof forget, "%s", strchr(text, ':') + 1);
  }
  if ((text = getenv("ORACLE_FAIL"))) sscanf(text, "%ld:%ld", &fail_first, &fail_errno);
  if ((text = getenv("ORACLE_FAIL_READS"))) sscanf(text, "%ld:%ld", &fail_read_first, &fail_read_errno);
  char path[600];
  snprintf(path, sizeof path, "%s/shared", image);
  int fd = image[0] ? (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC, 0) : -1;
  if (fd >= 0) {
    void *map = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) abort();
    shared = map;
    close(fd);
  }
}

/* The path of an open file, when it is on the disk. */
static int on_disk(int fd, char *path, size_t size) {
  char link[64];
  if (!disk[0]) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t n = readlink(link, path, size - 2);
  if (n <= 0) return 0;
  path[n] = '/', path[n + 1] = 0;
  return strncmp(path, disk, strlen(disk)) == 0;
}

/* Whether number n fails, of a kind of which all from `first` on do. */
static int fails_at(long n, long first, long error) {
  char mark[600];
  if (!first || n < first) return 0;
  if (n == first) {
    snprintf(mark, sizeof mark, "%s/failing", image);
    close((int)syscall(SYS_openat, AT_FDCWD, mark, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
  }
  snprintf(mark, sizeof mark, "%s/healed", image);
  if (!access(mark, F_OK)) return 0;
  errno = (int)error;
  return 1;
}

static int fails(void) { return fails_at(atomic_fetch_add(&shared->changes, 1) + 1, fail_first, fail_errno); }

static int read_fails(int fd) {
  char path[1024];
  return on_disk(fd, path, sizeof path) && fails_at(atomic_fetch_add(&shared->reads, 1) + 1, fail_read_first, fail_read_errno);
}

static int fd_fails(int fd) {
  char path[1024];
  return on_disk(fd, path, sizeof path) && fails();
}

static int path_fails(const char *path) { return disk[0] && strncmp(path, disk, strlen(disk)) == 0 && fails(); }

static void out(int to, const char *bytes, size_t n) {
  while (n > 0) {
    long done = syscall(SYS_write, to, bytes, n);
    if (done <= 0) abort(); /* An image that lacks something would accuse the daemon. */
    bytes += done, n -= (size_t)done;
  }
}

/* What names a file for ever: its inode, and when that was made. */
static int key(int folder, const char *name, int flags, char *text, size_t size, unsigned *mode) {
  struct statx s;
  if (statx(folder, name, flags, STATX_INO | STATX_BTIME | STATX_MODE, &s)) return -1;
  snprintf(text, size, "%llu-%lld.%u", (unsigned long long)s.stx_ino, (long long)s.stx_btime.tv_sec, s.stx_btime.tv_nsec);
  *mode = s.stx_mode;
  return 0;
}

static void copy_folder(int fd, int to) {
  int again = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR *folder = again < 0 ? NULL : fdopendir(again);
  if (!folder) abort();
  struct dirent *entry;
  while ((entry = readdir(folder))) {
    char name[128], line[512];
    unsigned mode;
    if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
    if (key(fd, entry->d_name, AT_SYMLINK_NOFOLLOW, name, sizeof name, &mode)) continue;
    int n = snprintf(line, sizeof line, "%c %s %s\n", S_ISDIR(mode) ? 'd' : 'f', name, entry->d_name);
    out(to, line, (size_t)n);
  }
  closedir(folder);
}

/* Through the same descriptor where it can be read: closing another one of the file would drop SQLite's locks. */
static void copy_file(int fd, int to) {
  static char buffer[1 << 16];
  char link[64];
  ssize_t n = syscall(SYS_pread64, fd, buffer, 1, (off_t)0);
  int from = fd;
  if (n < 0) {
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    from = (int)syscall(SYS_openat, AT_FDCWD, link, O_RDONLY | O_CLOEXEC, 0);
    if (from < 0) abort();
  }
  for (off_t at = 0; (n = syscall(SYS_pread64, from, buffer, sizeof buffer, at)) > 0; at += n) out(to, buffer, (size_t)n);
  if (from != fd) close(from);
}

/* Keeps what a file or folder holds now. */
static void keep(int fd) {
  char path[1024], name[128], part[700], final[700];
  unsigned mode;
  if (!on_disk(fd, path, sizeof path)) return;
  if (key(fd, "", AT_EMPTY_PATH, name, sizeof name, &mode)) abort();
  int is_folder = S_ISDIR(mode);
  if (forget[0] && strstr(path, forget) && (forgotten_kind == 'o') == is_folder) return;
  pthread_mutex_lock(&copying);
  snprintf(part, sizeof part, "%s/part", image);
  snprintf(final, sizeof final, "%s/%s", image, name);
  int to = (int)syscall(SYS_openat, AT_FDCWD, part, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
  if (to < 0) abort();
  is_folder ? copy_folder(fd, to) : copy_file(fd, to);
  close(to);
  if (syscall(SYS_renameat2, AT_FDCWD, part, AT_FDCWD, final, 0)) abort();
  pthread_mutex_unlock(&copying);
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

int fsync(int fd) {
  if (fd_fails(fd)) return -1;
  keep(fd);
  return 0;
}

int fdatasync(int fd) { return fsync(fd); }

ssize_t write(int fd, const void *bytes, size_t n) { return fd_fails(fd) ? -1 : NEXT(write)(fd, bytes, n); }
ssize_t writev(int fd, const struct iovec *parts, int n) { return fd_fails(fd) ? -1 : NEXT(writev)(fd, parts, n); }
ssize_t pwrite(int fd, const void *bytes, size_t n, off_t at) { return fd_fails(fd) ? -1 : NEXT(pwrite)(fd, bytes, n, at); }
ssize_t pwrite64(int fd, const void *bytes, size_t n, off64_t at) { return fd_fails(fd) ? -1 : NEXT(pwrite64)(fd, bytes, n, at); }
ssize_t read(int fd, void *bytes, size_t n) { return read_fails(fd) ? -1 : NEXT(read)(fd, bytes, n); }
ssize_t readv(int fd, const struct iovec *parts, int n) { return read_fails(fd) ? -1 : NEXT(readv)(fd, parts, n); }
ssize_t pread(int fd, void *bytes, size_t n, off_t at) { return read_fails(fd) ? -1 : NEXT(pread)(fd, bytes, n, at); }
ssize_t pread64(int fd, void *bytes, size_t n, off64_t at) { return read_fails(fd) ? -1 : NEXT(pread64)(fd, bytes, n, at); }
int ftruncate(int fd, off_t size) { return fd_fails(fd) ? -1 : NEXT(ftruncate)(fd, size); }
int ftruncate64(int fd, off64_t size) { return fd_fails(fd) ? -1 : NEXT(ftruncate64)(fd, size); }
int rename(const char *from, const char *to) { return path_fails(to) ? -1 : NEXT(rename)(from, to); }
int mkdir(const char *path, mode_t mode) { return path_fails(path) ? -1 : NEXT(mkdir)(path, mode); }
int unlink(const char *path) { return path_fails(path) ? -1 : NEXT(unlink)(path); }

static mode_t mode_of(int flags, va_list more) { return flags & O_CREAT ? va_arg(more, mode_t) : 0; }

#define OPEN(name)                                                             \
  int name(const char *path, int flags, ...) {                                 \
    va_list more;                                                              \
    va_start(more, flags);                                                     \
    mode_t mode = mode_of(flags, more);                                        \
    va_end(more);                                                              \
    return flags & (O_CREAT | O_TRUNC) && path_fails(path) ? -1 : NEXT(name)(path, flags, mode); \
  }
OPEN(open)
OPEN(open64)

int clock_gettime(clockid_t which, struct timespec *now) {
  int result = (int)syscall(SYS_clock_gettime, which, now);
  if (which == CLOCK_REALTIME) now->tv_sec += atomic_load(&shared->clock);
  return result;
}
