/* Frames over a non-blocking socket.
 *
 * Output is one run of bytes plus a list of marks: "the descriptors of this mark travel with the byte
 * at this offset". A write never crosses a mark, so that descriptors arrive with the first byte of
 * their frame, as the protocol says. Input is the mirror image: bytes in one buffer, descriptors in a
 * queue; a frame that says it has n of them takes the n oldest.
 */
#include "net/wire/conn.h"

#include "core/base/alloc.h"
#include "core/base/file.h"
#include "core/base/json.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { READ_CHUNK = 64 << 10, HIGH_WATER = 1 << 20, LOW_WATER = 256 << 10, IN_FDS_MAX = 64 };

struct mark {
    struct rs_list link;
    uint64_t at; /* offset in the whole output of this connection */
    int fds[RS_FRAME_FDS_MAX];
    size_t n;
};

struct rs_conn {
    struct rs_io io;
    struct rs_after flush;
    const struct rs_conn_ops *ops;
    void *arg;
    struct rs_buf in, out;
    uint64_t out_base; /* offset of out's first byte */
    struct rs_list marks;
    int in_fds[IN_FDS_MAX];
    size_t in_fds_len;
    bool is_unix, closed, paused, want_out, congested, flushing;
    bool in_callback, dead; /* dead: freed from inside a callback */
    bool reset;             /* the peer closed a Unix socket that still had input for it */
    struct rs_error *doom;  /* why the next flush fails */
};

static const uint32_t in_events = EPOLLIN | EPOLLRDHUP;

static void destroy(struct rs_conn *c)
{
    struct rs_list *it;

    rs_io_stop(&c->io);
    rs_after_remove(&c->flush);
    rs_closep(&c->io.fd);
    while ((it = rs_list_pop_front(&c->marks))) {
        struct mark *m = rs_container_of(it, struct mark, link);

        for (size_t i = 0; i < m->n; i++)
            rs_closep(&m->fds[i]);
        free(m);
    }
    for (size_t i = 0; i < c->in_fds_len; i++)
        close(c->in_fds[i]);
    rs_buf_fini(&c->in);
    rs_buf_fini(&c->out);
    free(c->doom);
    free(c);
}

