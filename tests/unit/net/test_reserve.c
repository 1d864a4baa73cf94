/* Slots that are reserved before the call, calls to one replica, lists of replicas: on one lane and
 * between two. */
#include "tests/unit/net/dataplane_world.h"

#include "tests/unit/check_main.h"

static struct world w;
static struct fake caller, one, two;

static const struct rs_ingress_conf lanes[] = {
    {.host = "127.0.0.1", .max_header = 32 << 10, .lanes = 1},
    {.host = "127.0.0.1", .max_header = 32 << 10, .lanes = 2},
};

/* `front` has two replicas with a slot each; a replica of `back` calls them. */
static void begin(const struct rs_ingress_conf *conf)
{
    world_begin(&w, conf);
    world_routes_with(
        &w, (struct rs_route_deployment){.max_ongoing = 1, .max_queued = 1, .retry_after_s = -1});
    fake_attach(&w, &caller, "back", "c", true);
    fake_attach(&w, &one, "front", "r1", true);
    fake_attach(&w, &two, "front", "r2", true);
}

static void end(void)
{
    fake_end(&caller);
    fake_end(&one);
    fake_end(&two);
    world_end(&w);
}

static void ask(uint64_t stream, uint64_t kind, enum rs_tag tag, const char *value,
                const char *body)
{
    struct rs_buf meta = {0};

    rs_field_put_uint(&meta, RS_TAG_KIND, kind);
    rs_field_put_str(&meta, RS_TAG_APP, "app");
    rs_field_put_str(&meta, RS_TAG_DEPLOYMENT, "front");
    if (tag == RS_TAG_LIST)
        rs_field_put_uint(&meta, tag, 1);
    else if (tag)
        rs_field_put_str(&meta, tag, value);
    fake_send(&caller, RS_MSG_REQUEST, RS_FRAME_END, stream, &meta, body, body ? strlen(body) : 0);
    rs_buf_fini(&meta);
}

static void reserve(uint64_t stream)
{
    ask(stream, RS_REQUEST_RESERVE, 0, NULL, NULL);
}

/* The replica whose slot was taken. */
static struct fake *reserved(uint64_t stream)
{
    fake_expect(&caller, RS_MSG_RESERVED);
    ck_assert_uint_eq(caller.h.stream, stream);
    if (strcmp(caller.meta, "{\"replica_id\":\"r1\"}") == 0)
        return &one;
    ck_assert_str_eq(caller.meta, "{\"replica_id\":\"r2\"}");
    return &two;
}

static void answered(uint64_t stream, const char *body)
{
    fake_expect(&caller, RS_MSG_RESPONSE);
    ck_assert_uint_eq(caller.h.stream, stream);
    ck_assert_str_eq(caller.body, body);
}

static void failed(uint64_t stream, enum rs_wire_error code)
{
    fake_expect(&caller, RS_MSG_ERROR);
    ck_assert_uint_eq(caller.h.stream, stream);
    ck_assert_uint_eq(rs_fields_uint(&caller.fields, RS_TAG_ERROR_CODE, 0), code);
}

START_TEST(a_slot_is_kept_for_the_call)
{
    struct fake *x, *y;

    begin(&lanes[_i]);
    reserve(1);
    x = reserved(1);
    reserve(3);
    y = reserved(3);
    ck_assert_ptr_ne(x, y);
    ask(5, RS_REQUEST_CALL, 0, NULL, "waits"); /* both slots are taken */
    wait_queued(&w, "front", 1);
    ask(7, RS_REQUEST_CALL, 0, NULL, "too many");
    failed(7, RS_WIRE_BACKPRESSURE);
    ask(1, RS_REQUEST_CALL, 0, NULL, "dispatched");
    fake_expect(x, RS_MSG_REQUEST);
    ck_assert_str_eq(x->body, "dispatched");
    ck_assert_str_eq(fake_text(x, RS_TAG_DEPLOYMENT), "front");
    fake_ok(x, "done");
    answered(1, "done");
    fake_expect(x, RS_MSG_REQUEST);
    ck_assert_str_eq(x->body, "waits");
    fake_ok(x, "too");
    answered(5, "too");
    /* a slot that is given back is free */
    fake_send(&caller, RS_MSG_CANCEL, 0, 3, NULL, NULL, 0);
    reserve(9);
    reserved(9);
    reserve(11);
    reserved(11);
    end();
}
END_TEST

