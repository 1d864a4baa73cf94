/* Queues, replicas, calls between them, lanes and peers: see test_ingress.c for HTTP itself. */
#include "tests/unit/net/dataplane_world.h"

#include "tests/unit/check_main.h"

#include <pthread.h>

static struct world w;
static struct fake a, b;
static struct client c, c2, c3;
static const struct rs_ingress_conf *conf;

static void begin(void)
{
    world_begin(&w, conf);
    memset(&a, 0, sizeof(a));
    memset(&b, 0, sizeof(b));
    a.fd = b.fd = a.body_fd = b.body_fd = -1;
    c.fd = c2.fd = c3.fd = -1;
}

static void end(void)
{
    client_close(&c);
    client_close(&c2);
    client_close(&c3);
    fake_end(&a);
    fake_end(&b);
    world_end(&w);
}

static void routes(int max_ongoing, int max_queued)
{
    world_routes_with(&w, (struct rs_route_deployment){.max_ongoing = max_ongoing,
                                                       .max_queued = max_queued,
                                                       .backpressure_status = 429,
                                                       .retry_after_s = 1.2});
}

/* --- life of a replica ------------------------------------------------------------------------- */

START_TEST(one_request)
{
    begin();
    world_routes(&w);
    fake_attach(&w, &a, "front", "r1", true);
    client_open(&c, &w);
    client_get(&c, "/x?y=1");
    fake_expect(&a, RS_MSG_REQUEST);
    ck_assert_uint_eq(a.h.stream, 2);
    ck_assert_uint_eq(a.h.flags, RS_FRAME_END);
    ck_assert_str_eq(fake_text(&a, RS_TAG_PATH), "/x");
    ck_assert_str_eq(fake_text(&a, RS_TAG_APP), "app");
    ck_assert_str_eq(fake_text(&a, RS_TAG_DEPLOYMENT), "front");
    fake_ok(&a, "hello");
    client_expect(&c, 200, "hello");
    end();
}
END_TEST

START_TEST(messages_of_a_replicas_life)
{
    rs_auto(rs_json_decrefp) json_t *msg = json_pack("{s:s}", "app", "app");
    const struct event *e;
    struct rs_buf meta = {0};

    begin();
    fake_attach(&w, &a, "front", "r1", false);
    rs_buf_puts(&meta, "{\"protocol\": 1, \"kind\": \"exec\"}");
    fake_send(&a, RS_MSG_HELLO, 0, 0, &meta, NULL, 0);
    e = expect_event(&w, "HELLO", "r1");
    ck_assert_str_eq(e->text, "{\"protocol\":1,\"kind\":\"exec\"}");
    rs_dataplane_tell(w.dp, "r1", RS_MSG_INIT, 0, msg);
    fake_expect(&a, RS_MSG_INIT);
    ck_assert_str_eq(a.meta, "{\"app\":\"app\"}");
    rs_dataplane_tell(w.dp, "r1", RS_MSG_PING, 77, NULL);
    fake_expect(&a, RS_MSG_PING);
    ck_assert_uint_eq(a.h.stream, 77);
    rs_buf_clear(&meta);
    rs_buf_puts(&meta, "{\"ok\": true}");
    fake_send(&a, RS_MSG_PONG, 0, 77, &meta, NULL, 0);
    e = expect_event(&w, "PONG", "r1");
    ck_assert_uint_eq(e->stream, 77);
    rs_dataplane_tell(w.dp, "nobody", RS_MSG_PING, 1, NULL); /* is ignored */
    fake_end(&a);
    e = expect_event(&w, "gone", "r1");
    ck_assert_str_eq(e->text, "the peer closed the connection");
    rs_buf_fini(&meta);
    end();
}
END_TEST

static const struct {
    const char *name;
    uint8_t type, flags;
    uint64_t stream;
    const char *meta, *why;
} garbage[] = {
    {"type", 99, 0, 0, "", "frame of unknown type 99"},
    {"flags", RS_MSG_BODY, 128, 2, "", "BODY frame with unknown flags 0x80"},
    {"not ours to send", RS_MSG_INIT, 0, 0, "{}", "INIT frame from a replica"},
    {"json", RS_MSG_READY, 0, 0, "{", NULL},
    {"no object", RS_MSG_READY, 0, 0, "[]", "READY frame without a JSON object"},
    {"no stream", RS_MSG_BODY, 0, 0, "", "BODY frame without a stream"},
    {"our number", RS_MSG_REQUEST, 1, 2, "", "REQUEST with stream number 2, which is not free"},
    {"no names", RS_MSG_REQUEST, 1, 1, "", "REQUEST without APP and DEPLOYMENT"},
    {"fields", RS_MSG_RESPONSE, 1, 2, "abc", "metadata ends inside a field"},
};

START_TEST(garbage_ends_a_replica)
{
    struct rs_buf meta = {0};
    const struct event *e;

    begin();
    world_routes(&w);
    fake_attach(&w, &a, "front", "r1", true);
    rs_buf_puts(&meta, garbage[_i].meta);
    fake_send(&a, (enum rs_msg)garbage[_i].type, garbage[_i].flags, garbage[_i].stream, &meta, NULL,
              0);
    e = expect_event(&w, "gone", "r1");
    if (garbage[_i].why)
        ck_assert_str_eq(e->text, garbage[_i].why);
    ck_assert(!fake_read(&a));
    rs_buf_fini(&meta);
    end();
}
END_TEST

START_TEST(answers_to_forgotten_streams_are_dropped)
{
    begin();
    world_routes(&w);
    fake_attach(&w, &a, "front", "r1", true);
    a.h.stream = 8888;
    fake_ok(&a, "nobody asked");
    fake_send(&a, RS_MSG_BODY, RS_FRAME_END, 8888, NULL, "x", 1);
    fake_send(&a, RS_MSG_CANCEL, 0, 7777, NULL, NULL, 0);
    fake_error(&a, 8888, RS_WIRE_USER, "nobody asked");
    client_open(&c, &w);
    client_get(&c, "/");
    fake_expect(&a, RS_MSG_REQUEST);
    fake_ok(&a, "fine");
    client_expect(&c, 200, "fine");
    end();
}
END_TEST

