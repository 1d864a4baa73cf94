/* The HTTP backend between a router that this test plays and a server that it plays too. */
#include "net/http/upstream.h"

#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "net/http/probe.h"
#include "net/wire/pickle.h"
#include "tests/unit/check_main.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

/* --- the router -------------------------------------------------------------------------------- */

struct reply {
    struct rs_request r;
    unsigned status;
    struct rs_buf headers, meta, body;
    size_t answers, parts, chunks;
    bool ended, returned;
    enum rs_wire_error code; /* it failed */
    char message[600];
    uint64_t taken;
};

static struct rs_loop *loop;
static struct rs_backend *backend;
static int listener = -1;
static uint16_t port;
static bool blocked;

static struct reply *of(struct rs_request *r)
{
    return rs_container_of(r, struct reply, r);
}

static void take(struct reply *p, struct rs_chunk *body, bool end)
{
    ck_assert_msg(!p->ended, "a reply after the end");
    if (body->len) {
        ck_assert_int_lt(body->fd, 0);
        rs_buf_append(&p->body, body->data, body->len);
        p->chunks++;
    }
    p->ended = end;
}

void rs_request_answer(struct rs_request *r, const struct rs_answer *a, struct rs_chunk *body,
                       bool end)
{
    struct reply *p = of(r);

    ck_assert_uint_eq(p->answers++, 0);
    p->status = a->status;
    if (a->headers_len)
        rs_buf_append(&p->headers, a->headers, a->headers_len);
    if (a->meta_len)
        rs_buf_append(&p->meta, a->meta, a->meta_len);
    take(p, body, end);
}

void rs_request_data(struct rs_request *r, struct rs_chunk *body, bool end)
{
    ck_assert_uint_eq(of(r)->answers, 1);
    of(r)->parts++;
    take(of(r), body, end);
}

void rs_request_fail(struct rs_request *r, const struct rs_failure *f)
{
    struct reply *p = of(r);

    ck_assert(!p->ended);
    p->ended = true;
    p->code = f->code;
    snprintf(p->message, sizeof(p->message), "%s", f->message);
    if (f->meta_len)
        rs_buf_append(&p->meta, f->meta, f->meta_len);
}

void rs_request_taken(struct rs_request *r, uint64_t n)
{
    ck_assert(!of(r)->ended);
    of(r)->taken += n;
}

void rs_request_return(struct rs_request *r)
{
    ck_assert(!of(r)->ended);
    of(r)->ended = of(r)->returned = true;
}

void rs_request_lost(struct rs_request *r, bool started, const char *why)
{
    (void)started;
    rs_request_fail(r, &(struct rs_failure){.code = RS_WIRE_DIED, .message = why});
}

void rs_backend_block(struct rs_backend *b, bool now)
{
    blocked = now;
}

static void turn(void)
{
    rs_loop_turn(loop, 5 * RS_MS);
}

#define UNTIL(condition)                                                                           \
    do {                                                                                           \
        int64_t until_end_ = rs_clock_now() + 10 * RS_SEC;                                         \
        while (!(condition)) {                                                                     \
            turn();                                                                                \
            ck_assert_msg(rs_clock_now() < until_end_, "never: %s", #condition);                   \
        }                                                                                          \
    } while (0)

static void set_up(void)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(at);

    signal(SIGPIPE, SIG_IGN);
    ck_assert_int_eq(rs_loop_new(&loop, NULL), 0);
    listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    ck_assert_int_eq(bind(listener, (struct sockaddr *)&at, sizeof(at)), 0);
    ck_assert_int_eq(listen(listener, 16), 0);
    getsockname(listener, (struct sockaddr *)&at, &len);
    port = ntohs(at.sin_port);
    backend = rs_upstream_new(loop, "127.0.0.1", port, NULL);
    ck_assert_ptr_nonnull(backend);
}

static void tear_down(void)
{
    backend->ops->free(backend);
    rs_loop_free(loop);
    if (listener >= 0)
        close(listener);
}

