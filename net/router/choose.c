#include "net/router/choose.h"

#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "core/base/json.h"
#include "net/router/dataplane.h"
#include "net/router/peer.h"
#include "net/router/pool-internal.h"

#include <stdatomic.h>
#include <string.h>

#define PAUSE (200 * RS_MS) /* after a router was found to be away, before it is asked again */

enum state {
    IDLE,   /* no candidate yet, or its pause ends at `due` */
    ASKED,  /* until `due` */
    CHOSEN, /* waits for a slot of its groups; asked again at `due` */
    LOOSE,  /* an ordinary request: no choice was to be had, or it is bound */
};

struct rs_choice {
    struct rs_list link; /* in the chooser's list, while it is held */
    struct rs_request *r;
    uint64_t id;      /* of the last question */
    uint64_t request; /* its number among the pool's requests */
    enum state state;
    int64_t due; /* 0: nothing */
    unsigned tries;
    json_t *groups; /* [[replica ids], ..] */
};

struct rs_chooser {
    struct rs_pool *pool;
    struct rs_list held;
    struct rs_timer timer;
    uint64_t last_id, last_request;
    int64_t away_until;
    int64_t patience; /* for an answer */
    int64_t backoff, backoff_max;
    double backoff_factor;
    bool late; /* its last answer did not come in time */
    bool tell; /* the router wants to know what became of requests */
};

static int64_t ns_of(const json_t *conf, const char *key, double def)
{
    double s = rs_json_num(conf, key, def);

    return (int64_t)((s > 0 && s < 3600 ? s : def) * 1e9);
}

void rs_chooser_configure(struct rs_chooser *c, const json_t *conf)
{
    double factor = rs_json_num(conf, "backoff_multiplier", 2);

    c->patience = ns_of(conf, RS_ROUTER_PATIENCE, 0.1);
    c->backoff = ns_of(conf, "initial_backoff_s", 0.025);
    c->backoff_max = ns_of(conf, "max_backoff_s", 0.5);
    c->backoff_factor = factor >= 1 && factor < 1000 ? factor : 2;
}

/* --- giving up on a choice --------------------------------------------------------------------- */

/* The request is given away like any other from here on. */
static void let_loose(struct rs_chooser *c, struct rs_choice *x)
{
    x->state = LOOSE;
    x->due = 0;
    rs_list_remove(&x->link);
    rs_queue_unhold(&c->pool->queue, &x->r->waiter);
}

static void fall_back(struct rs_chooser *c, struct rs_choice *x)
{
    let_loose(c, x);
    atomic_fetch_add_explicit(&c->pool->figures->fallbacks, 1, memory_order_relaxed);
    rs_series_add(c->pool->fallbacks, 1);
}

/* --- questions --------------------------------------------------------------------------------- */

static bool is_candidate(const struct rs_pool *p, const struct rs_slots *s,
                         const struct rs_request *r)
{
    return s->admitted && !s->blocked && s->limit && !(s->remote && r->local_only) &&
           rs_queue_belongs(&p->queue, &r->waiter, s);
}

static const char *name_of(struct rs_backend *b)
{
    return b->replica_id ? b->replica_id : rs_peer_backend_node(b);
}

/* Another node is one candidate under its own name: which of its replicas works, it decides. */
static json_t *candidates(const struct rs_pool *p, const struct rs_request *r)
{
    json_t *list = json_array();

    rs_list_for_each (it, &p->queue.slots) {
        struct rs_slots *s = rs_container_of(it, struct rs_slots, link);
        struct rs_backend *b = rs_container_of(s, struct rs_backend, slots);

        if (is_candidate(p, s, r))
            json_array_append_new(list,
                                  json_pack("{s:s, s:b, s:i, s:i}", "replica_id", name_of(b),
                                            "remote", s->remote, "in_flight", (int)s->in_flight,
                                            "max_ongoing_requests", (int)s->limit));
    }
    return list;
}

static json_t *text_of(const struct rs_fields *f, enum rs_tag tag, const char *def)
{
    json_t *j = rs_fields_has(f, tag) ? json_stringn(f->at[tag].data, f->at[tag].len) : NULL;

    return j ? j : json_string(def);
}

