#include "net/wire/tcp.h"

#include "tests/unit/check_main.h"

#include <string.h>

static const struct {
    const char *text;
    int def_port;
    const char *want; /* NULL: refused */
} cases[] = {
    {"127.0.0.1:6379", -1, "127.0.0.1:6379"},
    {"127.0.0.1", 6379, "127.0.0.1:6379"},
    {"localhost:80", -1, "127.0.0.1:80"},
    {":8000", -1, "0.0.0.0:8000"},
    {"[::1]:9", -1, "[::1]:9"},
    {"[::1]", 9, "[::1]:9"},
    {"::1", 9, "[::1]:9"},
    {"127.0.0.1", -1, NULL},
    {"127.0.0.1:", -1, NULL},
    {"127.0.0.1:99999", -1, NULL},
    {"127.0.0.1:-1", -1, NULL},
    {"127.0.0.1:8x", -1, NULL},
    {"[::1:9", -1, NULL},
    {"[::1]x9", -1, NULL},
    {"head.example:6379", -1, NULL},
    {"", -1, NULL},
};

START_TEST(parses)
{
    struct rs_address a;
    struct rs_error err = {0};
    char text[80];
    int r = rs_address_parse(cases[_i].text, cases[_i].def_port, &a, &err);

    if (cases[_i].want) {
        ck_assert_int_eq(r, 0);
        rs_address_print(&a, text, sizeof(text));
        ck_assert_str_eq(text, cases[_i].want);
    } else {
        ck_assert_int_eq(r, -1);
        ck_assert_ptr_nonnull(strstr(err.msg, cases[_i].text));
    }
}
END_TEST

static int accepted = -1;

static void on_accept(int fd, void *arg)
{
    ck_assert_ptr_eq(arg, &accepted);
    accepted = fd;
}

START_TEST(listens_and_connects)
{
    rs_auto(rs_loop_freep) struct rs_loop *loop = NULL;
    rs_auto(rs_listener_freep) struct rs_listener *l = NULL;
    struct rs_listener *second = NULL;
    struct rs_address at;
    struct rs_error err = {0};
    int fd = -1;

    ck_assert_int_eq(rs_loop_new(&loop, &err), 0);
    ck_assert_int_eq(rs_address_parse("127.0.0.1:0", -1, &at, &err), 0);
    ck_assert_int_eq(rs_listener_new(&l, loop, &at, on_accept, &accepted, &err), 0);
    rs_listener_address(l, &at);
    ck_assert_uint_gt(rs_address_port(&at), 0);
    ck_assert_int_eq(rs_listener_new(&second, loop, &at, on_accept, &accepted, &err), -1);
    ck_assert_ptr_nonnull(strstr(err.msg, "Address already in use"));
    ck_assert_int_eq(rs_tcp_connect(&at, &fd, &err), 0);
    for (int i = 0; i < 100 && accepted < 0; i++)
        ck_assert_int_eq(rs_loop_turn(loop, 20000000), 0);
    ck_assert_int_ge(accepted, 0);
    close(accepted);
    close(fd);
}
END_TEST

RS_CHECK_MAIN("tcp", tcase_add_loop_test(tc, parses, 0, RS_COUNT(cases));
              tcase_add_test(tc, listens_and_connects);)
