/* The test's side of a replica's socket: it plays the node, byte by byte, beside a replica in a thread.
 */
#pragma once

#define RSERVE_REPLICA_IMPLEMENTATION
#include "sched/rserve_replica.h"

#include "tests/unit/check_main.h"

#include <stdatomic.h>

enum { HEADER = 24, ROOM = 1 << 20 };

struct node {
    int fd;
    pthread_t thread;
    struct rserve_options options;
    rserve_handler *handler;
    int replica_fd, result;
};

struct got { /* a frame that the replica sent */
    unsigned type, flags, fds;
    uint64_t stream, body_len;
    size_t meta_len;
    char meta[4096];
    char *body; /* inline or read from the memfd */
};

static struct node the_node;
static struct got got;
static char meta[4096];
static size_t meta_len;
static atomic_int stops, running, most_running, let_go;

static void *serve(void *arg)
{
    struct node *n = arg;

    n->result = rserve_serve_on(n->replica_fd, &n->options, n->handler, n);
    return NULL;
}

static void write_all(int fd, const void *data, size_t len)
{
    for (const char *p = data; len;) {
        ssize_t n = send(fd, p, len, MSG_NOSIGNAL);

        ck_assert_int_gt(n, 0);
        p += n;
        len -= (size_t)n;
    }
}

static size_t make_header(char *to, unsigned type, unsigned flags, unsigned fds, uint64_t stream,
                          size_t meta_size, uint64_t body_len)
{
    unsigned char *h = (unsigned char *)to;

    rserve_i_put(h, meta_size, 4);
    h[4] = (unsigned char)type;
    h[5] = (unsigned char)flags;
    rserve_i_put(h + 6, fds, 2);
    rserve_i_put(h + 8, stream, 8);
    rserve_i_put(h + 16, body_len, 8);
    return HEADER;
}

static void send_frame(unsigned type, unsigned flags, uint64_t stream, const void *m, size_t m_len,
                       const void *body, size_t body_len)
{
    char header[HEADER];

    make_header(header, type, flags, 0, stream, m_len, body_len);
    write_all(the_node.fd, header, HEADER);
    write_all(the_node.fd, m, m_len);
    write_all(the_node.fd, body, body_len);
}

static void send_json(unsigned type, uint64_t stream, const char *json)
{
    send_frame(type, 0, stream, json, strlen(json), NULL, 0);
}

/* With the body as a memfd of `file_len` bytes. */
static void send_memfd(unsigned type, unsigned flags, uint64_t stream, const void *body,
                       size_t body_len, size_t file_len)
{
    char header[HEADER];
    union {
        char space[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = {0};
    struct iovec iov = {header, HEADER};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control.space,
                         .msg_controllen = sizeof(control.space)};
    struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);
    int fd = memfd_create("body", MFD_CLOEXEC);

    ck_assert_int_eq(write(fd, body, file_len), (ssize_t)file_len);
    make_header(header, type, flags | RSERVE_I_MEMFD, 1, stream, meta_len, body_len);
    cmsg->cmsg_level = SOL_SOCKET;
    cmsg->cmsg_type = SCM_RIGHTS;
    cmsg->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(cmsg), &fd, sizeof(fd));
    ck_assert_int_eq(sendmsg(the_node.fd, &msg, MSG_NOSIGNAL), HEADER);
    write_all(the_node.fd, meta, meta_len);
    close(fd);
}

static void put(int tag, const void *data, size_t len)
{
    meta[meta_len] = (char)tag;
    rserve_i_put((unsigned char *)meta + meta_len + 1, len, 4);
    memcpy(meta + meta_len + 5, data, len);
    meta_len += 5 + len;
}

static void put_text(int tag, const char *text)
{
    put(tag, text, strlen(text));
}

static void http_meta(void)
{
    static const char headers[] = "content-type\0text/x-test\0x-one\0";

    meta_len = 0;
    put(RSERVE_I_KIND, "\1", 1);
    put_text(RSERVE_I_REQUEST_ID, "id-1");
    put_text(10, "POST");
    put_text(11, "/a%20b");
    put(RSERVE_I_HEADERS, headers, sizeof(headers));
    put_text(12, "q=1");
}

static void call_meta(const char *method, const char *type, int stream)
{
    meta_len = 0;
    put(RSERVE_I_KIND, "\2", 1);
    if (method)
        put_text(RSERVE_I_METHOD, method);
    if (stream)
        put(RSERVE_I_STREAM, "\1", 1);
    put_text(RSERVE_I_CONTENT_TYPE, type);
}

static void request(uint64_t stream, const void *body, size_t len)
{
    http_meta();
    send_frame(RSERVE_I_REQUEST, RSERVE_I_END, stream, meta, meta_len, body, len);
}

