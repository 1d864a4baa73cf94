/* Two versions of a deployment through the whole data plane: who gets which request, and what is counted. */
#include "tests/unit/net/dataplane_world.h"

#include "tests/unit/check_main.h"

static struct world w;
static struct fake old, fresh;
static struct client c;
static struct rs_tally was, is; /* of the old version, of the new one */

static void routes(const char *version, double share)
{
    world_routes_with(&w, (struct rs_route_deployment){.max_ongoing = 8,
                                                       .max_queued = -1,
                                                       .retry_after_s = -1,
                                                       .fresh = version,
                                                       .fresh_share = share});
}

static void begin(double share)
{
    world_begin(&w, NULL);
    routes("v2", share);
    fake_attach_version(&w, &old, "front", "v1", "r1");
    fake_attach_version(&w, &fresh, "front", "v2", "r2");
    rs_dataplane_admit(w.dp, "r1");
    rs_dataplane_admit(w.dp, "r2");
    client_open(&c, &w);
}

static void end(void)
{
    client_close(&c);
    fake_end(&old);
    fake_end(&fresh);
    world_end(&w);
}

static const char *tally(void)
{
    return rs_dataplane_tally(w.dp, "app", "front", &was, &is);
}

/* The lane counts when the request leaves its replica, which is before the client has its answer. */
static void check_counts(uint64_t old_n, uint64_t old_bad, uint64_t new_n, uint64_t new_bad)
{
    ck_assert_str_eq(tally(), "v2");
    ck_assert_uint_eq(was.requests, old_n);
    ck_assert_uint_eq(was.errors, old_bad);
    ck_assert_uint_eq(is.requests, new_n);
    ck_assert_uint_eq(is.errors, new_bad);
}

static void get(const char *headers)
{
    char text[400];

    snprintf(text, sizeof(text), "GET / HTTP/1.1\r\nHost: x\r\n%s\r\n", headers);
    client_send(&c, text);
}

static void ok_from(struct fake *f)
{
    fake_expect(f, RS_MSG_REQUEST);
    fake_ok(f, "fine");
    client_expect(&c, 200, "fine");
}

START_TEST(all_or_nobody)
{
    begin(0);
    for (int i = 0; i < 5; i++) {
        get("");
        ok_from(&old);
    }
    check_counts(5, 0, 0, 0);
    routes("v2", 1);
    for (int i = 0; i < 5; i++) {
        get("");
        ok_from(&fresh);
    }
    check_counts(5, 0, 5, 0);
    ck_assert_uint_eq(rs_tally_timed(&was), 5);
    ck_assert_uint_eq(rs_tally_timed(&is), 5);
    end();
}
END_TEST

/* The one of both that has something to read. */
static struct fake *asked(void)
{
    struct pollfd fds[2] = {{.fd = old.fd, .events = POLLIN}, {.fd = fresh.fd, .events = POLLIN}};

    ck_assert_int_eq(poll(fds, 2, 5000), 1);
    return fds[0].revents ? &old : &fresh;
}

/* The same session, or else the same request id, always goes the same way; another share moves it only
 * to the new version. */
START_TEST(a_session_stays)
{
    static const char *const keys[] = {"x-session-id", "x-request-id"};
    unsigned at_half = 0;

    begin(0.5);
    for (int i = 0; i < 40; i++) {
        char headers[100];
        struct fake *first, *then;

        routes("v2", 0.5);
        snprintf(headers, sizeof(headers), "%s: k%d\r\n", keys[_i], i);
        get(headers);
        first = asked();
        ok_from(first);
        get(headers);
        ok_from(first);
        routes("v2", 0.8);
        get(headers);
        then = asked();
        ok_from(then);
        ck_assert(first == &old || then == &fresh);
        at_half += first == &fresh;
    }
    ck_assert_uint_ge(at_half, 5); /* of 40: neither all nor none */
    ck_assert_uint_le(at_half, 35);
    end();
}
END_TEST

/* What counts as a failure of the version: its 5xx and its exceptions, and no 4xx. */
START_TEST(what_is_an_error)
{
    begin(1);
    get("");
    fake_expect(&fresh, RS_MSG_REQUEST);
    fake_answer(&fresh, 503, NULL, "no", 2, RS_FRAME_END);
    client_expect(&c, 503, "no");
    get("");
    fake_expect(&fresh, RS_MSG_REQUEST);
    fake_answer(&fresh, 404, NULL, "no", 2, RS_FRAME_END);
    client_expect(&c, 404, "no");
    get("");
    fake_expect(&fresh, RS_MSG_REQUEST);
    fake_error(&fresh, fresh.h.stream, RS_WIRE_USER, "oops");
    client_expect(&c, 500, NULL);
    check_counts(0, 0, 3, 2);
    end();
}
END_TEST

/* It dies with a request: one death, no error. What may run again does so, as all that is its share, with
 * the old version. */
START_TEST(a_death)
{
    begin(1);
    get("");
    fake_expect(&fresh, RS_MSG_REQUEST);
    fake_end(&fresh);
    fresh.body_fd = -1;
    expect_event(&w, "gone", "r2");
    rs_dataplane_detach(w.dp, "r2", "killed");
    ok_from(&old);
    get("");
    ok_from(&old);
    check_counts(2, 0, 0, 0);
    ck_assert_uint_eq(is.deaths, 1);
    ck_assert_uint_eq(was.deaths, 0);
    end();
}
END_TEST

/* Counted apart without a share: any slot will do. */
START_TEST(without_a_share)
{
    begin(-1);
    for (int i = 0; i < 8; i++) {
        get("");
        ok_from(asked());
    }
    tally();
    ck_assert_uint_eq(was.requests + is.requests, 8);
    ck_assert_uint_gt(was.requests, 0);
    ck_assert_uint_gt(is.requests, 0);
    end();
}
END_TEST

/* Another version is counted from nothing, and when there is one version only nothing is. */
START_TEST(begins_and_ends)
{
    begin(0.5);
    for (int i = 0; i < 3; i++) {
        get("");
        ok_from(asked());
    }
    routes("v3", 0.5); /* neither of both is of it: both are old */
    get("");
    ok_from(asked());
    ck_assert_str_eq(tally(), "v3");
    ck_assert_uint_eq(was.requests, 1);
    ck_assert_uint_eq(is.requests, 0);
    routes(NULL, -1);
    get("");
    ok_from(asked());
    ck_assert_ptr_null(tally());
    end();
}
END_TEST

RS_CHECK_MAIN("versions", tcase_add_test(tc, all_or_nobody);
              tcase_add_loop_test(tc, a_session_stays, 0, 2); tcase_add_test(tc, what_is_an_error);
              tcase_add_test(tc, a_death); tcase_add_test(tc, without_a_share);
              tcase_add_test(tc, begins_and_ends);)