static struct reply *request_new(const char *method, const char *path)
{
    struct reply *p = rs_alloc(sizeof(*p));
    struct rs_buf *m = &p->r.meta;

    p->r.kind = RS_REQUEST_HTTP;
    p->r.body_fd = -1;
    p->r.body_end = true;
    rs_field_put_str(m, RS_TAG_HTTP_METHOD, method);
    rs_field_put_str(m, RS_TAG_PATH, path);
    rs_field_put_str(m, RS_TAG_DEPLOYMENT, "Files");
    return p;
}

static void free_reply(struct reply *p)
{
    rs_buf_fini(&p->r.meta);
    rs_buf_fini(&p->r.body);
    rs_buf_fini(&p->headers);
    rs_buf_fini(&p->meta);
    rs_buf_fini(&p->body);
    if (p->r.body_fd >= 0)
        close(p->r.body_fd);
    free(p);
}

static struct reply *send_request(const char *method, const char *path, const char *body)
{
    struct reply *p = request_new(method, path);

    if (body) {
        rs_buf_puts(&p->r.body, body);
        p->r.body_len = strlen(body);
    }
    backend->ops->send(backend, &p->r);
    return p;
}

static void is(const struct reply *p, unsigned status, const char *body)
{
    ck_assert_msg(!p->code, "%s", p->message);
    ck_assert_uint_eq(p->status, status);
    ck_assert_str_eq(rs_buf_text(&p->body), body);
}

/* --- the server -------------------------------------------------------------------------------- */

