#include "net/http/client.h"

#include "core/base/cleanup.h"
#include "core/base/clock.h"
#include "net/http/port.h"
#include "tests/unit/check_main.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

/* A server for one connection: reads a request (header and, by Content-Length, body), sends canned
 * bytes in pieces of `piece`, then closes unless it is to hang. */
struct canned {
    int listener;
    uint16_t port;
    char base[64];
    const char *answer;
    size_t piece;
    bool hang, ignore; /* ignore: answers without reading */
    bool joined;
    struct rs_buf request;
    pthread_t thread;
    int stop[2];
};

static void read_request(struct canned *s, int fd)
{
    for (;;) {
        const char *text = rs_buf_text(&s->request), *end = strstr(text, "\r\n\r\n");
        const char *length = strstr(text, "Content-Length: ");
        size_t want = length ? strtoul(length + 16, NULL, 10) : 0;
        ssize_t n;

        if (end && rs_buf_len(&s->request) >= (size_t)(end + 4 - text) + want)
            return;
        n = read(fd, rs_buf_reserve(&s->request, 4096), 4096);
        if (n <= 0)
            return;
        rs_buf_commit(&s->request, (size_t)n);
    }
}

static void *serve(void *arg)
{
    struct canned *s = arg;
    struct pollfd p = {.fd = s->listener, .events = POLLIN};
    size_t len = strlen(s->answer);
    int fd;

    poll(&p, 1, 20000);
    fd = accept4(s->listener, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0)
        return NULL;
    if (!s->ignore)
        read_request(s, fd);
    for (size_t at = 0; at < len; at += s->piece) {
        size_t n = len - at < s->piece ? len - at : s->piece;

        if (send(fd, s->answer + at, n, MSG_NOSIGNAL) < 0)
            break;
    }
    if (s->hang) {
        struct pollfd until = {.fd = s->stop[0], .events = POLLIN};

        poll(&until, 1, 20000);
    }
    close(fd);
    return NULL;
}

static void start(struct canned *s)
{
    struct rs_address bound;
    struct rs_error err = {0};

    ck_assert_msg(rs_port_listen("127.0.0.1", 0, NULL, &s->listener, &bound, &err) == 0, "%s",
                  err.msg);
    s->port = rs_address_port(&bound);
    snprintf(s->base, sizeof(s->base), "http://127.0.0.1:%u", s->port);
    if (!s->piece)
        s->piece = 1 << 20;
    ck_assert_int_eq(pipe2(s->stop, O_CLOEXEC), 0);
    ck_assert_int_eq(pthread_create(&s->thread, NULL, serve, s), 0);
}

/* After it, what the server has read may be looked at. */
static void join(struct canned *s)
{
    if (!s->joined) {
        close(s->stop[1]);
        pthread_join(s->thread, NULL);
    }
    s->joined = true;
}

static void stop(struct canned *s)
{
    join(s);
    close(s->stop[0]);
    close(s->listener);
    rs_buf_fini(&s->request);
}

#define OK "HTTP/1.1 200 OK\r\n"
static const struct {
    const char *answer;
    int status; /* 0: an error with this text in it */
    const char *type, *body;
} answers[] = {
    {OK "Content-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello", 200, "text/plain", "hello"},
    {OK "content-TYPE:  a/b ; c=d \r\nContent-Length: 0\r\n\r\n", 200, "a/b ; c=d", ""},
    {OK "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0a;x=y\r\n0123456789\r\n0\r\nT: r\r\n\r\n",
     200, "", "abc0123456789"},
    {OK "\r\nuntil the end", 200, "", "until the end"},
    {"HTTP/1.0 404 Not Found\r\n\r\n", 404, "", ""},
    {"HTTP/1.1 503 \r\nContent-Length: 2\r\n\r\nno", 503, "", "no"},
    {"HTTP/1.1 100 Continue\r\nContent-Type: x/y\r\n\r\n" OK "Content-Length: 1\r\n\r\n!", 200, "",
     "!"},
    {"HTTP/1.1 204 No Content\r\n\r\n", 204, "", ""},
    {"", 0, NULL, "closed the connection without an answer"},
    {"HTTP/1.1 20", 0, NULL, "is not HTTP"},
    {"SSH-2.0-OpenSSH_9.2\r\n", 0, NULL, "is not HTTP"},
    {"\x01\x02\x03\x04", 0, NULL, "is not HTTP"},
    {OK "Content-Length: 9\r\n\r\nshort", 0, NULL, "is not HTTP"},
    {OK "Content-Length: 99999999999999999999999\r\n\r\n", 0, NULL, "is not HTTP"},
    {OK "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 0, NULL,
     "is not HTTP"},
    {OK "Transfer-Encoding: chunked\r\n\r\nzz\r\n", 0, NULL, "is not HTTP"},
    {OK "Transfer-Encoding: chunked\r\n\r\n5\r\nhel", 0, NULL, "is not HTTP"},
    {OK "Content-Length: 21\r\n\r\n123456789012345678901", 0, NULL, "a body longer than allowed"},
    {OK "\r\n123456789012345678901", 0, NULL, "a body longer than allowed"},
};

