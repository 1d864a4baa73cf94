/* Time limits, priorities and refusals from end to end: HTTP clients, a data plane, fake replicas. */
#include "tests/unit/net/dataplane_world.h"

#include "tests/unit/check_main.h"

static struct world w;
static struct client c, many[4];
static struct fake a, b;

static void begin(struct rs_ingress_conf conf, struct rs_route_deployment front, const char *policy)
{
    struct rs_route_deployment deployments[2] = {front,
                                                 {.app = "app",
                                                  .name = "back",
                                                  .max_ongoing = 8,
                                                  .max_queued = -1,
                                                  .retry_after_s = -1,
                                                  .request_timeout = 500 * RS_SEC}};
    rs_auto(rs_json_decrefp) json_t *j = policy ? json_loads(policy, 0, NULL) : NULL;
    struct rs_route_app app = {.name = "app", .prefix = "/", .ingress = "front", .policy = j};

    deployments[0].app = "app";
    deployments[0].name = "front";
    world_begin(&w, &conf);
    rs_dataplane_routes(w.dp, &(struct rs_routes){.apps = &app,
                                                  .n_apps = 1,
                                                  .deployments = deployments,
                                                  .n_deployments = 2,
                                                  .populated = true});
    fake_attach(&w, &a, "front", "r1", true);
    fake_attach(&w, &b, "back", "r2", true);
    fake_sync(&w, &a, "r1");
    fake_sync(&w, &b, "r2");
    client_open(&c, &w);
    for (size_t i = 0; i < RS_COUNT(many); i++)
        client_open(&many[i], &w);
}

static void end(void)
{
    client_close(&c);
    for (size_t i = 0; i < RS_COUNT(many); i++)
        client_close(&many[i]);
    fake_end(&a);
    fake_end(&b);
    world_end(&w);
}

static const struct rs_route_deployment one_slot = {
    .max_ongoing = 1, .max_queued = -1, .retry_after_s = -1};

static void get_with(struct client *x, const char *path, const char *headers)
{
    char text[512];

    snprintf(text, sizeof(text), "GET %s HTTP/1.1\r\nHost: x\r\nx-request-id: i\r\n%s\r\n", path,
             headers);
    client_send(x, text);
}

static void wait_done(unsigned n)
{
    int64_t until = rs_clock_now() + 5 * RS_SEC;

    while (stat_of(&w, "front", NULL).done < n) {
        ck_assert_msg(rs_clock_now() < until, "never %u done", n);
        rs_loop_turn(w.control, RS_MS);
    }
}

/* --- limits ------------------------------------------------------------------------------------ */

/* What is left when the replica gets it: never more than it was, and not much less. */
static const struct {
    const char *headers;
    unsigned server_s, deployment_s, left_s; /* 0: none */
    const char *policy;
} limits[] = {
    {"", 1000, 0, 1000},
    {"x-request-timeout-ms: 500000\r\n", 1000, 0, 500},
    {"x-request-timeout-ms: 5000000\r\n", 1000, 0, 1000},
    {"x-request-timeout-ms: 500000\r\n", 0, 0, 500},
    {"x-request-timeout-ms: 0\r\n", 1000, 0, 1000},
    {"x-request-timeout-ms: soon\r\n", 0, 0, 0},
    {"grpc-timeout: 700S\r\n", 1000, 0, 700},
    {"grpc-timeout: 700000m\r\nx-request-timeout-ms: 600000\r\n", 1000, 0, 600},
    {"grpc-timeout: 600S\r\nx-request-timeout-ms: 700000\r\n", 1000, 0, 600},
    {"x-request-timeout-seconds: 2000\r\n", 1000, 0, 2000}, /* Ray's goes over the server's */
    {"x-request-timeout-seconds: 2000\r\ngrpc-timeout: 900S\r\n", 1000, 0, 900},
    {"x-request-timeout-seconds: 0\r\n", 1000, 0, 0},
    {"", 1000, 1500, 1500},
    {"", 0, 300, 300},
    {"grpc-timeout: 200S\r\n", 0, 300, 200},
    {"", 1000, 300, 400, "{\"request_timeout_s\": 400}"},
    {"", 1000, 300, 0, "{\"request_timeout_s\": null}"},
    {"grpc-timeout: 500S\r\n", 0, 0, 400, "{\"request_timeout_s\": 400}"},
};

