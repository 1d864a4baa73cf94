/* Requests that come to a graph, and what it answers. */
#include "core/base/alloc.h"
#include "core/base/cleanup.h"
#include "core/base/clock.h"
#include "core/base/file.h"
#include "core/base/log.h"
#include "net/http/headers.h"
#include "net/router/stage-internal.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

/* --- bodies ------------------------------------------------------------------------------------ */

static int write_on(const struct rs_value *v, const struct rs_chunk *body)
{
    if (body->fd >= 0)
        return rs_file_copy(body->fd, 0, v->fd, v->len, body->len);
    return rs_file_write(v->fd, body->data, (size_t)body->len, v->len);
}

int rs_stage_gather(struct rs_value *v, struct rs_chunk *body)
{
    if (!body->len)
        return 0;
    if (!v->len && body->fd >= 0) { /* as it is, without a copy */
        v->fd = rs_steal_fd(&body->fd);
        v->len = body->len;
        return 0;
    }
    if (v->fd < 0 && body->fd < 0 && v->len + body->len <= RS_FRAME_MEMFD_MIN) {
        rs_buf_append(&v->body, body->data, (size_t)body->len);
        v->len += body->len;
        return 0;
    }
    /* One that came from elsewhere may be sealed: the first piece behind it is refused. */
    if (v->fd < 0 && rs_value_own(v, false) < 0)
        return -1;
    if (write_on(v, body) < 0 && (rs_value_own(v, false) < 0 || write_on(v, body) < 0))
        return -1;
    v->len += body->len;
    return 0;
}

/* --- graphs ------------------------------------------------------------------------------------ */

static struct rs_live_graph *find(const struct rs_lane *l, const char *app)
{
    rs_list_for_each (it, &l->graphs) {
        struct rs_live_graph *g = rs_container_of(it, struct rs_live_graph, link);

        if (!g->retired && strcmp(g->app, app) == 0)
            return g;
    }
    return NULL;
}

static void free_if_done(struct rs_live_graph *g)
{
    struct rs_list *it;

    if (!g->retired || g->acting || g->calls || !rs_list_empty(&g->passages) ||
        !rs_flow_idle(g->flow))
        return;
    rs_list_remove(&g->link);
    while ((it = rs_list_pop_front(&g->spare))) {
        struct rs_stage_call *c = rs_container_of(it, struct rs_stage_call, link);

        rs_request_fini(&c->r);
        free(c);
    }
    rs_flow_free(g->flow);
    rs_stage_metrics_fini(g);
    rs_buf_fini(&g->scratch);
    free(g->app);
    free(g);
}

static int64_t now_of(const struct rs_live_graph *g)
{
    return rs_loop_now(g->lane->loop);
}

void rs_stage_configure(struct rs_lane *l, const char *app, const json_t *graph)
{
    struct rs_live_graph *old = find(l, app), *g;
    struct rs_plan *plan = NULL;
    struct rs_hash_key key;
    struct rs_error err = {0};

    if (graph && rs_plan_new(&plan, graph, &err) < 0)
        rs_log_warn("a graph cannot be used", "application=\"%s\" reason=\"%s\"", app, err.msg);
    if (old && plan && strcmp(rs_flow_plan(old->flow)->text, plan->text) == 0) {
        rs_plan_free(plan);
        return; /* the same: what it has cached is still good */
    }
    if (old) {
        old->retired = true;
        free_if_done(old);
    }
    if (!plan)
        return;
    while (getrandom(&key, sizeof(key), 0) != sizeof(key))
        ;
    g = rs_alloc(sizeof(*g));
    g->lane = l;
    g->app = rs_strdup(app);
    rs_list_init(&g->link);
    rs_list_init(&g->passages);
    rs_list_init(&g->spare);
    g->flow = rs_flow_new(plan, &key, rs_stage_observe, g);
    rs_stage_metrics_init(g);
    rs_list_push_back(&l->graphs, &g->link);
}

/* --- answers ----------------------------------------------------------------------------------- */

void rs_passage_hold(struct rs_passage *p, uint64_t n)
{
    p->held += (int64_t)n;
    rs_memory_add(&p->graph->lane->memory, RS_HELD_WAITING, (int64_t)n);
}

