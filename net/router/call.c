/* A request that the other side of a frame connection makes: a replica's handle call, or what another
 * node routes here. Its origin is the connection: the answer is written back as frames. */
#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "core/base/json.h"
#include "net/router/call-internal.h"
#include "net/router/wired.h"

static struct rs_call *of(struct rs_request *r)
{
    return rs_container_of(r, struct rs_call, r);
}

void rs_call_free(struct rs_call *call)
{
    rs_timer_stop(&call->timer);
    rs_call_objects_free(call);
    if (call->ch->figures)
        RS_FIGURE_ADD(call->ch->figures->calls, -1u);
    rs_list_remove(&call->link);
    rs_streams_take(&call->ch->in, call->stream);
    rs_request_fini(&call->r);
    free(call);
}

static bool is_kept(const struct rs_call *call)
{
    return call->objects && call->objects->into;
}

/* --- the answer -------------------------------------------------------------------------------- */

static void reply_answer(struct rs_request *r, const struct rs_answer *a, struct rs_chunk *body,
                         bool end)
{
    struct rs_call *call = of(r);
    struct rs_buf made = {0};
    const void *meta = a->meta;
    size_t len = a->meta_len;

    if (is_kept(call)) {
        rs_call_keep(call, meta, len, body, end);
        return;
    }
    call->begun = true;
    if (call->wire)
        rs_wired_head(call, a, end);
    if (!meta) {
        if (a->status)
            rs_field_put_uint(&made, RS_TAG_STATUS, a->status);
        if (a->headers)
            rs_field_put(&made, RS_TAG_HEADERS, a->headers, a->headers_len);
        meta = rs_buf_head(&made);
        len = rs_buf_len(&made);
    } else {
        rs_channel_grant(call->ch, meta, len);
    }
    rs_channel_write(call->ch, RS_MSG_RESPONSE, end, call->stream, meta, len, body);
    rs_buf_fini(&made);
    if (end)
        rs_call_free(call);
}

static void reply_data(struct rs_request *r, struct rs_chunk *body, bool end)
{
    struct rs_call *call = of(r);

    if (is_kept(call)) {
        rs_call_keep(call, NULL, 0, body, end);
        return;
    }
    if (call->wire && !end && rs_wired_item(call, body))
        return;
    call->items++;
    rs_channel_write(call->ch, RS_MSG_BODY, end, call->stream, NULL, 0, body);
    if (end)
        rs_call_free(call);
}

void rs_call_error_fields(const struct rs_failure *f, const char *type, struct rs_buf *out)
{
    rs_field_put_uint(out, RS_TAG_ERROR_CODE, f->code);
    rs_field_put_str(out, RS_TAG_ERROR_TYPE, type);
    rs_field_put_str(out, RS_TAG_MESSAGE, f->message);
    if (f->code == RS_WIRE_BACKPRESSURE) {
        rs_field_put_uint(out, RS_TAG_QUEUED, f->queued);
        rs_field_put_uint(out, RS_TAG_MAX_QUEUED, f->max_queued);
        if (f->retry_after)
            rs_field_put_uint(out, RS_TAG_RETRY_AFTER, f->retry_after);
    }
}

static void write_error(struct rs_call *call, const struct rs_failure *f, const char *type)
{
    struct rs_buf made = {0};
    const void *meta = f->meta;
    size_t len = f->meta_len;

    if (!meta) {
        rs_call_error_fields(f, type, &made);
        meta = rs_buf_head(&made);
        len = rs_buf_len(&made);
    }
    if (is_kept(call)) {
        rs_call_keep_error(call, meta, len, f->body);
    } else {
        rs_channel_grant(call->ch, meta, len);
        rs_channel_write(call->ch, RS_MSG_ERROR, true, call->stream, meta, len, f->body);
    }
    rs_buf_fini(&made);
}

void rs_call_end(struct rs_call *call, const struct rs_failure *f, const char *type)
{
    write_error(call, f, type);
    rs_call_free(call);
}