/* --- the queue --------------------------------------------------------------------------------- */

START_TEST(waits_for_a_replica)
{
    begin();
    world_routes(&w);
    client_open(&c, &w);
    client_get(&c, "/");
    wait_queued(&w, "front", 1);
    fake_attach(&w, &a, "front", "r1", false);
    fake_sync(&w, &a, "r1"); /* it is there, but was not admitted */
    ck_assert_uint_eq(stat_of(&w, "front", NULL).queued, 1);
    rs_dataplane_admit(w.dp, "r1");
    fake_expect(&a, RS_MSG_REQUEST);
    fake_ok(&a, "late");
    client_expect(&c, 200, "late");
    end();
}
END_TEST

START_TEST(never_more_than_max_ongoing)
{
    struct client many[6];

    begin();
    routes(2, -1);
    fake_attach(&w, &a, "front", "r1", true);
    fake_attach(&w, &b, "front", "r2", true);
    fake_sync(&w, &a, "r1");
    fake_sync(&w, &b, "r2");
    for (int i = 0; i < 6; i++) {
        client_open(&many[i], &w);
        client_get(&many[i], "/");
    }
    wait_queued(&w, "front", 2);
    for (int i = 0; i < 2; i++) {
        fake_expect(&a, RS_MSG_REQUEST);
        fake_expect(&b, RS_MSG_REQUEST);
    }
    ck_assert_int_eq(recv(a.fd, &(char){0}, 1, MSG_PEEK | MSG_DONTWAIT), -1);
    ck_assert_int_eq(recv(b.fd, &(char){0}, 1, MSG_PEEK | MSG_DONTWAIT), -1);
    fake_ok(&a, "a");
    fake_expect(&a, RS_MSG_REQUEST);
    fake_ok(&b, "b");
    fake_expect(&b, RS_MSG_REQUEST);
    for (uint64_t stream = 2; stream <= 6; stream += 2) {
        if (stream == 4)
            continue; /* answered above */
        a.h.stream = b.h.stream = stream;
        fake_ok(&a, "a");
        fake_ok(&b, "b");
    }
    for (int i = 0; i < 6; i++) {
        client_expect(&many[i], 200, NULL);
        client_close(&many[i]);
    }
    wait_queued(&w, "front", 0);
    ck_assert_uint_eq(stat_of(&w, "front", NULL).done, 6);
    ck_assert_uint_eq(stat_of(&w, "front", "r1").done, 3);
    ck_assert_uint_eq(stat_of(&w, "front", "r1").in_flight, 0);
    end();
}
END_TEST

START_TEST(refuses_what_does_not_fit)
{
    begin();
    routes(1, 1);
    fake_attach(&w, &a, "front", "r1", true);
    client_open(&c, &w);
    client_open(&c2, &w);
    client_open(&c3, &w);
    client_get(&c, "/1");
    fake_expect(&a, RS_MSG_REQUEST);
    client_get(&c2, "/2");
    wait_queued(&w, "front", 1);
    client_get(&c3, "/3");
    client_expect(&c3, 429,
                  "Request dropped due to backpressure (num_queued_requests=1, "
                  "max_queued_requests=1).");
    ck_assert_str_eq(client_header(&c3, "retry-after"), "2");
    ck_assert_str_eq(client_header(&c3, "content-type"), "text/plain; charset=utf-8");
    fake_ok(&a, "one");
    client_expect(&c, 200, "one");
    fake_expect(&a, RS_MSG_REQUEST);
    ck_assert_str_eq(fake_text(&a, RS_TAG_PATH), "/2");
    fake_ok(&a, "two");
    client_expect(&c2, 200, "two");
    end();
}
END_TEST

START_TEST(a_failed_deployment_is_unavailable)
{
    begin();
    world_routes(&w);
    client_open(&c, &w);
    client_get(&c, "/");
    wait_queued(&w, "front", 1);
    world_routes_with(
        &w, (struct rs_route_deployment){.max_ongoing = 1, .max_queued = -1, .failed = true});
    client_expect(
        &c, 503, "Deployment(name='front', app='app') is unavailable because it failed to deploy.");
    client_get(&c, "/");
    client_expect(&c, 503, NULL);
    /* What still runs of it goes on serving. */
    fake_attach(&w, &a, "front", "r1", true);
    fake_sync(&w, &a, "r1");
    client_get(&c, "/");
    fake_expect(&a, RS_MSG_REQUEST);
    fake_ok(&a, "old version");
    client_expect(&c, 200, "old version");
    end();
}
END_TEST

START_TEST(a_deleted_deployment_refuses_who_waits)
{
    begin();
    world_routes(&w);
    client_open(&c, &w);
    client_get(&c, "/");
    wait_queued(&w, "front", 1);
    rs_dataplane_routes(w.dp, &(struct rs_routes){.populated = true});
    client_expect(&c, 503,
                  "Deployment(name='front', app='app') is unavailable because it was deleted.");
    /* its home lane knew before the lane of this connection, which says so until it knows too */
    for (int i = 0; i < 1000 && c.status == 503; i++) {
        client_get(&c, "/");
        client_read(&c);
    }
    ck_assert_int_eq(c.status, 404);
    ck_assert_str_eq(rs_buf_text(&c.body),
                     "Path '/' not found. Ping http://.../-/routes for available routes.");
    world_routes(&w); /* and again */
    fake_attach(&w, &a, "front", "r1", true);
    fake_sync(&w, &a, "r1");
    client_get(&c, "/");
    fake_expect(&a, RS_MSG_REQUEST);
    fake_ok(&a, "back");
    client_expect(&c, 200, "back");
    end();
}
END_TEST

/* --- death and retirement ---------------------------------------------------------------------- */

#define POST(path) "POST " path " HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody"

