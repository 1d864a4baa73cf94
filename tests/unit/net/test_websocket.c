/* A WebSocket connection as bytes in and bytes out; the socket: tests/integration/test_websocket.py. */
#include "core/base/clock.h"
#include "net/http/websocket_key.h"
#include "net/http/websocket_session.h"

#include "tests/unit/check_main.h"

#include <stdio.h>
#include <string.h>

static struct rs_ws_session s;
static int64_t now;

static const struct rs_ws_conf conf = {.max_message = 1000,
                                       .ping_every = 20 * RS_SEC,
                                       .ping_patience = 15 * RS_SEC,
                                       .close_patience = 10 * RS_SEC};

static void begin(void)
{
    now = 1000 * RS_SEC;
    rs_ws_init(&s, &conf, now);
}

static void end(void)
{
    rs_ws_fini(&s);
}

/* --- what is said ------------------------------------------------------------------------------ */

/* A client's frame, masked, whatever it means. */
static void client_raw(uint8_t first, const void *data, size_t n)
{
    static const uint8_t mask[4] = {0x11, 0xa2, 0x73, 0x04};
    struct rs_buf b = {0};
    uint8_t head[RS_WS_HEAD_MAX];
    size_t len = rs_ws_head_put(head, 0, false, n);

    head[0] = first;
    head[1] |= 0x80;
    rs_buf_append(&b, head, len);
    rs_buf_append(&b, mask, sizeof(mask));
    rs_ws_unmask(rs_buf_reserve(&b, n), data, n, mask, 0);
    rs_buf_commit(&b, n);
    rs_ws_client(&s, rs_buf_head(&b), rs_buf_len(&b), now);
    rs_buf_fini(&b);
}

static void client_text(const char *text)
{
    client_raw(0x80 | RS_WS_TEXT, text, strlen(text));
}

static void client_close(unsigned code, const char *reason)
{
    char data[200] = {(char)(code >> 8), (char)code};

    strcpy(data + 2, reason);
    client_raw(0x80 | RS_WS_CLOSE, data, 2 + strlen(reason));
}

static void app(uint8_t type, bool fin, unsigned code, const void *data, size_t n)
{
    uint8_t head[RS_RECORD_HEAD];

    rs_record_encode(&(struct rs_record){.type = type,
                                         .flags = fin ? RS_RECORD_FIN : 0,
                                         .code = (uint16_t)code,
                                         .len = (uint32_t)n},
                     head);
    rs_ws_app(&s, (const char *)head, sizeof(head), now);
    rs_ws_app(&s, data, n, now);
}

/* --- what is heard: as text, "text!abc" with ! for FIN, one after the other --------------------- */

static const char *app_hears(void)
{
    static char all[4096];
    size_t at = 0;

    all[0] = '\0';
    while (rs_buf_len(&s.in)) {
        struct rs_record r = rs_record_decode((const uint8_t *)rs_buf_head(&s.in));
        const char *name = r.type == RS_RECORD_TEXT     ? "text"
                           : r.type == RS_RECORD_BINARY ? "binary"
                           : r.type == RS_RECORD_CLOSE  ? "close"
                                                        : "?";

        ck_assert_uint_ge(rs_buf_len(&s.in), RS_RECORD_HEAD + r.len);
        at += (size_t)snprintf(all + at, sizeof(all) - at, "%s%s%s", at ? " " : "", name,
                               r.flags & RS_RECORD_FIN ? "!" : "-");
        if (r.type == RS_RECORD_CLOSE)
            at += (size_t)snprintf(all + at, sizeof(all) - at, "%u:", r.code);
        at += (size_t)snprintf(all + at, sizeof(all) - at, "%.*s", (int)r.len,
                               rs_buf_head(&s.in) + RS_RECORD_HEAD);
        rs_buf_consume(&s.in, RS_RECORD_HEAD + r.len);
    }
    return all;
}

