#include "net/router/channel.h"

#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "net/router/dataplane-internal.h"
#include "net/router/pool.h"
#include "net/router/store.h"
#include "net/router/wired.h"

#include <fcntl.h>
#include <string.h>

enum {
    STEP = 64 << 10,      /* credit is given back in steps of at least this */
    AHEAD_MAX = 64 << 20, /* more than this beyond its credit, and it is no replica of ours */
};

void rs_channel_write(struct rs_channel *ch, enum rs_msg type, bool end, uint64_t stream,
                      const void *meta, size_t meta_len, struct rs_chunk *body)
{
    unsigned flags = end ? RS_FRAME_END : 0;

    if (!ch->conn)
        return;
    if (body && body->fd >= 0)
        rs_conn_send_fd(ch->conn, type, flags, stream, meta, meta_len, rs_steal_fd(&body->fd),
                        body->len);
    else
        rs_conn_send(ch->conn, type, flags, stream, meta, meta_len, body ? body->data : NULL,
                     body ? (size_t)body->len : 0);
}

void rs_channel_give_back(struct rs_channel *ch, uint64_t stream, uint64_t *owed, uint64_t n)
{
    *owed += n;
    while (ch->conn && *owed >= STEP) {
        uint32_t credit = *owed > UINT32_MAX ? UINT32_MAX : (uint32_t)*owed;
        struct rs_buf meta = {0};

        rs_field_put_uint(&meta, RS_TAG_CREDIT, credit);
        rs_conn_send(ch->conn, RS_MSG_WINDOW, 0, stream, rs_buf_head(&meta), rs_buf_len(&meta),
                     NULL, 0);
        rs_buf_fini(&meta);
        *owed -= credit;
    }
}

/* --- outgoing ---------------------------------------------------------------------------------- */

/* Another node has to know, for its own replicas. */
static void tell_safe(struct rs_request *r)
{
    if (r->told_safe || !r->retry.safe || rs_buf_len(&r->meta) + 6 > RS_FRAME_META_MAX)
        return;
    rs_field_put_uint(&r->meta, RS_TAG_SAFE, 1);
    r->told_safe = true;
}

void rs_channel_send(struct rs_channel *ch, struct rs_request *r)
{
    struct rs_chunk body = {rs_buf_head(&r->body), rs_buf_len(&r->body), -1};

    bool again = r->body_end; /* it has all that is needed to be sent once more */

    if (r->body_fd >= 0) {
        body = (struct rs_chunk){.len = r->body_len,
                                 .fd = again ? fcntl(r->body_fd, F_DUPFD_CLOEXEC, 3) : -1};
        if (body.fd < 0) {
            body.fd = rs_steal_fd(&r->body_fd);
            again = false;
        }
    }
    r->stream = ch->next;
    r->ahead = r->owed = r->wire = r->wired = r->wired_spare = 0;
    r->unread = false;
    ch->next += 2;
    rs_streams_put(&ch->out, r->stream, r);
    rs_request_stamp(r, rs_loop_now(ch->lane->loop));
    if (ch->node)
        tell_safe(r);
    if (r->objects)
        rs_channel_grant(ch, rs_buf_head(&r->meta), rs_buf_len(&r->meta));
    rs_channel_write(ch, RS_MSG_REQUEST, r->body_end, r->stream, rs_buf_head(&r->meta),
                     rs_buf_len(&r->meta), &body);
    r->end_at = ch->conn ? rs_conn_sent(ch->conn) : 0;
    r->kept = again;
    if (!again) {
        rs_request_let_go(r);
        rs_buf_clear(&r->body);
    }
}

/* Which requests the other side did not get: those can be sent to another one. */
static void mark_unread(struct rs_channel *ch)
{
    for (size_t i = 0; i < ch->out.size; i++) {
        struct rs_request *r = ch->out.at[i].stream ? ch->out.at[i].value : NULL;

        if (r)
            r->unread = (r->end_at && rs_conn_unread(ch->conn, r->end_at)) ||
                        (ch->starts && !rs_starts_begun(ch->starts, r->stream));
    }
}

void rs_channel_feed(struct rs_channel *ch, struct rs_request *r, struct rs_chunk *body, bool end)
{
    rs_channel_write(ch, RS_MSG_BODY, end, r->stream, NULL, 0, body);
}

void rs_channel_window(struct rs_channel *ch, struct rs_request *r, uint64_t n)
{
    if (r->wire)
        n = rs_wired_window(ch, r, n);
    r->ahead -= n < r->ahead ? n : r->ahead;
    rs_channel_give_back(ch, r->stream, &r->owed, n);
}

void rs_channel_cancel(struct rs_channel *ch, struct rs_request *r)
{
    uint64_t stream = r->stream;

    rs_streams_take(&ch->out, stream);
    rs_channel_write(ch, RS_MSG_CANCEL, false, stream, NULL, 0, NULL);
    rs_call_cancel_children(ch, stream);
}