void rs_passage_free(struct rs_passage *p)
{
    if (p->held)
        rs_memory_add(&p->graph->lane->memory, RS_HELD_WAITING, -p->held);
    rs_list_remove(&p->link);
    p->front->passage = NULL;
    rs_flow_info_unref(p->info);
    rs_value_unref(p->input);
    free(p);
}

/* The last word to who asked. */
static void answer(struct rs_request *front, struct rs_value *v)
{
    struct rs_answer a = {.status = v->status,
                          .headers = rs_buf_head(&v->headers),
                          .headers_len = rs_buf_len(&v->headers)};
    struct rs_chunk body = {rs_buf_head(&v->body), v->len, -1};

    if (v->fd >= 0) {
        /* A cache may have it too. */
        body.fd = v->refs > 1 ? fcntl(v->fd, F_DUPFD_CLOEXEC, 0) : rs_steal_fd(&v->fd);
        body.data = NULL;
        if (body.fd < 0) {
            front->reply->fail(front, &(struct rs_failure){.code = RS_WIRE_INTERNAL,
                                                           .message = "no more descriptors"});
            return;
        }
    }
    front->reply->answer(front, &a, &body, true);
    if (body.fd >= 0)
        close(body.fd);
}

static void answer_run(struct rs_live_graph *g, const struct rs_flow_action *a)
{
    struct rs_passage *p = rs_run_data(a->run);
    struct rs_request *front = p->front;

    (void)g;
    rs_passage_free(p);
    answer(front, a->value);
}

void rs_stage_act(struct rs_live_graph *g)
{
    struct rs_flow_action a;

    if (g->acting)
        return; /* whoever does go on */
    g->acting = true;
    while (rs_flow_next(g->flow, &a)) {
        switch (a.what) {
        case RS_DO_CALL:
            rs_stage_call(g, &a);
            break;
        case RS_DO_CANCEL:
            rs_stage_uncall(g, &a);
            break;
        case RS_DO_TIMER:
            rs_stage_time(g, &a);
            break;
        case RS_DO_ANSWER:
            answer_run(g, &a);
            break;
        }
    }
    g->acting = false;
    rs_stage_show_bytes(g);
    free_if_done(g);
}

/* --- requests ---------------------------------------------------------------------------------- */

/* The metadata as it came, then what is made of it. */
static struct rs_flow_info *info_of(const struct rs_request *r)
{
    struct rs_flow_info *i = rs_flow_info_new();
    size_t len = rs_buf_len(&r->meta);
    struct rs_fields f;
    const char *base;

    rs_buf_append(&i->text, rs_buf_head(&r->meta), len);
    if (rs_fields_parse(rs_buf_head(&r->meta), len, &f, NULL) == 0) {
        rs_buf_append(&i->text, f.at[RS_TAG_HTTP_METHOD].data, f.at[RS_TAG_HTTP_METHOD].len);
        rs_buf_append(&i->text, " ", 1);
        rs_buf_append(&i->text, f.at[RS_TAG_PATH].data, f.at[RS_TAG_PATH].len);
        rs_buf_append(&i->text, "?", 1);
        rs_buf_append(&i->text, f.at[RS_TAG_QUERY].data, f.at[RS_TAG_QUERY].len);
    }
    base = rs_buf_head(&i->text);
    i->target = base + len;
    i->target_len = rs_buf_len(&i->text) - len;
    if (rs_fields_parse(base, len, &f, NULL) == 0) {
        i->id = f.at[RS_TAG_REQUEST_ID].data;
        i->id_len = f.at[RS_TAG_REQUEST_ID].len;
        i->headers = f.at[RS_TAG_HEADERS].data;
        i->headers_len = f.at[RS_TAG_HEADERS].len;
    }
    return i;
}

static struct rs_value *input_of(struct rs_request *r, const struct rs_flow_info *i)
{
    const char *type = rs_http_header(i->headers, i->headers_len, "content-type");
    struct rs_value *v = rs_value_new();

    if (type) {
        rs_buf_append(&v->headers, "content-type", sizeof("content-type"));
        rs_buf_append(&v->headers, type, strlen(type) + 1);
    }
    if (r->body_fd >= 0) {
        v->fd = rs_steal_fd(&r->body_fd);
        v->len = r->body_len;
    } else {
        v->len = rs_buf_len(&r->body);
        v->body = r->body;
        r->body = (struct rs_buf){0};
    }
    return v;
}

