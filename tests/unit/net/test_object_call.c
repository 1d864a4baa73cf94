/* Objects over the wire: what processes say about them, calls that wait for them or make them, on one
 * lane and across two. The table itself: test_objects.c. */
#include "net/router/objects.h"

#include "tests/unit/net/dataplane_world.h"

#include "tests/unit/check_main.h"

enum { STORE = 1 << 20 };

static struct world w;
static struct fake a, b; /* replicas of "front", the caller, and "back" */
static const char *const id_x = "xxxxxxxxxxxxxxxx", *const id_y = "yyyyyyyyyyyyyyyy";

static void begin(int lanes)
{
    struct rs_ingress_conf conf = world_conf;

    conf.lanes = (unsigned)lanes;
    conf.object_store = STORE;
    world_begin(&w, &conf);
    world_routes(&w);
    fake_attach(&w, &a, "front", "r1", true);
    fake_attach(&w, &b, "back", "r2", true);
}

static void end(void)
{
    fake_end(&a);
    fake_end(&b);
    world_end(&w);
}

/* The store's figures; they follow what other threads do. */
static void wait_objects(unsigned n, unsigned bytes)
{
    int64_t until = rs_clock_now() + 5 * RS_SEC;
    char count[80], used[80];
    bool good = false;

    snprintf(count, sizeof(count), "ray_object_store_num_local_objects %u.0\n", n);
    snprintf(used, sizeof(used), "ray_object_store_used_memory %u.0\n", bytes);
    while (!good) {
        struct rs_buf text = {0};

        rs_metrics_text(w.metrics, &text);
        good = strstr(rs_buf_text(&text), count) && strstr(rs_buf_text(&text), used);
        ck_assert_msg(good || rs_clock_now() < until, "wanted %s%s, found %.300s", count, used,
                      strstr(rs_buf_text(&text), "ray_object_store_used_memory Bytes"));
        rs_buf_fini(&text);
        rs_loop_turn(w.control, RS_MS);
    }
}

/* --- what processes send ----------------------------------------------------------------------- */

static void send_request(struct fake *f, uint64_t stream, struct rs_buf *meta, const char *body,
                         size_t len)
{
    if (len > RS_FRAME_MEMFD_MIN)
        fake_send_memfd(f, RS_MSG_REQUEST, RS_FRAME_END, stream, meta, body, len);
    else
        fake_send(f, RS_MSG_REQUEST, RS_FRAME_END, stream, meta, body, len);
    rs_buf_fini(meta);
}

static void put_bytes(struct fake *f, uint64_t stream, const char *id, const char *body, size_t len,
                      const char *inner)
{
    struct rs_buf meta = {0};

    rs_field_put_uint(&meta, RS_TAG_KIND, RS_REQUEST_PUT);
    rs_field_put(&meta, RS_TAG_OBJECT, id, RS_OBJECT_ID);
    rs_field_put_str(&meta, RS_TAG_CONTENT_TYPE, "text/x");
    if (inner)
        rs_field_put(&meta, RS_TAG_OBJECTS, inner, RS_OBJECT_ID);
    send_request(f, stream, &meta, body, len);
}

static void put(struct fake *f, uint64_t stream, const char *id, const char *body)
{
    put_bytes(f, stream, id, body, strlen(body), NULL);
    fake_expect(f, RS_MSG_RESPONSE);
    ck_assert_uint_eq(f->h.stream, stream);
}

static void get(struct fake *f, uint64_t stream, const char *id, unsigned timeout_ms)
{
    struct rs_buf meta = {0};

    rs_field_put_uint(&meta, RS_TAG_KIND, RS_REQUEST_GET);
    rs_field_put(&meta, RS_TAG_OBJECT, id, RS_OBJECT_ID);
    if (timeout_ms)
        rs_field_put_uint(&meta, RS_TAG_TIMEOUT_MS, timeout_ms);
    send_request(f, stream, &meta, "", 0);
}

static void wait_for(struct fake *f, uint64_t stream, const char *ids, unsigned need,
                     unsigned timeout_ms)
{
    struct rs_buf meta = {0};

    rs_field_put_uint(&meta, RS_TAG_KIND, RS_REQUEST_WAIT);
    rs_field_put_str(&meta, RS_TAG_AWAIT_OBJECTS, ids);
    rs_field_put_uint(&meta, RS_TAG_NEED, need);
    if (timeout_ms)
        rs_field_put_uint(&meta, RS_TAG_TIMEOUT_MS, timeout_ms);
    send_request(f, stream, &meta, "", 0);
}