static int server_accept(void)
{
    int fd;

    UNTIL((fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0);
    return fd;
}

/* Reads until the text so far ends with `end`. */
static const char *server_read(int fd, const char *end)
{
    static struct rs_buf got;

    rs_buf_clear(&got);
    for (int64_t limit = rs_clock_now() + 10 * RS_SEC;;) {
        ssize_t n = recv(fd, rs_buf_reserve(&got, 65536), 65536, MSG_DONTWAIT);

        if (n > 0)
            rs_buf_commit(&got, (size_t)n);
        if (n == 0)
            rs_buf_puts(&got, "<EOF>");
        if (rs_buf_len(&got) >= strlen(end) &&
            strcmp(rs_buf_text(&got) + rs_buf_len(&got) - strlen(end), end) == 0)
            return rs_buf_text(&got);
        ck_assert_msg(n != 0, "closed after: %s", rs_buf_text(&got));
        ck_assert_msg(rs_clock_now() < limit, "only: %s", rs_buf_text(&got));
        if (n < 0)
            turn();
    }
}

static void server_write(int fd, const char *text)
{
    size_t len = strlen(text);

    ck_assert_int_eq(send(fd, text, len, MSG_NOSIGNAL), (ssize_t)len);
}

#define HELLO "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"

/* --- tests ------------------------------------------------------------------------------------- */

START_TEST(forwards)
{
    struct reply *p = send_request("GET", "/x", NULL);
    int fd = server_accept();
    const char *got = server_read(fd, "\r\n\r\n");

    ck_assert_ptr_eq(strstr(got, "GET /x HTTP/1.1\r\nhost: 127.0.0.1:"), got);
    server_write(fd, HELLO);
    UNTIL(p->ended);
    is(p, 200, "hello");
    ck_assert_uint_eq(p->parts, 0); /* one piece: the fast case */
    ck_assert_mem_eq(rs_buf_head(&p->headers), "content-length\0005", 17);
    free_reply(p);
    close(fd);
}
END_TEST

START_TEST(keeps_connections)
{
    struct reply *p = send_request("POST", "/a", "1234"), *q, *s;
    int fd = server_accept(), other;

    server_read(fd, "content-length: 4\r\n\r\n1234");
    server_write(fd, HELLO);
    UNTIL(p->ended);
    q = send_request("POST", "/b", NULL);
    server_read(fd, "content-length: 0\r\n\r\n"); /* the same one */
    s = send_request("GET", "/c", NULL);
    other = server_accept(); /* that one is taken */
    server_read(other, "\r\n\r\n");
    server_write(other, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nuntil the end");
    UNTIL(s->answers);
    close(other);
    UNTIL(s->ended);
    is(s, 200, "until the end");
    server_write(fd, "HTTP/1.1 204 No Content\r\n\r\n");
    UNTIL(q->ended);
    is(q, 204, "");
    free_reply(p);
    free_reply(q);
    free_reply(s);
    server_read(fd, "<EOF>"); /* after a second without work */
    close(fd);
}
END_TEST

/* What the server does on a kept connection that is used again, and what comes of it. */
struct stale_case {
    const char *method, *answer; /* answer: before it closes */
    bool early;                  /* it closes before the request comes */
    bool retried;
};

static const struct stale_case stales[] = {
    {"GET", "", false, true},
    {"PUT", "", false, true},
    {"POST", "", false, false},
    {"POST", "", true, true},
    {"GET", "", true, true},
    {"GET", "HTTP/1.1 2", false, false},
    {"GET", "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n", true, true},
};

START_TEST(replaces_stale_connections)
{
    const struct stale_case *c = &stales[_i];
    struct reply *p = send_request("GET", "/", NULL), *q;
    int fd = server_accept(), fresh;

    server_read(fd, "\r\n\r\n");
    server_write(fd, HELLO);
    UNTIL(p->ended);
    if (c->early) {
        server_write(fd, c->answer);
        close(fd);
    }
    q = send_request(c->method, "/", "body");
    if (!c->early) {
        server_read(fd, "body");
        server_write(fd, c->answer);
        close(fd);
    }
    if (c->retried) {
        fresh = server_accept();
        server_read(fresh, "content-length: 4\r\n\r\nbody");
        server_write(fresh, HELLO);
        UNTIL(q->ended);
        is(q, 200, "hello");
        close(fresh);
    } else {
        UNTIL(q->ended);
        ck_assert_int_eq(q->code, RS_WIRE_DIED);
    }
    free_reply(p);
    free_reply(q);
}
END_TEST

START_TEST(does_not_retry_for_ever)
{
    struct reply *p = send_request("GET", "/", NULL);
    int fd = server_accept();

    server_read(fd, "\r\n\r\n");
    close(fd); /* a fresh connection: no other try */
    UNTIL(p->ended);
    ck_assert_int_eq(p->code, RS_WIRE_DIED);
    ck_assert_ptr_nonnull(strstr(p->message, "GET /: the HTTP server at 127.0.0.1:"));
    ck_assert_ptr_nonnull(strstr(p->message, "it closed the connection without an answer"));
    free_reply(p);
}
END_TEST

/* A server that dies with a connection that it did not yet accept: the request was not begun. */
START_TEST(retries_what_was_not_read)
{
    struct reply *p = send_request(_i ? "POST" : "GET", "/", NULL);
    int fd = server_accept();

    UNTIL(recv(fd, &(char){0}, 1, MSG_PEEK | MSG_DONTWAIT) == 1);
    close(fd);
    if (_i == 0) {
        fd = server_accept();
        UNTIL(recv(fd, &(char){0}, 1, MSG_PEEK | MSG_DONTWAIT) == 1);
        ck_assert(!p->ended);
        close(fd); /* once is enough */
    }
    UNTIL(p->ended);
    ck_assert_int_eq(p->code, RS_WIRE_DIED);
    ck_assert_ptr_nonnull(strstr(p->message, "reset"));
    free_reply(p);
}
END_TEST

struct broken_case {
    const char *answer;
    enum rs_wire_error code;
    unsigned status; /* 0: no head was passed on */
};

static const struct broken_case broken[] = {
    {"SSH-2.0-OpenSSH\r\n", RS_WIRE_PROTOCOL, 0},
    {"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx", RS_WIRE_PROTOCOL, 0},
    {"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nx", RS_WIRE_DIED, 200},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n", RS_WIRE_DIED, 200},
    {"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
     RS_WIRE_PROTOCOL, 0},
};

START_TEST(reports_broken_answers)
{
    const struct broken_case *c = &broken[_i];
    struct reply *p = send_request("GET", "/", NULL);
    int fd = server_accept();

    server_read(fd, "\r\n\r\n");
    server_write(fd, c->answer);
    if (c->code == RS_WIRE_DIED)
        UNTIL(p->answers);
    close(fd);
    UNTIL(p->ended);
    ck_assert_int_eq(p->code, c->code);
    ck_assert_uint_eq(p->status, c->status);
    free_reply(p);
}
END_TEST

START_TEST(drops_a_connection_that_says_too_much)
{
    struct reply *p = send_request("GET", "/", NULL), *q;
    int fd = server_accept(), fresh;

    server_read(fd, "\r\n\r\n");
    server_write(fd, HELLO "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison");
    UNTIL(p->ended);
    is(p, 200, "hello");
    q = send_request("GET", "/", NULL);
    fresh = server_accept();
    server_read(fresh, "\r\n\r\n");
    server_write(fresh, HELLO);
    UNTIL(q->ended);
    is(q, 200, "hello");
    free_reply(p);
    free_reply(q);
    close(fd);
    close(fresh);
}
END_TEST

START_TEST(blocks_while_nobody_listens)
{
    struct reply *p, *q;

    close(listener);
    listener = -1;
    p = send_request("POST", "/", "body");
    UNTIL(p->ended);
    ck_assert(p->returned);
    ck_assert(blocked);
    ck_assert_str_eq(rs_buf_text(&p->r.body), "body"); /* as it was */
    UNTIL(!blocked);
    q = send_request("POST", "/", NULL);
    UNTIL(q->ended);
    ck_assert(q->returned && blocked);
    free_reply(p);
    free_reply(q);
}
END_TEST

START_TEST(sends_files)
{
    enum { SIZE = 3 << 20 };
    struct reply *p = request_new("PUT", "/big");
    char *data = malloc(SIZE);
    int fd, buffer = 4096;
    size_t got = 0;

    for (size_t i = 0; i < SIZE; i++)
        data[i] = (char)('a' + i % 23);
    p->r.body_fd = memfd_create("body", MFD_CLOEXEC);
    ck_assert_int_eq(write(p->r.body_fd, data, SIZE), SIZE);
    p->r.body_len = SIZE;
    setsockopt(listener, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof(buffer));
    backend->ops->send(backend, &p->r);
    fd = server_accept();
    for (char *at = malloc(65536), *head = NULL;;) {
        ssize_t n = recv(fd, at, 65536, MSG_DONTWAIT);

        if (n < 0) {
            turn();
            continue;
        }
        if (!head) {
            head = memmem(at, (size_t)n, "content-length: 3145728\r\n\r\n", 27);
            ck_assert_ptr_nonnull(head);
            n -= head + 27 - at;
            memmove(at, head + 27, (size_t)n);
        }
        ck_assert_mem_eq(at, data + got, n);
        got += (size_t)n;
        if (got == SIZE) {
            free(at);
            break;
        }
    }
    server_write(fd, HELLO);
    UNTIL(p->ended);
    is(p, 200, "hello");
    free(data);
    free_reply(p);
    close(fd);
}
END_TEST

static void feed(struct reply *p, const char *text, bool end)
{
    struct rs_chunk body = {.data = text, .len = strlen(text), .fd = -1};

    backend->ops->feed(backend, &p->r, &body, end);
}

START_TEST(streams_requests)
{
    struct reply *p = request_new("POST", "/");
    struct rs_chunk file = {.fd = memfd_create("body", MFD_CLOEXEC), .len = 3};
    int fd;

    p->r.body_end = false;
    rs_buf_puts(&p->r.body, "first");
    p->r.body_len = 5;
    backend->ops->send(backend, &p->r);
    fd = server_accept();
    server_read(fd, "transfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n");
    UNTIL(p->taken == 5);
    feed(p, "0123456789abcdef", false);
    server_read(fd, "10\r\n0123456789abcdef\r\n");
    UNTIL(p->taken == 21);
    ck_assert_int_eq(write(file.fd, "xyz", 3), 3);
    backend->ops->feed(backend, &p->r, &file, false);
    ck_assert_int_eq(file.fd, -1);
    server_read(fd, "3\r\nxyz\r\n");
    feed(p, "z", true);
    server_read(fd, "1\r\nz\r\n0\r\n\r\n");
    server_write(fd, HELLO);
    UNTIL(p->ended);
    is(p, 200, "hello");
    ck_assert_uint_eq(p->taken, 25);
    free_reply(p);

    p = send_request("GET", "/", NULL); /* and the connection is fit for more */
    server_read(fd, "\r\n\r\n");
    server_write(fd, HELLO);
    UNTIL(p->ended);
    free_reply(p);
    close(fd);
}
END_TEST

START_TEST(ends_streams_without_a_last_piece)
{
    struct reply *p = request_new("POST", "/");
    int fd;

    p->r.body_end = false;
    backend->ops->send(backend, &p->r);
    fd = server_accept();
    server_read(fd, "chunked\r\n\r\n");
    feed(p, "", true);
    server_read(fd, "0\r\n\r\n");
    backend->ops->cancel(backend, &p->r);
    server_read(fd, "<EOF>"); /* to cancel is to hang up */
    free_reply(p);
    close(fd);
}
END_TEST

/* A declared length that is not kept would make the next request part of this one. */
START_TEST(keeps_declared_lengths)
{
    static const char header[] = "content-length\00010";
    struct reply *p = request_new("POST", "/");
    int fd;

    rs_field_put(&p->r.meta, RS_TAG_HEADERS, header, sizeof(header));
    p->r.body_end = false;
    backend->ops->send(backend, &p->r);
    fd = server_accept();
    server_read(fd, "content-length: 10\r\n\r\n");
    feed(p, "12345", false);
    server_read(fd, "12345");
    if (_i == 0)
        feed(p, "", true);
    else
        feed(p, "678901", false);
    UNTIL(p->ended);
    ck_assert_int_eq(p->code, RS_WIRE_PROTOCOL);
    server_read(fd, "<EOF>");
    free_reply(p);
    close(fd);
}
END_TEST

START_TEST(takes_early_answers)
{
    struct reply *p = request_new("POST", "/");
    int fd;

    p->r.body_end = false;
    backend->ops->send(backend, &p->r);
    fd = server_accept();
    server_read(fd, "\r\n\r\n");
    server_write(fd, "HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno");
    UNTIL(p->ended);
    is(p, 413, "no");
    server_read(fd, "<EOF>"); /* half a request was sent: not to be used again */
    free_reply(p);
    close(fd);
}
END_TEST

START_TEST(holds_back_without_credit)
{
    enum { SIZE = 4 << 20 };
    struct reply *p = send_request("GET", "/", NULL);
    char *data = calloc(1, SIZE);
    int fd = server_accept();
    size_t done = 0, had = 0;

    server_read(fd, "\r\n\r\n");
    server_write(fd, "HTTP/1.1 200 OK\r\nContent-Length: 4194304\r\n\r\n");
    for (int quiet = 0; quiet < 50;) { /* until the socket is full and nothing moves */
        ssize_t n = send(fd, data + done, SIZE - done, MSG_DONTWAIT | MSG_NOSIGNAL);

        quiet = n <= 0 && had == rs_buf_len(&p->body) ? quiet + 1 : 0;
        had = rs_buf_len(&p->body);
        done += n > 0 ? (size_t)n : 0;
        rs_loop_turn(loop, RS_MS);
    }
    ck_assert_uint_ge(had, RS_STREAM_WINDOW);
    ck_assert_uint_lt(had, RS_STREAM_WINDOW + (64 << 10) + 1);
    for (size_t given = 0; !p->ended; given = had) {
        ssize_t n = done < SIZE ? send(fd, data + done, SIZE - done, MSG_DONTWAIT) : 0;

        done += n > 0 ? (size_t)n : 0;
        had = rs_buf_len(&p->body);
        if (had > given)
            backend->ops->window(backend, &p->r, had - given);
        turn();
    }
    ck_assert_uint_eq(rs_buf_len(&p->body), SIZE);
    free(data);
    free_reply(p);
    close(fd);
}
END_TEST

START_TEST(refuses_what_it_cannot_do)
{
    static const char upgrade[] = "upgrade\0websocket\0connection\0upgrade";
    struct reply *p = request_new("GET", "/"), *q = send_request("GET", "/a b", NULL);

    rs_field_put(&p->r.meta, RS_TAG_HEADERS, upgrade, sizeof(upgrade));
    backend->ops->send(backend, &p->r);
    UNTIL(p->ended && q->ended);
    is(p, 501, "Not Implemented");
    is(q, 400, "Bad Request");
    free_reply(p);
    free_reply(q);
}
END_TEST

/* --- handle calls ------------------------------------------------------------------------------ */

static struct reply *call(const char *method, const char *args, size_t len, bool stream)
{
    struct reply *p = request_new("", "");

    rs_buf_clear(&p->r.meta);
    p->r.kind = RS_REQUEST_CALL;
    rs_field_put_str(&p->r.meta, RS_TAG_METHOD, method);
    rs_field_put_str(&p->r.meta, RS_TAG_DEPLOYMENT, "Files");
    rs_field_put_str(&p->r.meta, RS_TAG_CONTENT_TYPE, RS_PICKLE_TYPE);
    if (stream)
        rs_field_put_uint(&p->r.meta, RS_TAG_STREAM, 1);
    rs_buf_append(&p->r.body, args, len);
    p->r.body_len = len;
    backend->ops->send(backend, &p->r);
    return p;
}

#define PATH_ARGS "\x80\5\x8c\2/x\x85}\x86.", 10
#define HELLO_PICKLE "\x80\5\x8e\5\0\0\0\0\0\0\0hello."

static void has_field(const struct reply *p, enum rs_tag tag, const char *text)
{
    struct rs_fields f;
    char *got;

    ck_assert_int_eq(rs_fields_parse(rs_buf_head(&p->meta), rs_buf_len(&p->meta), &f, NULL), 0);
    got = rs_fields_dup(&f, tag);
    ck_assert_ptr_nonnull(got);
    ck_assert_msg(strstr(got, text) != NULL, "%s", got);
    free(got);
}

START_TEST(answers_calls)
{
    struct reply *p = call("get", PATH_ARGS, false);
    int fd = server_accept();

    ck_assert_ptr_nonnull(strstr(server_read(fd, "\r\n\r\n"), "GET /x HTTP/1.1\r\n"));
    server_write(fd, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n");
    server_write(fd, "3\r\nllo\r\n0\r\n\r\n");
    UNTIL(p->ended);
    ck_assert_msg(!p->code, "%s", p->message);
    ck_assert_uint_eq(p->status, 0);
    ck_assert_uint_eq(rs_buf_len(&p->body), 17);
    ck_assert_mem_eq(rs_buf_head(&p->body), HELLO_PICKLE, 17);
    has_field(p, RS_TAG_CONTENT_TYPE, RS_PICKLE_TYPE);
    free_reply(p);

    p = call("get", PATH_ARGS, false);
    server_read(fd, "\r\n\r\n");
    server_write(fd, "HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\nno\nsuch\x01.");
    UNTIL(p->ended);
    ck_assert_int_eq(p->code, RS_WIRE_USER);
    has_field(p, RS_TAG_ERROR_TYPE, "HTTPError");
    has_field(p, RS_TAG_MESSAGE, "GET /x answered 404: no such .");
    free_reply(p);

    p = call("nope", PATH_ARGS, false);
    UNTIL(p->ended);
    has_field(p, RS_TAG_MESSAGE, "has no method 'nope'");
    ck_assert_int_eq(p->code, RS_WIRE_NOT_FOUND);
    free_reply(p);
    p = call("get", "\x80\5K\1\x85}\x86.", 8, false);
    UNTIL(p->ended);
    has_field(p, RS_TAG_ERROR_TYPE, "TypeError");
    ck_assert_int_eq(p->code, RS_WIRE_USER);
    free_reply(p);
    close(fd);
}
END_TEST

START_TEST(streams_calls)
{
    struct reply *p = call("get", PATH_ARGS, true);
    int fd = server_accept();

    server_read(fd, "\r\n\r\n");
    server_write(fd, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
    UNTIL(p->chunks == 1);
    has_field(p, RS_TAG_ITEMS, "\1");
    server_write(fd, "5\r\nhello\r\n0\r\n\r\n");
    UNTIL(p->ended);
    ck_assert_uint_eq(p->chunks, 2);
    ck_assert_uint_eq(p->parts, 3); /* the last one is empty */
    ck_assert_mem_eq(rs_buf_head(&p->body), HELLO_PICKLE HELLO_PICKLE, 34);
    free_reply(p);
    close(fd);
}
END_TEST

START_TEST(frees_what_is_under_way)
{
    struct reply *p = send_request("GET", "/", NULL), *q = send_request("GET", "/", "x");
    int fd = server_accept();

    server_read(fd, "\r\n\r\n");
    backend->ops->cancel(backend, &p->r);
    backend->ops->cancel(backend, &q->r);
    ck_assert(!p->ended && !q->ended);
    free_reply(p);
    free_reply(q);
    p = send_request("GET", "/", NULL); /* not even begun */
    backend->ops->cancel(backend, &p->r);
    free_reply(p);
    close(fd);
}
END_TEST

/* --- Unix sockets, and the probe --------------------------------------------------------------- */

START_TEST(speaks_through_unix_sockets)
{
    char path[] = "/tmp/rserve-test-XXXXXX", name[64];
    struct sockaddr_un {
        sa_family_t family;
        char path[108];
    } at = {.family = AF_UNIX};
    struct reply *p;
    int fd;

    ck_assert_ptr_nonnull(mkdtemp(path));
    snprintf(name, sizeof(name), "%s/s", path);
    memcpy(at.path, name, strlen(name) + 1);
    close(listener);
    listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    ck_assert_int_eq(bind(listener, (struct sockaddr *)&at, sizeof(at)), 0);
    ck_assert_int_eq(listen(listener, 4), 0);
    backend->ops->free(backend);
    backend = rs_upstream_new(loop, NULL, 0, name);
    p = send_request("GET", "/", NULL);
    fd = server_accept();
    ck_assert_ptr_nonnull(strstr(server_read(fd, "\r\n\r\n"), "host: localhost\r\n"));
    server_write(fd, HELLO);
    UNTIL(p->ended);
    is(p, 200, "hello");
    free_reply(p);
    close(fd);
    unlink(name);
    rmdir(path);
}
END_TEST

/* There is no tunnel through to the server. */
START_TEST(websockets_are_refused)
{
    struct reply *p = request_new("GET", "/");

    p->r.kind = RS_REQUEST_WEBSOCKET;
    backend->ops->send(backend, &p->r);
    ck_assert(p->ended);
    ck_assert_uint_eq(p->status, 501);
    ck_assert_str_eq(rs_buf_text(&p->body),
                     "This application does not take WebSocket connections.");
    free_reply(p);
}
END_TEST

START_TEST(refuses_bad_addresses)
{
    char path[200];

    memset(path, 'x', sizeof(path));
    path[sizeof(path) - 1] = '\0';
    ck_assert_ptr_null(rs_upstream_new(loop, "no.such.name", 80, NULL));
    ck_assert_ptr_null(rs_upstream_new(loop, NULL, 0, path));
}
END_TEST

static int probed; /* 1: ok, -1: not */
static char why[500];

static void on_probed(bool ok, const char *text, void *arg)
{
    ck_assert_int_eq(probed, 0);
    probed = ok ? 1 : -1;
    snprintf(why, sizeof(why), "%s", text);
}

static struct rs_probe *probe(const char *path, int64_t time, bool once)
{
    struct rs_probe_conf conf = {.host = "127.0.0.1",
                                 .port = port,
                                 .path = path,
                                 .once = once,
                                 .deadline = rs_clock_now() + time};
    struct rs_probe *p;

    probed = 0;
    ck_assert_int_eq(rs_probe_start(&p, loop, &conf, on_probed, NULL, NULL), 0);
    ck_assert_int_eq(probed, 0);
    return p;
}

START_TEST(probes_until_ready)
{
    struct rs_probe *p = probe("/health?x", 10 * RS_SEC, false);
    int fd = server_accept();

    ck_assert_ptr_nonnull(strstr(server_read(fd, "\r\n\r\n"), "GET /health?x HTTP/1.1\r\n"));
    server_write(fd, "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n");
    close(fd);
    fd = server_accept();
    server_read(fd, "\r\n\r\n");
    close(fd);
    fd = server_accept();
    server_read(fd, "\r\n\r\n");
    server_write(fd, "HTTP/1.1 302 Found\r\nLocation: /x\r\n\r\n");
    UNTIL(probed);
    ck_assert_int_eq(probed, 1);
    ck_assert_str_eq(why, "");
    rs_probe_free(p);
    close(fd);
}
END_TEST

START_TEST(probes_once)
{
    struct rs_probe *p = probe("/", 10 * RS_SEC, true);
    int fd = server_accept();

    server_read(fd, "\r\n\r\n");
    server_write(fd, "HTTP/1.1 500 Oops\r\n\r\n");
    UNTIL(probed);
    ck_assert_int_eq(probed, -1);
    ck_assert_ptr_nonnull(strstr(why, "is not ready: it answered 500"));
    rs_probe_free(p);
    close(fd);
    p = probe(NULL, 10 * RS_SEC, true); /* the port is enough */
    UNTIL(probed);
    ck_assert_int_eq(probed, 1);
    rs_probe_free(p);
    p = probe("/", 30 * RS_MS, true); /* nobody answers */
    UNTIL(probed);
    ck_assert_int_eq(probed, -1);
    ck_assert_ptr_nonnull(strstr(why, "did not answer in time"));
    rs_probe_free(p);
    close(listener);
    listener = -1;
    p = probe("/", 60 * RS_MS, false);
    UNTIL(probed);
    ck_assert_int_eq(probed, -1);
    ck_assert_ptr_nonnull(strstr(why, "cannot connect to the HTTP server at 127.0.0.1:"));
    rs_probe_free(p);
    rs_probe_free(probe("/", RS_SEC, false)); /* stopped before it began */
}
END_TEST

RS_CHECK_MAIN("upstream", tcase_add_checked_fixture(tc, set_up, tear_down);
              tcase_add_test(tc, forwards); tcase_add_test(tc, keeps_connections);
              tcase_add_loop_test(tc, replaces_stale_connections, 0, RS_COUNT(stales));
              tcase_add_test(tc, does_not_retry_for_ever);
              tcase_add_loop_test(tc, retries_what_was_not_read, 0, 2);
              tcase_add_loop_test(tc, reports_broken_answers, 0, RS_COUNT(broken));
              tcase_add_test(tc, drops_a_connection_that_says_too_much);
              tcase_add_test(tc, blocks_while_nobody_listens); tcase_add_test(tc, sends_files);
              tcase_add_test(tc, streams_requests);
              tcase_add_test(tc, ends_streams_without_a_last_piece);
              tcase_add_loop_test(tc, keeps_declared_lengths, 0, 2);
              tcase_add_test(tc, takes_early_answers);
              tcase_add_test(tc, holds_back_without_credit);
              tcase_add_test(tc, refuses_what_it_cannot_do); tcase_add_test(tc, answers_calls);
              tcase_add_test(tc, streams_calls); tcase_add_test(tc, frees_what_is_under_way);
              tcase_add_test(tc, speaks_through_unix_sockets);
              tcase_add_test(tc, websockets_are_refused); tcase_add_test(tc, refuses_bad_addresses);
              tcase_add_test(tc, probes_until_ready); tcase_add_test(tc, probes_once);)