static void refuse(struct rs_request *r, unsigned status, const char *text)
{
    rs_auto(rs_value_unrefp) struct rs_value *v = rs_value_line(status, "%s", text);

    answer(r, v);
}

/* All of the body is there. */
static void start(struct rs_passage *p)
{
    struct rs_live_graph *g = p->graph;
    struct rs_value *input = rs_steal(p->input);

    p->run = rs_flow_start(g->flow, rs_steal(p->info), input, p->front->deadline, p, now_of(g));
    rs_stage_act(g);
}

static void too_large(struct rs_passage *p)
{
    struct rs_request *front = p->front;
    struct rs_live_graph *g = p->graph;

    rs_passage_free(p);
    refuse(front, 413, "the request's body is longer than max_body of the graph");
    free_if_done(g);
}

bool rs_stage_submit(struct rs_lane *l, struct rs_request *r, const char *app)
{
    struct rs_live_graph *g = find(l, app);
    struct rs_passage *p;
    uint64_t len;

    if (!g)
        return false;
    if (r->kind == RS_REQUEST_WEBSOCKET) {
        refuse(r, 501, "a graph takes no WebSocket connections");
        return true;
    }
    if (r->kind != RS_REQUEST_HTTP || r->wants != RS_WANTS_WORK) {
        r->reply->fail(r, &(struct rs_failure){.code = RS_WIRE_NOT_FOUND,
                                               .message = "a declared graph takes HTTP requests "
                                                          "only; call its deployments"});
        return true;
    }
    p = rs_alloc(sizeof(*p));
    rs_list_init(&p->link);
    rs_list_push_back(&g->passages, &p->link);
    p->graph = g;
    p->front = r;
    p->info = info_of(r);
    p->input = input_of(r, p->info);
    r->passage = p;
    len = p->input->len;
    if (len > rs_flow_plan(g->flow)->max_body)
        too_large(p);
    else if (r->body_end)
        start(p);
    else
        r->reply->taken(r, len);
    return true;
}

void rs_stage_feed(struct rs_request *r, struct rs_chunk *body, bool end)
{
    struct rs_passage *p = r->passage;
    uint64_t n = body->len;

    if (!p->input)
        return;
    if (p->input->len + n > rs_flow_plan(p->graph->flow)->max_body) {
        too_large(p);
        return;
    }
    if (rs_stage_gather(p->input, body) < 0) {
        struct rs_request *front = p->front;

        rs_passage_free(p);
        front->reply->fail(front, &(struct rs_failure){.code = RS_WIRE_INTERNAL,
                                                       .message = "no memory for the body"});
        return;
    }
    rs_passage_hold(p, n);
    if (end)
        start(p);
    else if (n)
        r->reply->taken(r, n);
}

void rs_stage_window(struct rs_request *r, uint64_t n)
{
    if (r->passage->stream)
        rs_request_window(&r->passage->stream->r, n);
}

void rs_stage_cancel(struct rs_request *r)
{
    struct rs_passage *p = r->passage;
    struct rs_live_graph *g = p->graph;

    if (p->run)
        rs_flow_cancel(g->flow, p->run, now_of(g));
    rs_passage_free(p);
    rs_stage_act(g);
}

void rs_stage_close(struct rs_lane *l)
{
    while (!rs_list_empty(&l->graphs)) {
        struct rs_live_graph *g = rs_container_of(l->graphs.next, struct rs_live_graph, link);

        while (!rs_list_empty(&g->passages)) {
            struct rs_passage *p = rs_container_of(g->passages.next, struct rs_passage, link);
            struct rs_request *front = p->front;

            if (p->run)
                rs_flow_cancel(g->flow, p->run, now_of(g));
            rs_passage_free(p);
            front->reply->fail(front, &(struct rs_failure){.code = RS_WIRE_UNAVAILABLE,
                                                           .message = "the node stops"});
        }
        rs_flow_close(g->flow, now_of(g));
        g->retired = true;
        rs_list_remove(&g->link);
        rs_stage_act(g);
    }
}