static void reply_fail(struct rs_request *r, const struct rs_failure *f)
{
    rs_call_end(of(r), f, NULL);
}

static void reply_taken(struct rs_request *r, uint64_t n)
{
    struct rs_call *call = of(r);

    rs_channel_give_back(call->ch, call->stream, &call->owed, n);
}

static void reply_reserved(struct rs_request *r, const char *replica_id)
{
    struct rs_call *call = of(r);
    rs_auto(rs_json_decrefp) json_t *j = json_pack("{s:s}", "replica_id", replica_id);

    call->granted = true;
    if (call->ch->conn)
        rs_conn_send_json(call->ch->conn, RS_MSG_RESERVED, call->stream, j);
}

static const struct rs_reply_ops reply = {reply_answer, reply_data, reply_fail, reply_taken,
                                          reply_reserved};

/* --- its life ---------------------------------------------------------------------------------- */

static int on_deadline(struct rs_timer *t)
{
    struct rs_call *call = rs_container_of(t, struct rs_call, timer);

    if (rs_call_wait_over(call))
        return 0;
    rs_request_cancel(&call->r);
    rs_call_end(call,
                &(struct rs_failure){.code = RS_WIRE_TIMEOUT,
                                     .message = "the time limit of the request passed"},
                NULL);
    return 0;
}

static size_t offset_of(const struct rs_frame *f, const struct rs_fields *fields, enum rs_tag tag)
{
    return rs_fields_has(fields, tag) ? (size_t)(fields->at[tag].data - f->meta) : 0;
}

static void sooner(struct rs_request *r, int64_t deadline)
{
    if (deadline && (!r->deadline || deadline < r->deadline))
        r->deadline = deadline;
}

/* The sooner of its own limit and that of the request on whose behalf it is made; as safe as that
 * (another node tells), and as urgent, if it does not say how urgent it is. */
static void inherit(struct rs_call *call, const struct rs_fields *fields)
{
    struct rs_loop *loop = call->ch->lane->loop;
    struct rs_request *r = &call->r;
    const struct rs_request *parent =
        call->parent ? rs_streams_get(&call->ch->out, call->parent) : NULL;
    uint64_t ms = rs_fields_uint(fields, RS_TAG_TIMEOUT_MS, 0);
    uint64_t priority = rs_fields_uint(fields, RS_TAG_PRIORITY, RS_PRIORITIES);

    r->retry.safe =
        parent ? parent->retry.safe : call->ch->node && rs_fields_uint(fields, RS_TAG_SAFE, 0) == 1;
    if (ms)
        sooner(r, rs_loop_now(loop) + (int64_t)ms * RS_MS);
    if (parent)
        sooner(r, parent->deadline);
    if (priority < RS_PRIORITIES)
        r->priority = (uint8_t)priority;
    else if (parent)
        r->priority = parent->priority;
    if (r->deadline)
        rs_timer_start(&call->timer, loop, r->deadline);
}

/* What the deployment that is called allows. */
static void limit(struct rs_call *call, int64_t timeout)
{
    struct rs_loop *loop = call->ch->lane->loop;
    int64_t before = call->r.deadline;

    if (!timeout)
        return;
    sooner(&call->r, rs_loop_now(loop) + timeout);
    if (call->r.deadline != before)
        rs_timer_start(&call->timer, loop, call->r.deadline);
}

static void take_body(struct rs_request *r, struct rs_frame *f)
{
    r->body_end = f->h.flags & RS_FRAME_END;
    if (f->body_fd >= 0) {
        r->body_fd = rs_steal_fd(&f->body_fd);
        r->body_len = f->h.body_len;
    } else if (f->h.body_len) {
        rs_buf_append(&r->body, f->body, (size_t)f->h.body_len);
    }
}

