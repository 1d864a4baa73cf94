/* A WebSocket connection: bytes of a client and of an application in turns, and time that passes. What
 * comes out must be whole frames and records, and the machine must keep its promises at the end.
 *
 * Input: the first byte of each step tells what it is and how long: 0xxxxxxx client bytes, 10xxxxxx
 * application bytes, 110xxxxx seconds that pass, 111xxxxx one of the ends. */
#include "core/base/clock.h"
#include "net/http/websocket_session.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct rs_ws_conf conf = {.max_message = 300,
                                       .ping_every = 20 * RS_SEC,
                                       .ping_patience = 20 * RS_SEC,
                                       .close_patience = 10 * RS_SEC};

struct heard {
    bool closed;
    unsigned opcode; /* of the message that goes on */
    uint64_t message;
    struct rs_ws_text text;
};

/* What the application gets: whole records, at most one close, which is the last; true texts. */
static void check_in(struct rs_ws_session *s, struct heard *h)
{
    while (rs_buf_len(&s->in)) {
        struct rs_record r;
        const char *body;

        assert(rs_buf_len(&s->in) >= RS_RECORD_HEAD && !h->closed);
        r = rs_record_decode((const uint8_t *)rs_buf_head(&s->in));
        body = rs_buf_head(&s->in) + RS_RECORD_HEAD;
        assert(rs_buf_len(&s->in) - RS_RECORD_HEAD >= r.len);
        if (r.type == RS_RECORD_CLOSE) {
            assert(r.flags == RS_RECORD_FIN && r.len <= RS_WS_REASON_MAX);
            assert(rs_ws_code_ok(r.code) || r.code == RS_WS_NO_CODE || r.code == RS_WS_ABNORMAL);
            h->closed = true;
        } else {
            assert(r.type == RS_RECORD_TEXT || r.type == RS_RECORD_BINARY);
            assert(!h->opcode || h->opcode == r.type);
            assert(r.len || (r.flags & RS_RECORD_FIN));
            if (!h->opcode)
                h->message = 0, h->text = (struct rs_ws_text){0};
            h->opcode = r.flags & RS_RECORD_FIN ? 0 : r.type;
            h->message += r.len;
            assert(h->message <= conf.max_message);
            if (r.type == RS_RECORD_TEXT)
                assert(rs_ws_text_feed(&h->text, body, r.len) &&
                       (h->opcode || rs_ws_text_whole(&h->text)));
        }
        rs_buf_consume(&s->in, RS_RECORD_HEAD + r.len);
    }
    assert(h->closed == s->in_ended || s->app.ended);
}

/* What the client gets: frames, nothing after a close. The last one may lack the end that the
 * application has not given yet. */
static void check_out(const struct rs_ws_session *s, struct heard *h, struct rs_buf *all)
{
    rs_buf_append(all, rs_buf_head(&s->out), rs_buf_len(&s->out));
    while (rs_buf_len(all)) {
        struct rs_ws_head f;
        size_t head = rs_ws_head_parse((const uint8_t *)rs_buf_head(all), rs_buf_len(all), &f);

        assert(head && !f.masked && !f.reserved && !h->closed);
        assert(f.opcode <= RS_WS_BINARY || (f.opcode >= RS_WS_CLOSE && f.opcode <= RS_WS_PONG));
        if (f.opcode >= RS_WS_CLOSE)
            assert(f.fin && f.len <= RS_WS_CONTROL_MAX && f.len <= rs_buf_len(all) - head);
        else
            assert(h->opcode ? f.opcode == RS_WS_CONTINUATION : f.opcode != RS_WS_CONTINUATION);
        if (f.len > rs_buf_len(all) - head)
            return;
        if (f.opcode < RS_WS_CLOSE)
            h->opcode = f.fin ? 0 : 1;
        h->closed = f.opcode == RS_WS_CLOSE;
        rs_buf_consume(all, head + (size_t)f.len);
    }
}

static void step(struct rs_ws_session *s, uint8_t what, const uint8_t **data, size_t *size,
                 int64_t *now)
{
    static const enum rs_ws_end ends[] = {RS_WS_END_DONE, RS_WS_END_DIED, RS_WS_END_CUT,
                                          RS_WS_END_STOPPED};
    size_t n = what & 0x80 ? what & 0x3f : what;

    if (what < 0xc0) {
        n = n < *size ? n : *size;
        if (what & 0x80)
            rs_ws_app(s, (const char *)*data, n, *now);
        else
            rs_ws_client(s, (const char *)*data, n, *now);
        *data += n;
        *size -= n;
    } else if (what < 0xe0) {
        *now += (what & 0x1f) * RS_SEC;
        (void)rs_ws_tick(s, what & 1, *now);
    } else if (what % 6 < 4) {
        rs_ws_app_ended(s, ends[what % 6], *now);
    } else if (what % 6 == 4) {
        rs_ws_restart(s, *now);
    } else {
        rs_ws_client_gone(s);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct heard in = {0}, out = {0};
    struct rs_buf frames = {0};
    struct rs_ws_session s;
    int64_t now = RS_SEC, next;

    rs_ws_init(&s, &conf, now);
    while (size) {
        uint8_t what = *data++;

        size--;
        step(&s, what, &data, &size, &now);
        check_in(&s, &in);
        check_out(&s, &out, &frames);
        rs_buf_clear(&s.out);
    }
    /* Whatever happened: once the application has ended, a silent client does not keep it. */
    rs_ws_app_ended(&s, RS_WS_END_DONE, now);
    while (rs_ws_next(&s) != RS_WS_NEXT_DROP && (next = rs_ws_tick(&s, false, now))) {
        assert(next > now && next - now <= 20 * RS_SEC);
        now = next;
    }
    assert(rs_ws_next(&s) == RS_WS_NEXT_DROP);
    rs_ws_fini(&s);
    rs_buf_fini(&frames);
    return 0;
}