static void call(struct fake *f, uint64_t stream, enum rs_tag tag, const char *ids, bool also_held)
{
    struct rs_buf meta = {0};

    rs_field_put_uint(&meta, RS_TAG_KIND, RS_REQUEST_CALL);
    rs_field_put_str(&meta, RS_TAG_APP, "app");
    rs_field_put_str(&meta, RS_TAG_DEPLOYMENT, "back");
    rs_field_put_str(&meta, tag, ids);
    if (also_held)
        rs_field_put_str(&meta, RS_TAG_OBJECTS, ids);
    send_request(f, stream, &meta, "args", 4);
}

static void hold(struct fake *f, uint64_t stream, const char *id)
{
    struct rs_buf meta = {0};

    rs_field_put(&meta, RS_TAG_OBJECT, id, RS_OBJECT_ID);
    fake_send(f, RS_MSG_HOLD, 0, stream, &meta, NULL, 0);
    rs_buf_fini(&meta);
}

static void refs(struct fake *f, enum rs_tag tag, const char *ids)
{
    struct rs_buf meta = {0};

    rs_field_put_str(&meta, tag, ids);
    fake_send(f, RS_MSG_REFS, 0, 0, &meta, NULL, 0);
    rs_buf_fini(&meta);
}

static void answer(struct fake *f, uint64_t stream, const char *body, const char *inner)
{
    struct rs_buf meta = {0};

    rs_field_put_str(&meta, RS_TAG_CONTENT_TYPE, "text/x");
    if (inner)
        rs_field_put_str(&meta, RS_TAG_OBJECTS, inner);
    fake_send(f, RS_MSG_RESPONSE, RS_FRAME_END, stream, &meta, body, strlen(body));
    rs_buf_fini(&meta);
}

static void expect_value(struct fake *f, uint64_t stream, const char *body)
{
    fake_expect(f, RS_MSG_RESPONSE);
    ck_assert_uint_eq(f->h.stream, stream);
    ck_assert_str_eq(fake_text(f, RS_TAG_CONTENT_TYPE), "text/x");
    ck_assert_str_eq(f->body, body);
}

static void expect_failure(struct fake *f, uint64_t stream, enum rs_wire_error code,
                           const char *type)
{
    fake_expect(f, RS_MSG_ERROR);
    ck_assert_uint_eq(f->h.stream, stream);
    ck_assert_uint_eq(rs_fields_uint(&f->fields, RS_TAG_ERROR_CODE, 0), code);
    if (type)
        ck_assert_str_eq(fake_text(f, RS_TAG_ERROR_TYPE), type);
}

/* --- put, get, wait ---------------------------------------------------------------------------- */

START_TEST(put_and_get)
{
    begin(_i);
    get(&a, 1, id_x, 0);
    expect_failure(&a, 1, RS_WIRE_NOT_FOUND, "ObjectLostError");
    put(&a, 3, id_x, "value");
    get(&b, 1, id_x, 0);
    expect_value(&b, 1, "value");
    put_bytes(&b, 3, id_x, "other", 5, NULL); /* the first value stays */
    fake_expect(&b, RS_MSG_RESPONSE);
    get(&a, 5, id_x, 0);
    expect_value(&a, 5, "value");
    wait_objects(1, 5);
    refs(&a, RS_TAG_DROP, id_x);
    get(&b, 5, id_x, 0); /* its own put counts */
    expect_value(&b, 5, "value");
    refs(&b, RS_TAG_DROP, id_x);
    wait_objects(0, 0);
    end();
}
END_TEST

START_TEST(a_long_value_stays_in_its_memfd)
{
    enum { LEN = 300000 };
    char *body = rs_alloc(LEN);

    begin(_i);
    memset(body, 'v', LEN);
    put_bytes(&a, 1, id_x, body, LEN, NULL);
    fake_expect(&a, RS_MSG_RESPONSE);
    for (uint64_t i = 1; i < 20; i += 2) {
        get(&b, i, id_x, 0);
        fake_expect(&b, RS_MSG_RESPONSE);
        ck_assert_uint_eq(b.h.body_len, LEN);
        ck_assert_int_ge(b.body_fd, 0);
        ck_assert_mem_eq(b.body, body, LEN);
    }
    wait_objects(1, LEN);
    refs(&a, RS_TAG_DROP, id_x);
    wait_objects(0, 0);
    free(body);
    end();
}
END_TEST

