/* The C header as a replica, on one end of a socketpair; this test is its node and speaks bytes. */
#include "tests/unit/sched/replica_node.h"

/* --- life -------------------------------------------------------------------------------------- */

static int note_init(const struct rserve_init *init, char *why, size_t size, void *arg)
{
    char n[8];

    ck_assert_str_eq(init->app, "rag");
    ck_assert_str_eq(init->deployment, "Echo");
    ck_assert_str_eq(init->replica_id, "r1");
    ck_assert_int_eq(rserve_json_text(init->json, init->json_len, "args.n", n, sizeof(n)), 1);
    ck_assert_str_eq(n, "3");
    return 0;
}

static int refuse(const char *json, size_t len, char *why, size_t size, void *arg)
{
    snprintf(why, size, "no \"%.*s\" \xc3\xbc \xff\n", (int)len, json);
    return -1;
}

static int sick(char *why, size_t size, void *arg)
{
    snprintf(why, size, "sick");
    return -1;
}

static void note_stop(void *arg)
{
    stops++;
}

START_TEST(lives)
{
    static const char *const methods[] = {"embed", "count", NULL};
    struct rserve_options o = {
        .init = note_init, .reconfigure = refuse, .stop = note_stop, .methods = methods};

    start(echo, &o);
    ck_assert_str_eq(got.meta,
                     "{\"methods\":[\"embed\",\"count\"],\"asgi\":false,\"docs_path\":null,"
                     "\"has_check_health\":false,\"has_reconfigure\":true,\"ends\":true}");
    send_json(RSERVE_I_PING, 7, "");
    ck_assert_str_eq(receive(RSERVE_I_PONG, 7)->meta, "{\"ok\":true}");
    send_json(RSERVE_I_RECONFIGURE, 0, "[1]");
    ck_assert_str_eq(receive(RSERVE_I_FAILED, 0)->meta,
                     "{\"phase\":\"reconfigure\",\"error\":\"no \\\"[1]\\\" \xc3\xbc "
                     "\\u00ff\\u000a\",\"traceback\":\"\"}");
    stop();
    ck_assert_int_eq(stops, 1);
}
END_TEST

START_TEST(reports_sickness)
{
    struct rserve_options o = {.check_health = sick};

    start(echo, &o);
    send_json(RSERVE_I_PING, 9, "");
    ck_assert_str_eq(receive(RSERVE_I_PONG, 9)->meta, "{\"ok\":false,\"error\":\"sick\"}");
    send_json(RSERVE_I_RECONFIGURE, 0, "{}");
    receive(RSERVE_I_READY, 0);
    stop();
}
END_TEST

static int fail_init(const struct rserve_init *init, char *why, size_t size, void *arg)
{
    snprintf(why, size, "no weights");
    return -1;
}

START_TEST(fails_to_start)
{
    struct rserve_options o = {.init = fail_init, .stop = note_stop};

    start_raw(echo, &o);
    send_json(RSERVE_I_INIT, 0, init_json);
    ck_assert_str_eq(receive(RSERVE_I_FAILED, 0)->meta,
                     "{\"phase\":\"constructor\",\"error\":\"no weights\",\"traceback\":\"\"}");
    ck_assert_int_eq(ended(), 1);
    ck_assert_int_eq(stops, 0);
}
END_TEST

START_TEST(ends_with_its_node)
{
    start(echo, NULL);
    write_all(the_node.fd, "half a frame", 12);
    ck_assert_int_eq(ended(), 1);
}
END_TEST

/* --- requests ---------------------------------------------------------------------------------- */

static int describe(const struct rserve_request *req, struct rserve_response *res, void *arg)
{
    char text[300];
    int n = snprintf(text, sizeof(text), "%s %s?%s %s %s|%s|%s|%.*s|%s|%s|", req->http_method,
                     req->path, req->query, req->id, req->content_type, req->traceparent,
                     rserve_header(req, "x-one"), (int)req->body_len, req->body,
                     rserve_header(req, "x-none"), req->method);

    rserve_add_header(res, "x-a", "1");
    rserve_add_header(res, "x-a", "");
    return rserve_respond(res, 418, "text/plain", text, (size_t)n);
}