static int check(const struct rs_channel *ch, const struct rs_frame *f, struct rs_error *err)
{
    if ((f->h.stream & 1) == (ch->next & 1) || rs_streams_get(&ch->in, f->h.stream))
        return rs_error_set(err, RS_INVALID, "REQUEST with stream number %llu, which is not free",
                            (unsigned long long)f->h.stream);
    return 0;
}

struct rs_call *rs_call_new(struct rs_channel *ch, const struct rs_frame *f,
                            const struct rs_fields *fields)
{
    struct rs_call *call = rs_alloc(sizeof(*call));

    rs_request_reset(&call->r, &reply);
    call->ch = ch;
    call->stream = f->h.stream;
    call->parent = rs_fields_uint(fields, RS_TAG_PARENT, 0);
    call->timer.fn = on_deadline;
    rs_list_init(&call->link);
    rs_list_push_back(&ch->calls, &call->link);
    if (ch->figures)
        RS_FIGURE_ADD(ch->figures->calls, 1u);
    rs_streams_put(&ch->in, call->stream, call);
    inherit(call, fields);
    return call;
}

/* What is wanted beside work; -1: it may not be. */
static int wants(const struct rs_channel *ch, const struct rs_frame *f,
                 const struct rs_fields *fields, uint8_t *ret, struct rs_error *err)
{
    bool reserves = rs_fields_uint(fields, RS_TAG_KIND, 0) == RS_REQUEST_RESERVE;

    if (!reserves && !rs_fields_has(fields, RS_TAG_REPLICA))
        return 0;
    *ret = !reserves                                ? RS_WANTS_REPLICA
           : rs_fields_uint(fields, RS_TAG_LIST, 0) ? RS_WANTS_LIST
                                                    : RS_WANTS_SLOT;
    if (reserves && (!(f->h.flags & RS_FRAME_END) || f->h.body_len))
        return rs_error_set(err, RS_INVALID, "RESERVE with a body");
    if (ch->from_node && *ret == RS_WANTS_SLOT)
        return rs_error_set(err, RS_INVALID, "RESERVE of a slot from another node");
    return 0;
}

static int open_call(struct rs_channel *ch, struct rs_frame *f, const struct rs_fields *fields,
                     struct rs_error *err)
{
    rs_auto(rs_freep) char *app = NULL, *deployment = NULL;
    struct rs_route_target *to;
    struct rs_call *call;
    uint8_t wanted = RS_WANTS_WORK;
    int r = 0;

    if (wants(ch, f, fields, &wanted, err) < 0)
        return -1;
    if (!rs_fields_has(fields, RS_TAG_APP) || !rs_fields_has(fields, RS_TAG_DEPLOYMENT))
        return rs_error_set(err, RS_INVALID, "REQUEST without APP and DEPLOYMENT");
    app = rs_fields_dup(fields, RS_TAG_APP);
    deployment = rs_fields_dup(fields, RS_TAG_DEPLOYMENT);
    call = rs_call_new(ch, f, fields);
    call->r.kind = (uint8_t)rs_fields_uint(fields, RS_TAG_KIND, RS_REQUEST_CALL);
    call->r.wants = wanted;
    call->r.local_only = ch->from_node || wanted == RS_WANTS_SLOT;
    rs_buf_append(&call->r.meta, f->meta, f->h.meta_len);
    if (call->r.priority != RS_PRIORITY_DEFAULT && !rs_fields_has(fields, RS_TAG_PRIORITY))
        rs_request_put_priority(&call->r); /* for those who work on it */
    call->r.timeout_at = offset_of(f, fields, RS_TAG_TIMEOUT_MS);
    call->r.route_at = offset_of(f, fields, RS_TAG_ROUTE);
    call->r.route_len = fields->at[RS_TAG_ROUTE].len;
    call->r.waiter.wish = (struct rs_wish){
        .model = rs_wish_hash(fields->at[RS_TAG_MODEL_ID].data, fields->at[RS_TAG_MODEL_ID].len),
        .session =
            rs_wish_hash(fields->at[RS_TAG_SESSION_ID].data, fields->at[RS_TAG_SESSION_ID].len),
    };
    take_body(&call->r, f);
    rs_request_hold(&call->r, &ch->lane->memory, f->h.body_len);
    to = rs_map_get(&ch->lane->routes->targets, rs_route_key(&ch->lane->key, app, deployment));
    if (to && call->r.kind == RS_REQUEST_CALL)
        limit(call, to->request_timeout);
    if (rs_call_names_objects(fields) && !ch->node)
        r = rs_call_begin(call, fields, app, deployment, err);
    if (r == 0 && to)
        rs_lane_submit_to(ch->lane, &call->r, to);
    else if (r == 0)
        rs_lane_submit(ch->lane, &call->r, app, deployment);
    return r < 0 ? -1 : 0;
}