START_TEST(a_full_store_says_so)
{
    char *body = rs_alloc(STORE + 1);

    begin(1);
    put_bytes(&a, 1, id_x, body, STORE + 1, NULL);
    expect_failure(&a, 1, RS_WIRE_TOO_LARGE, "ObjectStoreFullError");
    ck_assert_ptr_nonnull(strstr(fake_text(&a, RS_TAG_MESSAGE), "1048577 bytes: 0 of 1048576"));
    get(&b, 1, id_x, 0); /* nobody waits for it in vain */
    expect_failure(&b, 1, RS_WIRE_TOO_LARGE, "ObjectStoreFullError");
    put_bytes(&a, 3, id_y, body, STORE, NULL);
    fake_expect(&a, RS_MSG_RESPONSE);
    /* An answer that does not fit is an error as well. */
    call(&a, 5, RS_TAG_RETURN_OBJECT, "zzzzzzzzzzzzzzzz", false);
    fake_expect(&b, RS_MSG_REQUEST);
    answer(&b, b.h.stream, "result", NULL);
    get(&a, 7, "zzzzzzzzzzzzzzzz", 0);
    expect_failure(&a, 7, RS_WIRE_TOO_LARGE, "ObjectStoreFullError");
    free(body);
    end();
}
END_TEST

START_TEST(waits)
{
    begin(_i);
    call(&a, 1, RS_TAG_RETURN_OBJECT, id_x, false);
    fake_expect(&b, RS_MSG_REQUEST);
    put(&a, 3, id_y, "value");
    wait_for(&a, 5, "xxxxxxxxxxxxxxxxyyyyyyyyyyyyyyyy", 1, 0);
    fake_expect(&a, RS_MSG_RESPONSE);
    ck_assert_str_eq(fake_text(&a, RS_TAG_READY), id_y);
    wait_for(&a, 7, "xxxxxxxxxxxxxxxxyyyyyyyyyyyyyyyy", 2, 20);
    fake_expect(&a, RS_MSG_RESPONSE); /* its time was over: that is no error */
    ck_assert_str_eq(fake_text(&a, RS_TAG_READY), id_y);
    get(&a, 9, id_x, 20);
    expect_failure(&a, 9, RS_WIRE_TIMEOUT, NULL);
    wait_for(&a, 11, "xxxxxxxxxxxxxxxxyyyyyyyyyyyyyyyy", 2, 0);
    get(&a, 13, id_x, 0);
    fake_send(&a, RS_MSG_CANCEL, 0, 13, NULL, NULL, 0);
    answer(&b, b.h.stream, "result", NULL);
    fake_expect(&a, RS_MSG_RESPONSE);
    ck_assert_uint_eq(a.h.stream, 11);
    ck_assert_str_eq(fake_text(&a, RS_TAG_READY), "xxxxxxxxxxxxxxxxyyyyyyyyyyyyyyyy");
    get(&a, 15, id_x, 0);
    expect_value(&a, 15, "result");
    end();
}
END_TEST

START_TEST(garbage_ends_the_process)
{
    struct rs_buf meta = {0};

    begin(1);
    rs_field_put_uint(&meta, RS_TAG_KIND, RS_REQUEST_GET);
    rs_field_put_str(&meta, RS_TAG_OBJECT, "short");
    send_request(&a, 1, &meta, "", 0);
    ck_assert(!fake_read(&a));
    refs(&b, RS_TAG_ADD, "12345");
    ck_assert(!fake_read(&b));
    end();
}
END_TEST

/* --- references -------------------------------------------------------------------------------- */