static int pending_error(const struct rs_conn *c)
{
    int error = 0;
    socklen_t len = sizeof(error);

    return getsockopt(c->io.fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0 ? 0 : error;
}

static void fail(struct rs_conn *c, const struct rs_error *why)
{
    bool nested = c->in_callback;

    if (c->closed)
        return;
    c->closed = true;
    c->reset = c->is_unix && (why->sys_errno == ECONNRESET || pending_error(c) == ECONNRESET);
    rs_io_stop(&c->io);
    rs_after_remove(&c->flush);
    c->flushing = false;
    c->in_callback = true;
    c->ops->on_close(c, why, c->arg);
    c->in_callback = nested;
}

/* --- output ------------------------------------------------------------------------------------ */

static void want(struct rs_conn *c, bool out)
{
    c->want_out = out;
    if (c->io.loop)
        rs_io_watch(&c->io, (c->paused ? 0 : in_events) | (out ? EPOLLOUT : 0));
}

/* One sendmsg: bytes up to the next mark, with the descriptors of a mark that is due. */
static ssize_t write_some(struct rs_conn *c)
{
    union {
        char space[CMSG_SPACE(sizeof(int) * RS_FRAME_FDS_MAX)];
        struct cmsghdr align;
    } control = {0};
    struct iovec iov = {rs_buf_head(&c->out), rs_buf_len(&c->out)};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    struct rs_list *first = c->marks.next;
    struct mark *due = NULL;
    ssize_t n;

    if (first != &c->marks) {
        struct mark *m = rs_container_of(first, struct mark, link);
        struct rs_list *second = first->next;
        uint64_t stop = m->at;

        if (m->at == c->out_base) {
            struct cmsghdr *cmsg;

            due = m;
            msg.msg_control = control.space;
            msg.msg_controllen = CMSG_SPACE(sizeof(int) * m->n);
            cmsg = CMSG_FIRSTHDR(&msg);
            cmsg->cmsg_level = SOL_SOCKET;
            cmsg->cmsg_type = SCM_RIGHTS;
            cmsg->cmsg_len = CMSG_LEN(sizeof(int) * m->n);
            memcpy(CMSG_DATA(cmsg), m->fds, sizeof(int) * m->n);
            stop =
                second == &c->marks ? UINT64_MAX : rs_container_of(second, struct mark, link)->at;
        }
        if (stop != UINT64_MAX && iov.iov_len > stop - c->out_base)
            iov.iov_len = (size_t)(stop - c->out_base);
    }
    n = sendmsg(c->io.fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n > 0) {
        rs_buf_consume(&c->out, (size_t)n);
        c->out_base += (uint64_t)n;
        if (due) {
            for (size_t i = 0; i < due->n; i++)
                rs_closep(&due->fds[i]);
            rs_list_remove(&due->link);
            free(due);
        }
    }
    return n;
}

static void flush(struct rs_conn *c)
{
    struct rs_error err = {0};

    while (!c->closed && rs_buf_len(&c->out)) {
        if (write_some(c) > 0)
            continue;
        if (errno == EINTR)
            continue;
        if (errno == EAGAIN) {
            if (!c->want_out)
                want(c, true);
            return;
        }
        rs_error_errno(&err, errno, "writing to the peer failed");
        fail(c, &err);
        return;
    }
    if (c->want_out && !c->closed)
        want(c, false);
    if (c->out.cap > (size_t)4 * HIGH_WATER)
        rs_buf_fini(&c->out);
}

/* Flushes, and tells a sender that was held back that it may go on. */
static void flush_and_tell(struct rs_conn *c)
{
    flush(c);
    if (c->closed || c->dead || !c->congested || rs_buf_len(&c->out) >= LOW_WATER)
        return;
    c->congested = false;
    if (c->ops->on_drain)
        c->ops->on_drain(c, c->arg);
}

static int64_t on_flush(struct rs_after *a)
{
    struct rs_conn *c = rs_container_of(a, struct rs_conn, flush);

    rs_after_remove(a);
    c->flushing = false;
    c->in_callback = true;
    if (c->doom)
        fail(c, c->doom);
    else if (!c->want_out)
        flush_and_tell(c);
    c->in_callback = false;
    if (c->dead)
        destroy(c);
    return -1;
}

static void schedule(struct rs_conn *c)
{
    if (rs_buf_len(&c->out) > HIGH_WATER)
        c->congested = true;
    if (c->flushing || c->closed)
        return;
    c->flushing = true;
    rs_after_add(c->io.loop, &c->flush);
}

/* What was to be sent cannot be. The owner learns it from the loop, not inside its call. */
static void fail_later(struct rs_conn *c, const struct rs_error *why)
{
    if (!c->doom)
        c->doom = rs_memdup(why, sizeof(*why));
    schedule(c);
}

static void put_mark(struct rs_conn *c, const int *fds, size_t n)
{
    struct mark *m = rs_alloc(sizeof(*m));

    assert(c->is_unix && n <= RS_FRAME_FDS_MAX);
    rs_list_init(&m->link);
    m->at = c->out_base + rs_buf_len(&c->out);
    memcpy(m->fds, fds, n * sizeof(*fds));
    m->n = n;
    rs_list_push_back(&c->marks, &m->link);
}

static void put_frame(struct rs_conn *c, const struct rs_header *h, const void *meta,
                      const void *body)
{
    size_t inline_len = h->flags & RS_FRAME_MEMFD ? 0 : (size_t)h->body_len;
    char *to = rs_buf_reserve(&c->out, RS_FRAME_HEADER + h->meta_len + inline_len);

    assert(body || !inline_len);
    rs_header_encode(h, (uint8_t *)to);
    if (h->meta_len)
        memcpy(to + RS_FRAME_HEADER, meta, h->meta_len);
    if (inline_len)
        memcpy(to + RS_FRAME_HEADER + h->meta_len, body, inline_len);
    rs_buf_commit(&c->out, RS_FRAME_HEADER + h->meta_len + inline_len);
    schedule(c);
}

static int fill_memfd(const void *body, size_t len)
{
    int fd = memfd_create("rserve-body", MFD_CLOEXEC);

    if (fd >= 0 && rs_file_write(fd, body, len, 0) < 0)
        rs_closep(&fd);
    return fd;
}

/* Cuts a body that is too long for one frame; END goes with the last piece only. */
static void send_pieces(struct rs_conn *c, const struct rs_header *h, const void *meta,
                        const char *body, uint64_t len)
{
    struct rs_header piece = *h;
    const uint64_t most = 1 << 20;

    do {
        uint64_t n = len < most ? len : most;

        piece.body_len = n;
        piece.flags = n == len ? h->flags : (uint8_t)(h->flags & ~RS_FRAME_END);
        put_frame(c, &piece, meta, body);
        body += n;
        len -= n;
        piece.type = RS_MSG_BODY;
        piece.meta_len = 0;
    } while (len);
}

void rs_conn_send(struct rs_conn *c, enum rs_msg type, unsigned flags, uint64_t stream,
                  const void *meta, size_t meta_len, const void *body, size_t body_len)
{
    struct rs_header h = {.meta_len = (uint32_t)meta_len,
                          .type = (uint8_t)type,
                          .flags = (uint8_t)flags,
                          .stream = stream,
                          .body_len = body_len};

    assert(meta_len <= RS_FRAME_META_MAX);
    if (c->closed)
        return;
    if (body_len > RS_FRAME_MEMFD_MIN && c->is_unix) {
        int fd = fill_memfd(body, body_len);

        if (fd >= 0) {
            rs_conn_send_fd(c, type, flags, stream, meta, meta_len, fd, body_len);
            return;
        }
    }
    if (body_len > RS_FRAME_MEMFD_MIN)
        send_pieces(c, &h, meta, body, body_len);
    else
        put_frame(c, &h, meta, body);
}

/* Its owner may have made the file shorter meanwhile, so it is not mapped. */
static int read_body(int fd, char *to, size_t len, uint64_t at, struct rs_error *err)
{
    if (rs_file_read(fd, to, len, at) == 0)
        return 0;
    if (errno == ENODATA)
        return rs_error_set(err, RS_INVALID, "a memfd became shorter than its body");
    return rs_error_errno(err, errno, "cannot read a body");
}

/* The body of `fd` cut into inline frames; END goes with the last piece only. */
static int send_file(struct rs_conn *c, struct rs_header h, const void *meta, int fd,
                     struct rs_error *err)
{
    const uint64_t len = h.body_len, most = 1 << 20;
    rs_auto(rs_freep) char *piece = rs_alloc((size_t)(len < most ? len : most));
    uint8_t flags = h.flags;
    uint64_t at = 0;

    do {
        h.body_len = len - at < most ? len - at : most;
        h.flags = at + h.body_len == len ? flags : (uint8_t)(flags & ~RS_FRAME_END);
        if (read_body(fd, piece, (size_t)h.body_len, at, err) < 0)
            return -1;
        put_frame(c, &h, meta, piece);
        at += h.body_len;
        h.type = RS_MSG_BODY;
        h.meta_len = 0;
    } while (at < len);
    return 0;
}

void rs_conn_send_fd(struct rs_conn *c, enum rs_msg type, unsigned flags, uint64_t stream,
                     const void *meta, size_t meta_len, int fd, uint64_t body_len)
{
    struct rs_header h = {.meta_len = (uint32_t)meta_len,
                          .type = (uint8_t)type,
                          .flags = (uint8_t)flags,
                          .stream = stream,
                          .body_len = body_len};
    struct rs_error err = {0};

    if (!c->closed && c->is_unix) {
        h.flags |= RS_FRAME_MEMFD;
        h.fds = 1;
        put_mark(c, &fd, 1);
        put_frame(c, &h, meta, NULL);
        return;
    }
    if (!c->closed && send_file(c, h, meta, fd, &err) < 0)
        fail_later(c, &err);
    close(fd);
}

void rs_conn_send_json(struct rs_conn *c, enum rs_msg type, uint64_t stream, const json_t *j)
{
    rs_conn_send_json_fds(c, type, stream, j, NULL, 0);
}

/* A message that is too long for metadata is the body of its frame. */
static int measure(struct rs_header *h, size_t len, struct rs_error *err)
{
    if (len > RS_FRAME_BODY_MAX)
        return rs_error_set(err, RS_NO_ROOM, "%s message of %zu bytes, limit %u",
                            rs_msg_name(h->type), len, RS_FRAME_BODY_MAX);
    if (len <= RS_FRAME_META_MAX)
        h->meta_len = (uint32_t)len;
    else
        h->body_len = len;
    return 0;
}

int rs_conn_offer_text(struct rs_conn *c, enum rs_msg type, uint64_t stream, const char *text,
                       struct rs_error *err)
{
    struct rs_header h = {.type = (uint8_t)type, .stream = stream};

    if (measure(&h, strlen(text), err) < 0)
        return -1;
    if (!c->closed)
        put_frame(c, &h, text, text);
    return 0;
}

int rs_conn_offer_json(struct rs_conn *c, enum rs_msg type, uint64_t stream, const json_t *j,
                       struct rs_error *err)
{
    rs_auto(rs_freep) char *text = rs_json_dump(j);

    return rs_conn_offer_text(c, type, stream, text, err);
}

void rs_conn_send_json_fds(struct rs_conn *c, enum rs_msg type, uint64_t stream, const json_t *j,
                           int *fds, size_t n)
{
    rs_auto(rs_freep) char *text = rs_json_dump(j);
    struct rs_header h = {.type = (uint8_t)type, .stream = stream, .fds = (uint16_t)n};
    struct rs_error err = {0};
    int r = measure(&h, strlen(text), &err);

    if (c->closed || r < 0) {
        for (size_t i = 0; i < n; i++)
            rs_closep(&fds[i]);
        if (!c->closed)
            fail_later(c, &err);
        return;
    }
    if (n)
        put_mark(c, fds, n);
    put_frame(c, &h, text, text);
}

bool rs_conn_congested(const struct rs_conn *c)
{
    return c->congested;
}

bool rs_conn_closed(const struct rs_conn *c)
{
    return c->closed;
}

bool rs_conn_within(const struct rs_conn *c)
{
    return c->is_unix;
}

uint64_t rs_conn_sent(const struct rs_conn *c)
{
    return c->out_base + rs_buf_len(&c->out);
}

bool rs_conn_unread(const struct rs_conn *c, uint64_t at)
{
    return at > c->out_base || (c->reset && at == c->out_base);
}

void rs_conn_pause(struct rs_conn *c, bool paused)
{
    if (c->paused == paused || c->closed)
        return;
    c->paused = paused;
    want(c, c->want_out);
}

/* --- input ------------------------------------------------------------------------------------- */

/* Reads once. The bytes read, 0 at the end of the stream, -1 with errno. */
static ssize_t read_some(struct rs_conn *c, size_t room)
{
    union {
        char space[CMSG_SPACE(sizeof(int) * RS_FRAME_FDS_MAX)];
        struct cmsghdr align;
    } control;
    struct iovec iov = {rs_buf_reserve(&c->in, room), room};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control.space,
                         .msg_controllen = sizeof(control.space)};
    ssize_t n = recvmsg(c->io.fd, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);

    if (n <= 0)
        return n;
    rs_buf_commit(&c->in, (size_t)n);
    for (struct cmsghdr *m = CMSG_FIRSTHDR(&msg); m; m = CMSG_NXTHDR(&msg, m)) {
        size_t fds = (m->cmsg_len - CMSG_LEN(0)) / sizeof(int);

        if (m->cmsg_level != SOL_SOCKET || m->cmsg_type != SCM_RIGHTS)
            continue;
        for (size_t i = 0; i < fds; i++) {
            int fd;

            memcpy(&fd, CMSG_DATA(m) + i * sizeof(int), sizeof(fd));
            if (c->in_fds_len < IN_FDS_MAX)
                c->in_fds[c->in_fds_len++] = fd;
            else
                close(fd); /* its frame will not find it and end the connection */
        }
    }
    return n;
}

