#include "net/http/port.h"

#include "core/base/cleanup.h"
#include "tests/unit/check_main.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

/* Listens on any port of `host`. */
static int listen_on(const char *host, uint16_t *port)
{
    struct rs_address bound;
    struct rs_error err = {0};
    int fd = -1;

    ck_assert_msg(rs_port_listen(host, 0, NULL, &fd, &bound, &err) == 0, "%s", err.msg);
    *port = rs_address_port(&bound);
    ck_assert_uint_ne(*port, 0);
    return fd;
}

static const struct {
    const char *host, *asked;
    bool found;
} holders[] = {
    {"127.0.0.1", "127.0.0.1", true},  {"127.0.0.1", "localhost", true},
    {"0.0.0.0", "127.0.0.1", true},    {"127.0.0.1", "0.0.0.0", true},
    {"127.0.0.1", "127.0.0.2", false}, {"127.0.0.1", "example.org", false},
    {"127.0.0.1", "::", true},
};

START_TEST(names_the_process)
{
    uint16_t port;
    rs_auto(rs_closep) int fd = listen_on(holders[_i].host, &port);
    rs_auto(rs_freep) char *holder = rs_port_holder(holders[_i].asked, port);
    char want[100];

    snprintf(want, sizeof(want), "pid %d (%s", (int)getpid(), program_invocation_short_name);
    if (!holders[_i].found)
        ck_assert_ptr_null(holder);
    else
        ck_assert_msg(holder && strncmp(holder, want, strlen(want)) == 0, "%s, not %s", holder,
                      want);
}
END_TEST

START_TEST(nobody_holds_a_free_port)
{
    uint16_t port;
    int fd = listen_on("127.0.0.1", &port);

    close(fd);
    ck_assert_ptr_null(rs_port_holder("127.0.0.1", port));
}
END_TEST

START_TEST(a_taken_port_is_refused)
{
    uint16_t port;
    rs_auto(rs_closep) int fd = listen_on("127.0.0.1", &port);
    rs_auto(rs_closep) int other = -1;
    struct rs_error err = {0};
    char begin[100];

    snprintf(begin, sizeof(begin), "port %u is in use by pid %d (%s", port, (int)getpid(),
             program_invocation_short_name);
    ck_assert_int_eq(rs_port_listen("127.0.0.1", port, "--port", &other, NULL, &err), -1);
    ck_assert_int_eq(err.code, RS_CONFLICT);
    ck_assert_int_eq(err.sys_errno, EADDRINUSE);
    ck_assert_msg(strncmp(err.msg, begin, strlen(begin)) == 0, "%s", err.msg);
    ck_assert_msg(strstr(err.msg, "): stop it or use --port"), "%s", err.msg);
    ck_assert_int_eq(other, -1);
}
END_TEST

/* A second set of SO_REUSEPORT listeners of one user would share the port silently. */
START_TEST(check_sees_shared_ports)
{
    rs_auto(rs_closep) int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(at);
    struct rs_error err = {0};

    ck_assert_int_eq(setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &(int){1}, sizeof(int)), 0);
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&at, sizeof(at)), 0);
    ck_assert_int_eq(listen(fd, 5), 0);
    ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&at, &len), 0);
    ck_assert_int_eq(rs_port_check("127.0.0.1", ntohs(at.sin_port), NULL, &err), -1);
    ck_assert_msg(strstr(err.msg, "): stop it") && !strstr(err.msg, "or use"), "%s", err.msg);
    rs_closep(&fd);
    ck_assert_int_eq(rs_port_check("127.0.0.1", ntohs(at.sin_port), NULL, &err), 0);
    ck_assert_int_eq(rs_port_check("127.0.0.1", 0, NULL, &err), 0);
}
END_TEST

START_TEST(other_failures_are_told)
{
    struct rs_error err = {0};
    int fd = -1;

    ck_assert_int_eq(rs_port_listen("192.0.2.1", 1, "--port", &fd, NULL, &err), -1);
    ck_assert_msg(strstr(err.msg, "cannot listen on 192.0.2.1 port 1: "), "%s", err.msg);
    ck_assert_int_eq(rs_port_listen("no such host", 1, "--port", &fd, NULL, &err), -1);
    ck_assert_int_eq(err.code, RS_INVALID);
}
END_TEST

static const struct {
    const char *text;
    bool loopback;
} addresses[] = {
    {"127.0.0.1", true},
    {"127.9.9.9", true},
    {"10.0.0.1", false},
    {"0.0.0.0", false},
    {"::1", true},
    {"::", false},
    {"fe80::1", false},
    {"::ffff:127.0.0.1", true},
    {"::ffff:10.0.0.1", false},
};

START_TEST(loopback_addresses)
{
    struct rs_address a;

    ck_assert_int_eq(rs_address_parse(addresses[_i].text, 80, &a, NULL), 0);
    ck_assert_int_eq(rs_address_is_loopback((const struct sockaddr *)&a.sa),
                     addresses[_i].loopback);
}
END_TEST

RS_CHECK_MAIN("port", tcase_add_loop_test(tc, names_the_process, 0, RS_COUNT(holders));
              tcase_add_test(tc, nobody_holds_a_free_port);
              tcase_add_test(tc, a_taken_port_is_refused);
              tcase_add_test(tc, check_sees_shared_ports);
              tcase_add_test(tc, other_failures_are_told);
              tcase_add_loop_test(tc, loopback_addresses, 0, RS_COUNT(addresses));)