START_TEST(describes_requests)
{
    static const char headers[] = "x-a\0001\0x-a\0\0content-type\0text/plain";
    static const char wanted[] = "POST /a%20b?q=1 id-1 text/x-test||1|BODY|||";

    start(describe, NULL);
    for (uint64_t last = 0; last < 3; last++) { /* any field may be the last one */
        http_meta();
        if (last == 1)
            put(200, "unknown", 7);
        if (last == 2)
            put(RSERVE_I_TIMEOUT_MS, "\1\0\0\0", 4);
        memcpy(memmem(meta, meta_len, "x-one", 6) + 6, "1", 1);
        send_frame(RSERVE_I_REQUEST, RSERVE_I_END, 2 + 2 * last, meta, meta_len, "BODY", 4);
        receive(RSERVE_I_RESPONSE, 2 + 2 * last);
        ck_assert_str_eq(got.body, wanted);
        has(RSERVE_I_STATUS, "\xa2\1", 2);
        has(RSERVE_I_HEADERS, headers, sizeof(headers));
    }
    stop();
}
END_TEST

START_TEST(echoes_bodies)
{
    static const size_t sizes[] = {0, 1, 65536, 65537, 200000, 3 << 20};
    char *body = malloc(4 << 20);

    for (size_t i = 0; i < 4 << 20; i++)
        body[i] = (char)(i * 7 + i / 251);
    start(echo, NULL);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        http_meta();
        send_memfd(RSERVE_I_REQUEST, RSERVE_I_END, 2 + 4 * i, body, sizes[i], sizes[i] + 5);
        answered(2 + 4 * i, body, sizes[i]);
        ck_assert_uint_eq(got.flags & RSERVE_I_MEMFD, sizes[i] > 65536 ? RSERVE_I_MEMFD : 0);
        request(4 + 4 * i, body, sizes[i]);
        answered(4 + 4 * i, body, sizes[i]);
    }
    stop();
    free(body);
}
END_TEST

START_TEST(answers_batches)
{
    enum { MANY = 3000 };
    char *all = malloc(ROOM), *p = all;

    http_meta();
    for (uint64_t i = 1; i <= MANY; i++) {
        p += make_header(p, RSERVE_I_REQUEST, RSERVE_I_END, 0, 2 * i, meta_len, 8);
        memcpy(p, meta, meta_len);
        p += meta_len;
        memcpy(p, &i, 8);
        p += 8;
        ck_assert_int_lt(p - all, ROOM - 1000);
    }
    start(echo, NULL);
    if (_i == 0) { /* at once: the socket takes it in pieces of its own */
        pid_t writer = fork();

        if (writer == 0) {
            write_all(the_node.fd, all, (size_t)(p - all));
            _exit(0);
        }
        for (uint64_t i = 1; i <= MANY; i++)
            answered(2 * i, &i, 8);
    } else { /* byte by byte */
        size_t one = (size_t)(p - all) / MANY;

        for (size_t i = 0; i < one * 3; i++)
            write_all(the_node.fd, all + i, 1);
        for (uint64_t i = 1; i <= 3; i++)
            answered(2 * i, &i, 8);
    }
    stop();
    free(all);
}
END_TEST

START_TEST(gathers_streamed_bodies)
{
    struct rserve_options o = {.max_body = 200000};
    char *body = calloc(1, 300000);

    memset(body, 'x', 300000);
    start(echo, &o);
    http_meta();
    send_frame(RSERVE_I_REQUEST, 0, 2, meta, meta_len, body, 10);
    receive(RSERVE_I_WINDOW, 2);
    has(RSERVE_I_CREDIT, "\x0a\0\0\0", 4);
    request(4, "between", 7); /* another one overtakes it */
    answered(4, "between", 7);
    meta_len = 0;
    send_memfd(RSERVE_I_BODY, 0, 2, body, 100000, 100000);
    receive(RSERVE_I_WINDOW, 2);
    send_frame(RSERVE_I_BODY, RSERVE_I_END, 2, NULL, 0, body, 5);
    answered(2, body, 100015);

    http_meta(); /* no body frame has any bytes */
    send_frame(RSERVE_I_REQUEST, 0, 6, meta, meta_len, NULL, 0);
    send_frame(RSERVE_I_BODY, RSERVE_I_END, 6, NULL, 0, NULL, 0);
    answered(6, "", 0);

    http_meta(); /* too long, then forgotten */
    send_frame(RSERVE_I_REQUEST, 0, 8, meta, meta_len, body, 150000);
    receive(RSERVE_I_WINDOW, 8);
    send_frame(RSERVE_I_BODY, 0, 8, NULL, 0, body, 150000);
    failed(8, RSERVE_TOO_LARGE, "ValueError", "the body is too large");
    send_frame(RSERVE_I_BODY, RSERVE_I_END, 8, NULL, 0, body, 1);
    http_meta();
    send_frame(RSERVE_I_REQUEST, RSERVE_I_END, 10, meta, meta_len, body, 200001);
    failed(10, RSERVE_TOO_LARGE, "ValueError", "the body is too large");

    http_meta(); /* cancelled before it was whole */
    send_frame(RSERVE_I_REQUEST, 0, 12, meta, meta_len, body, 10);
    receive(RSERVE_I_WINDOW, 12);
    send_frame(RSERVE_I_CANCEL, 0, 12, NULL, 0, NULL, 0);
    was_cancelled(12);
    request(14, "after", 5);
    answered(14, "after", 5);
    stop();
    free(body);
}
END_TEST

