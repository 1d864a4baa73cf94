/* What an application's rules refuse: too large a body, too many requests; and whose rules count. */
#include "core/base/json.h"
#include "tests/unit/net/dataplane_world.h"

#include "tests/unit/check_main.h"

static struct world w;
static struct fake a;
static struct client c;
static struct rs_ingress_conf conf;

static void begin(const char *policy)
{
    conf = world_conf;
    world_policy = json_loads(policy, 0, NULL);
    ck_assert_msg(world_policy != NULL, "%s", policy);
    world_begin(&w, &conf);
    world_routes(&w);
    fake_attach(&w, &a, "front", "r1", true);
    fake_sync(&w, &a, "r1");
    client_open(&c, &w);
}

static void end(void)
{
    client_close(&c);
    fake_end(&a);
    world_end(&w);
    json_decref(world_policy);
    world_policy = NULL;
}

/* Answered by the replica. */
static void served(const char *target)
{
    client_get(&c, target);
    fake_expect(&a, RS_MSG_REQUEST);
    fake_ok(&a, "fine");
    client_expect(&c, 200, "fine");
}

/* A request is counted when all of its answer was sent. */
static void expect_metric(const char *line)
{
    int64_t until = rs_clock_now() + 5 * RS_SEC;

    while (!metric_has(&w, line)) {
        ck_assert_msg(rs_clock_now() < until, "never %s", line);
        rs_loop_turn(w.control, RS_MS);
    }
}

static void post(const char *target, const char *headers, const char *body)
{
    char text[1000];

    snprintf(text, sizeof(text), "POST %s HTTP/1.1\r\nHost: x\r\n%s\r\n%s", target, headers, body);
    client_send(&c, text);
}

static const char bodies[] = "{\"max_body\": 10, \"routes\": ["
                             "{\"path\": \"/big\", \"max_body\": 100000},"
                             "{\"path\": \"/any\", \"max_body\": null}]}";

START_TEST(a_body_as_long_as_allowed)
{
    begin(bodies);
    post("/", "Content-Length: 10\r\n", "0123456789");
    fake_expect(&a, RS_MSG_REQUEST);
    fake_ok(&a, "");
    client_expect(&c, 200, "");
    post("/", "Transfer-Encoding: chunked\r\n", "a\r\n0123456789\r\n0\r\n\r\n");
    fake_expect(&a, RS_MSG_REQUEST);
    fake_ok(&a, "");
    client_expect(&c, 200, "");
    post("/any", "Content-Length: 11\r\n", "0123456789a");
    fake_expect(&a, RS_MSG_REQUEST);
    fake_ok(&a, "");
    client_expect(&c, 200, "");
    end();
}
END_TEST

static const struct {
    const char *target, *headers, *body, *says;
    bool ends; /* the connection, with the answer */
} large[] = {
    {"/", "Content-Length: 11\r\n", "0123456789a",
     "Request body is too large: at most 10 bytes are taken here.", false},
    {"/", "Content-Length: 11\r\nExpect: 100-continue\r\n", "",
     "Request body is too large: at most 10 bytes are taken here.", false},
    /* answered before any of it comes */
    {"/big/x", "Content-Length: 100001\r\n", "",
     "Request body is too large: at most 100000 bytes are taken here.", true},
    {"/big", "Content-Length: 999999999999999\r\n", "", NULL, true},
    /* as soon as it is exceeded */
    {"/", "Transfer-Encoding: chunked\r\n", "5\r\n01234\r\n6\r\n56789a\r\n",
     "Request body is too large: at most 10 bytes are taken here.", true},
};

START_TEST(a_body_too_large)
{
    begin(bodies);
    post(large[_i].target, large[_i].headers, large[_i].body);
    client_expect(&c, 413, large[_i].says);
    ck_assert_ptr_nonnull(client_header(&c, "x-request-id"));
    if (large[_i].ends)
        client_expect_end(&c), client_close(&c), client_open(&c, &w);
    else if (!strstr(large[_i].headers, "Expect"))
        served("/");
    ck_assert_uint_eq(stat_of(&w, "front", NULL).done, large[_i].ends || _i == 1 ? 0 : 1);
    expect_metric("rserve_http_refused_requests_total{route=\"/\",application=\"app\","
                  "cause=\"body_too_large\"} 1");
    end();
}
END_TEST

static const char rates[] = "{\"rate_limit\": {\"requests_per_s\": 0.001, \"burst\": 2},"
                            " \"routes\": ["
                            "  {\"path\": \"/shared\", \"priority\": 3},"
                            "  {\"path\": \"/free\", \"rate_limit\": null},"
                            "  {\"path\": \"/key\", \"rate_limit\": {\"requests_per_s\": 0.001, "
                            "\"key\": \"header:X-Key\"}},"
                            "  {\"path\": \"/all\", \"methods\": [\"GET\"],"
                            "   \"rate_limit\": {\"requests_per_s\": 0.5, \"key\": \"all\"}}]}";

