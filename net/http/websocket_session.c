#include "net/http/websocket_session.h"

#include "core/base/clock.h"

#include <stdio.h>
#include <string.h>

const struct rs_ws_conf rs_ws_defaults = {.max_message = 16 << 20,
                                          .ping_every = 20 * RS_SEC,
                                          .ping_patience = 20 * RS_SEC,
                                          .close_patience = 10 * RS_SEC};

void rs_ws_init(struct rs_ws_session *s, const struct rs_ws_conf *conf, int64_t now)
{
    *s = (struct rs_ws_session){.conf = conf, .ping_at = now + conf->ping_every};
}

void rs_ws_fini(struct rs_ws_session *s)
{
    rs_buf_fini(&s->in);
    rs_buf_fini(&s->out);
}

/* --- to the application ------------------------------------------------------------------------ */

static void tell(struct rs_ws_session *s, const struct rs_ws_farewell *f)
{
    uint8_t head[RS_RECORD_HEAD];

    if (s->in_ended)
        return;
    rs_record_encode(
        &(struct rs_record){
            .type = RS_RECORD_CLOSE, .flags = RS_RECORD_FIN, .code = f->code, .len = f->len},
        head);
    rs_buf_append(&s->in, head, sizeof(head));
    rs_buf_append(&s->in, f->reason, f->len);
    s->in_ended = true;
    if (!s->code)
        s->code = f->code;
}

static void tell_code(struct rs_ws_session *s, uint16_t code)
{
    tell(s, &(struct rs_ws_farewell){.code = code});
}

/* --- to the client ----------------------------------------------------------------------------- */

static void put_control(struct rs_ws_session *s, uint8_t opcode, const void *data, size_t n)
{
    uint8_t head[RS_WS_HEAD_MAX];

    rs_buf_append(&s->out, head, rs_ws_head_put(head, opcode, true, n));
    rs_buf_append(&s->out, data, n);
}

static void put_close(struct rs_ws_session *s, int64_t now)
{
    const struct rs_ws_farewell *f = &s->farewell;
    char payload[RS_WS_CONTROL_MAX] = {(char)(f->code >> 8), (char)f->code};

    memcpy(payload + 2, f->reason, f->len);
    put_control(s, RS_WS_CLOSE, payload, f->code == RS_WS_NO_CODE ? 0 : 2u + f->len);
    s->close_sent = true;
    s->close_by = now + s->conf->close_patience;
    s->ping_at = s->pong_by = 0;
}

/* What waits to be said, where a frame ended. */
static void speak(struct rs_ws_session *s, int64_t now)
{
    if (s->app.inside || s->close_sent || s->hang_up || s->gone)
        return;
    if (s->pong_due) {
        put_control(s, RS_WS_PONG, s->pong, s->pong_len);
        s->pong_due = false;
    }
    if (s->closing) {
        put_close(s, now);
    } else if (s->ping_at && now >= s->ping_at) {
        uint32_t number = ++s->pings;

        put_control(s, RS_WS_PING, &number, sizeof(number));
        s->ping_at = 0;
        s->pong_by = now + s->conf->ping_patience;
    }
}

/* The first one counts. The patience runs from here: within a frame it cannot be said yet. */
static void say(struct rs_ws_session *s, const struct rs_ws_farewell *f, int64_t now)
{
    if (s->closing || s->hang_up || s->gone)
        return;
    s->closing = true;
    s->farewell = *f;
    s->close_by = now + s->conf->close_patience;
    if (!s->code)
        s->code = f->code;
    speak(s, now);
}

/* The server ends it; what else the client sends is not read. */
static void fail(struct rs_ws_session *s, uint16_t code, const char *reason, int64_t now)
{
    struct rs_ws_farewell f = {.code = code};

    f.len = (uint8_t)snprintf(f.reason, sizeof(f.reason), "%s", reason);
    s->client.deaf = true;
    say(s, &f, now);
    tell_code(s, RS_WS_ABNORMAL);
}

/* --- from the client --------------------------------------------------------------------------- */