/* What it did not even read was not started: the next one gets it. */
START_TEST(what_a_dying_replica_did_not_read_goes_on)
{
    begin();
    world_routes(&w);
    fake_attach(&w, &a, "front", "r1", true);
    fake_sync(&w, &a, "r1");
    client_open(&c, &w);
    client_send(&c, "POST /1 HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody");
    ck_assert_int_eq(recv(a.fd, &(char){0}, 1, MSG_PEEK), 1); /* it is on its way */
    fake_end(&a);
    expect_event(&w, "gone", "r1");
    fake_attach(&w, &b, "front", "r2", true);
    fake_expect(&b, RS_MSG_REQUEST);
    ck_assert_str_eq(fake_text(&b, RS_TAG_PATH), "/1");
    ck_assert_str_eq(b.body, "body");
    fake_ok(&b, "second try");
    client_expect(&c, 200, "second try");
    end();
}
END_TEST

START_TEST(retire_waits_for_the_last_request)
{
    begin();
    routes(2, -1);
    fake_attach(&w, &a, "front", "r1", true);
    client_open(&c, &w);
    client_open(&c2, &w);
    client_get(&c, "/1");
    fake_expect(&a, RS_MSG_REQUEST);
    rs_dataplane_retire(w.dp, "r1");
    fake_sync(&w, &a, "r1");
    a.h.stream = 2;
    rs_dataplane_tell(w.dp, "r1", RS_MSG_STOP, 0, NULL);
    client_get(&c2, "/2");
    wait_queued(&w, "front", 1);
    fake_ok(&a, "last");
    client_expect(&c, 200, "last");
    expect_event(&w, "idle", "r1");
    fake_expect(&a, RS_MSG_STOP);
    fake_attach(&w, &b, "front", "r2", true);
    rs_dataplane_retire(w.dp, "r1"); /* idle already: told again */
    expect_event(&w, "idle", "r1");
    fake_expect(&b, RS_MSG_REQUEST);
    fake_ok(&b, "two");
    client_expect(&c2, 200, "two");
    end();
}
END_TEST

START_TEST(detach_closes_and_ends_requests)
{
    begin();
    world_routes(&w);
    fake_attach(&w, &a, "front", "r1", true);
    client_open(&c, &w);
    client_send(&c, POST("/"));
    fake_expect(&a, RS_MSG_REQUEST);
    rs_dataplane_detach(w.dp, "r1", "its process was killed by SIGKILL (9)");
    client_expect(&c, 502, NULL);
    fake_expect(&a, RS_MSG_CANCEL);
    ck_assert(!fake_read(&a));
    end();
}
END_TEST

START_TEST(a_dead_socket_is_gone_before_it_came)
{
    begin();
    world_routes(&w);
    rs_dataplane_attach(w.dp, "app", "front", NULL, "r1", open("/dev/null", O_RDONLY));
    expect_event(&w, "gone", "r1");
    end();
}
END_TEST

/* --- calls between replicas -------------------------------------------------------------------- */

/* c's request is with `a` (front), which calls `b` (back) on its behalf. */
/* A call inside a request of this kind: the call is as safe as that. */
static void begin_call_of(const char *request)
{
    begin();
    world_routes(&w);
    fake_attach(&w, &a, "front", "r1", true);
    fake_attach(&w, &b, "back", "r2", true);
    client_open(&c, &w);
    client_send(&c, request);
    fake_expect(&a, RS_MSG_REQUEST);
    fake_call(&a, 1, "back", a.h.stream, "args");
    fake_expect(&b, RS_MSG_REQUEST);
    ck_assert_uint_eq(b.h.stream & 1, 0);
    ck_assert_str_eq(b.body, "args");
    ck_assert_str_eq(fake_text(&b, RS_TAG_DEPLOYMENT), "back");
}

static void begin_call(void)
{
    begin_call_of(POST("/"));
}

START_TEST(a_call_and_its_answer)
{
    struct rs_buf meta = {0};

    begin_call();
    rs_field_put_str(&meta, RS_TAG_CONTENT_TYPE, "application/x-test");
    fake_send(&b, RS_MSG_RESPONSE, RS_FRAME_END, b.h.stream, &meta, "result", 6);
    fake_expect(&a, RS_MSG_RESPONSE);
    ck_assert_uint_eq(a.h.stream, 1);
    ck_assert_uint_eq(a.h.flags, RS_FRAME_END);
    ck_assert_str_eq(a.body, "result");
    ck_assert_str_eq(fake_text(&a, RS_TAG_CONTENT_TYPE), "application/x-test");
    a.h.stream = 2;
    fake_ok(&a, "done");
    client_expect(&c, 200, "done");
    rs_buf_fini(&meta);
    end();
}
END_TEST

START_TEST(items_of_a_generator_stay_apart)
{
    struct rs_buf meta = {0};

    begin_call();
    rs_field_put_uint(&meta, RS_TAG_ITEMS, 1);
    fake_send(&b, RS_MSG_RESPONSE, 0, b.h.stream, &meta, NULL, 0);
    fake_send(&b, RS_MSG_BODY, 0, b.h.stream, NULL, "one", 3);
    fake_send(&b, RS_MSG_BODY, 0, b.h.stream, NULL, "two", 3);
    fake_send(&b, RS_MSG_BODY, RS_FRAME_END, b.h.stream, NULL, NULL, 0);
    fake_expect(&a, RS_MSG_RESPONSE);
    ck_assert_uint_eq(rs_fields_uint(&a.fields, RS_TAG_ITEMS, 0), 1);
    fake_expect(&a, RS_MSG_BODY);
    ck_assert_str_eq(a.body, "one");
    fake_expect(&a, RS_MSG_BODY);
    ck_assert_str_eq(a.body, "two");
    ck_assert_uint_eq(a.h.flags, 0);
    fake_expect(&a, RS_MSG_BODY);
    ck_assert_uint_eq(a.h.flags, RS_FRAME_END);
    rs_buf_fini(&meta);
    end();
}
END_TEST

