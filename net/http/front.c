#include "net/http/front.h"

#include "core/base/alloc.h"
#include "core/base/clock.h"

#include <errno.h>
#include <string.h>
#include <sys/sendfile.h>
#include <unistd.h>

enum {
    LINGER_S = 2,         /* for a client to read why it was refused */
    LINGER_MAX = 1 << 20, /* bytes that are read meanwhile */
    HELD_KEEP = 4 << 10,  /* a buffer that grew beyond this is given up */
    LINGERING_MAX = 256,  /* connections of a lane */
    HANDSHAKE_S = 30,
    SCRATCH = 64 << 10,
};

/* The model: an executable's own, whatever flags a library is compiled with. */
static _Thread_local struct rs_front *current __attribute__((tls_model("local-exec")));
static const char refused[] = "-"; /* the method of what stands for a refused request */

void rs_front_enter(struct rs_front *f)
{
    current = f;
}

static inline struct rs_front_conn *find(int fd)
{
    const struct rs_front *f = current;

    return f && (size_t)fd < f->size ? f->by_fd[fd] : NULL;
}

/* --- its life ---------------------------------------------------------------------------------- */

static int on_late(struct rs_timer *t);

void rs_front_init(struct rs_front *f, struct rs_loop *loop, size_t head_max, int64_t head_timeout)
{
    *f = (struct rs_front){.loop = loop, .head_max = head_max, .head_timeout = head_timeout};
    rs_list_init(&f->lingering);
    rs_list_init(&f->slow);
    f->late.fn = on_late;
}

static void free_conn(struct rs_front_conn *c)
{
    rs_list_remove(&c->link);
    rs_list_remove(&c->slow);
    rs_io_stop(&c->io);
    rs_timer_stop(&c->timer);
    rs_tls_conn_free(c->tls);
    rs_buf_fini(&c->early);
    rs_buf_fini(&c->held);
    free(c);
}

/* The last of it. Out of the loop first: closing does not take a socket out while a process that is
 * being forked has it too, and the loop would be told of what is freed. */
static void close_it(struct rs_front_conn *c)
{
    int fd = c->fd;

    free_conn(c);
    (void)close(fd);
}

void rs_front_fini(struct rs_front *f)
{
    while (!rs_list_empty(&f->lingering))
        close_it(rs_container_of(f->lingering.next, struct rs_front_conn, link));
    rs_timer_stop(&f->late);
    if (current == f)
        current = NULL;
    free(f->gather);
    f->gather = NULL;
    free(f->by_fd);
    f->by_fd = NULL;
    f->size = 0;
}

static int on_io(struct rs_io *io, uint32_t events)
{
    struct rs_front_conn *c = rs_container_of(io, struct rs_front_conn, io);
    char dump[16 << 10];
    ssize_t n;

    (void)events;
    do {
        n = recv(c->fd, dump, sizeof(dump), MSG_DONTWAIT);
        if (n > 0)
            c->discarded += (size_t)n;
    } while (n > 0 && c->discarded < LINGER_MAX);
    if (n >= 0 || (errno != EAGAIN && errno != EINTR))
        close_it(c);
    return 0;
}

static int on_timer(struct rs_timer *t)
{
    struct rs_front_conn *c = rs_container_of(t, struct rs_front_conn, timer);

    if (c->lingers)
        close_it(c);
    else
        (void)shutdown(c->fd, SHUT_RDWR); /* its time for a handshake is over */
    return 0;
}

static void remember(struct rs_front *f, struct rs_front_conn *c)
{
    size_t at = (size_t)c->fd;

    if (at >= f->size) {
        size_t size = f->size ? f->size : 64;

        while (size <= at)
            size *= 2;
        f->by_fd = rs_realloc(f->by_fd, size * sizeof(struct rs_front_conn *));
        memset(f->by_fd + f->size, 0, (size - f->size) * sizeof(struct rs_front_conn *));
        f->size = size;
    }
    f->by_fd[at] = c;
}