/* Passes on a piece of a message. `last`: it is the end of its frame. */
static void take_data(struct rs_ws_session *s, const char *from, size_t n, bool last, int64_t now)
{
    bool end = last && s->client.frame.fin;
    uint8_t type = s->client.opcode == RS_WS_TEXT ? RS_RECORD_TEXT : RS_RECORD_BINARY;
    uint64_t at = s->client.frame.len - s->client.left;
    char *to;

    if (!n && !end)
        return;
    if (end)
        s->client.opcode = 0;
    if (s->closing || s->in_ended)
        return; /* what is wanted of it now is its close frame */
    to = rs_buf_reserve(&s->in, RS_RECORD_HEAD + n);
    rs_record_encode(
        &(struct rs_record){.type = type, .flags = end ? RS_RECORD_FIN : 0, .len = (uint32_t)n},
        (uint8_t *)to);
    to += RS_RECORD_HEAD;
    rs_ws_unmask(to, from, n, s->client.frame.mask, at);
    if (type == RS_RECORD_TEXT &&
        (!rs_ws_text_feed(&s->client.text, to, n) || (end && !rs_ws_text_whole(&s->client.text))))
        fail(s, RS_WS_NOT_TEXT, "a text that is not UTF-8", now);
    else
        rs_buf_commit(&s->in, RS_RECORD_HEAD + n);
}

static void take_close(struct rs_ws_session *s, size_t n, int64_t now)
{
    const char *p = s->client.control;
    struct rs_ws_farewell f = {.code = RS_WS_NO_CODE};
    struct rs_ws_text text = {0};

    if (n >= 2) {
        f.code = (uint16_t)((uint8_t)p[0] << 8 | (uint8_t)p[1]);
        f.len = (uint8_t)(n - 2);
        memcpy(f.reason, p + 2, f.len);
    }
    if (n == 1 || (n >= 2 && !rs_ws_code_ok(f.code))) {
        fail(s, RS_WS_PROTOCOL, "a close frame without a valid code", now);
    } else if (!rs_ws_text_feed(&text, f.reason, f.len) || !rs_ws_text_whole(&text)) {
        fail(s, RS_WS_NOT_TEXT, "a reason that is not UTF-8", now);
    } else {
        s->close_received = true;
        s->client.deaf = true;
        tell(s, &f);
        say(s, &f, now);
    }
}

static void take_control(struct rs_ws_session *s, int64_t now)
{
    size_t n = (size_t)s->client.frame.len;

    switch (s->client.frame.opcode) {
    case RS_WS_CLOSE:
        take_close(s, n, now);
        break;
    case RS_WS_PING: /* only the last one needs an answer */
        memcpy(s->pong, s->client.control, n);
        s->pong_len = (uint8_t)n;
        s->pong_due = !s->closing;
        break;
    default: /* a pong: that something came was noted */
        break;
    }
}

/* Why a frame with this head may not come now; NULL: it may. */
static const char *objection(const struct rs_ws_session *s, const struct rs_ws_head *h)
{
    if (h->reserved)
        return "reserved bits are set";
    if (!h->masked)
        return "a frame without a mask";
    if (h->len >> 63)
        return "a length beyond 63 bits";
    switch (h->opcode) {
    case RS_WS_CONTINUATION:
        return s->client.opcode ? NULL : "a continuation of nothing";
    case RS_WS_TEXT:
    case RS_WS_BINARY:
        return s->client.opcode ? "a message within another" : NULL;
    case RS_WS_CLOSE:
    case RS_WS_PING:
    case RS_WS_PONG:
        if (!h->fin)
            return "a control frame in pieces";
        return h->len > RS_WS_CONTROL_MAX ? "a control frame that is too long" : NULL;
    default:
        return "an unknown opcode";
    }
}

static bool is_control(const struct rs_ws_session *s)
{
    return s->client.frame.opcode >= RS_WS_CLOSE;
}

static void end_frame(struct rs_ws_session *s, int64_t now)
{
    s->client.inside = false;
    if (is_control(s))
        take_control(s, now);
    else
        s->client.message += s->client.frame.len;
}