START_TEST(an_error_passes_through)
{
    begin_call();
    fake_error(&b, b.h.stream, RS_WIRE_USER, "it raised");
    fake_expect(&a, RS_MSG_ERROR);
    ck_assert_uint_eq(rs_fields_uint(&a.fields, RS_TAG_ERROR_CODE, 0), RS_WIRE_USER);
    ck_assert_str_eq(fake_text(&a, RS_TAG_ERROR_TYPE), "ValueError");
    ck_assert_str_eq(fake_text(&a, RS_TAG_MESSAGE), "it raised");
    end();
}
END_TEST

START_TEST(the_callee_dies)
{
    begin_call();
    fake_end(&b);
    fake_expect(&a, RS_MSG_ERROR);
    ck_assert_uint_eq(rs_fields_uint(&a.fields, RS_TAG_ERROR_CODE, 0), RS_WIRE_DIED);
    end();
}
END_TEST

START_TEST(the_callee_dies_with_a_safe_call)
{
    begin_call_of("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    fake_end(&b);
    fake_attach(&w, &b, "back", "r3", true);
    fake_expect(&b, RS_MSG_REQUEST);
    ck_assert_str_eq(b.body, "args");
    fake_error(&b, b.h.stream, RS_WIRE_USER, "as it says");
    fake_expect(&a, RS_MSG_ERROR);
    ck_assert_uint_eq(rs_fields_uint(&a.fields, RS_TAG_ERROR_CODE, 0), RS_WIRE_USER);
    end();
}
END_TEST

START_TEST(the_caller_dies)
{
    begin_call();
    fake_end(&a);
    fake_expect(&b, RS_MSG_CANCEL);
    client_expect(&c, 502, NULL);
    end();
}
END_TEST

START_TEST(the_client_leaves_a_call_behind)
{
    begin_call();
    client_close(&c);
    fake_expect(&a, RS_MSG_CANCEL);
    ck_assert_uint_eq(a.h.stream, 2);
    fake_expect(&a, RS_MSG_ERROR); /* of its own call */
    ck_assert_uint_eq(a.h.stream, 1);
    ck_assert_uint_eq(rs_fields_uint(&a.fields, RS_TAG_ERROR_CODE, 0), RS_WIRE_CANCELLED);
    fake_expect(&b, RS_MSG_CANCEL);
    end();
}
END_TEST

START_TEST(the_caller_cancels)
{
    begin_call();
    fake_send(&a, RS_MSG_CANCEL, 0, 1, NULL, NULL, 0);
    fake_expect(&b, RS_MSG_CANCEL);
    ck_assert_uint_eq(b.h.stream, 2);
    fake_ok(&b, "too late");
    a.h.stream = 2;
    fake_ok(&a, "without it");
    client_expect(&c, 200, "without it");
    end();
}
END_TEST

START_TEST(calls_to_nowhere)
{
    begin();
    world_routes(&w);
    fake_attach(&w, &a, "front", "r1", true);
    fake_call(&a, 1, "absent", 0, "");
    fake_expect(&a, RS_MSG_ERROR);
    ck_assert_uint_eq(rs_fields_uint(&a.fields, RS_TAG_ERROR_CODE, 0), RS_WIRE_NOT_FOUND);
    ck_assert_str_eq(fake_text(&a, RS_TAG_MESSAGE),
                     "Deployment 'absent' does not exist in application 'app'.");
    end();
}
END_TEST

START_TEST(a_call_has_a_time_limit)
{
    struct rs_buf meta = {0};

    begin();
    world_routes(&w);
    fake_attach(&w, &a, "front", "r1", true);
    rs_field_put_str(&meta, RS_TAG_APP, "app");
    rs_field_put_str(&meta, RS_TAG_DEPLOYMENT, "back");
    rs_field_put_uint(&meta, RS_TAG_TIMEOUT_MS, 20);
    fake_send(&a, RS_MSG_REQUEST, RS_FRAME_END, 1, &meta, "", 0);
    fake_expect(&a, RS_MSG_ERROR);
    ck_assert_uint_eq(rs_fields_uint(&a.fields, RS_TAG_ERROR_CODE, 0), RS_WIRE_TIMEOUT);
    ck_assert_uint_eq(stat_of(&w, "back", NULL).queued, 0);
    rs_buf_fini(&meta);
    end();
}
END_TEST

/* A call whose body comes in frames, and is longer than the credit at the start. */
START_TEST(a_call_with_a_long_body)
{
    enum { PIECE = 60000, PIECES = 10 };
    rs_auto(rs_freep) char *piece = rs_alloc(PIECE);
    struct rs_buf meta = {0}, credit = {0};
    uint64_t given = 0, got;

    begin();
    world_routes(&w);
    fake_attach(&w, &a, "front", "r1", true);
    fake_attach(&w, &b, "back", "r2", true);
    memset(piece, 'x', PIECE);
    rs_field_put_str(&meta, RS_TAG_APP, "app");
    rs_field_put_str(&meta, RS_TAG_DEPLOYMENT, "back");
    fake_send(&a, RS_MSG_REQUEST, 0, 1, &meta, piece, PIECE);
    fake_expect(&b, RS_MSG_REQUEST);
    ck_assert_uint_eq(b.h.flags, 0);
    got = b.h.body_len;
    for (int i = 1; i < PIECES; i++) {
        fake_send(&a, RS_MSG_BODY, 0, 1, NULL, piece, PIECE);
        fake_expect(&b, RS_MSG_BODY);
        got += b.h.body_len;
        rs_buf_clear(&credit); /* it gives back what it took */
        rs_field_put_uint(&credit, RS_TAG_CREDIT, b.h.body_len);
        fake_send(&b, RS_MSG_WINDOW, 0, b.h.stream, &credit, NULL, 0);
    }
    while (given < 7 * 65536) {
        fake_expect(&a, RS_MSG_WINDOW);
        ck_assert_uint_ge(rs_fields_uint(&a.fields, RS_TAG_CREDIT, 0), 65536);
        given += rs_fields_uint(&a.fields, RS_TAG_CREDIT, 0);
    }
    fake_send(&a, RS_MSG_BODY, RS_FRAME_END, 1, NULL, NULL, 0);
    fake_expect(&b, RS_MSG_BODY);
    ck_assert_uint_eq(b.h.flags, RS_FRAME_END);
    ck_assert_uint_eq(got, PIECE * PIECES);
    rs_buf_fini(&meta);
    rs_buf_fini(&credit);
    end();
}
END_TEST

START_TEST(lookups)
{
    static const struct {
        const char *ask, *answer;
    } cases[] = {
        {"{\"app\":\"app\",\"deployment\":\"back\"}",
         "{\"app_exists\":true,\"ingress\":\"front\",\"exists\":true,"
         "\"deployments\":[\"front\",\"back\"]}"},
        {"{\"app\":\"app\",\"deployment\":null}",
         "{\"app_exists\":true,\"ingress\":\"front\",\"exists\":false,"
         "\"deployments\":[\"front\",\"back\"]}"},
        {"{\"app\":\"absent\",\"deployment\":\"x\"}",
         "{\"app_exists\":false,\"ingress\":null,\"exists\":false,\"deployments\":[]}"},
    };

    begin();
    world_routes(&w);
    fake_attach(&w, &a, "front", "r1", true);
    for (size_t i = 0; i < RS_COUNT(cases); i++) {
        struct rs_buf meta = {0};

        rs_buf_puts(&meta, cases[i].ask);
        fake_send(&a, RS_MSG_LOOKUP, 0, 5 + i, &meta, NULL, 0);
        fake_expect(&a, RS_MSG_FOUND);
        ck_assert_uint_eq(a.h.stream, 5 + i);
        ck_assert_str_eq(a.meta, cases[i].answer);
        rs_buf_fini(&meta);
    }
    end();
}
END_TEST

/* --- two lanes --------------------------------------------------------------------------------- */

static const struct rs_ingress_conf two_lanes = {
    .host = "127.0.0.1",
    .keep_alive_timeout = 60 * RS_SEC,
    .buffer_body = 100 << 10,
    .max_header = 32 << 10,
    .lanes = 2,
};

/* "front" is at home on one lane, "back" on the other; connections come in on both. */
static void begin_two_lanes(void)
{
    conf = &two_lanes;
    begin();
    world_routes(&w);
    fake_attach(&w, &a, "front", "r1", true);
    fake_attach(&w, &b, "back", "r2", true);
}

static void end_two_lanes(void)
{
    end();
    conf = NULL;
}

START_TEST(lanes_call_and_answer)
{
    begin_two_lanes();
    for (int i = 0; i < 20; i++) {
        uint64_t http;

        client_open(&c, &w);
        client_get(&c, "/");
        fake_expect(&a, RS_MSG_REQUEST);
        http = a.h.stream;
        fake_call(&a, 1 + 2 * (uint64_t)i, "back", http, "args");
        fake_expect(&b, RS_MSG_REQUEST);
        fake_ok(&b, "result");
        fake_expect(&a, RS_MSG_RESPONSE);
        ck_assert_str_eq(a.body, "result");
        a.h.stream = http;
        fake_ok(&a, "answer");
        client_expect(&c, 200, "answer");
        client_close(&c);
    }
    end_two_lanes();
}
END_TEST

START_TEST(lanes_cancel)
{
    begin_two_lanes();
    for (int i = 0; i < 10; i++) {
        client_open(&c, &w);
        client_get(&c, "/");
        fake_expect(&a, RS_MSG_REQUEST);
        fake_call(&a, 1 + 2 * (uint64_t)i, "back", a.h.stream, "args");
        fake_expect(&b, RS_MSG_REQUEST);
        client_close(&c);
        fake_expect(&a, RS_MSG_CANCEL);
        fake_expect(&a, RS_MSG_ERROR);
        fake_expect(&b, RS_MSG_CANCEL);
    }
    wait_ongoing(&w, 0);
    end_two_lanes();
}
END_TEST

START_TEST(lanes_refuse_and_die)
{
    begin_two_lanes();
    for (int i = 0; i < 6; i++) {
        client_open(&c, &w);
        client_get(&c, "/");
        fake_expect(&a, RS_MSG_REQUEST);
        fake_error(&a, a.h.stream, RS_WIRE_USER, "no");
        client_expect(&c, 500, "Internal Server Error");
        client_close(&c);
    }
    fake_call(&a, 1, "back", 0, "args");
    fake_expect(&b, RS_MSG_REQUEST);
    fake_end(&b);
    fake_expect(&a, RS_MSG_ERROR);
    ck_assert_uint_eq(rs_fields_uint(&a.fields, RS_TAG_ERROR_CODE, 0), RS_WIRE_DIED);
    end_two_lanes();
}
END_TEST

/* Bodies in both directions, streamed with credit, from whatever lane the connection is on. */
START_TEST(lanes_stream)
{
    enum { LEN = 1000000 };
    rs_auto(rs_freep) char *data = rs_alloc(LEN + 1);

    begin_two_lanes();
    memset(data, 'y', LEN);
    for (int i = 0; i < 4; i++) {
        struct rs_buf meta, credit = {0};
        size_t got;
        char head[128];
        pid_t pid;

        client_open(&c, &w);
        snprintf(head, sizeof(head), "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n",
                 LEN);
        pid = fork(); /* sends while this one receives */
        ck_assert_int_ge(pid, 0);
        if (pid == 0) {
            client_send(&c, head);
            send_all(c.fd, data, LEN);
            _exit(0);
        }
        do
            ck_assert(fake_read(&a));
        while (a.h.type == RS_MSG_WINDOW); /* for the answer before */
        ck_assert_int_eq(a.h.type, RS_MSG_REQUEST);
        got = a.h.body_len;
        ck_assert_uint_gt(got, 100 << 10);
        while (!(a.h.flags & RS_FRAME_END)) {
            rs_buf_clear(&credit);
            rs_field_put_uint(&credit, RS_TAG_CREDIT, a.h.body_len);
            fake_send(&a, RS_MSG_WINDOW, 0, a.h.stream, &credit, NULL, 0);
            fake_expect(&a, RS_MSG_BODY);
            got += a.h.body_len;
        }
        ck_assert_uint_eq(got, LEN);
        meta = response_meta(200, "");
        fake_send(&a, RS_MSG_RESPONSE, 0, a.h.stream, &meta, data, 50000);
        fake_send_memfd(&a, RS_MSG_BODY, 0, a.h.stream, NULL, data, 200000);
        fake_send(&a, RS_MSG_BODY, RS_FRAME_END, a.h.stream, NULL, "end", 3);
        client_expect(&c, 200, NULL);
        ck_assert_uint_eq(rs_buf_len(&c.body), 250003);
        ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
        client_close(&c);
        rs_buf_fini(&meta);
        rs_buf_fini(&credit);
    }
    end_two_lanes();
}
END_TEST

/* --- busy -------------------------------------------------------------------------------------- */

struct echo {
    struct fake f;
    pthread_t thread;
    unsigned served;
};

/* Serves until the node hangs up. */
static void *echo_main(void *arg)
{
    struct echo *e = arg;

    while (fake_read(&e->f)) {
        if (e->f.h.type != RS_MSG_REQUEST)
            continue;
        fake_ok(&e->f, "echo");
        e->served++;
    }
    return NULL;
}

static void echo_begin(struct echo *e, int number)
{
    char id[16];

    memset(e, 0, sizeof(*e));
    snprintf(id, sizeof(id), "r%d", number);
    fake_attach(&w, &e->f, "front", id, true);
    ck_assert_int_eq(pthread_create(&e->thread, NULL, echo_main, e), 0);
}

/* As a roll-out does it: no further requests, the last one ends, then it goes. */
static void echo_end(struct echo *e, int number)
{
    char id[16];

    snprintf(id, sizeof(id), "r%d", number);
    rs_dataplane_retire(w.dp, id);
    expect_event(&w, "idle", id);
    w.seen = w.n_events = 0;
    rs_dataplane_detach(w.dp, id, "its process was killed by SIGKILL (9)");
    pthread_join(e->thread, NULL);
    fake_end(&e->f);
}

START_TEST(routes_and_replicas_change_while_busy)
{
    struct echo echoes[2];
    struct client many[8];
    int at = 0;

    conf = &two_lanes;
    begin();
    routes(2, -1);
    echo_begin(&echoes[0], 0);
    for (int i = 0; i < 8; i++)
        client_open(&many[i], &w);
    for (int round = 0; round < 40; round++) {
        for (int i = 0; i < 8; i++)
            client_get(&many[i], "/");
        echo_begin(&echoes[1 - at % 2], at + 1);
        routes(2 + round % 3, -1);
        echo_end(&echoes[at % 2], at);
        at++;
        for (int i = 0; i < 8; i++)
            client_expect(&many[i], 200, "echo");
    }
    for (int i = 0; i < 8; i++)
        client_close(&many[i]);
    echo_end(&echoes[at % 2], at);
    end_two_lanes();
}
END_TEST

START_TEST(ends_with_requests_under_way)
{
    begin_two_lanes();
    client_open(&c, &w);
    client_open(&c2, &w);
    client_open(&c3, &w);
    client_get(&c, "/1"); /* with a replica, and a call of its own */
    fake_expect(&a, RS_MSG_REQUEST);
    fake_call(&a, 1, "back", a.h.stream, "args");
    fake_expect(&b, RS_MSG_REQUEST);
    client_get(&c2, "/2"); /* with an answer begun */
    fake_expect(&a, RS_MSG_REQUEST);
    fake_answer(&a, 200, "", "part", 4, 0);
    client_read_head(&c2);
    client_send(&c3, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf");
    wait_ongoing(&w, 3);
    rs_dataplane_stop_accepting(w.dp);
    rs_dataplane_free(w.dp);
    w.dp = NULL;
    while (fake_read(&a))
        ;
    while (client_fill(&c)) /* perhaps a 500 first: the other lane ended sooner */
        ;
    end_two_lanes();
}
END_TEST

START_TEST(stops_accepting)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int64_t until = rs_clock_now() + 5 * RS_SEC;
    int r = 0;

    begin();
    world_routes(&w);
    fake_attach(&w, &a, "front", "r1", true);
    client_open(&c, &w);
    client_get(&c, "/");
    fake_expect(&a, RS_MSG_REQUEST);
    rs_dataplane_stop_accepting(w.dp);
    to.sin_port = htons(rs_dataplane_port(w.dp));
    while (r == 0 && rs_clock_now() < until) {
        int fd = socket(AF_INET, SOCK_STREAM, 0);

        r = connect(fd, (struct sockaddr *)&to, sizeof(to));
        close(fd);
    }
    ck_assert_int_eq(r, -1);
    fake_ok(&a, "goes on");
    client_expect(&c, 200, "goes on");
    ck_assert_str_eq(client_header(&c, "connection"), "close");
    client_expect_end(&c);
    end();
}
END_TEST

/* --- peers ------------------------------------------------------------------------------------- */

static struct world other; /* another node, with the replicas */

/* Joins a listening socket of `other`, played by the test, with its data plane. */
struct peer_port {
    int fd;
    char address[64];
};

static void peer_listen(struct peer_port *p)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(at);

    p->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    set_timeout(p->fd);
    ck_assert_int_eq(bind(p->fd, (struct sockaddr *)&at, sizeof(at)), 0);
    ck_assert_int_eq(listen(p->fd, 8), 0);
    ck_assert_int_eq(getsockname(p->fd, (struct sockaddr *)&at, &len), 0);
    snprintf(p->address, sizeof(p->address), "127.0.0.1:%u", ntohs(at.sin_port));
}