/* Gives `f` its descriptors. */
static int take_fds(struct rs_conn *c, struct rs_frame *f, struct rs_error *err)
{
    struct stat st;
    size_t n = f->h.fds, used = 0;

    if (n > c->in_fds_len)
        return rs_error_set(err, RS_INVALID, "%s frame without its %zu descriptors",
                            rs_msg_name(f->h.type), n);
    for (size_t i = 0; i < n; i++) {
        if (i == 0 && (f->h.flags & RS_FRAME_MEMFD))
            f->body_fd = c->in_fds[i];
        else
            f->fds[used++] = c->in_fds[i];
    }
    c->in_fds_len -= n;
    memmove(c->in_fds, c->in_fds + n, c->in_fds_len * sizeof(int));
    if (f->body_fd >= 0 && (fstat(f->body_fd, &st) < 0 || !S_ISREG(st.st_mode) ||
                            (uint64_t)st.st_size < f->h.body_len))
        return rs_error_set(err, RS_INVALID, "%s frame whose memfd is shorter than its body",
                            rs_msg_name(f->h.type));
    return 0;
}

/* One whole frame from the input. 1: done one, 0: not enough bytes (`need` tells how many are
 * missing), -1: broken. */
static int next_frame(struct rs_conn *c, size_t *need, struct rs_error *err)
{
    struct rs_frame f = {.body_fd = -1, .fds = {-1, -1, -1, -1}};
    size_t have = rs_buf_len(&c->in), total;
    int r = 1;

    if (have < RS_FRAME_HEADER) {
        *need = RS_FRAME_HEADER - have;
        return 0;
    }
    if (rs_header_decode((const uint8_t *)rs_buf_head(&c->in), &f.h, err) < 0)
        return -1;
    total = RS_FRAME_HEADER + f.h.meta_len;
    if (!(f.h.flags & RS_FRAME_MEMFD))
        total += (size_t)f.h.body_len;
    if (have < total) {
        *need = total - have;
        return 0;
    }
    if (take_fds(c, &f, err) < 0)
        r = -1;
    if (r > 0) {
        f.meta = rs_buf_head(&c->in) + RS_FRAME_HEADER;
        if (!(f.h.flags & RS_FRAME_MEMFD))
            f.body = f.meta + f.h.meta_len;
        c->ops->on_frame(c, &f, c->arg);
    }
    rs_closep(&f.body_fd);
    for (size_t i = 0; i < RS_FRAME_FDS_MAX; i++)
        rs_closep(&f.fds[i]);
    if (r > 0)
        rs_buf_consume(&c->in, total);
    return r;
}