/* As recv. */
static ssize_t read_raw(void *arg, void *to, size_t size)
{
    struct rs_front_conn *c = arg;
    size_t early = rs_buf_len(&c->early) < size ? rs_buf_len(&c->early) : size;
    ssize_t n;

    if (early) {
        memcpy(to, rs_buf_head(&c->early), early);
        rs_buf_consume(&c->early, early);
        if (!rs_buf_len(&c->early))
            rs_buf_fini(&c->early);
    }
    if (early == size)
        return (ssize_t)size;
    n = recv(c->fd, (char *)to + early, size - early, MSG_DONTWAIT);
    return n > 0 ? n + (ssize_t)early : early ? (ssize_t)early : n;
}

static void start_tls(struct rs_front_conn *c)
{
    struct rs_loop *loop = c->front->loop;

    c->tls = rs_tls_accept(c->front->tls, read_raw, c, rs_loop_now(loop));
    if (!c->tls)
        (void)shutdown(c->fd, SHUT_RDWR); /* out of memory: rather nothing than plain text */
    c->shaking = true;
    rs_timer_start(&c->timer, loop, rs_loop_now(loop) + HANDSHAKE_S * RS_SEC);
}

struct rs_front_conn *rs_front_open(struct rs_front *f, int fd)
{
    struct rs_front_conn *c = rs_alloc(sizeof(*c));

    c->fd = fd;
    c->front = f;
    c->io = (struct rs_io){.fd = fd, .fn = on_io};
    c->timer.fn = on_timer;
    rs_list_init(&c->link);
    rs_list_init(&c->slow);
    rs_strict_init(&c->strict, f->head_max);
    remember(f, c);
    if (f->tls)
        start_tls(c);
    return c;
}

/* A socket that is closed while there is something to read resets the connection, and the client may
 * lose the answer. */
static bool linger(struct rs_front_conn *c)
{
    unsigned n = 0;

    rs_list_for_each (it, &c->front->lingering)
        n++;
    if (n >= LINGERING_MAX || rs_io_start(&c->io, c->front->loop, EPOLLIN, NULL) < 0)
        return false;
    (void)shutdown(c->fd, SHUT_WR);
    rs_list_push_back(&c->front->lingering, &c->link);
    rs_timer_start(&c->timer, c->front->loop, rs_loop_now(c->front->loop) + LINGER_S * RS_SEC);
    return true;
}

void rs_front_expect_proxy(struct rs_front_conn *c,
                           void (*fn)(struct rs_front_conn *c, const struct rs_proxy_header *h,
                                      const struct rs_error *why),
                           void *owner)
{
    struct rs_loop *loop = c->front->loop;

    c->on_proxy = fn;
    c->owner = owner;
    c->shaking = true;
    rs_timer_start(&c->timer, loop, rs_loop_now(loop) + HANDSHAKE_S * RS_SEC);
}

void rs_front_release(struct rs_front_conn *c)
{
    if (!c)
        return;
    if (c->deaf && current) {
        c->lingers = true; /* rs_mhd_close comes next */
        return;
    }
    c->front->by_fd[c->fd] = NULL;
    free_conn(c);
}

/* --- reading ----------------------------------------------------------------------------------- */

/* Writes the records that wait. False: some still do, or (errno) the connection is broken. */
static bool flush(struct rs_front_conn *c)
{
    struct rs_buf *out = rs_tls_out(c->tls);

    while (rs_buf_len(out)) {
        ssize_t n = send(c->fd, rs_buf_head(out), rs_buf_len(out), MSG_NOSIGNAL | MSG_DONTWAIT);

        if (n >= 0)
            rs_buf_consume(out, (size_t)n);
        else if (errno != EINTR)
            return false;
    }
    rs_buf_fini(out);
    return true;
}