static void check_answer(int i, size_t piece)
{
    struct canned s = {.answer = answers[i].answer, .piece = piece};
    struct rs_http_answer got = {0};
    struct rs_error err = {0};
    struct rs_http_call call = {.path = "/x?y=z", .body_max = 20};
    int r;

    start(&s);
    call.base = s.base;
    r = rs_http_call(&call, &got, &err);
    if (answers[i].status) {
        ck_assert_msg(r == 0, "%s", err.msg);
        ck_assert_int_eq(got.status, answers[i].status);
        ck_assert_str_eq(got.type, answers[i].type);
        ck_assert_str_eq(rs_buf_text(&got.body), answers[i].body);
    } else {
        ck_assert_int_eq(r, -1);
        ck_assert_msg(strstr(err.msg, answers[i].body), "%s", err.msg);
    }
    join(&s);
    ck_assert_ptr_eq(strstr(rs_buf_text(&s.request), "GET /x?y=z HTTP/1.1\r\nHost: 127.0.0.1:"),
                     rs_buf_text(&s.request));
    rs_http_answer_fini(&got);
    stop(&s);
}

START_TEST(reads_answers)
{
    check_answer(_i, 0);
}
END_TEST

START_TEST(reads_answers_bytewise)
{
    check_answer(_i, 1);
}
END_TEST

START_TEST(sends_a_body)
{
    struct canned s = {.answer = OK "Content-Length: 0\r\n\r\n"};
    struct rs_http_answer got = {0};
    struct rs_error err = {0};
    char base[80];

    start(&s);
    snprintf(base, sizeof(base), "%s/under/", s.base);
    ck_assert_msg(rs_http_call(&(struct rs_http_call){.base = base,
                                                      .method = "PUT",
                                                      .path = "/p",
                                                      .body = "{}",
                                                      .len = 2,
                                                      .type = "application/json",
                                                      .token = "t0k"},
                               &got, &err) == 0,
                  "%s", err.msg);
    rs_http_answer_fini(&got);
    join(&s);
    ck_assert_ptr_eq(strstr(rs_buf_text(&s.request), "PUT /under/p HTTP/1.1\r\n"),
                     rs_buf_text(&s.request));
    ck_assert_ptr_nonnull(strstr(rs_buf_text(&s.request), "\r\nAuthorization: Bearer t0k\r\n"));
    ck_assert_ptr_nonnull(strstr(rs_buf_text(&s.request), "\r\nContent-Length: 2\r\n"));
    ck_assert_ptr_nonnull(strstr(rs_buf_text(&s.request), "\r\n\r\n{}"));
    stop(&s);
}
END_TEST