START_TEST(too_many_requests)
{
    begin(rates);
    served("/");
    served("/shared"); /* the same bucket */
    client_get(&c, "/");
    client_expect(&c, 429, NULL);
    ck_assert_int_eq(strncmp(rs_buf_text(&c.body), "Too many requests; try again in ", 32), 0);
    ck_assert_int_gt(atoi(client_header(&c, "retry-after")), 900);
    ck_assert_str_eq(client_header(&c, "content-type"), "text/plain; charset=utf-8");
    ck_assert_ptr_nonnull(client_header(&c, "x-request-id"));
    for (int i = 0; i < 5; i++)
        served("/free");
    served("/all");
    client_get(&c, "/all/below");
    client_expect(&c, 429, NULL);
    ck_assert_int_le(atoi(client_header(&c, "retry-after")), 2);
    ck_assert_int_ge(atoi(client_header(&c, "retry-after")), 1);
    client_get(&c, "/-/healthz"); /* not the application's */
    client_expect(&c, 200, "success");
    expect_metric("rserve_http_refused_requests_total{route=\"/\",application=\"app\","
                  "cause=\"rate_limited\"} 2");
    end();
}
END_TEST

static void get_with(const char *target, const char *headers)
{
    char text[300];

    snprintf(text, sizeof(text), "GET %s HTTP/1.1\r\nHost: x\r\n%s\r\n", target, headers);
    client_send(&c, text);
}

static const struct {
    const char *headers;
    int status;
} keyed[] = {
    {"X-Key: one\r\n", 200},
    {"x-key: one\r\n", 429},
    {"X-Key: two\r\n", 200},
    {"X-KEY:  two \r\n", 429},
    {"X-Key: One\r\n", 200}, /* values are as they are */
    {"", 200},
    {"X-Key:\r\n", 429},                     /* none, or nothing in it: one bucket */
    {"X-Key: one\r\nX-Key: three\r\n", 429}, /* the first counts */
};

START_TEST(a_bucket_for_each_value)
{
    begin(rates);
    for (size_t i = 0; i < RS_COUNT(keyed); i++) {
        get_with("/key", keyed[i].headers);
        if (keyed[i].status == 200) {
            fake_expect(&a, RS_MSG_REQUEST);
            fake_ok(&a, "");
        }
        client_read(&c);

        ck_assert_msg(c.status == keyed[i].status, "%zu: %d", i, c.status);
    }
    end();
}
END_TEST

/* A body that comes with a refused request: read if it is short, cut off if it is long. */
START_TEST(too_many_with_a_body)
{
    begin("{\"rate_limit\": {\"requests_per_s\": 0.001}}");
    served("/");
    post("/", "Content-Length: 5\r\n", "01234");
    client_expect(&c, 429, NULL);
    get_with("/", "");
    client_expect(&c, 429, NULL); /* the connection is still good */
    post("/", "Content-Length: 100000\r\n", "01234");
    client_expect(&c, 429, NULL);
    ck_assert_int_gt(atoi(client_header(&c, "retry-after")), 900);
    client_expect_end(&c);
    end();
}
END_TEST

/* Other rules: what is not changed keeps its buckets. */
START_TEST(a_change_keeps_what_was_counted)
{
    static const char next[] =
        "{\"priority\": 9, \"rate_limit\": {\"requests_per_s\": 0.001},"
        " \"routes\": [{\"path\": \"/a\", \"rate_limit\": {\"requests_per_s\": 0.002}}]}";

    begin("{\"rate_limit\": {\"requests_per_s\": 0.001},"
          " \"routes\": [{\"path\": \"/a\", \"rate_limit\": {\"requests_per_s\": 0.001}}]}");
    served("/");
    served("/a");
    json_decref(world_policy);
    world_policy = json_loads(next, 0, NULL);
    world_routes(&w);
    fake_sync(&w, &a, "r1"); /* the lane has it */
    client_get(&c, "/");
    client_expect(&c, 429, NULL);
    served("/a"); /* another limit begins with a full bucket */
    client_get(&c, "/a");
    client_expect(&c, 429, NULL);
    end();
}
END_TEST

static const struct {
    const char *target, *headers;
    bool times_out;
} times[] = {
    {"/", "", true},
    {"/long", "", false},
    {"/long/but", "x-request-timeout-seconds: 0.05\r\n", true}, /* the client's word is last */
    {"/none", "", false},
};

START_TEST(the_nearest_time_limit_counts)
{
    begin("{\"request_timeout_s\": 0.05, \"routes\": ["
          "{\"path\": \"/long\", \"request_timeout_s\": 600},"
          "{\"path\": \"/none\", \"request_timeout_s\": null}]}");
    get_with(times[_i].target, times[_i].headers);
    fake_expect(&a, RS_MSG_REQUEST);
    ck_assert_int_eq(rs_fields_has(&a.fields, RS_TAG_TIMEOUT_MS), _i != 3);
    if (times[_i].times_out) {
        client_expect(&c, 408, NULL);
        expect_metric("rserve_http_refused_requests_total{route=\"/\","
                      "application=\"app\",cause=\"timeout\"} 1");
    } else {
        ck_assert(_i == 3 || rs_fields_uint(&a.fields, RS_TAG_TIMEOUT_MS, 0) > 1000);
        fake_ok(&a, "");
        client_expect(&c, 200, "");
    }
    end();
}
END_TEST

RS_CHECK_MAIN("ingress_limit", tcase_add_test(tc, a_body_as_long_as_allowed);
              tcase_add_loop_test(tc, a_body_too_large, 0, RS_COUNT(large));
              tcase_add_test(tc, too_many_requests); tcase_add_test(tc, a_bucket_for_each_value);
              tcase_add_test(tc, too_many_with_a_body);
              tcase_add_test(tc, a_change_keeps_what_was_counted);
              tcase_add_loop_test(tc, the_nearest_time_limit_counts, 0, RS_COUNT(times));)
