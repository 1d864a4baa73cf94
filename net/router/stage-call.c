/* The calls of a graph's stages: each a request like any other, whose origin is the graph. */
#include "core/base/alloc.h"
#include "core/base/cleanup.h"
#include "core/base/clock.h"
#include "net/http/headers.h"
#include "net/router/dataplane-internal.h"
#include "net/router/stage-internal.h"

#include <assert.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

enum { SPARE_MAX = 256 };

static struct rs_stage_call *of(struct rs_request *r)
{
    return rs_container_of(r, struct rs_stage_call, r);
}

static int64_t now_of(const struct rs_live_graph *g)
{
    return rs_loop_now(g->lane->loop);
}

/* --- their memory ------------------------------------------------------------------------------ */

static int on_timer(struct rs_timer *t)
{
    struct rs_stage_call *c = rs_container_of(t, struct rs_stage_call, timer);
    struct rs_live_graph *g = c->graph;

    rs_flow_due(g->flow, c->task, now_of(g));
    rs_stage_act(g);
    return 0;
}

static struct rs_stage_call *call_of(struct rs_live_graph *g, struct rs_task *t)
{
    void **slot = rs_task_slot(t);
    struct rs_stage_call *c = *slot;
    struct rs_list *it;

    if (c)
        return c;
    it = rs_list_pop_front(&g->spare);
    c = it ? rs_container_of(it, struct rs_stage_call, link) : rs_alloc(sizeof(*c));
    g->n_spare -= it != NULL;
    if (!it)
        c->r.body_fd = -1;
    c->timer = (struct rs_timer){.fn = on_timer};
    rs_list_init(&c->link);
    c->graph = g;
    c->task = t;
    c->answer = NULL;
    c->active = c->replying = c->streams = c->doomed = false;
    *slot = c;
    g->calls++;
    return c;
}

static void forget(struct rs_stage_call *c)
{
    rs_timer_stop(&c->timer);
    if (c->task)
        *rs_task_slot(c->task) = NULL;
    c->task = NULL;
}

/* Nothing of it is under way any more: it can be used again. */
static void settle(struct rs_stage_call *c)
{
    struct rs_live_graph *g = c->graph;

    if (c->active || c->timer.loop || c->replying || c->doomed)
        return;
    forget(c);
    rs_value_unref(rs_steal(c->answer));
    g->calls--;
    if (g->n_spare >= SPARE_MAX || c->r.body.cap > 2 * RS_FRAME_MEMFD_MIN) {
        rs_request_fini(&c->r);
        free(c);
        return;
    }
    rs_closep(&c->r.body_fd);
    g->n_spare++;
    rs_list_push_front(&g->spare, &c->link);
}

/* --- what a stage answers ---------------------------------------------------------------------- */

static bool is_dropped(const char *name)
{
    return rs_http_hop_by_hop(name) || strcmp(name, "content-length") == 0;
}

static void take_head(struct rs_value *v, const struct rs_answer *a)
{
    struct rs_http_headers h = rs_http_headers(a->headers, a->headers_len);

    v->status = a->status;
    while (rs_http_headers_next(&h)) {
        if (is_dropped(h.name))
            continue;
        rs_buf_append(&v->headers, h.name, strlen(h.name) + 1);
        rs_buf_append(&v->headers, h.value, strlen(h.value) + 1);
    }
}

static void on_doomed(void *arg)
{
    struct rs_stage_call *c = arg;
    struct rs_live_graph *g = c->graph;

    if (c->active) {
        c->active = false;
        rs_request_cancel(&c->r);
    }
    c->doomed = false;
    settle(c);
    rs_stage_act(g);
}

/* It is not needed any more, but its backend is in the middle of telling us: in a moment. */
static void doom(struct rs_stage_call *c)
{
    forget(c);
    if (!c->doomed)
        rs_loop_post(c->graph->lane->loop, on_doomed, c);
    c->doomed = true;
}

static void drop(struct rs_stage_call *c)
{
    if (c->replying) {
        doom(c);
        return;
    }
    forget(c);
    if (c->active) {
        c->active = false;
        rs_request_cancel(&c->r);
    }
    settle(c);
}

static void failed(struct rs_stage_call *c, enum rs_outcome o, const char *why, unsigned later)
{
    struct rs_live_graph *g = c->graph;

    rs_flow_failed(g->flow, c->task, o, why, later, now_of(g));
}