static void begin_frame(struct rs_ws_session *s, int64_t now)
{
    const struct rs_ws_head *h = &s->client.frame;
    const char *why = objection(s, h);

    if (why) {
        fail(s, RS_WS_PROTOCOL, why, now);
        return;
    }
    if (!is_control(s)) {
        if (h->opcode != RS_WS_CONTINUATION) {
            s->client.opcode = h->opcode;
            s->client.message = 0;
            s->client.text = (struct rs_ws_text){0};
        }
        if (h->len > s->conf->max_message - s->client.message) {
            fail(s, RS_WS_TOO_BIG, "a message that is too big", now);
            return;
        }
    }
    s->client.inside = true;
    s->client.left = h->len;
    if (h->len)
        return;
    if (!is_control(s))
        take_data(s, NULL, 0, true, now);
    end_frame(s, now);
}

/* Bytes used of the `n` > 0. */
static size_t take_head(struct rs_ws_session *s, const char *data, size_t n, int64_t now)
{
    size_t room = RS_WS_HEAD_MAX - s->client.have, had = s->client.have;
    size_t more = n < room ? n : room, size;

    memcpy(s->client.head + had, data, more);
    size = rs_ws_head_parse(s->client.head, had + more, &s->client.frame);
    if (!size) {
        s->client.have += more;
        return more;
    }
    s->client.have = 0;
    begin_frame(s, now);
    return size - had;
}

static size_t take_payload(struct rs_ws_session *s, const char *data, size_t n, int64_t now)
{
    const struct rs_ws_head *h = &s->client.frame;
    size_t take = n < s->client.left ? n : (size_t)s->client.left;
    uint64_t at = h->len - s->client.left;

    if (is_control(s))
        rs_ws_unmask(s->client.control + at, data, take, h->mask, at);
    else
        take_data(s, data, take, take == s->client.left, now);
    s->client.left -= take;
    if (!s->client.left && !s->client.deaf)
        end_frame(s, now);
    return take;
}

void rs_ws_client(struct rs_ws_session *s, const char *data, size_t n, int64_t now)
{
    if (s->pong_by && n) { /* whatever it says, it is alive */
        s->pong_by = 0;
        s->ping_at = now + s->conf->ping_every;
    }
    while (n && !s->client.deaf) {
        size_t used = s->client.inside ? take_payload(s, data, n, now) : take_head(s, data, n, now);

        data += used;
        n -= used;
    }
    speak(s, now);
}

void rs_ws_client_gone(struct rs_ws_session *s)
{
    s->gone = s->client.deaf = true;
    tell_code(s, RS_WS_ABNORMAL);
    rs_buf_clear(&s->out);
    s->ping_at = s->pong_by = s->close_by = 0;
}

/* --- from the application ---------------------------------------------------------------------- */

static const char *bad_record(const struct rs_record *r)
{
    if (r->type < RS_RECORD_TEXT || r->type > RS_RECORD_CLOSE || r->flags & ~RS_RECORD_FIN)
        return "the application sent an unknown record";
    if (r->type != RS_RECORD_CLOSE)
        return NULL;
    if (r->len > RS_WS_REASON_MAX)
        return "the application sent too long a reason";
    return rs_ws_code_ok(r->code) ? NULL : "the application sent no valid close code";
}

static void begin_record(struct rs_ws_session *s, int64_t now)
{
    struct rs_record *r = &s->app.record;
    uint8_t head[RS_WS_HEAD_MAX];
    const char *why;
    bool fin;

    *r = rs_record_decode(s->app.head);
    why = bad_record(r);
    if (why) {
        fail(s, RS_WS_ERROR, why, now);
        return;
    }
    s->app.left = r->len;
    s->app.inside = true;
    if (r->type == RS_RECORD_CLOSE) {
        s->app.close = (struct rs_ws_farewell){.code = r->code};
        return;
    }
    fin = r->flags & RS_RECORD_FIN;
    rs_buf_append(&s->out, head,
                  rs_ws_head_put(head,
                                 s->app.goes_on              ? RS_WS_CONTINUATION
                                 : r->type == RS_RECORD_TEXT ? RS_WS_TEXT
                                                             : RS_WS_BINARY,
                                 fin, r->len));
    s->app.goes_on = !fin;
}

