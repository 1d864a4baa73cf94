/* Items of a call that are the body of what its caller answers: on one lane and between two. */
#include "tests/unit/net/dataplane_world.h"

#include "net/wire/pickle.h"
#include "tests/unit/check_main.h"

static struct world w;
static struct fake outer, inner;
static struct client client;

static const struct rs_ingress_conf lanes[] = {
    {.host = "127.0.0.1", .max_header = 32 << 10, .lanes = 1},
    {.host = "127.0.0.1", .max_header = 32 << 10, .lanes = 2},
};

enum { CALL = 1 };

/* A client has asked, and the outer replica has called the inner one with `stream` 1. */
static void begin(const struct rs_ingress_conf *conf)
{
    world_begin(&w, conf);
    world_routes(&w);
    fake_attach(&w, &outer, "front", "o", true);
    fake_attach(&w, &inner, "back", "i", true);
    client_open(&client, &w);
    client_get(&client, "/");
    fake_expect(&outer, RS_MSG_REQUEST);
    fake_call(&outer, CALL, "back", outer.h.stream, "");
    fake_expect(&inner, RS_MSG_REQUEST);
}

static void end(void)
{
    client_close(&client);
    fake_end(&outer);
    fake_end(&inner);
    world_end(&w);
}

static void wire_to(uint64_t call)
{
    struct rs_buf meta = response_meta(200, "content-type: text/plain\n");

    rs_field_put_uint(&meta, RS_TAG_BODY_OF, call);
    fake_send(&outer, RS_MSG_RESPONSE, 0, outer.h.stream, &meta, NULL, 0);
    rs_buf_fini(&meta);
}

/* The head of the inner replica's answer. */
static void open_items(const char *type)
{
    struct rs_buf meta = {0};

    rs_field_put_uint(&meta, RS_TAG_ITEMS, 1);
    rs_field_put_str(&meta, RS_TAG_CONTENT_TYPE, type);
    fake_send(&inner, RS_MSG_RESPONSE, 0, inner.h.stream, &meta, NULL, 0);
    rs_buf_fini(&meta);
}

static void item(const char *text, size_t len)
{
    struct rs_buf pickle = {0};

    rs_pickle_put_bytes(&pickle, text, len);
    if (len > RS_FRAME_MEMFD_MIN)
        fake_send_memfd(&inner, RS_MSG_BODY, 0, inner.h.stream, NULL, rs_buf_head(&pickle),
                        rs_buf_len(&pickle));
    else
        fake_send(&inner, RS_MSG_BODY, 0, inner.h.stream, NULL, rs_buf_head(&pickle),
                  rs_buf_len(&pickle));
    rs_buf_fini(&pickle);
}

static void end_of_items(void)
{
    fake_send(&inner, RS_MSG_BODY, RS_FRAME_END, inner.h.stream, NULL, NULL, 0);
}

/* What the outer replica gets of its call: nothing but the head and the end. */
static void expect_head_and_end(uint64_t request)
{
    fake_expect(&outer, RS_MSG_RESPONSE);
    ck_assert_uint_eq(outer.h.stream, CALL);
    fake_expect(&outer, RS_MSG_BODY);
    ck_assert_uint_eq(outer.h.stream, CALL);
    ck_assert_uint_eq(outer.h.body_len, 0);
    ck_assert(outer.h.flags & RS_FRAME_END);
    fake_send(&outer, RS_MSG_BODY, RS_FRAME_END, request, NULL, NULL, 0);
}

static void expect_answer(const char *body)
{
    client_read(&client);
    ck_assert_int_eq(client.status, 200);
    ck_assert(!client.broken);
    ck_assert_uint_eq(rs_buf_len(&client.body), strlen(body));
    ck_assert_mem_eq(rs_buf_head(&client.body), body, strlen(body));
}

static void client_wait(const char *text)
{
    while (rs_buf_len(&client.in) == 0 ||
           !memmem(rs_buf_head(&client.in), rs_buf_len(&client.in), text, strlen(text)))
        ck_assert(client_fill(&client));
}