static json_t *metadata(const struct rs_request *r, const struct rs_choice *x)
{
    struct rs_fields f = {0};

    if (rs_fields_parse(rs_buf_head(&r->meta), rs_buf_len(&r->meta), &f, NULL) < 0)
        return json_object();
    return json_pack("{s:o, s:I, s:o, s:o, s:o, s:o, s:o, s:b, s:b}", "request_id",
                     text_of(&f, RS_TAG_REQUEST_ID, ""), "internal_request_id",
                     (json_int_t)x->request, "call_method", text_of(&f, RS_TAG_METHOD, "__call__"),
                     "route", text_of(&f, RS_TAG_ROUTE, ""), "app_name",
                     text_of(&f, RS_TAG_APP, ""), "multiplexed_model_id",
                     text_of(&f, RS_TAG_MODEL_ID, ""), "session_id",
                     text_of(&f, RS_TAG_SESSION_ID, ""), "is_http_request",
                     r->kind != RS_REQUEST_CALL, "is_streaming", rs_fields_has(&f, RS_TAG_STREAM));
}

static void ask(struct rs_chooser *c, struct rs_choice *x, int64_t now)
{
    struct rs_pool *p = c->pool;
    json_t *replicas;

    if (now < c->away_until) {
        fall_back(c, x);
        return;
    }
    replicas = candidates(p, x->r);
    if (json_array_size(replicas) == 0) { /* with the first one, pump asks */
        json_decref(replicas);
        x->state = IDLE;
        x->due = 0;
        return;
    }
    x->state = ASKED;
    x->due = now + c->patience;
    x->id = ++c->last_id;
    p->ops->on_choose(p, x->id,
                      json_pack("{s:s, s:o, s:o}", "deployment", p->name, "request",
                                metadata(x->r, x), "replicas", replicas),
                      p->arg);
}

static void tell(const struct rs_chooser *c, const char *event, const struct rs_choice *x,
                 const struct rs_backend *b)
{
    struct rs_pool *p = c->pool;

    if (c->tell)
        p->ops->on_choose(p, 0,
                          json_pack("{s:s, s:s, s:o, s:s}", "deployment", p->name, "event", event,
                                    "request", metadata(x->r, x), "replica_id",
                                    name_of((struct rs_backend *)(uintptr_t)b)),
                          p->arg);
}

/* For status: the router does not answer in time, or does again. */
static void note_late(struct rs_chooser *c, bool late)
{
    struct rs_pool *p = c->pool;

    if (c->late == late)
        return;
    c->late = late;
    p->ops->on_choose(p, 0,
                      json_pack("{s:s, s:f}", "event", late ? "late" : "timely", "patience_ms",
                                (double)c->patience / RS_MS),
                      p->arg);
}

/* --- time -------------------------------------------------------------------------------------- */

static void set_timer(struct rs_chooser *c)
{
    int64_t at = 0;

    rs_list_for_each (it, &c->held) {
        const struct rs_choice *x = rs_container_of(it, struct rs_choice, link);

        if (x->due && (!at || x->due < at))
            at = x->due;
    }
    if (at)
        rs_timer_start(&c->timer, c->pool->loop, at);
    else
        rs_timer_stop(&c->timer);
}

static int on_timer(struct rs_timer *t)
{
    struct rs_chooser *c = rs_container_of(t, struct rs_chooser, timer);
    int64_t now = rs_loop_now(c->pool->loop);

    rs_list_for_each (it, &c->held) {
        struct rs_choice *x = rs_container_of(it, struct rs_choice, link);

        if (!x->due || x->due > now)
            continue;
        if (x->state == ASKED) {
            fall_back(c, x);
            note_late(c, true);
        } else {
            ask(c, x, now);
        }
    }
    set_timer(c);
    rs_pool_pump(c->pool);
    return 0;
}

/* --- life -------------------------------------------------------------------------------------- */

struct rs_chooser *rs_chooser_new(struct rs_pool *p, const json_t *conf)
{
    struct rs_chooser *c = rs_alloc(sizeof(*c));

    c->pool = p;
    rs_list_init(&c->held);
    c->timer.fn = on_timer;
    rs_chooser_configure(c, conf);
    return c;
}

void rs_chooser_free(struct rs_chooser *c)
{
    if (!c)
        return;
    rs_list_for_each (it, &c->held)
        let_loose(c, rs_container_of(it, struct rs_choice, link));
    rs_timer_stop(&c->timer);
    free(c);
}

/* --- requests ---------------------------------------------------------------------------------- */

/* Behind all that are due before it. */
static struct rs_list *place_of(struct rs_chooser *c, const struct rs_choice *x)
{
    struct rs_list *at = c->held.prev;

    while (at != &c->held &&
           rs_queue_before(&c->pool->queue, &x->r->waiter,
                           &rs_container_of(at, struct rs_choice, link)->r->waiter))
        at = at->prev;
    return at;
}