static void take_record(struct rs_ws_session *s, const char *data, size_t n)
{
    struct rs_ws_farewell *f = &s->app.close;

    s->app.left -= (uint32_t)n;
    if (s->app.record.type != RS_RECORD_CLOSE) {
        rs_buf_append(&s->out, data, n);
        return;
    }
    memcpy(f->reason + f->len, data, n);
    f->len = (uint8_t)(f->len + n);
}

void rs_ws_app(struct rs_ws_session *s, const char *data, size_t n, int64_t now)
{
    /* After a close, and when nobody listens, all of it is thrown away: records need not be told
     * apart any more. A frame that was begun is finished before. */
    while (!s->gone && !s->hang_up && !s->close_sent) {
        if (!s->app.inside && s->app.have == RS_RECORD_HEAD) {
            s->app.have = 0;
            begin_record(s, now);
        } else if (s->app.inside && !s->app.left) {
            s->app.inside = false;
            if (s->app.record.type == RS_RECORD_CLOSE)
                say(s, &s->app.close, now);
            speak(s, now);
        } else if (!n) {
            break;
        } else {
            size_t want = s->app.inside ? s->app.left : RS_RECORD_HEAD - s->app.have;
            size_t take = n < want ? n : want;

            if (s->app.inside) {
                take_record(s, data, take);
            } else {
                memcpy(s->app.head + s->app.have, data, take);
                s->app.have += take;
            }
            data += take;
            n -= take;
        }
    }
}

void rs_ws_app_ended(struct rs_ws_session *s, enum rs_ws_end how, int64_t now)
{
    if (s->app.ended)
        return;
    s->app.ended = true;
    s->in_ended = true;
    if (s->close_sent)
        return;
    if (how == RS_WS_END_CUT || s->app.inside) { /* within a frame nothing else can be said */
        s->hang_up = true;
        s->close_by = now + s->conf->close_patience;
        if (!s->code)
            s->code = RS_WS_ERROR;
    } else if (how == RS_WS_END_DIED) {
        fail(s, RS_WS_ERROR, "the replica died", now);
    } else if (how == RS_WS_END_STOPPED) {
        fail(s, RS_WS_RESTART, "the replica was stopped", now);
    } else {
        say(s, &(struct rs_ws_farewell){.code = RS_WS_NORMAL}, now);
    }
}

/* --- the rest ---------------------------------------------------------------------------------- */

void rs_ws_restart(struct rs_ws_session *s, int64_t now)
{
    tell_code(s, RS_WS_RESTART);
    say(s, &(struct rs_ws_farewell){.code = RS_WS_RESTART}, now);
}

void rs_ws_wrote(struct rs_ws_session *s, int64_t now)
{
    if (s->close_by)
        s->close_by = now + s->conf->close_patience;
    if (s->pong_by) /* the ping lies behind much that it is still taking */
        s->pong_by = now + s->conf->ping_patience;
}

int64_t rs_ws_tick(struct rs_ws_session *s, bool held_back, int64_t now)
{
    int64_t next;

    if (s->gone || s->cut)
        return 0;
    if (s->pong_by && held_back)
        s->pong_by = now + s->conf->ping_patience;
    if (s->pong_by && now >= s->pong_by) {
        s->pong_by = 0;
        fail(s, RS_WS_ERROR, "keepalive ping timeout", now);
    }
    if (s->close_by && now >= s->close_by) {
        s->cut = true;
        return 0;
    }
    speak(s, now);
    next = s->close_by ? s->close_by : s->pong_by ? s->pong_by : s->ping_at;
    if (next && next <= now) /* a ping that has to wait for the end of a frame */
        next = now + RS_SEC;
    return next;
}

enum rs_ws_next rs_ws_next(const struct rs_ws_session *s)
{
    if (s->gone || s->cut)
        return RS_WS_NEXT_DROP;
    if (s->hang_up)
        return RS_WS_NEXT_CLOSE;
    if (!s->close_sent)
        return RS_WS_NEXT_NOTHING;
    return s->close_received ? RS_WS_NEXT_CLOSE
           : s->client.deaf  ? RS_WS_NEXT_LINGER
                             : RS_WS_NEXT_NOTHING;
}