/* A piece of an answer that is to be whole. False: it is not wanted any more. */
static bool gather(struct rs_stage_call *c, struct rs_chunk *body, bool end)
{
    uint64_t max = rs_flow_plan(c->graph->flow)->max_body, n = body->len;
    struct rs_passage *p;
    char why[96];

    if (c->answer->len + n > max) {
        snprintf(why, sizeof(why), "it answered more than max_body, %llu bytes",
                 (unsigned long long)max);
        failed(c, RS_OUTCOME_ERROR, why, 0);
        return false;
    }
    if (rs_stage_gather(c->answer, body) < 0) {
        failed(c, RS_OUTCOME_ERROR, "no memory for its answer", 0);
        return false;
    }
    p = rs_run_data(rs_task_run(c->task));
    if (p) /* a shadow's is bounded by its limit */
        rs_passage_hold(p, n);
    if (!end && n)
        rs_request_window(&c->r, n);
    return true;
}

/* After the machine was told: whatever comes of this call is not for it any more. */
static void done_with(struct rs_stage_call *c, bool end)
{
    struct rs_live_graph *g = c->graph;

    c->replying = false;
    if (end) {
        c->active = false;
        settle(c);
    }
    rs_stage_act(g);
}

static void whole(struct rs_stage_call *c)
{
    struct rs_live_graph *g = c->graph;
    struct rs_task *t = c->task;

    c->active = false;
    rs_flow_answered(g->flow, t, rs_steal(c->answer), now_of(g));
}

static void stream_ended(struct rs_stage_call *c, bool ok)
{
    struct rs_live_graph *g = c->graph;

    rs_passage_free(rs_run_data(rs_task_run(c->task)));
    rs_flow_streamed(g->flow, c->task, ok, now_of(g));
}

static void on_answer(struct rs_request *r, const struct rs_answer *a, struct rs_chunk *body,
                      bool end)
{
    struct rs_stage_call *c = of(r);
    struct rs_live_graph *g = c->graph;

    if (!c->task) {
        c->active = !end;
        return; /* on_doomed is on its way */
    }
    c->replying = true;
    if (!a->status) {
        failed(c, RS_OUTCOME_ERROR, "it did not answer as HTTP does", 0);
        if (!end)
            doom(c);
        done_with(c, end);
        return;
    }
    if (!end && a->status < 400 && rs_flow_begun(g->flow, c->task)) {
        struct rs_passage *p = rs_run_data(rs_task_run(c->task));

        rs_timer_stop(&c->timer);
        c->streams = true;
        p->stream = c;
        p->front->reply->answer(p->front, a, body, false);
        done_with(c, false);
        return;
    }
    c->answer = rs_value_new();
    take_head(c->answer, a);
    if (!gather(c, body, end)) {
        if (!end)
            doom(c);
    } else if (end) {
        whole(c);
    }
    done_with(c, end);
}

static void on_data(struct rs_request *r, struct rs_chunk *body, bool end)
{
    struct rs_stage_call *c = of(r);

    if (!c->task) {
        c->active = !end;
        return;
    }
    c->replying = true;
    if (c->streams) {
        struct rs_passage *p = rs_run_data(rs_task_run(c->task));
        struct rs_request *front = p->front;

        if (end)
            stream_ended(c, true);
        front->reply->data(front, body, end);
    } else if (!gather(c, body, end)) {
        if (!end)
            doom(c);
    } else if (end) {
        whole(c);
    }
    done_with(c, end);
}

/* In one line, without what is the stage's own business. */
static void explain(const struct rs_failure *f, char *to, size_t size)
{
    struct rs_fields fields;
    const struct rs_field *text = NULL, *type = NULL;

    if (f->meta && rs_fields_parse(f->meta, f->meta_len, &fields, NULL) == 0) {
        text = &fields.at[RS_TAG_MESSAGE];
        type = &fields.at[RS_TAG_ERROR_TYPE];
    }
    if (f->code == RS_WIRE_USER)
        snprintf(to, size, "it raised %.*s", type && type->len ? (int)type->len : 12,
                 type && type->len ? type->data : "an exception");
    else if (f->message)
        snprintf(to, size, "%s", f->message);
    else
        snprintf(to, size, "%.*s", text && text->len ? (int)text->len : 9,
                 text && text->len ? text->data : "it failed");
}