static int misbehave(const struct rserve_request *req, struct rserve_response *res, void *arg)
{
    switch (req->body[0]) {
    case 'n': /* nothing */
        return 0;
    case 'e': /* error */
        return -1;
    case 'f':
        return rserve_fail(res, RSERVE_USER, "ValueError", "bad value") ||
               rserve_fail(res, RSERVE_USER, "ValueError", "twice") == 0;
    case 't': /* twice */
        return rserve_respond(res, 200, NULL, "a", 1) ||
               rserve_respond(res, 200, NULL, "b", 1) == 0;
    case 'w': /* in the wrong order */
        return rserve_stream_chunk(res, "x", 1) == 0 || rserve_stream_end(res) == 0 ||
               rserve_respond(res, 200, NULL, "ok", 2) || rserve_add_header(res, "a", "b") == 0;
    case 's': /* a stream that the handler does not end, and answers in between */
        return rserve_stream_begin(res, 200, NULL) || rserve_respond(res, 200, NULL, "x", 1) == 0;
    default: /* a stream that breaks */
        rserve_stream_begin(res, 200, NULL);
        return -1;
    }
}

START_TEST(survives_handlers)
{
    start(misbehave, NULL);
    request(2, "n", 1);
    failed(2, RSERVE_INTERNAL, "RuntimeError", "the handler returned without an answer");
    request(4, "e", 1);
    failed(4, RSERVE_USER, "RuntimeError", "the handler failed");
    request(6, "f", 1);
    failed(6, RSERVE_USER, "ValueError", "bad value");
    request(8, "t", 1);
    answered(8, "a", 1);
    request(10, "w", 1);
    answered(10, "ok", 2);
    request(12, "s", 1);
    ck_assert_uint_eq(receive(RSERVE_I_RESPONSE, 12)->flags, 0);
    ck_assert_uint_eq(receive(RSERVE_I_BODY, 12)->flags, RSERVE_I_END);
    request(14, "b", 1);
    receive(RSERVE_I_RESPONSE, 14);
    failed(14, RSERVE_USER, "RuntimeError", "the handler failed");
    stop();
}
END_TEST

/* --- streams ----------------------------------------------------------------------------------- */

enum { PIECE = 50000, PIECES = 20 };

static int pour(const struct rserve_request *req, struct rserve_response *res, void *arg)
{
    static char piece[PIECE];
    char copy[32];
    size_t len = req->body_len;

    if (!len)
        return rserve_respond(res, 200, NULL, "short", 5);
    memcpy(copy, req->body, len);
    rserve_stream_begin(res, 200, "text/event-stream");
    for (int i = 0; i < PIECES; i++)
        if (rserve_stream_chunk(res, piece, PIECE) < 0)
            return 0;
    /* what the handler was given has not moved, although much was read meanwhile */
    if (req->body_len != len || memcmp(req->body, copy, len))
        return -1;
    return rserve_stream_end(res);
}