START_TEST(the_replica_dies_meanwhile)
{
    struct fake *x;

    begin(&lanes[_i]);
    reserve(1);
    x = reserved(1);
    fake_end(x);
    failed(1, RS_WIRE_DIED);
    reserve(3);
    x = reserved(3);
    ask(3, RS_REQUEST_CALL, 0, NULL, "dispatched");
    fake_expect(x, RS_MSG_REQUEST);
    fake_end(x);
    failed(3, RS_WIRE_DIED);
    end();
}
END_TEST

START_TEST(the_caller_dies_meanwhile)
{
    begin(&lanes[_i]);
    reserve(1);
    reserved(1);
    reserve(3);
    reserved(3);
    fake_end(&caller);
    expect_event(&w, "gone", "c");
    fake_attach(&w, &caller, "back", "c2", true);
    reserve(1);
    reserved(1);
    reserve(3);
    reserved(3);
    end();
}
END_TEST

START_TEST(a_list_and_calls_to_each)
{
    begin(&lanes[_i]);
    ask(1, RS_REQUEST_RESERVE, RS_TAG_LIST, NULL, NULL);
    fake_expect(&caller, RS_MSG_RESPONSE);
    ck_assert_uint_eq(caller.h.flags, RS_FRAME_END);
    ck_assert(strcmp(caller.body, "[\"r1\",\"r2\"]") == 0 ||
              strcmp(caller.body, "[\"r2\",\"r1\"]") == 0);
    /* whatever the slots */
    for (uint64_t i = 0; i < 3; i++) {
        ask(3 + 2 * i, RS_REQUEST_CALL, RS_TAG_REPLICA, "r2", "aimed");
        fake_expect(&two, RS_MSG_REQUEST);
    }
    ck_assert_uint_eq(stat_of(&w, "front", "r2").in_flight, 3);
    ck_assert_uint_eq(stat_of(&w, "front", "r1").in_flight, 0);
    fake_ok(&two, "last");
    answered(7, "last");
    ask(9, RS_REQUEST_CALL, RS_TAG_REPLICA, "r3", "aimed");
    failed(9, RS_WIRE_DIED);
    /* it has two more than slots: others go elsewhere */
    ask(11, RS_REQUEST_CALL, 0, NULL, "any");
    fake_expect(&one, RS_MSG_REQUEST);
    end();
}
END_TEST

static const struct {
    unsigned flags;
    const char *body;
} bad[] = {{0, ""}, {RS_FRAME_END, "body"}};

START_TEST(a_reservation_has_no_body)
{
    struct rs_buf meta = {0};

    begin(&lanes[0]);
    rs_field_put_uint(&meta, RS_TAG_KIND, RS_REQUEST_RESERVE);
    rs_field_put_str(&meta, RS_TAG_APP, "app");
    rs_field_put_str(&meta, RS_TAG_DEPLOYMENT, "front");
    fake_send(&caller, RS_MSG_REQUEST, bad[_i].flags, 1, &meta, bad[_i].body, strlen(bad[_i].body));
    expect_event(&w, "gone", "c");
    rs_buf_fini(&meta);
    end();
}
END_TEST

START_TEST(a_second_request_before_the_slot_is_garbage)
{
    begin(&lanes[0]);
    reserve(1);
    reserved(1);
    reserve(3);
    reserved(3);
    reserve(5);
    ask(5, RS_REQUEST_CALL, 0, NULL, "early");
    expect_event(&w, "gone", "c");
    end();
}
END_TEST

RS_CHECK_MAIN("reserve", tcase_add_loop_test(tc, a_slot_is_kept_for_the_call, 0, 2);
              tcase_add_loop_test(tc, the_replica_dies_meanwhile, 0, 2);
              tcase_add_loop_test(tc, the_caller_dies_meanwhile, 0, 2);
              tcase_add_loop_test(tc, a_list_and_calls_to_each, 0, 2);
              tcase_add_loop_test(tc, a_reservation_has_no_body, 0, RS_COUNT(bad));
              tcase_add_test(tc, a_second_request_before_the_slot_is_garbage);)