START_TEST(what_is_passed_on_is_referred_to)
{
    begin(_i);
    put(&a, 1, id_x, "value");
    call(&a, 3, RS_TAG_OBJECTS, id_x, false);
    refs(&a, RS_TAG_DROP, id_x); /* the call still does */
    fake_expect(&b, RS_MSG_REQUEST);
    ck_assert_str_eq(fake_text(&b, RS_TAG_OBJECTS), id_x);
    answer(&b, b.h.stream, "done", NULL);
    expect_value(&a, 3, "done");
    get(&b, 1, id_x, 0); /* and so does who got it */
    expect_value(&b, 1, "value");
    /* In an answer: to the caller, although the callee lets go of it at once. */
    call(&a, 5, RS_TAG_METHOD, "m", false);
    fake_expect(&b, RS_MSG_REQUEST);
    answer(&b, b.h.stream, "here", id_x);
    refs(&b, RS_TAG_DROP, id_x);
    expect_value(&a, 5, "here");
    get(&a, 7, id_x, 0);
    expect_value(&a, 7, "value");
    /* In another object: as long as that is there. */
    put_bytes(&a, 9, id_y, "outer", 5, id_x);
    fake_expect(&a, RS_MSG_RESPONSE);
    refs(&a, RS_TAG_DROP, id_x);
    get(&a, 11, id_x, 0);
    expect_value(&a, 11, "value");
    wait_objects(2, 10);
    fake_end(&a); /* the end of a process drops all */
    wait_objects(0, 0);
    end();
}
END_TEST

START_TEST(the_maker_dies)
{
    begin(_i);
    call(&b, 1, RS_TAG_RETURN_OBJECT, id_x, false);
    fake_expect(&b, RS_MSG_REQUEST); /* by itself */
    refs(&a, RS_TAG_ADD, id_x);
    get(&a, 1, id_x, 0);
    wait_for(&a, 3, id_x, 0, 0); /* it was read */
    fake_expect(&a, RS_MSG_RESPONSE);
    fake_end(&b);
    fake_expect(&a, RS_MSG_ERROR);
    ck_assert_uint_eq(rs_fields_uint(&a.fields, RS_TAG_ERROR_CODE, 0), RS_WIRE_DIED);
    end();
}
END_TEST

/* --- calls that wait for calls ----------------------------------------------------------------- */

/* stream 1: a call to "back", held as x; stream 3: another one that waits for it. */
static uint64_t begin_chain(int lanes)
{
    begin(lanes);
    call(&a, 1, RS_TAG_METHOD, "first", false);
    fake_expect(&b, RS_MSG_REQUEST);
    hold(&a, 1, id_x);
    fake_expect(&a, RS_MSG_RESPONSE);
    ck_assert_uint_eq(a.h.stream, 1);
    ck_assert_uint_eq(a.h.flags, RS_FRAME_END);
    ck_assert_str_eq(fake_text(&a, RS_TAG_OBJECT), id_x);
    call(&a, 3, RS_TAG_AWAIT_OBJECTS, id_x, true);
    return b.h.stream;
}

START_TEST(a_call_waits_for_another)
{
    uint64_t first = begin_chain(_i);

    answer(&b, first, "result", NULL);
    fake_expect(&b, RS_MSG_REQUEST);
    ck_assert_str_eq(fake_text(&b, RS_TAG_AWAIT_OBJECTS), id_x);
    ck_assert_uint_eq(b.fields.at[RS_TAG_READY].len, 6 + 6 + 6); /* it is short: it comes along */
    ck_assert_mem_eq(b.fields.at[RS_TAG_READY].data, "\6\0\6\0\0\0text/xresult", 18);
    first = b.h.stream;
    get(&b, 1, id_x, 0);
    expect_value(&b, 1, "result");
    refs(&b, RS_TAG_DROP, id_x);
    answer(&b, first, "second", NULL);
    expect_value(&a, 3, "second");
    get(&a, 5, id_x, 0); /* the first may be asked for all the same */
    expect_value(&a, 5, "result");
    refs(&a, RS_TAG_DROP, id_x);
    wait_objects(0, 0);
    end();
}
END_TEST

START_TEST(an_answer_in_pieces_is_kept)
{
    enum { PIECE = 50000, PIECES = 8 };
    uint64_t first = begin_chain(_i);
    char *piece = rs_alloc(PIECE);
    struct rs_buf meta = {0};

    memset(piece, 'p', PIECE);
    rs_field_put_str(&meta, RS_TAG_CONTENT_TYPE, "text/x");
    fake_send(&b, RS_MSG_RESPONSE, 0, first, &meta, piece, PIECE);
    for (int i = 1; i < PIECES; i++)
        fake_send(&b, RS_MSG_BODY, i == PIECES - 1 ? RS_FRAME_END : 0, first, NULL, piece, PIECE);
    do
        fake_read(&b);
    while (b.h.type == RS_MSG_WINDOW);
    ck_assert_uint_eq(b.h.type, RS_MSG_REQUEST);
    ck_assert(!rs_fields_has(&b.fields, RS_TAG_READY));
    get(&b, 1, id_x, 0);
    fake_expect(&b, RS_MSG_RESPONSE);
    ck_assert_uint_eq(b.h.body_len, PIECE * PIECES);
    ck_assert_int_eq(b.body[0], 'p');
    ck_assert_int_eq(b.body[PIECE * PIECES - 1], 'p');
    wait_objects(1, PIECE * PIECES);
    rs_buf_fini(&meta);
    free(piece);
    end();
}
END_TEST