START_TEST(waits_for_credit)
{
    uint64_t had = 0;
    char credit[9] = {RSERVE_I_CREDIT, 4, 0, 0, 0};

    start(pour, NULL);
    request(2, "the request", 11);
    receive(RSERVE_I_RESPONSE, 2);
    for (; had < 256 << 10; had += got.body_len)
        receive(RSERVE_I_BODY, 2);
    ck_assert_uint_eq(had, 6 * PIECE); /* the frame that uses the credit up is the last */
    send_json(RSERVE_I_PING, 1, "");
    receive(RSERVE_I_PONG, 1); /* waiting is not being deaf */
    request(4, "", 0);
    request(6, "", 0);
    send_frame(RSERVE_I_CANCEL, 0, 4, NULL, 0, NULL, 0); /* it has not begun: it never will */
    was_cancelled(4);
    rserve_i_put((unsigned char *)credit + 5, 10 << 20, 4);
    send_frame(RSERVE_I_WINDOW, 0, 2, credit, 9, NULL, 0);
    for (; had < PIECES * PIECE; had += got.body_len)
        receive(RSERVE_I_BODY, 2);
    ck_assert_uint_eq(receive(RSERVE_I_BODY, 2)->flags, RSERVE_I_END);
    answered(6, "short", 5);
    stop();
}
END_TEST

START_TEST(stops_a_cancelled_stream)
{
    start(pour, NULL);
    request(2, "x", 1);
    receive(RSERVE_I_RESPONSE, 2);
    for (int i = 0; i < 6; i++)
        receive(RSERVE_I_BODY, 2);
    send_frame(RSERVE_I_CANCEL, 0, 2, NULL, 0, NULL, 0);
    was_cancelled(2);
    request(4, "", 0);
    answered(4, "short", 5);
    request(6, "x", 1); /* and one that waits when the node goes */
    receive(RSERVE_I_RESPONSE, 6);
    ck_assert_int_eq(ended(), 1);
}
END_TEST

/* --- calls ------------------------------------------------------------------------------------- */

struct pickle {
    const char *in;
    size_t in_len;
    const char *out; /* NULL: TypeError */
};

#define P(in, out)                                                                                 \
    {                                                                                              \
        in, sizeof(in) - 1, out                                                                    \
    }
/* pickle.dumps(((...,), {}), protocol) of CPython */
static const struct pickle pickles[] = {
    P("\x80\x05\x95\x0e\0\0\0\0\0\0\0C\3abc\x94\x85\x94}\x94\x86\x94.", "abc"),
    P("\x80\x05\x95\x0f\0\0\0\0\0\0\0\x8c\3xyz\x94\x85\x94}\x94\x86\x94.", "xyz"),
    P("\x80\4\x95\x0b\0\0\0\0\0\0\0C\0\x94\x85\x94}\x94\x86\x94.", ""),
    P("\x80\3B\3\0\0\0abcq\0\x85q\1}q\2\x86q\3.", NULL), /* protocol 3: BINPUT */
    P("\x80\5X\2\0\0\0hi\x85}\x86.", "hi"),
    P("\x80\5\x96\2\0\0\0\0\0\0\0hi\x94\x85\x94}\x94\x86\x94.", "hi"),
    P("\x80\5)}\x94\x86\x94.", ""), /* no argument */
    P("\x80\5\x95\5\0\0\0\0\0\0\0)}\x94\x86\x94.", ""),
    P("\x80\5K\1\x85\x94}\x94\x86\x94.", NULL), /* (1,) */
    P("\x80\5C\1aC\1b\x86\x94}\x94\x86\x94.", NULL),
    P("\x80\5C\1a\x85}\x86.x", NULL),
    P("\x80\5C\1a\x85}\x86", NULL),
    P("\x80\5B\xff\0\0\0a\x85}\x86.", NULL),
    P("\x80\5\x8e\xff\xff\xff\xff\xff\xff\xff\xff", NULL),
    P("\x80", NULL),
    P("\x95\1", NULL),
    P(")}", NULL),
    P("", NULL),
};

START_TEST(takes_python_calls)
{
    const struct pickle *p = &pickles[_i];
    char wanted[64] = "\x80\5\x8e";
    size_t len = p->out ? strlen(p->out) : 0;

    start(echo, NULL);
    call_meta(NULL, RSERVE_I_PICKLE, 0);
    send_frame(RSERVE_I_REQUEST, RSERVE_I_END, 2, meta, meta_len, p->in, p->in_len);
    if (p->out) {
        rserve_i_put((unsigned char *)wanted + 3, len, 8);
        memcpy(wanted + 11, p->out, len);
        wanted[11 + len] = '.';
        answered(2, wanted, 12 + len);
        has_text(RSERVE_I_CONTENT_TYPE, RSERVE_I_PICKLE);
    } else {
        failed(2, RSERVE_USER, "TypeError",
               "deployment Echo is an executable: call __call__ with one argument of type bytes or "
               "str");
    }
    stop();
}
END_TEST