START_TEST(items_go_to_the_client)
{
    static char big[100001];
    uint64_t request;

    begin(&lanes[_i]);
    memset(big, 'x', sizeof(big) - 1);
    request = outer.h.stream;
    wire_to(CALL);
    fake_sync(&w, &outer, "o");
    open_items(RS_PICKLE_TYPE);
    item("one ", 4);
    item("", 0);
    item("two", 3);
    end_of_items();
    expect_head_and_end(request);
    expect_answer("one two");
    /* a long one, in a memfd */
    client_get(&client, "/");
    fake_expect(&outer, RS_MSG_REQUEST);
    request = outer.h.stream;
    fake_call(&outer, CALL + 2, "back", request, "");
    fake_expect(&inner, RS_MSG_REQUEST);
    wire_to(CALL + 2);
    fake_sync(&w, &outer, "o");
    open_items(RS_PICKLE_TYPE);
    item(big, sizeof(big) - 1);
    end_of_items();
    fake_expect(&outer, RS_MSG_RESPONSE);
    fake_expect(&outer, RS_MSG_BODY);
    ck_assert_uint_eq(outer.h.body_len, 0);
    fake_send(&outer, RS_MSG_BODY, RS_FRAME_END, request, NULL, NULL, 0);
    expect_answer(big);
    end();
}
END_TEST

/* From the first item on that is no text, all go to the replica; it sends what it likes. */
START_TEST(other_items_go_to_the_replica)
{
    uint64_t request;

    begin(&lanes[_i]);
    request = outer.h.stream;
    wire_to(CALL);
    fake_sync(&w, &outer, "o");
    open_items(RS_PICKLE_TYPE);
    item("one ", 4);
    fake_send(&inner, RS_MSG_BODY, 0, inner.h.stream, NULL, "\x80\5K\1.", 5);
    item("two", 3);
    end_of_items();
    fake_expect(&outer, RS_MSG_RESPONSE);
    fake_expect(&outer, RS_MSG_BODY);
    ck_assert_uint_eq(outer.h.body_len, 5);
    fake_expect(&outer, RS_MSG_BODY);
    ck_assert_uint_eq(outer.h.body_len, RS_PICKLE_HEAD + 3 + 1);
    fake_expect(&outer, RS_MSG_BODY);
    fake_send(&outer, RS_MSG_BODY, 0, request, NULL, "1 ", 2);
    fake_send(&outer, RS_MSG_BODY, 0, request, NULL, "two", 3);
    fake_send(&outer, RS_MSG_BODY, RS_FRAME_END, request, NULL, NULL, 0);
    expect_answer("one 1 two");
    end();
}
END_TEST

/* Items came to the replica before: wired if it says that it had them all. */
START_TEST(the_rest_of_the_items)
{
    struct rs_buf meta = {0};
    uint64_t request;

    begin(&lanes[_i]);
    request = outer.h.stream;
    open_items(RS_PICKLE_TYPE);
    item("one ", 4);
    item("two ", 4);
    fake_expect(&outer, RS_MSG_RESPONSE);
    fake_expect(&outer, RS_MSG_BODY);
    fake_expect(&outer, RS_MSG_BODY);
    outer.h.stream = request;
    fake_answer(&outer, 200, "content-type: text/plain\n", "one ", 4, 0);
    rs_field_put_uint(&meta, RS_TAG_BODY_OF, CALL);
    rs_field_put_uint(&meta, RS_TAG_GOT, 1);
    fake_send(&outer, RS_MSG_PASS, 0, request, &meta, NULL, 0);
    fake_sync(&w, &outer, "o");
    item("three ", 6); /* the second one was on its way: nothing changed */
    fake_expect(&outer, RS_MSG_BODY);
    ck_assert_uint_eq(outer.h.body_len, RS_PICKLE_HEAD + 6 + 1);
    fake_send(&outer, RS_MSG_BODY, 0, request, NULL, "two ", 4);
    fake_send(&outer, RS_MSG_BODY, 0, request, NULL, "three ", 6);
    rs_buf_clear(&meta);
    rs_field_put_uint(&meta, RS_TAG_BODY_OF, CALL);
    rs_field_put_uint(&meta, RS_TAG_GOT, 3);
    fake_send(&outer, RS_MSG_PASS, 0, request, &meta, NULL, 0);
    fake_sync(&w, &outer, "o");
    item("four", 4);
    end_of_items();
    fake_expect(&outer, RS_MSG_BODY);
    ck_assert_uint_eq(outer.h.body_len, 0);
    fake_send(&outer, RS_MSG_BODY, RS_FRAME_END, request, NULL, NULL, 0);
    expect_answer("one two three four");
    fake_send(&outer, RS_MSG_PASS, 0, request, &meta, NULL, 0); /* it is over: no harm */
    fake_sync(&w, &outer, "o");
    rs_buf_fini(&meta);
    end();
}
END_TEST

