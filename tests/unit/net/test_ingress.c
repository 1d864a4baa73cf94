/* HTTP as clients see it. The routes, the queue and the lanes: see test_dataplane.c. */
#include "tests/unit/net/dataplane_world.h"

#include "tests/unit/check_main.h"

static struct world w;
static struct fake a;
static struct client c;
static struct rs_ingress_conf conf;

static void begin_with(struct rs_ingress_conf cf)
{
    conf = cf;
    world_begin(&w, &conf);
    world_routes(&w);
    fake_attach(&w, &a, "front", "r1", true);
    fake_sync(&w, &a, "r1");
    client_open(&c, &w);
}

static void begin(void)
{
    begin_with(world_conf);
}

static void end(void)
{
    client_close(&c);
    fake_end(&a);
    world_end(&w);
}

/* --- requests ---------------------------------------------------------------------------------- */

static const struct {
    const char *target, *path, *query;
} targets[] = {
    {"/", "/", ""},
    {"/a/b%20c/%C3%A9?x=1&x=2&y=&z=a%26b", "/a/b%20c/%C3%A9", "x=1&x=2&y=&z=a%26b"},
    {"//double//slash/", "//double//slash/", ""},
    {"/q?a+b=c+d&flag", "/q", "a+b=c+d&flag"},
    {"/q?", "/q", ""},
    {"/?a?b", "/", "a?b"},
    {"/%", "/%", ""},
    {"/%zz%1", "/%zz%1", ""},
    {"http://elsewhere:80/x?y", "/x", "y"},
    {"HTTP://elsewhere?y", "/", "y"},
    {"*", "*", ""},
};

START_TEST(targets_reach_the_replica_as_they_are)
{
    char text[512];

    begin();
    snprintf(text, sizeof(text), "OPTIONS %s HTTP/1.1\r\nHost: x\r\n\r\n", targets[_i].target);
    client_send(&c, text);
    fake_expect(&a, RS_MSG_REQUEST);
    ck_assert_str_eq(fake_text(&a, RS_TAG_PATH), targets[_i].path);
    ck_assert_str_eq(fake_text(&a, RS_TAG_QUERY), targets[_i].query);
    fake_ok(&a, "");
    client_expect(&c, 200, "");
    end();
}
END_TEST

START_TEST(a_long_query)
{
    struct rs_buf text = {0};

    begin();
    rs_buf_puts(&text, "GET /?");
    for (int i = 0; i < 10000; i++)
        rs_buf_puts(&text, "&a");
    rs_buf_puts(&text, " HTTP/1.1\r\nHost: x\r\n\r\n");
    client_send(&c, rs_buf_text(&text));
    fake_expect(&a, RS_MSG_REQUEST);
    ck_assert_uint_eq(a.fields.at[RS_TAG_QUERY].len, 20000);
    fake_ok(&a, "");
    client_expect(&c, 200, "");
    rs_buf_fini(&text);
    end();
}
END_TEST

START_TEST(fields_of_a_request)
{
    char server[64];

    begin();
    client_send(
        &c, "PROPFIND /x HTTP/1.1\r\nHost: h:1\r\nX-Test: one\r\nx-test:two  \r\nX-TWO: MiXed\r\n"
            "Cookie: a=1; b=two\r\nEmpty:\r\nserve-multiplexed-model-ID: m1\r\n"
            "X-Session-Id: s1\r\ntraceparent: 00-1-2-3\r\nConnection: keep-alive\r\n\r\n");
    fake_expect(&a, RS_MSG_REQUEST);
    snprintf(server, sizeof(server), "127.0.0.1:%u", rs_dataplane_port(w.dp));
    ck_assert_uint_eq(rs_fields_uint(&a.fields, RS_TAG_KIND, 0), RS_REQUEST_HTTP);
    ck_assert_str_eq(fake_text(&a, RS_TAG_HTTP_METHOD), "PROPFIND");
    ck_assert_str_eq(fake_text(&a, RS_TAG_SCHEME), "http");
    ck_assert_str_eq(fake_text(&a, RS_TAG_HTTP_VERSION), "1.1");
    ck_assert_str_eq(fake_text(&a, RS_TAG_ROOT_PATH), "");
    ck_assert_str_eq(fake_text(&a, RS_TAG_ROUTE), "/");
    ck_assert_str_eq(fake_text(&a, RS_TAG_SERVER), server);
    ck_assert_int_eq(strncmp(fake_text(&a, RS_TAG_CLIENT), "127.0.0.1:", 10), 0);
    ck_assert_str_eq(fake_text(&a, RS_TAG_MODEL_ID), "m1");
    ck_assert_str_eq(fake_text(&a, RS_TAG_SESSION_ID), "s1");
    ck_assert_str_eq(fake_text(&a, RS_TAG_TRACEPARENT), "00-1-2-3");
    ck_assert(!rs_fields_has(&a.fields, RS_TAG_TIMEOUT_MS));
    ck_assert_str_eq(fake_header(&a, "x-test"), "one");
    ck_assert_str_eq(fake_header(&a, "x-two"), "MiXed");
    ck_assert_str_eq(fake_header(&a, "empty"), "");
    ck_assert_str_eq(fake_header(&a, "cookie"), "a=1; b=two");
    ck_assert_str_eq(fake_header(&a, "x-request-id"), fake_text(&a, RS_TAG_REQUEST_ID));
    ck_assert_uint_eq(a.fields.at[RS_TAG_REQUEST_ID].len, 36);
    ck_assert_ptr_nonnull(memmem(a.meta, a.h.meta_len, "x-test\0one\0x-test\0two\0", 22));
    fake_ok(&a, "");
    client_expect(&c, 200, "");
    end();
}
END_TEST