static void receive(struct rs_conn *c)
{
    struct rs_error err = {0};
    size_t need = 0;

    for (int rounds = 0; rounds < 16 && !c->closed && !c->dead && !c->paused; rounds++) {
        size_t room = need > READ_CHUNK ? need : READ_CHUNK;
        ssize_t n = read_some(c, room);
        int r = 1;

        if (n < 0 && errno == EAGAIN)
            return;
        if (n < 0 && errno == EINTR)
            continue;
        if (n == 0)
            rs_error_set(&err, RS_SYSTEM, "the peer closed the connection");
        else if (n < 0)
            rs_error_errno(&err, errno, "reading from the peer failed");
        if (n <= 0) {
            fail(c, &err);
            return;
        }
        while (r > 0 && !c->closed && !c->dead)
            r = next_frame(c, &need, &err);
        if (r < 0 && !c->dead) {
            fail(c, &err);
            return;
        }
        if ((size_t)n < room)
            break;
    }
    if (!c->dead && !rs_buf_len(&c->in) && c->in.cap > 4 * (size_t)HIGH_WATER)
        rs_buf_fini(&c->in); /* one large frame is no reason to keep so much */
}

void rs_conn_receive(struct rs_conn *c)
{
    bool nested = c->in_callback;

    if (c->closed)
        return;
    c->paused = false;
    c->in_callback = true;
    receive(c);
    c->in_callback = nested;
    if (c->dead && !nested)
        destroy(c);
}