static void peer_join(struct peer_port *p)
{
    int fd = accept(p->fd, NULL, NULL);

    ck_assert_msg(fd >= 0, "nobody connects");
    rs_dataplane_accept_peer(other.dp, fd);
}

static const struct rs_ingress_conf no_http = {.lanes = 1, .node_id = "n2"};

static struct peer_port port;

/* `w` has the clients, `other` the replica `b` of "front". */
static void begin_peers(void)
{
    begin();
    world_routes(&w);
    world_begin(&other, &no_http);
    world_routes(&other);
    peer_listen(&port);
    fake_attach(&other, &b, "front", "r2", true);
    rs_dataplane_remote(w.dp, "app", "front", NULL, "n2", port.address, 2);
    peer_join(&port);
    client_open(&c, &w);
}

static void end_peers(void)
{
    rs_closep(&port.fd);
    end();
    world_end(&other);
}

START_TEST(another_node_answers)
{
    begin_peers();
    for (int i = 0; i < 3; i++) {
        client_get(&c, "/there?x");
        fake_expect(&b, RS_MSG_REQUEST);
        ck_assert_str_eq(fake_text(&b, RS_TAG_PATH), "/there");
        ck_assert_str_eq(fake_text(&b, RS_TAG_QUERY), "x");
        fake_ok(&b, "from afar");
        client_expect(&c, 200, "from afar");
        ck_assert_str_eq(client_header(&c, "content-type"), "text/plain");
    }
    end_peers();
}
END_TEST