/* The answer comes before all of the body is sent, and the connection goes with it. */
START_TEST(an_early_answer_is_read)
{
    struct canned s = {.answer = "HTTP/1.1 403 Forbidden\r\nContent-Length: 3\r\n\r\nno!",
                       .hang = true,
                       .ignore = true};
    rs_auto(rs_freep) char *body = calloc(1, 1 << 16);
    struct rs_http_answer got = {0};
    struct rs_error err = {0};

    start(&s);
    ck_assert_msg(
        rs_http_call(
            &(struct rs_http_call){
                .base = s.base, .method = "PUT", .path = "/", .body = body, .len = 1 << 16},
            &got, &err) == 0,
        "%s", err.msg);
    ck_assert_int_eq(got.status, 403);
    rs_http_answer_fini(&got);
    stop(&s);
}
END_TEST

START_TEST(a_silent_server_times_out)
{
    struct canned s = {.answer = OK "Content-Length: 5\r\n\r\nhel", .hang = true};
    struct rs_http_answer got = {0};
    struct rs_error err = {0};

    start(&s);
    ck_assert_int_eq(
        rs_http_call(&(struct rs_http_call){.base = s.base, .path = "/", .timeout = 50 * RS_MS},
                     &got, &err),
        -1);
    ck_assert_int_eq(err.code, RS_TIMEOUT);
    ck_assert_msg(strstr(err.msg, "did not answer in time"), "%s", err.msg);
    stop(&s);
}
END_TEST

START_TEST(a_head_answer_has_no_body)
{
    struct canned s = {.answer = OK "Content-Length: 500\r\n\r\n", .hang = true};
    struct rs_http_answer got = {0};
    struct rs_error err = {0};

    start(&s);
    ck_assert_msg(
        rs_http_call(&(struct rs_http_call){.base = s.base, .method = "HEAD", .path = "/"}, &got,
                     &err) == 0,
        "%s", err.msg);
    ck_assert_int_eq(got.status, 200);
    stop(&s);
}
END_TEST

START_TEST(nobody_listens)
{
    struct rs_address bound;
    struct rs_http_answer got;
    struct rs_error err = {0};
    char base[64];
    int fd = -1;

    ck_assert_int_eq(rs_port_listen("127.0.0.1", 0, NULL, &fd, &bound, &err), 0);
    snprintf(base, sizeof(base), "http://localhost:%u/", rs_address_port(&bound));
    close(fd);
    ck_assert_int_eq(rs_http_call(&(struct rs_http_call){.base = base, .path = "/"}, &got, &err),
                     -1);
    ck_assert_int_eq(err.code, RS_NOT_FOUND);
    ck_assert_int_eq(err.sys_errno, ECONNREFUSED);
}
END_TEST

static const struct {
    const char *base, *why;
} bad_bases[] = {
    {"", "expected an address as http://127.0.0.1:8265, got \"\""},
    {"127.0.0.1:8265", "expected an address as http://127.0.0.1:8265"},
    {"https://127.0.0.1", "https is not supported"},
    {"http://", "expected an address"},
    {"http:///x", "expected an address"},
    {"http://user@127.0.0.1", "expected an address"},
    {"http://127.0.0.1/a\r\nb", "expected an address"},
    {"http://127.0.0.1?x", "expected an address"},
    {"http://127.0.0.1:99999", "99999"},
    {"http://na!me.example:1", "na!me.example"},
};

START_TEST(refuses_addresses)
{
    struct rs_http_answer got;
    struct rs_error err = {0};

    ck_assert_int_eq(
        rs_http_call(&(struct rs_http_call){.base = bad_bases[_i].base, .path = "/"}, &got, &err),
        -1);
    ck_assert_int_eq(err.code, RS_INVALID);
    ck_assert_msg(strstr(err.msg, bad_bases[_i].why), "%s", err.msg);
}
END_TEST

RS_CHECK_MAIN("client", tcase_add_loop_test(tc, reads_answers, 0, RS_COUNT(answers));
              tcase_add_loop_test(tc, reads_answers_bytewise, 0, RS_COUNT(answers));
              tcase_add_test(tc, sends_a_body); tcase_add_test(tc, an_early_answer_is_read);
              tcase_add_test(tc, a_silent_server_times_out);
              tcase_add_test(tc, a_head_answer_has_no_body); tcase_add_test(tc, nobody_listens);
              tcase_add_loop_test(tc, refuses_addresses, 0, RS_COUNT(bad_bases));)
