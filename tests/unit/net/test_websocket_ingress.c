/* WebSocket requests through a data plane of two lanes, with a replica that does what it likes. The
 * session itself: test_websocket.c. */
#include "tests/unit/net/dataplane_world.h"

#include "net/http/websocket_frame.h"
#include "net/wire/record.h"

#include "tests/unit/check_main.h"

static struct world w;
static struct fake a;
static struct client c;
static struct rs_ingress_conf conf;

static const char handshake[] = "GET /chat?x HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n"
                                "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

static void ready(bool websocket)
{
    struct rs_buf meta = {0};

    rs_buf_printf(&meta, "{\"websocket\": %s}", websocket ? "true" : "false");
    fake_send(&a, RS_MSG_READY, 0, 0, &meta, NULL, 0);
    rs_buf_fini(&meta);
    (void)expect_event(&w, "READY", "r1");
}

static void begin(bool websocket)
{
    conf = world_conf;
    conf.lanes = 2;
    world_begin(&w, &conf);
    world_routes(&w);
    fake_attach(&w, &a, "front", "r1", true);
    fake_sync(&w, &a, "r1");
    ready(websocket);
    client_open(&c, &w);
}

static void end(void)
{
    client_close(&c);
    fake_end(&a);
    world_end(&w);
}

static void client_shakes_hands(const char *more)
{
    client_send(&c, handshake);
    client_send(&c, more);
    client_send(&c, "\r\n");
}

static void accepted(void)
{
    client_shakes_hands("");
    fake_expect(&a, RS_MSG_REQUEST);
    fake_answer(&a, 101, "", NULL, 0, 0);
    client_read_head(&c);
    ck_assert_int_eq(c.status, 101);
}

static void fake_record(uint8_t type, unsigned code, const char *body, unsigned flags)
{
    struct rs_buf b = {0};

    rs_record_encode(&(struct rs_record){.type = type,
                                         .flags = RS_RECORD_FIN,
                                         .code = (uint16_t)code,
                                         .len = (uint32_t)strlen(body)},
                     (uint8_t *)rs_buf_reserve(&b, RS_RECORD_HEAD));
    rs_buf_commit(&b, RS_RECORD_HEAD);
    rs_buf_puts(&b, body);
    fake_send(&a, RS_MSG_BODY, flags, a.h.stream, NULL, rs_buf_head(&b), rs_buf_len(&b));
    rs_buf_fini(&b);
}

/* Of a body that came whole. */
static void fake_expects_record(uint8_t type, unsigned code, const char *body, bool last)
{
    struct rs_record r;

    fake_expect(&a, RS_MSG_BODY);
    ck_assert_uint_ge(a.h.body_len, RS_RECORD_HEAD);
    r = rs_record_decode((uint8_t *)a.body);
    ck_assert_uint_eq(r.type, type);
    ck_assert_uint_eq(r.code, code);
    ck_assert_uint_eq(a.h.body_len, RS_RECORD_HEAD + r.len);
    ck_assert_str_eq(a.body + RS_RECORD_HEAD, body);
    ck_assert_int_eq(a.h.flags & RS_FRAME_END ? 1 : 0, last);
}

static void client_frame(uint8_t opcode, const char *data, size_t n)
{
    uint8_t head[RS_WS_HEAD_MAX + 4] = {0};
    size_t len = rs_ws_head_put(head, opcode, true, n);

    head[1] |= 0x80; /* a mask of zeros */
    send_all(c.fd, head, len + 4);
    send_all(c.fd, data, n);
}

/* A whole frame that the server sent, as opcode and text. */
static void client_expects_frame(uint8_t opcode, const char *data, size_t n)
{
    struct rs_ws_head h;
    size_t size;

    while (!rs_buf_len(&c.in) ||
           !(size = rs_ws_head_parse((uint8_t *)rs_buf_head(&c.in), rs_buf_len(&c.in), &h)) ||
           rs_buf_len(&c.in) < size + h.len)
        ck_assert_msg(client_fill(&c), "the connection ended");
    ck_assert_uint_eq(h.opcode, opcode);
    ck_assert_uint_eq(h.len, n);
    ck_assert_mem_eq(rs_buf_head(&c.in) + size, data, n);
    rs_buf_consume(&c.in, size + (size_t)h.len);
}

static void client_expects_close(const char *code_and_reason, size_t n)
{
    client_expects_frame(RS_WS_CLOSE, code_and_reason, n);
}

/* --- ------------------------------------------------------------------------------------------- */

