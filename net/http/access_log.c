#include "net/http/access_log.h"

#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "core/base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { ROOM = 256 << 10, ENOUGH = 16 << 10 };

#define PATIENCE (50 * RS_MS)

struct rs_access_log {
    struct rs_loop *loop;
    char *path; /* NULL: standard output */
    struct rs_series *dropped;
    struct rs_io io; /* while a pipe is full */
    struct rs_timer due;
    bool is_file, is_socket;
    dev_t dev;
    ino_t ino;
    int64_t look_at;  /* when the file's name is looked at again */
    int64_t again_at; /* nothing is tried before; 0: all is well */
    bool warned;
    bool cut; /* the last line was written in part */
    struct rs_buf lines;
    size_t n_lines;
};

/* --- the descriptor ---------------------------------------------------------------------------- */

/* A pipe or a terminal is opened anew: what is set for this descriptor must not be so for others that
 * share it. A file is not, since they share its offset. */
static int open_stdout(void)
{
    struct stat st;
    int fd = -1;

    if (fstat(STDOUT_FILENO, &st) == 0 && (S_ISFIFO(st.st_mode) || S_ISCHR(st.st_mode)))
        fd = open("/proc/self/fd/1", O_WRONLY | O_APPEND | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
    return fd >= 0 ? fd : fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
}

static int open_it(struct rs_access_log *l, struct rs_error *err)
{
    struct stat st = {0};
    int fd = l->path ? open(l->path,
                            O_WRONLY | O_APPEND | O_CREAT | O_NONBLOCK | O_CLOEXEC | O_NOCTTY, 0640)
                     : open_stdout();

    if (fd < 0)
        return rs_error_errno(err, errno, "cannot open the access log %s",
                              l->path ? l->path : "on standard output");
    (void)fstat(fd, &st);
    rs_io_stop(&l->io);
    rs_closep(&l->io.fd);
    l->io.fd = fd;
    l->is_file = S_ISREG(st.st_mode);
    l->is_socket = S_ISSOCK(st.st_mode);
    l->dev = st.st_dev;
    l->ino = st.st_ino;
    l->again_at = 0;
    l->cut = false;
    return 0;
}

/* What was open stays in use if it fails. */
static void reopen(struct rs_access_log *l)
{
    struct rs_error err = {0};

    if (open_it(l, &err) < 0 && !l->warned) {
        rs_log_warn("the access log stays as it was", "reason=\"%s\"", err.msg);
        l->warned = true;
    }
}

/* Somebody renamed it, or removed it. */
static void look(struct rs_access_log *l, int64_t now)
{
    struct stat st;

    if (!l->path || !l->is_file || now < l->look_at)
        return;
    l->look_at = now + RS_SEC;
    if (stat(l->path, &st) < 0 ? errno == ENOENT : st.st_ino != l->ino || st.st_dev != l->dev)
        reopen(l);
}

/* --- writing ----------------------------------------------------------------------------------- */

static void drop(struct rs_access_log *l)
{
    if (l->n_lines)
        rs_series_add(l->dropped, (double)l->n_lines);
    rs_buf_clear(&l->lines);
    l->n_lines = 0;
}

static void fail(struct rs_access_log *l, int why, int64_t now)
{
    if (!l->warned)
        rs_log_warn("lines of the access log are dropped", "file=\"%s\" reason=\"%s\"",
                    l->path ? l->path : "-", strerror(why));
    l->warned = true;
    l->again_at = now + RS_SEC;
    drop(l);
}

static int on_room(struct rs_io *io, uint32_t events)
{
    (void)events;
    rs_io_stop(io);
    rs_access_log_flush(rs_container_of(io, struct rs_access_log, io));
    return 0;
}

static size_t count_lines(const char *data, size_t len)
{
    size_t n = 0;

    for (const char *p = data; (p = memchr(p, '\n', len - (size_t)(p - data))); p++)
        n++;
    return n;
}

/* `n` bytes of what is there were written. */
static void wrote(struct rs_access_log *l, size_t n)
{
    const char *data = rs_buf_head(&l->lines);

    l->cut = data[n - 1] != '\n';
    if (n == rs_buf_len(&l->lines)) {
        rs_buf_clear(&l->lines);
        l->n_lines = 0;
        return;
    }
    l->n_lines -= count_lines(data, n);
    rs_buf_consume(&l->lines, n);
}

static ssize_t write_some(const struct rs_access_log *l)
{
    const char *data = rs_buf_head(&l->lines);
    size_t len = rs_buf_len(&l->lines);

    if (l->is_socket)
        return send(l->io.fd, data, len, MSG_DONTWAIT | MSG_NOSIGNAL);
    return write(l->io.fd, data, len);
}

void rs_access_log_flush(struct rs_access_log *l)
{
    int64_t now = rs_loop_now(l->loop);

    rs_timer_stop(&l->due);
    if (!rs_buf_len(&l->lines) || l->io.loop)
        return;
    look(l, now);
    if (now < l->again_at) {
        drop(l);
        return;
    }
    if (l->again_at && l->path && !l->is_file) /* a pipe with another reader, perhaps */
        reopen(l);
    while (rs_buf_len(&l->lines)) {
        ssize_t n = write_some(l);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN) {
            if (rs_io_start(&l->io, l->loop, EPOLLOUT, NULL) == 0)
                return;
            errno = EAGAIN;
        }
        if (n <= 0) {
            fail(l, n < 0 ? errno : ENOSPC, now);
            return;
        }
        wrote(l, (size_t)n);
    }
    l->warned = false;
    l->again_at = 0;
}