void rs_chooser_add(struct rs_chooser *c, struct rs_request *r)
{
    struct rs_choice *x = r->choice;

    if (!x) {
        x = r->choice = rs_alloc(sizeof(*x));
        x->r = r;
        x->request = ++c->last_request;
    }
    rs_queue_hold(&c->pool->queue, &r->waiter);
    rs_list_init(&x->link);
    rs_list_push_front(place_of(c, x), &x->link);
    ask(c, x, rs_loop_now(c->pool->loop));
    set_timer(c);
}

void rs_chooser_bound(struct rs_chooser *c, struct rs_request *r, const struct rs_backend *b)
{
    struct rs_choice *x = r->choice;

    if (!x)
        return;
    x->state = LOOSE;
    x->due = 0;
    rs_list_remove(&x->link);
    json_decref(x->groups);
    x->groups = NULL;
    tell(c, "routed", x, b);
}

void rs_chooser_drop(struct rs_chooser *c, struct rs_request *r, const struct rs_backend *b)
{
    struct rs_choice *x = r->choice;

    if (!x)
        return;
    if (c && b)
        tell(c, "completed", x, b);
    rs_list_remove(&x->link);
    json_decref(x->groups);
    free(x);
    r->choice = NULL;
}

/* Of one group the free one with the fewest in flight; NULL: none is free. */
static struct rs_slots *free_of(const struct rs_pool *p, const json_t *group,
                                const struct rs_request *r)
{
    struct rs_slots *best = NULL;
    const json_t *id;
    size_t i;

    rs_list_for_each (it, &p->queue.slots) {
        struct rs_slots *s = rs_container_of(it, struct rs_slots, link);
        const char *name = name_of(rs_container_of(s, struct rs_backend, slots));

        if (!is_candidate(p, s, r) || s->in_flight >= s->limit ||
            (best && best->in_flight <= s->in_flight))
            continue;
        json_array_foreach (group, i, id)
            if (json_is_string(id) && strcmp(json_string_value(id), name) == 0)
                best = s;
    }
    return best;
}

static struct rs_slots *slot_for(const struct rs_pool *p, const struct rs_choice *x)
{
    const json_t *group;
    size_t i;

    json_array_foreach (x->groups, i, group) {
        struct rs_slots *s = free_of(p, group, x->r);

        if (s)
            return s;
    }
    return NULL;
}

struct rs_request *rs_chooser_next(struct rs_chooser *c, struct rs_slots **ret)
{
    bool asked = false;
    int64_t now;

    rs_list_for_each (it, &c->held) {
        struct rs_choice *x = rs_container_of(it, struct rs_choice, link);
        struct rs_slots *s = x->state == CHOSEN ? slot_for(c->pool, x) : NULL;

        if (x->state == IDLE && !x->due && !rs_list_empty(&c->pool->queue.slots)) {
            ask(c, x, rs_loop_now(c->pool->loop));
            asked = true;
        }
        if (!s)
            continue;
        now = rs_loop_now(c->pool->loop);
        *ret = rs_queue_take(&c->pool->queue, &x->r->waiter, s, now) ? s : NULL;
        return x->r;
    }
    if (asked)
        set_timer(c);
    return NULL;
}

/* --- answers ----------------------------------------------------------------------------------- */

static int64_t pause_of(const struct rs_chooser *c, unsigned tries)
{
    double ns = (double)c->backoff;

    while (tries-- > 0 && ns < (double)c->backoff_max)
        ns *= c->backoff_factor;
    return ns < (double)c->backoff_max ? (int64_t)ns : c->backoff_max;
}

/* No usable groups: the router wants nobody of these to have it, or nonsense. It waits and asks again,
 * as it does when all of its groups are busy. */
static void take_groups(struct rs_chooser *c, struct rs_choice *x, const json_t *answer,
                        int64_t now)
{
    json_decref(x->groups);
    x->groups = json_deep_copy(json_object_get(answer, "groups"));
    x->state = CHOSEN;
    x->due = now + pause_of(c, x->tries++);
}

void rs_chooser_answer(struct rs_chooser *c, uint64_t id, const json_t *answer)
{
    int64_t now = rs_loop_now(c->pool->loop);
    bool usable = answer && json_is_array(json_object_get(answer, "groups"));

    if (!answer)
        c->away_until = now + PAUSE;
    else
        c->tell = rs_json_bool(answer, "tell", false);
    rs_list_for_each (it, &c->held) {
        struct rs_choice *x = rs_container_of(it, struct rs_choice, link);

        if (x->state != ASKED || (id ? x->id != id : answer != NULL))
            continue;
        if (usable)
            take_groups(c, x, answer, now);
        else
            fall_back(c, x);
        if (answer)
            note_late(c, false);
    }
    set_timer(c);
    rs_pool_pump(c->pool);
}