enum odd { UNKNOWN, BEGUN, NO_ITEMS, ITSELF, ODDS };

/* Where items cannot be passed on, they come to the replica as ever. */
START_TEST(what_cannot_be_wired)
{
    enum odd odd = (enum odd)_i;
    uint64_t request;

    begin(&lanes[0]);
    request = outer.h.stream;
    if (odd == BEGUN) {
        open_items(RS_PICKLE_TYPE);
        fake_expect(&outer, RS_MSG_RESPONSE);
        item("zero", 4);
        fake_expect(&outer, RS_MSG_BODY);
        outer.h.stream = request;
    }
    wire_to(odd == UNKNOWN ? 77 : odd == ITSELF ? request : CALL);
    fake_sync(&w, &outer, "o");
    if (odd != BEGUN) {
        open_items(odd == NO_ITEMS ? "application/json" : RS_PICKLE_TYPE);
        fake_expect(&outer, RS_MSG_RESPONSE);
    }
    item("one", 3);
    fake_expect(&outer, RS_MSG_BODY);
    ck_assert_uint_eq(outer.h.stream, CALL);
    ck_assert_uint_eq(outer.h.body_len, RS_PICKLE_HEAD + 3 + 1);
    end_of_items();
    fake_expect(&outer, RS_MSG_BODY);
    fake_send(&outer, RS_MSG_BODY, RS_FRAME_END, request, NULL, "own", 3);
    expect_answer("own");
    end();
}
END_TEST

/* The inner replica gets credit as the client reads, the outer one none. */
START_TEST(credit_goes_to_where_items_come_from)
{
    static char piece[32 << 10];
    uint64_t request, credit = 0;
    enum { PIECES = 32 };

    begin(&lanes[_i]);
    memset(piece, 'y', sizeof(piece));
    request = outer.h.stream;
    wire_to(CALL);
    fake_sync(&w, &outer, "o");
    open_items(RS_PICKLE_TYPE);
    for (int i = 0; i < PIECES; i++) {
        item(piece, sizeof(piece));
        while (((uint64_t)i + 2) * (sizeof(piece) + RS_PICKLE_HEAD + 1) >
               credit + RS_STREAM_WINDOW) {
            if (rs_buf_len(&client.in) < ((size_t)i + 1) * sizeof(piece))
                ck_assert(client_fill(&client));
            fake_expect(&inner, RS_MSG_WINDOW);
            credit += rs_fields_uint(&inner.fields, RS_TAG_CREDIT, 0);
        }
    }
    end_of_items();
    expect_head_and_end(request);
    client_read(&client);
    ck_assert_uint_eq(rs_buf_len(&client.body), PIECES * sizeof(piece));
    ck_assert_uint_le(credit, PIECES * (sizeof(piece) + RS_PICKLE_HEAD + 1));
    fake_sync(&w, &outer, "o"); /* that no WINDOW came before it */
    end();
}
END_TEST

START_TEST(the_client_leaves)
{
    uint64_t request;

    begin(&lanes[_i]);
    request = outer.h.stream;
    wire_to(CALL);
    fake_sync(&w, &outer, "o");
    open_items(RS_PICKLE_TYPE);
    item("one", 3);
    client_wait("one");
    client_close(&client);
    fake_expect(&inner, RS_MSG_CANCEL);
    fake_expect(&outer, RS_MSG_RESPONSE);
    do { /* the call's ERROR tells it too */
        ck_assert(fake_read(&outer));
    } while (outer.h.type == RS_MSG_ERROR);
    ck_assert_int_eq(outer.h.type, RS_MSG_CANCEL);
    ck_assert_uint_eq(outer.h.stream, request);
    wait_ongoing(&w, 0);
    end();
}
END_TEST

