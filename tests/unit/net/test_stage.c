/* Declared graphs in a data plane: what goes over the wire to the stages, and back. Each test runs with
 * one lane, and with three, where graph, stages and connections are at home on different ones. */
#include "tests/unit/net/dataplane_world.h"

#include "core/config/config.h"
#include "tests/unit/check_main.h"

static struct world w;
static struct fake front, back;
static struct client c;

static json_t *expanded(const char *graph)
{
    rs_auto(rs_freep) char *text = rs_asprintf(
        "applications: [{rserve: {graph: %s}, deployments: [{name: front, rserve: {kind: exec, "
        "command: x}}, {name: back, rserve: {kind: exec, command: x}}]}]",
        graph);
    rs_auto(rs_config_freep) struct rs_config *conf = NULL;
    struct rs_diags diags = {0};
    int r = rs_config_parse(&conf, text, strlen(text), NULL, &diags);

    ck_assert_msg(r == 0, "%s: %s", graph, diags.count ? diags.items[0].text : "");
    rs_diags_fini(&diags);
    return json_incref(conf->apps[0].graph);
}

/* NULL: no graph, "front" is the ingress. */
static void routes(const char *graph)
{
    rs_auto(rs_json_decrefp) json_t *json = graph ? expanded(graph) : NULL;
    const struct rs_route_app app = {
        .name = "app", .prefix = "/p", .ingress = "front", .graph = json};
    const struct rs_route_deployment deployments[2] = {
        {.app = "app", .name = "front", .max_ongoing = 8, .max_queued = -1, .retry_after_s = -1},
        {.app = "app", .name = "back", .max_ongoing = 8, .max_queued = 0, .retry_after_s = -1}};

    rs_dataplane_routes(w.dp, &(struct rs_routes){.apps = &app,
                                                  .n_apps = 1,
                                                  .deployments = deployments,
                                                  .n_deployments = 2,
                                                  .populated = true});
}

static void begin(int variant, const char *graph)
{
    struct rs_ingress_conf conf = world_conf;

    conf.lanes = variant ? 3 : 1;
    conf.buffer_body = 4096;
    world_begin(&w, &conf);
    routes(graph);
    fake_attach(&w, &front, "front", "r1", true);
    fake_attach(&w, &back, "back", "r2", true);
    fake_sync(&w, &front, "r1");
    fake_sync(&w, &back, "r2");
    client_open(&c, &w);
}

static void end(void)
{
    client_close(&c);
    fake_end(&front);
    fake_end(&back);
    world_end(&w);
}

static void ask(const char *body)
{
    char text[1024];

    snprintf(
        text, sizeof(text),
        "PUT /p/x?y=1 HTTP/1.1\r\nHost: h\r\nContent-Type: text/plain\r\nX-Request-Id: id-7\r\n"
        "Accept-Encoding: gzip\r\nX-Mine: 1\r\nContent-Length: %zu\r\n\r\n%s",
        strlen(body), body);
    client_send(&c, text);
}

START_TEST(what_stages_are_asked)
{
    begin(_i, "{sequence: [front, {call: back, path: '/q?z=2', headers: {X-Own: o}}]}");
    ask("hello");
    fake_expect(&front, RS_MSG_REQUEST);
    ck_assert_str_eq(fake_text(&front, RS_TAG_DEPLOYMENT), "front");
    ck_assert_str_eq(fake_text(&front, RS_TAG_HTTP_METHOD), "PUT");
    ck_assert_str_eq(fake_text(&front, RS_TAG_PATH), "/p/x");
    ck_assert_str_eq(fake_text(&front, RS_TAG_QUERY), "y=1");
    ck_assert_str_eq(fake_text(&front, RS_TAG_ROUTE), "/p");
    ck_assert_str_eq(fake_text(&front, RS_TAG_REQUEST_ID), "id-7");
    ck_assert_str_eq(fake_header(&front, "content-type"), "text/plain");
    ck_assert_str_eq(fake_header(&front, "content-length"), "5");
    ck_assert_str_eq(fake_header(&front, "x-mine"), "1");
    ck_assert_ptr_null(fake_header(&front, "accept-encoding")); /* it is read here */
    ck_assert_str_eq(front.body, "hello");
    ck_assert_uint_eq(front.h.flags, RS_FRAME_END);
    fake_answer(&front, 200, "content-type: application/json\nx-inner: 1\n", "[1]", 3,
                RS_FRAME_END);
    fake_expect(&back, RS_MSG_REQUEST);
    ck_assert_str_eq(fake_text(&back, RS_TAG_DEPLOYMENT), "back");
    ck_assert_str_eq(fake_text(&back, RS_TAG_HTTP_METHOD), "POST");
    ck_assert_str_eq(fake_text(&back, RS_TAG_PATH), "/p/q");
    ck_assert_str_eq(fake_text(&back, RS_TAG_QUERY), "z=2");
    ck_assert_str_eq(fake_text(&back, RS_TAG_REQUEST_ID), "id-7");
    ck_assert_str_eq(fake_header(&back, "content-type"), "application/json");
    ck_assert_str_eq(fake_header(&back, "accept-encoding"), "gzip"); /* that one is passed on */
    ck_assert_str_eq(fake_header(&back, "x-own"), "o");
    ck_assert_ptr_null(fake_header(&back, "x-inner"));
    ck_assert_str_eq(back.body, "[1]");
    fake_answer(&back, 201, "content-type: text/plain\nx-last: 2\n", "done", 4, RS_FRAME_END);
    client_expect(&c, 201, "done");
    ck_assert_str_eq(client_header(&c, "x-last"), "2");
    ck_assert_str_eq(client_header(&c, "x-request-id"), "id-7");
    end();
}
END_TEST