/* Arrays come with their buffers beside the pickle. */
START_TEST(takes_no_arrays)
{
    start(echo, NULL);
    call_meta(NULL, RSERVE_I_PICKLE "5", 0);
    send_frame(RSERVE_I_REQUEST, RSERVE_I_END, 2, meta, meta_len, "anything", 8);
    failed(2, RSERVE_USER, "TypeError",
           "deployment Echo is an executable: call __call__ with one argument of type bytes or "
           "str");
    stop();
}
END_TEST

START_TEST(takes_other_calls)
{
    static const char *const methods[] = {"embed", NULL};
    struct rserve_options o = {.methods = methods, .raw_calls = 1};

    start(echo, &o);
    call_meta("embed", "application/json", 0);
    send_frame(RSERVE_I_REQUEST, RSERVE_I_END, 2, meta, meta_len, "[1]", 3);
    answered(2, "[1]", 3);
    has_text(RSERVE_I_CONTENT_TYPE, "application/json");
    call_meta("embed", RSERVE_I_PICKLE, 0);
    send_frame(RSERVE_I_REQUEST, RSERVE_I_END, 4, meta, meta_len, "\x80\5N.", 4);
    answered(4, "\x80\5N.", 4);
    call_meta("no", "application/json", 0);
    send_frame(RSERVE_I_REQUEST, RSERVE_I_END, 6, meta, meta_len, "[1]", 3);
    failed(6, RSERVE_NOT_FOUND, "AttributeError", "deployment Echo has no method 'no'");
    call_meta("embed", "text/plain", 1); /* the caller iterates over one item */
    send_frame(RSERVE_I_REQUEST, RSERVE_I_END, 8, meta, meta_len, "item", 4);
    ck_assert_uint_eq(receive(RSERVE_I_RESPONSE, 8)->flags, 0);
    has(RSERVE_I_ITEMS, "\1", 1);
    ck_assert_str_eq(receive(RSERVE_I_BODY, 8)->body, "item");
    receive(RSERVE_I_BODY, 8);
    ck_assert_uint_eq(got.flags, RSERVE_I_END);
    ck_assert_uint_eq(got.body_len, 0);
    stop();
}
END_TEST

static int ask(const struct rserve_request *req, struct rserve_response *res, void *arg)
{
    struct rserve_call_args args = {.deployment = "Next", .body = req->body, .body_len = 3};
    struct rserve_answer a;
    char text[400];
    int n;

    if (!req->body_len)
        return rserve_respond(res, 200, NULL, "short", 5);
    if (rserve_call(res, &args, &a) < 0)
        n = snprintf(text, sizeof(text), "%d %s %s", (int)a.error, a.error_type, a.message);
    else
        n = snprintf(text, sizeof(text), "%.*s", (int)a.body_len, a.body);
    rserve_answer_free(&a);
    return rserve_respond(res, 200, NULL, text, (size_t)n);
}

static void answer_meta(const char *type)
{
    meta_len = 0;
    put_text(RSERVE_I_CONTENT_TYPE, type);
}

START_TEST(calls_others)
{
    start(ask, NULL);
    request(2, "abc", 3);
    receive(RSERVE_I_REQUEST, 1);
    has(RSERVE_I_KIND, "\2", 1);
    has_text(RSERVE_I_APP, "rag");
    has_text(RSERVE_I_DEPLOYMENT, "Next");
    has_text(RSERVE_I_CONTENT_TYPE, RSERVE_I_PICKLE);
    has(RSERVE_I_PARENT, "\2\0\0\0\0\0\0\0", 8);
    ck_assert_uint_eq(got.body_len, 18);
    ck_assert_mem_eq(got.body, "\x80\5\x8e\3\0\0\0\0\0\0\0abc\x85}\x86.", 18);
    request(4, "", 0);
    answer_meta(RSERVE_I_PICKLE);
    send_frame(RSERVE_I_RESPONSE, 0, 1, meta, meta_len, "\x80\5\x8c\4wx", 6);
    receive(RSERVE_I_WINDOW, 1);
    send_frame(RSERVE_I_BODY, RSERVE_I_END, 1, NULL, 0, "yz\x94.", 4);
    answered(2, "wxyz", 4);
    answered(4, "short", 5);

    request(6, "abc", 3);
    receive(RSERVE_I_REQUEST, 3);
    meta_len = 0;
    put(RSERVE_I_ERROR_CODE, "\1", 1);
    put_text(RSERVE_I_ERROR_TYPE, "KeyError");
    put_text(RSERVE_I_MESSAGE, "'k'");
    send_frame(RSERVE_I_ERROR, RSERVE_I_END, 3, meta, meta_len, NULL, 0);
    answered(6, "1 KeyError 'k'", 14);

    request(8, "abc", 3); /* cancelled while it waits: so is what it waits for */
    receive(RSERVE_I_REQUEST, 5);
    send_frame(RSERVE_I_CANCEL, 0, 8, NULL, 0, NULL, 0);
    receive(RSERVE_I_CANCEL, 5);
    was_cancelled(8);
    answer_meta("text/plain"); /* late */
    send_frame(RSERVE_I_RESPONSE, RSERVE_I_END, 5, meta, meta_len, "x", 1);
    request(10, "", 0);
    answered(10, "short", 5);
    stop();
}
END_TEST

