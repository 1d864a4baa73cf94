/* Names, against a name server in the same loop that answers, refuses, lies or says nothing. */
#include "net/wire/resolve.h"

#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "tests/unit/check_main.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

static const struct {
    const char *text;
    bool name;
} words[] = {
    {"head.example:6379", true},
    {"head", true},
    {"head-0.ns.svc.cluster.local", true},
    {"a_b:1", true},
    {"127.0.0.1:80", false},
    {"127.0.0.1", false},
    {"localhost:80", false},
    {"[::1]:9", false},
    {"::1", false},
    {"", false},
    {":80", false},
    {"head:x", false},
    {"head/path", false},
    {"he ad", false},
    {"127.0.0.300:1", false},
    {"head\n.example:1", false},
};

START_TEST(is_a_name)
{
    ck_assert_msg(rs_address_is_name(words[_i].text) == words[_i].name, "%s", words[_i].text);
}
END_TEST

enum mode { ANSWER, BOTH, UNKNOWN, EMPTY, GARBAGE, SILENCE };

struct server {
    struct rs_io io;
    enum mode mode;
    unsigned asked;
};

static size_t put(unsigned char *at, const void *data, size_t n)
{
    memcpy(at, data, n);
    return n;
}

/* The answer to the question in `q` (its header is 12 bytes); the length. */
static size_t make_answer(enum mode mode, unsigned char *q, size_t n)
{
    static const unsigned char a[] = {0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 10, 1, 2, 3};
    static const unsigned char aaaa[] = {0xc0, 12, 0, 28, 0, 1, 0, 0, 0, 60, 0, 16, 0xfd, 0,
                                         0,    0,  0, 0,  0, 0, 0, 0, 0, 0,  0, 0,  0,    1};
    unsigned type = (unsigned)q[n - 4] << 8 | q[n - 3]; /* without EDNS the question is the end */
    bool wants_v4 = type == 1;

    if (mode == GARBAGE) {
        memset(q + 4, 0xff, n - 4);
        return n;
    }
    q[2] = 0x81;
    q[3] = mode == UNKNOWN ? 0x83 : 0x80;
    if (mode == UNKNOWN || mode == EMPTY || (mode == ANSWER && !wants_v4))
        return n;
    q[7] = 1;
    return n + (wants_v4 ? put(q + n, a, sizeof(a)) : put(q + n, aaaa, sizeof(aaaa)));
}

static int on_question(struct rs_io *io, uint32_t events)
{
    struct server *s = rs_container_of(io, struct server, io);
    unsigned char packet[600];
    struct sockaddr_in from;
    socklen_t len = sizeof(from);
    ssize_t n = recvfrom(io->fd, packet, 512, 0, (struct sockaddr *)&from, &len);

    (void)events;
    ck_assert_int_gt(n, 16);
    s->asked++;
    if (s->mode == SILENCE)
        return 0;
    n = (ssize_t)make_answer(s->mode, packet, (size_t)n);
    ck_assert_int_eq(sendto(io->fd, packet, (size_t)n, 0, (struct sockaddr *)&from, len), n);
    return 0;
}

static void open_server(struct server *s, struct rs_loop *loop, char *address, size_t size)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(at);
    struct rs_error err = {0};

    s->io.fn = on_question;
    s->io.fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    ck_assert_int_eq(bind(s->io.fd, (struct sockaddr *)&at, sizeof(at)), 0);
    ck_assert_int_eq(getsockname(s->io.fd, (struct sockaddr *)&at, &len), 0);
    ck_assert_int_eq(rs_io_start(&s->io, loop, EPOLLIN, &err), 0);
    snprintf(address, size, "127.0.0.1:%u", ntohs(at.sin_port));
}

struct outcome {
    struct rs_loop *loop;
    unsigned times;
    char text[80];
    struct rs_error why;
    struct rs_resolve **free; /* in the callback; NULL: later */
};

static void on_done(const struct rs_address *found, const struct rs_error *why, void *arg)
{
    struct outcome *o = arg;

    o->times++;
    if (found)
        rs_address_print(found, o->text, sizeof(o->text));
    else
        o->why = *why;
    if (o->free)
        rs_resolve_free(rs_steal(*o->free));
    rs_loop_stop(o->loop);
}