START_TEST(the_sooner_limit)
{
    struct rs_ingress_conf conf = world_conf;
    struct rs_route_deployment front = one_slot;
    uint64_t left;

    conf.request_timeout = limits[_i].server_s * RS_SEC;
    front.request_timeout = limits[_i].deployment_s * RS_SEC;
    begin(conf, front, limits[_i].policy);
    get_with(&c, "/", limits[_i].headers);
    fake_expect(&a, RS_MSG_REQUEST);
    left = rs_fields_uint(&a.fields, RS_TAG_TIMEOUT_MS, 0);
    ck_assert_uint_le(left, limits[_i].left_s * 1000);
    ck_assert_uint_ge(left, limits[_i].left_s * 900);
    fake_ok(&a, "ok");
    client_expect(&c, 200, "ok");
    end();
}
END_TEST

START_TEST(a_client_that_cannot_wait)
{
    begin(world_conf, one_slot, NULL);
    get_with(&c, "/", "x-request-timeout-ms: 20\r\n");
    client_expect(&c, 408, "Request i timed out after 0.02s.");
    fake_expect(&a, RS_MSG_REQUEST);
    fake_expect(&a, RS_MSG_CANCEL);
    get_with(&c, "/", "grpc-timeout: 20000u\r\n");
    client_expect(&c, 408, "Request i timed out after 0.02s.");
    end();
}
END_TEST

/* All of the answer was there in time: how long the client takes to read it is its own affair. */
START_TEST(a_whole_answer_is_not_cut)
{
    static char big[12 << 20];

    memset(big, 'x', sizeof(big) - 1);
    begin(world_conf, one_slot, NULL);
    get_with(&c, "/", "x-request-timeout-ms: 1000\r\n");
    fake_expect(&a, RS_MSG_REQUEST);
    fake_answer(&a, 200, "", big, sizeof(big) - 1, RS_FRAME_END);
    wait_done(1);
    get_with(&many[0], "/", "x-request-timeout-ms: 1100\r\n");
    client_expect(&many[0], 408, "Request i timed out after 1.1s.");
    client_expect(&c, 200, big);
    end();
}
END_TEST

/* Behind one that runs: it is not started, and counted. */
START_TEST(what_is_too_late_never_starts)
{
    struct rs_ingress_conf conf = world_conf;
    struct rs_buf text = {0};

    conf.lanes = _i + 1;
    begin(conf, one_slot, NULL);
    get_with(&c, "/first", "");
    fake_expect(&a, RS_MSG_REQUEST);
    get_with(&many[0], "/late", "x-request-timeout-ms: 20\r\n");
    client_expect(&many[0], 408, "Request i timed out after 0.02s.");
    wait_queued(&w, "front", 0);
    get_with(&many[1], "/third", "");
    wait_queued(&w, "front", 1);
    fake_ok(&a, "first");
    client_expect(&c, 200, "first");
    fake_expect(&a, RS_MSG_REQUEST);
    ck_assert_str_eq(fake_text(&a, RS_TAG_PATH), "/third");
    fake_ok(&a, "third");
    client_expect(&many[1], 200, "third");
    ck_assert_uint_eq(stat_of(&w, "front", NULL).dropped[2], 1);
    rs_metrics_text(w.metrics, &text);
    ck_assert_ptr_nonnull(strstr(rs_buf_text(&text),
                                 "rserve_requests_dropped_total{deployment=\"front\","
                                 "application=\"app\",cause=\"expired\"} 1"));
    ck_assert_ptr_nonnull(strstr(
        rs_buf_text(&text),
        "rserve_queue_wait_ms_count{deployment=\"front\",application=\"app\"} 1")); /* /third */
    rs_buf_fini(&text);
    end();
}
END_TEST

