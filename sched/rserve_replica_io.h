/* Second part of rserve_replica.h: buffers, output, JSON. The build joins the parts to one file. */
#if defined(RSERVE_REPLICA_IMPLEMENTATION) && !defined(RSERVE_REPLICA_IO_H)
#define RSERVE_REPLICA_IO_H

/* How it works: one thread reads many frames at a time and handles a request where it lies in the
 * input buffer; answers gather in one output buffer that is written when the input is used up. So
 * in steady state there is one recv and one send per batch, and no allocation.
 * A handler that has to wait (for credit, for the answer to a call) without other threads reads on
 * by itself into a second buffer; requests that arrive meanwhile are copied and queued, as all are
 * when there are worker threads. The lock is held wherever connection state is touched; without
 * worker threads it does nothing.
 */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
    RSERVE_I_REQUEST = 1,
    RSERVE_I_BODY,
    RSERVE_I_RESPONSE,
    RSERVE_I_ERROR,
    RSERVE_I_CANCEL,
    RSERVE_I_WINDOW,
    RSERVE_I_HELLO = 16,
    RSERVE_I_INIT,
    RSERVE_I_READY,
    RSERVE_I_FAILED,
    RSERVE_I_PING,
    RSERVE_I_PONG,
    RSERVE_I_RECONFIGURE,
    RSERVE_I_STOP,
    RSERVE_I_FOUND = 26
};
enum { /* metadata fields */
       RSERVE_I_REQUEST_ID = 1,
       RSERVE_I_APP,
       RSERVE_I_DEPLOYMENT,
       RSERVE_I_METHOD,
       RSERVE_I_KIND,
       RSERVE_I_TIMEOUT_MS,
       RSERVE_I_HEADERS = 13,
       RSERVE_I_STREAM = 19,
       RSERVE_I_CONTENT_TYPE,
       RSERVE_I_PARENT = 22,
       RSERVE_I_STATUS,
       RSERVE_I_CREDIT,
       RSERVE_I_ERROR_CODE,
       RSERVE_I_ERROR_TYPE,
       RSERVE_I_MESSAGE,
       RSERVE_I_ITEMS = 29,
       RSERVE_I_TAGS = 33
};
enum { RSERVE_I_END = 1, RSERVE_I_MEMFD = 2 };
enum { RSERVE_I_FRESH, RSERVE_I_STREAMING, RSERVE_I_DONE };

#define RSERVE_I_FDS 16
#define RSERVE_I_CHUNK ((size_t)256 << 10)
#define RSERVE_I_WINDOW_SIZE ((int64_t)256 << 10)
#define RSERVE_I_META_MAX ((size_t)1 << 20)
#define RSERVE_I_BODY_MAX ((size_t)16 << 20)
#define RSERVE_I_MEMFD_MIN ((size_t)64 << 10)
#define RSERVE_I_PICKLE "application/x-python-pickle"

struct rserve_i_buf {
    char *data;
    size_t start, end, cap;
};

struct rserve_i_frame {
    unsigned type, flags, fds;
    uint64_t stream, body_len;
    size_t meta_len;
    char *meta, *body;
    int body_fd;
};

struct rserve_response {
    struct rserve_i *c;
    uint64_t stream;
    int64_t credit;
    int kind, items, pickle, state, cancelled;
    struct rserve_i_buf headers;
};

struct rserve_i_job { /* a request from its first frame until its handler returned */
    struct rserve_i_job *next;
    struct rserve_request req;
    struct rserve_response res;
    struct rserve_i_buf meta, body; /* its own copy, if it is not handled where it was read */
    char *map;
    size_t map_len;
};

struct rserve_i_call { /* a call that waits for its answer; on the caller's stack */
    struct rserve_i_call *next;
    uint64_t stream;
    struct rserve_answer *answer;
    struct rserve_i_buf body;
    int pickle, done, failed;
};