static const char *client_hears(void)
{
    static const char *const names[16] = {
        [0] = "more", [1] = "text", [2] = "binary", [8] = "close", [9] = "ping", [10] = "pong"};
    static char all[4096];
    size_t at = 0;

    all[0] = '\0';
    while (rs_buf_len(&s.out)) {
        struct rs_ws_head h;
        size_t size =
            rs_ws_head_parse((const uint8_t *)rs_buf_head(&s.out), rs_buf_len(&s.out), &h);
        const char *data = rs_buf_head(&s.out) + size;

        ck_assert_uint_gt(size, 0);
        ck_assert(!h.masked && !h.reserved && names[h.opcode]);
        ck_assert_uint_ge(rs_buf_len(&s.out) - size, h.len);
        at += (size_t)snprintf(all + at, sizeof(all) - at, "%s%s%s", at ? " " : "", names[h.opcode],
                               h.fin ? "!" : "-");
        if (h.opcode == RS_WS_CLOSE && h.len)
            at += (size_t)snprintf(all + at, sizeof(all) - at, "%u:%.*s",
                                   (unsigned)((uint8_t)data[0] << 8 | (uint8_t)data[1]),
                                   (int)h.len - 2, data + 2);
        else if (h.opcode != RS_WS_PING)
            at += (size_t)snprintf(all + at, sizeof(all) - at, "%.*s", (int)h.len, data);
        rs_buf_consume(&s.out, size + (size_t)h.len);
    }
    return all;
}

/* --- the pure parts ---------------------------------------------------------------------------- */