/* Connections spread over both lanes, the replica is at home on one. */
START_TEST(on_both_lanes)
{
    begin(true);
    for (int i = 0; i < 12; i++) {
        accepted();
        ck_assert_uint_eq(rs_fields_uint(&a.fields, RS_TAG_KIND, 0), RS_REQUEST_WEBSOCKET);
        ck_assert_str_eq(fake_text(&a, RS_TAG_QUERY), "x");
        ck_assert(!(a.h.flags & RS_FRAME_END));
        ck_assert_str_eq(client_header(&c, "sec-websocket-accept"), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        client_frame(RS_WS_TEXT, "hello", 5);
        fake_expects_record(RS_RECORD_TEXT, 0, "hello", false);
        fake_record(RS_RECORD_BINARY, 0, "world", 0);
        client_expects_frame(RS_WS_BINARY, "world", 5);
        client_frame(RS_WS_CLOSE,
                     "\x03\xe8"
                     "bye",
                     5);
        fake_expects_record(RS_RECORD_CLOSE, 1000, "bye", true);
        client_expects_close("\x03\xe8"
                             "bye",
                             5);
        ck_assert(!client_fill(&c));
        fake_send(&a, RS_MSG_BODY, RS_FRAME_END, a.h.stream, NULL, NULL, 0);
        wait_ongoing(&w, 0);
        client_close(&c);
        client_open(&c, &w);
    }
    end();
}
END_TEST

START_TEST(replicas_that_did_not_offer_it)
{
    begin(false);
    client_shakes_hands("");
    client_expect(&c, 501, "This application does not take WebSocket connections.");
    client_get(&c, "/"); /* the connection goes on */
    fake_expect(&a, RS_MSG_REQUEST);
    fake_ok(&a, "ok");
    client_expect(&c, 200, "ok");
    end();
}
END_TEST

START_TEST(refusals_are_answers)
{
    begin(true);
    client_shakes_hands("");
    fake_expect(&a, RS_MSG_REQUEST);
    fake_answer(&a, 403, "", "no", 2, RS_FRAME_END);
    client_expect(&c, 403, "no");
    client_shakes_hands("");
    fake_expect(&a, RS_MSG_BODY); /* the end of the first one's body */
    fake_expect(&a, RS_MSG_REQUEST);
    fake_error(&a, a.h.stream, RS_WIRE_USER, "boom");
    client_expect(&c, 500, "Internal Server Error");
    client_get(&c, "/"); /* the connection goes on, */
    fake_expect(&a, RS_MSG_REQUEST);
    fake_ok(&a, "ok");
    client_expect(&c, 200, "ok");
    accepted(); /* and may still be upgraded */
    client_frame(RS_WS_TEXT, "hello", 5);
    fake_expects_record(RS_RECORD_TEXT, 0, "hello", false);
    end();
}
END_TEST

/* What an application says at once is there when the client has its 101. */
START_TEST(said_with_the_answer)
{
    char early[RS_RECORD_HEAD + 5] = {
        RS_RECORD_TEXT, RS_RECORD_FIN, 0, 0, 5, 0, 0, 0, 'e', 'a', 'r', 'l', 'y'};

    begin(true);
    client_shakes_hands("");
    fake_expect(&a, RS_MSG_REQUEST);
    fake_answer(&a, 101, "sec-websocket-protocol: p\n", early, sizeof(early), RS_FRAME_END);
    client_read_head(&c);
    ck_assert_str_eq(client_header(&c, "sec-websocket-protocol"), "p");
    client_expects_frame(RS_WS_TEXT, "early", 5);
    client_expects_close("\x03\xe8", 2);
    client_frame(RS_WS_CLOSE, "\x03\xe8", 2);
    ck_assert(!client_fill(&c));
    end();
}
END_TEST

/* The client said something before it had its 101. */
START_TEST(said_with_the_handshake)
{
    begin(true);
    client_send(&c, handshake);
    send_all(c.fd, "\r\n\x81\x85\0\0\0\0early", 13);
    fake_expect(&a, RS_MSG_REQUEST);
    fake_answer(&a, 101, "", NULL, 0, 0);
    fake_expects_record(RS_RECORD_TEXT, 0, "early", false);
    end();
}
END_TEST

static const struct {
    const char *name;
    uint8_t record; /* 0: none */
    enum rs_wire_error error;
    bool dies, stops;
    const char *close; /* NULL: none */
    size_t n;
} ends[] = {
#define CLOSE(text) .close = text, .n = sizeof(text) - 1
    {.name = "an unknown record",
     .record = 9,
     CLOSE("\x03\xf3the application sent an unknown record")},
    {.name = "an exception", .error = RS_WIRE_USER},
    {.name = "an error of the system's",
     .error = RS_WIRE_INTERNAL,
     CLOSE("\x03\xf3the replica died")},
    {.name = "death", .dies = true, CLOSE("\x03\xf3the replica died")},
    {.name = "a replica that has to go", .stops = true, CLOSE("\x03\xf4the replica was stopped")},
};

START_TEST(how_it_breaks_off)
{
    begin(true);
    accepted();
    fake_record(RS_RECORD_TEXT, 0, "first", 0);
    client_expects_frame(RS_WS_TEXT, "first", 5);
    if (ends[_i].record)
        fake_record(ends[_i].record, 0, "", 0);
    if (ends[_i].error)
        fake_error(&a, a.h.stream, ends[_i].error, "why");
    if (ends[_i].dies)
        rs_closep(&a.fd);
    if (ends[_i].stops) {
        rs_dataplane_retire(w.dp, "r1");
        rs_dataplane_detach(w.dp, "r1", "its process was killed by SIGKILL (9)");
    }
    if (ends[_i].n)
        client_expects_close(ends[_i].close, ends[_i].n);
    ck_assert_msg(!client_fill(&c), "%s", ends[_i].name);
    end();
}
END_TEST

/* So much may be under way, and no more until the application takes some. */
START_TEST(held_back)
{
    static char data[60000];
    uint64_t got = 0;
    struct rs_buf credit = {0};

    begin(true);
    accepted();
    for (int i = 0; i < 8; i++)
        client_frame(RS_WS_BINARY, data, sizeof(data));
    client_frame(RS_WS_PING, "x", 1);
    while (got < RS_STREAM_WINDOW) {
        fake_expect(&a, RS_MSG_BODY);
        got += a.h.body_len;
    }
    ck_assert_uint_lt(got, RS_STREAM_WINDOW + (64 << 10)); /* overrun by one piece */
    fake_sync(&w, &a, "r1");                               /* nothing else was sent */
    rs_field_put_uint(&credit, RS_TAG_CREDIT, got);
    fake_send(&a, RS_MSG_WINDOW, 0, 2, &credit, NULL, 0);
    while (got < 8 * sizeof(data)) {
        fake_expect(&a, RS_MSG_BODY);
        got += a.h.body_len;
    }
    client_expects_frame(RS_WS_PONG, "x", 1);
    rs_buf_fini(&credit);
    end();
}
END_TEST

/* A client that leaves while its handshake waits, though told that the work goes on without it. */
START_TEST(a_client_that_left_its_handshake)
{
    begin(true);
    client_shakes_hands("X-Request-Disconnect-Disabled: ?1\r\n");
    fake_expect(&a, RS_MSG_REQUEST);
    client_close(&c);
    client_open(&c, &w); /* a turn of the loop or two */
    fake_sync(&w, &a, "r1");
    fake_answer(&a, 101, "", NULL, 0, 0);
    wait_ongoing(&w, 1);
    fake_sync(&w, &a, "r1");
    end();
}
END_TEST

START_TEST(the_node_stops)
{
    begin(true);
    accepted();
    rs_dataplane_stop_accepting(w.dp);
    client_expects_close("\x03\xf4", 2);
    fake_expects_record(RS_RECORD_CLOSE, 1012, "", true);
    client_frame(RS_WS_CLOSE, "\x03\xf4", 2);
    ck_assert(!client_fill(&c));
    fake_send(&a, RS_MSG_BODY, RS_FRAME_END, a.h.stream, NULL, NULL, 0);
    wait_ongoing(&w, 0);
    end();
}
END_TEST

/* In whatever state they are. */
START_TEST(the_data_plane_ends_with_open_ones)
{
    struct client more[8];

    begin(true);
    accepted();
    for (size_t i = 0; i < RS_COUNT(more); i++) {
        client_open(&more[i], &w);
        client_send(&more[i], handshake);
        client_send(&more[i], "\r\n");
        if (i < 7) /* max_ongoing: the last one waits in the queue */
            fake_expect(&a, RS_MSG_REQUEST);
        if (i % 2)
            fake_answer(&a, 101, "", NULL, 0, 0);
    }
    wait_queued(&w, "front", 1);
    end();
    for (size_t i = 0; i < RS_COUNT(more); i++)
        client_close(&more[i]);
}
END_TEST

RS_CHECK_MAIN("websocket_ingress", tcase_add_test(tc, on_both_lanes);
              tcase_add_test(tc, replicas_that_did_not_offer_it);
              tcase_add_test(tc, refusals_are_answers); tcase_add_test(tc, said_with_the_answer);
              tcase_add_test(tc, said_with_the_handshake);
              tcase_add_loop_test(tc, how_it_breaks_off, 0, RS_COUNT(ends));
              tcase_add_test(tc, held_back); tcase_add_test(tc, a_client_that_left_its_handshake);
              tcase_add_test(tc, the_node_stops);
              tcase_add_test(tc, the_data_plane_ends_with_open_ones);)