static int on_io(struct rs_io *io, uint32_t events)
{
    struct rs_conn *c = rs_container_of(io, struct rs_conn, io);

    c->in_callback = true;
    if (events & EPOLLOUT)
        flush_and_tell(c);
    if (!c->dead && !c->closed && (events & (EPOLLIN | EPOLLHUP | EPOLLRDHUP | EPOLLERR))) {
        if (c->paused && (events & (EPOLLHUP | EPOLLERR)))
            c->paused = false; /* a dead peer is news even to one who does not listen */
        receive(c);
    }
    c->in_callback = false;
    if (c->dead)
        destroy(c);
    return 0;
}

int rs_conn_new(struct rs_conn **ret, struct rs_loop *loop, int fd, const struct rs_conn_ops *ops,
                void *arg, struct rs_error *err)
{
    struct rs_conn *c = rs_alloc(sizeof(*c));
    int domain = 0;
    socklen_t len = sizeof(domain);

    c->io = (struct rs_io){.fd = fd, .fn = on_io};
    c->flush.fn = on_flush;
    c->ops = ops;
    c->arg = arg;
    rs_list_init(&c->marks);
    rs_list_init(&c->flush.link);
    if (fcntl(fd, F_SETFL, O_NONBLOCK) < 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 ||
        getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) < 0) {
        rs_error_errno(err, errno, "cannot use fd %d as a connection", fd);
        destroy(c);
        return -1;
    }
    c->is_unix = domain == AF_UNIX;
    if (rs_io_start(&c->io, loop, in_events, err) < 0) {
        destroy(c);
        return -1;
    }
    *ret = c;
    return 0;
}

void rs_conn_free(struct rs_conn *c)
{
    if (!c || c->dead)
        return;
    if (!c->closed) {
        while (rs_buf_len(&c->out) && write_some(c) > 0)
            ;
        c->closed = true;
    }
    if (c->in_callback) {
        c->dead = true;
        rs_io_stop(&c->io);
        rs_after_remove(&c->flush);
        return;
    }
    destroy(c);
}

int rs_frame_json(const struct rs_frame *f, json_t **ret, struct rs_error *err)
{
    bool is_long = !f->h.meta_len && f->body;
    json_t *j = NULL;

    if (rs_json_parse(&j, is_long ? f->body : f->meta, is_long ? f->h.body_len : f->h.meta_len,
                      rs_msg_name(f->h.type), err) < 0)
        return -1;
    if (!json_is_object(j)) {
        json_decref(j);
        return rs_error_set(err, RS_INVALID, "%s frame without a JSON object",
                            rs_msg_name(f->h.type));
    }
    *ret = j;
    return 0;
}