static uint64_t call_back(uint64_t stream, uint32_t timeout_ms, int priority)
{
    struct rs_buf meta = {0};

    rs_field_put_uint(&meta, RS_TAG_KIND, RS_REQUEST_CALL);
    rs_field_put_str(&meta, RS_TAG_APP, "app");
    rs_field_put_str(&meta, RS_TAG_DEPLOYMENT, "back");
    rs_field_put_uint(&meta, RS_TAG_PARENT, a.h.stream);
    if (timeout_ms)
        rs_field_put_uint(&meta, RS_TAG_TIMEOUT_MS, timeout_ms);
    if (priority >= 0)
        rs_field_put_uint(&meta, RS_TAG_PRIORITY, (uint64_t)priority);
    fake_send(&a, RS_MSG_REQUEST, RS_FRAME_END, stream, &meta, NULL, 0);
    rs_buf_fini(&meta);
    fake_expect(&b, RS_MSG_REQUEST);
    return rs_fields_uint(&b.fields, RS_TAG_TIMEOUT_MS, 0);
}

/* A call is as urgent as its parent and ends with it, whatever the caller leaves out or claims; or
 * sooner, as it says or as the deployment that is called allows (500 s). */
START_TEST(calls_inherit)
{
    struct rs_ingress_conf conf = world_conf;
    uint64_t left;

    conf.lanes = _i + 1;
    begin(conf, one_slot, NULL);
    get_with(&c, "/", "x-request-timeout-ms: 300000\r\nx-request-priority: 2\r\n");
    fake_expect(&a, RS_MSG_REQUEST);
    ck_assert_uint_eq(rs_fields_uint(&a.fields, RS_TAG_PRIORITY, 99), 2);
    left = call_back(1, 0, -1);
    ck_assert(left <= 300000 && left > 200000);
    ck_assert_uint_eq(rs_fields_uint(&b.fields, RS_TAG_PRIORITY, 99), 2);
    left = call_back(3, 900000, 7);
    ck_assert(left <= 300000 && left > 200000);
    ck_assert_uint_eq(rs_fields_uint(&b.fields, RS_TAG_PRIORITY, 99), 7);
    left = call_back(5, 100000, -1);
    ck_assert(left <= 100000 && left > 50000);
    fake_ok(&a, "ok");
    client_expect(&c, 200, "ok");
    end();
}
END_TEST

/* --- priorities -------------------------------------------------------------------------------- */

/* What a client asks for, and what the policy makes of it. */
static const struct {
    const char *policy, *header;
    unsigned gets;
} wishes[] = {
    {NULL, "", 5},
    {NULL, "3", 3},
    {NULL, "9", 5}, /* nobody said that it may */
    {NULL, "12", 5},
    {"{\"priority\": 7}", "", 7},
    {"{\"priority\": 7}", "9", 7},
    {"{\"priority\": 7}", "0", 0},
    {"{\"max_priority\": 8}", "9", 8},
    {"{\"max_priority\": 8}", "7", 7},
    {"{\"max_priority\": 8}", "", 5},
    {"{\"priority\": 6, \"max_priority\": 2}", "9", 6},
    {"{\"routes\": [{\"path\": \"/x\", \"max_priority\": 9}]}", "9", 9},
};

START_TEST(a_clients_wish)
{
    char header[64] = "";

    begin(world_conf, one_slot, wishes[_i].policy);
    if (*wishes[_i].header)
        snprintf(header, sizeof(header), "X-Request-Priority: %s\r\n", wishes[_i].header);
    get_with(&c, "/x", header);
    fake_expect(&a, RS_MSG_REQUEST);
    ck_assert_uint_eq(rs_fields_uint(&a.fields, RS_TAG_PRIORITY, 5), wishes[_i].gets);
    ck_assert_int_eq(rs_fields_has(&a.fields, RS_TAG_PRIORITY), wishes[_i].gets != 5);
    fake_ok(&a, "ok");
    client_expect(&c, 200, "ok");
    end();
}
END_TEST

static void expect_path(const char *path)
{
    fake_expect(&a, RS_MSG_REQUEST);
    ck_assert_str_eq(fake_text(&a, RS_TAG_PATH), path);
    fake_ok(&a, path);
}

