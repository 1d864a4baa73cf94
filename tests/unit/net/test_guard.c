#include "net/api/guard.h"

#include "tests/unit/check_main.h"

#include <string.h>

static const struct rs_guard local = {.loopback = true, .hostname = "box"};
static const struct rs_guard open_ = {.loopback = false, .hostname = "box"};
static const struct rs_guard token = {.loopback = false, .token = "s3cret", .hostname = "box"};

static const struct {
    const struct rs_guard *guard;
    struct rs_guard_facts facts;
    int status;
    const char *why; /* part of it */
} cases[] = {
    /* reading, from this machine */
    {&local, {.host = "127.0.0.1:8265"}, 0, ""},
    {&local, {.host = "localhost:8265"}, 0, ""},
    {&local, {.host = "LocalHost"}, 0, ""},
    {&local, {.host = "[::1]:8265"}, 0, ""},
    {&local, {.host = "box:8265"}, 0, ""},
    {&local, {.host = NULL}, 0, ""},
    {&local, {.host = "box.evil.example"}, 403, "got box.evil.example"},
    {&local, {.host = "127.0.0.1.evil.example:80"}, 403, "Host"},
    {&local, {.host = ""}, 403, "Host"},
    {&local, {.host = "[::1"}, 0, ""},
    {&local, {.host = "127.0.0.1", .origin = "https://evil.example"}, 0, ""},
    /* changing, from this machine */
    {&local, {.changes = true, .host = "127.0.0.1:8265"}, 0, ""},
    {&local, {.changes = true, .host = "evil.example"}, 403, "Host"},
    {&local, {.changes = true, .host = "127.0.0.1:8265", .origin = "http://127.0.0.1:8265"}, 0, ""},
    {&local,
     {.changes = true, .host = "127.0.0.1:8265", .origin = "http://127.0.0.1:3000"},
     403,
     "Origin"},
    {&local,
     {.changes = true, .host = "127.0.0.1:8265", .origin = "https://evil.example"},
     403,
     "https://evil.example"},
    {&local, {.changes = true, .host = "127.0.0.1:8265", .origin = "null"}, 403, "Origin"},
    {&local, {.changes = true, .origin = "http://127.0.0.1"}, 403, "Origin"},
    /* a listener that others reach: reading is free, under any name */
    {&open_, {.host = "head-svc.default.svc:8265"}, 0, ""},
    {&open_, {.changes = true, .host = "10.0.0.5:8265"}, 403, "no token is configured"},
    {&open_, {.changes = true, .host = "10.0.0.5:8265", .peer_is_loopback = true}, 0, ""},
    {&open_, {.changes = true, .host = "evil.example", .peer_is_loopback = true}, 403, "Host"},
    {&open_,
     {.changes = true, .host = "10.0.0.5", .authorization = "Bearer "},
     403,
     "no token is configured"},
    /* with a token */
    {&token, {.host = "head-svc:8265"}, 0, ""},
    {&token, {.changes = true, .host = "10.0.0.5"}, 401, "Bearer"},
    {&token, {.changes = true, .host = "10.0.0.5", .authorization = "Bearer s3cres"}, 403, "right"},
    {&token, {.changes = true, .host = "10.0.0.5", .authorization = "Bearer s3cre"}, 403, "right"},
    {&token, {.changes = true, .host = "10.0.0.5", .authorization = "Bearer s3crett"}, 403, ""},
    {&token, {.changes = true, .host = "10.0.0.5", .authorization = "Basic s3cret"}, 403, ""},
    {&token, {.changes = true, .host = "10.0.0.5", .authorization = "bearer s3cret"}, 0, ""},
    {&token, {.changes = true, .host = "svc.ns.svc", .authorization = "Bearer s3cret"}, 0, ""},
    {&token,
     {.changes = true,
      .host = "svc",
      .authorization = "Bearer s3cret",
      .origin = "http://evil.example"},
     403,
     "Origin"},
    {&token, {.changes = true, .host = "127.0.0.1", .peer_is_loopback = true}, 0, ""},
};

START_TEST(verdicts)
{
    char why[300] = "";

    ck_assert_int_eq(rs_guard_check(cases[_i].guard, &cases[_i].facts, why, sizeof(why)),
                     cases[_i].status);
    ck_assert_msg(strstr(why, cases[_i].why), "%s", why);
}
END_TEST

START_TEST(a_long_origin_is_cut)
{
    char origin[1000], why[300];

    memset(origin, 'a', sizeof(origin) - 1);
    origin[sizeof(origin) - 1] = '\0';
    ck_assert_int_eq(
        rs_guard_check(&local,
                       &(struct rs_guard_facts){.changes = true, .origin = origin, .host = origin},
                       why, sizeof(why)),
        403);
    ck_assert_uint_lt(strlen(why), 200);
}
END_TEST

RS_CHECK_MAIN("guard", tcase_add_loop_test(tc, verdicts, 0, RS_COUNT(cases));
              tcase_add_test(tc, a_long_origin_is_cut);)