/* The second REQUEST on a stream that reserved a slot. */
static int dispatch(struct rs_call *call, struct rs_frame *f, const struct rs_fields *fields,
                    struct rs_error *err)
{
    struct rs_chunk body = {f->body, f->h.body_len, f->body_fd};

    if (!(f->h.flags & RS_FRAME_END) || rs_fields_uint(fields, RS_TAG_KIND, 0) != RS_REQUEST_CALL)
        return rs_error_set(err, RS_INVALID, "no whole call for a slot that was reserved");
    call->granted = false;
    rs_request_dispatch(&call->r, f->meta, f->h.meta_len, &body);
    f->body_fd = body.fd;
    return 0;
}

int rs_call_open(struct rs_channel *ch, struct rs_frame *f, struct rs_error *err)
{
    struct rs_call *call = rs_streams_get(&ch->in, f->h.stream);
    struct rs_fields fields;

    if (rs_fields_parse(f->meta, f->h.meta_len, &fields, err) < 0)
        return -1;
    if (call && call->granted)
        return dispatch(call, f, &fields, err);
    if (check(ch, f, err) < 0)
        return -1;
    switch (rs_fields_uint(&fields, RS_TAG_KIND, RS_REQUEST_CALL)) {
    case RS_REQUEST_GET:
    case RS_REQUEST_PUT:
    case RS_REQUEST_WAIT:
        return rs_object_request(ch, f, &fields, err);
    default:
        return open_call(ch, f, &fields, err);
    }
}

void rs_call_feed(struct rs_call *call, struct rs_chunk *body, bool end)
{
    if (!call->r.body_end)
        rs_request_feed(&call->r, body, end);
}

void rs_call_window(struct rs_call *call, uint64_t n)
{
    rs_request_window(&call->r, n);
}

void rs_call_cancel(struct rs_call *call, bool tell)
{
    struct rs_failure f = {.code = RS_WIRE_CANCELLED,
                           .message = "the request that made it was cancelled"};
    const char *type = NULL;

    if (!call->ch->conn) {
        f = (struct rs_failure){.code = RS_WIRE_DIED,
                                .message = "the process that made the call ended"};
        type = "OwnerDiedError";
    } else if (!tell) {
        f.message = "the call was cancelled";
    }
    rs_call_cancel_awaited(call);
    rs_request_cancel(&call->r);
    if (tell || is_kept(call))
        write_error(call, &f, type);
    rs_call_free(call);
}

void rs_call_cancel_all(struct rs_channel *ch)
{
    while (!rs_list_empty(&ch->calls))
        rs_call_cancel(rs_container_of(ch->calls.next, struct rs_call, link), false);
}

void rs_call_cancel_children(struct rs_channel *ch, uint64_t parent)
{
    struct rs_list *it = ch->calls.next;

    while (it != &ch->calls) {
        struct rs_call *call = rs_container_of(it, struct rs_call, link);

        it = it->next;
        if (call->parent == parent) {
            rs_call_cancel(call, true);
            it = ch->calls.next; /* a cancel may lead to others */
        }
    }
}