static const struct {
    const char *sent;  /* header line or "" */
    const char *back;  /* NULL: a generated one */
    bool generated_id; /* REQUEST_ID is not what was sent */
} ids[] = {
    {"", NULL, true},
    {"X-Request-ID: abc-123\r\n", "abc-123", false},
    {"x-request-id: Other ID\r\n", "Other ID", false},
    {"X-Request-ID:\r\n", "", true},
    {"X-Request-ID: first\r\nX-Request-ID: second\r\n", "first", false},
};

START_TEST(request_ids)
{
    char text[256];

    begin();
    snprintf(text, sizeof(text), "GET / HTTP/1.1\r\nHost: x\r\n%s\r\n", ids[_i].sent);
    client_send(&c, text);
    fake_expect(&a, RS_MSG_REQUEST);
    if (ids[_i].generated_id)
        ck_assert_uint_eq(a.fields.at[RS_TAG_REQUEST_ID].len, 36);
    else
        ck_assert_str_eq(fake_text(&a, RS_TAG_REQUEST_ID), ids[_i].back);
    fake_answer(&a, 200, "x-request-id: of the app\n", "", 0, RS_FRAME_END);
    client_expect(&c, 200, "");
    ck_assert_str_eq(client_header_nth(&c, "x-request-id", 0), "of the app");
    if (ids[_i].back)
        ck_assert_str_eq(client_header_nth(&c, "x-request-id", 1), ids[_i].back);
    else
        ck_assert_str_eq(client_header_nth(&c, "x-request-id", 1),
                         fake_text(&a, RS_TAG_REQUEST_ID));
    end();
}
END_TEST