static int on_due(struct rs_timer *t)
{
    rs_access_log_flush(rs_container_of(t, struct rs_access_log, due));
    return 0;
}

void rs_access_log_turn(struct rs_access_log *l)
{
    if (rs_buf_len(&l->lines) >= ENOUGH)
        rs_access_log_flush(l);
    else if (rs_buf_len(&l->lines) && !l->due.loop)
        rs_timer_start(&l->due, l->loop, rs_loop_now(l->loop) + PATIENCE);
}

struct rs_buf *rs_access_log_line(struct rs_access_log *l)
{
    if (rs_buf_len(&l->lines) >= ROOM) {
        rs_access_log_flush(l);
        if (rs_buf_len(&l->lines) >= ROOM) {
            rs_series_add(l->dropped, 1);
            return NULL;
        }
    }
    if (!rs_buf_len(&l->lines) && l->cut && !l->io.loop) { /* what failed left half a line */
        rs_buf_append(&l->lines, "\n", 1);
        l->cut = false;
    }
    l->n_lines++;
    return &l->lines;
}

/* --- its life ---------------------------------------------------------------------------------- */

int rs_access_log_open(struct rs_access_log **ret, struct rs_loop *loop, const char *path,
                       struct rs_series *dropped, struct rs_error *err)
{
    rs_auto(rs_access_log_freep) struct rs_access_log *l = rs_alloc(sizeof(*l));

    l->loop = loop;
    l->path = strcmp(path, "-") == 0 ? NULL : rs_strdup(path);
    l->dropped = dropped;
    l->io = (struct rs_io){.fd = -1, .fn = on_room};
    l->due.fn = on_due;
    if (open_it(l, err) < 0)
        return -1;
    *ret = rs_steal(l);
    return 0;
}

void rs_access_log_reopen(struct rs_access_log *l)
{
    l->look_at = rs_loop_now(l->loop) + RS_SEC; /* what is there belongs to the old one */
    rs_access_log_flush(l);
    if (l->path)
        reopen(l);
    rs_access_log_flush(l); /* of what the old one did not take */
}

void rs_access_log_free(struct rs_access_log *l)
{
    if (!l)
        return;
    rs_io_stop(&l->io);
    if (l->io.fd >= 0)
        rs_access_log_flush(l);
    rs_io_stop(&l->io);
    rs_timer_stop(&l->due);
    drop(l);
    rs_closep(&l->io.fd);
    rs_buf_fini(&l->lines);
    free(l->path);
    free(l);
}