static enum rs_outcome outcome_of(enum rs_wire_error code)
{
    switch (code) {
    case RS_WIRE_BACKPRESSURE:
    case RS_WIRE_UNAVAILABLE:
        return RS_OUTCOME_OVERLOAD;
    case RS_WIRE_TIMEOUT:
        return RS_OUTCOME_TIMEOUT;
    default:
        return RS_OUTCOME_ERROR;
    }
}

static void on_fail(struct rs_request *r, const struct rs_failure *f)
{
    struct rs_stage_call *c = of(r);
    char why[400];

    c->active = false;
    if (!c->task)
        return;
    c->replying = true;
    if (c->streams) {
        struct rs_passage *p = rs_run_data(rs_task_run(c->task));
        struct rs_request *front = p->front;

        stream_ended(c, false);
        front->reply->fail(front, f);
    } else {
        explain(f, why, sizeof(why));
        failed(c, outcome_of(f->code), why, f->retry_after);
    }
    done_with(c, true);
}

/* The body is sent whole. */
static void on_taken(struct rs_request *r, uint64_t n)
{
    (void)r;
    (void)n;
}

static const struct rs_reply_ops reply = {on_answer, on_data, on_fail, on_taken};

/* --- what a stage is asked --------------------------------------------------------------------- */

/* Not for a stage whose answer is read, or kept, here. */
static bool is_conditional(const char *name)
{
    return strcmp(name, "accept-encoding") == 0 || strcmp(name, "range") == 0 ||
           strncmp(name, "if-", 3) == 0;
}

static bool is_replaced(const struct rs_step *s, const char *name)
{
    for (unsigned i = 0; i < s->n_headers; i += 2) {
        if (strcasecmp(s->headers[i], name) == 0)
            return true;
    }
    return false;
}

static void put_header(struct rs_buf *b, const char *name, const char *value)
{
    for (; *name; name++) {
        char c = *name >= 'A' && *name <= 'Z' ? (char)(*name | 0x20) : *name;

        rs_buf_append(b, &c, 1);
    }
    rs_buf_append(b, "", 1);
    rs_buf_append(b, value, strlen(value) + 1);
}

static void put_headers(struct rs_buf *meta, const struct rs_step *s, const struct rs_fields *f,
                        const struct rs_value *input, struct rs_buf *out)
{
    struct rs_http_headers h =
        rs_http_headers(f->at[RS_TAG_HEADERS].data, f->at[RS_TAG_HEADERS].len);
    const char *type = rs_value_header(input, "content-type");
    char length[24];

    rs_buf_clear(out);
    while (rs_http_headers_next(&h)) {
        bool ours = strcmp(h.name, "content-length") == 0 || strcmp(h.name, "expect") == 0 ||
                    strcmp(h.name, "content-type") == 0 ||
                    (input->status && strcmp(h.name, "content-encoding") == 0);

        if (ours || rs_http_hop_by_hop(h.name) || (!s->tail && is_conditional(h.name)) ||
            is_replaced(s, h.name))
            continue;
        put_header(out, h.name, h.value);
    }
    if (type && !is_replaced(s, "content-type"))
        put_header(out, "content-type", type);
    if (input->len) {
        snprintf(length, sizeof(length), "%llu", (unsigned long long)input->len);
        put_header(out, "content-length", length);
    }
    for (unsigned i = 0; i < s->n_headers; i += 2)
        put_header(out, s->headers[i], s->headers[i + 1]);
    rs_field_put(meta, RS_TAG_HEADERS, rs_buf_head(out), rs_buf_len(out));
}

static void copy_field(struct rs_buf *meta, const struct rs_fields *f, enum rs_tag tag)
{
    if (rs_fields_has(f, tag))
        rs_field_put(meta, tag, f->at[tag].data, f->at[tag].len);
}