static const struct {
    enum mode mode;
    const char *text, *want; /* NULL: it fails */
    enum rs_errc code;
    const char *why;
} cases[] = {
    {ANSWER, "head.example:6379", "10.1.2.3:6379", RS_OK, NULL},
    {ANSWER, "head.example", "10.1.2.3:7", RS_OK, NULL},
    {BOTH, "head.example:6379", "10.1.2.3:6379", RS_OK, NULL}, /* IPv4 goes first */
    {UNKNOWN, "head.example:6379", NULL, RS_SYSTEM, "the name 'head.example' is not known here"},
    {EMPTY, "head.example:6379", NULL, RS_SYSTEM, "the name 'head.example' is not known here"},
    {GARBAGE, "head.example:6379", NULL, RS_TIMEOUT, "no name server says in time"},
    {SILENCE, "head.example:6379", NULL, RS_TIMEOUT, "no name server says in time"},
};

/* `early`: the callback frees the resolver. */
static void ask(int i, bool early)
{
    rs_auto(rs_loop_freep) struct rs_loop *loop = NULL;
    rs_auto(rs_resolve_freep) struct rs_resolve *r = NULL;
    struct server server = {.mode = cases[i].mode};
    struct rs_error err = {0};
    struct outcome o = {.free = early ? &r : NULL};
    struct rs_resolve_conf conf = {.timeout = 100 * RS_MS};
    char address[40];

    ck_assert_int_eq(rs_loop_new(&loop, &err), 0);
    o.loop = loop;
    open_server(&server, loop, address, sizeof(address));
    conf.servers = address;
    if (cases[i].want)
        conf.timeout = 20 * RS_SEC; /* no matter how slow the machine is */
    ck_assert_int_eq(rs_resolve_start(&r, loop, cases[i].text, 7, &conf, on_done, &o, &err), 0);
    ck_assert_uint_eq(o.times, 0);
    ck_assert_int_eq(rs_loop_run(loop), 0);
    ck_assert_uint_eq(o.times, 1);
    ck_assert_uint_gt(server.asked, 0);
    if (cases[i].want) {
        ck_assert_str_eq(o.text, cases[i].want);
    } else {
        ck_assert_int_eq(o.why.code, cases[i].code);
        ck_assert_msg(strstr(o.why.msg, cases[i].why) != NULL, "%s", o.why.msg);
    }
    rs_resolve_free(rs_steal(r));
    rs_io_stop(&server.io);
    close(server.io.fd);
}

START_TEST(answers)
{
    ask(_i, false);
    ask(_i, true);
}
END_TEST

START_TEST(given_up)
{
    rs_auto(rs_loop_freep) struct rs_loop *loop = NULL;
    struct rs_resolve *r = NULL;
    struct server server = {.mode = SILENCE};
    struct rs_error err = {0};
    struct outcome o = {0};
    struct rs_resolve_conf conf = {0};
    char address[40];

    ck_assert_int_eq(rs_loop_new(&loop, &err), 0);
    o.loop = loop;
    open_server(&server, loop, address, sizeof(address));
    conf.servers = address;
    ck_assert_int_eq(rs_resolve_start(&r, loop, "head.example:1", -1, &conf, on_done, &o, &err), 0);
    while (!server.asked)
        rs_loop_turn(loop, RS_SEC);
    rs_resolve_free(r);
    rs_loop_turn(loop, 0);
    ck_assert_uint_eq(o.times, 0);
    rs_io_stop(&server.io);
    close(server.io.fd);
}
END_TEST

START_TEST(refuses)
{
    rs_auto(rs_loop_freep) struct rs_loop *loop = NULL;
    struct rs_resolve_conf conf = {.servers = "not a server"};
    struct rs_resolve *r = NULL;
    struct rs_error err = {0};
    struct rs_address at;

    ck_assert_int_eq(rs_loop_new(&loop, &err), 0);
    ck_assert_int_eq(rs_resolve_start(&r, loop, "head.example", -1, NULL, on_done, NULL, &err), -1);
    ck_assert_msg(strstr(err.msg, "expected a port in \"head.example\"") != NULL, "%s", err.msg);
    ck_assert_int_eq(rs_resolve_start(&r, loop, "head:x", 1, NULL, on_done, NULL, &err), -1);
    ck_assert_int_eq(err.code, RS_INVALID);
    ck_assert_int_eq(rs_resolve_start(&r, loop, "head", 1, &conf, on_done, NULL, &err), -1);
    ck_assert_ptr_null(r);
    ck_assert_int_eq(rs_address_resolve("he ad:1", 1, 0, &at, &err), -1);
    ck_assert_int_eq(rs_address_resolve("127.0.0.1", 9, 0, &at, &err), 0);
    ck_assert_uint_eq(rs_address_port(&at), 9);
}
END_TEST

RS_CHECK_MAIN("resolve", tcase_add_loop_test(tc, is_a_name, 0, RS_COUNT(words));
              tcase_add_loop_test(tc, answers, 0, RS_COUNT(cases)); tcase_add_test(tc, given_up);
              tcase_add_test(tc, refuses);)
