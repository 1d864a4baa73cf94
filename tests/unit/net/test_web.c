#include "net/http/web.h"

#include "net/http/port.h"
#include "tests/unit/check_main.h"

#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* A server that parks every request, and a client of it. */
struct world {
    struct rs_loop *loop;
    struct rs_web *web;
    struct rs_web_later *parked[4];
    size_t n;
};

static bool on_header(const struct rs_web_request *req, struct rs_web_answer *a, void *arg)
{
    return false;
}

static void on_request(const struct rs_web_request *req, struct rs_web_answer *a, void *arg)
{
    struct world *w = arg;

    ck_assert_uint_lt(w->n, RS_COUNT(w->parked));
    w->parked[w->n++] = rs_web_wait(req);
}

static void on_refused(int status, const char *why, struct rs_web_answer *a, void *arg)
{
    a->status = status;
}

static const struct rs_web_ops ops = {on_header, on_request, on_refused};

/* `listening`: on a socket that it is given. */
static void open_world(struct world *w, bool listening)
{
    struct rs_web_conf conf = {
        .host = "127.0.0.1", .body_max = 1000, .connections = 10, .idle_s = 30};
    struct rs_error err = {0};

    *w = (struct world){0};
    ck_assert_int_eq(rs_loop_new(&w->loop, &err), 0);
    if (listening) {
        ck_assert_int_eq(rs_port_listen("127.0.0.1", 0, NULL, &conf.listening, NULL, &err), 0);
    }
    ck_assert_int_eq(rs_web_new(&w->web, w->loop, &conf, &ops, w, &err), 0);
    ck_assert_uint_ne(rs_web_port(w->web), 0);
    ck_assert(rs_web_is_loopback(w->web));
}

static void close_world(struct world *w)
{
    rs_web_free(w->web);
    rs_loop_free(w->loop);
}

static int ask(const struct world *w, const char *request)
{
    struct rs_address at;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    ck_assert_int_eq(rs_address_from_ip(&at, "127.0.0.1", rs_web_port(w->web)), 0);
    ck_assert_int_eq(connect(fd, (struct sockaddr *)&at.sa, at.len), 0);
    ck_assert_int_eq(send(fd, request, strlen(request), 0), (int)strlen(request));
    return fd;
}

static void turn_until_parked(struct world *w, size_t n)
{
    while (w->n < n)
        ck_assert_int_eq(rs_loop_turn(w->loop, 100000000), 0);
}

/* What comes, with an end to it, read while the loop turns. */
static void expect(struct world *w, int fd, const char *text)
{
    char got[4096];
    size_t len = 0;

    for (;;) {
        ssize_t n = recv(fd, got + len, sizeof(got) - 1 - len, MSG_DONTWAIT);

        if (n > 0)
            len += (size_t)n;
        got[len] = '\0';
        if (strstr(got, text) || n == 0)
            break;
        ck_assert_int_eq(rs_loop_turn(w->loop, 1000000), 0);
    }
    ck_assert_msg(strstr(got, text) != NULL, "%s", got);
}

static void answer(struct rs_web_later *l, const char *text)
{
    struct rs_web_answer a = {.status = 200, .type = "text/plain"};

    rs_web_answer_header(&a, "X-Of", "%s", "later");
    rs_buf_puts(&a.body, text);
    rs_web_later_answer(l, &a);
    memset(&a, 'x', sizeof(a)); /* nothing of it is used any more */
}

START_TEST(answers_come_later)
{
    struct world w;
    int first, second;

    open_world(&w, _i == 1);
    first = ask(&w, "GET /1 HTTP/1.1\r\nHost: h\r\n\r\n");
    turn_until_parked(&w, 1);
    second = ask(&w, "POST /2 HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc");
    turn_until_parked(&w, 2);
    answer(w.parked[1], "two");
    expect(&w, second, "\r\n\r\ntwo");
    answer(w.parked[0], "one");
    expect(&w, first, "X-Of: later");
    ck_assert_int_eq(send(first, "GET /3 HTTP/1.1\r\nHost: h\r\n\r\n", 28, 0), 28);
    turn_until_parked(&w, 3); /* the connection goes on */
    answer(w.parked[2], "three");
    expect(&w, first, "three");
    close(first);
    close(second);
    close_world(&w);
}
END_TEST

START_TEST(who_waits_may_leave)
{
    struct world w;
    int fd, other;

    open_world(&w, false);
    fd = ask(&w, "GET /1 HTTP/1.1\r\nHost: h\r\n\r\n");
    turn_until_parked(&w, 1);
    close(fd);
    ck_assert_int_eq(rs_loop_turn(w.loop, 0), 0);
    answer(w.parked[0], "to nobody");
    other = ask(&w, "GET /2 HTTP/1.1\r\nHost: h\r\n\r\n");
    turn_until_parked(&w, 2);
    answer(w.parked[1], "to somebody");
    expect(&w, other, "to somebody");
    close(other);
    close_world(&w);
}
END_TEST

START_TEST(the_server_may_end_before)
{
    struct world w;
    int fd;

    open_world(&w, false);
    fd = ask(&w, "GET /1 HTTP/1.1\r\nHost: h\r\n\r\n");
    turn_until_parked(&w, 1);
    close_world(&w);
    close(fd);
}
END_TEST

RS_CHECK_MAIN("web", tcase_add_loop_test(tc, answers_come_later, 0, 2);
              tcase_add_test(tc, who_waits_may_leave);
              tcase_add_test(tc, the_server_may_end_before);)