/* Answered without a replica. */
static const struct {
    const char *request;
    int status;
    const char *body, *type;
} refused[] = {
    {"GET /-/healthz HTTP/1.1\r\nHost: x\r\n\r\n", 200, "success", "text/plain; charset=utf-8"},
    {"GET /%2D/healthz HTTP/1.1\r\nHost: x\r\n\r\n", 200, "success", "text/plain; charset=utf-8"},
    {"GET /-/routes HTTP/1.1\r\nHost: x\r\n\r\n", 200, "{\"/\":\"app\"}", "application/json"},
    {"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n", 405, "Method Not Allowed", NULL},
    {"GET / HTTP/1.1\r\n\r\n", 400, NULL, NULL}, /* no Host */
    {"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400, "More than one Host header.", NULL},
    {"GET / HTTP/1.1\r\nHost: x\r\nBad Name: y\r\n\r\n", 400, "A blank in a header's name.", NULL},
    {"GET / HTTP/1.1\r\nHost: x\r\nContent-Length : 5\r\n\r\n", 400, "A blank in a header's name.",
     NULL},
    {"GET / HTTP/1.1\r\nHost: x\r\nA: b\001c\r\n\r\n", 400, "A control character in the request.",
     NULL},
    {"GET / HTTP/1.1\r\nHost: x\r\nA: b\rc\r\n\r\n", 400, "A control character in the request.",
     NULL},
    {"GET / HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n", 400, NULL, NULL},
    {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\na", 400,
     "More than one Content-Length.", NULL},
    {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\na", 400, NULL, NULL},
    {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"
     "1\r\na\r\n0\r\n\r\n",
     400, "Transfer-Encoding and Content-Length do not go together.", NULL},
    {"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\nExpect: "
     "100-continue\r\n\r\n",
     400, "Unsupported Transfer-Encoding.", NULL},
    {"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", 400, NULL, NULL},
    {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999\r\nExpect: 100-continue\r\n\r\n", 413,
     "Request body is too large: at most 67108864 bytes are taken here.",
     "text/plain; charset=utf-8"},
    {"GET / HTTP/2.0\r\nHost: x\r\n\r\n", 505, NULL, NULL},
    {"GET / HTTP/0.9\r\nHost: x\r\n\r\n", 505, NULL, NULL},
};

START_TEST(answers_of_its_own)
{
    begin();
    client_send(&c, refused[_i].request);
    client_expect(&c, refused[_i].status, refused[_i].body);
    if (refused[_i].type)
        ck_assert_str_eq(client_header(&c, "content-type"), refused[_i].type);
    ck_assert_uint_eq(stat_of(&w, "front", NULL).done, 0);
    end();
}
END_TEST

START_TEST(not_populated_not_found_draining)
{
    struct rs_route_app apps[] = {
        {"one", "/one", "d"}, {"null", NULL, "d"}, {"two", "/one/two", "d"}};
    struct rs_routes routes = {.apps = apps, .n_apps = 3};

    conf = world_conf;
    world_begin(&w, &conf);
    client_open(&c, &w);
    client_get(&c, "/-/healthz");
    client_expect(&c, 503, "Route table is not populated yet.");
    client_get(&c, "/-/routes");
    client_expect(&c, 503, "Route table is not populated yet.");
    client_get(&c, "/x");
    client_expect(&c, 404, "Path '/x' not found. Ping http://.../-/routes for available routes.");
    routes.populated = true;
    rs_dataplane_routes(w.dp, &routes);
    do { /* until the lane has it */
        client_get(&c, "/-/healthz");
        client_read(&c);
    } while (c.status == 503);
    client_get(&c, "/-/routes");
    client_expect(&c, 200, "{\"/one\":\"one\",\"/one/two\":\"two\"}");
    client_get(&c, "/onetwo%20x?q");
    client_expect(&c, 404,
                  "Path '/onetwo x' not found. Ping http://.../-/routes for available routes.");
    ck_assert_str_eq(client_header(&c, "content-type"), "text/plain; charset=utf-8");
    client_get(&c, "/one/x"); /* an ingress that does not exist */
    client_expect(&c, 404, NULL);
    routes.draining = true;
    rs_dataplane_routes(w.dp, &routes);
    do {
        client_get(&c, "/-/healthz");
        client_read(&c);
    } while (c.status == 200);
    ck_assert_str_eq(rs_buf_text(&c.body), "This node is being drained.");
    client_close(&c);
    world_end(&w);
}
END_TEST

START_TEST(root_path_is_added)
{
    struct rs_ingress_conf cf = world_conf;

    cf.root_path = "/base";
    begin_with(cf);
    client_get(&c, "/x%20y?q");
    fake_expect(&a, RS_MSG_REQUEST);
    ck_assert_str_eq(fake_text(&a, RS_TAG_PATH), "/base/x%20y");
    ck_assert_str_eq(fake_text(&a, RS_TAG_ROOT_PATH), "/base");
    fake_ok(&a, "");
    client_expect(&c, 200, "");
    end();
}
END_TEST

START_TEST(header_limits)
{
    struct rs_ingress_conf cf = world_conf;
    struct rs_buf text = {0};

    cf.max_header = 16 << 10;
    begin_with(cf);
    rs_buf_puts(&text, "GET / HTTP/1.1\r\nHost: x\r\nBig: ");
    for (int i = 0; i < 16000; i++)
        rs_buf_puts(&text, "x");
    rs_buf_puts(&text, "\r\n\r\n");
    client_send(&c, rs_buf_text(&text));
    fake_expect(&a, RS_MSG_REQUEST); /* just fits */
    fake_ok(&a, "");
    client_expect(&c, 200, "");
    rs_buf_clear(&text);
    rs_buf_puts(&text, "GET / HTTP/1.1\r\nHost: x\r\nBig: ");
    for (int i = 0; i < 17000; i++)
        rs_buf_puts(&text, "x");
    rs_buf_puts(&text, "\r\n\r\n");
    client_send(&c, rs_buf_text(&text));
    client_expect(&c, 431, "Request Header Fields Too Large");
    client_expect_end(&c);
    client_close(&c);
    client_open(&c, &w);
    for (int i = 0; i < 40000; i++)
        rs_buf_puts(&text, "x");
    client_send(&c, rs_buf_text(&text)); /* what is not even read to its end */
    client_expect(&c, 431, NULL);
    rs_buf_fini(&text);
    end();
}
END_TEST

/* --- bodies of requests ------------------------------------------------------------------------ */

static const struct {
    const char *text; /* after the Host header */
    const char *body;
} bodies[] = {
    {"Content-Length: 5\r\n\r\nhello", "hello"},
    {"Content-Length: 0\r\n\r\n", ""},
    {"Transfer-Encoding: chunked\r\n\r\n1\r\nh\r\n4;x=y\r\nello\r\n0\r\n\r\n", "hello"},
    {"Transfer-Encoding: Chunked\r\n\r\n0\r\nTrailer: x\r\n\r\n", ""},
};

START_TEST(bodies_arrive_whole)
{
    struct rs_buf text = {0};

    begin();
    rs_buf_printf(&text, "POST / HTTP/1.1\r\nHost: x\r\n%s", bodies[_i].text);
    for (int round = 0; round < 2; round++) {
        for (size_t i = 0; i < rs_buf_len(&text); i++) /* byte by byte the second time */
            if (round == 1 || i == 0)
                send_all(c.fd, rs_buf_head(&text) + i, round ? 1 : rs_buf_len(&text));
        fake_expect(&a, RS_MSG_REQUEST);
        ck_assert_uint_eq(a.h.flags, RS_FRAME_END);
        ck_assert_str_eq(a.body, bodies[_i].body);
        ck_assert_ptr_null(fake_header(&a, "transfer-encoding"));
        fake_ok(&a, "taken");
        client_expect(&c, 200, "taken");
    }
    rs_buf_fini(&text);
    end();
}
END_TEST

START_TEST(a_body_over_64k_is_a_memfd)
{
    enum { LEN = 300000 };
    rs_auto(rs_freep) char *data = rs_alloc(LEN + 1);

    begin();
    for (int i = 0; i < LEN; i++)
        data[i] = (char)('a' + i % 26);
    for (int round = 0; round < 2; round++) {
        client_send(
            &c, round ? "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n493e0\r\n"
                      : "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 300000\r\n\r\n");
        send_all(c.fd, data, LEN);
        if (round)
            client_send(&c, "\r\n0\r\n\r\n");
        fake_expect(&a, RS_MSG_REQUEST);
        ck_assert_uint_eq(a.h.flags, RS_FRAME_END | RS_FRAME_MEMFD);
        ck_assert_uint_eq(a.h.body_len, LEN);
        ck_assert_str_eq(a.body, data);
        fake_ok(&a, "taken");
        client_expect(&c, 200, "taken");
    }
    end();
}
END_TEST

/* More than the buffer takes: it is streamed, and no faster than the replica takes it. */
START_TEST(a_longer_body_is_streamed_with_credit)
{
    struct rs_ingress_conf cf = world_conf;
    struct rs_buf credit = {0};
    size_t sent = 0, got;
    char zeros[8192] = {0};

    cf.buffer_body = 10000;
    begin_with(cf);
    client_send(&c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 40000000\r\n\r\n");
    while (true) { /* until nobody takes more */
        ssize_t n = send(c.fd, zeros, sizeof(zeros), MSG_DONTWAIT | MSG_NOSIGNAL);
        struct pollfd p = {.fd = c.fd, .events = POLLOUT};

        if (n < 0 && poll(&p, 1, 200) == 0)
            break;
        sent += n > 0 ? (size_t)n : 0;
        ck_assert_uint_lt(sent, 39000000);
    }
    fake_expect(&a, RS_MSG_REQUEST);
    ck_assert_uint_eq(a.h.flags & RS_FRAME_END, 0);
    ck_assert_uint_gt(a.h.body_len, 10000);
    got = a.h.body_len;
    while (got < RS_STREAM_WINDOW) {
        fake_expect(&a, RS_MSG_BODY);
        got += a.h.body_len;
    }
    ck_assert_uint_lt(got, RS_STREAM_WINDOW + (160 << 10)); /* one read more */
    ck_assert_int_eq(recv(a.fd, zeros, 1, MSG_DONTWAIT | MSG_PEEK), -1);
    rs_field_put_uint(&credit, RS_TAG_CREDIT, 100000);
    fake_send(&a, RS_MSG_WINDOW, 0, a.h.stream, &credit, NULL, 0);
    while (got < RS_STREAM_WINDOW + 100000) {
        fake_expect(&a, RS_MSG_BODY);
        got += a.h.body_len;
    }
    /* An answer before the body has ended: the rest is thrown away. */
    fake_ok(&a, "enough");
    fake_expect(&a, RS_MSG_BODY);
    while (a.h.body_len)
        fake_expect(&a, RS_MSG_BODY);
    ck_assert_uint_eq(a.h.flags, RS_FRAME_END);
    while (sent < 40000000) {
        size_t n = 40000000 - sent < sizeof(zeros) ? 40000000 - sent : sizeof(zeros);

        send_all(c.fd, zeros, n);
        sent += n;
    }
    client_expect(&c, 200, "enough");
    rs_buf_fini(&credit);
    end();
}
END_TEST

START_TEST(a_slow_body_holds_no_slot)
{
    struct client quick;

    begin();
    world_routes_with(&w, (struct rs_route_deployment){.max_ongoing = 1, .max_queued = 0});
    client_send(&c, "POST /slow HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf");
    wait_ongoing(&w, 1);
    client_open(&quick, &w);
    client_get(&quick, "/quick");
    fake_expect(&a, RS_MSG_REQUEST);
    ck_assert_str_eq(fake_text(&a, RS_TAG_PATH), "/quick");
    fake_ok(&a, "quick");
    client_expect(&quick, 200, "quick");
    client_send(&c, "andend");
    fake_expect(&a, RS_MSG_REQUEST);
    ck_assert_str_eq(a.body, "halfandend");
    fake_ok(&a, "slow");
    client_expect(&c, 200, "slow");
    client_close(&quick);
    end();
}
END_TEST

START_TEST(expect_100_continue)
{
    begin();
    client_send(&c,
                "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n");
    client_read_head(&c);
    ck_assert_int_eq(c.status, 100);
    client_send(&c, "ok");
    fake_expect(&a, RS_MSG_REQUEST);
    ck_assert_str_eq(a.body, "ok");
    fake_ok(&a, "fine");
    client_expect(&c, 200, "fine");
    end();
}
END_TEST

START_TEST(too_large_while_it_comes)
{
    struct rs_ingress_conf cf = world_conf;
    rs_auto(rs_freep) char *data = rs_alloc(200000);

    cf.max_body = 100000;
    cf.buffer_body = _i ? 1000 : 1 << 20; /* streamed or not */
    begin_with(cf);
    client_send(&c, "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n30d40\r\n");
    send_all(c.fd, data, 2000);
    if (_i)
        fake_expect(&a, RS_MSG_REQUEST);
    send_all(c.fd, data, 198000);
    client_expect(&c, 413, "Request body is too large: at most 100000 bytes are taken here.");
    if (_i) {
        while (a.h.type != RS_MSG_CANCEL)
            ck_assert(fake_read(&a));
    }
    client_expect_end(&c);
    wait_ongoing(&w, 1); /* it still reads what comes */
    client_close(&c);
    wait_ongoing(&w, 0);
    end();
}
END_TEST

START_TEST(a_broken_body_stops_the_work)
{
    struct rs_ingress_conf cf = world_conf;

    cf.buffer_body = 2;
    begin_with(cf);
    client_send(&c, "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello");
    fake_expect(&a, RS_MSG_REQUEST);
    ck_assert_str_eq(a.body, "hello");
    client_send(&c, "\r\nno number\r\n");
    fake_expect(&a, RS_MSG_CANCEL);
    client_expect(&c, 400, NULL);
    client_expect_end(&c);
    wait_ongoing(&w, 0);
    end();
}
END_TEST

START_TEST(a_short_unwanted_body_keeps_the_connection)
{
    begin();
    client_send(&c, "POST /-/healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody");
    client_expect(&c, 200, "success");
    client_get(&c, "/");
    fake_expect(&a, RS_MSG_REQUEST);
    fake_ok(&a, "same connection");
    client_expect(&c, 200, "same connection");
    end();
}
END_TEST

/* --- answers ----------------------------------------------------------------------------------- */

START_TEST(keep_alive_and_pipelining)
{
    begin();
    for (int i = 0; i < 3; i++) {
        client_get(&c, "/");
        fake_expect(&a, RS_MSG_REQUEST);
        fake_ok(&a, "again");
        client_expect(&c, 200, "again");
    }
    client_send(&c, "GET /1 HTTP/1.1\r\nHost: x\r\n\r\nPOST /2 HTTP/1.1\r\nHost: x\r\n"
                    "Content-Length: 3\r\n\r\nabcGET /3 HTTP/1.1\r\nHost: x\r\n"
                    "Connection: close\r\n\r\n");
    for (int i = 1; i <= 3; i++) {
        char path[8];

        fake_expect(&a, RS_MSG_REQUEST);
        snprintf(path, sizeof(path), "/%d", i);
        ck_assert_str_eq(fake_text(&a, RS_TAG_PATH), path);
        fake_ok(&a, path);
        client_expect(&c, 200, path);
    }
    client_expect_end(&c);
    end();
}
END_TEST

START_TEST(headers_of_an_answer)
{
    begin();
    client_get(&c, "/");
    fake_expect(&a, RS_MSG_REQUEST);
    fake_answer(&a, 299,
                "set-cookie: a=1\nset-cookie: b=2\nempty: \nconnection: close\n"
                "transfer-encoding: chunked\nkeep-alive: x\nx-bad: a\rb\ncontent-length: 5\n",
                "12345", 5, RS_FRAME_END);
    client_expect(&c, 299, "12345");
    ck_assert_str_eq(client_header_nth(&c, "set-cookie", 0), "a=1");
    ck_assert_str_eq(client_header_nth(&c, "set-cookie", 1), "b=2");
    ck_assert(has_header(&c, "empty"));
    ck_assert_str_eq(client_header(&c, "empty"), "");
    ck_assert(!has_header(&c, "connection"));
    ck_assert(!has_header(&c, "keep-alive"));
    ck_assert(!has_header(&c, "transfer-encoding"));
    ck_assert(!has_header(&c, "content-type"));
    ck_assert(!has_header(&c, "x-bad"));
    ck_assert_str_eq(client_header_nth(&c, "content-length", 0), "5");
    ck_assert_str_eq(client_header_nth(&c, "content-length", 1), "");
    ck_assert(has_header(&c, "date"));
    end();
}
END_TEST

static const struct {
    unsigned status;
    const char *headers, *body;
    const char *length;
} heads[] = {
    {200, "content-length: 9\n", "", "9"},
    {200, "", "", "0"},
    {200, "", "body to leave out", "17"},
    {404, "content-length: 1000000\n", "", "1000000"},
};

START_TEST(head_has_no_body)
{
    begin();
    client_send(&c, "HEAD / HTTP/1.1\r\nHost: x\r\n\r\n");
    fake_expect(&a, RS_MSG_REQUEST);
    fake_answer(&a, heads[_i].status, heads[_i].headers, heads[_i].body, strlen(heads[_i].body),
                RS_FRAME_END);
    client_read_head(&c);
    ck_assert_int_eq(c.status, (int)heads[_i].status);
    ck_assert_str_eq(client_header(&c, "content-length"), heads[_i].length);
    /* And streamed, as a framework does that does not know of HEAD. */
    client_send(&c, "HEAD / HTTP/1.1\r\nHost: x\r\n\r\n");
    fake_expect(&a, RS_MSG_REQUEST);
    fake_answer(&a, heads[_i].status, heads[_i].headers, "part", 4, 0);
    client_read_head(&c);
    if (!heads[_i].headers[0]) { /* nobody knows how long it would be */
        ck_assert(!has_header(&c, "content-length"));
        client_expect_end(&c);
        client_close(&c);
        client_open(&c, &w);
    }
    client_get(&c, "/next");
    fake_send(&a, RS_MSG_BODY, RS_FRAME_END, a.h.stream, NULL, "end", 3);
    fake_expect(&a, RS_MSG_REQUEST);
    ck_assert_str_eq(fake_text(&a, RS_TAG_PATH), "/next");
    fake_ok(&a, "next");
    client_expect(&c, 200, "next");
    wait_ongoing(&w, 0);
    end();
}
END_TEST

START_TEST(no_body_with_204_and_304)
{
    begin();
    for (int i = 0; i < 2; i++) {
        client_get(&c, "/");
        fake_expect(&a, RS_MSG_REQUEST);
        fake_answer(&a, i ? 304 : 204, "x: y\n", "ignored", 7, RS_FRAME_END);
        client_expect(&c, i ? 304 : 204, "");
        ck_assert_str_eq(client_header(&c, "content-length"), i ? "0" : "");
        ck_assert(!has_header(&c, "transfer-encoding"));
    }
    end();
}
END_TEST

START_TEST(a_stream_arrives_as_it_is_made)
{
    begin();
    client_get(&c, "/");
    fake_expect(&a, RS_MSG_REQUEST);
    fake_answer(&a, 206, "content-type: text/event-stream\n", "", 0, 0);
    client_read_head(&c); /* the head does not wait for the body */
    ck_assert_int_eq(c.status, 206);
    ck_assert(c.chunked);
    for (int i = 0; i < 3; i++) {
        fake_send(&a, RS_MSG_BODY, 0, a.h.stream, NULL, "tick", 4);
        ck_assert_int_eq(client_read_chunk(&c), 4);
    }
    fake_send(&a, RS_MSG_BODY, RS_FRAME_END, a.h.stream, NULL, "end", 3);
    ck_assert_int_eq(client_read_chunk(&c), 3);
    ck_assert_int_eq(client_read_chunk(&c), 0);
    ck_assert_str_eq(rs_buf_text(&c.body), "tickticktickend");
    /* The connection can be used again; an empty stream ends at once. */
    client_get(&c, "/");
    fake_expect(&a, RS_MSG_REQUEST);
    fake_answer(&a, 200, "", "", 0, 0);
    fake_send(&a, RS_MSG_BODY, RS_FRAME_END, a.h.stream, NULL, NULL, 0);
    client_expect(&c, 200, "");
    ck_assert(c.chunked);
    end();
}
END_TEST

START_TEST(a_stream_of_known_length)
{
    begin();
    client_get(&c, "/");
    fake_expect(&a, RS_MSG_REQUEST);
    fake_answer(&a, 200, "content-length: 8\n", "1234", 4, 0);
    fake_send(&a, RS_MSG_BODY, 0, a.h.stream, NULL, "5678", 4);
    client_expect(&c, 200, "12345678"); /* complete before the replica says so */
    ck_assert_str_eq(client_header(&c, "content-length"), "8");
    fake_send(&a, RS_MSG_BODY, RS_FRAME_END, a.h.stream, NULL, NULL, 0);
    wait_ongoing(&w, 0);
    /* Less than was promised: the client sees that. */
    client_get(&c, "/");
    fake_expect(&a, RS_MSG_REQUEST);
    fake_answer(&a, 200, "content-length: 8\n", "1234", 4, 0);
    fake_send(&a, RS_MSG_BODY, RS_FRAME_END, a.h.stream, NULL, "5", 1);
    client_read(&c);
    ck_assert(c.broken);
    end();
}
END_TEST

START_TEST(a_big_answer)
{
    enum { LEN = 5000000 };
    rs_auto(rs_freep) char *data = rs_alloc(LEN);

    begin();
    for (int i = 0; i < LEN; i++)
        data[i] = (char)(i * 7);
    client_get(&c, "/");
    fake_expect(&a, RS_MSG_REQUEST);
    fake_answer(&a, 200, "content-type: x\n", data, LEN, _i ? 0 : RS_FRAME_END);
    if (_i)
        fake_send(&a, RS_MSG_BODY, RS_FRAME_END, a.h.stream, NULL, NULL, 0);
    client_read(&c);
    ck_assert_int_eq(c.chunked, _i);
    ck_assert_uint_eq(rs_buf_len(&c.body), LEN);
    ck_assert_int_eq(memcmp(rs_buf_head(&c.body), data, LEN), 0);
    end();
}
END_TEST

/* A client that does not read holds the replica back. */
START_TEST(a_slow_reader_holds_the_stream_back)
{
    enum { PIECE = 32768, PIECES = 2000 };
    rs_auto(rs_freep) char *piece = rs_alloc(PIECE);
    int64_t credit = RS_STREAM_WINDOW;
    int sent = 0;

    begin();
    client_get(&c, "/");
    fake_expect(&a, RS_MSG_REQUEST);
    fake_answer(&a, 200, "", "", 0, 0);
    client_read_head(&c);
    while (true) { /* as long as there is credit */
        struct pollfd p = {.fd = a.fd, .events = POLLIN};

        if (credit <= 0 && poll(&p, 1, 100) == 0)
            break;
        if (poll(&p, 1, 0) > 0) {
            fake_expect(&a, RS_MSG_WINDOW);
            credit += (int64_t)rs_fields_uint(&a.fields, RS_TAG_CREDIT, 0);
            continue;
        }
        ck_assert_int_lt(sent, PIECES);
        fake_send(&a, RS_MSG_BODY, 0, 2, NULL, piece, PIECE);
        credit -= PIECE;
        sent++;
    }
    ck_assert_int_gt(sent, 8);
    fake_send(&a, RS_MSG_BODY, RS_FRAME_END, 2, NULL, NULL, 0);
    client_read_body(&c, false);
    ck_assert(!c.broken);
    ck_assert_uint_eq(rs_buf_len(&c.body), (size_t)sent * PIECE);
    end();
}
END_TEST

START_TEST(http_1_0)
{
    begin();
    client_send(&c, "GET / HTTP/1.0\r\n\r\n");
    fake_expect(&a, RS_MSG_REQUEST);
    ck_assert_str_eq(fake_text(&a, RS_TAG_HTTP_VERSION), "1.0");
    fake_answer(&a, 200, "", "one", 3, 0);
    fake_send(&a, RS_MSG_BODY, RS_FRAME_END, a.h.stream, NULL, "two", 3);
    client_expect(&c, 200, "onetwo"); /* until the connection ends */
    ck_assert(!c.chunked);
    end();
}
END_TEST

/* --- failures ---------------------------------------------------------------------------------- */

static const struct {
    enum rs_wire_error code;
    int status;
    const char *body, *type;
    bool has_id;
} failures[] = {
    {RS_WIRE_USER, 500, "Internal Server Error", "", true},
    {RS_WIRE_BACKPRESSURE, 503, "why", "", true},
    {RS_WIRE_UNAVAILABLE, 503, "why", "", true},
    {RS_WIRE_CANCELLED, 500, "Internal Server Error", "", true},
    {RS_WIRE_NOT_FOUND, 500, "Internal Server Error", "text/plain; charset=utf-8", false},
    {RS_WIRE_INTERNAL, 500, "Internal Server Error", "text/plain; charset=utf-8", false},
    {RS_WIRE_DIED, 502, NULL, "text/plain; charset=utf-8", true},
    {RS_WIRE_TOO_LARGE, 413, "why", "text/plain; charset=utf-8", true},
    {(enum rs_wire_error)99, 500, "Internal Server Error", "text/plain; charset=utf-8", false},
};

START_TEST(what_failed_becomes_a_status)
{
    begin();
    client_get(&c, "/");
    fake_expect(&a, RS_MSG_REQUEST);
    fake_error(&a, a.h.stream, failures[_i].code, "why");
    client_expect(&c, failures[_i].status, failures[_i].body);
    ck_assert_str_eq(client_header(&c, "content-type"), failures[_i].type);
    ck_assert_int_eq(has_header(&c, "x-request-id"), failures[_i].has_id);
    client_get(&c, "/");
    fake_expect(&a, RS_MSG_REQUEST);
    fake_answer(&a, 101, "", "", 0, RS_FRAME_END); /* no answer to a request */
    client_expect(&c, 500, "Internal Server Error");
    end();
}
END_TEST

START_TEST(a_failure_in_the_middle_breaks_off)
{
    begin();
    client_get(&c, "/");
    fake_expect(&a, RS_MSG_REQUEST);
    fake_answer(&a, 200, "", "first", 5, 0);
    client_read_head(&c);
    ck_assert_int_eq(client_read_chunk(&c), 5);
    if (_i)
        fake_end(&a);
    else
        fake_error(&a, 2, RS_WIRE_USER, "in the middle");
    ck_assert_int_eq(client_read_chunk(&c), -1);
    client_close(&c);
    wait_ongoing(&w, 0);
    ck_assert(metric_is(&w, "ray_serve_num_http_requests_total{route=\"/\",method=\"GET\","
                            "application=\"app\",status_code=\"200\"} 1"));
    end();
}
END_TEST

START_TEST(the_client_hangs_up)
{
    begin();
    client_get(&c, "/");
    fake_expect(&a, RS_MSG_REQUEST);
    if (_i == 1) { /* while an answer is coming */
        fake_answer(&a, 200, "", "first", 5, 0);
        client_read_head(&c);
    }
    if (_i == 2) { /* by half */
        ck_assert_int_eq(shutdown(c.fd, SHUT_WR), 0);
    } else {
        client_close(&c);
    }
    fake_expect(&a, RS_MSG_CANCEL);
    ck_assert_uint_eq(a.h.stream, 2);
    wait_ongoing(&w, 0);
    ck_assert(metric_is(&w, "ray_serve_num_http_requests_total{route=\"/\",method=\"GET\","
                            "application=\"app\",status_code=\"499\"} 1"));
    end();
}
END_TEST

START_TEST(the_client_hangs_up_in_its_body)
{
    struct rs_ingress_conf cf = world_conf;

    cf.buffer_body = 10;
    begin_with(cf);
    client_send(&c,
                "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nmore than ten bytes");
    fake_expect(&a, RS_MSG_REQUEST);
    client_close(&c);
    fake_expect(&a, RS_MSG_CANCEL);
    wait_ongoing(&w, 0);
    end();
}
END_TEST

START_TEST(work_goes_on_without_the_client)
{
    begin();
    client_send(&c, "GET / HTTP/1.1\r\nHost: x\r\nx-request-disconnect-disabled: ?1\r\n\r\n");
    fake_expect(&a, RS_MSG_REQUEST);
    client_close(&c);
    if (_i) /* a streamed answer */
        fake_answer(&a, 200, "", "nobody", 6, 0);
    ck_assert_uint_eq(rs_dataplane_ongoing(w.dp), 1);
    if (_i)
        fake_send(&a, RS_MSG_BODY, RS_FRAME_END, a.h.stream, NULL, "reads this", 10);
    else
        fake_ok(&a, "nobody reads this");
    wait_ongoing(&w, 0);
    ck_assert_uint_eq(stat_of(&w, "front", "r1").done, 1);
    ck_assert_uint_eq(stat_of(&w, "front", "r1").errors, 0);
    end();
}
END_TEST

/* --- time limits ------------------------------------------------------------------------------- */

START_TEST(a_request_times_out)
{
    struct rs_ingress_conf cf = world_conf;

    cf.request_timeout = 50 * RS_MS;
    begin_with(cf);
    client_send(&c, "GET / HTTP/1.1\r\nHost: x\r\nX-Request-ID: known\r\n\r\n");
    fake_expect(&a, RS_MSG_REQUEST);
    ck_assert_uint_gt(rs_fields_uint(&a.fields, RS_TAG_TIMEOUT_MS, 0), 0);
    ck_assert_uint_le(rs_fields_uint(&a.fields, RS_TAG_TIMEOUT_MS, 0), 50);
    client_expect(&c, 408, "Request known timed out after 0.05s.");
    ck_assert_str_eq(client_header(&c, "content-type"), "text/plain; charset=utf-8");
    ck_assert_str_eq(client_header(&c, "x-request-id"), "known");
    fake_expect(&a, RS_MSG_CANCEL);
    fake_ok(&a, "too late");
    /* Its own limit, and none. */
    client_send(&c, "GET / HTTP/1.1\r\nHost: x\r\nx-request-id: i\r\n"
                    "x-request-timeout-seconds: 0.01\r\n\r\n");
    client_expect(&c, 408, "Request i timed out after 0.01s.");
    fake_expect(&a, RS_MSG_REQUEST);
    fake_expect(&a, RS_MSG_CANCEL);
    client_send(&c, "GET / HTTP/1.1\r\nHost: x\r\nx-request-timeout-seconds: -1\r\n\r\n");
    fake_expect(&a, RS_MSG_REQUEST);
    ck_assert(!rs_fields_has(&a.fields, RS_TAG_TIMEOUT_MS));
    fake_ok(&a, "no limit");
    client_expect(&c, 200, "no limit");
    client_send(&c, "GET / HTTP/1.1\r\nHost: x\r\nx-request-timeout-seconds: 1x\r\n\r\n");
    fake_expect(&a, RS_MSG_REQUEST);
    ck_assert(rs_fields_has(&a.fields, RS_TAG_TIMEOUT_MS)); /* garbage is ignored */
    fake_ok(&a, "in time");
    client_expect(&c, 200, "in time");
    end();
}
END_TEST

START_TEST(a_queued_request_times_out)
{
    struct rs_ingress_conf cf = world_conf;

    cf.request_timeout = 20 * RS_MS;
    begin_with(cf);
    rs_dataplane_retire(w.dp, "r1");
    expect_event(&w, "idle", "r1");
    client_get(&c, "/");
    client_expect(&c, 408, NULL);
    ck_assert_uint_eq(stat_of(&w, "front", NULL).queued, 0);
    end();
}
END_TEST

START_TEST(a_begun_answer_times_out)
{
    struct rs_ingress_conf cf = world_conf;

    cf.request_timeout = 50 * RS_MS;
    begin_with(cf);
    client_get(&c, "/");
    fake_expect(&a, RS_MSG_REQUEST);
    fake_answer(&a, 200, "", "first", 5, 0);
    client_read_head(&c);
    ck_assert_int_eq(client_read_chunk(&c), 5);
    ck_assert_int_eq(client_read_chunk(&c), -1);
    fake_expect(&a, RS_MSG_CANCEL);
    wait_ongoing(&w, 0);
    end();
}
END_TEST

START_TEST(a_body_that_does_not_come_times_out)
{
    struct rs_ingress_conf cf = world_conf;

    cf.request_timeout = 50 * RS_MS;
    cf.buffer_body = _i ? 2 : 1 << 20;
    begin_with(cf);
    client_send(&c,
                "POST / HTTP/1.1\r\nHost: x\r\nx-request-id: i\r\nContent-Length: 10\r\n\r\nhalf");
    client_expect(&c, 408, "Request i timed out after 0.05s.");
    client_expect_end(&c);
    client_close(&c);
    wait_ongoing(&w, 0);
    end();
}
END_TEST

START_TEST(idle_connections_end)
{
    struct rs_ingress_conf cf = world_conf;

    cf.keep_alive_timeout = RS_SEC;
    begin_with(cf);
    client_get(&c, "/-/healthz");
    client_expect(&c, 200, "success");
    client_expect_end(&c);
    end();
}
END_TEST

/* --- many -------------------------------------------------------------------------------------- */

START_TEST(many_connections)
{
    enum { N = 300 };
    static struct client many[N];

    begin();
    world_routes_with(&w, (struct rs_route_deployment){.max_ongoing = 1000, .max_queued = -1});
    fake_sync(&w, &a, "r1");
    for (int i = 0; i < N; i++) {
        client_open(&many[i], &w);
        client_get(&many[i], "/");
    }
    for (int i = 0; i < N; i++) {
        fake_expect(&a, RS_MSG_REQUEST);
        if (i % 3)
            fake_ok(&a, "one of many");
        else
            fake_error(&a, a.h.stream, RS_WIRE_USER, "no");
    }
    for (int i = 0; i < N; i++) {
        client_read(&many[i]);
        client_close(&many[i]);
    }
    wait_ongoing(&w, 0);
    ck_assert_uint_eq(stat_of(&w, "front", "r1").done, N);
    ck_assert_uint_eq(stat_of(&w, "front", "r1").errors, N / 3);
    end();
}
END_TEST

START_TEST(metrics_of_http)
{
    begin();
    client_get(&c, "/x");
    fake_expect(&a, RS_MSG_REQUEST);
    fake_ok(&a, "");
    client_expect(&c, 200, "");
    client_send(&c, "BREW /x HTTP/1.1\r\nHost: x\r\n\r\n");
    fake_expect(&a, RS_MSG_REQUEST);
    fake_error(&a, a.h.stream, RS_WIRE_USER, "no");
    client_expect(&c, 500, NULL);
    wait_ongoing(&w, 0);
    ck_assert(metric_is(&w, "ray_serve_num_http_requests_total{route=\"/\",method=\"GET\","
                            "application=\"app\",status_code=\"200\"} 1"));
    ck_assert(metric_is(&w,
                        "ray_serve_num_http_error_requests_total{route=\"/\",error_code=\"500\","
                        "method=\"OTHER\",application=\"app\"} 1"));
    ck_assert(metric_is(&w, "ray_serve_http_request_latency_ms_count{method=\"GET\",route=\"/\","
                            "application=\"app\",status_code=\"200\"} 1"));
    ck_assert(metric_is(&w, "ray_serve_num_ongoing_http_requests{node_id=\"n1\","
                            "node_ip_address=\"\"} 0"));
    ck_assert(metric_is(&w, "ray_serve_deployment_request_counter_total{deployment=\"front\","
                            "replica=\"r1\",route=\"/\",application=\"app\"} 1"));
    ck_assert(metric_is(&w, "ray_serve_deployment_error_counter_total{deployment=\"front\","
                            "replica=\"r1\",route=\"/\",application=\"app\","
                            "exception_type=\"ValueError\"} 1"));
    ck_assert(metric_is(&w, "ray_serve_handle_request_counter_total{handle=\"\","
                            "deployment=\"front\",route=\"/\",application=\"app\"} 2"));
    ck_assert(metric_is(&w, "ray_serve_replica_processing_queries{deployment=\"front\","
                            "replica=\"r1\",application=\"app\"} 0"));
    end();
}
END_TEST

RS_CHECK_MAIN(
    "ingress", tcase_add_loop_test(tc, targets_reach_the_replica_as_they_are, 0, RS_COUNT(targets));
    tcase_add_test(tc, a_long_query); tcase_add_test(tc, fields_of_a_request);
    tcase_add_loop_test(tc, request_ids, 0, RS_COUNT(ids));
    tcase_add_loop_test(tc, answers_of_its_own, 0, RS_COUNT(refused));
    tcase_add_test(tc, not_populated_not_found_draining); tcase_add_test(tc, root_path_is_added);
    tcase_add_test(tc, header_limits);
    tcase_add_loop_test(tc, bodies_arrive_whole, 0, RS_COUNT(bodies));
    tcase_add_test(tc, a_body_over_64k_is_a_memfd);
    tcase_add_test(tc, a_longer_body_is_streamed_with_credit);
    tcase_add_test(tc, a_slow_body_holds_no_slot); tcase_add_test(tc, expect_100_continue);
    tcase_add_loop_test(tc, too_large_while_it_comes, 0, 2);
    tcase_add_test(tc, a_broken_body_stops_the_work);
    tcase_add_test(tc, a_short_unwanted_body_keeps_the_connection);
    tcase_add_test(tc, keep_alive_and_pipelining); tcase_add_test(tc, headers_of_an_answer);
    tcase_add_loop_test(tc, head_has_no_body, 0, RS_COUNT(heads));
    tcase_add_test(tc, no_body_with_204_and_304);
    tcase_add_test(tc, a_stream_arrives_as_it_is_made);
    tcase_add_test(tc, a_stream_of_known_length); tcase_add_loop_test(tc, a_big_answer, 0, 2);
    tcase_add_test(tc, a_slow_reader_holds_the_stream_back); tcase_add_test(tc, http_1_0);
    tcase_add_loop_test(tc, what_failed_becomes_a_status, 0, RS_COUNT(failures));
    tcase_add_loop_test(tc, a_failure_in_the_middle_breaks_off, 0, 2);
    tcase_add_loop_test(tc, the_client_hangs_up, 0, 3);
    tcase_add_test(tc, the_client_hangs_up_in_its_body);
    tcase_add_loop_test(tc, work_goes_on_without_the_client, 0, 2);
    tcase_add_test(tc, a_request_times_out); tcase_add_test(tc, a_queued_request_times_out);
    tcase_add_test(tc, a_begun_answer_times_out);
    tcase_add_loop_test(tc, a_body_that_does_not_come_times_out, 0, 2);
    tcase_add_test(tc, idle_connections_end); tcase_add_test(tc, many_connections);
    tcase_add_test(tc, metrics_of_http);)