/* Bodies of all lengths, in one piece or several, up and down. */
START_TEST(long_bodies)
{
    enum { LEN = 300000 };
    rs_auto(rs_freep) char *body = rs_alloc(LEN + 1);

    memset(body, 'x', LEN);
    begin(_i, "{parallel: [{sequence: [front, back]}], merge: concat}");
    client_send(&c, "POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 300000\r\n\r\n");
    client_send(&c, body); /* longer than what is read before it is passed on */
    fake_expect(&front, RS_MSG_REQUEST);
    ck_assert_uint_eq(front.h.body_len, LEN);
    ck_assert(front.h.flags & RS_FRAME_MEMFD);
    fake_answer(&front, 200, NULL, body, 100000, 0); /* a memfd, and more behind it */
    fake_expect(&front, RS_MSG_WINDOW);
    fake_send(&front, RS_MSG_BODY, 0, front.h.stream, NULL, "yy", 2);
    fake_send(&front, RS_MSG_BODY, RS_FRAME_END, front.h.stream, NULL, "z", 1);
    fake_expect(&back, RS_MSG_REQUEST);
    ck_assert_uint_eq(back.h.body_len, 100003);
    ck_assert_str_eq(back.body + 99999, "xyyz");
    fake_answer(&back, 200, NULL, "a", 1, 0);
    fake_send(&back, RS_MSG_BODY, RS_FRAME_END, back.h.stream, NULL, body, 70000);
    client_expect(&c, 200, NULL);
    ck_assert_uint_eq(rs_buf_len(&c.body), 70001);
    ck_assert_int_eq(memcmp(rs_buf_head(&c.body), "axxx", 4), 0);
    end();
}
END_TEST

START_TEST(streams)
{
    begin(_i, "{sequence: [front, back]}");
    ask("1");
    fake_expect(&front, RS_MSG_REQUEST);
    fake_ok(&front, "2");
    fake_expect(&back, RS_MSG_REQUEST);
    fake_answer(&back, 200, "content-type: text/event-stream\n", "one", 3, 0);
    client_read_head(&c);
    ck_assert_int_eq(client_read_chunk(&c), 3);
    fake_send(&back, RS_MSG_BODY, 0, back.h.stream, NULL, "two", 3);
    ck_assert_int_eq(client_read_chunk(&c), 3);
    client_close(&c);
    fake_expect(&back, RS_MSG_CANCEL);
    end();
}
END_TEST

START_TEST(a_stream_that_breaks)
{
    begin(_i, "{sequence: [front, back]}");
    ask("1");
    fake_expect(&front, RS_MSG_REQUEST);
    fake_ok(&front, "2");
    fake_expect(&back, RS_MSG_REQUEST);
    fake_answer(&back, 200, NULL, "one", 3, 0);
    client_read_head(&c);
    ck_assert_int_eq(client_read_chunk(&c), 3);
    fake_end(&back);
    ck_assert_int_eq(client_read_chunk(&c), -1);
    end();
}
END_TEST