START_TEST(the_urgent_go_first)
{
    struct rs_ingress_conf conf = world_conf;

    conf.lanes = _i + 1;
    begin(conf, one_slot, "{\"max_priority\": 9}");
    get_with(&c, "/first", "");
    fake_expect(&a, RS_MSG_REQUEST);
    get_with(&many[0], "/low", "x-request-priority: 0\r\n");
    wait_queued(&w, "front", 1);
    get_with(&many[1], "/plain", "");
    wait_queued(&w, "front", 2);
    get_with(&many[2], "/high", "x-request-priority: 9\r\n");
    wait_queued(&w, "front", 3);
    fake_ok(&a, "first");
    expect_path("/high");
    expect_path("/plain");
    expect_path("/low");
    client_expect(&c, 200, "first");
    client_expect(&many[0], 200, "/low");
    client_expect(&many[1], 200, "/plain");
    client_expect(&many[2], 200, "/high");
    end();
}
END_TEST

/* --- refusals ---------------------------------------------------------------------------------- */

START_TEST(the_less_urgent_makes_room)
{
    struct rs_route_deployment front = one_slot;

    front.max_queued = 1;
    begin(world_conf, front, NULL);
    get_with(&c, "/first", "");
    fake_expect(&a, RS_MSG_REQUEST);
    get_with(&many[0], "/low", "x-request-priority: 0\r\n");
    wait_queued(&w, "front", 1);
    get_with(&many[1], "/low too", "x-request-priority: 0\r\n");
    client_expect(&many[1], 400, NULL);
    get_with(&many[2], "/low", "x-request-priority: 0\r\n");
    client_expect(&many[2], 503, NULL);
    ck_assert_str_eq(client_header(&many[2], "retry-after"), "1");
    get_with(&many[3], "/plain", "");
    client_expect(&many[0], 503,
                  "Request dropped due to backpressure (num_queued_requests=1, "
                  "max_queued_requests=1).");
    fake_ok(&a, "first");
    client_expect(&c, 200, "first");
    expect_path("/plain");
    client_expect(&many[3], 200, "/plain");
    ck_assert_uint_eq(stat_of(&w, "front", NULL).dropped[0], 2);
    end();
}
END_TEST

/* Nothing else happens meanwhile: time alone brings it about. */
START_TEST(who_waits_too_long_is_told)
{
    struct rs_route_deployment front = one_slot;
    struct rs_ingress_conf conf = world_conf;

    conf.lanes = _i + 1;
    front.shed_target = 20 * RS_MS;
    front.shed_interval = 20 * RS_MS;
    begin(conf, front, NULL);
    get_with(&c, "/first", "");
    fake_expect(&a, RS_MSG_REQUEST);
    get_with(&many[0], "/plain", "");
    get_with(&many[1], "/low", "x-request-priority: 1\r\n");
    client_expect(&many[1], 503,
                  "Request dropped due to overload: requests wait longer than 0.02s for deployment "
                  "'front' (application 'app').");
    ck_assert_str_eq(client_header(&many[1], "retry-after"), "1");
    ck_assert_str_eq(client_header(&many[1], "x-request-id"), "i");
    fake_ok(&a, "first");
    client_expect(&c, 200, "first");
    expect_path("/plain");
    client_expect(&many[0], 200, "/plain");
    ck_assert_uint_eq(stat_of(&w, "front", NULL).dropped[1], 1);
    ck_assert_uint_eq(stat_of(&w, "front", NULL).done, 2);
    end();
}
END_TEST

RS_CHECK_MAIN("deadline", tcase_add_loop_test(tc, the_sooner_limit, 0, RS_COUNT(limits));
              tcase_add_test(tc, a_client_that_cannot_wait);
              tcase_add_test(tc, a_whole_answer_is_not_cut);
              tcase_add_loop_test(tc, what_is_too_late_never_starts, 0, 3);
              tcase_add_loop_test(tc, calls_inherit, 0, 3);
              tcase_add_loop_test(tc, a_clients_wish, 0, RS_COUNT(wishes));
              tcase_add_loop_test(tc, the_urgent_go_first, 0, 3);
              tcase_add_test(tc, the_less_urgent_makes_room);
              tcase_add_loop_test(tc, who_waits_too_long_is_told, 0, 3);)