START_TEST(a_replica_dies)
{
    bool inner_one = _i & 1;
    uint64_t request;

    begin(&lanes[_i >> 1]);
    request = outer.h.stream;
    wire_to(CALL);
    fake_sync(&w, &outer, "o");
    open_items(RS_PICKLE_TYPE);
    item("one", 3);
    client_wait("one");
    if (inner_one) {
        fake_end(&inner);
        fake_expect(&outer, RS_MSG_RESPONSE);
        fake_expect(&outer, RS_MSG_ERROR);
        ck_assert_uint_eq(rs_fields_uint(&outer.fields, RS_TAG_ERROR_CODE, 0), RS_WIRE_DIED);
        fake_error(&outer, request, RS_WIRE_USER, "the inner one died");
    } else {
        fake_end(&outer);
        fake_expect(&inner, RS_MSG_CANCEL);
    }
    client_read(&client);
    ck_assert(client.broken);
    wait_ongoing(&w, 0);
    end();
}
END_TEST

/* A caller of the outer replica gets the items as they are, of whatever type. */
START_TEST(items_of_items)
{
    struct rs_buf meta = {0};
    uint64_t request;

    begin(&lanes[_i]);
    fake_error(&inner, inner.h.stream, RS_WIRE_USER, "of no interest");
    fake_expect(&outer, RS_MSG_ERROR);
    /* inner -> outer's call; here `inner` calls, and `outer` answers with what `inner` gives */
    fake_call(&inner, 1, "front", 0, "");
    fake_expect(&outer, RS_MSG_REQUEST);
    request = outer.h.stream;
    fake_call(&outer, 3, "back", request, "");
    fake_expect(&inner, RS_MSG_REQUEST);
    rs_field_put_uint(&meta, RS_TAG_ITEMS, 1);
    rs_field_put_str(&meta, RS_TAG_CONTENT_TYPE, RS_PICKLE_TYPE);
    rs_field_put_uint(&meta, RS_TAG_BODY_OF, 3);
    fake_send(&outer, RS_MSG_RESPONSE, 0, request, &meta, NULL, 0);
    rs_buf_fini(&meta);
    fake_sync(&w, &outer, "o");
    open_items(RS_PICKLE_TYPE);
    request = inner.h.stream;
    fake_send(&inner, RS_MSG_BODY, 0, request, NULL, "\x80\5K\1.", 5);
    fake_expect(&inner, RS_MSG_RESPONSE);
    ck_assert_uint_eq(inner.h.stream, 1);
    fake_expect(&inner, RS_MSG_BODY);
    ck_assert_uint_eq(inner.h.stream, 1);
    ck_assert_uint_eq(inner.h.body_len, 5);
    fake_send(&inner, RS_MSG_BODY, RS_FRAME_END, request, NULL, NULL, 0);
    fake_expect(&outer, RS_MSG_RESPONSE);
    fake_expect(&outer, RS_MSG_BODY);
    ck_assert(outer.h.flags & RS_FRAME_END);
    end();
}
END_TEST

RS_CHECK_MAIN("wired", tcase_add_loop_test(tc, items_go_to_the_client, 0, RS_COUNT(lanes));
              tcase_add_loop_test(tc, other_items_go_to_the_replica, 0, RS_COUNT(lanes));
              tcase_add_loop_test(tc, the_rest_of_the_items, 0, RS_COUNT(lanes));
              tcase_add_loop_test(tc, what_cannot_be_wired, 0, ODDS);
              tcase_add_loop_test(tc, credit_goes_to_where_items_come_from, 0, RS_COUNT(lanes));
              tcase_add_loop_test(tc, the_client_leaves, 0, RS_COUNT(lanes));
              tcase_add_loop_test(tc, a_replica_dies, 0, 2 * RS_COUNT(lanes));
              tcase_add_loop_test(tc, items_of_items, 0, RS_COUNT(lanes));)
