/* Requests between lanes.
 *
 * struct rs_relay has a half for each lane, touched by that lane only, and is counted: the origin's
 * half, the home's half, and each message under way hold it. The origin's half ends with the last
 * reply or with cancel, the home's half when the twin ends; messages that come later find the half
 * ended and do nothing. Posts keep their order, so a half that ended hears of nothing it needs.
 */
#include "net/router/relay.h"

#include "core/base/alloc.h"
#include "core/base/cleanup.h"
#include "net/router/dataplane-internal.h"
#include "net/router/store.h"

#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

struct rs_relay {
    atomic_uint refs;
    struct rs_lane *origin, *home;
    char *app, *deployment;
    char replica[RS_REPLICA_ID_SHOWN]; /* written before the answer is posted, never after */
    struct rs_request *front;          /* the origin's half; NULL: ended */
    struct rs_request twin;            /* the home's half */
    uint64_t held;                     /* bytes of its body, from one lane to the other */
    bool over;
};

enum kind { FEED, WINDOW, DISPATCH, CANCEL, RESERVED, ANSWER, DATA, FAIL, TAKEN };

/* The bytes that it refers to follow it in the same block. */
struct message {
    struct rs_relay *relay;
    enum kind kind;
    bool end;
    uint64_t n;
    struct rs_chunk body;
    struct rs_answer answer;
    struct rs_failure failure;
    struct rs_store_hold *hold; /* on the objects of an answer: who sent it may let go of them */
};

static void unref(struct rs_relay *y)
{
    if (atomic_fetch_sub_explicit(&y->refs, 1, memory_order_acq_rel) != 1)
        return;
    atomic_fetch_sub_explicit(rs_dataplane_relays(y->origin->dataplane), 1, memory_order_release);
    rs_request_fini(&y->twin);
    free(y->app);
    free(y->deployment);
    free(y);
}

/* A message with room for `extra` bytes behind it, which `*tail` points to. */
static struct message *message(struct rs_relay *y, enum kind kind, size_t extra, char **tail)
{
    struct message *m = rs_alloc(sizeof(*m) + extra);

    atomic_fetch_add_explicit(&y->refs, 1, memory_order_relaxed);
    m->relay = y;
    m->kind = kind;
    m->body = RS_CHUNK_NONE;
    if (tail)
        *tail = (char *)(m + 1);
    return m;
}

static size_t inline_len(const struct rs_chunk *c)
{
    return c && c->fd < 0 ? (size_t)c->len : 0;
}

static const char *copy(char **tail, const void *data, size_t len)
{
    char *at = *tail;

    if (!data)
        return NULL;
    if (len)
        memcpy(at, data, len);
    *tail += len;
    return at;
}

static void copy_chunk(struct message *m, char **tail, struct rs_chunk *c)
{
    if (!c)
        return;
    m->body.len = c->len;
    if (c->fd >= 0)
        m->body.fd = rs_steal_fd(&c->fd);
    else
        m->body.data = copy(tail, c->data, (size_t)c->len);
}

static void hold_objects(struct message *m, const void *meta, size_t len)
{
    struct rs_field f = rs_store_field(meta, len, RS_TAG_OBJECTS);

    if (f.data && f.len % RS_OBJECT_ID == 0)
        m->hold = rs_store_hold(rs_dataplane_store(m->relay->home->dataplane), (const void *)f.data,
                                f.len / RS_OBJECT_ID);
}

static void free_message(struct message *m)
{
    rs_closep(&m->body.fd);
    rs_store_release(m->hold);
    unref(m->relay);
    free(m);
}

/* --- on the home lane -------------------------------------------------------------------------- */

static void on_origin_message(void *arg);

static void twin_ended(struct rs_relay *y)
{
    y->over = true;
    rs_request_let_go(
        &y->twin); /* what this lane counts: the last one to let go may be the other */
    unref(y);      /* the sender of the last message still holds it */
}

static void on_home_message(void *arg);

static void to_origin(struct message *m)
{
    rs_loop_post(m->relay->origin->loop, on_home_message, m);
}

static struct rs_relay *of_twin(struct rs_request *twin)
{
    return rs_container_of(twin, struct rs_relay, twin);
}

static void twin_answer(struct rs_request *twin, const struct rs_answer *a, struct rs_chunk *body,
                        bool end)
{
    struct rs_relay *y = of_twin(twin);
    char *tail;
    struct message *m = message(y, ANSWER, a->headers_len + a->meta_len + inline_len(body), &tail);

    m->answer = *a;
    m->answer.headers = copy(&tail, a->headers, a->headers_len);
    m->answer.meta = copy(&tail, a->meta, a->meta_len);
    copy_chunk(m, &tail, body);
    m->end = end;
    hold_objects(m, a->meta, a->meta_len);
    to_origin(m);
    if (end)
        twin_ended(y);
}

static void twin_data(struct rs_request *twin, struct rs_chunk *body, bool end)
{
    struct rs_relay *y = of_twin(twin);
    char *tail;
    struct message *m = message(y, DATA, inline_len(body), &tail);

    copy_chunk(m, &tail, body);
    m->end = end;
    to_origin(m);
    if (end)
        twin_ended(y);
}

static void twin_fail(struct rs_request *twin, const struct rs_failure *f)
{
    struct rs_relay *y = of_twin(twin);
    size_t text = f->message ? strlen(f->message) + 1 : 0;
    char *tail;
    struct message *m = message(y, FAIL, text + f->meta_len + inline_len(f->body), &tail);

    m->failure = *f;
    m->failure.message = copy(&tail, f->message, text);
    m->failure.meta = copy(&tail, f->meta, f->meta_len);
    copy_chunk(m, &tail, f->body);
    m->failure.body = f->body ? &m->body : NULL;
    to_origin(m);
    twin_ended(y);
}