START_TEST(its_error_is_theirs)
{
    uint64_t first = begin_chain(_i);

    fake_error(&b, first, RS_WIRE_USER, "bad");
    expect_failure(&a, 3, RS_WIRE_USER, "ValueError");
    ck_assert_str_eq(fake_text(&a, RS_TAG_AWAIT_OBJECTS), id_x); /* not its own */
    get(&a, 5, id_x, 0);
    expect_failure(&a, 5, RS_WIRE_USER, "ValueError");
    ck_assert(!rs_fields_has(&a.fields, RS_TAG_AWAIT_OBJECTS));
    end();
}
END_TEST

START_TEST(the_first_dies)
{
    begin_chain(_i);
    fake_end(&b);
    expect_failure(&a, 3, RS_WIRE_DIED, NULL);
    ck_assert_str_eq(fake_text(&a, RS_TAG_AWAIT_OBJECTS), id_x);
    end();
}
END_TEST

START_TEST(cancel_reaches_what_it_alone_waits_for)
{
    uint64_t first = begin_chain(_i);

    refs(&a, RS_TAG_DROP, id_x); /* nobody else can ask for it */
    fake_send(&a, RS_MSG_CANCEL, 0, 3, NULL, NULL, 0);
    fake_expect(&b, RS_MSG_CANCEL);
    ck_assert_uint_eq(b.h.stream, first);
    wait_objects(0, 0);
    end();
}
END_TEST

START_TEST(cancel_spares_what_others_want)
{
    uint64_t first = begin_chain(_i);

    fake_send(&a, RS_MSG_CANCEL, 0, 3, NULL, NULL, 0);
    get(&a, 5, id_x, 0);
    answer(&b, first, "result", NULL);
    expect_value(&a, 5, "result");
    /* One that is held can still be cancelled by its number. */
    call(&a, 7, RS_TAG_RETURN_OBJECT, id_y, false);
    fake_expect(&b, RS_MSG_REQUEST);
    get(&a, 9, id_y, 0);
    fake_send(&a, RS_MSG_CANCEL, 0, 7, NULL, NULL, 0);
    expect_failure(&a, 9, RS_WIRE_CANCELLED, NULL);
    fake_expect(&b, RS_MSG_CANCEL);
    end();
}
END_TEST

START_TEST(the_answer_was_on_its_way)
{
    begin(_i);
    call(&a, 1, RS_TAG_METHOD, "first", false);
    fake_expect(&b, RS_MSG_REQUEST);
    answer(&b, b.h.stream, "result", NULL);
    expect_value(&a, 1, "result");
    hold(&a, 1, id_x); /* as if it had crossed the answer */
    call(&a, 3, RS_TAG_AWAIT_OBJECTS, id_x, true);
    put(&a, 5, id_x, "result");
    fake_expect(&b, RS_MSG_REQUEST);
    answer(&b, b.h.stream, "second", NULL);
    expect_value(&a, 3, "second");
    /* A process that does not keep its word. */
    hold(&a, 1, id_y);
    wait_for(&a, 7, id_y, 0, 0); /* it was read */
    fake_expect(&a, RS_MSG_RESPONSE);
    get(&b, 1, id_y, 0);
    refs(&b, RS_TAG_ADD, id_y);
    wait_objects(2, 6);
    fake_end(&a);
    expect_failure(&b, 1, RS_WIRE_DIED, "OwnerDiedError");
    end();
}
END_TEST