static void read_all(void *to, size_t len, int *fd)
{
    char *p = to;

    while (len) {
        union {
            char space[CMSG_SPACE(sizeof(int))];
            struct cmsghdr align;
        } control;
        struct iovec iov = {p, len};
        struct msghdr msg = {.msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = control.space,
                             .msg_controllen = sizeof(control.space)};
        ssize_t n = recvmsg(the_node.fd, &msg, MSG_CMSG_CLOEXEC);
        struct cmsghdr *m = CMSG_FIRSTHDR(&msg);

        ck_assert_msg(n > 0, "the replica said nothing: %zd, errno %d", n, errno);
        if (m && fd)
            memcpy(fd, CMSG_DATA(m), sizeof(*fd));
        p += n;
        len -= (size_t)n;
    }
}

static struct got *receive(unsigned type, uint64_t stream)
{
    unsigned char h[HEADER];
    int fd = -1;

    free(got.body);
    read_all(h, HEADER, &fd);
    got = (struct got){.meta_len = rserve_i_get(h, 4),
                       .type = h[4],
                       .flags = h[5],
                       .fds = (unsigned)rserve_i_get(h + 6, 2),
                       .stream = rserve_i_get(h + 8, 8),
                       .body_len = rserve_i_get(h + 16, 8)};
    ck_assert_uint_lt(got.meta_len, sizeof(got.meta));
    read_all(got.meta, got.meta_len, NULL);
    got.body = malloc(got.body_len + 1);
    if (got.flags & RSERVE_I_MEMFD) {
        ck_assert_int_ge(fd, 0);
        ck_assert_uint_eq(got.fds, 1);
        ck_assert_int_eq(pread(fd, got.body, got.body_len, 0), (ssize_t)got.body_len);
        close(fd);
    } else {
        read_all(got.body, got.body_len, NULL);
    }
    got.body[got.body_len] = '\0';
    ck_assert_msg(got.type == type && got.stream == stream,
                  "wanted frame %u of stream %llu, got %u of %llu", type,
                  (unsigned long long)stream, got.type, (unsigned long long)got.stream);
    return &got;
}

static void has(int tag, const void *data, size_t len)
{
    struct rserve_i_frame f = {.meta = got.meta, .meta_len = got.meta_len};
    size_t n = 0;
    const char *at = rserve_i_find(&f, (unsigned)tag, &n);

    ck_assert_msg(at && n == len && !memcmp(at, data, len), "field %d is %.*s", tag,
                  at ? (int)n : 4, at ? at : "none");
}

static void has_text(int tag, const char *text)
{
    has(tag, text, strlen(text));
}

static void answered(uint64_t stream, const void *body, size_t len)
{
    receive(RSERVE_I_RESPONSE, stream);
    ck_assert_uint_eq(got.flags & RSERVE_I_END, RSERVE_I_END);
    ck_assert_uint_eq(got.body_len, len);
    ck_assert_mem_eq(got.body, body, len);
}

static void failed(uint64_t stream, int code, const char *type, const char *message)
{
    char c = (char)code;

    receive(RSERVE_I_ERROR, stream);
    has(RSERVE_I_ERROR_CODE, &c, 1);
    has_text(RSERVE_I_ERROR_TYPE, type);
    has_text(RSERVE_I_MESSAGE, message);
}

/* Its slot is free again. */
static void was_cancelled(uint64_t stream)
{
    char c = RSERVE_CANCELLED;

    receive(RSERVE_I_ERROR, stream);
    has(RSERVE_I_ERROR_CODE, &c, 1);
}

static const char init_json[] =
    "{\"app\":\"rag\",\"deployment\":\"Echo\",\"replica_id\":\"r1\",\"args\":{\"n\":3}}";

static void start_raw(rserve_handler *handler, const struct rserve_options *options)
{
    struct timeval limit = {.tv_sec = 10};
    int pair[2];

    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    the_node = (struct node){.fd = pair[0], .replica_fd = pair[1], .handler = handler};
    if (options)
        the_node.options = *options;
    pthread_create(&the_node.thread, NULL, serve, &the_node);
    receive(RSERVE_I_HELLO, 0);
    ck_assert_ptr_nonnull(strstr(got.meta, "{\"protocol\":1,\"kind\":\"exec\",\"pid\":"));
}

static void start(rserve_handler *handler, const struct rserve_options *options)
{
    start_raw(handler, options);
    send_json(RSERVE_I_INIT, 0, init_json);
    receive(RSERVE_I_READY, 0);
}

/* Hangs up, if that was not done, and waits. What rserve_serve answered. */
static int ended(void)
{
    if (the_node.fd >= 0)
        shutdown(the_node.fd, SHUT_RDWR);
    pthread_join(the_node.thread, NULL);
    if (the_node.fd >= 0)
        close(the_node.fd);
    free(got.body);
    got.body = NULL;
    return the_node.result;
}

static void stop(void)
{
    send_json(RSERVE_I_STOP, 0, "{}");
    ck_assert_int_eq(ended(), 0);
}

static int echo(const struct rserve_request *req, struct rserve_response *res, void *arg)
{
    return rserve_respond(res, 200, req->content_type, req->body, req->body_len);
}
