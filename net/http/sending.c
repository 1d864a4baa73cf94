#include "net/http/sending.h"

#include "core/base/alloc.h"
#include "core/base/cleanup.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/uio.h>

enum { PARTS = 16 };

static const char chunk_end[] = "\r\n0\r\n\r\n";

static uint64_t total(const struct rs_piece *p)
{
    return p->pre_len + p->len + p->post_len;
}

static void drop(struct rs_sending *s, struct rs_piece *p)
{
    rs_list_remove(&p->link);
    rs_buf_fini(&p->copy);
    if (p->own_fd)
        rs_closep(&p->fd);
    if (p != &s->first)
        free(p);
}

void rs_sending_clear(struct rs_sending *s)
{
    while (!rs_list_empty(&s->pieces))
        drop(s, rs_container_of(s->pieces.next, struct rs_piece, link));
    rs_buf_clear(&s->head);
}

void rs_sending_fini(struct rs_sending *s)
{
    rs_sending_clear(s);
    rs_buf_fini(&s->head);
}

void rs_sending_begin(struct rs_sending *s, bool chunked, bool keep)
{
    rs_list_init(&s->pieces);
    s->head_done = 0;
    s->chunked = chunked;
    s->keep = keep;
    s->sent = s->taken = 0;
}

/* Frames a piece and puts it last. Without chunks an empty one is nothing. */
static void append(struct rs_sending *s, struct rs_piece *p, bool end)
{
    rs_list_init(&p->link);
    if (s->chunked && p->len) {
        p->pre_len =
            (size_t)snprintf(p->pre, sizeof(p->pre), "%llx\r\n", (unsigned long long)p->len);
        p->post_len = end ? sizeof(chunk_end) - 1 : 2;
    } else if (s->chunked && end) {
        p->pre_len = (size_t)snprintf(p->pre, sizeof(p->pre), "0\r\n\r\n");
    }
    rs_list_push_back(&s->pieces, &p->link);
    if (!total(p))
        drop(s, p);
}

void rs_sending_first(struct rs_sending *s, const char *data, int fd, uint64_t len, bool end)
{
    s->first = (struct rs_piece){.data = data, .fd = fd, .len = len, .take = end ? 0 : len};
    append(s, &s->first, end);
}

void rs_sending_add(struct rs_sending *s, const char *data, int *fd, uint64_t len, bool end)
{
    struct rs_piece *p = rs_alloc(sizeof(*p));

    p->fd = -1;
    p->len = p->take = len;
    if (*fd >= 0) {
        p->fd = rs_steal_fd(fd);
        p->own_fd = true;
    } else if (len) {
        rs_buf_append(&p->copy, data, (size_t)len);
        p->data = rs_buf_head(&p->copy);
    }
    append(s, p, end);
}

bool rs_sending_empty(const struct rs_sending *s)
{
    const struct rs_piece *last;

    if (s->head_done < rs_buf_len(&s->head))
        return false;
    if (rs_list_empty(&s->pieces))
        return true;
    last = rs_container_of(s->pieces.prev, struct rs_piece, link);
    return last->done == total(last);
}

void rs_sending_restart(struct rs_sending *s)
{
    s->head_done = 0;
    s->sent = 0;
    rs_list_for_each (it, &s->pieces)
        rs_container_of(it, struct rs_piece, link)->done = 0;
}

static void part(struct iovec *iov, int *n, const char *data, uint64_t len)
{
    union {
        const char *from;
        void *to;
    } base = {data}; /* sendmsg does not write to it */

    iov[*n] = (struct iovec){base.to, (size_t)len};
    *n += 1;
}

/* What is left of a piece as memory. False: a file comes next, or there is no room. */
static bool gather(const struct rs_piece *p, struct iovec *iov, int *n)
{
    uint64_t done = p->done, body_end = p->pre_len + p->len;

    if (*n + 3 > PARTS)
        return false;
    if (done < p->pre_len) {
        part(iov, n, p->pre + done, p->pre_len - done);
        done = p->pre_len;
    }
    if (done < body_end) {
        if (p->fd >= 0)
            return false;
        part(iov, n, p->data + (done - p->pre_len), body_end - done);
        done = body_end;
    }
    if (done < total(p))
        part(iov, n, chunk_end + (done - body_end), total(p) - done);
    return true;
}

static void advance(struct rs_sending *s, uint64_t n)
{
    uint64_t head = rs_buf_len(&s->head) - s->head_done;

    s->sent += n;
    head = n < head ? n : head;
    s->head_done += (size_t)head;
    n -= head;
    rs_list_for_each (it, &s->pieces) {
        struct rs_piece *p = rs_container_of(it, struct rs_piece, link);
        uint64_t left = total(p) - p->done, now = n < left ? n : left;

        p->done += now;
        n -= now;
        if (p->done < total(p))
            break;
        s->taken += p->take;
        p->take = 0;
        if (!s->keep)
            drop(s, p);
    }
}

/* One system call. What it wrote, 0: all was sent, -1 with errno. */
static ssize_t write_some(struct rs_sending *s, int fd)
{
    struct iovec iov[PARTS];
    struct msghdr msg = {.msg_iov = iov};
    const struct rs_piece *file = NULL;
    int n = 0;

    if (s->head_done < rs_buf_len(&s->head))
        part(iov, &n, rs_buf_head(&s->head) + s->head_done, rs_buf_len(&s->head) - s->head_done);
    rs_list_for_each (it, &s->pieces) {
        const struct rs_piece *p = rs_container_of(it, struct rs_piece, link);

        if (!gather(p, iov, &n)) {
            file = p;
            break;
        }
    }
    if (n) {
        msg.msg_iovlen = (size_t)n;
        return sendmsg(fd, &msg, MSG_NOSIGNAL | (file ? MSG_MORE : 0));
    }
    if (file) {
        off_t at = (off_t)(file->done - file->pre_len);
        ssize_t r = sendfile(fd, file->fd, &at, (size_t)(file->len - (uint64_t)at));

        if (r == 0)
            errno = EIO; /* the file is shorter than it was said to be */
        return r == 0 ? -1 : r;
    }
    return 0;
}

int rs_sending_write(struct rs_sending *s, int fd)
{
    for (;;) {
        ssize_t n = write_some(s, fd);

        if (n > 0)
            advance(s, (uint64_t)n);
        else if (n == 0)
            return 0;
        else if (errno == EAGAIN)
            return RS_SENDING_BLOCKED;
        else if (errno != EINTR)
            return -1;
    }
}