START_TEST(some_take_values_only)
{
    struct rs_route_app app = {"app", "/", "front"};
    struct rs_route_deployment back = {.app = "app",
                                       .name = "back",
                                       .max_ongoing = 8,
                                       .max_queued = -1,
                                       .retry_after_s = -1,
                                       .by_value = true};

    begin(_i);
    put(&a, 1, id_x, "value");
    rs_dataplane_routes(w.dp, &(struct rs_routes){.apps = &app,
                                                  .n_apps = 1,
                                                  .deployments = &back,
                                                  .n_deployments = 1,
                                                  .populated = true});
    fake_sync(&w, &a, "r1");
    call(&a, 3, RS_TAG_AWAIT_OBJECTS, id_x, true);
    refs(&a, RS_TAG_DROP, id_x);
    expect_failure(&a, 3, RS_WIRE_PROTOCOL, "ByValue");
    ck_assert_str_eq(fake_text(&a, RS_TAG_OBJECTS), id_x);
    get(&a, 5, id_x, 0); /* it came with a reference */
    expect_value(&a, 5, "value");
    end();
}
END_TEST

/* What is promised is the answer of a call; who asks for an object makes none. */
START_TEST(a_get_makes_no_object)
{
    begin(_i);
    call(&a, 1, RS_TAG_RETURN_OBJECT, id_x, false);
    fake_expect(&b, RS_MSG_REQUEST);
    get(&a, 3, id_x, 0);
    hold(&a, 3, id_y);
    answer(&b, b.h.stream, "result", NULL);
    do
        ck_assert(fake_read(&a));
    while (a.h.body_len == 0);
    ck_assert_str_eq(a.body, "result");
    call(&a, 5, RS_TAG_AWAIT_OBJECTS, id_y, false);
    fake_send(&a, RS_MSG_CANCEL, 0, 5, NULL, NULL, 0);
    wait_for(&a, 7, id_x, 1, 0);
    do
        ck_assert(fake_read(&a));
    while (a.h.stream != 7);
    put(&a, 9, id_y, "mine"); /* it can be kept by who promised it */
    get(&b, 1, id_y, 0);
    expect_value(&b, 1, "mine");
    refs(&a, RS_TAG_DROP, id_x);
    fake_end(&a);
    wait_objects(0, 0);
    end();
}
END_TEST

/* A body of several memfds, while the call waits for a slot. */
START_TEST(memfds_one_after_the_other)
{
    enum { LEN = 100000 };
    char *body = rs_alloc(LEN);
    struct rs_buf meta = {0};
    struct fake c = {.fd = -1, .body_fd = -1};

    begin(_i);
    rs_dataplane_retire(w.dp, "r2");
    expect_event(&w, "idle", "r2");
    memset(body, 'b', LEN);
    rs_field_put_uint(&meta, RS_TAG_KIND, RS_REQUEST_CALL);
    rs_field_put_str(&meta, RS_TAG_APP, "app");
    rs_field_put_str(&meta, RS_TAG_DEPLOYMENT, "back");
    fake_send_memfd(&a, RS_MSG_REQUEST, 0, 1, &meta, body, LEN);
    memset(body, 'c', LEN);
    fake_send_memfd(&a, RS_MSG_BODY, 0, 1, NULL, body, LEN);
    fake_send(&a, RS_MSG_BODY, RS_FRAME_END, 1, NULL, "more", 4);
    wait_for(&a, 3, id_x, 0, 0); /* it was read */
    fake_expect(&a, RS_MSG_RESPONSE);
    fake_attach(&w, &c, "back", "r3", true);
    fake_expect(&c, RS_MSG_REQUEST);
    ck_assert_uint_eq(c.h.body_len, 2 * LEN + 4);
    ck_assert(c.body[LEN - 1] == 'b' && c.body[LEN] == 'c');
    ck_assert_mem_eq(c.body + LEN, body, LEN);
    ck_assert_mem_eq(c.body + 2 * LEN, "more", 4);
    answer(&c, c.h.stream, "done", NULL);
    expect_value(&a, 1, "done");
    fake_end(&c);
    rs_buf_fini(&meta);
    free(body);
    end();
}
END_TEST