static void twin_taken(struct rs_request *twin, uint64_t n)
{
    struct message *m = message(of_twin(twin), TAKEN, 0, NULL);

    m->n = n;
    to_origin(m);
}

static void twin_reserved(struct rs_request *twin, const char *replica_id)
{
    size_t len = strlen(replica_id) + 1;
    char *tail;
    struct message *m = message(of_twin(twin), RESERVED, len, &tail);

    m->answer.meta = copy(&tail, replica_id, len);
    to_origin(m);
}

static const struct rs_reply_ops twin_ops = {twin_answer, twin_data, twin_fail, twin_taken,
                                             twin_reserved};

static void on_start(void *arg)
{
    struct rs_relay *y = arg;

    rs_request_hold(&y->twin, &y->home->memory, y->held);
    rs_lane_submit_here(y->home, &y->twin, y->app, y->deployment);
}

static void on_origin_message(void *arg)
{
    struct message *m = arg;
    struct rs_relay *y = m->relay;

    if (!y->over) {
        switch (m->kind) {
        case FEED:
            rs_request_feed(&y->twin, &m->body, m->end);
            break;
        case WINDOW:
            rs_request_window(&y->twin, m->n);
            break;
        case DISPATCH:
            rs_request_dispatch(&y->twin, m->answer.meta, m->answer.meta_len, &m->body);
            break;
        default: /* CANCEL */
            rs_request_cancel(&y->twin);
            twin_ended(y);
            break;
        }
    }
    free_message(m);
}

/* --- on the origin's lane ---------------------------------------------------------------------- */

static void front_ended(struct rs_relay *y)
{
    y->front->relay = NULL;
    y->front = NULL;
    unref(y);
}

static void on_home_message(void *arg)
{
    struct message *m = arg;
    struct rs_relay *y = m->relay;
    struct rs_request *r = y->front;

    if (r) {
        if (r->replica && (m->kind == ANSWER || m->kind == FAIL))
            memcpy(r->replica, y->replica, sizeof(y->replica));
        if (m->end || m->kind == FAIL)
            front_ended(y);
        switch (m->kind) {
        case ANSWER:
            r->reply->answer(r, &m->answer, &m->body, m->end);
            break;
        case DATA:
            r->reply->data(r, &m->body, m->end);
            break;
        case FAIL:
            r->reply->fail(r, &m->failure);
            break;
        case RESERVED:
            r->reply->reserved(r, m->answer.meta);
            break;
        default: /* TAKEN */
            r->reply->taken(r, m->n);
            break;
        }
    }
    free_message(m);
}

void rs_relay_submit(struct rs_lane *origin, struct rs_lane *home, struct rs_request *r,
                     const char *app, const char *deployment)
{
    struct rs_relay *y = rs_alloc(sizeof(*y));
    struct rs_request *twin = &y->twin;

    atomic_init(&y->refs, 2);
    atomic_fetch_add_explicit(rs_dataplane_relays(origin->dataplane), 1, memory_order_relaxed);
    y->origin = origin;
    y->home = home;
    y->app = rs_strdup(app);
    y->deployment = rs_strdup(deployment);
    y->front = r;
    rs_request_reset(twin, &twin_ops);
    twin->meta = r->meta;
    twin->body = r->body;
    r->meta = r->body = (struct rs_buf){0};
    twin->body_fd = rs_steal_fd(&r->body_fd);
    twin->body_len = r->body_len;
    twin->body_end = r->body_end;
    twin->timeout_at = r->timeout_at;
    twin->route_at = r->route_at;
    twin->route_len = r->route_len;
    twin->deadline = r->deadline;
    twin->retry = r->retry;
    y->held = r->held;
    rs_request_let_go(r);
    twin->kind = r->kind;
    twin->local_only = r->local_only;
    twin->priority = r->priority;
    if (r->replica)
        twin->replica = y->replica;
    twin->waiter.wish = r->waiter.wish;
    twin->wants = r->wants;
    twin->objects = r->objects;
    r->relay = y;
    rs_loop_post(home->loop, on_start, y); /* the home's half keeps it */
}

static void to_home(struct message *m)
{
    rs_loop_post(m->relay->home->loop, on_origin_message, m);
}

void rs_relay_feed(struct rs_request *r, struct rs_chunk *body, bool end)
{
    char *tail;
    struct message *m = message(r->relay, FEED, inline_len(body), &tail);

    copy_chunk(m, &tail, body);
    m->end = end;
    to_home(m);
}

void rs_relay_window(struct rs_request *r, uint64_t n)
{
    struct message *m = message(r->relay, WINDOW, 0, NULL);

    m->n = n;
    to_home(m);
}

void rs_relay_dispatch(struct rs_request *r, const char *meta, size_t meta_len,
                       struct rs_chunk *body)
{
    char *tail;
    struct message *m = message(r->relay, DISPATCH, meta_len + inline_len(body), &tail);

    m->answer.meta = copy(&tail, meta, meta_len);
    m->answer.meta_len = meta_len;
    copy_chunk(m, &tail, body);
    to_home(m);
}

void rs_relay_cancel(struct rs_request *r)
{
    to_home(message(r->relay, CANCEL, 0, NULL));
    front_ended(r->relay);
}