static const struct {
    enum rs_wire_error code;
    int status;
    const char *text;
} errors[] = {
    {RS_WIRE_USER, 502, "stage 'front' (deployment 'front'): it raised ValueError"},
    {RS_WIRE_TIMEOUT, 504, "stage 'front' (deployment 'front'): no"},
    {RS_WIRE_BACKPRESSURE, 503, "stage 'front' (deployment 'front'): no"},
    {RS_WIRE_INTERNAL, 502, "stage 'front' (deployment 'front'): no"},
};

START_TEST(errors_of_a_stage)
{
    for (size_t i = 0; i < RS_COUNT(errors); i++) {
        begin(_i, "front");
        ask("1");
        fake_expect(&front, RS_MSG_REQUEST);
        fake_error(&front, front.h.stream, errors[i].code, "no");
        client_expect(&c, errors[i].status, errors[i].text);
        end();
    }
}
END_TEST

/* A call that the queue refuses at once, inside the machine's own turn; tried again, and again. */
START_TEST(a_full_queue)
{
    begin(_i, "{fallback: [{call: back, retries: 2}, front]}");
    fake_end(&back);
    ck_assert_str_eq(expect_event(&w, "gone", "r2")->id, "r2");
    ask("1");
    fake_expect(&front, RS_MSG_REQUEST);
    fake_ok(&front, "instead");
    client_expect(&c, 200, "instead");
    ck_assert(metric_is(&w, "rserve_graph_retries_total{application=\"app\",stage=\"back\","
                            "deployment=\"back\"} 2.0"));
    ck_assert(metric_is(&w, "rserve_graph_fallbacks_total{application=\"app\",stage=\"fallback\","
                            "deployment=\"\"} 1.0"));
    end();
}
END_TEST

START_TEST(what_leaves_is_cancelled)
{
    begin(_i, "{parallel: [front, back]}");
    ask("1");
    fake_expect(&front, RS_MSG_REQUEST);
    fake_expect(&back, RS_MSG_REQUEST);
    fake_ok(&back, "2");
    client_close(&c);
    fake_expect(&front, RS_MSG_CANCEL);
    end();
}
END_TEST

/* A new graph, and none at all, while a request is under way. */
START_TEST(a_change)
{
    struct client c2;

    begin(_i, "{sequence: [front, back]}");
    ask("1");
    fake_expect(&front, RS_MSG_REQUEST);
    routes("{sequence: [back]}");
    fake_sync(&w, &back, "r2");
    client_open(&c2, &w);
    client_get(&c2, "/p/new");
    fake_expect(&back, RS_MSG_REQUEST);
    ck_assert_str_eq(fake_text(&back, RS_TAG_PATH), "/p/new");
    fake_ok(&back, "new");
    client_expect(&c2, 200, "new");
    routes(NULL);
    fake_ok(&front, "old"); /* the old way goes on */
    fake_expect(&back, RS_MSG_REQUEST);
    ck_assert_str_eq(back.body, "old");
    fake_ok(&back, "end");
    client_expect(&c, 200, "end");
    client_get(&c2, "/p/none");
    fake_expect(&front, RS_MSG_REQUEST);
    ck_assert_str_eq(fake_text(&front, RS_TAG_DEPLOYMENT), "front");
    fake_ok(&front, "none");
    client_expect(&c2, 200, "none");
    client_close(&c2);
    end();
}
END_TEST

/* The data plane goes while requests, shadows and those who wait for others are under way. */
START_TEST(the_end)
{
    struct client c2;

    begin(_i, "{parallel: [front, {call: back, cache: {ttl_s: 9, max_bytes: 65536}}], "
              "shadow: {to: front}}");
    ask("1");
    fake_expect(&front, RS_MSG_REQUEST);
    fake_expect(&front, RS_MSG_REQUEST);
    fake_expect(&back, RS_MSG_REQUEST);
    client_open(&c2, &w);
    client_send(&c2, "PUT /p/x?y=1 HTTP/1.1\r\nHost: h\r\nContent-Type: text/plain\r\n"
                     "Content-Length: 1\r\n\r\n1");
    fake_expect(&front, RS_MSG_REQUEST);
    client_close(&c2);
    end();
}
END_TEST

#define EACH(test) tcase_add_loop_test(tc, test, 0, 2)

RS_CHECK_MAIN("stage", EACH(what_stages_are_asked); EACH(long_bodies); EACH(streams);
              EACH(a_stream_that_breaks); EACH(errors_of_a_stage); EACH(a_full_queue);
              EACH(what_leaves_is_cancelled); EACH(a_change); EACH(the_end);)