/* --- threads ----------------------------------------------------------------------------------- */

static int together(const struct rserve_request *req, struct rserve_response *res, void *arg)
{
    int now = ++running, most = most_running;

    while (now > most && !atomic_compare_exchange_weak(&most_running, &most, now))
        ;
    while (let_go == 0 && !rserve_cancelled(res))
        usleep(200);
    running--;
    rserve_stream_begin(res, 200, NULL);
    rserve_stream_chunk(res, req->body, req->body_len);
    return rserve_stream_end(res);
}

START_TEST(works_in_threads)
{
    enum { MANY = 40 };
    struct rserve_options o = {.threads = 4, .stop = note_stop};
    unsigned seen = 0;

    start(together, &o);
    for (uint64_t i = 1; i <= MANY; i++)
        request(2 * i, &i, 8);
    while (most_running < 4)
        usleep(200);
    send_json(RSERVE_I_PING, 5, ""); /* all hands are busy, yet it answers */
    receive(RSERVE_I_PONG, 5);
    ck_assert_int_eq(running, 4);
    send_frame(RSERVE_I_CANCEL, 0, 2 * MANY, NULL, 0, NULL, 0); /* waits in the queue */
    was_cancelled(2 * MANY);
    send_json(RSERVE_I_PING, 6, "");
    receive(RSERVE_I_PONG, 6);
    let_go = 1;
    send_json(RSERVE_I_STOP, 0, "{}"); /* and all of them are still answered */
    for (unsigned ends = 0; ends < MANY - 1;) {
        unsigned char h[HEADER];
        char rest[256];

        read_all(h, HEADER, NULL);
        read_all(rest, rserve_i_get(h, 4) + rserve_i_get(h + 16, 8), NULL);
        seen += h[4] == RSERVE_I_RESPONSE;
        ends += h[5] & RSERVE_I_END;
    }
    ck_assert_uint_eq(seen, MANY - 1);
    ck_assert_int_eq(ended(), 0);
    ck_assert_int_eq(most_running, 4);
    ck_assert_int_eq(stops, 1);
}
END_TEST

START_TEST(threads_end_with_their_node)
{
    struct rserve_options o = {.threads = 2};

    start(together, &o);
    for (uint64_t i = 1; i <= 5; i++)
        request(2 * i, "x", 1);
    while (most_running < 2)
        usleep(200);
    ck_assert_int_eq(ended(), 1); /* rserve_cancelled says so to the handlers */
}
END_TEST

/* --- garbage ----------------------------------------------------------------------------------- */

struct bad {
    unsigned type, flags, fds;
    uint64_t stream;
    const char *meta;
    size_t meta_len, meta_says;
    uint64_t body_len;
};