/* The last frame of a stream that nobody here knows. */
static void last_of_unknown(struct rs_channel *ch, uint64_t stream)
{
    if (ch->abandoned.count && rs_streams_take(&ch->abandoned, stream))
        ch->ops->on_ended(ch);
}

/* The answer is complete: the other side may forget the stream once our half is closed too. */
static void forget(struct rs_channel *ch, struct rs_request *r)
{
    rs_streams_take(&ch->out, r->stream);
    if (!r->body_end)
        rs_channel_write(ch, RS_MSG_BODY, true, r->stream, NULL, 0, NULL);
}

static struct rs_chunk chunk_of(struct rs_frame *f)
{
    return (struct rs_chunk){f->body, f->h.body_len, f->body_fd};
}

/* What the receiver did not take of a memfd is closed with the frame. */
static void hand_back(struct rs_frame *f, const struct rs_chunk *c)
{
    f->body_fd = c->fd;
}

static int count_ahead(struct rs_request *r, const struct rs_frame *f, struct rs_error *err)
{
    if (f->h.flags & RS_FRAME_END)
        return 0;
    if (r->ahead > AHEAD_MAX)
        return rs_error_set(err, RS_INVALID, "body of stream %llu far beyond its credit",
                            (unsigned long long)f->h.stream);
    r->ahead += f->h.body_len;
    return 0;
}

static int on_response(struct rs_channel *ch, struct rs_frame *f, struct rs_error *err)
{
    struct rs_request *r = rs_streams_get(&ch->out, f->h.stream);
    bool end = f->h.flags & RS_FRAME_END;
    struct rs_chunk body = chunk_of(f);
    struct rs_answer a = {.meta = f->meta, .meta_len = f->h.meta_len};
    struct rs_fields fields;

    if (rs_fields_parse(f->meta, f->h.meta_len, &fields, err) < 0)
        return -1;
    if (!r) {
        if (end)
            last_of_unknown(ch, f->h.stream);
        return 0;
    }
    if (count_ahead(r, f, err) < 0)
        return -1;
    a.status = (unsigned)rs_fields_uint(&fields, RS_TAG_STATUS, 0);
    a.headers = fields.at[RS_TAG_HEADERS].data;
    a.headers_len = fields.at[RS_TAG_HEADERS].len;
    if (end)
        forget(ch, r);
    else
        rs_request_drop_body(r);
    rs_request_answer(r, &a, &body, end);
    if (!end && rs_fields_has(&fields, RS_TAG_BODY_OF))
        rs_wired_begin(ch, r, &fields);
    hand_back(f, &body);
    return 0;
}

static int on_error(struct rs_channel *ch, struct rs_frame *f, struct rs_error *err)
{
    struct rs_chunk body = chunk_of(f);
    struct rs_failure failure = {.meta = f->meta, .meta_len = f->h.meta_len, .body = &body};
    struct rs_request *r;
    struct rs_fields fields;
    uint64_t code;
    char *message;

    if (rs_fields_parse(f->meta, f->h.meta_len, &fields, err) < 0)
        return -1;
    r = rs_streams_take(&ch->out, f->h.stream);
    if (!r) {
        last_of_unknown(ch, f->h.stream);
        return 0;
    }
    code = rs_fields_uint(&fields, RS_TAG_ERROR_CODE, RS_WIRE_INTERNAL);
    failure.code = code >= RS_WIRE_USER && code <= RS_WIRE_INTERNAL ? (enum rs_wire_error)code
                                                                    : RS_WIRE_INTERNAL;
    message = rs_fields_dup(&fields, RS_TAG_MESSAGE);
    failure.message = message;
    failure.raised = rs_fields_has(&fields, RS_TAG_ERROR_TYPE);
    failure.queued = (unsigned)rs_fields_uint(&fields, RS_TAG_QUEUED, 0);
    failure.max_queued = (unsigned)rs_fields_uint(&fields, RS_TAG_MAX_QUEUED, 0);
    failure.retry_after = (unsigned)rs_fields_uint(&fields, RS_TAG_RETRY_AFTER, 0);
    rs_request_fail(r, &failure);
    hand_back(f, &body);
    free(message);
    return 0;
}

static int on_body(struct rs_channel *ch, struct rs_frame *f, struct rs_error *err)
{
    struct rs_request *r = rs_streams_get(&ch->out, f->h.stream);
    struct rs_call *call = r ? NULL : rs_streams_get(&ch->in, f->h.stream);
    bool end = f->h.flags & RS_FRAME_END;
    struct rs_chunk body = chunk_of(f);

    if (r) {
        if (count_ahead(r, f, err) < 0)
            return -1;
        if (end)
            forget(ch, r);
        rs_request_data(r, &body, end);
    } else if (call) {
        rs_call_feed(call, &body, end);
    } else if (end) {
        last_of_unknown(ch, f->h.stream);
    }
    hand_back(f, &body);
    return 0;
}