/* A body whose first piece is a memfd that can no longer change, while the call waits for a slot. */
START_TEST(a_body_goes_on_behind_a_sealed_memfd)
{
    enum { LEN = 100000 };
    char *body = rs_alloc(LEN);
    struct rs_buf meta = {0};
    struct fake c = {.fd = -1, .body_fd = -1};

    begin(_i);
    rs_dataplane_retire(w.dp, "r2");
    expect_event(&w, "idle", "r2");
    memset(body, 'b', LEN);
    rs_field_put_uint(&meta, RS_TAG_KIND, RS_REQUEST_CALL);
    rs_field_put_str(&meta, RS_TAG_APP, "app");
    rs_field_put_str(&meta, RS_TAG_DEPLOYMENT, "back");
    fake_send_memfd(&a, RS_MSG_REQUEST, 0, 1, &meta, body, LEN);
    fake_send(&a, RS_MSG_BODY, 0, 1, NULL, "and", 3);
    fake_send(&a, RS_MSG_BODY, RS_FRAME_END, 1, NULL, "more", 4);
    wait_for(&a, 3, id_x, 0, 0); /* it was read */
    fake_expect(&a, RS_MSG_RESPONSE);
    wait_queued(&w, "back", 1);
    fake_attach(&w, &c, "back", "r3", true);
    fake_expect(&c, RS_MSG_REQUEST);
    ck_assert_uint_eq(c.h.body_len, LEN + 7);
    ck_assert_mem_eq(c.body, body, LEN);
    ck_assert_mem_eq(c.body + LEN, "andmore", 7);
    answer(&c, c.h.stream, "done", NULL);
    expect_value(&a, 1, "done");
    fake_end(&c);
    rs_buf_fini(&meta);
    free(body);
    end();
}
END_TEST

START_TEST(ends_with_everything_under_way)
{
    begin_chain(_i);
    get(&a, 5, id_x, 0);
    wait_for(&b, 1, id_x, 1, 0);
    put_bytes(&a, 7, id_y, "outer", 5, id_x);
    fake_expect(&a, RS_MSG_RESPONSE);
    end();
}
END_TEST

/* --- random frames ----------------------------------------------------------------------------- */

enum { ROUNDS = 3000, IDS = 6 };

static unsigned seed;

static unsigned dice(unsigned n)
{
    seed = seed * 1664525u + 1013904223u;
    return (seed >> 10) % n;
}

static const char *id_between(unsigned from, unsigned to)
{
    static char id[RS_OBJECT_ID + 1];

    memset(id, 'a' + (int)(from + dice(to - from)), RS_OBJECT_ID);
    return id;
}

static const char *some_id(void)
{
    return id_between(0, IDS);
}

static void put_ids_below(struct rs_buf *meta, enum rs_tag tag, unsigned to)
{
    struct rs_buf ids = {0};

    for (unsigned n = dice(3); n; n--)
        rs_buf_append(&ids, id_between(0, to), RS_OBJECT_ID);
    rs_field_put(meta, tag, rs_buf_len(&ids) ? rs_buf_head(&ids) : "", rs_buf_len(&ids));
    rs_buf_fini(&ids);
}

static void put_ids(struct rs_buf *meta, enum rs_tag tag)
{
    put_ids_below(meta, tag, IDS);
}

/* Values of the upper half name objects of the lower one: circles would keep themselves alive. */
static const char *upper_id(void)
{
    return id_between(IDS / 2, IDS);
}

/* Requests of all kinds, with and without objects in all their roles. */
static void random_request(struct fake *f, uint64_t stream, uint64_t parent)
{
    static const unsigned kinds[] = {RS_REQUEST_CALL, RS_REQUEST_CALL, RS_REQUEST_GET,
                                     RS_REQUEST_PUT, RS_REQUEST_WAIT};
    unsigned kind = kinds[dice(RS_COUNT(kinds))];
    struct rs_buf meta = {0};

    rs_field_put_uint(&meta, RS_TAG_KIND, kind);
    rs_field_put_str(&meta, RS_TAG_APP, "app");
    rs_field_put_str(&meta, RS_TAG_DEPLOYMENT, dice(4) ? "back" : "front");
    if (kind == RS_REQUEST_GET)
        rs_field_put_str(&meta, RS_TAG_OBJECT, some_id());
    else if (kind == RS_REQUEST_PUT)
        rs_field_put_str(&meta, RS_TAG_OBJECT, upper_id());
    else if (kind == RS_REQUEST_CALL && dice(2))
        rs_field_put_str(&meta, RS_TAG_RETURN_OBJECT, upper_id());
    if (kind == RS_REQUEST_PUT && dice(2)) { /* of the lower half, without any */
        rs_buf_clear(&meta);
        rs_field_put_uint(&meta, RS_TAG_KIND, kind);
        rs_field_put_str(&meta, RS_TAG_OBJECT, id_between(0, IDS / 2));
    } else if (dice(2))
        put_ids_below(&meta, RS_TAG_OBJECTS, kind == RS_REQUEST_PUT ? IDS / 2 : IDS);
    if (kind == RS_REQUEST_WAIT || dice(2))
        put_ids(&meta, RS_TAG_AWAIT_OBJECTS);
    if (kind == RS_REQUEST_PUT && dice(4) == 0)
        rs_field_put_uint(&meta, RS_TAG_ERROR_CODE, RS_WIRE_USER);
    if (dice(3) == 0)
        rs_field_put_uint(&meta, RS_TAG_TIMEOUT_MS, 1 + dice(3));
    if (parent && dice(2))
        rs_field_put_uint(&meta, RS_TAG_PARENT, parent);
    send_request(f, stream, &meta, "body", dice(5));
}

