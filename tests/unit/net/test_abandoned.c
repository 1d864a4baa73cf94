/* Requests that nobody wants any more, while a replica still works on them: their slots. */
#include "tests/unit/net/dataplane_world.h"

#include "tests/unit/check_main.h"

static struct world w;
static struct fake a, b;
static struct client c, c2;

static void begin(const char *ready)
{
    struct rs_buf meta = {0};

    memset(&c, 0, sizeof(c));
    memset(&c2, 0, sizeof(c2));
    memset(&a, 0, sizeof(a));
    memset(&b, 0, sizeof(b));
    a.fd = b.fd = a.body_fd = b.body_fd = c.fd = c2.fd = -1;
    world_begin(&w, NULL);
    world_routes_with(
        &w, (struct rs_route_deployment){.max_ongoing = 1, .max_queued = -1, .retry_after_s = -1});
    fake_attach(&w, &a, "front", "r1", false);
    rs_buf_puts(&meta, ready);
    fake_send(&a, RS_MSG_READY, 0, 0, &meta, NULL, 0);
    rs_buf_fini(&meta);
    expect_event(&w, "READY", "r1");
    rs_dataplane_admit(w.dp, "r1");
}

static void end(void)
{
    client_close(&c);
    client_close(&c2);
    world_end(&w);
    fake_end(&a);
    fake_end(&b);
}

/* One client has left while the replica works for it, and another one waits. */
static uint64_t leave_one(void)
{
    uint64_t stream;

    client_open(&c, &w);
    client_get(&c, "/1");
    fake_expect(&a, RS_MSG_REQUEST);
    stream = a.h.stream;
    client_open(&c2, &w);
    client_get(&c2, "/2");
    wait_queued(&w, "front", 1);
    client_close(&c);
    fake_expect(&a, RS_MSG_CANCEL);
    return stream;
}

static void expect_second(struct fake *f, unsigned left)
{
    fake_expect(f, RS_MSG_REQUEST);
    ck_assert_str_eq(fake_text(f, RS_TAG_PATH), "/2");
    fake_ok(f, "two");
    client_expect(&c2, 200, "two");
    ck_assert_uint_eq(stat_of(&w, "front", NULL).in_flight, left);
    ck_assert_uint_eq(stat_of(&w, "front", NULL).queued, 0);
}

enum how { ERROR, RESPONSE, BODY };

/* The slot is taken until the replica says so, in whichever way: its answer may have crossed. */
START_TEST(the_slot_is_taken_until_the_end)
{
    struct rs_buf meta = {0};
    uint64_t stream;

    begin("{\"ends\": true}");
    stream = leave_one();
    fake_sync(&w, &a, "r1");
    ck_assert_uint_eq(stat_of(&w, "front", NULL).queued, 1);
    ck_assert_uint_eq(stat_of(&w, "front", "r1").in_flight, 1);
    meta = response_meta(200, "");
    if (_i == ERROR)
        fake_error(&a, stream, RS_WIRE_CANCELLED, "");
    else if (_i == RESPONSE)
        fake_send(&a, RS_MSG_RESPONSE, RS_FRAME_END, stream, &meta, "x", 1);
    else
        fake_send(&a, RS_MSG_RESPONSE, 0, stream, &meta, "x", 1);
    if (_i == BODY)
        fake_send(&a, RS_MSG_BODY, RS_FRAME_END, stream, NULL, "x", 1);
    fake_error(&a, stream, RS_WIRE_CANCELLED, ""); /* once more: of a stream that is over */
    rs_buf_fini(&meta);
    expect_second(&a, 0);
    end();
}
END_TEST

/* One that does not tell: nothing is waited for. */
START_TEST(others_are_not_waited_for)
{
    begin("{}");
    (void)leave_one();
    expect_second(&a, 0);
    end();
}
END_TEST

/* It dies: nothing is left of the slot, and the one that waited goes on elsewhere. */
START_TEST(death_frees_it)
{
    begin("{\"ends\": true}");
    (void)leave_one();
    fake_end(&a);
    expect_event(&w, "gone", "r1");
    rs_dataplane_detach(w.dp, "r1", "its process exited with status 3");
    fake_attach(&w, &b, "front", "r2", true);
    expect_second(&b, 0);
    end();
}
END_TEST

/* A replica that is to go waits for the end of such work too. */
START_TEST(it_is_idle_after_the_end)
{
    uint64_t stream;

    begin("{\"ends\": true}");
    stream = leave_one();
    fake_attach(&w, &b, "front", "r2", true);
    expect_second(&b, 1);
    rs_dataplane_retire(w.dp, "r1");
    fake_sync(&w, &a, "r1");
    ck_assert_uint_eq(stat_of(&w, "front", "r1").in_flight, 1);
    fake_error(&a, stream, RS_WIRE_CANCELLED, "");
    expect_event(&w, "idle", "r1");
    end();
}
END_TEST

RS_CHECK_MAIN("abandoned",
              tcase_add_loop_test(tc, the_slot_is_taken_until_the_end, ERROR, BODY + 1);
              tcase_add_test(tc, others_are_not_waited_for); tcase_add_test(tc, death_frees_it);
              tcase_add_test(tc, it_is_idle_after_the_end);)