START_TEST(keys)
{
    static const char key[] = "dGhlIHNhbXBsZSBub25jZQ=="; /* RFC 6455, 1.3 */
    char accept[RS_WS_ACCEPT_LEN + 1];

    rs_ws_accept(key, strlen(key), accept);
    ck_assert_str_eq(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    ck_assert(rs_ws_key_ok(key, 24));
    ck_assert(!rs_ws_key_ok(key, 23));
    ck_assert(!rs_ws_key_ok("dGhlIHNhbXBsZSBub25jZQ=A", 24));
    ck_assert(!rs_ws_key_ok("dGhlIHNhbXBsZSBub25jZ!==", 24));
    ck_assert(!rs_ws_key_ok("", 0));
}
END_TEST

static const uint64_t lengths[] = {0, 1, 125, 126, 127, 65535, 65536, UINT64_C(1) << 40};

START_TEST(heads_come_back)
{
    uint8_t head[RS_WS_HEAD_MAX];
    size_t size = rs_ws_head_put(head, RS_WS_BINARY, true, lengths[_i]);
    struct rs_ws_head h;

    for (size_t n = 0; n < size; n++)
        ck_assert_uint_eq(rs_ws_head_parse(head, n, &h), 0);
    ck_assert_uint_eq(rs_ws_head_parse(head, size, &h), size);
    ck_assert(h.fin && h.opcode == RS_WS_BINARY && !h.masked && h.len == lengths[_i]);
}
END_TEST

static const struct {
    const char *text;
    bool good;
} texts[] = {
    {"", true},
    {"plain ascii, longer than eight bytes", true},
    {"\xc3\xbc \xe2\x82\xac \xf0\x9f\x98\x80 \xef\xbf\xbf \xf4\x8f\xbf\xbf", true},
    {"\xed\x9f\xbf\xee\x80\x80", true},
    {"\x80", false},
    {"\xc0\xaf", false},         /* overlong */
    {"\xe0\x9f\xbf", false},     /* overlong */
    {"\xf0\x8f\xbf\xbf", false}, /* overlong */
    {"\xed\xa0\x80", false},     /* a surrogate */
    {"\xf4\x90\x80\x80", false}, /* beyond the last character */
    {"\xf5\x80\x80\x80", false}, /* no such first byte */
    {"\xc3(", false},            /* cut off by another */
    {"12345678\xff", false},     /* behind the fast way */
    {"\xe2\x82", false},         /* ends within one */
    {"1234567\xe2\x82\xac\xc3", false},
};

/* However it is cut. */
START_TEST(utf8_in_pieces)
{
    size_t n = strlen(texts[_i].text);

    for (size_t cut = 0; cut <= n; cut++) {
        struct rs_ws_text t = {0};
        bool good = rs_ws_text_feed(&t, texts[_i].text, cut) &&
                    rs_ws_text_feed(&t, texts[_i].text + cut, n - cut) && rs_ws_text_whole(&t);

        ck_assert_msg(good == texts[_i].good, "cut at %zu", cut);
    }
}
END_TEST

START_TEST(unmask_at_any_place)
{
    static const uint8_t mask[4] = {1, 2, 3, 4};
    char from[40], whole[40], parts[40];

    for (size_t i = 0; i < sizeof(from); i++)
        from[i] = (char)(i * 7);
    for (size_t i = 0; i < sizeof(from); i++)
        whole[i] = (char)(from[i] ^ (char)mask[i % 4]);
    for (size_t cut = 0; cut <= sizeof(from); cut++) {
        rs_ws_unmask(parts, from, cut, mask, 0);
        rs_ws_unmask(parts + cut, from + cut, sizeof(from) - cut, mask, cut);
        ck_assert_mem_eq(parts, whole, sizeof(whole));
    }
}
END_TEST

START_TEST(records_come_back)
{
    struct rs_record r = {.type = 3, .flags = 1, .code = 4711, .len = 0x12345678}, got;
    uint8_t head[RS_RECORD_HEAD];

    rs_record_encode(&r, head);
    got = rs_record_decode(head);
    ck_assert(got.type == 3 && got.flags == 1 && got.code == 4711 && got.len == 0x12345678);
}
END_TEST

/* --- messages ---------------------------------------------------------------------------------- */

START_TEST(messages_both_ways)
{
    begin();
    client_text("hello");
    client_raw(0x80 | RS_WS_BINARY, "", 0);
    ck_assert_str_eq(app_hears(), "text!hello binary!");
    app(RS_RECORD_TEXT, true, 0, "one", 3);
    app(RS_RECORD_BINARY, false, 0, "two", 3);
    app(RS_RECORD_BINARY, true, 0, "", 0);
    app(RS_RECORD_TEXT, true, 0, "", 0);
    ck_assert_str_eq(client_hears(), "text!one binary-two more! text!");
    ck_assert_int_eq(rs_ws_next(&s), RS_WS_NEXT_NOTHING);
    end();
}
END_TEST

/* Byte by byte, with control frames between the fragments. */
START_TEST(fragments)
{
    static const char wire[] =
        "\x01\x83\0\0\0\0abc\x89\x82\0\0\0\0hi\x00\x80\0\0\0\0\x80\x81\0\0\0\0d";

    begin();
    for (size_t i = 0; i < sizeof(wire) - 1; i++)
        rs_ws_client(&s, wire + i, 1, now);
    ck_assert_str_eq(app_hears(), "text-a text-b text-c text!d");
    ck_assert_str_eq(client_hears(), "pong!hi");
    end();
}
END_TEST

START_TEST(a_big_message_passes_in_pieces)
{
    char body[900];

    memset(body, 'x', sizeof(body));
    begin();
    client_raw(RS_WS_TEXT, body, 900);
    client_raw(0x80 | RS_WS_CONTINUATION, body, 100); /* exactly the limit */
    ck_assert_uint_eq(strlen(app_hears()), 900 + 100 + 2 * 5 + 1);
    client_raw(RS_WS_TEXT, body, 900);
    (void)app_hears();
    client_raw(0x80 | RS_WS_CONTINUATION, body, 101);
    ck_assert_str_eq(app_hears(), "close!1006:");
    ck_assert_str_eq(client_hears(), "close!1009:a message that is too big");
    end();
}
END_TEST

START_TEST(records_may_be_cut_anywhere)
{
    struct rs_buf b = {0};
    uint8_t head[RS_RECORD_HEAD];

    begin();
    rs_record_encode(&(struct rs_record){.type = RS_RECORD_TEXT, .flags = 1, .len = 5}, head);
    rs_buf_append(&b, head, sizeof(head));
    rs_buf_append(&b, "hello", 5);
    rs_record_encode(
        &(struct rs_record){.type = RS_RECORD_CLOSE, .flags = 1, .code = 4001, .len = 4}, head);
    rs_buf_append(&b, head, sizeof(head));
    rs_buf_append(&b, "done", 4);
    for (size_t i = 0; i < rs_buf_len(&b); i++)
        rs_ws_app(&s, rs_buf_head(&b) + i, 1, now);
    ck_assert_str_eq(client_hears(), "text!hello close!4001:done");
    rs_buf_fini(&b);
    end();
}
END_TEST

/* --- what clients must not do ------------------------------------------------------------------ */

static const struct {
    const char *bytes;
    size_t n;
    const char *hears;
} bad[] = {
#define BAD(bytes, hears)                                                                          \
    {                                                                                              \
        bytes, sizeof(bytes) - 1, hears                                                            \
    }
    BAD("\x81\x01x", "close!1002:a frame without a mask"),
    BAD("\xc1\x80\0\0\0\0", "close!1002:reserved bits are set"),
    BAD("\x83\x80\0\0\0\0", "close!1002:an unknown opcode"),
    BAD("\x8b\x80\0\0\0\0", "close!1002:an unknown opcode"),
    BAD("\x80\x80\0\0\0\0", "close!1002:a continuation of nothing"),
    BAD("\x01\x81\0\0\0\0a\x81\x81\0\0\0\0b", "close!1002:a message within another"),
    BAD("\x09\x80\0\0\0\0", "close!1002:a control frame in pieces"),
    BAD("\x89\xfe\0\x7e\0\0\0\0", "close!1002:a control frame that is too long"),
    BAD("\x82\xff\x80\0\0\0\0\0\0\0\0\0\0\0", "close!1002:a length beyond 63 bits"),
    BAD("\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff\0\0\0\0", "close!1009:a message that is too big"),
    BAD("\x81\x81\0\0\0\0\xff", "close!1007:a text that is not UTF-8"),
    BAD("\x81\x81\0\0\0\0\xc3", "close!1007:a text that is not UTF-8"),
    BAD("\x88\x81\0\0\0\0x", "close!1002:a close frame without a valid code"),
    BAD("\x88\x82\0\0\0\0\x03\xed", "close!1002:a close frame without a valid code"), /* 1005 */
    BAD("\x88\x82\0\0\0\0\x03\xe7", "close!1002:a close frame without a valid code"), /* 999 */
    BAD("\x88\x83\0\0\0\0\x03\xe8\xff", "close!1007:a reason that is not UTF-8"),
};

START_TEST(bad_clients)
{
    begin();
    rs_ws_client(&s, bad[_i].bytes, bad[_i].n, now);
    ck_assert_str_eq(client_hears(), bad[_i].hears);
    ck_assert_ptr_nonnull(strstr(app_hears(), "close!1006:"));
    ck_assert(s.in_ended);
    ck_assert_int_eq(rs_ws_next(&s), RS_WS_NEXT_LINGER);
    client_text("more"); /* nobody listens any more */
    ck_assert_uint_eq(rs_buf_len(&s.in), 0);
    end();
}
END_TEST

/* --- the end ----------------------------------------------------------------------------------- */

START_TEST(the_client_closes)
{
    begin();
    client_close(4002, "enough");
    client_text("ignored");
    ck_assert_str_eq(app_hears(), "close!4002:enough");
    ck_assert_str_eq(client_hears(), "close!4002:enough");
    ck_assert_int_eq(rs_ws_next(&s), RS_WS_NEXT_CLOSE);
    ck_assert_uint_eq(s.code, 4002);
    app(RS_RECORD_TEXT, true, 0, "too late", 8);
    ck_assert_uint_eq(rs_buf_len(&s.out), 0);
    end();
}
END_TEST

START_TEST(the_client_closes_without_a_code)
{
    begin();
    client_raw(0x80 | RS_WS_CLOSE, "", 0);
    ck_assert_str_eq(app_hears(), "close!1005:");
    ck_assert_str_eq(client_hears(), "close!");
    end();
}
END_TEST

/* Nothing can be said within a frame of the application's. */
START_TEST(a_close_waits_for_the_end_of_a_frame)
{
    uint8_t head[RS_RECORD_HEAD];

    begin();
    rs_record_encode(&(struct rs_record){.type = RS_RECORD_TEXT, .flags = 1, .len = 4}, head);
    rs_ws_app(&s, (const char *)head, sizeof(head), now);
    rs_ws_app(&s, "ab", 2, now);
    client_raw(0x80 | RS_WS_PING, "x", 1);
    client_close(1000, "");
    ck_assert_int_eq(rs_ws_next(&s), RS_WS_NEXT_NOTHING);
    rs_ws_app(&s, "cd", 2, now);
    ck_assert_str_eq(client_hears(), "text!abcd pong!x close!1000:");
    ck_assert_int_eq(rs_ws_next(&s), RS_WS_NEXT_CLOSE);
    end();
}
END_TEST

START_TEST(the_application_closes)
{
    begin();
    app(RS_RECORD_CLOSE, true, 4001, "done", 4);
    ck_assert_str_eq(client_hears(), "close!4001:done");
    ck_assert_int_eq(rs_ws_next(&s), RS_WS_NEXT_NOTHING); /* until the client answers */
    client_text("crossed it");
    ck_assert_str_eq(app_hears(), "");
    client_close(4001, "");
    ck_assert_int_eq(rs_ws_next(&s), RS_WS_NEXT_CLOSE);
    ck_assert_uint_eq(s.code, 4001);
    end();
}
END_TEST

START_TEST(the_client_does_not_answer_a_close)
{
    begin();
    app(RS_RECORD_CLOSE, true, 1000, "", 0);
    ck_assert_int_eq(rs_ws_tick(&s, false, now), now + 10 * RS_SEC);
    ck_assert_int_eq(rs_ws_next(&s), RS_WS_NEXT_NOTHING);
    now += 9 * RS_SEC;
    rs_ws_wrote(&s, now); /* it reads, but slowly */
    ck_assert_int_eq(rs_ws_tick(&s, false, now), now + 10 * RS_SEC);
    now += 10 * RS_SEC;
    ck_assert_int_eq(rs_ws_tick(&s, false, now), 0);
    ck_assert_int_eq(rs_ws_next(&s), RS_WS_NEXT_DROP);
    end();
}
END_TEST

START_TEST(the_client_is_gone)
{
    begin();
    client_raw(RS_WS_TEXT, "part", 4);
    app(RS_RECORD_TEXT, true, 0, "unheard", 7);
    rs_ws_client_gone(&s);
    ck_assert_str_eq(app_hears(), "text-part close!1006:");
    ck_assert_uint_eq(rs_buf_len(&s.out), 0);
    ck_assert_int_eq(rs_ws_next(&s), RS_WS_NEXT_DROP);
    ck_assert_int_eq(rs_ws_tick(&s, false, now), 0);
    end();
}
END_TEST

static const struct {
    enum rs_ws_end how;
    const char *hears;
    enum rs_ws_next next;
    unsigned code;
} ends[] = {
    {RS_WS_END_DONE, "text!last close!1000:", RS_WS_NEXT_NOTHING, 1000},
    {RS_WS_END_DIED, "text!last close!1011:the replica died", RS_WS_NEXT_LINGER, 1011},
    {RS_WS_END_STOPPED, "text!last close!1012:the replica was stopped", RS_WS_NEXT_LINGER, 1012},
    {RS_WS_END_CUT, "text!last", RS_WS_NEXT_CLOSE, 1011},
};

START_TEST(the_application_ends)
{
    begin();
    app(RS_RECORD_TEXT, true, 0, "last", 4);
    rs_ws_app_ended(&s, ends[_i].how, now);
    rs_ws_app_ended(&s, RS_WS_END_DIED, now);
    ck_assert_str_eq(client_hears(), ends[_i].hears);
    ck_assert_int_eq(rs_ws_next(&s), ends[_i].next);
    ck_assert_uint_eq(s.code, ends[_i].code);
    ck_assert_str_eq(app_hears(), "");
    end();
}
END_TEST

START_TEST(the_application_dies_within_a_frame)
{
    uint8_t head[RS_RECORD_HEAD];

    begin();
    rs_record_encode(&(struct rs_record){.type = RS_RECORD_TEXT, .flags = 1, .len = 4}, head);
    rs_ws_app(&s, (const char *)head, sizeof(head), now);
    rs_ws_app_ended(&s, RS_WS_END_DIED, now);
    ck_assert_int_eq(rs_ws_next(&s), RS_WS_NEXT_CLOSE); /* without a close frame */
    end();
}
END_TEST

static const struct {
    struct rs_record r;
    const char *hears;
} bad_records[] = {
    {{.type = 9, .flags = 1}, "close!1011:the application sent an unknown record"},
    {{.type = 1, .flags = 2}, "close!1011:the application sent an unknown record"},
    {{.type = 3, .flags = 1, .code = 1005}, "close!1011:the application sent no valid close code"},
    {{.type = 3, .flags = 1, .code = 1000, .len = 124},
     "close!1011:the application sent too long a reason"},
};

START_TEST(bad_applications)
{
    uint8_t head[RS_RECORD_HEAD];

    begin();
    rs_record_encode(&bad_records[_i].r, head);
    rs_ws_app(&s, (const char *)head, sizeof(head), now);
    ck_assert_str_eq(client_hears(), bad_records[_i].hears);
    end();
}
END_TEST

START_TEST(the_server_stops)
{
    begin();
    rs_ws_restart(&s, now);
    ck_assert_str_eq(client_hears(), "close!1012:");
    ck_assert_str_eq(app_hears(), "close!1012:");
    ck_assert_int_eq(rs_ws_next(&s), RS_WS_NEXT_NOTHING);
    client_close(1012, "");
    ck_assert_int_eq(rs_ws_next(&s), RS_WS_NEXT_CLOSE);
    end();
}
END_TEST

/* --- pings ------------------------------------------------------------------------------------- */

START_TEST(pings)
{
    begin();
    ck_assert_int_eq(rs_ws_tick(&s, false, now), now + 20 * RS_SEC);
    ck_assert_str_eq(client_hears(), "");
    now += 20 * RS_SEC;
    ck_assert_int_eq(rs_ws_tick(&s, false, now), now + 15 * RS_SEC);
    ck_assert_str_eq(client_hears(), "ping!");
    now += 14 * RS_SEC;
    client_raw(0x80 | RS_WS_PONG, "", 0);
    ck_assert_int_eq(rs_ws_tick(&s, false, now), now + 20 * RS_SEC);
    now += 20 * RS_SEC;
    (void)rs_ws_tick(&s, false, now);
    ck_assert_str_eq(client_hears(), "ping!");
    now += 15 * RS_SEC;
    (void)rs_ws_tick(&s, false, now);
    ck_assert_str_eq(client_hears(), "close!1011:keepalive ping timeout");
    ck_assert_str_eq(app_hears(), "close!1006:");
    end();
}
END_TEST

/* Its pong may lie unread, because the application does not take what came before it. */
START_TEST(no_ping_times_out_while_nothing_is_read)
{
    begin();
    now += 20 * RS_SEC;
    (void)rs_ws_tick(&s, false, now);
    ck_assert_str_eq(client_hears(), "ping!");
    now += 100 * RS_SEC;
    ck_assert_int_eq(rs_ws_tick(&s, true, now), now + 15 * RS_SEC);
    ck_assert_str_eq(client_hears(), "");
    now += 15 * RS_SEC;
    (void)rs_ws_tick(&s, false, now);
    ck_assert_str_eq(client_hears(), "close!1011:keepalive ping timeout");
    end();
}
END_TEST

/* Over a slow line a ping arrives late. */
START_TEST(no_ping_times_out_while_the_client_reads)
{
    begin();
    now += 20 * RS_SEC;
    (void)rs_ws_tick(&s, false, now);
    ck_assert_str_eq(client_hears(), "ping!");
    now += 14 * RS_SEC;
    rs_ws_wrote(&s, now);
    ck_assert_int_eq(rs_ws_tick(&s, false, now), now + 15 * RS_SEC);
    now += 15 * RS_SEC;
    (void)rs_ws_tick(&s, false, now);
    ck_assert_str_eq(client_hears(), "close!1011:keepalive ping timeout");
    end();
}
END_TEST

/* A client that sends many pings and reads nothing costs no memory. */
START_TEST(only_the_last_ping_is_answered)
{
    uint8_t head[RS_RECORD_HEAD];

    begin();
    rs_record_encode(&(struct rs_record){.type = RS_RECORD_TEXT, .flags = 1, .len = 2}, head);
    rs_ws_app(&s, (const char *)head, sizeof(head), now);
    for (int i = 0; i < 1000; i++)
        client_raw(0x80 | RS_WS_PING, i == 999 ? "last" : "ping", 4);
    rs_ws_app(&s, "ab", 2, now);
    ck_assert_str_eq(client_hears(), "text!ab pong!last");
    end();
}
END_TEST

RS_CHECK_MAIN("websocket", tcase_add_test(tc, keys);
              tcase_add_loop_test(tc, heads_come_back, 0, RS_COUNT(lengths));
              tcase_add_loop_test(tc, utf8_in_pieces, 0, RS_COUNT(texts));
              tcase_add_test(tc, unmask_at_any_place); tcase_add_test(tc, records_come_back);
              tcase_add_test(tc, messages_both_ways); tcase_add_test(tc, fragments);
              tcase_add_test(tc, a_big_message_passes_in_pieces);
              tcase_add_test(tc, records_may_be_cut_anywhere);
              tcase_add_loop_test(tc, bad_clients, 0, RS_COUNT(bad));
              tcase_add_test(tc, the_client_closes);
              tcase_add_test(tc, the_client_closes_without_a_code);
              tcase_add_test(tc, a_close_waits_for_the_end_of_a_frame);
              tcase_add_test(tc, the_application_closes);
              tcase_add_test(tc, the_client_does_not_answer_a_close);
              tcase_add_test(tc, the_client_is_gone);
              tcase_add_loop_test(tc, the_application_ends, 0, RS_COUNT(ends));
              tcase_add_test(tc, the_application_dies_within_a_frame);
              tcase_add_loop_test(tc, bad_applications, 0, RS_COUNT(bad_records));
              tcase_add_test(tc, the_server_stops); tcase_add_test(tc, pings);
              tcase_add_test(tc, no_ping_times_out_while_nothing_is_read);
              tcase_add_test(tc, no_ping_times_out_while_the_client_reads);
              tcase_add_test(tc, only_the_last_ping_is_answered);)