/* Answers what has come, as it comes to its mind. */
static void random_answers(struct fake *f)
{
    struct pollfd p = {.fd = f->fd, .events = POLLIN};

    while (poll(&p, 1, 0) > 0) {
        struct rs_buf meta = {0};
        uint64_t stream;

        ck_assert_msg(fake_read(f), "the node closed the connection");
        stream = f->h.stream;
        if (f->h.type != RS_MSG_REQUEST || dice(5) == 0)
            continue;
        if (dice(3) == 0) {
            fake_error(f, stream, RS_WIRE_USER, "bad");
            continue;
        }
        rs_field_put_str(&meta, RS_TAG_CONTENT_TYPE, "text/x");
        put_ids_below(&meta, RS_TAG_OBJECTS, IDS / 2);
        if (dice(3)) {
            fake_send(f, RS_MSG_RESPONSE, RS_FRAME_END, stream, &meta, "value", dice(6));
        } else {
            fake_send(f, RS_MSG_RESPONSE, 0, stream, &meta, "va", 2);
            fake_send(f, RS_MSG_BODY, RS_FRAME_END, stream, NULL, "lue", 3);
        }
        rs_buf_fini(&meta);
    }
}

START_TEST(random_frames)
{
    struct fake *fakes[] = {&a, &b};
    uint64_t next[] = {1, 1};

    seed = (unsigned)_i * 7919u + 3;
    begin(1 + _i % 2);
    for (int i = 0; i < ROUNDS; i++) {
        unsigned who = dice(2);
        struct fake *f = fakes[who];
        uint64_t old = next[who] > 1 ? 1 + 2 * dice((unsigned)(next[who] / 2)) : 1;
        struct rs_buf meta = {0};

        switch (dice(8)) {
        case 0:
        case 1:
        case 2:
            random_request(f, next[who], f->h.type == RS_MSG_REQUEST ? f->h.stream : 0);
            next[who] += 2;
            break;
        case 3:
            hold(f, old, upper_id());
            break;
        case 4:
            fake_send(f, RS_MSG_CANCEL, 0, old, NULL, NULL, 0);
            break;
        case 5:
            put_ids(&meta, RS_TAG_ADD);
            put_ids(&meta, RS_TAG_DROP);
            fake_send(f, RS_MSG_REFS, 0, 0, &meta, NULL, 0);
            rs_buf_fini(&meta);
            break;
        default:
            random_answers(f);
            break;
        }
    }
    random_answers(&a);
    random_answers(&b);
    fake_end(&a);
    fake_end(&b);
    wait_objects(0, 0);
    end();
}
END_TEST

#define BOTH(test) tcase_add_loop_test(tc, test, 1, 3) /* lanes */

RS_CHECK_MAIN("object_call", BOTH(put_and_get); BOTH(a_long_value_stays_in_its_memfd);
              tcase_add_test(tc, a_full_store_says_so); BOTH(waits);
              tcase_add_test(tc, garbage_ends_the_process); BOTH(what_is_passed_on_is_referred_to);
              BOTH(the_maker_dies); BOTH(a_call_waits_for_another);
              BOTH(an_answer_in_pieces_is_kept); BOTH(its_error_is_theirs); BOTH(the_first_dies);
              BOTH(cancel_reaches_what_it_alone_waits_for); BOTH(cancel_spares_what_others_want);
              BOTH(the_answer_was_on_its_way); BOTH(some_take_values_only);
              BOTH(a_get_makes_no_object); BOTH(memfds_one_after_the_other);
              BOTH(a_body_goes_on_behind_a_sealed_memfd); BOTH(ends_with_everything_under_way);
              tcase_add_loop_test(tc, random_frames, 0, 6);)