struct rserve_i_mark { /* a descriptor that travels with the byte at this offset of the output */
    size_t at;
    int fd;
};

enum { RSERVE_I_STARTS = 512 };

struct rserve_i {
    int fd, closed, broken, stopping, finished, busy, ready;
    struct rserve_options options;
    rserve_handler *handler;
    void *arg;
    char app[256], deployment[256], replica_id[256];
    struct rserve_i_buf *in, *held, *spare, out; /* held: a handler looks into it */
    struct rserve_i_mark *marks;
    int whole; /* a file that is the next body as it is, so that it need not be copied; -1: none */
    size_t marks_len, marks_cap, need;
    int in_fds[RSERVE_I_FDS];
    size_t in_fds_len;
    uint64_t *starts; /* shared with the node: what was begun; NULL: nothing is told */
    uint64_t next_stream;
    struct rserve_i_job *queue, **queue_end, *partial, *running, *idle;
    struct rserve_i_call *calls;
    struct rserve_i_job place; /* the request that is handled where it was read */
    pthread_t *workers;
    unsigned workers_len;
    pthread_mutex_t mutex;
    pthread_cond_t work, news;
};

/* --- memory -------------------------------------------------------------------------------------- */

static void *rserve_i_alloc(void *old, size_t size)
{
    void *p = realloc(old, size);

    if (!p) {
        fprintf(stderr, "rserve_replica: out of memory for %zu bytes\n", size);
        abort();
    }
    return p;
}

static char *rserve_i_reserve(struct rserve_i_buf *b, size_t n)
{
    if (b->start == b->end)
        b->start = b->end = 0;
    if (n > b->cap - b->end) {
        if (b->start) {
            memmove(b->data, b->data + b->start, b->end - b->start);
            b->end -= b->start;
            b->start = 0;
        }
        if (n > b->cap - b->end) {
            b->cap = b->end + n > 2 * b->cap ? b->end + n : 2 * b->cap;
            b->data = (char *)rserve_i_alloc(b->data, b->cap);
        }
    }
    return b->data + b->end;
}

static void rserve_i_append(struct rserve_i_buf *b, const void *data, size_t n)
{
    if (!n)
        return;
    memcpy(rserve_i_reserve(b, n), data, n);
    b->end += n;
}

static void rserve_i_puts(struct rserve_i_buf *b, const char *text)
{
    rserve_i_append(b, text, strlen(text));
}

/* Empties; a buffer that one large message blew up is given back. */
static void rserve_i_clear(struct rserve_i_buf *b, size_t keep)
{
    b->start = b->end = 0;
    if (b->cap > keep) {
        free(b->data);
        b->data = NULL;
        b->cap = 0;
    }
}

static void rserve_i_lock(struct rserve_i *c)
{
    if (c->options.threads)
        pthread_mutex_lock(&c->mutex);
}

static void rserve_i_unlock(struct rserve_i *c)
{
    if (c->options.threads)
        pthread_mutex_unlock(&c->mutex);
}

static void rserve_i_break(struct rserve_i *c, const char *why)
{
    if (!c->closed && why) {
        fprintf(stderr, "rserve_replica: %s\n", why);
        c->broken = 1;
    }
    c->closed = 1;
}

/* --- output -------------------------------------------------------------------------------------- */

static void rserve_i_put(unsigned char *to, uint64_t v, size_t width)
{
    size_t i;

    for (i = 0; i < width; i++)
        to[i] = (unsigned char)(v >> (8 * i));
}

static uint64_t rserve_i_get(const void *from, size_t width)
{
    const unsigned char *p = (const unsigned char *)from;
    uint64_t v = 0;
    size_t i;

    for (i = 0; i < width; i++)
        v |= (uint64_t)p[i] << (8 * i);
    return v;
}