/* As the client's request, but for what the step says otherwise. */
static void put_meta(struct rs_request *r, const struct rs_step *s, const struct rs_fields *f,
                     const struct rs_value *input, struct rs_buf *scratch)
{
    static const enum rs_tag same[] = {RS_TAG_REQUEST_ID,   RS_TAG_APP,      RS_TAG_ROOT_PATH,
                                       RS_TAG_CLIENT,       RS_TAG_SERVER,   RS_TAG_SCHEME,
                                       RS_TAG_HTTP_VERSION, RS_TAG_MODEL_ID, RS_TAG_SESSION_ID,
                                       RS_TAG_TRACEPARENT};
    struct rs_buf *meta = &r->meta;
    const struct rs_field *root = &f->at[RS_TAG_ROOT_PATH];

    rs_field_put_uint(meta, RS_TAG_KIND, RS_REQUEST_HTTP);
    rs_field_put_str(meta, RS_TAG_DEPLOYMENT, s->deployment);
    for (size_t i = 0; i < RS_COUNT(same); i++)
        copy_field(meta, f, same[i]);
    copy_field(meta, f, RS_TAG_ROUTE);
    r->route_len = f->at[RS_TAG_ROUTE].len;
    r->route_at = r->route_len ? rs_buf_len(meta) - r->route_len : 0;
    if (s->method)
        rs_field_put_str(meta, RS_TAG_HTTP_METHOD, s->method);
    else if (input->status)
        rs_field_put_str(meta, RS_TAG_HTTP_METHOD, "POST");
    else
        copy_field(meta, f, RS_TAG_HTTP_METHOD);
    if (s->path) {
        rs_buf_clear(scratch);
        rs_buf_append(scratch, root->data, root->len);
        rs_buf_puts(scratch, s->path);
        rs_field_put(meta, RS_TAG_PATH, rs_buf_head(scratch), rs_buf_len(scratch));
        rs_field_put_str(meta, RS_TAG_QUERY, s->query);
    } else {
        copy_field(meta, f, RS_TAG_PATH);
        copy_field(meta, f, RS_TAG_QUERY);
    }
    put_headers(meta, s, f, input, scratch);
}

static int put_body(struct rs_request *r, const struct rs_value *v)
{
    r->body_end = true;
    if (v->fd < 0) {
        if (v->len)
            rs_buf_append(&r->body, rs_buf_head(&v->body), (size_t)v->len);
        return 0;
    }
    r->body_fd = fcntl(v->fd, F_DUPFD_CLOEXEC, 0);
    r->body_len = v->len;
    return r->body_fd < 0 ? -1 : 0;
}

static void put_rules(struct rs_request *r, const struct rs_flow_action *a,
                      const struct rs_fields *f)
{
    const struct rs_step *s = rs_task_step(a->task);
    const struct rs_field *model = &f->at[RS_TAG_MODEL_ID], *session = &f->at[RS_TAG_SESSION_ID];
    const struct rs_passage *p = rs_run_data(a->run);

    r->kind = RS_REQUEST_HTTP;
    r->deadline = a->at;
    r->waiter.wish = (struct rs_wish){.model = rs_wish_hash(model->data, model->len),
                                      .session = rs_wish_hash(session->data, session->len)};
    if (rs_run_is_shadow(a->run)) {
        r->wants = RS_WANTS_FREE;
        r->priority = 0;
    } else {
        r->priority = p->front->priority;
        r->retry.safe = p->front->retry.safe || s->retries > 0;
    }
    rs_request_put_priority(r);
}

void rs_stage_call(struct rs_live_graph *g, const struct rs_flow_action *a)
{
    struct rs_stage_call *c = call_of(g, a->task);
    const struct rs_flow_info *i = rs_run_info(a->run);
    const char *meta = rs_buf_head(&i->text);
    struct rs_fields f;

    rs_value_unref(rs_steal(c->answer));
    rs_closep(&c->r.body_fd);
    rs_request_reset(&c->r, &reply);
    if (rs_fields_parse(meta, (size_t)(i->target - meta), &f, NULL) < 0 ||
        put_body(&c->r, a->value) < 0) {
        failed(c, RS_OUTCOME_ERROR, "no more descriptors", 0);
        settle(c);
        return;
    }
    put_meta(&c->r, rs_task_step(a->task), &f, a->value, &g->scratch);
    put_rules(&c->r, a, &f);
    c->active = true;
    rs_lane_submit(g->lane, &c->r, g->app, rs_task_step(a->task)->deployment);
}

void rs_stage_uncall(struct rs_live_graph *g, const struct rs_flow_action *a)
{
    struct rs_stage_call *c = *rs_task_slot(a->task);

    (void)g;
    if (c && c->active)
        drop(c);
}

void rs_stage_time(struct rs_live_graph *g, const struct rs_flow_action *a)
{
    struct rs_stage_call *c = *rs_task_slot(a->task);

    if (a->at) {
        c = call_of(g, a->task);
        rs_timer_start(&c->timer, g->lane->loop, a->at);
    } else if (c) {
        rs_timer_stop(&c->timer);
        settle(c);
    }
}