static const struct bad bads[] = {
    {.type = RSERVE_I_PING, .flags = 4},
    {.type = RSERVE_I_PING, .meta_says = 2 << 20},
    {.type = RSERVE_I_PING, .body_len = 17 << 20},
    {.type = RSERVE_I_PING, .body_len = UINT64_MAX},
    {.type = RSERVE_I_PING, .fds = 1},
    {.type = RSERVE_I_REQUEST, .flags = RSERVE_I_MEMFD, .fds = 1, .stream = 2},
    {.type = RSERVE_I_REQUEST, .flags = RSERVE_I_MEMFD, .stream = 2},
    {.type = RSERVE_I_HELLO},
    {.type = 99},
    {.type = 0},
    {.type = RSERVE_I_INIT},
    {.type = RSERVE_I_WINDOW, .stream = 2},
    {.type = RSERVE_I_WINDOW, .stream = 2, .meta = "\x18\1\0\0\0\1", .meta_len = 6},
    {.type = RSERVE_I_REQUEST, .flags = 1, .meta = "\5\1\0\0\0\1", .meta_len = 6},
    {.type = RSERVE_I_REQUEST, .flags = 1, .stream = 3, .meta = "\5\1\0\0\0\1", .meta_len = 6},
    {.type = RSERVE_I_REQUEST, .flags = 1, .stream = 2},
    {.type = RSERVE_I_REQUEST, .flags = 1, .stream = 2, .meta = "\5\1\0\0\0\3", .meta_len = 6},
    {.type = RSERVE_I_REQUEST, .flags = 1, .stream = 2, .meta = "\5\2\0\0\0\1\1", .meta_len = 7},
    {.type = RSERVE_I_REQUEST, .flags = 1, .stream = 2, .meta = "\5\1\0\0\0\1\5", .meta_len = 7},
    {.type = RSERVE_I_REQUEST,
     .flags = 1,
     .stream = 2,
     .meta = "\5\1\0\0\0\1\5\1\0\0\0\1",
     .meta_len = 12},
    {.type = RSERVE_I_REQUEST, .stream = 2, .meta = "\1\xff\xff\xff\xff\1", .meta_len = 6},
};

START_TEST(refuses_garbage)
{
    const struct bad *b = &bads[_i];
    char frame[HEADER + 64];
    size_t len = make_header(frame, b->type, b->flags, b->fds, b->stream,
                             b->meta_says ? b->meta_says : b->meta_len, b->body_len);

    if (b->meta_len)
        memcpy(frame + len, b->meta, b->meta_len);
    start(echo, NULL);
    write_all(the_node.fd, frame, len + b->meta_len);
    pthread_join(the_node.thread, NULL); /* it ends by itself */
    ck_assert_int_eq(the_node.result, 1);
    ck_assert_int_eq(recv(the_node.fd, frame, 1, 0), 0);
    close(the_node.fd);
    free(got.body);
}
END_TEST

START_TEST(refuses_a_short_memfd)
{
    start(echo, NULL);
    http_meta();
    send_memfd(RSERVE_I_REQUEST, RSERVE_I_END, 2, "abc", 4, 3);
    pthread_join(the_node.thread, NULL);
    ck_assert_int_eq(the_node.result, 1);
    close(the_node.fd);
    free(got.body);
}
END_TEST

START_TEST(refuses_requests_before_init)
{
    start_raw(echo, NULL);
    request(2, "", 0);
    pthread_join(the_node.thread, NULL);
    ck_assert_int_eq(the_node.result, 1);
    close(the_node.fd);
    free(got.body);
}
END_TEST

/* Frames with some bytes turned: the replica may answer or end, but nothing else. */
START_TEST(survives_noise)
{
    uint32_t seed = 12345 + (uint32_t)_i;
    struct rserve_options o = {.threads = _i % 2 ? 2 : 0};
    char *all = malloc(ROOM), *p = all;

    for (int i = 0; i < 200; i++) {
        char *from = p;

        if (i % 7 == 0) {
            meta_len = 0;
            put(RSERVE_I_CREDIT, "\1\0\0\0", 4);
        } else if (i % 3 == 0)
            call_meta("m", RSERVE_I_PICKLE, i % 2);
        else
            http_meta();
        p += make_header(p, i % 7 ? RSERVE_I_REQUEST : RSERVE_I_WINDOW, i % 5 ? RSERVE_I_END : 0, 0,
                         2 * (uint64_t)(i + 1), meta_len, i % 3 ? 20 : pickles[0].in_len);
        memcpy(p, meta, meta_len);
        p += meta_len;
        memcpy(p, pickles[0].in, pickles[0].in_len);
        p += i % 3 ? 20 : pickles[0].in_len;
        for (int k = 0; k < _i % 4; k++) {
            seed = seed * 1103515245 + 12345;
            from[(seed >> 8) % (size_t)(p - from)] ^= (char)(1 << (seed >> 28) % 8);
        }
    }
    start(echo, &o);
    send(the_node.fd, all, (size_t)(p - all), MSG_NOSIGNAL);
    ended();
    free(all);
}
END_TEST