static ssize_t rserve_i_sendmsg(struct rserve_i *c, size_t at, size_t len, int fd)
{
    union {
        char space[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control;
    struct iovec iov;
    struct msghdr msg;

    memset(&msg, 0, sizeof(msg));
    iov.iov_base = c->out.data + at;
    iov.iov_len = len;
    msg.msg_iov = &iov;
    msg.msg_iovlen = 1;
    if (fd >= 0) {
        struct cmsghdr *cmsg;

        memset(&control, 0, sizeof(control));
        msg.msg_control = control.space;
        msg.msg_controllen = sizeof(control.space);
        cmsg = CMSG_FIRSTHDR(&msg);
        cmsg->cmsg_level = SOL_SOCKET;
        cmsg->cmsg_type = SCM_RIGHTS;
        cmsg->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(cmsg), &fd, sizeof(fd));
    }
    return sendmsg(c->fd, &msg, MSG_NOSIGNAL);
}

/* Writes all output; waits for the peer where it must. */
static void rserve_i_flush(struct rserve_i *c)
{
    size_t done = 0, mark = 0;

    while (!c->closed && done < c->out.end) {
        size_t next = mark, stop = c->out.end;
        int fd = -1;
        ssize_t n;

        if (mark < c->marks_len && c->marks[mark].at == done)
            fd = c->marks[next++].fd;
        if (next < c->marks_len)
            stop = c->marks[next].at;
        n = rserve_i_sendmsg(c, done, stop - done, fd);
        if (n > 0) {
            done += (size_t)n;
            for (; mark < next; mark++)
                close(c->marks[mark].fd);
        } else if (n < 0 && (errno == EAGAIN || errno == ETOOMANYREFS)) {
            struct pollfd p;

            p.fd = c->fd;
            p.events = POLLOUT;
            poll(&p, 1, errno == EAGAIN ? -1 : 10);
        } else if (n == 0 || errno != EINTR) {
            rserve_i_break(c, NULL);
        }
    }
    for (; mark < c->marks_len; mark++)
        close(c->marks[mark].fd);
    c->marks_len = 0;
    rserve_i_clear(&c->out, 4 << 20);
}

/* A frame is written as: begin, fields, end. */
static size_t rserve_i_begin(struct rserve_i *c)
{
    if (c->out.end > RSERVE_I_CHUNK)
        rserve_i_flush(c);
    rserve_i_reserve(&c->out, 24);
    c->out.end += 24;
    return c->out.end - 24;
}

static void rserve_i_field(struct rserve_i *c, int tag, const void *data, size_t len)
{
    unsigned char *to = (unsigned char *)rserve_i_reserve(&c->out, 5 + len);

    to[0] = (unsigned char)tag;
    rserve_i_put(to + 1, len, 4);
    if (len)
        memcpy(to + 5, data, len);
    c->out.end += 5 + len;
}

static void rserve_i_text(struct rserve_i *c, int tag, const char *text)
{
    rserve_i_field(c, tag, text, strlen(text));
}

static void rserve_i_number(struct rserve_i *c, int tag, uint64_t value, size_t width)
{
    unsigned char bytes[8];

    rserve_i_put(bytes, value, width);
    rserve_i_field(c, tag, bytes, width);
}

static int rserve_i_memfd(struct iovec *parts, int n)
{
    int fd = (int)syscall(SYS_memfd_create, "rserve-body", 1U /* MFD_CLOEXEC */);

    while (fd >= 0 && n > 0) {
        ssize_t done = writev(fd, parts, n);

        if (done < 0 && errno != EINTR) {
            close(fd);
            return -1;
        }
        for (; done > 0 && n > 0; parts++, n--) {
            if ((size_t)done < parts->iov_len) {
                parts->iov_base = (char *)parts->iov_base + done;
                parts->iov_len -= (size_t)done;
                break;
            }
            done -= (ssize_t)parts->iov_len;
        }
        while (n > 0 && parts->iov_len == 0) {
            parts++;
            n--;
        }
    }
    return fd;
}

/* The body, as it is or (`pickle`) as a Python bytes object or a call's arguments. */
static int rserve_i_end(struct rserve_i *c, size_t at, int type, unsigned flags, uint64_t stream,
                        const void *body, size_t len, const char *tail)
{
    size_t meta_len = c->out.end - at - 24, tail_len = tail ? strlen(tail) : 0, head_len, total;
    unsigned char head[11] = {0x80, 5, 0x8e}, *to;
    int fd = -1;

    rserve_i_put(head + 3, len, 8);
    head_len = tail ? sizeof(head) : 0;
    total = head_len + len + tail_len;
    if (c->whole >= 0) {
        fd = c->whole;
        c->whole = -1;
    } else if (total > RSERVE_I_MEMFD_MIN) {
        struct iovec parts[3];
        union {
            const void *from;
            void *to;
        } data, rest; /* writev does not write to them */

        data.from = body;
        rest.from = tail;
        parts[0].iov_base = head;
        parts[0].iov_len = head_len;
        parts[1].iov_base = data.to;
        parts[1].iov_len = len;
        parts[2].iov_base = rest.to;
        parts[2].iov_len = tail_len;
        fd = rserve_i_memfd(head_len ? parts : parts + 1, head_len ? 3 : 1);
    }
    if (meta_len > RSERVE_I_META_MAX || (fd < 0 && total > RSERVE_I_BODY_MAX)) {
        if (fd >= 0)
            close(fd);
        c->out.end = at;
        return -1;
    }
    if (fd >= 0) {
        if (c->marks_len == c->marks_cap) {
            c->marks_cap = c->marks_cap ? 2 * c->marks_cap : 16;
            c->marks =
                (struct rserve_i_mark *)rserve_i_alloc(c->marks, c->marks_cap * sizeof(*c->marks));
        }
        c->marks[c->marks_len].at = at;
        c->marks[c->marks_len++].fd = fd;
        flags |= RSERVE_I_MEMFD;
    } else if (total) {
        rserve_i_append(&c->out, head, head_len);
        rserve_i_append(&c->out, body, len);
        rserve_i_append(&c->out, tail, tail_len);
    }
    to = (unsigned char *)c->out.data + at;
    rserve_i_put(to, meta_len, 4);
    to[4] = (unsigned char)type;
    to[5] = (unsigned char)flags;
    rserve_i_put(to + 6, fd >= 0, 2);
    rserve_i_put(to + 8, stream, 8);
    rserve_i_put(to + 16, total, 8);
    return 0;
}

static void rserve_i_send_json(struct rserve_i *c, int type, uint64_t stream,
                               const struct rserve_i_buf *text)
{
    size_t at = rserve_i_begin(c);

    rserve_i_append(&c->out, text->data, text->end);
    rserve_i_end(c, at, type, 0, stream, NULL, 0, NULL);
}

static void rserve_i_send_error(struct rserve_i *c, uint64_t stream, int code, const char *type,
                                const char *message)
{
    size_t at = rserve_i_begin(c);

    rserve_i_number(c, RSERVE_I_ERROR_CODE, (uint64_t)code, 1);
    rserve_i_text(c, RSERVE_I_ERROR_TYPE, type && *type ? type : "Error");
    rserve_i_text(c, RSERVE_I_MESSAGE, message ? message : "");
    if (rserve_i_end(c, at, RSERVE_I_ERROR, RSERVE_I_END, stream, NULL, 0, NULL) < 0)
        rserve_i_send_error(c, stream, code, NULL, "an error with too long a message");
}

static void rserve_i_credit(struct rserve_i *c, uint64_t stream, uint64_t n)
{
    size_t at;

    if (!n)
        return;
    at = rserve_i_begin(c);
    rserve_i_number(c, RSERVE_I_CREDIT, n < UINT32_MAX ? n : UINT32_MAX, 4);
    rserve_i_end(c, at, RSERVE_I_WINDOW, 0, stream, NULL, 0, NULL);
}

/* --- JSON ---------------------------------------------------------------------------------------- */

/* Bytes of the UTF-8 character at `p`, 0 if it is none. A NUL ends every sequence. */
static size_t rserve_i_utf8_len(const unsigned char *p)
{
    size_t n = p[0] < 0x80 ? 1 : p[0] < 0xc2 ? 0 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4, i;

    if (p[0] > 0xf4 || (p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) ||
        (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f))
        return 0;
    for (i = 1; i < n; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    return n;
}

static void rserve_i_quote(struct rserve_i_buf *b, const char *text)
{
    rserve_i_append(b, "\"", 1);
    while (*text) {
        unsigned char ch = (unsigned char)*text;
        size_t n = rserve_i_utf8_len((const unsigned char *)text);
        char hex[8];

        if (ch == '"' || ch == '\\')
            rserve_i_append(b, "\\", 1);
        if (ch >= 0x20 && n) {
            rserve_i_append(b, text, n);
        } else {
            snprintf(hex, sizeof(hex), "\\u%04x", ch);
            rserve_i_puts(b, hex);
        }
        text += n ? n : 1;
    }
    rserve_i_append(b, "\"", 1);
}

static const char *rserve_i_space(const char *p, const char *end)
{
    while (p < end && (*p == ' ' || *p == '\t' || *p == '\n' || *p == '\r'))
        p++;
    return p;
}

/* Behind the string that begins at the quote `p`, or NULL. */
static const char *rserve_i_string(const char *p, const char *end)
{
    for (p++; p < end && *p != '"'; p++)
        if (*p == '\\')
            p++;
    return p < end ? p + 1 : NULL;
}

/* Behind the value that begins at `p`, or NULL. Brackets are counted, not matched by kind. */
static const char *rserve_i_value(const char *p, const char *end)
{
    size_t depth = 0;

    do {
        p = rserve_i_space(p, end);
        if (p >= end)
            return NULL;
        if (*p == '"') {
            p = rserve_i_string(p, end);
            if (!p)
                return NULL;
        } else if (*p == '{' || *p == '[') {
            depth++;
            p++;
        } else if (*p == '}' || *p == ']') {
            if (!depth--)
                return NULL;
            p++;
        } else if (depth && (*p == ',' || *p == ':')) {
            p++;
        } else {
            const char *start = p;

            while (p < end && !strchr(" \t\r\n,:]}[{\"", *p))
                p++;
            if (p == start)
                return NULL;
        }
    } while (depth);
    return p;
}

/* The value of one step of a path inside the object or array at `p`, or NULL. */
static const char *rserve_i_member(const char *p, const char *end, const char *name, size_t len)
{
    int object = *p == '{';
    size_t index = 0, wanted = 0;

    if (!object && (*p != '[' || *name < '0' || *name > '9'))
        return NULL;
    if (!object)
        wanted = strtoul(name, NULL, 10);
    for (p++;; p++, index++) {
        const char *key;

        p = rserve_i_space(p, end);
        if (p >= end || *p == '}' || *p == ']')
            return NULL;
        key = p;
        if (object) {
            p = *p == '"' ? rserve_i_string(p, end) : NULL;
            if (!p)
                return NULL;
            index = len == (size_t)(p - key) - 2 && !memcmp(key + 1, name, len) ? 0 : 1;
            p = rserve_i_space(p, end);
            if (p >= end || *p != ':')
                return NULL;
            p = rserve_i_space(p + 1, end);
        }
        if (p < end && index == wanted)
            return p;
        p = rserve_i_value(p, end);
        p = p ? rserve_i_space(p, end) : NULL;
        if (!p || p >= end || *p != ',')
            return NULL;
    }
}

const char *rserve_json(const char *json, size_t len, const char *path, size_t *ret_len)
{
    const char *p = rserve_i_space(json, json + len), *end = json + len;

    while (p && p < end && *path) {
        size_t n = strcspn(path, ".");

        p = rserve_i_member(p, end, path, n);
        path += n + (path[n] == '.');
    }
    if (p && p < end) {
        const char *behind = rserve_i_value(p, end);

        if (behind && ret_len)
            *ret_len = (size_t)(behind - p);
        return behind ? p : NULL;
    }
    return NULL;
}

static size_t rserve_i_utf8(char out[4], unsigned v)
{
    unsigned char *o = (unsigned char *)out;

    if (v < 0x80) {
        o[0] = (unsigned char)v;
        return 1;
    }
    if (v < 0x800) {
        o[0] = (unsigned char)(0xc0 | v >> 6);
        o[1] = (unsigned char)(0x80 | (v & 0x3f));
        return 2;
    }
    if (v < 0x10000) {
        o[0] = (unsigned char)(0xe0 | v >> 12);
        o[1] = (unsigned char)(0x80 | (v >> 6 & 0x3f));
        o[2] = (unsigned char)(0x80 | (v & 0x3f));
        return 3;
    }
    o[0] = (unsigned char)(0xf0 | v >> 18);
    o[1] = (unsigned char)(0x80 | (v >> 12 & 0x3f));
    o[2] = (unsigned char)(0x80 | (v >> 6 & 0x3f));
    o[3] = (unsigned char)(0x80 | (v & 0x3f));
    return 4;
}

/* The four hexadecimal digits at `p`, or -1. */
static long rserve_i_hex4(const char *p, const char *end)
{
    long v = 0;
    int i;

    for (i = 0; i < 4; i++, p++) {
        const char *digits = "0123456789abcdef", *at;

        if (p >= end || !*p || !(at = strchr(digits, *p >= 'A' && *p <= 'F' ? *p | 0x20 : *p)))
            return -1;
        v = v * 16 + (at - digits);
    }
    return v;
}

/* One character of a string, escapes resolved, into `out`; moves `*p`. Its length, 0 if broken. */
static size_t rserve_i_char(const char **p, const char *end, char out[4])
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    const char *at;
    long v, low;

    if (**p != '\\') {
        out[0] = *(*p)++;
        return 1;
    }
    if (++*p >= end)
        return 0;
    if (**p != 'u') {
        at = **p ? strchr(from, **p) : NULL;
        if (!at)
            return 0;
        ++*p;
        out[0] = to[at - from];
        return 1;
    }
    v = rserve_i_hex4(*p + 1, end);
    if (v < 0)
        return 0;
    *p += 5;
    if (v >= 0xd800 && v < 0xdc00 && end - *p >= 6 && (*p)[0] == '\\' && (*p)[1] == 'u') {
        low = rserve_i_hex4(*p + 2, end);
        if (low >= 0xdc00 && low < 0xe000) {
            v = 0x10000 + ((v - 0xd800) << 10) + (low - 0xdc00);
            *p += 6;
        }
    }
    return rserve_i_utf8(out, (unsigned)v);
}

long rserve_json_text(const char *json, size_t len, const char *path, char *buf, size_t size)
{
    size_t n = 0, used = 0;
    const char *p = rserve_json(json, len, path, &n), *end;

    if (!p || !size || (n == 4 && !memcmp(p, "null", 4)))
        return -1;
    if (*p != '"') {
        if (n >= size)
            return -1;
        memcpy(buf, p, n);
        buf[n] = '\0';
        return (long)n;
    }
    end = p + n - 1;
    p++;
    while (p < end) {
        char one[4];
        size_t k = rserve_i_char(&p, end, one);

        if (!k || used + k >= size)
            return -1;
        memcpy(buf + used, one, k);
        used += k;
    }
    buf[used] = '\0';
    return (long)used;
}

#ifdef __cplusplus
}
#endif

#endif