START_TEST(local_slots_come_first)
{
    begin_peers();
    world_routes_with(&w, (struct rs_route_deployment){.max_ongoing = 1, .max_queued = -1});
    fake_attach(&w, &a, "front", "r1", true);
    fake_sync(&w, &a, "r1"); /* else the first request may find only the other node */
    client_open(&c2, &w);
    client_get(&c, "/1");
    fake_expect(&a, RS_MSG_REQUEST);
    client_get(&c2, "/2");
    fake_expect(&b, RS_MSG_REQUEST);
    fake_ok(&b, "far");
    fake_ok(&a, "near");
    client_expect(&c, 200, "near");
    client_expect(&c2, 200, "far");
    end_peers();
}
END_TEST

START_TEST(another_node_streams)
{
    enum { LEN = 3 << 20 };
    rs_auto(rs_freep) char *data = rs_alloc(LEN);

    begin_peers();
    memset(data, 'z', LEN);
    client_get(&c, "/");
    fake_expect(&b, RS_MSG_REQUEST);
    fake_answer(&b, 200, "x-a: 1\n", data, LEN, RS_FRAME_END);
    client_expect(&c, 200, NULL);
    ck_assert_uint_eq(rs_buf_len(&c.body), LEN);
    ck_assert_int_eq(memcmp(rs_buf_head(&c.body), data, LEN), 0);
    /* And a body that goes there. */
    client_send(&c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 300000\r\n\r\n");
    send_all(c.fd, data, 300000);
    fake_expect(&b, RS_MSG_REQUEST);
    while (!(b.h.flags & RS_FRAME_END))
        fake_expect(&b, RS_MSG_BODY);
    fake_ok(&b, "taken");
    client_expect(&c, 200, "taken");
    end_peers();
}
END_TEST

START_TEST(cancel_reaches_another_node)
{
    begin_peers();
    client_get(&c, "/");
    fake_expect(&b, RS_MSG_REQUEST);
    client_close(&c);
    fake_expect(&b, RS_MSG_CANCEL);
    end_peers();
}
END_TEST

/* How much time is left, how urgent it is, and when to come back. */
START_TEST(limits_reach_another_node)
{
    struct client *first = &c, *second = &c2;
    uint64_t stream;

    begin_peers();
    client_send(first, "GET /1 HTTP/1.1\r\nHost: x\r\nx-request-timeout-ms: 900000\r\n"
                       "x-request-priority: 1\r\n\r\n");
    fake_expect(&b, RS_MSG_REQUEST);
    ck_assert_uint_le(rs_fields_uint(&b.fields, RS_TAG_TIMEOUT_MS, 0), 900000);
    ck_assert_uint_gt(rs_fields_uint(&b.fields, RS_TAG_TIMEOUT_MS, 0), 800000);
    ck_assert_uint_eq(rs_fields_uint(&b.fields, RS_TAG_PRIORITY, 99), 1);
    /* Here there is a second slot, over there none and no room to wait. */
    world_routes_with(&other, (struct rs_route_deployment){
                                  .max_ongoing = 1, .max_queued = 0, .retry_after_s = -1});
    stream = b.h.stream;
    fake_sync(&other, &b, "r2");
    b.h.stream = stream;
    client_open(second, &w);
    client_get(second, "/2");
    client_expect(second, 503, NULL);
    ck_assert_str_eq(client_header(second, "retry-after"), "1");
    fake_ok(&b, "one");
    client_expect(first, 200, "one");
    client_send(first, "GET /3 HTTP/1.1\r\nHost: x\r\nx-request-id: i\r\n"
                       "x-request-timeout-ms: 30\r\n\r\n");
    fake_expect(&b, RS_MSG_REQUEST);
    fake_expect(&b, RS_MSG_CANCEL);
    client_expect(first, 408, "Request i timed out after 0.03s.");
    end_peers();
}
END_TEST

START_TEST(a_lost_node_comes_back)
{
    begin_peers();
    client_send(&c, POST("/1"));
    fake_expect(&b, RS_MSG_REQUEST);
    world_end(&other);
    client_expect(&c, 502, NULL);
    ck_assert_ptr_nonnull(strstr(rs_buf_text(&c.body), "the connection to its node"));
    fake_end(&b);
    client_get(&c, "/2");
    wait_queued(&w, "front", 1);
    world_begin(&other, &no_http);
    world_routes(&other);
    fake_attach(&other, &b, "front", "r3", true);
    peer_join(&port);
    fake_expect(&b, RS_MSG_REQUEST);
    fake_ok(&b, "again");
    client_expect(&c, 200, "again");
    end_peers();
}
END_TEST

/* What it worked on goes to whoever is there, if that does no harm. */
START_TEST(a_lost_node_is_replaced)
{
    begin_peers();
    client_get(&c, "/1");
    fake_expect(&b, RS_MSG_REQUEST);
    ck_assert_uint_eq(rs_fields_uint(&b.fields, RS_TAG_SAFE, 0), 1);
    world_end(&other);
    fake_attach(&w, &a, "front", "r9", true);
    fake_expect(&a, RS_MSG_REQUEST);
    ck_assert_str_eq(fake_text(&a, RS_TAG_PATH), "/1");
    fake_ok(&a, "here");
    client_expect(&c, 200, "here");
    fake_end(&a);
    fake_end(&b);
    world_begin(&other, &no_http); /* for the end */
    end_peers();
}
END_TEST

/* The other node knows that it may run once more, and does that itself. */
START_TEST(another_node_runs_it_again)
{
    begin_peers();
    client_get(&c, "/1");
    fake_expect(&b, RS_MSG_REQUEST);
    fake_end(&b);
    fake_attach(&other, &b, "front", "r3", true);
    fake_expect(&b, RS_MSG_REQUEST);
    fake_ok(&b, "there");
    client_expect(&c, 200, "there");
    end_peers();
}
END_TEST

START_TEST(a_node_without_slots_finishes)
{
    begin_peers();
    client_open(&c2, &w);
    client_get(&c, "/1");
    fake_expect(&b, RS_MSG_REQUEST);
    rs_dataplane_remote(w.dp, "app", "front", NULL, "n2", port.address, 0);
    fake_attach(&w, &a, "front", "r1", false);
    fake_sync(&w, &a, "r1");
    client_get(&c2, "/2");
    wait_queued(&w, "front", 1);
    fake_ok(&b, "last");
    client_expect(&c, 200, "last");
    rs_dataplane_remote(w.dp, "app", "front", NULL, "n2", port.address, 1);
    fake_expect(&b, RS_MSG_REQUEST);
    fake_ok(&b, "first");
    client_expect(&c2, 200, "first");
    end_peers();
}
END_TEST

/* What came from a node is not sent to a third, nor back. */
START_TEST(a_forwarded_request_stays)
{
    begin_peers();
    rs_dataplane_remote(other.dp, "app", "front", NULL, "n9", "127.0.0.1:1", 8);
    rs_dataplane_retire(other.dp, "r2");
    expect_event(&other, "idle", "r2");
    client_get(&c, "/");
    wait_queued(&other, "front", 1);
    rs_dataplane_admit(other.dp, "r2");
    fake_expect(&b, RS_MSG_REQUEST);
    fake_ok(&b, "here");
    client_expect(&c, 200, "here");
    end_peers();
}
END_TEST

START_TEST(a_peer_has_to_say_hello)
{
    int pair[2];

    begin();
    world_routes(&w);
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    a.fd = pair[0];
    set_timeout(a.fd);
    rs_dataplane_accept_peer(w.dp, pair[1]);
    fake_expect(&a, RS_MSG_HELLO);
    fake_call(&a, 1, "front", 0, "");
    ck_assert(!fake_read(&a));
    end();
}
END_TEST

RS_CHECK_MAIN(
    "dataplane", tcase_add_test(tc, one_request); tcase_add_test(tc, messages_of_a_replicas_life);
    tcase_add_loop_test(tc, garbage_ends_a_replica, 0, RS_COUNT(garbage));
    tcase_add_test(tc, answers_to_forgotten_streams_are_dropped);
    tcase_add_test(tc, waits_for_a_replica); tcase_add_test(tc, never_more_than_max_ongoing);
    tcase_add_test(tc, refuses_what_does_not_fit);
    tcase_add_test(tc, a_failed_deployment_is_unavailable);
    tcase_add_test(tc, a_deleted_deployment_refuses_who_waits);
    tcase_add_test(tc, what_a_dying_replica_did_not_read_goes_on);
    tcase_add_test(tc, retire_waits_for_the_last_request);
    tcase_add_test(tc, detach_closes_and_ends_requests);
    tcase_add_test(tc, a_dead_socket_is_gone_before_it_came);
    tcase_add_test(tc, a_call_and_its_answer); tcase_add_test(tc, items_of_a_generator_stay_apart);
    tcase_add_test(tc, an_error_passes_through); tcase_add_test(tc, the_callee_dies);
    tcase_add_test(tc, the_callee_dies_with_a_safe_call); tcase_add_test(tc, the_caller_dies);
    tcase_add_test(tc, the_client_leaves_a_call_behind); tcase_add_test(tc, the_caller_cancels);
    tcase_add_test(tc, calls_to_nowhere); tcase_add_test(tc, a_call_has_a_time_limit);
    tcase_add_test(tc, a_call_with_a_long_body); tcase_add_test(tc, lookups);
    tcase_add_test(tc, lanes_call_and_answer); tcase_add_test(tc, lanes_cancel);
    tcase_add_test(tc, lanes_refuse_and_die); tcase_add_test(tc, lanes_stream);
    tcase_add_test(tc, routes_and_replicas_change_while_busy);
    tcase_add_test(tc, ends_with_requests_under_way); tcase_add_test(tc, stops_accepting);
    tcase_add_test(tc, another_node_answers); tcase_add_test(tc, local_slots_come_first);
    tcase_add_test(tc, another_node_streams); tcase_add_test(tc, cancel_reaches_another_node);
    tcase_add_test(tc, a_lost_node_comes_back); tcase_add_test(tc, a_lost_node_is_replaced);
    tcase_add_test(tc, another_node_runs_it_again);
    tcase_add_test(tc, a_node_without_slots_finishes);
    tcase_add_test(tc, limits_reach_another_node); tcase_add_test(tc, a_forwarded_request_stays);
    tcase_add_test(tc, a_peer_has_to_say_hello);)