/* --- JSON -------------------------------------------------------------------------------------- */

struct json_case {
    const char *json, *path, *text; /* NULL: none */
};

static const struct json_case json_cases[] = {
    {"{\"a\":1}", "a", "1"},
    {" { \"b\" : [ 1 , {\"c\":\"x\"} ] , \"a\" : true } ", "b.1.c", "x"},
    {" { \"b\" : [ 1 , {\"c\":\"x\"} ] , \"a\" : true } ", "a", "true"},
    {"{\"b\":[1,{\"c\":\"x\"}]}", "b", "[1,{\"c\":\"x\"}]"},
    {"{\"a\":\"\\u00fc\\ud83d\\ude00\\n\\\"\\/\"}", "a", "\xc3\xbc\xf0\x9f\x98\x80\n\"/"},
    {"\"top\"", "", "top"},
    {"{\"a\":\"}]\\\"\",\"b\":2}", "b", "2"},
    {"{\"ab\":1,\"a\":2}", "a", "2"},
    {"{\"a\":null}", "a", NULL},
    {"{\"a\":1}", "b", NULL},
    {"{\"a\":1}", "a.b", NULL},
    {"[1]", "1", NULL},
    {"[1]", "x", NULL},
    {"{\"a\"", "a", NULL},
    {"{\"a\":", "a", NULL},
    {"{\"a\":\"x", "a", NULL},
    {"{\"a\":[1", "a", NULL},
    {"{\"a\":\"\\x\"}", "a", NULL},
    {"{\"a\":\"\\u12\"}", "a", NULL},
    {"{\"a\":\"0123456789012345678901234567890123456789\"}", "a", NULL}, /* does not fit */
    {"{a:1}", "a", NULL},
    {"", "a", NULL},
};

START_TEST(reads_json)
{
    const struct json_case *c = &json_cases[_i];
    size_t len = strlen(c->json);
    char *exact = malloc(len ? len : 1), buf[32]; /* no NUL behind it */
    long n;

    memcpy(exact, c->json, len);
    n = rserve_json_text(exact, len, c->path, buf, sizeof(buf));
    ck_assert_int_eq(n, c->text ? (long)strlen(c->text) : -1);
    if (c->text)
        ck_assert_str_eq(buf, c->text);
    free(exact);
}
END_TEST

START_TEST(needs_a_socket)
{
    static const char *const bad[] = {"", "x", "-1", "99999", "3x", "0"};

    close(0);
    ck_assert_int_eq(open("/dev/null", O_RDONLY), 0);
    unsetenv("RSERVE_FD");
    ck_assert_int_eq(rserve_serve(echo, NULL), 2);
    setenv("RSERVE_FD", bad[_i], 1);
    ck_assert_int_eq(rserve_serve(echo, NULL), 2);
}
END_TEST

RS_CHECK_MAIN("rserve_replica", tcase_add_test(tc, lives); tcase_add_test(tc, reports_sickness);
              tcase_add_test(tc, fails_to_start); tcase_add_test(tc, ends_with_its_node);
              tcase_add_test(tc, describes_requests); tcase_add_test(tc, echoes_bodies);
              tcase_add_loop_test(tc, answers_batches, 0, 2);
              tcase_add_test(tc, gathers_streamed_bodies); tcase_add_test(tc, survives_handlers);
              tcase_add_test(tc, waits_for_credit); tcase_add_test(tc, stops_a_cancelled_stream);
              tcase_add_loop_test(tc, takes_python_calls, 0, sizeof(pickles) / sizeof(*pickles));
              tcase_add_test(tc, takes_no_arrays); tcase_add_test(tc, takes_other_calls);
              tcase_add_test(tc, calls_others); tcase_add_test(tc, works_in_threads);
              tcase_add_test(tc, threads_end_with_their_node);
              tcase_add_loop_test(tc, refuses_garbage, 0, sizeof(bads) / sizeof(*bads));
              tcase_add_test(tc, refuses_a_short_memfd);
              tcase_add_test(tc, refuses_requests_before_init);
              tcase_add_loop_test(tc, survives_noise, 0, 24);
              tcase_add_loop_test(tc, reads_json, 0, sizeof(json_cases) / sizeof(*json_cases));
              tcase_add_loop_test(tc, needs_a_socket, 0, 6);)
