#include "sched/supervise/logfile.h"

#include "core/base/alloc.h"
#include "core/base/buf.h"
#include "core/base/log.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define GATHER 32768

struct rs_logfile {
    char *path;
    uint64_t max;
    unsigned keep;
    int fd; /* -1: not open */
    uint64_t size;
    struct rs_buf lines;
    unsigned n_lines; /* in `lines` */
    bool warned;
};

struct rs_logfile *rs_logfile_new(const char *path, uint64_t max, unsigned keep)
{
    struct rs_logfile *f = rs_alloc(sizeof(*f));

    f->path = rs_strdup(path);
    f->max = max ? max : (uint64_t)16 << 20;
    f->keep = keep ? keep : 3;
    f->fd = -1;
    return f;
}

void rs_logfile_free(struct rs_logfile *f)
{
    if (!f)
        return;
    rs_logfile_flush(f);
    rs_closep(&f->fd);
    rs_buf_fini(&f->lines);
    free(f->path);
    free(f);
}

static int open_file(struct rs_logfile *f)
{
    struct stat st;

    if (f->fd >= 0)
        return 0;
    f->fd = open(f->path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, 0600);
    if (f->fd < 0)
        return -1;
    f->size = fstat(f->fd, &st) == 0 ? (uint64_t)st.st_size : 0;
    return 0;
}

static void rotate(struct rs_logfile *f)
{
    rs_closep(&f->fd);
    for (unsigned i = f->keep; i > 0; i--) {
        rs_auto(rs_freep) char *to = rs_asprintf("%s.%u", f->path, i);
        rs_auto(rs_freep) char *from =
            i == 1 ? rs_strdup(f->path) : rs_asprintf("%s.%u", f->path, i - 1);

        if (rename(from, to) < 0 && i == 1)
            unlink(f->path); /* rather lose it than grow without end */
    }
}

/* Bytes written; fewer than asked: errno says why. */
static size_t write_some(int fd, const char *data, size_t len)
{
    size_t done = 0;

    while (done < len) {
        ssize_t n = write(fd, data + done, len - done);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        done += (size_t)n;
    }
    return done;
}

uint64_t rs_logfile_flush(struct rs_logfile *f)
{
    size_t len = rs_buf_len(&f->lines);
    size_t done = 0;
    uint64_t lost = 0;

    if (len == 0)
        return 0;
    if (open_file(f) == 0) {
        done = write_some(f->fd, rs_buf_head(&f->lines), len);
        f->size += done;
    }
    if (done < len) {
        lost = f->n_lines;
        if (!f->warned)
            rs_log_warn("log lines dropped", "file=%s reason=\"%s\"", f->path, strerror(errno));
        f->warned = true;
        if (f->fd >= 0 && done > 0 && write(f->fd, "\n", 1) == 1) /* end the broken line */
            f->size++;
    } else {
        f->warned = false;
    }
    rs_buf_clear(&f->lines);
    f->n_lines = 0;
    if (f->size >= f->max)
        rotate(f);
    return lost;
}

uint64_t rs_logfile_line(struct rs_logfile *f, const char *line, size_t len)
{
    rs_buf_append(&f->lines, line, len);
    rs_buf_append(&f->lines, "\n", 1);
    f->n_lines++;
    return rs_buf_len(&f->lines) >= GATHER ? rs_logfile_flush(f) : 0;
}

struct found {
    char *name;
    struct timespec when;
};

static bool is_log(const char *name)
{
    const char *dot = strstr(name, ".log");

    return dot && name[0] != '.' &&
           (dot[4] == '\0' || (dot[4] == '.' && dot[5 + strspn(dot + 5, "0123456789")] == '\0'));
}

static int newest_first(const void *a, const void *b)
{
    const struct timespec *x = &((const struct found *)a)->when;
    const struct timespec *y = &((const struct found *)b)->when;

    if (x->tv_sec != y->tv_sec)
        return x->tv_sec < y->tv_sec ? 1 : -1;
    return x->tv_nsec < y->tv_nsec ? 1 : x->tv_nsec > y->tv_nsec ? -1 : 0;
}

void rs_logfile_prune(const char *dir)
{
    DIR *d = opendir(dir);
    struct found *found = NULL;
    size_t n = 0;
    size_t cap = 0;

    if (!d)
        return;
    for (struct dirent *e; (e = readdir(d));) {
        struct stat st;

        if (!is_log(e->d_name) || fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
            continue;
        found = rs_grow(found, &cap, n + 1, sizeof(*found));
        found[n++] = (struct found){.name = rs_strdup(e->d_name), .when = st.st_mtim};
    }
    if (n > RS_LOGFILES_MAX)
        qsort(found, n, sizeof(*found), newest_first);
    for (size_t i = 0; i < n; i++) {
        if (i >= RS_LOGFILES_MAX)
            unlinkat(dirfd(d), found[i].name, 0);
        free(found[i].name);
    }
    free(found);
    closedir(d);
}