static int on_window(struct rs_channel *ch, const struct rs_frame *f, struct rs_error *err)
{
    struct rs_request *r = rs_streams_get(&ch->out, f->h.stream);
    struct rs_call *call = r ? NULL : rs_streams_get(&ch->in, f->h.stream);
    struct rs_fields fields;
    uint64_t credit;

    if (rs_fields_parse(f->meta, f->h.meta_len, &fields, err) < 0)
        return -1;
    credit = rs_fields_uint(&fields, RS_TAG_CREDIT, 0);
    if (r && !r->body_end)
        rs_request_taken(r, credit);
    else if (call)
        rs_call_window(call, credit);
    return 0;
}

/* The replica found that we took the request back, while we found that it had begun (starts.h): it leaves
 * it to us. */
static void left(struct rs_channel *ch, uint64_t stream)
{
    struct rs_request *r = rs_streams_take(&ch->out, stream);

    if (r)
        rs_request_lost(r, false, NULL);
}

/* --- the connection ---------------------------------------------------------------------------- */

static int on_stream_frame(struct rs_channel *ch, struct rs_frame *f, struct rs_error *err)
{
    struct rs_call *call;

    if (f->h.stream == 0)
        return rs_error_set(err, RS_INVALID, "%s frame without a stream", rs_msg_name(f->h.type));
    if (!ch->greeted)
        return rs_error_set(err, RS_INVALID, "%s frame before HELLO", rs_msg_name(f->h.type));
    switch (f->h.type) {
    case RS_MSG_REQUEST:
        return rs_call_open(ch, f, err);
    case RS_MSG_BODY:
        return on_body(ch, f, err);
    case RS_MSG_RESPONSE:
        return on_response(ch, f, err);
    case RS_MSG_ERROR:
        return on_error(ch, f, err);
    case RS_MSG_WINDOW:
        return on_window(ch, f, err);
    case RS_MSG_HOLD:
        if (!ch->node)
            return rs_call_hold(ch, f, err);
        return rs_error_set(err, RS_INVALID, "HOLD frame from a node");
    default: /* CANCEL */
        call = rs_streams_get(&ch->in, f->h.stream);
        if (call)
            rs_call_cancel(call, false);
        else if (ch->starts)
            left(ch, f->h.stream);
        return 0;
    }
}

static void close_with(struct rs_channel *ch, const char *why)
{
    struct rs_conn *conn = ch->conn;

    if (!conn)
        return;
    mark_unread(ch);
    ch->conn = NULL;
    rs_call_cancel_all(ch);
    rs_store_drop_all(rs_dataplane_store(ch->lane->dataplane), &ch->refs);
    rs_conn_free(conn);
    ch->ops->on_close(ch, why);
}

static void on_frame(struct rs_conn *c, struct rs_frame *f, void *arg)
{
    struct rs_channel *ch = arg;
    struct rs_error err = {0};
    int r;

    (void)c;
    if (f->h.type <= RS_MSG_HOLD)
        r = on_stream_frame(ch, f, &err);
    else if (f->h.type == RS_MSG_REFS && !ch->node)
        r = rs_channel_refs(ch, f, &err);
    else if (f->h.type == RS_MSG_PASS && !ch->node)
        r = rs_wired_pass(ch, f, &err);
    else
        r = ch->ops->on_message(ch, f, &err);
    if (r < 0)
        close_with(ch, err.msg);
}

static void on_conn_close(struct rs_conn *c, const struct rs_error *why, void *arg)
{
    (void)c;
    close_with(arg, why->msg);
}

static const struct rs_conn_ops conn_ops = {.on_frame = on_frame, .on_close = on_conn_close};

int rs_channel_init(struct rs_channel *ch, struct rs_lane *lane, int fd, uint64_t first,
                    const struct rs_channel_ops *ops, struct rs_error *err)
{
    *ch = (struct rs_channel){.lane = lane, .ops = ops, .next = first, .greeted = true};
    rs_list_init(&ch->calls);
    return rs_conn_new(&ch->conn, lane->loop, fd, &conn_ops, ch, err);
}

void rs_channel_fini(struct rs_channel *ch)
{
    struct rs_conn *conn = ch->conn;

    rs_call_cancel_all(ch);
    ch->conn = NULL;
    if (ch->refs.map.used)
        rs_store_drop_all(rs_dataplane_store(ch->lane->dataplane), &ch->refs);
    rs_conn_free(conn);
    rs_streams_fini(&ch->out);
    rs_streams_fini(&ch->in);
    rs_streams_fini(&ch->abandoned);
}