/* Whoever speaks HTTP to a port of HTTPS is told so. */
static void tell_plain(struct rs_front_conn *c)
{
    static const char answer[] = "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; "
                                 "charset=utf-8\r\ncontent-length: 36\r\nconnection: close\r\n\r\n"
                                 "This port speaks HTTPS: use https://";

    (void)send(c->fd, answer, sizeof(answer) - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static ssize_t read_tls(struct rs_front_conn *c, void *to, size_t size)
{
    ssize_t n = rs_tls_recv(c->tls, to, size);
    int e = errno;

    if (rs_tls_was_plain(c->tls))
        tell_plain(c);
    else
        (void)flush(c);
    if (c->shaking && rs_tls_connected(c->tls)) {
        c->shaking = false;
        rs_timer_stop(&c->timer);
    }
    if (n < 0 && e == EPROTO) {
        c->deaf = true; /* the alert is to arrive */
        e = ECONNRESET;
    }
    errno = e;
    return n;
}

/* The PROXY header. As recv, but a positive result tells that it was there. */
static ssize_t read_proxy(struct rs_front_conn *c)
{
    struct rs_proxy_header h = {0};
    struct rs_error err = {0};
    size_t used = 0;
    ssize_t n;
    int r;

    n = recv(c->fd, rs_buf_reserve(&c->early, RS_PROXY_HEADER_MAX), RS_PROXY_HEADER_MAX,
             MSG_DONTWAIT);
    if (n <= 0)
        return n;
    rs_buf_commit(&c->early, (size_t)n);
    r = rs_proxy_header_parse(rs_buf_head(&c->early), rs_buf_len(&c->early), &used, &h, &err);
    if (r == RS_PROXY_MORE) {
        errno = EAGAIN;
        return -1;
    }
    c->on_proxy(c, r == 0 ? &h : NULL, &err);
    c->on_proxy = NULL;
    if (r < 0) {
        errno = ECONNRESET;
        return -1;
    }
    rs_buf_consume(&c->early, used);
    if (!c->tls) {
        c->shaking = false;
        rs_timer_stop(&c->timer);
    }
    return 1;
}

/* As recv. `drained`: there is no more for now. */
static ssize_t read_some(struct rs_front_conn *c, void *to, size_t size, bool *drained)
{
    ssize_t n;

    *drained = true;
    if (c->front->tls && !c->tls) {
        errno = ECONNRESET;
        return -1;
    }
    n = c->on_proxy ? read_proxy(c) : 1;
    if (n <= 0)
        return n;
    n = c->tls ? read_tls(c, to, size) : read_raw(c, to, size);
    *drained = n < (ssize_t)size;
    return n;
}

static size_t take_held(struct rs_front_conn *c, char *to, size_t size)
{
    size_t n = c->held_ok < size ? c->held_ok : size;

    if (!n)
        return 0;
    memcpy(to, rs_buf_head(&c->held), n);
    rs_buf_consume(&c->held, n);
    c->held_ok -= n;
    if (!rs_buf_len(&c->held) && c->held.cap > HELD_KEEP)
        rs_buf_fini(&c->held);
    return n;
}

/* What stands for that which is refused, after what is in order. */
static void replace(struct rs_front_conn *c)
{
    static const char request[] = " / HTTP/1.0\r\n\r\n", chunk[] = "!\r\n";
    struct rs_buf ok = {0};

    rs_buf_append(&ok, rs_buf_head(&c->held), c->held_ok);
    if (c->strict.bad_in == RS_STRICT_HEAD)
        rs_buf_puts(&ok, refused);
    rs_buf_puts(&ok, c->strict.bad_in == RS_STRICT_HEAD ? request : chunk);
    rs_buf_fini(&c->held);
    c->held = ok;
    c->held_ok = rs_buf_len(&ok);
    c->deaf = true;
}

/* A head that is dribbled has `head_timeout`. One that comes whole is never in the list. */
static void watch_head(struct rs_front_conn *c)
{
    struct rs_front *f = c->front;
    bool under_way = c->strict.state == RS_STRICT_HEAD && rs_buf_len(&c->held) > c->held_ok;
    bool watched = !rs_list_empty(&c->slow);

    if (under_way == watched || !f->head_timeout)
        return;
    if (!under_way) {
        rs_list_remove(&c->slow);
        return;
    }
    c->head_since = rs_loop_now(f->loop);
    rs_list_push_back(&f->slow, &c->slow);
    if (!f->late.loop)
        rs_timer_start(&f->late, f->loop, c->head_since + f->head_timeout);
}

static int on_late(struct rs_timer *t)
{
    struct rs_front *f = rs_container_of(t, struct rs_front, late);
    int64_t now = rs_loop_now(f->loop);

    while (!rs_list_empty(&f->slow)) {
        struct rs_front_conn *c = rs_container_of(f->slow.next, struct rs_front_conn, slow);

        if (c->head_since + f->head_timeout > now) {
            rs_timer_start(t, f->loop, c->head_since + f->head_timeout);
            break;
        }
        rs_list_remove(&c->slow);
        rs_strict_refuse(&c->strict, 408, "The request's header did not come in time.");
        replace(c);
        c->late = true;
        (void)shutdown(c->fd, SHUT_RD); /* so that it is read once more */
    }
    return 0;
}

/* `n` bytes have come, at `p`. Returns how many of them may go on where they are; the rest is held. */
static size_t judge(struct rs_front_conn *c, const char *p, size_t n)
{
    size_t ok = 0;

    if (rs_buf_len(&c->held)) {
        rs_buf_append(&c->held, p, n);
        c->held_ok += rs_strict_scan(&c->strict, rs_buf_head(&c->held) + c->held_ok,
                                     rs_buf_len(&c->held) - c->held_ok);
    } else {
        ok = rs_strict_scan(&c->strict, p, n);
        if (ok < n)
            rs_buf_append(&c->held, p + ok, n - ok);
    }
    if (c->strict.state == RS_STRICT_BAD)
        replace(c);
    watch_head(c);
    return ok;
}

/* libmicrohttpd does not ask again after it got less than it asked for, until the socket has more: what
 * can be had must be given. */
static ssize_t read_request(struct rs_front_conn *c, char *to, size_t size)
{
    size_t done = 0;
    bool drained = false;

    if (c->strict.state == RS_STRICT_UPGRADE && !c->held_ok) {
        rs_strict_no_upgrade(&c->strict); /* it would not ask for more if it were one */
        if (rs_buf_len(&c->held))
            (void)judge(c, "", 0);
    }
    for (;;) {
        ssize_t n;

        done += take_held(c, to + done, size - done);
        if (done == size || drained || c->deaf || c->strict.state == RS_STRICT_UPGRADE)
            break;
        n = read_some(c, to + done, size - done, &drained);
        if (n <= 0) {
            if (done)
                break;
            return n;
        }
        done += judge(c, to + done, (size_t)n);
    }
    if (done)
        return (ssize_t)done;
    errno = EAGAIN;
    return -1;
}

unsigned rs_front_refused(const struct rs_front_conn *c, const char *method, const char **why)
{
    if (!c->deaf || strcmp(method, refused) != 0)
        return 0;
    *why = c->strict.why;
    return c->strict.status;
}

bool rs_front_has_rest(const struct rs_front_conn *c)
{
    return c->strict.state == RS_STRICT_UPGRADE && rs_buf_len(&c->held);
}

ssize_t rs_front_recv(struct rs_front_conn *c, void *to, size_t size)
{
    bool drained;

    c->held_ok = rs_buf_len(&c->held);
    if (c->held_ok)
        return (ssize_t)take_held(c, to, size);
    return read_some(c, to, size, &drained);
}

bool rs_front_pending(const struct rs_front_conn *c)
{
    return rs_buf_len(&c->held) > 0 || (c->tls && rs_tls_pending(c->tls));
}

/* --- writing ----------------------------------------------------------------------------------- */

/* What was encrypted is reported as sent when its records were: a caller that comes again after EAGAIN
 * comes with the same bytes, or more of them. */
static ssize_t write_some(struct rs_front_conn *c, const void *data, size_t len)
{
    size_t n = len < SCRATCH ? len : SCRATCH;

    if (!flush(c))
        return -1;
    if (c->owed) {
        n = c->owed < len ? c->owed : len;
        c->owed -= n;
        return (ssize_t)n;
    }
    if (rs_tls_send(c->tls, data, n) < 0)
        return -1;
    if (!flush(c)) {
        c->owed = n;
        return -1;
    }
    return (ssize_t)n;
}

/* Less than `len` only if the socket takes no more: libmicrohttpd waits until it does then. */
static ssize_t write_tls(struct rs_front_conn *c, const void *data, size_t len)
{
    size_t done = 0;

    while (done < len) {
        ssize_t n = write_some(c, (const char *)data + done, len - done);

        if (n < 0)
            return done ? (ssize_t)done : -1;
        done += (size_t)n;
    }
    return (ssize_t)done;
}

ssize_t rs_front_send(struct rs_front_conn *c, const void *data, size_t len)
{
    return c->tls ? write_tls(c, data, len) : send(c->fd, data, len, MSG_NOSIGNAL | MSG_DONTWAIT);
}

void rs_front_shut(struct rs_front_conn *c)
{
    if (c->tls) {
        rs_tls_shut(c->tls);
        (void)flush(c);
    }
    (void)shutdown(c->fd, SHUT_WR);
}

static char *scratch(struct rs_front_conn *c)
{
    if (!c->front->gather)
        c->front->gather = rs_alloc(SCRATCH);
    return c->front->gather;
}

/* A header and its body leave in one record if they fit. */
static ssize_t write_all(struct rs_front_conn *c, const struct msghdr *msg)
{
    size_t done = 0, whole = 0;

    for (size_t i = 0; i < msg->msg_iovlen; i++)
        whole += msg->msg_iov[i].iov_len;
    for (size_t i = 0; whole <= SCRATCH && i < msg->msg_iovlen; i++) {
        memcpy(scratch(c) + done, msg->msg_iov[i].iov_base, msg->msg_iov[i].iov_len);
        done += msg->msg_iov[i].iov_len;
    }
    if (whole <= SCRATCH)
        return write_tls(c, scratch(c), whole);
    for (size_t i = 0; i < msg->msg_iovlen; i++) {
        ssize_t n = write_tls(c, msg->msg_iov[i].iov_base, msg->msg_iov[i].iov_len);

        if (n < 0)
            return done ? (ssize_t)done : -1;
        done += (size_t)n;
        if ((size_t)n < msg->msg_iov[i].iov_len)
            break;
    }
    return (ssize_t)done;
}

static ssize_t write_file(struct rs_front_conn *c, int in, off_t *at, size_t count)
{
    size_t done = 0;

    while (done < count) {
        size_t want = count - done < SCRATCH ? count - done : SCRATCH;
        ssize_t n = pread(in, scratch(c), want, *at);

        if (n > 0)
            n = write_tls(c, scratch(c), (size_t)n);
        if (n < 0)
            return done ? (ssize_t)done : -1;
        *at += n;
        done += (size_t)n;
        if ((size_t)n < want)
            break; /* the socket is full, or the file is shorter than was said */
    }
    return (ssize_t)done;
}

/* --- what libmicrohttpd calls ------------------------------------------------------------------ */

ssize_t rs_mhd_recv(int fd, void *to, size_t size, int flags)
{
    struct rs_front_conn *c = find(fd);

    return c ? read_request(c, to, size) : recv(fd, to, size, flags);
}

ssize_t rs_mhd_send(int fd, const void *data, size_t len, int flags)
{
    struct rs_front_conn *c = find(fd);

    return c && c->tls ? write_tls(c, data, len) : send(fd, data, len, flags);
}

ssize_t rs_mhd_sendmsg(int fd, const struct msghdr *msg, int flags)
{
    struct rs_front_conn *c = find(fd);

    return c && c->tls ? write_all(c, msg) : sendmsg(fd, msg, flags);
}

ssize_t rs_mhd_sendfile(int fd, int in, off_t *at, size_t count)
{
    struct rs_front_conn *c = find(fd);

    return c && c->tls ? write_file(c, in, at, count) : sendfile(fd, in, at, count);
}

int rs_mhd_shutdown(int fd, int how)
{
    struct rs_front_conn *c = find(fd);

    if (c && c->tls && how != SHUT_RD) {
        rs_tls_shut(c->tls);
        (void)flush(c);
    }
    return shutdown(fd, how);
}

int rs_mhd_close(int fd)
{
    struct rs_front_conn *c = find(fd);

    if (!c)
        return close(fd);
    c->front->by_fd[fd] = NULL;
    if (!linger(c))
        close_it(c);
    return 0;
}
